/* Host side of sm70/prefill_sm70.cu: which instance does a problem, and its grid.
 *
 * An instance is a bucket of head sizes D (64, 96, 128, 192, 256: the larger of D_qk and D_v fits) by what a row may be:
 *   prefill_sm70_d<D>          whole vectors (aligned rows, head sizes multiples of 8), band, sinks
 *   prefill_sm70_d<D>_general  also ALiBi, softcap, bias, mask, any alignment, any head size
 * Alignment is known when pointers are, so run chooses between the two. */
#include <stdio.h>

#include "core/kernel_declarations.h"
#include "cuda/cuda.h"
#include "cuda/sm70/layout_sm70.h"

typedef struct prefill_sm70 {
  fa_cuda_function fast; /* NULL: the problem has rules or odd head sizes */
  fa_cuda_function general;
  fa_cuda_shape shape;
} prefill_sm70;

typedef struct bucket {
  int64_t dim;
  unsigned shared_bytes, rows, keys;
} bucket;

#define BUCKET(D) {D, FA_SM70_SHARED_BYTES(D), FA_SM70_ROWS(D), FA_SM70_KEYS(D)}
static const bucket buckets[] = {BUCKET(64), BUCKET(96), BUCKET(128), BUCKET(192), BUCKET(256)};

_Static_assert(FA_SM70_SHARED_BYTES(64) <= FA_SM70_SHARED && FA_SM70_SHARED_BYTES(96) <= FA_SM70_SHARED &&
                   FA_SM70_SHARED_BYTES(128) <= FA_SM70_SHARED && FA_SM70_SHARED_BYTES(192) <= FA_SM70_SHARED &&
                   FA_SM70_SHARED_BYTES(256) <= FA_SM70_SHARED,
               "a V100 gives a block 96 KB of shared memory");

fa_status fa_prefill_sm70_prepare(fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  if (p->dtype != FA_FLOAT16 || p->kv_dtype != FA_FLOAT16)
    return fa_fail(FA_ERROR_UNSUPPORTED, "prefill_sm70 takes q, k, v of f16; they are %s and %s", fa_dtype_name(p->dtype),
                   fa_dtype_name(p->kv_dtype));
  if (p->kv_splits > 1) return fa_fail(FA_ERROR_UNSUPPORTED, "prefill_sm70 does not split KV; kv_splits is %d", p->kv_splits);
  const int64_t dim = fa_max(p->head_dim_qk, p->head_dim_v);
  const bucket *b = buckets;
  while (b < buckets + sizeof buckets / sizeof *buckets && b->dim < dim) b++;
  if (b == buckets + sizeof buckets / sizeof *buckets)
    return fa_fail(FA_ERROR_UNSUPPORTED, "prefill_sm70 takes head sizes to 256; they are %lld and %lld",
                   (long long)p->head_dim_qk, (long long)p->head_dim_v);

  if (p->max_seqlen_q >= FA_CUDA_UNLIMITED || p->max_seqlen_kv >= FA_CUDA_UNLIMITED)
    return fa_fail(FA_ERROR_UNSUPPORTED, "prefill_sm70 takes fewer than 2^30 queries and keys; they are %lld and %lld",
                   (long long)p->max_seqlen_q, (long long)p->max_seqlen_kv);
  const int64_t row_tiles = fa_ceil_div(p->max_seqlen_q, b->rows), limit = INT32_MAX;
  if (row_tiles > limit || (row_tiles > 0 && p->batch > limit / row_tiles / p->heads_q))
    return fa_fail(FA_ERROR_UNSUPPORTED, "prefill_sm70 needs a block for each %u queries of %lld x %lld heads; at most %lld",
                   b->rows, (long long)p->batch, (long long)p->heads_q, (long long)limit);

  prefill_sm70 *data = fa_host_allocate(plan->context, sizeof *data);
  if (!data) return FA_ERROR_MEMORY;
  *data = (prefill_sm70){.shape = {.grid = {(unsigned)(row_tiles * p->batch * p->heads_q), 1, 1},
                                   .threads = FA_SM70_THREADS,
                                   .shared_bytes = b->shared_bytes}};
  const int rules = fa_cuda_has_rules(p);
  char name[48];
  fa_status status = FA_OK;
  if (!rules && p->head_dim_qk % 8 == 0 && p->head_dim_v % 8 == 0) {
    snprintf(name, sizeof name, "prefill_sm70_d%d", (int)b->dim);
    status = fa_cuda_find(plan->context, "prefill_sm70", name, b->shared_bytes, &data->fast);
  }
  if (status == FA_OK) {
    snprintf(name, sizeof name, "prefill_sm70_d%d_general", (int)b->dim);
    status = fa_cuda_find(plan->context, "prefill_sm70", name, b->shared_bytes, &data->general);
  }
  if (status != FA_OK) {
    fa_host_free(plan->context, data);
    return status;
  }
  plan->kernel_data = data;
  plan->kv_splits = 1;
  plan->tiles = (fa_tiles){.level1_rows = b->rows, .level1_keys = b->keys, .level2_rows = FA_SM70_WARP_ROWS,
                           .level2_keys = b->keys};
  return FA_OK;
}

fa_status fa_prefill_sm70_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const prefill_sm70 *data = plan->kernel_data;
  fa_cuda_params params;
  (void)workspace;
  if (data->shape.grid[0] == 0) return FA_OK; /* no query */
  fa_cuda_params_of(plan, args, &params);
  return fa_cuda_start(plan->context, data->fast && params.aligned ? data->fast : data->general, data->shape, &params,
                       stream);
}

void fa_prefill_sm70_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }
