/* Every tensor type read here, bit for bit what the gguf package makes of the same blocks
 * (goldens/make_dequantize_golden.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "dequantize.h"

#define GOLDENS "tests/llama/goldens/dequantize.bin" /* tests run in the root of the tree */

static void test_bits(void **state) {
  (void)state;
  static uint8_t raw[4096 + 1];
  static float expected[4096], given[4096];
  uint32_t head[3]; /* type, bytes, floats */
  int types = 0;
  FILE *file = fopen(GOLDENS, "rb");
  assert_non_null(file);
  while (fread(head, sizeof head, 1, file) == 1) {
    const fa_ggml_type *type = fa_ggml_type_of((int32_t)head[0]);
    assert_true(head[1] < sizeof raw && head[2] <= 4096);
    assert_int_equal(fread(raw + 1, 1, head[1], file),
                     head[1]); /* from an odd address: files promise no better */
    assert_int_equal(fread(expected, sizeof *expected, head[2], file), head[2]);
    assert_non_null(type->to_float);
    assert_int_equal(head[1] / (uint32_t)type->block_bytes * (uint32_t)type->block_elements, head[2]);
    type->to_float(raw + 1, given, head[2]);
    for (uint32_t i = 0; i < head[2]; i++) {
      if (memcmp(&given[i], &expected[i], sizeof *given) != 0) {
        fail_msg("%s, element %u: %a, not %a", type->name, i, (double)given[i], (double)expected[i]);
      }
    }
    types++;
  }
  fclose(file);
  assert_int_equal(types, 14);
}

/* The sizes of all types, whether read here or not, decide where tensors end. */
static void test_table(void **state) {
  (void)state;
  for (int32_t number = -5; number < 100; number++) {
    const fa_ggml_type *type = fa_ggml_type_of(number);
    if (!type) continue;
    assert_true(type->block_elements > 0 && type->block_bytes > 0);
    if (type->to_float) assert_non_null(strstr(fa_ggml_types_read, type->name));
  }
  assert_null(fa_ggml_type_of(-1));
  assert_null(fa_ggml_type_of(4));
  assert_null(fa_ggml_type_of(31));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits), cmocka_unit_test(test_table)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
