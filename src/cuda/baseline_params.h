/* What the passes of the unfused baselines get: the run, and one block of scores. */
#ifndef FA_CUDA_BASELINE_PARAMS_H
#define FA_CUDA_BASELINE_PARAMS_H

#include "cuda/cuda_params.h"

typedef struct fa_baseline_params {
  fa_cuda_params run;    /* q, k, v, o as the products use them (dense copies where the caller's do not fit) */
  fa_cuda_tensor source; /* packing: from here to `run.q`'s place, or back */
  int32_t source_rows;   /* of a head of `source` */
  int32_t source_whole;  /* both sides take whole 16 bytes */
  int32_t source_ends;   /* rows behind the batch entry's KV length become 0 */
  int32_t first, count;  /* the (batch entry, query head) pairs of the block, numbered batch entry by batch entry */
  int32_t scores_width;  /* elements between rows of scores, a multiple of 8 */
  int32_t mask_wanted;
  void *scores;          /* [count, max_seqlen_q, scores_width] of dtype */
  float *wide;           /* the same in fp32: eager's softmax; fp32 itself: `scores` */
  void *mask;            /* [batch where lengths are on the device, else 1][max_seqlen_q, scores_width] of dtype: eager */
  const void **q_rows, **k_rows, **v_rows; /* [count] where each pair's operands begin, for the batched products */
  void **score_blocks, **o_rows;
} fa_baseline_params;

#endif
