/* The instances of prefill_any.cuh: attention of any number of rows for every type of q and of the cache. Called by
 * fa_prefill_any_run and, for what the tensor cores do not take, by fa_decode_any_run.
 * Names: prefill_<q>_<cache>_<rows of a block>. 256 threads, no dynamic shared memory. */
#include "cuda/any/prefill_any.cuh"

#define THREE_SIZES(q, T, cache, KV)                   \
  FA_ANY_KERNEL(prefill_##q##_##cache##_64, T, KV, 8, 1) \
  FA_ANY_KERNEL(prefill_##q##_##cache##_32, T, KV, 4, 2) \
  FA_ANY_KERNEL(prefill_##q##_##cache##_16, T, KV, 2, 5)

THREE_SIZES(f32, float, f32, float)
THREE_SIZES(f32, float, int8, fa_i8)
THREE_SIZES(f32, float, fp8, fa_f8)
THREE_SIZES(f16, __half, f16, __half)
THREE_SIZES(f16, __half, int8, fa_i8)
THREE_SIZES(f16, __half, fp8, fa_f8)
THREE_SIZES(bf16, __nv_bfloat16, bf16, __nv_bfloat16)
THREE_SIZES(bf16, __nv_bfloat16, int8, fa_i8)
THREE_SIZES(bf16, __nv_bfloat16, fp8, fa_f8)
