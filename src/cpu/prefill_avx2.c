/* Prefill attention of fp32, fp16 and bf16 in AVX2 with FMA and F16C: prefill_tiles.h with 6 rows x 16 keys
 * (or values) a register tile: 12 accumulators, 2 vectors of K or V and a broadcast of Q or P.
 *
 * Bound: arithmetic, 2 S_q S_kv (D + D_v) operations a head at the fp32 FMA rate; at D = 128 the softmax adds
 * 7 %. Measured (one core of a Sapphire Rapids class Xeon at 2.1 GHz whose AVX2 FMA rate is 0.066 TFLOP/s; 4
 * query heads, 1 KV head, S 4096, D 128, fp32, best of short runs): 0.059 TFLOP/s, 89 % of that rate. */
#include "cpu/lanes_avx2.h"

enum { ROWS = 6, ITEM_STEP = ROWS };

#include "cpu/prefill_fma.h"

fa_status fa_prefill_avx2_prepare(fa_plan *plan) { return fma_prepare(plan); }

fa_status fa_prefill_avx2_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fma_run(plan, args, workspace);
}
