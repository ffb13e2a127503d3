/* SentencePiece-style tokenizers out of GGUF files, token for token what Google's sentencepiece makes of the
 * same texts (goldens/make_spm_golden.py), and back again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "golden_texts.h"
#include "model_file.h"
#include "tokenizer.h"

typedef struct fixture {
  fa_gguf *gguf[2];
  fa_tokenizer *tokenizer[2]; /* spm_tiny, Gemma (NULL when it is not here) */
  unsigned char *smollm, *goldens;
  golden_text *texts;
  uint32_t count;
  const unsigned char *summaries;
} fixture;

static int open_fixture(void **state) {
  static fixture f;
  size_t size;
  f.smollm = golden_file("tests/llama/goldens/tokenizer_smollm.bin", &size);
  f.goldens = golden_file("tests/llama/goldens/tokenizer_spm.bin", &size);
  const unsigned char *at = f.goldens + 8;
  f.texts = golden_texts(f.smollm, golden_u32(f.goldens + 4), &at, &f.count);
  assert_int_equal(golden_u32(at), f.count);
  f.summaries = at + 4;
  assert_true(f.summaries + 16 * f.count == f.goldens + size);
  const char *paths[] = {"tests/llama/goldens/spm_tiny.gguf", fa_test_gemma()};
  for (int i = 0; i < 2; i++) {
    if (paths[i] && (fa_gguf_open(paths[i], &f.gguf[i]) != FA_OK ||
                     fa_tokenizer_create(f.gguf[i], &f.tokenizer[i]) != FA_OK)) {
      fail_msg("%s", fa_llama_last_error());
    }
  }
  *state = &f;
  return 0;
}

static int close_fixture(void **state) {
  fixture *f = *state;
  if (!f) return 0; /* it could not be opened */
  for (int i = 0; i < 2; i++) {
    fa_tokenizer_free(f->tokenizer[i]);
    fa_gguf_close(f->gguf[i]);
  }
  free(f->smollm);
  free(f->goldens);
  free(f->texts);
  return 0;
}

static void assert_tokens(const fixture *f, int which, const char *name) {
  if (!f->tokenizer[which]) skip();
  for (uint32_t i = 0; i < f->count; i++) {
    assert_golden_tokens(f->tokenizer[which], f->texts[i], FA_ENCODE_PLAIN, f->summaries + 16 * i + 8 * which,
                         name);
  }
}

static void test_tiny(void **state) { assert_tokens(*state, 0, "spm_tiny"); }
static void test_gemma(void **state) { assert_tokens(*state, 1, "Gemma"); }

/* The text again, behind the space the tiny vocabulary puts before it. */
static void test_round_trip(void **state) {
  const fixture *f = *state;
  for (int which = 0; which < 2; which++) {
    const size_t head = which == 0;
    if (!f->tokenizer[which]) continue;
    for (uint32_t n = 0; n < f->count; n++) {
      fa_token_list list = FA_TOKEN_LIST_INIT;
      size_t done = 0, length;
      const golden_text text = f->texts[n];
      assert_int_equal(fa_tokenizer_encode(f->tokenizer[which], text.bytes, text.length, 0, &list), FA_OK);
      for (int64_t i = 0; i < list.count; i++) {
        const char *piece = fa_tokenizer_piece(f->tokenizer[which], list.ids[i], &length);
        assert_false(fa_tokenizer_is_control(f->tokenizer[which], list.ids[i]));
        if (head && done == 0) {
          assert_true(length > 0 && piece[0] == ' ');
          piece++, length--, done++;
        }
        assert_true(length <= text.length + head - done);
        assert_memory_equal(piece, text.bytes + done - head, length);
        done += length;
      }
      assert_int_equal(done, text.length ? text.length + head : 0);
      fa_token_list_free(&list);
    }
  }
}

static void assert_ids(const fa_tokenizer *tokenizer, const char *text, unsigned how, const int32_t *ids,
                       int64_t count) {
  fa_token_list list = FA_TOKEN_LIST_INIT;
  assert_int_equal(fa_tokenizer_encode(tokenizer, text, strlen(text), how, &list), FA_OK);
  assert_int_equal(list.count, count);
  assert_memory_equal(list.ids, ids, (size_t)count * sizeof *ids);
  fa_token_list_free(&list);
}

/* Control tokens by name only where they are asked for; user-defined ones always; bos where the file wants
 * it. */
static void test_special(void **state) {
  const fixture *f = *state;
  const fa_tokenizer *tiny = f->tokenizer[0], *gemma = f->tokenizer[1];
  const int32_t space = fa_vocabulary_id(&tiny->vocabulary, "\xe2\x96\x81", 3);
  const int32_t a = fa_vocabulary_id(&tiny->vocabulary,
                                     "\xe2\x96\x81"
                                     "a",
                                     4);
  assert_true(space >= 0 && a >= 0);
  assert_ids(tiny, "", FA_ENCODE_BOS, (const int32_t[]){1}, 1);
  assert_ids(tiny, "a", FA_ENCODE_BOS | FA_ENCODE_EOS, (const int32_t[]){1, a}, 2);
  assert_ids(tiny, "a</s>a", FA_ENCODE_SPECIAL, (const int32_t[]){a, 2, a}, 3);
  assert_ids(tiny, "<unk>", FA_ENCODE_SPECIAL, (const int32_t[]){0}, 1);
  assert_true(fa_tokenizer_is_end(tiny, 2));
  /* What is not UTF-8 counts as U+FFFD, in bytes where there is no such token. */
  const int32_t damaged[] = {space, 3 + 0xef, 3 + 0xbf, 3 + 0xbd};
  assert_ids(tiny, "\xff", 0, damaged, 4);
  if (!gemma) return;
  assert_ids(gemma, "<end_of_turn>\n", FA_ENCODE_SPECIAL | FA_ENCODE_BOS, (const int32_t[]){2, 106, 107}, 3);
  assert_ids(gemma, "\n\n<table>", FA_ENCODE_PLAIN, (const int32_t[]){108, 168}, 2);
  assert_true(fa_tokenizer_is_end(gemma, 1) && fa_tokenizer_is_end(gemma, 106));
  fa_token_list list = FA_TOKEN_LIST_INIT;
  assert_int_equal(fa_tokenizer_encode(gemma, "<end_of_turn>", 13, FA_ENCODE_PLAIN, &list), FA_OK);
  assert_true(list.count > 1);
  fa_token_list_free(&list);
}

/* The small vocabulary with its scores damaged. */
static void test_damaged_scores(void **state) {
  (void)state;
  static const char key[] = "tokenizer.ggml.scores";
  static const struct {
    size_t at; /* behind the key: u32 ARRAY, u32 type, u64 count, floats */
    uint32_t value;
    const char *line;
  } cases[] = {{16, 0x7fc00000, "the score of token 0 is not a number"},
               {4, FA_GGUF_INT32, "an array of INT32; it must be one of FLOAT32"},
               {UINT32_MAX, 0, "'tokenizer.ggml.scores' is missing"}};
  size_t size, place = 0;
  unsigned char *file = golden_file("tests/llama/goldens/spm_tiny.gguf", &size);
  while (memcmp(file + place, key, sizeof key - 1) != 0) place++;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    fa_gguf *gguf;
    fa_tokenizer *tokenizer;
    unsigned char *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, file, size);
    if (cases[i].at == UINT32_MAX)
      copy[place]++;
    else
      memcpy(copy + place + sizeof key - 1 + cases[i].at, &cases[i].value, 4);
    assert_int_equal(fa_gguf_open_memory(copy, size, "damaged.gguf", &gguf), FA_OK);
    assert_int_equal(fa_tokenizer_create(gguf, &tokenizer), FA_ERROR_ARGUMENT);
    if (!strstr(fa_llama_last_error(), cases[i].line))
      fail_msg("'%s' does not say '%s'", fa_llama_last_error(), cases[i].line);
    fa_gguf_close(gguf);
    free(copy);
  }
  free(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tiny),           cmocka_unit_test(test_gemma),
      cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_special),
      cmocka_unit_test(test_damaged_scores),
  };
  return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
