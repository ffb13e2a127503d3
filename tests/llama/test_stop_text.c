/* Stop strings over a stream of bytes: against a search of the whole text, however it is cut into pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "llama.h"
#include "stop_text.h"

enum { MOST = 400 };

static uint32_t random_below(uint32_t *seed, uint32_t below) {
  *seed = *seed * 1664525u + 1013904223u;
  return (uint32_t)((uint64_t)*seed * below >> 32);
}

static fa_stop_text *text_of(const char *const *stops, int count) {
  fa_stop_text *text = NULL;
  if (fa_stop_text_create(stops, count, &text) != FA_OK) fail_msg("%s", fa_llama_last_error());
  return text;
}

/* Fed piece by piece and flushed; every piece's showing behind a bar. */
static void shows(const char *const *stops, int count, const char *const *pieces, const char *expected, int stopped_by) {
  fa_stop_text *text = text_of(stops, count);
  char found[MOST] = "", shown[MOST];
  for (int n = 0; pieces[n]; n++) {
    assert_true(fa_stop_text_room(text, strlen(pieces[n])) <= sizeof shown);
    const size_t fresh = fa_stop_text_feed(text, pieces[n], strlen(pieces[n]), shown);
    assert_int_equal(fresh, strlen(shown));
    strcat(strcat(found, shown), "|");
  }
  assert_int_equal(fa_stop_text_stopped_by(text), stopped_by);
  const size_t last = fa_stop_text_flush(text, shown);
  assert_int_equal(last, strlen(shown));
  strcat(found, shown);
  assert_string_equal(found, expected);
  assert_int_equal(fa_stop_text_flush(text, shown), 0);
  fa_stop_text_free(text);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void what_is_shown_when(void **state) {
  (void)state;
  shows(NULL, 0, LIST("ab", "c"), "ab|c|", -1);
  shows(LIST("stop"), 1, LIST("a st", "o", "ne", " s"), "a |" "|stone| |s", -1);
  shows(LIST("stop"), 1, LIST("a st", "op it", "never"), "a |||", 0);
  shows(LIST("stop"), 1, LIST("stop"), "|", 0);
  shows(LIST("abab"), 1, LIST("ab", "a", "a", "bab", "x"), "||aba|||", 0);
  shows(LIST("abac"), 1, LIST("aba", "bac"), "|ab|", 0); /* the end of one try begins the next */
  shows(LIST("aab"), 1, LIST("a", "a", "a", "b"), "||a||", 0);
  shows(LIST("xyz", "y"), 2, LIST("xyz"), "x|", 1);         /* the first to be whole */
  shows(LIST("c", "abc", "bc"), 3, LIST("ab", "c"), "||", 1); /* of those that end together the longest */
  shows(LIST("bc", "abcd"), 2, LIST("xab", "d", "c"), "x|abd|c|", -1);
  shows(LIST("\n\n", "</s>"), 2, LIST("a\n", "</", "b"), "a|\n|</b|", -1);
}

static void whole_characters(void **state) {
  (void)state;
  shows(NULL, 0, LIST("\xe2", "\x82", "\xac" "1"), "||\xe2\x82\xac" "1|", -1);
  shows(NULL, 0, LIST("a\xf0\x9f", "\x98\x80"), "a|\xf0\x9f\x98\x80|", -1);
  shows(NULL, 0, LIST("a\xf0\x9f\x98"), "a|\xef\xbf\xbd", -1);                   /* never finished */
  shows(NULL, 0, LIST("\xc3", "(", "\xff", "b"), "|\xef\xbf\xbd(|\xef\xbf\xbd|b|", -1); /* none at all */
  shows(LIST("\xac!"), 1, LIST("\xe2\x82\xac", "?"), "|\xe2\x82\xac?|", -1); /* held: the stop string may begin */
  shows(LIST("\xac!"), 1, LIST("\xe2\x82\xac", "!"), "|\xef\xbf\xbd|", 0);
  shows(LIST("b"), 1, LIST("a\xe2\x82", "b"), "a|\xef\xbf\xbd|", 0);
}

static size_t search(const char *text, size_t length, const char *const *stops, int count, int *stopped_by) {
  for (size_t end = 1; end <= length; end++) {
    size_t longest = 0;
    for (int n = 0; n < count; n++) {
      const size_t stop = strlen(stops[n]);
      if (stop > longest && stop <= end && memcmp(text + end - stop, stops[n], stop) == 0) longest = stop, *stopped_by = n;
    }
    if (longest) return end - longest;
  }
  *stopped_by = -1;
  return length;
}

/* Bytes of `text` that need not be held back. */
static size_t safe_length(const char *text, size_t length, const char *const *stops, int count) {
  size_t held = 0;
  for (int n = 0; n < count; n++)
    for (size_t part = strlen(stops[n]) - 1; part > held; part--)
      if (part <= length && memcmp(text + length - part, stops[n], part) == 0) held = part;
  size_t safe = length - held;
  /* The beginning of a character at the end: with the right bytes behind it, it is one. */
  for (size_t part = 1; part <= 3 && part <= safe; part++) {
    static const char *const endings[] = {"\x80", "\x80\x80", "\x80\x80\x80", "\x90\x80", "\xa0\x80", "\x90\x80\x80"};
    for (size_t e = 0; e < sizeof endings / sizeof endings[0]; e++) {
      char whole[8], repaired[32];
      memcpy(whole, text + safe - part, part);
      strcpy(whole + part, endings[e]);
      const size_t bytes = part + strlen(endings[e]);
      const unsigned char lead = (unsigned char)whole[0];
      const size_t wanted = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
      if (bytes == wanted && fa_utf8_repair(whole, bytes, repaired) == bytes && memcmp(repaired, whole, bytes) == 0)
        return safe - part;
    }
  }
  return safe;
}

static void as_a_search_of_the_whole(void **state) {
  (void)state;
  static const char *const atoms[] = {"a", "b", "ab", "\xe2\x82\xac", "\xc3\xa4", "\xf0\x9f\x98\x80", "\xe2",
                                      "\x82", "\xf0", "\xff", "\xed"};
  uint32_t seed = 9;
  int stopped = 0;
  for (int round = 0; round < 20000; round++) {
    char stop_bytes[4][24], bytes[MOST], expected[3 * MOST + 1], found[3 * MOST + 64], shown[3 * (2 * MOST) + 1];
    const char *stops[4];
    const int count = (int)random_below(&seed, 5);
    const uint32_t kinds = round % 2 ? 11 : 3;
    for (int n = 0; n < count; n++) {
      stop_bytes[n][0] = '\0';
      for (uint32_t k = 1 + random_below(&seed, round % 3 ? 5 : 2); k > 0; k--)
        strcat(stop_bytes[n], atoms[random_below(&seed, kinds)]);
      stops[n] = stop_bytes[n];
    }
    size_t length = 0;
    for (uint32_t k = random_below(&seed, 60); k > 0; k--) {
      const char *atom = atoms[random_below(&seed, kinds)];
      memcpy(bytes + length, atom, strlen(atom));
      length += strlen(atom);
    }
    int stopped_by;
    const size_t before = search(bytes, length, stops, count, &stopped_by);
    stopped += stopped_by >= 0;
    fa_stop_text *text = text_of(stops, count);
    for (int cut = 0; cut < 3; cut++) { /* at once, byte by byte, anyhow */
      size_t written = 0;
      for (size_t at = 0; at < length;) {
        const size_t left = length - at;
        const size_t piece = cut == 0 ? left : cut == 1 ? 1 : 1 + random_below(&seed, (uint32_t)left);
        const size_t fresh = fa_stop_text_feed(text, bytes + at, piece, shown);
        assert_true(fresh + 1 <= fa_stop_text_room(text, piece));
        memcpy(found + written, shown, fresh + 1);
        written += fresh;
        at += piece;
        if (fa_stop_text_stopped_by(text) >= 0) break;
        const size_t expected_now = fa_utf8_repair(bytes, safe_length(bytes, at, stops, count), expected);
        assert_int_equal(written, expected_now);
        assert_memory_equal(found, expected, written);
      }
      assert_int_equal(fa_stop_text_stopped_by(text), stopped_by);
      assert_true(fa_stop_text_room(text, 0) <= sizeof shown);
      const size_t last = fa_stop_text_flush(text, shown);
      memcpy(found + written, shown, last);
      written += last;
      assert_int_equal(written, fa_utf8_repair(bytes, before, expected));
      assert_memory_equal(found, expected, written);
      fa_stop_text_restart(text);
    }
    fa_stop_text_free(text);
  }
  assert_in_range(stopped, 4000, 16000);
}

static void strings_that_are_none(void **state) {
  (void)state;
  fa_stop_text *text = (fa_stop_text *)state;
  assert_int_equal(fa_stop_text_create(LIST("a", ""), 2, &text), FA_ERROR_ARGUMENT);
  assert_null(text);
  assert_non_null(strstr(fa_llama_last_error(), "stop string 2 is empty"));
  assert_int_equal(fa_stop_text_create((const char *const[]){NULL}, 1, &text), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_stop_text_create(NULL, -1, &text), FA_ERROR_ARGUMENT);
  fa_stop_text_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_shown_when),
      cmocka_unit_test(whole_characters),
      cmocka_unit_test(as_a_search_of_the_whole),
      cmocka_unit_test(strings_that_are_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
