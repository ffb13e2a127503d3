/* The ceiling of NEON's bf16 matrix product (BFMMLA) from registers. */
#include <arm_neon.h>

#include "bench_roof.h"

#define EACH(DO) \
  DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

static double multiply(int64_t rounds, volatile float *sink) {
  static const float factors[8] = {0.91f, -0.83f, 0.77f, -0.95f, 0.3f, 0.7f, 1.1f, 0.2f};
  const float32x4_t low = vld1q_f32(factors), high = vld1q_f32(factors + 4);
  const bfloat16x8_t a = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high);
  const bfloat16x8_t b = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(high), low);
#define START(n) float32x4_t s##n = vdupq_n_f32(1.0f + 0.1f * (float)n);
#define STEP(n) s##n = vbfmmlaq_f32(s##n, a, b);
#define SUM(n) total = vaddq_f32(total, s##n);
  EACH(START)
  for (int64_t r = 0; r < rounds; r++) {
    EACH(STEP)
  }
  float32x4_t total = vdupq_n_f32(0.0f);
  EACH(SUM)
  *sink = vaddvq_f32(total);
  return 16.0 * (2.0 * 2.0 * 4.0 * 2.0) * (double)rounds;
}

static void read_all(const char *begin, size_t bytes, int streams, volatile float *sink) {
  fa_roof_neon.read(begin, bytes, streams, sink);
}

const fa_roof_unit fa_roof_neon_bf16 = {"neon_bf16", "NEON bf16 matrix product", multiply, read_all};
