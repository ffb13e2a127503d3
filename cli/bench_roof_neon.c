/* NEON ceilings: fp32 FMA from registers, 128-bit loads. */
#include <arm_neon.h>

#define FA_ROOF_CHAINS 16 /* four FMA pipes times a latency of four */
#define OPERATIONS (4.0 * 2.0)

typedef float32x4_t chain;
typedef float32x4_t operand;

static inline void operands(operand *a, operand *b) {
  static const float factors[8] = {0.91f, -0.83f, 0.77f, -0.95f, 0.3f, 0.7f, 1.1f, 0.2f};
  *a = vld1q_f32(factors);
  *b = vld1q_f32(factors + 4);
}
static inline chain first(float x) { return vdupq_n_f32(x); }
static inline chain step(chain sum, operand a, operand b) { return vfmaq_f32(sum, a, b); }
static inline chain add(chain x, chain y) { return vaddq_f32(x, y); }
static inline float lane(chain x) { return vaddvq_f32(x); }

#include "bench_roof_chains.h"
#define FA_ROOF_REGISTER 16
#include "bench_roof_read.h"

const fa_roof_unit fa_roof_neon = {"neon", "neon", FA_ROOF_ANY, "NEON fp32 FMA", multiply, read_all};
