/* Sequences evaluated together say what each says alone: prompts of different lengths (ragged), in chunks that cut them
 * anywhere, over pages of any size, decoding, one sequence reading while others decode, and after rewinding. On random
 * weights of small shapes, one of every family. Runs on FASTATTENTION_TEST_DEVICE. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "llama.h"
#include "model_file.h"

enum { SEQUENCES = 4, TOKENS = 96, VOCABULARY = 512 };

#define SMALL                                                                                                       \
  .layers = 3, .hidden = 64, .heads_q = 4, .heads_kv = 2, .head_dim_qk = 32, .head_dim_v = 32, .feed_forward = 160,  \
  .vocabulary = VOCABULARY, .context = 256, .rotary_dim = 32, .rotary_base = 1e4, .rotary_factor = 1.0,             \
  .norm_epsilon = 1e-5f, .embedding_scale = 1.0f

static const struct {
  const char *name;
  fa_llama_shape shape;
} families[] = {
    {"llama", {SMALL, .has_gate = true, .rotary_interleaved = true}},
    {"qwen2", {SMALL, .has_gate = true, .has_qkv_bias = true}},
    {"qwen3", {SMALL, .has_gate = true, .has_qk_norm = true, .tied_embeddings = true}},
    {"gemma3",
     {SMALL, .has_gate = true, .has_qk_norm = true, .has_post_norms = true, .window = 24, .global_every = 3,
      .rotary_base_local = 1e3, .activation = FA_ACTIVATION_GELU_TANH, .tied_embeddings = true}},
    {"mistral with a window", {SMALL, .has_gate = true, .window = 40}},
    {"pangu", {SMALL, .activation = FA_ACTIVATION_GELU_TANH, .tied_embeddings = true}},
};

static const int64_t lengths[SEQUENCES] = {TOKENS, 17, 50, 33};
static int32_t tokens[SEQUENCES][TOKENS + 8];

static fa_llama_session *make_session(const fa_llama_model *model, fa_llama_session_options options) {
  fa_llama_session *session;
  options.max_tokens = TOKENS + 8;
  if (fa_llama_session_create(model, &options, &session) != FA_OK) fail_msg("%s", fa_llama_last_error());
  return session;
}

static void eval(fa_llama_session *session, const fa_llama_entry *entries, int64_t count, float *logits) {
  if (fa_llama_eval_batch(session, entries, count) != FA_OK || fa_llama_next_logits(session, logits) != FA_OK)
    fail_msg("%s", fa_llama_last_error());
}

/* Logits behind each sequence's prompt, and behind each of 4 more tokens, evaluated alone in one piece and token by
 * token. */
static void alone(const fa_llama_model *model, float (*expected)[5][VOCABULARY]) {
  fa_llama_session *session = make_session(model, (fa_llama_session_options)FA_LLAMA_SESSION_OPTIONS_INIT);
  for (int32_t s = 0; s < SEQUENCES; s++) {
    assert_int_equal(fa_llama_session_rewind(session, 0, 0), FA_OK);
    const fa_llama_entry prompt = {0, tokens[s], lengths[s]};
    eval(session, &prompt, 1, expected[s][0]);
    for (int i = 0; i < 4; i++) {
      const fa_llama_entry next = {0, tokens[s] + lengths[s] + i, 1};
      eval(session, &next, 1, expected[s][1 + i]);
    }
  }
  fa_llama_session_free(session);
}

static void compare(const char *what, const float *given, const float *expected, float allowed) {
  float largest = 0.0f;
  for (int i = 0; i < VOCABULARY; i++) {
    assert_true(isfinite(given[i]) && isfinite(expected[i]));
    largest = fmaxf(largest, fabsf(given[i] - expected[i]));
  }
  if (!(largest <= allowed)) fail_msg("%s: logits differ by %g of %g", what, (double)largest, (double)allowed);
}

static void together(const fa_llama_model *model, fa_llama_session_options options, float (*expected)[5][VOCABULARY],
                     float allowed) {
  static float logits[SEQUENCES][VOCABULARY];
  options.max_sequences = SEQUENCES;
  fa_llama_session *session = make_session(model, options);
  fa_llama_entry entries[SEQUENCES];
  for (int round = 0; round < 2; round++) { /* the second time in pages that held other tokens */
    for (int32_t s = 0; s < SEQUENCES; s++) entries[s] = (fa_llama_entry){s, tokens[s], lengths[s]};
    eval(session, entries, SEQUENCES, logits[0]);
    for (int s = 0; s < SEQUENCES; s++) compare("prompts together", logits[s], expected[s][0], allowed);
    for (int i = 0; i < 3; i++) { /* a captured step's first run, capture and replay */
      for (int32_t s = 0; s < SEQUENCES; s++) entries[s] = (fa_llama_entry){s, tokens[s] + lengths[s] + i, 1};
      eval(session, entries, SEQUENCES, logits[0]);
      for (int s = 0; s < SEQUENCES; s++) compare("decoding together", logits[s], expected[s][1 + i], allowed);
    }
    /* Three at a time, in turns: without the third the sequences no longer lie at equal distances, and what was captured
     * for one three must not serve the other. */
    for (int turn = 0; turn < 6; turn++) {
      const int32_t three[] = {0, 1, turn % 2 ? 3 : 2};
      for (int e = 0; e < 3; e++) {
        assert_int_equal(fa_llama_session_rewind(session, three[e], lengths[three[e]] + 2), FA_OK);
        entries[e] = (fa_llama_entry){three[e], tokens[three[e]] + lengths[three[e]] + 2, 1};
      }
      eval(session, entries, 3, logits[0]);
      for (int e = 0; e < 3; e++) compare("three of four", logits[e], expected[three[e]][3], allowed);
    }
    /* Sequence 1 begins anew while the others take a token, in another order. */
    assert_int_equal(fa_llama_session_rewind(session, 1, 0), FA_OK);
    entries[0] = (fa_llama_entry){2, tokens[2] + lengths[2] + 3, 1};
    entries[1] = (fa_llama_entry){1, tokens[1], lengths[1]};
    entries[2] = (fa_llama_entry){0, tokens[0] + lengths[0] + 3, 1};
    eval(session, entries, 3, logits[0]);
    compare("mixed, decoding", logits[0], expected[2][4], allowed);
    compare("mixed, reading", logits[1], expected[1][0], allowed);
    compare("mixed, decoding", logits[2], expected[0][4], allowed);
    /* Back by two tokens, and one of them again. */
    assert_int_equal(fa_llama_session_rewind(session, 2, lengths[2] + 2), FA_OK);
    entries[0] = (fa_llama_entry){2, tokens[2] + lengths[2] + 2, 1};
    eval(session, entries, 1, logits[0]);
    compare("after a rewind", logits[0], expected[2][3], allowed);
    for (int32_t s = 0; s < SEQUENCES; s++) assert_int_equal(fa_llama_session_rewind(session, s, 0), FA_OK);
  }
  fa_llama_session_free(session);
}

static fa_llama_session_options with(int64_t rows, int64_t page, const char *kernel) {
  fa_llama_session_options options = FA_LLAMA_SESSION_OPTIONS_INIT;
  options.max_rows = rows;
  options.page_size = page;
  options.kernel = kernel;
  return options;
}

static void test_families(void **state) {
  (void)state;
  static float expected[SEQUENCES][5][VOCABULARY];
  fa_context_options where = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context;
  where.device = fa_test_device();
  where.threads = 2;
  if (fa_context_create(&where, &context) != FA_OK) fail_msg("%s", fa_last_error());
  uint32_t random = 7;
  for (int s = 0; s < SEQUENCES; s++) {
    for (int i = 0; i < TOKENS + 8; i++) tokens[s][i] = (int32_t)((random = random * 1664525u + 1013904223u) >> 8) % VOCABULARY;
  }
  for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
    fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
    fa_llama_model *model;
    load.operators = fa_test_operators();
    load.dtype = FA_FLOAT32;
    if (fa_llama_model_random(context, &families[f].shape, &load, &model) != FA_OK)
      fail_msg("%s: %s", families[f].name, fa_llama_last_error());
    alone(model, expected);
    float scale = 0.0f;
    for (int i = 0; i < VOCABULARY; i++) scale = fmaxf(scale, fabsf(expected[0][0][i]));
    assert_true(scale > 0.1f); /* random weights that say something */
    const float allowed = 2e-5f * scale + 1e-5f;
    together(model, with(0, 0, NULL), expected, allowed);
    together(model, with(0, 16, NULL), expected, allowed);
    together(model, with(13, 7, NULL), expected, allowed);
    together(model, with(0, TOKENS + 8, NULL), expected, allowed);
    together(model, with(0, 0, "standard"), expected, allowed);
    together(model, with(31, 0, "eager"), expected, allowed);
    fa_llama_model_free(model);
  }
  fa_context_destroy(context);
}

/* Too few pages: a line, and nothing is lost. */
static void test_no_page_left(void **state) {
  (void)state;
  fa_context_options where = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  where.device = fa_test_device();
  assert_int_equal(fa_context_create(&where, &context), FA_OK);
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  load.operators = fa_test_operators();
  assert_int_equal(fa_llama_model_random(context, &families[0].shape, &load, &model), FA_OK);
  fa_llama_session_options options = with(0, 16, NULL);
  options.max_tokens = 64;
  options.max_sequences = 2;
  options.num_pages = 3;
  assert_int_equal(fa_llama_session_create(model, &options, &session), FA_OK);
  const fa_llama_entry entries[] = {{0, tokens[0], 20}, {1, tokens[1], 17}}, less[] = {{0, tokens[0], 20}, {1, tokens[1], 16}};
  assert_int_equal(fa_llama_eval_batch(session, entries, 2), FA_ERROR_MEMORY);
  assert_non_null(strstr(fa_llama_last_error(), "page"));
  assert_int_equal(fa_llama_session_position(session, 0), 0);
  assert_int_equal(fa_llama_session_position(session, 1), 0);
  assert_int_equal(fa_llama_eval_batch(session, less, 2), FA_OK);
  assert_int_equal(fa_llama_session_position(session, 1), 16);
  fa_llama_session_free(session);
  fa_llama_model_free(model);
  fa_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_families), cmocka_unit_test(test_no_page_left)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
