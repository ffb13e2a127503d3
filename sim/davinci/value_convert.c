/* Conversions between the types of an Ascend core.
 *
 * Floating-point results that overflow become infinities and NaN stays NaN, unless the caller wants results
 * to saturate: which of both a core does CTRL[48] says (instructions.h). Integers saturate, as Cast is
 * documented. NaN to an integer is not documented: 0 here. */
#include "davinci/value_parts.h"

#include <math.h>

float dv_f32_of_f16(uint16_t h) { return dv_widen_f16(h); }
uint16_t dv_f16_of_f32(float f) { return dv_narrow_f16(f); }
float dv_f32_of_bf16(uint16_t b) { return dv_widen_bf16(b); }
uint16_t dv_bf16_of_f32(float f) { return dv_narrow_bf16(f); }

enum { PIECE = 64 }; /* elements at a time: loops of known length are vectorised at -O2 too */

#define CONVERT_WITH(target, name, to_type, from_type, convert)                                     \
  target static void name(void *to, const void *from, size_t count) {                            \
    from_type in[PIECE] = {0};                                                                   \
    to_type out[PIECE];                                                                          \
    for (; count >= PIECE; count -= PIECE) {                                                     \
      memcpy(in, from, sizeof in);                                                               \
      for (int n = 0; n < PIECE; ++n) out[n] = convert(in[n]);                                   \
      memcpy(to, out, sizeof out);                                                               \
      from = (const unsigned char *)from + sizeof in, to = (unsigned char *)to + sizeof out;     \
    }                                                                                            \
    if (count == 0) return;                                                                      \
    memcpy(in, from, count * sizeof *in);                                                        \
    for (int n = 0; n < PIECE; ++n) out[n] = convert(in[n]);                                     \
    memcpy(to, out, count * sizeof *out);                                                        \
  }
#if defined(__x86_64__)
#define CONVERT(name, to_type, from_type, convert)                                               \
  CONVERT_WITH(, name##_c, to_type, from_type, convert)                                          \
  CONVERT_WITH(__attribute__((target("avx2"))), name##_avx2, to_type, from_type, convert)        \
  static void name(void *to, const void *from, size_t count) {                                   \
    (__builtin_cpu_supports("avx2") ? name##_avx2 : name##_c)(to, from, count);                  \
  }
#else
#define CONVERT(name, to_type, from_type, convert) CONVERT_WITH(, name, to_type, from_type, convert)
#endif
CONVERT(widen_f16, float, uint16_t, dv_widen_f16)
CONVERT(widen_bf16, float, uint16_t, dv_widen_bf16)
CONVERT(narrow_f16, uint16_t, float, dv_narrow_f16)
CONVERT(narrow_bf16, uint16_t, float, dv_narrow_bf16)
CONVERT(saturate_f16, uint16_t, float, dv_saturate_f16)
CONVERT(saturate_bf16, uint16_t, float, dv_saturate_bf16)

void dv_widen(dv_type type, float *to, const void *from, size_t count) {
  if (type == DV_F16) widen_f16(to, from, count);
  else if (type == DV_BF16) widen_bf16(to, from, count);
  else memcpy(to, from, count * sizeof *to);
}

void dv_narrow(dv_type type, void *to, const float *from, size_t count) {
  if (type == DV_F16) narrow_f16(to, from, count);
  else if (type == DV_BF16) narrow_bf16(to, from, count);
  else memcpy(to, from, count * sizeof *from);
}

void dv_narrow_as(dv_type type, void *to, const float *from, size_t count, int saturates) {
  if (saturates && type == DV_F16) saturate_f16(to, from, count);
  else if (saturates && type == DV_BF16) saturate_bf16(to, from, count);
  else dv_narrow(type, to, from, count);
}

int64_t dv_load_integer(dv_type type, const void *from) {
  const uint32_t bytes = dv_type_bytes(type);
  uint64_t bits = 0;
  memcpy(&bits, from, bytes);
  switch (type) {
    case DV_S8: return (int8_t)bits;
    case DV_S16: return (int16_t)bits;
    case DV_S32: return (int32_t)bits;
    default: return (int64_t)bits;
  }
}

void dv_store_integer(dv_type type, void *to, int64_t value) { memcpy(to, &value, dv_type_bytes(type)); }

void dv_accumulate(dv_type type, void *to, const void *from, size_t count) {
  const size_t bytes = dv_type_bytes(type);
  unsigned char *sums = to;
  const unsigned char *terms = from;
  for (size_t n = 0; n < count; ++n, sums += bytes, terms += bytes) {
    if (dv_is_float(type)) {
      float sum, term;
      dv_widen(type, &sum, sums, 1);
      dv_widen(type, &term, terms, 1);
      sum += term;
      dv_narrow(type, sums, &sum, 1);
    } else {
      const uint64_t sum = (uint64_t)dv_load_integer(type, sums) + (uint64_t)dv_load_integer(type, terms);
      dv_store_integer(type, sums, (int64_t)sum);
    }
  }
}

/* ------------------------------------------------------------------ Cast */

/* Whether a magnitude cut off to `cut`, with `rest` of `one` lost, goes up by one. Odd: what is lost stays in the
 * last bit. */
static uint32_t goes_up(dv_round round, uint32_t cut, uint64_t rest, uint64_t one, int is_negative) {
  switch (round) {
    case DV_FLOOR: return is_negative && rest;
    case DV_CEIL: return !is_negative && rest;
    case DV_ROUND_AWAY: return rest >= one / 2;
    case DV_TRUNC: return 0;
    case DV_ODD: return rest && !(cut & 1u);
    default: return rest > one / 2 || (rest == one / 2 && (cut & 1u));
  }
}

static uint16_t round_f16(float f, dv_round round) {
  const uint32_t bits = dv_bits_of(f), body = bits & 0x7fffffffu;
  const int is_negative = bits >> 31 != 0;
  if (body >= 0x7f800000u) return dv_narrow_f16(f);
  const uint32_t exponent = body >> 23;
  uint64_t one = 1u << 13, rest = body & 0x1fffu;
  uint32_t cut = (body >> 13) - (112u << 10);
  if (exponent > 142) { /* beyond the largest half, whatever its bits */
    cut = 0x7bffu;
    rest = one - 1;
  } else if (exponent < 113) {
    const uint32_t drop = 126u - exponent < 40 ? 126u - exponent : 40;
    const uint64_t mantissa = exponent ? (body & 0x7fffffu) | 0x800000u : 0;
    one = (uint64_t)1 << drop;
    cut = (uint32_t)(mantissa >> drop);
    rest = exponent || !body ? mantissa & (one - 1) : 1; /* an fp32 subnormal is less than any half's half */
  }
  return (uint16_t)((cut + goes_up(round, cut, rest, one, is_negative)) | (is_negative ? 0x8000u : 0u));
}

static uint16_t round_bf16(float f, dv_round round) {
  const uint32_t bits = dv_bits_of(f), body = bits & 0x7fffffffu;
  if (body >= 0x7f800000u) return dv_narrow_bf16(f);
  return (uint16_t)((bits >> 16) + goes_up(round, body >> 16, body & 0xffffu, 0x10000u, bits >> 31 != 0));
}

static double round_whole(double x, dv_round round) {
  switch (round) {
    case DV_FLOOR: return floor(x);
    case DV_CEIL: return ceil(x);
    case DV_ROUND_AWAY: return trunc(x) + (fabs(x - trunc(x)) >= 0.5 ? copysign(1.0, x) : 0.0);
    case DV_TRUNC: return trunc(x);
    case DV_ODD: return x != trunc(x) && fmod(trunc(x), 2.0) == 0.0 ? trunc(x) + copysign(1.0, x) : trunc(x);
    default: return rint(x);
  }
}

static int64_t saturated(dv_type type, double whole) {
  const uint32_t bits = dv_type_bytes(type) * 8;
  const int is_signed = type == DV_S8 || type == DV_S16 || type == DV_S32 || type == DV_S64;
  const double least = is_signed ? -ldexp(1.0, (int)bits - 1) : 0.0, behind = ldexp(1.0, (int)bits - is_signed);
  if (whole != whole) return 0;
  if (whole < least) return is_signed ? INT64_MIN >> (64 - bits) : 0;
  if (whole >= behind) return (int64_t)(UINT64_MAX >> (64 - bits + (uint32_t)is_signed));
  return whole < 0x1p63 ? (int64_t)whole : (int64_t)(uint64_t)whole;
}

static int64_t saturated_integer(dv_type type, int64_t value) {
  if (dv_type_bytes(type) == 8) return value;
  return saturated(type, (double)value); /* what a double cannot hold is beyond 32 bits anyway */
}

/* An integer in fp32. 64 bits are cut to 53 with what was lost kept in the last, so that they are rounded once. */
static float round_f32(int64_t value, dv_round round) {
  const int64_t limit = (int64_t)1 << 53;
  double exact;
  if (value > -limit && value < limit) exact = (double)value;
  else exact = (double)(int64_t)(((uint64_t)value & ~(uint64_t)0x7ff) | ((uint64_t)value & 0x7ff ? 0x800u : 0u));
  const float nearest = (float)exact;
  const double error = (double)nearest - exact;
  if (error == 0.0 || round == DV_ROUND_NONE || round == DV_RINT) return nearest;
  const float below = error > 0.0 ? nextafterf(nearest, -INFINITY) : nearest;
  const float above = error > 0.0 ? nearest : nextafterf(nearest, INFINITY);
  const float inner = exact > 0.0 ? below : above, outer = exact > 0.0 ? above : below;
  switch (round) {
    case DV_FLOOR: return below;
    case DV_CEIL: return above;
    case DV_TRUNC: return inner;
    case DV_ODD: return dv_bits_of(inner) & 1u ? inner : outer;
    default: return fabs(exact - (double)inner) < fabs((double)outer - exact) ? inner : outer;
  }
}

static void cast_one(dv_type type, dv_type to, dv_round round, void *out, const void *in, int saturates) {
  float f = 0.0f;
  if (dv_is_float(type)) {
    dv_widen(type, &f, in, 1);
    if (!dv_is_float(to)) {
      dv_store_integer(to, out, saturated(to, round_whole((double)f, round)));
      return;
    }
  } else {
    const int64_t value = dv_load_integer(type, in);
    if (!dv_is_float(to)) {
      dv_store_integer(to, out, saturated_integer(to, value));
      return;
    }
    f = round_f32(value, to == DV_F32 ? round : DV_ODD); /* odd, so that the half is rounded once */
  }
  if (to == DV_F32) {
    if (type == DV_F32) f = (float)round_whole((double)f, round);
    memcpy(out, &f, sizeof f);
  } else {
    if (saturates) f = dv_clamp(f, to == DV_F16 ? 65504.0f : 0x1.fep127f);
    const uint16_t h = to == DV_F16 ? round_f16(f, round) : round_bf16(f, round);
    memcpy(out, &h, sizeof h);
  }
}

/* fp32 to fp32 rounds to whole numbers; NONE is nearest even where something is lost, as documented. */
void dv_cast(dv_type type, dv_type to, dv_round round, void *out, const void *in, uint32_t count, int saturates) {
  const int is_nearest = round == DV_ROUND_NONE || round == DV_RINT;
  if (to == DV_F32 && (type == DV_F16 || type == DV_BF16)) {
    dv_widen(type, out, in, count);
  } else if (type == DV_F32 && (to == DV_F16 || to == DV_BF16) && is_nearest) {
    dv_narrow_as(to, out, in, count, saturates);
  } else {
    const uint32_t in_bytes = dv_type_bytes(type), out_bytes = dv_type_bytes(to);
    for (uint32_t n = 0; n < count; ++n)
      cast_one(type, to, round, (unsigned char *)out + n * out_bytes, (const unsigned char *)in + n * in_bytes, saturates);
  }
}
