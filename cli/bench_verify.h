/* Is a result right? Sampled rows against the double-precision reference, by the rule of `fastattn check`. */
#ifndef FA_CLI_BENCH_VERIFY_H
#define FA_CLI_BENCH_VERIFY_H

#include "bench_case.h"

/* Looks at o in device memory. Returns FA_EXIT_OK and the largest error, or prints what is wrong and returns
 * the exit code. */
int fa_bench_verify(fa_context *context, const fa_device_info *device, const fa_bench_case *c,
                    const fa_bench_data *data, const char *kernel, double *max_err);

#endif
