// DataCopy in its forms and DataCopyPad. Part of kernel_operator.h.
#ifndef DV_KERNEL_MOVE_H
#define DV_KERNEL_MOVE_H

#include "kernel_tensor.h"

namespace AscendC {

// Strides of DataCopyParams are gaps of 32 B blocks, in GM as well.
template <typename T>
inline dv_copy DvBlocks(dv_address to, dv_address from, const DataCopyParams &p) {
  dv_copy copy = {};
  copy.to = to;
  copy.from = from;
  copy.rows = p.blockCount;
  copy.bytes = p.blockLen * 32u;
  copy.to_stride = (static_cast<int64_t>(p.blockLen) + p.dstStride) * 32;
  copy.from_stride = (static_cast<int64_t>(p.blockLen) + p.srcStride) * 32;
  copy.type = DvType<T>::type;
  return copy;
}
// The count form moves whole blocks and drops the rest.
template <typename T>
inline dv_copy DvCount(dv_address to, dv_address from, uint32_t count) {
  dv_copy copy = {};
  copy.to = to;
  copy.from = from;
  copy.rows = 1;
  copy.bytes = static_cast<uint32_t>(count * sizeof(T) / 32 * 32);
  copy.type = DvType<T>::type;
  return copy;
}

template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const DataCopyParams &params, DV_HERE("DataCopy")) {
  const dv_copy copy = DvBlocks<T>(dst.Address(), src.Address(), params);
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyParams &params, DV_HERE("DataCopy")) {
  const dv_copy copy = DvBlocks<T>(dst.Address(), src.Address(), params);
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyParams &params, DV_HERE("DataCopy")) {
  const dv_copy copy = DvBlocks<T>(dst.Address(), src.Address(), params);
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const GlobalTensor<T> &src, uint32_t count, DV_HERE("DataCopy")) {
  const dv_copy copy = DvCount<T>(dst.Address(), src.Address(), count);
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopy(const GlobalTensor<T> &dst, const LocalTensor<T> &src, uint32_t count, DV_HERE("DataCopy")) {
  const dv_copy copy = DvCount<T>(dst.Address(), src.Address(), count);
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const LocalTensor<T> &src, uint32_t count, DV_HERE("DataCopy")) {
  const dv_copy copy = DvCount<T>(dst.Address(), src.Address(), count);
  dv_issue_copy(here, &copy);
}

template <typename T>
inline void DataCopy(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const Nd2NzParams &params, DV_HERE("DataCopy")) {
  dv_nd2nz move = {};
  move.to = dst.Address();
  move.from = src.Address();
  move.element_bytes = sizeof(T);
  move.matrices = params.ndNum;
  move.rows = params.nValue;
  move.columns = params.dValue;
  move.from_matrix = params.srcNdMatrixStride;
  move.from_row = params.srcDValue;
  move.to_column = params.dstNzC0Stride;
  move.to_row = params.dstNzNStride;
  move.to_matrix = params.dstNzMatrixStride;
  dv_issue_nd2nz(here, &move);
}

// Gaps count bytes in GM and blocks of 32 B in UB; a piece takes whole blocks in UB.
template <typename T>
inline dv_copy DvPadded(const LocalTensor<T> &local, const GlobalTensor<T> &global, bool is_in, const DataCopyExtParams &p,
                        uint32_t padded_bytes) {
  dv_copy copy = {};
  const int64_t in_local = (static_cast<int64_t>(padded_bytes) + 31) / 32 * 32 + int64_t{is_in ? p.dstStride : p.srcStride} * 32;
  const int64_t in_global = static_cast<int64_t>(p.blockLen) + (is_in ? p.srcStride : p.dstStride);
  copy.to = is_in ? local.Address() : global.Address();
  copy.from = is_in ? global.Address() : local.Address();
  copy.rows = p.blockCount;
  copy.bytes = p.blockLen;
  copy.to_stride = is_in ? in_local : in_global;
  copy.from_stride = is_in ? in_global : in_local;
  copy.is_byte_granular = 1;
  copy.type = DvType<T>::type;
  return copy;
}

template <typename T>
inline void DataCopyPad(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const DataCopyExtParams &params,
                        const DataCopyPadExtParams<T> &pad, DV_HERE("DataCopyPad")) {
  const uint32_t padded = params.blockLen + static_cast<uint32_t>((pad.leftPadding + pad.rightPadding) * sizeof(T));
  dv_copy copy = DvPadded(dst, src, true, params, padded);
  if (pad.isPad) {
    copy.left_pad = pad.leftPadding;
    copy.right_pad = pad.rightPadding;
    copy.fill_bytes = sizeof(T);
    copy.fill = BitsOf(pad.paddingValue);
  } else if (pad.leftPadding || pad.rightPadding) {
    dv_broken_rule(here, "padding of %d and %d elements with isPad false", pad.leftPadding, pad.rightPadding);
  } else {
    copy.fill_bytes = sizeof(T);
    copy.fills_with_first = 1;
  }
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopyPad(const LocalTensor<T> &dst, const GlobalTensor<T> &src, const DataCopyParams &params,
                        const DataCopyPadParams &pad, DV_HERE("DataCopyPad")) {
  const DataCopyExtParams wide(params.blockCount, params.blockLen, params.srcStride, params.dstStride, 0);
  const DataCopyPadExtParams<T> wide_pad(pad.isPad, pad.leftPadding, pad.rightPadding, OfBits<T>(pad.paddingValue));
  DataCopyPad(dst, src, wide, wide_pad, here);
}
template <typename T>
inline void DataCopyPad(const GlobalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyExtParams &params,
                        DV_HERE("DataCopyPad")) {
  const dv_copy copy = DvPadded(src, dst, false, params, params.blockLen);
  dv_issue_copy(here, &copy);
}
template <typename T>
inline void DataCopyPad(const GlobalTensor<T> &dst, const LocalTensor<T> &src, const DataCopyParams &params,
                        DV_HERE("DataCopyPad")) {
  DataCopyPad(dst, src, DataCopyExtParams(params.blockCount, params.blockLen, params.srcStride, params.dstStride, 0), here);
}

} // namespace AscendC

#endif
