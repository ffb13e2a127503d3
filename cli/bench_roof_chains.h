/* The multiplying loop of a ceiling: chains of one instruction, as many as hide its latency, in registers. The file that
 * includes it defines FA_ROOF_CHAINS (12 or 16), OPERATIONS (of one instruction), the types chain and operand, and
 *   operands(&a, &b), first(x): all lanes x, step(sum, a, b): the instruction, add(x, y), lane(x): any one.
 * The chains are variables, not an array: gcc 12 would store an array in every round. */
#ifndef FA_CLI_BENCH_ROOF_CHAINS_H
#define FA_CLI_BENCH_ROOF_CHAINS_H

#include "bench_roof.h"

#if FA_ROOF_CHAINS == 12
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#else
#define EACH(DO) \
  DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#endif
#define START(n) chain s##n = first(1.0f + 0.1f * (float)n);
#define STEP(n) s##n = step(s##n, a, b);
#define SUM(n) total = add(total, s##n);

static double multiply(int64_t rounds, volatile float *sink) {
  operand a, b;
  operands(&a, &b);
  EACH(START)
  for (int64_t r = 0; r < rounds; r++) {
    EACH(STEP)
  }
  chain total = first(0.0f);
  EACH(SUM)
  *sink = lane(total);
  return (double)FA_ROOF_CHAINS * OPERATIONS * (double)rounds;
}

#endif
