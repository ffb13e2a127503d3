/* AVX2 ceilings: 256-bit fp32 FMA from registers, 256-bit loads. */
#include <immintrin.h>

#include "bench_roof.h"

/* Twelve chains: two FMA units times a latency of four or five need ten. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

static double multiply(int64_t rounds, volatile float *sink) {
  const __m256 by = _mm256_setr_ps(0.91f, 0.83f, 0.77f, 0.95f, 0.89f, 0.73f, 0.97f, 0.81f);
  const __m256 plus = _mm256_setr_ps(0.3f, -0.7f, 1.1f, -0.2f, 0.9f, 0.5f, -1.3f, 0.6f);
#define START(n) __m256 s##n = _mm256_set1_ps(1.0f + 0.1f * (float)n);
#define STEP(n) s##n = _mm256_fmadd_ps(s##n, by, plus);
#define SUM(n) total = _mm256_add_ps(total, s##n);
  EACH(START)
  for (int64_t r = 0; r < rounds; r++) {
    EACH(STEP)
  }
  __m256 total = _mm256_setzero_ps();
  EACH(SUM)
  *sink = _mm256_cvtss_f32(total);
  return 12.0 * 8.0 * 2.0 * (double)rounds;
}

/* Four streams, as in bench_roof_avx512.c. */
static void read_all(const char *begin, size_t bytes, int streams, volatile float *sink) {
  __m256i mixed[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
  enum { CHUNK = 64 };
  const size_t gap = streams == 1 ? CHUNK : bytes / 4, stride = streams == 1 ? 4 * CHUNK : CHUNK;
  for (size_t i = 0; i < bytes / (4 * CHUNK); i++) {
    for (size_t w = 0; w < 4; w++) {
      const char *const at = begin + w * gap + i * stride;
      mixed[w] = _mm256_xor_si256(mixed[w], _mm256_loadu_si256((const __m256i *)at));
      mixed[w] = _mm256_xor_si256(mixed[w], _mm256_loadu_si256((const __m256i *)(at + 32)));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(mixed[0], mixed[1]), _mm256_xor_si256(mixed[2], mixed[3]));
  *sink = _mm256_cvtss_f32(_mm256_castsi256_ps(all));
}

const fa_roof_unit fa_roof_avx2 = {"avx2", "AVX2 fp32 FMA", multiply, read_all};
