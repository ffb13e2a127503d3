/* What a measured choice must show beside the rule's to be kept. It is measured in both layouts: a plan is made before strides
 * are known, so what it follows must be good for B,S,H,D and for B,H,S,D. */
#ifndef FA_CLI_TUNE_JUDGE_H
#define FA_CLI_TUNE_JUDGE_H

#include <stdbool.h>

#include "fastattention/fa_tuning.h"

typedef enum fa_tune_layout { FA_TUNE_BSHD, FA_TUNE_BHSD, FA_TUNE_LAYOUTS } fa_tune_layout;
extern const char *const fa_tune_layout_names[FA_TUNE_LAYOUTS]; /* "bshd", "bhsd" */

typedef struct fa_tune_measured {
  fa_plan_info info;     /* as laid out; its reason is NULL */
  fa_plan_choice choice; /* as asked for */
  double ms[FA_TUNE_LAYOUTS], ms_min[FA_TUNE_LAYOUTS]; /* median and minimum */
} fa_tune_measured;

typedef struct fa_tune_result {
  fa_tune_measured rule, best; /* best: the fastest of the others, measured again beside the rule's */
  int tried;                   /* without the rule's */
  int rounds, wins[FA_TUNE_LAYOUTS]; /* of the last comparison, in turns: how many, in how many best was faster; 0: not needed */
  fa_tune_layout least;        /* where best gains less by its median */
  bool is_better;              /* best beats rule in one layout by more than noise and is not slower in the other */
  double max_err;              /* of best if it is better, else of rule: over sampled rows, against double precision */
} fa_tune_result;

/* The measured difference that is more than noise, in the medians and in the minima; more where the rule's median lies far
 * above its minimum. */
#define FA_TUNE_NOISE 1.03
/* In the layout where it need not be faster, a choice may be slower by this, which cannot be told from as fast. */
#define FA_TUNE_SAME 1.01
/* A median that far above the minimum: the machine had something else to do. */
#define FA_TUNE_BUSY 1.25

/* Its time, that of the rule's choice being 1, from the median of each: over both layouts, but of a choice that is slower
 * in one by more than noise, there, as it will not be kept. */
double fa_tune_score(const double ms[FA_TUNE_LAYOUTS], const double rule_ms[FA_TUNE_LAYOUTS]);

/* r->least and r->is_better, from the times, rounds and wins in it. */
void fa_tune_judge(fa_tune_result *r);

#endif
