/* The ceiling of NEON's bf16 matrix product (BFMMLA) from registers. */
#include <arm_neon.h>

#define FA_ROOF_CHAINS 16
#define OPERATIONS (2.0 * 2.0 * 4.0 * 2.0)

typedef float32x4_t chain;
typedef bfloat16x8_t operand;

static inline void operands(operand *a, operand *b) {
  static const float factors[8] = {0.91f, -0.83f, 0.77f, -0.95f, 0.3f, 0.7f, 1.1f, 0.2f};
  const float32x4_t low = vld1q_f32(factors), high = vld1q_f32(factors + 4);
  *a = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high);
  *b = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(high), low);
}
static inline chain first(float x) { return vdupq_n_f32(x); }
static inline chain step(chain sum, operand a, operand b) { return vbfmmlaq_f32(sum, a, b); }
static inline chain add(chain x, chain y) { return vaddq_f32(x, y); }
static inline float lane(chain x) { return vaddvq_f32(x); }

#include "bench_roof_chains.h"

const fa_roof_unit fa_roof_neon_bf16 = {"neon_bf16", "neon_bf16", 1u << FA_BFLOAT16, "NEON bf16 matrix product", multiply, NULL};
