/* Attention as a framework runs it unfused, each step a pass over all of S:
 *   S = Q K^T in the input type (oneDNN, all heads at once);
 *   S *= scale;   S = softcap * tanh(S / softcap), if any;
 *   S += mask, an additive S_q x S_kv tensor of the input type, built anew each run: one a batch entry, broadcast
 *     over heads, or one a head with ALiBi, bias or a boolean mask; left out where nothing is masked;
 *   P32 = softmax(S) in fp32;
 *   P = P32 cast to the input type (fp32 needs no cast, so P32 takes the place of S);
 *   O = P V (oneDNN).
 *
 * Measured at 1,32,8,4096,4096,128, 2 threads of a Sapphire Rapids class Xeon (AMX) that other work shared, timed
 * runs at real-time priority, oneDNN 3.2, ms: bf16 1259 (causal 1340), fp16 2263, fp32 2506. Beside it
 * the same steps in PyTorch 2.15, whose oneDNN is 3.13: 4162, 5323, 5059. */
#include "core/kernel_declarations.h"
#include "cpu/baseline_onednn.h"

static int masks_anything(const fa_attention_problem *p) {
  return p->causal || p->window_left >= 0 || p->window_right >= 0 || p->has_alibi || p->has_bias ||
         p->has_mask || p->ragged_q || p->ragged_kv || p->has_seqlens_kv;
}

static int mask_per_head(const fa_attention_problem *p) { return p->has_alibi || p->has_bias || p->has_mask; }

/* P32 first, then the mask. */
static int64_t wide_bytes(const fa_plan *plan, int64_t pairs, int64_t rows) {
  return plan->problem.dtype == FA_FLOAT32 ? 0
                                           : fa_round_up(pairs * rows * plan->problem.max_seqlen_kv * 4, 64);
}

static int64_t extra_bytes(const fa_plan *plan, int64_t pairs, int64_t rows) {
  const fa_attention_problem *p = &plan->problem;
  int64_t mask_rows = 0;
  if (masks_anything(p))
    mask_rows = mask_per_head(p) ? pairs * rows : fa_min(p->batch, pairs / p->heads_kv + 2) * p->max_seqlen_q;
  return wide_bytes(plan, pairs, rows) + mask_rows * p->max_seqlen_kv * (int64_t)fa_dtype_size(p->dtype);
}

static char *score_row(const fa_baseline_block *block, int64_t index) {
  return block->scores + index * block->keys * (int64_t)fa_dtype_size(block->plan->problem.dtype);
}

static char *mask_row(const fa_baseline_block *block, fa_baseline_place at, int64_t index) {
  const fa_attention_problem *p = &block->plan->problem;
  char *masks = block->extra + wide_bytes(block->plan, block->pairs, block->rows);
  const int64_t row = mask_per_head(p) ? index : (at.b - block->pair / p->heads_kv) * p->max_seqlen_q + at.i;
  return masks + row * block->keys * (int64_t)fa_dtype_size(p->dtype);
}

static void build_mask(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                       const fa_score_rules *rules, float *scratch) {
  /* A mask for all heads is written by the first head of the block that has this query. */
  const fa_attention_problem *p = &block->plan->problem;
  const int64_t in_pair = index % block->rows, pair = block->pair + index / block->rows;
  const int first = (in_pair < p->max_seqlen_q) && (pair == block->pair || pair % p->heads_kv == 0);
  if (!mask_per_head(p) && !first) return;
  fa_score_rules additive = *rules;
  additive.softcap = 0.0f;
  block->passes->mask(p->dtype, mask_row(block, at, index), block->keys, &additive, at.i, scratch);
}

static void scale(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                  const fa_score_rules *rules, float *scratch) {
  (void)at, (void)rules, (void)scratch;
  const fa_attention_problem *p = &block->plan->problem;
  block->passes->scale(p->dtype, score_row(block, index), block->keys, p->scale);
}

static void softcap(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                    const fa_score_rules *rules, float *scratch) {
  (void)at, (void)rules, (void)scratch;
  const fa_attention_problem *p = &block->plan->problem;
  block->passes->softcap(p->dtype, score_row(block, index), block->keys, p->softcap);
}

static void add_mask(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                     const fa_score_rules *rules, float *scratch) {
  (void)rules, (void)scratch;
  block->passes->add(block->plan->problem.dtype, score_row(block, index), mask_row(block, at, index),
                     block->keys);
}

static float *wide_row(const fa_baseline_block *block, int64_t index) {
  char *rows = block->plan->problem.dtype == FA_FLOAT32 ? block->scores : block->extra;
  return (float *)(void *)(rows + index * block->keys * 4);
}

static void softmax(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                    const fa_score_rules *rules, float *scratch) {
  (void)rules, (void)scratch;
  const fa_attention_problem *p = &block->plan->problem;
  const float *sink = p->has_sinks ? &block->args->sinks[at.h] : NULL;
  const float lse = block->passes->softmax_wide(p->dtype, score_row(block, index), wide_row(block, index),
                                                block->keys, sink);
  if (p->has_lse) fa_cpu_lse_row(block->plan, block->args, at.b, at.h)[at.i] = lse;
}

static void narrow(const fa_baseline_block *block, fa_baseline_place at, int64_t index,
                   const fa_score_rules *rules, float *scratch) {
  (void)at, (void)rules, (void)scratch;
  block->passes->narrow(block->plan->problem.dtype, score_row(block, index), wide_row(block, index),
                        block->keys);
}

static void passes(const fa_baseline_block *block) {
  const fa_attention_problem *p = &block->plan->problem;
  const int masked = masks_anything(p);
  if (masked) fa_baseline_rows_parallel(block, build_mask);
  fa_baseline_rows_parallel(block, scale);
  if (p->softcap > 0.0f) fa_baseline_rows_parallel(block, softcap);
  if (masked) fa_baseline_rows_parallel(block, add_mask);
  fa_baseline_rows_parallel(block, softmax);
  if (p->dtype != FA_FLOAT32) fa_baseline_rows_parallel(block, narrow);
}

static const fa_baseline_kind eager = {"eager", 0, extra_bytes, passes};

fa_status fa_eager_prepare(fa_plan *plan) { return fa_baseline_prepare(plan, &eager); }
void fa_eager_release(fa_plan *plan) { fa_baseline_release(plan); }
fa_status fa_eager_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                       fa_stream stream) {
  (void)stream;
  return fa_baseline_run(plan, args, workspace, &eager);
}
