/* ggml's tensor types: their blocks, and turning them into floats. */
#ifndef FA_LLAMA_DEQUANTIZE_H
#define FA_LLAMA_DEQUANTIZE_H

#include <stddef.h>
#include <stdint.h>

/* Numbers as they stand in GGUF files. */
enum {
  FA_GGML_F32 = 0,
  FA_GGML_F16 = 1,
  FA_GGML_Q4_0 = 2,
  FA_GGML_Q4_1 = 3,
  FA_GGML_Q5_0 = 6,
  FA_GGML_Q5_1 = 7,
  FA_GGML_Q8_0 = 8,
  FA_GGML_Q8_1 = 9,
  FA_GGML_Q2_K = 10,
  FA_GGML_Q3_K = 11,
  FA_GGML_Q4_K = 12,
  FA_GGML_Q5_K = 13,
  FA_GGML_Q6_K = 14,
  FA_GGML_Q8_K = 15,
  FA_GGML_IQ4_NL = 20,
  FA_GGML_BF16 = 30
};

typedef struct fa_ggml_type {
  const char *name;
  int32_t block_elements;
  int32_t block_bytes;
  /* Turns blocks [0, elements / block_elements) into floats; elements is a multiple of block_elements. NULL
   * for types this runner only knows the size of. Source needs no alignment. */
  void (*to_float)(const uint8_t *source, float *floats, int64_t elements);
} fa_ggml_type;

/* NULL for a number that is no type. */
const fa_ggml_type *fa_ggml_type_of(int32_t type);

/* "F32, F16, ..." for error lines. */
extern const char fa_ggml_types_read[];

#endif
