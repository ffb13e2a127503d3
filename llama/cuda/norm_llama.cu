/* RMS norm, a block of threads a row:
 *   norm       y = x / sqrt(mean(x^2) + epsilon) * weight     x fp32, y of dtype; before that x = x + t where there is a t
 *   norm_add   x = x + t / sqrt(mean(t^2) + epsilon) * weight t of dtype, x fp32
 * The row is read twice; the second time it comes from the cache. Bound: bandwidth, rows * width * (4 + bytes of dtype),
 * norm_add 4 more. */
#include "cuda/vectors_llama.cuh"

enum { MOST_THREADS = 1024 };

/* Of all threads of the block, in one order. */
FA_DEVICE float sum_of_block(float x) {
  __shared__ float scratch[32];
#pragma unroll
  for (int step = 16; step; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0.0f;
#pragma unroll
  for (int step = 16; step; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

template <bool ALIGNED, bool ADD, typename FROM, typename TO> FA_DEVICE void norm_row(const fa_norm_params &p) {
  const FROM *from = (const FROM *)p.from + (int64_t)blockIdx.x * p.width;
  TO *to = (TO *)p.to + (int64_t)blockIdx.x * p.width;
  const int64_t first = (int64_t)threadIdx.x * EIGHT, step = (int64_t)blockDim.x * EIGHT;
  float squares = 0.0f;
  for (int64_t at = first; at < p.width; at += step) {
    eight_floats x = load_eight<ALIGNED>(from, at, p.width);
    if constexpr (!ADD) {
      if (p.added) { /* the thread reads back below what it writes here */
        const eight_floats t = load_eight<ALIGNED>(p.added + (int64_t)blockIdx.x * p.width, at, p.width);
#pragma unroll
        for (int e = 0; e < EIGHT; ++e) x.x[e] += t.x[e];
        store_eight<ALIGNED>((float *)from, at, p.width, x);
      }
    }
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) squares += x.x[e] * x.x[e];
  }
  const float factor = 1.0f / sqrtf(sum_of_block(squares) / (float)p.width + p.epsilon);
  for (int64_t at = first; at < p.width; at += step) {
    eight_floats x = load_eight<ALIGNED>(from, at, p.width);
    const eight_floats weight = load_eight<ALIGNED>(p.weight, at, p.width);
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) x.x[e] = x.x[e] * factor * weight.x[e];
    if constexpr (ADD) {
      const eight_floats before = load_eight<ALIGNED>(to, at, p.width);
#pragma unroll
      for (int e = 0; e < EIGHT; ++e) x.x[e] += before.x[e];
    }
    store_eight<ALIGNED>(to, at, p.width, x);
  }
}

template <bool ADD, typename FROM, typename TO> FA_DEVICE void norm_any(const fa_norm_params &p) {
  if (p.aligned)
    norm_row<true, ADD, FROM, TO>(p);
  else
    norm_row<false, ADD, FROM, TO>(p);
}

FA_LLAMA_KERNELS(norm, fa_norm_params, MOST_THREADS, (norm_any<false, float, T>(p)))
FA_LLAMA_KERNELS(norm_add, fa_norm_params, MOST_THREADS, (norm_any<true, T, float>(p)))
