/* The one file that names every backend and turns the kernel table into data. */
#include "core/kernel_declarations.h"
#include "cpu/cpu.h"
#if FA_WITH_CUDA
#include "cuda/cuda.h"
#endif
#if FA_WITH_ASCEND
#include "ascend/host/ascend.h"
#endif

enum { KERNEL = 0, BASELINE = 1 };
#define RELEASE(name) fa_##name##_release
#define NOTHING(name) NULL
#define FA_KERNEL(name, device, arch, operation, types, max_head_dim, features, isa, role, release)  \
  {#name, #device, #arch, FA_OPERATION_##operation, types, features, max_head_dim, isa, role,        \
   fa_##name##_prepare, release(name), fa_##name##_run},
const fa_kernel fa_kernels[] = {
#include "kernels.def"
};
const int32_t fa_kernels_count = (int32_t)(sizeof fa_kernels / sizeof fa_kernels[0]);

const fa_backend *const fa_backends[] = {&fa_cpu_backend,
#if FA_WITH_CUDA
                                         &fa_cuda_backend,
#endif
#if FA_WITH_ASCEND
                                         &fa_ascend_backend,
                                         &fa_ascend_sim_backend,
#endif
                                         NULL};
