// Flags between emulated Ascend cores against the vendor's documentation: what they order, and that what nothing orders
// is found.
#include "kernel_test.h"

static int misses; // which of a kernel's synchronisations is left out; 0: none

// [CrossCoreSetFlag_ISASI.md, mode 2] both AIVs set, the AIC goes on; the AIC sets, both AIVs go on. The AIVs write a
// half each, the AIC carries it through L1, the AIVs add 1.
static void RoundTrip(void *const *arguments) {
  const GlobalTensor<float> there = Global<float>(arguments, 3), back = there[1024], sums = there[2048];
  TPipe pipe;
  if ASCEND_IS_AIC {
    TBuf<TPosition::A1> l1;
    pipe.InitBuffer(l1, 1024);
    if (misses != 1) CrossCoreWaitFlag<2, PIPE_MTE2>(3);
    DataCopy(l1.Get<float>(), there, 128);
    SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
    DataCopy(back, l1.Get<float>(), 128);
    if (misses != 2) CrossCoreSetFlag<2, PIPE_MTE3>(4);
  }
  if ASCEND_IS_AIV {
    Ub ub;
    pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
    const uint32_t half_of = static_cast<uint32_t>(GetSubBlockIdx()) * 64;
    Duplicate(ub.A<float>(), 1.0f + half_of, 64);
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    DataCopy(there[half_of], ub.A<float>(), 64);
    if (misses != 1 && (misses != 3 || half_of == 0)) CrossCoreSetFlag<2, PIPE_MTE3>(3);
    if (misses != 2) CrossCoreWaitFlag<2, PIPE_MTE2>(4);
    DataCopy(ub.B<float>(), back[64 - half_of], 64); // what the other one wrote
    SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
    Adds(ub.Dst<float>(), ub.B<float>(), 1.0f, 64);
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    DataCopy(sums[half_of], ub.Dst<float>(), 64);
  }
}

static void AicAndAivs(void **) {
  misses = 0;
  Run(RoundTrip);
  for (int i = 0; i < 128; ++i) assert_true(after.As<float>()[2048 + i] == (i < 64 ? 66.0f : 2.0f));
  misses = 1; // read before it is written, or while
  Refused(RoundTrip, "DataCopy");
  misses = 2;
  Refused(RoundTrip, "DataCopy");
  misses = 3; // one AIV alone does not wake the AIC
  Refused(RoundTrip, "CrossCoreWaitFlag");
}

// [CrossCoreSetFlag_ISASI.md] a flag is a counter from 0 to 15.
static int sets;
static void AFlagCountsToFifteen(void **) {
  static const auto kernel = [](void *const *) {
    if ASCEND_IS_AIC {
      for (int i = 0; i < sets; ++i) CrossCoreSetFlag<2, PIPE_FIX>(1);
      CrossCoreSetFlag<2, PIPE_FIX>(2);
    }
    if ASCEND_IS_AIV {
      CrossCoreWaitFlag<2, PIPE_S>(2);
      for (int i = 0; i < sets; ++i) CrossCoreWaitFlag<2, PIPE_S>(1);
    }
  };
  sets = 15;
  Run(kernel);
  sets = 16;
  Refused(kernel, "CrossCoreSetFlag");
}

// [CrossCoreWaitFlag_ISASI.md] on these cores modeId and pipe of a wait have no effect: a core has one counter an id.
static void AWaitTakesNoMode(void **) {
  Run([](void *const *) {
    if ASCEND_IS_AIC {
      CrossCoreSetFlag<2, PIPE_FIX>(5);
      CrossCoreWaitFlag(6);
    }
    if ASCEND_IS_AIV {
      CrossCoreWaitFlag(5);
      CrossCoreSetFlag<1, PIPE_MTE3>(7);
      CrossCoreWaitFlag<2, PIPE_V>(7);
      CrossCoreSetFlag<0, PIPE_MTE3>(8);
      CrossCoreWaitFlag<1, PIPE_V>(8);
      CrossCoreSetFlag<2, PIPE_MTE3>(6);
    }
  });
}

// [CrossCoreSetFlag_ISASI.md] a set follows what its own pipe did before it, nothing else: not what another pipe did,
// not what comes after it. AIV 0 of a group writes, every other AIV reads.
static void Told(void *const *arguments) {
  if ASCEND_IS_AIV {
    TPipe pipe;
    Ub ub;
    pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
    const GlobalTensor<float> out = Global<float>(arguments, 3);
    const int64_t me = GetBlockIdx();
    Duplicate(ub.A<float>(), 1.0f, 64);
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    if (me == 0 && misses != 2) DataCopy(out, ub.A<float>(), 64);
    if (misses == 1)
      CrossCoreSetFlag<0, PIPE_V>(0);
    else
      CrossCoreSetFlag<0, PIPE_MTE3>(0);
    if (me == 0 && misses == 2) DataCopy(out, ub.A<float>(), 64);
    CrossCoreWaitFlag<0, PIPE_S>(0);
    if (me != 0) {
      DataCopy(ub.B<float>(), out, 64);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(out[static_cast<uint64_t>(64 * me)], ub.B<float>(), 64);
    }
  }
}
static void ASetFollowsItsOwnPipe(void **) {
  for (int groups = 1; groups <= 2; ++groups) {
    misses = 0;
    Run(Told, groups);
    for (int i = 0; i < 64 * 2 * groups; ++i) assert_true(after.As<float>()[i] == 1.0f);
    for (misses = 1; misses <= 2; ++misses) Refused(Told, "DataCopy", groups);
  }
}

// [CrossCoreSetFlag_ISASI.md, SyncAll.md] AIVs that meet say nothing about AICs: what an AIC wrote is not there for the
// AIV of another group until its own flags say so.
static void AivsDoNotSpeakForAics(void **) {
  static const auto kernel = [](void *const *arguments) {
    TPipe pipe;
    const GlobalTensor<float> out = Global<float>(arguments, 3);
    if ASCEND_IS_AIC {
      TBuf<TPosition::A1> l1;
      pipe.InitBuffer(l1, 1024);
      if (GetBlockIdx() == 0) {
        DataCopy(l1.Get<float>(), Global<float>(arguments, 0), 64);
        SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
        WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
        DataCopy(out, l1.Get<float>(), 64);
      }
      if (misses == 0) CrossCoreSetFlag<2, PIPE_MTE3>(1);
    }
    if ASCEND_IS_AIV {
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      if (misses == 0) CrossCoreWaitFlag<2, PIPE_S>(1);
      SyncAll();
      if (GetBlockIdx() != 2) return;
      DataCopy(ub.A<float>(), out, 64);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(out[64], ub.A<float>(), 64);
    }
  };
  misses = 0;
  Run(kernel, 2);
  misses = 1;
  Refused(kernel, "DataCopy", 2);
}

// Meeting again and again, under several ids: what was written before each is there after it.
static void MeetingsFollowEachOther(void **) {
  Run(
      [](void *const *arguments) {
        if ASCEND_IS_AIV {
          TPipe pipe;
          Ub ub;
          pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
          const GlobalTensor<float> out = Global<float>(arguments, 3);
          const uint64_t me = static_cast<uint64_t>(GetBlockIdx()), next = (me + 1) % 6;
          Duplicate(ub.A<float>(), float(me), 32);
          SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
          WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
          for (uint64_t round = 0; round < 5; ++round) {
            DataCopy(out[256 * round + 32 * me], ub.A<float>(), 32);
            if (round % 2) {
              CrossCoreSetFlag<0, PIPE_MTE3>(static_cast<uint16_t>(round));
              CrossCoreWaitFlag<0, PIPE_S>(static_cast<uint16_t>(round));
            } else {
              SyncAll();
            }
            DataCopy(ub.A<float>(), out[256 * round + 32 * next], 32);
            SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
            WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
          }
          DataCopy(out[2048 + 32 * me], ub.A<float>(), 32);
        }
      },
      3);
  for (int i = 0; i < 192; ++i) assert_true(after.As<float>()[2048 + i] == (i / 32 + 5) % 6);
}

// [CrossCoreSetFlag_ISASI.md, call example] mode 0: all AIVs multiply by their index and add up in GM; AIV 0 reads the
// sum. Mode 1 between the AIVs of a core: each reads what its neighbour wrote.
static void AmongAivs(void **) {
  static const auto kernel = [](void *const *arguments) {
    if ASCEND_IS_AIV {
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      const int64_t me = GetBlockIdx(), all = GetBlockNum() * GetTaskRation();
      const GlobalTensor<float> out = Global<float>(arguments, 3);
      Duplicate(ub.A<float>(), float(me), 32);
      SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
      DataCopy(out[static_cast<uint64_t>(32 * me)], ub.A<float>(), 32);
      if (misses != 1) {
        CrossCoreSetFlag<0, PIPE_MTE3>(0);
        CrossCoreWaitFlag<0, PIPE_S>(0);
      }
      if (me == 0) SetAtomicAdd<float>();
      for (int64_t i = 1; me == 0 && i < all; ++i) {
        DataCopy(ub.B<float>(static_cast<uint32_t>(128 * i)), out[static_cast<uint64_t>(32 * i)], 32);
        SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
        WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
        PipeBarrier<PIPE_MTE3>();
        DataCopy(out, ub.B<float>(static_cast<uint32_t>(128 * i)), 32);
        SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0); // or MTE2 could set its flag again before MTE3 has seen it
        WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
      }
      if (me == 0) SetAtomicNone();
      if (misses != 2) {
        CrossCoreSetFlag<1, PIPE_MTE3>(1);
        CrossCoreWaitFlag<1, PIPE_S>(1);
      }
      DataCopy(ub.Dst<float>(), out[static_cast<uint64_t>(32 * (me ^ 1))], 32);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(out[static_cast<uint64_t>(1024 + 32 * me)], ub.Dst<float>(), 32);
    }
  };
  misses = 0;
  Run(kernel, 4); // 8 AIVs
  for (int i = 0; i < 32; ++i) assert_true(after.As<float>()[i] == 28.0f);
  for (int i = 0; i < 256; ++i) assert_true(after.As<float>()[1024 + i] == (i / 32 == 1 ? 28.0f : float(i / 32 ^ 1)));
  misses = 1;
  Refused(kernel, "DataCopy", 4);
  misses = 2;
  Refused(kernel, "DataCopy", 4);
}

// [SyncAll.md, call example] 8 cores double 32 floats each and then sum what all of them wrote; <true>: AIVs, <false>:
// AICs too.
static bool only_vector;
static void AllTogether(void **) {
  static const auto kernel = [](void *const *arguments) {
    const GlobalTensor<float> doubled = Global<float>(arguments, 3), sums = doubled[1024];
    TPipe pipe;
    if ASCEND_IS_AIV {
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      const uint32_t me = static_cast<uint32_t>(GetBlockIdx());
      DataCopy(ub.A<float>(), Global<float>(arguments, 0)[32 * me], 32);
      SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
      Muls(ub.A<float>(), ub.A<float>(), 2.0f, 32);
      SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
      DataCopy(doubled[32 * me], ub.A<float>(), 32);
      if (misses != 1) {
        if (only_vector)
          SyncAll();
        else
          SyncAll<false>();
      }
      DataCopy(ub.B<float>(), doubled, 256);
      SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
      for (uint32_t i = 1; i < 8; ++i) {
        Add(ub.B<float>(), ub.B<float>(), ub.B<float>(128 * i), 32);
        PipeBarrier<PIPE_V>();
      }
      SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
      DataCopy(sums[32 * me], ub.B<float>(), 32);
    }
    if ASCEND_IS_AIC {
      if (!only_vector && misses != 2) SyncAll<false>();
    }
  };
  Begin();
  a.Fill<float>(256, [](int i) { return i; });
  misses = 0;
  for (int i = 0; i < 2; ++i) {
    only_vector = i == 0;
    Run(kernel, 4);
    for (int at = 0; at < 256; ++at) assert_true(after.As<float>()[1024 + at] == 2.0f * (8 * (at % 32) + 32 * 28));
  }
  misses = 2; // the AICs do not come
  Refused(kernel, "SyncAll", 4);
  only_vector = true;
  misses = 1;
  Refused(kernel, "DataCopy", 4);
}

// [SetAtomicAdd.md, its example] cores of different groups add to the same floats without order among themselves; all else needs
// it with them. (Between the two AIVs of a group the emulator asks for order, which the page does not.)
static void CoresAddToTheSameFloats(void **) {
  static const auto kernel = [](void *const *arguments) {
    if ASCEND_IS_AIV {
      TPipe pipe;
      Ub ub;
      pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
      const GlobalTensor<float> sums = Global<float>(arguments, 3);
      const int64_t me = GetBlockIdx();
      Duplicate(ub.A<float>(), 0.0f, 64);
      Duplicate(ub.B<float>(), 1.0f, 64);
      SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
      if (me == 0) DataCopy(sums, ub.A<float>(), 64);
      if (misses != 1) SyncAll<true>();
      if (misses != 3 || me != 4) SetAtomicAdd<float>();
      if (me % 2 == 0) DataCopy(sums, ub.B<float>(), 64);
      if (misses != 3 || me != 4) SetAtomicNone();
      if (misses != 2) SyncAll<true>();
      if (me != 2) return;
      SetFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
      WaitFlag<HardEvent::MTE3_MTE2>(EVENT_ID0);
      DataCopy(ub.Dst<float>(), sums, 64);
      SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID0);
      DataCopy(sums[1024], ub.Dst<float>(), 64);
    }
  };
  misses = 0;
  Run(kernel, 3); // 6 AIVs
  for (int i = 0; i < 64; ++i) assert_true(after.As<float>()[1024 + i] == 3.0f);
  for (misses = 1; misses <= 3; ++misses) Refused(kernel, "DataCopy", 3);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(AicAndAivs),
      cmocka_unit_test(AFlagCountsToFifteen),
      cmocka_unit_test(AWaitTakesNoMode),
      cmocka_unit_test(ASetFollowsItsOwnPipe),
      cmocka_unit_test(AivsDoNotSpeakForAics),
      cmocka_unit_test(MeetingsFollowEachOther),
      cmocka_unit_test(AmongAivs),
      cmocka_unit_test(AllTogether),
      cmocka_unit_test(CoresAddToTheSameFloats),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
