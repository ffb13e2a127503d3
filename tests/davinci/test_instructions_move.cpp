// Moves of the emulated Ascend core against the vendor's documentation: DataCopy in its forms, DataCopyPad both ways,
// ND to Nz, Copy, scalars, atomic adds.
#include "kernel_test.h"

// ------------------------------------------------------------------ DataCopy, GM and UB

// [DataCopy_GMAndUB_continuous.md] count is in elements; what does not fill 32 bytes at the end is not moved.
static void ACountIsRoundedDownToBlocks(void **) {
  Begin();
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.Dst<float>(), Global<float>(arguments, 2), 64);
      PipeBarrier<PIPE_MTE2>();
      DataCopy(ub.Dst<float>(), Global<float>(arguments, 0), 20); // 80 bytes: 64 are moved
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(Global<float>(arguments, 3), ub.Dst<float>(), 64);
      PipeBarrier<PIPE_MTE3>();
      DataCopy(Global<float>(arguments, 3)[64], ub.Dst<float>(), 13); // 52 bytes: 32 are moved
    }
  });
  memcpy(want.bytes, a.bytes, 64);
  AssertSame<float>(256);
  AssertGm(after.bytes + 256, want.bytes, 32, 4);
  for (int i = 288; i < 320; ++i) assert_int_equal(after.bytes[i], 0xee);
}

// [DataCopy_GMAndUB_highdim_split.md] example 2: two pieces of 3 blocks, 1 block between them in GM, 2 in UB.
static void GapsCountFromTheEndOfAPiece(void **) {
  Begin();
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.Dst<half>(), Global<half>(arguments, 2), 8 * 16);
      PipeBarrier<PIPE_MTE2>();
      DataCopy(ub.Dst<half>(), Global<half>(arguments, 0), DataCopyParams{2, 3, 1, 2});
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(Global<half>(arguments, 3), ub.Dst<half>(), 8 * 16);
      // The other way round: 1 block between them in UB, 2 in GM.
      DataCopy(Global<half>(arguments, 3)[1024], ub.Dst<half>(), DataCopyParams{2, 3, 1, 2});
    }
  });
  memcpy(want.bytes, a.bytes, 96);
  memcpy(want.bytes + 5 * 32, a.bytes + 4 * 32, 96);
  AssertSame<half>(8 * 32);
  const uint8_t *out = after.bytes + 2048;
  AssertGm(out, want.bytes, 96, 2);
  AssertGm(out + 5 * 32, want.bytes + 4 * 32, 96, 2);
  for (int i = 96; i < 160; ++i) assert_int_equal(out[i], 0xee);
}

// [DataCopy_GMAndUB_highdim_split.md] blockCount or blockLen 0 does nothing.
static void NoPiecesMoveNothing(void **) {
  Begin();
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.Dst<half>(), Global<half>(arguments, 2), 128);
      PipeBarrier<PIPE_MTE2>();
      DataCopy(ub.Dst<half>(), Global<half>(arguments, 0), DataCopyParams{0, 3, 1, 2});
      DataCopy(ub.Dst<half>(), Global<half>(arguments, 0), DataCopyParams{2, 0, 1, 2});
      DataCopyPad(ub.Dst<half>(), Global<half>(arguments, 0), DataCopyExtParams{0, 32, 0, 0, 0},
                  DataCopyPadExtParams<half>{false, 0, 0, half(0)});
      DataCopyPad(ub.Dst<half>(), Global<half>(arguments, 0), DataCopyExtParams{1, 0, 0, 0, 0},
                  DataCopyPadExtParams<half>{false, 0, 0, half(0)});
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(Global<half>(arguments, 3), ub.Dst<half>(), 128);
      PipeBarrier<PIPE_MTE3>();
      DataCopyPad(Global<half>(arguments, 3), ub.Dst<half>(64), DataCopyExtParams{0, 32, 0, 0, 0});
      DataCopyPad(Global<half>(arguments, 3), ub.Dst<half>(64), DataCopyExtParams{1, 0, 0, 0, 0});
    }
  });
  AssertSame<half>(256);
}

// [DataCopy_UBToUB_highdim_split.md] examples 1 and 2.
static void UbToUb(void **) {
  Begin();
  RunUb([](const Ub &ub) {
    DataCopy(ub.Dst<half>(), ub.A<half>(), 128);
    DataCopy(ub.Dst<half>(512), ub.A<half>(), DataCopyParams{2, 3, 1, 2});
  });
  memcpy(want.bytes, a.bytes, 256);
  memcpy(want.bytes + 512, a.bytes, 96);
  memcpy(want.bytes + 512 + 160, a.bytes + 128, 96);
  AssertSame<half>(Ub::kBytes);
}

// ------------------------------------------------------------------ DataCopyPad

struct Padded {
  DataCopyExtParams copy;
  DataCopyPadExtParams<half> pad;
};
static Padded padded;
static DataCopyPadExtParams<uint8_t> padded_bytes;
static bool is_bytes;
static int from_byte;

static void PadIn(void *const *arguments) {
  if ASCEND_IS_AIV {
    if (GetBlockIdx() != 0) return;
    TPipe pipe;
    Ub ub;
    pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
    DataCopy(ub.Dst<half>(), Global<half>(arguments, 2), 4096);
    PipeBarrier<PIPE_MTE2>();
    if (is_bytes)
      DataCopyPad(ub.Dst<uint8_t>(), Global<uint8_t>(arguments, 0)[from_byte], padded.copy, padded_bytes);
    else
      DataCopyPad(ub.Dst<half>(), Global<half>(arguments, 0), padded.copy, padded.pad);
    SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    DataCopy(Global<half>(arguments, 3), ub.Dst<half>(), 4096);
  }
}

// [DataCopyPad_GMToUB.md] example 1: pieces of 64 bytes, 1 byte between them in GM, 1 block in UB.
static void PiecesOfWholeBlocksAreNotPadded(void **) {
  Begin();
  padded.copy = DataCopyExtParams{3, 64, 1, 1, 0};
  padded_bytes = DataCopyPadExtParams<uint8_t>{false, 0, 0, 0};
  is_bytes = true;
  from_byte = 5; // GM is aligned to 1 byte
  Run(PadIn);
  for (int piece = 0; piece < 3; ++piece) memcpy(want.bytes + 96 * piece, a.bytes + 5 + 65 * piece, 64);
  AssertSame<uint8_t>(8192);
}

// [DataCopyPad_GMToUB.md] example 2: pieces of 47 bytes; the dummy bytes up to 32 are the first element of each piece.
static void ADummyIsTheFirstElement(void **) {
  Begin();
  padded.copy = DataCopyExtParams{2, 47, 1, 1, 0};
  padded_bytes = DataCopyPadExtParams<uint8_t>{false, 0, 0, 0};
  is_bytes = true;
  from_byte = 0;
  Run(PadIn);
  for (int piece = 0; piece < 2; ++piece) {
    memcpy(want.bytes + 96 * piece, a.bytes + 48 * piece, 47);
    memset(want.bytes + 96 * piece + 47, a.bytes[48 * piece], 17);
  }
  AssertSame<uint8_t>(8192);
}

// [DataCopyPad_GMToUB.md] isPad with paddings: left, right and the dummy are paddingValue, left and right count
// elements.
static void PaddingsAndDummyAreThePaddingValue(void **) {
  Begin();
  padded.copy = DataCopyExtParams{4, 5 * sizeof(half), 6, 2, 0};
  padded.pad = DataCopyPadExtParams<half>{true, 2, 3, half(-1.5f)};
  is_bytes = false;
  Run(PadIn);
  for (int piece = 0; piece < 4; ++piece) { // 2 + 5 + 3 elements, 6 of dummy: one block, then 2 blocks of gap
    half *row = want.As<half>() + 48 * piece;
    for (int i = 0; i < 16; ++i) row[i] = half(-1.5f);
    for (int i = 0; i < 5; ++i) row[2 + i] = a.As<half>()[8 * piece + i];
  }
  AssertSame<half>(8192);
}

// [DataCopyPad_GMToUB.md] the second call example: 59 floats a row, 5 more of padding make 8 blocks.
static void RowsOf59FloatsArePaddedTo64(void **) {
  Begin();
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopyPad(ub.Dst<float>(), Global<float>(arguments, 0), DataCopyExtParams{32, 59 * sizeof(float), 0, 0, 0},
                  DataCopyPadExtParams<float>{true, 0, 5, 0.0f});
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(Global<float>(arguments, 3), ub.Dst<float>(), 32 * 64);
    }
  });
  memset(want.bytes, 0, 32 * 256);
  for (int row = 0; row < 32; ++row) memcpy(want.bytes + 256 * row, a.bytes + 236 * row, 236);
  AssertSame<float>(32 * 256);
}

// [DataCopyPad_UBToGM.md] figures 1 and 2: pieces of 64 and of 47 bytes, 1 block between them in UB, 1 byte in GM.
static void NoDummyReachesGm(void **) {
  Begin();
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.A<uint8_t>(), Global<uint8_t>(arguments, 0), 1024);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopyPad(Global<uint8_t>(arguments, 3)[3], ub.A<uint8_t>(), DataCopyExtParams{3, 47, 1, 1, 0});
      DataCopyPad(Global<uint8_t>(arguments, 3)[1001], ub.A<uint8_t>(), DataCopyExtParams{2, 64, 1, 1, 0});
    }
  });
  memset(want.bytes, 0xee, 2048);
  for (int piece = 0; piece < 3; ++piece) memcpy(want.bytes + 3 + 48 * piece, a.bytes + 96 * piece, 47);
  for (int piece = 0; piece < 2; ++piece) memcpy(want.bytes + 1001 + 65 * piece, a.bytes + 96 * piece, 64);
  AssertSame<uint8_t>(2048);
}

// ------------------------------------------------------------------ ND to Nz

static Nd2NzParams nd2nz;
static int element;

template <typename T>
static void ToNz(void *const *arguments) {
  TPipe pipe;
  TBuf<TPosition::A1> l1;
  pipe.InitBuffer(l1, Ub::kBytes);
  const uint32_t count = Ub::kBytes / sizeof(T);
  DataCopy(l1.Get<T>(), Global<T>(arguments, 2), count);
  PipeBarrier<PIPE_MTE2>();
  DataCopy(l1.Get<T>(), Global<T>(arguments, 0), nd2nz);
  SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
  DataCopy(Global<T>(arguments, 3), l1.Get<T>(), count);
}

static void Nd2NzKernel(void *const *arguments) {
  if ASCEND_IS_AIC {
    if (GetBlockIdx() != 0) return;
    if (element == 1) ToNz<int8_t>(arguments);
    if (element == 2) ToNz<half>(arguments);
    if (element == 4) ToNz<float>(arguments);
  }
}

// [DataCopy_GMToL1_ND2NZ.md] columns go in strips of 32 bytes, the last one filled up with zeros; rows of a strip are
// dstNzNStride blocks apart, strips dstNzC0Stride blocks, matrices dstNzMatrixStride elements.
static void CheckNz(int bytes, Nd2NzParams p) {
  nd2nz = p;
  element = bytes;
  Begin();
  Run(Nd2NzKernel);
  for (int matrix = 0; matrix < p.ndNum; ++matrix)
    for (int row = 0; row < p.nValue; ++row)
      for (int at = 0; at < (p.dValue * bytes + 31) / 32 * 32; ++at) {
        const int from = (matrix * p.srcNdMatrixStride + row * p.srcDValue) * bytes + at;
        want.bytes[matrix * p.dstNzMatrixStride * bytes + at / 32 * p.dstNzC0Stride * 32 + row * p.dstNzNStride * 32 +
                   at % 32] = at < p.dValue * bytes ? a.bytes[from] : 0;
      }
  AssertGm(after.bytes, want.bytes, Ub::kBytes, bytes);
}

static void NdToNz(void **) {
  CheckNz(2, Nd2NzParams{1, 16, 23, 0, 32, 16, 1, 0});    // the page's example of a dense move
  CheckNz(2, Nd2NzParams{2, 8, 23, 384, 32, 37, 2, 320}); // its example of a strided one
  CheckNz(2, Nd2NzParams{1, 40, 56, 0, 56, 48, 1, 0});    // its call example: m = 40, k = 56
  CheckNz(2, Nd2NzParams{3, 5, 48, 0, 50, 16, 1, 1024});  // srcNdMatrixStride 0: the first matrix again
  CheckNz(2, Nd2NzParams{1, 1, 1, 0, 1, 1, 1, 0});
  CheckNz(4, Nd2NzParams{1, 13, 21, 0, 24, 16, 1, 0});      // 8 columns a strip
  CheckNz(1, Nd2NzParams{2, 10, 70, 800, 77, 16, 1, 2048}); // 32 columns a strip
}

static void NothingToNz(void **) {
  CheckNz(2, Nd2NzParams{0, 16, 23, 0, 32, 16, 1, 0});
  CheckNz(2, Nd2NzParams{1, 0, 23, 0, 32, 16, 1, 0});
  Begin();
  nd2nz = Nd2NzParams{1, 16, 0, 0, 32, 16, 1, 0};
  Run(Nd2NzKernel);
  AssertSame<half>(Ub::kBytes);
}

// ------------------------------------------------------------------ Copy, scalars, atomic adds

// [Copy_UBToUB_mask_highdim_split.md] scenario 2: the first 8 columns of [18, 64], a row a repeat.
static void CopyOfColumns(void **) {
  Begin();
  RunUb([](const Ub &ub) { Copy(ub.Dst<int32_t>(), ub.A<int32_t>(), uint64_t(8), 18, {1, 1, 1, 8}); });
  for (int row = 0; row < 18; ++row) memcpy(want.bytes + 32 * row, a.bytes + 256 * row, 32);
  AssertSame<int32_t>(Ub::kBytes);
}

// [the same page] scenario 3: Copy differs from the rest in counter mode; the mask counts the elements of each repeat.
static void CopyCountsTheElementsOfARepeat(void **) {
  Begin();
  ub_body = [](const Ub &ub) {
    SetMaskCount();
    SetVectorMask<int32_t, MaskMode::COUNTER>(144);
    Copy<int32_t, false>(ub.Dst<int32_t>(), ub.A<int32_t>(), MASK_PLACEHOLDER, 1, {1, 8, 8, 8});
    SetMaskNorm();
    ResetMask();
  };
  if (!Launch(UbKernel)) {
    assert_non_null(strstr(report.line, "Copy"));
    return;
  }
  for (int row = 0; row < 18; ++row) memcpy(want.bytes + 32 * row, a.bytes + 256 * row, 32);
  AssertSame<int32_t>(Ub::kBytes);
}

// [SetValue.md, GetValue.md of LocalTensor and GlobalTensor] indices count elements.
static void Scalars(void **) {
  Begin();
  a.Fill<float>(64, [](int i) { return 0.25f * i; });
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.A<float>(), Global<float>(arguments, 0), 64);
      SetFlag<HardEvent::MTE2_S>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_S>(EVENT_ID0);
      for (int i = 0; i < 8; ++i)
        ub.Dst<float>().SetValue(i, ub.A<float>()[8].GetValue(i) + Global<float>(arguments, 0).GetValue(i));
      for (int i = 0; i < 16; ++i) ub.Dst<half>().SetValue(16 + i, half(float(i)));
      for (int i = 0; i < 4; ++i) ub.Dst<int64_t>().SetValue(8 + i, -1 - i);
      SetFlag<HardEvent::S_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);
      DataCopy(Global<float>(arguments, 3), ub.Dst<float>(), 24);
    }
  });
  for (int i = 0; i < 8; ++i) want.As<float>()[i] = 0.25f * (8 + i) + 0.25f * i;
  for (int i = 0; i < 16; ++i) want.As<half>()[16 + i] = half(float(i));
  for (int i = 0; i < 4; ++i) want.As<int64_t>()[8 + i] = -1 - i;
  AssertSame<float>(96);
}

// [SetAtomicAdd.md] from SetAtomicAdd to SetAtomicNone what goes to GM is added to what is there.
static void AtomicAddsAddInGm(void **) {
  Begin();
  a.Fill<float>(64, [](int i) { return i; });
  b.Fill<half>(64, [](int i) { return half(float(2 * i)); });
  Run([](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.A<float>(), Global<float>(arguments, 0), 64);
      DataCopy(ub.B<half>(), Global<half>(arguments, 1), 64);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      const GlobalTensor<float> sums = Global<float>(arguments, 3);
      const GlobalTensor<half> halves = Global<half>(arguments, 3)[256];
      DataCopy(sums, ub.A<float>(), 64);
      DataCopy(halves, ub.B<half>(), 64);
      PipeBarrier<PIPE_MTE3>();
      SetAtomicAdd<float>();
      DataCopy(sums, ub.A<float>(), 64);
      SetAtomicAdd<half>();
      DataCopyPad(halves, ub.B<half>(), DataCopyExtParams{1, 10 * sizeof(half), 0, 0, 0});
      SetAtomicNone();
      PipeBarrier<PIPE_MTE3>();
      DataCopy(sums[56], ub.A<float>(), 8);
    }
  });
  for (int i = 0; i < 64; ++i) want.As<float>()[i] = i < 56 ? 2.0f * i : i - 56.0f;
  for (int i = 0; i < 64; ++i) want.As<half>()[256 + i] = half((i < 10 ? 4.0f : 2.0f) * i);
  AssertSame<float>(256);
  AssertGm(after.bytes + 512, want.bytes + 512, 128, 2);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(ACountIsRoundedDownToBlocks),
      cmocka_unit_test(GapsCountFromTheEndOfAPiece),
      cmocka_unit_test(NoPiecesMoveNothing),
      cmocka_unit_test(UbToUb),
      cmocka_unit_test(PiecesOfWholeBlocksAreNotPadded),
      cmocka_unit_test(ADummyIsTheFirstElement),
      cmocka_unit_test(PaddingsAndDummyAreThePaddingValue),
      cmocka_unit_test(RowsOf59FloatsArePaddedTo64),
      cmocka_unit_test(NoDummyReachesGm),
      cmocka_unit_test(NdToNz),
      cmocka_unit_test(NothingToNz),
      cmocka_unit_test(CopyOfColumns),
      cmocka_unit_test(CopyCountsTheElementsOfARepeat),
      cmocka_unit_test(Scalars),
      cmocka_unit_test(AtomicAddsAddInGm),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
