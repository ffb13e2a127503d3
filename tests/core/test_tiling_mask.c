/* The tiling-mask against the whole S x S mask, written out from the definition in the public header: random
 * blocks under causal masks of any offset (S_q below, at and above S_kv) and sliding windows, for several M.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "check/check_random.h"
#include "core/kernel.h"
#include "core/tiling_mask.h"

/* The header's words: causal j <= i + S_kv - S_q; window i + S_kv - S_q - L <= j <= i + S_kv - S_q + R. */
static int keeps(const fa_attention_problem *p, int64_t seqlen_q, int64_t seqlen_kv, int64_t i, int64_t j) {
  const int64_t diagonal = i + seqlen_kv - seqlen_q;
  if (p->causal && j > diagonal) return 0;
  if (p->window_left >= 0 && diagonal - j > p->window_left) return 0;
  if (p->window_right >= 0 && j - diagonal > p->window_right) return 0;
  return 1;
}

typedef struct counts {
  int64_t cases[3];
  int64_t offsets[3]; /* S_q < S_kv, equal, S_q > S_kv */
  int64_t both_edges; /* blocks that an upper and a lower edge run through */
} counts;

static int64_t draw_window(fa_random *r, int64_t longest) {
  const int64_t kind = fa_random_range(r, 0, 5);
  return kind == 0   ? -1
         : kind == 1 ? 0
         : kind == 2 ? INT64_MAX - fa_random_range(r, 0, 1)
                     : fa_random_range(r, 0, longest + 2);
}

/* The block as the module describes it, [rows, keys]. */
static void block_by_shift(fa_band band, int64_t m, const uint8_t *mask, int64_t row, int64_t rows,
                           int64_t key, int64_t keys, uint8_t *block) {
  const fa_mask_shift upper = fa_tiling_mask_upper(m, band.upper, row, key);
  const fa_mask_shift lower = fa_tiling_mask_lower(m, band.lower, row, key);
  assert_in_range(upper.row, 0, m);
  assert_in_range(upper.column, 0, m);
  assert_in_range(lower.row, 0, m);
  assert_in_range(lower.column, 0, m);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < keys; c++) {
      const uint8_t below_upper = mask[(upper.row + r) * 2 * m + upper.column + c];
      const uint8_t below_lower = mask[(lower.row + r) * 2 * m + lower.column + c];
      block[r * keys + c] = (uint8_t)(below_upper && !below_lower);
    }
  }
}

static void one_problem(fa_random *r, int64_t m, const uint8_t *mask, uint8_t *block, counts *seen) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  const int64_t seqlen_q = fa_random_range(r, 1, 5 * m + 3);
  const int64_t seqlen_kv = fa_random_chance(r, 20) ? seqlen_q : fa_random_range(r, 1, 5 * m + 3);
  p.causal = fa_random_chance(r, 50);
  if (fa_random_chance(r, 60)) {
    p.window_left = draw_window(r, seqlen_kv);
    p.window_right = draw_window(r, seqlen_kv);
  }
  const fa_band band = fa_band_of(&p, seqlen_q, seqlen_kv);
  seen->offsets[seqlen_q < seqlen_kv ? 0 : seqlen_q == seqlen_kv ? 1 : 2]++;

  for (int n = 0; n < 12; n++) {
    const int64_t row = fa_random_range(r, 0, seqlen_q - 1), key = fa_random_range(r, 0, seqlen_kv - 1);
    const int64_t rows = fa_random_range(r, 1, fa_min(m, seqlen_q - row));
    const int64_t keys = fa_random_range(r, 1, fa_min(m, seqlen_kv - key));
    int64_t kept = 0;
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = 0; j < keys; j++) kept += keeps(&p, seqlen_q, seqlen_kv, row + i, key + j);
    }
    const fa_block_case got = fa_band_block(band, row, rows, key, keys);
    seen->cases[got]++;
    if (kept == rows * keys)
      assert_int_equal(got, FA_BLOCK_FULL);
    else if (kept > 0)
      assert_int_equal(got, FA_BLOCK_WINDOW);
    else
      assert_int_not_equal(got, FA_BLOCK_FULL);
    /* An empty block may be called a window only where neither edge alone empties it. */
    if (kept == 0 && rows == 1) assert_int_equal(got, FA_BLOCK_SKIP);

    block_by_shift(band, m, mask, row, rows, key, keys, block);
    int above = 0, below = 0;
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = 0; j < keys; j++) {
        assert_int_equal(block[i * keys + j], keeps(&p, seqlen_q, seqlen_kv, row + i, key + j));
        above |= key + j > row + i + band.upper;
        below |= key + j < row + i + band.lower;
      }
    }
    seen->both_edges += above && below && kept > 0;

    /* The range of keys is exactly what some row of the block keeps, when it is not empty. */
    const fa_key_range range = fa_band_keys(band, row, rows, seqlen_kv);
    int64_t first = -1, last = -1;
    for (int64_t j = 0; j < seqlen_kv; j++) {
      for (int64_t i = 0; i < rows; i++) {
        if (!keeps(&p, seqlen_q, seqlen_kv, row + i, j)) continue;
        if (first < 0) first = j;
        last = j;
      }
    }
    if (first < 0)
      assert_true(range.begin == range.end || band.upper < band.lower);
    else {
      assert_int_equal(range.begin, first);
      assert_int_equal(range.end, last + 1);
    }
    assert_true(range.begin >= 0 && range.end <= seqlen_kv && range.begin <= range.end);
  }
}

static void blocks_agree_with_the_whole_mask(void **state) {
  static const int64_t sizes[] = {1, 2, 3, 8, 16, 31, 64};
  counts seen = {{0, 0, 0}, {0, 0, 0}, 0};
  fa_random random = {2024};
  (void)state;
  for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++) {
    const int64_t m = sizes[n];
    uint8_t *mask = malloc(fa_tiling_mask_bytes(m)), *block = malloc((size_t)(m * m));
    assert_non_null(mask);
    assert_non_null(block);
    assert_int_equal(fa_tiling_mask_bytes(m), 4 * m * m);
    fa_tiling_mask_fill(m, mask);
    for (int64_t i = 0; i < 2 * m; i++) {
      for (int64_t j = 0; j < 2 * m; j++) assert_int_equal(mask[i * 2 * m + j], j <= i);
    }
    for (int problem = 0; problem < 300; problem++) one_problem(&random, m, mask, block, &seen);
    free(mask);
    free(block);
  }
  printf(
      "blocks: %lld skipped, %lld full, %lld windows, %lld of them with both edges; S_q < = > S_kv: %lld, "
      "%lld, %lld\n",
      (long long)seen.cases[0], (long long)seen.cases[1], (long long)seen.cases[2],
      (long long)seen.both_edges, (long long)seen.offsets[0], (long long)seen.offsets[1],
      (long long)seen.offsets[2]);
  assert_true(seen.cases[0] + seen.cases[1] + seen.cases[2] > 20000);
  for (int n = 0; n < 3; n++) assert_true(seen.cases[n] > 1000 && seen.offsets[n] > 100);
  assert_true(seen.both_edges > 100);
}

static void far_beyond_any_sequence(void **state) {
  (void)state;
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  fa_band band = fa_band_of(&p, 10, 20);
  assert_int_equal(fa_band_block(band, 0, 10, 0, 20), FA_BLOCK_FULL);
  p.window_left = p.window_right = INT64_MAX;
  band = fa_band_of(&p, 1 << 30, 1);
  assert_int_equal(fa_band_block(band, 0, 1 << 30, 0, 1), FA_BLOCK_FULL);
  p.causal = 1;
  band = fa_band_of(&p, (int64_t)1 << 31, (int64_t)1 << 31);
  assert_int_equal(fa_band_block(band, 0, 1, 1, 1), FA_BLOCK_SKIP);
  assert_int_equal(fa_band_block(band, ((int64_t)1 << 31) - 1, 1, 0, (int64_t)1 << 31), FA_BLOCK_FULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_agree_with_the_whole_mask),
                                     cmocka_unit_test(far_beyond_any_sequence)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
