/* Every prefill kernel where arithmetic is not that of ordinary numbers: NaN and infinity under a mask and in
 * sight of it, magnitudes whose products or low bits leave the range, rows without a key. One key is enough
 * to see each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_kernels.h"

enum { ROWS = 80, /* more than a key block of the plain-C kernel */ DIM = 48, COUNT = ROWS * DIM };

typedef struct tensors {
  float q[COUNT], k[COUNT], v[COUNT], o[COUNT], lse[ROWS], bias[ROWS * ROWS], sink;
  uint8_t mask[ROWS * ROWS];
} tensors;

static tensors *ordinary(void) {
  tensors *t = calloc(1, sizeof *t);
  assert_non_null(t);
  for (int n = 0; n < COUNT; n++) {
    t->q[n] = (float)(n * 7 % 23 - 11) / 11.0f;
    t->k[n] = (float)(n * 5 % 19 - 9) / 9.0f;
    t->v[n] = (float)(n * 3 % 29 - 14) / 14.0f;
  }
  memset(t->mask, 1, sizeof t->mask);
  return t;
}

static void attend(fa_context *context, const char *kernel, fa_attention_problem p, tensors *t) {
  fa_plan *plan = NULL;
  p.max_seqlen_q = p.max_seqlen_kv = ROWS;
  p.head_dim_qk = p.head_dim_v = DIM;
  p.has_lse = 1;
  p.kernel = kernel;
  if (fa_plan_create(context, &p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  a.q = (fa_tensor){t->q, COUNT, DIM, DIM};
  a.k = (fa_tensor){t->k, COUNT, DIM, DIM};
  a.v = (fa_tensor){t->v, COUNT, DIM, DIM};
  a.o = (fa_tensor){t->o, COUNT, DIM, DIM};
  a.bias = (fa_tensor){t->bias, 0, ROWS, 0};
  a.mask = (fa_tensor){t->mask, 0, ROWS, 0};
  a.sinks = &t->sink;
  a.lse = t->lse;
  a.lse_stride_batch = a.lse_stride_head = ROWS;
  const size_t bytes = fa_plan_workspace_bytes(plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes, &workspace), FA_OK);
  if (bytes > 0) memset(workspace, 0xff, bytes); /* NaN */
  if (fa_attention_run(plan, &a, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
}

/* Softmax of the kept keys in double, for inputs without NaN and infinity. */
static double expected(const tensors *t, const fa_attention_problem *p, int i, int d) {
  double sum = 0.0, o = 0.0, s[ROWS], top = -(double)INFINITY;
  for (int j = 0; j < ROWS; j++) {
    s[j] = 0.0;
    for (int n = 0; n < DIM; n++) s[j] += (double)t->q[i * DIM + n] * (double)t->k[j * DIM + n];
    s[j] /= sqrt((double)DIM);
    if ((p->causal && j > i) || (p->has_mask && !t->mask[i * ROWS + j])) s[j] = -(double)INFINITY;
    top = fmax(top, s[j]);
  }
  for (int j = 0; j < ROWS; j++) {
    if (s[j] == -(double)INFINITY) continue;
    sum += exp(s[j] - top);
    o += exp(s[j] - top) * (double)t->v[j * DIM + d];
  }
  return o / sum;
}

static void assert_rows(const tensors *t, const fa_attention_problem *p, int end, double size) {
  for (int i = 0; i < end; i++) {
    for (int d = 0; d < DIM; d++) {
      const double error = fabs((double)t->o[i * DIM + d] - expected(t, p, i, d));
      if (!(error <= 2e-6 * size)) fail_msg("row %d, value %d: error %g of %g", i, d, error, size);
    }
  }
}

static void nan_under_the_causal_mask(fa_context *context, const char *kernel, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.causal = 1;
  for (int d = 0; d < DIM; d++) t->v[30 * DIM + d] = t->k[31 * DIM + d] = NAN;
  attend(context, kernel, p, t);
  for (int n = 30 * DIM; n < COUNT; n++) assert_true(isnan(t->o[n]));
  for (int d = 0; d < DIM; d++) t->v[30 * DIM + d] = t->k[31 * DIM + d] = 0.0f; /* seen by no row below 30 */
  assert_rows(t, &p, 30, 1.0);
}

static void infinity_under_the_boolean_mask(fa_context *context, const char *kernel, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.has_mask = 1;
  for (int i = 0; i < ROWS; i++) t->mask[i * ROWS + 7] = 0;
  for (int d = 0; d < DIM; d++) t->v[7 * DIM + d] = t->k[7 * DIM + d] = INFINITY;
  attend(context, kernel, p, t);
  for (int d = 0; d < DIM; d++) t->v[7 * DIM + d] = t->k[7 * DIM + d] = 0.0f;
  assert_rows(t, &p, ROWS, 1.0);
}

static void assert_only_column_2_is_infinite(const tensors *t) {
  for (int n = 0; n < COUNT; n++) {
    if (n % DIM == 2) assert_true(isinf(t->o[n]) && t->o[n] > 0.0f);
    else assert_true(isfinite(t->o[n]));
  }
}

/* Its weight is e^-200, which is 0 in fp32 but not in arithmetic. */
static void infinity_behind_a_vanishing_weight(fa_context *context, const char *kernel, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.has_bias = 1;
  for (int i = 0; i < ROWS; i++) t->bias[i * ROWS + 5] = -200.0f;
  t->v[5 * DIM + 2] = INFINITY;
  attend(context, kernel, p, t);
  assert_only_column_2_is_infinite(t);
}

/* Seen first, and only later keys, or the sink, make its weight vanish. */
static void infinity_before_a_rising_maximum(fa_context *context, const char *kernel, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.has_bias = 1;
  t->v[5 * DIM + 2] = INFINITY;
  for (int i = 0; i < ROWS; i++)
    for (int j = 70; j < ROWS; j++) t->bias[i * ROWS + j] = 200.0f;
  attend(context, kernel, p, t);
  assert_only_column_2_is_infinite(t);
}
static void infinity_under_a_high_sink(fa_context *context, const char *kernel, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.has_sinks = 1;
  t->v[5 * DIM + 2] = INFINITY;
  t->sink = 200.0f;
  attend(context, kernel, p, t);
  assert_only_column_2_is_infinite(t);
}

static void rows_whose_bias_is_minus_infinity(fa_context *context, const char *kernel, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.has_bias = 1;
  for (int j = 0; j < ROWS; j++) t->bias[3 * ROWS + j] = -INFINITY;
  attend(context, kernel, p, t);
  for (int d = 0; d < DIM; d++) assert_true(t->o[3 * DIM + d] == 0.0f);
  assert_true(t->lse[3] == -INFINITY);
  assert_true(isfinite(t->lse[4]) && isfinite(t->o[4 * DIM]));
}

static void scaled(fa_context *context, const char *kernel, tensors *t, float q, float k, float v) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  for (int n = 0; n < COUNT; n++) t->q[n] *= q, t->k[n] *= k, t->v[n] *= v;
  attend(context, kernel, p, t);
  assert_rows(t, &p, ROWS, (double)v);
}
static void large_queries_small_keys(fa_context *context, const char *kernel, tensors *t) {
  scaled(context, kernel, t, 0x1p100f, 0x1p-100f, 1.0f);
}
static void values_near_the_largest(fa_context *context, const char *kernel, tensors *t) {
  scaled(context, kernel, t, 1.0f, 1.0f, 0x1p127f);
}
static void values_near_the_least(fa_context *context, const char *kernel, tensors *t) {
  scaled(context, kernel, t, 1.0f, 1.0f, 0x1p-120f);
}

typedef void (*extreme)(fa_context *context, const char *kernel, tensors *t);

static void every_prefill_kernel(fa_context *context, extreme test, uint32_t needed) {
  fa_kernel_info info;
  for (int32_t n = -1; next_cpu_kernel("prefill", &n, &info);) {
    if (!(info.dtypes & 1u << FA_FLOAT32) || needed & ~info.features) continue;
    tensors *t = ordinary();
    print_message("%s\n", info.name);
    test(context, info.name, t);
    free(t);
  }
}

#define TEST(name, needed) \
  static void test_##name(void **state) { every_prefill_kernel(*state, name, needed); }
TEST(nan_under_the_causal_mask, FA_FEATURE_CAUSAL)
TEST(infinity_under_the_boolean_mask, FA_FEATURE_MASK)
TEST(infinity_behind_a_vanishing_weight, FA_FEATURE_BIAS)
TEST(infinity_before_a_rising_maximum, FA_FEATURE_BIAS)
TEST(infinity_under_a_high_sink, FA_FEATURE_SINKS)
TEST(rows_whose_bias_is_minus_infinity, FA_FEATURE_BIAS)
TEST(large_queries_small_keys, 0)
TEST(values_near_the_largest, 0)
TEST(values_near_the_least, 0)

static int open_context(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int close_context(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  if (lacks_emulated_amx()) return TEST_SKIPPED;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_nan_under_the_causal_mask),
      cmocka_unit_test(test_infinity_under_the_boolean_mask),
      cmocka_unit_test(test_infinity_behind_a_vanishing_weight),
      cmocka_unit_test(test_infinity_before_a_rising_maximum),
      cmocka_unit_test(test_infinity_under_a_high_sink),
      cmocka_unit_test(test_rows_whose_bias_is_minus_infinity),
      cmocka_unit_test(test_large_queries_small_keys),
      cmocka_unit_test(test_values_near_the_largest),
      cmocka_unit_test(test_values_near_the_least),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
