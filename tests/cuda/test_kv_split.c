/* Into how many parts the GPU kernels cut a KV sequence: enough to fill the device, never where it is full already, and
 * never so many that their results in fp32 outgrow what they save. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/kv_split_shape.h"

static const int64_t processors[] = {40, 80, 132}; /* T4, V100, H200 */

static int64_t plain(int64_t units, int64_t rows, int64_t keys, int64_t sms, int64_t least) {
  return fa_split_count(fa_rates_of_arithmetic(), units, rows, keys, sms, least);
}
static int64_t older(int64_t units, int64_t rows, int64_t keys, int64_t sms, int64_t least) {
  return fa_split_count(fa_rates_of_reading(0), units, rows, keys, sms, least);
}
static int64_t hopper(int64_t units, int64_t rows, int64_t keys, int64_t sms, int64_t least) {
  return fa_split_count(fa_rates_of_reading(1), units, rows, keys, sms, least);
}

static void long_prefill_is_not_split(void **state) {
  (void)state;
  for (size_t d = 0; d < sizeof processors / sizeof *processors; d++)
    for (int64_t heads_kv = 8; heads_kv <= 32; heads_kv *= 2)
      for (int64_t length = 2048; length <= 131072; length *= 2) {
        const int64_t rows = 32 * length, units = heads_kv * (rows / heads_kv / 64);
        assert_int_equal(plain(units, rows, length, processors[d], 256), 1);
      }
}

static void decode_fills_the_device(void **state) {
  (void)state;
  for (size_t d = 0; d < sizeof processors / sizeof *processors; d++) {
    const int64_t parts[] = {plain(8, 32, 262144, processors[d], 64), older(8, 32, 262144, processors[d], 64),
                             hopper(8, 32, 262144, processors[d], 64)};
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++)
      assert_true(8 * parts[n] >= processors[d] && parts[n] <= FA_MOST_SPLITS);
  }
  assert_int_equal(hopper(8, 32, 262144, 132, 64), 33);   /* 264 blocks for 132 multiprocessors */
  assert_int_equal(hopper(512, 2048, 4096, 132, 64), 1);  /* full without */
  assert_int_equal(hopper(8, 32, 512, 132, 64), 1);       /* joining would cost more than it saves */
  assert_int_equal(hopper(64, 256, 4096, 132, 64), 1);    /* half of the multiprocessors read nearly as fast */
  assert_int_equal(hopper(128, 512, 32768, 132, 64), 1);
  assert_int_equal(hopper(133, 532, 32768, 132, 64), 1);  /* two blocks of a multiprocessor read at once */
  assert_true(hopper(96, 384, 32768, 132, 64) > 1);       /* some pairs of multiprocessors would end early */
}

/* Most of a small device idle is worse than a launch more, where no cluster joins. */
static void short_caches_are_split_too(void **state) {
  (void)state;
  assert_true(plain(8, 32, 2048, 80, 64) > 1 && older(8, 32, 2048, 80, 64) > 1);   /* V100 */
  assert_true(plain(8, 32, 2048, 40, 64) > 1 && older(8, 32, 4096, 40, 64) > 1);   /* T4 */
  assert_true(plain(8, 32, 2048, 132, 64) > 1 && older(8, 32, 2048, 108, 64) > 1); /* fp32 on an H200; A100 */
  assert_true(plain(40, 160, 131072, 80, 64) > 1); /* bound by arithmetic: half a device is half as fast */
  assert_int_equal(plain(100, 400, 256, 80, 64), 1);
}

static void clusters_share_what_one_block_reads_slowly(void **state) {
  (void)state;
  const fa_split_rates rates = fa_rates_of_reading(1);
  for (int64_t keys = 512; keys <= 262144; keys *= 2) {
    const int64_t alone = fa_split_cost(rates, 8, 32, keys, 132, 1), parts = hopper(8, 32, keys, 132, 64);
    const int64_t eight = fa_cluster_cost(rates, 8, keys, 132, 8);
    assert_true(eight < alone);
    assert_true(eight < fa_split_cost(rates, 8, 32, keys, 132, parts));
    if (keys <= 1024) assert_true(eight < fa_cluster_cost(rates, 8, keys, 132, 16));
    assert_true(fa_cluster_cost(rates, 128, keys, 132, 2) > fa_split_cost(rates, 128, 512, keys, 132, 1)); /* full already */
  }
  /* One sequence of one KV head: sixteen blocks are not enough for a long one. */
  assert_true(fa_cluster_cost(rates, 1, 262144, 132, 16) >
              fa_split_cost(rates, 1, 4, 262144, 132, hopper(1, 4, 262144, 132, 64)));
}

static void memory_for_parts_is_bounded(void **state) {
  (void)state;
  for (int64_t units = 1; units <= 1024; units++)
    for (int64_t length = 64; length <= 1 << 20; length *= 4) {
      const int64_t rows = 64 * units;
      const int64_t parts = units % 3 == 0   ? plain(units, rows, length, 132, 64)
                            : units % 3 == 1 ? older(units, rows, length, 132, 64)
                                             : hopper(units, rows, length, 132, 64);
      assert_true(parts >= 1 && parts <= FA_MOST_SPLITS);
      /* At a head size of 128: 64 MB, or a twentieth of the 16-bit cache. */
      const int64_t bytes = parts == 1 ? 0 : parts * rows * 130 * 4, cache = units * length * 512;
      assert_true(bytes <= INT64_C(64) << 20 || bytes <= cache / 20);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(long_prefill_is_not_split), cmocka_unit_test(decode_fills_the_device),
                                     cmocka_unit_test(short_caches_are_split_too),
                                     cmocka_unit_test(clusters_share_what_one_block_reads_slowly),
                                     cmocka_unit_test(memory_for_parts_is_bounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
