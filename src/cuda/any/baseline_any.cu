/* The passes of unfused attention on the GPU, between the two matrix products of cuBLAS.
 *
 *   standard: one pass reads S, applies rules and band, takes the softmax in fp32 registers, writes P in place.
 *   eager: a pass each for scale, for adding a full S_q x S_kv mask of the input type, for softmax to fp32, and for the
 *     cast back, as a framework runs it.
 *
 * A block of threads is a row; a thread holds groups of 8 neighbouring keys (16-byte accesses for 16-bit types).
 * Bound: bandwidth; standard moves 4 bytes a score (16-bit), eager 2 * 2 + 3 * 2 + 6 + 6 and the mask. */
#include "cuda/baseline_params.h"
#include "cuda/sequence.cuh"

enum { GROUP = 8 };

template <typename T> FA_DEVICE float to_float(T x);
template <> __device__ __forceinline__ float to_float(float x) { return x; }
template <> __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
template <> __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> FA_DEVICE T from_float(float x);
template <> __device__ __forceinline__ float from_float(float x) { return x; }
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }

/* Eight neighbouring elements at once. */
template <typename T> struct alignas(sizeof(T) * GROUP > 16 ? 16 : sizeof(T) * GROUP) eight {
  T x[GROUP];
};

/* Of all threads of the block; `scratch` has 32 floats. */
template <typename F> FA_DEVICE float reduce(float x, float *scratch, F combine, float neutral) {
  for (int step = 16; step; step >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : neutral;
  for (int step = 16; step; step >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

struct row_place {
  int b, h, i;
  int64_t at; /* element of scores */
};
FA_DEVICE row_place place_of(const fa_baseline_params &w) {
  const int pair = w.first + (int)blockIdx.y;
  row_place place = {pair / w.run.heads_q, pair % w.run.heads_q, (int)blockIdx.x, 0};
  place.at = ((int64_t)blockIdx.y * w.run.max_seqlen_q + place.i) * w.scores_width;
  return place;
}

FA_DEVICE void write_lse(const fa_baseline_params &w, const row_place &place, float maximum, float sum) {
  if (!w.run.lse || threadIdx.x) return;
  const fa_sequence s = fa_sequence_of(w.run, place.b);
  w.run.lse[fa_lse_offset(w.run, s, place.h, place.i)] = sum == 0.0f ? -CUDART_INF_F : maximum + logf(sum); /* NaN stays */
}

/* GROUPS of 8 keys a thread; a row of more keys than that is read twice (HELD false). */
template <typename T, int GROUPS, bool HELD>
FA_DEVICE void softmax_row(const fa_baseline_params &w) {
  __shared__ float scratch[32];
  const fa_cuda_params &p = w.run;
  const row_place place = place_of(w);
  const fa_sequence s = fa_sequence_of(p, place.b);
  int begin, end;
  fa_band_row(p, s, place.i, begin, end);
  const bool rules = fa_has_rules(p);
  eight<T> *row = (eight<T> *)((T *)w.scores + place.at);
  const int groups = (p.max_seqlen_kv + GROUP - 1) / GROUP;
  auto score = [&](float x, int j) {
    if (j < begin || j >= end) return -CUDART_INF_F;
    return rules ? fa_apply_rules(p, s, place.h, place.i, j, x) : x; /* p.scale is 1: the product has it already */
  };
  float values[HELD ? GROUPS * GROUP : 1];
  float maximum = p.sinks ? p.sinks[place.h] : -CUDART_INF_F;
  if constexpr (HELD) {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const int g = n * blockDim.x + threadIdx.x;
      eight<T> loaded = {};
      if (g < groups) loaded = row[g];
#pragma unroll
      for (int e = 0; e < GROUP; ++e) {
        values[n * GROUP + e] = g < groups ? score(to_float(loaded.x[e]), g * GROUP + e) : -CUDART_INF_F;
        maximum = fmaxf(maximum, values[n * GROUP + e]);
      }
    }
  } else {
    for (int g = threadIdx.x; g < groups; g += blockDim.x)
      for (int e = 0; e < GROUP; ++e) maximum = fmaxf(maximum, score(to_float(row[g].x[e]), g * GROUP + e));
  }
  maximum = reduce(maximum, scratch, [](float a, float b) { return fmaxf(a, b); }, -CUDART_INF_F);
  const float shift = maximum == -CUDART_INF_F ? 0.0f : maximum;
  float sum = 0.0f;
  if constexpr (HELD) {
#pragma unroll
    for (int n = 0; n < GROUPS * GROUP; ++n) {
      values[n] = exp2f((values[n] - shift) * FA_LOG2E);
      sum += values[n];
    }
  } else {
    for (int g = threadIdx.x; g < groups; g += blockDim.x)
      for (int e = 0; e < GROUP; ++e) sum += exp2f((score(to_float(row[g].x[e]), g * GROUP + e) - shift) * FA_LOG2E);
  }
  sum = reduce(sum, scratch, [](float a, float b) { return a + b; }, 0.0f);
  if (p.sinks) sum += exp2f((p.sinks[place.h] - shift) * FA_LOG2E);
  write_lse(w, place, maximum, sum);
  const float inverse = sum > 0.0f ? 1.0f / sum : sum == 0.0f ? 0.0f : sum; /* NaN stays */
  if constexpr (HELD) {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const int g = n * blockDim.x + threadIdx.x;
      eight<T> out;
#pragma unroll
      for (int e = 0; e < GROUP; ++e) out.x[e] = from_float<T>(values[n * GROUP + e] * inverse);
      if (g < groups) row[g] = out;
    }
  } else {
    for (int g = threadIdx.x; g < groups; g += blockDim.x) {
      eight<T> out;
      for (int e = 0; e < GROUP; ++e)
        out.x[e] = from_float<T>(exp2f((score(to_float(row[g].x[e]), g * GROUP + e) - shift) * FA_LOG2E) * inverse);
      row[g] = out;
    }
  }
}

/* ------------------------------------------------------------- eager's passes, element by element */

template <typename T> FA_DEVICE void scale_pass(const fa_baseline_params &w) {
  const row_place place = place_of(w);
  T *row = (T *)w.scores + place.at;
  for (int j = threadIdx.x; j < w.run.max_seqlen_kv; j += blockDim.x)
    row[j] = from_float<T>(to_float(row[j]) * w.run.scale);
}

template <typename T> FA_DEVICE void mask_pass(const fa_baseline_params &w) {
  int begin, end;
  fa_band_row(w.run, fa_sequence_of(w.run, (int)blockIdx.y), (int)blockIdx.x, begin, end);
  T *row = (T *)w.mask + ((int64_t)blockIdx.y * w.run.max_seqlen_q + blockIdx.x) * w.scores_width;
  for (int j = threadIdx.x; j < w.run.max_seqlen_kv; j += blockDim.x)
    row[j] = from_float<T>(j >= begin && j < end ? 0.0f : -CUDART_INF_F);
}

template <typename T> FA_DEVICE void add_pass(const fa_baseline_params &w) {
  const row_place place = place_of(w);
  T *row = (T *)w.scores + place.at;
  const int entry = w.run.seqlens_kv ? place.b : 0, keys = fa_sequence_of(w.run, place.b).seqlen_kv;
  const T *mask = (const T *)w.mask + ((int64_t)entry * w.run.max_seqlen_q + place.i) * w.scores_width;
  /* Behind the sequence anything may lie, and adding to a NaN does not mask it. */
  for (int j = threadIdx.x; j < w.run.max_seqlen_kv; j += blockDim.x)
    row[j] = from_float<T>(j < keys ? to_float(row[j]) + to_float(mask[j]) : -CUDART_INF_F);
}

template <typename T> FA_DEVICE void wide_softmax(const fa_baseline_params &w) {
  __shared__ float scratch[32];
  const row_place place = place_of(w);
  const T *row = (const T *)w.scores + place.at;
  float *out = w.wide + place.at, maximum = -CUDART_INF_F, sum = 0.0f;
  const int keys = w.run.max_seqlen_kv;
  for (int j = threadIdx.x; j < keys; j += blockDim.x) maximum = fmaxf(maximum, to_float(row[j]));
  maximum = reduce(maximum, scratch, [](float a, float b) { return fmaxf(a, b); }, -CUDART_INF_F);
  const float shift = maximum == -CUDART_INF_F ? 0.0f : maximum;
  for (int j = threadIdx.x; j < keys; j += blockDim.x) sum += expf(to_float(row[j]) - shift);
  sum = reduce(sum, scratch, [](float a, float b) { return a + b; }, 0.0f);
  write_lse(w, place, maximum, sum);
  for (int j = threadIdx.x; j < keys; j += blockDim.x)
    out[j] = sum == 0.0f ? 0.0f : expf(to_float(row[j]) - shift) / sum;
}

template <typename T> FA_DEVICE void cast_pass(const fa_baseline_params &w) {
  const row_place place = place_of(w);
  const float *from = w.wide + place.at;
  T *to = (T *)w.scores + place.at;
  for (int j = threadIdx.x; j < w.run.max_seqlen_kv; j += blockDim.x) to[j] = from_float<T>(from[j]);
}

/* ------------------------------------------------------------- operands */

/* Rows of `source` [batch, seq, heads, dim] into the dense tensor run.q, or back. Grid y: heads, z: batch entries. */
template <typename T> FA_DEVICE void copy_rows(const fa_baseline_params &w, bool back) {
  const fa_cuda_tensor &dense = w.run.q, &strided = w.source;
  const int h = blockIdx.y, b = blockIdx.z, step = w.source_whole ? 16 / (int)sizeof(T) : 1;
  const int per_row = (w.run.head_dim_qk + step - 1) / step;
  const unsigned n = blockIdx.x * blockDim.x + threadIdx.x;
  const int i = (int)(n / per_row), d = (int)(n % per_row) * step;
  if (i >= w.source_rows) return;
  T *packed = (T *)dense.data + b * dense.stride_batch + i * dense.stride_seq + h * dense.stride_head + d;
  T *given = (T *)strided.data + b * strided.stride_batch + i * strided.stride_seq + h * strided.stride_head + d;
  const bool is_behind = w.source_ends && i >= fa_sequence_of(w.run, b).seqlen_kv;
  if (w.source_whole) {
    const uint4 x = is_behind ? make_uint4(0, 0, 0, 0) : *(const uint4 *)(back ? packed : given);
    *(uint4 *)(back ? given : packed) = x;
  } else {
    const T x = is_behind ? from_float<T>(0.0f) : back ? *packed : *given;
    *(back ? given : packed) = x;
  }
}

template <typename T> FA_DEVICE const void *head_of(const fa_cuda_tensor &t, int b, int h) {
  return (const T *)t.data + b * t.stride_batch + h * t.stride_head;
}

template <typename T> FA_DEVICE void find_operands(const fa_baseline_params &w) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= w.count) return;
  const int pair = w.first + n, b = pair / w.run.heads_q, h = pair % w.run.heads_q;
  w.q_rows[n] = head_of<T>(w.run.q, b, h);
  w.k_rows[n] = head_of<T>(w.run.k, b, h / w.run.group);
  w.v_rows[n] = head_of<T>(w.run.v, b, h / w.run.group);
  w.o_rows[n] = (void *)head_of<T>(w.run.o, b, h);
  w.score_blocks[n] = (T *)w.scores + (int64_t)n * w.run.max_seqlen_q * w.scores_width;
}

#define KERNEL(name, type, call)                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) name##_##type(const __grid_constant__ fa_baseline_params w) { call; }
#define KERNELS(type, T)                                                   \
  KERNEL(baseline_softmax_1, type, (softmax_row<T, 1, true>(w)))           \
  KERNEL(baseline_softmax_2, type, (softmax_row<T, 2, true>(w)))           \
  KERNEL(baseline_softmax_4, type, (softmax_row<T, 4, true>(w)))           \
  KERNEL(baseline_softmax_8, type, (softmax_row<T, 8, true>(w)))           \
  KERNEL(baseline_softmax_any, type, (softmax_row<T, 1, false>(w)))        \
  KERNEL(baseline_scale, type, scale_pass<T>(w))                           \
  KERNEL(baseline_mask, type, mask_pass<T>(w))                             \
  KERNEL(baseline_add, type, add_pass<T>(w))                               \
  KERNEL(baseline_wide_softmax, type, wide_softmax<T>(w))                  \
  KERNEL(baseline_cast, type, cast_pass<T>(w))                             \
  KERNEL(baseline_pack, type, copy_rows<T>(w, false))                      \
  KERNEL(baseline_unpack, type, copy_rows<T>(w, true))                     \
  KERNEL(baseline_operands, type, find_operands<T>(w))
KERNELS(f32, float)
KERNELS(f16, __half)
KERNELS(bf16, __nv_bfloat16)
