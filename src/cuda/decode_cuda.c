/* Decode on the GPU: at most 16 query rows a sequence, bound by reading K and V once.
 *
 * 16-bit q with 16-bit, int8 or fp8 K and V goes to the tensor cores (any/decode_any_mma.cuh; compute capability 7.5 for
 * fp16, 8.0 for bf16), everything else, and rows that do not lie on 16 bytes, to plain multiply-adds
 * (any/prefill_any.cuh). Which warps do what, how many stages of keys wait in shared memory and into how many parts the
 * sequences are cut follows from the plan's maxima and the device; part lengths come from the actual lengths, on the
 * device. */
#include <stdio.h>

#include "core/kernel_declarations.h"
#include "cuda/decode_shape.h"
#include "cuda/kv_split_cuda.h"
#include "cuda/plain_cuda.h"

enum {
  LEAST_PART = 64, /* keys */
  ROW_WARPS = 4,
  /* Warps of OWN, by what an H200 read soonest: 4, and 8 for as many keys, where a block is alone on a multiprocessor; 2
   * where there are more blocks than multiprocessors hold of 4 warps. */
  BLOCK_WARPS = 4,
  WIDE_KEYS = 512,
  SLIM_WARPS = 2,
};

typedef struct decode_layout {
  int mode; /* FA_DECODE_OWN, .. */
  int64_t warps, stages;
  int64_t rows;      /* packed rows of a block */
  int64_t cluster;   /* blocks of one, which join the parts; 0: a launch of its own joins them */
  unsigned shared_bytes;
} decode_layout;

typedef struct choice {
  fa_cuda_function function; /* NULL: always the plain one */
  int follows;               /* fa_cuda_shape of function */
  decode_layout layout;
  fa_cuda_plain plain;
  fa_cuda_join join;
} choice;

static int takes_tensor_cores(const fa_plan *plan) {
  const int32_t capability = fa_cuda_capability(plan->context);
  return (plan->problem.dtype == FA_FLOAT16 && capability >= 75) || (plan->problem.dtype == FA_BFLOAT16 && capability >= 80);
}

/* Bytes of a row in whole pieces: 64 bytes of K across four lanes, 128 of V across eight. */
static int64_t k_pieces(const fa_attention_problem *p) {
  return fa_ceil_div(p->head_dim_qk * (int64_t)fa_dtype_bytes(p->kv_dtype), 64);
}
static int64_t v_pieces(const fa_attention_problem *p) {
  return fa_ceil_div(p->head_dim_v * (int64_t)fa_dtype_bytes(p->kv_dtype), 128);
}

/* Both head sizes 128, or 64 where that is a whole line of 128 bytes too. */
static int has_own_instance(const fa_attention_problem *p) {
  return p->head_dim_qk == p->head_dim_v && (p->head_dim_v == 128 || (p->head_dim_v == 64 && p->kv_dtype == p->dtype));
}

/* Shared memory of a block, as any/decode_any_block.cuh lays it out. */
static int64_t shared_bytes(const fa_plan *plan, const decode_layout *l) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t is_quantised = p->kv_dtype != p->dtype, size = (int64_t)fa_dtype_bytes(p->kv_dtype);
  const int64_t q_tiles = l->mode == FA_DECODE_ROWS_MODE ? l->warps : has_own_instance(p) ? 0 : 1; /* else in registers */
  const int64_t q = k_pieces(p) * (4 / size) * 512 * q_tiles;
  const int64_t step = (fa_ceil_div(k_pieces(p), 2) + v_pieces(p)) * 2048 + is_quantised * 128;
  const int64_t ring = l->stages * step * (l->mode == FA_DECODE_SLICE ? 1 : l->warps);
  const int64_t columns = v_pieces(p) * (128 / size) + FA_DECODE_JOIN_PAD;
  const int64_t join = 4 * (l->warps * FA_DECODE_JOIN_HEAD +
                            (l->mode == FA_DECODE_SLICE ? 1 : l->warps) * FA_DECODE_STEP * columns);
  const int64_t rows = fa_min(FA_DECODE_STEP * (l->mode == FA_DECODE_ROWS_MODE ? l->warps : 1), plan->group * p->max_seqlen_q);
  return fa_max(q + ring, join) + (l->cluster ? FA_DECODE_EXCHANGE_BYTES(l->cluster, rows, p->head_dim_v) : 0);
}

/* For parts of `part` keys, with `warps` where the mode leaves it open. The first of these that fits: many loads in flight
 * first, then a few blocks to overlap one's arithmetic with another's waiting; never more stages than a part fills. Fewer
 * warps than asked for is for wide heads on small shared memories. */
static int lay_out(const fa_plan *plan, int64_t part, int64_t warps, int64_t cluster, decode_layout *l) {
  l->cluster = cluster;
  const fa_attention_problem *p = &plan->problem;
  static const struct {
    int64_t blocks, stages;
  } wanted[] = {{3, 3}, {2, 3}, {2, 2}, {1, 4}, {1, 3}, {1, 2}};
  const int64_t all_rows = fa_max(plan->group * p->max_seqlen_q, 1);
  int64_t least_warps = 1, most_warps = 12; /* registers: of a multiprocessor, at 168 a thread */
  l->mode = FA_DECODE_OWN;
  if (p->head_dim_v > 256) {
    l->mode = FA_DECODE_SLICE;
    warps = least_warps = fa_ceil_div(p->head_dim_v, 128);
  } else if (p->head_dim_v > 128) {
    most_warps = 8;
  } else if (all_rows > FA_DECODE_STEP) {
    l->mode = FA_DECODE_ROWS_MODE;
    warps = least_warps = fa_min(fa_ceil_div(all_rows, FA_DECODE_STEP), ROW_WARPS);
  }
  for (l->warps = warps; l->warps >= least_warps; l->warps /= 2)
    for (size_t n = 0; n < sizeof wanted / sizeof wanted[0]; ++n) {
      const int64_t in_stage = FA_DECODE_STEP * (l->mode == FA_DECODE_SLICE ? 1 : l->warps), blocks = wanted[n].blocks;
      l->stages = fa_min(wanted[n].stages, fa_max(fa_ceil_div(part, in_stage), 2));
      const int64_t bytes = shared_bytes(plan, l);
      if (blocks > fa_max(most_warps / l->warps, 1) || bytes > UINT32_MAX ||
          fa_cuda_blocks_at_once(plan->context, (unsigned)bytes) < blocks)
        continue;
      l->shared_bytes = (unsigned)bytes;
      l->rows = l->mode == FA_DECODE_ROWS_MODE ? FA_DECODE_STEP * l->warps : FA_DECODE_STEP;
      return 1;
    }
  return 0;
}

static fa_status find_tensor(const fa_plan *plan, choice *made) {
  const fa_attention_problem *p = &plan->problem;
  const char *mode = made->layout.mode == FA_DECODE_SLICE       ? "slice"
                     : made->layout.mode == FA_DECODE_ROWS_MODE ? "rows128"
                     : p->head_dim_v > 128                      ? "own256"
                     : has_own_instance(p)                      ? (p->head_dim_v == 64 ? "d64" : "d128")
                                                                : "own128";
  char name[64];
  snprintf(name, sizeof name, "decode_%s_%s_%s", fa_dtype_name(p->dtype), fa_dtype_name(p->kv_dtype), mode);
  /* Every plan of the device asks for the same limit: it belongs to the function, not to the plan. */
  const fa_status status = fa_cuda_find(plan->context, p->kv_dtype == p->dtype ? "decode_any" : "decode_any_quantised", name,
                                        fa_cuda_shared_limit(plan->context), &made->function);
  if (status == FA_OK) made->follows = fa_cuda_may_follow(plan->context, made->function);
  return status;
}

/* The layout of clusters of `blocks` that share the sequences of `units`; 0: none that all run at once (a cluster lies in one
 * part of the device, a GPC, where a large one may find no room beside others), or with problem.kv_splits none at all. */
static int lay_out_cluster(const fa_plan *plan, int64_t units, int64_t blocks, fa_cuda_function function, decode_layout *l) {
  const int64_t forced = plan->problem.kv_splits, part = fa_ceil_div(plan->problem.max_seqlen_kv, blocks);
  if (blocks > FA_DECODE_MOST_PARTS || part < (forced ? 1 : LEAST_PART) || units > INT32_MAX / blocks) return 0;
  if (!lay_out(plan, part, part < WIDE_KEYS ? BLOCK_WARPS : FA_DECODE_MOST_WARPS, blocks, l)) return 0;
  const fa_cuda_shape shape = {{(unsigned)(units * blocks), 1, 1}, (unsigned)(32 * l->warps), l->shared_bytes,
                               (unsigned)blocks, 0};
  return fa_cuda_clusters_at_once(plan->context, function, shape) >= (forced ? 1 : units);
}

/* How many blocks share a sequence: plan->kv_splits is to become the result. And made->layout for them. */
static int64_t share_sequences(const fa_plan *plan, int64_t units, choice *made) {
  const int64_t keys = plan->problem.max_seqlen_kv, processors = fa_cuda_multiprocessors(plan->context);
  const int has_clusters = fa_cuda_capability(plan->context) >= FA_CUDA_CLUSTERS;
  const fa_split_rates rates = made->function ? fa_rates_of_reading(has_clusters) : fa_rates_of_arithmetic();
  int64_t splits = fa_cuda_choose_splits(plan, rates, units, LEAST_PART);
  if (!made->function) return splits;
  const int64_t warps = splits > 1 ? BLOCK_WARPS
                        : units <= processors ? FA_DECODE_MOST_WARPS
                        : units <= 2 * processors ? BLOCK_WARPS
                                                  : SLIM_WARPS;
  decode_layout l;
  if (lay_out(plan, fa_ceil_div(keys, splits), warps, 0, &l)) made->layout = l;
  if (plan->problem.kv_splits) {
    if (splits > 1 && lay_out_cluster(plan, units, splits, made->function, &l)) made->layout = l;
    return splits;
  }
  int64_t cost = fa_split_cost(rates, units, fa_cuda_rows(plan), keys, processors, splits);
  for (int64_t blocks = 2; blocks <= FA_DECODE_MOST_PARTS && units <= processors; blocks *= 2) {
    const int64_t here = fa_cluster_cost(rates, units, keys, processors, blocks);
    if (here > cost || !lay_out_cluster(plan, units, blocks, made->function, &l)) continue;
    splits = blocks, cost = here, made->layout = l;
  }
  return splits;
}

fa_status fa_decode_any_prepare(fa_plan *plan) {
  choice made = {0};
  fa_status status = fa_cuda_find_plain(plan, &made.plain);
  if (status == FA_OK && takes_tensor_cores(plan) && lay_out(plan, plan->problem.max_seqlen_kv, BLOCK_WARPS, 0, &made.layout))
    status = find_tensor(plan, &made);
  if (status != FA_OK) return status;

  const int64_t rows = made.function ? made.layout.rows : made.plain.rows;
  const int64_t units = fa_cuda_row_blocks(plan, rows);
  const int64_t most_units = fa_max(units, fa_cuda_row_blocks(plan, made.plain.rows)); /* rows that are not aligned */
  status = fa_cuda_prepare_splits(plan, share_sequences(plan, units, &made), most_units, made.follows, &made.join);
  if (status != FA_OK) return status;
  if (plan->kv_splits > 1)
    snprintf(plan->reason, sizeof plan->reason, "keys in %lld parts, joined by %s", (long long)plan->kv_splits,
             made.layout.cluster ? "the blocks of a cluster where rows lie on 16 bytes" : "a launch behind");
  plan->tiles.level1_rows = rows;
  plan->tiles.level1_keys = fa_ceil_div(plan->problem.max_seqlen_kv, plan->kv_splits);
  plan->tiles.level2_rows = made.function ? FA_DECODE_STEP : rows / 8;
  plan->tiles.level2_keys = made.function ? FA_DECODE_STEP : FA_CUDA_PLAIN_KEYS;
  choice *kept = fa_host_allocate(plan->context, sizeof *kept);
  if (!kept) return FA_ERROR_MEMORY;
  *kept = made;
  plan->kernel_data = kept;
  return FA_OK;
}

void fa_decode_any_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }

fa_status fa_decode_any_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const choice *made = plan->kernel_data;
  if (plan->problem.max_seqlen_q == 0) return FA_OK; /* no rows, whatever the ragged tensors could hold */
  fa_cuda_params params;
  fa_cuda_params_of(plan, args, &params);
  const decode_layout *l = &made->layout;
  const int is_tensor = made->function && params.aligned;
  fa_status status;
  if (is_tensor) {
    fa_cuda_split_params(plan, workspace, FA_DECODE_STEP * (l->mode == FA_DECODE_SLICE ? 1 : l->warps), l->rows,
                         &params);
    params.stages = (int32_t)l->stages;
    const int64_t blocks = fa_cuda_row_blocks(plan, l->rows) * plan->kv_splits;
    const fa_cuda_shape shape = {{(unsigned)blocks, 1, 1}, (unsigned)(32 * l->warps), l->shared_bytes,
                                 (unsigned)l->cluster, made->follows};
    status = fa_cuda_start(plan->context, made->function, shape, &params, stream);
  } else {
    fa_cuda_split_params(plan, workspace, FA_CUDA_PLAIN_KEYS, made->plain.rows, &params);
    status = fa_cuda_start_plain(plan, &made->plain, &params, stream);
  }
  if (status != FA_OK || (is_tensor && l->cluster)) return status;
  return fa_cuda_join_splits(plan, &made->join, &params, stream);
}
