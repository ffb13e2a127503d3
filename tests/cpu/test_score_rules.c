/* Every prefill kernel under softcap, ALiBi, bias and boolean mask, with scores of any size, against softmax in double: o and
 * lse. `fastattn check` draws such rules at ordinary sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "cpu_kernels.h"

enum { HEADS = 2, ROWS = 90, KEYS = 150, DIM = 40, MOST_BYTES = HEADS * KEYS * DIM * 4, SCORES = ROWS * KEYS };

typedef struct tensors {
  unsigned char q[MOST_BYTES], k[MOST_BYTES], v[MOST_BYTES], o[MOST_BYTES], bias[SCORES * 4];
  float lse[HEADS * ROWS], slopes[HEADS];
  uint8_t mask[SCORES];
  double exact_o[HEADS * ROWS * DIM], exact_lse[HEADS * ROWS], size; /* of the largest score */
} tensors;

static void fill(void *to, int count, fa_dtype dtype, uint32_t seed, float size) {
  for (int n = 0; n < count; n++) {
    seed = seed * 1664525u + 1013904223u;
    fa_store_float(to, n, ((float)(seed >> 8) / 0x1p23f - 1.0f) * size, dtype);
  }
}

/* A rule under test: sets what of it is in the problem and in the tensors. */
typedef void (*rule)(fa_attention_problem *p, tensors *t);

static void in_double(const fa_attention_problem *p, tensors *t) {
  t->size = 0.0;
  for (int h = 0; h < HEADS; h++)
    for (int i = 0; i < ROWS; i++) {
      double s[KEYS], top = -(double)INFINITY, sum = 0.0;
      for (int j = 0; j < KEYS; j++) {
        s[j] = 0.0;
        for (int d = 0; d < DIM; d++)
          s[j] += (double)fa_load_float(t->q, (h * ROWS + i) * DIM + d, p->dtype) *
                  (double)fa_load_float(t->k, j * DIM + d, p->dtype);
        s[j] *= (double)p->scale;
        t->size = fmax(t->size, fabs(s[j]));
        if (p->softcap > 0.0f) s[j] = (double)p->softcap * tanh(s[j] / (double)p->softcap);
        if (p->has_alibi) s[j] -= (double)t->slopes[h] * abs(i + KEYS - ROWS - j);
        if (p->has_bias) s[j] += (double)fa_load_float(t->bias, i * KEYS + j, p->bias_dtype);
        if ((p->has_mask && !t->mask[i * KEYS + j]) || (p->causal && j > i + KEYS - ROWS)) s[j] = -(double)INFINITY;
        top = fmax(top, s[j]);
        if (fabs(s[j]) < 1e6) t->size = fmax(t->size, fabs(s[j]));
      }
      for (int j = 0; j < KEYS; j++) sum += s[j] = top == -(double)INFINITY ? 0.0 : exp(s[j] - top);
      t->exact_lse[h * ROWS + i] = sum > 0.0 ? top + log(sum) : -(double)INFINITY;
      for (int d = 0; d < DIM; d++) {
        double o = 0.0;
        for (int j = 0; j < KEYS; j++) o += s[j] * (double)fa_load_float(t->v, j * DIM + d, p->dtype);
        t->exact_o[(h * ROWS + i) * DIM + d] = sum > 0.0 ? o / sum : 0.0;
      }
    }
}

static void attend(fa_context *context, const fa_attention_problem *p, tensors *t) {
  fa_plan *plan = NULL;
  if (fa_plan_create(context, p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  a.q = (fa_tensor){t->q, HEADS * ROWS * DIM, DIM, ROWS * DIM};
  a.o = (fa_tensor){t->o, HEADS * ROWS * DIM, DIM, ROWS * DIM};
  a.k = (fa_tensor){t->k, KEYS * DIM, DIM, KEYS * DIM};
  a.v = (fa_tensor){t->v, KEYS * DIM, DIM, KEYS * DIM};
  a.bias = (fa_tensor){t->bias, 0, KEYS, 0};
  a.mask = (fa_tensor){t->mask, 0, KEYS, 0};
  a.alibi_slopes = t->slopes;
  a.lse = t->lse;
  a.lse_stride_batch = HEADS * ROWS;
  a.lse_stride_head = ROWS;
  const size_t bytes = fa_plan_workspace_bytes(plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes, &workspace), FA_OK);
  if (bytes > 0) memset(workspace, 0xff, bytes); /* NaN */
  if (fa_attention_run(plan, &a, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
}

static void every_prefill_kernel(fa_context *context, rule set, uint32_t needed) {
  static const double step[] = {[FA_FLOAT32] = 0x1p-19, [FA_FLOAT16] = 0x1p-10, [FA_BFLOAT16] = 0x1p-7};
  tensors *t = calloc(1, sizeof *t);
  assert_non_null(t);
  fa_kernel_info info;
  for (int32_t n = -1; next_cpu_kernel("prefill", &n, &info);) {
    if (needed & ~info.features) continue;
    for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++) {
      if (!(info.dtypes >> dtype & 1u)) continue;
      fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
      p.dtype = p.kv_dtype = (fa_dtype)dtype;
      p.heads_q = HEADS;
      p.max_seqlen_q = ROWS;
      p.max_seqlen_kv = KEYS;
      p.head_dim_qk = p.head_dim_v = DIM;
      p.scale = 0.5f;
      p.has_lse = 1;
      p.kernel = info.name;
      fill(t->q, HEADS * ROWS * DIM, p.dtype, 1, 1.0f);
      fill(t->k, KEYS * DIM, p.dtype, 2, 1.0f);
      fill(t->v, KEYS * DIM, p.dtype, 3, 1.0f);
      set(&p, t);
      in_double(&p, t);
      attend(context, &p, t);
      /* A score of fp32 is as exact as its size lets it be. */
      const double allowed = step[dtype] + t->size * 0x1p-21;
      for (int r = 0; r < HEADS * ROWS; r++) {
        const double lse = (double)t->lse[r], exact = t->exact_lse[r];
        if (!(lse == exact || fabs(lse - exact) <= 4.0 * allowed + fabs(exact) * 0x1p-22))
          fail_msg("%s, %s, row %d: lse %.9g, not %.9g", info.name, fa_dtype_name((fa_dtype)dtype), r, lse, exact);
        for (int d = 0; d < DIM; d++) {
          const double o = (double)fa_load_float(t->o, r * DIM + d, (fa_dtype)dtype);
          if (!(fabs(o - t->exact_o[r * DIM + d]) <= allowed))
            fail_msg("%s, %s, row %d, value %d: %.9g, not %.9g", info.name, fa_dtype_name((fa_dtype)dtype), r, d, o,
                     t->exact_o[r * DIM + d]);
        }
      }
    }
  }
  free(t);
}

static void ordinary_bias(fa_attention_problem *p, tensors *t, fa_dtype dtype, float size) {
  p->has_bias = 1;
  p->bias_dtype = dtype;
  fill(t->bias, SCORES, dtype, 4, size);
}
/* Keys [from, to) of every row, and all of rows 3 and 60. */
static void bias_keys(tensors *t, int from, int to, float value) {
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < KEYS; j++)
      if ((j >= from && j < to) || i == 3 || i == 60) fa_store_float(t->bias, i * KEYS + j, value, FA_FLOAT32);
}

static void softcap(fa_attention_problem *p, tensors *t) {
  (void)t;
  p->softcap = 20.0f;
  p->scale = -30.0f; /* scores far beyond it and near 0 */
}
static void low_softcap(fa_attention_problem *p, tensors *t) {
  (void)t;
  p->softcap = 0.01f;
  p->causal = 1;
}
static void high_softcap(fa_attention_problem *p, tensors *t) {
  (void)t;
  p->softcap = 1e6f;
}
static void slopes(fa_attention_problem *p, tensors *t) {
  p->has_alibi = 1;
  t->slopes[0] = 0.03f;
  t->slopes[1] = 8.0f;
}
/* Scores that grow with the distance, to 1e3, rise from block to block. */
static void negative_slopes(fa_attention_problem *p, tensors *t) {
  p->has_alibi = 1;
  p->scale = -0.5f;
  t->slopes[0] = -0.5f;
  t->slopes[1] = -7.0f;
}
static void small_bias(fa_attention_problem *p, tensors *t) { ordinary_bias(p, t, p->dtype, 3.0f); }
static void other_bias(fa_attention_problem *p, tensors *t) {
  ordinary_bias(p, t, p->dtype == FA_FLOAT16 ? FA_BFLOAT16 : FA_FLOAT16, 3.0f);
}
static void large_bias(fa_attention_problem *p, tensors *t) { ordinary_bias(p, t, FA_FLOAT32, 1e4f); }
/* What masks as numbers look like: of a row that has nothing else, the mean of V, or at -inf nothing. */
static void bias_of_minus_infinity(fa_attention_problem *p, tensors *t) {
  ordinary_bias(p, t, FA_FLOAT32, 3.0f);
  bias_keys(t, 0, 70, -INFINITY);
}
static void bias_of_the_least_number(fa_attention_problem *p, tensors *t) {
  ordinary_bias(p, t, FA_FLOAT32, 3.0f);
  bias_keys(t, 0, 70, -FLT_MAX);
}
static void bias_of_minus_a_thousand_million(fa_attention_problem *p, tensors *t) {
  ordinary_bias(p, t, FA_FLOAT32, 3.0f);
  bias_keys(t, 40, KEYS, -1e9f);
  for (int j = 0; j < KEYS; j++) { /* a score beside that size is gone in fp32, and all keys weigh the same */
    fa_store_float(t->bias, 3 * KEYS + j, -1e3f, FA_FLOAT32);
    fa_store_float(t->bias, 60 * KEYS + j, 1e3f, FA_FLOAT32);
  }
}
static void mask(fa_attention_problem *p, tensors *t) {
  p->has_mask = 1;
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < KEYS; j++)
      t->mask[i * KEYS + j] = (uint8_t)(i % 7 == 5 ? 0 : i % 7 == 4 ? (j > 100) * 128 : (i * 31 + j * 17) % 5 > 2);
}
static void all_of_them(fa_attention_problem *p, tensors *t) {
  mask(p, t);
  slopes(p, t);
  softcap(p, t);
  ordinary_bias(p, t, FA_FLOAT32, 3.0f);
  bias_keys(t, 0, 40, -INFINITY);
  p->causal = 1;
}

#define TEST(name, needed) \
  static void test_##name(void **state) { every_prefill_kernel(*state, name, needed); }
TEST(softcap, FA_FEATURE_SOFTCAP)
TEST(low_softcap, FA_FEATURE_SOFTCAP)
TEST(high_softcap, FA_FEATURE_SOFTCAP)
TEST(slopes, FA_FEATURE_ALIBI)
TEST(negative_slopes, FA_FEATURE_ALIBI)
TEST(small_bias, FA_FEATURE_BIAS)
TEST(other_bias, FA_FEATURE_BIAS)
TEST(large_bias, FA_FEATURE_BIAS)
TEST(bias_of_minus_infinity, FA_FEATURE_BIAS)
TEST(bias_of_the_least_number, FA_FEATURE_BIAS)
TEST(bias_of_minus_a_thousand_million, FA_FEATURE_BIAS)
TEST(mask, FA_FEATURE_MASK)
TEST(all_of_them, FA_FEATURE_MASK | FA_FEATURE_SOFTCAP | FA_FEATURE_ALIBI | FA_FEATURE_BIAS)

static int open_context(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int close_context(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  if (lacks_emulated_amx()) return TEST_SKIPPED;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_softcap),
      cmocka_unit_test(test_low_softcap),
      cmocka_unit_test(test_high_softcap),
      cmocka_unit_test(test_slopes),
      cmocka_unit_test(test_negative_slopes),
      cmocka_unit_test(test_small_bias),
      cmocka_unit_test(test_other_bias),
      cmocka_unit_test(test_large_bias),
      cmocka_unit_test(test_bias_of_minus_infinity),
      cmocka_unit_test(test_bias_of_the_least_number),
      cmocka_unit_test(test_bias_of_minus_a_thousand_million),
      cmocka_unit_test(test_mask),
      cmocka_unit_test(test_all_of_them),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
