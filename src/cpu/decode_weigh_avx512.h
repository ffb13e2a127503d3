/* fa_decode_weigh (decode_split.h) in AVX-512: a row of scores stays in registers from the scale to the sum. Where there are
 * no rules, no mask and no key scales, that is all there is. */
#ifndef FA_CPU_DECODE_WEIGH_AVX512_H
#define FA_CPU_DECODE_WEIGH_AVX512_H

#include "cpu/decode_split.h"
#include "cpu/lanes_avx512.h"

enum { FA_ROW_VECTORS = FA_DECODE_KEYS / VEC };

/* A row of scores, times `scale`, to weights; its maximum and sum into part, o rescaled when the maximum rises. */
FA_INLINE void fa_weigh_row_avx512(float *row, vec scale, fa_part *part, float *o, int64_t o_count) {
  vec x[FA_ROW_VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < FA_ROW_VECTORS; ++i) x[i] = vec_mul(vec_load(row + i * VEC), scale);
  const float max = vec_top(vec_max(vec_max(x[0], x[1]), vec_max(x[2], x[3])));
  if (max > part->max) {
    const float down = fa_exp_lane(part->max - max);
    part->max = max;
    part->sum *= down;
    const vec factor = vec_set(down);
    for (int64_t d = 0; d < o_count; d += VEC) vec_store(o + d, vec_mul(vec_load(o + d), factor));
  }
  /* Nothing kept so far: any finite reference gives weights of 0, and lets a NaN through. */
  const vec reference = vec_set(part->max == -INFINITY ? 0.0f : part->max);
#pragma GCC unroll 4
  for (int i = 0; i < FA_ROW_VECTORS; ++i) {
    x[i] = vec_exp(vec_sub(x[i], reference));
    vec_store(row + i * VEC, x[i]);
  }
  part->sum += vec_sum(vec_add(vec_add(x[0], x[1]), vec_add(x[2], x[3])));
}

static inline void fa_decode_weigh_avx512(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries,
                                          int64_t rows, float *tile, fa_part *parts, float *o) {
  vec scale = vec_set(chunk->scale);
  const int is_band_full =
      chunk->keys == FA_DECODE_KEYS &&
      fa_band_block(rules->band, 0, queries, chunk->key, FA_DECODE_KEYS) == FA_BLOCK_FULL; /* one for all heads */
  if (rules->any || chunk->k_scale || !is_band_full) {
    fa_decode_apply_rules(chunk, rules, queries, rows, tile);
    scale = vec_set(1.0f);
  }
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_WEIGH, rows);
  for (int64_t r = 0; r < rows; ++r) {
    fa_decode_fetch_lines(chunk->fetch, lines);
    fa_weigh_row_avx512(tile + r * FA_DECODE_KEYS, scale, parts + r, o + r * chunk->o_stride, chunk->o_stride);
  }
}

#endif
