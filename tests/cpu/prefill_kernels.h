/* What the tests of prefill kernels share: which kernels there are here. */
#ifndef FA_TESTS_CPU_PREFILL_KERNELS_H
#define FA_TESTS_CPU_PREFILL_KERNELS_H

#include <string.h>

#include "fastattention/fastattention.h"

/* The next prefill kernel of this processor that is no baseline, behind the n-th of the table; -1 begins. 0: no more. */
static inline int next_prefill_kernel(int32_t *n, fa_kernel_info *info) {
  for (++*n; *n < fa_kernel_count(); ++*n) {
    *info = (fa_kernel_info)FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(*n, info) == FA_OK && info->available && !info->is_baseline && !strcmp(info->device, "cpu") &&
        !strcmp(info->operation, "prefill"))
      return 1;
  }
  return 0;
}

#endif
