/* One row of attention by one warp, exactly: keys that are not kept are left out, never multiplied by 0. For the rare
 * rows that a tensor-core kernel finds not finite (0 * NaN is NaN). Lane l has elements l, l + 32, ... of q and o in
 * registers (18 each); any type, any strides. Slow: a warp reduction a key. */
#ifndef FA_CUDA_ANY_ROWS_EXACT_CUH
#define FA_CUDA_ANY_ROWS_EXACT_CUH

#include "cuda/any/parts.cuh"

enum { FA_EXACT_ELEMENTS = 18 }; /* 576 / 32 */

enum { FA_EXACT_PIECE = 128, FA_ALL_COLUMNS = -1 };

/* Keys [begin, end) of row (h, i) of entry b; writes o and lse where part `part` (or FA_WHOLE) leaves them; of o only the
 * FA_EXACT_PIECE columns `piece`, and lse with the first of them, unless it is FA_ALL_COLUMNS. All lanes of a warp together. */
static __device__ __noinline__ void fa_exact_row(const fa_cuda_params &p, int b, int part, int h, int i, int begin,
                                                 int end, int piece) {
  const fa_sequence s = fa_sequence_of(p, b);
  const int lane = threadIdx.x % 32, kv_head = h / p.group;
  float q[FA_EXACT_ELEMENTS], o[FA_EXACT_ELEMENTS];
  const int64_t q_at = fa_row_offset(p, s, p.q, h, i);
#pragma unroll
  for (int n = 0; n < FA_EXACT_ELEMENTS; ++n) {
    q[n] = n * 32 + lane < p.head_dim_qk ? fa_load_any(p.q.data, q_at + n * 32 + lane, p.dtype) : 0.0f;
    o[n] = 0.0f;
  }
  const bool is_scaled = p.kv_dtype != p.dtype;
  float max = -CUDART_INF_F, sum = 0.0f;
  int low, high;
  fa_band_row(p, s, i, low, high);
  for (int j = ::max(begin, low); j < ::min(end, high); ++j) {
    if (p.mask.data &&
        !((const uint8_t *)p.mask.data)[s.batch * p.mask.stride_batch + h * p.mask.stride_head +
                                        i * p.mask.stride_seq + j])
      continue;
    const int64_t k_at = fa_token_offset(p, s, p.k, kv_head, j), v_at = fa_token_offset(p, s, p.v, kv_head, j);
    float dot = 0.0f;
#pragma unroll
    for (int n = 0; n < FA_EXACT_ELEMENTS; ++n)
      if (n * 32 + lane < p.head_dim_qk) dot = fmaf(q[n], fa_load_any(p.k.data, k_at + n * 32 + lane, p.kv_dtype), dot);
#pragma unroll
    for (int across = 16; across; across /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, across);
    if (is_scaled) dot *= fa_scale_at(p, s, p.k_scale, kv_head, j);
    const float score = fa_apply_rules(p, s, h, i, j, dot);
    if (score == -CUDART_INF_F) continue;
    const float raised = fa_max_sticky(max, score);
    const float down = max == -CUDART_INF_F ? 1.0f : exp2f((max - raised) * FA_LOG2E);
    float weight = exp2f((score - raised) * FA_LOG2E);
    sum = sum * down + weight;
    max = raised;
    weight = weight < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : weight;
    if (is_scaled) weight *= fa_scale_at(p, s, p.v_scale, kv_head, j);
    const float o_down = down < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : down;
#pragma unroll
    for (int n = 0; n < FA_EXACT_ELEMENTS; ++n)
      if (n * 32 + lane < p.head_dim_v)
        o[n] = fmaf(weight, fa_load_any(p.v.data, v_at + n * 32 + lane, p.kv_dtype), o[n] * o_down);
  }
  float lse;
  const bool is_whole = p.splits == 1 || part == FA_WHOLE;
  const float *sink = is_whole && p.sinks ? p.sinks + h : nullptr;
  const float inverse = fa_finish_row(max, sum, sink, lse);
  const bool is_empty = max == -CUDART_INF_F;
  const int64_t to = is_whole ? fa_row_offset(p, s, p.o, h, i) : fa_part_row(p, s, part, h, i) * p.head_dim_v;
#pragma unroll
  for (int n = 0; n < FA_EXACT_ELEMENTS; ++n) {
    if (n * 32 + lane >= p.head_dim_v) break;
    if (piece != FA_ALL_COLUMNS && piece != n * 32 / FA_EXACT_PIECE) continue;
    const float value = is_empty ? 0.0f : o[n] * inverse;
    if (is_whole)
      fa_store_any(p.o.data, to + n * 32 + lane, p.dtype, value);
    else
      p.split_o[to + n * 32 + lane] = value;
  }
  if (lane == 0 && piece <= 0) fa_write_end(p, s, part, h, i, max, sum, lse);
}

#endif
