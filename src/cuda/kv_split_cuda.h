/* Splitting KV sequences into parts that different blocks work on, and joining them. For kernels whose parts are those
 * of any/parts.cuh and that leave split_o and split_sums as cuda_params.h says. */
#ifndef FA_CUDA_KV_SPLIT_CUDA_H
#define FA_CUDA_KV_SPLIT_CUDA_H

#include "cuda/cuda.h"

/* The plan's kv_splits and kernel_workspace_bytes, for `units` blocks a part (`most_units` if run may take the kernel with
 * more): fa_split_count of the plan's maxima, no part shorter than `least_part` keys at the longest; problem.kv_splits
 * forces (to FA_MOST_SPLITS). *join becomes what fa_cuda_join_splits starts, NULL for one part.
 * Errors: UNSUPPORTED where a grid would be too large, DEVICE. */
fa_status fa_cuda_prepare_splits(fa_plan *plan, int64_t units, int64_t most_units, int64_t least_part,
                                 fa_cuda_function *join);

/* splits, split_tile, split_o and split_sums of params. workspace has the plan's kernel_workspace_bytes. */
void fa_cuda_split_params(const fa_plan *plan, void *workspace, int64_t split_tile, fa_cuda_params *params);

fa_status fa_cuda_join_splits(const fa_plan *plan, fa_cuda_function function, const fa_cuda_params *params,
                              fa_stream stream);

#endif
