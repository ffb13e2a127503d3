// Compare, CompareScalar and Select. Part of kernel_operator.h.
#ifndef DV_KERNEL_SELECT_H
#define DV_KERNEL_SELECT_H

#include "kernel_vector.h"

namespace AscendC {

// ------------------------------------------------------------------ compare

template <typename T, typename U>
inline dv_vector DvCompare(dv_operation op, const LocalTensor<U> &dst, const LocalTensor<T> &src0, CMPMODE mode) {
  static_assert(sizeof(U) == 1, "bits are written to int8_t or uint8_t");
  dv_vector v = DvInstruction(op, src0, src0);
  v.dst = dst.Address();
  v.compare = static_cast<dv_compare>(mode);
  return v;
}
// Whole repeats, whatever the mask.
inline void DvCompareRepeats(dv_vector &v, uint32_t repeats, dv_here here) {
  if (dv_mask_register()->counts) dv_broken_rule(here, "a comparison over repeats where the mask counts, which is not known here");
  v.repeats = repeats;
  v.mask[0] = v.mask[1] = ~static_cast<uint64_t>(0);
}

template <typename T, typename U>
inline void Compare(const LocalTensor<U> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, CMPMODE mode, uint32_t count,
                    DV_HERE("Compare")) {
  dv_vector v = DvCompare(DV_COMPARE, dst, src0, mode);
  v.src1 = src1.Address();
  DvCountForm(v, count);
  dv_issue_vector(here, &v);
}
template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>
inline void Compare(const LocalTensor<U> &dst, const LocalTensor<T> &src0, const LocalTensor<T> &src1, CMPMODE mode, Mask,
                    uint8_t repeatTime, const BinaryRepeatParams &params, DV_HERE("Compare")) {
  dv_vector v = DvCompare(DV_COMPARE, dst, src0, mode);
  v.src1 = src1.Address();
  DvStrides(v, params);
  DvCompareRepeats(v, repeatTime, here);
  dv_issue_vector(here, &v);
}

// Compares is the newer name.
#define DV_COMPARE_WITH_SCALAR(name)                                                                                            \
  template <typename T, typename U>                                                                                             \
  inline void name(const LocalTensor<U> &dst, const LocalTensor<T> &src0, const T scalar, CMPMODE mode, uint32_t count,         \
                   DV_HERE(#name)) {                                                                                            \
    dv_vector v = DvCompare(DV_COMPARE_SCALAR, dst, src0, mode);                                                                \
    DvScalar(v, scalar);                                                                                                        \
    DvCountForm(v, count);                                                                                                      \
    dv_issue_vector(here, &v);                                                                                                  \
  }                                                                                                                             \
  template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>                                            \
  inline void name(const LocalTensor<U> &dst, const LocalTensor<T> &src0, const T scalar, CMPMODE mode, Mask, uint8_t repeatTime, \
                   const UnaryRepeatParams &params, DV_HERE(#name)) {                                                           \
    dv_vector v = DvCompare(DV_COMPARE_SCALAR, dst, src0, mode);                                                                \
    DvScalar(v, scalar);                                                                                                        \
    DvStrides(v, params);                                                                                                       \
    DvCompareRepeats(v, repeatTime, here);                                                                                      \
    dv_issue_vector(here, &v);                                                                                                  \
  }
DV_COMPARE_WITH_SCALAR(CompareScalar)
DV_COMPARE_WITH_SCALAR(Compares)
#undef DV_COMPARE_WITH_SCALAR

// ------------------------------------------------------------------ select

template <typename T, typename U>
inline dv_vector DvSelect(const LocalTensor<T> &dst, const LocalTensor<U> &selector, const LocalTensor<T> &src0, SELMODE mode) {
  dv_vector v = DvInstruction(DV_SELECT, dst, src0);
  v.selector = selector.Address();
  v.selector_repeats = mode != SELMODE::VSEL_CMPMASK_SPR;
  return v;
}
template <typename T, typename U>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0, const LocalTensor<T> &src1,
                   SELMODE selMode, uint32_t count, DV_HERE("Select")) {
  dv_vector v = DvSelect(dst, selMask, src0, selMode);
  v.src1 = src1.Address();
  DvCountForm(v, count);
  dv_issue_vector(here, &v);
}
template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0, const LocalTensor<T> &src1,
                   SELMODE selMode, Mask mask, uint8_t repeatTime, const BinaryRepeatParams &params, DV_HERE("Select")) {
  dv_vector v = DvSelect(dst, selMask, src0, selMode);
  v.src1 = src1.Address();
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  DvStrides(v, params);
  dv_issue_vector(here, &v);
}
template <typename T, typename U>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0, T src1, SELMODE selMode,
                   uint32_t count, DV_HERE("Select")) {
  dv_vector v = DvSelect(dst, selMask, src0, selMode);
  v.op = DV_SELECT_SCALAR;
  DvScalar(v, src1);
  DvCountForm(v, count);
  dv_issue_vector(here, &v);
}
template <typename T, typename U, bool isSetMask = true, typename Mask = uint64_t>
inline void Select(const LocalTensor<T> &dst, const LocalTensor<U> &selMask, const LocalTensor<T> &src0, T src1, SELMODE selMode,
                   Mask mask, uint8_t repeatTime, const BinaryRepeatParams &params, DV_HERE("Select")) {
  dv_vector v = DvSelect(dst, selMask, src0, selMode);
  v.op = DV_SELECT_SCALAR;
  DvScalar(v, src1);
  DvMaskForm(v, mask, repeatTime, isSetMask, here);
  DvStrides(v, params);
  dv_issue_vector(here, &v);
}

} // namespace AscendC

#endif
