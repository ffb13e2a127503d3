/* The parts of a layer that are neither attention nor a matrix product. Row loops run on `threads` threads
 * when there is more than one row. Outputs "of dtype" are fp32 or bf16, rounded to nearest even. */
#ifndef FA_LLAMA_LAYER_OPS_H
#define FA_LLAMA_LAYER_OPS_H

#include "fastattention/fastattention.h"

/* y = x / sqrt(mean(x^2) + epsilon) * weight, over rows of `width`. x fp32, y of dtype; both dense. */
void fa_rms_norm(int threads, int64_t rows, int64_t width, const float *x, const float *weight, float epsilon,
                 fa_dtype dtype, void *y);

/* Where the heads of a row of the stacked query-key-value product go. */
typedef struct fa_qkv_places {
  int64_t heads_q, heads_kv, head_dim_qk, head_dim_v;
  int64_t rotary_dim;
  const float *rotary; /* [positions, rotary_dim]: cos and sin in turn */
  fa_dtype dtype;
  void *q; /* [rows, heads_q, head_dim_qk], dense */
  void *k; /* cache of this layer: head h, token t at (h * cache_tokens + t) * head_dim_qk */
  void *v; /* the same with head_dim_v */
  int64_t cache_tokens;
} fa_qkv_places;

/* Rotates queries and keys (pairs 2d, 2d + 1, as GGUF's Llama weights are ordered), rounds them, and stores
 * them as rows first_row .. of q and tokens first_token .. of the cache. qkv: [rows, q then k then v] fp32,
 * dense. */
void fa_rotate_and_store(int threads, int64_t rows, const float *qkv, const fa_qkv_places *places,
                         int64_t first_row, int64_t first_token);

#endif
