/* Appending new tokens to the KV cache, with rotary position embedding; bit for bit what src/cpu/kv_append.c does.
 *
 *   x'[a] = x[a] cos - x[b] sin,  x'[b] = x[b] cos + x[a] sin   for the pairs (a, b) of the first rotary_dim elements
 *
 * One block an item: tokens of k, tokens of v (all KV heads, so that a scale they share is found once), then rows of q
 * (all heads). Grid x = batch * (2 seqlen_new + max_seqlen_q where q is rotated), 128 threads; a warp works on one head
 * at a time. Products and sums are rounded one by one, as the CPU's are. Bound: reading and writing new tokens once. */
#include "cuda/any/parts.cuh"
#include "cuda/append_params.h"

enum { WARPS = 4 };

/* ----------------------------------------------------- rounding, as core/dtype.h */

FA_DEVICE unsigned short f16_bits(float x) {
  if (x != x) return (unsigned short)((__float_as_uint(x) >> 16 & 0x8000u) | 0x7e00u);
  return __half_as_ushort(__float2half_rn(x));
}

FA_DEVICE unsigned short bf16_bits(float x) {
  if (x != x) return (unsigned short)(__float_as_uint(x) >> 16 | 0x40u);
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

FA_DEVICE uint8_t fp8_bits(float x) {
  const unsigned sign = __float_as_uint(x) >> 24 & 0x80u;
  const float magnitude = fabsf(x);
  if (magnitude != magnitude) return (uint8_t)(sign | 0x7fu);
  if (magnitude >= 448.0f) return (uint8_t)(sign | 0x7eu);
  if (magnitude < 0.015625f) /* below 2^-6: the fp32 adder rounds to a multiple of 2^-9 */
    return (uint8_t)(sign | (__float_as_uint(__fadd_rn(magnitude, 16384.0f)) - 0x46800000u));
  const unsigned bits = __float_as_uint(magnitude);
  return (uint8_t)(sign | (bits + 0x7ffffu + (bits >> 20 & 1u) - 0x3c000000u) >> 20);
}

FA_DEVICE void store_bits(void *data, int64_t at, int dtype, float x) {
  switch (dtype) {
    case FA_F32: ((float *)data)[at] = x; break;
    case FA_F16: ((unsigned short *)data)[at] = f16_bits(x); break;
    default: ((unsigned short *)data)[at] = bf16_bits(x); break;
  }
}

/* `scale` of 0 or not finite: every value reads back as 0 or NaN anyway. */
FA_DEVICE void store_quantised(void *data, int64_t at, int dtype, float x, float scale) {
  const bool is_usable = scale != 0.0f && fabsf(scale) <= CUDART_MAX_NORMAL_F;
  const float value = is_usable ? __fdiv_rn(x, scale) : 0.0f;
  if (dtype == FA_F8)
    ((uint8_t *)data)[at] = fp8_bits(value);
  else
    ((int8_t *)data)[at] = (int8_t)(value != value ? 0.0f : rintf(fminf(fmaxf(value, -127.0f), 127.0f)));
}

/* ------------------------------------------------------------------- elements */

/* Element d of the row at `at`, rotated at `position`. */
FA_DEVICE float rotated(const fa_cuda_append_params &a, const void *data, int64_t at, int d, int64_t position) {
  const float own = fa_load_any(data, at + d, a.problem.dtype);
  const int half = a.rotary_dim / 2;
  if (d >= a.rotary_dim) return own;
  const int pair = a.rotary_interleaved ? d / 2 : d % half;
  const bool is_first = a.rotary_interleaved ? d % 2 == 0 : d < half;
  const int partner = a.rotary_interleaved ? d ^ 1 : is_first ? d + half : d - half;
  const float other = fa_load_any(data, at + partner, a.problem.dtype);
  const float cosine = a.rotary_cos[position * half + pair], sine = a.rotary_sin[position * half + pair];
  const float kept = __fmul_rn(own, cosine), crossed = __fmul_rn(other, sine);
  return is_first ? __fsub_rn(kept, crossed) : __fadd_rn(kept, crossed);
}

FA_DEVICE void append_token(const fa_cuda_append_params &a, const fa_cuda_tensor &fresh, const fa_cuda_tensor &cache,
                            const fa_cuda_tensor &scale, int dim, bool is_rotated, int b, int t) {
  __shared__ float largest_of[WARPS];
  const fa_cuda_params &p = a.problem;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const fa_sequence s = fa_sequence_of(p, b);
  const int position = s.seqlen_kv - p.seqlen_new + t;
  if (position < 0) return; /* lengths out of range */
  const bool is_quantised = p.kv_dtype != p.dtype;

  /* A token's own scale maps its largest magnitude to the type's largest value; heads that share it (stride_head 0)
   * are looked at together. Scales that batch entries share cannot be one token's own: used as found. */
  const bool is_shared_by_batch = !p.page_table && scale.stride_batch == 0 && p.batch > 1;
  if (is_quantised && scale.stride_seq != 0 && !is_shared_by_batch) {
    const float most = p.kv_dtype == FA_I8 ? 127.0f : 448.0f;
    float largest = 0.0f;
    for (int h = warp; h < p.heads_kv; h += WARPS) {
      const int64_t at = b * fresh.stride_batch + t * fresh.stride_seq + h * fresh.stride_head;
      if (scale.stride_head) largest = 0.0f;
      for (int d = lane; d < dim; d += 32) {
        const float x = is_rotated ? rotated(a, fresh.data, at, d, position) : fa_load_any(fresh.data, at + d, p.dtype);
        largest = fmaxf(largest, fabsf(x)); /* passes NaN over */
      }
#pragma unroll
      for (int across = 16; across; across /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, across));
      if (scale.stride_head && lane == 0)
        ((float *)scale.data)[fa_token_offset(p, s, scale, h, position)] = __fdiv_rn(fminf(largest, 3.0e38f), most);
    }
    if (!scale.stride_head) {
      if (lane == 0) largest_of[warp] = largest;
      __syncthreads();
      if (threadIdx.x == 0) {
        for (int w = 1; w < WARPS; ++w) largest = fmaxf(largest, largest_of[w]);
        ((float *)scale.data)[fa_token_offset(p, s, scale, 0, position)] = __fdiv_rn(fminf(largest, 3.0e38f), most);
      }
    }
    __syncthreads(); /* the scales are there for all */
  }

  for (int h = warp; h < p.heads_kv; h += WARPS) {
    const int64_t from = b * fresh.stride_batch + t * fresh.stride_seq + h * fresh.stride_head;
    const int64_t to = fa_token_offset(p, s, cache, h, position);
    const float own_scale =
        is_quantised ? ((volatile const float *)scale.data)[fa_token_offset(p, s, scale, h, position)] : 1.0f;
    for (int d = lane; d < dim; d += 32) {
      const float x =
          is_rotated ? rotated(a, fresh.data, from, d, position) : fa_load_any(fresh.data, from + d, p.dtype);
      if (is_quantised)
        store_quantised(cache.data, to + d, p.kv_dtype, x, own_scale);
      else
        store_bits(cache.data, to + d, p.dtype, x);
    }
  }
}

FA_DEVICE void rotate_query(const fa_cuda_append_params &a, int b, int i) {
  const fa_cuda_params &p = a.problem;
  const fa_sequence s = fa_sequence_of(p, b);
  const int position = s.seqlen_kv - s.seqlen_q + i;
  if (i >= s.seqlen_q || position < 0) return;
  for (int h = threadIdx.x / 32; h < p.heads_q; h += WARPS) {
    const int64_t from = fa_row_offset(p, s, p.q, h, i), to = fa_row_offset(p, s, a.rotated_q, h, i);
    for (int d = threadIdx.x % 32; d < p.head_dim_qk; d += 32)
      store_bits(a.rotated_q.data, to + d, p.dtype, rotated(a, p.q.data, from, d, position));
  }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) append_any(const __grid_constant__ fa_cuda_append_params a) {
  const fa_cuda_params &p = a.problem;
  const unsigned tokens = (unsigned)p.batch * p.seqlen_new, item = blockIdx.x;
  if (item < tokens)
    append_token(a, a.k_new, p.k, p.k_scale, p.head_dim_qk, a.rotary_dim > 0, item / p.seqlen_new, item % p.seqlen_new);
  else if (item < 2 * tokens)
    append_token(a, a.v_new, p.v, p.v_scale, p.head_dim_v, false, (item - tokens) / p.seqlen_new, item % p.seqlen_new);
  else
    rotate_query(a, (item - 2 * tokens) / p.max_seqlen_q, (item - 2 * tokens) % p.max_seqlen_q);
}
