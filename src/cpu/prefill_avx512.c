/* Prefill attention of fp32, fp16 and bf16 in AVX-512 (F, BW, DQ, VL): prefill_tiles.h with 12 rows a
 * register tile. */
#include "cpu/lanes_avx512.h"

enum { ROWS = 12 };

#include "cpu/prefill_tiles.h"

fa_status fa_prefill_avx512_prepare(fa_plan *plan) { return tiles_prepare(plan); }

fa_status fa_prefill_avx512_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return tiles_run(plan, args, workspace);
}
