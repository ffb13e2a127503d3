/* The AMX attention pipeline: tile products of one key block interleaved with the softmax of another.
 *
 * Everything is transposed, so that a query is a lane and no reduction runs across lanes:
 *     S^T[keys x queries] = K Q^T        softmax down the rows        O^T[d x queries] += V^T P^T
 * P^T leaves the softmax in B-operand layout after one permute; O^T stays in fp32 tiles until the end.
 *
 * Level two: a sub-block of 32 queries times a key block of 32 * `chunks` keys, in 2 x 2 tiles; a chunk is 32 keys.
 * Work goes in rounds, `units` of them a key block. Round t, one after another:
 *     S^T of the chunks of unit t                       |  first part of the softmax of unit t - 1
 *     O^T of one pair of d tiles, unit t - `units` - 1  |  the rest of it
 * with the softmax cut into rows of 2 keys x 16 queries, spread evenly behind the single tile products, so that the
 * tile unit and the vector units work at once: longer runs of vector work fill the scheduler, and the next product
 * does not get in. Scores are a round old when they are read: a load behind the tile store it depends on waits for the
 * store to leave the core.
 *
 * Softmax reference: an integer power of two per query, raised to the maximum only when 8 P sum to more than 2^8. Raising
 * is exact (powers of two), lifts the reference by 2^5 or more and so happens a few times a row at most, and P, sums and O
 * carry it: O through `pending`, applied before its next use. */
#ifndef FA_CPU_PIPELINE_AMX_H
#define FA_CPU_PIPELINE_AMX_H

#include <math.h>

#include "cpu/cpu.h"
#include "cpu/tiles_amx.h"

#define FA_SUB_ROWS 32
#define FA_CHUNK_KEYS 32

typedef struct fa_amx_shape {
  int qk_steps;    /* ceil(head_dim_qk / 32): products along d for one S^T tile */
  int units;       /* ceil(head_dim_v / 32): pairs of d tiles of O^T */
  int unit_chunks; /* chunks of keys a unit scores; chunks = units * unit_chunks */
} fa_amx_shape;

/* One sub-block of 32 queries (two groups of 16 lanes) of one head. */
typedef struct fa_amx_sub {
  int64_t row;  /* first query */
  int64_t head; /* query head */
} fa_amx_sub;

/* A key block for one sub-block, in the order they are worked on. */
typedef struct fa_amx_block {
  int32_t sub;
  int32_t edge;   /* 1: an edge of the band or the end of the keys runs through it */
  int64_t key;    /* first key */
  int64_t packed; /* first key counted from the start of the packed keys */
} fa_amx_block;

typedef struct fa_amx_pipeline {
  float *scores[2];  /* ring of two units: [unit_chunks][2 key tiles][2 query tiles][16 x 16] */
  char *p[2];        /* ring of two key blocks: [chunks][2 query tiles] B tiles */
  const char *q;     /* [subs][qk_steps][2 query tiles] B tiles */
  const char *k;     /* [keys / 32][qk_steps][2 key tiles] A tiles */
  const char *v;     /* [key blocks][units][chunks][2 d tiles] A tiles of V^T */
  float *o;          /* [subs][units][2 d tiles][2 query tiles][16 x 16] */
  float *reference;  /* [subs][32], log2 */
  float *limit;      /* [subs][32], of the sum of 8 P before the reference must be looked at; below 0: no key yet */
  float *sum;        /* [subs][32], of P as rounded: o is then a weighted mean whatever the rounding */
  float *exact_sum;  /* [subs][32], of P before rounding, for lse */
  int wants_lse;
  float *pending;    /* [32] factors O of the current sub-block still lacks */
  int has_pending;
  float *unstored;   /* where the accumulators in the tiles belong */
  float *discard;    /* four tiles: where they go if they belong nowhere */
  int64_t seqlen_kv;
  fa_band band;
  const fa_amx_sub *subs;
  __m512 scale;      /* scale * log2(e), positive */
} fa_amx_pipeline;

#define FA_NO_KEY_YET (-1.0f)
#define FA_SUM_LIMIT 0x1p8f  /* 8 P that sum to more raise the reference: one of them is above 2^5 */
#define FA_RAISE_LOG2 4.9f   /* and so its score this far above the reference, rounding allowed for: every look raises */

/* 2^t with a relative error of 1e-4, a twentieth of a bf16 step (lse is as good as that, absolutely): a cubic on
 * [0, 1) and an exponent. */
FA_AMX_INLINE __m512 fa_exp2_bf16(__m512 t) {
  const __m512 fraction = _mm512_reduce_ps(t, 1);
  __m512 p = _mm512_set1_ps(7.9204e-2f);
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(2.24338e-1f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(6.96606e-1f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(9.99893e-1f));
  return _mm512_scalef_ps(p, t);
}

/* P of 2 keys x 16 queries into one row of a B tile, (even key, odd key) in pairs; adds to the sums of P as rounded and
 * before rounding. */
FA_AMX_INLINE void fa_amx_exponentials(const fa_amx_pipeline *w, const float *scores, __m512 reference, char *row,
                                       __m512 *sum, __m512 *exact) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512 even = fa_exp2_bf16(_mm512_fmsub_ps(_mm512_load_ps(scores), w->scale, reference));
  const __m512 odd = fa_exp2_bf16(_mm512_fmsub_ps(_mm512_load_ps(scores + 16), w->scale, reference));
  if (w->wants_lse) *exact = _mm512_add_ps(*exact, _mm512_add_ps(even, odd));
  const __m512i both = _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
  _mm512_store_si512(row, both);
  *sum = _mm512_dpbf16_ps(*sum, (__m512bh)both, (__m512bh)_mm512_set1_epi16(0x3f80));
}

/* A rare path: 8 keys have a large sum or are the first of a lane.
 * Raises the reference of the lanes where that happened, and everything that hangs on it: the sums,
 * this block's P so far (`pairs` rows of key pairs of `p`) and, later, O. Returns the reference to use. */
static __attribute__((noinline)) __m512 fa_amx_raise(fa_amx_pipeline *w, int32_t sub, int query_tile, char *p,
                                                     int pairs, const float *scores) {
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  const __m512 limit = _mm512_load_ps(w->limit + lane);
  const __m512 old = _mm512_load_ps(w->reference + lane);
  __m512 maximum = _mm512_load_ps(scores);
  for (int i = 1; i < 8; ++i) maximum = _mm512_max_ps(maximum, _mm512_load_ps(scores + i * 16));
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
  for (int r = 0; r < pairs; ++r) {
    char *row = p + (r / 16 * 2 + query_tile) * FA_TILE_BYTES + r % 16 * 64;
    const __m512i both = _mm512_load_si512(row);
    const __m512 even_key = _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)));
    const __m512 odd_key = _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_and_si512(both, odd)));
    _mm512_store_si512(row, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even_key), 16),
                                            _mm512_and_si512(_mm512_castps_si512(odd_key), odd)));
  }
  return raised;
}

static __attribute__((noinline)) void fa_amx_apply_pending(fa_amx_pipeline *w, int32_t sub, int units) {
  float *o = w->o + (int64_t)sub * units * 4 * FA_TILE_FLOATS;
  for (int tile = 0; tile < 4 * units; ++tile) {
    const __m512 factor = _mm512_load_ps(w->pending + tile % 2 * 16);
    for (int r = 0; r < 16; ++r) {
      float *row = o + tile * FA_TILE_FLOATS + r * 16;
      _mm512_store_ps(row, _mm512_mul_ps(factor, _mm512_load_ps(row)));
    }
  }
  for (int i = 0; i < FA_SUB_ROWS; ++i) w->pending[i] = 1.0f;
  w->has_pending = 0;
}

/* Lanes from `first` to `last` of 16, either beyond the ends. */
FA_AMX_INLINE __mmask16 fa_lanes(int64_t first, int64_t last) {
  const unsigned from = first <= 0 ? 0xffffu : first >= 16 ? 0u : 0xffffu << first;
  const unsigned to = last >= 15 ? 0xffffu : last < 0 ? 0u : (2u << last) - 1u;
  return (__mmask16)(from & to & 0xffffu);
}

/* The window of the tiling-mask for 8 keys x 16 queries: key j keeps queries j - upper .. j - lower. */
static __attribute__((noinline)) void fa_amx_mask(const fa_amx_pipeline *w, float *scores, int64_t key, int64_t row) {
  const __m512 nothing = _mm512_set1_ps(-INFINITY);
  for (int i = 0; i < 8; ++i) {
    const int64_t j = key + i;
    const __mmask16 keep = j < w->seqlen_kv ? fa_lanes(j - w->band.upper - row, j - w->band.lower - row) : 0;
    _mm512_store_ps(scores + i * 16, _mm512_mask_mov_ps(nothing, keep, _mm512_load_ps(scores + i * 16)));
  }
}

/* The softmax of a unit's chunks. */
typedef struct fa_amx_softmax {
  const fa_amx_block *block; /* NULL: nothing to do */
  float *scores;
  char *p; /* of the key block: [chunks][2 query tiles] */
  int first_chunk;
  int rows;          /* 32 a chunk, spread over */
  int products;      /* so many tile products */
  __m512 reference;  /* of the eight keys in work */
  __m512 sum, exact; /* of their P as rounded, and before rounding */
} fa_amx_softmax;

/* Row `i` of the unit: 2 keys x 16 queries. Four rows (eight keys, half a tile) share their bookkeeping. */
FA_AMX_INLINE void fa_amx_softmax_row(fa_amx_pipeline *w, fa_amx_softmax *at, int i) {
  const int unit_chunk = i >> 5, key_tile = i >> 4 & 1, query_tile = i >> 3 & 1, eight = i >> 2 & 1, pair = i & 3;
  const int chunk = at->first_chunk + unit_chunk;
  const int32_t sub = at->block->sub;
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  float *scores = at->scores + (unit_chunk * 4 + key_tile * 2 + query_tile) * FA_TILE_FLOATS + eight * 128;
  char *row = at->p + (chunk * 2 + query_tile) * FA_TILE_BYTES + key_tile * 512 + eight * 256;
  if (pair == 0) {
    if (__builtin_expect(at->block->edge, 0))
      fa_amx_mask(w, scores, at->block->key + chunk * FA_CHUNK_KEYS + key_tile * 16 + eight * 8,
                  w->subs[sub].row + query_tile * 16);
    at->reference = _mm512_load_ps(w->reference + lane);
    at->sum = at->exact = _mm512_setzero_ps();
  }
  fa_amx_exponentials(w, scores + pair * 32, at->reference, row + pair * 64, &at->sum, &at->exact);
  if (pair < 3) return;
  if (__builtin_expect(_mm512_cmp_ps_mask(at->sum, _mm512_load_ps(w->limit + lane), _CMP_GT_OQ), 0)) {
    const __m512 reference =
        fa_amx_raise(w, sub, query_tile, at->p, chunk * 16 + key_tile * 8 + eight * 4, scores);
    at->sum = at->exact = _mm512_setzero_ps();
    for (int r = 0; r < 4; ++r)
      fa_amx_exponentials(w, scores + r * 32, reference, row + r * 64, &at->sum, &at->exact);
  }
  _mm512_store_ps(w->sum + lane, _mm512_add_ps(at->sum, _mm512_load_ps(w->sum + lane)));
  if (w->wants_lse)
    _mm512_store_ps(w->exact_sum + lane, _mm512_add_ps(at->exact, _mm512_load_ps(w->exact_sum + lane)));
}

/* The rows beside product `product` of the round. */
FA_AMX_INLINE void fa_amx_softmax_beside(fa_amx_pipeline *w, fa_amx_softmax *at, int product) {
  if (at->block)
    for (int i = product * at->rows / at->products; i < (product + 1) * at->rows / at->products; ++i)
      fa_amx_softmax_row(w, at, i);
}

/* One product of a 2 x 2 block, and the softmax beside it. In the first step the accumulators of the phase before are
 * stored, one after another, before they begin anew: a store right behind its last product waits for it, fills the
 * scheduler and holds up everything behind it (docs/performance.md, "AMX prefill"). */
#define FA_AMX_PRODUCT(w, tile, a, b, fresh, begin, at, product)                   \
  do {                                                                             \
    if (fresh) {                                                                   \
      FA_TILE_STORE(tile, w->unstored + (tile) * FA_TILE_FLOATS);                  \
      begin(tile);                                                                 \
    }                                                                              \
    FA_TILE_MULTIPLY(tile, a, b);                                                  \
    fa_amx_softmax_beside(w, at, product);                                         \
  } while (0)
#define FA_AMX_FROM_ZERO(tile) FA_TILE_ZERO(tile)
#define FA_AMX_FROM_O(tile) FA_TILE_STREAM(tile, o + (tile) * FA_TILE_FLOATS) /* o: of fa_amx_output */

/* Stores the accumulators now, where no phase follows that would. */
FA_AMX_INLINE void fa_amx_flush(fa_amx_pipeline *w) {
  FA_TILE_STORE(0, w->unstored);
  FA_TILE_STORE(1, w->unstored + FA_TILE_FLOATS);
  FA_TILE_STORE(2, w->unstored + 2 * FA_TILE_FLOATS);
  FA_TILE_STORE(3, w->unstored + 3 * FA_TILE_FLOATS);
  w->unstored = w->discard;
}

/* Scores of a unit's chunks of `now`, beside the first part of the softmax. */
FA_AMX_INLINE void fa_amx_scores(fa_amx_pipeline *w, const fa_amx_block *now, int first_chunk, fa_amx_softmax *at,
                                 int qk_steps, int unit_chunks) {
  if (!now) {
    fa_amx_flush(w);
    for (int i = 0; i < 4 * unit_chunks * qk_steps; ++i) fa_amx_softmax_beside(w, at, i);
    return;
  }
#pragma GCC unroll 4
  for (int c = 0; c < unit_chunks; ++c) {
    const char *k = w->k + (now->packed / FA_CHUNK_KEYS + first_chunk + c) * qk_steps * 2 * FA_TILE_BYTES;
    const char *q = w->q + (int64_t)now->sub * qk_steps * 2 * FA_TILE_BYTES;
#pragma GCC unroll 8
    for (int s = 0; s < qk_steps; ++s) {
      const int product = 4 * (c * qk_steps + s);
      FA_TILE_STREAM(4, k + s * 2 * FA_TILE_BYTES);
      FA_TILE_LOAD(6, q + s * 2 * FA_TILE_BYTES);
      FA_AMX_PRODUCT(w, 0, 4, 6, s == 0, FA_AMX_FROM_ZERO, at, product);
      FA_TILE_LOAD(7, q + (s * 2 + 1) * FA_TILE_BYTES);
      FA_AMX_PRODUCT(w, 1, 4, 7, s == 0, FA_AMX_FROM_ZERO, at, product + 1);
      FA_TILE_STREAM(5, k + (s * 2 + 1) * FA_TILE_BYTES);
      FA_AMX_PRODUCT(w, 2, 5, 6, s == 0, FA_AMX_FROM_ZERO, at, product + 2);
      FA_AMX_PRODUCT(w, 3, 5, 7, s == 0, FA_AMX_FROM_ZERO, at, product + 3);
    }
    w->unstored = w->scores[0] + c * 4 * FA_TILE_FLOATS;
  }
}

/* Pair `unit` of d tiles of O of `block`, beside the rest of the softmax, from product `first` of the round on. */
FA_AMX_INLINE void fa_amx_output(fa_amx_pipeline *w, const fa_amx_block *block, const char *p, int unit,
                                 fa_amx_softmax *at, int first, int units, int chunks) {
  if (!block) {
    fa_amx_flush(w);
    for (int i = 0; i < 4 * chunks; ++i) fa_amx_softmax_beside(w, at, first + i);
    return;
  }
  float *o = w->o + ((int64_t)block->sub * units + unit) * 4 * FA_TILE_FLOATS;
  const char *v = w->v + (block->packed / FA_CHUNK_KEYS * units + unit * chunks) * 2 * FA_TILE_BYTES;
#pragma GCC unroll 8
  for (int c = 0; c < chunks; ++c) {
    const int product = first + 4 * c;
    FA_TILE_STREAM(4, v + c * 2 * FA_TILE_BYTES);
    FA_TILE_LOAD(6, p + c * 2 * FA_TILE_BYTES);
    FA_AMX_PRODUCT(w, 0, 4, 6, c == 0, FA_AMX_FROM_O, at, product);
    FA_TILE_LOAD(7, p + (c * 2 + 1) * FA_TILE_BYTES);
    FA_AMX_PRODUCT(w, 1, 4, 7, c == 0, FA_AMX_FROM_O, at, product + 1);
    FA_TILE_STREAM(5, v + (c * 2 + 1) * FA_TILE_BYTES);
    FA_AMX_PRODUCT(w, 2, 5, 6, c == 0, FA_AMX_FROM_O, at, product + 2);
    FA_AMX_PRODUCT(w, 3, 5, 7, c == 0, FA_AMX_FROM_O, at, product + 3);
  }
  w->unstored = o;
}

/* The rounds of key block `now`, with the output of `before` (all but its last unit) and of the block `earlier` before
 * that (its last unit); any NULL at the ends. Inlined with a constant shape for the head sizes that matter. */
FA_AMX_INLINE void fa_amx_iterate_shape(fa_amx_pipeline *w, const fa_amx_block *now, const fa_amx_block *before,
                                        const fa_amx_block *earlier, int qk_steps, int units, int unit_chunks) {
  const int chunks = units * unit_chunks, score_products = 4 * unit_chunks * qk_steps;
  const __m512 zero = _mm512_setzero_ps();
  for (int unit = 0; unit < units; ++unit) {
    const int chunk = unit * unit_chunks;
    fa_amx_softmax softmax = {unit ? now : before, w->scores[1], unit ? w->p[0] : w->p[1],
                              (unit ? chunk : chunks) - unit_chunks, 32 * unit_chunks, score_products + 4 * chunks,
                              zero, zero, zero};
    fa_amx_scores(w, now, chunk, &softmax, qk_steps, unit_chunks);
    fa_amx_output(w, unit ? before : earlier, unit ? w->p[1] : w->p[0], unit ? unit - 1 : units - 1, &softmax,
                  score_products, units, chunks);
    if (unit == 0 && __builtin_expect(w->has_pending, 0)) {
      fa_amx_flush(w);
      fa_amx_apply_pending(w, before->sub, units);
    }
    float *const ring = w->scores[0];
    w->scores[0] = w->scores[1];
    w->scores[1] = ring;
  }
  if (!now) fa_amx_flush(w);
  char *const p = w->p[0];
  w->p[0] = w->p[1];
  w->p[1] = p;
}

#endif
