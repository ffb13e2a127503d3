/* Sequences of the paged KV cache: handles, and the books against a plain table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "small_cache.h"

static void refuses_all(fa_kv_cache *cache, int32_t sequence) {
  int32_t slot = 77;
  int64_t count = 77;
  assert_int_equal(fa_kv_sequence_tokens(cache, sequence), -1);
  says("is no sequence of this cache");
  assert_null(fa_kv_sequence_pages(cache, sequence, &count));
  assert_int_equal(count, 0);
  assert_int_equal(fa_kv_sequence_slots(cache, sequence, 0, 0, &slot), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_sequence_resize(cache, sequence, 1), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_sequence_destroy(cache, sequence), FA_ERROR_ARGUMENT);
  says("is no sequence of this cache");
  assert_int_equal(slot, 77);
}

static void handles_that_are_none(void **state) {
  fa_kv_options o = small_options();
  fa_kv_cache *cache = cache_of(*state, &o);
  const int32_t living = sequence_of(cache, 9);
  static const int32_t bad[] = {-1, INT32_MIN, INT32_MAX, 1, 4, 5, 7, 8, 16, 1 << 20};
  for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) refuses_all(cache, bad[n]);
  /* A place taken again is another sequence, however often. */
  int32_t last = sequence_of(cache, 4);
  for (int n = 0; n < 1000; n++) {
    assert_int_equal(fa_kv_sequence_destroy(cache, last), FA_OK);
    refuses_all(cache, last);
    const int32_t next = sequence_of(cache, 4);
    assert_int_not_equal(next, last);
    refuses_all(cache, last);
    last = next;
  }
  assert_int_equal(fa_kv_sequence_tokens(cache, living), 9);
  assert_int_equal(fa_kv_cache_free_pages(cache), 70 - 3 - 1);
  assert_int_equal(fa_kv_sequence_resize(cache, living, -1), FA_ERROR_ARGUMENT);
  says("tokens is -1");
  int32_t slots[16], none;
  const int64_t bad_slots[][2] = {{-1, 2}, {0, -1}, {0, 10}, {9, 1}, {10, 0}, {INT64_MAX, 1}, {1, INT64_MAX}};
  for (size_t n = 0; n < sizeof bad_slots / sizeof bad_slots[0]; n++)
    assert_int_equal(fa_kv_sequence_slots(cache, living, bad_slots[n][0], bad_slots[n][1], slots), FA_ERROR_ARGUMENT);
  says("the sequence has 9 tokens");
  assert_int_equal(fa_kv_sequence_slots(cache, living, 0, 1, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_sequence_slots(cache, living, 9, 0, NULL), FA_OK);
  assert_int_equal(fa_kv_sequence_create(cache, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_sequence_create(NULL, &none), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_sequence_tokens(NULL, 0), -1);
  assert_null(fa_kv_sequence_pages(NULL, 0, NULL));
  fa_kv_cache_destroy(cache);
}

static void lowest_pages_first_and_all_or_nothing(void **state) {
  fa_kv_options o = small_options();
  o.num_pages = 10;
  o.max_sequences = 3;
  fa_kv_cache *cache = cache_of(*state, &o);
  const int32_t a = sequence_of(cache, 16), b = sequence_of(cache, 9), c = sequence_of(cache, 0);
  int64_t count;
  int32_t none = 5;
  const int32_t *pages = fa_kv_sequence_pages(cache, a, &count);
  for (int32_t n = 0; n < 4; n++) assert_int_equal(pages[n], n);
  pages = fa_kv_sequence_pages(cache, b, &count);
  assert_true(count == 3 && pages[0] == 4 && pages[1] == 5 && pages[2] == 6);
  assert_non_null(fa_kv_sequence_pages(cache, c, &count));
  assert_int_equal(count, 0);
  assert_int_equal(fa_kv_sequence_create(cache, &none), FA_ERROR_MEMORY);
  says("all 3 sequences of the cache exist");
  assert_int_equal(none, -1);
  /* 3 pages are free. */
  assert_int_equal(fa_kv_sequence_resize(cache, c, 13), FA_ERROR_MEMORY);
  says("13 tokens take 4 pages of 4, 4 more than the sequence has; 3 of the cache's 10 are free");
  assert_int_equal(fa_kv_sequence_resize(cache, b, 25), FA_ERROR_MEMORY);
  says("25 tokens take 7 pages of 4, 4 more");
  assert_int_equal(fa_kv_sequence_resize(cache, b, INT64_MAX), FA_ERROR_MEMORY);
  assert_int_equal(fa_kv_sequence_tokens(cache, b), 9);
  assert_int_equal(fa_kv_cache_free_pages(cache), 3);
  assert_int_equal(fa_kv_sequence_resize(cache, c, 12), FA_OK);
  assert_int_equal(fa_kv_cache_free_pages(cache), 0);
  assert_int_equal(fa_kv_sequence_resize(cache, b, 12), FA_OK); /* the last page had room */
  /* What is free lies scattered: 2, 3, 6. */
  assert_int_equal(fa_kv_sequence_resize(cache, b, 8), FA_OK);
  assert_int_equal(fa_kv_sequence_resize(cache, a, 5), FA_OK);
  assert_int_equal(fa_kv_sequence_resize(cache, c, 24), FA_OK);
  pages = fa_kv_sequence_pages(cache, c, &count);
  static const int32_t expected[6] = {7, 8, 9, 2, 3, 6};
  assert_int_equal(count, 6);
  assert_memory_equal(pages, expected, sizeof expected);
  int32_t slots[24];
  assert_int_equal(fa_kv_sequence_slots(cache, c, 11, 6, slots), FA_OK);
  static const int32_t expected_slots[6] = {39, 8, 9, 10, 11, 12};
  assert_memory_equal(slots, expected_slots, sizeof expected_slots);
  fa_kv_cache_destroy(cache); /* with its sequences */
}

static uint32_t random_of(uint32_t *seed, uint32_t below) {
  *seed = *seed * 1664525u + 1013904223u;
  return (uint32_t)((uint64_t)*seed * below >> 32);
}

enum { PLACES = 9, PAGES = 130 };

/* owner[p]: the living sequence that holds page p, -1: free. table: what the sequence holds, in order. */
typedef struct plain_table {
  int owner[PAGES];
  int32_t handle[PLACES];
  int64_t tokens[PLACES];
  int32_t table[PLACES][PAGES];
} plain_table;

static void resize_plainly(plain_table *t, int s, int64_t tokens, int64_t page_size) {
  int64_t has = (t->tokens[s] + page_size - 1) / page_size;
  const int64_t wants = (tokens + page_size - 1) / page_size;
  for (; has > wants; has--) t->owner[t->table[s][has - 1]] = -1;
  for (int32_t p = 0; has < wants; has++) {
    while (t->owner[p] != -1) p++;
    t->owner[p] = s;
    t->table[s][has] = p;
  }
  t->tokens[s] = tokens;
}

static void same_books(const fa_kv_cache *cache, const plain_table *t, int64_t page_size) {
  static int32_t slots[PAGES * 7];
  int64_t free_pages = 0;
  for (int p = 0; p < PAGES; p++) free_pages += t->owner[p] == -1;
  assert_int_equal(fa_kv_cache_free_pages(cache), free_pages);
  for (int s = 0; s < PLACES; s++) {
    if (t->handle[s] < 0) continue;
    int64_t count = -1;
    const int32_t *pages = fa_kv_sequence_pages(cache, t->handle[s], &count);
    assert_int_equal(fa_kv_sequence_tokens(cache, t->handle[s]), t->tokens[s]);
    assert_int_equal(count, (t->tokens[s] + page_size - 1) / page_size);
    for (int64_t n = 0; n < count; n++) assert_int_equal(pages[n], t->table[s][n]);
    const int64_t first = t->tokens[s] / 3;
    assert_int_equal(fa_kv_sequence_slots(cache, t->handle[s], first, t->tokens[s] - first, slots), FA_OK);
    for (int64_t n = first; n < t->tokens[s]; n++)
      assert_int_equal(slots[n - first], t->table[s][n / page_size] * page_size + n % page_size);
  }
}

static void the_same_as_a_plain_table(void **state) {
  static plain_table t;
  for (uint32_t round = 0; round < 20; round++) {
    uint32_t seed = 20260 + round;
    fa_kv_options o = small_options();
    o.page_size = 1 + random_of(&seed, 7);
    o.num_pages = PAGES;
    o.max_sequences = PLACES;
    fa_kv_cache *cache = cache_of(*state, &o);
    for (int p = 0; p < PAGES; p++) t.owner[p] = -1;
    for (int s = 0; s < PLACES; s++) t.handle[s] = -1;
    for (int step = 0; step < 800; step++) {
      const int s = (int)random_of(&seed, PLACES);
      if (t.handle[s] < 0) {
        assert_int_equal(fa_kv_sequence_create(cache, &t.handle[s]), FA_OK);
        t.tokens[s] = 0;
      } else if (random_of(&seed, 10) == 0) {
        assert_int_equal(fa_kv_sequence_destroy(cache, t.handle[s]), FA_OK);
        resize_plainly(&t, s, 0, o.page_size);
        t.handle[s] = -1;
      } else {
        const int64_t tokens = random_of(&seed, 3) ? t.tokens[s] + 1 /* a step */
                                                   : random_of(&seed, (uint32_t)(PAGES * o.page_size / 3));
        int64_t room = (t.tokens[s] + o.page_size - 1) / o.page_size;
        for (int p = 0; p < PAGES; p++) room += t.owner[p] == -1;
        const fa_status expected = (tokens + o.page_size - 1) / o.page_size <= room ? FA_OK : FA_ERROR_MEMORY;
        assert_int_equal(fa_kv_sequence_resize(cache, t.handle[s], tokens), expected);
        if (expected == FA_OK) resize_plainly(&t, s, tokens, o.page_size);
      }
      same_books(cache, &t, o.page_size);
    }
    fa_kv_cache_destroy(cache);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(handles_that_are_none),
      cmocka_unit_test(lowest_pages_first_and_all_or_nothing),
      cmocka_unit_test(the_same_as_a_plain_table),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
