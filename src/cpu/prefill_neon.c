/* Prefill attention of fp32, fp16 and bf16 in AArch64's NEON (every 64-bit Arm): prefill_tiles.h with 6 rows
 * x 16 keys (or values) a register tile: 24 accumulators of 4 lanes, 4 registers of K or V and a broadcast of
 * Q or P, of 32. A step of D loads 10 times for 24 FMAs.
 *
 * Bound: arithmetic, 2 S_q S_kv (D + D_v) operations a head at the fp32 FMA rate. Right under an emulator
 * (emulated); its speed: not run. */
#include "cpu/lanes_neon.h"

enum { ROWS = 6, ITEM_STEP = ROWS };

#include "cpu/prefill_fma.h"

fa_status fa_prefill_neon_prepare(fa_plan *plan) { return fma_prepare(plan); }

fa_status fa_prefill_neon_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                              fa_stream stream) {
  (void)stream;
  return fma_run(plan, args, workspace);
}
