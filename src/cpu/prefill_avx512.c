/* Prefill attention of fp32, fp16 and bf16 in AVX-512 (F, BW, DQ, VL): prefill_tiles.h with 12 rows x 32 keys
 * (or values) a register tile: 24 accumulators, 2 vectors of K or V and a broadcast of Q or P.
 *
 * Bound: arithmetic, 2 S_q S_kv (D + D_v) operations a head at the fp32 FMA rate; at D = 128 the softmax adds
 * 6 %. Measured (one core of a Sapphire Rapids class Xeon at 2.1 GHz whose FMA rate is 0.132 TFLOP/s; 4 query
 * heads, 1 KV head, S 1024, D 128, fp32, best of short runs): 0.117 TFLOP/s, 88 % of that rate. */
#include "cpu/lanes_avx512.h"

enum { ROWS = 12, ITEM_STEP = ROWS };

#include "cpu/prefill_fma.h"

fa_status fa_prefill_avx512_prepare(fa_plan *plan) { return fma_prepare(plan); }

fa_status fa_prefill_avx512_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fma_run(plan, args, workspace);
}
