/* Shape, level-one tiles and workspace of prefill_bf16_amx.c and prefill_terms_amx.c (super_block_amx.h).
 *
 * Workspace: packed K and V of the KV heads in work (to 64 MB, or one head); a thread: Q's terms, O in fp32, rings of P and
 * scores, a key block's rows where K and V are quantised. The fp32 tiles' own, with several terms. */
#ifndef FA_CPU_LAYOUT_AMX_H
#define FA_CPU_LAYOUT_AMX_H

#include "cpu/pipeline_amx.h"
#include "cpu/prefill_exact.h"
#include "cpu/quantised_amx.h"

#define ALIGN 64
enum { AMX_MOST_ROWS = 8192, AMX_MOST_KEYS = 8192 }; /* what a tuning file may ask for */

typedef void (*iterate_function)(fa_amx_pipeline *, const fa_amx_block *, const fa_amx_block *, const fa_amx_block *,
                                 fa_amx_shape);
/* NULL: not compiled. */
static iterate_function iterate_for(fa_amx_shape shape);

/* Memory a thread needs for rows done without tiles (amx_run_vector); defined by the kernel's file. */
static size_t amx_vector_bytes(const fa_plan *plan);

/* The pipeline is compiled for some shapes; others take the next larger one, with zeros for what they lack. */
static fa_amx_shape shape_of(const fa_attention_problem *problem) {
  static const int rounds[9][2] = {{1, 1}, {1, 4}, {2, 2}, {3, 1}, {4, 1}, {5, 1}, {6, 1}, {7, 1}, {8, 1}};
  fa_amx_shape shape;
  shape.terms = problem->dtype == FA_FLOAT32 ? 3 : problem->dtype == FA_FLOAT16 ? 2 : 1;
  shape.wants_lse = problem->has_lse;
  shape.qk_steps = (int)fa_ceil_div(problem->head_dim_qk, 32);
  shape.units = (int)fa_ceil_div(problem->head_dim_v, 32);
  while (!iterate_for(shape)) {
    if (shape.qk_steps < shape.units) ++shape.qk_steps;
    else if (shape.units < shape.qk_steps) ++shape.units;
    else ++shape.qk_steps, ++shape.units;
  }
  shape.rounds = rounds[shape.units][0];
  shape.round_chunks = rounds[shape.units][1];
  return shape;
}

/* ------------------------------------------------------------- workspace: packed heads, then what each thread works in */

/* Where a KV head has several super-blocks, its K and V are packed once for all of them, by all threads, for so many heads at a
 * time that there are enough super-blocks to keep the threads busy. Otherwise a thread packs what it needs, and its caches
 * have it. */
typedef struct amx_packing {
  int64_t heads; /* packed at a time, more where a ragged batch has shorter ones; 0: none, every thread packs for itself */
  int64_t keys;  /* room a head has */
  size_t bytes;  /* of a head */
} amx_packing;

#define BUSY_ITEMS 32               /* super-blocks a thread between two barriers: the last of them is a few percent */
#define MOST_PACKED_BYTES (1 << 26) /* unless one head alone takes more */

typedef struct amx_layout {
  size_t kv, q, o, scores, p, reference, limit, sum, exact_sum, pending, discard, part, subs, blocks, rows, exact, vector,
      bytes;
} amx_layout;

static int64_t sub_count(const fa_plan *plan) {
  return fa_ceil_div(plan->problem.max_seqlen_q, FA_SUB_ROWS) * plan->group;
}

static int64_t super_blocks_of(const fa_plan *plan) {
  return fa_ceil_div(sub_count(plan), plan->tiles.level1_rows / FA_SUB_ROWS);
}

/* A word a packed head: not 0 where a value of its K or V cannot be split into terms. */
static size_t amx_flags_bytes(const amx_packing *packed) {
  return (size_t)fa_round_up(packed->heads * (int64_t)sizeof(int32_t), ALIGN);
}

/* K and V of a key block, packed; behind them, where K is quantised (quantised_amx.h), a scale a key. */
static int64_t block_tiles_bytes(const fa_plan *plan) {
  const fa_amx_shape shape = shape_of(&plan->problem);
  return plan->tiles.level2_keys / FA_CHUNK_KEYS * (shape.qk_steps + shape.units) * shape.terms * 2 * FA_TILE_BYTES;
}
static bool block_has_scales(const fa_plan *plan) {
  return amx_is_quantised(&plan->problem) && plan->problem.dtype != FA_FLOAT32;
}
static int64_t block_bytes_of(const fa_plan *plan) {
  return block_tiles_bytes(plan) + (block_has_scales(plan) ? plan->tiles.level2_keys * (int64_t)sizeof(float) : 0);
}

static amx_packing amx_packing_of(const fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  amx_packing at = {0, fa_round_up(p->max_seqlen_kv, plan->tiles.level2_keys), 0};
  at.bytes = (size_t)(at.keys / plan->tiles.level2_keys * block_bytes_of(plan));
  const int64_t super_blocks = super_blocks_of(plan);
  if (super_blocks < 2 || at.keys == 0) return at;
  const int64_t busy = fa_ceil_div(BUSY_ITEMS * plan->context->threads, super_blocks);
  const int64_t fit = MOST_PACKED_BYTES / (int64_t)at.bytes;
  at.heads = fa_max(1, fa_min(fa_min(busy, fit), p->batch * p->heads_kv));
  return at;
}

static size_t amx_packed_bytes(const amx_packing *packed) {
  return amx_flags_bytes(packed) + (size_t)packed->heads * packed->bytes;
}

static amx_layout amx_layout_of(const fa_plan *plan) {
  const fa_amx_shape shape = shape_of(&plan->problem);
  const size_t keys = (size_t)plan->tiles.level1_keys, chunks = (size_t)(shape.rounds * shape.round_chunks);
  const size_t subs = (size_t)(plan->tiles.level1_rows / FA_SUB_ROWS);
  amx_layout at;
  size_t end = 0;
#define PLACE(field, size) at.field = end, end += ((size) + ALIGN - 1) / ALIGN * ALIGN
  PLACE(scores, 2u * (size_t)shape.round_chunks * 4u * FA_TILE_BYTES);
  PLACE(p, 2u * chunks * (size_t)shape.terms * 2u * FA_TILE_BYTES);
  PLACE(pending, FA_SUB_ROWS * sizeof(float));
  PLACE(discard, 4u * FA_TILE_BYTES);
  PLACE(part, 4u * FA_TILE_BYTES);
  PLACE(reference, subs * FA_SUB_ROWS * sizeof(float));
  PLACE(limit, subs * FA_SUB_ROWS * sizeof(float));
  PLACE(sum, subs * FA_SUB_ROWS * sizeof(float));
  PLACE(exact_sum, subs * FA_SUB_ROWS * sizeof(float));
  PLACE(subs, subs * sizeof(fa_amx_sub));
  PLACE(blocks, subs * (keys / (chunks * FA_CHUNK_KEYS)) * sizeof(fa_amx_block));
  PLACE(q, subs * (size_t)(shape.qk_steps * shape.terms) * 2u * FA_TILE_BYTES);
  PLACE(o, subs * (size_t)shape.units * 4u * FA_TILE_BYTES);
  PLACE(kv, amx_packing_of(plan).heads ? 0 : keys / (size_t)plan->tiles.level2_keys * (size_t)block_bytes_of(plan));
  PLACE(rows, amx_is_quantised(&plan->problem) ? (size_t)(plan->tiles.level2_keys * amx_row_bytes(&plan->problem)) : 0);
  PLACE(exact, fa_prefill_rows_exact_bytes(plan));
  PLACE(vector, amx_vector_bytes(plan));
#undef PLACE
  at.bytes = end;
  return at;
}

static fa_status amx_prepare(fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  const fa_amx_shape shape = shape_of(p);
  const int64_t block_keys = shape.rounds * shape.round_chunks * FA_CHUNK_KEYS;
  const int64_t l2 = fa_cpu_cache_bytes(2) ? fa_cpu_cache_bytes(2) : (int64_t)1 << 20;
  const int64_t key_bytes = (shape.qk_steps + shape.units) * shape.terms * 64;
  const fa_request *ask = &plan->request;
  const fa_status status = fa_check_request(plan, FA_SUB_ROWS, AMX_MOST_ROWS, block_keys, AMX_MOST_KEYS, 1);
  if (status != FA_OK) return status;
  const int64_t keys = fa_min(ask->level1_keys ? ask->level1_keys : l2 / 4 / key_bytes, fa_max(p->max_seqlen_kv, 1));

  /* Q and O of a super-block take three eighths of L2, the run of keys in work and the next a quarter each. Smaller ones
   * read K and V more often but give every thread something to do. */
  const int64_t total = fa_max(sub_count(plan), 1);
  int64_t subs = fa_min(fa_max(l2 * 3 / 8 / ((shape.qk_steps * shape.terms * 2 + shape.units * 4) * FA_TILE_BYTES), 4), total);
  const int64_t wanted_items = plan->context->threads > 1 ? 4 * plan->context->threads : 1;
  while (subs > 4 && p->batch * p->heads_kv * fa_ceil_div(total, subs) < wanted_items) subs /= 2;
  if (ask->level1_rows) subs = fa_min(ask->level1_rows / FA_SUB_ROWS, total);

  plan->tiles.level1_rows = subs * FA_SUB_ROWS;
  plan->tiles.level1_keys = fa_round_up(fa_max(keys, block_keys), block_keys);
  plan->tiles.level2_rows = FA_SUB_ROWS;
  plan->tiles.level2_keys = block_keys;
  const amx_packing packed = amx_packing_of(plan);
  plan->kernel_workspace_bytes = amx_packed_bytes(&packed) + amx_layout_of(plan).bytes * (size_t)plan->context->threads;
  return FA_OK;
}

#endif
