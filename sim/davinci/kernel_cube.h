// LoadData, Mmad and Fixpipe. Part of kernel_operator.h.
#ifndef DV_KERNEL_CUBE_H
#define DV_KERNEL_CUBE_H

#include "kernel_tensor.h"

namespace AscendC {

template <typename T>
inline void LoadData(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LoadData2DParams &params, DV_HERE("LoadData")) {
  dv_load2d load = {};
  load.to = dst.Address();
  load.from = src.Address();
  load.element_bytes = sizeof(T);
  load.start = params.startIndex;
  load.repeats = params.repeatTimes;
  load.from_stride = params.srcStride;
  load.to_gap = params.dstGap;
  load.transpose = params.ifTranspose;
  if (params.addrMode) dv_broken_rule(here, "addrMode %d; only 0, counting up, is known here", params.addrMode);
  dv_issue_load2d(here, &load);
}

template <typename T>
inline void LoadDataWithTranspose(const LocalTensor<T> &dst, const LocalTensor<T> &src, const LoadData2dTransposeParams &params,
                                  DV_HERE("LoadDataWithTranspose")) {
  dv_load_transposed load = {};
  load.to = dst.Address();
  load.from = src.Address();
  load.element_bytes = sizeof(T);
  load.start = params.startIndex;
  load.repeats = params.repeatTimes;
  load.from_stride = params.srcStride;
  load.to_gap = params.dstGap;
  load.to_fractal_gap = params.dstFracGap;
  dv_issue_load_transposed(here, &load);
}

template <typename T>
inline void InitConstValue(const LocalTensor<T> &dst, const InitConstValueParams<T> &params, DV_HERE("InitConstValue")) {
  dv_fill fill = {};
  fill.to = dst.Address();
  fill.repeats = params.repeatTimes;
  fill.blocks = params.blockNum;
  fill.gap = params.dstGap;
  fill.element_bytes = sizeof(T);
  fill.value = static_cast<uint32_t>(BitsOf(params.initValue));
  dv_issue_fill(here, &fill);
}

template <typename T, typename U, typename S>
inline void Mmad(const LocalTensor<T> &c, const LocalTensor<U> &a, const LocalTensor<S> &b, const MmadParams &params,
                 DV_HERE("Mmad")) {
  static_assert(sizeof(U) == sizeof(S), "A and B of one type");
  dv_mmad mmad = {};
  mmad.c = c.Address();
  mmad.a = a.Address();
  mmad.b = b.Address();
  mmad.type = DvType<U>::type;
  mmad.to = DvType<T>::type;
  mmad.m = params.m;
  mmad.n = params.n;
  mmad.k = params.k;
  mmad.begins_at_zero = params.cmatrixInitVal;
  mmad.unit_flag = static_cast<uint32_t>(params.unitFlag);
  if (params.isBias || params.cmatrixSource || params.enSsparse)
    dv_broken_rule(here, "a bias table or sparsity, which are not known here");
  dv_issue_mmad(here, &mmad);
}

template <typename T, typename U>
inline void DvFixpipe(dv_address to, const LocalTensor<U> &src, const FixpipeParamsV220 &params, bool keeps_nz, dv_here here) {
  const bool is_right = (params.quantPre == NoQuant && DvType<T>::type == DvType<U>::type) ||
                        (params.quantPre == F322F16 && DvType<T>::type == DV_F16) ||
                        (params.quantPre == F322BF16 && DvType<T>::type == DV_BF16);
  if (!is_right) dv_broken_rule(here, "quantPre %d does not give the type of dst", static_cast<int>(params.quantPre));
  if (params.isChannelSplit) dv_broken_rule(here, "isChannelSplit, which is not known here");
  dv_fixpipe fixpipe = {};
  fixpipe.to = to;
  fixpipe.from = src.Address();
  fixpipe.from_type = DvType<U>::type;
  fixpipe.type = DvType<T>::type;
  fixpipe.columns = params.nSize;
  fixpipe.rows = params.mSize;
  fixpipe.from_stride = params.srcStride;
  fixpipe.to_stride = params.dstStride;
  fixpipe.matrices = params.ndNum;
  fixpipe.from_matrix = params.srcNdStride;
  fixpipe.to_matrix = params.dstNdStride;
  fixpipe.relu = params.reluEn;
  fixpipe.unit_flag = params.unitFlag;
  fixpipe.keeps_nz = keeps_nz;
  dv_issue_fixpipe(here, &fixpipe);
}
// nSize columns and mSize rows from L0C to rows (CFG_ROW_MAJOR) or fractals (CFG_NZ) in GM, or to fractals in L1.
template <typename T, typename U, const FixpipeConfig &config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<T> &dst, const LocalTensor<U> &src, const FixpipeParamsV220 &params, DV_HERE("Fixpipe")) {
  DvFixpipe<T>(dst.Address(), src, params, config.format == CO2Layout::NZ, here);
}
template <typename T, typename U, const FixpipeConfig &config = CFG_ROW_MAJOR>
inline void Fixpipe(const LocalTensor<T> &dst, const LocalTensor<U> &src, const FixpipeParamsV220 &params, DV_HERE("Fixpipe")) {
  DvFixpipe<T>(dst.Address(), src, params, config.format == CO2Layout::NZ, here);
}

} // namespace AscendC

#endif
