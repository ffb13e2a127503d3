/* What every CUDA kernel shares: the lengths and the addresses of one batch entry, its band, the score rules. */
#ifndef FA_CUDA_SEQUENCE_CUH
#define FA_CUDA_SEQUENCE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

#include "cuda/cuda_params.h"

/* fa_dtype of the public header, which is not included in device code. */
enum { FA_F32 = 0, FA_F16 = 1, FA_BF16 = 2, FA_I8 = 3, FA_F8 = 4 };

#define FA_DEVICE static __device__ __forceinline__
#define FA_LOG2E 1.4426950408889634f
#define FA_LN2 0.6931471805599453f

/* 2^x, two units in the last place; below 2^-126 zero. */
FA_DEVICE float fa_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* One batch entry. Lengths that lie outside the plan's maxima are cut to them, so that bad lengths read nothing
 * outside the tensors. */
struct fa_sequence {
  int seqlen_q, seqlen_kv;
  int64_t q_start;  /* row of q and o this entry begins at, 0 when it begins at b * stride_batch */
  int64_t kv_start; /* the same for ragged k and v */
  int batch;
};

FA_DEVICE fa_sequence fa_sequence_of(const fa_cuda_params &p, int b) {
  fa_sequence s;
  s.batch = b;
  s.q_start = p.cu_seqlens_q ? p.cu_seqlens_q[b] : 0;
  s.seqlen_q = p.cu_seqlens_q ? p.cu_seqlens_q[b + 1] - p.cu_seqlens_q[b] : p.max_seqlen_q;
  s.kv_start = p.cu_seqlens_kv ? p.cu_seqlens_kv[b] : 0;
  s.seqlen_kv = p.seqlens_kv      ? p.seqlens_kv[b] + p.seqlen_new
                : p.cu_seqlens_kv ? p.cu_seqlens_kv[b + 1] - p.cu_seqlens_kv[b]
                                  : p.max_seqlen_kv;
  s.seqlen_q = max(0, min(s.seqlen_q, p.max_seqlen_q));
  s.seqlen_kv = max(0, min(s.seqlen_kv, p.max_seqlen_kv));
  return s;
}

/* Element offset of row i, head h of q or o. */
FA_DEVICE int64_t fa_row_offset(const fa_cuda_params &p, const fa_sequence &s, const fa_cuda_tensor &t, int h, int i) {
  const int64_t start = p.cu_seqlens_q ? s.q_start * t.stride_seq : s.batch * t.stride_batch;
  return start + (int64_t)h * t.stride_head + (int64_t)i * t.stride_seq;
}

/* Index of lse of head h, query i. */
FA_DEVICE int64_t fa_lse_offset(const fa_cuda_params &p, const fa_sequence &s, int h, int i) {
  return (p.cu_seqlens_q ? s.q_start : s.batch * p.lse_stride_batch) + h * p.lse_stride_head + i;
}

/* Element offset of token j, KV head h of k, v or their scales, which are not paged. */
FA_DEVICE int64_t fa_unpaged_offset(const fa_cuda_params &p, const fa_sequence &s, const fa_cuda_tensor &t, int h, int j) {
  const int64_t start = p.cu_seqlens_kv ? s.kv_start * t.stride_seq : s.batch * t.stride_batch;
  return (int64_t)h * t.stride_head + start + (int64_t)j * t.stride_seq;
}

/* The same, paged or not. A page index outside the cache is cut to it. */
FA_DEVICE int64_t fa_token_offset(const fa_cuda_params &p, const fa_sequence &s, const fa_cuda_tensor &t, int h, int j) {
  if (!p.page_table) return fa_unpaged_offset(p, s, t, h, j);
  const int page = p.page_table[s.batch * p.page_table_stride + j / p.page_size];
  return (int64_t)h * t.stride_head + (int64_t)max(0, min(page, p.num_pages - 1)) * t.stride_batch +
         (int64_t)(j % p.page_size) * t.stride_seq;
}

/* Keys [begin, end) that query i keeps by band and sequence end; begin >= end: none. */
FA_DEVICE void fa_band_row(const fa_cuda_params &p, const fa_sequence &s, int i, int &begin, int &end) {
  const int position = i + s.seqlen_kv - s.seqlen_q;
  begin = max(0, position - p.window_left);
  end = min(s.seqlen_kv, position + p.window_right + 1);
}

/* Keys [begin, end) that any query of [first, last] keeps. */
FA_DEVICE void fa_band_rows(const fa_cuda_params &p, const fa_sequence &s, int first, int last, int &begin, int &end) {
  const int diagonal = s.seqlen_kv - s.seqlen_q;
  begin = max(0, first + diagonal - p.window_left);
  end = min(s.seqlen_kv, last + diagonal + p.window_right + 1);
}

FA_DEVICE bool fa_has_rules(const fa_cuda_params &p) {
  return p.softcap > 0.0f || p.alibi_slopes || p.bias.data || p.mask.data;
}

/* Score of query i against key j from `dot` = q . k, not scaled: scale, softcap, ALiBi, bias, mask. The band is apart. */
FA_DEVICE float fa_apply_rules(const fa_cuda_params &p, const fa_sequence &s, int h, int i, int j, float dot) {
  float score = dot * p.scale;
  if (p.softcap > 0.0f) score = p.softcap * tanhf(score / p.softcap);
  if (p.alibi_slopes)
    score -= p.alibi_slopes[s.batch * p.alibi_stride_batch + h] * fabsf((float)(i + s.seqlen_kv - s.seqlen_q - j));
  if (p.bias.data) {
    const int64_t at = s.batch * p.bias.stride_batch + h * p.bias.stride_head + i * p.bias.stride_seq + j;
    score += p.bias_dtype == FA_F32   ? ((const float *)p.bias.data)[at]
             : p.bias_dtype == FA_F16 ? __half2float(((const __half *)p.bias.data)[at])
                                      : __bfloat162float(((const __nv_bfloat16 *)p.bias.data)[at]);
  }
  if (p.mask.data) {
    const int64_t at = s.batch * p.mask.stride_batch + h * p.mask.stride_head + i * p.mask.stride_seq + j;
    if (!((const uint8_t *)p.mask.data)[at]) score = -CUDART_INF_F;
  }
  return score;
}

#endif
