/* What the tokenizer and the chat template share. */
#ifndef FA_LLAMA_TOKENIZER_H
#define FA_LLAMA_TOKENIZER_H

#include "llama.h"
#include "pretokenizer.h"
#include "vocabulary.h"

struct fa_tokenizer {
  fa_vocabulary vocabulary;
  fa_pretokenizer *pretokenizer;
  int special_lengths[255]; /* that names of tokens matched in text have, the longest first */
  int special_length_count;
  bool special_begins[256]; /* by first byte of a name */
  int32_t bos;              /* -1: none */
  bool add_bos;
  int32_t ends[8];
  int end_count;
  fa_gguf_string chat_template; /* length 0: none */
};

/* The gguf must outlive the tokenizer. */
fa_status fa_tokenizer_create(const fa_gguf *gguf, fa_tokenizer **tokenizer);
void fa_tokenizer_free(fa_tokenizer *tokenizer); /* NULL is fine */

#endif
