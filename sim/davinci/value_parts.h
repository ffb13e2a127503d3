/* What the files behind values.h share: conversions of arrays, one repeat of a vector instruction, its reductions. */
#ifndef DV_VALUE_PARTS_H
#define DV_VALUE_PARTS_H

#include <string.h>

#include "davinci/values.h"

enum { DV_BLOCK = 32, DV_FRACTAL = 512, DV_MOST_LANES = 256 };

static inline uint32_t dv_bits_of(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}
static inline float dv_float_of(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
static inline int dv_is_float(dv_type type) { return type == DV_F32 || type == DV_F16 || type == DV_BF16; }

/* Without branches, for the vectoriser. */
static inline float dv_widen_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, body = h & 0x7fffu;
  const uint32_t normal = (body << 13) + (112u << 23), special = normal + (112u << 23);
  const uint32_t tiny = dv_bits_of((float)(int32_t)body * 0x1p-24f);
  const uint32_t large = (int32_t)body < 0x7c00 ? normal : special;
  return dv_float_of(((int32_t)body < 0x400 ? tiny : large) | sign);
}
static inline uint16_t dv_narrow_f16(float f) {
  const uint32_t bits = dv_bits_of(f), sign = bits >> 16 & 0x8000u, body = bits & 0x7fffffffu;
  const uint32_t normal = (body + 0xfffu + (body >> 13 & 1u) - (112u << 23)) >> 13;
  const uint32_t tiny = dv_bits_of(dv_float_of(body) + 0.5f) - 0x3f000000u; /* a half's last place beside 0.5 */
  const uint32_t nan = 0x7e00u | (body >> 13 & 0x3ffu);
  const int32_t size = (int32_t)body;
  const uint32_t finite = size < 0x38800000 ? tiny : normal, special = size > 0x7f800000 ? nan : 0x7c00u;
  return (uint16_t)((size < 0x477ff000 ? finite : special) | sign);
}
static inline float dv_widen_bf16(uint16_t b) { return dv_float_of((uint32_t)b << 16); }
static inline uint16_t dv_narrow_bf16(float f) {
  const uint32_t bits = dv_bits_of(f), nan = bits >> 16 | 0x40u;
  const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)((int32_t)(bits & 0x7fffffffu) > 0x7f800000 ? nan : nearest);
}

/* What rounds to infinity, in whatever direction, becomes the largest number. */
static inline float dv_clamp(float f, float most) {
  const float above = f > most ? most : f, within = above < -most ? -most : above;
  return f == f ? within : 0.0f;
}
static inline uint16_t dv_saturate_f16(float f) { return dv_narrow_f16(dv_clamp(f, 65504.0f)); }
static inline uint16_t dv_saturate_bf16(float f) { return dv_narrow_bf16(dv_clamp(f, 0x1.fep127f)); }

/* Elements of f32, f16 or bf16 to fp32 and back, nearest even; addresses need no alignment. */
void dv_widen(dv_type type, float *to, const void *from, size_t count);
void dv_narrow(dv_type type, void *to, const float *from, size_t count);
/* dv_narrow with results as CTRL[48] = 0 has them where it saturates: no infinities but the largest numbers, no NaN but 0. */
void dv_narrow_as(dv_type type, void *to, const float *from, size_t count, int saturates);
/* to[i] += from[i], as an atomic add in GM does. */
void dv_accumulate(dv_type type, void *to, const void *from, size_t count);
int64_t dv_load_integer(dv_type type, const void *from);
void dv_store_integer(dv_type type, void *to, int64_t value); /* the low bits */
void dv_cast(dv_type type, dv_type to, dv_round round, void *out, const void *in, uint32_t count, int saturates);

/* The elements of one repeat that take part: lane i is bit i. Where they are the first `used` ones, is_first says
 * so. */
typedef struct dv_lanes {
  uint32_t lanes, used; /* of a repeat; one behind the last that takes part */
  int is_first;
  uint64_t bits[DV_MOST_LANES / 64];
} dv_lanes;
static inline int dv_takes_part(const dv_lanes *lanes, uint32_t lane) {
  return (int)(lanes->bits[lane / 64] >> lane % 64 & 1u);
}

/* A repeat of DV_WHOLE_*, DV_BLOCK_* or DV_PAIR_SUM; `values` holds its lanes. */
void dv_reduce(const dv_vector *vector, void *dst, uint32_t repeat, const dv_lanes *lanes, float *values);

#endif
