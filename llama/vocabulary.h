/* The tokens of a vocabulary by number and by name, and what joins them: merges by pair, or scores. */
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
  fa_gguf_string name;  /* as the file writes it */
  fa_gguf_string bytes; /* what it stands for */
  fa_token_type type;
} fa_token;

typedef struct fa_bpe_merge {
  uint64_t pair; /* left << 32 | right; UINT64_MAX where the slot is empty */
  int32_t rank;
  int32_t result;
} fa_bpe_merge;

/* How names write bytes. */
typedef enum fa_spelling {
  FA_SPELLING_ALPHABET, /* a printable character for each byte (GPT-2's alphabet) */
  FA_SPELLING_TEXT      /* text with U+2581 for a space, and tokens "<0x00>" .. "<0xFF>" */
} fa_spelling;

typedef struct fa_vocabulary {
  fa_token *tokens;
  int64_t count;
  char *names;  /* what token names point into; NULL: they point into a file */
  char *arena;  /* of token bytes */
  int32_t *ids; /* hash table by name, -1 empty */
  uint64_t ids_mask;
  fa_bpe_merge *merges; /* hash table by pair; NULL: joined by score */
  uint64_t merges_mask;
  int32_t *ranks;        /* [count], the lower the better: scores in order; NULL: joined by merges */
  size_t longest;        /* name of a token */
  int32_t byte_ids[256]; /* -1 where the vocabulary lacks the byte */
} fa_vocabulary;

/* Makes room for `count` tokens in a vocabulary of zeros; tokens not put are unused and have no name. */
fa_status fa_vocabulary_begin(fa_vocabulary *vocabulary, int64_t count);
/* False when the name is there already. The name is not copied; one of length 0 is not found later. */
bool fa_vocabulary_put(fa_vocabulary *vocabulary, int32_t id, fa_gguf_string name, fa_token_type type);
/* Fills the tokens' bytes and byte_ids once all are put. */
fa_status fa_vocabulary_spell(fa_vocabulary *vocabulary, fa_spelling spelling);

/* Room for `count` merges, then each with its rank; of a pair added twice the first stands, or the last. */
fa_status fa_vocabulary_begin_merges(fa_vocabulary *vocabulary, uint64_t count);
void fa_vocabulary_add_merge(fa_vocabulary *vocabulary, int32_t left, int32_t right, int32_t rank,
                             int32_t result, bool last_stands);

/* From a GGUF file, which must outlive the vocabulary: merges for the alphabet, scores for text. */
fa_status fa_vocabulary_load(const fa_gguf *gguf, fa_spelling spelling, fa_vocabulary *vocabulary);
void fa_vocabulary_unload(fa_vocabulary *vocabulary);

int32_t fa_vocabulary_id(const fa_vocabulary *vocabulary, const char *name, size_t length); /* -1: none */
const fa_bpe_merge *fa_vocabulary_merge(const fa_vocabulary *vocabulary, int32_t left,
                                        int32_t right); /* NULL: none */

/* The character (U+0021 .. U+0143) GPT-2's alphabet writes for a byte. */
uint32_t fa_byte_alphabet(uint8_t byte);

#endif
