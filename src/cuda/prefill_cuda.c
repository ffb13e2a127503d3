/* Host side of the tensor-core prefill kernels: which instance serves a problem, its grid and its shared memory.
 *
 * Refused, for the next kernel of the table: fp32, head sizes above 256, KV splits, int8 and fp8 KV, more than 65535 blocks
 * of rows. bf16 has no instruction below sm_80. */
#include <limits.h>
#include <stdio.h>

#include "core/kernel_declarations.h"
#include "cuda/cuda.h"
#include "cuda/prefill_sections.h"
#include "cuda/prefill_shapes.h"

typedef struct shape {
  fa_dtype dtype;
  int rules;
  int64_t dqk, dv;
  int row_tiles, warps, tile, step_tiles, blocks;
} shape;

typedef struct prefill {
  fa_cuda_function function;
  fa_cuda_shape launch;
  fa_divisor by_group, by_heads_kv;
} prefill;

enum { PLAIN, RULES };
enum { GRID_LIMIT = 65535, ROW_BLOCKS = 16, CAUSAL_ROW_BLOCKS = 32 };

#define TYPE_f16 FA_FLOAT16
#define TYPE_bf16 FA_BFLOAT16
#define FA_SHAPE(type, dqk, dv, row_tiles, warps, tile, step, blocks) \
  {TYPE_##type, KIND, dqk, dv, row_tiles, warps, tile, step, blocks},

/* Of the first bucket that is large enough: the first that the device runs as many blocks of at once as it is made for, or,
 * where a sequence has less than ROW_BLOCKS, if causal CAUSAL_ROW_BLOCKS, blocks of its rows, the one of them with the fewest
 * rows. (More rows a block read K and V less often, and lose more at the diagonal; measured with 16K tokens a batch on an
 * H200.) */
static const shape sm80_shapes[] = {
#define KIND PLAIN
    FA_SM80_PLAIN(f16) FA_SM80_PLAIN(bf16)
#undef KIND
#define KIND RULES
        FA_SM80_RULES(f16) FA_SM80_RULES(bf16)
#undef KIND
};
static const shape sm75_shapes[] = {
#define KIND PLAIN
    FA_SM75_PLAIN(f16)
#undef KIND
#define KIND RULES
        FA_SM75_RULES(f16)
#undef KIND
};

static unsigned shared_bytes(const shape *s) {
  return (unsigned)FA_PREFILL_SHARED_BYTES(s->dqk, s->dv, s->row_tiles, s->warps, s->tile);
}

static int64_t rows_of(const shape *s) { return 16 * s->row_tiles * s->warps; }

static const shape *shape_for(const fa_plan *plan, const shape *shapes, size_t count) {
  const fa_attention_problem *p = &plan->problem;
  const int rules = fa_cuda_has_rules(p);
  const int64_t row_blocks = p->causal ? CAUSAL_ROW_BLOCKS : ROW_BLOCKS;
  const shape *full = NULL, *lesser = NULL; /* lesser: fits, if fewer times than it is made for */
  for (size_t i = 0; i < count; ++i) {
    const shape *s = &shapes[i], *found = full ? full : lesser;
    if (s->dtype != p->dtype || s->rules != rules || p->head_dim_qk > s->dqk || p->head_dim_v > s->dv) continue;
    if (found && (s->dqk != found->dqk || s->dv != found->dv)) break; /* a larger bucket is worse than fewer blocks */
    if (fa_cuda_blocks_at_once(plan->context, shared_bytes(s)) >= s->blocks) {
      if (!full || rows_of(s) < rows_of(full)) full = s;
      if (rows_of(full) * row_blocks <= p->max_seqlen_q) break;
    } else if (shared_bytes(s) <= fa_cuda_shared_limit(plan->context) && !lesser) {
      lesser = s;
    }
  }
  return full ? full : lesser;
}

static fa_status prepare(fa_plan *plan, const char *kernel, const shape *shapes, size_t count) {
  const fa_attention_problem *p = &plan->problem;
  if (p->kv_dtype != p->dtype)
    return fa_fail(FA_ERROR_UNSUPPORTED, "kv_dtype is %s; %s takes k and v of q's type", fa_dtype_name(p->kv_dtype), kernel);
  if (p->kv_splits > 1)
    return fa_fail(FA_ERROR_UNSUPPORTED, "kv_splits is %d; %s does not split", (int)p->kv_splits, kernel);
  const shape *s = shape_for(plan, shapes, count);
  if (!s)
    return fa_fail(FA_ERROR_UNSUPPORTED, "%s has no instance for %s, head sizes %lld and %lld", kernel,
                   fa_dtype_name(p->dtype), (long long)p->head_dim_qk, (long long)p->head_dim_v);

  const int64_t rows = rows_of(s);
  const int64_t row_blocks = fa_ceil_div(p->max_seqlen_q, rows), kv_heads = p->batch * p->heads_kv;
  /* KV heads whose K and V lie in a third of L2; more where the grid would not hold the sections. */
  const int64_t section_bytes = fa_cuda_l2_bytes(plan->context) / 3;
  const int64_t kv_bytes = fa_max(1, p->max_seqlen_kv) * (p->head_dim_qk + p->head_dim_v) * 2;
  const int64_t section = fa_max(fa_section_heads(kv_heads, section_bytes / kv_bytes), fa_ceil_div(kv_heads, GRID_LIMIT));
  const int64_t section_heads = section * plan->group;
  if (row_blocks > GRID_LIMIT || section_heads > INT_MAX || kv_heads > INT_MAX - section || p->max_seqlen_kv >= FA_CUDA_UNLIMITED)
    return fa_fail(FA_ERROR_UNSUPPORTED, "max_seqlen_q %lld, max_seqlen_kv %lld, %lld heads in all; %s takes %lld rows, less than 2^30 keys and 2^31 heads",
                   (long long)p->max_seqlen_q, (long long)p->max_seqlen_kv, (long long)(p->batch * p->heads_q), kernel,
                   (long long)(GRID_LIMIT * rows));

  prefill *data = fa_host_allocate(plan->context, sizeof *data);
  if (!data) return FA_ERROR_MEMORY;
  char name[96];
  snprintf(name, sizeof name, "fa_%s_%s_%lld_%lld_%dx%dx%d%s", kernel, fa_dtype_name(s->dtype),
           (long long)s->dqk, (long long)s->dv, s->row_tiles, s->warps, s->tile, s->rules ? "_rules" : "");
  *data = (prefill){.launch = {.grid = {(unsigned)section_heads, (unsigned)row_blocks,
                                        (unsigned)fa_ceil_div(kv_heads, section)},
                               .threads = (unsigned)s->warps * 32u,
                               .shared_bytes = shared_bytes(s)},
                    .by_group = fa_divisor_of(fa_max(plan->group, 1)),
                    .by_heads_kv = fa_divisor_of(fa_max(p->heads_kv, 1))};
  const fa_status status = fa_cuda_find(plan->context, kernel, name, data->launch.shared_bytes, &data->function);
  if (status) {
    fa_host_free(plan->context, data);
    return status;
  }
  plan->kernel_data = data;
  plan->tiles.level1_rows = rows;
  plan->tiles.level1_keys = s->tile;
  plan->tiles.level2_rows = 16 * s->row_tiles;
  plan->tiles.level2_keys = 16 * s->step_tiles;
  plan->kv_splits = 1;
  return FA_OK;
}

static fa_status run(const fa_plan *plan, const fa_attention_args *args, fa_stream stream) {
  const prefill *data = plan->kernel_data;
  if (data->launch.grid[0] == 0 || data->launch.grid[1] == 0 || data->launch.grid[2] == 0) return FA_OK;
  fa_cuda_params params;
  fa_cuda_params_of(plan, args, &params);
  params.splits = 1;
  params.split_tile = 1;
  params.by_group = data->by_group;
  params.by_heads_kv = data->by_heads_kv;
  return fa_cuda_start(plan->context, data->function, data->launch, &params, stream);
}

static void release(fa_plan *plan) {
  fa_host_free(plan->context, plan->kernel_data);
  plan->kernel_data = NULL;
}

fa_status fa_prefill_sm80_prepare(fa_plan *plan) {
  return prepare(plan, "prefill_sm80", sm80_shapes, sizeof sm80_shapes / sizeof *sm80_shapes);
}
fa_status fa_prefill_sm80_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  (void)workspace;
  return run(plan, args, stream);
}
void fa_prefill_sm80_release(fa_plan *plan) { release(plan); }

fa_status fa_prefill_sm75_prepare(fa_plan *plan) {
  return prepare(plan, "prefill_sm75", sm75_shapes, sizeof sm75_shapes / sizeof *sm75_shapes);
}
fa_status fa_prefill_sm75_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  (void)workspace;
  return run(plan, args, stream);
}
void fa_prefill_sm75_release(fa_plan *plan) { release(plan); }
