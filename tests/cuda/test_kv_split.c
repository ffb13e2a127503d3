/* Into how many parts the GPU kernels cut a KV sequence: enough to fill the device, never where it is full already, and
 * never so many that their results in fp32 outgrow what they save. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/kv_split_shape.h"

static const int64_t processors[] = {40, 80, 132}; /* T4, V100, H200 */

static void long_prefill_is_not_split(void **state) {
  (void)state;
  for (size_t d = 0; d < sizeof processors / sizeof *processors; d++)
    for (int64_t heads_kv = 8; heads_kv <= 32; heads_kv *= 2)
      for (int64_t length = 2048; length <= 131072; length *= 2) {
        const int64_t rows = 32 * length, units = heads_kv * (rows / heads_kv / 64);
        assert_int_equal(fa_split_count(units, rows, length, processors[d], 256), 1);
      }
}

static void decode_fills_the_device(void **state) {
  (void)state;
  for (size_t d = 0; d < sizeof processors / sizeof *processors; d++) {
    const int64_t parts = fa_split_count(8, 32, 262144, processors[d], 64);
    assert_true(8 * parts >= processors[d] && parts <= FA_MOST_SPLITS);
  }
  assert_int_equal(fa_split_count(8, 32, 262144, 132, 64), 33);   /* 264 blocks for 132 multiprocessors */
  assert_int_equal(fa_split_count(512, 2048, 4096, 132, 64), 1);  /* full without */
  assert_int_equal(fa_split_count(8, 32, 512, 132, 64), 1);       /* joining would cost more than it saves */
  assert_int_equal(fa_split_count(64, 256, 4096, 132, 64), 1);    /* half of the multiprocessors read nearly as fast */
  assert_int_equal(fa_split_count(128, 512, 32768, 132, 64), 1);
  assert_int_equal(fa_split_count(133, 532, 32768, 132, 64), 1);  /* two blocks of a multiprocessor read at once */
  assert_true(fa_split_count(96, 384, 32768, 132, 64) > 1);       /* some pairs of multiprocessors would end early */
}

static void clusters_share_what_one_block_reads_slowly(void **state) {
  (void)state;
  for (int64_t keys = 512; keys <= 262144; keys *= 2) {
    const int64_t alone = fa_split_cost(8, 32, keys, 132, 1), parts = fa_split_count(8, 32, keys, 132, 64);
    assert_true(fa_cluster_cost(8, keys, 132, 8) < alone);
    assert_true(fa_cluster_cost(8, keys, 132, 8) < fa_split_cost(8, 32, keys, 132, parts));
    if (keys <= 1024) assert_true(fa_cluster_cost(8, keys, 132, 8) < fa_cluster_cost(8, keys, 132, 16));
    assert_true(fa_cluster_cost(128, keys, 132, 2) > fa_split_cost(128, 512, keys, 132, 1)); /* full already */
  }
  /* One sequence of one KV head: sixteen blocks are not enough for a long one. */
  assert_true(fa_cluster_cost(1, 262144, 132, 16) > fa_split_cost(1, 4, 262144, 132, fa_split_count(1, 4, 262144, 132, 64)));
}

static void memory_for_parts_is_bounded(void **state) {
  (void)state;
  for (int64_t units = 1; units <= 1024; units++)
    for (int64_t length = 64; length <= 1 << 20; length *= 4) {
      const int64_t rows = 64 * units, parts = fa_split_count(units, rows, length, 132, 64);
      assert_true(parts >= 1 && parts <= FA_MOST_SPLITS);
      /* At a head size of 128: 64 MB, or a twentieth of the 16-bit cache. */
      const int64_t bytes = parts == 1 ? 0 : parts * rows * 130 * 4, cache = units * length * 512;
      assert_true(bytes <= INT64_C(64) << 20 || bytes <= cache / 20);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(long_prefill_is_not_split), cmocka_unit_test(decode_fills_the_device),
                                     cmocka_unit_test(clusters_share_what_one_block_reads_slowly),
                                     cmocka_unit_test(memory_for_parts_is_bounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
