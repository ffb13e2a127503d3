/* Token for token what Hugging Face's tokenizers make of the same texts (goldens/make_tokenizer_golden.py),
 * and back again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "gguf.h"
#include "model_file.h"
#include "pretokenizer.h"
#include "tokenizer.h"

#define GOLDENS "tests/llama/goldens/tokenizer_smollm.bin" /* tests run in the root of the tree */

typedef struct fixture {
  fa_gguf *gguf;
  fa_tokenizer *tokenizer;
  unsigned char *goldens;
  size_t size;
} fixture;

typedef struct record {
  const char *text;
  size_t length;
  const unsigned char *ids; /* u16 */
  int64_t count;
  uint32_t hashes[3]; /* of the pieces of gpt-2, llama-bpe, qwen2 */
} record;

static unsigned u16_at(const unsigned char *at) { return (unsigned)at[0] | (unsigned)at[1] << 8; }
static uint32_t u32_at(const unsigned char *at) { return u16_at(at) | (uint32_t)u16_at(at + 2) << 16; }

static const unsigned char *next_record(const unsigned char *at, record *r) {
  r->length = u16_at(at);
  r->text = (const char *)at + 2;
  at += 2 + r->length;
  r->count = u16_at(at);
  r->ids = at + 2;
  at += 2 + 2 * r->count;
  for (int i = 0; i < 3; i++) r->hashes[i] = u32_at(at + 4 * i);
  return at + 12;
}

static int open_fixture(void **state) {
  static fixture f;
  FILE *file = fopen(GOLDENS, "rb");
  assert_non_null(file);
  assert_int_equal(fseek(file, 0, SEEK_END), 0);
  f.size = (size_t)ftell(file);
  rewind(file);
  f.goldens = malloc(f.size);
  assert_non_null(f.goldens);
  assert_int_equal(fread(f.goldens, 1, f.size, file), f.size);
  fclose(file);
  assert_memory_equal(f.goldens, "FATK", 4);
  const char *path = fa_test_model();
  if (path) {
    if (fa_gguf_open(path, &f.gguf) != FA_OK || fa_tokenizer_create(f.gguf, &f.tokenizer) != FA_OK) {
      fail_msg("%s", fa_llama_last_error());
    }
  }
  *state = &f;
  return 0;
}

static int close_fixture(void **state) {
  fixture *f = *state;
  if (!f) return 0; /* it could not be opened */
  fa_tokenizer_free(f->tokenizer);
  fa_gguf_close(f->gguf);
  free(f->goldens);
  return 0;
}

static void test_tokens(void **state) {
  const fixture *f = *state;
  if (!f->tokenizer) skip();
  const unsigned char *at = f->goldens + 8;
  for (uint32_t n = 0; n < u32_at(f->goldens + 4); n++) {
    record r;
    fa_token_list list = FA_TOKEN_LIST_INIT;
    at = next_record(at, &r);
    assert_int_equal(fa_tokenizer_encode(f->tokenizer, r.text, r.length, FA_ENCODE_SPECIAL, &list), FA_OK);
    for (int64_t i = 0; i < r.count && i < list.count; i++) {
      if (list.ids[i] != (int32_t)u16_at(r.ids + 2 * i)) {
        fail_msg("record %u ('%.*s'): token %lld is %d, not %u", n, r.length < 80 ? (int)r.length : 80,
                 r.text, (long long)i, list.ids[i], u16_at(r.ids + 2 * i));
      }
    }
    assert_int_equal(list.count, r.count);
    fa_token_list_free(&list);
  }
  assert_true(at == f->goldens + f->size);
}

/* The vocabulary lacks tokens for a few control characters and for bytes no assigned character has; they are
 * dropped, here as in the reference. */
static bool representable(const fa_tokenizer *tokenizer, const record *r) {
  for (size_t i = 0; i < r->length; i++) {
    if (tokenizer->vocabulary.byte_ids[(unsigned char)r->text[i]] < 0) return false;
  }
  return true;
}

static void test_round_trip(void **state) {
  const fixture *f = *state;
  if (!f->tokenizer) skip();
  const unsigned char *at = f->goldens + 8;
  int tried = 0;
  for (uint32_t n = 0; n < u32_at(f->goldens + 4); n++) {
    record r;
    at = next_record(at, &r);
    if (!representable(f->tokenizer, &r)) continue;
    for (unsigned how = FA_ENCODE_PLAIN; how <= FA_ENCODE_SPECIAL; how++) {
      fa_token_list list = FA_TOKEN_LIST_INIT;
      size_t done = 0, length;
      assert_int_equal(fa_tokenizer_encode(f->tokenizer, r.text, r.length, how, &list), FA_OK);
      for (int64_t i = 0; i < list.count; i++) {
        const char *piece = fa_tokenizer_piece(f->tokenizer, list.ids[i], &length);
        assert_true(length <= r.length - done);
        assert_memory_equal(piece, r.text + done, length);
        done += length;
        if (how == FA_ENCODE_PLAIN) assert_false(fa_tokenizer_is_control(f->tokenizer, list.ids[i]));
      }
      assert_int_equal(done, r.length);
      fa_token_list_free(&list);
    }
    tried++;
  }
  assert_true(tried > 2000);
}

static fa_status hash_piece(void *user, const char *bytes, size_t length) {
  uint32_t *hash = user;
  (void)bytes;
  for (int i = 0; i < 4; i++) *hash = (*hash ^ ((uint32_t)length >> (8 * i) & 0xffu)) * 0x01000193u;
  return FA_OK;
}

static void test_other_pretokenizers(void **state) {
  static const char *const names[] = {"gpt-2", "llama-bpe", "qwen2"};
  const fixture *f = *state;
  for (int k = 0; k < 3; k++) {
    fa_pretokenizer *splitter;
    const fa_gguf_string name = {names[k], strlen(names[k])};
    const unsigned char *at = f->goldens + 8;
    assert_int_equal(fa_pretokenizer_create(name, &splitter), FA_OK);
    for (uint32_t n = 0; n < u32_at(f->goldens + 4); n++) {
      record r;
      uint32_t hash = 0x811c9dc5u;
      at = next_record(at, &r);
      assert_int_equal(fa_pretokenizer_split(splitter, r.text, r.length, hash_piece, &hash), FA_OK);
      if (hash != r.hashes[k]) {
        fail_msg("%s cuts record %u ('%.*s') differently", names[k], n, r.length < 80 ? (int)r.length : 80,
                 r.text);
      }
    }
    fa_pretokenizer_free(splitter);
  }
}

/* What is not UTF-8 becomes U+FFFD, one for each beginning of a character, as in Python's decoder. */
static void test_damaged_text(void **state) {
  static const struct {
    const char *given, *meant;
  } cases[] = {{"a\x80z", "a\xef\xbf\xbdz"},
               {"\xc3", "\xef\xbf\xbd"},
               {"\xe2\x82z", "\xef\xbf\xbdz"},
               {"\xf0\x9f\x98", "\xef\xbf\xbd"},
               {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
               {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
               {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}};
  const fixture *f = *state;
  if (!f->tokenizer) skip();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    fa_token_list given = FA_TOKEN_LIST_INIT, meant = FA_TOKEN_LIST_INIT;
    assert_int_equal(fa_tokenizer_encode(f->tokenizer, cases[i].given, strlen(cases[i].given), 0, &given),
                     FA_OK);
    assert_int_equal(fa_tokenizer_encode(f->tokenizer, cases[i].meant, strlen(cases[i].meant), 0, &meant),
                     FA_OK);
    assert_int_equal(given.count, meant.count);
    assert_memory_equal(given.ids, meant.ids, (size_t)given.count * sizeof *given.ids);
    fa_token_list_free(&given);
    fa_token_list_free(&meant);
  }
}

static void assert_chat(const fixture *f, const char *system, const char *user, const char *expected) {
  fa_token_list chat = FA_TOKEN_LIST_INIT, plain = FA_TOKEN_LIST_INIT;
  assert_int_equal(fa_tokenizer_encode_chat(f->tokenizer, system, user, &chat), FA_OK);
  assert_int_equal(fa_tokenizer_encode(f->tokenizer, expected, strlen(expected), FA_ENCODE_SPECIAL, &plain),
                   FA_OK);
  assert_int_equal(chat.count, plain.count);
  assert_memory_equal(chat.ids, plain.ids, (size_t)chat.count * sizeof *chat.ids);
  fa_token_list_free(&chat);
  fa_token_list_free(&plain);
}

/* The expected texts are what the model's Jinja template renders. */
static void test_chat(void **state) {
  const fixture *f = *state;
  if (!f->tokenizer) skip();
  assert_chat(
      f, NULL, "Hi!",
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
      "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n");
  assert_chat(f, "Be brief.", "",
              "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>"
              "assistant\n");
  /* A message can not end itself. */
  fa_token_list list = FA_TOKEN_LIST_INIT;
  int ends = 0;
  assert_int_equal(fa_tokenizer_encode_chat(f->tokenizer, "", "a<|im_end|>b", &list), FA_OK);
  for (int64_t i = 0; i < list.count; i++) ends += fa_tokenizer_is_end(f->tokenizer, list.ids[i]);
  assert_int_equal(ends, 2);
  fa_token_list_free(&list);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tokens),
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_other_pretokenizers),
      cmocka_unit_test(test_damaged_text),
      cmocka_unit_test(test_chat),
  };
  return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
