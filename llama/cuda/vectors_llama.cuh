/* Eight neighbouring elements at a time, of any type, as floats: one 16-byte access for 16-bit types, two for fp32. */
#ifndef FA_LLAMA_VECTORS_CUH
#define FA_LLAMA_VECTORS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

#include "cuda/operators_params.h"

#define FA_DEVICE static __device__ __forceinline__

enum { EIGHT = 8 };

template <typename T> FA_DEVICE float to_float(T x);
template <> __device__ __forceinline__ float to_float(float x) { return x; }
template <> __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
template <> __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> FA_DEVICE T from_float(float x);
template <> __device__ __forceinline__ float from_float(float x) { return x; }
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }

struct eight_floats {
  float x[EIGHT];
};

template <typename T> struct alignas(16) packed_eight {
  T x[EIGHT];
};

/* Elements at, at + 1, ... of an array of `end`. ALIGNED: at is a multiple of 8, so is end, and the array begins at a
 * multiple of 16 bytes; else elements behind `end` read as 0. */
template <bool ALIGNED, typename T> FA_DEVICE eight_floats load_eight(const T *from, int64_t at, int64_t end) {
  eight_floats out;
  if constexpr (ALIGNED) {
    const packed_eight<T> loaded = *(const packed_eight<T> *)(from + at);
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) out.x[e] = to_float(loaded.x[e]);
  } else {
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) out.x[e] = at + e < end ? to_float(from[at + e]) : 0.0f;
  }
  return out;
}

template <bool ALIGNED, typename T> FA_DEVICE void store_eight(T *to, int64_t at, int64_t end, const eight_floats &value) {
  if constexpr (ALIGNED) {
    packed_eight<T> stored;
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) stored.x[e] = from_float<T>(value.x[e]);
    *(packed_eight<T> *)(to + at) = stored;
  } else {
#pragma unroll
    for (int e = 0; e < EIGHT; ++e)
      if (at + e < end) to[at + e] = from_float<T>(value.x[e]);
  }
}

/* A function for each type; `call` sees it as T. */
#define FA_LLAMA_KERNEL(name, type, T_, params_type, threads, call)                                             \
  extern "C" __global__ void __launch_bounds__(threads) name##_##type(const __grid_constant__ params_type p) { \
    using T = T_;                                                                                               \
    call;                                                                                                       \
  }
#define FA_LLAMA_KERNELS(name, params_type, threads, call)                \
  FA_LLAMA_KERNEL(name, f32, float, params_type, threads, call)          \
  FA_LLAMA_KERNEL(name, f16, __half, params_type, threads, call)         \
  FA_LLAMA_KERNEL(name, bf16, __nv_bfloat16, params_type, threads, call)

#endif
