/* Sequences of a paged cache: handles, and tables of pages that grow and shrink. */
#include <string.h>

#include "core/kernel.h"
#include "core/status.h"
#include "kv/kv_cache.h"

void fa_kv_sequences_init(fa_kv_cache *cache) {
  const int64_t places = cache->options.max_sequences;
  memset(cache->sequences, 0, (size_t)places * sizeof *cache->sequences);
  for (int64_t n = 0; n < places; n++) cache->sequences[n].next_free = n + 1 < places ? (int32_t)(n + 1) : -1;
  cache->first_free = 0;
  cache->place_bits = 0;
  while ((int64_t)1 << cache->place_bits < places) cache->place_bits++;
}

static int32_t handle_of(const fa_kv_cache *cache, int32_t place) {
  return (int32_t)((uint32_t)cache->sequences[place].generation << cache->place_bits | (uint32_t)place);
}

/* NULL and a line where `handle` is no sequence of the cache. */
static fa_kv_sequence *find(const fa_kv_cache *cache, int32_t handle) {
  if (!cache) {
    fa_fail(FA_ERROR_ARGUMENT, "cache is NULL; pass one that fa_kv_cache_create made");
    return NULL;
  }
  if (handle >= 0) {
    const int32_t place = (int32_t)((uint32_t)handle & (((uint32_t)1 << cache->place_bits) - 1));
    if (place < cache->options.max_sequences && cache->sequences[place].next_free == FA_KV_IN_USE &&
        handle_of(cache, place) == handle)
      return &cache->sequences[place];
  }
  fa_fail(FA_ERROR_ARGUMENT, "%d is no sequence of this cache; pass one that fa_kv_sequence_create gave and that was "
          "not destroyed", handle);
  return NULL;
}

fa_status fa_kv_sequence_create(fa_kv_cache *cache, int32_t *sequence) {
  if (!cache || !sequence)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_sequence_create: %s is NULL", cache ? "sequence" : "cache");
  *sequence = -1;
  const int32_t place = cache->first_free;
  if (place < 0)
    return fa_fail(FA_ERROR_MEMORY, "all %lld sequences of the cache exist; destroy one, or create it with more "
                   "max_sequences", (long long)cache->options.max_sequences);
  cache->first_free = cache->sequences[place].next_free;
  cache->sequences[place].next_free = FA_KV_IN_USE;
  *sequence = handle_of(cache, place);
  return FA_OK;
}

fa_status fa_kv_sequence_destroy(fa_kv_cache *cache, int32_t sequence) {
  fa_kv_sequence *found = find(cache, sequence);
  if (!found) return FA_ERROR_ARGUMENT;
  for (int64_t n = 0; n < found->count; n++) fa_kv_pages_give_back(&cache->pages, found->pages[n]);
  fa_host_free(cache->context, found->pages);
  const uint32_t generations = (uint32_t)1 << (31 - cache->place_bits);
  const int32_t generation = (int32_t)(((uint32_t)found->generation + 1) & (generations - 1));
  memset(found, 0, sizeof *found);
  found->generation = generation;
  found->next_free = cache->first_free;
  cache->first_free = (int32_t)(found - cache->sequences);
  return FA_OK;
}

/* Room for `count` pages in the table; 0 and a line where there is no memory. */
static int reserve(const fa_kv_cache *cache, fa_kv_sequence *sequence, int64_t count) {
  if (count <= sequence->capacity) return 1;
  int64_t capacity = fa_min(fa_max(count, 2 * sequence->capacity), cache->options.num_pages);
  capacity = fa_max(capacity, fa_min(16, cache->options.num_pages));
  int32_t *pages = fa_host_allocate(cache->context, (size_t)capacity * sizeof *pages);
  if (!pages) return 0;
  if (sequence->count) memcpy(pages, sequence->pages, (size_t)sequence->count * sizeof *pages);
  fa_host_free(cache->context, sequence->pages);
  sequence->pages = pages;
  sequence->capacity = capacity;
  return 1;
}

fa_status fa_kv_sequence_resize(fa_kv_cache *cache, int32_t sequence, int64_t tokens) {
  fa_kv_sequence *found = find(cache, sequence);
  if (!found) return FA_ERROR_ARGUMENT;
  if (tokens < 0)
    return fa_fail(FA_ERROR_ARGUMENT, "tokens is %lld; a sequence has at least 0", (long long)tokens);
  const int64_t page_size = cache->options.page_size;
  const int64_t count = tokens / page_size + (tokens % page_size != 0);
  if (count - found->count > cache->pages.free_count)
    return fa_fail(FA_ERROR_MEMORY, "%lld tokens take %lld pages of %lld, %lld more than the sequence has; %lld "
                   "of the cache's %lld are free; shorten or destroy sequences, or create it with more num_pages",
                   (long long)tokens, (long long)count, (long long)page_size, (long long)(count - found->count),
                   (long long)cache->pages.free_count, (long long)cache->options.num_pages);
  if (!reserve(cache, found, count)) return FA_ERROR_MEMORY;
  while (found->count < count) found->pages[found->count++] = fa_kv_pages_take(&cache->pages);
  while (found->count > count) fa_kv_pages_give_back(&cache->pages, found->pages[--found->count]);
  found->tokens = tokens;
  return FA_OK;
}

int64_t fa_kv_sequence_tokens(const fa_kv_cache *cache, int32_t sequence) {
  const fa_kv_sequence *found = find(cache, sequence);
  return found ? found->tokens : -1;
}

const int32_t *fa_kv_sequence_pages(const fa_kv_cache *cache, int32_t sequence, int64_t *count) {
  static const int32_t none[1] = {0};
  const fa_kv_sequence *found = find(cache, sequence);
  if (count) *count = found ? found->count : 0;
  if (!found) return NULL;
  return found->pages ? found->pages : none;
}

fa_status fa_kv_sequence_slots(const fa_kv_cache *cache, int32_t sequence, int64_t first, int64_t count,
                               int32_t *slots) {
  const fa_kv_sequence *found = find(cache, sequence);
  if (!found) return FA_ERROR_ARGUMENT;
  if (first < 0 || count < 0 || first > found->tokens || count > found->tokens - first)
    return fa_fail(FA_ERROR_ARGUMENT, "slots of %lld tokens from token %lld on; the sequence has %lld tokens",
                   (long long)count, (long long)first, (long long)found->tokens);
  if (count && !slots) return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_sequence_slots: slots is NULL");
  const int64_t page_size = cache->options.page_size;
  int64_t page = first / page_size, place = first % page_size;
  for (int64_t n = 0; n < count; n++) {
    slots[n] = (int32_t)(found->pages[page] * page_size + place);
    if (++place == page_size) place = 0, page++;
  }
  return FA_OK;
}
