/* The AMX attention pipeline: tile products of one key block interleaved with the softmax of another.
 *
 * Everything is transposed, so that a query is a lane and no reduction runs across lanes:
 *     S^T[keys x queries] = K Q^T        softmax down the rows        O^T[d x queries] += V^T P^T
 * P^T leaves the softmax in B-operand layout after one permute; O^T stays in fp32 tiles until the end.
 *
 * Level two: a sub-block of 32 queries times a key block of 32 * `chunks` keys, in 2 x 2 tiles; a chunk is 32 keys.
 * One iteration, for key block `now` and its predecessor `before`, runs `units` rounds of
 *     S^T of a unit's chunks of `now`        |  softmax of the previous unit's chunks
 *     O^T of one pair of d tiles of `before` |  softmax of this unit's chunks
 * with the softmax cut into halves of 8 keys x 16 queries spread evenly between the products, so that the tile unit
 * and the vector units work at once.
 *
 * Softmax reference: an integer power of two per query, raised only when a score exceeds it by 2^8. Raising is exact
 * (powers of two), hardly ever happens, and P, sums and O carry it: O through `pending`, applied before its next use. */
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

/* One sub-block of 32 queries (two lanes groups of 16) of one head. */
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
  char *p[2];        /* of `now` and `before`: [chunks][2 query tiles] B tiles */
  const char *q;     /* [subs][qk_steps][2 query tiles] B tiles */
  const char *k;     /* [keys / 16][qk_steps] A tiles */
  const char *v;     /* [keys / 32][2 * units] A tiles of V^T */
  float *o;          /* [subs][units][2 d tiles][2 query tiles][16 x 16] */
  float *reference;  /* [subs][32], log2 */
  float *threshold;  /* [subs][32], in units of unscaled scores; -inf before the first kept key */
  float *sum;        /* [subs][32], of P as rounded: o is then a weighted mean whatever the rounding */
  float *exact_sum;  /* [subs][32], of P before rounding, for lse */
  int wants_lse;
  float *pending;    /* [32] factors O of the current sub still lacks */
  int has_pending;
  int64_t seqlen_kv;
  fa_band band;
  const fa_amx_sub *subs;
  __m512 scale;      /* scale * log2(e), positive */
} fa_amx_pipeline;

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

/* Raises the reference of the lanes whose new maximum is beyond the threshold, and everything that hangs on it:
 * the sums, this block's P so far (`pairs` rows of key pairs) and, later, O. */
static __attribute__((noinline)) void fa_amx_raise(fa_amx_pipeline *w, int32_t sub, int query_tile, char *p, int pairs,
                                                   __m512 maximum) {
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  const __m512 threshold = _mm512_load_ps(w->threshold + lane);
  const __m512 old = _mm512_load_ps(w->reference + lane);
  const __mmask16 up = _mm512_cmp_ps_mask(maximum, threshold, _CMP_GT_OQ);
  const __mmask16 first = up & _mm512_cmp_ps_mask(threshold, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
  const __m512 ceiling = _mm512_roundscale_ps(_mm512_mul_ps(maximum, w->scale), _MM_FROUND_TO_POS_INF);
  const __m512 raised = _mm512_mask_mov_ps(old, up, ceiling);
  __m512 factor = _mm512_mask_scalef_ps(_mm512_set1_ps(1.0f), up, _mm512_set1_ps(1.0f), _mm512_sub_ps(old, raised));
  factor = _mm512_mask_mov_ps(factor, first, _mm512_setzero_ps()); /* nothing to keep yet */
  _mm512_store_ps(w->reference + lane, raised);
  const __m512 limit = _mm512_div_ps(_mm512_add_ps(raised, _mm512_set1_ps(8.0f)), w->scale);
  _mm512_mask_store_ps(w->threshold + lane, up, limit);
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

/* Softmax of half `half` (0..7: key tile, query tile, upper or lower 8 keys) of a 32 x 32 chunk. */
FA_AMX_INLINE void fa_amx_softmax_half(fa_amx_pipeline *w, const fa_amx_block *block, float *chunk_scores, char *p,
                                       int chunk, int half) {
  const int key_tile = half >> 2, query_tile = half >> 1 & 1, eight = half & 1;
  float *s = chunk_scores + (key_tile * 2 + query_tile) * FA_TILE_FLOATS + eight * 128;
  if (__builtin_expect(block->edge, 0))
    fa_amx_mask(w, s, block->key + chunk * FA_CHUNK_KEYS + key_tile * 16 + eight * 8,
                w->subs[block->sub].row + query_tile * 16);
  __m512 v[8];
  for (int i = 0; i < 8; ++i) v[i] = _mm512_load_ps(s + i * 16);
  const __m512 maximum = _mm512_max_ps(_mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3])),
                                       _mm512_max_ps(_mm512_max_ps(v[4], v[5]), _mm512_max_ps(v[6], v[7])));
  const int64_t lane = (int64_t)block->sub * FA_SUB_ROWS + query_tile * 16;
  if (__builtin_expect(_mm512_cmp_ps_mask(maximum, _mm512_load_ps(w->threshold + lane), _CMP_GT_OQ), 0))
    fa_amx_raise(w, block->sub, query_tile, p, chunk * 16 + key_tile * 8 + eight * 4, maximum);
  const __m512 reference = _mm512_load_ps(w->reference + lane);
  /* Two rows of 16 bf16, (even key, odd key), become one row of 16 pairs. */
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  char *row = p + (chunk * 2 + query_tile) * FA_TILE_BYTES + key_tile * 512 + eight * 256;
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  __m512 sum = _mm512_load_ps(w->sum + lane), exact = _mm512_setzero_ps();
  for (int i = 0; i < 8; i += 2) {
    const __m512 even = fa_exp2_bf16(_mm512_fmsub_ps(v[i], w->scale, reference));
    const __m512 odd = fa_exp2_bf16(_mm512_fmsub_ps(v[i + 1], w->scale, reference));
    if (w->wants_lse) exact = _mm512_add_ps(exact, _mm512_add_ps(even, odd));
    const __m512i both = _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
    _mm512_store_si512(row + i * 32, both);
    sum = _mm512_dpbf16_ps(sum, (__m512bh)both, ones);
  }
  _mm512_store_ps(w->sum + lane, sum);
  if (w->wants_lse) _mm512_store_ps(w->exact_sum + lane, _mm512_add_ps(exact, _mm512_load_ps(w->exact_sum + lane)));
}

/* The softmax work that step `step` of `steps` of a unit does: halves, spread evenly. */
FA_AMX_INLINE void fa_amx_softmax_step(fa_amx_pipeline *w, const fa_amx_block *block, float *unit_scores, char *p,
                                       int first_chunk, int unit_chunks, int step, int steps) {
  const int halves = 8 * unit_chunks;
  for (int h = step * halves / steps; h < (step + 1) * halves / steps; ++h)
    fa_amx_softmax_half(w, block, unit_scores + (h >> 3) * 4 * FA_TILE_FLOATS, p, first_chunk + (h >> 3), h & 7);
}

/* One iteration: scores and half-done softmax of `now`, the rest of the softmax and the output of `before`; either
 * NULL at the ends. Inlined with a constant shape for the head sizes that
 * matter. */
FA_AMX_INLINE void fa_amx_iterate_shape(fa_amx_pipeline *w, const fa_amx_block *now, const fa_amx_block *before,
                                        int qk_steps, int units, int unit_chunks) {
  const int chunks = units * unit_chunks;
  const int steps = chunks + unit_chunks * qk_steps; /* of a unit's softmax: its output phase, then the next scores */
  for (int unit = 0; unit < units; ++unit) {
    const fa_amx_block *finishing = unit ? now : before;
    char *finishing_p = unit ? w->p[0] : w->p[1];
    const int finishing_chunk = (unit ? unit - 1 : units - 1) * unit_chunks;
    float *finishing_scores = w->scores[1];
#pragma GCC unroll 4
    for (int c = 0; c < unit_chunks; ++c) {
      const char *k = NULL, *q = NULL;
      if (now) {
        k = w->k + (now->packed / 16 + (unit * unit_chunks + c) * 2) * qk_steps * FA_TILE_BYTES;
        q = w->q + (int64_t)now->sub * qk_steps * 2 * FA_TILE_BYTES;
        FA_TILE_ZERO(0);
        FA_TILE_ZERO(1);
        FA_TILE_ZERO(2);
        FA_TILE_ZERO(3);
      }
#pragma GCC unroll 8
      for (int s = 0; s < qk_steps; ++s) {
        if (now) {
          FA_TILE_STREAM(4, k + s * FA_TILE_BYTES);
          FA_TILE_LOAD(6, q + s * 2 * FA_TILE_BYTES);
          FA_TILE_STREAM(5, k + (qk_steps + s) * FA_TILE_BYTES);
          FA_TILE_LOAD(7, q + (s * 2 + 1) * FA_TILE_BYTES);
          fa_tile_multiply_2x2();
        }
        if (finishing)
          fa_amx_softmax_step(w, finishing, finishing_scores, finishing_p, finishing_chunk, unit_chunks,
                              chunks + c * qk_steps + s, steps);
      }
      if (now) {
        float *scores = w->scores[0] + c * 4 * FA_TILE_FLOATS;
        FA_TILE_STORE(0, scores);
        FA_TILE_STORE(1, scores + FA_TILE_FLOATS);
        FA_TILE_STORE(2, scores + 2 * FA_TILE_FLOATS);
        FA_TILE_STORE(3, scores + 3 * FA_TILE_FLOATS);
      }
    }
    float *o = NULL;
    const char *v = NULL;
    if (before) {
      if (unit == 0 && __builtin_expect(w->has_pending, 0)) fa_amx_apply_pending(w, before->sub, units);
      o = w->o + ((int64_t)before->sub * units + unit) * 4 * FA_TILE_FLOATS;
      v = w->v + (before->packed / 32 * units + unit) * 2 * FA_TILE_BYTES;
      FA_TILE_STREAM(0, o);
      FA_TILE_STREAM(1, o + FA_TILE_FLOATS);
      FA_TILE_STREAM(2, o + 2 * FA_TILE_FLOATS);
      FA_TILE_STREAM(3, o + 3 * FA_TILE_FLOATS);
    }
#pragma GCC unroll 8
    for (int c = 0; c < chunks; ++c) {
      if (before) {
        const char *p = w->p[1] + c * 2 * FA_TILE_BYTES;
        FA_TILE_STREAM(4, v + (int64_t)c * units * 2 * FA_TILE_BYTES);
        FA_TILE_LOAD(6, p);
        FA_TILE_STREAM(5, v + (int64_t)c * units * 2 * FA_TILE_BYTES + FA_TILE_BYTES);
        FA_TILE_LOAD(7, p + FA_TILE_BYTES);
        fa_tile_multiply_2x2();
      }
      if (now)
        fa_amx_softmax_step(w, now, w->scores[0], w->p[0], unit * unit_chunks, unit_chunks, c, steps);
    }
    if (before) {
      FA_TILE_STORE(0, o);
      FA_TILE_STORE(1, o + FA_TILE_FLOATS);
      FA_TILE_STORE(2, o + 2 * FA_TILE_FLOATS);
      FA_TILE_STORE(3, o + 3 * FA_TILE_FLOATS);
    }
    float *const ring = w->scores[0];
    w->scores[0] = w->scores[1];
    w->scores[1] = ring;
  }
  char *const p = w->p[0];
  w->p[0] = w->p[1];
  w->p[1] = p;
}

#endif
