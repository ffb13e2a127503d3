/* One vector of fp32 lanes in AVX-512 (F, BW, DQ, VL): the operations that the shared kernels are written in.
 * lanes_avx2.h and lanes_neon.h define the same names; a file includes exactly one of them. */
#ifndef FA_CPU_LANES_AVX512_H
#define FA_CPU_LANES_AVX512_H

#include <immintrin.h>

#include "core/dtype.h"

enum { VEC = 16 };
typedef __m512 vec;
#define FA_INLINE static inline __attribute__((always_inline))

FA_INLINE vec vec_zero(void) { return _mm512_setzero_ps(); }
FA_INLINE vec vec_set(float x) { return _mm512_set1_ps(x); }
FA_INLINE vec vec_load(const float *from) { return _mm512_loadu_ps(from); }
FA_INLINE void vec_store(float *to, vec x) { _mm512_storeu_ps(to, x); }
FA_INLINE vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
FA_INLINE vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
FA_INLINE vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
FA_INLINE vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
FA_INLINE vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
FA_INLINE float vec_sum(vec x) { return _mm512_reduce_add_ps(x); }
FA_INLINE float vec_top(vec x) { return _mm512_reduce_max_ps(x); }

/* x where x is not -inf, else 0: a reference that can be subtracted. */
FA_INLINE vec vec_reference(vec x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ), x);
}

/* e^x for x <= 0, 0 below -87 (no subnormal weights, they are slow), NaN for NaN; relative error about 1e-7.
 */
FA_INLINE vec vec_exp(vec x) {
  const vec t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
  const vec r = _mm512_reduce_ps(t, 9); /* t - floor(t), as scalef takes the floor of its power */
  vec p = _mm512_set1_ps(2.161291496e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.246784644e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.675451567e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.548528062e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402293056e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931470444e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ), p, t);
}

/* The first n (>= 1) of VEC elements of a row of FLOAT32, FLOAT16 or BFLOAT16; the rest 0. Reads nothing
 * beyond. */
FA_INLINE vec vec_load_row(const char *from, fa_dtype dtype, int64_t n) {
  const __mmask16 some = (__mmask16)(n >= VEC ? 0xffffu : (1u << n) - 1u);
  if (dtype == FA_FLOAT32) return _mm512_maskz_loadu_ps(some, from);
  const __m256i half = _mm256_maskz_loadu_epi16(some, from);
  if (dtype == FA_FLOAT16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The same the other way, rounding to nearest even. x holds no NaN. */
FA_INLINE void vec_store_row(char *to, fa_dtype dtype, int64_t n, vec x) {
  const __mmask16 some = (__mmask16)(n >= VEC ? 0xffffu : (1u << n) - 1u);
  if (dtype == FA_FLOAT32) {
    _mm512_mask_storeu_ps(to, some, x);
  } else if (dtype == FA_FLOAT16) {
    _mm256_mask_storeu_epi16(to, some, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  } else {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    _mm256_mask_storeu_epi16(to, some, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
}

FA_INLINE vec vec_from_int8(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

/* E4M3 as fp16 is 2^-8 too small, its subnormals included; all ones is NaN. */
FA_INLINE vec vec_from_fp8(__m128i bytes) {
  const __m256i wide = _mm256_cvtepu8_epi16(bytes);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  const __mmask16 is_nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f));
  const __m256i half = _mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign);
  const __m512 value = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
  return _mm512_mask_mov_ps(value, is_nan, _mm512_set1_ps(NAN));
}

/* Rows become columns. */
FA_INLINE void vec_transpose(vec r[VEC]) {
  vec t[VEC];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
    const __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
  }
}

/* 32 elements each of two keys' rows in pairs, (even key, odd key): the first 16 pairs and the last 16. */
FA_INLINE void interleave_pairs(__m512i even, __m512i odd, __m512i *first, __m512i *last) {
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                       5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  *first = _mm512_permutex2var_epi16(even, low, odd);
  *last = _mm512_permutex2var_epi16(even, high, odd);
}

#endif
