/* The loops of decode_avx2.c and decode_neon.c around 8 accumulators of 8 lanes: rows x keys of scores (1 x 8, 2 x 4, 4 x 2)
 * or rows x vectors of o (the same).
 *
 * Before it the including file includes a lanes_<isa>.h and defines UNIT, the elements of a row that are loaded together (VEC
 * or a multiple). Behind it it defines what is declared here. */
#ifndef FA_CPU_DECODE_LOOPS_H
#define FA_CPU_DECODE_LOOPS_H

#include "cpu/decode_split.h"

/* Accumulators live in registers only if every loop over them is unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { VECTORS = UNIT / VEC }; /* of a unit */

/* The first `elements` of UNIT as fp32, in the order that q and o have in scratch; the others are not read and are 0. */
FA_INLINE void load_unit(const char *from, int64_t elements, fa_dtype dtype, vec y[VECTORS]);

/* acc[r * keys + j] += q_r . k_j over a unit, keys = 8 / rows; `offset` is in bytes of k. */
FA_INLINE void scores_step(vec acc[8], const float *q, int64_t q_stride, const char *const *k, int64_t offset,
                           int64_t elements, fa_dtype dtype, int rows);

/* The sums over the lanes of acc[r * keys + j] to tile[r][j]. */
FA_INLINE void store_scores(float *tile, const vec acc[8], int rows);

FA_INLINE int64_t size_of(fa_dtype dtype) { return (int64_t)fa_dtype_size(dtype); }

/* ------------------------------------------------------------------ scores */

FA_INLINE void scores_block(const fa_decode_chunk *chunk, const float *q, const char *const *k, float *tile,
                            fa_dtype dtype, int rows) {
  const int64_t dim = chunk->dim_qk, stride = chunk->q_stride;
  int64_t offset = chunk->k_offset, d = 0;
  vec acc[8];
  UNROLL for (int i = 0; i < 8; ++i) acc[i] = vec_zero();
  for (; d + UNIT <= dim; d += UNIT, offset += UNIT * size_of(dtype))
    scores_step(acc, q + d, stride, k, offset, UNIT, dtype, rows);
  if (d < dim) scores_step(acc, q + d, stride, k, offset, dim - d, dtype, rows);
  store_scores(tile, acc, rows);
}

/* lines: to fetch for every 16 scores. */
FA_INLINE void scores_rows(const fa_decode_chunk *chunk, const float *q, float *tile, fa_dtype dtype,
                           int rows, int64_t lines) {
  const int64_t keys = 8 / rows;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += 2 * keys) {
    fa_decode_fetch_lines(&fetch, lines);
    scores_block(chunk, q, chunk->k + j, tile + j, dtype, rows);
    scores_block(chunk, q, chunk->k + j + keys, tile + j + keys, dtype, rows);
  }
  *chunk->fetch = fetch;
}

FA_INLINE void scores_of(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile,
                         fa_dtype dtype) {
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES, fa_ceil_div(rows * FA_DECODE_KEYS, 16));
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    scores_rows(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, dtype, 4, lines);
  if (r + 2 <= rows) {
    scores_rows(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, dtype, 2, lines);
    r += 2;
  }
  if (r < rows) scores_rows(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, dtype, 1, lines);
}

static void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {
  switch (chunk->kv_dtype) {
    case FA_FLOAT32:
      scores_of(chunk, q, rows, tile, FA_FLOAT32);
      break;
    case FA_FLOAT16:
      scores_of(chunk, q, rows, tile, FA_FLOAT16);
      break;
    case FA_BFLOAT16:
      scores_of(chunk, q, rows, tile, FA_BFLOAT16);
      break;
    case FA_INT8:
      scores_of(chunk, q, rows, tile, FA_INT8);
      break;
    case FA_FP8_E4M3:
      scores_of(chunk, q, rows, tile, FA_FP8_E4M3);
      break;
  }
}

/* ------------------------------------------------------------------ output */

/* o[rows][UNIT * units] += weights v, elements from d on; elements: UNIT * units, or fewer at the end of a row
 * (units 1). lines: to fetch for every 4 keys. */
FA_INLINE void accumulate_block(const fa_decode_chunk *chunk, const float *weights, float *o, int64_t d,
                                int64_t elements, fa_dtype dtype, int rows, int units, int64_t lines) {
  const int64_t offset = chunk->v_offset + d * size_of(dtype), stride = chunk->o_stride;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  vec acc[4][8];
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < VECTORS * units; ++i) acc[r][i] =
      vec_load(o + r * stride + d + VEC * i);
  for (int64_t j = 0; j < chunk->keys; ++j) {
    const char *v = chunk->v[j] + offset;
    if (j % 4 == 0) fa_decode_fetch_lines(&fetch, lines);
    UNROLL for (int i = 0; i < units; ++i) {
      vec y[VECTORS];
      load_unit(v + UNIT * i * size_of(dtype), elements == UNIT * units ? UNIT : elements, dtype, y);
      UNROLL for (int r = 0; r < rows; ++r) {
        const vec w = vec_set(weights[r * FA_DECODE_KEYS + j]);
        UNROLL for (int n = 0; n < VECTORS; ++n) acc[r][VECTORS * i + n] = vec_fma(w, y[n], acc[r][VECTORS * i + n]);
      }
    }
  }
  *chunk->fetch = fetch;
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < VECTORS * units; ++i)
      vec_store(o + r * stride + d + VEC * i, acc[r][i]);
}

/* lines: to fetch for every 4 keys and 64 accumulators' worth of o. */
FA_INLINE void accumulate_rows(const fa_decode_chunk *chunk, const float *weights, float *o, fa_dtype dtype,
                               int rows, int64_t lines) {
  const int units = 8 / VECTORS / rows;
  const int64_t dim = chunk->dim_v;
  int64_t d = 0;
  for (; d + UNIT * units <= dim; d += UNIT * units)
    accumulate_block(chunk, weights, o, d, UNIT * units, dtype, rows, units, lines);
  for (; d + UNIT <= dim; d += UNIT) accumulate_block(chunk, weights, o, d, UNIT, dtype, rows, 1, lines);
  if (d < dim) accumulate_block(chunk, weights, o, d, dim - d, dtype, rows, 1, lines);
}

FA_INLINE void accumulate_of(const fa_decode_chunk *chunk, const float *tile, int64_t rows, float *o,
                             fa_dtype dtype) {
  const int64_t blocks = fa_ceil_div(rows * chunk->dim_v, 64);
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE, blocks * (FA_DECODE_KEYS / 4));
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 4, lines);
  if (r + 2 <= rows) {
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 2, lines);
    r += 2;
  }
  if (r < rows) accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 1, lines);
}

static void accumulate(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  if (chunk->v_scale) fa_decode_scale_weights(chunk, rows, tile);
  switch (chunk->kv_dtype) {
    case FA_FLOAT32:
      accumulate_of(chunk, tile, rows, o, FA_FLOAT32);
      break;
    case FA_FLOAT16:
      accumulate_of(chunk, tile, rows, o, FA_FLOAT16);
      break;
    case FA_BFLOAT16:
      accumulate_of(chunk, tile, rows, o, FA_BFLOAT16);
      break;
    case FA_INT8:
      accumulate_of(chunk, tile, rows, o, FA_INT8);
      break;
    case FA_FP8_E4M3:
      accumulate_of(chunk, tile, rows, o, FA_FP8_E4M3);
      break;
  }
}

#endif
