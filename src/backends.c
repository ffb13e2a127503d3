/* The one file that names every backend and pulls in the kernel table. */
#include "core/kernel.h"
#include "cpu/cpu.h"

/* First reading of the table: declarations. */
#define RELEASE(name) void fa_##name##_release(fa_plan *plan);
#define NOTHING(name)
#define FA_KERNEL(name, device, arch, operation, types, max_head_dim, features, isa, role, release) \
  fa_status fa_##name##_prepare(fa_plan *plan);                                                     \
  fa_status fa_##name##_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,    \
                            fa_stream stream);                                                      \
  release(name)
#include "kernels.def"
#undef FA_KERNEL
#undef RELEASE
#undef NOTHING

/* Second reading: the table itself. */
enum { KERNEL = 0, BASELINE = 1 };
#define RELEASE(name) fa_##name##_release
#define NOTHING(name) NULL
#define FA_KERNEL(name, device, arch, operation, types, max_head_dim, features, isa, role, release)            \
  {#name, #device, #arch, FA_OPERATION_##operation, types, features, max_head_dim, isa, role,                  \
   fa_##name##_prepare, release(name), fa_##name##_run},
const fa_kernel fa_kernels[] = {
#include "kernels.def"
};
const int32_t fa_kernels_count = (int32_t)(sizeof fa_kernels / sizeof fa_kernels[0]);

extern const fa_backend fa_cpu_backend;
const fa_backend *const fa_backends[] = {&fa_cpu_backend, NULL};
