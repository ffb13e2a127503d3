/* Attention over the paged KV cache gives what it gives over the same keys in one piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "small_cache.h"

enum { BATCH = 3, HEADS_Q = 6, HEADS_KV = 2, DIM_QK = 24, DIM_V = 16, KEYS = 61, PAGE = 8, LAYERS = 2 };

static const int32_t lengths[BATCH] = {61, 0, 17};

static float random_float(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return (float)(*seed >> 8) / 8388608.0f - 1.0f;
}

/* Sequences whose pages lie scattered: others before them came and went. Also more pages than are filled. */
static void scatter(fa_kv_cache *cache, int32_t sequences[BATCH]) {
  int32_t before[3];
  for (int n = 0; n < 3; n++) before[n] = sequence_of(cache, 2 * PAGE);
  for (int b = 0; b < BATCH; b++) sequences[b] = sequence_of(cache, lengths[b] ? 1 : 0);
  assert_int_equal(fa_kv_sequence_destroy(cache, before[1]), FA_OK);
  for (int64_t tokens = 1; tokens <= KEYS; tokens += 5) /* in turns, as a batch grows */
    for (int b = 0; b < BATCH; b++)
      if (tokens <= lengths[b]) assert_int_equal(fa_kv_sequence_resize(cache, sequences[b], tokens), FA_OK);
  assert_int_equal(fa_kv_sequence_destroy(cache, before[0]), FA_OK);
  for (int b = 0; b < BATCH; b++) assert_int_equal(fa_kv_sequence_resize(cache, sequences[b], lengths[b]), FA_OK);
}

/* One token's row of all heads, dense [heads, dim], to its slot. */
static void place(const fa_tensor *t, int32_t slot, const float *row, int64_t dim) {
  float *page = (float *)t->data + slot / PAGE * t->stride_batch + slot % PAGE * t->stride_seq;
  for (int64_t h = 0; h < HEADS_KV; h++)
    memcpy(page + h * t->stride_head, row + h * dim, (size_t)dim * sizeof *row);
}

/* 0 where no kernel of that name does it. */
static int attend(fa_context *context, fa_attention_problem p, const fa_attention_args *args) {
  fa_plan *plan = NULL;
  void *workspace = NULL;
  const fa_status made = fa_plan_create(context, &p, &plan);
  if (made == FA_ERROR_UNSUPPORTED || (made != FA_OK && p.kernel)) return 0;
  if (made != FA_OK) fail_msg("%s", fa_last_error());
  assert_int_equal(fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace), FA_OK);
  if (fa_attention_run(plan, args, workspace, fa_plan_workspace_bytes(plan), NULL) != FA_OK)
    fail_msg("%s", fa_last_error());
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
  return 1;
}

static void compare(fa_context *context, const char *kernel, int64_t queries, int *compared) {
  static float dense_k[BATCH][KEYS][HEADS_KV * DIM_QK], dense_v[BATCH][KEYS][HEADS_KV * DIM_V];
  static float q[BATCH * 40 * HEADS_Q * DIM_QK], o_dense[BATCH * 40 * HEADS_Q * DIM_V], o_paged[BATCH * 40 * HEADS_Q * DIM_V];
  fa_kv_options options = FA_KV_OPTIONS_INIT;
  options.dtype = FA_FLOAT32;
  options.layers = LAYERS;
  options.heads_kv = HEADS_KV;
  options.head_dim_qk = DIM_QK;
  options.head_dim_v = DIM_V;
  options.page_size = PAGE;
  options.num_pages = 20;
  options.max_sequences = 8;
  fa_kv_cache *cache = cache_of(context, &options);
  int32_t sequences[BATCH], table[BATCH][KEYS / PAGE + 1], slots[KEYS];
  scatter(cache, sequences);
  memset(table, 0x7f, sizeof table); /* what is not in use names no page */

  uint32_t seed = 5;
  for (int64_t layer = 0; layer < LAYERS; layer++) {
    fa_attention_args args = FA_ATTENTION_ARGS_INIT;
    assert_int_equal(fa_kv_cache_layer(cache, layer, &args.k, &args.v), FA_OK);
    for (int b = 0; b < BATCH; b++) {
      int64_t pages;
      const int32_t *list = fa_kv_sequence_pages(cache, sequences[b], &pages);
      memcpy(table[b], list, (size_t)pages * sizeof *list);
      assert_int_equal(fa_kv_sequence_slots(cache, sequences[b], 0, lengths[b], slots), FA_OK);
      for (int64_t n = 0; n < KEYS; n++) {
        for (int64_t d = 0; d < HEADS_KV * DIM_QK; d++) dense_k[b][n][d] = random_float(&seed);
        for (int64_t d = 0; d < HEADS_KV * DIM_V; d++) dense_v[b][n][d] = random_float(&seed);
        if (n >= lengths[b]) continue;
        place(&args.k, slots[n], dense_k[b][n], DIM_QK);
        place(&args.v, slots[n], dense_v[b][n], DIM_V);
      }
    }
    for (size_t n = 0; n < sizeof q / sizeof q[0]; n++) q[n] = 2.0f * random_float(&seed);
    fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
    p.batch = BATCH;
    p.heads_q = HEADS_Q;
    p.heads_kv = HEADS_KV;
    p.max_seqlen_q = queries;
    p.max_seqlen_kv = KEYS;
    p.head_dim_qk = DIM_QK;
    p.head_dim_v = DIM_V;
    p.causal = p.has_seqlens_kv = 1;
    p.kernel = kernel;
    args.seqlens_kv = lengths;
    args.q = (fa_tensor){q, queries * HEADS_Q * DIM_QK, HEADS_Q * DIM_QK, DIM_QK};
    args.o = (fa_tensor){o_paged, queries * HEADS_Q * DIM_V, HEADS_Q * DIM_V, DIM_V};
    args.page_table = table[0];
    args.page_table_stride = KEYS / PAGE + 1;
    fa_attention_args dense = args;
    dense.k = (fa_tensor){dense_k, KEYS * HEADS_KV * DIM_QK, HEADS_KV * DIM_QK, DIM_QK};
    dense.v = (fa_tensor){dense_v, KEYS * HEADS_KV * DIM_V, HEADS_KV * DIM_V, DIM_V};
    dense.o.data = o_dense;
    memset(o_paged, 0xff, sizeof o_paged);
    if (!attend(context, p, &dense)) break;
    p.page_size = PAGE;
    p.num_pages = fa_kv_cache_num_pages(cache);
    if (!attend(context, p, &args)) break;
    ++*compared;
    for (int64_t n = 0; n < BATCH * queries * HEADS_Q * DIM_V; n++)
      if (!(fabsf(o_paged[n] - o_dense[n]) <= 1e-5f))
        fail_msg("%s, %lld queries: %g paged, %g dense at %lld", kernel ? kernel : "fastest", (long long)queries,
                 (double)o_paged[n], (double)o_dense[n], (long long)n);
  }
  fa_kv_cache_destroy(cache);
}

static void paged_as_dense(void **state) {
  int compared = 0;
  for (int64_t queries = 1; queries <= 40; queries += 39) {
    compare(*state, NULL, queries, &compared);
    compare(*state, "c", queries, &compared);
    assert_int_equal(compared, LAYERS * 2 * (queries == 1 ? 1 : 2));
  }
  /* Baselines read whole pages and multiply what lies behind a sequence by 0. A build may lack them. */
  for (int64_t queries = 1; queries <= 40; queries += 39) {
    compare(*state, "standard", queries, &compared);
    compare(*state, "eager", queries, &compared);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(paged_as_dense)};
  return cmocka_run_group_tests(tests, open_context, close_context);
}
