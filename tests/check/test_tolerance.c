/* The checker's tolerance where scores are large: o is granted nothing for their rounding once rows are one-hot, lse is
 * granted all of it. `fastattn check --kernel prefill_sm75 --seed 4735` (scores of 6e12 that cancel to 1e7) found this. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "check/check_case.h"

static fa_tolerance of(double score_size) {
  const double same = 0.0;
  return fa_tolerance_of(FA_FLOAT16, 1.0, score_size, &same, &same, 1, &same, &same, 1);
}

static void o_is_granted_nothing_beyond_one_hot(void **state) {
  (void)state;
  const double floor_unit = of(1.0).o;
  assert_true(floor_unit > 0.0);
  assert_true(of(0x1p14).o > floor_unit);
  assert_true(of(0x1p15).o == floor_unit && of(6e12).o == floor_unit);
}

static void lse_has_the_rounding_of_scores(void **state) {
  (void)state;
  assert_true(of(6e12).lse >= 6e12 * 0x1p-24 && of(6e12).lse < 7e12 * 0x1p-24);
}

static void scores_without_a_size_grant_nothing(void **state) {
  (void)state;
  const fa_tolerance floor = of(1.0), endless = of((double)INFINITY), unknown = of((double)NAN);
  assert_true(endless.o == floor.o && endless.lse == floor.lse);
  assert_true(unknown.o == floor.o && unknown.lse == floor.lse);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(o_is_granted_nothing_beyond_one_hot),
                                     cmocka_unit_test(lse_has_the_rounding_of_scores),
                                     cmocka_unit_test(scores_without_a_size_grant_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
