/* exp and tanh of one lane against libm in double, over the range where each is used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/exp_lane.h"
#include "cpu/score_rules.h"

static void exp_of_what_is_not_positive(void **state) {
  (void)state;
  double worst = 0.0;
  for (float x = 0.0f; x > FA_EXP_LEAST; x -= 0.00037f) {
    const double exact = exp((double)x);
    worst = fmax(worst, fabs((double)fa_exp_lane(x) - exact) / exact);
  }
  assert_true(worst < 2e-7);
  assert_true(fa_exp_lane(0.0f) == 1.0f && fa_exp_lane(-0.0f) == 1.0f);
  assert_true(fa_exp_lane(-87.4f) == 0.0f && fa_exp_lane(-3e38f) == 0.0f && fa_exp_lane(-INFINITY) == 0.0f);
  assert_true(isnan(fa_exp_lane(NAN)));
}

static void tanh_of_everything(void **state) {
  (void)state;
  double worst = 0.0;
  for (float x = 1e-30f; x < 30.0f; x *= 1.0007f) {
    const double exact = tanh((double)x);
    worst = fmax(worst, fabs((double)fa_tanh_lane(x) - exact) / exact);
    assert_true(fa_tanh_lane(-x) == -fa_tanh_lane(x));
  }
  assert_true(worst < 4e-7);
  assert_true(fa_tanh_lane(0.0f) == 0.0f && fa_tanh_lane(INFINITY) == 1.0f &&
              fa_tanh_lane(-INFINITY) == -1.0f);
  assert_true(isnan(fa_tanh_lane(NAN)));
}

static void fp16_without_branches(void **state) {
  (void)state;
  for (uint32_t h = 0; h <= 0xffffu; h++) {
    const float a = fa_f16_to_float((uint16_t)h), b = fa_score_f16((uint16_t)h);
    assert_true(isnan(a) ? isnan(b) : fa_float_bits(a) == fa_float_bits(b));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(exp_of_what_is_not_positive),
      cmocka_unit_test(tanh_of_everything),
      cmocka_unit_test(fp16_without_branches),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
