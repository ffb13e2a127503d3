/* What the decode kernels with AVX-512 share: 16 scores from 16 sums. */
#ifndef FA_CPU_DECODE_AVX512_H
#define FA_CPU_DECODE_AVX512_H

#include <immintrin.h>

#include "cpu/decode_split.h"

#define INLINE static inline __attribute__((always_inline))
/* Accumulators live in registers only if every loop over them is unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Which of 32 elements exist. */
INLINE __mmask32 keep_of(int64_t elements) {
  return elements >= 32 ? 0xffffffffu : (__mmask32)((1u << (unsigned)elements) - 1u);
}

/* Sums over the lanes of 16 vectors, vector i's in lane i. */
INLINE __m512 add_across(const __m512 *x) {
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
INLINE void store_scores(float *tile, __m512 sums, int rows) {
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

#endif
