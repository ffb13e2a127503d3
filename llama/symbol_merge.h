/* Joining neighbours, the best pair first, until no two of them can be joined: what byte-pair and
 * SentencePiece-style tokenizers share. A heap of candidate pairs over a linked list: n log n for n symbols.
 */
#ifndef FA_LLAMA_SYMBOL_MERGE_H
#define FA_LLAMA_SYMBOL_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastattention/fastattention.h"

typedef struct fa_symbol {
  int32_t id;             /* of its token; -1: none */
  int32_t begin, length;  /* bytes of the piece; length 0: joined into an earlier symbol */
  int32_t previous, next; /* -1 at the ends */
} fa_symbol;

/* Whether two neighbours may be joined; then the token they become and its rank, the lowest of which is
 * joined first, the leftmost among equals. */
typedef bool (*fa_join_function)(void *user, const fa_symbol *left, const fa_symbol *right, int32_t *rank,
                                 int32_t *id);

typedef struct fa_candidate fa_candidate;

typedef struct fa_merger {
  fa_symbol *symbols;
  fa_candidate *heap;
  int64_t heap_count;
  int32_t count; /* of symbols */
  size_t capacity;
} fa_merger;

/* Makes room for so many symbols and forgets those there are. Errors: ARGUMENT (too many), MEMORY. */
fa_status fa_merger_begin(fa_merger *merger, size_t symbols);
void fa_merger_add(fa_merger *merger, int32_t id, int32_t begin, int32_t length);
/* Afterwards symbols[0] and what follows it by .next are what is left. */
void fa_merger_join(fa_merger *merger, fa_join_function join, void *user);
void fa_merger_release(fa_merger *merger);

#endif
