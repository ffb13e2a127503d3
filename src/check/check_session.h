/* What lasts for one fa_check_run: contexts, counts, and the way a result is reported. */
#ifndef FA_CHECK_SESSION_H
#define FA_CHECK_SESSION_H

#include <stdio.h>

#include "check/check.h"
#include "check/check_case.h"
#include "check/check_mirror.h"

typedef struct fa_tally {
  int64_t run;
  int64_t unsupported;
  int64_t failed;
  double worst; /* largest error seen, as a part of its tolerance */
} fa_tally;

enum { FA_CHECK_KERNELS = 64, FA_CHECK_REPORTS = 3 };

typedef struct fa_session {
  fa_check_options options;
  FILE *out;
  fa_context *contexts[2]; /* one thread, and as many as asked for */
  uint64_t seed;           /* of the first case */
  int64_t passed, failed;
  fa_tally kernels[FA_CHECK_KERNELS];
  fa_tally features[FA_FEATURE_COUNT];
  fa_tally types[5];                 /* problem.dtype, and kv_dtype where it is int8 or fp8 */
  fa_tally dense;                    /* problems with no feature at all */
  int32_t reports[FA_CHECK_KERNELS]; /* failures of a kernel that were printed in full */
  fa_case current;
  fa_mirror mirror; /* of the arrays, on devices with memory of their own */
} fa_session;

/* 1 if the name is one the user asked for; kernel NULL for a function beside attention. */
int fa_session_wants(const fa_session *s, const char *name, const fa_kernel *kernel);

/* Every kernel that can, on the current case. */
void fa_session_run_case(fa_session *s, int64_t number);

/* Runs a cycle of small cases of the functions beside attention: merge, buffers, streams and events, and
 * every allocation failing in turn. (check_functions.c, check_allocation.c) */
void fa_session_run_functions(fa_session *s);
void fa_check_merge(fa_session *s, uint64_t seed);
void fa_check_device_functions(fa_session *s);
void fa_check_allocation(fa_session *s);

/* Counts one result of a function; prints the line of a failing one. */
void fa_session_function(fa_session *s, int passed, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
