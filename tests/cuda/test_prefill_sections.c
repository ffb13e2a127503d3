/* Sections of the prefill grid (cuda/prefill_sections.h): every query head of every entry has one block a row of the grid,
 * and the last section is not much shorter than the others where that can be had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cuda/prefill_sections.h"

static void every_head_has_one_block(void **state) {
  (void)state;
  for (int64_t kv_heads = 1; kv_heads <= 200; kv_heads += kv_heads < 40 ? 1 : 7)
    for (int64_t group = 1; group <= 8; group *= 2)
      for (int64_t most = 0; most <= 70; most += 5) {
        const int64_t section = fa_section_heads(kv_heads, most), grid_x = section * group;
        const int64_t sections = (kv_heads + section - 1) / section;
        int *const blocks = calloc((size_t)(kv_heads * group), sizeof *blocks);
        assert_non_null(blocks);
        assert_true(section >= 1 && section <= (most > 1 ? most : 1));
        for (int64_t z = 0; z < sections; z++)
          for (int64_t x = 0; x < grid_x; x++) {
            const int64_t kv = fa_section_kv_head((int32_t)x, (int32_t)z, (int32_t)grid_x, fa_divisor_of(group));
            if (kv < kv_heads) blocks[kv * group + x % group]++;
          }
        for (int64_t n = 0; n < kv_heads * group; n++) assert_int_equal(blocks[n], 1);
        free(blocks);
      }
}

static void sections_are_equal_where_they_can_be(void **state) {
  (void)state;
  assert_int_equal(fa_section_heads(64, 10), 8);
  assert_int_equal(fa_section_heads(128, 20), 16);
  assert_int_equal(fa_section_heads(96, 20), 16);
  assert_int_equal(fa_section_heads(67, 10), 10); /* a prime number of them */
  assert_int_equal(fa_section_heads(11, 10), 6);
  assert_int_equal(fa_section_heads(8, 10), 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_head_has_one_block),
                                     cmocka_unit_test(sections_are_equal_where_they_can_be)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
