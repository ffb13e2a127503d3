/* AVX2 ceilings: 256-bit fp32 FMA from registers, 256-bit loads. */
#include <immintrin.h>

#define FA_ROOF_CHAINS 12 /* two FMA units times a latency of four or five need ten */
#define OPERATIONS (8.0 * 2.0)

typedef __m256 chain;
typedef __m256 operand;

static inline void operands(operand *a, operand *b) {
  *a = _mm256_setr_ps(0.91f, 0.83f, 0.77f, 0.95f, 0.89f, 0.73f, 0.97f, 0.81f);
  *b = _mm256_setr_ps(0.3f, -0.7f, 1.1f, -0.2f, 0.9f, 0.5f, -1.3f, 0.6f);
}
static inline chain first(float x) { return _mm256_set1_ps(x); }
static inline chain step(chain sum, operand a, operand b) { return _mm256_fmadd_ps(sum, a, b); }
static inline chain add(chain x, chain y) { return _mm256_add_ps(x, y); }
static inline float lane(chain x) { return _mm256_cvtss_f32(x); }

#include "bench_roof_chains.h"
#define FA_ROOF_REGISTER 32
#include "bench_roof_read.h"

const fa_roof_unit fa_roof_avx2 = {"avx2", "avx2", FA_ROOF_ANY, "AVX2 fp32 FMA", multiply, read_all};
