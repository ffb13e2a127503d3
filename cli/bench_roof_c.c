/* Ceilings of what the compiler makes of plain C without instruction-set flags. */
#define FA_ROOF_REGISTER 16 /* which x86-64 and 64-bit Arm all have */
#include "bench_roof_read.h"

enum { LANES = 32 }; /* eight 4-wide accumulators hide the latency of multiply and add */

static double multiply(int64_t rounds, volatile float *sink) {
  float sum[LANES], by[LANES], plus[LANES];
  for (int i = 0; i < LANES; i++) {
    sum[i] = 1.0f + 0.01f * (float)i;
    by[i] = 0.9f + 0.001f * (float)i;
    plus[i] = 0.37f - 0.005f * (float)i;
  }
  for (int64_t r = 0; r < rounds; r++) {
    for (int i = 0; i < LANES; i++) sum[i] = sum[i] * by[i] + plus[i];
  }
  float total = 0.0f;
  for (int i = 0; i < LANES; i++) total += sum[i];
  *sink = total;
  return 2.0 * (double)LANES * (double)rounds;
}

const fa_roof_unit fa_roof_c = {"c", "c", FA_ROOF_ANY, "plain C multiply and add", multiply, read_all};
