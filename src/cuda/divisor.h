/* Division by a number that a launch knows, without dividing: a GPU takes a hundred cycles for one of those. Plain C,
 * included by the host side and by the kernels. */
#ifndef FA_CUDA_DIVISOR_H
#define FA_CUDA_DIVISOR_H

#include <stdint.h>

#ifdef __CUDACC__
#define FA_HOST_AND_DEVICE static __host__ __device__ __forceinline__
#else
#define FA_HOST_AND_DEVICE static inline
#endif

/* x / d = (x * (2^32 + multiplier) / 2^32) >> shift, for 0 <= x < 2^31 (Granlund and Montgomery 1994, section 4). */
typedef struct fa_divisor {
  uint32_t value, multiplier, shift;
} fa_divisor;

/* 1 <= value < 2^31. */
static inline fa_divisor fa_divisor_of(int64_t value) {
  fa_divisor d = {(uint32_t)value, 0, 0};
  while ((INT64_C(1) << d.shift) < value) ++d.shift;
  d.multiplier = (uint32_t)((((UINT64_C(1) << d.shift) - (uint64_t)value) << 32) / (uint64_t)value + 1);
  return d;
}

FA_HOST_AND_DEVICE int32_t fa_divide(int32_t x, fa_divisor by) {
  return (int32_t)(((uint32_t)((uint64_t)(uint32_t)x * by.multiplier >> 32) + (uint32_t)x) >> by.shift);
}

#endif
