/* One row of attention by one warp, key by key, in fp32: what a tensor-core kernel calls for the rare row whose sums are
 * not finite. There a masked key has the weight 0, and 0 * NaN is NaN; here it is left out. Slow on purpose: two
 * passes over the keys, 16-bit loads. */
#ifndef FA_CUDA_PREFILL_EXACT_CUH
#define FA_CUDA_PREFILL_EXACT_CUH

#include "cuda/sequence.cuh"

FA_DEVICE float fa_number(uint16_t bits, bool is_bf16) {
  return is_bf16 ? __uint_as_float((unsigned)bits << 16) : __half2float(__ushort_as_half(bits));
}
FA_DEVICE uint16_t fa_bits(float x, bool is_bf16) {
  return is_bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x)) : __half_as_ushort(__float2half_rn(x));
}

/* Score of row i and key j, natural; -inf where the mask takes the key away. */
FA_DEVICE float fa_score_exact(const fa_cuda_params &p, const fa_sequence &s, int h, int i, int j, bool is_bf16) {
  const uint16_t *q = (const uint16_t *)p.q.data + fa_row_offset(p, s, p.q, h, i);
  const uint16_t *k = (const uint16_t *)p.k.data + fa_token_offset(p, s, p.k, h / p.group, j);
  float dot = 0.0f;
#pragma unroll 1
  for (int d = 0; d < p.head_dim_qk; ++d) dot += fa_number(q[d], is_bf16) * fa_number(k[d], is_bf16);
  return fa_apply_rules(p, s, h, i, j, dot);
}

/* Writes o of row i; lse does not depend on v and was right already. All lanes of the warp take part. */
template <int DV> static __device__ __noinline__ void fa_row_exact(const fa_cuda_params &p, const fa_sequence s, int h,
                                                                   int i, bool is_bf16) {
  const int lane = threadIdx.x & 31;
  int begin, end;
  fa_band_row(p, s, i, begin, end);
  float top = p.sinks ? p.sinks[h] : -CUDART_INF_F;
#pragma unroll 1
  for (int j = begin + lane; j < end; j += 32) top = fmaxf(top, fa_score_exact(p, s, h, i, j, is_bf16));
#pragma unroll
  for (int step = 16; step; step >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));

  float sum = p.sinks && lane == 0 && top != -CUDART_INF_F ? expf(p.sinks[h] - top) : 0.0f;
  float o[DV / 32];
#pragma unroll
  for (int n = 0; n < DV / 32; ++n) o[n] = 0.0f;
#pragma unroll 1
  for (int first = begin; first < end; first += 32) {
    const int j = first + lane;
    const float score = j < end ? fa_score_exact(p, s, h, i, j, is_bf16) : -CUDART_INF_F;
    const bool kept = !(score == -CUDART_INF_F); /* a NaN is kept */
    const float weight = kept ? expf(score - top) : 0.0f;
    sum += weight;
#pragma unroll 1
    for (unsigned left = __ballot_sync(~0u, kept); left; left &= left - 1) {
      const int from = __ffs(left) - 1;
      const float w = __shfl_sync(~0u, weight, from);
      const uint16_t *v = (const uint16_t *)p.v.data + fa_token_offset(p, s, p.v, h / p.group, first + from);
#pragma unroll
      for (int n = 0; n < DV / 32; ++n)
        if (lane + n * 32 < p.head_dim_v) o[n] += w * fa_number(v[lane + n * 32], is_bf16);
    }
  }
#pragma unroll
  for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(~0u, sum, step);
  uint16_t *to = (uint16_t *)p.o.data + fa_row_offset(p, s, p.o, h, i);
#pragma unroll
  for (int n = 0; n < DV / 32; ++n)
    if (lane + n * 32 < p.head_dim_v) to[lane + n * 32] = fa_bits(sum == 0.0f ? 0.0f : o[n] / sum, is_bf16);
}

#endif
