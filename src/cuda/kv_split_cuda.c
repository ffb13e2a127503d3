#include "cuda/kv_split_cuda.h"

int64_t fa_cuda_rows(const fa_plan *plan) {
  return plan->problem.batch * plan->problem.heads_q * plan->problem.max_seqlen_q;
}

int64_t fa_cuda_choose_splits(const fa_plan *plan, fa_split_rates rates, int64_t units, int64_t least_part) {
  const fa_attention_problem *p = &plan->problem;
  if (p->kv_splits) return fa_max(fa_min(fa_min(p->kv_splits, p->max_seqlen_kv), FA_MOST_SPLITS), 1);
  return fa_split_count(rates, units, fa_cuda_rows(plan), p->max_seqlen_kv, fa_cuda_multiprocessors(plan->context),
                        least_part);
}

static size_t split_bytes(const fa_plan *plan) {
  if (plan->kv_splits == 1) return 0;
  const int64_t floats = plan->kv_splits * fa_cuda_rows(plan) * (plan->problem.head_dim_v + 2);
  return (size_t)fa_round_up(floats * (int64_t)sizeof(float), 64);
}

void fa_cuda_split_params(const fa_plan *plan, void *workspace, int64_t split_tile, int64_t block_rows,
                          fa_cuda_params *params) {
  params->splits = (int32_t)plan->kv_splits;
  params->split_tile = (int32_t)split_tile;
  params->by_group = fa_divisor_of(fa_max(params->group, 1));
  params->by_heads_kv = fa_divisor_of(fa_max(params->heads_kv, 1));
  params->by_page_size = fa_divisor_of(fa_max(params->page_size, 1));
  params->by_splits = fa_divisor_of(plan->kv_splits);
  params->by_split_tile = fa_divisor_of(split_tile);
  params->by_tiles = fa_divisor_of(fa_max(fa_ceil_div(plan->group * plan->problem.max_seqlen_q, block_rows), 1));
  if (plan->kv_splits == 1) return;
  params->split_o = workspace;
  const int64_t o_floats = plan->kv_splits * fa_cuda_rows(plan) * plan->problem.head_dim_v;
  params->split_sums = (fa_split_sum *)(void *)(params->split_o + o_floats);
}

static fa_status find_join(const fa_plan *plan, int follows, fa_cuda_join *join) {
  *join = (fa_cuda_join){0};
  if (plan->kv_splits == 1) return FA_OK;
  if (fa_cuda_rows(plan) > INT32_MAX)
    return fa_fail(FA_ERROR_UNSUPPORTED, "joining %lld split rows is beyond a grid of 2^31 blocks; use kv_splits 1",
                   (long long)fa_cuda_rows(plan));
  join->follows = follows;
  return fa_cuda_find(plan->context, follows ? "merge_splits_any" : "merge_any", "merge_splits", 0, &join->function);
}

fa_status fa_cuda_prepare_splits(fa_plan *plan, int64_t splits, int64_t most_units, int follows,
                                 fa_cuda_join *join) {
  plan->kv_splits = splits;
  plan->kernel_workspace_bytes = split_bytes(plan);
  if (most_units > INT32_MAX / plan->kv_splits)
    return fa_fail(FA_ERROR_UNSUPPORTED, "%lld blocks of rows in %lld parts are beyond a grid of 2^31; make the batch or the "
                   "sequences shorter", (long long)most_units, (long long)plan->kv_splits);
  return find_join(plan, follows, join);
}

fa_status fa_cuda_join_splits(const fa_plan *plan, const fa_cuda_join *join, const fa_cuda_params *params, fa_stream stream) {
  if (!join->function) return FA_OK;
  const fa_cuda_shape shape = {{(unsigned)fa_cuda_rows(plan), 1, 1}, FA_JOIN_THREADS, 0, 0, join->follows};
  return fa_cuda_start(plan->context, join->function, shape, params, stream);
}
