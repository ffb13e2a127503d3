/* The instances of decode_any_mma.cuh for int8 and fp8 K and V; see decode_any.cu. */
#include "cuda/any/decode_any_block.cuh"

#define ALL_WAYS(q, T, cache, KV)                                                     \
  FA_DECODE_KERNEL(decode_##q##_##cache##_d128, T, KV, 1, FA_DECODE_OWN, 128)         \
  FA_DECODE_KERNEL(decode_##q##_##cache##_own128, T, KV, 1, FA_DECODE_OWN, 0)         \
  FA_DECODE_KERNEL(decode_##q##_##cache##_own256, T, KV, 2, FA_DECODE_OWN, 0)         \
  FA_DECODE_KERNEL(decode_##q##_##cache##_rows128, T, KV, 1, FA_DECODE_ROWS_MODE, 0)  \
  FA_DECODE_KERNEL(decode_##q##_##cache##_slice, T, KV, 1, FA_DECODE_SLICE, 0)

ALL_WAYS(f16, __half, int8, fa_i8)
ALL_WAYS(f16, __half, fp8, fa_f8)
ALL_WAYS(bf16, __nv_bfloat16, int8, fa_i8)
ALL_WAYS(bf16, __nv_bfloat16, fp8, fa_f8)
