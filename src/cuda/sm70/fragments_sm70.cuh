/* The instructions of the Volta kernel and what moves data: m8n8k4, 128-bit shared memory, loads with zero fill, and
 * the exact attention of a single row for what tensor cores cannot answer. Layouts: layout_sm70.h. */
#ifndef FA_CUDA_FRAGMENTS_SM70_CUH
#define FA_CUDA_FRAGMENTS_SM70_CUH

#include "cuda/sequence.cuh"
#include "cuda/sm70/layout_sm70.h"

#define FA_WHOLE_WARP 0xffffffffu

/* c += a b, fp16 operands, fp32 accumulators; a row-major. */
FA_DEVICE void fa_mma_col(float (&c)[8], unsigned a0, unsigned a1, unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9}, {%10,%11}, "
      "{%0,%1,%2,%3,%4,%5,%6,%7};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
      : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
}
FA_DEVICE void fa_mma_row(float (&c)[8], unsigned a0, unsigned a1, unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m8n8k4.row.row.f32.f16.f16.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9}, {%10,%11}, "
      "{%0,%1,%2,%3,%4,%5,%6,%7};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
      : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
}

/* Dynamic shared memory, as an address of that space. */
FA_DEVICE int fa_shared_base() {
  extern __shared__ __align__(1024) unsigned char fa_shared[];
  return (int)__cvta_generic_to_shared(fa_shared);
}

FA_DEVICE uint4 fa_lds128(int address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
FA_DEVICE void fa_sts128(int address, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

/* The same number, but the compiler does not know: what is computed from it is computed here and not kept in
 * registers all through the loop. */
FA_DEVICE int fa_fresh(int x) {
  asm volatile("" : "+r"(x));
  return x;
}


FA_DEVICE unsigned fa_pack(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const unsigned *>(&pair);
}

FA_DEVICE bool fa_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

/* Eight halves of a row from column d < dim on; zeros from column dim on. VECTORS: rows are aligned to 16 bytes and dim
 * is a multiple of eight; else each element may be loaded by itself. */
template <bool VECTORS>
FA_DEVICE uint4 fa_load_chunk(const __half *row, int d, int dim, bool aligned) {
  if (VECTORS || (aligned && d + 8 <= dim)) return __ldg(reinterpret_cast<const uint4 *>(row + d));
  const unsigned short *e = reinterpret_cast<const unsigned short *>(row) + d;
  unsigned w[8];
#pragma unroll
  for (int n = 0; n < 8; n++) w[n] = d + n < dim ? __ldg(e + n) : 0u;
  return make_uint4(w[0] | w[1] << 16, w[2] | w[3] << 16, w[4] | w[5] << 16, w[6] | w[7] << 16);
}

FA_DEVICE unsigned fa_multiply_pair(unsigned pair, __half2 factor) {
  const __half2 product = __hmul2(*reinterpret_cast<const __half2 *>(&pair), factor);
  return *reinterpret_cast<const unsigned *>(&product);
}

/* ------------------------------------------------------------- one row, exactly */

/* fa_token_offset, the head's part first: in its order ptxas 12.9 spills in prefill_sm70_d128 (and less in the _general
 * instances of 96 and 128, which matter less). */
FA_DEVICE int64_t fa_sm70_token_offset(const fa_cuda_params &p, const fa_sequence &s, const fa_cuda_tensor &t, int h, int j) {
  const int64_t head = (int64_t)h * t.stride_head;
  if (p.page_table) {
    const int page = p.page_table[s.batch * p.page_table_stride + j / p.page_size];
    return head + (int64_t)max(0, min(page, p.num_pages - 1)) * t.stride_batch + (int64_t)(j % p.page_size) * t.stride_seq;
  }
  const int64_t start = p.cu_seqlens_kv ? s.kv_start * t.stride_seq : s.batch * t.stride_batch;
  return head + start + (int64_t)j * t.stride_seq;
}

FA_DEVICE float fa_exact_score(const fa_cuda_params &p, const fa_sequence &s, int h, int i, int j) {
  const __half *q = (const __half *)p.q.data + fa_row_offset(p, s, p.q, h, i);
  const __half *k = (const __half *)p.k.data + fa_sm70_token_offset(p, s, p.k, h / p.group, j);
  float dot = 0.0f;
#pragma unroll 1
  for (int d = 0; d < p.head_dim_qk; d++) dot = fmaf(__half2float(q[d]), __half2float(k[d]), dot);
  return fa_apply_rules(p, s, h, i, j, dot);
}

FA_DEVICE float fa_warp_sum(float x) {
  for (int n = 16; n; n >>= 1) x += __shfl_xor_sync(FA_WHOLE_WARP, x, n);
  return x;
}

/* A tensor core multiplies what a mask left out by P = 0, and 0 * NaN is NaN: rows whose o is not finite are done
 * again here, by a whole warp, leaving masked keys out. A kept key weighs at least 2^-100, so that an infinity in its
 * V row arrives. Writes the columns of GROUPS groups and, if part is 0, lse. */
template <int GROUPS, int PARTS>
FA_DEVICE void fa_exact_row(const fa_cuda_params &p, const fa_sequence &s, int h, int i, int part) {
  const int lane = threadIdx.x & 31;
  int begin, end;
  fa_band_row(p, s, i, begin, end);
  float top = p.sinks ? p.sinks[h] : -CUDART_INF_F;
#pragma unroll 1
  for (int j = begin + lane; j < end; j += 32) top = fmaxf(top, fa_exact_score(p, s, h, i, j));
  for (int n = 16; n; n >>= 1) top = fmaxf(top, __shfl_xor_sync(FA_WHOLE_WARP, top, n));

  float sum = 0.0f, o[GROUPS];
#pragma unroll
  for (int x = 0; x < GROUPS; x++) o[x] = 0.0f;
#pragma unroll 1
  for (int j = begin; j < end; j += 32) {
    float weight = 0.0f;
    bool kept = j + lane < end;
    if (kept) {
      const float score = fa_exact_score(p, s, h, i, j + lane);
      kept = score != -CUDART_INF_F;
      if (kept) {
        weight = expf(score - top);
        if (weight < 7.8886091e-31f) weight = 7.8886091e-31f;
        sum += weight;
      }
    }
    const unsigned keeps = __ballot_sync(FA_WHOLE_WARP, kept);
#pragma unroll 1
    for (int n = 0; n < 32; n++) {
      const float w = __shfl_sync(FA_WHOLE_WARP, weight, n);
      if (!(keeps >> n & 1u)) continue;
      const __half *v = (const __half *)p.v.data + fa_sm70_token_offset(p, s, p.v, h / p.group, j + n);
#pragma unroll
      for (int x = 0; x < GROUPS; x++) {
        const int d = 32 * (x * PARTS + part) + lane;
        if (d < p.head_dim_v) o[x] = fmaf(w, __half2float(v[d]), o[x]);
      }
    }
  }
  const bool empty = top == -CUDART_INF_F && !__any_sync(FA_WHOLE_WARP, sum != 0.0f);
  sum = fa_warp_sum(sum);
  if (p.sinks) sum += expf(p.sinks[h] - top);
  __half *out = (__half *)p.o.data + fa_row_offset(p, s, p.o, h, i);
#pragma unroll
  for (int x = 0; x < GROUPS; x++) {
    const int d = 32 * (x * PARTS + part) + lane;
    if (d < p.head_dim_v) out[d] = __float2half_rn(empty ? 0.0f : o[x] / sum);
  }
  if (p.lse && part == 0 && lane == 0) p.lse[fa_lse_offset(p, s, h, i)] = empty ? -CUDART_INF_F : top + logf(sum);
}

#endif
