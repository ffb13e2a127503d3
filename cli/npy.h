/* NumPy's .npy files, versions 1 to 3: C order, little endian, the types attention needs.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#ifndef FA_CLI_NPY_H
#define FA_CLI_NPY_H

#include "options.h"

typedef enum fa_npy_type {
  FA_NPY_FLOAT32,
  FA_NPY_FLOAT16,
  FA_NPY_INT32,
  FA_NPY_INT64,
  FA_NPY_BYTE /* bool or uint8 */
} fa_npy_type;

#define FA_NPY_MAX_RANK 4

typedef struct fa_npy {
  fa_npy_type type;
  int rank;
  int64_t shape[FA_NPY_MAX_RANK];
  int64_t elements;
  void *data; /* [elements], aligned to 64; released by fa_npy_free */
} fa_npy;

/* "(2, 128, 8, 64)" of any rank up to FA_NPY_MAX_RANK. Returns text. */
#define FA_NPY_SHAPE_TEXT 100
char *fa_npy_shape_text(int rank, const int64_t *shape, char text[FA_NPY_SHAPE_TEXT]);
const char *fa_npy_type_name(fa_npy_type type); /* numpy's: "float32" */
size_t fa_npy_type_bytes(fa_npy_type type);

/* Reads the whole array. `types` is a set of bits 1 << fa_npy_type that are allowed. Returns FA_EXIT_OK, or
 * prints the line, leaves *array empty and returns the exit code: usage for a type or rank that is not taken,
 * failure for a file that cannot be read or is not what it says. */
int fa_npy_read(const char *path, unsigned types, fa_npy *array);
void fa_npy_free(fa_npy *array); /* fine on a zeroed one */

/* Version 1.0, C order; FLOAT32 or FLOAT16. The stream's own error flag is checked by fa_output_commit. */
void fa_npy_write(fa_output *output, fa_npy_type type, int rank, const int64_t *shape, const void *data);

#endif
