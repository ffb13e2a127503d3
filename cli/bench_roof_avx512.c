/* AVX-512 ceilings: 512-bit fp32 FMA from registers, 512-bit loads. */
#include <immintrin.h>

#define FA_ROOF_CHAINS 16
#define OPERATIONS (16.0 * 2.0)

typedef __m512 chain;
typedef __m512 operand;

static inline void operands(operand *a, operand *b) {
  *a = _mm512_setr_ps(0.91f, 0.83f, 0.77f, 0.95f, 0.89f, 0.73f, 0.97f, 0.81f, 0.71f, 0.93f, 0.87f, 0.79f, 0.85f, 0.75f,
                      0.99f, 0.69f);
  *b = _mm512_setr_ps(0.3f, -0.7f, 1.1f, -0.2f, 0.9f, 0.5f, -1.3f, 0.6f, 0.1f, -0.8f, 0.4f, 1.2f, -0.9f, 0.2f, 0.8f,
                      -0.4f);
}
static inline chain first(float x) { return _mm512_set1_ps(x); }
static inline chain step(chain sum, operand a, operand b) { return _mm512_fmadd_ps(sum, a, b); }
static inline chain add(chain x, chain y) { return _mm512_add_ps(x, y); }
static inline float lane(chain x) { return _mm512_cvtss_f32(x); }

#include "bench_roof_chains.h"
#define FA_ROOF_REGISTER 64
#include "bench_roof_read.h"

const fa_roof_unit fa_roof_avx512 = {"avx512", "avx512", FA_ROOF_ANY, "AVX-512 fp32 FMA", multiply, read_all};
