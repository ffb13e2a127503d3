/* Which pages are free: one bit a page, lowest first out, so that a cache in little use stays dense and a fresh
 * sequence gets neighbouring pages where there are any. */
#ifndef FA_KV_PAGES_H
#define FA_KV_PAGES_H

#include <stddef.h>
#include <stdint.h>

typedef struct fa_kv_pages {
  uint64_t *is_free; /* bit p % 64 of word p / 64 */
  int64_t words;
  int64_t lowest; /* no word before it has a free page */
  int64_t free_count;
} fa_kv_pages;

static inline int64_t fa_kv_pages_words(int64_t num_pages) { return (num_pages + 63) / 64; }

/* All of num_pages are free. is_free: fa_kv_pages_words(num_pages) words, the caller's. */
static inline void fa_kv_pages_init(fa_kv_pages *pages, uint64_t *is_free, int64_t num_pages) {
  pages->is_free = is_free;
  pages->words = fa_kv_pages_words(num_pages);
  pages->lowest = 0;
  pages->free_count = num_pages;
  for (int64_t w = 0; w < pages->words; w++) is_free[w] = UINT64_MAX;
  if (num_pages % 64) is_free[pages->words - 1] = ((uint64_t)1 << num_pages % 64) - 1;
}

/* The lowest free page; free_count must not be 0. */
static inline int32_t fa_kv_pages_take(fa_kv_pages *pages) {
  while (!pages->is_free[pages->lowest]) pages->lowest++;
  uint64_t *word = &pages->is_free[pages->lowest];
  const int32_t page = (int32_t)(pages->lowest * 64 + __builtin_ctzll(*word));
  *word &= *word - 1;
  pages->free_count--;
  return page;
}

static inline void fa_kv_pages_give_back(fa_kv_pages *pages, int32_t page) {
  const int64_t word = page / 64;
  pages->is_free[word] |= (uint64_t)1 << page % 64;
  if (word < pages->lowest) pages->lowest = word;
  pages->free_count++;
}

#endif
