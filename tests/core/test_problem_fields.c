/* Every bad field of a problem: ARGUMENT, and a line that names the field and the value and says what is
 * allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fastattention/fastattention.h"

static fa_attention_problem sound(void) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.batch = 2;
  p.heads_q = 4;
  p.heads_kv = 2;
  p.max_seqlen_q = 8;
  p.max_seqlen_kv = 16;
  p.head_dim_qk = 8;
  p.head_dim_v = 8;
  return p;
}

static fa_attention_problem appending(void) {
  fa_attention_problem p = sound();
  p.has_seqlens_kv = 1;
  p.seqlen_new = 2;
  p.rotary_dim = 4;
  p.rotary_positions = 16;
  return p;
}

/* The line must hold both texts. */
static void refused(fa_context *context, const fa_attention_problem *p, const char *field,
                    const char *value) {
  fa_plan *plan = (fa_plan *)context; /* must be made NULL */
  const fa_status status = fa_plan_create(context, p, &plan);
  const char *line = fa_last_error();
  if (status != FA_ERROR_ARGUMENT)
    fail_msg("%s = %s: status %s, want argument", field, value, fa_status_name(status));
  assert_null(plan);
  if (!strstr(line, field) || !strstr(line, value) || strchr(line, '\n'))
    fail_msg("%s = %s: the line is '%s'", field, value, line);
}

static void accepted(fa_context *context, const fa_attention_problem *p) {
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(context, p, &plan);
  if (status != FA_OK) fail_msg("%s: %s", fa_status_name(status), fa_last_error());
  fa_plan_destroy(plan);
}

#define REFUSED(start, field, bad, text)      \
  do {                                        \
    fa_attention_problem bad_one = start();   \
    bad_one.field = bad;                      \
    refused(context, &bad_one, #field, text); \
  } while (0)

static void sound_problems_pass(void **state) {
  fa_context *context = *state;
  fa_attention_problem p = sound();
  accepted(context, &p);
  p = appending();
  accepted(context, &p);
  p = sound();
  p.max_seqlen_q = p.max_seqlen_kv = 0;
  accepted(context, &p);
  p = sound();
  p.heads_q = p.heads_kv = 1;
  p.head_dim_qk = 576;
  p.head_dim_v = 512;
  accepted(context, &p);
  p = sound();
  p.window_left = p.window_right = INT64_MAX;
  p.scale = -2.0f;
  accepted(context, &p);
}

static void shapes(void **state) {
  fa_context *context = *state;
  REFUSED(sound, batch, 0, "0");
  REFUSED(sound, batch, -3, "-3");
  REFUSED(sound, batch, INT64_MAX, "9223372036854775807");
  REFUSED(sound, heads_q, 0, "0");
  REFUSED(sound, heads_q, INT64_MIN, "-9223372036854775808");
  REFUSED(sound, heads_q, 5, "5");
  REFUSED(sound, heads_kv, 0, "0");
  REFUSED(sound, heads_kv, 3, "3");
  REFUSED(sound, heads_kv, 8, "8");
  REFUSED(sound, max_seqlen_q, -1, "-1");
  REFUSED(sound, max_seqlen_q, INT64_MAX, "9223372036854775807");
  REFUSED(sound, max_seqlen_kv, -7, "-7");
  REFUSED(sound, max_seqlen_kv, (int64_t)1 << 40, "1099511627776");
  REFUSED(sound, head_dim_qk, 0, "0");
  REFUSED(sound, head_dim_qk, 577, "577");
  REFUSED(sound, head_dim_v, -1, "-1");
  REFUSED(sound, head_dim_v, 1000000, "1000000");
  fa_attention_problem p = sound(); /* each within its range, the product is not */
  p.batch = (int64_t)1 << 30;
  p.max_seqlen_kv = (int64_t)1 << 30;
  refused(context, &p, "batch", "1073741824");
}

static void types(void **state) {
  fa_context *context = *state;
  REFUSED(sound, dtype, FA_INT8, "int8");
  REFUSED(sound, dtype, FA_FP8_E4M3, "fp8");
  REFUSED(sound, dtype, (fa_dtype)77, "77");
  REFUSED(sound, kv_dtype, FA_FLOAT16, "f16");
  REFUSED(sound, kv_dtype, (fa_dtype)9, "9");
  fa_attention_problem p = sound();
  p.has_bias = 1;
  p.bias_dtype = FA_INT8;
  refused(context, &p, "bias_dtype", "int8");
}

static void rules(void **state) {
  fa_context *context = *state;
  REFUSED(sound, scale, NAN, "nan");
  REFUSED(sound, scale, INFINITY, "inf");
  REFUSED(sound, softcap, NAN, "nan");
  REFUSED(sound, softcap, -1.5f, "-1.5");
  REFUSED(sound, softcap, INFINITY, "inf");
  REFUSED(sound, window_left, -2, "-2");
  REFUSED(sound, window_right, INT64_MIN, "-9223372036854775808");
  REFUSED(sound, causal, 2, "2");
  REFUSED(sound, has_alibi, -1, "-1");
  REFUSED(sound, has_sinks, 7, "7");
  REFUSED(sound, has_mask, 3, "3");
  REFUSED(sound, has_bias, 4, "4");
  REFUSED(sound, has_lse, 256, "256");
}

static void lengths(void **state) {
  fa_context *context = *state;
  REFUSED(sound, ragged_q, 2, "2");
  REFUSED(sound, ragged_kv, -1, "-1");
  REFUSED(sound, has_seqlens_kv, 5, "5");
  REFUSED(sound, page_size, -16, "-16");
  REFUSED(sound, kv_splits, -1, "-1");
  REFUSED(sound, kv_splits, 1000000, "1000000");
  fa_attention_problem p = sound();
  p.ragged_q = 1;
  p.total_seqlen_q = -4;
  refused(context, &p, "total_seqlen_q", "-4");
  p = sound();
  p.ragged_kv = 1;
  p.total_seqlen_kv = INT64_MAX;
  refused(context, &p, "total_seqlen_kv", "9223372036854775807");
  p = sound();
  p.page_size = 16;
  p.num_pages = -1;
  refused(context, &p, "num_pages", "-1");
  p.num_pages = 4;
  p.ragged_kv = 1;
  p.total_seqlen_kv = 10;
  refused(context, &p, "page_size", "16");
}

static void appended_tokens(void **state) {
  fa_context *context = *state;
  REFUSED(appending, seqlen_new, -1, "-1");
  REFUSED(appending, seqlen_new, 17, "17");
  REFUSED(appending, has_seqlens_kv, 0, "0");
  REFUSED(appending, rotary_dim, -2, "-2");
  REFUSED(appending, rotary_dim, 3, "3");
  REFUSED(appending, rotary_dim, 10, "10");
  REFUSED(appending, rotary_interleaved, 2, "2");
  REFUSED(appending, rotary_positions, 15, "15");
  REFUSED(appending, max_seqlen_q, 17, "17");
  fa_attention_problem p = appending();
  p.ragged_kv = 1;
  p.total_seqlen_kv = 20;
  refused(context, &p, "ragged_kv", "2");
  p = appending();
  p.seqlen_new = 0;
  refused(context, &p, "rotary_dim", "4");
}

static void names(void **state) {
  fa_context *context = *state;
  REFUSED(sound, kernel, "warp_drive", "warp_drive");
  REFUSED(sound, kernel, "", "");
  char long_name[4096];
  memset(long_name, 'k', sizeof long_name - 1);
  long_name[sizeof long_name - 1] = '\0';
  REFUSED(sound, kernel, long_name, "kkkk");
}

static void pointers(void **state) {
  fa_plan *plan = NULL;
  const fa_attention_problem p = sound();
  assert_int_equal(fa_plan_create(NULL, &p, &plan), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_plan_create(*state, NULL, &plan), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_plan_create(*state, &p, NULL), FA_ERROR_ARGUMENT);
  fa_plan_destroy(NULL);
  assert_int_equal(fa_problem_features(NULL), 0);
  fa_attention_problem older = FA_ATTENTION_PROBLEM_INIT; /* a caller whose struct ends before page_size */
  older.causal = 1;
  older.page_size = 64;
  older.struct_size = offsetof(fa_attention_problem, page_size);
  assert_int_equal(fa_problem_features(&older), FA_FEATURE_CAUSAL);
}

static void contexts(void **state) {
  (void)state;
  static const char *const unknown[] = {
      "gpu", "", "cpu:", "cpu:x", "cpu:-1", "cpu:0x", "cpu:99999999999999999999", "CPU"};
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  for (size_t n = 0; n < sizeof unknown / sizeof unknown[0]; n++) {
    options.device = unknown[n];
    assert_int_equal(fa_context_create(&options, &context), FA_ERROR_ARGUMENT);
    assert_null(context);
    assert_non_null(strstr(fa_last_error(), unknown[n]));
    assert_non_null(strstr(fa_last_error(), "cpu"));
  }
  options.device = "cpu:7";
  assert_int_equal(fa_context_create(&options, &context), FA_ERROR_DEVICE);
  options.device = "cpu:0";
  assert_int_equal(fa_context_create(&options, &context), FA_OK);
  fa_context_destroy(context);
  options.threads = -2;
  assert_int_equal(fa_context_create(&options, &context), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "-2"));
  assert_int_equal(fa_context_create(NULL, NULL), FA_ERROR_ARGUMENT);
  fa_context_destroy(NULL);
}

static int setup(void **state) { return fa_context_create(NULL, (fa_context **)state) != FA_OK; }
static int teardown(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sound_problems_pass),
                                     cmocka_unit_test(shapes),
                                     cmocka_unit_test(types),
                                     cmocka_unit_test(rules),
                                     cmocka_unit_test(lengths),
                                     cmocka_unit_test(appended_tokens),
                                     cmocka_unit_test(names),
                                     cmocka_unit_test(pointers),
                                     cmocka_unit_test(contexts)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
