// Instructions of the Vector unit, each in its forms: the first n elements, or a mask (its first elements, or bits) over repeats.
// Part of kernel_operator.h.
#ifndef DV_KERNEL_VECTOR_H
#define DV_KERNEL_VECTOR_H

#include "kernel_tensor.h"

namespace AscendC {

constexpr uint64_t MASK_PLACEHOLDER = 0;

// ------------------------------------------------------------------ the mask register

inline void SetMaskCount() { dv_mask_register()->counts = 1; }
inline void SetMaskNorm() { dv_mask_register()->counts = 0; }
template <typename T, MaskMode mode = MaskMode::NORMAL>
inline void SetVectorMask(uint64_t maskHigh, uint64_t maskLow) {
  dv_mask_register()->bits[0] = maskLow;
  dv_mask_register()->bits[1] = maskHigh;
}
inline uint64_t DvFirst(uint64_t n) { return n >= 64 ? ~static_cast<uint64_t>(0) : (static_cast<uint64_t>(1) << n) - 1; }
template <typename T, MaskMode mode = MaskMode::NORMAL>
inline void SetVectorMask(int32_t len) {
  const uint64_t n = static_cast<uint64_t>(len);
  if (mode == MaskMode::COUNTER)
    SetVectorMask<T, mode>(0, n);
  else
    SetVectorMask<T, mode>(n > 64 ? DvFirst(n - 64) : 0, DvFirst(n));
}
inline void ResetMask() { SetVectorMask<uint16_t>(~static_cast<uint64_t>(0), ~static_cast<uint64_t>(0)); }

// ------------------------------------------------------------------ forms

// An instruction with its operands, contiguous strides; what follows changes what differs.
template <typename T, typename U>
inline dv_vector DvInstruction(dv_operation op, const LocalTensor<T> &dst, const LocalTensor<U> &src0) {
  dv_vector v = {};
  constexpr uint32_t widest = sizeof(T) > sizeof(U) ? sizeof(T) : sizeof(U);
  v.op = op;
  v.type = DvType<U>::type;
  v.to = DvType<T>::type;
  v.dst = dst.Address();
  v.src0 = src0.Address();
  v.src1 = v.src0;
  v.repeats = 1;
  v.dst_block = v.src0_block = v.src1_block = 1;
  v.dst_repeat = static_cast<uint32_t>(8 * sizeof(T) / widest);
  v.src0_repeat = v.src1_repeat = static_cast<uint32_t>(8 * sizeof(U) / widest);
  return v;
}
inline void DvCountForm(dv_vector &v, uint32_t count) {
  v.counts = 1;
  v.count = count;
}
// The first n elements where the mask register says how many: a form that takes no count.
inline void DvCountOfMask(dv_vector &v, dv_here here) {
  if (!dv_mask_register()->counts) dv_broken_rule(here, "isSetMask false for the first elements, and the mask does not count");
  DvCountForm(v, static_cast<uint32_t>(dv_mask_register()->bits[0]));
}
// mask: the first elements of each repeat.
inline void DvMaskForm(dv_vector &v, uint64_t mask, uint32_t repeats, bool sets_mask, dv_here here) {
  const uint64_t most = 256 / (dv_type_bytes(v.type) > dv_type_bytes(v.to) ? dv_type_bytes(v.type) : dv_type_bytes(v.to));
  v.repeats = repeats;
  const dv_mask *set = dv_mask_register();
  if (set->counts) {
    DvCountForm(v, static_cast<uint32_t>(sets_mask ? mask : set->bits[0]));
  } else if (!sets_mask) {
    v.mask[0] = set->bits[0];
    v.mask[1] = set->bits[1];
  } else {
    if (mask > most) dv_broken_rule(here, "mask of %llu elements in a repeat of %llu", (unsigned long long)mask, (unsigned long long)most);
    v.mask[0] = DvFirst(mask);
    v.mask[1] = mask > 64 ? DvFirst(mask - 64) : 0;
  }
}
// mask: a bit for each element of a repeat; where the mask counts, the first word is the number.
inline void DvMaskForm(dv_vector &v, const uint64_t mask[2], uint32_t repeats, bool sets_mask, dv_here here) {
  const bool counts = dv_mask_register()->counts != 0;
  DvMaskForm(v, sets_mask && counts ? mask[0] : static_cast<uint64_t>(0), repeats, sets_mask, here);
  if (sets_mask && !counts) {
    v.mask[0] = mask[0];
    v.mask[1] = mask[1];
  }
}
inline void DvStrides(dv_vector &v, const BinaryRepeatParams &p) {
  v.dst_block = p.dstBlkStride;
  v.src0_block = p.src0BlkStride;
  v.src1_block = p.src1BlkStride;
  v.dst_repeat = p.dstRepStride;
  v.src0_repeat = p.src0RepStride;
  v.src1_repeat = p.src1RepStride;
}
inline void DvStrides(dv_vector &v, const UnaryRepeatParams &p) {
  v.dst_block = p.dstBlkStride;
  v.src0_block = v.src1_block = p.srcBlkStride;
  v.dst_repeat = p.dstRepStride;
  v.src0_repeat = v.src1_repeat = p.srcRepStride;
}
template <typename T>
inline void DvScalar(dv_vector &v, T scalar) {
  v.scalar = static_cast<float>(scalar);
  v.scalar_bits = static_cast<uint32_t>(BitsOf(scalar));
}

// ------------------------------------------------------------------ two tensors

#define DV_BINARY(name, operation)                                                                                              \
  template <typename T, bool isSetMask = true, typename Mask = uint64_t>                                                        \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, Mask mask,                \
                   uint8_t repeatTime, const BinaryRepeatParams &params, DV_HERE(#name)) {                                      \
    dv_vector v = DvInstruction(operation, dst, src0);                                                                          \
    v.src1 = src1.Address();                                                                                                    \
    DvMaskForm(v, mask, repeatTime, isSetMask, here);                                                                           \
    DvStrides(v, params);                                                                                                       \
    dv_issue_vector(here, &v);                                                                                                  \
  }                                                                                                                             \
  template <typename T>                                                                                                         \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, int32_t count,            \
                   DV_HERE(#name)) {                                                                                            \
    dv_vector v = DvInstruction(operation, dst, src0);                                                                          \
    v.src1 = src1.Address();                                                                                                    \
    DvCountForm(v, static_cast<uint32_t>(count));                                                                               \
    dv_issue_vector(here, &v);                                                                                                  \
  }
DV_BINARY(Add, DV_ADD)
DV_BINARY(Sub, DV_SUB)
DV_BINARY(Mul, DV_MUL)
DV_BINARY(Div, DV_DIV)
DV_BINARY(Max, DV_MAX)
DV_BINARY(Min, DV_MIN)
DV_BINARY(And, DV_AND)
DV_BINARY(Or, DV_OR)
#undef DV_BINARY

// ------------------------------------------------------------------ a tensor and a scalar

#define DV_SCALAR(name, operation)                                                                                              \
  template <typename T, bool isSetMask = true, typename Mask = uint64_t>                                                        \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const T &scalar, Mask mask, uint8_t repeatTime,        \
                   const UnaryRepeatParams &params, DV_HERE(#name)) {                                                           \
    dv_vector v = DvInstruction(operation, dst, src);                                                                           \
    DvScalar(v, scalar);                                                                                                        \
    DvMaskForm(v, mask, repeatTime, isSetMask, here);                                                                           \
    DvStrides(v, params);                                                                                                       \
    dv_issue_vector(here, &v);                                                                                                  \
  }                                                                                                                             \
  template <typename T, bool isSetMask = true>                                                                                  \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src, const T &scalar, int32_t count, DV_HERE(#name)) {      \
    dv_vector v = DvInstruction(operation, dst, src);                                                                           \
    DvScalar(v, scalar);                                                                                                        \
    if (isSetMask)                                                                                                              \
      DvCountForm(v, static_cast<uint32_t>(count));                                                                             \
    else                                                                                                                        \
      DvCountOfMask(v, here);                                                                                                   \
    dv_issue_vector(here, &v);                                                                                                  \
  }
DV_SCALAR(Adds, DV_ADDS)
DV_SCALAR(Muls, DV_MULS)
DV_SCALAR(Maxs, DV_MAXS)
DV_SCALAR(Mins, DV_MINS)
DV_SCALAR(ShiftLeft, DV_SHIFT_LEFT)
DV_SCALAR(ShiftRight, DV_SHIFT_RIGHT)
DV_SCALAR(LeakyRelu, DV_LEAKY_RELU)
#undef DV_SCALAR

// ------------------------------------------------------------------ dst += a product, of float or of half's

template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>
inline void Axpy(const LocalTensor<T> &dst, const LocalTensor<U> &src, const U &scalar, Mask mask, uint8_t repeatTime,
                 const UnaryRepeatParams &params, DV_HERE("Axpy")) {
  dv_vector v = DvInstruction(DV_AXPY, dst, src);
  DvScalar(v, scalar);
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  DvStrides(v, params);
  dv_issue_vector(here, &v);
}
template <typename T, typename U>
inline void Axpy(const LocalTensor<T> &dst, const LocalTensor<U> &src, const U &scalar, int32_t count, DV_HERE("Axpy")) {
  dv_vector v = DvInstruction(DV_AXPY, dst, src);
  DvScalar(v, scalar);
  DvCountForm(v, static_cast<uint32_t>(count));
  dv_issue_vector(here, &v);
}
template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>
inline void MulAddDst(const LocalTensor<T> &dst, const LocalTensor<U> &src0, const LocalTensor<U> &src1, Mask mask, uint8_t repeatTime,
                      const BinaryRepeatParams &params, DV_HERE("MulAddDst")) {
  dv_vector v = DvInstruction(DV_MULADDDST, dst, src0);
  v.src1 = src1.Address();
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  DvStrides(v, params);
  dv_issue_vector(here, &v);
}
template <typename T, typename U>
inline void MulAddDst(const LocalTensor<T> &dst, const LocalTensor<U> &src0, const LocalTensor<U> &src1, int32_t count,
                      DV_HERE("MulAddDst")) {
  dv_vector v = DvInstruction(DV_MULADDDST, dst, src0);
  v.src1 = src1.Address();
  DvCountForm(v, static_cast<uint32_t>(count));
  dv_issue_vector(here, &v);
}

// ------------------------------------------------------------------ one tensor

#define DV_UNARY(name, operation)                                                                                               \
  template <typename T, bool isSetMask = true, typename Mask = uint64_t>                                                        \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src, Mask mask, uint8_t repeatTime,                         \
                   const UnaryRepeatParams &params, DV_HERE(#name)) {                                                           \
    dv_vector v = DvInstruction(operation, dst, src);                                                                           \
    DvMaskForm(v, mask, repeatTime, isSetMask, here);                                                                           \
    DvStrides(v, params);                                                                                                       \
    dv_issue_vector(here, &v);                                                                                                  \
  }                                                                                                                             \
  template <typename T>                                                                                                         \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src, int32_t count, DV_HERE(#name)) {                       \
    dv_vector v = DvInstruction(operation, dst, src);                                                                           \
    DvCountForm(v, static_cast<uint32_t>(count));                                                                               \
    dv_issue_vector(here, &v);                                                                                                  \
  }
DV_UNARY(Exp, DV_EXP)
DV_UNARY(Ln, DV_LN)
DV_UNARY(Sqrt, DV_SQRT)
DV_UNARY(Rsqrt, DV_RSQRT)
DV_UNARY(Reciprocal, DV_REC)
DV_UNARY(Abs, DV_ABS)
DV_UNARY(Relu, DV_RELU)
DV_UNARY(Not, DV_NOT)
#undef DV_UNARY

template <typename T, typename U>
inline void Cast(const LocalTensor<T> &dst, const LocalTensor<U> &src, const RoundMode &roundMode, uint32_t count, DV_HERE("Cast")) {
  dv_vector v = DvInstruction(DV_CAST, dst, src);
  v.round = static_cast<dv_round>(roundMode);
  DvCountForm(v, count);
  dv_issue_vector(here, &v);
}
template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>
inline void Cast(const LocalTensor<T> &dst, const LocalTensor<U> &src, const RoundMode &roundMode, Mask mask, uint8_t repeatTime,
                 const UnaryRepeatParams &params, DV_HERE("Cast")) {
  dv_vector v = DvInstruction(DV_CAST, dst, src);
  v.round = static_cast<dv_round>(roundMode);
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  DvStrides(v, params);
  dv_issue_vector(here, &v);
}

template <typename T, bool isSetMask = true, typename Mask = uint64_t>
inline void Copy(const LocalTensor<T> &dst, const LocalTensor<T> &src, Mask mask, uint8_t repeatTime, const CopyRepeatParams &params,
                 DV_HERE("Copy")) {
  dv_vector v = DvInstruction(DV_COPY, dst, src);
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  v.dst_block = params.dstStride;
  v.src0_block = v.src1_block = params.srcStride;
  v.dst_repeat = params.dstRepeatSize;
  v.src0_repeat = v.src1_repeat = params.srcRepeatSize;
  dv_issue_vector(here, &v);
}

template <typename T>
inline void Duplicate(const LocalTensor<T> &dst, const T &scalar, int32_t count, DV_HERE("Duplicate")) {
  dv_vector v = DvInstruction(DV_DUPLICATE, dst, dst);
  DvScalar(v, scalar);
  DvCountForm(v, static_cast<uint32_t>(count));
  dv_issue_vector(here, &v);
}
template <typename T, bool isSetMask = true, typename Mask = uint64_t>
inline void Duplicate(const LocalTensor<T> &dst, const T &scalar, Mask mask, uint8_t repeatTime, uint16_t dstBlockStride,
                      uint8_t dstRepeatStride, DV_HERE("Duplicate")) {
  dv_vector v = DvInstruction(DV_DUPLICATE, dst, dst);
  DvScalar(v, scalar);
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  v.dst_block = dstBlockStride;
  v.dst_repeat = dstRepeatStride;
  dv_issue_vector(here, &v);
}

template <typename T>
inline void CreateVecIndex(const LocalTensor<T> &dst, const T &firstValue, uint32_t count, DV_HERE("CreateVecIndex")) {
  dv_vector v = DvInstruction(DV_PROGRESSION, dst, dst);
  DvScalar(v, firstValue);
  v.scalar2 = 1.0f;
  DvCountForm(v, count);
  dv_issue_vector(here, &v);
}
template <typename T, typename Mask>
inline void CreateVecIndex(const LocalTensor<T> &dst, const T &firstValue, Mask mask, uint8_t repeatTime, uint16_t dstBlkStride,
                           uint8_t dstRepStride, DV_HERE("CreateVecIndex")) {
  dv_vector v = DvInstruction(DV_PROGRESSION, dst, dst);
  DvScalar(v, firstValue);
  v.scalar2 = 1.0f;
  DvMaskForm(v, mask, repeatTime, true, here);
  v.dst_block = dstBlkStride;
  v.dst_repeat = dstRepStride;
  dv_issue_vector(here, &v);
}

template <typename T>
inline void Brcb(const LocalTensor<T> &dst, const LocalTensor<T> &src0, uint8_t repeatTimes, const BrcbRepeatParams &params,
                 DV_HERE("Brcb")) {
  dv_vector v = DvInstruction(DV_BRCB, dst, src0);
  v.repeats = repeatTimes;
  v.mask[0] = v.mask[1] = ~static_cast<uint64_t>(0);
  v.dst_block = params.dstBlkStride;
  v.dst_repeat = params.dstRepStride;
  dv_issue_vector(here, &v);
}

// ------------------------------------------------------------------ reductions

// The order of arguments differs: a whole repeat's takes the mask first, a block's the number of repeats.
template <typename T, bool isSetMask, typename Mask>
inline void DvReduce(dv_operation op, const LocalTensor<T> &dst, const LocalTensor<T> &src, Mask mask, int32_t repeats,
                     int32_t dstRepStride, int32_t srcBlkStride, int32_t srcRepStride, ReduceOrder order, dv_here here) {
  dv_vector v = DvInstruction(op, dst, src);
  DvMaskForm(v, mask, static_cast<uint32_t>(repeats), isSetMask, here);
  v.dst_repeat = static_cast<uint32_t>(dstRepStride);
  v.src0_block = static_cast<uint32_t>(srcBlkStride);
  v.src0_repeat = static_cast<uint32_t>(srcRepStride);
  v.order = static_cast<dv_reduce_order>(order);
  dv_issue_vector(here, &v);
}
#define DV_WHOLE_EXTREME(name, operation)                                                                                       \
  template <typename T, bool isSetMask = true, typename Mask = int32_t>                                                         \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src, Mask mask, int32_t repeatTime, int32_t dstRepStride,   \
                   int32_t srcBlkStride, int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,              \
                   DV_HERE(#name)) {                                                                                            \
    DvReduce<T, isSetMask>(operation, dst, src, mask, repeatTime, dstRepStride, srcBlkStride, srcRepStride, order, here);       \
  }
DV_WHOLE_EXTREME(WholeReduceMax, DV_WHOLE_MAX)
DV_WHOLE_EXTREME(WholeReduceMin, DV_WHOLE_MIN)
#undef DV_WHOLE_EXTREME
template <typename T, bool isSetMask = true, typename Mask = int32_t>
inline void WholeReduceSum(const LocalTensor<T> &dst, const LocalTensor<T> &src, Mask mask, int32_t repeatTime, int32_t dstRepStride,
                           int32_t srcBlkStride, int32_t srcRepStride, DV_HERE("WholeReduceSum")) {
  DvReduce<T, isSetMask>(DV_WHOLE_SUM, dst, src, mask, repeatTime, dstRepStride, srcBlkStride, srcRepStride,
                         ReduceOrder::ORDER_ONLY_VALUE, here);
}
#define DV_BLOCK_REDUCE(name, operation)                                                                                        \
  template <typename T, bool isSetMask = true, typename Mask = int32_t>                                                         \
  inline void name(const LocalTensor<T> &dst, const LocalTensor<T> &src, int32_t repeatTime, Mask mask, int32_t dstRepStride,   \
                   int32_t srcBlkStride, int32_t srcRepStride, DV_HERE(#name)) {                                                \
    DvReduce<T, isSetMask>(operation, dst, src, mask, repeatTime, dstRepStride, srcBlkStride, srcRepStride,                     \
                           ReduceOrder::ORDER_ONLY_VALUE, here);                                                                \
  }
DV_BLOCK_REDUCE(BlockReduceMax, DV_BLOCK_MAX)
DV_BLOCK_REDUCE(BlockReduceMin, DV_BLOCK_MIN)
DV_BLOCK_REDUCE(BlockReduceSum, DV_BLOCK_SUM)
DV_BLOCK_REDUCE(PairReduceSum, DV_PAIR_SUM)
#undef DV_BLOCK_REDUCE

} // namespace AscendC

#endif
