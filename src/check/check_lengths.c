/* How long a case's sequences are (mostly below the plan's maxima, sometimes empty) and where its pages lie.
 */
#include <stdlib.h>

#include "check/check_case.h"

static int32_t *place_indices(fa_case *c, fa_array which, int64_t count) {
  return fa_slot_place(&c->slots[which], (size_t)count * sizeof(int32_t), sizeof(int32_t),
                       fa_random_chance(&c->random, 60));
}

static int64_t draw_actual(fa_random *r, int64_t most) {
  const int64_t kind = fa_random_range(r, 0, 9);
  if (kind < 2 || most == 0) return 0;
  if (kind < 5) return most;
  if (kind < 6) return fa_max(most - 1, 0);
  return fa_random_range(r, 0, most);
}

/* cu[batch + 1] of sequences of at most `longest`; *total: rows, of which the last few may belong to nobody.
 */
static const int32_t *draw_cumulative(fa_case *c, fa_array which, int64_t longest, int64_t *total) {
  int32_t *cu = place_indices(c, which, c->problem.batch + 1);
  if (!cu) return NULL;
  cu[0] = 0;
  for (int64_t b = 0; b < c->problem.batch; b++)
    cu[b + 1] = cu[b] + (int32_t)draw_actual(&c->random, longest);
  *total = cu[c->problem.batch];
  if (fa_random_chance(&c->random, 40)) *total += fa_random_range(&c->random, 1, 9);
  return cu;
}

static int64_t queries_of(const fa_case *c, int64_t b) {
  return c->problem.ragged_q ? c->args.cu_seqlens_q[b + 1] - c->args.cu_seqlens_q[b]
                             : c->problem.max_seqlen_q;
}

static int draw_seqlens(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  int32_t *lengths = place_indices(c, FA_ARRAY_SEQLENS, p->batch);
  if (!lengths) return 0;
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t room = p->ragged_kv ? c->args.cu_seqlens_kv[b + 1] - c->args.cu_seqlens_kv[b]
                                      : p->max_seqlen_kv - p->seqlen_new;
    lengths[b] = (int32_t)draw_actual(&c->random, room);
    /* Rotated queries need positions that exist. */
    if (p->rotary_dim) lengths[b] = (int32_t)fa_max(lengths[b], queries_of(c, b) - p->seqlen_new);
  }
  c->args.seqlens_kv = lengths;
  return 1;
}

static int64_t keys_of(const fa_case *c, int64_t b) {
  if (c->problem.has_seqlens_kv) return c->args.seqlens_kv[b] + c->problem.seqlen_new;
  return c->problem.max_seqlen_kv;
}

static int32_t absurd_page(fa_random *r, int64_t pages) {
  const int32_t choices[] = {-1, INT32_MAX, INT32_MIN, (int32_t)pages, 1 << 24};
  return FA_RANDOM_PICK(r, choices);
}

static int draw_pages(fa_case *c) {
  fa_attention_problem *p = &c->problem;
  fa_random *r = &c->random;
  const int64_t slots = fa_ceil_div(p->max_seqlen_kv, p->page_size);
  int64_t used = 0;
  for (int64_t b = 0; b < p->batch; b++) used += fa_ceil_div(keys_of(c, b), p->page_size);
  const int share = !p->seqlen_new && used > 1 && fa_random_chance(r, 25); /* a common prefix, say */
  p->num_pages = share ? fa_random_range(r, 1, used) : used + fa_random_range(r, 0, 3);
  c->shared_tokens |= share;
  c->args.page_table_stride = slots + (fa_random_chance(r, 30) ? fa_random_range(r, 0, 5) : 0);
  if (slots == 0) return 1;

  int32_t *table = place_indices(c, FA_ARRAY_PAGES, (p->batch - 1) * c->args.page_table_stride + slots);
  int32_t *order = malloc((size_t)fa_max(p->num_pages, 1) * sizeof *order);
  if (!table || !order) {
    free(order);
    return 0;
  }
  for (int64_t n = 0; n < p->num_pages; n++) { /* a random permutation */
    const int64_t at = fa_random_range(r, 0, n);
    order[n] = order[at];
    order[at] = (int32_t)n;
  }
  int64_t next = 0;
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t mine = fa_ceil_div(keys_of(c, b), p->page_size);
    int32_t *row = table + b * c->args.page_table_stride;
    const int64_t end = b + 1 < p->batch ? c->args.page_table_stride : slots;
    for (int64_t s = 0; s < end; s++) {
      if (s >= mine)
        row[s] = absurd_page(r, p->num_pages);
      else
        row[s] = share ? (int32_t)fa_random_range(r, 0, p->num_pages - 1) : order[next++];
    }
  }
  free(order);
  c->args.page_table = table;
  return 1;
}

fa_status fa_case_draw_lengths(fa_case *c) {
  fa_attention_problem *p = &c->problem;
  c->shared_tokens = 0;
  if (p->ragged_q) {
    c->args.cu_seqlens_q = draw_cumulative(c, FA_ARRAY_CU_Q, p->max_seqlen_q, &p->total_seqlen_q);
    if (!c->args.cu_seqlens_q) return FA_ERROR_MEMORY;
  }
  if (p->ragged_kv) {
    c->args.cu_seqlens_kv = draw_cumulative(c, FA_ARRAY_CU_KV, p->max_seqlen_kv, &p->total_seqlen_kv);
    if (!c->args.cu_seqlens_kv) return FA_ERROR_MEMORY;
  }
  if (p->has_seqlens_kv && !draw_seqlens(c)) return FA_ERROR_MEMORY;
  if (p->page_size && !draw_pages(c)) return FA_ERROR_MEMORY;
  return FA_OK;
}
