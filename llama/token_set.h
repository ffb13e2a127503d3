/* Names of tokens that are matched in text before it is cut into pieces: the longest at a place. */
#ifndef FA_LLAMA_TOKEN_SET_H
#define FA_LLAMA_TOKEN_SET_H

#include "gguf.h"

typedef struct fa_token_match {
  fa_gguf_string name;
  int32_t id;
  bool control;                 /* matched only where control tokens are asked for */
  bool takes_left, takes_right; /* and white space beside it */
} fa_token_match;

typedef struct fa_token_set {
  fa_token_match *entries; /* sorted by name once ready */
  int64_t count, capacity;
  bool begins[256]; /* first bytes of names */
} fa_token_set;

/* Zeros are an empty set. The name, not empty, is copied. */
fa_status fa_token_set_add(fa_token_set *set, fa_token_match match);
/* After the last add, before the first find. */
void fa_token_set_ready(fa_token_set *set);
/* What `text` begins with, or NULL. length >= 1. */
const fa_token_match *fa_token_set_find(const fa_token_set *set, const char *text, size_t length,
                                        bool control);
void fa_token_set_release(fa_token_set *set);

#endif
