/* The score rules of score_rules.h (softcap, ALiBi, bias, boolean mask) on the scores of the AMX pipeline, whose lanes are
 * queries: 32 keys x 16 queries at a time, between the tile products that made them and their softmax. Bias and mask lie along
 * the keys and are turned round on the way. */
#ifndef FA_CPU_RULES_AMX_H
#define FA_CPU_RULES_AMX_H

#include "cpu/lanes_avx512.h"
#include "cpu/score_rules.h"
#include "cpu/tiles_amx.h"

/* Finite scores are raised to this: they still weigh nothing beside any that finish_lanes (super_block_amx.h) lets pass, and a
 * reference at them, rounded to 2^5, lets no weight overflow: -FLT_MAX before a row's other keys is how some mask. */
#define FA_AMX_LEAST_SCORE (-0x1p29f)

/* cap * tanh(s * scale / cap); the argument of the power is s times `twice`, 2 log2(e) scale / cap. Relative error about 4e-7. */
FA_AMX_INLINE __m512 fa_amx_softcap(__m512 s, __m512 twice, __m512 cap) {
  /* tanh 20 rounds to 1. NaN stays. */
  const __m512 t = _mm512_min_ps(_mm512_set1_ps(57.7f), _mm512_mul_ps(_mm512_abs_ps(s), twice));
  const __m512 r = _mm512_reduce_ps(t, 9), power = _mm512_scalef_ps(_mm512_set1_ps(1.0f), t);
  __m512 e = _mm512_set1_ps(2.161291496e-4f);
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.246784644e-3f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(9.675451567e-3f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(5.548528062e-2f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(2.402293056e-1f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(6.931470444e-1f));
  e = _mm512_mul_ps(e, r); /* 2^r - 1, as accurate near 0 */
  e = _mm512_fmadd_ps(e, power, _mm512_sub_ps(power, _mm512_set1_ps(1.0f)));
  const __m512 two = _mm512_set1_ps(2.0f), divisor = _mm512_add_ps(e, two);
  __m512 inverse = _mm512_rcp14_ps(divisor);
  inverse = _mm512_mul_ps(inverse, _mm512_fnmadd_ps(divisor, inverse, two));
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(s), _mm512_set1_epi32((int)0x80000000));
  const __m512 tanh = _mm512_mul_ps(_mm512_mul_ps(e, inverse), cap);
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(tanh), sign));
}

/* Bias of queries [row, row + rows) and keys [key, key + keys), at most 16 of each, a key to a vector. */
FA_AMX_INLINE void fa_amx_load_bias(const fa_score_rules *rules, int64_t row, int64_t rows, int64_t key, int64_t keys,
                                    __m512i bias[16]) {
  const char *from = rules->bias + row * rules->bias_stride + key * (int64_t)fa_dtype_size(rules->bias_dtype);
  for (int r = 0; r < 16; ++r, from += rules->bias_stride)
    bias[r] = r < rows ? _mm512_castps_si512(vec_load_row(from, rules->bias_dtype, keys)) : _mm512_setzero_si512();
  fa_transpose_16x16(bias);
}

/* Lane r: bit i is set where query row + r keeps key + i. */
FA_AMX_INLINE __m512i fa_amx_load_mask(const fa_score_rules *rules, int64_t row, int64_t rows, int64_t key, int64_t keys) {
  const __mmask16 some = (__mmask16)(keys >= 16 ? 0xffffu : (1u << keys) - 1u);
  const uint8_t *from = rules->mask + row * rules->mask_stride + key;
  uint16_t kept[16] __attribute__((aligned(32)));
  for (int r = 0; r < 16; ++r, from += rules->mask_stride) {
    kept[r] = 0xffff; /* a lane that is no query has keys, so that its sums are ordinary */
    if (r >= rows) continue;
    const __m128i bytes = _mm_maskz_loadu_epi8(some, from);
    kept[r] = _mm_test_epi8_mask(bytes, bytes);
  }
  return _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)kept));
}

/* Scores of queries [row, row + rows) and keys [key, key + keys), at most 16 and 32, from q . k to those of the rules; s:
 * [32 keys][16 queries]. scale is positive; key_scales: of quantised keys, or NULL. A key that is masked out becomes -INFINITY. */
FA_AMX_INLINE void fa_amx_apply_rules(const fa_score_rules *rules, float scale, const float *key_scales, float *s,
                                      int64_t row, int64_t rows, int64_t key, int64_t keys) {
  const __m512 nothing = _mm512_set1_ps(-INFINITY), least = _mm512_set1_ps(FA_AMX_LEAST_SCORE);
  const __m512 factor = _mm512_set1_ps(scale), slope = _mm512_set1_ps(rules->slope), cap = _mm512_set1_ps(rules->softcap);
  const __m512 twice = _mm512_set1_ps((float)(2.0 * 1.44269504088896340736 * (double)scale / (double)rules->softcap));
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int tile = 0; tile < 2 && rows > 0 && keys > tile * 16; ++tile) {
    const int64_t first = key + tile * 16, left = keys - tile * 16;
    __m512i bias[16], kept = _mm512_setzero_si512();
    if (rules->bias) fa_amx_load_bias(rules, row, rows, first, left, bias);
    if (rules->mask) kept = fa_amx_load_mask(rules, row, rows, first, left);
    __m512i distance = _mm512_add_epi32(lanes, _mm512_set1_epi32((int32_t)(row + rules->diagonal - first)));
    for (int i = 0; i < 16; ++i, s += 16) {
      __m512 x = _mm512_load_ps(s);
      if (key_scales) x = _mm512_mul_ps(x, _mm512_set1_ps(key_scales[tile * 16 + i]));
      x = rules->softcap > 0.0f ? fa_amx_softcap(x, twice, cap) : _mm512_mul_ps(x, factor);
      if (rules->slope != 0.0f) x = _mm512_fnmadd_ps(slope, _mm512_abs_ps(_mm512_cvtepi32_ps(distance)), x);
      distance = _mm512_sub_epi32(distance, _mm512_set1_epi32(1));
      if (rules->bias) x = _mm512_add_ps(x, _mm512_castsi512_ps(bias[i]));
      x = _mm512_mask_max_ps(x, _mm512_cmp_ps_mask(x, nothing, _CMP_GT_OQ), least, x);
      if (rules->mask) x = _mm512_mask_mov_ps(nothing, _mm512_test_epi32_mask(kept, _mm512_set1_epi32(1 << i)), x);
      _mm512_store_ps(s, x);
    }
  }
}

#endif
