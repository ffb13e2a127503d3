/* The ceiling of VDPBF16PS: pairs of bf16 into fp32, from registers. */
#include <immintrin.h>

#define FA_ROOF_CHAINS 16
#define OPERATIONS (32.0 * 2.0)

typedef __m512 chain;
typedef __m512bh operand;

static inline void operands(operand *a, operand *b) {
  *a = (__m512bh)_mm512_set1_epi32(0x3f0dbf3b); /* 0.55, -0.73 */
  *b = (__m512bh)_mm512_set1_epi32(0x3eb73fa5); /* 0.36, 1.29 */
}
static inline chain first(float x) { return _mm512_set1_ps(x); }
static inline chain step(chain sum, operand a, operand b) { return _mm512_dpbf16_ps(sum, a, b); }
static inline chain add(chain x, chain y) { return _mm512_add_ps(x, y); }
static inline float lane(chain x) { return _mm512_cvtss_f32(x); }

#include "bench_roof_chains.h"

const fa_roof_unit fa_roof_avx512_bf16 = {"avx512_bf16", "avx512_bf16", 1u << FA_BFLOAT16, "VDPBF16PS", multiply, NULL};
