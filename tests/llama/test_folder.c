/* The tiny model as a Hugging Face folder, from config.json to logits, against the same model as GGUF; and
 * what is said of folders that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "llama.h"
#include "model.h"
#include "tiny_folder.h"

enum { TOKENS = 40, LOGITS = TOKENS * TINY_VOCABULARY };

static void load(const char *path, fa_context **context, fa_llama_model **model) {
  fa_llama_load_options options = FA_LLAMA_LOAD_OPTIONS_INIT;
  options.dtype = FA_FLOAT32;
  assert_int_equal(fa_context_create(NULL, context), FA_OK);
  if (fa_llama_model_load(*context, path, &options, model) != FA_OK) fail_msg("%s", fa_llama_last_error());
}

/* After each of TOKENS tokens, the last of them a step of its own: [TOKENS, TINY_VOCABULARY]; free them. */
static float *logits_of(const char *path) {
  static const char text[] = "hello 12 shells<|im_end|>";
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  fa_llama_session_options options = FA_LLAMA_SESSION_OPTIONS_INIT;
  fa_token_list list = FA_TOKEN_LIST_INIT;
  float *logits = malloc(LOGITS * sizeof *logits);
  assert_non_null(logits);
  load(path, &context, &model);
  options.max_tokens = TOKENS;
  assert_int_equal(
      fa_tokenizer_encode(fa_llama_model_tokenizer(model), text, strlen(text), FA_ENCODE_SPECIAL, &list),
      FA_OK);
  assert_true(list.count == 10 && list.ids[0] == 258 && list.ids[9] == 261); /* hell o _ 1 2 _ s hell s end */
  for (int32_t i = 0; list.count < TOKENS; i++)
    assert_int_equal(fa_token_list_append(&list, (37 * i + 5) % TINY_VOCABULARY), FA_OK);
  assert_int_equal(fa_llama_session_create(model, &options, &session), FA_OK);
  assert_int_equal(fa_llama_eval(session, list.ids, TOKENS - 1), FA_OK);
  assert_int_equal(fa_llama_logits(session, 0, TOKENS - 1, logits), FA_OK);
  assert_int_equal(fa_llama_eval(session, list.ids + TOKENS - 1, 1), FA_OK);
  assert_int_equal(fa_llama_next_logits(session, logits + (TOKENS - 1) * TINY_VOCABULARY), FA_OK);
  fa_token_list_free(&list);
  fa_llama_session_free(session);
  fa_llama_model_free(model);
  fa_context_destroy(context);
  return logits;
}

/* The largest difference between a * scale and b, as a part of the largest |a * scale|. Frees b. */
static double difference(const float *a, double scale, float *b) {
  double most = 0.0, largest = 0.0;
  for (int i = 0; i < LOGITS; i++) {
    assert_true(isfinite(a[i]) && isfinite(b[i]));
    most = fmax(most, fabs(scale * (double)a[i] - (double)b[i]));
    largest = fmax(largest, fabs(scale * (double)a[i]));
  }
  free(b);
  assert_true(largest > 0.0);
  return most / largest;
}

static float *gguf_logits(const float *rope_freqs) {
  tiny t = {.rope_freqs = rope_freqs};
  make_gguf(&t);
  FILE *file = create("tiny.gguf");
  assert_int_equal(fwrite(t.bytes, 1, t.size, file), t.size);
  assert_int_equal(fclose(file), 0);
  free(t.bytes);
  return logits_of(path_of("tiny.gguf"));
}

static void test_same_logits(void **state) {
  (void)state;
  float *gguf = gguf_logits(NULL);
  write_config("");
  write_weights("model.safetensors", 0, count, NULL, NULL);
  assert_true(difference(gguf, 1.0, logits_of(folder)) < 1e-4);
  /* An output matrix of its own, twice the embedding. */
  const entry *table = entries;
  while (strcmp(table->name, "model.embed_tokens.weight") != 0) table++;
  entry *output = add_entry("lm_head.weight", table->rows, table->columns);
  for (int64_t i = 0; i < table->rows * table->columns; i++) output->values[i] = 2.0f * table->values[i];
  write_weights("model.safetensors", 0, count, NULL, NULL);
  assert_true(difference(gguf, 1.0, logits_of(folder)) < 1e-4); /* tied: the file's copy is not asked */
  write_config("\"tie_word_embeddings\":false,");
  assert_true(difference(gguf, 2.0, logits_of(folder)) < 1e-4);
  free(entries[--count].values);
  /* In two files. */
  write_config("");
  unlink(path_of("model.safetensors"));
  write_weights("model-00001-of-00002.safetensors", 0, 7, NULL, NULL);
  write_weights("model-00002-of-00002.safetensors", 7, count, NULL, NULL);
  FILE *index = create("model.safetensors.index.json");
  for (int i = 0; i < count; i++)
    fprintf(index, "%s\"%s\":\"model-0000%d-of-00002.safetensors\"", i ? "," : "{\"weight_map\":{",
            entries[i].name, i < 7 ? 1 : 2);
  fputs("}}", index);
  assert_int_equal(fclose(index), 0);
  assert_true(difference(gguf, 1.0, logits_of(folder)) < 1e-4);
  unlink(path_of("model.safetensors.index.json"));
  free(gguf);
}

#define LLAMA3(factor)                                            \
  "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":" factor \
  ",\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":128},"

/* Wavelengths 2 pi 10^(d / 2): 6.3 and 19.9 are below 128 / 4 and stay; 62.8 lies a share of (128 / 62.8 - 1)
 * / (4 - 1) = 0.34573 between: 1 / (0.65427 / 8 + 0.34573) = 2.33912; 198.7 and more are above 128. */
static void test_llama3_frequencies(void **state) {
  (void)state;
  static const float expected[HEAD_DIM / 2] = {1.0f, 1.0f, 2.33912f, 8.0f, 8.0f, 8.0f, 8.0f, 8.0f};
  float *plain = gguf_logits(NULL), *slowed = gguf_logits(expected), *divisors;
  fa_llama_shape shape;
  write_weights("model.safetensors", 0, count, NULL, NULL);
  write_config(LLAMA3("1.0"));
  assert_true(difference(plain, 1.0, logits_of(folder)) < 1e-4);
  write_config(LLAMA3("8.0"));
  assert_int_equal(fa_llama_shape_from_config(folder, &shape, &divisors), FA_OK);
  for (int d = 0; d < HEAD_DIM / 2; d++) assert_true(fabsf(divisors[d] - expected[d]) < 1e-5f * expected[d]);
  free(divisors);
  assert_true(difference(plain, 1.0, logits_of(folder)) > 1e-2);
  assert_true(difference(slowed, 1.0, logits_of(folder)) < 1e-4);
  /* Only Gemma's windowed layers rotate by a base of their own. */
  write_config("\"model_type\":\"mistral\",\"sliding_window\":64," LLAMA3("8.0"));
  assert_true(difference(slowed, 1.0, logits_of(folder)) < 1e-4);
  free(plain);
  free(slowed);
}

/* Gemma's folders keep norm weights less one. */
static void test_gemma_norms(void **state) {
  (void)state;
  static const char *const norms[] = {"pre_feedforward_layernorm", "post_feedforward_layernorm",
                                      "self_attn.q_norm", "self_attn.k_norm"};
  const int before = count;
  for (int i = 0; i < 4 * TINY_LAYERS; i++) {
    char name[80];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", i / 4, norms[i % 4]);
    entry *e = add_entry(name, 0, i % 4 < 2 ? TINY_HIDDEN : HEAD_DIM);
    for (int64_t k = 0; k < e->columns; k++) e->values[k] = (float)(i + 1) / 32.0f - (float)k / 64.0f;
  }
  write_config(
      "\"model_type\":\"gemma3_text\",\"hidden_act\":\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":16,");
  write_weights("model.safetensors", 0, count, NULL, NULL);
  fa_context *context;
  fa_llama_model *model;
  load(folder, &context, &model);
  int seen = 0;
  for (int layer = 0; layer < TINY_LAYERS; layer++) {
    const fa_llama_layer *l = &model->layers[layer];
    const struct {
      const char *name;
      const float *values;
    } loaded[] = {{"input_layernorm", l->attention_norm},
                  {"post_attention_layernorm", l->attention_post_norm},
                  {norms[0], l->ffn_norm},
                  {norms[1], l->ffn_post_norm},
                  {norms[2], l->q_norm},
                  {norms[3], l->k_norm}};
    for (size_t n = 0; n < sizeof loaded / sizeof loaded[0]; n++) {
      char name[80];
      snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, loaded[n].name);
      for (int i = 0; i < count; i++) {
        if (strcmp(entries[i].name, name) != 0) continue;
        for (int64_t k = 0; k < entries[i].columns; k++)
          assert_true(loaded[n].values[k] == 1.0f + entries[i].values[k]);
        seen++;
      }
    }
  }
  assert_int_equal(seen, 6 * TINY_LAYERS);
  fa_llama_model_free(model);
  fa_context_destroy(context);
  while (count > before) free(entries[--count].values);
}

static void assert_refused(fa_status wanted, const char *part) {
  fa_context *context;
  fa_llama_model *model = NULL;
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  const fa_status status = fa_llama_model_load(context, folder, NULL, &model);
  const char *line = fa_llama_last_error();
  if (status != wanted || strchr(line, '\n') || !strstr(line, part))
    fail_msg("%d, '%s' does not say '%s'", status, line, part);
  assert_null(model);
  fa_context_destroy(context);
}

#define QWEN "\"model_type\":\"qwen2\",\"sliding_window\":64,"

static void test_wrong_folders(void **state) {
  (void)state;
  static const struct {
    const char *config, *line;
    fa_status status;
  } cases[] = {
      {"\"model_type\":\"mamba\",", "model_type 'mamba'", FA_ERROR_UNSUPPORTED},
      {"\"vocab_size\":null,", "'vocab_size' is missing", FA_ERROR_ARGUMENT},
      {"\"vocab_size\":263,",
       "'model.embed_tokens.weight' is 262 x 64 (2 dimensions); the metadata wants 263 x 64",
       FA_ERROR_ARGUMENT},
      {"\"vocab_size\":261,", "the tokenizer has 262 tokens, the embedding rows for 261", FA_ERROR_ARGUMENT},
      {"\"tie_word_embeddings\":false,", "'lm_head.weight' is missing", FA_ERROR_ARGUMENT},
      {"\"num_hidden_layers\":1,", "'model.layers.1.", FA_ERROR_UNSUPPORTED},
      {"\"attention_bias\":true,", "'model.layers.0.self_attn.q_proj.bias' is missing", FA_ERROR_ARGUMENT},
      {"\"rope_scaling\":{\"rope_type\":\"yarn\"},", "rotary scaling 'yarn'", FA_ERROR_UNSUPPORTED},
      {LLAMA3("0.0"), "rotary scaling by 0", FA_ERROR_ARGUMENT},
      {QWEN "\"use_sliding_window\":true,\"max_window_layers\":1,", "max_window_layers is 1 of 2 layers",
       FA_ERROR_UNSUPPORTED},
  };
  write_weights("model.safetensors", 0, count, NULL, NULL);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_config(cases[i].config);
    assert_refused(cases[i].status, cases[i].line);
  }
  write_config("");
  for (int i = 0; i < count; i++) {
    write_weights("model.safetensors", 0, count, entries[i].name, NULL);
    assert_refused(FA_ERROR_ARGUMENT, entries[i].name);
    assert_refused(FA_ERROR_ARGUMENT, "is missing");
  }
  write_weights("model.safetensors", 0, count, NULL, "model.layers.1.mlp.down_proj.weight");
  assert_refused(
      FA_ERROR_ARGUMENT,
      "'model.layers.1.mlp.down_proj.weight' is 256 x 64 (2 dimensions); the metadata wants 64 x 256");
  static const char *const files[] = {"model.safetensors", "tokenizer.json", "config.json"};
  for (size_t i = 0; i < 3; i++) {
    unlink(path_of(files[i]));
    assert_refused(FA_ERROR_ARGUMENT, files[i]);
    if (i == 0) write_weights("model.safetensors", 0, count, NULL, NULL);
  }
  write_tokenizer();
}

/* A window in every layer or in none, as Qwen's two members say together. */
static void test_qwen_windows(void **state) {
  (void)state;
  static const struct {
    const char *config;
    int64_t window;
  } cases[] = {{QWEN, 0},
               {QWEN "\"use_sliding_window\":false,\"max_window_layers\":0,", 0},
               {QWEN "\"use_sliding_window\":true,", 0},
               {QWEN "\"use_sliding_window\":true,\"max_window_layers\":2,", 0},
               {QWEN "\"use_sliding_window\":true,\"max_window_layers\":0,", 64},
               {"\"model_type\":\"mistral\",\"sliding_window\":64,", 64}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    fa_llama_shape shape;
    float *divisors;
    write_config(cases[i].config);
    if (fa_llama_shape_from_config(folder, &shape, &divisors) != FA_OK) fail_msg("%s", fa_llama_last_error());
    assert_int_equal(shape.window, cases[i].window);
    assert_int_equal(shape.global_every, 0);
    assert_null(divisors);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_logits),  cmocka_unit_test(test_llama3_frequencies),
      cmocka_unit_test(test_gemma_norms),  cmocka_unit_test(test_wrong_folders),
      cmocka_unit_test(test_qwen_windows),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
