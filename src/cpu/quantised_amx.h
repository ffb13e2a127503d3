/* int8 and fp8 K and V on their way into the tiles of the AMX kernels: a key block's rows as bf16 or fp32, for the packing of
 * such rows.
 *
 * K of bf16 and fp16 problems as it is, one term exactly, and the tokens' scales beside it in the packed block, for the pass over
 * scores (rules_amx.h): rounded, it would be wrong by as much as a score is large. V times its scales: rounded to bf16, an error
 * of the size that P's rounding has, or to 2^-17 in fp16's two terms. K and V of fp32 problems times their scales, which three
 * terms hold. */
#ifndef FA_CPU_QUANTISED_AMX_H
#define FA_CPU_QUANTISED_AMX_H

#include <stdbool.h>

#include "cpu/cpu.h"
#include "cpu/lanes_avx512.h"

static inline bool amx_is_quantised(const fa_attention_problem *p) {
  return p->kv_dtype == FA_INT8 || p->kv_dtype == FA_FP8_E4M3;
}

/* Of the rows that a key block is made into, and one of them. */
static inline fa_dtype amx_row_dtype(const fa_attention_problem *p) {
  return p->dtype == FA_BFLOAT16 ? FA_BFLOAT16 : FA_FLOAT32;
}
static inline int64_t amx_row_bytes(const fa_attention_problem *p) {
  return fa_round_up(fa_max(p->head_dim_qk, p->head_dim_v), VEC) * (int64_t)fa_dtype_size(amx_row_dtype(p));
}

/* `dim` elements of one token, times scale; up to VEC - 1 zeros behind them. */
static inline void amx_dequantise(const char *from, fa_dtype dtype, int64_t dim, float scale, fa_dtype to_dtype, char *to) {
  for (int64_t d = 0; d < dim; d += VEC) {
    const __m128i bytes = _mm_maskz_loadu_epi8((__mmask16)(dim - d >= VEC ? 0xffffu : (1u << (dim - d)) - 1u), from + d);
    const vec x = vec_mul(dtype == FA_INT8 ? vec_from_int8(bytes) : vec_from_fp8(bytes), vec_set(scale));
    if (to_dtype == FA_FLOAT32) vec_store((float *)(void *)to + d, x);
    else _mm256_storeu_si256((__m256i *)(void *)to + d / VEC, (__m256i)_mm512_cvtneps_pbh(x));
  }
}

/* Tokens [key, key + count) of `t` as `rows`; key_scales: where their scales go instead, or NULL. */
static inline fa_cpu_tokens amx_dequantise_tokens(const fa_plan *plan, const fa_attention_args *args, const fa_tensor *t,
                                                  const fa_tensor *t_scale, int64_t b, int64_t kv_head, int64_t dim,
                                                  int64_t key, int64_t count, char *rows, float *key_scales) {
  const fa_attention_problem *p = &plan->problem;
  const fa_cpu_tokens tokens = fa_cpu_tokens_of(plan, args, t, fa_dtype_size(p->kv_dtype), b, kv_head);
  const fa_cpu_tokens scales = fa_cpu_tokens_of(plan, args, t_scale, sizeof(float), b, kv_head);
  const fa_cpu_tokens made = {rows, amx_row_bytes(p), 0, 0, NULL};
  for (int64_t j = 0; j < count; ++j) {
    float scale;
    memcpy(&scale, fa_cpu_token(&scales, key + j), sizeof scale);
    if (key_scales) key_scales[j] = scale;
    amx_dequantise(fa_cpu_token(&tokens, key + j), p->kv_dtype, dim, key_scales ? 1.0f : scale, amx_row_dtype(p),
                   fa_cpu_token(&made, j));
  }
  return made;
}

#endif
