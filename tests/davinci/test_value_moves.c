/* Moves, Mmad and Fixpipe of the emulated Ascend core (sim/davinci/values.h) against index formulas of the documented layouts
 * and a sum in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "davinci/values.h"

static uint32_t seed = 1;
static uint32_t drawn(void) {
  seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
  return seed;
}
static float drawn_float(void) { return (float)(int32_t)drawn() * 0x1p-30f; }
static uint32_t bits_of(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}
static void assert_same(float got, float expected) {
  if (isnan(expected)) assert_true(isnan(got));
  else assert_int_equal(bits_of(got), bits_of(expected));
}

enum { BYTES = 256 };
static uint8_t dst[BYTES], before[BYTES], src0[BYTES];

static void fill_floats(uint8_t *to, size_t count, float scale) {
  for (size_t n = 0; n < count; ++n) {
    const float f = scale * drawn_float();
    memcpy(to + 4 * n, &f, 4);
  }
}
static float f32_at(const uint8_t *from, size_t at) {
  float f;
  memcpy(&f, from + at, sizeof f);
  return f;
}
static uint16_t u16_at(const uint8_t *from, size_t at) {
  uint16_t h;
  memcpy(&h, from + at, sizeof h);
  return h;
}

/* `rows` is a multiple of 16. */
static size_t nz(size_t row, size_t column, size_t rows) { return (column / 16 * rows + row) * 16 + column % 16; }

static void moves_keep_their_layouts(void **state) {
  (void)state;
  enum { ROWS = 40, COLUMNS = 72, UP = 48 };
  static uint16_t in[ROWS * 80], l1[80 * UP + 64], l0[80 * UP + 64];
  for (size_t n = 0; n < ROWS * 80; ++n) in[n] = (uint16_t)(drawn() | 1);
  memset(l1, 0xaa, sizeof l1);
  const dv_nd2nz move = {.element_bytes = 2, .matrices = 1, .rows = ROWS, .columns = COLUMNS, .from_row = 80,
                         .to_column = UP, .to_row = 1};
  dv_value_nd2nz(&move, l1, in);
  for (size_t r = 0; r < UP; ++r)
    for (size_t c = 0; c < 80; ++c)
      assert_int_equal(l1[nz(r, c, UP)], r >= ROWS ? 0xaaaa : c >= COLUMNS ? 0 : in[r * 80 + c]);
  for (uint32_t row = 0; row < UP / 16; ++row) { /* a row of fractals: to Zz */
    const dv_load2d load = {.element_bytes = 2, .start = row, .repeats = 5, .from_stride = UP / 16,
                            .transpose = row == 1};
    dv_value_load2d(&load, l0 + row * 5 * 256, l1);
  }
  for (size_t r = 0; r < UP; ++r)
    for (size_t c = 0; c < 80; ++c) {
      const size_t inside = r / 16 == 1 ? c % 16 * 16 + r % 16 : r % 16 * 16 + c % 16;
      assert_int_equal(l0[(r / 16 * 5 + c / 16) * 256 + inside], l1[nz(r, c, UP)]);
    }
  const dv_load_transposed square = {.element_bytes = 2, .start = 1, .repeats = 2, .from_stride = 2, .to_gap = 1};
  memset(l0, 0, sizeof l0);
  dv_value_load_transposed(&square, l0, l1);
  for (size_t n = 0; n < 512; ++n)
    assert_int_equal(l0[n / 256 * 512 + n % 256], l1[(1 + n / 256 * 2) * 256 + n % 16 * 16 + n % 256 / 16]);
  const uint32_t words[256] = {7, 9};
  uint32_t fractals[256];
  const dv_load_transposed wide = {.element_bytes = 4, .repeats = 1}; /* two fractals of 16 x 8 make the square */
  for (uint32_t n = 0; n < 512; ++n) l1[n] = (uint16_t)(n % 2 ? 0 : n / 2);
  memcpy(fractals, words, sizeof fractals);
  dv_value_load_transposed(&wide, fractals, l1);
  for (uint32_t r = 0; r < 16; ++r)
    for (uint32_t c = 0; c < 16; ++c) assert_int_equal(fractals[c / 8 * 128 + r * 8 + c % 8], r / 8 * 128 + c * 8 + r % 8);
  const dv_fill fill = {.to = {DV_L1, 0, 0}, .repeats = 2, .blocks = 1, .gap = 1, .element_bytes = 2, .value = 0x3c00};
  memset(l1, 0, 128);
  dv_value_fill(&fill, l1);
  for (size_t n = 0; n < 64; ++n) assert_int_equal(l1[n], n / 16 % 2 ? 0 : 0x3c00);
}

static void copies_pad_and_add(void **state) {
  (void)state;
  static uint16_t in[16];
  for (size_t n = 0; n < 16; ++n) in[n] = (uint16_t)drawn();
  for (size_t n = 0; n < BYTES; ++n) dst[n] = before[n] = (uint8_t)drawn();
  const dv_copy copy = {.to = {DV_UB, 0, 0}, .rows = 3, .bytes = 10, .to_stride = 64, .from_stride = 7, .left_pad = 1,
                        .right_pad = 2, .fill_bytes = 2, .fill = 0xbeef, .is_byte_granular = 1};
  dv_value_copy(&copy, dst, in, 0);
  for (size_t r = 0; r < 3; ++r) {
    assert_memory_equal(dst + 64 * r + 2, (uint8_t *)in + 7 * r, 10);
    assert_memory_equal(dst + 64 * r + 32, before + 64 * r + 32, 32);
    for (size_t n = 0; n < 16; ++n)
      if (n < 1 || n > 5) assert_int_equal(u16_at(dst, 64 * r + 2 * n), 0xbeef);
  }
  const dv_copy sum = {.to = {DV_GM, 0, 0}, .rows = 1, .bytes = 32, .type = DV_F32};
  fill_floats(src0, 8, 1.0f), fill_floats(dst, 8, 1.0f);
  memcpy(before, dst, 32);
  dv_value_copy(&sum, dst, src0, 1);
  for (size_t n = 0; n < 8; ++n) assert_same(f32_at(dst, 4 * n), f32_at(before, 4 * n) + f32_at(src0, 4 * n));
}

static size_t zz(size_t row, size_t k, size_t up_k) { return (row / 16 * (up_k / 16) + k / 16) * 256 + row % 16 * 16 + k % 16; }
static size_t zn(size_t k, size_t column, size_t up_n) {
  return (k / 16 * (up_n / 16) + column / 16) * 256 + column % 16 * 16 + k % 16;
}
static float widened(dv_type type, uint16_t bits) { return type == DV_F16 ? dv_f32_of_f16(bits) : dv_f32_of_bf16(bits); }

static void mmad_and_fixpipe(void **state) {
  (void)state;
  enum { MOST = 160 };
  static uint16_t a[MOST * MOST], b[MOST * MOST];
  static float c[MOST * MOST], old[MOST * MOST], rows[MOST * MOST];
  for (int round = 0; round < 60; ++round) {
    const uint32_t m = 2 + drawn() % 143, /* 1 is not Zz */
                   n = 1 + drawn() % 100, k = 1 + drawn() % 150;
    const uint32_t up_m = (m + 15) / 16 * 16, up_n = (n + 15) / 16 * 16, up_k = (k + 15) / 16 * 16;
    const dv_type type = round % 2 ? DV_BF16 : DV_F16;
    const dv_mmad mmad = {.type = type, .to = DV_F32, .m = m, .n = n, .k = k, .begins_at_zero = round % 3 == 0};
    for (size_t i = 0; i < MOST * MOST; ++i) { /* NaN where nothing is put */
      a[i] = b[i] = 0x7fff;
      c[i] = old[i] = drawn_float();
    }
    for (size_t i = 0; i < m; ++i)
      for (size_t j = 0; j < k; ++j) a[zz(i, j, up_k)] = dv_f16_of_f32(drawn_float());
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < n; ++j) b[zn(i, j, up_n)] = dv_f16_of_f32(drawn_float());
    dv_value_mmad(&mmad, c, a, b);
    for (size_t i = 0; i < up_m; ++i)
      for (size_t j = 0; j < up_n; ++j) {
        const size_t at = nz(i, j, up_m);
        if (i >= m || j >= n) {
          assert_same(c[at], old[at]);
          continue;
        }
        double sum = mmad.begins_at_zero ? 0.0 : (double)old[at], size = 1.0;
        for (size_t l = 0; l < k; ++l) {
          const uint16_t x = a[zz(i, l, up_k)], y = b[zn(l, j, up_n)];
          const double p = (double)widened(type, x) * (double)widened(type, y);
          sum += p, size += fabs(p);
        }
        assert_true(fabs((double)c[at] - sum) <= 1e-6 * size); /* from the order of the sums and rounding */
      }
    for (size_t i = 0; i < MOST * MOST; ++i) rows[i] = -7.0f;
    dv_fixpipe fix = {.from_type = DV_F32, .type = DV_F32, .columns = n, .rows = m, .from_stride = up_m,
                      .to_stride = n + 3, .matrices = 1, .relu = 1};
    dv_value_fixpipe(&fix, rows, c, 0);
    for (size_t i = 0; i < m; ++i)
      for (size_t j = 0; j < n + 3; ++j)
        assert_same(rows[i * (n + 3) + j], j >= n ? -7.0f : c[nz(i, j, up_m)] > 0.0f ? c[nz(i, j, up_m)] : 0.0f);
    fix.type = DV_F16, fix.relu = 0;
    dv_value_fixpipe(&fix, rows, c, 0);
    for (size_t i = 0; i < m; ++i)
      for (size_t j = 0; j < n; ++j)
        assert_int_equal(u16_at((uint8_t *)rows, 2 * (i * (n + 3) + j)), dv_f16_of_f32(c[nz(i, j, up_m)]));
  }
}

/* A single row is a plain vector in L0A. */
static void one_row_is_a_vector(void **state) {
  (void)state;
  uint16_t a[80], b[5 * 256];
  float c[256] = {0};
  for (size_t n = 0; n < 80; ++n) a[n] = dv_f16_of_f32(drawn_float());
  for (size_t n = 0; n < 5 * 256; ++n) b[n] = dv_f16_of_f32(drawn_float());
  const dv_mmad mmad = {.type = DV_F16, .to = DV_F32, .m = 1, .n = 16, .k = 75, .begins_at_zero = 1};
  dv_value_mmad(&mmad, c, a, b);
  for (size_t n = 0; n < 16; ++n) {
    float sum = 0.0f;
    for (size_t l = 0; l < 75; ++l) sum += dv_f32_of_f16(a[l]) * dv_f32_of_f16(b[zn(l, n, 16)]);
    assert_same(c[n], sum);
  }
}

static void fixpipe_keeps_nz(void **state) {
  (void)state;
  float c[2 * 256], out[2 * 5 * 16 + 16];
  for (size_t n = 0; n < 2 * 256; ++n) c[n] = drawn_float();
  for (size_t n = 0; n < 2 * 5 * 16 + 16; ++n) out[n] = 9.0f;
  const dv_fixpipe fix = {.from_type = DV_F32, .type = DV_F32, .columns = 32, .rows = 5, .from_stride = 16, .to_stride = 10,
                          .matrices = 1, .keeps_nz = 1};
  dv_value_fixpipe(&fix, out, c, 0);
  for (size_t n = 0; n < 160; ++n) assert_same(out[n], c[n / 80 * 256 + n % 80]);
  for (size_t n = 160; n < 176; ++n) assert_same(out[n], 9.0f);
  dv_value_fixpipe(&fix, out, c, 1);
  for (size_t n = 0; n < 160; ++n) assert_same(out[n], 2.0f * c[n / 80 * 256 + n % 80]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(moves_keep_their_layouts), cmocka_unit_test(copies_pad_and_add),
                                     cmocka_unit_test(mmad_and_fixpipe), cmocka_unit_test(one_row_is_a_vector),
                                     cmocka_unit_test(fixpipe_keeps_nz)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
