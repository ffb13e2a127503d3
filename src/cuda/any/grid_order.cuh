/* Kernels of a stream that overlap where they may (compute capability 9.0 on, programmatic dependent launch): one that was
 * started with fa_cuda_shape.follows begins as soon as every block of the kernel before it has said fa_let_next_begin or has
 * ended, and what is before fa_wait_for_kernels_before runs beside it. Every block must wait, also one without work: whoever
 * is behind this kernel takes its end for the end of all before it; and it waits before it lets the next begin, so that no
 * more than two kernels overlap. Elsewhere both do nothing. */
#ifndef FA_CUDA_ANY_GRID_ORDER_CUH
#define FA_CUDA_ANY_GRID_ORDER_CUH

#include "cuda/sequence.cuh"

FA_DEVICE void fa_let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Until the kernels before have ended and what they wrote can be read, and what they read be written. */
FA_DEVICE void fa_wait_for_kernels_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#endif
