/* A cursor over bytes that never leaves them. */
#ifndef FA_LLAMA_GGUF_READER_H
#define FA_LLAMA_GGUF_READER_H

#include <string.h>

#include "gguf.h"
#include "llama_error.h"

typedef struct fa_gguf_reader {
  const uint8_t *begin;
  const uint8_t *at;
  const uint8_t *end;
  const char *name; /* of the file */
} fa_gguf_reader;

static inline uint64_t fa_gguf_left(const fa_gguf_reader *reader) {
  return (uint64_t)(reader->end - reader->at);
}

static inline fa_status fa_gguf_truncated(const fa_gguf_reader *reader, const char *what) {
  return fa_llama_fail(FA_ERROR_ARGUMENT,
                       "%s: the file ends inside %s (at byte %llu); it is truncated or damaged", reader->name,
                       what, (unsigned long long)(reader->end - reader->begin));
}

static inline fa_status fa_gguf_read(fa_gguf_reader *reader, void *value, size_t bytes, const char *what) {
  if (fa_gguf_left(reader) < bytes) {
    memset(value, 0, bytes);
    return fa_gguf_truncated(reader, what);
  }
  memcpy(value, reader->at, bytes);
  reader->at += bytes;
  return FA_OK;
}

static inline fa_status fa_gguf_read_string(fa_gguf_reader *reader, fa_gguf_string *string,
                                            const char *what) {
  uint64_t length;
  const fa_status status = fa_gguf_read(reader, &length, sizeof length, what);
  if (status != FA_OK) return status;
  if (length > fa_gguf_left(reader)) return fa_gguf_truncated(reader, what);
  string->bytes = (const char *)reader->at;
  string->length = (size_t)length;
  reader->at += length;
  return FA_OK;
}

#endif
