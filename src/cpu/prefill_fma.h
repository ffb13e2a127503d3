/* The kernel around prefill_tiles.h where FMA does all of it: what prefill_avx2.c and prefill_avx512.c are
 * but for their names. */
#ifndef FA_CPU_PREFILL_FMA_H
#define FA_CPU_PREFILL_FMA_H

#include "cpu/prefill_tiles.h"

static size_t scratch_bytes(const fa_plan *plan) {
  const tiling t = tiling_of(plan);
  scratch none;
  return scratch_cut(&t, fa_prefill_rows_exact_bytes(plan), NULL, &none);
}

static void job_body(void *shared, fa_cpu_work *work, int thread) {
  const job *j = shared;
  scratch w;
  scratch_cut(&j->t, 0, j->workspace + (size_t)thread * scratch_bytes(j->plan), &w);
  for (item it; next_item(j, work, &it);) run_item(j, &w, &it);
}

static fa_status fma_prepare(fa_plan *plan) {
  const fa_status status = fa_check_request(plan, ITEM_STEP, most_item_rows(), PANEL, MOST_KEYS, 1);
  if (status != FA_OK) return status;
  const tiling t = tiling_of(plan);
  plan->tiles = (fa_tiles){t.rows, t.keys, ROWS, PANEL};
  plan->kv_splits = 1;
  plan->kernel_workspace_bytes = (size_t)plan->context->threads * scratch_bytes(plan);
  return FA_OK;
}

static fa_status fma_run(const fa_plan *plan, const fa_attention_args *args, void *workspace) {
  job j = {plan, args, workspace, tiling_of(plan)};
  fa_cpu_parallel(plan->context->threads, items_of(plan, &j.t), job_body, &j);
  return FA_OK;
}

#endif
