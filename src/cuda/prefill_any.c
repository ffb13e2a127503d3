/* Attention of any number of rows on plain multiply-adds: every type, feature and head size. any/prefill_any.cuh has the
 * formula and the tiles. Short problems are split over KV so that the device is filled. */
#include <stdio.h>

#include "core/kernel_declarations.h"
#include "cuda/kv_split_cuda.h"
#include "cuda/plain_cuda.h"

enum {
  THREADS = 256,
  LEAST_PART = 256    /* keys; less costs more in joining than it gains */
};

typedef struct choice {
  fa_cuda_plain plain;
  fa_cuda_join join;
} choice;

int64_t fa_cuda_row_blocks(const fa_plan *plan, int64_t rows) {
  const fa_attention_problem *p = &plan->problem;
  return p->batch * p->heads_kv * fa_max(fa_ceil_div(plan->group * p->max_seqlen_q, rows), 1);
}

fa_status fa_cuda_find_plain(const fa_plan *plan, fa_cuda_plain *plain) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t all_rows = plan->group * p->max_seqlen_q;
  if (all_rows > INT32_MAX - 1024 || p->max_seqlen_q >= FA_CUDA_UNLIMITED || p->max_seqlen_kv >= FA_CUDA_UNLIMITED)
    return fa_fail(FA_ERROR_UNSUPPORTED, "%lld queries of %lld heads a KV head and %lld keys; the GPU kernels take 2^31 rows a "
                   "KV head and fewer than 2^30 queries and keys", (long long)p->max_seqlen_q, (long long)plan->group,
                   (long long)p->max_seqlen_kv);
  plain->rows = p->head_dim_v <= 128 && all_rows > 32 ? 64 : p->head_dim_v <= 256 && all_rows > 16 ? 32 : 16;
  char name[64];
  snprintf(name, sizeof name, "prefill_%s_%s_%d", fa_dtype_name(p->dtype), fa_dtype_name(p->kv_dtype), (int)plain->rows);
  return fa_cuda_find(plan->context, "prefill_any", name, 0, &plain->function);
}

fa_status fa_cuda_start_plain(const fa_plan *plan, const fa_cuda_plain *plain, const fa_cuda_params *params,
                              fa_stream stream) {
  const int64_t blocks = fa_cuda_row_blocks(plan, plain->rows) * plan->kv_splits;
  const fa_cuda_shape shape = {{(unsigned)blocks, 1, 1}, THREADS, 0, 0, 0};
  return fa_cuda_start(plan->context, plain->function, shape, params, stream);
}

fa_status fa_prefill_any_prepare(fa_plan *plan) {
  choice made;
  fa_status status = fa_cuda_find_plain(plan, &made.plain);
  if (status != FA_OK) return status;
  const int64_t units = fa_cuda_row_blocks(plan, made.plain.rows);
  status = fa_cuda_prepare_splits(plan, fa_cuda_choose_splits(plan, fa_rates_of_arithmetic(), units, LEAST_PART), units,
                                  0, &made.join);
  if (status != FA_OK) return status;
  plan->tiles.level1_rows = made.plain.rows;
  plan->tiles.level1_keys = plan->tiles.level2_keys = FA_CUDA_PLAIN_KEYS;
  plan->tiles.level2_rows = made.plain.rows / 8;
  choice *kept = fa_host_allocate(plan->context, sizeof *kept);
  if (!kept) return FA_ERROR_MEMORY;
  *kept = made;
  plan->kernel_data = kept;
  return FA_OK;
}

void fa_prefill_any_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }

fa_status fa_prefill_any_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const choice *made = plan->kernel_data;
  if (plan->problem.max_seqlen_q == 0) return FA_OK; /* no rows, whatever the ragged tensors could hold */
  fa_cuda_params params;
  fa_cuda_params_of(plan, args, &params);
  fa_cuda_split_params(plan, workspace, FA_CUDA_PLAIN_KEYS, made->plain.rows, &params);
  const fa_status status = fa_cuda_start_plain(plan, &made->plain, &params, stream);
  return status == FA_OK ? fa_cuda_join_splits(plan, &made->join, &params, stream) : status;
}
