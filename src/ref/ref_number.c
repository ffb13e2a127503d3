/* Storage types from their definitions: sign, exponent, significand. Slow and independent on purpose. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "ref/ref.h"

/* A binary format with an implicit leading bit and subnormals. */
typedef struct format {
  int exponent_bits;
  int fraction_bits;
  int bias;
  int has_infinity; /* 0: E4M3, whose only special value is all ones */
} format;

static const format f16_format = {5, 10, 15, 1};
static const format bf16_format = {8, 7, 127, 1};
static const format e4m3_format = {4, 3, 7, 0};

/* 2^exponent, for the exponents of a normal double. ldexp here was most of the time of checking a long cache.
 */
static double power_of_two(int exponent) {
  const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

static double decode(uint32_t bits, const format *f) {
  const uint32_t fraction_mask = (1u << f->fraction_bits) - 1u;
  const uint32_t exponent_mask = (1u << f->exponent_bits) - 1u;
  const uint32_t fraction = bits & fraction_mask;
  const uint32_t exponent = (bits >> f->fraction_bits) & exponent_mask;
  const int negative = (int)((bits >> (f->fraction_bits + f->exponent_bits)) & 1u);
  double magnitude;
  if (exponent == exponent_mask && f->has_infinity)
    magnitude = fraction ? (double)NAN : (double)INFINITY;
  else if (exponent == exponent_mask && fraction == fraction_mask)
    magnitude = (double)NAN;
  else if (exponent == 0)
    magnitude = (double)fraction * power_of_two(1 - f->bias - f->fraction_bits);
  else
    magnitude = (double)(fraction | (1u << f->fraction_bits)) *
                power_of_two((int)exponent - f->bias - f->fraction_bits);
  return negative ? -magnitude : magnitude;
}

static uint32_t encode(double value, const format *f) {
  const uint32_t sign = signbit(value) ? 1u << (f->exponent_bits + f->fraction_bits) : 0u;
  const uint32_t exponent_mask = (1u << f->exponent_bits) - 1u;
  const uint32_t infinity = exponent_mask << f->fraction_bits;
  const uint32_t largest = f->has_infinity ? infinity - 1u : infinity + (1u << f->fraction_bits) - 2u;
  if (isnan(value)) {
    return sign | (f->has_infinity ? infinity | (1u << (f->fraction_bits - 1)) : largest + 1u);
  }
  const double magnitude = fabs(value);
  if (magnitude == 0.0) return sign;
  if (isinf(magnitude)) return sign | (f->has_infinity ? infinity : largest);

  int exponent = ilogb(magnitude);
  if (exponent < 1 - f->bias) exponent = 1 - f->bias;
  /* The significand in units of its last place; nearbyint rounds halves to even. */
  const double units = nearbyint(ldexp(magnitude, f->fraction_bits - exponent));
  /* units may have reached the next power of two: adding it to the exponent field carries. */
  const double code = ldexp((double)(exponent + f->bias - 1), f->fraction_bits) + units;
  if (code > (double)largest) return sign | (f->has_infinity ? infinity : largest);
  return sign | (uint32_t)code;
}

double fa_ref_load(const void *data, int64_t index, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT32:
      return (double)((const float *)data)[index];
    case FA_FLOAT16:
      return decode(((const uint16_t *)data)[index], &f16_format);
    case FA_BFLOAT16:
      return decode(((const uint16_t *)data)[index], &bf16_format);
    case FA_INT8:
      return (double)((const int8_t *)data)[index];
    case FA_FP8_E4M3:
      return decode(((const uint8_t *)data)[index], &e4m3_format);
  }
  return (double)NAN;
}

void fa_ref_store(void *data, int64_t index, double value, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT32:
      ((float *)data)[index] = (float)value;
      break;
    case FA_FLOAT16:
      ((uint16_t *)data)[index] = (uint16_t)encode(value, &f16_format);
      break;
    case FA_BFLOAT16:
      ((uint16_t *)data)[index] = (uint16_t)encode(value, &bf16_format);
      break;
    case FA_INT8:
      ((int8_t *)data)[index] = (int8_t)fmin(fmax(nearbyint(value), -127.0), 127.0);
      break;
    case FA_FP8_E4M3:
      ((uint8_t *)data)[index] = (uint8_t)encode(value, &e4m3_format);
      break;
  }
}

double fa_ref_round(double value, fa_dtype dtype) {
  union {
    float f32;
    uint16_t u16;
    uint8_t u8;
  } cell;
  memset(&cell, 0, sizeof cell);
  fa_ref_store(&cell, 0, value, dtype);
  return fa_ref_load(&cell, 0, dtype);
}
