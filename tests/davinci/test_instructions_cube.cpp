// The emulated Ascend core's way from L1 through the Cube to GM against the vendor's documentation: LoadData,
// LoadDataWithTranspose, Mmad, Fixpipe. What arrives in L0 is looked at directly, the rest comes back through Fixpipe.
#include "kernel_test.h"

static uint8_t l0[65536]; // L0A, L0B or L0C as the kernel left it

struct Cube {
  TPipe pipe;
  TBuf<TPosition::A1> l1;
  TBuf<TPosition::A2> l0a;
  TBuf<TPosition::B2> l0b;
  TBuf<TPosition::CO1> l0c;
  Cube() {
    pipe.InitBuffer(l1, 131072);
    pipe.InitBuffer(l0a, 65536);
    pipe.InitBuffer(l0b, 65536);
    pipe.InitBuffer(l0c, 131072);
  }
};

template <HardEvent event>
static void Then() {
  SetFlag<event>(EVENT_ID0);
  WaitFlag<event>(EVENT_ID0);
}

// ------------------------------------------------------------------ L1 to L0

static LoadData2DParams load;
static LoadData2dTransposeParams transposed;
static int into_b, with_transpose;

static void LoadKernel(void *const *arguments) {
  if ASCEND_IS_AIC {
    if (GetBlockIdx() != 0) return;
    Cube cube;
    const LocalTensor<half> from = cube.l1.Get<half>(), to = into_b ? cube.l0b.Get<half>() : cube.l0a.Get<half>();
    DataCopy(from, Global<half>(arguments, 0), Ub::kBytes / 2);
    Then<HardEvent::MTE2_MTE1>();
    if (with_transpose)
      LoadDataWithTranspose(to, from, transposed);
    else
      LoadData(to, from, load);
    memcpy(l0, dv_memory_base(into_b ? DV_L0B : DV_L0A), sizeof l0);
  }
}

static void Transposed(uint8_t *to, const uint8_t *from) {
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 16; ++column) memcpy(to + 2 * (16 * row + column), from + 2 * (16 * column + row), 2);
}

static void Scramble() {
  Begin();
  for (int i = 0; i < kGmBytes / 4; ++i) a.As<uint32_t>()[i] = static_cast<uint32_t>(i) * 2654435761u;
}

// [Load2D.md] fractals of 512 bytes: source ones srcStride apart (start to start) from startIndex on, dstGap between
// those written; ifTranspose transposes each of 16 x 16. Only elements of two bytes, which are all the emulated core
// knows here.
static void CheckLoad(LoadData2DParams p) {
  Scramble();
  load = p;
  with_transpose = 0;
  for (into_b = 0; into_b < 2; ++into_b) {
    Run(LoadKernel);
    for (int n = 0; n < p.repeatTimes; ++n) {
      uint8_t fractal[512];
      const uint8_t *from = a.bytes + 512 * (p.startIndex + n * p.srcStride);
      memcpy(fractal, from, 512);
      if (p.ifTranspose) Transposed(fractal, from);
      AssertGm(l0 + 512 * n * (1 + p.dstGap), fractal, 512, 2);
    }
  }
}

static void FractalsGoToL0(void **) {
  CheckLoad(LoadData2DParams{0, 4, 2, 0, 2, false, 0}); // the page's strided examples
  CheckLoad(LoadData2DParams{0, 2, 1, 0, 2, false, 0});
  CheckLoad(LoadData2DParams{0, 4, 2, 0, 1, false, 0});
  CheckLoad(LoadData2DParams{1, 4, 2, 0, 2, false, 0}); // and its example of a start
  CheckLoad(LoadData2DParams{3, 7, 1, 0, 0, false, 0});
  CheckLoad(LoadData2DParams{5, 3, 0, 0, 0, false, 0}); // srcStride 0: the same fractal again
}

static void FractalsAreTransposedOnTheWay(void **) {
  CheckLoad(LoadData2DParams{0, 2, 2, 0, 2, true, 0}); // the page's examples
  CheckLoad(LoadData2DParams{0, 3, 2, 0, 1, true, 0});
  CheckLoad(LoadData2DParams{4, 5, 3, 0, 0, true, 0});
}

// [LoadDataWithTranspose.md] a fractal of 16 x 16 halves a repeat; dstGap from the end of one to the start of the next,
// dstFracGap of no effect.
static void CheckTransposed(LoadData2dTransposeParams p) {
  Scramble();
  transposed = p;
  with_transpose = 1;
  for (into_b = 0; into_b < 2; ++into_b) {
    Run(LoadKernel);
    for (int n = 0; n < p.repeatTimes; ++n) {
      uint8_t fractal[512];
      Transposed(fractal, a.bytes + 512 * (p.startIndex + n * p.srcStride));
      AssertGm(l0 + 512 * n * (1 + p.dstGap), fractal, 512, 2);
    }
  }
}

static void SquaresAreTransposed(void **) {
  CheckTransposed(LoadData2dTransposeParams{0, 3, 1, 0, 0, 0}); // the page's example
  CheckTransposed(LoadData2dTransposeParams{0, 3, 1, 0, 4, 0}); // its call example's dstFracGap
  CheckTransposed(LoadData2dTransposeParams{2, 4, 3, 1, 0, 0});
}

// ------------------------------------------------------------------ Mmad and Fixpipe

// A [m, k] and B [k, n], row by row in GM, by the page's idioms: A as fractals row by row, B as fractals row by row,
// transposed inside.
static int m, n, k, accumulates, misses_barrier;
static FixpipeParamsV220 out;
enum Output { kFloat, kHalf, kBfloat16 };
static Output output;

static int Up(int x, int to) { return (x + to - 1) / to * to; }

template <typename T>
static void Load(const Cube &cube, void *const *arguments) {
  const int m16 = Up(m, 16), n16 = Up(n, 16), k16 = Up(k, 16);
  const LocalTensor<T> a1 = cube.l1.Get<T>(), b1 = a1[m16 * k16];
  const auto u16 = [](int x) { return static_cast<uint16_t>(x); };
  DataCopy(a1, Global<T>(arguments, 0), Nd2NzParams{1, u16(m), u16(k), 0, u16(k), u16(m16), 1, 0});
  DataCopy(b1, Global<T>(arguments, 1), Nd2NzParams{1, u16(k), u16(n), 0, u16(n), u16(k16), 1, 0});
  Then<HardEvent::MTE2_MTE1>();
  LoadData2DParams p;
  p.repeatTimes = static_cast<uint8_t>(k16 / 16);
  p.srcStride = u16(m16 / 16);
  for (int i = 0; i < m16 / 16; ++i) LoadData(cube.l0a.Get<T>()[i * k16 * 16], a1[i * 256], p);
  p.repeatTimes = static_cast<uint8_t>(n16 / 16);
  p.srcStride = u16(k16 / 16);
  p.ifTranspose = true;
  for (int i = 0; i < k16 / 16; ++i) LoadData(cube.l0b.Get<T>()[i * n16 * 16], b1[i * 256], p);
  Then<HardEvent::MTE1_M>();
}

template <typename T>
static void Multiply(void *const *arguments) {
  Cube cube;
  Load<T>(cube, arguments);
  MmadParams p;
  p.m = static_cast<uint16_t>(m);
  p.n = static_cast<uint16_t>(n);
  p.k = static_cast<uint16_t>(k);
  const LocalTensor<float> c = cube.l0c.Get<float>();
  Mmad(c, cube.l0a.Get<T>(), cube.l0b.Get<T>(), p);
  p.cmatrixInitVal = false;
  for (int i = 0; i < accumulates; ++i) {
    if (!misses_barrier) PipeBarrier<PIPE_M>();
    Mmad(c, cube.l0a.Get<T>(), cube.l0b.Get<T>(), p);
  }
  memcpy(l0, dv_memory_base(DV_L0C), sizeof l0);
  if (out.nSize == 0) return;
  Then<HardEvent::M_FIX>();
  if (output == kFloat) Fixpipe(Global<float>(arguments, 3), c, out);
  if (output == kHalf) Fixpipe(Global<half>(arguments, 3), c, out);
  if (output == kBfloat16) Fixpipe(Global<bfloat16_t>(arguments, 3), c, out);
}

static bool is_bfloat16;
static void MmadKernel(void *const *arguments) {
  if ASCEND_IS_AIC {
    if (GetBlockIdx() != 0) return;
    if (is_bfloat16)
      Multiply<bfloat16_t>(arguments);
    else
      Multiply<half>(arguments);
  }
}

static float c_want[256][256];

// Small whole numbers: every order of adding gives the same. `scale`: of A, so that what Fixpipe rounds needs rounding.
static void Prepare(int rows, int columns, int depth, int times, float scale = 1) {
  Begin();
  m = rows;
  n = columns;
  k = depth;
  accumulates = times - 1;
  misses_barrier = 0;
  is_bfloat16 = false;
  output = kFloat;
  out = FixpipeParamsV220();
  a.Fill<half>(m * k, [&](int i) { return half(scale * static_cast<float>(i * 7 % 13 - 6)); });
  b.Fill<half>(k * n, [](int i) { return half(static_cast<float>(i * 5 % 11 - 5)); });
  for (int row = 0; row < m; ++row)
    for (int column = 0; column < n; ++column) {
      float sum = 0;
      for (int d = 0; d < k; ++d)
        sum +=
            scale * static_cast<float>((row * k + d) * 7 % 13 - 6) * static_cast<float>((d * n + column) * 5 % 11 - 5);
      c_want[row][column] = sum * static_cast<float>(times);
    }
}

static void AssertL0c(int m16) {
  for (int row = 0; row < m; ++row)
    for (int column = 0; column < n; ++column) {
      float is;
      memcpy(&is, l0 + (column / 16 * m16 * 16 + row * 16 + column % 16) * sizeof is, sizeof is);
      if (is != c_want[row][column])
        fail_msg("row %d, column %d: %g, should be %g", row, column, is, c_want[row][column]);
    }
}

// [Mmad.md] the example of partial fractals: m = 30, k = 70, n = 40 take 2 x 5, 5 x 3 and 2 x 3 of them; C is Nz.
static void PartialFractals(void **) {
  Prepare(30, 40, 70, 1);
  Run(MmadKernel);
  AssertL0c(32);
  Prepare(17, 1, 1, 1);
  Run(MmadKernel);
  AssertL0c(32);
}

// [Mmad.md] cmatrixInitVal true begins at zero, false adds to C. Below 10 fractals of C a PipeBarrier<PIPE_M> is needed
// between.
static void SumsInC(void **) {
  Prepare(32, 48, 64, 3);
  Run(MmadKernel);
  AssertL0c(32);
  misses_barrier = 1;
  Refused(MmadKernel, "Mmad");
  Prepare(64, 64, 32, 3); // 4 x 4 fractals: the hardware sees to the order
  misses_barrier = 1;
  Run(MmadKernel);
  AssertL0c(64);
}

// [Mmad.md] the page's code divides whole numbers: m = 40, n = 64 are 2 * 4, below 10, though they take 3 x 4 fractals.
static void PartialFractalsCountLess(void **) {
  Prepare(40, 64, 32, 2);
  Run(MmadKernel);
  AssertL0c(48);
  misses_barrier = 1;
  Refused(MmadKernel, "Mmad");
}

// [Mmad.md] bfloat16_t operands.
static void Bfloat16(void **) {
  Prepare(16, 32, 48, 1);
  for (int i = 0; i < 16 * 48; ++i) a.As<bfloat16_t>()[i] = bfloat16_t(float(a.As<half>()[i]));
  for (int i = 0; i < 48 * 32; ++i) b.As<bfloat16_t>()[i] = bfloat16_t(float(b.As<half>()[i]));
  is_bfloat16 = true;
  Run(MmadKernel);
  AssertL0c(16);
}

// [Mmad.md] m, n or k of 0: nothing happens, so nothing is in C either.
static void NothingToMultiply(void **) {
  Prepare(32, 32, 32, 2);
  Run([](void *const *arguments) {
    if ASCEND_IS_AIC {
      if (GetBlockIdx() != 0) return;
      Cube cube;
      Load<half>(cube, arguments);
      MmadParams p;
      p.m = p.n = p.k = 32;
      Mmad(cube.l0c.Get<float>(), cube.l0a.Get<half>(), cube.l0b.Get<half>(), p);
      PipeBarrier<PIPE_M>();
      for (int i = 0; i < 3; ++i) {
        p.m = i == 0 ? 0 : 32;
        p.n = i == 1 ? 0 : 32;
        p.k = i == 2 ? 0 : 32;
        p.cmatrixInitVal = true;
        Mmad(cube.l0c.Get<float>(), cube.l0a.Get<half>(), cube.l0b.Get<half>(), p);
      }
      memcpy(l0, dv_memory_base(DV_L0C), sizeof l0);
    }
  });
  for (auto &row : c_want)
    for (float &x : row) x /= 2;
  AssertL0c(32);
}

// [Mmad.md, GEMV.md] m = 1 reads A as a plain vector, which no kernel here wants.
static void GemvIsRefused(void **) {
  Prepare(1, 16, 16, 1);
  Refused(MmadKernel, "Mmad");
}

// [Fixpipe_L0CToGM.md, NZ2ND.md] dstStride elements from row to row, srcStride rows of 16 from strip to strip of L0C,
// only the m x n written; NoQuant keeps float, F322F16 and F322BF16 round to nearest even.
static void RowsInGm(void **) {
  Prepare(30, 48, 70, 1);
  out.nSize = 48;
  out.mSize = 30;
  out.srcStride = 32;
  out.dstStride = 56;
  Run(MmadKernel);
  memset(want.bytes, 0xee, sizeof want.bytes);
  for (int row = 0; row < 30; ++row)
    for (int column = 0; column < 48; ++column) want.As<float>()[56 * row + column] = c_want[row][column];
  AssertSame<float>(kGmBytes);
  out.reluEn = true;
  Run(MmadKernel);
  for (int i = 0; i < 30 * 56; ++i)
    if (i % 56 < 48 && want.As<float>()[i] < 0) want.As<float>()[i] = 0;
  AssertSame<float>(30 * 56 * 4);
  out.reluEn = false;
  out.mSize = 9; // a part: the first 9 rows of the second and third strip
  out.nSize = 32;
  Run([](void *const *arguments) {
    if ASCEND_IS_AIC {
      if (GetBlockIdx() != 0) return;
      Cube cube;
      Load<half>(cube, arguments);
      MmadParams p;
      p.m = 30;
      p.n = 48;
      p.k = 70;
      Mmad(cube.l0c.Get<float>(), cube.l0a.Get<half>(), cube.l0b.Get<half>(), p);
      Then<HardEvent::M_FIX>();
      Fixpipe(Global<float>(arguments, 3)[8], cube.l0c.Get<float>()[32 * 16], out);
    }
  });
  for (int row = 0; row < 9; ++row)
    for (int column = 0; column < 32; ++column)
      assert_true(after.As<float>()[8 + 56 * row + column] == c_want[row][16 + column]);
}

static void RowsRoundedInGm(void **) {
  Prepare(16, 16, 32, 1, 1.0f / 1024 + 1);
  out.nSize = out.mSize = out.srcStride = 16;
  out.dstStride = 16;
  out.quantPre = F322F16;
  output = kHalf;
  a.Fill<half>(16 * 32,
               [](int i) { return half(i % 32 < 2 ? (i % 32 ? (i / 32 % 3 - 1) * 0.5f : 1.0f + i / 64) : 0.0f); });
  b.Fill<half>(32 * 16, [](int i) { return half(i < 16 ? 2048.0f + 2.0f * i : i < 32 ? 2.0f : 0.0f); });
  Run(MmadKernel);
  // (1 + row / 2) * (2048 + 2 column) + (-1, 0 or 1): odd sums lie halfway between halves.
  for (int i = 0; i < 256; ++i)
    c_want[i / 16][i % 16] = (1.0f + i / 32) * (2048.0f + 2.0f * (i % 16)) + static_cast<float>(i / 16 % 3 - 1);
  for (int i = 0; i < 256; ++i) {
    const float exact = c_want[i / 16][i % 16], ulp = exact < 2048    ? 1
                                                      : exact < 4096  ? 2
                                                      : exact < 8192  ? 4
                                                      : exact < 16384 ? 8
                                                                      : 16;
    want.As<half>()[i] = half(nearbyintf(exact / ulp) * ulp);
  }
  AssertSame<half>(512);
  out.quantPre = F322BF16;
  output = kBfloat16;
  Run(MmadKernel);
  for (int i = 0; i < 256; ++i) {
    const float exact = c_want[i / 16][i % 16], ulp = exact < 2048    ? 8
                                                      : exact < 4096  ? 16
                                                      : exact < 8192  ? 32
                                                      : exact < 16384 ? 64
                                                                      : 128;
    want.As<bfloat16_t>()[i] = bfloat16_t(nearbyintf(exact / ulp) * ulp);
  }
  AssertSame<bfloat16_t>(512);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(FractalsGoToL0),
      cmocka_unit_test(FractalsAreTransposedOnTheWay),
      cmocka_unit_test(SquaresAreTransposed),
      cmocka_unit_test(PartialFractals),
      cmocka_unit_test(SumsInC),
      cmocka_unit_test(PartialFractalsCountLess),
      cmocka_unit_test(Bfloat16),
      cmocka_unit_test(NothingToMultiply),
      cmocka_unit_test(GemvIsRefused),
      cmocka_unit_test(RowsInGm),
      cmocka_unit_test(RowsRoundedInGm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
