#include "symbol_merge.h"

#include <stdlib.h>
#include <string.h>

#include "llama_error.h"

struct fa_candidate {
  int32_t rank, left, right; /* symbols */
  int32_t length;            /* of both when it was found; a candidate whose symbols have grown is stale */
  int32_t id;
};

/* Lowest rank first, leftmost among equals. */
static bool before(const fa_candidate *a, const fa_candidate *b) {
  return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void push(fa_merger *m, fa_candidate added) {
  int64_t at = m->heap_count++;
  while (at > 0 && before(&added, &m->heap[(at - 1) / 2])) {
    m->heap[at] = m->heap[(at - 1) / 2];
    at = (at - 1) / 2;
  }
  m->heap[at] = added;
}

static fa_candidate pop(fa_merger *m) {
  const fa_candidate top = m->heap[0], moved = m->heap[--m->heap_count];
  int64_t at = 0;
  for (int64_t child; (child = 2 * at + 1) < m->heap_count; at = child) {
    if (child + 1 < m->heap_count && before(&m->heap[child + 1], &m->heap[child])) child++;
    if (!before(&m->heap[child], &moved)) break;
    m->heap[at] = m->heap[child];
  }
  m->heap[at] = moved;
  return top;
}

static void consider(fa_merger *m, int32_t left, int32_t right, fa_join_function join, void *user) {
  if (left < 0 || right < 0) return;
  const fa_symbol *a = &m->symbols[left], *b = &m->symbols[right];
  int32_t rank, id;
  if (join(user, a, b, &rank, &id)) push(m, (fa_candidate){rank, left, right, a->length + b->length, id});
}

fa_status fa_merger_begin(fa_merger *m, size_t symbols) {
  m->count = 0;
  m->heap_count = 0;
  if (symbols <= m->capacity) return FA_OK;
  if (symbols > INT32_MAX / 4) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a word of %zu bytes in the text; up to %d are allowed", symbols,
                         INT32_MAX / 4);
  }
  const size_t capacity = symbols < 256 ? 256 : 2 * symbols;
  fa_symbol *list = realloc(m->symbols, capacity * sizeof *list);
  if (list) m->symbols = list;
  /* n symbols push n - 1 candidates, and each of at most n - 1 joins up to two more. */
  fa_candidate *heap = list ? realloc(m->heap, 3 * capacity * sizeof *heap) : NULL;
  if (heap) m->heap = heap;
  if (!list || !heap) return fa_llama_out_of_memory("a long word");
  m->capacity = capacity;
  return FA_OK;
}

void fa_merger_add(fa_merger *m, int32_t id, int32_t begin, int32_t length) {
  const int32_t at = m->count++;
  if (at > 0) m->symbols[at - 1].next = at;
  m->symbols[at] = (fa_symbol){id, begin, length, at - 1, -1};
}

void fa_merger_join(fa_merger *m, fa_join_function join, void *user) {
  for (int32_t i = 0; i + 1 < m->count; i++) consider(m, i, i + 1, join, user);
  while (m->heap_count > 0) {
    const fa_candidate best = pop(m);
    fa_symbol *left = &m->symbols[best.left], *right = &m->symbols[best.right];
    if (!left->length || !right->length || left->length + right->length != best.length) continue;
    left->id = best.id;
    left->length = best.length;
    left->next = right->next;
    right->length = 0;
    if (left->next >= 0) m->symbols[left->next].previous = best.left;
    consider(m, left->previous, best.left, join, user);
    consider(m, best.left, left->next, join, user);
  }
}

void fa_merger_release(fa_merger *m) {
  free(m->symbols);
  free(m->heap);
  memset(m, 0, sizeof *m);
}
