#include "cuda/append_cuda.h"

#include <string.h>

#include "cuda/append_params.h"
#include "cuda/cuda.h"

enum { THREADS = 128, MERGE_ROWS = 4 /* of a block: any/merge_any.cu */ };

fa_status fa_cuda_prepare_append(const fa_plan *plan, size_t *workspace_bytes) {
  const fa_attention_problem *p = &plan->problem;
  fa_cuda_function function;
  *workspace_bytes = 0;
  if (fa_cuda_find_common(plan->context, FA_CUDA_MERGE, &function) != FA_OK) fa_forget_error(); /* fa_merge says it again */
  if (!p->seqlen_new) return FA_OK;
  if (p->rotary_dim) {
    const int64_t rows = p->ragged_q ? p->total_seqlen_q : p->batch * p->max_seqlen_q;
    *workspace_bytes = (size_t)fa_round_up(rows * p->heads_q * p->head_dim_qk * (int64_t)fa_dtype_bytes(p->dtype), 64);
  }
  return fa_cuda_find_common(plan->context, FA_CUDA_APPEND, &function);
}

/* Packed: [batch, max_seqlen_q] or [total_seqlen_q], then heads_q, head_dim_qk. */
static fa_tensor rotated_tensor(const fa_plan *plan, void *data) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t row = p->heads_q * p->head_dim_qk;
  const fa_tensor tensor = {data, p->max_seqlen_q * row, row, p->head_dim_qk};
  return tensor;
}

fa_status fa_cuda_append(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_attention_args *rotated,
                         fa_stream stream) {
  const fa_attention_problem *p = &plan->problem;
  fa_cuda_function function;
  const fa_status status = fa_cuda_find_common(plan->context, FA_CUDA_APPEND, &function);
  if (status != FA_OK) return status;
  const int64_t rotated_rows = p->rotary_dim ? p->max_seqlen_q : 0;
  const int64_t blocks = p->batch * (2 * p->seqlen_new + rotated_rows);
  if (blocks > INT32_MAX)
    return fa_fail(FA_ERROR_UNSUPPORTED, "batch %lld x %lld new tokens and queries is beyond a grid of 2^31 blocks; append "
                   "in smaller batches", (long long)p->batch, (long long)(2 * p->seqlen_new + rotated_rows));
  fa_cuda_append_params params;
  memset(&params, 0, sizeof params);
  fa_cuda_params_of(plan, args, &params.problem);
  params.k_new = fa_cuda_tensor_of(&args->k_new);
  params.v_new = fa_cuda_tensor_of(&args->v_new);
  *rotated = *args;
  if (p->rotary_dim) {
    rotated->q = rotated_tensor(plan, workspace);
    params.rotated_q = fa_cuda_tensor_of(&rotated->q);
    params.rotary_cos = args->rotary_cos;
    params.rotary_sin = args->rotary_sin;
    params.rotary_dim = (int32_t)p->rotary_dim;
    params.rotary_interleaved = p->rotary_interleaved;
  }
  const fa_cuda_shape shape = {{(unsigned)blocks, 1, 1}, THREADS, 0, 0, 0};
  return fa_cuda_start_with(plan->context, function, shape, &params, stream);
}

fa_status fa_cuda_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim,
                        const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b, fa_stream stream) {
  const fa_cuda_named_pointer given[] = {
      {"o_a", o_a->data}, {"lse_a", lse_a}, {"o_b", o_b->data}, {"lse_b", lse_b}};
  fa_status status = fa_cuda_check_pointers(context, given, sizeof given / sizeof *given);
  if (status != FA_OK) return status;
  fa_cuda_function function;
  status = fa_cuda_find_common(context, FA_CUDA_MERGE, &function);
  if (status != FA_OK) return status;
  if (batch > INT32_MAX / heads || batch * heads > INT32_MAX / seqlen)
    return fa_fail(FA_ERROR_UNSUPPORTED, "fa_merge: %lld x %lld x %lld rows are more than 2^31; merge in smaller batches",
                   (long long)batch, (long long)seqlen, (long long)heads);
  const int64_t blocks = fa_ceil_div(batch * seqlen * heads, MERGE_ROWS);
  fa_cuda_merge_params params;
  memset(&params, 0, sizeof params);
  params.o_a = fa_cuda_tensor_of(o_a);
  params.o_b = fa_cuda_tensor_of(o_b);
  params.lse_a = lse_a;
  params.lse_b = lse_b;
  params.dtype = (int32_t)dtype;
  params.batch = (int32_t)batch;
  params.seqlen = (int32_t)seqlen;
  params.heads = (int32_t)heads;
  params.dim = (int32_t)dim;
  const fa_cuda_shape shape = {{(unsigned)blocks, 1, 1}, THREADS, 0, 0, 0};
  return fa_cuda_start_with(context, function, shape, &params, stream);
}
