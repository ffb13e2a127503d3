// Reductions, Brcb, comparisons and Select of the emulated Ascend core against the vendor's documentation: what they
// write, where, and which argument comes first.
#include "kernel_test.h"

// ------------------------------------------------------------------ WholeReduce: mask, then repeats

// [ReduceRepeat.md] the page's example: 4 x 128 halves, 11 at 52, 12 at 100, 13 at 19 of the last; results of the four
// orders. An index is stored bit by bit in a half, and as uint32_t when it comes alone.
static void MaximaInFourOrders(void **) {
  Begin();
  a.Fill<half>(512, [](int i) {
    return half(i == 52 ? 11.0f : i == 128 + 100 ? 12.0f : i == 384 + 19 ? 13.0f : 1.0f + i / 128);
  });
  RunUb([](const Ub &ub) {
    WholeReduceMax<half>(ub.Dst<half>(), ub.A<half>(), 128, 4, 1, 1, 8);
    WholeReduceMax<half>(ub.Dst<half>(64), ub.A<half>(), 128, 4, 1, 1, 8, ReduceOrder::ORDER_INDEX_VALUE);
    WholeReduceMax<half>(ub.Dst<half>(128), ub.A<half>(), 128, 4, 1, 1, 8, ReduceOrder::ORDER_ONLY_VALUE);
    WholeReduceMax<half>(ub.Dst<half>(192), ub.A<half>(), 128, 4, 1, 1, 8, ReduceOrder::ORDER_ONLY_INDEX);
  });
  const float value[4] = {11, 12, 3, 13};
  const uint16_t index[4] = {52, 100, 0, 19}; // of equal values the first
  for (int i = 0; i < 4; ++i) {
    want.As<half>()[2 * i] = half(value[i]);
    want.As<uint16_t>()[2 * i + 1] = index[i];
    want.As<uint16_t>()[32 + 2 * i] = index[i];
    want.As<half>()[32 + 2 * i + 1] = half(value[i]);
    want.As<half>()[64 + i] = half(value[i]);
    want.As<uint32_t>()[48 + i] = index[i];
  }
  AssertSame<uint16_t>(Ub::kBytes);
}

// [ReduceRepeat.md, table 3] dstRepStride counts results: 8 bytes of float with an index, 4 without. Strides of the
// source are blocks. The index is that inside the repeat; elements off the mask do not count.
static void MaximaOfFloats(void **) {
  Begin();
  a.Fill<float>(1024, [](int i) { return i * 37 % 101 - 200; });
  RunUb([](const Ub &ub) {
    WholeReduceMax<float>(ub.Dst<float>(), ub.A<float>(), 43, 5, 3, 1, 8);
    WholeReduceMax<float>(ub.Dst<float>(512), ub.A<float>(), 43, 5, 3, 2, 10, ReduceOrder::ORDER_ONLY_VALUE);
    WholeReduceMin<float>(ub.Dst<float>(1024), ub.A<float>(), 64, 5, 1, 1, 4);
  });
  for (int r = 0; r < 5; ++r) {
    float most = -1e9f, strided = -1e9f, least = 1e9f;
    uint32_t at = 0, at_least = 0;
    for (uint32_t e = 0; e < 64; ++e) {
      const float x = a.As<float>()[64 * r + e], y = a.As<float>()[80 * r + e / 8 * 16 + e % 8],
                  z = a.As<float>()[32 * r + e];
      if (e < 43 && x > most) most = x, at = e;
      if (e < 43 && y > strided) strided = y;
      if (z < least) least = z, at_least = e;
    }
    want.As<float>()[6 * r] = most;
    want.As<uint32_t>()[6 * r + 1] = at;
    want.As<float>()[128 + 3 * r] = strided;
    want.As<float>()[256 + 2 * r] = least;
    want.As<uint32_t>()[256 + 2 * r + 1] = at_least;
  }
  AssertSame<uint32_t>(Ub::kBytes);
}

// [WholeReduceSum.md, hiascend.com .../atlasascendc_api_07_0081.html] mask before repeats; one result a repeat.
static void Sums(void **) {
  Begin();
  a.Fill<float>(1024, [](int i) { return i + 1; });
  b.Fill<half>(512, [](int i) { return half(float(i % 128 < 100 ? 1 + i / 128 : 100)); });
  RunUb([](const Ub &ub) {
    WholeReduceSum<float>(ub.Dst<float>(), ub.A<float>(), 10, 3, 2, 1, 8);
    WholeReduceSum<half>(ub.Dst<half>(256), ub.B<half>(), 100, 4, 1, 1, 8);
  });
  for (int r = 0; r < 3; ++r) want.As<float>()[2 * r] = 640.0f * r + 55;
  for (int r = 0; r < 4; ++r) want.As<half>()[128 + r] = half(100.0f * (1 + r));
  AssertSame<half>(Ub::kBytes);
}

// [ReduceDataBlock.md, ReduceRepeat.md] sums are taken pairwise: neighbours, then neighbours of those, each sum rounded
// to the type.
static void SumsArePairwise(void **) {
  Begin();
  const float order[4] = {1e8f, 1, -1e8f, 1}; // left to right: 1; in pairs: 1e8 + -1e8
  a.Fill<float>(64, [](int i) { return 0 * i; });
  memcpy(a.bytes, order, sizeof order);
  b.Fill<half>(128, [](int i) { return half(i == 0 ? 2048.0f : i < 4 ? 1.0f : 0.0f); }); // 2049 is no half: 2048 + 2
  b.Fill<half>(16, [](int i) { return half(i == 0 ? 2048.0f : i < 4 ? 1.0f : 0.0f); });
  RunUb([](const Ub &ub) {
    WholeReduceSum<float>(ub.Dst<float>(), ub.A<float>(), 64, 1, 1, 1, 8);
    WholeReduceSum<half>(ub.Dst<half>(32), ub.B<half>(), 128, 1, 1, 1, 8);
    BlockReduceSum<float>(ub.Dst<float>(64), ub.A<float>(), 1, 64, 1, 1, 8);
    BlockReduceSum<half>(ub.Dst<half>(96), ub.B<half>(), 1, 128, 1, 1, 8);
  });
  want.As<float>()[0] = 0;
  want.As<half>()[16] = half(2050.0f);
  for (int i = 0; i < 8; ++i) want.As<float>()[16 + i] = 0;
  for (int i = 0; i < 8; ++i) want.As<half>()[48 + i] = half(i ? 0.0f : 2050.0f);
  AssertSame<half>(Ub::kBytes);
}

// ------------------------------------------------------------------ BlockReduce: repeats, then mask

// [BlockReduceMax.md] the page's example: 128 halves, its first block and its last.
static void MaximaOfBlocks(void **) {
  static const float first[16] = {-8.781f, 4.688f,  -0.09607f, -5.445f, 4.957f,   -4.832f, 9.555f,  8.391f,
                                  6.273f,  -2.412f, 7.969f,    3.9f,    -0.4238f, 2.988f,  -6.855f, -1.335f};
  static const float last[16] = {9.68f,   -6.672f, -6.488f, -7.398f, 8.562f,  3.508f,  3.135f,  -5.512f,
                                 -7.883f, -8.594f, -5.895f, -8.938f, -7.676f, -7.867f, -9.188f, -5.715f};
  Begin();
  a.Fill<half>(128, [](int i) { return half(i < 16 ? first[i] : i >= 112 ? last[i - 112] : -10.0f - i / 16); });
  RunUb([](const Ub &ub) { BlockReduceMax<half>(ub.Dst<half>(), ub.A<half>(), 1, 128, 1, 1, 8); });
  for (int i = 0; i < 8; ++i) want.As<half>()[i] = half(i == 0 ? 9.555f : i == 7 ? 9.68f : -10.0f - i);
  AssertSame<half>(Ub::kBytes);
}

// [ReduceDataBlock.md] 8 results a repeat, dstRepStride counts 8 of them; a block wholly off the mask writes nothing.
static void BlocksOfFloats(void **) {
  Begin();
  a.Fill<float>(1024, [](int i) { return i * 37 % 101 - 50; });
  RunUb([](const Ub &ub) {
    BlockReduceMax<float>(ub.Dst<float>(), ub.A<float>(), 3, 44, 2, 1, 8); // 3 repeats, 44 elements of each
    BlockReduceSum<float>(ub.Dst<float>(1024), ub.A<float>(), 2, 64, 1, 2, 16);
    BlockReduceMin<half>(ub.Dst<half>(2048), ub.A<half>(), 2, 20, 3, 1, 8);
  });
  for (int r = 0; r < 3; ++r)
    for (int block = 0; block < 6; ++block) {
      float most = -1e9f;
      for (int e = 8 * block; e < 8 * block + 8 && e < 44; ++e) most = fmaxf(most, a.As<float>()[64 * r + e]);
      want.As<float>()[16 * r + block] = most;
    }
  for (int r = 0; r < 2; ++r)
    for (int block = 0; block < 8; ++block) {
      float sum = 0; // small whole numbers
      for (int e = 0; e < 8; ++e) sum += a.As<float>()[128 * r + 16 * block + e];
      want.As<float>()[256 + 8 * r + block] = sum;
    }
  for (int r = 0; r < 2; ++r)
    for (int block = 0; block < 2; ++block) {
      float least = 1e9f;
      for (int e = 16 * block; e < 16 * block + 16 && e < 20; ++e)
        least = fminf(least, float(a.As<half>()[128 * r + e]));
      want.As<half>()[1024 + 24 * r + block] = half(least);
    }
  AssertSame<half>(Ub::kBytes);
}

// [Brcb.md] the page's example, halves 1 to 16, dense and with strides {2, 16}; 8 elements a repeat, one block each.
static void ElementsToBlocks(void **) {
  Begin();
  a.Fill<half>(16, [](int i) { return half(float(i + 1)); });
  b.Fill<float>(8, [](int i) { return -0.5f * i; });
  RunUb([](const Ub &ub) {
    Brcb(ub.Dst<half>(), ub.A<half>(), 2, {1, 8});
    Brcb(ub.Dst<half>(1024), ub.A<half>(), 2, {2, 16});
    Duplicate(ub.Fresh<float>(), 2.5f, 8); // no more than the 8 are read
    PipeBarrier<PIPE_V>();
    Brcb(ub.Dst<float>(4096), ub.B<float>(), 1, {1, 8});
    Brcb(ub.Dst<float>(8192), ub.Fresh<float>(), 1, {1, 8});
  });
  for (int i = 0; i < 256; ++i)
    want.As<half>()[i] = want.As<half>()[512 + i / 16 * 32 + i % 16] = half(float(1 + i / 16));
  for (int i = 0; i < 64; ++i) want.As<float>()[1024 + i] = -0.5f * (i / 8), want.As<float>()[2048 + i] = 2.5f;
  AssertSame<half>(Ub::kBytes);
}

// ------------------------------------------------------------------ comparisons

// [Compares.md] the page's example: of 256 floats these are less than -95.16087; CompareScalar is the older name.
static void ComparedWithAScalar(void **) {
  static const struct {
    int at;
    float value;
  } less[] = {{43, -99.89055f},  {74, -99.96178f},   {100, -96.61422f}, {109, -95.993744f},
              {165, -97.44226f}, {178, -97.325325f}, {188, -96.62777f}};
  Begin();
  a.Fill<float>(256, [](int i) { return i * 0.75f - 90; });
  for (const auto &l : less) a.As<float>()[l.at] = l.value;
  RunUb([](const Ub &ub) { CompareScalar(ub.Dst<uint8_t>(), ub.A<float>(), -95.16087f, CMPMODE::LT, 256); });
  const uint8_t bits[32] = {0, 0, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 16, 32, 0, 0, 0, 0, 0, 0, 32, 0, 4, 16};
  memcpy(want.bytes, bits, sizeof bits);
  AssertSame<uint8_t>(Ub::kBytes);
}

// [Compare.md] the page's eight pairs, repeated: 2 3 5 7 11 13 17 19 against 2 4 6 8 10 12 14 16. Bit 0 of a byte is
// its first element.
static void ComparedInEveryWay(void **) {
  static const int x[8] = {2, 3, 5, 7, 11, 13, 17, 19}, y[8] = {2, 4, 6, 8, 10, 12, 14, 16};
  Begin();
  a.Fill<float>(128, [](int i) { return x[i % 8]; });
  b.Fill<float>(128, [](int i) { return y[i % 8]; });
  for (int i = 0; i < 128; ++i) a.As<half>()[1024 + i] = half(float(x[i % 8]));
  for (int i = 0; i < 128; ++i) b.As<half>()[1024 + i] = half(float(y[i % 8]));
  for (int i = 0; i < 64; ++i) a.As<int32_t>()[1024 + i] = x[i % 8];
  for (int i = 0; i < 64; ++i) b.As<int32_t>()[1024 + i] = y[i % 8];
  RunUb([](const Ub &ub) {
    const CMPMODE modes[] = {CMPMODE::LT, CMPMODE::GT, CMPMODE::GE, CMPMODE::LE, CMPMODE::EQ, CMPMODE::NE};
    for (int i = 0; i < 6; ++i) {
      Compare(ub.Dst<uint8_t>(64 * i), ub.A<float>(), ub.B<float>(), modes[i], 128);
      Compare(ub.Dst<uint8_t>(1024 + 64 * i), ub.A<half>(2048), ub.B<half>(2048), modes[i], 128);
    }
    Compare(ub.Dst<uint8_t>(2048), ub.A<int32_t>(4096), ub.B<int32_t>(4096), CMPMODE::EQ, 64);
  });
  const uint8_t bits[6] = {14, 240, 241, 15, 1, 254};
  for (int i = 0; i < 6; ++i) {
    memset(want.bytes + 64 * i, bits[i], 16);
    memset(want.bytes + 1024 + 64 * i, bits[i], 16);
  }
  memset(want.bytes + 2048, 1, 8);
  AssertSame<uint8_t>(Ub::kBytes);
}

// [Compare.md, Compares.md] a count whose elements do not fill 256 bytes: what does not is not computed (or the run is
// refused).
static void AComparisonsTailIsNotComputed(void **) {
  Begin();
  ub_body = [](const Ub &ub) { CompareScalar(ub.Dst<uint8_t>(), ub.A<float>(), 0.0f, CMPMODE::NE, 100); };
  if (!Launch(UbKernel)) {
    assert_non_null(strstr(report.line, "CompareScalar"));
    return;
  }
  memset(want.bytes, 255, 8);
  AssertSame<uint8_t>(Ub::kBytes);
}

// ------------------------------------------------------------------ Select

// [Select.md] the page's selector for mode 2: bit 1 takes src0, bit 0 src1; 60 takes elements 2 to 5 of its eight from
// src0.
static const uint8_t selector[32] = {60, 32, 10, 7,  42, 52, 38, 26, 19, 15, 18, 83, 41, 43, 91, 30,
                                     45, 77, 80, 58, 34, 76, 44, 4,  64, 45, 48, 31, 30, 56, 43, 88};

static void PrepareSelect() {
  Begin();
  memcpy(a.bytes + 8192, selector, sizeof selector);
  a.Fill<float>(512, [](int i) { return i + 1; });
  b.Fill<float>(512, [](int i) { return -1 - i; });
}
static bool Bit(int i) { return selector[i / 8] >> (i % 8) & 1; }

static void SelectedByNewBitsEachRepeat(void **) {
  PrepareSelect();
  RunUb([](const Ub &ub) {
    const LocalTensor<uint8_t> bits = ub.A<uint8_t>(8192);
    Select(ub.Dst<float>(), bits, ub.A<float>(), ub.B<float>(), SELMODE::VSEL_TENSOR_TENSOR_MODE, 250);
    PipeBarrier<PIPE_V>();
    Select(ub.Dst<float>(2048), bits, ub.A<float>(), ub.B<float>(), SELMODE::VSEL_TENSOR_TENSOR_MODE, uint64_t(40), 4,
           {1, 1, 1, 8, 8, 8});
    PipeBarrier<PIPE_V>();
    Select(ub.Dst<float>(4096), bits, ub.A<float>(), 0.5f, SELMODE::VSEL_TENSOR_SCALAR_MODE, 200);
    PipeBarrier<PIPE_V>();
    Select(ub.Dst<half>(8192), bits, ub.A<half>(), ub.B<half>(), SELMODE::VSEL_TENSOR_TENSOR_MODE, 256);
  });
  for (int i = 0; i < 256; ++i) {
    const float x = a.As<float>()[i], y = b.As<float>()[i];
    if (i < 250) want.As<float>()[i] = Bit(i) ? x : y;
    if (i % 64 < 40) want.As<float>()[512 + i] = Bit(i) ? x : y;
    if (i < 200) want.As<float>()[1024 + i] = Bit(i) ? x : 0.5f;
    want.As<half>()[4096 + i] = Bit(i) ? a.As<half>()[i] : b.As<half>()[i];
  }
  AssertSame<half>(Ub::kBytes);
}

// [Select.md] mode 0: the first 256 / sizeof(T) bits of the selector, again in each repeat.
static void SelectedByTheSameBitsEachRepeat(void **) {
  PrepareSelect();
  RunUb([](const Ub &ub) {
    const LocalTensor<uint8_t> bits = ub.A<uint8_t>(8192);
    Select(ub.Dst<float>(), bits, ub.A<float>(), ub.B<float>(), SELMODE::VSEL_CMPMASK_SPR, 250);
    PipeBarrier<PIPE_V>();
    uint64_t mask[2] = {0xF0F0F0F0F0F0F0F0, 0};
    Select(ub.Dst<float>(2048), bits, ub.A<float>(), ub.B<float>(), SELMODE::VSEL_CMPMASK_SPR, mask, 4,
           {1, 1, 1, 8, 8, 8});
    PipeBarrier<PIPE_V>();
    Select(ub.Dst<half>(4096), bits, ub.A<half>(), ub.B<half>(), SELMODE::VSEL_CMPMASK_SPR, uint64_t(128), 2,
           {1, 1, 1, 8, 8, 8});
  });
  for (int i = 0; i < 256; ++i) {
    const float x = a.As<float>()[i], y = b.As<float>()[i];
    if (i < 250) want.As<float>()[i] = Bit(i % 64) ? x : y;
    if (i % 8 >= 4) want.As<float>()[512 + i] = Bit(i % 64) ? x : y;
    want.As<half>()[2048 + i] = Bit(i % 128) ? a.As<half>()[i] : b.As<half>()[i];
  }
  AssertSame<half>(Ub::kBytes);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(MaximaInFourOrders),
      cmocka_unit_test(MaximaOfFloats),
      cmocka_unit_test(Sums),
      cmocka_unit_test(SumsArePairwise),
      cmocka_unit_test(MaximaOfBlocks),
      cmocka_unit_test(BlocksOfFloats),
      cmocka_unit_test(ElementsToBlocks),
      cmocka_unit_test(ComparedWithAScalar),
      cmocka_unit_test(ComparedInEveryWay),
      cmocka_unit_test(AComparisonsTailIsNotComputed),
      cmocka_unit_test(SelectedByNewBitsEachRepeat),
      cmocka_unit_test(SelectedByTheSameBitsEachRepeat),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
