// Types, enumerations and parameter structs of Ascend C as the vendor's public API reference names and orders them; only what the
// emulated core knows. Part of kernel_operator.h.
#ifndef DV_KERNEL_TYPES_H
#define DV_KERNEL_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "instructions.h"

// The lint (tests/ascend/lint) sets these to qualifiers that clang enforces.
#ifndef __gm__
#define __gm__
#endif
#ifndef __aicore__
#define __aicore__
#endif
#ifndef __global__
#define __global__
#endif
#define __ubuf__
#define __cbuf__
#define __ca__
#define __cb__
#define __cc__
typedef __gm__ uint8_t *GM_ADDR;

// The place in the kernel's source that an instruction came from: a last, defaulted parameter of each.
#define DV_HERE(name) dv_here here = {name, __builtin_FILE(), __builtin_LINE()}

extern "C" {
float dv_f32_of_f16(uint16_t h);
uint16_t dv_f16_of_f32(float f);
float dv_f32_of_bf16(uint16_t b);
uint16_t dv_bf16_of_f32(float f);
}

struct half {
  uint16_t bits;
  half() = default;
  half(float f) : bits(dv_f16_of_f32(f)) {}
  half(double f) : half(static_cast<float>(f)) {}
  half(int n) : half(static_cast<float>(n)) {}
  operator float() const { return dv_f32_of_f16(bits); }
};

struct bfloat16_t {
  uint16_t bits;
  bfloat16_t() = default;
  bfloat16_t(float f) : bits(dv_bf16_of_f32(f)) {}
  operator float() const { return dv_f32_of_bf16(bits); }
};

enum pipe_t { PIPE_S, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_FIX, PIPE_ALL };
static_assert(static_cast<int>(PIPE_FIX) == DV_FIX && static_cast<int>(PIPE_ALL) == DV_PIPE_ALL, "pipes are dv_pipes");

typedef int32_t event_t;
#define EVENT_ID0 0
#define EVENT_ID1 1
#define EVENT_ID2 2
#define EVENT_ID3 3
#define EVENT_ID4 4
#define EVENT_ID5 5
#define EVENT_ID6 6
#define EVENT_ID7 7

enum QuantMode_t { NoQuant, F322F16, F322BF16, DEQF16, VDEQF16, QF322B8_PRE, VQF322B8_PRE, REQ8, VREQ8 };

namespace AscendC {

enum class TPosition : uint8_t { GM, A1, A2, B1, B2, C1, C2, CO1, CO2, VECIN, VECOUT, VECCALC, LCM = VECCALC, SPM, TSCM, MAX };
using QuePosition = TPosition;

constexpr dv_memory MemoryOf(TPosition position) {
  switch (position) {
    case TPosition::A1: case TPosition::B1: case TPosition::C1: case TPosition::TSCM: case TPosition::SPM: return DV_L1;
    case TPosition::A2: return DV_L0A;
    case TPosition::B2: return DV_L0B;
    case TPosition::CO1: return DV_L0C;
    case TPosition::VECIN: case TPosition::VECOUT: case TPosition::VECCALC: return DV_UB;
    default: return DV_GM;
  }
}

enum class HardEvent : uint8_t {
  MTE2_MTE1, MTE1_MTE2, MTE1_M, M_MTE1, MTE2_V, V_MTE2, MTE3_V, V_MTE3, M_V, V_M, V_V, MTE3_MTE1, MTE1_MTE3, MTE1_V, MTE2_M,
  M_MTE2, V_MTE1, M_FIX, FIX_M, MTE3_MTE2, MTE2_MTE3, S_V, V_S, S_MTE2, MTE2_S, S_MTE3, MTE3_S, MTE2_FIX, FIX_MTE2, FIX_S,
  M_S, FIX_MTE3, MTE1_FIX, FIX_MTE1, FIX_FIX, MAX
};

struct DvEventPipes {
  dv_pipe from, to;
};
constexpr DvEventPipes PipesOf(HardEvent event) {
  constexpr DvEventPipes pipes[] = {
      {DV_MTE2, DV_MTE1}, {DV_MTE1, DV_MTE2}, {DV_MTE1, DV_M}, {DV_M, DV_MTE1}, {DV_MTE2, DV_V}, {DV_V, DV_MTE2},
      {DV_MTE3, DV_V}, {DV_V, DV_MTE3}, {DV_M, DV_V}, {DV_V, DV_M}, {DV_V, DV_V}, {DV_MTE3, DV_MTE1}, {DV_MTE1, DV_MTE3},
      {DV_MTE1, DV_V}, {DV_MTE2, DV_M}, {DV_M, DV_MTE2}, {DV_V, DV_MTE1}, {DV_M, DV_FIX}, {DV_FIX, DV_M}, {DV_MTE3, DV_MTE2},
      {DV_MTE2, DV_MTE3}, {DV_S, DV_V}, {DV_V, DV_S}, {DV_S, DV_MTE2}, {DV_MTE2, DV_S}, {DV_S, DV_MTE3}, {DV_MTE3, DV_S},
      {DV_MTE2, DV_FIX}, {DV_FIX, DV_MTE2}, {DV_FIX, DV_S}, {DV_M, DV_S}, {DV_FIX, DV_MTE3}, {DV_MTE1, DV_FIX},
      {DV_FIX, DV_MTE1}, {DV_FIX, DV_FIX}};
  return pipes[static_cast<int>(event)];
}

enum class RoundMode : uint8_t { CAST_NONE, CAST_RINT, CAST_FLOOR, CAST_CEIL, CAST_ROUND, CAST_TRUNC, CAST_ODD };
static_assert(static_cast<int>(RoundMode::CAST_ODD) == DV_ODD, "rounding modes are dv_rounds");
enum class CMPMODE : uint8_t { LT, GT, EQ, LE, GE, NE };
static_assert(static_cast<int>(CMPMODE::NE) == DV_NE, "comparisons are dv_compares");
enum class SELMODE : uint8_t { VSEL_CMPMASK_SPR, VSEL_TENSOR_SCALAR_MODE, VSEL_TENSOR_TENSOR_MODE };
enum class ReduceOrder : uint8_t { ORDER_VALUE_INDEX, ORDER_INDEX_VALUE, ORDER_ONLY_VALUE, ORDER_ONLY_INDEX };
static_assert(static_cast<int>(ReduceOrder::ORDER_ONLY_INDEX) == DV_ONLY_INDEX, "orders are dv_reduce_orders");
enum class SaturationMode : uint8_t { FLOAT, CAST };
enum class MaskMode : uint8_t { NORMAL, COUNTER };
enum class CO2Layout : uint8_t { NZ, ROW_MAJOR };

// ------------------------------------------------------------------ moves

struct DataCopyParams {
  uint16_t blockCount = 1, blockLen = 0, srcStride = 0, dstStride = 0; // 32 B; strides from the end of a piece to the next
  DataCopyParams() = default;
  DataCopyParams(uint16_t count, uint16_t len, uint16_t src, uint16_t dst)
      : blockCount(count), blockLen(len), srcStride(src), dstStride(dst) {}
};

struct DataCopyExtParams {
  uint16_t blockCount = 1;
  uint32_t blockLen = 0;                 // bytes
  uint32_t srcStride = 0, dstStride = 0; // gaps: bytes in GM, 32 B in UB
  uint32_t rsv = 0;
  DataCopyExtParams() = default;
  DataCopyExtParams(uint16_t count, uint32_t len, uint32_t src, uint32_t dst, uint32_t rsvd)
      : blockCount(count), blockLen(len), srcStride(src), dstStride(dst), rsv(rsvd) {}
};

struct DataCopyPadParams {
  bool isPad = false;
  uint8_t leftPadding = 0, rightPadding = 0;
  uint64_t paddingValue = 0;
  DataCopyPadParams() = default;
  DataCopyPadParams(bool pad, uint8_t left, uint8_t right, uint64_t value)
      : isPad(pad), leftPadding(left), rightPadding(right), paddingValue(value) {}
};

template <typename T>
struct DataCopyPadExtParams {
  bool isPad = false;
  uint8_t leftPadding = 0, rightPadding = 0;
  T paddingValue = T(0);
  DataCopyPadExtParams() = default;
  DataCopyPadExtParams(bool pad, uint8_t left, uint8_t right, T value)
      : isPad(pad), leftPadding(left), rightPadding(right), paddingValue(value) {}
};

struct Nd2NzParams {
  uint16_t ndNum = 0, nValue = 0, dValue = 0, srcNdMatrixStride = 0, srcDValue = 0, dstNzC0Stride = 0, dstNzNStride = 0,
           dstNzMatrixStride = 0;
  Nd2NzParams() = default;
  Nd2NzParams(uint16_t matrices, uint16_t rows, uint16_t columns, uint16_t matrix, uint16_t row, uint16_t c0, uint16_t n,
              uint16_t nz)
      : ndNum(matrices), nValue(rows), dValue(columns), srcNdMatrixStride(matrix), srcDValue(row), dstNzC0Stride(c0),
        dstNzNStride(n), dstNzMatrixStride(nz) {}
};

struct LoadData2DParams {
  uint16_t startIndex = 0;
  uint8_t repeatTimes = 0;
  uint16_t srcStride = 0;
  uint8_t sid = 0;
  uint16_t dstGap = 0;
  bool ifTranspose = false;
  uint8_t addrMode = 0;
  LoadData2DParams() = default;
  LoadData2DParams(uint16_t start, uint8_t repeats, uint16_t stride, uint8_t s, uint16_t gap, bool transpose, uint8_t mode)
      : startIndex(start), repeatTimes(repeats), srcStride(stride), sid(s), dstGap(gap), ifTranspose(transpose), addrMode(mode) {}
};
using LoadData2dParams = LoadData2DParams;

struct LoadData2dTransposeParams {
  uint16_t startIndex = 0;
  uint8_t repeatTimes = 0;
  uint16_t srcStride = 0, dstGap = 0, dstFracGap = 0;
  uint8_t addrMode = 0;
  LoadData2dTransposeParams() = default;
  LoadData2dTransposeParams(uint16_t start, uint8_t repeats, uint16_t stride, uint16_t gap, uint16_t fractal, uint8_t mode)
      : startIndex(start), repeatTimes(repeats), srcStride(stride), dstGap(gap), dstFracGap(fractal), addrMode(mode) {}
};

template <typename T>
struct InitConstValueParams {
  uint16_t repeatTimes = 0, blockNum = 0, dstGap = 0;
  T initValue = T(0);
  InitConstValueParams() = default;
  InitConstValueParams(uint16_t repeats, uint16_t blocks, uint16_t gap, T value)
      : repeatTimes(repeats), blockNum(blocks), dstGap(gap), initValue(value) {}
};

// ------------------------------------------------------------------ Cube

struct MmadParams {
  uint16_t m = 0, n = 0, k = 0;
  bool isBias = false;
  int32_t fmOffset = 0;
  bool enSsparse = false, enWinogradA = false, enWinogradB = false;
  int8_t unitFlag = 0;
  bool kDirectionAlign = false, cmatrixSource = false, cmatrixInitVal = true;
  MmadParams() = default;
  MmadParams(uint16_t rows, uint16_t columns, uint16_t depth, int8_t unit, bool align, bool source, bool init)
      : m(rows), n(columns), k(depth), unitFlag(unit), kDirectionAlign(align), cmatrixSource(source), cmatrixInitVal(init) {}
  MmadParams(uint16_t rows, uint16_t columns, uint16_t depth, bool bias, int32_t offset, bool sparse, bool winogradA, bool winogradB)
      : m(rows), n(columns), k(depth), isBias(bias), fmOffset(offset), enSsparse(sparse), enWinogradA(winogradA),
        enWinogradB(winogradB) {}
};

struct FixpipeParamsV220 {
  uint16_t nSize = 0, mSize = 0, srcStride = 0;
  uint32_t dstStride = 0;
  QuantMode_t quantPre = NoQuant;
  uint64_t deqScalar = 0;
  uint16_t ndNum = 1, srcNdStride = 0, dstNdStride = 0;
  bool reluEn = false;
  uint8_t unitFlag = 0;
  bool isChannelSplit = false;
  FixpipeParamsV220() = default;
  FixpipeParamsV220(uint16_t n, uint16_t m, uint16_t src, uint32_t dst, bool relu)
      : nSize(n), mSize(m), srcStride(src), dstStride(dst), reluEn(relu) {}
};

struct FixpipeConfig {
  CO2Layout format;
};
constexpr FixpipeConfig CFG_NZ = {CO2Layout::NZ};
constexpr FixpipeConfig CFG_ROW_MAJOR = {CO2Layout::ROW_MAJOR};

// ------------------------------------------------------------------ Vector

struct BinaryRepeatParams {
  uint32_t blockNumber = 8;
  uint8_t dstBlkStride = 1, src0BlkStride = 1, src1BlkStride = 1, dstRepStride = 8, src0RepStride = 8, src1RepStride = 8;
  BinaryRepeatParams() = default;
  BinaryRepeatParams(uint8_t dstBlk, uint8_t src0Blk, uint8_t src1Blk, uint8_t dstRep, uint8_t src0Rep, uint8_t src1Rep)
      : dstBlkStride(dstBlk), src0BlkStride(src0Blk), src1BlkStride(src1Blk), dstRepStride(dstRep), src0RepStride(src0Rep),
        src1RepStride(src1Rep) {}
};

struct UnaryRepeatParams {
  uint32_t blockNumber = 8;
  uint16_t dstBlkStride = 1, srcBlkStride = 1;
  uint8_t dstRepStride = 8, srcRepStride = 8;
  UnaryRepeatParams() = default;
  UnaryRepeatParams(uint16_t dstBlk, uint16_t srcBlk, uint8_t dstRep, uint8_t srcRep)
      : dstBlkStride(dstBlk), srcBlkStride(srcBlk), dstRepStride(dstRep), srcRepStride(srcRep) {}
};

struct BrcbRepeatParams {
  uint16_t dstBlkStride = 1, dstRepStride = 8;
  BrcbRepeatParams() = default;
  BrcbRepeatParams(uint16_t blk, uint16_t rep) : dstBlkStride(blk), dstRepStride(rep) {}
};

struct CopyRepeatParams {
  uint16_t dstStride = 1, srcStride = 1, dstRepeatSize = 8, srcRepeatSize = 8;
  CopyRepeatParams() = default;
  CopyRepeatParams(uint16_t dst, uint16_t src, uint16_t dstRep, uint16_t srcRep)
      : dstStride(dst), srcStride(src), dstRepeatSize(dstRep), srcRepeatSize(srcRep) {}
};

// ------------------------------------------------------------------ what C++ types are to the core

template <typename T> struct DvType;
template <> struct DvType<float> { static constexpr dv_type type = DV_F32; };
template <> struct DvType<half> { static constexpr dv_type type = DV_F16; };
template <> struct DvType<bfloat16_t> { static constexpr dv_type type = DV_BF16; };
template <> struct DvType<int32_t> { static constexpr dv_type type = DV_S32; };
template <> struct DvType<uint32_t> { static constexpr dv_type type = DV_U32; };
template <> struct DvType<int16_t> { static constexpr dv_type type = DV_S16; };
template <> struct DvType<uint16_t> { static constexpr dv_type type = DV_U16; };
template <> struct DvType<int8_t> { static constexpr dv_type type = DV_S8; };
template <> struct DvType<uint8_t> { static constexpr dv_type type = DV_U8; };
template <> struct DvType<int64_t> { static constexpr dv_type type = DV_S64; };
template <> struct DvType<uint64_t> { static constexpr dv_type type = DV_U64; };

template <typename T>
inline uint64_t BitsOf(T value) {
  static_assert(sizeof(T) <= 8, "a scalar");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T>
inline T OfBits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

} // namespace AscendC

#endif
