/* The lanes that the NEON kernels are written in, each operation that is more than an instruction, against
 * libm and against the scalar conversions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "cpu/lanes_neon.h"

static void exp_of_what_is_not_positive(void **state) {
  (void)state;
  double worst = 0.0;
  float x[VEC], y[VEC];
  for (float at = 0.0f; at > -87.0f; at -= 0.0037f) {
    for (int i = 0; i < VEC; i++) x[i] = fmaxf(at - 0.00046f * (float)i, -87.0f);
    vec_store(y, vec_exp(vec_load(x)));
    for (int i = 0; i < VEC; i++) worst = fmax(worst, fabs((double)y[i] / exp((double)x[i]) - 1.0));
  }
  /* x log2 e, up to 126, is rounded to 2^-18, and so is log2 e, to 2^-25 or so of it: 2.6e-6 and 2.6e-6 of
   * e^x, where it is 1e-38. */
  assert_true(worst < 5.2e-6);
  const float ends[VEC] = {0.0f, -0.0f, -1e-30f, -87.1f, -1e30f, -INFINITY, NAN, -0.5f};
  vec_store(y, vec_exp(vec_load(ends)));
  for (int i = 0; i < 3; i++) assert_true(y[i] == 1.0f);
  for (int i = 3; i < 6; i++) assert_true(y[i] == 0.0f);
  assert_true(isnan(y[6]) && fabs((double)y[7] - exp(-0.5)) < 1.5e-7);
}

/* Near 0, where x log2 e is as good as exact. */
static void exp_polynomial(void **state) {
  (void)state;
  double worst = 0.0;
  float y[VEC];
  for (float at = 0.0f; at > -1.0f; at -= 0.00013f) {
    vec_store(y, vec_exp(vec_set(at)));
    worst = fmax(worst, fabs((double)y[5] / exp((double)at) - 1.0));
  }
  assert_true(worst < 2e-7);
}

static void halves_there_and_back(void **state) {
  (void)state;
  uint16_t from[VEC], to[VEC];
  float wide[VEC];
  for (int dtype = FA_FLOAT16; dtype <= FA_BFLOAT16; dtype++) {
    for (uint32_t h = 0; h < 0x10000; h += VEC) {
      for (uint32_t i = 0; i < VEC; i++) from[i] = (uint16_t)(h + i);
      const vec x = vec_load_row((const char *)from, (fa_dtype)dtype, VEC);
      vec_store(wide, x);
      vec_store_row((char *)to, (fa_dtype)dtype, VEC, x);
      for (int i = 0; i < VEC; i++) {
        const float expected = fa_load_float(from, i, (fa_dtype)dtype);
        if (isnan(expected))
          assert_true(isnan(wide[i]));
        else
          assert_true(fa_float_bits(wide[i]) == fa_float_bits(expected) && to[i] == from[i]);
      }
    }
  }
}

/* Between two 16-bit numbers, and at the middle, where the even one is right. */
static void rounding(void **state) {
  (void)state;
  float x[VEC];
  uint16_t to[VEC], expected[VEC];
  for (int dtype = FA_FLOAT16; dtype <= FA_BFLOAT16; dtype++) {
    for (uint32_t bits = 0x00000000; bits < 0x7f7f0000; bits += 0x1237 * VEC) {
      for (uint32_t i = 0; i < VEC; i++) {
        const uint32_t middle = i < 4 ? (bits & 0xffff0000u) | 0x8000u : (bits & 0xffffe000u) | 0x1000u;
        x[i] = fa_float_from_bits((i % 2 ? bits + i * 0x1237 : middle) | (i % 4 == 3 ? 0x80000000u : 0u));
        fa_store_float(expected, i, x[i], (fa_dtype)dtype);
      }
      vec_store_row((char *)to, (fa_dtype)dtype, VEC, vec_load(x));
      assert_memory_equal(to, expected, sizeof to);
    }
  }
}

static void ends_of_rows(void **state) {
  (void)state;
  for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++) {
    const size_t size = fa_dtype_size((fa_dtype)dtype);
    for (int64_t n = 1; n <= VEC; n++) {
      char from[VEC * 4], to[VEC * 4];
      float wide[VEC];
      memset(from, 0x7f, sizeof from);
      memset(to, 0x55, sizeof to);
      for (int64_t i = 0; i < n; i++) fa_store_float(from, i, (float)(i + 1), (fa_dtype)dtype);
      const vec x = vec_load_row(from, (fa_dtype)dtype, n);
      vec_store(wide, x);
      for (int64_t i = 0; i < VEC; i++) assert_true(wide[i] == (i < n ? (float)(i + 1) : 0.0f));
      vec_store_row(to, (fa_dtype)dtype, n, x);
      assert_memory_equal(to, from, (size_t)n * size);
      for (size_t i = (size_t)n * size; i < sizeof to; i++) assert_int_equal(to[i], 0x55);
    }
  }
}

static void across_lanes(void **state) {
  (void)state;
  vec rows[VEC];
  float at[VEC][VEC];
  for (int r = 0; r < VEC; r++)
    for (int c = 0; c < VEC; c++) at[r][c] = (float)(r * VEC + c);
  for (int r = 0; r < VEC; r++) rows[r] = vec_load(at[r]);
  assert_true(vec_sum(rows[1]) == 92.0f && vec_top(rows[1]) == 15.0f);
  vec_transpose(rows);
  for (int r = 0; r < VEC; r++) {
    float column[VEC];
    vec_store(column, rows[r]);
    for (int c = 0; c < VEC; c++) assert_true(column[c] == (float)(c * VEC + r));
  }
  float x[VEC] = {-INFINITY, INFINITY, NAN, -1.0f, 0.0f, -INFINITY, 3.0f, -3e38f};
  vec_store(x, vec_reference(vec_load(x)));
  assert_true(x[0] == 0.0f && x[1] == INFINITY && isnan(x[2]) && x[3] == -1.0f && x[5] == 0.0f);
  assert_true(x[6] == 3.0f && x[7] == -3e38f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(exp_of_what_is_not_positive),
      cmocka_unit_test(exp_polynomial),
      cmocka_unit_test(halves_there_and_back),
      cmocka_unit_test(rounding),
      cmocka_unit_test(ends_of_rows),
      cmocka_unit_test(across_lanes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
