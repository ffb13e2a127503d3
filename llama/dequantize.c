/* Blocks, all little-endian, with f16 scales d and m (layouts of the GGUF format):
 *   Q8_0  d, 32 x int8                  w = d q
 *   Q4_0  d, 16 bytes                   w = d (q - 8); byte j holds elements j (low nibble) and j + 16
 *   Q4_1  d, m, 16 bytes                w = d q + m; the same order
 *   Q6_K  128 bytes of low nibbles, 64 of pairs of high bits, 16 x int8 scales s, d: 256 elements,
 *         w = d s (q - 32)
 *
 * The order of operations is the reference's, so floats equal it bit for bit. */
#include "dequantize.h"

#include <string.h>

static float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float half_at(const uint8_t *source) {
  const uint32_t h = (uint32_t)source[0] | (uint32_t)source[1] << 8;
  const uint32_t sign = (h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude < 0x400u) {
    const float value = (float)magnitude * 0x1p-24f;
    return sign ? -value : value;
  }
  return float_from_bits(sign | ((magnitude << 13) + 0x38000000u));
}

static void f32_to_float(const uint8_t *source, float *floats, int64_t elements) {
  memcpy(floats, source, (size_t)elements * sizeof(float));
}

static void f16_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t i = 0; i < elements; i++) floats[i] = half_at(source + 2 * i);
}

static void bf16_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t i = 0; i < elements; i++) {
    floats[i] = float_from_bits((uint32_t)source[2 * i] << 16 | (uint32_t)source[2 * i + 1] << 24);
  }
}

static void q8_0_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 34, floats += 32) {
    const float d = half_at(source);
    for (int j = 0; j < 32; j++) floats[j] = d * (float)(int8_t)source[2 + j];
  }
}

static void q4_0_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 18, floats += 32) {
    const float d = half_at(source);
    for (int j = 0; j < 16; j++) {
      floats[j] = d * (float)((source[2 + j] & 15) - 8);
      floats[j + 16] = d * (float)((source[2 + j] >> 4) - 8);
    }
  }
}

static void q4_1_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 32; block++, source += 20, floats += 32) {
    const float d = half_at(source), m = half_at(source + 2);
    for (int j = 0; j < 16; j++) {
      floats[j] = d * (float)(source[4 + j] & 15) + m;
      floats[j + 16] = d * (float)(source[4 + j] >> 4) + m;
    }
  }
}

/* Half a block (128 elements) at a time: element 32 k + l has its low nibble in byte low[l + 32 (k & 1)], the
 * upper one from k = 2 on, and its two high bits in high[l] at bit 2 k. */
static void q6_k_to_float(const uint8_t *source, float *floats, int64_t elements) {
  for (int64_t block = 0; block < elements / 256; block++, source += 210) {
    const float d = half_at(source + 208);
    for (int half = 0; half < 2; half++, floats += 128) {
      const uint8_t *low = source + 64 * half, *high = source + 128 + 32 * half,
                    *scales = source + 192 + 8 * half;
      for (int e = 0; e < 128; e++) {
        const int k = e / 32, l = e % 32;
        const int q = ((low[l + 32 * (k & 1)] >> (k / 2 * 4)) & 15) | ((high[l] >> (2 * k)) & 3) << 4;
        floats[e] = d * (float)(int8_t)scales[e / 16] * (float)(q - 32);
      }
    }
  }
}

static const fa_ggml_type types[] = {
    [FA_GGML_F32] = {"F32", 1, 4, f32_to_float},
    [FA_GGML_F16] = {"F16", 1, 2, f16_to_float},
    [FA_GGML_Q4_0] = {"Q4_0", 32, 18, q4_0_to_float},
    [FA_GGML_Q4_1] = {"Q4_1", 32, 20, q4_1_to_float},
    [6] = {"Q5_0", 32, 22, NULL},
    [7] = {"Q5_1", 32, 24, NULL},
    [FA_GGML_Q8_0] = {"Q8_0", 32, 34, q8_0_to_float},
    [9] = {"Q8_1", 32, 36, NULL},
    [10] = {"Q2_K", 256, 84, NULL},
    [11] = {"Q3_K", 256, 110, NULL},
    [12] = {"Q4_K", 256, 144, NULL},
    [13] = {"Q5_K", 256, 176, NULL},
    [FA_GGML_Q6_K] = {"Q6_K", 256, 210, q6_k_to_float},
    [15] = {"Q8_K", 256, 292, NULL},
    [16] = {"IQ2_XXS", 256, 66, NULL},
    [17] = {"IQ2_XS", 256, 74, NULL},
    [18] = {"IQ3_XXS", 256, 98, NULL},
    [19] = {"IQ1_S", 256, 50, NULL},
    [20] = {"IQ4_NL", 32, 18, NULL},
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

const char fa_ggml_types_read[] = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q6_K";

const fa_ggml_type *fa_ggml_type_of(int32_t type) {
  if (type < 0 || type >= (int32_t)(sizeof types / sizeof types[0]) || !types[type].name) return NULL;
  return &types[type];
}
