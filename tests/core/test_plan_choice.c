/* Which kernel a plan takes: the first of the table that can, the one named, never a baseline unasked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "core/kernel.h"

static fa_attention_problem problem_of(fa_dtype dtype) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = dtype;
  p.max_seqlen_q = 100;
  p.max_seqlen_kv = 300;
  p.head_dim_qk = p.head_dim_v = 64;
  return p;
}

static fa_plan *plan_of(fa_context *context, const fa_attention_problem *p) {
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(context, p, &plan);
  if (status != FA_OK) fail_msg("%s: %s", fa_status_name(status), fa_last_error());
  return plan;
}

static int available(int32_t k) {
  fa_kernel_info info = FA_KERNEL_INFO_INIT;
  assert_int_equal(fa_kernel_describe(k, &info), FA_OK);
  return info.available;
}

static void the_first_of_the_table_that_can(void **state) {
  fa_context *context = *state;
  for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++) {
    fa_attention_problem p = problem_of((fa_dtype)dtype);
    for (int64_t queries = 1; queries <= 100; queries += 99) {
      p.max_seqlen_q = queries;
      fa_plan *chosen = plan_of(context, &p);
      assert_false(chosen->kernel->is_baseline);
      for (int32_t k = 0; &fa_kernels[k] != chosen->kernel; k++) { /* none before it can */
        fa_plan *earlier = NULL;
        if (fa_kernels[k].is_baseline || strcmp(fa_kernels[k].device, "cpu") != 0) continue;
        p.kernel = fa_kernels[k].name;
        assert_int_equal(fa_plan_create(context, &p, &earlier), FA_ERROR_UNSUPPORTED);
        assert_non_null(strstr(fa_last_error(), fa_kernels[k].name));
        p.kernel = NULL;
      }
      fa_plan_destroy(chosen);
    }
  }
}

/* Why the kernel was taken, then what it has to say, whole. */
static void reasons_are_whole(void **state) {
  fa_context *context = *state;
  fa_attention_problem p = problem_of(FA_FLOAT32);
  fa_plan_info info = FA_PLAN_INFO_INIT;
  p.kernel = "standard";
  p.max_seqlen_q = p.max_seqlen_kv = 65536;
  p.batch = 1, p.heads_q = 32, p.heads_kv = 8, p.head_dim_qk = p.head_dim_v = 128;
  fa_plan *plan = NULL;
  if (fa_plan_create(context, &p, &plan) != FA_OK) skip(); /* a build without oneDNN */
  assert_int_equal(fa_plan_describe(plan, &info), FA_OK);
  assert_non_null(strstr(info.reason, "asked for by name; standard attention, unfused: the scores do not fit"));
  assert_non_null(strstr(info.reason, "rows of a KV head at once"));
  fa_plan_destroy(plan);
}

static void by_name_and_by_family(void **state) {
  fa_context *context = *state;
  for (int32_t k = 0; k < fa_kernel_count(); k++) {
    for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++) {
      fa_attention_problem p = problem_of((fa_dtype)dtype);
      if (fa_kernels[k].operation == FA_OPERATION_DECODE) p.max_seqlen_q = 1;
      fa_plan *plan = NULL;
      p.kernel = fa_kernels[k].name;
      const fa_status status = fa_plan_create(context, &p, &plan);
      if (strcmp(fa_kernels[k].device, "cpu") != 0) { /* a name this context's device does not know */
        assert_int_equal(status, FA_ERROR_ARGUMENT);
        continue;
      }
      if (!available(k) || !(fa_kernels[k].dtypes >> dtype & 1u)) {
        assert_int_equal(status, FA_ERROR_UNSUPPORTED);
        continue;
      }
      if (status == FA_ERROR_UNSUPPORTED) continue; /* its prepare has the last word */
      assert_int_equal(status, FA_OK);
      fa_plan_info info = FA_PLAN_INFO_INIT;
      assert_int_equal(fa_plan_describe(plan, &info), FA_OK);
      assert_string_equal(info.kernel, fa_kernels[k].name);
      assert_string_equal(info.arch, fa_kernels[k].arch);
      assert_int_equal(strncmp(info.reason, "asked for by name", strlen("asked for by name")), 0);
      assert_true(info.kv_splits >= 1 && info.threads >= 1);
      assert_int_equal(info.workspace_bytes, fa_plan_workspace_bytes(plan));
      assert_int_equal(info.workspace_bytes % 64, 0);
      fa_plan_destroy(plan);
      p.kernel = fa_kernels[k].arch;
      plan = plan_of(context, &p);
      assert_string_equal(plan->kernel->arch, fa_kernels[k].arch);
      fa_plan_destroy(plan);
    }
  }
}

static void plain_c_does_everything(void **state) {
  fa_attention_problem p = problem_of(FA_BFLOAT16);
  p.kv_dtype = FA_INT8;
  p.heads_q = 6;
  p.heads_kv = 2;
  p.head_dim_qk = 576;
  p.head_dim_v = 511;
  p.causal = p.has_alibi = p.has_sinks = p.has_mask = p.has_bias = p.has_lse = 1;
  p.softcap = 30.0f;
  p.window_left = 128;
  p.ragged_q = 1;
  p.total_seqlen_q = 100;
  p.has_seqlens_kv = 1;
  p.page_size = 16;
  p.num_pages = 100;
  p.seqlen_new = 4;
  p.kv_splits = 3;
  assert_int_equal(fa_problem_features(&p), (1u << FA_FEATURE_COUNT) - 1u);
  for (int64_t queries = 1; queries <= 100; queries += 99) {
    p.max_seqlen_q = queries;
    p.kernel = "c";
    fa_plan *plan = plan_of(*state, &p);
    assert_string_equal(plan->kernel->arch, "c");
    fa_plan_destroy(plan);
    p.kernel = NULL;
    fa_plan_destroy(plan_of(*state, &p));
  }
}

static void features_of_a_problem(void **state) {
  (void)state;
  fa_attention_problem p = problem_of(FA_FLOAT16);
  assert_int_equal(fa_problem_features(&p), 0);
  p.window_right = 0;
  assert_int_equal(fa_problem_features(&p), FA_FEATURE_WINDOW);
  p = problem_of(FA_FLOAT16);
  p.kv_dtype = FA_FP8_E4M3;
  assert_int_equal(fa_problem_features(&p), FA_FEATURE_KVQUANT);
  p = problem_of(FA_FLOAT16);
  p.head_dim_v = 1;
  p.kv_splits = 1;
  assert_int_equal(fa_problem_features(&p), FA_FEATURE_DV);
  p.kv_splits = 2;
  assert_int_equal(fa_problem_features(&p), FA_FEATURE_DV | FA_FEATURE_SPLITS);
}

static void the_default_scale(void **state) {
  fa_attention_problem p = problem_of(FA_FLOAT32);
  p.head_dim_qk = 100;
  fa_plan *plan = plan_of(*state, &p);
  assert_true(plan->problem.scale == 0.1f);
  assert_null(plan->problem.kernel);
  fa_plan_destroy(plan);
  p.scale = -3.0f;
  plan = plan_of(*state, &p);
  assert_true(plan->problem.scale == -3.0f);
  fa_plan_destroy(plan);
}

static void descriptions(void **state) {
  (void)state;
  fa_kernel_info info = FA_KERNEL_INFO_INIT;
  fa_device_info device = FA_DEVICE_INFO_INIT;
  assert_true(fa_kernel_count() > 0);
  assert_int_equal(fa_kernel_describe(-1, &info), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kernel_describe(fa_kernel_count(), &info), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kernel_describe(0, NULL), FA_ERROR_ARGUMENT);
  assert_true(fa_device_count() >= 1);
  assert_int_equal(fa_device_describe(0, &device), FA_OK);
  assert_string_equal(device.name, "cpu");
  assert_true(device.units >= 1 && device.memory_bytes > 0 && strlen(device.description) > 0);
  assert_int_equal(fa_device_describe(1000, &device), FA_ERROR_ARGUMENT);
  for (int32_t k = 0; k < fa_kernel_count(); k++) { /* names are how kernels of a device are asked for */
    for (int32_t other = 0; other < k; other++)
      assert_false(strcmp(fa_kernels[k].name, fa_kernels[other].name) == 0 &&
                   strcmp(fa_kernels[k].device, fa_kernels[other].device) == 0);
  }
}

static int setup(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int teardown(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_first_of_the_table_that_can),
                                     cmocka_unit_test(by_name_and_by_family),
                                     cmocka_unit_test(reasons_are_whole),
                                     cmocka_unit_test(plain_c_does_everything),
                                     cmocka_unit_test(features_of_a_problem),
                                     cmocka_unit_test(the_default_scale),
                                     cmocka_unit_test(descriptions)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
