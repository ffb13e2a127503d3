/* The oracle against results that do not come from it: worked out by hand, and by numpy in float64
 * (oracle_golden.h, written by make_oracle_golden.py), each feature alone and then many at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "ref/ref.h"

typedef struct golden {
  const char *name;
  fa_attention_problem problem;
  fa_attention_args args;
  const double *o;
  const double *lse;
} golden;

#include "oracle_golden.h"

static int near(double got, double want, double tolerance) {
  if (isnan(want)) return isnan(got);
  if (isinf(want)) return got == want;
  return fabs(got - want) <= tolerance * fmax(1.0, fabs(want));
}

static double *unknowns(int64_t count) {
  double *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
  assert_non_null(numbers);
  for (int64_t n = 0; n < count; n++) numbers[n] = (double)NAN;
  return numbers;
}

static void compare(const golden *g, const char *what, const double *got, const double *want, int64_t count,
                    double tolerance) {
  for (int64_t n = 0; n < count; n++) {
    if (!near(got[n], want[n], tolerance)) {
      fail_msg("%s: %s[%lld] is %.17g, numpy has %.17g", g->name, what, (long long)n, got[n], want[n]);
    }
  }
}

/* Appending writes the cache, so the goldens are used once each. */
static void oracle_agrees_with_numpy(void **state) {
  (void)state;
  for (size_t n = 0; n < sizeof goldens / sizeof goldens[0]; n++) {
    const golden *g = &goldens[n];
    const fa_attention_problem *p = &g->problem;
    const int64_t rows = fa_ref_packed_rows(p) * p->heads_q, count = rows * p->head_dim_v;
    /* What numpy's bf16, fp16 and fp32 lack is that P and o are rounded: half a unit of each, and fp32's
     * sums. */
    const double coarse = p->dtype == FA_BFLOAT16 ? 0x1p-6 : p->dtype == FA_FLOAT16 ? 0x1p-9 : 2e-5;
    double *o = unknowns(count), *lse = unknowns(rows), size = 0.0;
    assert_int_equal(fa_ref_append(p, &g->args), FA_OK);
    assert_int_equal(fa_ref_attention(p, &g->args, o, lse), FA_OK);
    compare(g, "o", o, g->o, count, 1e-12);
    compare(g, "lse", lse, g->lse, rows, 1e-12);
    assert_int_equal(fa_ref_same_precision(p, &g->args, o, lse, &size), FA_OK);
    double largest = 1.0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(g->o[i]));
    compare(g, "same-precision o", o, g->o, count, coarse * largest);
    compare(g, "same-precision lse", lse, g->lse, rows, coarse);
    assert_true(size >= 0.0 && size < 1e4);
    free(o);
    free(lse);
  }
}

/* After the test above: its caches hold the appended tokens. */
static void rows_agree_with_the_whole(void **state) {
  (void)state;
  for (size_t n = 0; n < sizeof goldens / sizeof goldens[0]; n++) {
    const golden *g = &goldens[n];
    const fa_attention_problem *p = &g->problem;
    for (int64_t b = 0; b < p->batch; b++) {
      for (int64_t i = 0; i < fa_ref_seqlen_q(p, &g->args, b); i++) {
        for (int64_t h = 0; h < p->heads_q; h++) {
          const fa_ref_row row = {b, i, h};
          const int64_t at = fa_ref_packed_row(p, &g->args, b, i) * p->heads_q + h;
          double o[8], o_same[8], lse, lse_same, largest, size;
          assert_int_equal(fa_ref_rows(p, &g->args, &row, 1, o, &lse, o_same, &lse_same, &largest, &size),
                           FA_OK);
          compare(g, "row", o, g->o + at * p->head_dim_v, p->head_dim_v, 1e-12);
          compare(g, "row lse", &lse, g->lse + at, 1, 1e-12);
          for (int64_t d = 0; d < p->head_dim_v; d++) assert_true(fabs(o[d]) <= largest * (1.0 + 1e-12));
        }
      }
    }
  }
}

/* ------------------------------------------------------------------ by hand */

/* One query of dim 1 that is 1, with scale 1: the scores are the keys. */
static double one_row(const float *keys, int64_t count, const float *values, fa_attention_problem *p,
                      fa_attention_args *a, double *o) {
  static float q[1] = {1.0f};
  double lse = (double)NAN;
  p->max_seqlen_q = 1;
  p->max_seqlen_kv = count;
  p->scale = 1.0f;
  a->q.data = q;
  a->k.data = (void *)(uintptr_t)keys;
  a->v.data = (void *)(uintptr_t)values;
  a->k.stride_seq = a->v.stride_seq = 1;
  assert_int_equal(fa_ref_attention(p, a, o, &lse), FA_OK);
  return lse;
}

static void by_hand(void **state) {
  (void)state;
  const fa_attention_problem blank = FA_ATTENTION_PROBLEM_INIT;
  const fa_attention_args none = FA_ATTENTION_ARGS_INIT;
  const double ln2 = 0.69314718055994531, ln3 = 1.0986122886681098;
  const float keys[] = {0.0f, (float)1.0986122886681098}, zeros[] = {0.0f, 0.0f, 0.0f},
              values[] = {4.0f, 8.0f, 12.0f};
  fa_attention_problem p = blank;
  fa_attention_args a = none;
  double o;

  /* One key: its value, its score. */
  assert_true(near(one_row(keys, 1, values, &p, &a, &o), 0.0, 0.0));
  assert_true(o == 4.0);
  /* Scores 0 and ln 3: weights 1/4 and 3/4, lse = ln 4. (The key is ln 3 as fp32.) */
  assert_true(near(one_row(keys, 2, values, &p, &a, &o), 2.0 * ln2, 1e-7));
  assert_true(near(o, 7.0, 1e-7));
  /* Three equal scores: the mean, ln 3. */
  assert_true(near(one_row(zeros, 3, values, &p, &a, &o), ln3, 1e-15));
  assert_true(near(o, 8.0, 1e-15));
  /* No key: 0 and -inf. */
  assert_true(one_row(zeros, 0, values, &p, &a, &o) == -(double)INFINITY);
  assert_true(o == 0.0);
  /* A sink of 0 beside one score of 0: half of it. And alone: o = 0, lse = sink. */
  const float sink[] = {0.0f}, deep_sink[] = {-3.5f};
  p.has_sinks = 1;
  a.sinks = sink;
  assert_true(near(one_row(zeros, 1, values, &p, &a, &o), ln2, 1e-15));
  assert_true(near(o, 2.0, 1e-15));
  a.sinks = deep_sink;
  assert_true(one_row(zeros, 0, values, &p, &a, &o) == -3.5);
  assert_true(o == 0.0);
  /* A slope of ln 2: the newest key (distance 0) weighs twice the one before, that twice the first: 1/7 2/7
   * 4/7. */
  const float slope[] = {(float)0.69314718055994531};
  p = blank;
  a = none;
  p.has_alibi = 1;
  a.alibi_slopes = slope;
  one_row(zeros, 3, values, &p, &a, &o);
  assert_true(near(o, (4.0 + 16.0 + 48.0) / 7.0, 1e-7));
  /* Softcap 1 on scores of 20 and -20: +1 and -1. */
  const float extremes[] = {20.0f, -20.0f};
  p = blank;
  a = none;
  p.softcap = 1.0f;
  one_row(extremes, 2, values, &p, &a, &o);
  assert_true(near(o, (4.0 * exp(1.0) + 8.0 * exp(-1.0)) / (exp(1.0) + exp(-1.0)), 1e-12));
  /* A mask selects: NaN behind it is never met. */
  const float poison[] = {1.0f, NAN, 1.0f}, poisoned_values[] = {4.0f, NAN, 12.0f};
  uint8_t mask[] = {1, 0, 2};
  p = blank;
  p.has_mask = 1;
  a.mask.data = mask;
  one_row(poison, 3, poisoned_values, &p, &a, &o);
  assert_true(near(o, 8.0, 1e-15));
  /* ... and without a mask it is, whatever follows. */
  p.has_mask = 0;
  assert_true(isnan(one_row(poison, 3, values, &p, &a, &o)));
  assert_true(isnan(o));
}

static void numbers_by_hand(void **state) {
  (void)state;
  static const struct {
    fa_dtype dtype;
    uint16_t code;
    double value;
  } known[] = {
      {FA_FLOAT16, 0x3c00, 1.0},       {FA_FLOAT16, 0x0001, 0x1p-24},   {FA_FLOAT16, 0x7bff, 65504.0},
      {FA_FLOAT16, 0xc580, -5.5},      {FA_FLOAT16, 0x0400, 0x1p-14},   {FA_FLOAT16, 0x03ff, 0x3ffp-24},
      {FA_BFLOAT16, 0x3f80, 1.0},      {FA_BFLOAT16, 0x4049, 3.140625}, {FA_BFLOAT16, 0x0080, 0x1p-126},
      {FA_BFLOAT16, 0x0001, 0x1p-133}, {FA_BFLOAT16, 0xc2f7, -123.5},   {FA_FP8_E4M3, 0x38, 1.0},
      {FA_FP8_E4M3, 0x7e, 448.0},      {FA_FP8_E4M3, 0x01, 0x1p-9},     {FA_FP8_E4M3, 0x08, 0x1p-6},
      {FA_FP8_E4M3, 0xc4, -3.0},       {FA_INT8, 0x81, -127.0},         {FA_INT8, 0x7f, 127.0}};
  for (size_t n = 0; n < sizeof known / sizeof known[0]; n++) {
    const uint8_t byte = (uint8_t)known[n].code;
    const void *data =
        fa_dtype_bytes(known[n].dtype) == 1 ? (const void *)&byte : (const void *)&known[n].code;
    assert_true(fa_ref_load(data, 0, known[n].dtype) == known[n].value);
    assert_true(fa_ref_round(known[n].value, known[n].dtype) == known[n].value);
  }
  /* Halves go to even, beyond the largest to infinity or, without one, to the largest. */
  assert_true(fa_ref_round(1.0 + 0x1p-11, FA_FLOAT16) == 1.0);
  assert_true(fa_ref_round(1.0 + 0x3p-11, FA_FLOAT16) == 1.0 + 0x1p-9);
  assert_true(fa_ref_round(65519.0, FA_FLOAT16) == 65504.0);
  assert_true(fa_ref_round(65520.0, FA_FLOAT16) == (double)INFINITY);
  assert_true(fa_ref_round(0x1p-25, FA_FLOAT16) == 0.0);
  assert_true(fa_ref_round(0x1.8p-25, FA_FLOAT16) == 0x1p-24);
  assert_true(fa_ref_round(1.0 + 0x1p-8, FA_BFLOAT16) == 1.0);
  assert_true(fa_ref_round(1.0 + 0x3p-8, FA_BFLOAT16) == 1.0 + 0x1p-6);
  assert_true(fa_ref_round(0x1.fffp127, FA_BFLOAT16) == (double)INFINITY);
  assert_true(fa_ref_round(464.0, FA_FP8_E4M3) == 448.0);
  assert_true(fa_ref_round(1e9, FA_FP8_E4M3) == 448.0);
  assert_true(fa_ref_round(-(double)INFINITY, FA_FP8_E4M3) == -448.0);
  assert_true(fa_ref_round(17.0, FA_FP8_E4M3) == 16.0);
  assert_true(fa_ref_round(19.0, FA_FP8_E4M3) == 20.0);
  assert_true(fa_ref_round(2.5, FA_INT8) == 2.0);
  assert_true(fa_ref_round(-300.0, FA_INT8) == -127.0);
  assert_true(isnan(fa_ref_round((double)NAN, FA_FLOAT16)) && isnan(fa_ref_round((double)NAN, FA_BFLOAT16)) &&
              isnan(fa_ref_round((double)NAN, FA_FP8_E4M3)));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_by_hand), cmocka_unit_test(by_hand),
                                     cmocka_unit_test(oracle_agrees_with_numpy),
                                     cmocka_unit_test(rows_agree_with_the_whole)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
