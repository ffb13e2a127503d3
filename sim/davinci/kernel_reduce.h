// Reductions of the first n elements to one, which the vendor's documentation builds of instructions too. Part of kernel_operator.h.
#ifndef DV_KERNEL_REDUCE_H
#define DV_KERNEL_REDUCE_H

#include "kernel_vector.h"

namespace AscendC {

// sharedTmpBuffer has to have room for a value and an index of each repeat, and holds the repeats' maxima from then on.
template <typename T>
inline void ReduceMax(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<T> &sharedTmpBuffer, int32_t count,
                      bool calIndex = false, DV_HERE("ReduceMax")) {
  constexpr uint32_t lanes = 256 / sizeof(T), block = 32 / sizeof(T);
  uint32_t left = static_cast<uint32_t>(count), repeats = (left + lanes - 1) / lanes;
  const uint32_t needs = (2 * repeats + block - 1) / block * block;
  if (calIndex) dv_broken_rule(here, "calIndex, which is not known here");
  if (sharedTmpBuffer.GetSize() < needs)
    dv_broken_rule(here, "sharedTmpBuffer of %u elements; it takes %u", sharedTmpBuffer.GetSize(), needs);
  LocalTensor<T> from = src, to = sharedTmpBuffer; // not onto itself: what is left goes behind what it was taken from
  while (left) {
    dv_vector v = DvInstruction(DV_WHOLE_MAX, repeats == 1 ? dst : to, from);
    DvCountForm(v, left);
    v.dst_repeat = 1;
    v.order = DV_ONLY_VALUE;
    dv_issue_vector(here, &v);
    if (repeats == 1) return;
    dv_issue_barrier(here, DV_V);
    from = to;
    to = to[(repeats + block - 1) / block * block];
    left = repeats;
    repeats = (left + lanes - 1) / lanes;
  }
}

// sharedTmpBuffer has to have room for a sum of each repeat. Whether this chip writes there is not documented; here nothing does.
template <typename T, bool isSetMask = true>
inline void ReduceSum(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LocalTensor<T> &sharedTmpBuffer, int32_t count,
                      DV_HERE("ReduceSum")) {
  constexpr uint32_t lanes = 256 / sizeof(T), block = 32 / sizeof(T);
  const uint32_t needs = ((static_cast<uint32_t>(count) + lanes - 1) / lanes + block - 1) / block * block;
  if (sharedTmpBuffer.GetSize() < needs)
    dv_broken_rule(here, "sharedTmpBuffer of %u elements; it takes %u", sharedTmpBuffer.GetSize(), needs);
  dv_vector v = DvInstruction(DV_TOTAL_SUM, dst, src);
  DvCountForm(v, static_cast<uint32_t>(count));
  dv_issue_vector(here, &v);
}

} // namespace AscendC

#endif
