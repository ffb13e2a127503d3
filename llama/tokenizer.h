/* What the parts of the tokenizer share: one struct for every kind, filled from a GGUF file
 * (tokenizer_gguf.c) or from tokenizer.json (tokenizer_json.c).
 *
 *   text -> control and user-defined tokens | text between them -> normalised -> pieces -> symbols joined ->
 * tokens */
#ifndef FA_LLAMA_TOKENIZER_H
#define FA_LLAMA_TOKENIZER_H

#include "llama.h"
#include "normalizer.h"
#include "pretokenizer.h"
#include "symbol_merge.h"
#include "token_set.h"
#include "vocabulary.h"

typedef enum fa_tokenizer_kind {
  FA_TOKENIZER_BYTES,      /* byte-level BPE: bytes, joined by merges */
  FA_TOKENIZER_CHARACTERS, /* BPE with byte fallback: characters, joined by merges */
  FA_TOKENIZER_SCORES      /* SentencePiece: characters, joined by the score of the token they become */
} fa_tokenizer_kind;

struct fa_tokenizer {
  fa_tokenizer_kind kind;
  fa_vocabulary vocabulary;
  fa_token_set matched;            /* in text as it comes */
  fa_token_set matched_normalized; /* in normalised text */
  fa_normalizer normalizer;
  fa_normalizer piece_normalizer; /* of what is left between matches */
  fa_pretokenizer *pretokenizer;  /* NULL: all of it is one piece */
  bool whole_tokens;              /* a piece that is a token as it stands is taken without joining */
  bool fuse_unknown;
  int32_t unknown; /* -1: what has no token is dropped */
  int32_t bos;     /* -1: none */
  int32_t eos;
  bool add_bos, add_eos;
  int32_t ends[16];
  int end_count;
  fa_gguf_string chat_template; /* length 0: none */
  char *owned_template;         /* where it points, unless into a file */
};

/* The gguf must outlive the tokenizer. */
fa_status fa_tokenizer_create(const fa_gguf *gguf, fa_tokenizer **tokenizer);

/* One call of fa_tokenizer_encode. */
typedef struct fa_encoder {
  const fa_tokenizer *tokenizer;
  fa_token_list *list;
  bool control; /* whether names of control tokens are matched */
  fa_merger merger;
  const char *piece; /* that is being joined */
} fa_encoder;

/* Tokens of one piece: by merges (tokenizer_bpe.c), by scores (tokenizer_spm.c). */
fa_status fa_encode_piece_bpe(fa_encoder *encoder, const char *bytes, size_t length);
fa_status fa_encode_piece_spm(fa_encoder *encoder, const char *bytes, size_t length);

/* fa_tokenizer_encode of a text of which something stands before, unless `first`. */
fa_status fa_tokenizer_encode_part(const fa_tokenizer *tokenizer, const char *text, size_t length,
                                   unsigned how, bool first, fa_token_list *list);

/* Adds to the tokens generation ends with, once; -1 is nothing. */
void fa_tokenizer_add_end(fa_tokenizer *tokenizer, int32_t id);
/* Turn and text ends of the families, where the vocabulary has them as control tokens: files often name only
 * one. */
void fa_tokenizer_add_known_ends(fa_tokenizer *tokenizer);

#endif
