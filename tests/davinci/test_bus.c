/* Bandwidth that cores share on the emulated Ascend chip (sim/davinci/bus.h): a transfer alone has its own rate, many together
 * have the bus's, no slot holds more than it can, and what is asked for later need not be of later. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "davinci/bus.h"

static int is_near(double a, double b) { return fabs(a - b) <= 1e-9 * (1.0 + fabs(b)); }

static void alone_it_has_its_own_rate(void **state) {
  (void)state;
  for (double begin = 0.0; begin < 600.0; begin += 37.5) {
    dv_bus *bus = dv_bus_open(100.0, 256.0);
    assert_true(is_near(dv_bus_transfer(bus, begin, 65536.0, 32.0), begin + 65536.0 / 32.0));
    dv_bus_close(bus);
    bus = dv_bus_open(100.0, 256.0);
    assert_true(is_near(dv_bus_transfer(bus, begin, 65536.0, 400.0), begin + 655.36)); /* not above the bus's */
    dv_bus_close(bus);
  }
}

static void nothing_takes_no_time(void **state) {
  (void)state;
  dv_bus *bus = dv_bus_open(1.0, 16.0);
  assert_true(dv_bus_transfer(bus, 5.0, 0.0, 1.0) == 5.0);
  dv_bus_close(bus);
  assert_null(dv_bus_open(0.0, 1.0));
  assert_null(dv_bus_open(1.0, -1.0));
  bus = dv_bus_open(1.0, 1.0);
  assert_true(dv_bus_transfer(bus, 0.0, 1.0, 0.0) < 0.0);
  dv_bus_close(bus);
}

static void who_comes_later_finds_what_is_left(void **state) {
  (void)state;
  dv_bus *bus = dv_bus_open(100.0, 100.0);
  assert_true(is_near(dv_bus_transfer(bus, 0.0, 6000.0, 60.0), 100.0));
  assert_true(is_near(dv_bus_transfer(bus, 0.0, 6000.0, 60.0), 100.0 + 2000.0 / 60.0)); /* 40 a cycle were left */
  assert_true(is_near(dv_bus_transfer(bus, 0.0, 1.0, 100.0), 100.0 + 1.0 * 100.0 / 8000.0)); /* the first slot is full */
  assert_true(is_near(dv_bus_transfer(bus, 500.0, 10.0, 10.0), 501.0)); /* a request of later, before one of earlier */
  assert_true(is_near(dv_bus_transfer(bus, 200.0, 60000.0, 1000.0), 800.0 + 10.0 / 100.0));
  dv_bus_close(bus);
}

static void together_they_fill_the_bus_and_no_more(void **state) {
  (void)state;
  enum { CORES = 24, EACH = 40 };
  for (int order = 0; order < 2; order++) {
    dv_bus *bus = dv_bus_open(900.0, 16.0);
    double ends[CORES] = {0}, last = 0.0;
    const double bytes = 32768.0, alone = 160.0;
    for (int n = 0; n < CORES * EACH; n++) {
      const int core = order ? n / EACH : n % CORES; /* core by core, or in turns */
      ends[core] = dv_bus_transfer(bus, ends[core], bytes, alone);
      assert_true(ends[core] > 0.0);
    }
    for (int core = 0; core < CORES; core++) last = ends[core] > last ? ends[core] : last;
    const double floor = CORES * EACH * bytes / 900.0;
    assert_true(last >= floor * (1.0 - 1e-9)); /* no byte for nothing */
    assert_true(last <= floor * 1.35);         /* the last cores may end alone, at their own rate */
    dv_bus_close(bus);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(alone_it_has_its_own_rate), cmocka_unit_test(nothing_takes_no_time),
                                     cmocka_unit_test(who_comes_later_finds_what_is_left),
                                     cmocka_unit_test(together_they_fill_the_bus_and_no_more)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
