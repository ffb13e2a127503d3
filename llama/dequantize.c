/* Blocks, all little-endian, with f16 scales d and m (layouts of the GGUF format):
 *   Q8_0  d, 32 x int8                  w = d q
 *   Q4_0  d, 16 bytes                   w = d (q - 8); byte j holds elements j (low nibble) and j + 16
 *   Q4_1  d, m, 16 bytes                w = d q + m; the same order
 *   Q5_0  d, 4 bytes of fifth bits, 16 bytes      w = d (q - 16)
 *   Q5_1  d, m, 4 bytes of fifth bits, 16 bytes   w = d q + m
 *   IQ4_NL  d, 16 bytes                 w = d table[q]
 * and of 256 elements, with scales s (and offsets o, of a factor m) for every 16 or 32 of them:
 *   Q2_K  16 bytes of s and o, 64 of pairs of bits, d, m              w = d s q - m o
 *   Q3_K  32 bytes of third bits, 64 of pairs of bits, 12 of s, d     w = d (s - 32) (q - 4)
 *   Q4_K  d, m, 12 bytes of s and o, 128 of nibbles                   w = d s q - m o
 *   Q5_K  d, m, 12 bytes of s and o, 32 of fifth bits, 128 of nibbles w = d s q - m o
 *   Q6_K  128 bytes of low nibbles, 64 of pairs of high bits, 16 x int8 s, d   w = d s (q - 32)
 *
 * The order of operations is the reference's, so floats equal it bit for bit. */
#include "dequantize.h"

#include <string.h>

#include "lane_types.h"

static float half_at(const uint8_t *source) {
  return fa_float_of_f16((uint16_t)(source[0] | source[1] << 8));
}

static void f32_to_float(const uint8_t *source, float *floats, int64_t elements) {
  memcpy(floats, source, (size_t)elements * sizeof(float));
}

WIDEST_VECTORS static void f16_to_float(const uint8_t *source, float *floats, int64_t elements) {
#pragma omp simd
  for (int64_t i = 0; i < elements; i++) {
    floats[i] = fa_float_of_f16((uint16_t)(source[2 * i] | source[2 * i + 1] << 8));
  }
}

WIDEST_VECTORS static void bf16_to_float(const uint8_t *source, float *floats, int64_t elements) {
#pragma omp simd
  for (int64_t i = 0; i < elements; i++) {
    floats[i] = fa_float_of_bits((uint32_t)source[2 * i] << 16 | (uint32_t)source[2 * i + 1] << 24);
  }
}

/* ------------------------------------------------------------ blocks of 32 elements */

WIDEST_VECTORS static void q8_0_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 34, floats += 32) {
    const float d = half_at(source);
    for (int j = 0; j < 32; j++) floats[j] = d * (float)(int8_t)source[2 + j];
  }
}

WIDEST_VECTORS static void q4_0_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 18, floats += 32) {
    const float d = half_at(source);
    for (int j = 0; j < 16; j++) floats[j] = d * (float)((source[2 + j] & 15) - 8);
    for (int j = 0; j < 16; j++) floats[j + 16] = d * (float)((source[2 + j] >> 4) - 8);
  }
}

WIDEST_VECTORS static void q4_1_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 20, floats += 32) {
    const float d = half_at(source), m = half_at(source + 2);
    for (int j = 0; j < 16; j++) floats[j] = d * (float)(source[4 + j] & 15) + m;
    for (int j = 0; j < 16; j++) floats[j + 16] = d * (float)(source[4 + j] >> 4) + m;
  }
}

static inline uint32_t word_at(const uint8_t *source) {
  return (uint32_t)source[0] | (uint32_t)source[1] << 8 | (uint32_t)source[2] << 16 |
         (uint32_t)source[3] << 24;
}

WIDEST_VECTORS static void q5_0_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 22, floats += 32) {
    const float d = half_at(source);
    const uint32_t fifth = word_at(source + 2);
    for (int j = 0; j < 16; j++) {
      floats[j] = d * (float)((int)((uint32_t)(source[6 + j] & 15) | (fifth >> j & 1u) << 4) - 16);
    }
    for (int j = 0; j < 16; j++) {
      floats[j + 16] =
          d * (float)((int)((uint32_t)(source[6 + j] >> 4) | (fifth >> (j + 16) & 1u) << 4) - 16);
    }
  }
}

WIDEST_VECTORS static void q5_1_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 24, floats += 32) {
    const float d = half_at(source), m = half_at(source + 2);
    const uint32_t fifth = word_at(source + 4);
    for (int j = 0; j < 16; j++) {
      floats[j] = d * (float)(int)((uint32_t)(source[8 + j] & 15) | (fifth >> j & 1u) << 4) + m;
    }
    for (int j = 0; j < 16; j++) {
      floats[j + 16] = d * (float)(int)((uint32_t)(source[8 + j] >> 4) | (fifth >> (j + 16) & 1u) << 4) + m;
    }
  }
}

/* Levels of IQ4_NL, closer together around 0. */
static const float iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

static void iq4_nl_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 18, floats += 32) {
    const float d = half_at(source);
    for (int j = 0; j < 16; j++) {
      floats[j] = d * iq4_levels[source[2 + j] & 15];
      floats[j + 16] = d * iq4_levels[source[2 + j] >> 4];
    }
  }
}

/* ----------------------------------------------------------- blocks of 256 elements
 *
 * Elements 32 k .. 32 k + 31 of a half (128) of a block of pairs of bits lie in 32 bytes, at bit 2 k of each.
 */

WIDEST_VECTORS static void q2_k_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 256; block++, source += 84, floats += 256) {
    const float d = half_at(source + 80), m = half_at(source + 82);
    for (int part = 0; part < 16; part++) {
      const uint8_t *pairs = source + 16 + part / 8 * 32 + part % 2 * 16;
      const float scale = d * (float)(source[part] & 15), offset = m * (float)(source[part] >> 4);
      const int shift = part % 8 / 2 * 2;
      for (int l = 0; l < 16; l++) floats[16 * part + l] = scale * (float)(pairs[l] >> shift & 3) - offset;
    }
  }
}

WIDEST_VECTORS static void q3_k_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 256; block++, source += 110, floats += 256) {
    const uint8_t *packed = source + 96;
    const float d = half_at(source + 108);
    for (int part = 0; part < 16; part++) {
      const uint8_t *third = source + part % 2 * 16, *pairs = source + 32 + part / 8 * 32 + part % 2 * 16;
      /* Six bits: four from the first eight bytes, two from the last four. */
      const int s = (packed[part % 8] >> part / 8 * 4 & 15) | (packed[8 + part % 4] >> part / 4 * 2 & 3) << 4;
      const float scale = d * (float)(s - 32);
      const int shift = part % 8 / 2 * 2, bit = part / 2;
      for (int l = 0; l < 16; l++) {
        floats[16 * part + l] = scale * (float)((pairs[l] >> shift & 3) - (~third[l] >> bit & 1) * 4);
      }
    }
  }
}

/* Scale and offset of the 32 elements `part` of Q4_K and Q5_K, six bits each. */
static inline void scale_and_offset(const uint8_t *packed, int part, int *scale, int *offset) {
  if (part < 4) {
    *scale = packed[part] & 63;
    *offset = packed[part + 4] & 63;
  } else {
    *scale = (packed[part + 4] & 15) | (packed[part - 4] >> 6) << 4;
    *offset = packed[part + 4] >> 4 | (packed[part] >> 6) << 4;
  }
}

WIDEST_VECTORS static void q4_k_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 256; block++, source += 144, floats += 256) {
    const float d = half_at(source), m = half_at(source + 2);
    for (int part = 0; part < 8; part++) {
      const uint8_t *nibbles = source + 16 + part / 2 * 32;
      const int shift = part % 2 * 4;
      int s, o;
      scale_and_offset(source + 4, part, &s, &o);
      const float scale = d * (float)s, offset = m * (float)o;
      for (int l = 0; l < 32; l++) floats[32 * part + l] = scale * (float)(nibbles[l] >> shift & 15) - offset;
    }
  }
}

WIDEST_VECTORS static void q5_k_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 256; block++, source += 176, floats += 256) {
    const uint8_t *fifth = source + 16;
    const float d = half_at(source), m = half_at(source + 2);
    for (int part = 0; part < 8; part++) {
      const uint8_t *nibbles = source + 48 + part / 2 * 32;
      const int shift = part % 2 * 4;
      int s, o;
      scale_and_offset(source + 4, part, &s, &o);
      const float scale = d * (float)s, offset = m * (float)o;
      for (int l = 0; l < 32; l++) {
        floats[32 * part + l] =
            scale * (float)((nibbles[l] >> shift & 15) | (fifth[l] >> part & 1) << 4) - offset;
      }
    }
  }
}

/* Of a half, elements 32 k + l have their low nibble in byte l + 32 (k & 1), the upper one from k = 2 on. */
WIDEST_VECTORS static void q6_k_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 256; block++, source += 210, floats += 256) {
    const int8_t *scales = (const int8_t *)source + 192;
    const float d = half_at(source + 208);
    for (int part = 0; part < 16; part++) {
      const int k = part % 8 / 2, first = part % 2 * 16;
      const uint8_t *low = source + part / 8 * 64 + 32 * (k & 1) + first,
                    *high = source + 128 + part / 8 * 32 + first;
      const float scale = d * (float)scales[part];
      const int nibble = k / 2 * 4, pair = 2 * k;
      for (int l = 0; l < 16; l++) {
        floats[16 * part + l] = scale * (float)(((low[l] >> nibble & 15) | (high[l] >> pair & 3) << 4) - 32);
      }
    }
  }
}

static const fa_ggml_type types[] = {
    [FA_GGML_F32] = {"F32", 1, 4, f32_to_float},
    [FA_GGML_F16] = {"F16", 1, 2, f16_to_float},
    [FA_GGML_Q4_0] = {"Q4_0", 32, 18, q4_0_to_float},
    [FA_GGML_Q4_1] = {"Q4_1", 32, 20, q4_1_to_float},
    [FA_GGML_Q5_0] = {"Q5_0", 32, 22, q5_0_to_float},
    [FA_GGML_Q5_1] = {"Q5_1", 32, 24, q5_1_to_float},
    [FA_GGML_Q8_0] = {"Q8_0", 32, 34, q8_0_to_float},
    [FA_GGML_Q8_1] = {"Q8_1", 32, 36, NULL},
    [FA_GGML_Q2_K] = {"Q2_K", 256, 84, q2_k_to_float},
    [FA_GGML_Q3_K] = {"Q3_K", 256, 110, q3_k_to_float},
    [FA_GGML_Q4_K] = {"Q4_K", 256, 144, q4_k_to_float},
    [FA_GGML_Q5_K] = {"Q5_K", 256, 176, q5_k_to_float},
    [FA_GGML_Q6_K] = {"Q6_K", 256, 210, q6_k_to_float},
    [FA_GGML_Q8_K] = {"Q8_K", 256, 292, NULL},
    [16] = {"IQ2_XXS", 256, 66, NULL},
    [17] = {"IQ2_XS", 256, 74, NULL},
    [18] = {"IQ3_XXS", 256, 98, NULL},
    [19] = {"IQ1_S", 256, 50, NULL},
    [FA_GGML_IQ4_NL] = {"IQ4_NL", 32, 18, iq4_nl_to_float},
    [21] = {"IQ3_S", 256, 110, NULL},
    [22] = {"IQ2_S", 256, 82, NULL},
    [23] = {"IQ4_XS", 256, 136, NULL},
    [24] = {"I8", 1, 1, NULL},
    [25] = {"I16", 1, 2, NULL},
    [26] = {"I32", 1, 4, NULL},
    [27] = {"I64", 1, 8, NULL},
    [28] = {"F64", 1, 8, NULL},
    [29] = {"IQ1_M", 256, 56, NULL},
    [FA_GGML_BF16] = {"BF16", 1, 2, bf16_to_float},
};

const char fa_ggml_types_read[] =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL";

const fa_ggml_type *fa_ggml_type_of(int32_t type) {
  if (type < 0 || type >= (int32_t)(sizeof types / sizeof types[0]) || !types[type].name) return NULL;
  return &types[type];
}
