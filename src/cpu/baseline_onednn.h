/* What `standard` and `eager` share: the two matrix products of unfused attention by oneDNN, all heads at once,
 *   S = scale * Q K^T   [pairs, rows, keys]
 *   O = P V             [pairs, rows, head_dim_v]
 * everything of problem.dtype, sums in fp32. Between them the baseline does its own passes over S.
 *
 * A pair is (batch entry, KV head); its rows are the queries of all query heads of the group, one head after
 * another, so that grouped-query attention needs no copy of K and V. Where all scores do not fit the memory
 * cap, a run goes over blocks of pairs, and over blocks of rows of one pair where even that does not fit.
 *
 * oneDNN wants dense operands, so q, k, v that are not are first copied; paged and ragged tensors are
 * gathered that way, tokens behind a sequence's end becoming zeros (a product reads them: NaN times 0 is
 * NaN). For the same reason a NaN or infinity in a key or value that a mask leaves out does spread, as in any
 * unfused attention.
 *
 * Lengths below the plan's maxima: products exist for a ladder of key counts and a run takes the smallest
 * that does. A plan's products share their arguments, so runs of one plan by several threads take turns. */
#ifndef FA_CPU_BASELINE_ONEDNN_H
#define FA_CPU_BASELINE_ONEDNN_H

#include "cpu/baseline_rows.h"

/* One block of scores on its way through the passes. */
typedef struct fa_baseline_block {
  const fa_plan *plan;
  const fa_attention_args *args;
  const fa_baseline_rows *passes;
  int64_t pair, pairs; /* first and how many; numbered batch entry by batch entry */
  int64_t row, rows;   /* first and how many, of each pair */
  int64_t keys;        /* columns of S, at least the longest sequence of the block */
  char *scores;        /* [pairs, rows, keys] of problem.dtype: S on the way in, P on the way out */
  char *extra;         /* what the baseline asked for */
  float *scratch;      /* [threads, keys of the plan] */
} fa_baseline_block;

/* Extra bytes for blocks of `pairs` x `rows`, and the passes between the products. */
typedef struct fa_baseline_kind {
  const char *name;
  int scale_in_product; /* 0: a pass of its own */
  int64_t (*extra_bytes)(const fa_plan *plan, int64_t pairs, int64_t rows);
  void (*passes)(const fa_baseline_block *block);
} fa_baseline_kind;

fa_status fa_baseline_prepare(fa_plan *plan, const fa_baseline_kind *kind);
void fa_baseline_release(fa_plan *plan);
fa_status fa_baseline_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                          const fa_baseline_kind *kind);

/* Where a row of a block belongs. */
typedef struct fa_baseline_place {
  int64_t b, h, i; /* batch entry, query head, query */
} fa_baseline_place;
static inline fa_baseline_place fa_baseline_place_of(const fa_plan *plan, int64_t pair, int64_t row) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t b = pair / p->heads_kv, kv_head = pair % p->heads_kv;
  const fa_baseline_place place = {b, kv_head * plan->group + row / p->max_seqlen_q, row % p->max_seqlen_q};
  return place;
}

/* Calls `pass` for every row of the block that is a query of its sequence, spread over the context's threads.
 */
typedef void (*fa_baseline_pass)(const fa_baseline_block *block, fa_baseline_place place, int64_t index,
                                 const fa_score_rules *rules, float *scratch);
void fa_baseline_rows_parallel(const fa_baseline_block *block, fa_baseline_pass pass);

#endif
