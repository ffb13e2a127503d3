/* Prefill for sm_75 (Turing): m16n8k8 in fp16, K and V through registers, since there is no cp.async; at most 64 KB of
 * shared memory. The kernel: cuda/prefill_mma.cuh; its shapes: cuda/prefill_shapes.h.
 *
 * Level one, rows x keys: 128 x 32 (64, 192), 64 x 32 (96, 192/128), 256 x 32 (128; shorter sequences 64 x 32, on a T4
 * 128 x 32), 128 x 16 (256). Level two: 32 x 32 a warp at a head size of 64, 32 x 16 at 128, 16 x 32 to 192, 16 x 16 at 256.
 * Bound: arithmetic at the rate of m16n8k8 and, close to it, the reads of shared memory. Not run on a T4; nobody here
 * has one. H200, S = 4096, head size 128: 240 TFLOP/s [measured]; docs/gpu_model.md has a T4 [model]. */
#include "cuda/prefill_mma.cuh"

#define FA_TYPE_f16 fa_half_turing

#define FA_SHAPE(type, dqk, dv, row_tiles, warps, tile, step, blocks)                                \
  FA_PREFILL_KERNEL(fa_prefill_sm75_##type##_##dqk##_##dv##_##row_tiles##x##warps##x##tile, FA_TYPE_##type,    \
                    false, false, dqk, dv, row_tiles, warps, tile, step, blocks)
FA_SM75_PLAIN(f16)
#undef FA_SHAPE

#define FA_SHAPE(type, dqk, dv, row_tiles, warps, tile, step, blocks)                                \
  FA_PREFILL_KERNEL(fa_prefill_sm75_##type##_##dqk##_##dv##_##row_tiles##x##warps##x##tile##_rules, FA_TYPE_##type,    \
                    false, true, dqk, dv, row_tiles, warps, tile, step, blocks)
FA_SM75_RULES(f16)
