/* Prefill attention of fp32, fp16 and bf16 in AVX2 with FMA and F16C: prefill_tiles.h with 6 rows a register
 * tile. */
#include "cpu/lanes_avx2.h"

enum { ROWS = 6, ITEM_STEP = ROWS };

#include "cpu/prefill_fma.h"

fa_status fa_prefill_avx2_prepare(fa_plan *plan) { return fma_prepare(plan); }

fa_status fa_prefill_avx2_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fma_run(plan, args, workspace);
}
