/* Logits of real models against an independent implementation in float64 (goldens/make_logits_golden.py,
 * which also says how the tolerances come about), in both precisions, for a prompt at once and token by
 * token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "dots_ggml.h"
#include "llama.h"
#include "model_file.h"

enum { TOP = 8, MAX_SAMPLED = 64, MAX_TOKENS = 1024, MAX_SPANS = 4, MAX_ROWS = 64 };
/* Where the CPU multiplies quantised weights as they are, activations of so few rows are rounded to 8 bits, but for
 * fp32's. */
enum { FEW_ROWS = 8 };

typedef struct subject {
  const char *goldens; /* tests run in the root of the tree */
  const char *(*model)(void);
} subject;

enum { BF16, FP32, EIGHT_BITS, KINDS };

/* A tolerance of the goldens: largest error, root mean square. */
typedef struct bound {
  float largest, mean;
} bound;

typedef struct golden {
  FILE *file;
  uint32_t prompts, sampled;
  bound bounds[KINDS];
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

typedef struct run {
  golden g;
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  float *logits;
  int kind; /* BF16 or FP32 */
  errors errors[KINDS];
} run;

static void get(FILE *file, void *to, size_t bytes) { assert_int_equal(fread(to, 1, bytes, file), bytes); }

static void open_golden(golden *g, const char *path) {
  char magic[4];
  g->file = fopen(path, "rb");
  assert_non_null(g->file);
  get(g->file, magic, sizeof magic);
  assert_memory_equal(magic, "FALG", sizeof magic);
  get(g->file, &g->prompts, sizeof g->prompts);
  get(g->file, g->bounds, sizeof g->bounds);
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

/* False where this CPU has no bf16. */
static bool open_run(run *r, const subject *of, int32_t dtype, bool token_by_token) {
  /* Token by token on one thread, which waits for nobody whatever else the machine does; prompts on all. */
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.threads = token_by_token ? 1 : 0;
  options.device = fa_test_device();
  assert_int_equal(fa_context_create(&options, &r->context), FA_OK);
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  load.operators = fa_test_operators();
  load.dtype = dtype;
  if (fa_llama_model_load(r->context, of->model(), &load, &r->model) != FA_OK) {
    fail_msg("%s", fa_llama_last_error());
  }
  r->kind = dtype == FA_FLOAT32 ? FP32 : BF16;
  if (r->kind == BF16 && fa_llama_model_dtype(r->model) == FA_FLOAT32) {
    fa_llama_model_free(r->model);
    fa_context_destroy(r->context);
    return false;
  }
  fa_llama_session_options session_options = FA_LLAMA_SESSION_OPTIONS_INIT;
  session_options.max_tokens = session_options.max_rows = MAX_TOKENS;
  if (fa_llama_session_create(r->model, &session_options, &r->session) != FA_OK) {
    fail_msg("%s", fa_llama_last_error());
  }
  r->logits = malloc(MAX_ROWS * (size_t)fa_llama_model_shape(r->model)->vocabulary * sizeof *r->logits);
  assert_non_null(r->logits);
  open_golden(&r->g, of->goldens);
  return true;
}

static void close_run(run *r) {
  fclose(r->g.file);
  fa_llama_session_free(r->session);
  fa_llama_model_free(r->model);
  fa_context_destroy(r->context);
  free(r->logits);
}

static void eval(run *r, const int32_t *tokens, int64_t count) {
  if (count && fa_llama_eval(r->session, tokens, count) != FA_OK) fail_msg("%s", fa_llama_last_error());
}

/* Rows [row, row + count) of the last eval, the goldens' next. */
static void compare_rows(run *r, int64_t at, int64_t count, int kind) {
  const int64_t vocabulary = fa_llama_model_shape(r->model)->vocabulary;
  assert_int_equal(fa_llama_logits(r->session, at, count, r->logits), FA_OK);
  for (int64_t i = 0; i < count; i++) {
    row expected;
    get(r->g.file, expected.best, sizeof expected.best);
    get(r->g.file, expected.best_logits, sizeof expected.best_logits);
    get(r->g.file, expected.sampled, r->g.sampled * sizeof *expected.sampled);
    compare_row(&r->g, &expected, r->logits + i * vocabulary, vocabulary,
                (double)r->g.bounds[kind].largest, &r->errors[kind]);
  }
}

/* The spans of a prompt that the goldens have, token by token with what lies before as a prompt, or all at once. */
static void compare_prompt(run *r, bool token_by_token) {
  uint32_t count, spans, list[MAX_SPANS][2];
  int32_t tokens[MAX_TOKENS];
  int64_t done = 0;
  get(r->g.file, &count, sizeof count);
  assert_true(count <= MAX_TOKENS);
  get(r->g.file, tokens, count * sizeof *tokens);
  get(r->g.file, &spans, sizeof spans);
  assert_true(spans <= MAX_SPANS);
  get(r->g.file, list, spans * sizeof *list);
  const int few = r->kind == BF16 && fa_dots_isa() && fa_test_operators() == &fa_cpu_operators ? EIGHT_BITS : r->kind;
  assert_int_equal(fa_llama_session_rewind(r->session, 0, 0), FA_OK);
  if (!token_by_token) eval(r, tokens, count);
  for (uint32_t i = 0; i < spans; i++) {
    const uint32_t *span = list[i];
    assert_true(span[1] <= MAX_ROWS && span[0] <= count && span[1] <= count - span[0]);
    if (!token_by_token) {
      compare_rows(r, span[0], span[1], span[1] <= FEW_ROWS ? few : r->kind);
      continue;
    }
    eval(r, tokens + done, span[0] - done);
    for (done = span[0]; done < (int64_t)span[0] + span[1]; done++) {
      eval(r, tokens + done, 1);
      compare_rows(r, 0, 1, few);
    }
  }
}

static void compare_model(const subject *of, int32_t dtype, bool token_by_token) {
  run r = {.errors = {{0.0, 0.0, 0}}};
  if (!of->model() || !open_run(&r, of, dtype, token_by_token)) skip();
  for (uint32_t p = 0; p < r.g.prompts; p++) compare_prompt(&r, token_by_token);
  assert_int_equal(fgetc(r.g.file), EOF);
  for (int kind = 0; kind < KINDS; kind++) {
    static const char *const names[KINDS] = {"bf16", "fp32", "bf16 and 8 bits"};
    const errors *e = &r.errors[kind];
    const bound *allowed = &r.g.bounds[kind];
    if (!e->count) continue;
    const double mean = sqrt(e->squares / (double)e->count);
    print_message("%s: largest error %.3g of %.3g, root mean square %.3g of %.3g\n", names[kind], e->largest,
                  (double)allowed->largest, mean, (double)allowed->mean);
    assert_true(e->largest <= (double)allowed->largest);
    assert_true(mean <= (double)allowed->mean);
  }
  close_run(&r);
}

static void test_prompt_fp32(void **state) { compare_model(*state, FA_FLOAT32, false); }

static void test_tokens_fp32(void **state) { compare_model(*state, FA_FLOAT32, true); }

static void test_prompt_bf16(void **state) { compare_model(*state, -1, false); }

static void test_tokens_bf16(void **state) { compare_model(*state, -1, true); }

#define OF(test, subject) {#test "_" #subject, test, NULL, NULL, &subject}

int main(void) {
  subject smollm2 = {"tests/llama/goldens/logits_smollm2.bin", fa_test_model},
          gemma3 = {"tests/llama/goldens/logits_gemma3.bin", fa_test_gemma};
  const struct CMUnitTest tests[] = {
      OF(test_prompt_fp32, smollm2), OF(test_tokens_fp32, smollm2), OF(test_prompt_bf16, smollm2),
      OF(test_tokens_bf16, smollm2), OF(test_prompt_fp32, gemma3),  OF(test_tokens_fp32, gemma3),
      OF(test_prompt_bf16, gemma3),  OF(test_tokens_bf16, gemma3)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
