/* core/dtype.h against src/ref's numbers, which are made from the formats' definitions: every 16-bit and
 * 8-bit code, and fp32 values at, beside and between all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "check/check_random.h"
#include "core/dtype.h"
#include "ref/ref.h"

static uint32_t encode(float value, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT16:
      return fa_f16_from_float(value);
    case FA_BFLOAT16:
      return fa_bf16_from_float(value);
    default:
      return fa_fp8_from_float(value);
  }
}

static float decode(uint32_t code, fa_dtype dtype) {
  switch (dtype) {
    case FA_FLOAT16:
      return fa_f16_to_float((uint16_t)code);
    case FA_BFLOAT16:
      return fa_bf16_to_float((uint16_t)code);
    default:
      return fa_fp8_to_float((uint8_t)code);
  }
}

static double exact(uint32_t code, fa_dtype dtype) {
  const uint16_t wide = (uint16_t)code;
  const uint8_t narrow = (uint8_t)code;
  return fa_ref_load(fa_dtype_bytes(dtype) == 2 ? (const void *)&wide : (const void *)&narrow, 0, dtype);
}

static void rounds_like_the_reference(float value, fa_dtype dtype) {
  const double got = (double)decode(encode(value, dtype), dtype), want = fa_ref_round((double)value, dtype);
  if (isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want)) return;
  fail_msg("%s: %.9g becomes %.9g, the reference has %.9g", fa_dtype_name(dtype), (double)value, got, want);
}

static void every_code(void **state) {
  static const fa_dtype types[] = {FA_FLOAT16, FA_BFLOAT16, FA_FP8_E4M3};
  (void)state;
  for (size_t t = 0; t < 3; t++) {
    const uint32_t codes = fa_dtype_bytes(types[t]) == 2 ? 65536u : 256u;
    for (uint32_t code = 0; code < codes; code++) {
      const float value = decode(code, types[t]);
      const double want = exact(code, types[t]);
      assert_true(isnan(want) ? isnan(value) : (double)value == want && !signbit(value) == !signbit(want));
      if (isnan(value)) {
        assert_true(isnan(decode(encode(value, types[t]), types[t])));
        continue;
      }
      if (isinf(value)) {
        assert_int_equal(encode(value, types[t]), code);
        continue;
      }
      assert_int_equal(encode(value, types[t]), code); /* there and back */
      /* The neighbours in fp32, and the halfway points to the next code and their neighbours. */
      rounds_like_the_reference(nextafterf(value, INFINITY), types[t]);
      rounds_like_the_reference(nextafterf(value, -INFINITY), types[t]);
      const double next = exact((code + 1) % codes, types[t]);
      if (!isfinite(next)) continue;
      const float half = (float)((want + next) / 2.0);
      rounds_like_the_reference(half, types[t]);
      rounds_like_the_reference(nextafterf(half, INFINITY), types[t]);
      rounds_like_the_reference(nextafterf(half, -INFINITY), types[t]);
    }
  }
}

static void random_fp32(void **state) {
  static const float edges[] = {65503.9f, 65504.0f, 65519.99f,  65520.0f, 65536.0f, 1e30f,
                                3.4e38f,  447.9f,   448.0f,     449.0f,   463.9f,   464.0f,
                                480.0f,   1e-45f,   1e-38f,     0x1p-24f, 0x1p-25f, 0x1p-14f,
                                0x1p-9f,  0x1p-10f, 0x1.8p-10f, 0x1p-6f,  0.0f,     0x1.fffffep127f};
  (void)state;
  fa_random random = {17};
  for (int64_t n = 0; n < 3000000; n++) {
    const float value = fa_float_from_bits((uint32_t)fa_random_bits(&random));
    rounds_like_the_reference(value, (fa_dtype)(n % 2 ? FA_FLOAT16 : FA_BFLOAT16));
    if (n % 8 == 0) rounds_like_the_reference(value, FA_FP8_E4M3);
    /* Mostly far out of fp16's and fp8's range above: also within. */
    const float moderate =
        (float)(fa_random_normal(&random) * exp2((double)fa_random_range(&random, -26, 16)));
    rounds_like_the_reference(moderate, n % 4 ? FA_FLOAT16 : FA_FP8_E4M3);
  }
  for (size_t n = 0; n < sizeof edges / sizeof edges[0]; n++) {
    for (int sign = 0; sign < 2; sign++) {
      rounds_like_the_reference(sign ? -edges[n] : edges[n], FA_FLOAT16);
      rounds_like_the_reference(sign ? -edges[n] : edges[n], FA_BFLOAT16);
      rounds_like_the_reference(sign ? -edges[n] : edges[n], FA_FP8_E4M3);
    }
  }
}

static void loading_and_storing(void **state) {
  static const fa_dtype types[] = {FA_FLOAT32, FA_FLOAT16, FA_BFLOAT16};
  (void)state;
  for (size_t t = 0; t < 3; t++) {
    uint32_t cells[4] = {0, 0, 0, 0};
    for (int64_t n = 0; n < 3; n++) fa_store_float(cells, n, (float)n - 1.5f, types[t]);
    for (int64_t n = 0; n < 3; n++) {
      assert_true(fa_load_float(cells, n, types[t]) == (float)n - 1.5f);
      assert_true(fa_ref_load(cells, n, types[t]) == (double)n - 1.5);
    }
    assert_int_equal(fa_dtype_size(types[t]), fa_dtype_bytes(types[t]));
  }
  const int8_t bytes[] = {-128, -1, 0, 127};
  for (int64_t n = 0; n < 4; n++) assert_true(fa_load_float(bytes, n, FA_INT8) == (float)bytes[n]);
  const uint8_t codes[] = {0x38, 0xfe, 0x7f};
  assert_true(fa_load_float(codes, 0, FA_FP8_E4M3) == 1.0f);
  assert_true(fa_load_float(codes, 1, FA_FP8_E4M3) == -448.0f);
  assert_true(isnan(fa_load_float(codes, 2, FA_FP8_E4M3)));
  assert_int_equal(fa_dtype_bytes((fa_dtype)99), 0);
  assert_string_equal(fa_dtype_name((fa_dtype)99), "unknown");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_code), cmocka_unit_test(random_fp32),
                                     cmocka_unit_test(loading_and_storing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
