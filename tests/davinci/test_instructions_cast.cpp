// Cast on the emulated Ascend core against the vendor's documentation: ways of rounding, types, strides.
#include "kernel_test.h"

// [Cast.md] the page's examples: halves to int32_t, 64 a repeat, sources 4 blocks apart; with a mask of 32 the rest
// stays.
static void CastRoundsHalves(void **) {
  static const float source[6] = {1.4f, 1.5f, 1.6f, 2.4f, 2.5f, 2.6f};
  static const struct {
    RoundMode mode;
    int32_t value[6];
  } rounded[] = {{RoundMode::CAST_CEIL, {2, 2, 2, 3, 3, 3}},
                 {RoundMode::CAST_RINT, {1, 2, 2, 2, 2, 3}},
                 {RoundMode::CAST_FLOOR, {1, 1, 1, 2, 2, 2}},
                 {RoundMode::CAST_ROUND, {1, 2, 2, 2, 3, 3}},
                 {RoundMode::CAST_TRUNC, {1, 1, 1, 2, 2, 2}}};
  static RoundMode mode;
  for (const auto &r : rounded) {
    Begin();
    a.Fill<half>(512, [](int i) { return half(source[i % 6]); });
    mode = r.mode;
    RunUb([](const Ub &ub) {
      Cast(ub.Dst<int32_t>(), ub.A<half>(), mode, 100);
      Cast(ub.Dst<int32_t>(2048), ub.A<half>(), mode, uint64_t(32), 8, {1, 1, 8, 4});
    });
    for (int i = 0; i < 100; ++i) want.As<int32_t>()[i] = r.value[i % 6];
    for (int i = 0; i < 512; ++i)
      if (i % 64 < 32) want.As<int32_t>()[512 + i] = r.value[i % 6];
    AssertSame<int32_t>(Ub::kBytes);
  }
}

// [precision_conversion.md] the page's worked examples: one value in each way of rounding it names, saturating where it
// must.
template <typename To, typename From>
static void Converts(float value, const float (&results)[6], int modes = 5) {
  static const RoundMode all[6] = {RoundMode::CAST_RINT,  RoundMode::CAST_FLOOR, RoundMode::CAST_CEIL,
                                   RoundMode::CAST_ROUND, RoundMode::CAST_TRUNC, RoundMode::CAST_ODD};
  static RoundMode mode;
  Begin();
  a.Fill<From>(64, [&](int) { return From(value); });
  for (int i = 0; i < modes; ++i) {
    mode = all[i];
    want = before;
    want.Fill<To>(64, [&](int) { return To(results[i]); });
    RunUb([](const Ub &ub) { Cast(ub.Dst<To>(), ub.A<From>(), mode, 64); });
    AssertSame<To>(Ub::kBytes);
  }
}
static void WorkedExamples(void **) {
  Converts<half, int16_t>(4098, {4096, 4096, 4100, 4100, 4096});
  Converts<int8_t, half>(127.5f, {127, 127, 127, 127, 127});
  Converts<uint8_t, half>(1.75f, {2, 1, 2, 2, 1});
  Converts<int16_t, half>(127.5f, {128, 127, 128, 128, 127});
  Converts<int32_t, half>(-1.5f, {-2, -2, -1, -2, -1});
  Converts<int32_t, bfloat16_t>(64.5f, {64, 64, 65, 65, 64});
  Converts<int16_t, float>(4194304.5f, {32767, 32767, 32767, 32767, 32767});
  Converts<half, float>(0.5f + 0x1p-12f, {0.5f, 0.5f, 0.5f + 0x1p-11f, 0.5f + 0x1p-11f, 0.5f, 0.5f + 0x1p-11f}, 6);
  Converts<bfloat16_t, float>(0.5f + 0x1p-9f + 0x1p-11f, {0.5f + 0x1p-8f, 0.5f, 0.5f + 0x1p-8f, 0.5f + 0x1p-8f, 0.5f});
  Converts<int32_t, float>(4194304.5f, {4194304, 4194304, 4194305, 4194305, 4194304});
  Converts<float, float>(0.5f, {0, 0, 1, 1, 0});
}

// [precision_conversion.md] each way of rounding floats to half and bfloat16_t, also of negative ones; to int32_t it
// saturates.
static void CastRoundsFloats(void **) {
  // 1 + n/4 of an ulp of half, at 1 and at 2 - 2^-10; the same of bfloat16_t from element 32 on.
  Begin();
  a.Fill<float>(64, [](int i) {
    const float ulp = i < 32 ? 0x1p-10f : 0x1p-7f, from = i % 16 < 8 ? 1.0f : 2.0f - ulp;
    return (from + ulp * 0.25f * (i % 8)) * (i % 32 < 16 ? 1.0f : -1.0f);
  });
  RunUb([](const Ub &ub) {
    const RoundMode modes[] = {RoundMode::CAST_RINT,  RoundMode::CAST_FLOOR, RoundMode::CAST_CEIL,
                               RoundMode::CAST_ROUND, RoundMode::CAST_TRUNC, RoundMode::CAST_ODD};
    for (int i = 0; i < 6; ++i) Cast(ub.Dst<half>(256 * i), ub.A<float>(), modes[i], 32);
    for (int i = 0; i < 5; ++i) Cast(ub.Dst<bfloat16_t>(256 * i + 128), ub.A<float>(128), modes[i], 32);
    Cast(ub.Dst<half>(1536), ub.A<float>(), RoundMode::CAST_NONE, 32); // loses digits: as CAST_RINT
  });
  for (int mode = 0; mode < 6; ++mode)
    for (int i = 0; i < (mode < 5 ? 64 : 32); ++i) {
      const float ulp = i < 32 ? 0x1p-10f : 0x1p-7f,
                  x = a.As<float>()[i] / ulp; // in units: not exact where 2 is passed, see below
      const bool is_past_two = fabsf(a.As<float>()[i]) >= 2;
      const float units = is_past_two ? x / 2 : x;
      float r = 0;
      if (mode == 0) r = rintf(units);
      if (mode == 1) r = floorf(units);
      if (mode == 2) r = ceilf(units);
      if (mode == 3) r = roundf(units);
      if (mode == 4) r = truncf(units);
      if (mode == 5)
        r = units == truncf(units) || fmodf(truncf(units), 2) != 0 ? truncf(units)
                                                                   : truncf(units) + copysignf(1, units);
      r *= ulp * (is_past_two ? 2 : 1);
      if (i < 32)
        want.As<half>()[128 * mode + i] = half(r);
      else
        want.As<bfloat16_t>()[128 * mode + 64 + i - 32] = bfloat16_t(r);
    }
  for (int i = 0; i < 32; ++i) want.As<half>()[768 + i] = want.As<half>()[i];
  AssertSame<half>(Ub::kBytes);
}

// [SetCtrlSpr_ISASI.md, table 5; precision_conversion.md] CTRL[48] is 0 unless a kernel sets it: in half and bfloat16_t
// what overflows or is infinite becomes the largest number, NaN becomes 0. (ReduceDataBlock.md says half begins in the
// other mode, so that to refuse such values until a kernel has chosen is as good.)
static void OverflowSaturatesUnlessToldOtherwise(void **) {
  Begin();
  a.Fill<float>(64, [](int i) { return i % 4 == 0 ? INFINITY : i % 4 == 1 ? -INFINITY : i % 4 == 2 ? NAN : 1.0f; });
  ub_body = [](const Ub &ub) {
    Cast(ub.Dst<half>(), ub.A<float>(), RoundMode::CAST_RINT, 64);
    Cast(ub.Dst<bfloat16_t>(128), ub.A<float>(), RoundMode::CAST_RINT, 64);
  };
  if (!Launch(UbKernel)) {
    assert_non_null(strstr(report.line, "Cast"));
    return;
  }
  const uint16_t halves[4] = {0x7bff, 0xfbff, 0, 0x3c00}, bfloats[4] = {0x7f7f, 0xff7f, 0, 0x3f80};
  for (int i = 0; i < 64; ++i) {
    want.As<uint16_t>()[i] = halves[i % 4];
    want.As<uint16_t>()[64 + i] = bfloats[i % 4];
  }
  AssertSame<uint16_t>(Ub::kBytes);
}

// [Cast.md] the rest of the table for these cores that kernels here use.
static void CastsBetweenTypes(void **) {
  Begin();
  a.Fill<float>(64, [](int i) { return i < 8 ? (i - 4) * 1.5f : i == 8 ? 3e9f : i == 9 ? -3e9f : i * 0.3f; });
  b.Fill<uint8_t>(64, [](int i) { return i * 4; });
  for (int i = 0; i < 64; ++i) b.As<bfloat16_t>()[64 + i] = bfloat16_t(i * 0.75f);
  for (int i = 0; i < 64; ++i) b.As<int32_t>()[128 + i] = i < 32 ? 16777217 + i : -i;
  for (int i = 0; i < 64; ++i) b.As<int32_t>()[192 + i] = i < 32 ? (1 << 25) + 3 : i < 48 ? INT32_MAX : -i;
  for (int i = 0; i < 200; ++i) b.As<float>()[1024 + i] = 3.0f * i;
  for (int i = 0; i < 200; ++i) want.As<half>()[1024 + i] = half(3.0f * i);
  for (int i = 0; i < 200; ++i) want.As<float>()[768 + i] = float(b.As<half>()[2048 + i]);
  RunUb([](const Ub &ub) {
    Cast(ub.Dst<int32_t>(), ub.A<float>(), RoundMode::CAST_RINT, 64);
    Cast(ub.Dst<float>(256), ub.A<float>(), RoundMode::CAST_FLOOR, 64);
    Cast(ub.Dst<half>(512), ub.B<uint8_t>(), RoundMode::CAST_NONE, 64);
    Cast(ub.Dst<float>(640), ub.B<bfloat16_t>(128), RoundMode::CAST_NONE, 64);
    Cast(ub.Dst<float>(896), ub.B<int32_t>(512), RoundMode::CAST_TRUNC, 64);
    Cast(ub.Dst<float>(1152), ub.B<int32_t>(768), RoundMode::CAST_NONE, 64); // loses digits: as CAST_RINT
    Cast(ub.Dst<int16_t>(1408), ub.B<int32_t>(768), RoundMode::CAST_NONE, 64);
    Cast(ub.Dst<half>(2048), ub.B<float>(4096), RoundMode::CAST_RINT,
         200); // both sides contiguous over more than a repeat
    Cast(ub.Dst<float>(3072), ub.B<half>(4096), RoundMode::CAST_NONE, 200);
  });
  for (int i = 0; i < 64; ++i) {
    const float x = a.As<float>()[i];
    want.As<int32_t>()[i] = x > 2e9f ? INT32_MAX : x < -2e9f ? INT32_MIN : static_cast<int32_t>(rintf(x));
    want.As<float>()[64 + i] = floorf(x);
    want.As<half>()[256 + i] = half(float(i * 4));
    want.As<float>()[160 + i] = float(b.As<bfloat16_t>()[64 + i]);
    want.As<float>()[288 + i] = i < 32 ? 0x1p25f + 4 : i < 48 ? 0x1p31f : -i;
    want.As<int16_t>()[704 + i] = static_cast<int16_t>(i < 48 ? INT16_MAX : -i);
    want.As<float>()[224 + i] = i < 32 ? 16777216.0f + i / 2 * 2 + (i % 2 ? 2 : 0) : -i;
  }
  AssertSame<int32_t>(Ub::kBytes);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(CastRoundsHalves),  cmocka_unit_test(WorkedExamples),
      cmocka_unit_test(CastRoundsFloats),  cmocka_unit_test(OverflowSaturatesUnlessToldOtherwise),
      cmocka_unit_test(CastsBetweenTypes),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
