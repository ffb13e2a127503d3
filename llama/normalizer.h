/* Changes to a text before it is cut into pieces, in order. */
#ifndef FA_LLAMA_NORMALIZER_H
#define FA_LLAMA_NORMALIZER_H

#include "gguf.h"

typedef enum fa_normal_kind {
  FA_NORMAL_PREPEND,       /* `to` before any text */
  FA_NORMAL_PREPEND_ONCE,  /* `to` before a text that does not begin with it */
  FA_NORMAL_PREPEND_FIRST, /* the same, only where the text is the beginning of the whole */
  FA_NORMAL_REPLACE,       /* each `from` by `to` */
  FA_NORMAL_NFC            /* Unicode's composed form */
} fa_normal_kind;

enum { FA_NORMAL_STEPS = 8 };

typedef struct fa_normalizer {
  struct fa_normal_step {
    fa_normal_kind kind;
    char *from, *to; /* owned */
    size_t from_length, to_length;
  } steps[FA_NORMAL_STEPS];
  int count;
} fa_normalizer;

/* Zeros are a normaliser that changes nothing. `from` may be NULL for all but REPLACE, where it is not empty;
 * `to` may be NULL for NFC. Errors: UNSUPPORTED (too many steps, NFC in a build without utf8proc), MEMORY. */
fa_status fa_normalizer_add(fa_normalizer *normalizer, fa_normal_kind kind, const char *from, const char *to);
/* text: valid UTF-8, length >= 1. *changed is NULL when there are no steps, else to be freed. */
fa_status fa_normalizer_apply(const fa_normalizer *normalizer, const char *text, size_t length, bool first,
                              char **changed, size_t *changed_length);
void fa_normalizer_release(fa_normalizer *normalizer);

#endif
