/* Prefill attention of fp32, fp16 and bf16 on AMX's bf16 products with every head size: larger ones than prefill_bf16_amx and
 * prefill_terms_amx take. Every value is split exactly into bf16 terms: see split_amx.h.
 *
 *   s = rules(scale * q k^T),  p = exp(s - m),  l = sum p,  o = sum p v / l,  lse = m + ln l
 *
 * Level one: the work items and key blocks of prefill_tiles.h, whose packed terms of K and V stay in L2.
 *   Level two: a strip of 32 rows x a chunk of 128 keys, whose scores (18 KB) and weights' terms (24 KB for
 *   fp32) are L1's; 32 x 32 results at a time in tiles 0-3, two tiles of either operand in 4-7. The softmax
 *   runs along the keys in AVX-512.
 * Bound: arithmetic; 12 (fp32), 8 (fp16) or 2 (bf16) times S_q S_kv (D + D_v) operations on AMX. A strip that
 * sees a value that cannot be split (infinite, NaN, above 2^60; 32 keys' V all below 2^-70) is done by the FMA kernel
 * of prefill_tiles.h. Measured (one core of a Sapphire Rapids class Xeon at 2.1 GHz, 4 query heads, 1 KV head, S
 * 1024, D 128, best of short runs): 0.188 TFLOP/s in fp32, 0.246 in fp16, 0.425 in bf16; docs/performance.md,
 * "CPU prefill", says when less. */
#include "cpu/lanes_avx512.h"

enum { ROWS = 12, ITEM_STEP = 32 };

#include "cpu/prefill_tiles.h"
#include "cpu/split_amx.h"

typedef struct split_scratch {
  scratch fma; /* for strips that cannot be split */
  uint16_t *k, *v, *q, *p;
  float *o, *s, *m, *l, *shrink, *part;
  bool *bad; /* [strips], done without tiles */
} split_scratch;

typedef struct split_sizes {
  int64_t dim, dim_v; /* rounded up to 32 */
  int64_t strips;     /* of an item */
  int terms;
} split_sizes;

enum { SPLIT_STRIDE = CHUNK + VEC };

static split_sizes sizes_of(const fa_plan *plan, const tiling *t) {
  split_sizes z;
  z.dim = fa_round_up(plan->problem.head_dim_qk, 32);
  z.dim_v = fa_round_up(plan->problem.head_dim_v, 32);
  z.strips = t->heads * fa_ceil_div(t->rows, STRIP);
  z.terms = plan->problem.dtype == FA_FLOAT32 ? 3 : plan->problem.dtype == FA_FLOAT16 ? 2 : 1;
  return z;
}

/* Cuts one thread's memory (none when it is NULL) and returns its bytes. */
static size_t split_cut(const fa_plan *plan, const tiling *t, char *memory, split_scratch *w) {
  const split_sizes z = sizes_of(plan, t);
  const int64_t halves[4] = {t->keys * z.dim * z.terms, t->keys * z.dim_v * z.terms,
                             z.strips * STRIP * z.dim * z.terms, STRIP * CHUNK * z.terms};
  const int64_t floats[6] = {z.strips * STRIP * z.dim_v, STRIP * SPLIT_STRIDE, z.strips * STRIP,
                             z.strips * STRIP * VEC,     STRIP,                STRIP * STRIP};
  uint16_t **const half_pointers[4] = {&w->k, &w->v, &w->q, &w->p};
  float **const float_pointers[6] = {&w->o, &w->s, &w->m, &w->l, &w->shrink, &w->part};
  size_t at = scratch_cut(t, fa_prefill_rows_exact_bytes(plan), memory, &w->fma);
  for (int n = 0; n < 4; n++) {
    if (memory) *half_pointers[n] = (uint16_t *)(void *)(memory + at);
    at += (size_t)fa_round_up(halves[n] * 2, 64);
  }
  for (int n = 0; n < 6; n++) {
    if (memory) *float_pointers[n] = (float *)(void *)(memory + at);
    at += (size_t)fa_round_up(floats[n] * 4, 64);
  }
  if (memory) w->bad = (bool *)(memory + at);
  return at + (size_t)fa_round_up(z.strips, 64);
}

/* ----------------------------------------------------------------- packing */

/* bad[n]: a value of strip n cannot be split. */
static void split_q(const split_sizes *z, fa_cpu_rows q, int64_t row, int64_t rows, fa_dtype dtype, int64_t dim,
                    uint16_t *to, bool *bad) {
  for (int64_t r0 = 0; r0 < fa_round_up(rows, STRIP); r0 += 16) {
    const char *from[16];
    const int64_t count = fa_max(0, fa_min(16, rows - r0));
    for (int64_t r = 0; r < 16; r++) from[r] = r < count ? q.data + (row + r0 + r) * q.stride : NULL;
    uint16_t *tiles = to + r0 / STRIP * STRIP * z->dim * z->terms + r0 % STRIP / 16 * TILE;
    if (r0 % STRIP == 0) bad[r0 / STRIP] = false;
    if (!split_rows(from, count, dtype, dim, z->terms, false, tiles)) bad[r0 / STRIP] = true;
  }
}

/* Bit n: a value of keys 32 n to 32 n + 31 cannot be split. */
static uint32_t split_k(const split_sizes *z, const source *s, int64_t key, int64_t end, uint16_t *to) {
  uint32_t bad = 0;
  for (int64_t j = 0; j < fa_round_up(end - key, 32); j += 16) {
    const char *from[16];
    const int64_t count = fa_max(0, fa_min(16, end - key - j));
    for (int64_t r = 0; r < 16; r++) from[r] = r < count ? fa_cpu_token(&s->tokens, key + j + r) : NULL;
    uint16_t *tiles = to + j / 32 * 32 * z->dim * z->terms + j % 32 / 16 * TILE;
    bad |= (uint32_t)!split_rows(from, count, s->dtype, s->dim, z->terms, true, tiles) << j / 32;
  }
  return bad;
}

static uint32_t split_v(const split_sizes *z, const source *s, int64_t key, int64_t end, uint16_t *to) {
  const int64_t keys = end - key, step = 32 * z->dim_v * z->terms;
  uint32_t bad = 0;
  for (int64_t begin = 0; begin < keys; begin += 32) {
    split_range range = {vec_zero(), 0};
    for (int64_t j = begin; j < fa_min(begin + 32, keys); j += 2) {
      const char *odd = j + 1 < keys ? fa_cpu_token(&s->tokens, key + j + 1) : NULL;
      split_value_pair(fa_cpu_token(&s->tokens, key + j), odd, s->dtype, s->dim, z->terms, j % 32 / 2,
                       to + j / 32 * step, &range);
    }
    const float most = vec_top(range.most);
    bad |= (uint32_t)(range.large != 0 || (most != 0.0f && most < FA_SPLIT_LEAST)) << begin / 32;
  }
  for (int64_t j = fa_round_up(keys, 2); j < fa_round_up(keys, 32); j += 2)
    for (int64_t tile = 0; tile < step / TILE; tile++)
      memset(to + j / 32 * step + tile * TILE + j % 32 * 16, 0, 64);
  return bad;
}

/* ------------------------------------------------------------- a work item */

/* A strip against keys [first, last) of the packed block that starts at key `begin`: one chunk. */
FA_INLINE void strip_chunk(const job *j, const split_scratch *w, const split_sizes *z,
                           const fa_score_rules *rules, int64_t strip, int64_t row, int64_t rows,
                           int64_t begin, int64_t first, int64_t last, int terms) {
  const int64_t keys = last - first, key = begin + first;
  const int64_t q_step = terms * PAIR, v_step = 32 * z->dim_v * terms;
  const uint16_t *q = w->q + strip * STRIP * z->dim * terms;
  for (int64_t n = 0; n < keys; n += 32) {
    split_multiply(q, q_step, w->k + (first + n) * z->dim * terms, q_step, z->dim / 32, terms);
    split_store(w->s + n, SPLIT_STRIDE);
  }

  float factor = j->plan->problem.scale;
  const bool edge = fa_band_block(rules->band, row, rows, key, keys) != FA_BLOCK_FULL ||
                    key + keys > rules->seqlen_kv;
  if (rules->any) {
    const vec scale = vec_set(factor);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t n = 0; n < keys; n += VEC) {
        float *s = w->s + r * SPLIT_STRIDE + n;
        vec_store(s, vec_mul(vec_load(s), scale));
      }
    fa_score_rules_apply(rules, w->s, SPLIT_STRIDE, row, rows, key, fa_min(keys, rules->seqlen_kv - key));
    factor = 1.0f;
  }
  if (edge) {
    /* -inf times a factor that is not positive would not stay -inf. */
    if (factor <= 0.0f) {
      for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < keys; n++) w->s[r * SPLIT_STRIDE + n] *= factor;
      factor = 1.0f;
    }
    fa_score_band_apply(rules, w->s, SPLIT_STRIDE, row, rows, key, keys);
  }
  for (int half = 0; half < 2; half++) {
    const int64_t r = half * 16;
    split_softmax(w->s + r * SPLIT_STRIDE, SPLIT_STRIDE, keys, factor, terms, w->m + strip * STRIP + r,
                  w->l + (strip * STRIP + r) * VEC, w->shrink + r, w->p + half * TILE);
  }

  for (int64_t c = 0; c < z->dim_v; c += 32) {
    split_multiply(w->p, q_step, w->v + first / 32 * v_step + c * PAIR / 32 * terms, v_step, keys / 32,
                   terms);
    split_store(w->part, STRIP);
    float *o = w->o + strip * STRIP * z->dim_v + c;
    for (int64_t r = 0; r < STRIP; r++, o += z->dim_v) {
      const vec shrink = vec_set(w->shrink[r]);
      vec_store(o, vec_fma(vec_load(o), shrink, vec_load(w->part + r * STRIP)));
      vec_store(o + VEC, vec_fma(vec_load(o + VEC), shrink, vec_load(w->part + r * STRIP + VEC)));
    }
  }
}

/* bad_keys: as split_k's of the block. A strip is done without tiles for values that its own rows see, so that its bits depend
 * on neither the item nor the threads. */
static void strip_split(const job *j, const split_scratch *w, const split_sizes *z,
                        const fa_score_rules *rules, int64_t strip, int64_t row, int64_t rows, int64_t begin,
                        int64_t end, uint32_t bad_keys) {
  const fa_key_range kept = fa_band_keys(rules->band, row, rows, rules->seqlen_kv);
  const int64_t k0 = fa_max(kept.begin, begin), k1 = fa_min(kept.end, end);
  if (k0 >= k1) return;
  const int64_t stop = fa_round_up(k1 - begin, 32);
  for (int64_t n = (k0 - begin) / 32; n < stop / 32; n++) w->bad[strip] |= bad_keys >> n & 1u;
  if (w->bad[strip]) return;
  for (int64_t first = (k0 - begin) / 32 * 32; first < stop; first += CHUNK) {
    const int64_t last = fa_min(first + CHUNK, stop);
    if (z->terms == 3) strip_chunk(j, w, z, rules, strip, row, rows, begin, first, last, 3);
    else if (z->terms == 2) strip_chunk(j, w, z, rules, strip, row, rows, begin, first, last, 2);
    else strip_chunk(j, w, z, rules, strip, row, rows, begin, first, last, 1);
  }
}

static void run_split(const job *j, const split_scratch *w, const item *it) {
  const fa_attention_problem *p = &j->plan->problem;
  const tiling *t = &j->t;
  const split_sizes z = sizes_of(j->plan, t);
  const int64_t strips = fa_ceil_div(it->rows, STRIP), kv_head = it->head / j->plan->group,
                all = it->heads * strips;
  const source k =
      source_of(j->plan, j->args, &j->args->k, &j->args->k_scale, p->head_dim_qk, it->b, kv_head);
  const source v = source_of(j->plan, j->args, &j->args->v, &j->args->v_scale, p->head_dim_v, it->b, kv_head);

  for (int64_t n = 0; n < it->heads; n++) {
    const fa_cpu_rows q = fa_cpu_q_rows(j->plan, j->args, &j->args->q, it->b, it->head + n);
    split_q(&z, q, it->row, it->rows, p->dtype, p->head_dim_qk, w->q + n * strips * STRIP * z.dim * z.terms,
            w->bad + n * strips);
  }
  for (int64_t n = 0; n < all * STRIP; n++) w->m[n] = -INFINITY;
  memset(w->l, 0, (size_t)(all * STRIP * VEC) * sizeof(float));
  memset(w->o, 0, (size_t)(all * STRIP * z.dim_v) * sizeof(float));

  const fa_score_rules any = fa_score_rules_of(j->plan, j->args, it->b, it->head);
  const fa_key_range range = fa_band_keys(any.band, it->row, it->rows, any.seqlen_kv);
  for (int64_t block = range.begin / t->keys * t->keys; block < range.end; block += t->keys) {
    const int64_t begin = fa_max(block, range.begin / 32 * 32), end = fa_min(block + t->keys, range.end);
    const uint32_t bad_keys = split_k(&z, &k, begin, end, w->k) | split_v(&z, &v, begin, end, w->v);
    for (int64_t n = 0; n < it->heads; n++) {
      const fa_score_rules rules = fa_score_rules_of(j->plan, j->args, it->b, it->head + n);
      for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t row = it->row + strip * STRIP, rows = fa_min(STRIP, it->row + it->rows - row);
        strip_split(j, w, &z, &rules, n * strips + strip, row, rows, begin, end, bad_keys);
      }
    }
  }

  for (int64_t n = 0; n < it->heads; n++) {
    const int64_t h = it->head + n;
    const fa_cpu_rows o_rows = fa_cpu_q_rows(j->plan, j->args, &j->args->o, it->b, h);
    for (int64_t r = 0; r < it->rows; r++) {
      const int64_t at = n * strips * STRIP + r, i = it->row + r;
      if (w->bad[at / STRIP]) continue;
      if (!finish_row(j, w->o + at * z.dim_v, w->m[at], w->l + at * VEC, it->b, h, i, o_rows))
        fa_prefill_rows_exact(j->plan, j->args, it->b, h, i, 1, w->fma.exact);
    }
  }
  for (int64_t n = 0; n < all; n++) {
    const int64_t row = it->row + n % strips * STRIP;
    const item strip = {it->b, it->head + n / strips, 1, row, fa_min(STRIP, it->row + it->rows - row)};
    if (w->bad[n]) run_item(j, &w->fma, &strip);
  }
}

static void split_body(void *shared, fa_cpu_work *work, int thread) {
  const job *j = shared;
  split_scratch w;
  split_cut(j->plan, &j->t, NULL, &w);
  split_cut(j->plan, &j->t, j->workspace + (size_t)thread * split_cut(j->plan, &j->t, NULL, &w), &w);
  fa_tiles_configure();
  for (item it; next_item(j, work, &it);) run_split(j, &w, &it);
  fa_tiles_release();
}

/* ------------------------------------------------------------------ the kernel */

/* Key blocks of the terms' size, a multiple of CHUNK so that chunks never straddle two. */
static tiling split_tiling(const fa_plan *plan) {
  tiling t = tiling_of(plan);
  t.keys = fa_min(MOST_KEYS, fa_round_up(t.keys, CHUNK));
  return t;
}

fa_status fa_prefill_split_amx_prepare(fa_plan *plan) {
  if (fabsf(plan->problem.scale) > FA_SPLIT_LARGEST_SCALE)
    return fa_fail(FA_ERROR_UNSUPPORTED, "scale is %g; prefill_split_amx takes at most %g, other kernels any",
                   (double)plan->problem.scale, (double)FA_SPLIT_LARGEST_SCALE);
  const fa_status status = fa_check_request(plan, ITEM_STEP, most_item_rows(), CHUNK, MOST_KEYS, 1);
  if (status != FA_OK) return status;
  const tiling t = split_tiling(plan);
  split_scratch none;
  plan->tiles = (fa_tiles){t.rows, t.keys, STRIP, CHUNK};
  plan->kv_splits = 1;
  plan->kernel_workspace_bytes = (size_t)plan->context->threads * split_cut(plan, &t, NULL, &none);
  return FA_OK;
}

fa_status fa_prefill_split_amx_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                   fa_stream stream) {
  (void)stream;
  job j = {plan, args, workspace, split_tiling(plan)};
  fa_cpu_parallel(plan->context->threads, items_of(plan, &j.t), split_body, &j);
  return FA_OK;
}
