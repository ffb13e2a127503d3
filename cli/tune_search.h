/* For one problem: every kernel, level-one tile and split worth trying, beside what the plan's rule chooses. */
#ifndef FA_CLI_TUNE_SEARCH_H
#define FA_CLI_TUNE_SEARCH_H

#include <stdbool.h>

#include "bench_case.h"
#include "fastattention/fa_tuning.h"

typedef struct fa_tune_effort {
  double ms;      /* about this long a problem, once every candidate had its first runs */
  int reach;      /* tiles are tried from 1 / 2^reach of the kernel's own to 2^reach times it */
  bool is_silent; /* no progress on standard error */
} fa_tune_effort;

typedef struct fa_tune_measured {
  fa_plan_info info;     /* as laid out; its reason is NULL */
  fa_plan_choice choice; /* as asked for */
  double ms, ms_min;     /* median and minimum */
} fa_tune_measured;

typedef struct fa_tune_result {
  fa_tune_measured rule, best; /* best: the fastest of the others, measured again beside the rule's */
  int tried;                   /* without the rule's */
  int rounds, wins;            /* of the last comparison, in turns: how many, in how many best was faster; 0: not needed */
  bool is_better;              /* best beats rule by more than noise; without others false */
  double max_err;              /* of best if it is better, else of rule: over sampled rows, against double precision */
} fa_tune_result;

/* The measured difference that is more than noise, in the medians and in the minima; more where the rule's median lies far
 * above its minimum. */
#define FA_TUNE_NOISE 1.03
/* A median that far above the minimum: the machine had something else to do. */
#define FA_TUNE_BUSY 1.25

/* `only` is a kernel or a family to try, NULL for all; `progress` a text for the terminal. FA_EXIT_OK, or prints and
 * returns the exit code: also when any result is wrong, which is then not timed. */
int fa_tune_search(fa_context *context, const fa_bench_case *c, const char *only, const fa_tune_effort *effort,
                   const char *progress, fa_tune_result *result);

#endif
