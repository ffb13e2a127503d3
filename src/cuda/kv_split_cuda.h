/* Splitting KV sequences into parts that different blocks work on, and joining them. For kernels whose parts are those
 * of any/parts.cuh and that leave split_o and split_sums as cuda_params.h says. */
#ifndef FA_CUDA_KV_SPLIT_CUDA_H
#define FA_CUDA_KV_SPLIT_CUDA_H

#include "cuda/cuda.h"
#include "cuda/kv_split_shape.h"

/* Parts for `units` blocks a part: fa_split_count of the plan's maxima, no part shorter than `least_part` keys at the
 * longest; problem.kv_splits forces (to FA_MOST_SPLITS). */
int64_t fa_cuda_choose_splits(const fa_plan *plan, fa_split_rates rates, int64_t units, int64_t least_part);

/* Rows of o in all. */
int64_t fa_cuda_rows(const fa_plan *plan);

typedef struct fa_cuda_join {
  fa_cuda_function function; /* NULL for one part */
  int follows;
} fa_cuda_join;

/* The plan's kv_splits, kernel_workspace_bytes and *join, which fa_cuda_join_splits starts. `most_units`
 * blocks a part at most. Parts that a cluster joins need neither, but the plain kernel may have to take rows that lie
 * anywhere, which only run knows.
 * Errors: UNSUPPORTED where a grid would be too large, DEVICE. */
fa_status fa_cuda_prepare_splits(fa_plan *plan, int64_t splits, int64_t most_units, int follows, fa_cuda_join *join);

/* What params say of parts, of blocks with block_rows packed rows, and all divisors. workspace has the plan's
 * kernel_workspace_bytes. */
void fa_cuda_split_params(const fa_plan *plan, void *workspace, int64_t split_tile, int64_t block_rows,
                          fa_cuda_params *params);

fa_status fa_cuda_join_splits(const fa_plan *plan, const fa_cuda_join *join, const fa_cuda_params *params, fa_stream stream);

#endif
