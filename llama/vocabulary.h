/* Tokens and merges of a byte-level BPE vocabulary, looked up by hash. */
#ifndef FA_LLAMA_VOCABULARY_H
#define FA_LLAMA_VOCABULARY_H

#include "gguf.h"

typedef enum fa_token_type {
  FA_TOKEN_NORMAL = 1,
  FA_TOKEN_UNKNOWN = 2,
  FA_TOKEN_CONTROL = 3,
  FA_TOKEN_USER_DEFINED = 4,
  FA_TOKEN_UNUSED = 5,
  FA_TOKEN_BYTE = 6
} fa_token_type;

typedef struct fa_token {
  fa_gguf_string name;  /* in the file: bytes written as printable characters (GPT-2's alphabet) */
  fa_gguf_string bytes; /* what it stands for */
  fa_token_type type;
} fa_token;

typedef struct fa_bpe_merge {
  uint64_t pair; /* left << 32 | right; UINT64_MAX where the slot is empty */
  int32_t rank;
  int32_t result;
} fa_bpe_merge;

typedef struct fa_vocabulary {
  fa_token *tokens;
  int64_t count;
  char *arena;  /* of token bytes */
  int32_t *ids; /* hash table by name, -1 empty */
  uint64_t ids_mask;
  fa_bpe_merge *merges; /* hash table by pair */
  uint64_t merges_mask;
  int32_t
      byte_ids[256]; /* -1 where the vocabulary lacks the byte: it is dropped, as the reference drops it */
} fa_vocabulary;

/* The names point into the file: the gguf must outlive the vocabulary. */
fa_status fa_vocabulary_load(const fa_gguf *gguf, fa_vocabulary *vocabulary);
void fa_vocabulary_unload(fa_vocabulary *vocabulary);

int32_t fa_vocabulary_id(const fa_vocabulary *vocabulary, const char *name, size_t length); /* -1: none */
const fa_bpe_merge *fa_vocabulary_merge(const fa_vocabulary *vocabulary, int32_t left,
                                        int32_t right); /* NULL: none */

/* The character (U+0021 .. U+0143) GPT-2's alphabet writes for a byte. */
uint32_t fa_byte_alphabet(uint8_t byte);

#endif
