/* The two-level fp32 prefill that prefill_avx2.c and prefill_avx512.c compile for their instruction set.
 * Before it the including file includes its lanes_*.h and defines ROWS, the query rows of a register tile,
 * and ITEM_STEP, which the query rows of a work item are a multiple of.
 *
 *   s = rules(scale * q k^T),  p = exp(s - m),  l = sum p,  o = sum p v / l,  lse = m + ln l
 *
 * Level one: a work item is `heads` query heads of one KV head x `rows` query rows; it walks key blocks sized
 *   so that the block's K and V, converted to fp32 and packed once, stay in L2 while every head and row of
 *   the item uses them.
 * Level two: a strip of ROWS rows x PANEL keys (or values of D_v) in ROWS * 2 accumulators; lanes run along
 *   keys in Q K^T and along D_v in P V, so neither needs a horizontal sum. The strip's scores [ROWS, keys]
 *   stay in L1.
 *
 * Packed layouts: K [key panel][D][PANEL], V [D_v panel][keys][PANEL], Q [strip][D][ROWS], O
 * [strip][ROWS][D_v]. Key blocks start at multiples of the block size, so a row's bits depend neither on the
 * item it is in nor on the thread. Rows that come out not finite are left to fa_prefill_rows_exact. */
#ifndef FA_CPU_PREFILL_TILES_H
#define FA_CPU_PREFILL_TILES_H

#include "core/kernel_declarations.h"
#include "cpu/cpu.h"
#include "cpu/prefill_exact.h"
#include "cpu/prefill_pack.h"
#include "cpu/score_rules.h"

enum {
  MOST_KEYS = 512,                /* a strip's scores still leave L1 room for the stream of K and V */
  SCORE_STRIDE = MOST_KEYS + VEC, /* no multiple of 4 KB, so that the rows of a strip spread over L1's sets */
  ITEM_ROWS = 1024,               /* rows x heads of an item: packing then costs under 1 % of the products */
  LEAST_ITEM_ROWS = 8 * ROWS      /* smaller items only spend their time packing */
};

/* Rows that can be asked for: the most that an item takes by itself, too. */
static inline int64_t most_item_rows(void) { return fa_round_up(ITEM_ROWS, ITEM_STEP); }

/* Sizes fixed by the plan; what a thread needs, in floats, every part a multiple of 64 bytes. */
typedef struct tiling {
  int64_t dim, dim_v; /* dim_v rounded up to VEC */
  int64_t rows;       /* query rows of an item, a multiple of ITEM_STEP */
  int64_t heads;      /* query heads of an item */
  int64_t keys;       /* keys of a block, a multiple of PANEL */
  int64_t strips;     /* of an item: heads * ceil(rows / ROWS) */
} tiling;

typedef struct scratch {
  float *k, *v, *q, *o, *s, *m, *l, *shrink;
  void *exact;
} scratch;

static int64_t floats64(int64_t count) { return fa_round_up(count, 16); }

static int64_t items_of(const fa_plan *plan, const tiling *t) {
  const fa_attention_problem *p = &plan->problem;
  return p->batch * p->heads_kv * fa_ceil_div(plan->group, t->heads) * fa_ceil_div(p->max_seqlen_q, t->rows);
}

/* Items as large as packing likes, then halved (rows first, then heads) until every thread has a few. Rows that are
 * asked for stay, with the heads that fit beside them. */
static tiling tiling_of(const fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t wanted = 4 * plan->context->threads, cache = fa_cpu_cache_bytes(2);
  tiling t;
  t.dim = p->head_dim_qk;
  t.dim_v = fa_round_up(p->head_dim_v, VEC);
  const int64_t all_rows = fa_round_up(fa_max(1, p->max_seqlen_q), ITEM_STEP);
  const int64_t asked_rows = fa_min(plan->request.level1_rows, all_rows), asked_keys = plan->request.level1_keys;
  t.heads = fa_min(plan->group, fa_max(1, ITEM_ROWS / (asked_rows ? asked_rows : ITEM_STEP)));
  t.rows = asked_rows ? asked_rows : fa_min(all_rows, fa_round_up(ITEM_ROWS / t.heads, ITEM_STEP));
  while (!asked_rows && items_of(plan, &t) < wanted && t.rows > ITEM_STEP && t.rows * t.heads > LEAST_ITEM_ROWS)
    t.rows = fa_round_up(t.rows / 2, ITEM_STEP);
  while (items_of(plan, &t) < wanted && t.heads > 1 && t.rows * t.heads > LEAST_ITEM_ROWS)
    t.heads = (t.heads + 1) / 2;
  t.strips = t.heads * fa_ceil_div(t.rows, ROWS);
  /* Half of L2 for the packed block, the rest for what streams by. */
  const int64_t fit = (cache > 0 ? cache : 1 << 20) / 2 / ((t.dim + t.dim_v) * (int64_t)sizeof(float));
  t.keys = asked_keys ? asked_keys : fa_max(PANEL, fa_min(MOST_KEYS, fit) / PANEL * PANEL);
  return t;
}

/* Cuts one thread's memory into parts (none when memory is NULL) and returns its bytes. */
static size_t scratch_cut(const tiling *t, size_t exact_bytes, char *memory, scratch *parts) {
  const int64_t counts[8] = {t->keys * t->dim,
                             t->keys * fa_round_up(t->dim_v, PANEL),
                             t->strips * ROWS * t->dim + VEC, /* the last transposed store runs over */
                             t->strips * ROWS * t->dim_v,
                             ROWS * SCORE_STRIDE,
                             t->strips * VEC,
                             t->strips * ROWS * VEC,
                             VEC};
  float **const pointers[8] = {&parts->k, &parts->v, &parts->q, &parts->o,
                               &parts->s, &parts->m, &parts->l, &parts->shrink};
  int64_t at = 0;
  for (int n = 0; n < 8; n++) {
    if (memory) *pointers[n] = (float *)(void *)memory + at;
    at += floats64(counts[n]);
  }
  if (memory) parts->exact = memory + (size_t)at * sizeof(float);
  return (size_t)at * sizeof(float) + exact_bytes;
}

/* ----------------------------------------------------------------- packing */

static void pack_q(const tiling *t, const char *data, int64_t stride, int64_t rows, fa_dtype dtype,
                   float *to) {
  for (int64_t r0 = 0; r0 < rows; r0 += ROWS) {
    const char *from[VEC];
    const int64_t count = fa_min(ROWS, rows - r0);
    for (int64_t r = 0; r < VEC; r++) from[r] = r < count ? data + (r0 + r) * stride : NULL;
    /* Each column's store runs over into the next one's place, which is written after it. */
    pack_columns_any(from, count, dtype, t->dim, to + r0 * t->dim, ROWS);
  }
}

/* ---------------------------------------------------------- the register tile */

/* s[ROWS, PANEL] = scale * q k for one key panel. */
FA_INLINE void scores_panel(const float *restrict q, const float *restrict k, int64_t dim, float scale,
                            float *restrict s) {
  vec acc[ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = vec_zero();
  for (int64_t d = 0; d < dim; d++, q += ROWS, k += PANEL) {
    const vec k0 = vec_load(k), k1 = vec_load(k + VEC);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const vec x = vec_set(q[r]);
      acc[r][0] = vec_fma(x, k0, acc[r][0]);
      acc[r][1] = vec_fma(x, k1, acc[r][1]);
    }
  }
  const vec factor = vec_set(scale);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    vec_store(s + r * SCORE_STRIDE, vec_mul(acc[r][0], factor));
    vec_store(s + r * SCORE_STRIDE + VEC, vec_mul(acc[r][1], factor));
  }
}

/* o[ROWS, n * VEC] = shrink * o + p v for n (1 or 2) vectors of D_v over `keys` keys. */
FA_INLINE void values_panel(const float *restrict p, const float *restrict v, int64_t keys,
                            const float *shrink, float *restrict o, int64_t o_stride, int n) {
  vec acc[ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    const vec factor = vec_set(shrink[r]);
    acc[r][0] = vec_mul(vec_load(o + r * o_stride), factor);
    if (n == 2) acc[r][1] = vec_mul(vec_load(o + r * o_stride + VEC), factor);
  }
  for (int64_t j = 0; j < keys; j++, p++, v += PANEL) {
    const vec v0 = vec_load(v), v1 = n == 2 ? vec_load(v + VEC) : v0;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const vec x = vec_set(p[r * SCORE_STRIDE]);
      acc[r][0] = vec_fma(x, v0, acc[r][0]);
      if (n == 2) acc[r][1] = vec_fma(x, v1, acc[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    vec_store(o + r * o_stride, acc[r][0]);
    if (n == 2) vec_store(o + r * o_stride + VEC, acc[r][1]);
  }
}

/* Scores [ROWS, keys] to weights in place; m and l move on, shrink says by what earlier sums are multiplied.
 */
static void softmax_strip(float *s, int64_t keys, float *m, float *l, float *shrink) {
  float top[VEC];
  for (int r = 0; r < VEC; r++) top[r] = m[r];
  for (int r = 0; r < ROWS; r++) {
    const float *row = s + r * SCORE_STRIDE;
    vec x = vec_load(row), y = vec_load(row + VEC);
    for (int64_t j = PANEL; j < keys; j += PANEL) {
      x = vec_max(x, vec_load(row + j));
      y = vec_max(y, vec_load(row + j + VEC));
    }
    const float row_top = vec_top(vec_max(x, y));
    if (row_top > top[r]) top[r] = row_top;
  }
  float reference[VEC];
  for (int n = 0; n < VEC; n += VEC) {
    const vec next = vec_load(top + n), from = vec_reference(next);
    vec_store(reference + n, from);
    vec_store(shrink + n, vec_exp(vec_sub(vec_load(m + n), from)));
    vec_store(m + n, next);
  }
  for (int r = 0; r < ROWS; r++) {
    float *row = s + r * SCORE_STRIDE;
    const vec from = vec_set(reference[r]);
    vec x = vec_zero(), y = vec_zero();
    for (int64_t j = 0; j < keys; j += PANEL) {
      const vec a = vec_exp(vec_sub(vec_load(row + j), from));
      const vec b = vec_exp(vec_sub(vec_load(row + j + VEC), from));
      vec_store(row + j, a);
      vec_store(row + j + VEC, b);
      x = vec_add(x, a);
      y = vec_add(y, b);
    }
    vec_store(l + r * VEC, vec_fma(vec_load(l + r * VEC), vec_set(shrink[r]), vec_add(x, y)));
  }
}

/* ------------------------------------------------------------- a work item */

typedef struct job {
  const fa_plan *plan;
  const fa_attention_args *args;
  char *workspace;
  tiling t;
} job;

/* What an item is about: rows [row, row + rows) of query heads [head, head + heads) of one KV head. */
typedef struct item {
  int64_t b, head, heads, row, rows;
} item;

/* A strip against the packed keys [begin, end); `strip` counts within the item. */
static void strip_block(const job *j, const scratch *w, const fa_score_rules *rules, int64_t strip,
                        int64_t row, int64_t rows, int64_t begin, int64_t end) {
  const tiling *t = &j->t;
  const fa_key_range kept = fa_band_keys(rules->band, row, rows, rules->seqlen_kv);
  const int64_t k0 = fa_max(kept.begin, begin), k1 = fa_min(kept.end, end);
  if (k0 >= k1) return;
  const int64_t first = (k0 - begin) / PANEL * PANEL, last = fa_round_up(k1 - begin, PANEL);
  const int64_t key = begin + first, keys = last - first;

  for (int64_t n = 0; n < keys; n += PANEL)
    scores_panel(w->q + strip * ROWS * t->dim, w->k + (first + n) * t->dim, t->dim, j->plan->problem.scale,
                 w->s + n);
  fa_score_rules_apply(rules, w->s, SCORE_STRIDE, row, rows, key, k1 - key);
  if (fa_band_block(rules->band, row, rows, key, keys) != FA_BLOCK_FULL || key + keys > rules->seqlen_kv)
    fa_score_band_apply(rules, w->s, SCORE_STRIDE, row, rows, key, keys);
  softmax_strip(w->s, keys, w->m + strip * VEC, w->l + strip * ROWS * VEC, w->shrink);

  const float *p = w->s + (k0 - key), *v = w->v + (k0 - begin) * PANEL;
  float *o = w->o + strip * ROWS * t->dim_v;
  for (int64_t c = 0; c < t->dim_v; c += PANEL, v += t->keys * PANEL) {
    if (c + PANEL <= t->dim_v) values_panel(p, v, k1 - k0, w->shrink, o + c, t->dim_v, 2);
    else values_panel(p, v, k1 - k0, w->shrink, o + c, t->dim_v, 1);
  }
}

/* A finished row (its o, m and the lanes of its l) to row i of o and lse; false, and nothing written, when it
 * is not finite. */
static bool finish_row(const job *j, const float *o, float m, const float *lanes, int64_t b, int64_t h,
                       int64_t i, fa_cpu_rows o_rows) {
  const fa_attention_problem *p = &j->plan->problem;
  float l = vec_sum(vec_load(lanes)), shrink = 1.0f;
  if (p->has_sinks) {
    const float sink = j->args->sinks[h], top = sink > m ? sink : m;
    const float reference = top == -INFINITY ? 0.0f : top;
    shrink = fa_exp_lane(m - reference);
    l = l * shrink + fa_exp_lane(sink - reference);
    m = top;
  }
  const vec factor = vec_set(l == 0.0f ? 0.0f : shrink / l);
  vec test = vec_mul(vec_set(l), vec_zero()); /* 0 unless something is infinite or NaN */
  for (int64_t d = 0; d < p->head_dim_v; d += VEC) test = vec_fma(vec_load(o + d), vec_zero(), test);
  if (vec_sum(test) != 0.0f) return false;

  char *to = o_rows.data + i * o_rows.stride;
  const int64_t size = (int64_t)fa_dtype_size(p->dtype);
  for (int64_t d = 0; d < p->head_dim_v; d += VEC)
    vec_store_row(to + d * size, p->dtype, p->head_dim_v - d, vec_mul(vec_load(o + d), factor));
  if (p->has_lse) fa_cpu_lse_row(j->plan, j->args, b, h)[i] = l == 0.0f ? -INFINITY : m + logf(l);
  return true;
}

static void finish_item(const job *j, const scratch *w, const item *it) {
  const int64_t strips = fa_ceil_div(it->rows, ROWS);
  for (int64_t n = 0; n < it->heads; n++) {
    const int64_t h = it->head + n;
    const fa_cpu_rows o_rows = fa_cpu_q_rows(j->plan, j->args, &j->args->o, it->b, h);
    for (int64_t r = 0; r < it->rows; r++) {
      const int64_t i = it->row + r, strip = n * strips + r / ROWS, at = strip * ROWS + r % ROWS;
      if (!finish_row(j, w->o + at * j->t.dim_v, w->m[strip * VEC + r % ROWS], w->l + at * VEC, it->b, h, i,
                      o_rows))
        fa_prefill_rows_exact(j->plan, j->args, it->b, h, i, 1, w->exact);
    }
  }
}

static void run_item(const job *j, const scratch *w, const item *it) {
  const fa_attention_problem *p = &j->plan->problem;
  const tiling *t = &j->t;
  const int64_t strips = fa_ceil_div(it->rows, ROWS), kv_head = it->head / j->plan->group;
  const source k =
      source_of(j->plan, j->args, &j->args->k, &j->args->k_scale, p->head_dim_qk, it->b, kv_head);
  const source v = source_of(j->plan, j->args, &j->args->v, &j->args->v_scale, p->head_dim_v, it->b, kv_head);

  for (int64_t n = 0; n < it->heads; n++) {
    const fa_cpu_rows q = fa_cpu_q_rows(j->plan, j->args, &j->args->q, it->b, it->head + n);
    pack_q(t, q.data + it->row * q.stride, q.stride, it->rows, p->dtype, w->q + n * strips * ROWS * t->dim);
  }
  for (int64_t n = 0; n < it->heads * strips * VEC; n++) w->m[n] = -INFINITY;
  memset(w->l, 0, (size_t)(it->heads * strips * ROWS * VEC) * sizeof(float));
  memset(w->o, 0, (size_t)(it->heads * strips * ROWS * t->dim_v) * sizeof(float));

  const fa_score_rules any = fa_score_rules_of(j->plan, j->args, it->b, it->head);
  const fa_key_range range = fa_band_keys(any.band, it->row, it->rows, any.seqlen_kv);
  for (int64_t block = range.begin / t->keys * t->keys; block < range.end; block += t->keys) {
    const int64_t begin = fa_max(block, range.begin / PANEL * PANEL),
                  end = fa_min(block + t->keys, range.end);
    pack_k(&k, begin, end, w->k);
    pack_v(&v, begin, end, t->keys, w->v);
    for (int64_t n = 0; n < it->heads; n++) {
      const fa_score_rules rules = fa_score_rules_of(j->plan, j->args, it->b, it->head + n);
      for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t row = it->row + strip * ROWS, rows = fa_min(ROWS, it->row + it->rows - row);
        strip_block(j, w, &rules, n * strips + strip, row, rows, begin, end);
      }
    }
  }
  finish_item(j, w, it);
}

/* The next item that has rows; false when there is none left. */
static inline bool next_item(const job *j, fa_cpu_work *work, item *it) {
  const fa_attention_problem *p = &j->plan->problem;
  const int64_t parts = fa_ceil_div(j->plan->group, j->t.heads), heads = p->batch * p->heads_kv * parts;
  for (int64_t n = fa_cpu_take(work); n >= 0; n = fa_cpu_take(work)) {
    /* The last rows first: under a causal mask they are the longest. */
    const int64_t part = n % parts, kv_head = n / parts % p->heads_kv;
    it->row = (work->items - 1 - n) / heads * j->t.rows;
    it->b = n / (parts * p->heads_kv) % p->batch;
    it->head = kv_head * j->plan->group + part * j->t.heads;
    it->heads = fa_min(j->t.heads, j->plan->group - part * j->t.heads);
    it->rows = fa_min(j->t.rows, fa_cpu_seqlen_q(j->plan, j->args, it->b) - it->row);
    if (it->rows > 0) return true;
  }
  return false;
}

#endif
