/* Splitting KV sequences into parts that different blocks work on, and joining them. For kernels whose parts are those
 * of any/parts.cuh and that leave split_o and split_sums as cuda_params.h says. */
#ifndef FA_CUDA_KV_SPLIT_CUDA_H
#define FA_CUDA_KV_SPLIT_CUDA_H

#include "cuda/cuda.h"

/* Parts of each sequence for `units` blocks a part, none shorter than `least_part` keys at the longest: fa_split_count of
 * the plan's maxima; problem.kv_splits forces (to FA_MOST_SPLITS). */
int64_t fa_cuda_choose_splits(const fa_plan *plan, int64_t units, int64_t least_part);

/* Of plan->kv_splits; 0 for one part. */
size_t fa_cuda_split_bytes(const fa_plan *plan);

/* splits, split_tile, split_o and split_sums of params. workspace has fa_cuda_split_bytes. */
void fa_cuda_split_params(const fa_plan *plan, void *workspace, int64_t split_tile, fa_cuda_params *params);

/* Finds the function that fa_cuda_join_splits starts; *function is NULL for one part. */
fa_status fa_cuda_find_join(const fa_plan *plan, fa_cuda_function *function);
fa_status fa_cuda_join_splits(const fa_plan *plan, fa_cuda_function function, const fa_cuda_params *params,
                              fa_stream stream);

#endif
