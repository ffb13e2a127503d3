/* What a launch passes to a kernel: the problem and the pointers of one run, by value. Plain C, included by the host
 * side and by the kernels, so that both sides see one layout. */
#ifndef FA_CUDA_PARAMS_H
#define FA_CUDA_PARAMS_H

#include <stdint.h>

#include "cuda/divisor.h"

/* Strides in elements, as in fa_tensor. */
typedef struct fa_cuda_tensor {
  void *data;
  int64_t stride_batch;
  int64_t stride_seq;
  int64_t stride_head;
} fa_cuda_tensor;

/* The largest score of a row in one part (-inf: it keeps no key there), and its sum of exp(score - max). */
typedef struct fa_split_sum {
  float max, sum;
} fa_split_sum;

enum { FA_CUDA_UNLIMITED = 1 << 30 }; /* a window without an end: beyond any sequence, far from overflow */

typedef struct fa_cuda_params {
  fa_cuda_tensor q, k, v, o;
  fa_cuda_tensor bias, mask; /* data NULL: none */
  fa_cuda_tensor k_scale, v_scale;
  float *lse;                /* NULL: not wanted; index: see fa_attention_args */
  int64_t lse_stride_batch, lse_stride_head;
  const float *alibi_slopes; /* NULL: none */
  int64_t alibi_stride_batch;
  const float *sinks;        /* NULL: none */
  const int32_t *cu_seqlens_q, *cu_seqlens_kv, *seqlens_kv; /* NULL: not ragged, not read */
  const int32_t *page_table; /* NULL: not paged */
  int64_t page_table_stride;
  int32_t page_size, num_pages;

  int32_t batch, heads_q, heads_kv, group; /* group = heads_q / heads_kv */
  int32_t max_seqlen_q, max_seqlen_kv, seqlen_new;
  int32_t head_dim_qk, head_dim_v;
  int32_t dtype, kv_dtype, bias_dtype; /* fa_dtype */
  /* Key j is kept for query i if i + S_kv - S_q - window_left <= j <= i + S_kv - S_q + window_right; causal is
   * window_right 0 (or less than it was). */
  int32_t window_left, window_right;
  float scale;   /* not multiplied by log2(e) */
  float softcap; /* 0: none */
  int32_t aligned; /* q, k, v: data and every stride in use a multiple of 16 bytes: whole vectors may be loaded */
  int32_t aligned_o;

  /* Split KV. Part s of a sequence of n tokens is tokens [s * c, min(n, (s + 1) * c)), c = ceil(n / splits) rounded
   * up to split_tile. Partial results in fp32: split_o [splits][rows][head_dim_v], split_sums [splits][rows], with
   * row = (b * heads_q + h) * max_seqlen_q + i. */
  int32_t splits, split_tile;
  int32_t stages; /* decode on tensor cores: of keys in shared memory */
  float *split_o;
  fa_split_sum *split_sums;

  fa_divisor by_group, by_heads_kv, by_page_size, by_splits, by_split_tile;
  fa_divisor by_tiles; /* blocks of rows of a KV head */
} fa_cuda_params;

#endif
