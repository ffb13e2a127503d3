// What the vendor's documentation forbids must end a run on the emulated Ascend cores, with a line that names the
// instruction.
#include "kernel_test.h"

// One forbidden instruction: on AIV 0 with a, b and dst in UB (which may then name what they are in), or on the AIC.
struct Rule {
  const char *what; // in the line
  void (*body)(const Ub &);
};
// Not for want of a flag between two instructions, which would say nothing about the rule.
static int IsRefused(dv_kernel kernel, const char *what, int number) {
  if (Launch(kernel))
    print_error("%d, %s: not refused\n", number, what);
  else if (!strstr(report.line, what) || (strstr(report.line, "does not wait") && !strstr(report.line, "nobody")))
    print_error("%d, %s: refused for something else: %s\n", number, what, report.line);
  else
    return 1;
  return 0;
}
template <size_t n>
static void AllRefused(const Rule (&rules)[n]) {
  int missing = 0;
  for (const Rule &rule : rules) {
    Begin();
    a.Fill<float>(4096, [](int i) { return i % 100; });
    ub_body = rule.body;
    missing += !IsRefused(UbKernel, rule.what, static_cast<int>(&rule - rules));
  }
  assert_int_equal(missing, 0);
}

// [通用说明和约束.md] UB addresses are multiples of 32 bytes, and nothing lies behind UB's end. Reductions: as their
// pages say.
static void AddressesInUb(void **) {
  static const Rule rules[] = {
      {"Adds", [](const Ub &ub) { Adds(ub.Dst<float>(), ub.A<float>(16), 1.0f, 64); }},
      {"Add",
       [](const Ub &ub) {
         Add(ub.Dst<half>(), ub.A<half>(), ub.B<half>(2), uint64_t(64), 1, {1, 1, 1, 8, 8, 8});
       }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<half>(8), ub.A<float>(), RoundMode::CAST_RINT, 64); }},
      {"Duplicate", [](const Ub &ub) { Duplicate(ub.Dst<float>(4), 1.0f, 64); }},
      {"Brcb",
       [](const Ub &ub) {
         Brcb(ub.Dst<float>(), ub.A<float>(16), 1, {1, 8});
       }},
      {"Select",
       [](const Ub &ub) {
         Select(ub.Dst<float>(), ub.A<uint8_t>(8), ub.A<float>(1024), ub.B<float>(), SELMODE::VSEL_TENSOR_TENSOR_MODE,
                64);
       }},
      {"CompareScalar", [](const Ub &ub) { CompareScalar(ub.Dst<uint8_t>(8), ub.A<float>(), 1.0f, CMPMODE::LT, 64); }},
      {"WholeReduceMax", [](const Ub &ub) { WholeReduceMax<float>(ub.Dst<float>(4), ub.A<float>(), 64, 1, 1, 1, 8); }},
      {"WholeReduceSum", [](const Ub &ub) { WholeReduceSum<float>(ub.Dst<float>(), ub.A<float>(4), 64, 1, 1, 1, 8); }},
      {"BlockReduceMax", [](const Ub &ub) { BlockReduceMax<float>(ub.Dst<float>(16), ub.A<float>(), 1, 64, 1, 1, 8); }},
      {"BlockReduceMax", [](const Ub &ub) { BlockReduceMax<half>(ub.Dst<half>(8), ub.A<half>(), 1, 128, 1, 1, 8); }},
      {"Duplicate", [](const Ub &ub) { Duplicate(ub.Dst<float>(), 1.0f, 192 * 1024 / 4); }},
      {"Adds",
       [](const Ub &ub) {
         Adds(ub.Dst<float>(), ub.A<float>(), 1.0f, uint64_t(64), 255, {1, 1, 255, 0});
       }},
      {"GetWithOffset", [](const Ub &ub) { ub.buffer.GetWithOffset<float>(1025, 4 * Ub::kBytes - 4096); }},
  };
  AllRefused(rules);
}

// [BlockReduceMax.md, WholeReduceMax.md, Mask page] what is out of range.
static void Ranges(void **) {
  static const Rule rules[] = {
      {"WholeReduceMax", [](const Ub &ub) { WholeReduceMax<half>(ub.Dst<half>(), ub.A<half>(), 1, 256, 1, 1, 0); }},
      {"WholeReduceSum", [](const Ub &ub) { WholeReduceSum<half>(ub.Dst<half>(), ub.A<half>(), 1, 300, 1, 1, 0); }},
      {"BlockReduceSum", [](const Ub &ub) { BlockReduceSum<half>(ub.Dst<half>(), ub.A<half>(), 256, 1, 1, 1, 0); }},
      {"Adds",
       [](const Ub &ub) {
         Adds(ub.Dst<float>(), ub.A<float>(), 1.0f, uint64_t(64), 1, {0, 1, 8, 8});
       }}, // dst stride
      {"Brcb",
       [](const Ub &ub) {
         Brcb(ub.Dst<float>(), ub.A<float>(), 1, {0, 8});
       }},
      {"SetFlag", [](const Ub &) { SetFlag<HardEvent::V_MTE2>(8); }},
      {"SetFlag", [](const Ub &) { SetFlag<HardEvent::V_MTE2>(-1); }},
      {"WaitFlag", [](const Ub &) { WaitFlag<HardEvent::MTE3_V>(EVENT_ID3); }}, // nobody sets it
      {"WaitFlag",
       [](const Ub &) { // nor this pair
         SetFlag<HardEvent::V_MTE2>(EVENT_ID1);
         WaitFlag<HardEvent::V_MTE3>(EVENT_ID1);
       }},
      {"SetFlag",
       [](const Ub &) {
         SetFlag<HardEvent::V_MTE2>(EVENT_ID1);
         SetFlag<HardEvent::V_MTE2>(EVENT_ID1);
       }},
      {"SetFlag", [](const Ub &) { SetFlag<HardEvent::V_MTE2>(EVENT_ID1); }}, // nobody waits for it
      {"SetFlag", [](const Ub &) { SetFlag<HardEvent::M_FIX>(EVENT_ID1); }},  // not of an AIV
      {"PipeBarrier", [](const Ub &) { PipeBarrier<PIPE_S>(); }},
      {"PipeBarrier", [](const Ub &) { PipeBarrier<PIPE_M>(); }},
      {"Adds", [](const Ub &ub) { Adds<float, false>(ub.Dst<float>(), ub.A<float>(), 1.0f, 1); }}, // nothing counts
  };
  AllRefused(rules);
}

// [the pages of each] types these cores do not compute in, and Casts that are not in the table.
static void Types(void **) {
  static const Rule rules[] = {
      {"Add", [](const Ub &ub) { Add(ub.Dst<bfloat16_t>(), ub.A<bfloat16_t>(), ub.B<bfloat16_t>(), 64); }},
      {"Add", [](const Ub &ub) { Add(ub.Dst<int8_t>(), ub.A<int8_t>(), ub.B<int8_t>(), 64); }},
      {"Div", [](const Ub &ub) { Div(ub.Dst<int32_t>(), ub.A<int32_t>(), ub.A<int32_t>(), 64); }},
      {"Exp", [](const Ub &ub) { Exp(ub.Dst<int32_t>(), ub.A<int32_t>(), 64); }},
      {"Ln", [](const Ub &ub) { Ln(ub.Dst<int32_t>(), ub.A<int32_t>(), 64); }},
      {"Duplicate", [](const Ub &ub) { Duplicate(ub.Dst<uint8_t>(), uint8_t(1), 64); }},
      {"CreateVecIndex", [](const Ub &ub) { CreateVecIndex(ub.Dst<uint32_t>(), uint32_t(1), 64); }},
      {"WholeReduceMax",
       [](const Ub &ub) { WholeReduceMax<int32_t>(ub.Dst<int32_t>(), ub.A<int32_t>(), 64, 1, 1, 1, 8); }},
      {"BlockReduceSum",
       [](const Ub &ub) { BlockReduceSum<int32_t>(ub.Dst<int32_t>(), ub.A<int32_t>(), 1, 64, 1, 1, 8); }},
      {"CompareScalar", [](const Ub &ub) { CompareScalar(ub.Dst<uint8_t>(), ub.A<int32_t>(), 1, CMPMODE::LT, 64); }},
      {"Select",
       [](const Ub &ub) {
         Select(ub.Dst<int32_t>(), ub.B<uint8_t>(), ub.A<int32_t>(), int32_t(1), SELMODE::VSEL_TENSOR_SCALAR_MODE, 64);
       }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<bfloat16_t>(), ub.A<float>(), RoundMode::CAST_NONE, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<bfloat16_t>(), ub.A<half>(), RoundMode::CAST_RINT, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<half>(), ub.A<bfloat16_t>(), RoundMode::CAST_RINT, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<float>(), ub.A<uint8_t>(), RoundMode::CAST_NONE, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<uint8_t>(), ub.A<float>(), RoundMode::CAST_RINT, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<int32_t>(), ub.A<uint8_t>(), RoundMode::CAST_NONE, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<bfloat16_t>(), ub.A<int32_t>(), RoundMode::CAST_RINT, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<float>(), ub.A<half>(), RoundMode::CAST_RINT, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<int32_t>(), ub.A<float>(), RoundMode::CAST_ODD, 64); }},
      {"Cast", [](const Ub &ub) { Cast(ub.Dst<half>(), ub.A<int32_t>(), RoundMode::CAST_NONE, 64); }}, // SetDeqScale
      {"And", [](const Ub &ub) { And(ub.Dst<int32_t>(), ub.A<int32_t>(), ub.B<int32_t>(), 64); }},
      {"ShiftLeft", [](const Ub &ub) { ShiftLeft(ub.Dst<half>(), ub.A<half>(), half(1.0f), 64); }},
      {"Brcb", [](const Ub &ub) { Brcb(ub.Dst<uint8_t>(), ub.A<uint8_t>(), 1, {1, 8}); }},
      {"MulAddDst", [](const Ub &ub) { MulAddDst(ub.Dst<int32_t>(), ub.A<int32_t>(), ub.B<int32_t>(), 64); }},
  };
  AllRefused(rules);
}

// [通用说明和约束.md, Brcb.md] in a repeat a source and dst coincide or lie apart; what a repeat writes the next must
// not read, but for the second source of Add and its like, where a repeat stride of dst or of it is 0.
static void Overlaps(void **) {
  static const Rule rules[] = {
      {"Adds",
       [](const Ub &ub) {
         Adds(ub.A<float>(32), ub.A<float>(), 1.0f, uint64_t(64), 1, {1, 1, 8, 8});
       }},
      {"Muls",
       [](const Ub &ub) {
         Muls(ub.A<float>(256), ub.A<float>(), 2.0f, uint64_t(64), 3, {1, 1, 8, 8});
       }},
      {"Add",
       [](const Ub &ub) {
         Add(ub.A<float>(256), ub.A<float>(), ub.B<float>(), uint64_t(64), 2, {1, 1, 1, 8, 8, 8});
       }},
      {"Add",
       [](const Ub &ub) {
         Add(ub.A<float>(), ub.A<float>(), ub.B<float>(), uint64_t(64), 4, {1, 1, 1, 0, 0, 8});
       }},
      {"Div",
       [](const Ub &ub) {
         Div(ub.A<float>(), ub.B<float>(), ub.A<float>(), uint64_t(64), 4, {1, 1, 1, 0, 8, 0});
       }},
      {"Brcb",
       [](const Ub &ub) {
         Brcb(ub.A<float>(), ub.A<float>(), 1, {1, 8});
       }},
      {"Cast", [](const Ub &ub) { Cast(ub.A<float>(), ub.A<half>(), RoundMode::CAST_NONE, 64); }}, // it widens
      {"WholeReduceMax", [](const Ub &ub) { WholeReduceMax<float>(ub.A<float>(), ub.A<float>(), 64, 2, 1, 1, 8); }},
      {"Compare", [](const Ub &ub) { Compare(ub.A<uint8_t>(), ub.A<float>(), ub.B<float>(), CMPMODE::LT, 128); }},
      {"Select",
       [](const Ub &ub) {
         Select(ub.Dst<float>(), ub.Dst<uint8_t>(), ub.A<float>(), 0.0f, SELMODE::VSEL_TENSOR_SCALAR_MODE, 64);
       }},
      {"MulAddDst",
       [](const Ub &ub) {
         MulAddDst(ub.Dst<float>(), ub.A<float>(), ub.B<float>(), uint64_t(64), 2, {1, 1, 1, 0, 8, 8});
       }},
  };
  AllRefused(rules);
  Begin(); // one that narrows may begin where its source does
  RunUb([](const Ub &ub) { Cast(ub.A<half>(), ub.A<float>(), RoundMode::CAST_RINT, 256); });
}

// Bytes that nobody wrote, memory that is not the launch's, what is only to be read.
static void Memory(void **) {
  static const Rule rules[] = {
      {"Adds", [](const Ub &ub) { Adds(ub.Dst<float>(), ub.Fresh<float>(), 1.0f, 8); }},
      {"Add",
       [](const Ub &ub) {
         Duplicate(ub.Fresh<float>(), 1.0f, 64);
         PipeBarrier<PIPE_V>();
         Add(ub.Dst<float>(), ub.Fresh<float>(), ub.B<float>(), uint64_t(64), 2, {1, 1, 1, 8, 8, 8});
       }},
      {"DataCopy",
       [](const Ub &ub) {
         GlobalTensor<float> behind;
         behind.SetGlobalBuffer(a.As<float>() + kGmBytes / 4 - 8);
         DataCopy(ub.Fresh<float>(), behind, 16);
       }},
      {"DataCopy",
       [](const Ub &ub) {
         GlobalTensor<float> input;
         input.SetGlobalBuffer(a.As<float>());
         SetFlag<HardEvent::MTE2_MTE3>(EVENT_ID1);
         WaitFlag<HardEvent::MTE2_MTE3>(EVENT_ID1);
         DataCopy(input, ub.A<float>(), 16);
       }},
      {"DataCopy",
       [](const Ub &ub) { // an output that the launch has not written yet
         GlobalTensor<float> output;
         output.SetGlobalBuffer(after.As<float>());
         DataCopy(ub.Fresh<float>(), output[4096], 16);
       }},
      {"GetValue",
       [](const Ub &) {
         GlobalTensor<float> elsewhere;
         elsewhere.SetGlobalBuffer(want.As<float>());
         (void)elsewhere.GetValue(0);
       }},
  };
  AllRefused(rules);
}

// [DataCopyPad_GMToUB.md, DataCopy_GMAndUB_highdim_split.md]
static void Moves(void **) {
  static GlobalTensor<half> from, out;
  static GlobalTensor<float> floats;
  from.SetGlobalBuffer(a.As<half>());
  out.SetGlobalBuffer(after.As<half>());
  floats.SetGlobalBuffer(reinterpret_cast<float *>(a.bytes + 2));
  static const Rule rules[] = {
      {"DataCopy", [](const Ub &ub) { DataCopy(ub.Fresh<half>(16), from, 64); }},
      {"DataCopy",
       [](const Ub &ub) {
         DataCopy(ub.Fresh<half>(), from, DataCopyParams{4096, 1, 0, 0});
       }},
      {"DataCopy", [](const Ub &ub) { DataCopy(ub.Fresh<float>(), floats, 64); }}, // GM is aligned to the element
      {"DataCopyPad",
       [](const Ub &ub) {
         DataCopyPad(ub.Fresh<half>(8), from, DataCopyExtParams{1, 20, 0, 0, 0},
                     DataCopyPadExtParams<half>{false, 0, 0, half(0)});
       }},
      {"DataCopyPad",
       [](const Ub &ub) { // not a whole number of elements
         DataCopyPad(ub.Fresh<half>(), from, DataCopyExtParams{1, 21, 0, 0, 0},
                     DataCopyPadExtParams<half>{false, 0, 0, half(0)});
       }},
      {"DataCopyPad",
       [](const Ub &ub) { // 34 bytes on one side; 32 are allowed
         DataCopyPad(ub.Fresh<half>(), from, DataCopyExtParams{1, 30, 0, 0, 0},
                     DataCopyPadExtParams<half>{true, 0, 17, half(0)});
       }},
      {"DataCopyPad",
       [](const Ub &ub) { // gaps are uint32_t on these cores: no way back
         DataCopyPad(ub.Fresh<half>(), from[512], DataCopyExtParams{2, 32, static_cast<uint32_t>(-64), 0, 0},
                     DataCopyPadExtParams<half>{false, 0, 0, half(0)});
       }},
      {"DataCopyPad",
       [](const Ub &ub) {
         DataCopyPad(ub.Fresh<half>(), from, DataCopyExtParams{1, 2097152, 0, 0, 0},
                     DataCopyPadExtParams<half>{false, 0, 0, half(0)});
       }},
  };
  AllRefused(rules);
}

// ------------------------------------------------------------------ on the AIC

static int number;
static void CubeKernel(void *const *arguments) {
  if ASCEND_IS_AIC {
    TPipe pipe;
    TBuf<TPosition::A1> l1;
    TBuf<TPosition::A2> l0a;
    TBuf<TPosition::B2> l0b;
    TBuf<TPosition::CO1> l0c;
    pipe.InitBuffer(l1, number == 1 ? 512 * 1024 + 32 : 65536);
    pipe.InitBuffer(l0a, 32768);
    pipe.InitBuffer(l0b, 32768);
    pipe.InitBuffer(l0c, 32768);
    const LocalTensor<half> a1 = l1.Get<half>(), a2 = l0a.Get<half>(), b2 = l0b.Get<half>();
    const LocalTensor<float> c = l0c.Get<float>();
    const GlobalTensor<half> from = Global<half>(arguments, 0);
    Nd2NzParams nz{1, 64, 64, 0, 64, 64, 1, 0};
    if (number == 2) nz.dstNzC0Stride = 0;
    if (number == 3) nz.nValue = 16385;
    if (number == 4) nz.srcDValue = 0;
    DataCopy(a1[number == 5 ? 8 : 0], from, nz);
    SetFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_MTE1>(EVENT_ID0);
    LoadData2DParams load{0, 16, 1, 0, 0, false, 0};
    LoadData(a2[number == 6 ? 16 : 0], a1, load);
    LoadData(b2, a1[number == 7 ? 256 * 1024 - 256 : 0], load);
    SetFlag<HardEvent::MTE1_M>(EVENT_ID0);
    WaitFlag<HardEvent::MTE1_M>(EVENT_ID0);
    MmadParams p;
    p.m = p.n = p.k = static_cast<uint16_t>(number == 8 ? 80 : 64); // 80 x 80: more than was loaded
    if (number == 25) p.cmatrixInitVal = false;                     // adds to what nobody wrote
    Mmad(c[number == 9 ? 16 : 0], number == 10 ? b2 : a2, b2, p);
    SetFlag<HardEvent::M_FIX>(EVENT_ID0);
    WaitFlag<HardEvent::M_FIX>(EVENT_ID0);
    FixpipeParamsV220 out;
    out.nSize = out.mSize = out.srcStride = 64;
    out.dstStride = number == 11 ? 32 : number == 12 ? 0 : 64;
    if (number == 13) out.quantPre = F322F16;
    if (number == 14) out.mSize = 80; // rows that no Mmad gave
    if (number == 15)
      Fixpipe(Global<half>(arguments, 3), c, out); // NoQuant keeps float
    else
      Fixpipe(Global<float>(arguments, 3), c[number == 18 ? 8 : 0], out);
    if (number == 16) SetFlag<HardEvent::M_V>(EVENT_ID0);
    if (number == 17) Adds(c, c, 1.0f, 64);
    if (number == 19) CrossCoreSetFlag<2, PIPE_V>(0);
    if (number == 20) CrossCoreSetFlag<2, PIPE_S>(0);
    if (number == 21) CrossCoreSetFlag<3, PIPE_FIX>(0);
    if (number == 24) CrossCoreSetFlag<2, PIPE_ALL>(0);
    if (number == 22) CrossCoreSetFlag<2, PIPE_FIX>(0);
    if (number == 23) CrossCoreSetFlag<0, PIPE_FIX>(0);
    if (number == 26) SetFlag<HardEvent::S_MTE2>(EVENT_ID0);
  }
  if ASCEND_IS_AIV {
    if ((number >= 19 && number <= 21) || number == 24) CrossCoreWaitFlag<2, PIPE_S>(0);
  }
}

// [DataCopy_GMToL1_ND2NZ.md, Load2D.md, Mmad.md, Fixpipe_L0CToGM.md, CrossCoreSetFlag_ISASI.md]
static void OnTheCube(void **) {
  static const char *const what[] = {"",
                                     "InitBuffer",
                                     "DataCopy",
                                     "DataCopy",
                                     "DataCopy",
                                     "DataCopy",
                                     "LoadData",
                                     "LoadData",
                                     "Mmad",
                                     "Mmad",
                                     "Mmad",
                                     "Fixpipe",
                                     "Fixpipe",
                                     "Fixpipe",
                                     "Fixpipe",
                                     "Fixpipe",
                                     "SetFlag",
                                     "Adds",
                                     "Fixpipe",
                                     "CrossCoreSetFlag",
                                     "CrossCoreSetFlag",
                                     "CrossCoreSetFlag",
                                     "flag",
                                     "flag",
                                     "CrossCoreSetFlag",
                                     "Mmad",
                                     "SetFlag"}; // 22 and 23: nobody waits
  Begin();
  a.Fill<half>(4096, [](int i) { return half(float(i % 7)); });
  number = 0;
  Run(CubeKernel);
  int missing = 0;
  for (number = 1; number < 27; ++number) missing += !IsRefused(CubeKernel, what[number], number);
  assert_int_equal(missing, 0);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(AddressesInUb), cmocka_unit_test(Ranges), cmocka_unit_test(Types),
      cmocka_unit_test(Overlaps),      cmocka_unit_test(Memory), cmocka_unit_test(Moves),
      cmocka_unit_test(OnTheCube),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
