/* Cutting text into the pieces that byte-pair merges never cross. */
#ifndef FA_LLAMA_PRETOKENIZER_H
#define FA_LLAMA_PRETOKENIZER_H

#include <stdbool.h>

#include "gguf.h"

typedef struct fa_pretokenizer fa_pretokenizer;

/* name: tokenizer.ggml.pre. Errors: UNSUPPORTED (unknown name), MEMORY. */
fa_status fa_pretokenizer_create(fa_gguf_string name, fa_pretokenizer **pretokenizer);
void fa_pretokenizer_free(fa_pretokenizer *pretokenizer);

/* Whether a piece that is a token as it stands is taken without merging. */
bool fa_pretokenizer_whole_tokens(const fa_pretokenizer *pretokenizer);

/* Calls piece() for each piece in turn, together the whole text, which is valid UTF-8; stops when it fails.
 * May be called by several threads at once. */
typedef fa_status (*fa_piece_function)(void *user, const char *bytes, size_t length);
fa_status fa_pretokenizer_split(const fa_pretokenizer *pretokenizer, const char *text, size_t length,
                                fa_piece_function piece, void *user);

#endif
