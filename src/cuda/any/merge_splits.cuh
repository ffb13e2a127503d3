/* Joining the parts of a split KV sequence, fp32 in the workspace, with the sink, to o and lse:
 *
 *   m = max m_x;  w_x = sum_x exp(m_x - m), FA_LEAST_WEIGHT at least;  o = sum o_x w_x / sum w_x;  lse = m + log(sum w_x)
 *
 * A block a row: one warp finds the weights, then four groups of 128 threads, a column a thread, take every fourth part
 * each; grid x = batch * heads_q * max_seqlen_q, 512 threads. A part that saw no key is left out, never multiplied by 0.
 * Any head size to 576; the order of sums is fixed. Bound: latency, three loads one behind another, and reading what is
 * joined once; 33 parts of 32 rows take 6.3 us on an H200 with cold caches [measured]. */
#ifndef FA_CUDA_ANY_MERGE_SPLITS_CUH
#define FA_CUDA_ANY_MERGE_SPLITS_CUH

#include "cuda/any/grid_order.cuh"
#include "cuda/any/parts.cuh"
#include "cuda/kv_split_shape.h"

enum { FA_MOST_DIM = 576 };

FA_DEVICE void fa_merge_splits(const fa_cuda_params &p) {
  __shared__ float weights[FA_MOST_SPLITS], parts_o[FA_JOIN_GROUPS][FA_MOST_DIM];
  __shared__ float most, total;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t row = blockIdx.x, rows = gridDim.x;
  fa_wait_for_kernels_before();
  const int i = row % p.max_seqlen_q, h = row / p.max_seqlen_q % p.heads_q, b = row / p.max_seqlen_q / p.heads_q;
  const fa_sequence s = fa_sequence_of(p, b);
  if (i >= s.seqlen_q) return;

  if (warp == 0) { /* the weight of each part; one without a key has none and is left out, never multiplied by 0 */
    const float sink = p.sinks ? p.sinks[h] : -CUDART_INF_F;
    float max = sink, sum = 0.0f;
    for (int part = lane; part < p.splits; part += 32) max = fa_max_sticky(max, p.split_sums[part * rows + row].max);
#pragma unroll
    for (int across = 16; across; across /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, max, across);
      max = other != other ? other : fa_max_sticky(max, other);
    }
    for (int part = lane; part < p.splits; part += 32) {
      const fa_split_sum found = p.split_sums[part * rows + row];
      const bool is_empty = found.max == -CUDART_INF_F;
      const float share = is_empty ? 0.0f : found.sum * expf(found.max - max);
      sum += share;
      weights[part] = is_empty ? -1.0f : share < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : share;
    }
#pragma unroll
    for (int across = 16; across; across /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, across);
    if (sink != -CUDART_INF_F) sum += expf(sink - max);
    if (lane == 0) {
      most = max, total = sum;
      if (p.lse) p.lse[fa_lse_offset(p, s, h, i)] = max == -CUDART_INF_F ? -CUDART_INF_F : max + logf(sum);
    }
  }
  __syncthreads();

  const int column = threadIdx.x % FA_JOIN_COLUMNS, group = threadIdx.x / FA_JOIN_COLUMNS;
  for (int d = column; d < p.head_dim_v; d += FA_JOIN_COLUMNS) {
    float value = 0.0f;
#pragma unroll 8
    for (int part = group; part < p.splits; part += FA_JOIN_GROUPS) {
      const float weight = weights[part];
      if (!(weight < 0.0f)) value = fmaf(weight, p.split_o[(part * rows + row) * p.head_dim_v + d], value);
    }
    parts_o[group][d] = value;
  }
  __syncthreads();
  for (int d = threadIdx.x; d < p.head_dim_v; d += FA_JOIN_THREADS) {
    float value = 0.0f;
#pragma unroll
    for (int g = 0; g < FA_JOIN_GROUPS; ++g) value += parts_o[g][d];
    fa_store_any(p.o.data, fa_row_offset(p, s, p.o, h, i) + d, p.dtype, most == -CUDART_INF_F ? 0.0f : value / total);
  }
}

#define FA_MERGE_SPLITS(name)                                                                                          \
  extern "C" __global__ void __launch_bounds__(FA_JOIN_THREADS) name(const __grid_constant__ fa_cuda_params p) { \
    fa_merge_splits(p);                                                                                                \
  }

#endif
