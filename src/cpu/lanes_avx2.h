/* One vector of fp32 lanes in AVX2 with FMA and F16C: the operations that the shared kernels are written in.
 * lanes_avx512.h and lanes_neon.h define the same names; a file includes exactly one of them. */
#ifndef FA_CPU_LANES_AVX2_H
#define FA_CPU_LANES_AVX2_H

#include <immintrin.h>

#include "core/dtype.h"

enum { VEC = 8 };
typedef __m256 vec;
#define FA_INLINE static inline __attribute__((always_inline))

FA_INLINE vec vec_zero(void) { return _mm256_setzero_ps(); }
FA_INLINE vec vec_set(float x) { return _mm256_set1_ps(x); }
FA_INLINE vec vec_load(const float *from) { return _mm256_loadu_ps(from); }
FA_INLINE void vec_store(float *to, vec x) { _mm256_storeu_ps(to, x); }
FA_INLINE vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
FA_INLINE vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
FA_INLINE vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
FA_INLINE vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
FA_INLINE vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }

FA_INLINE float vec_sum(vec x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

FA_INLINE float vec_top(vec x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

/* x where x is not -inf, else 0: a reference that can be subtracted. */
FA_INLINE vec vec_reference(vec x) {
  return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-INFINITY), _CMP_NEQ_UQ), x);
}

/* e^x for x <= 0, 0 below -87 (no subnormal weights, they are slow), NaN for NaN; relative error about 1e-7.
 */
FA_INLINE vec vec_exp(vec x) {
  const vec t = _mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f));
  const vec n = _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const vec r = _mm256_sub_ps(t, n);
  vec p = _mm256_set1_ps(1.535336188319500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.339887440266574e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(9.618437357674640e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.550332471162809e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(2.402264791363012e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(6.931472028550421e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const vec kept = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
  return _mm256_and_ps(kept, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

/* The first n (>= 1) of VEC elements of a row of FLOAT32, FLOAT16 or BFLOAT16; the rest 0. Reads nothing
 * beyond. */
FA_INLINE vec vec_load_row(const char *from, fa_dtype dtype, int64_t n) {
  uint32_t edge[VEC] = {0};
  if (n < VEC) {
    memcpy(edge, from, (size_t)n * fa_dtype_size(dtype));
    from = (const char *)edge;
  }
  if (dtype == FA_FLOAT32) return _mm256_loadu_ps((const float *)(const void *)from);
  const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)from);
  if (dtype == FA_FLOAT16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The same the other way, rounding to nearest even. x holds no NaN. */
FA_INLINE void vec_store_row(char *to, fa_dtype dtype, int64_t n, vec x) {
  uint32_t edge[VEC];
  char *at = n < VEC ? (char *)edge : to;
  if (dtype == FA_FLOAT32) {
    _mm256_storeu_ps((float *)(void *)at, x);
  } else if (dtype == FA_FLOAT16) {
    _mm_storeu_si128((__m128i *)(void *)at,
                     _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  } else {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    _mm_storeu_si128((__m128i *)(void *)at,
                     _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1)));
  }
  if (n < VEC) memcpy(to, edge, (size_t)n * fa_dtype_size(dtype));
}

/* Rows become columns. */
FA_INLINE void vec_transpose(vec r[VEC]) {
  vec t[VEC];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) r[i] = t[i];
}

#endif
