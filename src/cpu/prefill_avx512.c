/* Prefill attention of fp32, fp16 and bf16 in AVX-512 (F, BW, DQ, VL): prefill_tiles.h with 12 rows a
 * register tile. */
#include "cpu/lanes_avx512.h"

enum { ROWS = 12, ITEM_STEP = ROWS };

#include "cpu/prefill_fma.h"

fa_status fa_prefill_avx512_prepare(fa_plan *plan) { return fma_prepare(plan); }

fa_status fa_prefill_avx512_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fma_run(plan, args, workspace);
}
