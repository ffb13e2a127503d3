/* Conversions and vector instructions of the emulated Ascend core (sim/davinci/values.h), against restatements an element at
 * a time: by value instead of by bits, and by the documented strides. */
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
static float float_of(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
static uint32_t bits_of(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}
static void assert_same(float got, float expected) {
  if (isnan(expected)) assert_true(isnan(got));
  else assert_int_equal(bits_of(got), bits_of(expected));
}

/* ------------------------------------------------------------------ conversions */

static double value_of_half(uint32_t h) {
  const int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
  double size = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
  if (exponent == 31) size = mantissa ? (double)NAN : (double)INFINITY;
  return h & 0x8000 ? -size : size;
}

static void halves_are_their_values(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = dv_f32_of_f16((uint16_t)h);
    assert_same(f, (float)value_of_half(h));
    if (!isnan(f)) assert_int_equal(dv_f16_of_f32(f), h);
    else assert_int_equal(dv_f16_of_f32(f), h | 0x200);
    const float b = dv_f32_of_bf16((uint16_t)h);
    assert_int_equal(bits_of(b), h << 16);
    assert_int_equal(dv_bf16_of_f32(b), isnan(b) ? (h | 0x40) : h);
  }
}

/* Between each two neighbours among the positive halves: the middle goes to the even one, beside it to the nearer. */
static void narrowing_is_to_nearest_even(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const double below = value_of_half(h), above = h == 0x7bff ? 65536.0 : value_of_half(h + 1);
    const float middle = (float)((below + above) / 2);
    const uint32_t even = h & 1 ? h + 1 : h;
    for (uint32_t sign = 0; sign < 2; ++sign) {
      const float s = sign ? -1.0f : 1.0f;
      assert_int_equal(dv_f16_of_f32(s * middle), even | sign << 15);
      assert_int_equal(dv_f16_of_f32(s * nextafterf(middle, 0.0f)), h | sign << 15);
      assert_int_equal(dv_f16_of_f32(s * nextafterf(middle, INFINITY)), (h + 1) | sign << 15);
    }
  }
  assert_int_equal(dv_f16_of_f32(1e30f), 0x7c00);
  assert_int_equal(dv_f16_of_f32(-INFINITY), 0xfc00);
  assert_true((dv_f16_of_f32(float_of(0x7f800001)) & 0x7fff) > 0x7c00);
  assert_true((dv_bf16_of_f32(float_of(0x7f800001)) & 0x7fff) > 0x7f80);
  for (int n = 0; n < 100000; ++n) {
    const float f = float_of(drawn());
    if (!isfinite(f)) continue;
    const float low = float_of(bits_of(f) & 0xffff0000u), high = float_of((bits_of(f) & 0xffff0000u) + 0x10000u);
    const double next = isinf(high) ? copysign(ldexp(1.0, 128), (double)f) : (double)high;
    const double to_low = fabs((double)f - (double)low), to_high = fabs(next - (double)f);
    const float expected = to_low < to_high ? low : to_low > to_high ? high : bits_of(low) & 0x10000u ? high : low;
    assert_int_equal(dv_bf16_of_f32(f), bits_of(expected) >> 16);
  }
}

/* ------------------------------------------------------------------ vector instructions */

enum { BYTES = 1 << 16 };
static uint8_t dst[BYTES], before[BYTES], src0[BYTES], src1[BYTES], selector[BYTES];

static void fill_floats(uint8_t *to, size_t count, float scale) {
  for (size_t n = 0; n < count; ++n) {
    const float f = scale * drawn_float();
    memcpy(to + 4 * n, &f, 4);
  }
}
static void reset(void) {
  for (int n = 0; n < BYTES; ++n) dst[n] = before[n] = (uint8_t)drawn();
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
static dv_vector contiguous(dv_operation op, dv_type type, dv_type to) {
  const uint32_t bytes = dv_type_bytes(type), to_bytes = dv_type_bytes(to);
  const uint32_t lanes = 256 / (bytes > to_bytes ? bytes : to_bytes);
  return (dv_vector){.op = op, .type = type, .to = to, .repeats = 1, .mask = {~0ull, ~0ull}, .dst_block = 1, .src0_block = 1,
                     .src1_block = 1, .dst_repeat = lanes * to_bytes / 32, .src0_repeat = lanes * bytes / 32,
                     .src1_repeat = lanes * bytes / 32};
}
static void run(const dv_vector *v) { dv_value_vector(v, dst, src0, src1, selector); }

static size_t place(uint32_t repeat, uint32_t lane, uint32_t bytes, uint32_t block, uint32_t repeat_blocks) {
  const uint32_t a_block = 32 / bytes;
  return ((size_t)repeat * repeat_blocks + lane / a_block * block) * 32 + lane % a_block * bytes;
}
static int drawn_part(const dv_vector *v, uint32_t repeat, uint32_t lanes, uint32_t lane) {
  if (v->counts) return repeat * lanes + lane < v->count;
  return (int)(v->mask[lane / 64] >> lane % 64 & 1);
}

/* Any strides, masks and counts; what takes no part keeps its bytes, all of them. */
static void strides_masks_and_counts(void **state) {
  (void)state;
  for (int round = 0; round < 3000; ++round) {
    const int is_half = round % 2;
    const uint32_t bytes = is_half ? 2 : 4, lanes = 256 / bytes;
    dv_vector v = contiguous(drawn() % 2 ? DV_SUB : DV_MAX, is_half ? DV_F16 : DV_F32, is_half ? DV_F16 : DV_F32);
    v.repeats = 1 + drawn() % 3;
    v.mask[0] = drawn() % 3 ? ((uint64_t)drawn() << 32 | drawn()) : drawn() % 2 ? ~0ull : (1ull << drawn() % 64) - 1;
    v.mask[1] = !is_half ? 0 : drawn() % 2 ? ((uint64_t)drawn() << 32 | drawn()) : 0;
    v.counts = drawn() % 2;
    v.count = drawn() % (3 * lanes + 1);
    if (drawn() % 2) v.dst_block = 1 + drawn() % 3, v.src0_block = drawn() % 3, v.src1_block = drawn() % 4;
    if (drawn() % 2) v.dst_repeat = 8 * v.dst_block + drawn() % 4, v.src0_repeat = drawn() % 20, v.src1_repeat = drawn() % 20;
    if (v.dst_repeat < 8 * v.dst_block) v.dst_repeat = 8 * v.dst_block;
    for (int n = 0; n < 8192; n += 2) {
      const uint16_t a = dv_f16_of_f32(drawn_float()), b = dv_f16_of_f32(drawn_float());
      memcpy(src0 + n, &a, 2), memcpy(src1 + n, &b, 2);
    }
    if (!is_half) fill_floats(src0, 2048, 1.0f), fill_floats(src1, 2048, 1.0f);
    reset();
    const uint32_t repeats = v.counts ? (v.count + lanes - 1) / lanes : v.repeats;
    for (uint32_t r = 0; r < repeats; ++r)
      for (uint32_t n = 0; n < lanes; ++n) {
        if (!drawn_part(&v, r, lanes, n)) continue;
        const size_t at0 = place(r, n, bytes, v.src0_block, v.src0_repeat);
        const size_t at1 = place(r, n, bytes, v.src1_block, v.src1_repeat);
        const float a = is_half ? dv_f32_of_f16(u16_at(src0, at0)) : f32_at(src0, at0);
        const float b = is_half ? dv_f32_of_f16(u16_at(src1, at1)) : f32_at(src1, at1);
        const float c = v.op == DV_SUB ? a - b : a > b ? a : b;
        const uint16_t h = dv_f16_of_f32(c);
        memcpy(before + place(r, n, bytes, v.dst_block, v.dst_repeat), is_half ? (const void *)&h : &c, bytes);
      }
    run(&v);
    assert_memory_equal(dst, before, BYTES);
  }
}

static void arithmetic_lane_by_lane(void **state) {
  (void)state;
  static const dv_operation operations[] = {DV_ADD,  DV_MUL,  DV_DIV,  DV_MIN, DV_MULADDDST, DV_ADDS,
                                            DV_MULS, DV_AXPY, DV_SQRT, DV_ABS, DV_RELU};
  const float specials[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, 3e38f, -1.0f};
  fill_floats(src0, 1000, 4.0f), fill_floats(src1, 1000, 4.0f);
  for (size_t n = 0; n < 64; ++n) memcpy(src0 + 4 * n, &specials[n % 8], 4), memcpy(src1 + 4 * n, &specials[n / 8], 4);
  for (size_t o = 0; o < sizeof operations / sizeof *operations; ++o) {
    dv_vector v = contiguous(operations[o], DV_F32, DV_F32);
    v.counts = 1, v.count = 1000, v.scalar = 0.7f;
    reset();
    fill_floats(dst, 1000, 1.0f);
    memcpy(before, dst, BYTES);
    run(&v);
    for (size_t n = 0; n < 1000; ++n) {
      const float a = f32_at(src0, 4 * n), b = f32_at(src1, 4 * n), c = f32_at(before, 4 * n);
      const float product = a * b, scaled = a * 0.7f;
      const float expected[] = {a + b, product, a / b, isnan(a) ? a : a <= b ? a : b, product + c, a + 0.7f, scaled, scaled + c,
                                sqrtf(a), fabsf(a), a <= 0.0f ? 0.0f : a};
      assert_same(f32_at(dst, 4 * n), expected[o]);
    }
  }
  dv_vector max = contiguous(DV_MAX, DV_F32, DV_F32);
  const float nan = NAN, one = 1.0f;
  memcpy(src0, &one, 4), memcpy(src1, &nan, 4), memcpy(src0 + 4, &nan, 4), memcpy(src1 + 4, &one, 4);
  run(&max);
  assert_true(isnan(f32_at(dst, 0)) && isnan(f32_at(dst, 4)));
}

static void exp_is_within_an_ulp(void **state) {
  (void)state;
  dv_vector v = contiguous(DV_EXP, DV_F32, DV_F32);
  v.counts = 1, v.count = 8192;
  double worst = 0.0;
  for (int round = 0; round < 100; ++round) {
    for (size_t n = 0; n < 8192; ++n) {
      float x = round % 4 == 0 ? drawn_float() * 0.5f : round % 4 == 1 ? float_of(drawn()) : drawn_float() * 53.0f;
      memcpy(src0 + 4 * n, &x, 4);
    }
    run(&v);
    for (size_t n = 0; n < 8192; ++n) {
      const float x = f32_at(src0, 4 * n), got = f32_at(dst, 4 * n);
      const double exact = exp((double)x);
      if (isnan(x)) assert_true(isnan(got));
      else if ((float)exact == INFINITY) assert_true(got == INFINITY);
      else {
        int exponent;
        frexp(exact, &exponent);
        const double ulp = ldexp(1.0, exponent > -125 ? exponent - 24 : -149), error = fabs((double)got - exact) / ulp;
        if (error > worst) worst = error;
      }
    }
  }
  assert_true(worst < 1.1);
}

static void casts_round_as_named(void **state) {
  (void)state;
  static const dv_type narrow[] = {DV_F16, DV_BF16};
  fill_floats(src0, 4096, 30000.0f), fill_floats(src0, 2048, 1e-6f);
  for (int to = 0; to < 2; ++to)
    for (dv_round round = DV_ROUND_NONE; round <= DV_ODD; ++round) {
      dv_vector v = contiguous(DV_CAST, DV_F32, narrow[to]);
      v.counts = 1, v.count = 4096, v.round = round;
      run(&v);
      for (size_t n = 0; n < 4096; ++n) {
        const double x = (double)f32_at(src0, 4 * n);
        const uint16_t h = u16_at(dst, 2 * n);
        const double got = (double)(to ? dv_f32_of_bf16(h) : dv_f32_of_f16(h));
        const uint16_t in = (uint16_t)(h & 0x7fff ? h - 1 : 0x8000), out = (uint16_t)(h + 1);
        const double inner = h & 0x7fff ? (double)(to ? dv_f32_of_bf16(in) : dv_f32_of_f16(in)) : got;
        const double outer = (double)(to ? dv_f32_of_bf16(out) : dv_f32_of_f16(out));
        assert_true(fabs(x) >= fabs(inner) && (fabs(x) < fabs(outer) || isinf(outer) || got == x));
        if (got == x) continue;
        assert_false(round == DV_FLOOR && got > x);
        assert_false(round == DV_CEIL && got < x);
        assert_false(round == DV_TRUNC && fabs(got) > fabs(x));
        if (round == DV_ODD) assert_true(h & 1);
        if (round == DV_ROUND_NONE || round == DV_RINT || round == DV_ROUND_AWAY)
          assert_true(fabs(got - x) <= fabs(x - inner) && (fabs(got - x) <= fabs(outer - x)));
      }
    }
  static const struct {
    float x;
    dv_round round;
    uint16_t half;
  } halves[] = {{1.0f, DV_ODD, 0x3c00}, {0x1.002p0f, DV_ROUND_AWAY, 0x3c01}, {0x1.002p0f, DV_RINT, 0x3c00},
                {0x1p-25f, DV_ROUND_AWAY, 1}, {0x1p-25f, DV_RINT, 0}, {1e-40f, DV_CEIL, 1}, {-1e-40f, DV_FLOOR, 0x8001},
                {1e-40f, DV_ODD, 1}, {1e-40f, DV_ROUND_AWAY, 0}, {1e9f, DV_TRUNC, 0x7bff}, {1e9f, DV_CEIL, 0x7c00},
                {-1e9f, DV_CEIL, 0xfbff}, {0.0f, DV_CEIL, 0}, {-INFINITY, DV_TRUNC, 0xfc00}, {1e9f, DV_ODD, 0x7bff}};
  for (size_t n = 0; n < sizeof halves / sizeof *halves; ++n) {
    dv_vector v = contiguous(DV_CAST, DV_F32, DV_F16);
    v.counts = 1, v.count = 1, v.round = halves[n].round;
    memcpy(src0, &halves[n].x, 4);
    run(&v);
    assert_int_equal(u16_at(dst, 0), halves[n].half);
  }
  const float ties[] = {0.5f, 1.5f, 2.5f, -0.5f, -2.5f, 3e9f, -3e9f, NAN, 2.25f, -2.75f};
  enum { MOST = INT32_MAX, LEAST = INT32_MIN };
  const int32_t expected[][10] = {{0, 2, 2, 0, -2, MOST, LEAST, 0, 2, -3}, {0, 1, 2, -1, -3, MOST, LEAST, 0, 2, -3},
                                  {1, 2, 3, 0, -2, MOST, LEAST, 0, 3, -2}, {1, 2, 3, -1, -3, MOST, LEAST, 0, 2, -3},
                                  {0, 1, 2, 0, -2, MOST, LEAST, 0, 2, -2}, {1, 1, 3, -1, -3, MOST, LEAST, 0, 3, -3}};
  memcpy(src0, ties, sizeof ties);
  for (int round = DV_RINT; round <= DV_ODD; ++round) {
    dv_vector v = contiguous(DV_CAST, DV_F32, DV_S32);
    v.counts = 1, v.count = 10, v.round = (dv_round)round;
    run(&v);
    assert_memory_equal(dst, expected[round - DV_RINT], sizeof expected[0]);
  }
  dv_vector widen = contiguous(DV_CAST, DV_F16, DV_F32); /* 64 elements a repeat, by the wider type */
  widen.repeats = 2, widen.mask[0] = 0x8001;
  reset();
  run(&widen);
  for (size_t n = 0; n < 128; ++n)
    if (n % 64 == 0 || n % 64 == 15) assert_same(f32_at(dst, 4 * n), dv_f32_of_f16(u16_at(src0, 2 * n)));
    else assert_memory_equal(dst + 4 * n, before + 4 * n, 4);
}

static void reductions(void **state) {
  (void)state;
  for (int round = 0; round < 500; ++round) {
    fill_floats(src0, 128, 1.0f);
    dv_vector v = contiguous(DV_WHOLE_MAX, DV_F32, DV_F32);
    v.repeats = 2, v.dst_repeat = 3, v.order = (dv_reduce_order)(round % 4);
    v.mask[0] = round % 3 ? ~0ull : ((uint64_t)drawn() << 32 | drawn());
    reset();
    run(&v);
    for (size_t r = 0; r < 2; ++r) {
      uint32_t best = 64;
      for (uint32_t n = 0; n < 64; ++n)
        if (v.mask[0] >> n & 1 && (best == 64 || f32_at(src0, 256 * r + 4 * n) > f32_at(src0, 256 * r + 4 * best))) best = n;
      const size_t unit = v.order < DV_ONLY_VALUE ? 8 : 4, at = 3 * r * unit;
      const uint8_t *value = dst + at + (v.order == DV_INDEX_VALUE ? 4 : 0);
      if (v.order != DV_ONLY_INDEX) assert_memory_equal(value, src0 + 256 * r + 4 * best, 4);
      if (v.order != DV_ONLY_VALUE) assert_memory_equal(dst + at + (v.order == DV_VALUE_INDEX ? 4 : 0), &best, 4);
    }
    v.op = DV_WHOLE_SUM;
    run(&v);
    float tree[64];
    for (size_t n = 0; n < 64; ++n) tree[n] = v.mask[0] >> n & 1 ? f32_at(src0, 256 + 4 * n) : 0.0f;
    for (size_t step = 1; step < 64; step *= 2)
      for (size_t n = 0; n < 64; n += 2 * step) tree[n] += tree[n + step];
    assert_same(f32_at(dst, 12), tree[0]);
    v.op = DV_BLOCK_MIN, v.dst_repeat = 1, v.mask[0] &= ~0xff00ull; /* nothing of block 1 */
    reset();
    run(&v);
    for (size_t n = 0; n < 16; ++n) {
      float least = INFINITY;
      for (size_t i = 8 * n; i < 8 * n + 8; ++i)
        if (v.mask[0] >> i % 64 & 1) least = fminf(least, f32_at(src0, 4 * i));
      if (v.mask[0] >> 8 * (n % 8) & 0xff) assert_same(f32_at(dst, 4 * n), least);
      else assert_memory_equal(dst + 4 * n, before + 4 * n, 4);
    }
  }
  dv_vector pair = contiguous(DV_PAIR_SUM, DV_F32, DV_F32);
  pair.repeats = 2, pair.dst_repeat = 1; /* 128 bytes */
  run(&pair);
  for (size_t n = 0; n < 64; ++n) assert_same(f32_at(dst, 4 * n), f32_at(src0, 8 * n) + f32_at(src0, 8 * n + 4));
  for (size_t n = 0; n < 128; ++n) memcpy(src0 + 2 * n, &(uint16_t){dv_f16_of_f32((float)(n % 16) * 8.0f + 1.0f)}, 2);
  dv_vector half = contiguous(DV_BLOCK_SUM, DV_F16, DV_F16);
  run(&half);
  for (size_t n = 0; n < 8; ++n) assert_true(dv_f32_of_f16(u16_at(dst, 2 * n)) == 976.0f);
  half.op = DV_WHOLE_MAX;
  run(&half);
  assert_true(dv_f32_of_f16(u16_at(dst, 0)) == 121.0f && u16_at(dst, 2) == 15);
}

static void bits_select_and_spread(void **state) {
  (void)state;
  fill_floats(src0, 192, 1.0f), fill_floats(src1, 192, 1.0f);
  dv_vector v = contiguous(DV_COMPARE_SCALAR, DV_F32, DV_U8);
  v.repeats = 3, v.scalar = 0.25f, v.compare = DV_GE, v.mask[0] = 1; /* has no effect */
  run(&v);
  for (size_t n = 0; n < 192; ++n) assert_int_equal(dst[n / 8] >> n % 8 & 1, f32_at(src0, 4 * n) >= 0.25f);
  memcpy(selector, dst, 24);
  for (int goes_on = 0; goes_on < 2; ++goes_on) {
    v = contiguous(DV_SELECT, DV_F32, DV_F32);
    v.repeats = 3, v.selector_repeats = goes_on, v.mask[0] = ~2ull;
    reset();
    run(&v);
    for (size_t n = 0; n < 192; ++n) {
      const size_t bit = goes_on ? n : n % 64;
      const uint8_t *from = n % 64 == 1 ? before : selector[bit / 8] >> bit % 8 & 1 ? src0 : src1;
      assert_memory_equal(dst + 4 * n, from + 4 * n, 4);
    }
  }
  v = contiguous(DV_BRCB, DV_F32, DV_F32);
  v.repeats = 2, v.dst_block = 2, v.dst_repeat = 16;
  run(&v);
  for (size_t n = 0; n < 16; ++n)
    for (size_t i = 0; i < 8; ++i) assert_memory_equal(dst + 64 * n + 4 * i, src0 + 4 * n, 4);
  v = contiguous(DV_DUPLICATE, DV_F16, DV_F16);
  v.counts = 1, v.count = 200, v.scalar_bits = 0x3c01;
  reset();
  run(&v);
  for (size_t n = 0; n < 200; ++n) assert_int_equal(u16_at(dst, 2 * n), 0x3c01);
  assert_memory_equal(dst + 400, before + 400, 200);
  v = contiguous(DV_ADDS, DV_S32, DV_S32);
  v.scalar_bits = (uint32_t)-5;
  const int32_t least = INT32_MIN, wrapped = INT32_MAX - 4;
  memcpy(src0, &least, 4);
  run(&v);
  assert_memory_equal(dst, &wrapped, 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(halves_are_their_values), cmocka_unit_test(narrowing_is_to_nearest_even),
                                     cmocka_unit_test(strides_masks_and_counts), cmocka_unit_test(arithmetic_lane_by_lane),
                                     cmocka_unit_test(exp_is_within_an_ulp), cmocka_unit_test(casts_round_as_named),
                                     cmocka_unit_test(reductions), cmocka_unit_test(bits_select_and_spread)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
