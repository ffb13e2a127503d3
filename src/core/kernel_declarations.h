/* The functions behind every line of the kernel table, declared once for the table and for the kernels' files. */
#ifndef FA_CORE_KERNEL_DECLARATIONS_H
#define FA_CORE_KERNEL_DECLARATIONS_H

#include "core/kernel.h"

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

#endif
