/* Prefill, fp32 and fp16 on AMX's bf16 products: o = softmax(rules(scale q k^T)) v with every score rule, sinks, GQA, ragged and
 * paged sequences, quantised caches; heads larger than 256 are prefill_split_amx's.
 *
 * A value is the exact sum of bf16 terms, three for fp32 and two for fp16, multiplied term by term in the pipeline of
 * prefill_bf16_amx: fp32 takes six products of nine (the rest is below 2^-24 of a product), fp16 four for scores and three for
 * P V, whose P is cut to 16 bits. Softmax runs beside them, exact to fp32 (fp16: to 4e-6).
 *
 * Level one: super_block_amx.h. Level two: 32 queries x 128 keys (D = 128), pipeline_amx.h; a tile is loaded once for two to
 * three products, so that loads are not the limit they are for bf16.
 *
 * Infinities, NaN and values beyond 2^60 have no such sum, and the tile unit takes subnormal numbers as zero, which matters
 * where all of V is below 2^-70: what meets them, a sub-block of Q or a KV head, is done by the fp32 tiles of prefill_tiles.h.
 *
 * Bound: arithmetic; 12 (fp32) or 7 (fp16) times 2 S_q S_kv D_pad operations a head. Measured times: docs/performance.md, "AMX
 * prefill". */
#include "cpu/lanes_avx512.h"

enum { ROWS = 12, ITEM_STEP = 32 };

#include "cpu/pack_terms_amx.h"
#include "cpu/prefill_tiles.h"
#include "cpu/super_block_amx.h"

/* ------------------------------------------------------------- instances of the pipeline */

#define INSTANCE(steps, units, rounds, round_chunks, terms)                                                               \
  static __attribute__((noinline)) void iterate_##steps##_##units##_##terms(                                              \
      fa_amx_pipeline *w, const fa_amx_block *now, const fa_amx_block *before, const fa_amx_block *earlier,               \
      fa_amx_shape shape) {                                                                                               \
    (void)shape;                                                                                                          \
    fa_amx_iterate_shape(w, now, before, earlier, steps, units, rounds, round_chunks, terms, 0);                          \
  }
INSTANCE(2, 2, 2, 2, 2)
INSTANCE(8, 8, 8, 1, 2)
INSTANCE(2, 2, 2, 2, 3)
INSTANCE(8, 8, 8, 1, 3)
#ifndef FA_FEW_SHAPES /* sanitizers take minutes over each */
INSTANCE(3, 3, 3, 1, 2)
INSTANCE(4, 4, 4, 1, 2)
INSTANCE(6, 6, 6, 1, 2)
INSTANCE(3, 3, 3, 1, 3)
INSTANCE(4, 4, 4, 1, 3)
INSTANCE(6, 6, 6, 1, 3)
#endif

static iterate_function iterate_for(fa_amx_shape shape) {
  switch (shape.qk_steps * 256 + shape.units * 16 + shape.terms) {
    case 0x222: return iterate_2_2_2;
    case 0x882: return iterate_8_8_2;
    case 0x223: return iterate_2_2_3;
    case 0x883: return iterate_8_8_3;
#ifndef FA_FEW_SHAPES
    case 0x332: return iterate_3_3_2;
    case 0x442: return iterate_4_4_2;
    case 0x662: return iterate_6_6_2;
    case 0x333: return iterate_3_3_3;
    case 0x443: return iterate_4_4_3;
    case 0x663: return iterate_6_6_3;
#endif
    default: return NULL;
  }
}

/* ------------------------------------------------------------- packing */

static bool amx_pack_q(fa_dtype dtype, fa_cpu_rows rows, int64_t row, int64_t seqlen_q, int64_t dim, int steps, float scale,
                       char *q) {
  if (dtype == FA_FLOAT16) return amx_pack_q_terms(FA_FLOAT16, 2, rows, row, seqlen_q, dim, steps, scale, q);
  return amx_pack_q_terms(FA_FLOAT32, 3, rows, row, seqlen_q, dim, steps, scale, q);
}

static bool amx_pack_k(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded,
                       int64_t dim, int steps, char *k) {
  if (dtype == FA_FLOAT16) return amx_pack_k_terms(FA_FLOAT16, 2, tokens, key, count, padded, dim, steps, k);
  if (terms == 2) return amx_pack_k_terms(FA_FLOAT32, 2, tokens, key, count, padded, dim, steps, k);
  return amx_pack_k_terms(FA_FLOAT32, 3, tokens, key, count, padded, dim, steps, k);
}

static bool amx_pack_v(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded,
                       int64_t dim, int units, char *v) {
  if (dtype == FA_FLOAT16) return amx_pack_v_terms(FA_FLOAT16, 2, tokens, key, count, padded, dim, units, v);
  if (terms == 2) return amx_pack_v_terms(FA_FLOAT32, 2, tokens, key, count, padded, dim, units, v);
  return amx_pack_v_terms(FA_FLOAT32, 3, tokens, key, count, padded, dim, units, v);
}

/* ------------------------------------------------------------- what cannot be split */

/* What was asked for is this kernel's layout, not the fp32 tiles', whose scores have room for MOST_KEYS. */
static tiling vector_tiling(const fa_plan *plan) {
  fa_plan by_rule = *plan;
  by_rule.request.level1_rows = by_rule.request.level1_keys = 0;
  return tiling_of(&by_rule);
}

static size_t amx_vector_bytes(const fa_plan *plan) {
  const tiling t = vector_tiling(plan);
  scratch none;
  return scratch_cut(&t, fa_prefill_rows_exact_bytes(plan), NULL, &none);
}

static void amx_run_vector(const amx_job *work, char *memory, int64_t b, int64_t head, int64_t row, int64_t rows) {
  const job j = {work->plan, work->args, NULL, vector_tiling(work->plan)};
  const int64_t end = fa_min(row + rows, fa_cpu_seqlen_q(work->plan, work->args, b));
  scratch w;
  scratch_cut(&j.t, 0, memory, &w);
  for (; row < end; row += j.t.rows) {
    const item it = {b, head, 1, row, fa_min(j.t.rows, end - row)};
    run_item(&j, &w, &it);
  }
}

fa_status fa_prefill_terms_amx_prepare(fa_plan *plan) {
  if (fabsf(plan->problem.scale) > FA_SPLIT_LARGEST_SCALE)
    return fa_fail(FA_ERROR_UNSUPPORTED, "scale is %g; prefill_terms_amx takes at most %g, other kernels any",
                   (double)plan->problem.scale, (double)FA_SPLIT_LARGEST_SCALE);
  return amx_prepare(plan);
}

fa_status fa_prefill_terms_amx_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  (void)stream;
  return amx_run(plan, args, workspace);
}
