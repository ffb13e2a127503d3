/* Q, K and V of bf16 into the tiles of pipeline_amx.h. K's and V's rows are read once a key block, wherever their tokens lie
 * (strided or in pages). */
#ifndef FA_CPU_PACK_BF16_AMX_H
#define FA_CPU_PACK_BF16_AMX_H

#include "cpu/cpu.h"
#include "cpu/lanes_avx512.h"
#include "cpu/tiles_amx.h"

/* 32 queries of one head from `row` on as B tiles of Q^T: [steps][2 query tiles]; zeros from `seqlen_q` on. */
static inline void fa_amx_pack_q(fa_cpu_rows rows, int64_t row, int64_t seqlen_q, int64_t dim, int steps, float scale,
                                 char *q) {
  /* The pipeline's scale is positive, so that -inf stays the score of a masked key. */
  const __m512i sign = _mm512_set1_epi16(scale < 0.0f ? (short)0x8000 : 0);
  for (int s = 0; s < steps; ++s)
    for (int tile = 0; tile < 2; ++tile) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) {
        const int64_t at = row + tile * 16 + i;
        r[i] = at < seqlen_q ? _mm512_xor_si512(sign, fa_load_32_bf16(rows.data + at * rows.stride, s * 32, dim))
                             : _mm512_setzero_si512();
      }
      fa_transpose_16x16(r);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(q + (s * 2 + tile) * FA_TILE_BYTES + i * 64, r[i]);
    }
}

/* Keys [key, key + count) of one key block as A tiles, [padded / 32][steps][2 key tiles]; zeros up to `padded`, a multiple of
 * 32. */
static inline void fa_amx_pack_k(const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded, int64_t dim,
                                 int steps, char *k) {
  for (int64_t j = 0; j < padded; ++j) {
    char *row = k + (j / 32 * steps * 2 + j / 16 % 2) * FA_TILE_BYTES + j % 16 * 64;
    const char *token = j < count ? fa_cpu_token(tokens, key + j) : NULL;
    for (int s = 0; s < steps; ++s)
      _mm512_store_si512(row + s * 2 * FA_TILE_BYTES,
                         token ? fa_load_32_bf16(token, s * 32, dim) : _mm512_setzero_si512());
  }
}

/* V^T as A tiles, [units][padded / 32][2 d tiles]: two keys' rows interleaved are 16 (or 32) pairs; transposed, a row is
 * one d and its 32 keys. */
static inline void fa_amx_pack_v(const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded, int64_t dim,
                                 int units, char *v) {
  const int64_t chunks = padded / 32;
  for (int64_t j = 0; j < padded; j += 32) {
    const char *token[32];
    for (int i = 0; i < 32; ++i) token[i] = j + i < count ? fa_cpu_token(tokens, key + j + i) : NULL;
    for (int unit = 0; unit < units; ++unit) {
      __m512i first[16], second[16];
      for (int r = 0; r < 16; ++r) {
        const __m512i even = token[2 * r] ? fa_load_32_bf16(token[2 * r], unit * 32, dim) : _mm512_setzero_si512();
        const __m512i odd =
            token[2 * r + 1] ? fa_load_32_bf16(token[2 * r + 1], unit * 32, dim) : _mm512_setzero_si512();
        interleave_pairs(even, odd, &first[r], &second[r]);
      }
      fa_transpose_16x16(first);
      fa_transpose_16x16(second);
      char *tile = v + (unit * chunks + j / 32) * 2 * FA_TILE_BYTES;
      for (int r = 0; r < 16; ++r) {
        _mm512_store_si512(tile + r * 64, first[r]);
        _mm512_store_si512(tile + FA_TILE_BYTES + r * 64, second[r]);
      }
    }
  }
}

#endif
