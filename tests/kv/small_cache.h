/* What the tests of the paged KV cache start from: a small cache with more pages than a word has bits. After cmocka.h. */
#ifndef FA_TESTS_SMALL_CACHE_H
#define FA_TESTS_SMALL_CACHE_H

#include <string.h>

#include "fastattention/fa_kv.h"

static inline fa_kv_options small_options(void) {
  fa_kv_options o = FA_KV_OPTIONS_INIT;
  o.layers = 3;
  o.heads_kv = 2;
  o.head_dim_qk = 8;
  o.head_dim_v = 5;
  o.page_size = 4;
  o.num_pages = 70;
  o.max_sequences = 5;
  return o;
}

static inline fa_kv_cache *cache_of(fa_context *context, const fa_kv_options *options) {
  fa_kv_cache *cache = NULL;
  if (fa_kv_cache_create(context, options, &cache) != FA_OK) fail_msg("%s", fa_last_error());
  return cache;
}

static inline int32_t sequence_of(fa_kv_cache *cache, int64_t tokens) {
  int32_t sequence = -1;
  assert_int_equal(fa_kv_sequence_create(cache, &sequence), FA_OK);
  if (fa_kv_sequence_resize(cache, sequence, tokens) != FA_OK) fail_msg("%s", fa_last_error());
  return sequence;
}

static inline void says(const char *words) {
  if (!strstr(fa_last_error(), words)) fail_msg("'%s' is not in '%s'", words, fa_last_error());
  assert_null(strchr(fa_last_error(), '\n'));
}

static inline int open_context(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }

static inline int close_context(void **state) {
  fa_context_destroy(*state);
  return 0;
}

#endif
