/* One context and one plan shared by threads, each with a workspace of its own, every run itself parallel:
 * the same bits everywhere. Under the thread sanitizer this is also the proof that sharing is safe. */
#include "core/dtype.h"
#include "fastattention/fa_tuning.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka.h comes after what it needs. */
#include <cmocka.h>

enum { CALLERS = 4, RUNS = 3, HEADS_Q = 4, HEADS_KV = 2, KEYS = 70, DIM = 32 };

typedef struct shared {
  fa_plan *plan;
  fa_attention_args args;
  void *expected;
  size_t o_bytes;
} shared;

typedef struct caller {
  const shared *common;
  pthread_t thread;
  int wrong;
} caller;

static void *run_often(void *argument) {
  caller *self = argument;
  const shared *common = self->common;
  const size_t bytes = fa_plan_workspace_bytes(common->plan);
  void *workspace = aligned_alloc(64, (bytes + 64) / 64 * 64);
  void *o = malloc(common->o_bytes);
  if (!workspace || !o) abort();
  fa_attention_args args = common->args;
  args.o.data = o;
  for (int i = 0; i < RUNS; i++) {
    memset(o, 0x7f, common->o_bytes);
    if (fa_attention_run(common->plan, &args, workspace, bytes, NULL) != FA_OK ||
        memcmp(o, common->expected, common->o_bytes) != 0) {
      self->wrong++;
    }
  }
  /* A failing call here must not disturb another thread's error line. */
  if (fa_attention_run(common->plan, &args, NULL, 0, NULL) == FA_OK && bytes > 0) self->wrong++;
  free(workspace);
  free(o);
  return NULL;
}

static void *random_values(size_t count, fa_dtype dtype, unsigned seed) {
  void *values = malloc(count * sizeof(float));
  if (!values) abort();
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    fa_store_float(values, (int64_t)i, (float)(seed >> 8) / 8388608.0f - 1.0f, dtype);
  }
  return values;
}

/* 1 if the kernel does this problem (and then shares it well). */
static int check_shared(const char *kernel, fa_dtype dtype, int64_t queries, int64_t splits) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.threads = 3;
  fa_context *context = NULL;
  assert_int_equal(fa_context_create(&options, &context), FA_OK);
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.dtype = problem.kv_dtype = dtype;
  problem.heads_q = HEADS_Q;
  problem.heads_kv = HEADS_KV;
  problem.max_seqlen_q = queries;
  problem.max_seqlen_kv = KEYS;
  problem.head_dim_qk = problem.head_dim_v = DIM;
  problem.causal = 1;
  problem.kv_splits = (int32_t)splits;
  problem.kernel = kernel;
  const size_t count = (size_t)queries * HEADS_Q * DIM;
  shared common = {.args = FA_ATTENTION_ARGS_INIT, .o_bytes = count * fa_dtype_bytes(dtype)};
  const fa_status status = fa_plan_create(context, &problem, &common.plan);
  if (status == FA_ERROR_UNSUPPORTED) {
    fa_context_destroy(context);
    return 0;
  }
  assert_int_equal(status, FA_OK);

  void *q = random_values(count, dtype, 1);
  void *k = random_values(KEYS * HEADS_KV * DIM, dtype, 2);
  void *v = random_values(KEYS * HEADS_KV * DIM, dtype, 3);
  common.expected = random_values(count, dtype, 4);
  common.args.q = common.args.o = (fa_tensor){q, 0, HEADS_Q * DIM, DIM};
  common.args.k = (fa_tensor){k, 0, HEADS_KV * DIM, DIM};
  common.args.v = (fa_tensor){v, 0, HEADS_KV * DIM, DIM};
  common.args.o.data = common.expected;
  const size_t bytes = fa_plan_workspace_bytes(common.plan);
  void *workspace = NULL;
  assert_int_equal(fa_buffer_allocate(context, bytes, &workspace), FA_OK);
  assert_int_equal(fa_attention_run(common.plan, &common.args, workspace, bytes, NULL), FA_OK);
  fa_buffer_free(context, workspace);

  caller callers[CALLERS];
  for (int i = 0; i < CALLERS; i++) {
    callers[i] = (caller){.common = &common};
    assert_int_equal(pthread_create(&callers[i].thread, NULL, run_often, &callers[i]), 0);
  }
  for (int i = 0; i < CALLERS; i++) {
    assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
    if (callers[i].wrong)
      fail_msg("%s, %s: %d runs went wrong", kernel, fa_dtype_name(dtype), callers[i].wrong);
  }
  free(q);
  free(k);
  free(v);
  free(common.expected);
  fa_plan_destroy(common.plan);
  fa_context_destroy(context);
  return 1;
}

/* Every kernel of this machine, the baselines too, in every type it does. */
static int share_every_kernel(int64_t queries, int64_t splits) {
  int shared_kernels = 0;
  for (int32_t n = 0; n < fa_kernel_count(); n++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    assert_int_equal(fa_kernel_describe(n, &info), FA_OK);
    if (strcmp(info.device, "cpu") != 0) continue;
    for (int dtype = FA_FLOAT32; info.available && dtype <= FA_BFLOAT16; dtype++)
      shared_kernels += check_shared(info.name, (fa_dtype)dtype, queries, splits);
  }
  return shared_kernels;
}

static void prefill_is_shared(void **state) {
  (void)state;
  assert_true(share_every_kernel(40, 0) >= 3); /* plain C at least */
}

static void decode_is_shared(void **state) {
  (void)state;
  assert_true(share_every_kernel(1, 0) >= 6);
}

static void decode_with_splits_is_shared(void **state) {
  (void)state;
  assert_true(share_every_kernel(1, 3) >= 6);
}

static void *make_and_drop_plans(void *argument) {
  fa_context *context = argument;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.max_seqlen_q = problem.max_seqlen_kv = problem.head_dim_qk = problem.head_dim_v = 16;
  for (int i = 0; i < 50; i++) {
    fa_plan *plan = NULL;
    if (fa_plan_create(context, &problem, &plan) != FA_OK) return argument;
    fa_plan_destroy(plan);
    problem.batch = 0;
    if (fa_plan_create(context, &problem, &plan) == FA_OK || !strstr(fa_last_error(), "batch"))
      return argument;
    problem.batch = 1;
  }
  return NULL;
}

static void plans_are_made_by_many_threads(void **state) {
  (void)state;
  fa_context *context = NULL;
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  pthread_t threads[CALLERS];
  for (int i = 0; i < CALLERS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, make_and_drop_plans, context), 0);
  }
  for (int i = 0; i < CALLERS; i++) {
    void *failed = NULL;
    assert_int_equal(pthread_join(threads[i], &failed), 0);
    assert_null(failed);
  }
  fa_context_destroy(context);
}

/* A tuning file is read when it is loaded, and only looked at afterwards. */
static void *follow_the_file(void *argument) {
  fa_context *context = argument;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.max_seqlen_q = problem.max_seqlen_kv = 64, problem.head_dim_qk = problem.head_dim_v = 16;
  for (int i = 0; i < 50; i++) {
    fa_plan *plan = NULL;
    fa_plan_info info = FA_PLAN_INFO_INIT;
    fa_tuning_info tuning = FA_TUNING_INFO_INIT;
    if (fa_plan_create(context, &problem, &plan) != FA_OK || fa_plan_describe(plan, &info) != FA_OK) return argument;
    const int followed = strcmp(info.kernel, "prefill_c") == 0 && strncmp(info.reason, "tuned: ", 7) == 0;
    fa_plan_destroy(plan);
    if (!followed || fa_tuning_describe(context, &tuning) != FA_OK || !tuning.used) return argument;
  }
  return NULL;
}

static void a_tuning_file_is_followed_by_many_threads(void **state) {
  (void)state;
  char path[] = "/tmp/fastattention-threads-XXXXXX", head[FA_TUNING_TEXT], entry[FA_TUNING_TEXT];
  fa_context *context = NULL;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  fa_plan_choice choice = FA_PLAN_CHOICE_INIT;
  problem.max_seqlen_q = problem.max_seqlen_kv = 64, problem.head_dim_qk = problem.head_dim_v = 16;
  choice.kernel = "prefill_c";
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  assert_int_equal(fa_tuning_head(context, head, sizeof head), FA_OK);
  assert_int_equal(fa_tuning_entry(context, &problem, &choice, 1.0, 2.0, entry, sizeof entry), FA_OK);
  const int file = mkstemp(path);
  assert_true(file >= 0);
  assert_int_equal(write(file, head, strlen(head)), strlen(head));
  assert_int_equal(write(file, entry, strlen(entry)), strlen(entry));
  close(file);
  assert_int_equal(fa_context_load_tuning(context, path), FA_OK);
  pthread_t threads[CALLERS];
  for (int i = 0; i < CALLERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, follow_the_file, context), 0);
  for (int i = 0; i < CALLERS; i++) {
    void *failed = NULL;
    assert_int_equal(pthread_join(threads[i], &failed), 0);
    assert_null(failed);
  }
  fa_context_destroy(context);
  unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(prefill_is_shared),
      cmocka_unit_test(decode_is_shared),
      cmocka_unit_test(decode_with_splits_is_shared),
      cmocka_unit_test(plans_are_made_by_many_threads),
      cmocka_unit_test(a_tuning_file_is_followed_by_many_threads),
  };
  return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
