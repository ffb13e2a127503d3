/* Safetensors: one file, or several with an index, mapped into memory and checked once when opened, so that
 * whatever is reached through these functions lies inside the files.
 *
 *   u64 bytes of the header, header (JSON: name -> {dtype, shape, data_offsets}), tensor data */
#ifndef FA_LLAMA_SAFETENSORS_H
#define FA_LLAMA_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "fastattention/fastattention.h"

enum { FA_SAFETENSORS_MAX_DIMS = 4 };

typedef struct fa_safetensor {
  const char *name;
  const char *dtype; /* as the file says it */
  int32_t
      type; /* FA_GGML_F32, FA_GGML_F16 or FA_GGML_BF16 of dequantize.h; -1: a type that is not read here */
  int32_t dims; /* 0 for a single number */
  int64_t
      size[FA_SAFETENSORS_MAX_DIMS]; /* size[0] is contiguous (the last of the file's shape); 1 beyond dims */
  int64_t elements;
  const uint8_t *data; /* any alignment */
  size_t bytes;
} fa_safetensor;

typedef struct fa_safetensors fa_safetensors;

/* path: a .safetensors file; an index (.json); or a directory with model.safetensors.index.json or
 * model.safetensors. Errors: ARGUMENT (not there, damaged), UNSUPPORTED (more than four dimensions), MEMORY.
 * A file that shrinks while it is open is fatal, as with every mapped file. */
fa_status fa_safetensors_open(const char *path, fa_safetensors **safetensors);
/* One file's bytes, which outlive the result; `name` is what error lines call them. */
fa_status fa_safetensors_open_memory(const void *bytes, size_t size, const char *name,
                                     fa_safetensors **safetensors);
void fa_safetensors_close(fa_safetensors *safetensors); /* NULL is fine */

const char *fa_safetensors_name(const fa_safetensors *safetensors);
int64_t fa_safetensors_count(const fa_safetensors *safetensors);
const fa_safetensor *fa_safetensors_at(const fa_safetensors *safetensors,
                                       int64_t index); /* in order of names */
const fa_safetensor *fa_safetensors_find(const fa_safetensors *safetensors,
                                         const char *name); /* NULL when absent */

#endif
