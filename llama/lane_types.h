/* Rounding to 16-bit types and back without branches, so that loops over them become vectors.
 *
 * WIDEST_VECTORS: a plain, short loop compiled for every vector width, the widest the processor has chosen at
 * load time; a prompt spends its time in such loops otherwise. Sanitizers do not get along with that choice.
 */
#ifndef FA_LLAMA_LANE_TYPES_H
#define FA_LLAMA_LANE_TYPES_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define WIDEST_VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST_VECTORS
#endif

static inline uint32_t fa_bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float fa_float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint16_t fa_bf16_of(float value) {
  const uint32_t bits = fa_bits_of(value), rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  /* Rounding must not turn a NaN with low bits only into infinity. */
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded >> 16);
}

static inline float fa_float_of_bf16(uint16_t value) { return fa_float_of_bits((uint32_t)value << 16); }

/* Below 2^-14 halves are multiples of 2^-24: adding 1/2, whose last place that is, rounds to them. */
static inline uint16_t fa_f16_of(float value) {
  const uint32_t bits = fa_bits_of(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  const uint32_t small = fa_bits_of(fa_float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t huge = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  return (uint16_t)(sign | (magnitude < 0x38800000u ? small : magnitude >= 0x47800000u ? huge : normal));
}

static inline float fa_float_of_f16(uint16_t value) {
  const uint32_t sign = (uint32_t)(value & 0x8000u) << 16, magnitude = (uint32_t)(value & 0x7fffu) << 13;
  const uint32_t finite = fa_bits_of(fa_float_of_bits(magnitude) * 0x1p112f);
  return fa_float_of_bits(sign | (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite));
}

#endif
