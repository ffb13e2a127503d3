/* Joining attentions of the same queries over disjoint keys by log-sum-exp; the meaning is src/cpu/merge.c's.
 *
 *   m = max lse_x;  w_x = exp(lse_x - m);  o = sum o_x w_x / sum w_x;  lse = m + log(sum w_x)
 *
 * merge_any     two sides in their own type, in place on side a. A warp a row; grid x = ceil(rows / 4), 128 threads.
 *               A side that saw no key (lse -inf) is left out, never multiplied by 0.
 * merge_splits  merge_splits.cuh. */
#include "cuda/any/merge_splits.cuh"
#include "cuda/append_params.h"

enum { WARPS = 4 };

extern "C" __global__ void __launch_bounds__(WARPS * 32) merge_any(const __grid_constant__ fa_cuda_merge_params p) {
  const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= (int64_t)p.batch * p.heads * p.seqlen) return;
  const int i = row % p.seqlen, h = row / p.seqlen % p.heads, b = row / p.seqlen / p.heads;
  const float lse_a = p.lse_a[row], lse_b = p.lse_b[row];
  const bool has_a = lse_a != -CUDART_INF_F, has_b = lse_b != -CUDART_INF_F;
  const float max = fa_max_sticky(fa_max_sticky(-CUDART_INF_F, lse_a), lse_b);
  float a = has_a ? expf(lse_a - max) : 0.0f, b_weight = has_b ? expf(lse_b - max) : 0.0f;
  const float sum = a + b_weight;
  a = has_a && a < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : a;
  b_weight = has_b && b_weight < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : b_weight;
  a /= sum, b_weight /= sum;
  const int64_t at_a = b * p.o_a.stride_batch + i * p.o_a.stride_seq + h * p.o_a.stride_head;
  const int64_t at_b = b * p.o_b.stride_batch + i * p.o_b.stride_seq + h * p.o_b.stride_head;
  for (int d = lane; d < p.dim; d += 32) {
    float value = 0.0f;
    if (has_a) value = a * fa_load_any(p.o_a.data, at_a + d, p.dtype);
    if (has_b) value += b_weight * fa_load_any(p.o_b.data, at_b + d, p.dtype);
    fa_store_any(p.o_a.data, at_a + d, p.dtype, value);
  }
  __syncwarp(); /* every lane has read lse_a */
  if (lane == 0) p.lse_a[row] = max == -CUDART_INF_F ? -CUDART_INF_F : max + logf(sum);
}

FA_MERGE_SPLITS(merge_splits)
