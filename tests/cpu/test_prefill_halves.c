/* Every prefill kernel of 16-bit types where its products could leave the ordinary: subnormals, sizes whose
 * products or sums are beyond fp32 or below it, NaN and infinity where a mask hides them. Matrix units take
 * subnormals as 0: a kernel has to notice and do without them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "cpu_kernels.h"

enum { ROWS = 47, DIM = 37, COUNT = ROWS * DIM }; /* no multiple of a tile's rows, keys, or of 8 or 4 */

typedef struct tensors {
  uint16_t q[COUNT], k[COUNT], v[COUNT], o[COUNT];
  fa_dtype dtype;
} tensors;

static double value(const uint16_t *from, int n, fa_dtype dtype) {
  return (double)fa_load_float(from, n, dtype);
}

/* Numbers of three bits, times q_size, k_size and v_size. */
static tensors *sized(fa_dtype dtype, float q_size, float k_size, float v_size) {
  tensors *t = calloc(1, sizeof *t);
  assert_non_null(t);
  t->dtype = dtype;
  for (int n = 0; n < COUNT; n++) {
    fa_store_float(t->q, n, (float)(n * 7 % 15 - 7) * q_size, dtype);
    fa_store_float(t->k, n, (float)(n * 5 % 13 - 6) * k_size, dtype);
    fa_store_float(t->v, n, (float)(n * 3 % 11 - 5) * v_size, dtype);
  }
  return t;
}

static void attend(fa_context *context, const char *kernel, int causal, float scale, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = t->dtype;
  p.max_seqlen_q = p.max_seqlen_kv = ROWS;
  p.head_dim_qk = p.head_dim_v = DIM;
  p.causal = causal;
  p.scale = scale;
  p.kernel = kernel;
  fa_plan *plan = NULL;
  if (fa_plan_create(context, &p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  a.q = (fa_tensor){t->q, COUNT, DIM, DIM};
  a.k = (fa_tensor){t->k, COUNT, DIM, DIM};
  a.v = (fa_tensor){t->v, COUNT, DIM, DIM};
  a.o = (fa_tensor){t->o, COUNT, DIM, DIM};
  const size_t bytes = fa_plan_workspace_bytes(plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes, &workspace), FA_OK);
  /* 0.011 in fp32 and bf16, 1.06 in fp16: a NaN would only send the row to the kernel's way out. */
  if (bytes > 0) memset(workspace, 0x3c, bytes);
  if (fa_attention_run(plan, &a, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
}

/* Rows [0, end) against softmax in double; size: of V. */
static void assert_rows(const tensors *t, int causal, float scale, int end, double size) {
  /* Subnormals lie 2^-133 and 2^-24 apart. */
  const double allowed =
      t->dtype == FA_BFLOAT16 ? fmax(size * 0x1p-7, 0x1p-133) : fmax(size * 0x1p-10, 0x1p-24);
  for (int i = 0; i < end; i++) {
    double weights[ROWS], top = -(double)INFINITY, sum = 0.0;
    const int keys = causal ? i + 1 : ROWS;
    for (int j = 0; j < keys; j++) {
      weights[j] = 0.0;
      for (int d = 0; d < DIM; d++)
        weights[j] += value(t->q, i * DIM + d, t->dtype) * value(t->k, j * DIM + d, t->dtype);
      weights[j] *= (double)scale;
      top = fmax(top, weights[j]);
    }
    for (int j = 0; j < keys; j++) sum += weights[j] = exp(weights[j] - top);
    for (int d = 0; d < DIM; d++) {
      double o = 0.0;
      for (int j = 0; j < keys; j++) o += weights[j] / sum * value(t->v, j * DIM + d, t->dtype);
      const double error = fabs(o - value(t->o, i * DIM + d, t->dtype));
      if (!(error <= allowed)) fail_msg("row %d, value %d: error %g of %g", i, d, error, size);
    }
  }
}

static void expect_ordinary(fa_context *context, const char *kernel, fa_dtype dtype, float q, float k,
                            float v, float scale) {
  tensors *t = sized(dtype, q, k, v);
  for (int causal = 0; causal < 2; causal++) {
    attend(context, kernel, causal, scale, t);
    assert_rows(t, causal, scale, ROWS, 5.0 * (double)v);
  }
  free(t);
}

static void nan_is_hidden(fa_context *context, const char *kernel, fa_dtype dtype, float what) {
  tensors *t = sized(dtype, 0.1f, 0.1f, 1.0f);
  for (int d = 0; d < DIM; d++) {
    fa_store_float(t->k, 30 * DIM + d, what, dtype);
    fa_store_float(t->v, 30 * DIM + d, what, dtype);
  }
  attend(context, kernel, 1, 0.2f, t);
  assert_rows(t, 1, 0.2f, 30, 5.0);
  if (isnan(what))
    for (int n = 30 * DIM; n < COUNT; n++) assert_true(isnan(value(t->o, n, dtype)));
  free(t);
}

typedef void (*extreme)(fa_context *context, const char *kernel, fa_dtype dtype);

static void bf16_extremes(fa_context *context, const char *kernel, fa_dtype dtype) {
  if (dtype != FA_BFLOAT16) return;
  expect_ordinary(context, kernel, dtype, 0.1f, 0.1f, 1.0f, 0.2f); /* nothing extreme yet */
  expect_ordinary(context, kernel, dtype, 0x1p100f, 0x1p-104f, 1.0f, 0.2f);
  expect_ordinary(context, kernel, dtype, 0x1p127f / 8, 0x1p-128f, 1.0f, 0.2f); /* k of 2^-128 is subnormal */
  expect_ordinary(context, kernel, dtype, 0x1p-133f, 0x1p121f, 1.0f, 20.0f);
  expect_ordinary(context, kernel, dtype, 0x1p60f, 0x1p56f, 1.0f, 0x1p-119f); /* sums near the largest */
  expect_ordinary(context, kernel, dtype, 0.2f, 0.2f, 0x1p-125f, 0.2f);       /* times a weight, subnormal */
  expect_ordinary(context, kernel, dtype, 0.25f, 0.25f, 0x1p-130f, 0.2f);
  expect_ordinary(context, kernel, dtype, 0.25f, 0.25f, 0x1p125f, 0.2f);
}

/* Sums of products beyond fp32: the score is infinite or, taken to be so, NaN; no finite answer of another
 * problem. Row 0 sees one key, whatever its score. */
static void scores_beyond_fp32(fa_context *context, const char *kernel, fa_dtype dtype) {
  if (dtype != FA_BFLOAT16) return;
  tensors *t = sized(dtype, 1.0f, 1.0f, 1.0f);
  for (int n = 0; n < COUNT; n++) {
    fa_store_float(t->q, n, 0x1p65f, dtype);
    fa_store_float(t->k, n, n / DIM == 1 ? 0x1p64f : 0x1p63f, dtype);
  }
  attend(context, kernel, 1, 1.0f, t);
  for (int i = 1; i < ROWS; i++) {
    for (int d = 0; d < DIM; d++) {
      /* Key 1 has the largest score: its value, or NaN where the kernel could not tell. */
      const double o = value(t->o, i * DIM + d, dtype), wanted = value(t->v, DIM + d, dtype);
      if (!isnan(o) && fabs(o - wanted) > 0.1) fail_msg("row %d, value %d: %g, not %g", i, d, o, wanted);
    }
  }
  free(t);
}

static void fp16_extremes(fa_context *context, const char *kernel, fa_dtype dtype) {
  if (dtype != FA_FLOAT16) return;
  expect_ordinary(context, kernel, dtype, 0.1f, 0.1f, 1.0f, 0.2f); /* nothing extreme yet */
  expect_ordinary(context, kernel, dtype, 0x1p9f, 0x1p-15f, 1.0f, 0.2f);
  expect_ordinary(context, kernel, dtype, 0x1p-24f, 0x1p12f, 1.0f, 20.0f); /* q is subnormal */
  expect_ordinary(context, kernel, dtype, 0x1p13f, 0x1p13f, 1.0f, 0x1p-30f);
  expect_ordinary(context, kernel, dtype, 0.25f, 0.25f, 0x1p13f, 0.2f);
}

static void hidden_nan(fa_context *context, const char *kernel, fa_dtype dtype) {
  nan_is_hidden(context, kernel, dtype, NAN);
  nan_is_hidden(context, kernel, dtype, INFINITY);
  nan_is_hidden(context, kernel, dtype, -INFINITY);
}

static void every_prefill_kernel(fa_context *context, extreme test) {
  fa_kernel_info info;
  for (int32_t n = -1; next_cpu_kernel("prefill", &n, &info);) {
    if (strcmp(info.name, "prefill_bf16_amx") == 0) continue; /* says itself that it takes subnormals as 0 */
    print_message("%s\n", info.name);
    for (int dtype = FA_FLOAT16; dtype <= FA_BFLOAT16; dtype++)
      if (info.dtypes & 1u << dtype) test(context, info.name, (fa_dtype)dtype);
  }
}

#define TEST(name) \
  static void test_##name(void **state) { every_prefill_kernel(*state, name); }
TEST(bf16_extremes)
TEST(scores_beyond_fp32)
TEST(fp16_extremes)
TEST(hidden_nan)

static int open_context(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int close_context(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  if (lacks_emulated_amx()) return TEST_SKIPPED;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bf16_extremes),
      cmocka_unit_test(test_scores_beyond_fp32),
      cmocka_unit_test(test_fp16_extremes),
      cmocka_unit_test(test_hidden_nan),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
