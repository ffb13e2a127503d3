/* What `bench` and `tune` share in taking times. */
#ifndef FA_CLI_BENCH_CLOCK_H
#define FA_CLI_BENCH_CLOCK_H

#include <stdlib.h>
#include <time.h>

static inline double fa_bench_now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static inline int fa_bench_compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts values: the first is then the minimum. */
static inline double fa_bench_median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, fa_bench_compare);
  return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

/* A run shorter than SHORT gets an untimed one before it, as in a loop over tokens; the others would find caches in
 * the state the previous contender left. Shorter than TINY, it is timed several in a row, for the clock's sake. */
#define FA_BENCH_SHORT_MS 50.0
#define FA_BENCH_TINY_MS 1.0

static inline int fa_bench_in_a_row(double ms) {
  return ms < FA_BENCH_TINY_MS ? (int)(FA_BENCH_TINY_MS / (ms > 0.001 ? ms : 0.001)) + 1 : 1;
}

#endif
