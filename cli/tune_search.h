/* For one problem: every kernel, level-one tile and split worth trying, beside what the plan's rule chooses, in both
 * layouts: a plan is made before strides are known, so what it follows must be good for B,S,H,D and for B,H,S,D. */
#ifndef FA_CLI_TUNE_SEARCH_H
#define FA_CLI_TUNE_SEARCH_H

#include "bench_case.h"
#include "tune_judge.h"

typedef struct fa_tune_effort {
  double ms;      /* about this long a problem, once every candidate had its first runs */
  int reach;      /* tiles are tried from 1 / 2^reach of the kernel's own to 2^reach times it */
  bool is_silent; /* no progress on standard error */
} fa_tune_effort;

/* `only` is a kernel or a family to try, NULL for all; `progress` a text for the terminal. FA_EXIT_OK, or prints and
 * returns the exit code: also when any result is wrong, which is then not timed. */
int fa_tune_search(fa_context *context, const fa_bench_case *c, const char *only, const fa_tune_effort *effort,
                   const char *progress, fa_tune_result *result);

#endif
