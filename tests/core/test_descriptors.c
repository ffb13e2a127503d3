/* Descriptors: struct_size first, no hidden padding (which would carry indeterminate bytes over the ABI),
 * older and newer callers understood. */
#include <fastattention/fastattention.h> /* first, so that it has to stand alone */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#define SIZE(type, field) sizeof(((type *)0)->field)
#define FOLLOWS(type, field, previous) \
  _Static_assert(offsetof(type, field) == offsetof(type, previous) + SIZE(type, previous), #type "." #field)
#define LAST(type, field) \
  _Static_assert(sizeof(type) == offsetof(type, field) + SIZE(type, field), #type " tail")

FOLLOWS(fa_tensor, stride_batch, data);
FOLLOWS(fa_tensor, stride_seq, stride_batch);
FOLLOWS(fa_tensor, stride_head, stride_seq);
LAST(fa_tensor, stride_head);

FOLLOWS(fa_context_options, device, struct_size);
FOLLOWS(fa_context_options, threads, device);
FOLLOWS(fa_context_options, reserved0, threads);
FOLLOWS(fa_context_options, allocator, reserved0);
LAST(fa_context_options, allocator);

#define P(field, previous) FOLLOWS(fa_attention_problem, field, previous)
P(dtype, struct_size);
P(kv_dtype, dtype);
P(batch, kv_dtype);
P(heads_q, batch);
P(heads_kv, heads_q);
P(max_seqlen_q, heads_kv);
P(max_seqlen_kv, max_seqlen_q);
P(head_dim_qk, max_seqlen_kv);
P(head_dim_v, head_dim_qk);
P(scale, head_dim_v);
P(softcap, scale);
P(window_left, softcap);
P(window_right, window_left);
P(causal, window_right);
P(has_alibi, causal);
P(has_sinks, has_alibi);
P(has_mask, has_sinks);
P(has_bias, has_mask);
P(bias_dtype, has_bias);
P(has_lse, bias_dtype);
P(ragged_q, has_lse);
P(ragged_kv, ragged_q);
P(has_seqlens_kv, ragged_kv);
P(total_seqlen_q, has_seqlens_kv);
P(total_seqlen_kv, total_seqlen_q);
P(page_size, total_seqlen_kv);
P(num_pages, page_size);
P(seqlen_new, num_pages);
P(rotary_dim, seqlen_new);
P(rotary_positions, rotary_dim);
P(rotary_interleaved, rotary_positions);
P(kv_splits, rotary_interleaved);
P(kernel, kv_splits);
LAST(fa_attention_problem, kernel);

#define A(field, previous) FOLLOWS(fa_attention_args, field, previous)
A(q, struct_size);
A(k, q);
A(v, k);
A(o, v);
A(lse, o);
A(lse_stride_batch, lse);
A(lse_stride_head, lse_stride_batch);
A(alibi_slopes, lse_stride_head);
A(alibi_stride_batch, alibi_slopes);
A(sinks, alibi_stride_batch);
A(bias, sinks);
A(mask, bias);
A(cu_seqlens_q, mask);
A(cu_seqlens_kv, cu_seqlens_q);
A(seqlens_kv, cu_seqlens_kv);
A(page_table, seqlens_kv);
A(page_table_stride, page_table);
A(k_new, page_table_stride);
A(v_new, k_new);
A(rotary_cos, v_new);
A(rotary_sin, rotary_cos);
A(k_scale, rotary_sin);
A(v_scale, k_scale);
LAST(fa_attention_args, v_scale);

LAST(fa_plan_info, workspace_bytes);
LAST(fa_kernel_info, is_baseline);
LAST(fa_device_info, reserved0);
_Static_assert(offsetof(fa_plan_info, struct_size) == 0 && offsetof(fa_kernel_info, struct_size) == 0 &&
                   offsetof(fa_device_info, struct_size) == 0,
               "struct_size first");

static fa_attention_problem small(void) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.max_seqlen_q = p.max_seqlen_kv = 4;
  p.head_dim_qk = p.head_dim_v = 8;
  return p;
}

static void an_older_caller_passes_a_shorter_struct(void **state) {
  fa_attention_problem p = small();
  fa_plan *plan = NULL;
  p.struct_size = offsetof(fa_attention_problem, seqlen_new); /* as if the rest had not been invented yet */
  memset((char *)&p + p.struct_size, 0xff, sizeof p - p.struct_size);
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_OK);
  fa_plan_destroy(plan);
}

static void a_newer_caller_passes_a_longer_struct(void **state) {
  struct {
    fa_attention_problem problem;
    uint64_t from_the_future;
  } longer = {small(), 0};
  fa_plan *plan = NULL;
  longer.problem.struct_size = sizeof longer;
  assert_int_equal(fa_plan_create(*state, &longer.problem, &plan), FA_OK); /* off, so nothing is lost */
  fa_plan_destroy(plan);
  longer.from_the_future = 1;
  assert_int_equal(fa_plan_create(*state, &longer.problem, &plan), FA_ERROR_UNSUPPORTED);
  assert_null(plan);
  assert_non_null(strstr(fa_last_error(), "fa_attention_problem"));
}

static void a_struct_without_its_size_is_refused(void **state) {
  fa_attention_problem p = small();
  fa_plan *plan = NULL;
  p.struct_size = 0;
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "struct_size"));
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  options.struct_size = (size_t)1 << 40;
  assert_int_equal(fa_context_create(&options, &context), FA_ERROR_ARGUMENT);
  fa_kernel_info info;
  memset(&info, 0, sizeof info);
  assert_int_equal(fa_kernel_describe(0, &info), FA_ERROR_ARGUMENT);
}

static void a_description_fills_what_the_caller_has(void **state) {
  struct {
    fa_plan_info info;
    unsigned char behind[8];
  } given;
  fa_attention_problem p = small();
  fa_plan *plan = NULL;
  assert_int_equal(fa_plan_create(*state, &p, &plan), FA_OK);
  memset(&given, 0x5a, sizeof given);
  given.info.struct_size = offsetof(fa_plan_info, level1_rows);
  assert_int_equal(fa_plan_describe(plan, &given.info), FA_OK);
  assert_non_null(given.info.kernel);
  assert_non_null(given.info.reason);
  assert_true(given.info.level1_rows == 0x5a5a5a5a5a5a5a5a);
  assert_int_equal(given.behind[0], 0x5a);
  assert_int_equal(fa_plan_describe(NULL, &given.info), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_plan_describe(plan, NULL), FA_ERROR_ARGUMENT);
  fa_plan_destroy(plan);
}

static int setup(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int teardown(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(an_older_caller_passes_a_shorter_struct),
                                     cmocka_unit_test(a_newer_caller_passes_a_longer_struct),
                                     cmocka_unit_test(a_struct_without_its_size_is_refused),
                                     cmocka_unit_test(a_description_fills_what_the_caller_has)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
