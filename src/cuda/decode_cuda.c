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
  LEAST_PART = 64,          /* keys */
  ROW_WARPS = 4,
  BLOCK_WARPS = 4
};

typedef struct decode_layout {
  int mode; /* FA_DECODE_OWN, .. */
  int64_t warps, stages;
  int64_t rows;      /* packed rows of a block */
  unsigned shared_bytes;
} decode_layout;

typedef struct choice {
  fa_cuda_function function; /* NULL: always the plain one */
  decode_layout layout;
  fa_cuda_plain plain;
  fa_cuda_function join;
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

/* Shared memory of a block, as any/decode_any_block.cuh lays it out. */
static int64_t shared_bytes(const fa_attention_problem *p, const decode_layout *l) {
  const int64_t is_quantised = p->kv_dtype != p->dtype, size = (int64_t)fa_dtype_bytes(p->kv_dtype);
  const int64_t q = k_pieces(p) * (4 / size) * 512 * (l->mode == FA_DECODE_ROWS_MODE ? l->warps : 1);
  const int64_t step = (fa_ceil_div(k_pieces(p), 2) + v_pieces(p)) * 2048 + is_quantised * 128;
  const int64_t ring = l->stages * step * (l->mode == FA_DECODE_SLICE ? 1 : l->warps);
  const int64_t columns = v_pieces(p) * (128 / size) + FA_DECODE_JOIN_PAD;
  const int64_t join = 4 * (l->warps * FA_DECODE_JOIN_HEAD +
                            (l->mode == FA_DECODE_SLICE ? 1 : l->warps) * FA_DECODE_STEP * columns);
  return fa_max(q + ring, join);
}

/* `warps` where the mode leaves it open. The first of these that fits: many loads in flight first, then a few blocks to
 * overlap one's arithmetic with another's waiting. A block less than 4 warps is for wide heads on small shared memories. */
static int lay_out(const fa_plan *plan, int64_t warps, decode_layout *l) {
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
      l->stages = wanted[n].stages;
      const int64_t blocks = wanted[n].blocks;
      const int64_t bytes = shared_bytes(p, l);
      if (blocks > fa_max(most_warps / l->warps, 1) || bytes > UINT32_MAX ||
          fa_cuda_blocks_at_once(plan->context, (unsigned)bytes) < blocks)
        continue;
      l->shared_bytes = (unsigned)bytes;
      l->rows = l->mode == FA_DECODE_ROWS_MODE ? FA_DECODE_STEP * l->warps : FA_DECODE_STEP;
      return 1;
    }
  return 0;
}

/* Both head sizes 128, or 64 where that is a whole line of 128 bytes too. */
static int has_own_instance(const fa_attention_problem *p) {
  return p->head_dim_qk == p->head_dim_v && (p->head_dim_v == 128 || (p->head_dim_v == 64 && p->kv_dtype == p->dtype));
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
  return fa_cuda_find(plan->context, p->kv_dtype == p->dtype ? "decode_any" : "decode_any_quantised", name,
                      fa_cuda_shared_limit(plan->context), &made->function);
}

fa_status fa_decode_any_prepare(fa_plan *plan) {
  choice made = {0};
  fa_status status = fa_cuda_find_plain(plan, &made.plain);
  if (status == FA_OK && takes_tensor_cores(plan) && lay_out(plan, BLOCK_WARPS, &made.layout)) status = find_tensor(plan, &made);
  if (status != FA_OK) return status;

  const int64_t rows = made.function ? made.layout.rows : made.plain.rows;
  const int64_t units = fa_cuda_row_blocks(plan, rows);
  const int64_t most_units = fa_max(units, fa_cuda_row_blocks(plan, made.plain.rows)); /* rows that are not aligned */
  status = fa_cuda_prepare_splits(plan, units, most_units, LEAST_PART, &made.join);
  if (status != FA_OK) return status;
  /* A sequence that one block reads alone, on a device with room: more warps read it sooner. */
  decode_layout wide;
  if (made.function && made.layout.mode == FA_DECODE_OWN && plan->kv_splits == 1 &&
      units <= fa_cuda_multiprocessors(plan->context) && lay_out(plan, FA_DECODE_MOST_WARPS, &wide))
    made.layout = wide;
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
  fa_status status;
  if (made->function && params.aligned) {
    const decode_layout *l = &made->layout;
    fa_cuda_split_params(plan, workspace, FA_DECODE_STEP * (l->mode == FA_DECODE_SLICE ? 1 : l->warps), &params);
    const int64_t blocks = fa_cuda_row_blocks(plan, l->rows) * plan->kv_splits;
    const fa_cuda_shape shape = {{(unsigned)blocks, 1, 1}, (unsigned)(32 * l->warps), l->shared_bytes};
    status = fa_cuda_start(plan->context, made->function, shape, &params, stream);
  } else {
    fa_cuda_split_params(plan, workspace, FA_CUDA_PLAIN_KEYS, &params);
    status = fa_cuda_start_plain(plan, &made->plain, &params, stream);
  }
  return status == FA_OK ? fa_cuda_join_splits(plan, made->join, &params, stream) : status;
}
