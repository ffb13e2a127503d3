/* Plans that follow a tuning file, and plans with a given choice: what is followed, what is refused, and that results
 * stay what they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tuning.h"

static fa_attention_problem prefill_of(fa_dtype dtype, int64_t length) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = dtype;
  p.heads_q = 4, p.heads_kv = 2;
  p.max_seqlen_q = p.max_seqlen_kv = length;
  p.head_dim_qk = p.head_dim_v = 64;
  p.causal = 1;
  return p;
}

static fa_attention_problem decode_of(int64_t keys) {
  fa_attention_problem p = prefill_of(FA_FLOAT32, keys);
  p.max_seqlen_q = 1;
  return p;
}

/* Points the context at a file of this machine whose one entry is for `problem`. */
static void tune(fa_context *context, const fa_attention_problem *problem, const char *kernel, int64_t rows, int64_t keys,
                 int64_t splits) {
  char text[2 * FA_TUNING_TEXT];
  const fa_plan_choice choice = {sizeof choice, kernel, rows, keys, splits};
  fa_tuning *tuning;
  assert_int_equal(fa_tuning_head(context, text, FA_TUNING_TEXT), FA_OK);
  assert_int_equal(fa_tuning_entry(context, problem, &choice, 1.5, 2.25, text + strlen(text), FA_TUNING_TEXT), FA_OK);
  if (fa_tuning_parse(context, "t", text, strlen(text), &tuning) != FA_OK) fail_msg("%s", fa_last_error());
  fa_host_free(context, context->tuning);
  context->tuning = tuning;
}

static fa_plan *plan_of(fa_context *context, const fa_attention_problem *p) {
  fa_plan *plan = NULL;
  if (fa_plan_create(context, p, &plan) != FA_OK) fail_msg("%s", fa_last_error());
  return plan;
}

static int is_tuned(fa_context *context, const fa_attention_problem *p) {
  fa_plan *plan = plan_of(context, p);
  const int tuned = strncmp(plan->reason, "tuned: line 8 of the file measured 1.5 ms against 2.25 ms by rule", 65) == 0;
  fa_plan_destroy(plan);
  return tuned;
}

/* A vector kernel of fp32 that may be asked for tiles, or NULL: plain C alone cannot. */
static const char *tiled_kernel(void) {
  for (int32_t k = 0; k < fa_kernel_count(); k++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    assert_int_equal(fa_kernel_describe(k, &info), FA_OK);
    if (info.available && strncmp(info.name, "prefill_avx", 11) == 0 && !strstr(info.name, "bf16"))
      return info.name;
  }
  return NULL;
}

static void an_entry_is_followed(void **state) {
  fa_context *context = *state;
  const fa_attention_problem p = prefill_of(FA_FLOAT32, 100), d = decode_of(5000);
  tune(context, &p, "prefill_c", 0, 0, 0);
  fa_plan *plan = plan_of(context, &p);
  assert_string_equal(plan->kernel->name, "prefill_c");
  fa_plan_destroy(plan);
  assert_true(is_tuned(context, &p));
  assert_false(is_tuned(context, &d));

  tune(context, &d, "decode_c", 0, 0, 7);
  plan = plan_of(context, &d);
  assert_string_equal(plan->kernel->name, "decode_c");
  assert_int_equal(plan->kv_splits, 7);
  assert_true(fa_plan_workspace_bytes(plan) >= 7 * 4 * 64 * sizeof(float));
  fa_plan_destroy(plan);

  const char *tiled = tiled_kernel();
  if (!tiled) skip();
  tune(context, &p, tiled, 24, 64, 0);
  plan = plan_of(context, &p);
  assert_string_equal(plan->kernel->name, tiled);
  assert_int_equal(plan->tiles.level1_rows, 24);
  assert_int_equal(plan->tiles.level1_keys, 64);
  fa_plan_destroy(plan);
}

/* The class: what must be equal, what only near. */
static void which_problems_an_entry_is_for(void **state) {
  fa_context *context = *state;
  const fa_attention_problem p = prefill_of(FA_FLOAT32, 1000);
  fa_attention_problem q;
  tune(context, &p, "prefill_c", 0, 0, 0);
#define CHANGED(change) (q = p, change, is_tuned(context, &q))
  assert_true(CHANGED(q.max_seqlen_q = 725));
  assert_false(CHANGED(q.max_seqlen_q = 724));
  assert_true(CHANGED(q.max_seqlen_kv = 1448));
  assert_false(CHANGED(q.max_seqlen_kv = 1449));
  assert_false(CHANGED(q.max_seqlen_kv = (int64_t)1 << 31));
  assert_false(CHANGED(q.batch = 2));
  assert_true(CHANGED((q.batch = 2, q.heads_kv = 1, q.heads_q = 2)));
  assert_false(CHANGED(q.heads_q = 2));
  assert_false(CHANGED(q.dtype = q.kv_dtype = FA_BFLOAT16));
  assert_false(CHANGED(q.kv_dtype = FA_INT8));
  assert_false(CHANGED(q.head_dim_qk = 63));
  assert_false(CHANGED(q.head_dim_v = 63));
  assert_false(CHANGED(q.causal = 0));
  assert_true(CHANGED(q.has_lse = 1));
  assert_true(CHANGED(q.has_sinks = 1));
  assert_true(CHANGED(q.has_seqlens_kv = 1));
  assert_false(CHANGED(q.window_left = 5));
  assert_false(CHANGED(q.has_alibi = 1));
  assert_false(CHANGED(q.softcap = 5.0f));
  assert_false(CHANGED(q.has_bias = 1));
  assert_false(CHANGED(q.has_mask = 1));
  assert_false(CHANGED(q.kv_splits = 2));
  assert_false(CHANGED(q.kernel = "c"));
  assert_false(CHANGED(q.max_seqlen_kv = 0));
  assert_false(CHANGED(q.max_seqlen_q = 0));
  const fa_attention_problem one = decode_of(100);
  tune(context, &one, "decode_c", 0, 0, 0);
  q = one;
  q.causal = 0; /* the same thing for one query */
  assert_true(is_tuned(context, &q));
}

/* Whatever an entry asks for that cannot be: the rule's plan, and the reason says why. */
static void impossible_entries_leave_the_rule(void **state) {
  fa_context *context = *state;
  fa_attention_problem p = prefill_of(FA_FLOAT32, 100), d = decode_of(5000);
  const char *tiled = tiled_kernel();
  const struct {
    const fa_attention_problem *problem;
    const char *kernel;
    int64_t rows, keys, splits;
    const char *says;
  } wrong[] = {
      {&p, "prefill_z", 0, 0, 0, "unknown kernel 'prefill_z'"},
      {&p, "decode_c", 0, 0, 0, "takes at most 16 query rows"},
      {&p, "prefill_c", 64, 0, 0, "leave them 0"},
      {&p, "standard", 0, 0, 0, "baselines are never chosen"},
      {&p, "avx512", 0, 0, 0, "unknown kernel 'avx512'"},
      {&d, "decode_c", 32, 0, 0, "level1_rows is 32; decode_c"},
      {&d, "decode_c", 0, 64, 0, "level1_keys is 64; decode_c"},
      {&p, tiled, 25, 0, 0, "takes multiples of"},
      {&p, tiled, 12000000, 0, 0, "takes multiples of"},
      {&p, tiled, 0, 65, 0, "takes multiples of"},
      {&p, tiled, 0, 1024, 0, "up to 512"},
      {&p, tiled, 0, 0, 2, "kv_splits is 2"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    fa_host_free(context, context->tuning);
    context->tuning = NULL;
    if (!wrong[i].kernel) continue; /* no such kernel here */
    fa_plan *by_rule = plan_of(context, wrong[i].problem);
    tune(context, wrong[i].problem, wrong[i].kernel, wrong[i].rows, wrong[i].keys, wrong[i].splits);
    fa_plan *plan = plan_of(context, wrong[i].problem);
    assert_ptr_equal(plan->kernel, by_rule->kernel);
    assert_memory_equal(&plan->tiles, &by_rule->tiles, sizeof plan->tiles);
    assert_int_equal(plan->kv_splits, by_rule->kv_splits);
    assert_int_equal(plan->workspace_bytes, by_rule->workspace_bytes);
    assert_int_equal(strncmp(plan->reason, "first in the table", 18), 0);
    if (!strstr(plan->reason, wrong[i].says) && strcmp(wrong[i].kernel, "standard") != 0)
      fail_msg("'%s' does not say '%s'", plan->reason, wrong[i].says);
    assert_non_null(strstr(plan->reason, "line 8 of the tuning file not used: "));
    assert_string_equal(fa_last_error(), "");
    fa_plan_destroy(plan);
    fa_plan_destroy(by_rule);
  }
}

static void a_file_of_another_machine(void **state) {
  fa_context *context = *state;
  const fa_attention_problem p = prefill_of(FA_FLOAT32, 100);
  char text[FA_TUNING_TEXT];
  assert_int_equal(fa_tuning_head(context, text, sizeof text), FA_OK);
  *strstr(text, "isa c") = 'x';
  fa_tuning *tuning;
  assert_int_equal(fa_tuning_parse(context, "t", text, strlen(text), &tuning), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_tuning_head(context, text, sizeof text), FA_OK);
  strstr(text, "isa c")[4] = 'x';
  assert_int_equal(fa_tuning_parse(context, "t", text, strlen(text), &tuning), FA_OK);
  fa_host_free(context, context->tuning);
  context->tuning = tuning;
  fa_plan *plan = plan_of(context, &p);
  assert_non_null(strstr(plan->reason, "; tuning file not used: made for instruction sets 'x"));
  fa_plan_destroy(plan);
}

/* ------------------------------------------------------------- given choices */

static void choices_are_checked(void **state) {
  fa_context *context = *state;
  const fa_attention_problem p = prefill_of(FA_FLOAT32, 100);
  fa_attention_problem split = decode_of(5000);
  fa_plan_choice choice = FA_PLAN_CHOICE_INIT;
  fa_plan *plan = (fa_plan *)&choice;
  assert_int_equal(fa_plan_create_with(context, &p, NULL, &plan), FA_ERROR_ARGUMENT);
  assert_null(plan);
  assert_int_equal(fa_plan_create_with(context, &p, &choice, &plan), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "choice.kernel is NULL"));
  choice.kernel = "prefill_c";
  assert_int_equal(fa_plan_create_with(context, &p, &choice, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_plan_create_with(NULL, &p, &choice, &plan), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_plan_create_with(context, NULL, &choice, &plan), FA_ERROR_ARGUMENT);
  choice.level1_rows = -1;
  assert_int_equal(fa_plan_create_with(context, &p, &choice, &plan), FA_ERROR_ARGUMENT);
  choice = (fa_plan_choice){sizeof choice, "decode_c", 0, 0, INT64_MAX};
  assert_int_equal(fa_plan_create_with(context, &split, &choice, &plan), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "multiples of 1 up to 4096"));
  choice.kv_splits = 2, split.kv_splits = 2;
  assert_int_equal(fa_plan_create_with(context, &split, &choice, &plan), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "both given"));
  split.kv_splits = 0;
  assert_int_equal(fa_plan_create_with(context, &split, &choice, &plan), FA_OK);
  assert_int_equal(plan->kv_splits, 2);
  fa_plan_destroy(plan);
  char text[FA_TUNING_TEXT];
  assert_int_equal(fa_tuning_head(context, text, 10), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_tuning_entry(context, &p, &choice, 1.0, NAN, text, sizeof text), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_tuning_entry(context, &p, &choice, 1.0, 2.0, text, 10), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "text has 10 bytes"));
}

enum { LENGTH = 300, DIM = 64, HEADS_Q = 4, HEADS_KV = 2 };

static void run(fa_context *context, const fa_plan *plan, float *values, float *o) {
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  void *workspace = NULL;
  args.q = (fa_tensor){values, 0, HEADS_Q * DIM, DIM};
  args.k = (fa_tensor){values + LENGTH * HEADS_Q * DIM, 0, HEADS_KV * DIM, DIM};
  args.v = (fa_tensor){values + LENGTH * (HEADS_Q + HEADS_KV) * DIM, 0, HEADS_KV * DIM, DIM};
  args.o = (fa_tensor){o, 0, HEADS_Q * DIM, DIM};
  assert_int_equal(fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace), FA_OK);
  assert_int_equal(fa_attention_run(plan, &args, workspace, fa_plan_workspace_bytes(plan), NULL), FA_OK);
  fa_buffer_free(context, workspace);
}

/* Every tile that a kernel takes gives the result within rounding, and the same bits twice, on one thread and on three. */
static void any_tiles_give_the_result(void **state) {
  (void)state;
  float *values = malloc(LENGTH * (HEADS_Q + 2 * HEADS_KV) * DIM * sizeof *values);
  float *o[3];
  const size_t count = LENGTH * HEADS_Q * DIM, bytes = count * sizeof(float);
  for (int n = 0; n < 3; n++) o[n] = malloc(bytes);
  for (unsigned i = 0, seed = 7; i < LENGTH * (HEADS_Q + 2 * HEADS_KV) * DIM; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
  fa_context *contexts[2];
  for (int n = 0; n < 2; n++) {
    fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
    options.threads = n ? 3 : 1;
    assert_int_equal(fa_context_create(&options, &contexts[n]), FA_OK);
  }
  int tried = 0;
  for (int32_t k = 0; k < fa_kernel_count(); k++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    assert_int_equal(fa_kernel_describe(k, &info), FA_OK);
    if (!info.available || info.is_baseline || strcmp(info.device, "cpu") != 0 || !(info.dtypes & 1u << FA_FLOAT32)) continue;
    const int is_decode = strcmp(info.operation, "decode") == 0;
    fa_attention_problem p = is_decode ? decode_of(LENGTH) : prefill_of(FA_FLOAT32, LENGTH);
    static const int64_t rows[] = {0, 32, 36, 96, 312, 1020}, keys[] = {0, 32, 128, 384, 512}, splits[] = {0, 1, 2, 5, 4096};
    const size_t used = is_decode ? HEADS_Q * DIM : count;
    for (size_t at = 0; at < 6 * 5 * 5; at++) {
      const fa_plan_choice choice = {sizeof choice, info.name, rows[at % 6], keys[at / 6 % 5], splits[at / 30]};
      fa_plan *plans[2] = {NULL, NULL};
      if (fa_plan_create_with(contexts[0], &p, &choice, &plans[0]) != FA_OK) continue;
      assert_int_equal(fa_plan_create_with(contexts[1], &p, &choice, &plans[1]), FA_OK);
      run(contexts[0], plans[0], values, o[1]);
      run(contexts[1], plans[1], values, o[2]);
      if (plans[0]->kv_splits == plans[1]->kv_splits && plans[0]->tiles.level1_keys == plans[1]->tiles.level1_keys &&
          choice.level1_rows)
        assert_memory_equal(o[1], o[2], used * sizeof(float));
      run(contexts[1], plans[1], values, o[1]);
      assert_memory_equal(o[1], o[2], used * sizeof(float));
      if (at == 0) memcpy(o[0], o[1], bytes);
      for (size_t i = 0; i < used; i++)
        if (!(fabsf(o[1][i] - o[0][i]) < 2e-6f)) fail_msg("%s, choice %zu: o[%zu] is %g", info.name, at, i, (double)o[1][i]);
      for (int n = 0; n < 2; n++) fa_plan_destroy(plans[n]);
      tried += at > 0;
    }
  }
  assert_true(tried >= 4); /* decode_c takes every splits */
  for (int n = 0; n < 2; n++) fa_context_destroy(contexts[n]);
  for (int n = 0; n < 3; n++) free(o[n]);
  free(values);
}

static int setup(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int teardown(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_entry_is_followed),
      cmocka_unit_test(which_problems_an_entry_is_for),
      cmocka_unit_test(impossible_entries_leave_the_rule),
      cmocka_unit_test(a_file_of_another_machine),
      cmocka_unit_test(choices_are_checked),
      cmocka_unit_test(any_tiles_give_the_result),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
