/* Metadata by key, with the type and range the caller needs or a line that says what is wrong. */
#include <math.h>
#include <string.h>

#include "gguf.h"
#include "llama_error.h"

static const char *const type_names[FA_GGUF_TYPE_COUNT] = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                                           "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                                           "UINT64", "INT64",   "FLOAT64"};

/* *pair is NULL for OK when the key may be absent and is. */
static fa_status find(const fa_gguf *gguf, const char *key, bool required, const fa_gguf_pair **pair) {
  *pair = fa_gguf_find(gguf, key);
  if (*pair || !required) return FA_OK;
  return fa_llama_fail(FA_ERROR_ARGUMENT,
                       "%s: metadata '%s' is missing; the file does not hold a whole model",
                       fa_gguf_name(gguf), key);
}

static fa_status wrong_type(const fa_gguf *gguf, const char *key, fa_gguf_type type, const char *wanted) {
  return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: metadata '%s' is of type %s; it must be %s",
                       fa_gguf_name(gguf), key, type_names[type], wanted);
}

fa_status fa_gguf_integer(const fa_gguf *gguf, const char *key, bool required, int64_t least, int64_t most,
                          int64_t *value) {
  const fa_gguf_pair *pair;
  const fa_status status = find(gguf, key, required, &pair);
  if (!pair) return status;
  int64_t given;
  switch (pair->type) {
    case FA_GGUF_UINT8:
    case FA_GGUF_UINT16:
    case FA_GGUF_UINT32:
    case FA_GGUF_UINT64:
      given = pair->value.u > INT64_MAX ? INT64_MAX : (int64_t)pair->value.u;
      break;
    case FA_GGUF_INT8:
    case FA_GGUF_INT16:
    case FA_GGUF_INT32:
    case FA_GGUF_INT64:
      given = pair->value.i;
      break;
    default:
      return wrong_type(gguf, key, pair->type, "an integer");
  }
  if (given < least || given > most) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: metadata '%s' is %lld; %lld .. %lld are allowed",
                         fa_gguf_name(gguf), key, (long long)given, (long long)least, (long long)most);
  }
  *value = given;
  return FA_OK;
}

fa_status fa_gguf_real(const fa_gguf *gguf, const char *key, bool required, double *value) {
  const fa_gguf_pair *pair;
  const fa_status status = find(gguf, key, required, &pair);
  if (!pair) return status;
  if (pair->type != FA_GGUF_FLOAT32 && pair->type != FA_GGUF_FLOAT64) {
    return wrong_type(gguf, key, pair->type, "FLOAT32 or FLOAT64");
  }
  if (!isfinite(pair->value.f)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: metadata '%s' is not a finite number", fa_gguf_name(gguf),
                         key);
  }
  *value = pair->value.f;
  return FA_OK;
}

fa_status fa_gguf_bool(const fa_gguf *gguf, const char *key, bool *value) {
  const fa_gguf_pair *pair = fa_gguf_find(gguf, key);
  if (!pair) return FA_OK;
  if (pair->type != FA_GGUF_BOOL) return wrong_type(gguf, key, pair->type, "BOOL");
  *value = pair->value.u != 0;
  return FA_OK;
}

fa_status fa_gguf_text(const fa_gguf *gguf, const char *key, bool required, fa_gguf_string *value) {
  const fa_gguf_pair *pair;
  const fa_status status = find(gguf, key, required, &pair);
  if (!pair) return status;
  if (pair->type != FA_GGUF_STRING) return wrong_type(gguf, key, pair->type, "STRING");
  *value = pair->value.string;
  return FA_OK;
}

fa_status fa_gguf_list(const fa_gguf *gguf, const char *key, bool required, fa_gguf_type type,
                       fa_gguf_array *value) {
  const fa_gguf_pair *pair;
  const fa_status status = find(gguf, key, required, &pair);
  memset(value, 0, sizeof *value);
  if (!pair) return status;
  if (pair->type != FA_GGUF_ARRAY) return wrong_type(gguf, key, pair->type, "ARRAY");
  if (pair->value.array.type != type) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: metadata '%s' is an array of %s; it must be one of %s",
                         fa_gguf_name(gguf), key, type_names[pair->value.array.type], type_names[type]);
  }
  *value = pair->value.array;
  return FA_OK;
}

fa_gguf_string fa_gguf_next_string(const uint8_t **cursor) {
  uint64_t length;
  memcpy(&length, *cursor, sizeof length);
  const fa_gguf_string string = {(const char *)*cursor + sizeof length, (size_t)length};
  *cursor += sizeof length + length;
  return string;
}

int64_t fa_gguf_array_integer(const fa_gguf_array *array, uint64_t index) {
  const uint8_t *at = array->values + 4 * index;
  int32_t i;
  uint32_t u;
  memcpy(&i, at, sizeof i);
  memcpy(&u, at, sizeof u);
  return array->type == FA_GGUF_UINT32 ? (int64_t)u : (int64_t)i;
}

bool fa_gguf_string_is(fa_gguf_string string, const char *text) {
  return string.length == strlen(text) && memcmp(string.bytes, text, string.length) == 0;
}
