/* What the tests of CPU kernels share: which kernels there are here, and whether the emulated ones are among them. */
#ifndef FA_TESTS_CPU_KERNELS_H
#define FA_TESTS_CPU_KERNELS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastattention/fastattention.h"

/* The next kernel of this processor for "prefill" or "decode" that is no baseline, behind the n-th of the table; -1 begins. 0: no
 * more. */
static inline int next_cpu_kernel(const char *operation, int32_t *n, fa_kernel_info *info) {
  for (++*n; *n < fa_kernel_count(); ++*n) {
    *info = (fa_kernel_info)FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(*n, info) != FA_OK) abort(); /* a test that left kernels out would pass */
    if (info->available && !info->is_baseline && !strcmp(info->device, "cpu") && !strcmp(info->operation, operation))
      return 1;
  }
  return 0;
}

/* What a test program returns that had nothing to test: SKIP_RETURN_CODE in CMakeLists.txt. */
enum { TEST_SKIPPED = 77 };

/* Says so, and is not 0, where a program that is built for the emulated AMX kernels would test everything but them. */
static inline int lacks_emulated_amx(void) {
#ifdef FA_EMULATE_AMX
  fa_kernel_info info;
  for (int32_t n = -1; next_cpu_kernel("prefill", &n, &info);)
    if (!strcmp(info.arch, "amx")) return 0;
  puts("skipped: the emulated AMX kernels need a processor with AVX512-BF16");
  return 1;
#else
  return 0;
#endif
}

#endif
