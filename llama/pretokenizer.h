/* Cutting text into the pieces that byte-pair merges never cross. */
#ifndef FA_LLAMA_PRETOKENIZER_H
#define FA_LLAMA_PRETOKENIZER_H

#include <stdbool.h>

#include "gguf.h"

typedef struct fa_pretokenizer fa_pretokenizer;

/* name: tokenizer.ggml.pre. Errors: UNSUPPORTED (unknown name), MEMORY. */
fa_status fa_pretokenizer_create(fa_gguf_string name, fa_pretokenizer **pretokenizer);
void fa_pretokenizer_free(fa_pretokenizer *pretokenizer); /* NULL is fine */

/* What becomes of a match of a step's expression; what lies between matches is a piece. */
typedef enum fa_split_behaviour {
  FA_SPLIT_ISOLATED,            /* a piece of its own */
  FA_SPLIT_REMOVED,             /* dropped */
  FA_SPLIT_KEPT_ALONE,          /* a piece of its own, and what lies between is dropped */
  FA_SPLIT_MERGED_WITH_PREVIOUS /* the end of the piece before it */
} fa_split_behaviour;

enum { FA_SPLIT_STEPS = 8, FA_SPLIT_PATTERN = 4096 };

/* One that hands text on as it is, to which steps are added; each works within the pieces of those before it.
 */
fa_status fa_pretokenizer_create_empty(fa_pretokenizer **pretokenizer);
/* pattern: an expression of PCRE2, of at most FA_SPLIT_PATTERN bytes. Errors: UNSUPPORTED (does not compile,
 * too many steps), MEMORY. */
fa_status fa_pretokenizer_add(fa_pretokenizer *pretokenizer, const char *pattern,
                              fa_split_behaviour behaviour);
/* GPT-2's expression, which ByteLevel uses. */
fa_status fa_pretokenizer_add_gpt2(fa_pretokenizer *pretokenizer);

/* White space as \s of the reference has it, for use between brackets. White space is spelt out, because
 * PCRE2's \s with UCP also takes U+180E, which Unicode took out of White_Space in version 6.3. */
#define FA_SPLIT_SPACES                                                                                    \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
  "3000}"

/* Whether a piece that is a token as it stands is taken without merging. */
bool fa_pretokenizer_whole_tokens(const fa_pretokenizer *pretokenizer);

/* Calls piece() for each piece in turn, together the whole text, which is valid UTF-8; stops when it fails.
 * May be called by several threads at once. */
typedef fa_status (*fa_piece_function)(void *user, const char *bytes, size_t length);
fa_status fa_pretokenizer_split(const fa_pretokenizer *pretokenizer, const char *text, size_t length,
                                fa_piece_function piece, void *user);

#endif
