/* Prefill for sm_80 and later: m16n8k16 in fp16 and bf16, K and V by cp.async. The kernel: cuda/prefill_mma.cuh; its
 * shapes: cuda/prefill_shapes.h.
 *
 * Level one, rows x keys: 128 x 64, 64 x 32 (192/128, and 192 and 256 where sequences are short); 128 x 32 where shared
 * memory is short (128, 256). Level two: 32 rows x 16 or 32 keys a warp, 16 x 32 above a head size of 128.
 * Bound: arithmetic, 2 S_q S_kv (D_qk + D_v) a head without masks, at the rate of mma.sync; above a head size of 128 the
 * reads of shared memory (one ldmatrix for two mma) come close. H200, S = 4096, head sizes 64, 128, 256: 370,
 * 404, 345 TFLOP/s of about 640 [measured, docs/performance.md]. */
#include "cuda/prefill_mma.cuh"

#define FA_TYPE_f16 fa_half
#define FA_TYPE_bf16 fa_bfloat

#define FA_SHAPE(type, dqk, dv, row_tiles, warps, tile, step, blocks)                                \
  FA_PREFILL_KERNEL(fa_prefill_sm80_##type##_##dqk##_##dv##_##row_tiles##x##warps##x##tile, FA_TYPE_##type,    \
                    true, false, dqk, dv, row_tiles, warps, tile, step, blocks)
FA_SM80_PLAIN(f16)
FA_SM80_PLAIN(bf16)
#undef FA_SHAPE

#define FA_SHAPE(type, dqk, dv, row_tiles, warps, tile, step, blocks)                                \
  FA_PREFILL_KERNEL(fa_prefill_sm80_##type##_##dqk##_##dv##_##row_tiles##x##warps##x##tile##_rules, FA_TYPE_##type,    \
                    true, true, dqk, dv, row_tiles, warps, tile, step, blocks)
FA_SM80_RULES(f16)
FA_SM80_RULES(bf16)
