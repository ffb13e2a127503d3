// What launches cost on the emulated chip: small kernels whose cycles are worked out by hand from the chip's figures
// (parameters.def), what may be set of those, launches that only take time, and the trace.
#include <stdlib.h>

#include "kernel_test.h"

namespace {

// Of the 910B2, as the sums below have them.
constexpr double kIssue = 6, kMoveStart = 16, kVectorEnds = 12 + 20, kFlag = 10, kCrossFlag = 500, kGhz = 1.8;
constexpr double kLaunch = 10 * kGhz * 1e3, kQueuedLaunch = 3 * kGhz * 1e3;
constexpr double kToL1Latency = 192, kToL1Rate = 166, kNd2NzLatency = 800, kNd2NzRate = 174, kToGmLatency = 124, kToGmRate = 77;

uint64_t cycle; // that a kernel saw

struct Chip {
  dv_chip *chip = dv_chip_open("910b2");
  dv_launch launch = {};
  Chip(dv_kernel kernel, dv_cores cores) {
    static void *const arguments[] = {a.bytes, b.bytes, before.bytes, after.bytes};
    static const dv_region regions[] = {{"a", a.bytes, kGmBytes, DV_INPUT},
                                        {"b", b.bytes, kGmBytes, DV_INPUT},
                                        {"before", before.bytes, kGmBytes, DV_INPUT},
                                        {"after", after.bytes, kGmBytes, DV_OUTPUT}};
    assert_non_null(chip);
    launch.name = "clock";
    launch.kernel = kernel;
    launch.arguments = arguments;
    launch.cores = cores;
    launch.blocks = 1;
    launch.regions = regions;
    launch.regions_count = 4;
  }
  ~Chip() { dv_chip_close(chip); }
  // Cycles without what the launch itself costs.
  double Run() {
    if (!dv_run(chip, &launch, &report)) fail_msg("refused: %s", report.line);
    return report.cycles - (launch.is_queued ? kQueuedLaunch : kLaunch);
  }
  // With all of GM that it reads in L2.
  double RunWarm() {
    Run();
    return Run();
  }
};

void Near(double got, double wanted) {
  if (fabs(got - wanted) > 1e-6 * wanted + 1e-6) fail_msg("%.4f cycles, should be %.4f", got, wanted);
}

template <int moves>
void ToL1(void *const *arguments) {
  TPipe pipe;
  TBuf<TPosition::A1> buffer;
  pipe.InitBuffer(buffer, moves * kGmBytes);
  for (int n = 0; n < moves; ++n)
    DataCopy(buffer.GetWithOffset<uint8_t>(kGmBytes, static_cast<uint32_t>(n * kGmBytes)), Global<uint8_t>(arguments, n), kGmBytes);
}

// The page's 192 + bytes/166 for one that starts alone.
void AMoveAlone(void **) {
  Chip chip(ToL1<1>, DV_CORES_AIC);
  Near(chip.RunWarm(), kIssue + kToL1Latency + kGmBytes / kToL1Rate);
}

// The second starts when the first's bytes are through, not when it has ended.
void TwoMovesInFlight(void **) {
  Chip chip(ToL1<2>, DV_CORES_AIC);
  Near(chip.RunWarm(), kIssue + 2 * (kMoveStart + kGmBytes / kToL1Rate) + (kToL1Latency - kMoveStart));
}

// A miss takes twice as long at the core, and its bytes come from HBM.
void AMissThenAHit(void **) {
  Chip chip(ToL1<1>, DV_CORES_AIC);
  Near(chip.Run(), kIssue + 2 * (kMoveStart + kGmBytes / kToL1Rate) + (kToL1Latency - kMoveStart));
  Near(report.hbm, kGmBytes);
  Near(report.gm_read, kGmBytes);
  Near(chip.Run(), kIssue + kToL1Latency + kGmBytes / kToL1Rate);
  Near(report.hbm, 0);
}

void FromNd(void *const *arguments) {
  TPipe pipe;
  TBuf<TPosition::A1> buffer;
  pipe.InitBuffer(buffer, 16384);
  Nd2NzParams p;
  p.ndNum = 1;
  p.nValue = 64;
  p.dValue = p.srcDValue = 128;
  p.srcNdMatrixStride = 0;
  p.dstNzC0Stride = 64;
  p.dstNzNStride = 1;
  p.dstNzMatrixStride = 0;
  DataCopy(buffer.Get<half>(), Global<half>(arguments, 0), p);
}
void AMoveToFractals(void **) {
  Chip chip(FromNd, DV_CORES_AIC);
  Near(chip.RunWarm(), kIssue + kNd2NzLatency + 16384 / kNd2NzRate);
}

// Two of 8 repeats, a cycle each.
template <bool waits>
void TwoVectors(void *const *) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 4096);
  Duplicate(buffer.Get<float>(), 1.0f, 512);
  if (waits) PipeBarrier<PIPE_V>();
  Duplicate(buffer.Get<float>()[512], 1.0f, 512);
}
// Without a barrier the second's head and the first's tail are hidden; a barrier, or the compiler's own, shows them.
void VectorsAndABarrier(void **) {
  const double alone = 8 + kVectorEnds;
  Near(Chip(TwoVectors<false>, DV_CORES_AIV).Run(), kIssue + 8 + alone);
  Near(Chip(TwoVectors<true>, DV_CORES_AIV).Run(), kIssue + 2 * alone);
  Chip chip(TwoVectors<false>, DV_CORES_AIV);
  chip.launch.auto_sync = 1;
  Near(chip.Run(), kIssue + 2 * alone);
}

void VectorThenOut(void *const *arguments) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 2048);
  Duplicate(buffer.Get<float>(), 1.0f, 512);
  SetFlag<HardEvent::V_MTE3>(0);
  WaitFlag<HardEvent::V_MTE3>(0);
  DataCopy(Global<float>(arguments, 3), buffer.Get<float>(), 512);
}
void AFlagBetweenQueues(void **) {
  Chip chip(VectorThenOut, DV_CORES_AIV);
  Near(chip.Run(), kIssue + 8 + kVectorEnds + kFlag + kToGmLatency + 2048 / kToGmRate);
  Near(report.gm_written, 2048);
  Near(report.busy[1][DV_V], 8);
  assert_int_equal(report.instructions, 2);
}

void FourVectors(void *const *) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 4 * 12800);
  for (uint32_t n = 0; n < 4; ++n) Duplicate(buffer.Get<float>()[3200 * n], 1.0f, 3200);
  cycle = dv_cycle();
}
// 50 cycles each; with room for two the fourth is issued when the second starts.
void AFullQueueHoldsUpTheScalarUnit(void **) {
  Chip chip(FourVectors, DV_CORES_AIV);
  const double all = kIssue + 4 * 50 + kVectorEnds;
  Near(chip.Run(), all);
  assert_int_equal(cycle, 4 * kIssue);
  assert_true(dv_chip_set(chip.chip, "queue_depth", 2));
  Near(chip.Run(), all);
  assert_int_equal(cycle, kIssue + 50);
}

void AcrossCores(void *const *) {
  if ASCEND_IS_AIC {
    CrossCoreSetFlag<0x2, PIPE_FIX>(3);
  } else {
    CrossCoreWaitFlag(3);
    cycle = dv_cycle();
  }
}
void AFlagBetweenCores(void **) {
  Chip chip(AcrossCores, DV_CORES_MIX_1_2);
  Near(chip.Run(), kIssue + kCrossFlag);
  assert_int_equal(cycle, kIssue + kCrossFlag);
}

void WhatALaunchCosts(void **) {
  Chip chip([](void *const *) {}, DV_CORES_MIX_1_2);
  Near(chip.Run(), 0);
  Near(report.cycles, kLaunch);
  Near(report.us, 10);
  chip.launch.is_queued = 1;
  Near(chip.Run(), 0);
  Near(report.us, 3);
}

// ------------------------------------------------------------------ figures

void WhatMayBeSet(void **) {
  dv_chip *chip = dv_chip_open("910b3");
  assert_non_null(chip);
  const struct {
    const char *name;
    double value;
    int may;
  } cases[] = {{"l1_bytes", 524288, 0},  {"l0a_bytes", 1024, 0},     {"l0b_bytes", 1024, 0},   {"l0c_bytes", 1024, 0},
               {"ub_bytes", 1024, 0},    {"l2_bytes", 1024, 0},      {"groups", 21, 0},        {"groups", 0, 0},
               {"groups", 1.5, 0},       {"groups", 20, 1},          {"groups", 3, 1},         {"queue_depth", 0, 0},
               {"queue_depth", 65, 0},   {"queue_depth", 64, 1},     {"queue_depth", 1, 1},    {"gm_ub_rate", 0, 0},
               {"gm_ub_rate", 49, 1},    {"hbm_rate", 0, 0},         {"clock_ghz", 0, 0},      {"clock_ghz", 1.5, 1},
               {"miss_factor", 0, 0},    {"miss_factor", 1.01, 0},   {"miss_factor", 1, 1},    {"flag_cost", -1, 0},
               {"flag_cost", 0, 1},      {"flag_cost", 1e9, 0},      {"flag_cost", NAN, 0},    {"flag_cost", INFINITY, 0},
               {"no_such_figure", 1, 0}};
  for (const auto &c : cases) {
    const double was = dv_chip_get(chip, c.name);
    if (dv_chip_set(chip, c.name, c.value) != c.may) fail_msg("%s = %g", c.name, c.value);
    const double is = dv_chip_get(chip, c.name);
    assert_true(isnan(was) ? isnan(is) : is == (c.may ? c.value : was));
  }
  assert_int_equal(dv_chip_groups(chip), 3);
  dv_chip_close(chip);
}

void WhereFiguresComeFrom(void **) {
  dv_chip *chip = dv_chip_open("910b1");
  assert_non_null(chip);
  dv_parameter p;
  int count = 0;
  for (; dv_chip_parameter(chip, count, &p); ++count) {
    const char *const known[] = {"documented", "published", "fitted", "guess"};
    int is_known = 0;
    for (const char *word : known) is_known |= strcmp(word, p.confidence) == 0;
    if (!is_known || !p.unit[0] || !p.source[0] || dv_chip_get(chip, p.name) != p.value) fail_msg("%s", p.name);
  }
  assert_true(count > 30);
  dv_chip_close(chip);
}

// ------------------------------------------------------------------ only time

void ThroughUb(void *const *arguments) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> buffer;
  pipe.InitBuffer(buffer, 1024);
  DataCopy(buffer.Get<uint8_t>(), Global<uint8_t>(arguments, 0)[GetBlockIdx() * 1024], 1024);
  SetFlag<HardEvent::MTE2_MTE3>(0);
  WaitFlag<HardEvent::MTE2_MTE3>(0);
  DataCopy(Global<uint8_t>(arguments, 3)[GetBlockIdx() * 1024], buffer.Get<uint8_t>(), 1024);
}
// The same cycles, and of the outputs only those of the groups that are computed.
void OnlyTimeLeavesOutputsAlone(void **) {
  Begin();
  Chip chip(ThroughUb, DV_CORES_AIV);
  chip.launch.blocks = 4;
  chip.launch.only_time = 1;
  chip.launch.last_computed = -1;
  const double cycles = chip.RunWarm();
  for (int i = 0; i < kGmBytes; ++i) assert_int_equal(after.bytes[i], 0xee);
  chip.launch.first_computed = chip.launch.last_computed = 2;
  Near(chip.Run(), cycles);
  for (int i = 0; i < kGmBytes; ++i) assert_int_equal(after.bytes[i], i / 1024 == 2 ? a.bytes[i] : 0xee);
  chip.launch.only_time = 0;
  Near(chip.Run(), cycles);
  AssertGm(after.bytes, a.bytes, 4096, 1);
}

// ------------------------------------------------------------------ trace

// Skips a value of JSON; NULL: it is none.
const char *Skip(const char *at) {
  if (*at == '"') {
    for (++at; *at && *at != '"'; ++at)
      if (*at == '\\' && !*++at) return nullptr;
    return *at ? at + 1 : nullptr;
  }
  if (*at != '{' && *at != '[') {
    char *end;
    strtod(at, &end);
    return end == at ? nullptr : end;
  }
  const char closing = *at == '{' ? '}' : ']';
  do {
    ++at;
    while (*at == '\n' || *at == ' ') ++at;
    if (*at == closing) return at + 1;
    at = Skip(at);
    if (at && closing == '}') at = *at == ':' ? Skip(at + 1) : nullptr;
    if (!at) return nullptr;
    while (*at == '\n' || *at == ' ') ++at;
  } while (*at == ',');
  return *at == closing ? at + 1 : nullptr;
}

void TheTraceIsJson(void **) {
  Chip chip(VectorThenOut, DV_CORES_AIV);
  chip.launch.trace = dv_trace_open();
  assert_non_null(chip.launch.trace);
  chip.Run();
  chip.Run();
  static char text[16384];
  FILE *file = tmpfile();
  assert_non_null(file);
  assert_true(dv_trace_write(chip.launch.trace, file));
  rewind(file);
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  dv_trace_close(chip.launch.trace);
  const char *end = Skip(text);
  assert_non_null(end);
  assert_string_equal(end, "\n");
  // Each launch: Duplicate from cycle 6 for 8 + 32, DataCopy; the second behind all of the first.
  double begin[4], lasts[4], ends[4];
  int count = 0;
  for (const char *at = text; (at = strstr(at, "\"ph\":\"X\"")); ++count) {
    assert_true(count < 4);
    at = strstr(at, "\"ts\":");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"ts\":%lf,\"dur\":%lf,\"args\":{\"ends\":%lf", &begin[count], &lasts[count], &ends[count]), 3);
  }
  assert_int_equal(count, 4);
  const double us = kGhz * 1e3, launch = report.us;
  for (int n = 0; n < 4; n += 2) {
    assert_true(fabs(begin[n] - (n / 2 * launch + kIssue / us)) < 2e-4);
    assert_true(fabs(lasts[n] - 8 / us) < 2e-4); // how long it keeps the queue
    assert_true(fabs(ends[n] - begin[n] - (8 + kVectorEnds) / us) < 4e-4);
    assert_true(begin[n + 1] >= ends[n] - 2e-4);
  }
  assert_non_null(strstr(text, "\"name\":\"DataCopy\""));
  assert_non_null(strstr(text, "AIV 0 (model)"));
}

} // namespace

int main() {
  const CMUnitTest tests[] = {cmocka_unit_test(AMoveAlone),
                              cmocka_unit_test(TwoMovesInFlight),
                              cmocka_unit_test(AMissThenAHit),
                              cmocka_unit_test(AMoveToFractals),
                              cmocka_unit_test(VectorsAndABarrier),
                              cmocka_unit_test(AFlagBetweenQueues),
                              cmocka_unit_test(AFullQueueHoldsUpTheScalarUnit),
                              cmocka_unit_test(AFlagBetweenCores),
                              cmocka_unit_test(WhatALaunchCosts),
                              cmocka_unit_test(WhatMayBeSet),
                              cmocka_unit_test(WhereFiguresComeFrom),
                              cmocka_unit_test(OnlyTimeLeavesOutputsAlone),
                              cmocka_unit_test(TheTraceIsJson)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
