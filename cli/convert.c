/* The command sees only the public API, so it brings these few conversions itself. */
#include "convert.h"

#include <string.h>

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float from_f16(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 0x1f) return float_of(sign | 0x7f800000u | mantissa << 13);
  /* as a float with the same exponent field, 2^112 too small; the product is exact, subnormals included */
  const float scaled = float_of((uint32_t)(half & 0x7fffu) << 13) * float_of(0x77800000u);
  return float_of(sign | bits_of(scaled));
}

static uint16_t to_f16(float value) {
  const uint16_t sign = (uint16_t)(bits_of(value) >> 16 & 0x8000u);
  const uint32_t magnitude = bits_of(value) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
  if (magnitude <
      0x38800000u) { /* below 2^-14: adding 0.5 rounds to a multiple of 2^-24 in fp32's own mode */
    return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u));
  }
  const uint32_t even = magnitude >> 13 & 1u;
  return (uint16_t)(sign | (magnitude + 0xfffu + even - 0x38000000u) >> 13);
}

static uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void fa_convert(void *to, fa_dtype to_dtype, const void *from, fa_dtype from_dtype, int64_t elements) {
  if (to_dtype == from_dtype) {
    memcpy(to, from, (size_t)elements * fa_dtype_bytes(to_dtype));
    return;
  }
  for (int64_t i = 0; i < elements; i++) {
    float value;
    if (from_dtype == FA_FLOAT32)
      value = ((const float *)from)[i];
    else if (from_dtype == FA_FLOAT16)
      value = from_f16(((const uint16_t *)from)[i]);
    else
      value = float_of((uint32_t)((const uint16_t *)from)[i] << 16);

    if (to_dtype == FA_FLOAT32)
      ((float *)to)[i] = value;
    else if (to_dtype == FA_FLOAT16)
      ((uint16_t *)to)[i] = to_f16(value);
    else
      ((uint16_t *)to)[i] = to_bf16(value);
  }
}
