/* Prefill, bf16 on AMX: o = softmax(rules(scale q k^T)) v with every score rule, sinks, GQA, ragged and paged sequences.
 *
 * Shapes: head sizes to 256 (padded to 32 in the packed operands), D_v free, any strides. Larger heads and other types fall to
 * the next kernel of the table. Softcap, ALiBi, bias, mask and the scales of quantised keys are a pass over a round's scores
 * (rules_amx.h) that a problem without them does not have; quantised_amx.h says what a quantised cache is multiplied as.
 *
 * Level one: super_block_amx.h. Level two: 32 queries x 128 keys (D = 128) through the eight tile registers,
 * pipeline_amx.h; at D = 128 a 16 KB P ring, an 8 KB score ring, 8 KB of Q and 16 KB of O are L1's.
 *
 * The tile unit takes subnormal numbers (below 1.2e-38) as zero: far below the tolerance unless all of V is that small.
 *
 * Bound: arithmetic; 4 S_q S_kv D_pad operations a head. Measured times: docs/performance.md, "AMX prefill". */
#include "cpu/lanes_avx512.h"
#include "cpu/pack_bf16_amx.h"
#include "cpu/super_block_amx.h"

/* ------------------------------------------------------------- instances of the pipeline */

#define INSTANCE(steps, units, rounds, round_chunks)                                                          \
  static __attribute__((noinline)) void iterate_##steps##_##units(                                             \
      fa_amx_pipeline *w, const fa_amx_block *now, const fa_amx_block *before, const fa_amx_block *earlier,    \
      fa_amx_shape shape) {                                                                                    \
    if (shape.wants_lse) fa_amx_iterate_shape(w, now, before, earlier, steps, units, rounds, round_chunks, 1, 1); \
    else fa_amx_iterate_shape(w, now, before, earlier, steps, units, rounds, round_chunks, 1, 0);                 \
  }
INSTANCE(2, 2, 2, 2)
INSTANCE(8, 8, 8, 1)
#ifndef FA_FEW_SHAPES /* sanitizers take minutes over each */
INSTANCE(1, 1, 1, 4)
INSTANCE(3, 3, 3, 1)
INSTANCE(4, 4, 4, 1)
INSTANCE(5, 5, 5, 1)
INSTANCE(6, 4, 4, 1)
INSTANCE(6, 6, 6, 1)
INSTANCE(7, 7, 7, 1)
#endif

static iterate_function iterate_for(fa_amx_shape shape) {
  switch (shape.qk_steps * 16 + shape.units) {
    case 0x22: return iterate_2_2;
    case 0x88: return iterate_8_8;
#ifndef FA_FEW_SHAPES
    case 0x11: return iterate_1_1;
    case 0x33: return iterate_3_3;
    case 0x44: return iterate_4_4;
    case 0x55: return iterate_5_5;
    case 0x64: return iterate_6_4;
    case 0x66: return iterate_6_6;
    case 0x77: return iterate_7_7;
#endif
    default: return NULL;
  }
}

/* ------------------------------------------------------------- packing: one term, which is the value */

static bool amx_pack_q(fa_dtype dtype, fa_cpu_rows rows, int64_t row, int64_t seqlen_q, int64_t dim, int steps, float scale,
                       char *q) {
  (void)dtype;
  fa_amx_pack_q(rows, row, seqlen_q, dim, steps, scale, q);
  return true;
}

static bool amx_pack_k(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded,
                       int64_t dim, int steps, char *k) {
  (void)dtype, (void)terms;
  fa_amx_pack_k(tokens, key, count, padded, dim, steps, k);
  return true;
}

static bool amx_pack_v(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded,
                       int64_t dim, int units, char *v) {
  (void)dtype, (void)terms;
  fa_amx_pack_v(tokens, key, count, padded, dim, units, v);
  return true;
}

/* Never called: there is nothing that cannot be split. */
static size_t amx_vector_bytes(const fa_plan *plan) {
  (void)plan;
  return 0;
}
static void amx_run_vector(const amx_job *work, char *memory, int64_t b, int64_t head, int64_t row, int64_t rows) {
  (void)work, (void)memory, (void)b, (void)head, (void)row, (void)rows;
}

fa_status fa_prefill_bf16_amx_prepare(fa_plan *plan) { return amx_prepare(plan); }

fa_status fa_prefill_bf16_amx_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  (void)stream;
  return amx_run(plan, args, workspace);
}
