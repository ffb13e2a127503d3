/* Two vectors of fp32 lanes in AArch64's NEON, worked on as one of eight: the operations that the shared
 * kernels are written in. Two, because a register tile of the shared kernels is two vectors wide, and four
 * registers beside six rows are what fills the 32 there are. lanes_avx2.h and lanes_avx512.h define the same
 * names; a file includes exactly one of them. */
#ifndef FA_CPU_LANES_NEON_H
#define FA_CPU_LANES_NEON_H

#include <arm_neon.h>

#include "core/dtype.h"

enum { VEC = 8 };
typedef struct vec {
  float32x4_t low, high;
} vec;
#define FA_INLINE static inline __attribute__((always_inline))

FA_INLINE vec vec_zero(void) { return (vec){vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)}; }
FA_INLINE vec vec_set(float x) { return (vec){vdupq_n_f32(x), vdupq_n_f32(x)}; }
FA_INLINE vec vec_load(const float *from) { return (vec){vld1q_f32(from), vld1q_f32(from + 4)}; }
FA_INLINE void vec_store(float *to, vec x) {
  vst1q_f32(to, x.low);
  vst1q_f32(to + 4, x.high);
}
FA_INLINE vec vec_add(vec a, vec b) { return (vec){vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
FA_INLINE vec vec_sub(vec a, vec b) { return (vec){vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
FA_INLINE vec vec_mul(vec a, vec b) { return (vec){vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
FA_INLINE vec vec_fma(vec a, vec b, vec c) {
  return (vec){vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
FA_INLINE vec vec_max(vec a, vec b) { return (vec){vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
FA_INLINE float vec_sum(vec x) { return vaddvq_f32(vaddq_f32(x.low, x.high)); }
FA_INLINE float vec_top(vec x) { return vmaxvq_f32(vmaxq_f32(x.low, x.high)); }

/* x where the bits of `drop` are 0, else 0. */
FA_INLINE float32x4_t neon_keep(float32x4_t x, uint32x4_t drop) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), drop));
}

/* x where x is not -inf, else 0: a reference that can be subtracted. */
FA_INLINE vec vec_reference(vec x) {
  const float32x4_t nothing = vdupq_n_f32(-INFINITY);
  return (vec){neon_keep(x.low, vceqq_f32(x.low, nothing)), neon_keep(x.high, vceqq_f32(x.high, nothing))};
}

FA_INLINE float32x4_t neon_exp(float32x4_t x) {
  const float32x4_t t = vmulq_f32(x, vdupq_n_f32(1.44269504088896341f));
  const float32x4_t n = vrndnq_f32(t);
  const float32x4_t r = vsubq_f32(t, n);
  float32x4_t p = vdupq_n_f32(1.535336188319500e-4f);
  p = vfmaq_f32(vdupq_n_f32(1.339887440266574e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(9.618437357674640e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(5.550332471162809e-2f), p, r);
  p = vfmaq_f32(vdupq_n_f32(2.402264791363012e-1f), p, r);
  p = vfmaq_f32(vdupq_n_f32(6.931472028550421e-1f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
  return neon_keep(vmulq_f32(p, vreinterpretq_f32_s32(power)), vcltq_f32(x, vdupq_n_f32(-87.0f)));
}

/* e^x for x <= 0, 0 below -87 (no subnormal weights, they are slow), NaN for NaN; relative error about 1e-7.
 */
FA_INLINE vec vec_exp(vec x) { return (vec){neon_exp(x.low), neon_exp(x.high)}; }

/* 8 fp16 and 8 bf16 numbers as fp32, exactly. */
FA_INLINE vec vec_from_f16(uint16x8_t half) {
  return (vec){vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(half))),
               vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(half)))};
}

FA_INLINE vec vec_from_bf16(uint16x8_t half) {
  const uint16x8_t zero = vdupq_n_u16(0);
  return (vec){vreinterpretq_f32_u16(vzip1q_u16(zero, half)), vreinterpretq_f32_u16(vzip2q_u16(zero, half))};
}

/* The other way, rounding to nearest even; no NaN for bf16. */
FA_INLINE uint16x8_t vec_to_f16(vec x) {
  return vcombine_u16(vreinterpret_u16_f16(vcvt_f16_f32(x.low)), vreinterpret_u16_f16(vcvt_f16_f32(x.high)));
}

FA_INLINE uint16x4_t neon_to_bf16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  return vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
}

FA_INLINE uint16x8_t vec_to_bf16(vec x) { return vcombine_u16(neon_to_bf16(x.low), neon_to_bf16(x.high)); }

/* The first n (>= 1) of VEC elements of a row of FLOAT32, FLOAT16 or BFLOAT16; the rest 0. Reads nothing
 * beyond. */
FA_INLINE vec vec_load_row(const char *from, fa_dtype dtype, int64_t n) {
  uint32_t edge[VEC] = {0};
  if (n < VEC) {
    memcpy(edge, from, (size_t)n * fa_dtype_size(dtype));
    from = (const char *)edge;
  }
  if (dtype == FA_FLOAT32) return vec_load((const float *)(const void *)from);
  const uint16x8_t half = vld1q_u16((const uint16_t *)(const void *)from);
  return dtype == FA_FLOAT16 ? vec_from_f16(half) : vec_from_bf16(half);
}

/* The same the other way, rounding to nearest even. x holds no NaN. */
FA_INLINE void vec_store_row(char *to, fa_dtype dtype, int64_t n, vec x) {
  uint32_t edge[VEC];
  char *at = n < VEC ? (char *)edge : to;
  if (dtype == FA_FLOAT32)
    vec_store((float *)(void *)at, x);
  else
    vst1q_u16((uint16_t *)(void *)at, dtype == FA_FLOAT16 ? vec_to_f16(x) : vec_to_bf16(x));
  if (n < VEC) memcpy(to, edge, (size_t)n * fa_dtype_size(dtype));
}

FA_INLINE float32x4_t neon_zip_pairs(float32x4_t a, float32x4_t b, int second) {
  const float64x2_t x = vreinterpretq_f64_f32(a), y = vreinterpretq_f64_f32(b);
  return vreinterpretq_f32_f64(second ? vzip2q_f64(x, y) : vzip1q_f64(x, y));
}

FA_INLINE void neon_transpose4(float32x4_t *a, float32x4_t *b, float32x4_t *c, float32x4_t *d) {
  const float32x4_t ab0 = vtrn1q_f32(*a, *b), ab1 = vtrn2q_f32(*a, *b);
  const float32x4_t cd0 = vtrn1q_f32(*c, *d), cd1 = vtrn2q_f32(*c, *d);
  *a = neon_zip_pairs(ab0, cd0, 0);
  *b = neon_zip_pairs(ab1, cd1, 0);
  *c = neon_zip_pairs(ab0, cd0, 1);
  *d = neon_zip_pairs(ab1, cd1, 1);
}

/* Rows become columns. */
FA_INLINE void vec_transpose(vec r[VEC]) {
#pragma GCC unroll 2
  for (int i = 0; i < VEC; i += 4) {
    neon_transpose4(&r[i].low, &r[i + 1].low, &r[i + 2].low, &r[i + 3].low);
    neon_transpose4(&r[i].high, &r[i + 1].high, &r[i + 2].high, &r[i + 3].high);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const float32x4_t high = r[i].high;
    r[i].high = r[i + 4].low;
    r[i + 4].low = high;
  }
}

/* The first n (>= 1) of 8 elements; the rest 0. Reads nothing beyond. */
FA_INLINE uint16x8_t halves_load(const char *from, int64_t n) {
  if (n >= 8) return vld1q_u16((const uint16_t *)(const void *)from);
  uint16_t edge[8] = {0};
  memcpy(edge, from, (size_t)n * 2);
  return vld1q_u16(edge);
}

#endif
