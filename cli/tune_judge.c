#include "tune_judge.h"

#include <math.h>

const char *const fa_tune_layout_names[FA_TUNE_LAYOUTS] = {"bshd", "bhsd"};

double fa_tune_score(const double ms[FA_TUNE_LAYOUTS], const double rule_ms[FA_TUNE_LAYOUTS]) {
  double product = 1.0, worst = 0.0;
  for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
    const double ratio = ms[layout] / rule_ms[layout];
    product *= ratio;
    worst = fmax(worst, ratio);
  }
  return worst > FA_TUNE_NOISE ? worst : sqrt(product);
}

/* Better in median and minimum, by half of what one median is off its own minimum, and in all turns but one in seven. */
static bool gains(const fa_tune_result *r, int layout) {
  const double rule = r->rule.ms[layout], rule_min = r->rule.ms_min[layout];
  const double needed = fmax(FA_TUNE_NOISE, 1.0 + 0.5 * (rule / rule_min - 1.0));
  return r->best.ms[layout] * needed <= rule && r->best.ms_min[layout] * FA_TUNE_NOISE <= rule_min &&
         r->wins[layout] >= r->rounds - r->rounds / 7;
}

static bool holds(const fa_tune_result *r, int layout) {
  return r->best.ms[layout] <= FA_TUNE_SAME * r->rule.ms[layout] &&
         r->best.ms_min[layout] <= FA_TUNE_SAME * r->rule.ms_min[layout];
}

void fa_tune_judge(fa_tune_result *r) {
  const double *const is = r->best.ms, *const was = r->rule.ms;
  r->least = is[FA_TUNE_BSHD] / was[FA_TUNE_BSHD] < is[FA_TUNE_BHSD] / was[FA_TUNE_BHSD] ? FA_TUNE_BHSD : FA_TUNE_BSHD;
  r->is_better = r->rounds > 0 && ((gains(r, FA_TUNE_BSHD) && holds(r, FA_TUNE_BHSD)) ||
                                   (gains(r, FA_TUNE_BHSD) && holds(r, FA_TUNE_BSHD)));
}
