/* What a launch of the runner's own kernels passes, by value. Plain C, included by the host side and by the kernels, so
 * that both see one layout. `dtype` chooses among a file's functions (name_f32, name_f16, name_bf16) and is not passed. */
#ifndef FA_LLAMA_OPERATORS_PARAMS_H
#define FA_LLAMA_OPERATORS_PARAMS_H

#include <stdint.h>

/* embed_llama.cu: y[i] = scale * table[index[i]], rows of `width`. */
typedef struct fa_embed_params {
  int64_t rows, width;
  int64_t table_rows; /* indices are cut to it */
  const int32_t *index;
  const void *table; /* dtype; pick: fp32 */
  float *y;
  float scale;
  int32_t aligned; /* all rows begin at multiples of 32 bytes (fp32) and 16 (16-bit types) */
} fa_embed_params;

/* norm_llama.cu: x / sqrt(mean(x^2) + epsilon) * weight, rows of `width`. */
typedef struct fa_norm_params {
  int64_t rows, width;
  const void *from; /* norm: fp32; norm_add: dtype */
  const float *added; /* norm: added to `from` first, which keeps the sum; NULL: nothing */
  const float *weight;
  void *to; /* norm: dtype, written; norm_add: fp32, added to */
  float epsilon;
  int32_t aligned;
} fa_norm_params;

/* gate_llama.cu: y = act(z) * u, or act(z) alone. */
typedef struct fa_gate_params {
  int64_t rows, inner;
  const void *product; /* [rows, gate then up], or [rows, inner] */
  void *y;             /* [rows, inner] */
  int32_t has_gate, is_gelu, aligned;
} fa_gate_params;

/* place_heads_llama.cu, place_rows_llama.cu: fa_head_placement of operators.h. */
typedef struct fa_place_params {
  int64_t rows;
  int32_t heads; /* of q, k and v together; rows * heads < 2^31 */
  const void *qkv;
  const float *bias, *q_norm, *k_norm, *rotary;
  const int32_t *positions, *slots;
  void *q, *k, *v;
  int32_t heads_q, heads_kv, head_dim_qk, head_dim_v, rotary_dim, rotary_interleaved;
  int32_t page_size;
  int32_t lanes; /* of a warp that work on one head: a power of two */
  int32_t aligned;
  float norm_epsilon;
} fa_place_params;

/* sample_llama.cu */
typedef struct fa_sample_params {
  float *logits; /* [rows, vocabulary]; becomes scratch */
  const struct fa_sample_row *settings;
  uint8_t *seen; /* or NULL */
  int32_t *tokens;
  int64_t vocabulary;
} fa_sample_params;

/* random_llama.cu: `count` normal values of the given deviation, the same for the same seed wherever they lie. */
typedef struct fa_random_params {
  void *to; /* dtype */
  int64_t count;
  uint64_t seed;
  float deviation;
} fa_random_params;

#endif
