/* Logits of the real model against an independent implementation in float64 (goldens/make_logits_golden.py,
 * which also says how the tolerances come about), in both precisions, for a prompt at once and token by
 * token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "dequantize.h"
#include "dots_ggml.h"
#include "llama.h"
#include "model_file.h"
#include "operators.h"

#define GOLDENS "tests/llama/goldens/logits_smollm2.bin" /* tests run in the root of the tree */
enum { TOP = 8, MAX_SAMPLED = 64, MAX_TOKENS = 128 };

typedef struct golden {
  FILE *file;
  uint32_t prompts, sampled;
  float allowed[3][2]; /* bf16, fp32, int8: largest error, root mean square */
  int32_t sampled_ids[MAX_SAMPLED];
} golden;

typedef struct row {
  int32_t best[TOP];
  float best_logits[TOP];
  float sampled[MAX_SAMPLED];
} row;

typedef struct errors {
  double largest, squares;
  int64_t count;
} errors;

static void get(FILE *file, void *to, size_t bytes) { assert_int_equal(fread(to, 1, bytes, file), bytes); }

static void open_golden(golden *g) {
  char magic[4];
  g->file = fopen(GOLDENS, "rb");
  assert_non_null(g->file);
  get(g->file, magic, sizeof magic);
  assert_memory_equal(magic, "FALG", sizeof magic);
  get(g->file, &g->prompts, sizeof g->prompts);
  get(g->file, g->allowed, sizeof g->allowed);
  get(g->file, &g->sampled, sizeof g->sampled);
  assert_true(g->sampled <= MAX_SAMPLED);
  get(g->file, g->sampled_ids, g->sampled * sizeof *g->sampled_ids);
}

static void add_error(errors *e, float given, float expected) {
  const double error = fabs((double)given - (double)expected);
  assert_true(error == error);
  if (error > e->largest) e->largest = error;
  e->squares += error * error;
  e->count++;
}

/* The best token must be the reference's, unless two of its logits are nearer than the tolerance allows to
 * tell. */
static void compare_row(const golden *g, const row *expected, const float *logits, int64_t vocabulary,
                        double allowed, errors *e) {
  for (int i = 0; i < TOP; i++) add_error(e, logits[expected->best[i]], expected->best_logits[i]);
  for (uint32_t i = 0; i < g->sampled; i++) add_error(e, logits[g->sampled_ids[i]], expected->sampled[i]);
  const int32_t token = fa_greedy_token(logits, vocabulary, NULL);
  int place = 0;
  while (place < TOP && expected->best[place] != token) place++;
  assert_true(place < TOP);
  assert_true((double)(expected->best_logits[0] - expected->best_logits[place]) <= 2 * allowed);
}

static void compare_model(int32_t dtype, bool token_by_token) {
  const char *path = fa_test_model();
  if (!path) skip();
  /* Few rows on quantised weights are products of bytes, but for fp32's. */
  const bool bytes = token_by_token && dtype != FA_FLOAT32 && fa_test_operators() == &fa_cpu_operators &&
                     fa_dots_of(FA_GGML_Q4_1);
  const int kind = dtype == FA_FLOAT32 ? 1 : bytes ? 2 : 0;
  golden g;
  errors e = {0.0, 0.0, 0};
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  open_golden(&g);
  /* Token by token on one thread, which waits for nobody whatever else the machine does; prompts on all. */
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.threads = token_by_token ? 1 : 0;
  options.device = fa_test_device();
  assert_int_equal(fa_context_create(&options, &context), FA_OK);
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  load.operators = fa_test_operators();
  load.dtype = dtype;
  if (fa_llama_model_load(context, path, &load, &model) != FA_OK) fail_msg("%s", fa_llama_last_error());
  if (kind != 1 && fa_llama_model_dtype(model) == FA_FLOAT32) { /* no bf16 in this CPU */
    fa_llama_model_free(model);
    fa_context_destroy(context);
    fclose(g.file);
    skip();
  }
  const int64_t vocabulary = fa_llama_model_shape(model)->vocabulary;
  float *logits = malloc(MAX_TOKENS * (size_t)vocabulary * sizeof *logits);
  assert_non_null(logits);
  fa_llama_session_options session_options = FA_LLAMA_SESSION_OPTIONS_INIT;
  session_options.max_tokens = MAX_TOKENS;
  if (fa_llama_session_create(model, &session_options, &session) != FA_OK)
    fail_msg("%s", fa_llama_last_error());
  for (uint32_t p = 0; p < g.prompts; p++) {
    uint32_t count;
    int32_t tokens[MAX_TOKENS];
    get(g.file, &count, sizeof count);
    assert_true(count <= MAX_TOKENS);
    get(g.file, tokens, count * sizeof *tokens);
    assert_int_equal(fa_llama_session_rewind(session, 0, 0), FA_OK);
    for (uint32_t done = 0; done < count;) {
      const int64_t step = token_by_token ? 1 : count;
      if (fa_llama_eval(session, tokens + done, step) != FA_OK) fail_msg("%s", fa_llama_last_error());
      assert_int_equal(fa_llama_logits(session, 0, step, logits + (int64_t)done * vocabulary), FA_OK);
      done += (uint32_t)step;
    }
    for (uint32_t i = 0; i < count; i++) {
      row expected;
      get(g.file, expected.best, sizeof expected.best);
      get(g.file, expected.best_logits, sizeof expected.best_logits);
      get(g.file, expected.sampled, g.sampled * sizeof *expected.sampled);
      compare_row(&g, &expected, logits + (int64_t)i * vocabulary, vocabulary, (double)g.allowed[kind][0],
                  &e);
    }
  }
  assert_int_equal(fgetc(g.file), EOF);
  fclose(g.file);
  const double mean = sqrt(e.squares / (double)e.count);
  print_message("%s: largest error %.3g of %.3g, root mean square %.3g of %.3g\n",
                kind == 1 ? "fp32"
                : bytes   ? "bf16 and int8"
                          : "bf16",
                e.largest, (double)g.allowed[kind][0], mean, (double)g.allowed[kind][1]);
  assert_true(e.largest <= (double)g.allowed[kind][0]);
  assert_true(mean <= (double)g.allowed[kind][1]);
  fa_llama_session_free(session);
  fa_llama_model_free(model);
  fa_context_destroy(context);
  free(logits);
}

static void test_prompt_fp32(void **state) {
  (void)state;
  compare_model(FA_FLOAT32, false);
}

static void test_tokens_fp32(void **state) {
  (void)state;
  compare_model(FA_FLOAT32, true);
}

static void test_prompt_bf16(void **state) {
  (void)state;
  compare_model(-1, false);
}

static void test_tokens_bf16(void **state) {
  (void)state;
  compare_model(-1, true);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompt_fp32), cmocka_unit_test(test_tokens_fp32),
                                     cmocka_unit_test(test_prompt_bf16), cmocka_unit_test(test_tokens_bf16)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
