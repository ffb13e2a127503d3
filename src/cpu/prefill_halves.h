/* prefill_tiles.h for 16-bit Q, K and V that are multiplied as they are, into fp32: what prefill_avx512_bf16.c,
 * prefill_neon_bf16.c and prefill_neon_fhm.c are but for the products. The weights are rounded to the input type, as in
 * standard attention; everything else, from the work items to the finished rows, is that of the fp32 tiles.
 *
 * Before it the including file includes its lanes_*.h, defines ROWS and ITEM_STEP, and DEPTH, the elements of
 * D or keys that one product sums. Behind it it defines the functions declared here.
 *
 * Packed layouts, of 16 bits: K [key panel][D / DEPTH][PANEL][DEPTH], V [D_v panel][keys / DEPTH][PANEL]
 * [DEPTH], D and the keys padded with zeros; Q and the weights as the including file likes. Quantised K and V,
 * and items with values that the products do not take, are done by the fp32 tiles. */
#ifndef FA_CPU_PREFILL_HALVES_H
#define FA_CPU_PREFILL_HALVES_H

#include "cpu/prefill_tiles.h"

/* False when a value is outside what the products take. `dim` is that of the tensor, not padded; rows
 * [count, ...) of a strip or panel are packed as zeros. */
static bool halves_pack_q(const char *rows, int64_t stride, int64_t count, int64_t dim, uint16_t *to);
static bool halves_pack_k(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, uint16_t *to);
static bool halves_pack_v(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, int64_t keys,
                          uint16_t *to);
/* p = s, rounded; keys a multiple of PANEL. */
static void halves_weights(const float *s, int64_t keys, uint16_t *p);
/* s[ROWS, PANEL] = scale * q k for one key panel; dim padded. */
static void halves_scores(const uint16_t *q, const uint16_t *k, int64_t dim, float scale, float *s);
/* o[ROWS, n * VEC] = shrink * o + p v for n (1 or 2) vectors of D_v over `keys` keys. */
FA_INLINE void halves_values(const uint16_t *p, const uint16_t *v, int64_t keys, const float *shrink, float *o,
                             int64_t o_stride, int n);

typedef struct halves_scratch {
  scratch tiles; /* q, k and v of it only for what fp32 does */
  uint16_t *k, *v, *q, *p;
} halves_scratch;

/* Cuts one thread's memory (none when it is NULL) and returns its bytes. */
static size_t halves_cut(const fa_plan *plan, const tiling *t, char *memory, halves_scratch *w) {
  const int64_t dim = fa_round_up(t->dim, DEPTH);
  const int64_t counts[4] = {t->keys * dim, t->keys * fa_round_up(t->dim_v, PANEL), t->strips * ROWS * dim,
                             ROWS * MOST_KEYS};
  uint16_t **const pointers[4] = {&w->k, &w->v, &w->q, &w->p};
  size_t at = scratch_cut(t, fa_prefill_rows_exact_bytes(plan), memory, &w->tiles);
  for (int n = 0; n < 4; n++) {
    if (memory) *pointers[n] = (uint16_t *)(void *)(memory + at);
    at += (size_t)fa_round_up(counts[n] * 2, 64);
  }
  return at;
}

/* A strip against the packed keys [begin, end); `strip` counts within the item. */
static void halves_strip(const job *j, const halves_scratch *w, const fa_score_rules *rules, int64_t strip,
                         int64_t row, int64_t rows, int64_t begin, int64_t end) {
  const tiling *t = &j->t;
  const scratch *f = &w->tiles;
  const int64_t dim = fa_round_up(t->dim, DEPTH);
  const fa_key_range kept = fa_band_keys(rules->band, row, rows, rules->seqlen_kv);
  const int64_t k0 = fa_max(kept.begin, begin), k1 = fa_min(kept.end, end);
  if (k0 >= k1) return;
  const int64_t first = (k0 - begin) / PANEL * PANEL, last = fa_round_up(k1 - begin, PANEL);
  const int64_t key = begin + first, keys = last - first;

  for (int64_t n = 0; n < keys; n += PANEL)
    halves_scores(w->q + strip * ROWS * dim, w->k + (first + n) * dim, dim, j->plan->problem.scale, f->s + n);
  fa_score_rules_apply(rules, f->s, SCORE_STRIDE, row, rows, key, k1 - key);
  if (fa_band_block(rules->band, row, rows, key, keys) != FA_BLOCK_FULL || key + keys > rules->seqlen_kv)
    fa_score_band_apply(rules, f->s, SCORE_STRIDE, row, rows, key, keys);
  softmax_strip(f->s, keys, f->m + strip * VEC, f->l + strip * ROWS * VEC, f->shrink);
  halves_weights(f->s, keys, w->p);

  const uint16_t *v = w->v + first * PANEL;
  float *o = f->o + strip * ROWS * t->dim_v;
  for (int64_t c = 0; c < t->dim_v; c += PANEL, v += t->keys * PANEL) {
    if (c + PANEL <= t->dim_v) halves_values(w->p, v, keys, f->shrink, o + c, t->dim_v, 2);
    else halves_values(w->p, v, keys, f->shrink, o + c, t->dim_v, 1);
  }
}

/* False, and nothing written, when a value of the item is none for these products. */
static bool run_halves(const job *j, const halves_scratch *w, const item *it) {
  const fa_attention_problem *p = &j->plan->problem;
  const tiling *t = &j->t;
  const scratch *f = &w->tiles;
  const int64_t strips = fa_ceil_div(it->rows, ROWS), kv_head = it->head / j->plan->group;
  const fa_cpu_tokens k = fa_cpu_tokens_of(j->plan, j->args, &j->args->k, 2, it->b, kv_head);
  const fa_cpu_tokens v = fa_cpu_tokens_of(j->plan, j->args, &j->args->v, 2, it->b, kv_head);

  uint16_t *to = w->q;
  for (int64_t n = 0; n < it->heads; n++) {
    const fa_cpu_rows q = fa_cpu_q_rows(j->plan, j->args, &j->args->q, it->b, it->head + n);
    for (int64_t r = 0; r < it->rows; r += ROWS, to += ROWS * fa_round_up(t->dim, DEPTH)) {
      const char *rows = q.data + (it->row + r) * q.stride;
      if (!halves_pack_q(rows, q.stride, fa_min(ROWS, it->rows - r), t->dim, to)) return false;
    }
  }
  for (int64_t n = 0; n < it->heads * strips * VEC; n++) f->m[n] = -INFINITY;
  memset(f->l, 0, (size_t)(it->heads * strips * ROWS * VEC) * sizeof(float));
  memset(f->o, 0, (size_t)(it->heads * strips * ROWS * t->dim_v) * sizeof(float));

  const fa_score_rules any = fa_score_rules_of(j->plan, j->args, it->b, it->head);
  const fa_key_range range = fa_band_keys(any.band, it->row, it->rows, any.seqlen_kv);
  for (int64_t block = range.begin / t->keys * t->keys; block < range.end; block += t->keys) {
    const int64_t begin = fa_max(block, range.begin / PANEL * PANEL),
                  end = fa_min(block + t->keys, range.end);
    if (!halves_pack_k(&k, begin, end, t->dim, w->k) ||
        !halves_pack_v(&v, begin, end, p->head_dim_v, t->keys, w->v))
      return false;
    for (int64_t n = 0; n < it->heads; n++) {
      const fa_score_rules rules = fa_score_rules_of(j->plan, j->args, it->b, it->head + n);
      for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t row = it->row + strip * ROWS, rows = fa_min(ROWS, it->row + it->rows - row);
        halves_strip(j, w, &rules, n * strips + strip, row, rows, begin, end);
      }
    }
  }
  finish_item(j, f, it);
  return true;
}

static void halves_body(void *shared, fa_cpu_work *work, int thread) {
  const job *j = shared;
  const bool quantised = j->plan->problem.kv_dtype != j->plan->problem.dtype;
  halves_scratch w;
  const size_t bytes = halves_cut(j->plan, &j->t, NULL, &w);
  halves_cut(j->plan, &j->t, j->workspace + (size_t)thread * bytes, &w);
  for (item it; next_item(j, work, &it);)
    if (quantised || !run_halves(j, &w, &it)) run_item(j, &w.tiles, &it);
}

static fa_status halves_prepare(fa_plan *plan) {
  const fa_status status = fa_check_request(plan, ITEM_STEP, most_item_rows(), PANEL, MOST_KEYS, 1);
  if (status != FA_OK) return status;
  const tiling t = tiling_of(plan);
  halves_scratch none;
  plan->tiles = (fa_tiles){t.rows, t.keys, ROWS, PANEL};
  plan->kv_splits = 1;
  plan->kernel_workspace_bytes = (size_t)plan->context->threads * halves_cut(plan, &t, NULL, &none);
  return FA_OK;
}

static fa_status halves_run(const fa_plan *plan, const fa_attention_args *args, void *workspace) {
  job j = {plan, args, workspace, tiling_of(plan)};
  fa_cpu_parallel(plan->context->threads, items_of(plan, &j.t), halves_body, &j);
  return FA_OK;
}

#endif
