#include "cuda/kv_split_cuda.h"

/* What a split may lose in evenness against the best, so that fewer parts are joined. */
#define GOOD_ENOUGH 0.97
/* Rounds of blocks beyond which finer parts even nothing out. */
#define MOST_ROUNDS 8
#define MOST_SPLITS 256

enum { JOIN_THREADS = 128 };

static int64_t rows_of(const fa_plan *plan) {
  return plan->problem.batch * plan->problem.heads_q * plan->problem.max_seqlen_q;
}

static double evenness(int64_t blocks, int64_t slots) {
  return (double)blocks / (double)(fa_ceil_div(blocks, slots) * slots);
}

int64_t fa_cuda_choose_splits(const fa_plan *plan, int64_t units, int64_t slots, int64_t least_part) {
  const fa_attention_problem *p = &plan->problem;
  if (p->kv_splits) return fa_max(fa_min(p->kv_splits, p->max_seqlen_kv), 1);
  const int64_t most = fa_min(fa_ceil_div(p->max_seqlen_kv, least_part), MOST_SPLITS);
  double best = 0.0;
  for (int64_t n = 1; n <= most; ++n)
    if (n == 1 || units * n <= MOST_ROUNDS * slots) best = evenness(units * n, slots) > best ? evenness(units * n, slots) : best;
  for (int64_t n = 1; n <= most; ++n)
    if (evenness(units * n, slots) >= GOOD_ENOUGH * best) return n;
  return 1;
}

size_t fa_cuda_split_bytes(const fa_plan *plan) {
  if (plan->kv_splits == 1) return 0;
  const int64_t floats = plan->kv_splits * rows_of(plan) * (plan->problem.head_dim_v + 2);
  return (size_t)fa_round_up(floats * (int64_t)sizeof(float), 64);
}

void fa_cuda_split_params(const fa_plan *plan, void *workspace, int64_t split_tile, fa_cuda_params *params) {
  params->splits = (int32_t)plan->kv_splits;
  params->split_tile = (int32_t)split_tile;
  if (plan->kv_splits == 1) return;
  params->split_o = workspace;
  params->split_sums = (fa_split_sum *)(void *)(params->split_o + plan->kv_splits * rows_of(plan) * plan->problem.head_dim_v);
}

fa_status fa_cuda_find_join(const fa_plan *plan, fa_cuda_function *function) {
  *function = NULL;
  if (plan->kv_splits == 1) return FA_OK;
  if (rows_of(plan) > INT32_MAX)
    return fa_fail(FA_ERROR_UNSUPPORTED, "joining %lld split rows is beyond a grid of 2^31 blocks; use kv_splits 1",
                   (long long)rows_of(plan));
  return fa_cuda_find(plan->context, "merge_any", "merge_splits", 0, function);
}

fa_status fa_cuda_join_splits(const fa_plan *plan, fa_cuda_function function, const fa_cuda_params *params,
                              fa_stream stream) {
  if (!function) return FA_OK;
  const fa_cuda_shape shape = {{(unsigned)rows_of(plan), 1, 1}, JOIN_THREADS, 0};
  return fa_cuda_start(plan->context, function, shape, params, stream);
}
