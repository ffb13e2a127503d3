// Flags and barriers inside an emulated Ascend core and who is who, against the vendor's documentation: what they
// order, and that what nothing orders is found.
#include "kernel_test.h"

// ------------------------------------------------------------------ who is who

static struct {
  int ran;
  int64_t sub_block, blocks, ratio;
} aic[4], aiv[8];

// [GetBlockIdx.md, hiascend.com .../atlasascendc_api_07_0185.html] mixed 1:2: AICs count 0..blocks-1, AIVs
// 0..2*blocks-1. [GetSubBlockIdx.md] 0 or 1 in the core. [GetTaskRatio.md] 2 on an AIV, 1 on an AIC.
static void WhoIsWho(void **) {
  memset(aic, 0, sizeof aic);
  memset(aiv, 0, sizeof aiv);
  Run(
      [](void *const *) {
        auto &me = ASCEND_IS_AIC ? aic[GetBlockIdx()] : aiv[GetBlockIdx()];
        ++me.ran;
        me.sub_block = GetSubBlockIdx();
        me.blocks = GetBlockNum();
        me.ratio = GetTaskRatio();
      },
      3);
  for (int i = 0; i < 4; ++i) assert_int_equal(aic[i].ran, i < 3);
  for (int i = 0; i < 8; ++i) assert_int_equal(aiv[i].ran, i < 6);
  for (int i = 0; i < 3; ++i) assert_true(aic[i].blocks == 3 && aic[i].ratio == 1);
  for (int i = 0; i < 6; ++i) assert_true(aiv[i].blocks == 3 && aiv[i].ratio == 2 && aiv[i].sub_block == i % 2);
}

// ------------------------------------------------------------------ inside a core

// What one AIV does with 256 floats in UB; `misses` leaves one of its synchronisations out.
static int misses;
static void Pipeline(void *const *arguments) {
  if ASCEND_IS_AIV {
    if (GetBlockIdx() != 0) return;
    TPipe pipe;
    Ub ub;
    pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
    const LocalTensor<float> x = ub.A<float>(), y = ub.B<float>();
    for (int i = 0; i < 2; ++i) {
      if (i && misses != 1) WaitFlag<HardEvent::V_MTE2>(EVENT_ID1);
      DataCopy(x, Global<float>(arguments, 0)[256 * i], 256);
      if (misses != 2) {
        SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
        WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
      }
      if (i && misses != 3) WaitFlag<HardEvent::MTE3_V>(EVENT_ID2);
      Muls(y, x, 2.0f, 256);
      if (i == 0 && misses != 1) SetFlag<HardEvent::V_MTE2>(EVENT_ID1);
      if (misses != 4) PipeBarrier<PIPE_V>();
      Adds(y, y, 1.0f, 256);
      if (misses != 5) {
        SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
        WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
      }
      DataCopy(Global<float>(arguments, 3)[256 * i], y, 256);
      if (i == 0 && misses != 3) SetFlag<HardEvent::MTE3_V>(EVENT_ID2);
    }
  }
}

// [SetFlag_WaitFlag_ISASI.md, PipeBarrier_ISASI.md] each pair of instructions that touch the same bytes needs its flag
// or barrier.
static void EveryFlagIsNeeded(void **) {
  Begin();
  a.Fill<float>(512, [](int i) { return i; });
  misses = 0;
  Run(Pipeline);
  for (int i = 0; i < 512; ++i) want.As<float>()[i] = 2.0f * i + 1;
  AssertSame<float>(2048);
  static const char *const found[] = {"", "DataCopy", "Muls", "Muls", "Adds", "DataCopy"};
  for (misses = 1; misses <= 5; ++misses) Refused(Pipeline, found[misses]);
}

// [DataCopy_GMAndUB_highdim_split.md] two moves to the same place need PipeBarrier<PIPE_MTE2> in, <PIPE_MTE3> out.
static void MovesToOnePlaceNeedABarrier(void **) {
  static const auto kernel = [](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      DataCopy(ub.A<float>(), Global<float>(arguments, 0), 64);
      if (misses != 1) PipeBarrier<PIPE_MTE2>();
      DataCopy(ub.A<float>(), Global<float>(arguments, 1), 32);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(Global<float>(arguments, 3), ub.A<float>(), 64);
      if (misses != 2) PipeBarrier<PIPE_MTE3>();
      DataCopy(Global<float>(arguments, 3)[32], ub.A<float>(), 64);
    }
  };
  Begin();
  misses = 0;
  Run(kernel);
  memcpy(want.bytes, b.bytes, 128);
  memcpy(want.bytes + 128, b.bytes, 128);
  memcpy(want.bytes + 256, a.bytes + 128, 128);
  AssertSame<float>(384);
  for (misses = 1; misses <= 2; ++misses) Refused(kernel, "DataCopy");
}

// [INTRA: 核内同步能力概述.md] GM written and read back by one core: MTE3_MTE2. The scalar unit and the others: V_S,
// S_V.
static void ThroughGmAndScalars(void **) {
  static const auto kernel = [](void *const *arguments) {
    if ASCEND_IS_AIV {
      if (GetBlockIdx() != 0) return;
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      Duplicate(ub.A<float>(), 2.0f, 64);
      if (misses != 1) {
        SetFlag<HardEvent::V_S>(EVENT_ID0);
        WaitFlag<HardEvent::V_S>(EVENT_ID0);
      }
      ub.A<float>().SetValue(5, ub.A<float>().GetValue(4) * 8);
      if (misses != 2) {
        SetFlag<HardEvent::S_MTE3>(EVENT_ID0);
        WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);
      }
      SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
      DataCopy(Global<float>(arguments, 3), ub.A<float>(), 64);
      if (misses != 3) {
        SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
        WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
      }
      DataCopy(ub.B<float>(), Global<float>(arguments, 3), 64);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(Global<float>(arguments, 3)[64], ub.B<float>(), 64);
    }
  };
  misses = 0;
  Run(kernel);
  for (int i = 0; i < 128; ++i) assert_true(after.As<float>()[i] == (i % 64 == 5 ? 16.0f : 2.0f));
  static const char *const found[] = {"", "GetValue", "DataCopy", "DataCopy"};
  for (misses = 1; misses <= 3; ++misses) Refused(kernel, found[misses]);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(WhoIsWho),
      cmocka_unit_test(EveryFlagIsNeeded),
      cmocka_unit_test(MovesToOnePlaceNeedABarrier),
      cmocka_unit_test(ThroughGmAndScalars),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
