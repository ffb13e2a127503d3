/* Prefill kernels that leave rows to a slower path: not those of ordinary inputs, whatever the mask; and the same bits on any
 * number of threads where some values make them. */
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
#include "core/kernel.h"
#include "cpu/prefill_exact.h"
#include "fastattention/fa_tuning.h"
#include "cpu_kernels.h"

enum { HEADS = 4, ROWS = 300, DIM = 72, MOST_BYTES = HEADS * ROWS * DIM * 4 };

static int64_t exact_rows;

void __real_fa_prefill_rows_exact(const fa_plan *plan, const fa_attention_args *args, int64_t b, int64_t h, int64_t row,
                                  int64_t rows, void *scratch);
void __wrap_fa_prefill_rows_exact(const fa_plan *plan, const fa_attention_args *args, int64_t b, int64_t h, int64_t row,
                                  int64_t rows, void *scratch);
void __wrap_fa_prefill_rows_exact(const fa_plan *plan, const fa_attention_args *args, int64_t b, int64_t h, int64_t row,
                                  int64_t rows, void *scratch) {
  __atomic_fetch_add(&exact_rows, rows, __ATOMIC_RELAXED);
  __real_fa_prefill_rows_exact(plan, args, b, h, row, rows, scratch);
}

typedef struct tensors {
  unsigned char q[MOST_BYTES], k[MOST_BYTES / HEADS], v[MOST_BYTES / HEADS], o[MOST_BYTES];
  float bias[ROWS * ROWS], slopes[HEADS], scales[ROWS];
  uint8_t mask[ROWS * ROWS];
  fa_dtype dtype;
} tensors;

static void fill(void *to, int count, fa_dtype dtype, uint32_t seed) {
  for (int n = 0; n < count; n++) {
    seed = seed * 1664525u + 1013904223u;
    fa_store_float(to, n, (float)(seed >> 8) / 0x1p23f - 1.0f, dtype);
  }
}

static tensors *ordinary(fa_dtype dtype) {
  tensors *t = calloc(1, sizeof *t);
  assert_non_null(t);
  t->dtype = dtype;
  fill(t->q, HEADS * ROWS * DIM, dtype, 1);
  fill(t->k, ROWS * DIM, dtype, 2);
  fill(t->v, ROWS * DIM, dtype, 3);
  /* Row 5 keeps nothing; every row's first 70 keys are masked by numbers. */
  for (int n = 0; n < ROWS * ROWS; n++) {
    const float masks[] = {-1e9f, -FLT_MAX, -INFINITY, -1e25f * (float)(100 + n % 7)};
    t->bias[n] = n % ROWS >= 70 ? (float)(n % 13) / 6.0f : masks[n / ROWS % 4];
    t->mask[n] = n / ROWS != 5 && n % 5 != 0;
  }
  for (int n = 0; n < ROWS; n++) t->scales[n] = 0.002f * (float)(n % 7);
  for (int n = 0; n < HEADS; n++) t->slopes[n] = 0.5f / (float)(n + 1);
  return t;
}

static void attend(int32_t threads, const char *kernel, int causal, int64_t window, uint32_t rules, tensors *t) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.threads = threads;
  fa_context *context = NULL;
  assert_int_equal(fa_context_create(&options, &context), FA_OK);
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = t->dtype;
  p.heads_q = HEADS;
  p.max_seqlen_q = p.max_seqlen_kv = ROWS;
  p.head_dim_qk = p.head_dim_v = DIM;
  p.causal = causal;
  p.window_left = window;
  if (rules & FA_FEATURE_KVQUANT) p.kv_dtype = FA_INT8; /* any bytes are numbers */
  p.has_alibi = (rules & FA_FEATURE_ALIBI) != 0;
  p.has_bias = (rules & FA_FEATURE_BIAS) != 0;
  p.has_mask = (rules & FA_FEATURE_MASK) != 0;
  p.softcap = rules & FA_FEATURE_SOFTCAP ? 15.0f : 0.0f;
  p.kernel = kernel;
  fa_plan *plan = NULL;
  if (fa_plan_create(context, &p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  a.q = (fa_tensor){t->q, HEADS * ROWS * DIM, DIM, ROWS * DIM};
  a.o = (fa_tensor){t->o, HEADS * ROWS * DIM, DIM, ROWS * DIM};
  a.k = (fa_tensor){t->k, ROWS * DIM, DIM, ROWS * DIM};
  a.v = (fa_tensor){t->v, ROWS * DIM, DIM, ROWS * DIM};
  a.k_scale = a.v_scale = (fa_tensor){t->scales, ROWS, 1, 0};
  a.bias = (fa_tensor){t->bias, 0, ROWS, 0};
  a.mask = (fa_tensor){t->mask, 0, ROWS, 0};
  a.alibi_slopes = t->slopes;
  const size_t bytes = fa_plan_workspace_bytes(plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes, &workspace), FA_OK);
  memset(workspace, 0xff, bytes); /* NaN */
  if (fa_attention_run(plan, &a, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
  fa_context_destroy(context);
}

typedef void (*kernel_test)(const char *kernel, fa_dtype dtype, uint32_t features);

static void every_prefill_kernel(kernel_test test) {
  fa_kernel_info info;
  for (int32_t n = -1; next_cpu_kernel("prefill", &n, &info);)
    for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++)
      if (info.dtypes >> dtype & 1u) test(info.name, (fa_dtype)dtype, info.features);
}

static void ordinary_rows(const char *kernel, fa_dtype dtype, uint32_t features) {
  static const uint32_t rules[] = {0, FA_FEATURE_ALIBI, FA_FEATURE_SOFTCAP, FA_FEATURE_BIAS, FA_FEATURE_MASK,
                                   FA_FEATURE_KVQUANT, FA_FEATURE_ALIBI | FA_FEATURE_SOFTCAP | FA_FEATURE_MASK};
  tensors *t = ordinary(dtype);
  for (size_t n = 0; n < sizeof rules / sizeof *rules; n++)
    for (int causal = 0; causal < 2; causal++)
      for (int64_t window = -1; window < 50; window += 47) {
        if (rules[n] & ~features) continue;
        /* Rows whose every key has such a bias are not ordinary. */
        if (rules[n] & FA_FEATURE_BIAS && (causal || window >= 0)) continue;
        exact_rows = 0;
        attend(2, kernel, causal, window, rules[n], t);
        if (exact_rows != 0)
          fail_msg("%s, %s, rules 0x%x, causal %d, window %lld: %lld rows went the slow way", kernel, fa_dtype_name(dtype),
                   rules[n], causal, (long long)window, (long long)exact_rows);
      }
  free(t);
}
static void test_ordinary_rows_stay(void **state) {
  (void)state;
  every_prefill_kernel(ordinary_rows);
}

/* An infinity in one query, then one in a key behind the window: whatever they make of a row, threads make the same. */
static void bits_of_threads(const char *kernel, fa_dtype dtype, uint32_t features) {
  (void)features;
  static unsigned char first[MOST_BYTES];
  tensors *t = ordinary(dtype);
  const size_t bytes = HEADS * ROWS * DIM * fa_dtype_size(dtype);
  for (int where = 0; where < 2; where++) {
    fa_store_float(where ? t->k : t->q, 37 * DIM + 5, INFINITY, dtype);
    for (int32_t threads = 1; threads <= 8; threads++) {
      attend(threads, kernel, 1, 200, 0, t);
      if (threads == 1) memcpy(first, t->o, bytes);
      else if (memcmp(first, t->o, bytes) != 0)
        fail_msg("%s, %s: other bits on %d threads", kernel, fa_dtype_name(dtype), (int)threads);
    }
    fill(t->q, HEADS * ROWS * DIM, dtype, 1);
  }
  free(t);
}
static void test_same_bits_on_any_threads(void **state) {
  (void)state;
  every_prefill_kernel(bits_of_threads);
}

/* A ragged batch packs as many heads of K and V at a time as their lengths leave room for: the same bits as each entry alone,
 * and nothing behind the workspace. Super-blocks of 32 rows are many, so that the plan's own number of heads is small. */
enum { ENTRIES = 40, KV_HEADS = 3, LONGEST = 400, WIDTH = 40 };

static void run_ragged(fa_context *context, const char *kernel, fa_dtype dtype, const int32_t *starts, int entries,
                       unsigned char *q, unsigned char *k, unsigned char *v, unsigned char *o) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = dtype;
  p.batch = entries;
  p.heads_q = p.heads_kv = KV_HEADS;
  p.max_seqlen_q = p.max_seqlen_kv = LONGEST;
  p.head_dim_qk = p.head_dim_v = WIDTH;
  p.ragged_q = p.ragged_kv = 1;
  p.total_seqlen_q = p.total_seqlen_kv = starts[entries];
  p.causal = 1;
  const fa_plan_choice choice = {sizeof choice, kernel, 32, 0, 0};
  fa_plan *plan = NULL;
  if (fa_plan_create_with(context, &p, &choice, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  a.q = (fa_tensor){q, 0, KV_HEADS * WIDTH, WIDTH};
  a.k = (fa_tensor){k, 0, KV_HEADS * WIDTH, WIDTH};
  a.v = (fa_tensor){v, 0, KV_HEADS * WIDTH, WIDTH};
  a.o = (fa_tensor){o, 0, KV_HEADS * WIDTH, WIDTH};
  a.cu_seqlens_q = a.cu_seqlens_kv = starts;
  enum { GUARD = 4096 };
  const size_t bytes = fa_plan_workspace_bytes(plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes + GUARD, &workspace), FA_OK);
  memset(workspace, 0xff, bytes + GUARD);
  if (fa_attention_run(plan, &a, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  for (int n = 0; n < GUARD; n++) assert_int_equal(((unsigned char *)workspace)[bytes + (size_t)n], 0xff);
  fa_buffer_free(context, workspace);
  fa_plan_destroy(plan);
}

static void ragged_groups(const char *kernel, fa_dtype dtype, uint32_t features) {
  (void)features;
  if (!strstr(kernel, "_amx")) return; /* the others pack nothing for all threads */
  int32_t starts[ENTRIES + 1] = {0};
  for (int b = 0; b < ENTRIES; b++) /* the longest, none, short ones, and short ones again behind long ones */
    starts[b + 1] = starts[b] + (b % 13 == 3 ? LONGEST : b % 7 == 2 ? 0 : 1 + b * 37 % 90);
  const size_t bytes = (size_t)starts[ENTRIES] * KV_HEADS * WIDTH * fa_dtype_size(dtype);
  unsigned char *memory[5];
  for (int n = 0; n < 5; n++) {
    memory[n] = calloc(1, bytes);
    assert_non_null(memory[n]);
    if (n < 3) fill(memory[n], starts[ENTRIES] * KV_HEADS * WIDTH, dtype, (uint32_t)n + 7);
  }
  /* One value that cannot be split, in one head of a short entry: its flag is that head's alone. */
  fa_store_float(memory[2], (starts[17] * KV_HEADS + 1) * WIDTH, INFINITY, dtype);
  for (int32_t threads = 1; threads <= 3; threads += 2) {
    fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
    options.threads = threads;
    fa_context *context = NULL;
    assert_int_equal(fa_context_create(&options, &context), FA_OK);
    run_ragged(context, kernel, dtype, starts, ENTRIES, memory[0], memory[1], memory[2], memory[3]);
    for (int b = 0; b < ENTRIES; b++) {
      const int32_t alone[2] = {0, starts[b + 1] - starts[b]};
      const size_t at = (size_t)starts[b] * KV_HEADS * WIDTH * fa_dtype_size(dtype);
      run_ragged(context, kernel, dtype, alone, 1, memory[0] + at, memory[1] + at, memory[2] + at, memory[4] + at);
    }
    assert_true(fa_load_float(memory[3], 0, dtype) != 0.0f);
    if (memcmp(memory[3], memory[4], bytes) != 0) fail_msg("%s, %s: other bits in a batch", kernel, fa_dtype_name(dtype));
    fa_context_destroy(context);
  }
  for (int n = 0; n < 5; n++) free(memory[n]);
}
static void test_ragged_groups(void **state) {
  (void)state;
  every_prefill_kernel(ragged_groups);
}

int main(void) {
  if (lacks_emulated_amx()) return TEST_SKIPPED;
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ordinary_rows_stay), cmocka_unit_test(test_same_bits_on_any_threads),
                                     cmocka_unit_test(test_ragged_groups)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
