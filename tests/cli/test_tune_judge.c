/* What `fastattn tune` keeps, from times that need no clock: faster in one layout, not slower in the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tune_judge.h"

/* Beside a rule's choice of 100 ms in both layouts, quiet, over 14 turns. */
static fa_tune_result measured(double bshd, double bhsd) {
  fa_tune_result r = {.rounds = 14};
  const double best[FA_TUNE_LAYOUTS] = {[FA_TUNE_BSHD] = bshd, [FA_TUNE_BHSD] = bhsd};
  for (int n = 0; n < FA_TUNE_LAYOUTS; n++) {
    r.rule.ms[n] = r.rule.ms_min[n] = 100.0;
    r.best.ms[n] = r.best.ms_min[n] = best[n];
    r.wins[n] = best[n] < 100.0 ? 14 : 0;
  }
  return r;
}

static void assert_kept(double bshd, double bhsd, bool is_kept, fa_tune_layout least) {
  fa_tune_result r = measured(bshd, bhsd);
  fa_tune_judge(&r);
  if (r.is_better != is_kept || r.least != least)
    fail_msg("%g and %g ms: kept %d, least in %s", bshd, bhsd, r.is_better, fa_tune_layout_names[r.least]);
}

static void a_gain_must_not_cost_the_other_layout(void **state) {
  (void)state;
  assert_kept(80.0, 90.0, true, FA_TUNE_BHSD);
  assert_kept(50.0, 100.0, true, FA_TUNE_BHSD);
  assert_kept(100.0, 50.0, true, FA_TUNE_BSHD);
  assert_kept(100.5, 50.0, true, FA_TUNE_BSHD); /* cannot be told from 100 */
  assert_kept(103.0, 50.0, false, FA_TUNE_BSHD);
  assert_kept(50.0, 103.0, false, FA_TUNE_BHSD);
  assert_kept(50.0, 300.0, false, FA_TUNE_BHSD);
  assert_kept(99.0, 99.0, false, FA_TUNE_BSHD); /* noise */
  assert_kept(100.0, 100.0, false, FA_TUNE_BSHD);
}

static void a_gain_must_be_seen_nearly_always(void **state) {
  (void)state;
  fa_tune_result r = measured(80.0, 100.0);
  r.wins[FA_TUNE_BSHD] = 12; /* all but one in seven */
  fa_tune_judge(&r);
  assert_true(r.is_better);
  r.wins[FA_TUNE_BSHD] = 11;
  fa_tune_judge(&r);
  assert_false(r.is_better);
  r = measured(80.0, 100.0);
  r.rule.ms[FA_TUNE_BSHD] = 160.0; /* restless: half of the 60 % is asked for, and 160 to 130 is less */
  r.best.ms[FA_TUNE_BSHD] = 130.0;
  fa_tune_judge(&r);
  assert_false(r.is_better);
  r.best.ms[FA_TUNE_BSHD] = 120.0;
  fa_tune_judge(&r);
  assert_true(r.is_better);
  r.rounds = 0; /* nothing was compared */
  fa_tune_judge(&r);
  assert_false(r.is_better);
}

/* The search goes on with what may be kept: 0.7 of both before 0.5 of one, and neither behind what one layout pays for. */
static void candidates_are_ranked_by_both_layouts(void **state) {
  (void)state;
  const double rule[FA_TUNE_LAYOUTS] = {10.0, 20.0};
  const double both[] = {6.0, 12.0}, one[] = {10.0, 10.0}, paid[] = {2.0, 22.0}, same[] = {10.0, 20.0};
  assert_true(fa_tune_score(both, rule) < fa_tune_score(one, rule));
  assert_true(fa_tune_score(one, rule) < fa_tune_score(same, rule));
  assert_true(fa_tune_score(same, rule) < fa_tune_score(paid, rule));
  assert_float_equal((float)fa_tune_score(both, rule), 0.6f, 1e-6f);
  assert_float_equal((float)fa_tune_score(same, rule), 1.0f, 1e-6f);
  assert_float_equal((float)fa_tune_score(paid, rule), 1.1f, 1e-6f);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_gain_must_not_cost_the_other_layout),
                                     cmocka_unit_test(a_gain_must_be_seen_nearly_always),
                                     cmocka_unit_test(candidates_are_ranked_by_both_layouts)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
