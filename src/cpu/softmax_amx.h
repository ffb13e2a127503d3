/* The softmax of the AMX attention pipeline (pipeline_amx.h), a row of 2 keys x 16 queries at a time, and the state it works on.
 *
 * Softmax reference: an integer power of two per query, raised to the maximum only when 32 P sum to more than 2^10. Raising
 * is exact (powers of two), lifts the reference by 2^5 or more and so happens a few times a row at most, and P, sums and O
 * carry it: O through `pending`, applied before its next use.
 *
 * Score rules (rules_amx.h) are applied to a round's scores before any of its rows. */
#ifndef FA_CPU_SOFTMAX_AMX_H
#define FA_CPU_SOFTMAX_AMX_H

#include <math.h>
#include <stdbool.h>

#include "cpu/cpu.h"
#include "cpu/rules_amx.h"
#include "cpu/tiles_amx.h"

#define FA_SUB_ROWS 32
#define FA_CHUNK_KEYS 32

typedef struct fa_amx_shape {
  int qk_steps;     /* ceil(head_dim_qk / 32): products along d for one S^T tile */
  int units;        /* ceil(head_dim_v / 32): pairs of d tiles of O^T */
  int rounds;       /* of a key block; divides units */
  int round_chunks; /* chunks of keys a round scores; chunks = rounds * round_chunks */
  int terms;        /* bf16 terms a value is the sum of: 1 for bf16, 2 for fp16, 3 for fp32 */
  int wants_lse;
} fa_amx_shape;

/* One sub-block of 32 queries (two groups of 16 lanes) of one head. */
typedef struct fa_amx_sub {
  int64_t row;  /* first query */
  int64_t head; /* query head */
  bool splits;  /* every value of Q into terms; otherwise Q's tiles are zeros and the rows are done elsewhere */
  fa_score_rules rules; /* of the head; set where a problem has any */
} fa_amx_sub;

/* A key block for one sub-block, in the order they are worked on. */
typedef struct fa_amx_block {
  int32_t sub;
  int32_t edge;   /* 1: an edge of the band or the end of the keys runs through it */
  int64_t key;    /* first key */
  int64_t packed; /* bytes before its K and V in the packed ones */
} fa_amx_block;

typedef struct fa_amx_pipeline {
  float *scores[2];  /* ring of two rounds: [round_chunks][2 query tiles][2 key tiles][16 x 16] */
  char *p[2];        /* ring of two key blocks: [chunks][terms][2 query tiles] B tiles */
  const char *q;     /* [subs][qk_steps][terms][2 query tiles] B tiles */
  const char *kv;    /* a key block: K [chunks][qk_steps][terms][2 key tiles], V [units][chunks][terms][2 d tiles]: A tiles of K
                        and V^T; then, if there are any, scales of K [keys] */
  float *o;          /* [subs][units][2 query tiles][2 d tiles][16 x 16] */
  float *reference;  /* [subs][32], log2 */
  float *limit;      /* [subs][32], of the sum of 32 P before the reference must be looked at; below 0: no key yet */
  float *sum;        /* [subs][32], of P as rounded to its terms: o is then a weighted mean whatever the rounding */
  float *exact_sum;  /* [subs][32], of P before rounding, for lse; with several terms sum is that */
  float *pending;    /* [32] factors O of the current sub-block still lacks */
  int has_pending;
  float *unstored;   /* where the accumulators in the tiles belong */
  float *discard;    /* four tiles: where they go if they belong nowhere */
  float *part;       /* four tiles: a key block's share of O, fp32 only */
  float *part_of;    /* the O it is added to; NULL: none */
  const char *ahead;     /* packed K and V that L2 will want next, asked for a few lines at each phase */
  int64_t ahead_lines;   /* of it, still to ask for */
  int64_t phase_lines;   /* at each phase */
  int64_t seqlen_q, seqlen_kv;
  fa_band band;
  const fa_amx_sub *subs;
  int has_rules;     /* softcap, ALiBi, bias, mask or key scales */
  int64_t key_scales; /* bytes before the scales of K in a key block; 0: none */
  float rule_scale;  /* scale, positive: the rules apply it, and the softmax's is 1 then */
  __m512 scale;      /* the softmax's scale * log2(e), positive, to fp32 */
  __m512 scale_rest; /* and what that leaves out */
} fa_amx_pipeline;

#define FA_NO_KEY_YET (-1.0f)
#define FA_SUM_LIMIT 0x1p10f /* 32 P that sum to more raise the reference: one of them is above 2^5 */
#define FA_RAISE_LOG2 4.9f   /* and so its score this far above the reference, rounding allowed for: every look raises */

/* What every row of a softmax needs, in registers. Compilers would rather make constants anew beside each row than keep
 * them, and a broadcast from a general register takes the port that tile products stand on: hence the empty assembly. */
typedef struct fa_amx_constants {
  __m512 scale, scale_rest;
  __m512 c0, c1, c2, c3, c4, c5, c6; /* coefficients of 2^t on [0, 1); no array, which compilers would keep in memory */
  __m512i upper;   /* the upper half of 32 bits, where bf16 is in fp32 */
  __m512i half;    /* half a step of bf16 */
} fa_amx_constants;

/* Half a step of bf16 on [1, 2). */
#define FA_BF16_HALF_STEP 0x1p-8f

/* Relative errors of 2^t: 1e-4 for bf16 (a twentieth of a step; lse is as good as that, absolutely), 3e-6 for fp16 (a
 * hundredth), 1e-7 for fp32. */
FA_AMX_INLINE fa_amx_constants fa_amx_constants_of(const fa_amx_pipeline *w, int terms, int wants_lse) {
  static const float power[3][7] = {
      {9.99893e-1f, 6.96606e-1f, 2.24338e-1f, 7.9204e-2f},
      {1.0000026f, 0.69300383f, 0.24144276f, 0.052011461f, 0.013534168f},
      {1.0f, 6.931470444e-1f, 2.402293056e-1f, 5.548528062e-2f, 9.675451567e-3f, 1.246784644e-3f, 2.161291496e-4f}};
  const float *of = power[terms - 1], rounds = terms == 1 && !wants_lse ? FA_BF16_HALF_STEP : 0.0f;
  fa_amx_constants c = {.scale = w->scale,
                        .scale_rest = w->scale_rest,
                        .c0 = _mm512_set1_ps(of[0] + rounds),
                        .c1 = _mm512_set1_ps(of[1]),
                        .c2 = _mm512_set1_ps(of[2]),
                        .c3 = _mm512_set1_ps(of[3]),
                        .c4 = _mm512_set1_ps(of[4]),
                        .c5 = _mm512_set1_ps(of[5]),
                        .c6 = _mm512_set1_ps(of[6]),
                        .upper = _mm512_set1_epi32((int)0xffff0000),
                        .half = _mm512_set1_epi32(0x8000)};
  __asm__("" : "+v"(c.scale), "+v"(c.c0), "+v"(c.c1), "+v"(c.c2), "+v"(c.c3), "+v"(c.upper));
  if (wants_lse && terms == 1) __asm__("" : "+v"(c.half));
  if (terms > 1) __asm__("" : "+v"(c.c4));
  if (terms > 2) __asm__("" : "+v"(c.c5), "+v"(c.c6), "+v"(c.scale_rest));
  return c;
}

/* 2^(s * scale - reference) of 16 scores by a polynomial on [0, 1) and an exponent. */
FA_AMX_INLINE __m512 fa_amx_power(const fa_amx_constants *c, const float *scores, __m512 reference, int terms) {
  const __m512 s = _mm512_load_ps(scores);
  __m512 t = _mm512_fmsub_ps(s, c->scale, reference);
  if (terms == 3) t = _mm512_fmadd_ps(s, c->scale_rest, t);
  const __m512 fraction = _mm512_reduce_ps(t, 1);
  __m512 p = c->c3;
  if (terms == 2) p = _mm512_fmadd_ps(c->c4, fraction, p);
  if (terms == 3) p = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c->c6, fraction, c->c5), fraction, c->c4), fraction, p);
  p = _mm512_fmadd_ps(p, fraction, c->c2);
  p = _mm512_fmadd_ps(p, fraction, c->c1);
  p = _mm512_fmadd_ps(p, fraction, c->c0);
  return _mm512_scalef_ps(p, t);
}

/* P of 2 keys x 16 queries into one row of a B tile a term, (even key, odd key) in pairs; adds to the sums of P as rounded
 * and before rounding. One term: bits are cut off behind half a step added, which rounds: to the polynomial's constant, its
 * value being in [1, 2), or where the sum before rounding is wanted, to the bits. Several: each takes the upper bits of what
 * is left, so that three are P itself and two are P to 2^-16. Shifts and logic only: the instructions that convert and
 * interleave bf16 take the tile products' port as well. */
FA_AMX_INLINE void fa_amx_exponentials(const fa_amx_constants *c, const float *scores, __m512 reference, char *row,
                                       int terms, int wants_lse, __m512 *sum, __m512 *exact) {
  __m512 p_even = fa_amx_power(c, scores, reference, terms), p_odd = fa_amx_power(c, scores + 16, reference, terms);
  __m512i even = _mm512_castps_si512(p_even), odd = _mm512_castps_si512(p_odd);
  if (terms == 1) {
    if (wants_lse) {
      *exact = _mm512_add_ps(*exact, _mm512_add_ps(p_even, p_odd));
      even = _mm512_add_epi32(even, c->half);
      odd = _mm512_add_epi32(odd, c->half);
    }
    odd = _mm512_and_si512(odd, c->upper);
    const __m512i both = _mm512_or_si512(_mm512_srli_epi32(even, 16), odd);
    _mm512_store_si512(row, both);
    even = _mm512_slli_epi32(both, 16);
    *sum = _mm512_add_ps(*sum, _mm512_add_ps(_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)));
    return;
  }
  *sum = _mm512_add_ps(*sum, _mm512_add_ps(p_even, p_odd));
#pragma GCC unroll 3
  for (int term = 0; term < terms; ++term) {
    even = _mm512_castps_si512(p_even);
    odd = _mm512_and_si512(_mm512_castps_si512(p_odd), c->upper);
    _mm512_store_si512(row + term * 2 * FA_TILE_BYTES, _mm512_or_si512(_mm512_srli_epi32(even, 16), odd));
    p_even = _mm512_sub_ps(p_even, _mm512_castsi512_ps(_mm512_and_si512(even, c->upper)));
    p_odd = _mm512_sub_ps(p_odd, _mm512_castsi512_ps(odd));
  }
}

/* A rare path: 32 keys have a large sum or are the first of a lane.
 * Raises the reference of the lanes where that happened, and everything that hangs on it: the sums, this block's P so far
 * (`chunk` chunks of `p`) and, later, O. Then makes P of the 32 keys and its sums again.
 * scores: those of the 32 keys x 16 queries, two tiles. */
FA_AMX_INLINE __m512 fa_amx_raise(fa_amx_pipeline *w, int32_t sub, int query_tile, char *p, int pairs,
                                  const float *scores) {
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  const __m512 limit = _mm512_load_ps(w->limit + lane);
  const __m512 old = _mm512_load_ps(w->reference + lane);
  __m512 maximum = _mm512_load_ps(scores);
  for (int i = 1; i < FA_CHUNK_KEYS; ++i) maximum = _mm512_max_ps(maximum, _mm512_load_ps(scores + i * 16));
  maximum = _mm512_mul_ps(maximum, w->scale);
  const __mmask16 no_key_yet = _mm512_cmp_ps_mask(limit, _mm512_setzero_ps(), _CMP_LT_OQ);
  const __mmask16 first = no_key_yet & _mm512_cmp_ps_mask(maximum, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
  const __mmask16 above = (__mmask16)~no_key_yet &
                          _mm512_cmp_ps_mask(maximum, _mm512_add_ps(old, _mm512_set1_ps(FA_RAISE_LOG2)), _CMP_GT_OQ);
  const __mmask16 up = first | above;
  if (!up) return old;
  const __m512 raised = _mm512_mask_roundscale_ps(old, up, maximum, _MM_FROUND_TO_POS_INF);
  __m512 factor = _mm512_mask_scalef_ps(_mm512_set1_ps(1.0f), up, _mm512_set1_ps(1.0f), _mm512_sub_ps(old, raised));
  factor = _mm512_mask_mov_ps(factor, first, _mm512_setzero_ps()); /* nothing to keep yet */
  _mm512_store_ps(w->reference + lane, raised);
  _mm512_mask_store_ps(w->limit + lane, up, _mm512_set1_ps(FA_SUM_LIMIT));
  _mm512_store_ps(w->sum + lane, _mm512_mul_ps(factor, _mm512_load_ps(w->sum + lane)));
  _mm512_store_ps(w->exact_sum + lane, _mm512_mul_ps(factor, _mm512_load_ps(w->exact_sum + lane)));
  float *pending = w->pending + query_tile * 16;
  _mm512_store_ps(pending, _mm512_mul_ps(factor, _mm512_load_ps(pending)));
  w->has_pending = 1;
  const __m512i odd = _mm512_set1_epi32((int)0xffff0000);
  for (int r = 0; r < pairs; ++r) { /* whatever the term: powers of two */
    char *row = p + (r / 16 * 2 + query_tile) * FA_TILE_BYTES + r % 16 * 64;
    const __m512i both = _mm512_load_si512(row);
    const __m512 even_key = _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)));
    const __m512 odd_key = _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_and_si512(both, odd)));
    _mm512_store_si512(row, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even_key), 16),
                                            _mm512_and_si512(_mm512_castps_si512(odd_key), odd)));
  }
  return raised;
}

#define FA_AMX_REDO(terms, wants_lse)                                                                                   \
  static __attribute__((noinline)) void fa_amx_redo_##terms##_##wants_lse(                                              \
      fa_amx_pipeline *w, int32_t sub, int query_tile, char *p, int chunk, const float *scores, __m512 sums[2]) {       \
    const fa_amx_constants constants = fa_amx_constants_of(w, terms, wants_lse);                                        \
    const __m512 reference = fa_amx_raise(w, sub, query_tile, p, chunk * (terms)*16, scores);                           \
    char *row = p + (chunk * (terms)*2 + query_tile) * FA_TILE_BYTES;                                                   \
    sums[0] = sums[1] = _mm512_setzero_ps();                                                                            \
    _Pragma("GCC unroll 1") for (int r = 0; r < 16; ++r)                                                                \
        fa_amx_exponentials(&constants, scores + r * 32, reference, row + r * 64, terms, wants_lse, &sums[0], &sums[1]); \
  }
FA_AMX_REDO(1, 0)
FA_AMX_REDO(1, 1)
FA_AMX_REDO(2, 0)
FA_AMX_REDO(3, 0)

static __attribute__((noinline)) void fa_amx_apply_pending(fa_amx_pipeline *w, int32_t sub, int units) {
  float *o = w->o + (int64_t)sub * units * 4 * FA_TILE_FLOATS;
  for (int tile = 0; tile < 4 * units; ++tile) {
    const __m512 factor = _mm512_load_ps(w->pending + tile / 2 % 2 * 16);
    for (int r = 0; r < 16; ++r) {
      float *row = o + tile * FA_TILE_FLOATS + r * 16;
      _mm512_store_ps(row, _mm512_mul_ps(factor, _mm512_load_ps(row)));
    }
  }
  for (int i = 0; i < FA_SUB_ROWS; ++i) w->pending[i] = 1.0f;
  w->has_pending = 0;
}

/* The window of the tiling-mask for a tile of 16 keys x 16 queries: key j keeps queries j - upper .. j - lower. */
static __attribute__((noinline)) void fa_amx_mask(const fa_amx_pipeline *w, float *scores, int64_t key, int64_t row) {
  const int64_t first = key - w->band.upper - row, last = key - w->band.lower - row; /* lanes that the first key keeps */
  if (first <= -15 && last >= 15 && key + 16 <= w->seqlen_kv) return;
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 nothing = _mm512_set1_ps(-INFINITY);
  /* Beyond a tile's reach, how far does not matter. */
  const int from = (int)fa_max(-32, fa_min(first, 32)), to = (int)fa_max(-32, fa_min(last, 32));
  for (int i = 0; i < 16; ++i) {
    const __mmask16 keep = key + i < w->seqlen_kv ? _mm512_cmpge_epi32_mask(lanes, _mm512_set1_epi32(from + i)) &
                                                        _mm512_cmple_epi32_mask(lanes, _mm512_set1_epi32(to + i))
                                                  : 0;
    _mm512_store_ps(scores + i * 16, _mm512_mask_mov_ps(nothing, keep, _mm512_load_ps(scores + i * 16)));
  }
}

/* The score rules on a round's scores, chunks [first_chunk, first_chunk + chunks) of `block`. */
static __attribute__((noinline)) void fa_amx_rules(const fa_amx_pipeline *w, const fa_amx_block *block, int first_chunk,
                                                   int chunks) {
  const fa_amx_sub *sub = &w->subs[block->sub];
  const float *key_scales = w->key_scales ? (const float *)(const void *)(w->kv + block->packed + w->key_scales) : NULL;
  float *scores = w->scores[1];
  for (int n = 0; n < 2 * chunks; ++n, scores += 2 * FA_TILE_FLOATS) {
    const int64_t before = (first_chunk + n / 2) * FA_CHUNK_KEYS, key = block->key + before, row = sub->row + n % 2 * 16;
    fa_amx_apply_rules(&sub->rules, w->rule_scale, key_scales ? key_scales + before : NULL, scores, row,
                       fa_min(16, w->seqlen_q - row), key, fa_min(FA_CHUNK_KEYS, w->seqlen_kv - key));
  }
}

/* The softmax of the chunks a round has scored: rows of 2 keys x 16 queries, spread over the products of the next round. Scores
 * lie in the order of the rows. */
typedef struct fa_amx_softmax {
  const fa_amx_block *block; /* NULL: nothing to do */
  float *scores;
  char *p; /* of the key block: [chunks][terms][2 query tiles] */
  int first_chunk;
  int rows;     /* 32 a chunk */
  int products;
  int row;      /* the next, with several terms */
  int due;      /* rows due behind a product, times products; with several terms */
  int terms, wants_lse;
  fa_amx_constants constants;
  __m512 reference;  /* of the 32 keys in work */
  __m512 sum, exact; /* of their P as rounded, and before rounding */
} fa_amx_softmax;

/* Row i. Sixteen (a chunk's keys for 16 queries) share their bookkeeping. */
FA_AMX_INLINE void fa_amx_softmax_row(fa_amx_pipeline *w, fa_amx_softmax *at, int i) {
  const int chunk = at->first_chunk + (i >> 5), query_tile = i >> 4 & 1;
  const int32_t sub = at->block->sub;
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  float *scores = at->scores + i * 32;
  char *row = at->p + (chunk * at->terms * 2 + query_tile) * FA_TILE_BYTES + (i & 15) * 64;
  if ((i & 15) == 0) {
    if (__builtin_expect(at->block->edge, 0))
      for (int tile = 0; tile < 2; ++tile)
        fa_amx_mask(w, scores + tile * FA_TILE_FLOATS, at->block->key + chunk * FA_CHUNK_KEYS + tile * 16,
                    w->subs[sub].row + query_tile * 16);
    at->reference = _mm512_load_ps(w->reference + lane);
    at->sum = at->exact = _mm512_setzero_ps();
  }
  fa_amx_exponentials(&at->constants, scores, at->reference, row, at->terms, at->wants_lse, &at->sum, &at->exact);
  if ((i & 15) != 15) return;
  if (__builtin_expect(_mm512_cmp_ps_mask(at->sum, _mm512_load_ps(w->limit + lane), _CMP_GT_OQ), 0)) {
    const float *first = scores - 15 * 32;
    __m512 sums[2];
    if (at->terms == 3) fa_amx_redo_3_0(w, sub, query_tile, at->p, chunk, first, sums);
    else if (at->terms == 2) fa_amx_redo_2_0(w, sub, query_tile, at->p, chunk, first, sums);
    else if (at->wants_lse) fa_amx_redo_1_1(w, sub, query_tile, at->p, chunk, first, sums);
    else fa_amx_redo_1_0(w, sub, query_tile, at->p, chunk, first, sums);
    at->sum = sums[0];
    at->exact = sums[1];
  }
  _mm512_store_ps(w->sum + lane, _mm512_add_ps(at->sum, _mm512_load_ps(w->sum + lane)));
  if (at->wants_lse && at->terms == 1)
    _mm512_store_ps(w->exact_sum + lane, _mm512_add_ps(at->exact, _mm512_load_ps(w->exact_sum + lane)));
}

#endif
