/* The backends `ascend` and `ascend-sim`: devices, memory of their own, plans and runs on the emulated chip, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ascend/host/ascend.h"
#include "ascend/host/sim_backend.h"
#include "check/check.h"
#include "core/dtype.h"

static fa_context *context_of(const char *device) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  options.device = device;
  if (fa_context_create(&options, &context) != FA_OK) fail_msg("%s: %s", device, fa_last_error());
  return context;
}

static void says(const char *words) {
  if (!strstr(fa_last_error(), words)) fail_msg("'%s' does not say '%s'", fa_last_error(), words);
}

static void the_chips(void **state) {
  (void)state;
  static const char *const words[] = {"910B2 emulated: 24 AIC, 48 AIV, 1.8 GHz", "910B1 emulated: 24 AIC, 48 AIV, 1.85 GHz",
                                      "910B3 emulated: 20 AIC, 40 AIV, 1.8 GHz", "910B4 emulated: 20 AIC, 40 AIV, 1.5 GHz"};
  int found = 0;
  for (int32_t n = 0; n < fa_device_count(); n++) {
    fa_device_info info = FA_DEVICE_INFO_INIT;
    assert_int_equal(fa_device_describe(n, &info), FA_OK);
    if (strncmp(info.name, "ascend-sim:", 11) != 0) continue;
    assert_non_null(strstr(info.description, words[info.name[11] - '0']));
    assert_int_equal(info.units, strstr(info.description, "24 AIC") ? 24 : 20);
    found++;
  }
  assert_int_equal(found, 4);
  fa_context *plain = context_of("ascend-sim"), *fourth = context_of("ascend-sim:3");
  assert_string_equal(fa_ascend_device_of(plain)->chip.name, "910B2");
  assert_string_equal(fa_ascend_device_of(fourth)->chip.name, "910B4");
  assert_string_equal(dv_chip_name(fa_ascend_sim_chip(fourth)), "910b4");
  fa_context_destroy(plain);
  fa_context_destroy(fourth);
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.device = "ascend-sim:4";
  assert_int_equal(fa_context_create(&options, &plain), FA_ERROR_DEVICE);
  says("devices found: 4");
}

static void an_npu_that_is_not_there(void **state) {
  (void)state;
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  options.device = "ascend";
  if (fa_ascend_backend.device_count() > 0) skip();
  assert_int_equal(fa_context_create(&options, &context), FA_ERROR_DEVICE);
  assert_null(context);
  says("device 'ascend' is not there: ");
  says(fa_ascend_backend.missing());
  if (strstr(fa_ascend_backend.missing(), "not found")) says("libascendcl.so");
}

/* --------------------------------------------------------------------- runs */

enum { BATCH = 2, HEADS_Q = 4, HEADS_KV = 2, QUERIES = 40, KEYS = 150, DIM = 64, PAGE = 16, PAGES = 24 };

typedef struct arrays {
  fa_context *context;
  fa_attention_args args;
  void *buffers[8];
  int count;
} arrays;

/* Of `count` elements or bytes; small numbers if `filled`. */
static void *place(arrays *a, size_t count, size_t bytes, int filled) {
  void *memory = NULL;
  assert_int_equal(fa_buffer_allocate(a->context, count * bytes, &memory), FA_OK);
  a->buffers[a->count++] = memory;
  for (size_t n = 0; n < count && filled; n++)
    fa_store_float(memory, (int64_t)n, (float)((n * 7919u + 13u * (size_t)a->count) % 255) / 64.0f - 2.0f, FA_FLOAT16);
  return memory;
}

static fa_attention_problem problem_of(int64_t queries) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = FA_FLOAT16;
  p.batch = BATCH;
  p.heads_q = HEADS_Q;
  p.heads_kv = HEADS_KV;
  p.max_seqlen_q = queries;
  p.max_seqlen_kv = KEYS;
  p.head_dim_qk = p.head_dim_v = DIM;
  p.has_lse = p.has_seqlens_kv = 1;
  p.page_size = PAGE;
  p.num_pages = PAGES;
  return p;
}

static void open_arrays(arrays *a, fa_context *context, int64_t queries) {
  memset(a, 0, sizeof *a);
  a->context = context;
  a->args = (fa_attention_args)FA_ATTENTION_ARGS_INIT;
  const int64_t row_q = HEADS_Q * DIM, row_kv = HEADS_KV * DIM;
  const size_t rows = (size_t)(BATCH * queries * HEADS_Q), tokens = (size_t)(PAGES * PAGE * HEADS_KV);
  a->args.q = (fa_tensor){place(a, rows * DIM, 2, 1), queries * row_q, row_q, DIM};
  a->args.k = (fa_tensor){place(a, tokens * DIM, 2, 1), PAGE * row_kv, row_kv, DIM};
  a->args.v = (fa_tensor){place(a, tokens * DIM, 2, 1), PAGE * row_kv, row_kv, DIM};
  a->args.o = (fa_tensor){place(a, rows * DIM, 2, 0), queries * row_q, row_q, DIM};
  a->args.lse = place(a, rows, 4, 0);
  a->args.lse_stride_head = queries;
  a->args.lse_stride_batch = HEADS_Q * queries;
  a->args.page_table_stride = PAGES / BATCH;
  int32_t *lengths = place(a, BATCH, 4, 0), *table = place(a, PAGES, 4, 0);
  for (int32_t n = 0; n < PAGES; n++) table[n] = (n * 7 + 3) % PAGES;
  lengths[0] = KEYS;
  lengths[1] = 77;
  a->args.seqlens_kv = lengths;
  a->args.page_table = table;
}

static void close_arrays(arrays *a) {
  for (int n = 0; n < a->count; n++) fa_buffer_free(a->context, a->buffers[n]);
}

static fa_status plan_and_run(arrays *a, const fa_attention_problem *p, int32_t *splits) {
  fa_plan *plan = NULL;
  void *workspace = NULL;
  fa_plan_info info = FA_PLAN_INFO_INIT;
  if (fa_plan_create(a->context, p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  assert_int_equal(fa_plan_describe(plan, &info), FA_OK);
  assert_int_equal(fa_buffer_allocate(a->context, info.workspace_bytes, &workspace), FA_OK);
  const fa_status status = fa_attention_run(plan, &a->args, workspace, info.workspace_bytes, NULL);
  if (splits) *splits = (int32_t)info.kv_splits;
  fa_buffer_free(a->context, workspace);
  fa_plan_destroy(plan);
  return status;
}

static void is_right(arrays *a, const fa_attention_problem *p) {
  fa_check_result result;
  if (plan_and_run(a, p, NULL) != FA_OK) fail_msg("%s", fa_last_error());
  assert_int_equal(fa_check_problem(p, &a->args, 1 << 20, 1, &result), FA_OK);
  if (!result.passed) fail_msg("%s", result.line);
}

static void both_tilings_are_right(void **state) {
  static const char *const kernels[] = {"flash_ascend", "one_level_ascend"};
  arrays a;
  for (int n = 0; n < 2; n++)
    for (int64_t queries = 1; queries <= QUERIES; queries += QUERIES - 1) {
      open_arrays(&a, *state, queries);
      fa_attention_problem p = problem_of(queries);
      p.kernel = kernels[n];
      is_right(&a, &p);
      p.causal = 1;
      is_right(&a, &p);
      p.window_left = 20;
      p.kv_splits = 3;
      is_right(&a, &p);
      close_arrays(&a);
    }
}

/* Scores of -2.6e38, in one part and in several: their weights are not those of rows that keep no key. All of
 * v is one value, since parts of that lse cannot say by how many keys they differ. */
static void scores_far_below_zero_are_right(void **state) {
  arrays a;
  open_arrays(&a, *state, QUERIES);
  const int64_t q = BATCH * QUERIES * HEADS_Q * DIM, k = (int64_t)PAGES * PAGE * HEADS_KV * DIM;
  for (int64_t n = 0; n < q; n++) fa_store_float(a.args.q.data, n, 1.0f, FA_FLOAT16);
  for (int64_t n = 0; n < k; n++) {
    fa_store_float(a.args.k.data, n, -1.0f, FA_FLOAT16);
    fa_store_float(a.args.v.data, n, 0.5f, FA_FLOAT16);
  }
  fa_attention_problem p = problem_of(QUERIES);
  p.scale = 2.6e38f / (float)DIM;
  for (p.kv_splits = 1; p.kv_splits <= 4; p.kv_splits += 3) is_right(&a, &p);
  close_arrays(&a);
}

/* Sequences and heads in sections, of which the last is shorter. */
static void few_pairs_at_once_are_right(void **state) {
  arrays a;
  open_arrays(&a, *state, QUERIES);
  for (int64_t pairs = 1; pairs <= 5; pairs += 2) {
    fa_ascend_sim_view view;
    memset(&view, 0, sizeof view);
    view.wish.level1_rows = 16;
    view.wish.pairs_at_once = pairs;
    fa_ascend_sim_look(*state, &view);
    fa_attention_problem p = problem_of(QUERIES);
    p.kv_splits = 1; /* parts are numbered through all pairs */
    p.causal = 1;
    is_right(&a, &p);
  }
  fa_ascend_sim_look(*state, NULL);
  close_arrays(&a);
}

/* Several launches behind one another; one query of a group of heads, too. */
static void unfused_baselines_are_right(void **state) {
  static const char *const families[] = {"standard", "eager"};
  const int64_t row_kv = HEADS_KV * DIM;
  arrays a;
  for (int n = 0; n < 2; n++)
    for (int64_t queries = 1; queries <= QUERIES; queries += QUERIES - 1) {
      open_arrays(&a, *state, queries);
      a.args.k.stride_batch = a.args.v.stride_batch = KEYS * row_kv;
      fa_attention_problem p = problem_of(queries);
      p.page_size = p.num_pages = p.has_seqlens_kv = 0;
      p.kernel = families[n];
      is_right(&a, &p);
      p.causal = 1;
      is_right(&a, &p);
      p.window_left = 20;
      p.has_lse = 0;
      is_right(&a, &p);
      close_arrays(&a);
    }
}

/* One plan, then other lengths and pages. */
static void plans_hold_maxima(void **state) {
  arrays a;
  open_arrays(&a, *state, QUERIES);
  const fa_attention_problem p = problem_of(QUERIES);
  static const int32_t lengths[][BATCH] = {{KEYS, KEYS}, {0, 1}, {16, 17}};
  fa_plan *plan = NULL;
  void *workspace = NULL;
  fa_check_result result;
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_OK);
  const size_t bytes = fa_plan_workspace_bytes(plan);
  assert_int_equal(fa_buffer_allocate(*state, bytes, &workspace), FA_OK);
  for (size_t n = 0; n < sizeof lengths / sizeof lengths[0]; n++) {
    memcpy(a.buffers[5], lengths[n], sizeof lengths[n]);
    if (fa_attention_run(plan, &a.args, workspace, bytes, NULL) != FA_OK) fail_msg("%s", fa_last_error());
    assert_int_equal(fa_check_problem(&p, &a.args, 1 << 20, 1, &result), FA_OK);
    if (!result.passed) fail_msg("lengths %d, %d: %s", lengths[n][0], lengths[n][1], result.line);
  }
  fa_buffer_free(*state, workspace);
  fa_plan_destroy(plan);
  close_arrays(&a);
}

typedef struct caller {
  pthread_t thread;
  const fa_plan *plan;
  fa_attention_args args;
  void *workspace;
  fa_status status;
} caller;

static void *run_twice(void *argument) {
  caller *self = argument;
  for (int n = 0; n < 2 && self->status == FA_OK; n++)
    self->status = fa_attention_run(self->plan, &self->args, self->workspace, fa_plan_workspace_bytes(self->plan), NULL);
  return NULL;
}

/* One plan, threads with an o and a workspace each: the same bits. */
static void threads_take_turns(void **state) {
  enum { CALLERS = 3 };
  caller callers[CALLERS];
  arrays a;
  fa_plan *plan = NULL;
  open_arrays(&a, *state, QUERIES);
  fa_attention_problem p = problem_of(QUERIES);
  p.causal = 1;
  p.has_lse = 0;
  if (fa_plan_create(*state, &p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  const size_t o_bytes = (size_t)(BATCH * QUERIES * HEADS_Q * DIM) * 2;
  for (int n = 0; n < CALLERS; n++) {
    callers[n] = (caller){.plan = plan, .args = a.args};
    assert_int_equal(fa_buffer_allocate(*state, o_bytes, &callers[n].args.o.data), FA_OK);
    assert_int_equal(fa_buffer_allocate(*state, fa_plan_workspace_bytes(plan), &callers[n].workspace), FA_OK);
    assert_int_equal(pthread_create(&callers[n].thread, NULL, run_twice, &callers[n]), 0);
  }
  for (int n = 0; n < CALLERS; n++) assert_int_equal(pthread_join(callers[n].thread, NULL), 0);
  for (int n = 0; n < CALLERS; n++) {
    assert_int_equal(callers[n].status, FA_OK);
    assert_memory_equal(callers[n].args.o.data, callers[0].args.o.data, o_bytes);
  }
  for (int n = 0; n < CALLERS; n++) {
    fa_buffer_free(*state, callers[n].args.o.data);
    fa_buffer_free(*state, callers[n].workspace);
  }
  fa_plan_destroy(plan);
  close_arrays(&a);
}

/* Whole pages of their own, and still the device's. */
static void large_buffers(void **state) {
  const size_t bytes = (size_t)80 << 20;
  void *memory = NULL;
  unsigned char last = 77, back = 0;
  assert_int_equal(fa_buffer_allocate(*state, bytes, &memory), FA_OK);
  assert_int_equal((uintptr_t)memory % 64, 0);
  unsigned char *const end = (unsigned char *)memory + bytes;
  assert_int_equal(fa_buffer_copy(*state, end - 1, &last, 1, FA_COPY_HOST_TO_DEVICE, NULL), FA_OK);
  assert_int_equal(fa_buffer_copy(*state, &back, end - 1, 1, FA_COPY_DEVICE_TO_HOST, NULL), FA_OK);
  assert_int_equal(back, last);
  assert_int_equal(fa_buffer_copy(*state, end, &last, 1, FA_COPY_HOST_TO_DEVICE, NULL), FA_ERROR_ARGUMENT);
  fa_buffer_free(*state, memory);
  assert_int_equal(fa_buffer_allocate(*state, SIZE_MAX / 2 + 1, &memory), FA_ERROR_MEMORY);
  assert_null(memory);
}

static void runs_take_emulated_time(void **state) {
  arrays a;
  fa_event *begin = NULL, *end = NULL;
  double ms = 0.0;
  open_arrays(&a, *state, QUERIES);
  const fa_attention_problem p = problem_of(QUERIES);
  assert_int_equal(fa_event_create(*state, &begin), FA_OK);
  assert_int_equal(fa_event_create(*state, &end), FA_OK);
  assert_int_equal(fa_event_elapsed(*state, begin, end, &ms), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_event_record(*state, begin, NULL), FA_OK);
  assert_int_equal(fa_event_record(*state, end, NULL), FA_OK);
  assert_int_equal(fa_event_elapsed(*state, begin, end, &ms), FA_OK);
  assert_true(ms == 0.0);
  assert_int_equal(plan_and_run(&a, &p, NULL), FA_OK);
  assert_int_equal(fa_event_record(*state, end, NULL), FA_OK);
  assert_int_equal(fa_event_elapsed(*state, begin, end, &ms), FA_OK);
  assert_true(ms > 1e-3 && ms < 10.0);
  fa_event_destroy(*state, begin);
  fa_event_destroy(*state, end);
  close_arrays(&a);
}

static void one_mask_a_context(void **state) {
  fa_attention_problem p = problem_of(QUERIES);
  fa_context *context = context_of("ascend-sim:1");
  fa_plan *plain = NULL, *causal = NULL, *window = NULL;
  (void)state;
  assert_int_equal(fa_plan_create(context, &p, &plain), FA_OK);
  assert_null(fa_ascend_device_of(context)->mask);
  p.causal = 1;
  assert_int_equal(fa_plan_create(context, &p, &causal), FA_OK);
  const unsigned char *mask = fa_ascend_device_of(context)->mask;
  assert_non_null(mask);
  const size_t row = 2 * FA_ASCEND_MASK_M;
  assert_true(mask[0] == 1 && mask[1] == 0 && mask[5 * row + 5] == 1 && mask[5 * row + 6] == 0 && mask[row * row - 1] == 1);
  p.window_left = 7;
  assert_int_equal(fa_plan_create(context, &p, &window), FA_OK);
  assert_ptr_equal(fa_ascend_device_of(context)->mask, mask);
  fa_plan_destroy(plain);
  fa_plan_destroy(causal);
  fa_plan_destroy(window);
  fa_context_destroy(context);
}

static void merging(void **state) {
  enum { ROWS = 3, WIDTH = 4 };
  void *memory = NULL;
  assert_int_equal(fa_buffer_allocate(*state, 4096, &memory), FA_OK);
  float *o_a = memory, *o_b = o_a + 64, *lse_a = o_b + 64, *lse_b = lse_a + 64;
  for (int n = 0; n < ROWS * WIDTH; n++) o_a[n] = 1.0f, o_b[n] = 4.0f;
  const float given_a[ROWS] = {0.0f, -INFINITY, -INFINITY}, given_b[ROWS] = {logf(2.0f), 1.5f, -INFINITY};
  memcpy(lse_a, given_a, sizeof given_a);
  memcpy(lse_b, given_b, sizeof given_b);
  o_a[WIDTH] = NAN; /* of a side that saw no key */
  const fa_tensor a = {o_a, 0, WIDTH, WIDTH}, b = {o_b, 0, WIDTH, WIDTH};
  assert_int_equal(fa_merge(*state, FA_FLOAT32, 1, ROWS, 1, WIDTH, &a, lse_a, &b, lse_b, NULL), FA_OK);
  assert_true(fabsf(o_a[0] - 3.0f) < 1e-5f && fabsf(lse_a[0] - logf(3.0f)) < 1e-5f);
  assert_true(o_a[WIDTH] == 4.0f && lse_a[1] == 1.5f);
  assert_true(o_a[2 * WIDTH] == 0.0f && lse_a[2] == -INFINITY);
  const fa_tensor outside = {o_b, 0, 4096, WIDTH};
  assert_int_equal(fa_merge(*state, FA_FLOAT32, 1, ROWS, 1, WIDTH, &a, lse_a, &outside, lse_b, NULL), FA_ERROR_ARGUMENT);
  says("o_b");
  fa_buffer_free(*state, memory);
}

/* --------------------------------------------------------------------- what is refused */

static void is_refused(arrays *a, const fa_attention_problem *p, const char *words) {
  assert_int_equal(plan_and_run(a, p, NULL), FA_ERROR_ARGUMENT);
  says(words);
}

static void foreign_memory(void **state) {
  arrays a;
  static uint16_t host[BATCH * QUERIES * HEADS_Q * DIM];
  void *elsewhere = NULL;
  fa_context *other = context_of("ascend-sim:2");
  open_arrays(&a, *state, QUERIES);
  const fa_attention_problem p = problem_of(QUERIES);
  const fa_attention_args good = a.args;
  a.args.q.data = host;
  is_refused(&a, &p, "q (0x");
  says("is not within a buffer of ascend-sim:0; allocate it there");
  a.args = good;
  assert_int_equal(fa_buffer_allocate(other, sizeof host, &elsewhere), FA_OK);
  a.args.q.data = elsewhere;
  is_refused(&a, &p, "memory of ascend-sim:2 and the context is of ascend-sim:0");
  a.args = good;
  a.args.o.data = (char *)good.o.data + 2; /* the last element lies behind the buffer */
  is_refused(&a, &p, "o (0x");
  a.args = good;
  a.args.v.stride_batch *= 2;
  is_refused(&a, &p, "v (0x");
  a.args = good;
  a.args.k.stride_seq = -a.args.k.stride_seq;
  is_refused(&a, &p, "k (0x");
  a.args = good;
  a.args.seqlens_kv = (const int32_t *)(const void *)host;
  is_refused(&a, &p, "seqlens_kv (0x");
  assert_int_equal(fa_buffer_copy(*state, host, good.q.data, sizeof host, FA_COPY_DEVICE_TO_HOST, NULL), FA_OK);
  assert_int_equal(fa_buffer_copy(*state, host, good.q.data, 64, FA_COPY_DEVICE_TO_DEVICE, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_buffer_copy(*state, good.q.data, host, sizeof host + 2, FA_COPY_HOST_TO_DEVICE, NULL), FA_ERROR_ARGUMENT);
  fa_buffer_free(other, elsewhere);
  fa_context_destroy(other);
  close_arrays(&a);
}

static void lengths_and_pages_out_of_range(void **state) {
  arrays a;
  open_arrays(&a, *state, QUERIES);
  const fa_attention_problem p = problem_of(QUERIES);
  int32_t *lengths = a.buffers[5], *table = a.buffers[6];
  lengths[1] = KEYS + 1;
  is_refused(&a, &p, "seqlens_kv[1] is 151");
  lengths[1] = -1;
  is_refused(&a, &p, "seqlens_kv[1] is -1");
  lengths[1] = 17;
  table[PAGES / BATCH + 1] = PAGES;
  is_refused(&a, &p, "page_table[1][1] is 24");
  lengths[1] = 16; /* what no length reaches may hold anything */
  assert_int_equal(plan_and_run(&a, &p, NULL), FA_OK);
  close_arrays(&a);
}

static void what_the_kernels_lack(void **state) {
  fa_attention_problem p = problem_of(QUERIES);
  fa_plan *plan = NULL;
  p.softcap = 30.0f;
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_ERROR_UNSUPPORTED);
  says("softcap");
  p = problem_of(QUERIES);
  p.dtype = p.kv_dtype = FA_FLOAT32;
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_ERROR_UNSUPPORTED);
  p = problem_of(QUERIES);
  p.head_dim_qk = 257;
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_ERROR_UNSUPPORTED);
  says("256");
  p.kernel = "prefill_c";
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_ERROR_ARGUMENT);
  assert_null(plan);
}

/* A kernel that reads beside its arrays: what the emulator finds is the run's error, in one line. */
static void reads_beside(void *const *arguments) {
  const dv_here here = {"GetValue", "kernel/wrong.cpp", 12};
  const dv_address at = {DV_GM, 0, (uint64_t)(uintptr_t)arguments[0] + 64};
  (void)dv_scalar_load(here, at, 4);
}

static void hazards_are_errors(void **state) {
  const fa_ascend_code code = {"wrong", "wrong_kernel", reads_beside, FA_ASCEND_VECTOR_CORES};
  const fa_ascend_runtime *runtime = fa_ascend_device_of(*state)->runtime;
  fa_ascend_function function;
  void *memory = NULL;
  const int32_t tiling = 0;
  assert_int_equal(fa_buffer_allocate(*state, 128, &memory), FA_OK);
  const fa_ascend_argument argument = fa_ascend_bytes("x", memory, 64, FA_ASCEND_READS);
  assert_int_equal(runtime->find(*state, &code, &function), FA_OK);
  const fa_ascend_launch launch = {function, 1, &argument, 1, &tiling, sizeof tiling, 0};
  assert_int_equal(runtime->start(*state, &launch, NULL), FA_ERROR_DEVICE);
  says("ascend-sim:0, wrong_kernel: ");
  says("wrong.cpp:12");
  says("of x");
  assert_null(strchr(fa_last_error(), '\n'));
  fa_buffer_free(*state, memory);
}

/* --------------------------------------------------------------------- memory that runs out */

typedef struct hook {
  int64_t until_failure, held, requests;
} hook;

static void *allocate(void *user, size_t bytes, size_t alignment) {
  hook *h = user;
  h->requests++;
  if (h->until_failure-- == 0) return NULL;
  h->held++;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
static void release(void *user, void *memory) {
  ((hook *)user)->held--;
  free(memory);
}

static fa_status one_life(hook *h) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  fa_plan *plan = NULL;
  fa_attention_problem p = problem_of(QUERIES);
  options.device = "ascend-sim";
  options.allocator = (fa_allocator){allocate, release, h};
  p.causal = 1; /* so that the mask is made */
  fa_status status = fa_context_create(&options, &context);
  if (status == FA_OK) status = fa_plan_create(context, &p, &plan);
  fa_plan_destroy(plan);
  fa_context_destroy(context);
  return status;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  for (int64_t n = 0;; n++) {
    hook h = {n, 0, 0};
    const fa_status status = one_life(&h);
    assert_int_equal(h.held, 0);
    if (h.until_failure >= 0) {
      assert_int_equal(status, FA_OK);
      assert_true(n >= 5); /* context, its data, plan, kernel's data, mask and its copy */
      return;
    }
    assert_int_equal(status, FA_ERROR_MEMORY);
    assert_true(strlen(fa_last_error()) > 0);
  }
}

static int setup(void **state) {
  *state = context_of("ascend-sim");
  return 0;
}
static int teardown(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_chips),          cmocka_unit_test(an_npu_that_is_not_there),
      cmocka_unit_test(both_tilings_are_right), cmocka_unit_test(few_pairs_at_once_are_right),
      cmocka_unit_test(scores_far_below_zero_are_right), cmocka_unit_test(unfused_baselines_are_right),
      cmocka_unit_test(plans_hold_maxima),
      cmocka_unit_test(threads_take_turns), cmocka_unit_test(large_buffers),
      cmocka_unit_test(runs_take_emulated_time), cmocka_unit_test(one_mask_a_context),
      cmocka_unit_test(merging),            cmocka_unit_test(foreign_memory),
      cmocka_unit_test(lengths_and_pages_out_of_range), cmocka_unit_test(what_the_kernels_lack),
      cmocka_unit_test(hazards_are_errors), cmocka_unit_test(every_allocation_may_fail)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
