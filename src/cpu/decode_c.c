/* Decode in plain C: every type, every feature, any head size; the loops the vector decodes fall back on.
 *
 *   tile[r][j] = q_r . k_j;   o_r += sum_j w_rj v_j, over the keys kept
 *
 * Each K and V row is converted to fp32 once and meets all rows of its group. Keys that are masked out are
 * left out, never multiplied by 0: a NaN in them cannot leak. Level 1 and 2 tiles, splits, scratch:
 * decode_split.c. Bound: arithmetic (conversion and one multiply-add an element and row at SSE2's width).
 * Measured on two Sapphire Rapids cores, bf16, 1,32,8,1,131072,128: 245 ms, 2.2 GB/s, 13 % of a plain read.
 */
#include "core/kernel_declarations.h"
#include "cpu/decode_split.h"

static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  (void)kv_dtype;
  fa_load_row(to, q, dim, dtype);
  for (int64_t d = dim; d % FA_DECODE_PAD; ++d) to[d] = 0.0f;
}

/* dim a multiple of FA_DECODE_PAD: eight sums side by side vectorise, one long one must not. */
static float dot(const float *a, const float *b, int64_t dim) {
  float lane[8] = {0.0f};
  for (int64_t d = 0; d < dim; d += 8)
    for (int i = 0; i < 8; ++i) lane[i] += a[d + i] * b[d + i];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES, chunk->keys);
  float k[FA_DECODE_MAX_DIM];
  for (int64_t j = 0; j < chunk->keys; ++j) {
    fa_decode_fetch_lines(chunk->fetch, lines);
    fa_load_row(k, chunk->k[j] + chunk->k_offset, chunk->dim_qk, chunk->kv_dtype);
    for (int64_t d = chunk->dim_qk; d < chunk->q_stride; ++d) k[d] = 0.0f;
    for (int64_t r = 0; r < rows; ++r)
      tile[r * FA_DECODE_KEYS + j] = dot(q + r * chunk->q_stride, k, chunk->q_stride);
  }
  for (int64_t j = chunk->keys; j < FA_DECODE_KEYS; ++j)
    for (int64_t r = 0; r < rows; ++r) tile[r * FA_DECODE_KEYS + j] = 0.0f;
}

static void weigh(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries, int64_t rows,
                  float *tile, fa_part *parts, float *o) {
  fa_decode_weigh(chunk, rules, queries, rows, tile, parts, o, 1);
}

static void accumulate(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE, chunk->keys);
  float v[FA_DECODE_MAX_DIM];
  for (int64_t j = 0; j < chunk->keys; ++j) {
    const float scale = chunk->v_scale ? chunk->v_scale[j] : 1.0f;
    fa_decode_fetch_lines(chunk->fetch, lines);
    fa_load_row(v, chunk->v[j] + chunk->v_offset, chunk->dim_v, chunk->kv_dtype);
    for (int64_t r = 0; r < rows; ++r) {
      if (tile[r * FA_DECODE_KEYS + j] == FA_DECODE_NOT_KEPT) continue;
      const float weight = tile[r * FA_DECODE_KEYS + j] * scale;
      float *row = o + r * chunk->o_stride;
      for (int64_t d = 0; d < chunk->dim_v; ++d) row[d] += weight * v[d];
    }
  }
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  (void)kv_dtype;
  memcpy(to, o, (size_t)dim * sizeof *to);
}

const fa_decode_isa fa_decode_isa_c = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL, 0.0f};

fa_status fa_decode_c_prepare(fa_plan *plan) { return fa_decode_prepare(plan); }

fa_status fa_decode_c_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                          fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &fa_decode_isa_c);
}
