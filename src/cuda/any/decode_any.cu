/* The instances of decode_any_mma.cuh for 16-bit K and V. Names: decode_<q>_<cache>_<how the warps share>.
 *   own128   head_dim_v to 128, at most 16 packed rows a KV head   rows128   the same head sizes, more rows
 *   d64, d128 both head sizes 64 or 128, as own128, addresses without arithmetic and q in registers
 *   own256   head_dim_v to 256                                     slice     head_dim_v to 640
 * head_dim_qk to 576 everywhere. Grid x = batch * heads_kv * tiles of rows * splits; 32 to 256 threads; dynamic shared
 * memory by decode_cuda.c: what a cluster exchanges, q where it is not in registers (k pieces * 1 KB of 32 dims), 2 to 4
 * stages, e.g. 96 KB for D = 128, 4 warps, 3 stages.
 * One query over 256K keys, 32 heads on 8, fp16: 4377 GB/s on an H200, 99 % of a plain read [measured, docs/performance.md]. */
#include "cuda/any/decode_any_block.cuh"

#define ALL_WAYS(q, T)                                                          \
  FA_DECODE_KERNEL(decode_##q##_##q##_d64, T, T, 1, FA_DECODE_OWN, 64)          \
  FA_DECODE_KERNEL(decode_##q##_##q##_d128, T, T, 2, FA_DECODE_OWN, 128)        \
  FA_DECODE_KERNEL(decode_##q##_##q##_own128, T, T, 2, FA_DECODE_OWN, 0)        \
  FA_DECODE_KERNEL(decode_##q##_##q##_own256, T, T, 4, FA_DECODE_OWN, 0)        \
  FA_DECODE_KERNEL(decode_##q##_##q##_rows128, T, T, 2, FA_DECODE_ROWS_MODE, 0) \
  FA_DECODE_KERNEL(decode_##q##_##q##_slice, T, T, 2, FA_DECODE_SLICE, 0)

ALL_WAYS(f16, __half)
ALL_WAYS(bf16, __nv_bfloat16)
