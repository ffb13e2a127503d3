/* Whole vectors to and from shared memory by their 32-bit addresses, which ldmatrix and cp.async want too. */
#ifndef FA_CUDA_SHARED_MEMORY_CUH
#define FA_CUDA_SHARED_MEMORY_CUH

#include "cuda/sequence.cuh"

FA_DEVICE unsigned fa_shared_address(const void *shared) { return (unsigned)__cvta_generic_to_shared(shared); }

FA_DEVICE void fa_shared_store(unsigned address, uint4 x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}

FA_DEVICE uint4 fa_shared_load(unsigned address) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(address)
               : "memory");
  return x;
}

#endif
