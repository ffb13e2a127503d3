/* What happens before the kernel of an appending problem, and fa_merge, on the GPU. See any/append_any.cu and
 * any/merge_any.cu. */
#ifndef FA_CUDA_APPEND_CUDA_H
#define FA_CUDA_APPEND_CUDA_H

#include "core/kernel.h"

/* fa_backend.prepare_run: loads the device code of appending (if the plan does) and merging. *workspace_bytes becomes that
 * of fa_cuda_append, a multiple of 64: the rotated q, [rows of q, heads_q, head_dim_qk] of problem.dtype; 0 where nothing is
 * rotated. Errors: UNSUPPORTED, DEVICE. */
fa_status fa_cuda_prepare_append(const fa_plan *plan, size_t *workspace_bytes);

/* Enqueues appending (src/cpu/kv_append.h has the meaning). *rotated becomes a copy of *args whose q, when rotary_dim >
 * 0, is the rotated one in workspace. args were checked; workspace is aligned to 64. Errors: UNSUPPORTED, DEVICE. */
fa_status fa_cuda_append(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_attention_args *rotated,
                         fa_stream stream);

/* fa_backend.merge. Loads the device code if no plan of the context has done it. */
fa_status fa_cuda_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim,
                        const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b, fa_stream stream);

#endif
