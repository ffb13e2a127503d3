/* Every decode kernel where its products could leave the ordinary: subnormals, sizes whose products are beyond fp32 or below
 * it, scales that are negative, tiny or huge, NaN where a mask hides it. Kernels that multiply bf16 take subnormals
 * as 0, those that multiply bytes make integers of q and of the weights: they have to notice and do without. */
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

/* Rows in fours, twos and one; keys of two chunks, in no multiple of 4; a dimension of no multiple of 32. */
enum { HEADS = 7, QUERIES = 1, KEYS = 83, MOST_DIM = 200 };

typedef struct tensors {
  fa_dtype dtype, kv_dtype;
  int dim;
  double q[HEADS * MOST_DIM]; /* as stored */
  uint8_t k[KEYS * MOST_DIM * 4], v[KEYS * MOST_DIM * 4], q_data[HEADS * MOST_DIM * 4], o[HEADS * MOST_DIM * 4];
  float k_scale[KEYS], v_scale[KEYS];
} tensors;

static void store(void *data, int n, float x, fa_dtype dtype) {
  if (dtype == FA_INT8) ((int8_t *)data)[n] = (int8_t)x;
  else if (dtype == FA_FP8_E4M3) ((uint8_t *)data)[n] = fa_fp8_from_float(x);
  else fa_store_float(data, n, x, dtype);
}

static double value(const tensors *t, const uint8_t *data, const float *scale, int key, int d) {
  const double x = (double)fa_load_float(data, key * t->dim + d, t->kv_dtype);
  return t->kv_dtype != t->dtype ? x * (double)scale[key] : x;
}

/* Small integers, times q_size, k_size and v_size; of a cache with scales the latter two are in these. Some of fp8's are
 * subnormal. */
static tensors *sized(fa_dtype dtype, fa_dtype kv_dtype, int dim, float q_size, float k_size, float v_size) {
  tensors *t = calloc(1, sizeof *t);
  assert_non_null(t);
  t->dtype = dtype;
  t->kv_dtype = kv_dtype;
  t->dim = dim;
  const float k_unit = kv_dtype == FA_INT8 ? 20.0f : kv_dtype == FA_FP8_E4M3 ? 0x1p-8f : k_size;
  const float v_unit = kv_dtype == FA_INT8 ? 25.0f : kv_dtype == FA_FP8_E4M3 ? 0x1p-8f : v_size;
  for (int n = 0; n < HEADS * dim; n++) {
    store(t->q_data, n, (float)(n * 7 % 15 - 7) * q_size, dtype);
  }
  for (int n = 0; n < KEYS * dim; n++) {
    store(t->k, n, (float)(n * 5 % 13 - 6) * k_unit, kv_dtype);
    store(t->v, n, (float)(n * 3 % 11 - 5) * v_unit, kv_dtype);
  }
  for (int j = 0; j < KEYS; j++) {
    t->k_scale[j] = k_size / k_unit;
    t->v_scale[j] = v_size / v_unit;
  }
  return t;
}

/* False: the kernel does not do this. The first keys [0, hidden) are outside the window. */
static int attend(fa_context *context, const char *kernel, int hidden, float scale, tensors *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = t->dtype;
  p.kv_dtype = t->kv_dtype;
  p.heads_q = HEADS;
  p.heads_kv = 1;
  p.max_seqlen_q = QUERIES;
  p.max_seqlen_kv = KEYS;
  p.head_dim_qk = p.head_dim_v = t->dim;
  p.window_left = hidden ? KEYS - 1 - hidden : -1;
  p.scale = scale;
  p.kernel = kernel;
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(context, &p, &plan);
  if (status == FA_ERROR_UNSUPPORTED) return 0;
  if (status != FA_OK) fail_msg("%s", fa_last_error());
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  const int64_t kv = KEYS * t->dim;
  a.q = (fa_tensor){t->q_data, HEADS * t->dim, HEADS * t->dim, t->dim};
  a.k = (fa_tensor){t->k, kv, t->dim, kv};
  a.v = (fa_tensor){t->v, kv, t->dim, kv};
  a.o = (fa_tensor){t->o, HEADS * t->dim, HEADS * t->dim, t->dim};
  if (t->kv_dtype != t->dtype) {
    a.k_scale = (fa_tensor){t->k_scale, KEYS, 1, KEYS};
    a.v_scale = (fa_tensor){t->v_scale, KEYS, 1, KEYS};
  }
  const size_t bytes = fa_plan_workspace_bytes(plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes, &workspace), FA_OK);
  if (bytes > 0) memset(workspace, 0x3c, bytes);
  if (fa_attention_run(plan, &a, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
  return 1;
}

/* All rows against softmax in double; size: of V. */
static void assert_rows(const tensors *t, int hidden, float scale, double size) {
  const double unit = t->dtype == FA_BFLOAT16 ? 0x1p-7 : t->dtype == FA_FLOAT16 ? 0x1p-10 : 0x1p-18;
  const double allowed = fmax(size * unit, t->dtype == FA_BFLOAT16 ? 0x1p-133 : t->dtype == FA_FLOAT16 ? 0x1p-24 : 0x1p-149);
  for (int i = 0; i < HEADS; i++) {
    double weights[KEYS], top = -(double)INFINITY, sum = 0.0;
    for (int j = hidden; j < KEYS; j++) {
      weights[j] = 0.0;
      for (int d = 0; d < t->dim; d++)
        weights[j] += (double)fa_load_float(t->q_data, i * t->dim + d, t->dtype) * value(t, t->k, t->k_scale, j, d);
      weights[j] *= (double)scale;
      top = fmax(top, weights[j]);
    }
    for (int j = hidden; j < KEYS; j++) sum += weights[j] = exp(weights[j] - top);
    for (int d = 0; d < t->dim; d++) {
      double o = 0.0;
      for (int j = hidden; j < KEYS; j++) o += weights[j] / sum * value(t, t->v, t->v_scale, j, d);
      const double got = (double)fa_load_float(t->o, i * t->dim + d, t->dtype), error = fabs(o - got);
      if (!(error <= allowed)) fail_msg("row %d, value %d: %g, not %g; sizes of %g", i, d, got, o, size);
    }
  }
}

static int expect(fa_context *context, const char *kernel, fa_dtype dtype, fa_dtype kv_dtype, float q, float k, float v,
                  float scale) {
  static const int dims[] = {37, 64, 100, 200};
  int ran = 0;
  for (size_t n = 0; n < sizeof dims / sizeof *dims; n++) {
    tensors *t = sized(dtype, kv_dtype, dims[n], q, k, v);
    if (attend(context, kernel, 0, scale, t)) {
      assert_rows(t, 0, scale, 5.0 * fabs((double)v));
      ran = 1;
    }
    free(t);
  }
  return ran;
}

typedef int (*extreme)(fa_context *context, const char *kernel, fa_dtype dtype);

static int bf16_cache(fa_context *context, const char *kernel, fa_dtype dtype) {
  if (dtype != FA_BFLOAT16) return 0;
  const int ran = expect(context, kernel, dtype, dtype, 0.1f, 0.1f, 1.0f, 0.2f); /* nothing extreme yet */
  expect(context, kernel, dtype, dtype, 0x1p100f, 0x1p-104f, 1.0f, 0.2f);
  expect(context, kernel, dtype, dtype, 0x1p124f, 0x1p-128f, 1.0f, 0.2f); /* k is subnormal */
  expect(context, kernel, dtype, dtype, 0x1p-133f, 0x1p121f, 1.0f, 20.0f); /* q is subnormal */
  expect(context, kernel, dtype, dtype, 0x1p19f, 0x1p-132f, 1.0f, 0x1p60f); /* lost, but nothing beside the others */
  expect(context, kernel, dtype, dtype, 0x1p60f, 0x1p56f, 1.0f, 0x1p-119f); /* sums near the largest */
  expect(context, kernel, dtype, dtype, 0.2f, 0.2f, 0x1p-64f, 0.2f);
  expect(context, kernel, dtype, dtype, 0.2f, 0.2f, 0x1p-125f, 0.2f); /* times a weight, subnormal */
  expect(context, kernel, dtype, dtype, 0.25f, 0.25f, 0x1p-130f, 0.2f);
  expect(context, kernel, dtype, dtype, 0.25f, 0.25f, 0x1p118f, 0.2f);
  expect(context, kernel, dtype, dtype, 0.25f, 0.25f, 0.0f, 0.2f);
  expect(context, kernel, dtype, dtype, 0x1p-40f, 0x1p-40f, 1.0f, 0x1p78f); /* a scale beyond some kernels */
  return ran;
}

static int int8_cache(fa_context *context, const char *kernel, fa_dtype dtype) {
  const int ran = expect(context, kernel, dtype, FA_INT8, 0.1f, 0.1f, 1.0f, 0.2f); /* nothing extreme yet */
  expect(context, kernel, dtype, FA_INT8, 0.0f, 0.1f, 1.0f, 0.2f);
  expect(context, kernel, dtype, FA_INT8, 0.1f, -0.1f, 1.0f, 0.2f);
  expect(context, kernel, dtype, FA_INT8, 0.1f, 0.1f, -1.0f, 0.2f);
  expect(context, kernel, dtype, FA_INT8, 0.1f, 0.1f, 0.0f, 0.2f);
  expect(context, kernel, dtype, FA_INT8, 4.0f, 4.0f, 1.0f, 0.2f); /* scores of hundreds */
  expect(context, kernel, dtype, FA_INT8, 1.0f, 0x1p20f, 1.0f, 0x1p-20f);
  expect(context, kernel, dtype, FA_INT8, 0.1f, 0.1f, 0x1p-101f, 0.2f); /* the weights' steps are nearly nothing */
  if (dtype == FA_FLOAT16) return ran;
  expect(context, kernel, dtype, FA_INT8, 0x1p-110f, 0x1p100f, 1.0f, 0x1p10f); /* q's steps would be subnormal */
  expect(context, kernel, dtype, FA_INT8, 0x1p60f, 0x1p56f, 1.0f, 0x1p-119f);
  expect(context, kernel, dtype, FA_INT8, 0.1f, 0.1f, 0x1p-108f, 0.2f); /* the weights' steps would be */
  expect(context, kernel, dtype, FA_INT8, 0.1f, 0.1f, 0x1p110f, 0.2f);
  return ran;
}

static int fp8_cache(fa_context *context, const char *kernel, fa_dtype dtype) {
  const int ran = expect(context, kernel, dtype, FA_FP8_E4M3, 0.1f, 0.1f, 1.0f, 0.2f); /* nothing extreme yet */
  expect(context, kernel, dtype, FA_FP8_E4M3, 0.1f, -0.1f, -1.0f, 0.2f);
  expect(context, kernel, dtype, FA_FP8_E4M3, 0.1f, 0.1f, 0.0f, 0.2f);
  if (dtype == FA_FLOAT16) return ran;
  expect(context, kernel, dtype, FA_FP8_E4M3, 0x1p-120f, 0x1p117f, 1.0f, 0.2f); /* products near the least */
  expect(context, kernel, dtype, FA_FP8_E4M3, 0x1p60f, 0x1p-63f, 1.0f, 0.2f);
  expect(context, kernel, dtype, FA_FP8_E4M3, 0.1f, 0.1f, 0x1p-126f, 0.2f); /* weights with their scales subnormal */
  expect(context, kernel, dtype, FA_FP8_E4M3, 0.1f, 0.1f, 0x1p100f, 0.2f);
  return ran;
}

/* Small elements of q that alone tell the keys apart, beside one that is 2^14 and more times as large and meets a 0. */
static int small_beside_large(fa_context *context, const char *kernel, fa_dtype dtype) {
  tensors *t = sized(dtype, FA_INT8, 64, 0x1p-7f, 1.0f, 1.0f);
  for (int i = 0; i < HEADS; i++) store(t->q_data, i * t->dim, 1024.0f, dtype);
  for (int j = 0; j < KEYS; j++) store(t->k, j * t->dim, 0.0f, FA_INT8);
  const int ran = attend(context, kernel, 0, 1.0f, t);
  if (ran) assert_rows(t, 0, 1.0f, 5.0);
  free(t);
  return ran;
}

static int hidden_nan(fa_context *context, const char *kernel, fa_dtype dtype) {
  static const float what[] = {NAN, INFINITY, -INFINITY};
  int ran = 0;
  for (int n = 0; n < 3; n++) {
    tensors *t = sized(dtype, dtype, 100, 0.1f, 0.1f, 1.0f);
    for (int d = 0; d < t->dim; d++) {
      store(t->k, 3 * t->dim + d, what[n], dtype);
      store(t->v, 3 * t->dim + d, what[n], dtype);
    }
    if (attend(context, kernel, 5, 0.2f, t)) ran = 1, assert_rows(t, 5, 0.2f, 5.0);
    free(t);
    t = sized(dtype, FA_INT8, 100, 0.1f, 0.1f, 1.0f);
    t->k_scale[3] = t->v_scale[3] = what[n];
    if (attend(context, kernel, 5, 0.2f, t)) ran = 1, assert_rows(t, 5, 0.2f, 5.0);
    free(t);
  }
  return ran;
}

/* ------------------------------------------------------------ the same bits on any threads */

/* Heads that lie side by side are worked on together, how many depends on the threads: one head's V must not change what
 * comes out for its neighbours. Groups of 3 rows: no tile's. */
enum { KV_HEADS = 8, GROUP = 3, WIDE = 128, TOKENS = 256 };

static void fill_heads(uint8_t *to, int64_t count, fa_dtype dtype, unsigned seed) {
  for (int64_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    store(to, (int)i, dtype == FA_INT8 ? (float)((int)(seed >> 24) - 128) : ((float)(seed >> 8) / (1 << 23) - 1.0f), dtype);
  }
}

static int bits_of_threads(const char *kernel, fa_dtype kv_dtype, float odd) {
  enum { Q_COUNT = KV_HEADS * GROUP * WIDE, KV_COUNT = TOKENS * KV_HEADS * WIDE };
  static uint8_t q[Q_COUNT * 4], k[KV_COUNT * 4], v[KV_COUNT * 4], o[2][Q_COUNT * 4];
  static float lse[2][KV_HEADS * GROUP], scales[KV_HEADS];
  fill_heads(q, Q_COUNT, FA_BFLOAT16, 1);
  fill_heads(k, KV_COUNT, kv_dtype, 2);
  fill_heads(v, KV_COUNT, kv_dtype, 3);
  for (int h = 0; h < KV_HEADS; h++) scales[h] = kv_dtype == FA_INT8 && h == 3 ? odd : 0.01f;
  for (int j = 0; j < TOKENS && kv_dtype != FA_INT8; j++)
    for (int d = 0; d < WIDE; d++) store(v, (j * KV_HEADS + 3) * WIDE + d, odd, kv_dtype);
  for (int n = 0; n < 2; n++) {
    fa_context *context;
    fa_plan *plan;
    fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
    options.threads = n == 0 ? 1 : 3;
    assert_int_equal(fa_context_create(&options, &context), FA_OK);
    fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
    p.dtype = FA_BFLOAT16;
    p.kv_dtype = kv_dtype;
    p.batch = 1;
    p.heads_q = KV_HEADS * GROUP;
    p.heads_kv = KV_HEADS;
    p.max_seqlen_q = 1;
    p.max_seqlen_kv = TOKENS;
    p.head_dim_qk = p.head_dim_v = WIDE;
    p.has_lse = 1;
    p.kv_splits = 1;
    p.kernel = kernel;
    if (fa_plan_create(context, &p, &plan) != FA_OK) {
      fa_context_destroy(context);
      return 0;
    }
    fa_attention_args a = FA_ATTENTION_ARGS_INIT;
    const fa_tensor kv = {k, TOKENS * KV_HEADS * WIDE, KV_HEADS * WIDE, WIDE}, scale = {scales, 0, 0, 1};
    a.q = a.o = (fa_tensor){q, Q_COUNT, Q_COUNT, WIDE};
    a.k = a.v = kv;
    a.v.data = v;
    a.o.data = o[n];
    a.k_scale = a.v_scale = scale;
    a.lse = lse[n];
    a.lse_stride_head = 1;
    a.lse_stride_batch = KV_HEADS * GROUP;
    memset(o[n], 0xff, sizeof o[n]);
    void *workspace;
    assert_int_equal(fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace), FA_OK);
    if (fa_attention_run(plan, &a, workspace, fa_plan_workspace_bytes(plan), NULL) != FA_OK) fail_msg("%s", fa_last_error());
    fa_buffer_free(context, workspace);
    fa_plan_destroy(plan);
    fa_context_destroy(context);
  }
  if (memcmp(o[0], o[1], Q_COUNT * 2) != 0 || memcmp(lse[0], lse[1], sizeof lse[0]) != 0)
    fail_msg("%s, V of one head %g: other bits on 3 threads than on 1", kernel, (double)odd);
  return 1;
}

static int threads(fa_context *context, const char *kernel, fa_dtype dtype) {
  static const float odd[] = {0.5f, 0.0f, 0x1p-130f, INFINITY, NAN};
  (void)context;
  int ran = 0;
  for (size_t n = 0; dtype == FA_BFLOAT16 && n < sizeof odd / sizeof *odd; n++)
    ran |= bits_of_threads(kernel, FA_BFLOAT16, odd[n]) | bits_of_threads(kernel, FA_INT8, odd[n]);
  return ran;
}

static void every_decode_kernel(fa_context *context, extreme test) {
  fa_kernel_info info;
  for (int32_t n = -1; next_cpu_kernel("decode", &n, &info);) {
    int ran = 0;
    for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++)
      if (info.dtypes & 1u << dtype) ran |= test(context, info.name, (fa_dtype)dtype);
    print_message("%s%s\n", info.name, ran ? "" : " does not do it");
    if (strcmp(info.name, "decode_c") == 0) assert_true(ran);
  }
}

#define TEST(name) \
  static void test_##name(void **state) { every_decode_kernel(*state, name); }
TEST(bf16_cache)
TEST(int8_cache)
TEST(fp8_cache)
TEST(small_beside_large)
TEST(hidden_nan)
TEST(threads)

static int open_context(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int close_context(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  if (lacks_emulated_amx()) return TEST_SKIPPED;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bf16_cache),
      cmocka_unit_test(test_int8_cache),
      cmocka_unit_test(test_fp8_cache),
      cmocka_unit_test(test_small_beside_large),
      cmocka_unit_test(test_hidden_nan),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
