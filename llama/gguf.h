/* GGUF files: a typed key-value store and a list of tensors, mapped into memory and checked once when opened,
 * so that whatever is reached through these functions lies inside the file.
 *
 *   magic "GGUF", u32 version, u64 tensors, u64 pairs, pairs..., tensor records..., padding, tensor data
 *   string: u64 length, bytes          pair: string key, u32 type, value
 *   array:  u32 type, u64 count, values
 *   tensor: string name, u32 dims, u64 size[dims], u32 type, u64 offset */
#ifndef FA_LLAMA_GGUF_H
#define FA_LLAMA_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastattention/fastattention.h"

typedef enum fa_gguf_type {
  FA_GGUF_UINT8,
  FA_GGUF_INT8,
  FA_GGUF_UINT16,
  FA_GGUF_INT16,
  FA_GGUF_UINT32,
  FA_GGUF_INT32,
  FA_GGUF_FLOAT32,
  FA_GGUF_BOOL,
  FA_GGUF_STRING,
  FA_GGUF_ARRAY,
  FA_GGUF_UINT64,
  FA_GGUF_INT64,
  FA_GGUF_FLOAT64,
  FA_GGUF_TYPE_COUNT
} fa_gguf_type;

/* Bytes of the file; not terminated. */
typedef struct fa_gguf_string {
  const char *bytes;
  size_t length;
} fa_gguf_string;

typedef struct fa_gguf_array {
  fa_gguf_type type;
  uint64_t count;
  const uint8_t
      *values; /* of scalars: packed, little-endian, any alignment; of strings: see the cursor below */
} fa_gguf_array;

typedef struct fa_gguf_pair {
  fa_gguf_string key;
  fa_gguf_type type;
  union {
    uint64_t u; /* unsigned types and BOOL */
    int64_t i;  /* signed types */
    double f;
    fa_gguf_string string;
    fa_gguf_array array;
  } value;
} fa_gguf_pair;

enum { FA_GGUF_MAX_DIMS = 4 };

typedef struct fa_gguf_tensor {
  fa_gguf_string name;
  int32_t type; /* a ggml type number: dequantize.h */
  int32_t dims;
  int64_t size[FA_GGUF_MAX_DIMS]; /* size[0] is contiguous; 1 beyond dims */
  int64_t elements;
  const uint8_t *data;
  size_t bytes;
} fa_gguf_tensor;

typedef struct fa_gguf fa_gguf;

/* Errors: ARGUMENT (not there, not GGUF, damaged), MEMORY. A file that shrinks while it is open is fatal, as
 * with every mapped file. */
fa_status fa_gguf_open(const char *path, fa_gguf **gguf);
/* The same for bytes that outlive the result; `name` is what error lines call them. */
fa_status fa_gguf_open_memory(const void *bytes, size_t size, const char *name, fa_gguf **gguf);
void fa_gguf_close(fa_gguf *gguf); /* NULL is fine */

const char *fa_gguf_name(const fa_gguf *gguf);
int64_t fa_gguf_tensor_count(const fa_gguf *gguf);
const fa_gguf_tensor *fa_gguf_tensor_at(const fa_gguf *gguf, int64_t index);
const fa_gguf_tensor *fa_gguf_find_tensor(const fa_gguf *gguf, const char *name); /* NULL when absent */
const fa_gguf_pair *fa_gguf_find(const fa_gguf *gguf, const char *key);           /* NULL when absent */

/* Values by key. Absent: *value is left as it is and OK returned unless `required`. Of the wrong type or out
 * of [least, most]: ARGUMENT with a line. Any integer type serves an integer. */
fa_status fa_gguf_integer(const fa_gguf *gguf, const char *key, bool required, int64_t least, int64_t most,
                          int64_t *value);
fa_status fa_gguf_real(const fa_gguf *gguf, const char *key, bool required, double *value);
fa_status fa_gguf_bool(const fa_gguf *gguf, const char *key, bool *value);
fa_status fa_gguf_text(const fa_gguf *gguf, const char *key, bool required, fa_gguf_string *value);
/* An array of `type`; count 0 and no values when absent and not required. */
fa_status fa_gguf_list(const fa_gguf *gguf, const char *key, bool required, fa_gguf_type type,
                       fa_gguf_array *value);

/* Walks an array of strings: start with cursor = array.values, call at most array.count times. */
fa_gguf_string fa_gguf_next_string(const uint8_t **cursor);
/* Element of an array of INT32 or UINT32. */
int64_t fa_gguf_array_integer(const fa_gguf_array *array, uint64_t index);

bool fa_gguf_string_is(fa_gguf_string string, const char *text);

#endif
