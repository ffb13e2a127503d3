/* The ceiling of NEON's fp16 multiply-add into fp32 (FMLAL) from registers. */
#include <arm_neon.h>

#define FA_ROOF_CHAINS 16
#define OPERATIONS (4.0 * 2.0)

typedef float32x4_t chain;
typedef float16x8_t operand;

static inline void operands(operand *a, operand *b) {
  static const float factors[8] = {0.91f, -0.83f, 0.77f, -0.95f, 0.3f, 0.7f, 1.1f, 0.2f};
  const float16x4_t low = vcvt_f16_f32(vld1q_f32(factors)), high = vcvt_f16_f32(vld1q_f32(factors + 4));
  *a = vcombine_f16(low, high);
  *b = vcombine_f16(high, low);
}
static inline chain first(float x) { return vdupq_n_f32(x); }
static inline chain step(chain sum, operand a, operand b) { return vfmlalq_low_f16(sum, a, b); }
static inline chain add(chain x, chain y) { return vaddq_f32(x, y); }
static inline float lane(chain x) { return vaddvq_f32(x); }

#include "bench_roof_chains.h"

const fa_roof_unit fa_roof_neon_fhm = {"neon_fhm", "neon_fhm", 1u << FA_FLOAT16, "NEON fp16 multiply-add into fp32",
                                       multiply, NULL};
