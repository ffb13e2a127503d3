/* Verifies and times one problem: the fast kernel and both baselines, in turns, beside a ceiling. */
#ifndef FA_CLI_BENCH_TIME_H
#define FA_CLI_BENCH_TIME_H

#include <stdbool.h>

#include "bench_case.h"

typedef enum fa_bench_who {
  FA_BENCH_FAST,
  FA_BENCH_STANDARD,
  FA_BENCH_EAGER,
  FA_BENCH_CONTENDERS
} fa_bench_who;

typedef struct fa_bench_timing {
  bool ran;
  char why_not[240]; /* if it did not */
  char kernel[64];
  double ms, ms_min; /* median and minimum of the repeats */
  double max_err;    /* largest difference from the double-precision reference over the sampled rows */
  size_t workspace_bytes;
  int64_t peak_bytes; /* growth of resident memory over q, k, v and o during a run; -1: not measurable */
} fa_bench_timing;

typedef struct fa_bench_result {
  fa_bench_timing timing[FA_BENCH_CONTENDERS];
  const char *roof_name; /* what the roof is; NULL: none for this device */
  double roof;           /* median; TFLOP/s for prefill, GB/s for decode */
  double plain_read;     /* decode: GB/s of the same read from begin to end, which is slower; 0: none */
  int threads;
} fa_bench_result;

/* The device that --device names, as it describes itself. FA_EXIT_OK, or prints and returns the exit code. */
int fa_bench_find_device(const char *name, fa_device_info *device);
bool fa_bench_is_emulated(const char *device); /* what a run takes there is the emulator's time, not the chip's */

/* Returns FA_EXIT_OK, or prints and returns the exit code: also when any result is wrong, which is then not
 * timed. */
int fa_bench_time(fa_context *context, const fa_device_info *device, const fa_bench_case *c, int repeats,
                  fa_bench_result *result);

#endif
