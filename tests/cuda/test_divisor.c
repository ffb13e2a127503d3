/* Division by multiplying (cuda/divisor.h), which the kernels find their work with, against the division of C. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/divisor.h"

static void same_as_dividing(int64_t value) {
  const fa_divisor by = fa_divisor_of(value);
  const int64_t quotients = INT32_MAX / value;
  for (int64_t n = 0; n < 4000; n++) { /* around multiples of it: the first, the last, and some between */
    const int64_t multiple = (n < 1000 ? n : n < 2000 ? quotients - (n - 1000) : quotients / 2000 * (n - 2000)) * value;
    for (int64_t x = multiple - 1; x <= multiple + 1; x++) {
      if (x < 0 || x > INT32_MAX) continue;
      if (fa_divide((int32_t)x, by) != x / value)
        fail_msg("%lld / %lld gave %d", (long long)x, (long long)value, fa_divide((int32_t)x, by));
    }
  }
}

static void small_divisors(void **state) {
  (void)state;
  for (int64_t value = 1; value <= 600; value++) same_as_dividing(value);
}

static void powers_of_two_and_their_neighbours(void **state) {
  (void)state;
  for (int shift = 1; shift < 31; shift++)
    for (int64_t value = (INT64_C(1) << shift) - 1; value <= (INT64_C(1) << shift) + 1; value++) same_as_dividing(value);
  same_as_dividing(INT32_MAX);
}

static void divisors_of_any_size(void **state) {
  (void)state;
  uint64_t random = 1;
  for (int n = 0; n < 2000; n++) {
    random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    same_as_dividing(1 + (int64_t)((random >> 33) >> n % 30));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(small_divisors), cmocka_unit_test(powers_of_two_and_their_neighbours),
                                     cmocka_unit_test(divisors_of_any_size)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
