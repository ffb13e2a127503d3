/* Ceilings of what the compiler makes of plain C without instruction-set flags. */
#include "bench_roof.h"

#include <string.h>

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

static void read_all(const char *begin, size_t bytes, int streams, volatile float *sink) {
  (void)streams; /* not fast enough for the difference to show */
  uint64_t mixed[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < bytes; i += sizeof mixed) {
    uint64_t words[4];
    memcpy(words, begin + i, sizeof words);
    for (int w = 0; w < 4; w++) mixed[w] ^= words[w];
  }
  *sink = (float)(mixed[0] ^ mixed[1] ^ mixed[2] ^ mixed[3]);
}

const fa_roof_unit fa_roof_c = {"c", "plain C multiply and add", multiply, read_all};
