/* What launches of the append and merge kernels pass by value. Plain C, for both sides. */
#ifndef FA_CUDA_APPEND_PARAMS_H
#define FA_CUDA_APPEND_PARAMS_H

#include "cuda/cuda_params.h"

typedef struct fa_cuda_append_params {
  fa_cuda_params problem; /* q as given; k, v and their scales are written */
  fa_cuda_tensor k_new, v_new;
  fa_cuda_tensor rotated_q; /* data NULL: nothing to rotate */
  const float *rotary_cos, *rotary_sin;
  int32_t rotary_dim, rotary_interleaved;
} fa_cuda_append_params;

typedef struct fa_cuda_merge_params {
  fa_cuda_tensor o_a, o_b;
  float *lse_a;
  const float *lse_b;
  int32_t dtype, batch, seqlen, heads, dim;
  int32_t reserved;
} fa_cuda_merge_params;

#endif
