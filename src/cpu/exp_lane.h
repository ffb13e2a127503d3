/* exp and tanh of one fp32 lane, written without branches so that a loop over them becomes vector code in
 * whatever instruction set the including file is compiled for. */
#ifndef FA_CPU_EXP_LANE_H
#define FA_CPU_EXP_LANE_H

#include "core/dtype.h"

/* Adding 1.5 * 2^23 rounds to an integer and leaves it, in two's complement, in the low bits. */
#define FA_EXP_ROUND 12582912.0f
#define FA_EXP_LOG2E 1.44269504088896341f
/* ln 2 in two parts; n * FA_EXP_LN2_HIGH is exact for |n| < 2^15. */
#define FA_EXP_LN2_HIGH 0.693359375f
#define FA_EXP_LN2_LOW (-2.12194440e-4f)
/* Below this e^x is smaller than the least normal number: the result is 0, so that no product downstream
 * meets a subnormal operand, which costs a hundred cycles. */
#define FA_EXP_LEAST (-87.3f)

/* (e^r - 1 - r) / r^2 on |r| <= ln2 / 2; with it e^r - 1 keeps its relative accuracy near 0 (about 1e-7). */
static inline float fa_expm1_tail(float r) {
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  return p * r + 5.0000001201e-1f;
}

/* e^x for x <= 0; 0 below FA_EXP_LEAST and for -inf, NaN for NaN. Relative error about 1.2e-7. */
static inline float fa_exp_lane(float x) {
  const float shifted = x * FA_EXP_LOG2E + FA_EXP_ROUND;
  const float n = shifted - FA_EXP_ROUND;
  const float r = (x - n * FA_EXP_LN2_HIGH) - n * FA_EXP_LN2_LOW;
  const float e = fa_expm1_tail(r) * (r * r) + r + 1.0f;
  const float power = fa_float_from_bits((fa_float_bits(shifted) << 23) + 0x3f800000u);
  return x < FA_EXP_LEAST ? 0.0f : e * power;
}

/* tanh x = (e^2|x| - 1) / (e^2|x| + 1) with the sign of x; relative error about 3e-7, NaN for NaN. */
static inline float fa_tanh_lane(float x) {
  const float magnitude = fabsf(x);
  const float y = magnitude > 10.0f ? 20.0f : 2.0f * magnitude; /* tanh 10 rounds to 1 */
  const float shifted = y * FA_EXP_LOG2E + FA_EXP_ROUND;
  const float n = shifted - FA_EXP_ROUND;
  const float r = (y - n * FA_EXP_LN2_HIGH) - n * FA_EXP_LN2_LOW;
  const float e = fa_expm1_tail(r) * (r * r) + r;
  const float power = fa_float_from_bits((fa_float_bits(shifted) << 23) + 0x3f800000u);
  const float expm1 = e * power + (power - 1.0f);
  return copysignf(expm1 / (expm1 + 2.0f), x);
}

#endif
