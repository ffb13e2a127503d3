/* Tokenizers out of tokenizer.json, token for token what Hugging Face's tokenizers make of the same texts
 * (goldens/make_tokenizer_json_golden.py); and files that are damaged or ask for what is not done here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "golden_texts.h"
#include "json_file.h"
#include "tokenizer_json.h"

#define GOLDENS "tests/llama/goldens/"

static const char *const names[] = {"json_gpt2",      "json_smollm",  "json_llama3", "json_qwen2",
                                    "json_splits",    "json_removed", "json_llama2", "json_mistral",
                                    "json_metaspace", "json_gemma",   "json_unknown"};
enum { TOKENIZERS = sizeof names / sizeof names[0] };

/* NULL where this build lacks what the tokenizer needs, and says so. */
static fa_tokenizer *open_named(const char *name) {
  char path[200];
  fa_tokenizer *tokenizer = NULL;
  snprintf(path, sizeof path, GOLDENS "%s", name);
  if (fa_tokenizer_open_json(path, &tokenizer) != FA_OK) {
    if (strstr(fa_llama_last_error(), "no utf8proc")) return NULL;
    fail_msg("%s: %s", name, fa_llama_last_error());
  }
  return tokenizer;
}

static void test_tokens(void **state) {
  (void)state;
  size_t size;
  unsigned char *smollm = golden_file(GOLDENS "tokenizer_smollm.bin", &size);
  unsigned char *goldens = golden_file(GOLDENS "tokenizer_json.bin", &size);
  const unsigned char *at = goldens + 8;
  uint32_t count;
  const uint32_t extra = golden_u32(goldens + 4);
  golden_text *texts = golden_texts(smollm, extra, &at, &count);
  assert_int_equal(golden_u32(at), count);
  at += 4;
  for (int k = 0; k < TOKENIZERS; k++) {
    fa_tokenizer *tokenizer = open_named(names[k]);
    for (uint32_t i = 0; i < count; i++, at += 4) {
      fa_token_list list = FA_TOKEN_LIST_INIT;
      if (!tokenizer) continue;
      if (fa_tokenizer_encode(tokenizer, texts[i].bytes, texts[i].length, FA_ENCODE_SPECIAL, &list) != FA_OK)
        fail_msg("%s: %s", names[k], fa_llama_last_error());
      if (golden_hash(&list) != golden_u32(at)) {
        for (int64_t n = 0; n < list.count && n < 64; n++) fprintf(stderr, " %d", list.ids[n]);
        fail_msg(
            "%s: the tokens of text %u, '%.*s' (%zu bytes; above the first of %lld), are not the reference's",
            names[k], i, texts[i].length < 200 ? (int)texts[i].length : 200, texts[i].bytes, texts[i].length,
            (long long)list.count);
      }
      fa_token_list_free(&list);
    }
    const uint32_t whole = golden_u32(at);
    at += 4;
    if (tokenizer) {
      fa_token_list list = FA_TOKEN_LIST_INIT;
      const golden_text first = texts[count - extra];
      assert_int_equal(fa_tokenizer_encode(tokenizer, first.bytes, first.length,
                                           FA_ENCODE_SPECIAL | FA_ENCODE_BOS | FA_ENCODE_EOS, &list),
                       FA_OK);
      assert_int_equal(list.count, whole);
      for (uint32_t i = 0; i < whole; i++) assert_int_equal(list.ids[i], golden_u32(at + 4 * i));
      fa_token_list_free(&list);
    }
    at += 4 * whole;
    fa_tokenizer_free(tokenizer);
  }
  assert_true(at == goldens + size);
  free(texts);
  free(goldens);
  free(smollm);
}

/* Plain text never makes a control token, and its pieces are the text again where nothing is changed or
 * dropped. */
static void test_round_trip(void **state) {
  (void)state;
  static const char *const whole[] = {"json_smollm", "json_llama3", "json_mistral", "json_gemma"};
  static const char text[] = " a <s> b</s>\n\n\n<|begin|> x\t\xe2\x82\xac \xf0\x9f\x98\x80  Z";
  for (size_t k = 0; k < sizeof whole / sizeof whole[0]; k++) {
    fa_tokenizer *tokenizer = open_named(whole[k]);
    fa_token_list list = FA_TOKEN_LIST_INIT;
    char back[sizeof text + 16];
    size_t done = 0, length;
    assert_int_equal(fa_tokenizer_encode(tokenizer, text, sizeof text - 1, FA_ENCODE_PLAIN, &list), FA_OK);
    for (int64_t i = 0; i < list.count; i++) {
      assert_false(fa_tokenizer_is_control(tokenizer, list.ids[i]));
      const char *piece = fa_tokenizer_piece(tokenizer, list.ids[i], &length);
      assert_true(done + length < sizeof back);
      memcpy(back + done, piece, length);
      done += length;
    }
    assert_int_equal(done, sizeof text - 1);
    assert_memory_equal(back, text, done);
    fa_token_list_free(&list);
    fa_tokenizer_free(tokenizer);
  }
}

/* json_llama3 with members replaced: NULL for what is not to be there. */
typedef struct variant {
  const char *tokenizer, *settings, *generation, *model;
} variant;

static fa_status open_variant(variant given, fa_tokenizer **tokenizer) {
  cJSON *base = NULL, *changes = NULL, *others[3] = {NULL, NULL, NULL};
  const char *texts[3] = {given.settings, given.generation, given.model};
  *tokenizer = NULL;
  assert_int_equal(fa_json_read_file(GOLDENS "json_llama3/tokenizer.json", 1 << 20, &base), FA_OK);
  if (given.tokenizer) {
    changes = cJSON_Parse(given.tokenizer);
    assert_non_null(changes);
    for (cJSON *change; (change = changes->child);) {
      char name[64];
      snprintf(name, sizeof name, "%s", change->string);
      cJSON_DetachItemViaPointer(changes, change);
      /* "model.dropout" is a member of a member. */
      char *dot = strchr(name, '.');
      cJSON *object = base;
      if (dot) {
        *dot = '\0';
        object = cJSON_GetObjectItemCaseSensitive(base, name);
      }
      const char *member = dot ? dot + 1 : name;
      cJSON_DeleteItemFromObjectCaseSensitive(object, member);
      cJSON_AddItemToObject(object, member, change);
    }
  }
  for (int i = 0; i < 3; i++) {
    if (!texts[i]) continue;
    others[i] = cJSON_Parse(texts[i]);
    assert_non_null(others[i]);
  }
  const fa_tokenizer_files files = {"tokenizer.json", base, others[0], others[1], others[2], NULL};
  const fa_status status = fa_tokenizer_create_json(&files, tokenizer);
  cJSON_Delete(base);
  cJSON_Delete(changes);
  for (int i = 0; i < 3; i++) cJSON_Delete(others[i]);
  return status;
}

static void assert_refused(const char *changes, const char *line) {
  fa_tokenizer *tokenizer;
  const fa_status status = open_variant((variant){.tokenizer = changes}, &tokenizer);
  assert_true(status == FA_ERROR_UNSUPPORTED || status == FA_ERROR_ARGUMENT);
  assert_null(strchr(fa_llama_last_error(), '\n'));
  if (!strstr(fa_llama_last_error(), line)) fail_msg("'%s' does not say '%s'", fa_llama_last_error(), line);
}

static void test_refused(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"{\"normalizer\": {\"type\": \"BertNormalizer\"}}", "a normalizer of type 'BertNormalizer'"},
      {"{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \" +\"}, \"content\": \"_\"}}",
       "than a string"},
      {"{\"pre_tokenizer\": {\"type\": \"Whitespace\"}}", "a pre_tokenizer of type 'Whitespace'"},
      {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\w+\"}, \"behavior\": "
       "\"Isolated\"}}",
       "(from '\\w+' on)"},
      {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}, \"behavior\": "
       "\"Isolated\"}}",
       "does not compile"},
      {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": "
       "\"MergedWithNext\"}}",
       "a Split of behaviour 'MergedWithNext'"},
      {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": "
       "\"ByteLevel\"}]}}",
       "a space before each piece"},
      {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, "
       "{\"type\": \"Digits\"}]}}",
       "behind ByteLevel"},
      {"{\"post_processor\": {\"type\": \"BertProcessing\"}}", "a post_processor of type 'BertProcessing'"},
      {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
       "\"[CLS]\"}}]}}",
       "'[CLS]'"},
      {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "a model of type 'Unigram'"},
      {"{\"model\": 3}", "no \"model\""},
      {"{\"model\": {\"type\": \"BPE\"}}", "no \"vocab\""},
      {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"added_tokens\": []}", "no \"merges\""},
      {"{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}, \"added_tokens\": []}",
       "two tokens have the number 0"},
      {"{\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []}, \"added_tokens\": []}",
       "'a' is there twice"},
      {"{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", "has no number"},
      {"{\"model\": {\"vocab\": {\"a\": 0.5}, \"merges\": []}}", "has no number"},
      {"{\"model\": {\"vocab\": {\"a\": 1e300}, \"merges\": []}}", "has no number"},
      {"{\"model\": {\"vocab\": {\"a\": 16000000}, \"merges\": []}, \"added_tokens\": []}",
       "numbers up to 16000000"},
      {"{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"a b\"]}, \"added_tokens\": []}",
       "merge 0 is not"},
      {"{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [[\"a\"]]}, \"added_tokens\": []}",
       "merge 0 is not"},
      {"{\"model.dropout\": 0.1}", "dropout is 0.1"},
      {"{\"model.unk_token\": \"?unk\"}", "unk_token '?unk'"},
      {"{\"model.end_of_word_suffix\": \"</w>\"}", "end_of_word_suffix is '</w>'"},
      {"{\"added_tokens\": [{\"id\": 1, \"content\": \"new\"}]}", "is not what the vocabulary says"},
      {"{\"added_tokens\": [{\"id\": 423, \"content\": \"new\", \"single_word\": true}]}", "single_word"},
      {"{\"added_tokens\": {}}", "no list"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) assert_refused(cases[i][0], cases[i][1]);
}

static void test_settings(void **state) {
  (void)state;
  fa_tokenizer *tokenizer;
  const variant all = {
      .settings =
          "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"add_bos_token\": true,"
          " \"chat_template\": [{\"name\": \"tool_use\", \"template\": \"x\"}, {\"name\": \"default\", "
          "\"template\": \"y\"}]}",
      .generation = "{\"eos_token_id\": [421, 5]}",
      .model = "{\"eos_token_id\": 6}"};
  if (open_variant(all, &tokenizer) != FA_OK) fail_msg("%s", fa_llama_last_error());
  const int32_t begin = fa_vocabulary_id(&tokenizer->vocabulary, "<|begin|>", 9);
  const int32_t eos = fa_vocabulary_id(&tokenizer->vocabulary, "</s>", 4);
  assert_int_equal(tokenizer->bos, begin); /* the post_processor's, which is what the reference adds */
  assert_true(tokenizer->add_bos);
  assert_false(tokenizer->add_eos);
  assert_int_equal(tokenizer->eos, eos);
  assert_true(fa_tokenizer_is_end(tokenizer, eos) && fa_tokenizer_is_end(tokenizer, 421) &&
              fa_tokenizer_is_end(tokenizer, 5) && fa_tokenizer_is_end(tokenizer, 6));
  assert_false(fa_tokenizer_is_end(tokenizer, 7));
  assert_true(fa_gguf_string_is(tokenizer->chat_template, "y"));
  fa_tokenizer_free(tokenizer);
  const variant plain = {.tokenizer = "{\"post_processor\": null}",
                         .settings = "{\"bos_token\": \"<s>\", \"add_bos_token\": true}"};
  assert_int_equal(open_variant(plain, &tokenizer), FA_OK);
  assert_true(tokenizer->add_bos);
  assert_int_equal(tokenizer->bos, fa_vocabulary_id(&tokenizer->vocabulary, "<s>", 3));
  fa_tokenizer_free(tokenizer);
  assert_int_equal(open_variant((variant){.generation = "{\"eos_token_id\": [\"x\"]}"}, &tokenizer),
                   FA_ERROR_ARGUMENT);
}

/* Runs of a megabyte, over which some expressions walk back. */
static void test_long_runs(void **state) {
  (void)state;
  enum { LENGTH = 1 << 20 };
  static const char runs[] = {' ', '\n', 'x', '1', '!'};
  char *text = malloc(LENGTH);
  assert_non_null(text);
  static const char *const cutting[] = {"json_llama3", "json_splits"};
  for (int k = 0; k < 2; k++) {
    fa_tokenizer *tokenizer = open_named(cutting[k]);
    for (size_t i = 0; tokenizer && i < sizeof runs; i++) {
      fa_token_list list = FA_TOKEN_LIST_INIT;
      memset(text, runs[i], LENGTH);
      text[LENGTH - 1] = 'a';
      if (fa_tokenizer_encode(tokenizer, text, LENGTH, FA_ENCODE_SPECIAL, &list) != FA_OK)
        fail_msg("%s: %s", cutting[k], fa_llama_last_error());
      assert_true(list.count > 0);
      fa_token_list_free(&list);
    }
    fa_tokenizer_free(tokenizer);
  }
  free(text);
}

static void assert_parse_refused(const char *text, size_t length, const char *line) {
  cJSON *json = NULL;
  char *exact = malloc(length + !length);
  assert_non_null(exact);
  memcpy(exact, text, length);
  assert_int_equal(fa_json_parse(exact, length, "x.json", &json), FA_ERROR_ARGUMENT);
  assert_null(json);
  if (!strstr(fa_llama_last_error(), line)) fail_msg("'%s' does not say '%s'", fa_llama_last_error(), line);
  free(exact);
}

/* What cJSON must not see, and what is no JSON at all. */
static void test_json(void **state) {
  (void)state;
  char deep[200];
  cJSON *json;
  memset(deep, '[', 100);
  memset(deep + 100, ']', 100);
  assert_parse_refused(deep, 200, "deeper than 64");
  assert_int_equal(fa_json_parse(deep + 36, 128, "x.json", &json), FA_OK);
  cJSON_Delete(json);
  assert_parse_refused("\"a\\u0000b\"", 10, "NUL");
  assert_parse_refused("\"a\0b\"", 5, "NUL");
  assert_int_equal(fa_json_parse("\"a\\\\u0000b\"", 11, "x.json", &json), FA_OK);
  assert_string_equal(json->valuestring, "a\\u0000b");
  cJSON_Delete(json);
  assert_parse_refused("\"\xff\"", 3, "not UTF-8");
  assert_parse_refused("", 0, "not JSON");
  assert_parse_refused("{} {}", 5, "follows");
  assert_parse_refused("{\"a\": 1", 7, "not JSON");
  assert_parse_refused("\"\\ud800\"", 8, "not JSON");
  assert_int_equal(fa_json_read_file("tests", 10, &json), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_json_read_file(GOLDENS "json_llama3/tokenizer.json", 10, &json), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_llama_last_error(), "up to 10 are read"));
  fa_tokenizer *tokenizer;
  assert_int_equal(fa_tokenizer_open_json("/nonexistent", &tokenizer), FA_ERROR_ARGUMENT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tokens),   cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused),
      cmocka_unit_test(test_settings), cmocka_unit_test(test_json),       cmocka_unit_test(test_long_runs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
