/* NEON ceilings: fp32 FMA from registers, 128-bit loads. */
#include <arm_neon.h>

#include "bench_roof.h"

/* Sixteen chains: four FMA pipes times a latency of four. */
#define EACH(DO) \
  DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

static double multiply(int64_t rounds, volatile float *sink) {
  static const float factors[8] = {0.91f, -0.83f, 0.77f, -0.95f, 0.3f, 0.7f, 1.1f, 0.2f};
  const float32x4_t a = vld1q_f32(factors), b = vld1q_f32(factors + 4);
#define START(n) float32x4_t s##n = vdupq_n_f32(1.0f + 0.1f * (float)n);
#define STEP(n) s##n = vfmaq_f32(s##n, a, b);
#define SUM(n) total = vaddq_f32(total, s##n);
  EACH(START)
  for (int64_t r = 0; r < rounds; r++) {
    EACH(STEP)
  }
  float32x4_t total = vdupq_n_f32(0.0f);
  EACH(SUM)
  *sink = vaddvq_f32(total);
  return 16.0 * 4.0 * 2.0 * (double)rounds;
}

/* Four streams, as in bench_roof_avx512.c. */
static void read_all(const char *begin, size_t bytes, int streams, volatile float *sink) {
  uint8x16_t mixed[4] = {vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)};
  enum { CHUNK = 64 };
  const size_t gap = streams == 1 ? CHUNK : bytes / 4, stride = streams == 1 ? 4 * CHUNK : CHUNK;
  for (size_t i = 0; i < bytes / (4 * CHUNK); i++) {
    for (size_t w = 0; w < 4; w++) {
      const uint8_t *const at = (const uint8_t *)begin + w * gap + i * stride;
      const uint8x16_t first = veorq_u8(vld1q_u8(at), vld1q_u8(at + 16));
      mixed[w] = veorq_u8(mixed[w], veorq_u8(first, veorq_u8(vld1q_u8(at + 32), vld1q_u8(at + 48))));
    }
  }
  const uint8x16_t all = veorq_u8(veorq_u8(mixed[0], mixed[1]), veorq_u8(mixed[2], mixed[3]));
  *sink = (float)vaddvq_u8(all);
}

const fa_roof_unit fa_roof_neon = {"neon", "NEON fp32 FMA", multiply, read_all};
