#include "token_set.h"

#include <stdlib.h>
#include <string.h>

#include "llama_error.h"

fa_status fa_token_set_add(fa_token_set *set, fa_token_match match) {
  if (set->count == set->capacity) {
    const int64_t capacity = set->capacity ? 2 * set->capacity : 64;
    fa_token_match *entries = realloc(set->entries, (size_t)capacity * sizeof *entries);
    if (!entries) return fa_llama_out_of_memory("the special tokens");
    set->entries = entries;
    set->capacity = capacity;
  }
  char *name = malloc(match.name.length);
  if (!name) return fa_llama_out_of_memory("the special tokens");
  memcpy(name, match.name.bytes, match.name.length);
  match.name.bytes = name;
  set->entries[set->count++] = match;
  set->begins[(uint8_t)name[0]] = true;
  return FA_OK;
}

static int compare(const void *a, const void *b) {
  const fa_gguf_string x = ((const fa_token_match *)a)->name, y = ((const fa_token_match *)b)->name;
  const int order = memcmp(x.bytes, y.bytes, x.length < y.length ? x.length : y.length);
  return order ? order : (x.length > y.length) - (x.length < y.length);
}

void fa_token_set_ready(fa_token_set *set) {
  if (set->count) qsort(set->entries, (size_t)set->count, sizeof *set->entries, compare);
}

/* First entry of [low, high), all longer than `depth` and equal before it, whose byte there is at least
 * `byte`. */
static int64_t first_from(const fa_token_set *set, int64_t low, int64_t high, size_t depth, int byte) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if ((uint8_t)set->entries[middle].name.bytes[depth] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

const fa_token_match *fa_token_set_find(const fa_token_set *set, const char *text, size_t length,
                                        bool control) {
  if (!set->begins[(uint8_t)text[0]]) return NULL;
  const fa_token_match *best = NULL;
  int64_t low = 0, high = set->count;
  for (size_t depth = 0;; depth++) {
    /* Of names with the same beginning the one that ends here comes first. */
    for (; low < high && set->entries[low].name.length == depth; low++) {
      if (control || !set->entries[low].control) best = &set->entries[low];
    }
    if (depth == length || low >= high) return best;
    const int byte = (uint8_t)text[depth];
    low = first_from(set, low, high, depth, byte);
    high = first_from(set, low, high, depth, byte + 1);
  }
}

void fa_token_set_release(fa_token_set *set) {
  for (int64_t i = 0; i < set->count; i++) free((void *)(uintptr_t)set->entries[i].name.bytes);
  free(set->entries);
  memset(set, 0, sizeof *set);
}
