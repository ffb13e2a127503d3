// What the tests of single Ascend C instructions share. A test fills GM, runs a small kernel on the emulated cores and
// compares every byte of what came back with what the vendor's documentation says, restated plainly in the test.
//
// [page.md] in a comment is vendor documentation, the page of that name below
// https://gitcode.com/cann/asc-devkit/blob/9.1.0/docs/api/SIMD-API (the API reference that hiascend.com prints as
// well); a test named after an example takes its numbers from there.
#ifndef KERNEL_TEST_H
#define KERNEL_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "davinci/davinci.h"
#include "davinci/kernel_operator.h"

using namespace AscendC;

enum { kGmBytes = 32768 };

struct Gm {
  alignas(512) uint8_t bytes[kGmBytes];
  template <typename T>
  T *As() {
    return reinterpret_cast<T *>(bytes);
  }
  template <typename T, typename F>
  void Fill(int count, F value) {
    for (int i = 0; i < count; ++i) As<T>()[i] = static_cast<T>(value(i));
  }
};

// Two operands, and what dst holds before the kernel, after it, and should hold after it.
inline Gm a, b, before, after, want;
inline dv_report report;

inline void Begin() {
  for (int i = 0; i < kGmBytes; ++i) {
    a.bytes[i] = static_cast<uint8_t>(i % 61 + 1);
    b.bytes[i] = static_cast<uint8_t>(i % 53 + 2);
    before.bytes[i] = static_cast<uint8_t>(i % 47 + 64);
  }
  memset(after.bytes, 0xee, sizeof after.bytes);
  memcpy(want.bytes, before.bytes, sizeof want.bytes);
}

// Runs `kernel` on `blocks` AICs with two AIVs each (or on AICs or AIVs alone). false: refused, report.line says why.
inline bool Launch(dv_kernel kernel, int blocks = 1, dv_cores cores = DV_CORES_MIX_1_2) {
  static void *const arguments[] = {a.bytes, b.bytes, before.bytes, after.bytes};
  static const dv_region regions[] = {{"a", a.bytes, kGmBytes, DV_INPUT},
                                      {"b", b.bytes, kGmBytes, DV_INPUT},
                                      {"before", before.bytes, kGmBytes, DV_INPUT},
                                      {"after", after.bytes, kGmBytes, DV_OUTPUT}};
  dv_chip *chip = dv_chip_open("910b2");
  assert_non_null(chip);
  dv_launch launch = {};
  launch.name = "test";
  launch.kernel = kernel;
  launch.arguments = arguments;
  launch.blocks = blocks;
  launch.cores = cores;
  launch.regions = regions;
  launch.regions_count = 4;
  report = {};
  const bool is_right = dv_run(chip, &launch, &report) != 0;
  dv_chip_close(chip);
  return is_right;
}

inline void Run(dv_kernel kernel, int blocks = 1, dv_cores cores = DV_CORES_MIX_1_2) {
  if (!Launch(kernel, blocks, cores)) fail_msg("refused: %s", report.line);
}

// The run must end with a line that names `what`.
inline void Refused(dv_kernel kernel, const char *what, int blocks = 1) {
  if (Launch(kernel, blocks)) fail_msg("not refused (%s)", what);
  if (!strstr(report.line, what)) fail_msg("refused, but not for %s: %s", what, report.line);
}

inline void AssertGm(const void *got, const void *wanted, size_t bytes, size_t element) {
  const uint8_t *g = static_cast<const uint8_t *>(got), *w = static_cast<const uint8_t *>(wanted);
  for (size_t at = 0; at < bytes; at += element)
    if (memcmp(g + at, w + at, element) != 0) {
      uint64_t is = 0, should = 0;
      memcpy(&is, g + at, element);
      memcpy(&should, w + at, element);
      fail_msg("element %zu: 0x%llx, should be 0x%llx", at / element, (unsigned long long)is,
               (unsigned long long)should);
    }
}
template <typename T>
inline void AssertSame(size_t bytes) {
  AssertGm(after.bytes, want.bytes, bytes, sizeof(T));
}

template <typename T>
inline GlobalTensor<T> Global(void *const *arguments, int which) {
  GlobalTensor<T> tensor;
  tensor.SetGlobalBuffer(reinterpret_cast<__gm__ T *>(arguments[which]));
  return tensor;
}

// UB of one AIV: a, b and dst as GM has them, then `body`, then dst goes back. The top 8 KB stay free for Select.
struct Ub {
  enum { kBytes = 16384 };
  TBuf<TPosition::VECCALC> buffer;
  template <typename T>
  LocalTensor<T> A(uint32_t byte = 0) const {
    return buffer.GetWithOffset<T>((kBytes - byte) / sizeof(T), byte);
  }
  template <typename T>
  LocalTensor<T> B(uint32_t byte = 0) const {
    return buffer.GetWithOffset<T>((kBytes - byte) / sizeof(T), kBytes + byte);
  }
  template <typename T>
  LocalTensor<T> Dst(uint32_t byte = 0) const {
    return buffer.GetWithOffset<T>((kBytes - byte) / sizeof(T), 2 * kBytes + byte);
  }
  // UB that no one has written.
  template <typename T>
  LocalTensor<T> Fresh(uint32_t byte = 0) const {
    return buffer.GetWithOffset<T>((kBytes - byte) / sizeof(T), 3 * kBytes + byte);
  }
};

inline void (*ub_body)(const Ub &);

inline void UbKernel(void *const *arguments) {
  if ASCEND_IS_AIV {
    if (GetBlockIdx() != 0) return;
    TPipe pipe;
    Ub ub;
    pipe.InitBuffer(ub.buffer, 4 * Ub::kBytes);
    DataCopy(ub.A<uint8_t>(), Global<uint8_t>(arguments, 0), Ub::kBytes);
    DataCopy(ub.B<uint8_t>(), Global<uint8_t>(arguments, 1), Ub::kBytes);
    DataCopy(ub.Dst<uint8_t>(), Global<uint8_t>(arguments, 2), Ub::kBytes);
    SetFlag<HardEvent::MTE2_V>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_V>(EVENT_ID0);
    SetFlag<HardEvent::MTE2_S>(EVENT_ID0);
    WaitFlag<HardEvent::MTE2_S>(EVENT_ID0);
    ub_body(ub);
    SetFlag<HardEvent::V_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::V_MTE3>(EVENT_ID0);
    SetFlag<HardEvent::S_MTE3>(EVENT_ID0);
    WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);
    DataCopy(Global<uint8_t>(arguments, 3), ub.Dst<uint8_t>(), Ub::kBytes);
  }
}

inline void RunUb(void (*body)(const Ub &)) {
  ub_body = body;
  Run(UbKernel);
}
inline void RefusedUb(void (*body)(const Ub &), const char *what) {
  ub_body = body;
  Refused(UbKernel, what);
}

#endif
