/* The ceiling of VDPBF16PS: pairs of bf16 into fp32, from registers. */
#include <immintrin.h>

#include "bench_roof.h"

#define EACH(DO) \
  DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

static double multiply(int64_t rounds, volatile float *sink) {
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f0dbf3b); /* 0.55, -0.73 */
  const __m512bh y = (__m512bh)_mm512_set1_epi32(0x3eb73fa5); /* 0.36, 1.29 */
#define START(n) __m512 s##n = _mm512_set1_ps(0.1f * (float)n);
#define STEP(n) s##n = _mm512_dpbf16_ps(s##n, x, y);
#define SUM(n) total = _mm512_add_ps(total, s##n);
  EACH(START)
  for (int64_t r = 0; r < rounds; r++) {
    EACH(STEP)
  }
  __m512 total = _mm512_setzero_ps();
  EACH(SUM)
  *sink = _mm512_cvtss_f32(total);
  return 16.0 * 32.0 * 2.0 * (double)rounds;
}

static void read_all(const char *begin, size_t bytes, int streams, volatile float *sink) {
  fa_roof_avx512.read(begin, bytes, streams, sink);
}

const fa_roof_unit fa_roof_avx512_bf16 = {"avx512_bf16", "VDPBF16PS", multiply, read_all};
