/* fp32 and fp16 through AMX's bf16 products: a value is the exact sum of bf16 terms, x = x0 + x1 + x2 (fp32,
 * 8 bits a term) or x0 + x1 (fp16), and a product of sums is a sum of products, of which those below 2^-24
 * (fp32) are left out: six of nine products for fp32, all four of fp16's, one for bf16. The products of bf16
 * are exact and the sums fp32, so the result is at least as good as an fp32 chain (measured: a third of its
 * error at D = 64).
 *
 * Packed operands, in tiles of 1 KB, terms side by side: Q [strip][step of 32 dims][term][2 tiles of 16
 *   rows], K [32 keys][step][term][2 tiles of 16 keys], P [step of 32 keys][term][2 tiles of 16 rows],
 *   V [step of 32 keys][32 of D_v][term][2 tiles of 16].
 * AMX reads subnormals as 0 and knows no infinity minus infinity: see FA_SPLIT_LARGEST and FA_SPLIT_LEAST. */
#ifndef FA_CPU_SPLIT_AMX_H
#define FA_CPU_SPLIT_AMX_H

#include <stdbool.h>

#include "cpu/lanes_avx512.h"
#include "cpu/tiles_amx.h"

/* What can be split. Up to the largest the terms' products cannot overflow. A score is off by no more than
 * 2^-126 times the largest times D and scale where q's or k's terms are flushed as subnormal: nothing, below
 * the largest scale. V's flushed terms are nothing beside its largest value, if that is at least the least.
 */
#define FA_SPLIT_LARGEST 0x1p60f
#define FA_SPLIT_LARGEST_SCALE 0x1p20f
#define FA_SPLIT_LEAST 0x1p-70f

enum { TILE = 512 /* bf16 */, PAIR = 2 * TILE, STRIP = 32, CHUNK = 128 };

/* 32 floats (lo, hi) into `terms` vectors of 32 bf16, rounding each term to nearest; the last takes what is
 * left. */
FA_INLINE void split_32(vec lo, vec hi, int terms, __m512i out[3]) {
#pragma GCC unroll 3
  for (int t = 0; t < terms; t++) {
    out[t] = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(out[t]));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(out[t], 1));
    lo = _mm512_sub_ps(lo, _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)));
    hi = _mm512_sub_ps(hi, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)));
  }
}

/* 32 weights likewise, cutting bits off instead of rounding: three operations a term. A single term is
 * rounded. */
FA_INLINE void split_weights(vec lo, vec hi, int terms, uint16_t *to) {
  const __m512i upper = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31,
                                         29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i kept = _mm512_set1_epi32((int)0xffff0000u);
  if (terms == 1) {
    _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
    return;
  }
#pragma GCC unroll 3
  for (int t = 0; t < terms; t++, to += PAIR) {
    const __m512i a = _mm512_castps_si512(lo), b = _mm512_castps_si512(hi);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(a, upper, b));
    if (t + 1 == terms) break;
    lo = _mm512_sub_ps(lo, _mm512_castsi512_ps(_mm512_and_si512(a, kept)));
    hi = _mm512_sub_ps(hi, _mm512_castsi512_ps(_mm512_and_si512(b, kept)));
  }
}

/* A, the strip's own (Q, P), stays in L1; B (K, V) streams past it. */
#define LOAD_A(from) FA_TILE_LOAD(4, from); FA_TILE_LOAD(5, (from) + TILE)
#define LOAD_B(from) FA_TILE_STREAM(6, from); FA_TILE_STREAM(7, (from) + TILE)

/* Tiles 0 to 3 = sum over steps of A [2 tiles] B [2 tiles]; a and b point at the first step's first term. The
 * walk through the products changes one factor at a time: fp32's 24 products of tiles take 14 loads, not 24.
 */
FA_INLINE void split_multiply(const uint16_t *a, int64_t a_step, const uint16_t *b, int64_t b_step,
                              int64_t steps, int terms) {
  FA_TILE_ZERO(0);
  FA_TILE_ZERO(1);
  FA_TILE_ZERO(2);
  FA_TILE_ZERO(3);
  for (int64_t n = 0; n < steps; n++, a += a_step, b += b_step) {
    if (terms == 3) {
      LOAD_A(a + 2 * PAIR);
      LOAD_B(b);
      fa_tile_multiply_2x2();
      LOAD_A(a + PAIR);
      fa_tile_multiply_2x2();
      LOAD_B(b + PAIR);
      fa_tile_multiply_2x2();
      LOAD_A(a);
      fa_tile_multiply_2x2();
      LOAD_B(b + 2 * PAIR);
      fa_tile_multiply_2x2();
      LOAD_B(b);
      fa_tile_multiply_2x2();
    } else if (terms == 2) {
      LOAD_A(a + PAIR);
      LOAD_B(b + PAIR);
      fa_tile_multiply_2x2();
      LOAD_B(b);
      fa_tile_multiply_2x2();
      LOAD_A(a);
      fa_tile_multiply_2x2();
      LOAD_B(b + PAIR);
      fa_tile_multiply_2x2();
    } else {
      LOAD_A(a);
      LOAD_B(b);
      fa_tile_multiply_2x2();
    }
  }
}

/* Tiles 0 to 3 as 32 x 32 floats, rows `stride` floats apart. */
FA_INLINE void split_store(float *to, int64_t stride) {
  FA_TILE_STORE_ROWS(0, to, stride * 4);
  FA_TILE_STORE_ROWS(1, to + 16, stride * 4);
  FA_TILE_STORE_ROWS(2, to + 16 * stride, stride * 4);
  FA_TILE_STORE_ROWS(3, to + 16 * stride + 16, stride * 4);
}

/* What was seen while packing: a value above FA_SPLIT_LARGEST (or NaN), the largest magnitude. */
typedef struct split_range {
  vec most;
  __mmask16 large;
} split_range;

/* 32 elements of a row from d on, 0 beyond dim. */
FA_INLINE void split_load(const char *row, fa_dtype dtype, int64_t d, int64_t dim, int terms, __m512i out[3],
                          split_range *range) {
  if (d >= dim) {
    out[0] = out[1] = out[2] = _mm512_setzero_si512();
    return;
  }
  const int64_t size = (int64_t)fa_dtype_size(dtype);
  const vec lo = vec_load_row(row + d * size, dtype, dim - d);
  const vec hi = dim - d > VEC ? vec_load_row(row + (d + VEC) * size, dtype, dim - d - VEC) : vec_zero();
  const vec limit = vec_set(FA_SPLIT_LARGEST), x = _mm512_abs_ps(lo), y = _mm512_abs_ps(hi);
  range->large |= _mm512_cmp_ps_mask(x, limit, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(y, limit, _CMP_NLE_UQ);
  range->most = vec_max(range->most, vec_max(x, y));
  split_32(lo, hi, terms, out);
}

/* 16 rows (those from `count` on are 0) as one of the two tiles of every step: Q, and K turned round. Tile
 * (step, term) starts at to + (step * terms + term) * PAIR. False if a value is too large. */
FA_INLINE bool split_rows(const char *const rows[16], int64_t count, fa_dtype dtype, int64_t dim, int terms,
                          bool turned, uint16_t *to) {
  split_range range = {vec_zero(), 0};
  for (int64_t d = 0; d < dim; d += 32, to += terms * PAIR) {
    __m512i x[3][16];
    for (int64_t r = 0; r < 16; r++) {
      __m512i out[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
      if (r < count) split_load(rows[r], dtype, d, dim, terms, out, &range);
      for (int t = 0; t < terms; t++) x[t][r] = out[t];
    }
    for (int t = 0; t < terms; t++) {
      if (turned) fa_transpose_16x16(x[t]);
      for (int r = 0; r < 16; r++) _mm512_store_si512(to + t * PAIR + r * 32, x[t][r]);
    }
  }
  return range.large == 0;
}

/* Two V rows (keys 2n and 2n + 1; the second may be NULL) as row n of every D_v tile of a step of 32 keys.
 * Tile (32 values, term) starts at to + (32 values * terms + term) * PAIR. */
FA_INLINE void split_value_pair(const char *even, const char *odd, fa_dtype dtype, int64_t dim, int terms,
                                int64_t n, uint16_t *to, split_range *range) {
  for (int64_t d = 0; d < dim; d += 32) {
    __m512i a[3], b[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    split_load(even, dtype, d, dim, terms, a, range);
    if (odd) split_load(odd, dtype, d, dim, terms, b, range);
    for (int t = 0; t < terms; t++, to += PAIR) {
      __m512i first, last;
      interleave_pairs(a[t], b[t], &first, &last);
      _mm512_store_si512(to + n * 32, first);
      _mm512_store_si512(to + TILE + n * 32, last);
    }
  }
}

/* 16 rows of scores (times factor) to weights in P tiles: row r of scores at s + r * stride, of weights at p
 * + r * 32, steps of 32 keys terms * PAIR apart. m, l and shrink as everywhere: l a vector a row. */
FA_INLINE void split_softmax(const float *s, int64_t stride, int64_t keys, float factor, int terms, float *m,
                             float *l, float *shrink, uint16_t *p) {
  const vec scale = vec_set(factor);
  vec top[VEC];
  for (int r = 0; r < 16; r++) {
    const float *row = s + r * stride;
    vec x = vec_mul(vec_load(row), scale), y = vec_mul(vec_load(row + VEC), scale);
    for (int64_t j = 32; j < keys; j += 32) {
      x = vec_max(x, vec_mul(vec_load(row + j), scale));
      y = vec_max(y, vec_mul(vec_load(row + j + VEC), scale));
    }
    top[r] = vec_max(x, y);
  }
  vec_transpose(top);
#pragma GCC unroll 4
  for (int n = 8; n > 0; n /= 2)
#pragma GCC unroll 8
    for (int r = 0; r < n; r++) top[r] = vec_max(top[r], top[r + n]);
  const vec before = vec_load(m), after = vec_max(top[0], before), from = vec_reference(after);
  float reference[VEC];
  vec_store(reference, from);
  vec_store(shrink, vec_exp(vec_sub(before, from)));
  vec_store(m, after);

  for (int r = 0; r < 16; r++) {
    const float *row = s + r * stride;
    const vec base = vec_set(reference[r]);
    vec x = vec_zero(), y = vec_zero();
    for (int64_t j = 0; j < keys; j += 32) {
      const vec a = vec_exp(vec_sub(vec_mul(vec_load(row + j), scale), base));
      const vec b = vec_exp(vec_sub(vec_mul(vec_load(row + j + VEC), scale), base));
      split_weights(a, b, terms, p + j / 32 * terms * PAIR + r * 32);
      x = vec_add(x, a);
      y = vec_add(y, b);
    }
    vec_store(l + r * VEC, vec_fma(vec_load(l + r * VEC), vec_set(shrink[r]), vec_add(x, y)));
  }
}

#endif
