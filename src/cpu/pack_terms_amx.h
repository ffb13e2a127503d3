/* Q, K and V of fp32 and fp16 into the tiles of pipeline_amx.h: pack_bf16_amx.h's layouts with a value's bf16 terms side by
 * side (split_amx.h). Each returns false when a value cannot be split. */
#ifndef FA_CPU_PACK_TERMS_AMX_H
#define FA_CPU_PACK_TERMS_AMX_H

#include "cpu/cpu.h"
#include "cpu/split_amx.h"

enum { TERM_BYTES = 2 * FA_TILE_BYTES };

FA_INLINE bool amx_pack_q_terms(fa_dtype dtype, int terms, fa_cpu_rows rows, int64_t row, int64_t seqlen_q, int64_t dim,
                                int steps, float scale, char *q) {
  /* The pipeline's scale is positive, so that -inf stays the score of a masked key. */
  const __m512i sign = _mm512_set1_epi16(scale < 0.0f ? (short)0x8000 : 0);
  split_range range = {vec_zero(), 0};
  for (int s = 0; s < steps; ++s)
    for (int tile = 0; tile < 2; ++tile) {
      __m512i x[3][16];
      for (int i = 0; i < 16; ++i) {
        const int64_t at = row + tile * 16 + i;
        __m512i out[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        if (at < seqlen_q) split_load(rows.data + at * rows.stride, dtype, s * 32, dim, terms, out, &range);
        for (int t = 0; t < terms; ++t) x[t][i] = _mm512_xor_si512(sign, out[t]);
      }
      for (int t = 0; t < terms; ++t) {
        fa_transpose_16x16(x[t]);
        for (int i = 0; i < 16; ++i)
          _mm512_store_si512(q + (s * terms + t) * TERM_BYTES + tile * FA_TILE_BYTES + i * 64, x[t][i]);
      }
    }
  return range.large == 0;
}

FA_INLINE bool amx_pack_k_terms(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count,
                                int64_t padded, int64_t dim, int steps, char *k) {
  split_range range = {vec_zero(), 0};
  for (int64_t j = 0; j < padded; ++j) {
    char *row = k + j / 32 * steps * terms * TERM_BYTES + j / 16 % 2 * FA_TILE_BYTES + j % 16 * 64;
    const char *token = j < count ? fa_cpu_token(tokens, key + j) : NULL;
    for (int s = 0; s < steps; ++s) {
      __m512i out[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
      if (token) split_load(token, dtype, s * 32, dim, terms, out, &range);
      for (int t = 0; t < terms; ++t) _mm512_store_si512(row + (s * terms + t) * TERM_BYTES, out[t]);
    }
  }
  return range.large == 0;
}

/* Two keys' rows interleaved are 16 (or 32) pairs; transposed, a row is one d and its 32 keys. */
FA_INLINE bool amx_pack_v_terms(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count,
                                int64_t padded, int64_t dim, int units, char *v) {
  split_range range = {vec_zero(), 0};
  for (int64_t j = 0; j < padded; j += 32) {
    const char *token[32];
    for (int i = 0; i < 32; ++i) token[i] = j + i < count ? fa_cpu_token(tokens, key + j + i) : NULL;
    for (int unit = 0; unit < units; ++unit) {
      __m512i first[3][16], second[3][16];
      for (int r = 0; r < 16; ++r) {
        __m512i pair[2][3];
        for (int n = 0; n < 2; ++n) {
          pair[n][0] = pair[n][1] = pair[n][2] = _mm512_setzero_si512();
          if (token[2 * r + n]) split_load(token[2 * r + n], dtype, unit * 32, dim, terms, pair[n], &range);
        }
        for (int t = 0; t < terms; ++t) interleave_pairs(pair[0][t], pair[1][t], &first[t][r], &second[t][r]);
      }
      for (int t = 0; t < terms; ++t) {
        fa_transpose_16x16(first[t]);
        fa_transpose_16x16(second[t]);
        char *tile = v + ((unit * padded / 32 + j / 32) * terms + t) * TERM_BYTES;
        for (int r = 0; r < 16; ++r) {
          _mm512_store_si512(tile + r * 64, first[t][r]);
          _mm512_store_si512(tile + FA_TILE_BYTES + r * 64, second[t][r]);
        }
      }
    }
  }
  const float most = vec_top(range.most);
  return range.large == 0 && (most == 0.0f || most >= FA_SPLIT_LEAST);
}

#endif
