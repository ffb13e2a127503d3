/* The model says the same with every attention: greedy tokens are equal until the first step whose two best
 * logits are nearer than the logit tolerance (that of goldens/logits_smollm2.bin). In fp32 the tolerance is
 * some 1e-4, so there the rule hardly ever excuses anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "dots_ggml.h"
#include "llama.h"
#include "model_file.h"

#define GOLDENS "tests/llama/goldens/logits_smollm2.bin" /* tests run in the root of the tree */

static const char *const questions[] = {"Why is the sky blue?", "Write a haiku about the sea."};

/* Of the goldens' pairs (largest, root mean square): bf16, fp32, and bf16 whose single tokens meet quantised weights as 8
 * bits, which the CPU does where it has dot products for them. */
static double tolerance(bool fp32) {
  enum { BF16 = 0, FP32 = 2, EIGHT_BITS = 4, BOUNDS = 6 };
  const bool rounds = fa_dots_isa() && fa_test_operators() == &fa_cpu_operators;
  float allowed[BOUNDS];
  FILE *file = fopen(GOLDENS, "rb");
  assert_non_null(file);
  assert_int_equal(fseek(file, 8, SEEK_SET), 0);
  assert_int_equal(fread(allowed, sizeof *allowed, BOUNDS, file), BOUNDS);
  fclose(file);
  return (double)allowed[fp32 ? FP32 : rounds ? EIGHT_BITS : BF16];
}

static bool has_family(const char *family) {
  for (int32_t i = 0; i < fa_kernel_count(); i++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &info) == FA_OK && info.available && strcmp(info.arch, family) == 0 &&
        strncmp(info.device, fa_test_device(), strlen(info.device)) == 0)
      return true;
  }
  return false;
}

/* One thread: the two then wait for nobody, whatever else the machine does. */
static void open_context(fa_context **context) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  options.device = fa_test_device();
  assert_int_equal(fa_context_create(&options, context), FA_OK);
}

static void compare(int32_t dtype, const char *family, size_t prompts, int64_t steps) {
  const char *path = fa_test_model();
  if (!path || !has_family(family)) skip();
  const double allowed = tolerance(dtype == FA_FLOAT32);
  fa_context *context;
  fa_llama_model *model;
  open_context(&context);
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  load.operators = fa_test_operators();
  load.dtype = dtype;
  if (fa_llama_model_load(context, path, &load, &model) != FA_OK) fail_msg("%s", fa_llama_last_error());
  for (size_t i = 0; i < prompts; i++) {
    fa_token_list prompt = FA_TOKEN_LIST_INIT;
    fa_agreement found;
    assert_int_equal(fa_tokenizer_encode_chat(fa_llama_model_tokenizer(model), NULL, questions[i], &prompt),
                     FA_OK);
    if (fa_llama_compare(model, prompt.ids, prompt.count, steps, NULL, family, &found) != FA_OK) {
      fail_msg("%s", fa_llama_last_error());
    }
    print_message(
        "fast and %s, %s: %lld tokens, first difference %lld (gap %.3g), largest logit difference %.3g\n",
        family, fa_dtype_name(fa_llama_model_dtype(model)), (long long)found.steps,
        (long long)found.first_difference, (double)found.gap, (double)found.max_logit_error);
    assert_true(found.first_difference < 0 || (double)found.gap <= allowed);
    assert_true((double)found.max_logit_error <= allowed);
    fa_token_list_free(&prompt);
  }
  fa_llama_model_free(model);
  fa_context_destroy(context);
}

static void test_standard_fp32(void **state) {
  (void)state;
  compare(FA_FLOAT32, "standard", 1, 64);
}

static void test_eager_fp32(void **state) {
  (void)state;
  compare(FA_FLOAT32, "eager", 1, 8);
}

static void test_plain_c_fp32(void **state) {
  (void)state;
  compare(FA_FLOAT32, "c", 1, 8);
}

static void test_standard(void **state) {
  (void)state;
  compare(-1, "standard", 2, 64);
}

static void test_unknown_kernel(void **state) {
  (void)state;
  const char *path = fa_test_model();
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  if (!path) skip();
  open_context(&context);
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  fa_llama_session_options options = FA_LLAMA_SESSION_OPTIONS_INIT;
  load.operators = fa_test_operators();
  assert_int_equal(fa_llama_model_load(context, path, &load, &model), FA_OK);
  options.max_tokens = 16;
  options.kernel = "no_such_kernel";
  assert_int_not_equal(fa_llama_session_create(model, &options, &session), FA_OK);
  assert_non_null(strstr(fa_llama_last_error(), "no_such_kernel"));
  options.kernel = NULL;
  options.max_tokens = 0;
  assert_int_equal(fa_llama_session_create(model, &options, &session), FA_ERROR_ARGUMENT);
  options.max_tokens = 8193;
  assert_int_equal(fa_llama_session_create(model, &options, &session), FA_ERROR_ARGUMENT);
  options.max_tokens = 2;
  options.max_sequences = 0;
  assert_int_equal(fa_llama_session_create(model, &options, &session), FA_ERROR_ARGUMENT);
  options.max_sequences = 1;
  const int32_t tokens[] = {1, 49152, -1, 5};
  assert_int_equal(fa_llama_session_create(model, &options, &session), FA_OK);
  assert_int_equal(fa_llama_eval(session, tokens, 2), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_eval(session, tokens + 2, 1), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_eval(session, tokens, 0), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_eval(session, tokens, 3), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_logits(session, 0, 1, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_session_rewind(session, 0, 1), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_session_rewind(session, 1, 0), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_next_logits(session, NULL), FA_ERROR_ARGUMENT);
  const fa_llama_entry elsewhere = {1, tokens, 1}, twice[] = {{0, tokens, 1}, {0, tokens, 1}};
  assert_int_equal(fa_llama_eval_batch(session, &elsewhere, 1), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_llama_eval_batch(session, twice, 2), FA_ERROR_ARGUMENT);
  fa_llama_session_free(session);
  fa_llama_model_free(model);
  fa_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_standard_fp32), cmocka_unit_test(test_eager_fp32),
                                     cmocka_unit_test(test_plain_c_fp32), cmocka_unit_test(test_standard),
                                     cmocka_unit_test(test_unknown_kernel)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
