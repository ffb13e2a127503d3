/* What the decode kernels with AVX-512 share: 16 scores from 16 sums, and the softmax. */
#ifndef FA_CPU_DECODE_AVX512_H
#define FA_CPU_DECODE_AVX512_H

#include "cpu/decode_split.h"
#include "cpu/lanes_avx512.h"

/* Accumulators live in registers only if every loop over them is unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Which of 32 elements exist. */
FA_INLINE __mmask32 keep_of(int64_t elements) {
  return elements >= 32 ? 0xffffffffu : (__mmask32)((1u << (unsigned)elements) - 1u);
}

/* Sums over the lanes of 16 vectors, vector i's in lane i. */
FA_INLINE __m512 add_across(const __m512 *x) {
  __m512 pair[8], four[4];
  UNROLL for (int i = 0; i < 8; ++i) pair[i] =
      _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
  UNROLL for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(pair[2 * i]), b = _mm512_castps_pd(pair[2 * i + 1]);
    four[i] =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  const __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x88),
                                   _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
  const __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x88),
                                    _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
}

/* rows x (16 / rows) scores, [row][key], to the tile. */
FA_INLINE void store_scores(float *tile, __m512 sums, int rows) {
  if (rows == 1) {
    _mm512_storeu_ps(tile, sums);
  } else if (rows == 2) {
    _mm256_storeu_ps(tile, _mm512_castps512_ps256(sums));
    _mm256_storeu_ps(tile + FA_DECODE_KEYS, _mm512_extractf32x8_ps(sums, 1));
  } else {
    _mm_storeu_ps(tile, _mm512_castps512_ps128(sums));
    _mm_storeu_ps(tile + FA_DECODE_KEYS, _mm512_extractf32x4_ps(sums, 1));
    _mm_storeu_ps(tile + 2 * FA_DECODE_KEYS, _mm512_extractf32x4_ps(sums, 2));
    _mm_storeu_ps(tile + 3 * FA_DECODE_KEYS, _mm512_extractf32x4_ps(sums, 3));
  }
}

/* ----------------------------------------------------------------- softmax */

/* A row of scores times `scale` (and the keys' own scales, unless NULL) to weights; maximum and sum into part, o rescaled when
 * the maximum rises. */
FA_INLINE void weigh_row(float *row, vec scale, const float *key_scale, fa_part *part, float *o, int64_t o_count) {
  enum { VECTORS = FA_DECODE_KEYS / VEC };
  vec x[VECTORS];
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    x[i] = vec_mul(vec_load(row + i * VEC), scale);
    if (key_scale) x[i] = vec_mul(x[i], vec_load(key_scale + i * VEC));
  }
  const float max = vec_top(vec_max(vec_max(x[0], x[1]), vec_max(x[2], x[3])));
  if (max > part->max) {
    const float down = fa_exp_lane(part->max - max);
    part->max = max;
    part->sum *= down;
    for (int64_t d = 0; d < o_count; d += VEC) vec_store(o + d, vec_mul(vec_load(o + d), vec_set(down)));
  }
  /* Nothing kept so far: any finite reference gives weights of 0, and lets a NaN through. */
  const vec reference = vec_set(part->max == -INFINITY ? 0.0f : part->max);
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    x[i] = vec_exp(vec_sub(x[i], reference));
    vec_store(row + i * VEC, x[i]);
  }
  part->sum += vec_sum(vec_add(vec_add(x[0], x[1]), vec_add(x[2], x[3])));
}

/* fa_decode_weigh, not exact: a row of scores stays in registers from the scales to the sum where there are no rules and no
 * mask. */
static void weigh(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries, int64_t rows, float *tile,
                  fa_part *parts, float *o) {
  vec scale = vec_set(chunk->scale);
  const float *key_scale = chunk->k_scale;
  const int is_band_full =
      chunk->keys == FA_DECODE_KEYS &&
      fa_band_block(rules->band, 0, queries, chunk->key, FA_DECODE_KEYS) == FA_BLOCK_FULL; /* one for all heads */
  if (rules->any || !is_band_full) {
    fa_decode_apply_rules(chunk, rules, queries, rows, tile);
    scale = vec_set(1.0f);
    key_scale = NULL;
  }
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_WEIGH, rows);
  for (int64_t r = 0; r < rows; ++r) {
    fa_decode_fetch_lines(chunk->fetch, lines);
    weigh_row(tile + r * FA_DECODE_KEYS, scale, key_scale, parts + r, o + r * chunk->o_stride, chunk->o_stride);
  }
}

#endif
