/* Scalar conversions between the storage types and fp32. static inline: every ISA file gets its own copy,
 * compiled with that file's flags, so no vector code can leak into a plain path through the linker. */
#ifndef FA_CORE_DTYPE_H
#define FA_CORE_DTYPE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "fastattention/fastattention.h"

static inline float fa_float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t fa_float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float fa_bf16_to_float(uint16_t h) { return fa_float_from_bits((uint32_t)h << 16); }

/* Round to nearest even; NaN stays NaN (quiet). */
static inline uint16_t fa_bf16_from_float(float value) {
  uint32_t bits = fa_float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float fa_f16_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return fa_float_from_bits(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude < 0x400u) { /* subnormal: magnitude * 2^-24 */
    const float value = (float)magnitude * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  return fa_float_from_bits(sign | ((magnitude << 13) + 0x38000000u));
}

/* Round to nearest even, overflow to infinity, NaN stays NaN. */
static inline uint16_t fa_f16_from_float(float value) {
  const uint32_t bits = fa_float_bits(value);
  const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
  if (magnitude < 0x38800000u) { /* below 2^-14: let the fp32 adder round to a multiple of 2^-24 */
    const float shifted = fa_float_from_bits(magnitude) + 0.5f;
    return (uint16_t)(sign | (fa_float_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u;
  return (uint16_t)(sign | (rounded >> 13));
}

static inline float fa_fp8_to_float(uint8_t h) {
  const uint32_t magnitude = h & 0x7fu;
  float value;
  if (magnitude == 0x7fu) value = NAN;
  else if (magnitude < 8u) value = (float)magnitude * 0.001953125f; /* subnormal: units of 2^-9 */
  else value = fa_float_from_bits((magnitude << 20) + 0x3c000000u);
  return (h & 0x80u) ? -value : value;
}

/* Round to nearest even, saturating at 448; NaN becomes 0x7f. */
static inline uint8_t fa_fp8_from_float(float value) {
  const uint8_t sign = (uint8_t)((fa_float_bits(value) >> 24) & 0x80u);
  const float magnitude = fabsf(value);
  if (magnitude != magnitude) return (uint8_t)(sign | 0x7fu);
  if (magnitude >= 448.0f) return (uint8_t)(sign | 0x7eu);
  if (magnitude < 0.015625f) { /* below 2^-6: a multiple of 2^-9 */
    const float shifted = magnitude + 16384.0f;
    return (uint8_t)(sign | (fa_float_bits(shifted) - 0x46800000u));
  }
  const uint32_t bits = fa_float_bits(magnitude);
  const uint32_t rounded = bits + 0x7ffffu + ((bits >> 20) & 1u) - 0x3c000000u;
  return (uint8_t)(sign | (rounded >> 20));
}

/* Element `index` of a tensor of any of the types, unscaled. */
static inline float fa_load_float(const void *data, int64_t index, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT32: return ((const float *)data)[index];
    case FA_FLOAT16: return fa_f16_to_float(((const uint16_t *)data)[index]);
    case FA_BFLOAT16: return fa_bf16_to_float(((const uint16_t *)data)[index]);
    case FA_INT8: return (float)((const int8_t *)data)[index];
    case FA_FP8_E4M3: return fa_fp8_to_float(((const uint8_t *)data)[index]);
  }
  return NAN;
}

/* Stores to a tensor of FLOAT32, FLOAT16 or BFLOAT16. */
static inline void fa_store_float(void *data, int64_t index, float value, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT16: ((uint16_t *)data)[index] = fa_f16_from_float(value); break;
    case FA_BFLOAT16: ((uint16_t *)data)[index] = fa_bf16_from_float(value); break;
    default: ((float *)data)[index] = value; break;
  }
}

/* A row of any of the types to fp32, unscaled; of FLOAT32, FLOAT16 or BFLOAT16 back. One test of the type a row. */
static inline void fa_load_row(float *to, const void *from, int64_t count, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT32: memcpy(to, from, (size_t)count * sizeof *to); break;
    case FA_FLOAT16: for (int64_t i = 0; i < count; ++i) to[i] = fa_load_float(from, i, FA_FLOAT16); break;
    case FA_BFLOAT16: for (int64_t i = 0; i < count; ++i) to[i] = fa_load_float(from, i, FA_BFLOAT16); break;
    case FA_INT8: for (int64_t i = 0; i < count; ++i) to[i] = fa_load_float(from, i, FA_INT8); break;
    case FA_FP8_E4M3: for (int64_t i = 0; i < count; ++i) to[i] = fa_load_float(from, i, FA_FP8_E4M3); break;
  }
}

static inline void fa_store_row(void *to, const float *from, int64_t count, fa_dtype dtype) {
  if (dtype == FA_FLOAT16)
    for (int64_t i = 0; i < count; ++i) fa_store_float(to, i, from[i], FA_FLOAT16);
  else if (dtype == FA_BFLOAT16)
    for (int64_t i = 0; i < count; ++i) fa_store_float(to, i, from[i], FA_BFLOAT16);
  else
    memcpy(to, from, (size_t)count * sizeof *from);
}

static inline size_t fa_dtype_size(fa_dtype dtype) {
  return dtype == FA_FLOAT32 ? 4u : dtype == FA_FLOAT16 || dtype == FA_BFLOAT16 ? 2u : 1u;
}

#endif
