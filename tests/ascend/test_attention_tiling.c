/* What the host tells the Ascend attention kernel: tiles that fit a core's memories, items that cover the problem, rings and
 * parts that lie apart in the workspace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "ascend/host/tiling_choice.h"

static const fa_ascend_chip b2 = {"910B2", 24, 0, 0}, b4 = {"910B4", 20, 0, 0};

static fa_attention_problem problem_of(int64_t queries, int64_t keys, int64_t dim, int64_t dim_v) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = FA_FLOAT16;
  p.heads_q = 8;
  p.heads_kv = 2;
  p.max_seqlen_q = queries;
  p.max_seqlen_kv = keys;
  p.head_dim_qk = dim;
  p.head_dim_v = dim_v;
  p.scale = 0.125f;
  return p;
}

static fa_ascend_choice choose(const fa_attention_problem *p, const fa_ascend_wish *wish) {
  fa_ascend_choice c;
  const fa_status status = fa_ascend_choose(p, &b2, wish, &c);
  if (status != FA_OK) fail_msg("%s: %s", fa_status_name(status), fa_last_error());
  return c;
}

static void lies_apart(int64_t begin, int64_t bytes, int64_t next) { assert_true(begin % 64 == 0 && begin + bytes <= next); }

static void is_sound(const fa_attention_problem *p, const fa_ascend_choice *c) {
  const fa_ascend_attention *t = &c->tiling;
  assert_true(t->level1_rows >= 16 && t->level1_rows <= 128 && t->level1_rows % 16 == 0);
  assert_true(t->cube_keys >= 16 && t->cube_keys <= 128 && (t->cube_keys & (t->cube_keys - 1)) == 0);
  assert_true(t->level1_keys >= t->cube_keys && t->level1_keys <= t->mask_m && t->level1_keys % t->cube_keys == 0);
  assert_true(t->preload >= 1 && t->preload <= 8 && t->ring == t->preload + 1);
  assert_true(t->level2_rows >= 8 && t->level2_rows <= 64 && t->level2_rows % 8 == 0);
  assert_true(fa_ascend_attention_ub_bytes(t) <= FA_ASCEND_UB_BYTES);
  assert_true(fa_ascend_attention_l1_bytes(t) <= FA_ASCEND_L1_BYTES);
  assert_true(c->blocks >= 1 && c->blocks <= b2.groups && c->blocks <= fa_max(t->items, 1));

  const int64_t rows = t->packs_group ? t->group : t->max_seqlen_q, heads = t->packs_group ? t->heads_kv : t->heads_q;
  assert_true((int64_t)t->row_blocks * t->level1_rows >= rows);
  assert_int_equal(t->items, t->batch * heads * t->row_blocks * t->kv_splits);
  assert_true(t->pairs_at_once >= 1 && t->pairs_at_once <= t->batch * heads);
  if (t->kv_splits > 1) assert_int_equal(t->pairs_at_once, t->batch * heads);
  assert_true(t->kv_splits >= 1 && t->kv_splits <= fa_max(p->max_seqlen_kv, 1));

  const int64_t tiles = (int64_t)c->blocks * t->ring, scores = (int64_t)t->level1_rows * t->level1_keys;
  const int64_t partial_rows = t->kv_splits > 1 ? (int64_t)t->items * t->level1_rows : 0;
  lies_apart(t->s_ring, tiles * scores * 4, t->p_ring);
  lies_apart(t->p_ring, tiles * scores * 2, t->o_ring);
  lies_apart(t->o_ring, tiles * t->level1_rows * fa_round_up(t->head_dim_v, 16) * 4, t->partial_o);
  lies_apart(t->partial_o, partial_rows * fa_round_up(t->head_dim_v, 64) * 4, t->partial_lse);
  lies_apart(t->partial_lse, partial_rows * 4, (int64_t)c->workspace_bytes);
}

static void every_head_size_fits(void **state) {
  (void)state;
  static const int64_t lengths[] = {0, 1, 15, 16, 17, 127, 128, 129, 500, 1024, 1025, 4096, 65536};
  for (int64_t dim = 1; dim <= 256; dim++)
    for (size_t n = 0; n < sizeof lengths / sizeof lengths[0]; n++) {
      fa_attention_problem p = problem_of(lengths[n], lengths[(n + (size_t)dim) % 13], dim, 257 - dim);
      p.causal = dim % 2 == 0;
      fa_ascend_choice c = choose(&p, NULL);
      is_sound(&p, &c);
      p.head_dim_v = dim;
      p.max_seqlen_q = 1;
      c = choose(&p, NULL);
      is_sound(&p, &c);
      const fa_ascend_wish one_level = {.one_level = 1};
      c = choose(&p, &one_level);
      is_sound(&p, &c);
      assert_int_equal(c.tiling.level1_keys, c.tiling.cube_keys);
    }
}

/* As the vendor's operator has them: 128 x 1024 in pieces of 8 rows, two tiles ahead, a ring of three. */
static void long_prefill_has_the_wide_tiles(void **state) {
  (void)state;
  fa_attention_problem p = problem_of(16384, 16384, 128, 128);
  p.heads_q = p.heads_kv = 32;
  const fa_ascend_choice c = choose(&p, NULL);
  assert_int_equal(c.tiling.level1_rows, 128);
  assert_int_equal(c.tiling.level1_keys, 1024);
  assert_int_equal(c.tiling.level2_rows, 8);
  assert_int_equal(c.tiling.preload, 2);
  assert_int_equal(c.tiling.ring, 3);
  assert_int_equal(c.tiling.cube_keys, 128);
  assert_int_equal(c.tiling.kv_splits, 1);
  assert_int_equal(c.blocks, 24);
  assert_true(c.workspace_bytes < (size_t)64 << 20); /* the rings stay in L2 */
}

static void short_sequences_have_narrow_tiles(void **state) {
  (void)state;
  for (int64_t keys = 1; keys <= 1024; keys++) {
    const fa_attention_problem p = problem_of(64, keys, 128, 128);
    const fa_ascend_choice c = choose(&p, NULL);
    assert_true(c.tiling.level1_keys <= fa_max(fa_round_up(keys, 128), 16));
    if (keys <= 64) assert_true(c.tiling.level1_keys < fa_max(2 * keys, 32));
  }
  fa_attention_problem p = problem_of(8192, 8192, 128, 128);
  p.window_left = 100;
  p.window_right = 0;
  assert_int_equal(choose(&p, NULL).tiling.level1_keys, 256); /* no row block sees more than 228 keys */
}

/* Of 32 heads of 16K keys, 8 MB each, those whose K and V fit into a third of L2 come before the others. */
static void long_keys_come_by_heads(void **state) {
  (void)state;
  const fa_ascend_chip with_l2 = {"910B2", 24, (int64_t)192 << 20, 0};
  fa_attention_problem p = problem_of(16384, 16384, 128, 128);
  fa_ascend_choice c;
  p.heads_q = p.heads_kv = 32;
  assert_int_equal(fa_ascend_choose(&p, &with_l2, NULL, &c), FA_OK);
  assert_int_equal(c.tiling.pairs_at_once, 8);
  p.heads_kv = 4;
  assert_int_equal(fa_ascend_choose(&p, &with_l2, NULL, &c), FA_OK);
  assert_int_equal(c.tiling.pairs_at_once, 32); /* 4 KV heads */
  p.batch = 3;
  assert_int_equal(fa_ascend_choose(&p, &with_l2, NULL, &c), FA_OK);
  assert_int_equal(c.tiling.pairs_at_once, 64); /* 8 KV heads of two sequences */
  assert_int_equal(choose(&p, NULL).tiling.pairs_at_once, 96); /* L2's size is not known */
  p.max_seqlen_q = 0;
  assert_int_equal(fa_ascend_choose(&p, &with_l2, NULL, &c), FA_OK);
  assert_int_equal(c.tiling.items, 0);
}

static void decode_packs_the_group_and_fills_the_chip(void **state) {
  (void)state;
  fa_attention_problem p = problem_of(1, 65536, 128, 128);
  p.heads_q = 32;
  p.heads_kv = 8;
  fa_ascend_choice c = choose(&p, NULL);
  assert_int_equal(c.tiling.packs_group, 1);
  assert_int_equal(c.tiling.row_blocks, 1);
  assert_int_equal(c.tiling.level1_rows, 16);
  assert_int_equal(c.blocks, 24);
  assert_true(c.tiling.kv_splits > 1 && c.tiling.items % 24 == 0);
  p.heads_kv = 32; /* nothing to pack; 32 items would leave the second round of 24 groups two thirds empty */
  c = choose(&p, NULL);
  assert_int_equal(c.tiling.packs_group, 0);
  assert_true(c.tiling.items % 24 == 0);
  p.batch = 3; /* as many items as fill it often enough */
  c = choose(&p, NULL);
  assert_int_equal(c.tiling.kv_splits, 1);
  p.batch = 1;
  p.heads_q = 200; /* more heads than rows of a tile */
  p.heads_kv = 1;
  p.causal = 1;
  c = choose(&p, NULL);
  assert_int_equal(c.tiling.packs_group, 1);
  assert_int_equal(c.tiling.row_blocks, 2);
  assert_false(c.has_band);
}

static void parts_are_those_asked_for(void **state) {
  (void)state;
  for (int32_t parts = 1; parts <= 64; parts++)
    for (int64_t keys = 0; keys <= 200; keys += 25) {
      fa_attention_problem p = problem_of(parts % 2 ? 1 : 300, keys, 64, 32);
      p.kv_splits = parts;
      const fa_ascend_choice c = choose(&p, NULL);
      assert_int_equal(c.tiling.kv_splits, fa_max(fa_min(parts, keys), 1));
      is_sound(&p, &c);
    }
  fa_attention_problem p = problem_of(1024, 1024, 128, 128);
  p.heads_q = p.heads_kv = 32;
  assert_int_equal(choose(&p, NULL).tiling.kv_splits, 1); /* 256 blocks of rows: full */
  p.heads_q = p.heads_kv = 1;
  assert_int_equal(choose(&p, NULL).tiling.kv_splits, 3); /* 8 blocks of rows for 24 groups */
  p.max_seqlen_kv = 16;
  assert_int_equal(choose(&p, NULL).tiling.kv_splits, 1);
}

static void rules_reach_the_kernel(void **state) {
  (void)state;
  fa_attention_problem p = problem_of(100, 300, 64, 64);
  fa_ascend_choice c = choose(&p, NULL);
  assert_true(c.tiling.window_left == -1 && c.tiling.window_right == -1 && !c.has_band);
  p.window_left = INT64_MAX;
  p.window_right = 5;
  c = choose(&p, NULL);
  assert_true(c.tiling.window_left == -1 && c.tiling.window_right == 5 && c.has_band);
  p.causal = 1;
  p.window_left = 0;
  c = choose(&p, NULL);
  assert_true(c.tiling.window_left == 0 && c.tiling.window_right == 0);
  p.dtype = p.kv_dtype = FA_BFLOAT16;
  p.has_lse = p.has_seqlens_kv = p.ragged_q = 1;
  p.page_size = 16;
  p.num_pages = 1000;
  c = choose(&p, NULL);
  assert_true(c.tiling.is_bf16 && c.tiling.has_lse && c.tiling.has_seqlens_kv && c.tiling.ragged_q && !c.tiling.ragged_kv);
  assert_int_equal(c.tiling.page_size, 16);
  assert_int_equal(c.tiling.group, 4);
  assert_true(c.tiling.scale == 0.125f);
}

static void strides_that_are_not_read_are_zero(void **state) {
  (void)state;
  fa_attention_problem p = problem_of(100, 300, 64, 64);
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  a.q = a.k = a.v = a.o = (fa_tensor){NULL, INT64_MAX, -64, 6400};
  a.lse_stride_batch = a.lse_stride_head = a.page_table_stride = INT64_MAX;
  p.ragged_q = p.ragged_kv = 1;
  fa_ascend_attention t = choose(&p, NULL).tiling;
  fa_ascend_set_strides(&p, &a, &t);
  assert_true(t.q.batch == 0 && t.k.batch == 0 && t.v.batch == 0 && t.o.batch == 0);
  assert_true(t.q.seq == -64 && t.o.head == 6400);
  assert_true(t.lse_batch == 0 && t.lse_head == 0 && t.page_table_stride == 0);
}

static void is_refused(const fa_attention_problem *p, const fa_ascend_wish *wish, fa_status status, const char *words) {
  fa_ascend_choice c;
  assert_int_equal(fa_ascend_choose(p, &b4, wish, &c), status);
  if (!strstr(fa_last_error(), words)) fail_msg("'%s' does not say '%s'", fa_last_error(), words);
}

static void what_cannot_be_is_refused(void **state) {
  (void)state;
  fa_attention_problem p = problem_of(100, 300, 64, 64);
  is_refused(&p, &(fa_ascend_wish){.level1_rows = 129}, FA_ERROR_ARGUMENT, "multiple of 16 up to 128");
  is_refused(&p, &(fa_ascend_wish){.level1_keys = 1000}, FA_ERROR_ARGUMENT, "multiple of 128 up to 1024");
  is_refused(&p, &(fa_ascend_wish){.level1_keys = 2048}, FA_ERROR_ARGUMENT, "multiple of 128 up to 1024");
  is_refused(&p, &(fa_ascend_wish){.cube_keys = 48}, FA_ERROR_ARGUMENT, "16, 32, 64 or 128");
  is_refused(&p, &(fa_ascend_wish){.preload = 9}, FA_ERROR_ARGUMENT, "1 to 8");
  is_refused(&p, &(fa_ascend_wish){.level2_rows = 12}, FA_ERROR_ARGUMENT, "multiple of 8 up to 64");
  const fa_ascend_wish wide = {.level1_rows = 128, .level1_keys = 1024, .level2_rows = 64};
  is_refused(&p, &wide, FA_ERROR_ARGUMENT, "do not fit in the 192 KB of UB");
  p.max_seqlen_kv = (int64_t)1 << 31;
  is_refused(&p, NULL, FA_ERROR_UNSUPPORTED, "2^31 - 1");
  p = problem_of(1 << 20, 300, 64, 64);
  p.batch = 1 << 20;
  is_refused(&p, NULL, FA_ERROR_UNSUPPORTED, "blocks of rows");
}

static void wishes_are_granted(void **state) {
  (void)state;
  const fa_attention_problem p = problem_of(1024, 1024, 128, 128);
  const fa_ascend_wish wish = {.level1_rows = 64, .level1_keys = 256, .cube_keys = 64, .preload = 4, .level2_rows = 16};
  const fa_ascend_choice c = choose(&p, &wish);
  is_sound(&p, &c);
  assert_int_equal(c.tiling.level1_rows, 64);
  assert_int_equal(c.tiling.level1_keys, 256);
  assert_int_equal(c.tiling.cube_keys, 64);
  assert_int_equal(c.tiling.preload, 4);
  assert_int_equal(c.tiling.level2_rows, 16);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_head_size_fits),          cmocka_unit_test(long_prefill_has_the_wide_tiles),
      cmocka_unit_test(short_sequences_have_narrow_tiles), cmocka_unit_test(decode_packs_the_group_and_fills_the_chip),
      cmocka_unit_test(long_keys_come_by_heads),
      cmocka_unit_test(parts_are_those_asked_for),     cmocka_unit_test(rules_reach_the_kernel),
      cmocka_unit_test(strides_that_are_not_read_are_zero), cmocka_unit_test(what_cannot_be_is_refused),
      cmocka_unit_test(wishes_are_granted)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
