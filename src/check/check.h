/* The kernel checker: every kernel of the table against the oracle of src/ref, after dav1d's checkasm. */
#ifndef FA_CHECK_H
#define FA_CHECK_H

#include <stdio.h>

#include "fastattention/fastattention.h"

typedef struct fa_check_options {
  const char *pattern; /* kernels whose name contains it or, with * or ?, matches it; NULL is all of them */
  const char *kernel;  /* one kernel by name, or one family by its arch; NULL is all of them */
  const char *device;  /* as fa_context_options.device takes it; NULL is "cpu" */
  uint64_t seed;       /* of the first case, if has_seed; case n has seed + n */
  int64_t cases;       /* 0 is 200 */
  int32_t threads;     /* most threads a run is tried with (always also 1); 0 is one per core, at least 2 */
  int32_t has_seed;    /* 0 takes a seed from the clock */
} fa_check_options;

#define FA_CHECK_OPTIONS_INIT \
  { NULL, NULL, NULL, 0, 0, 0, 0 }

/* Prints to `out`; the last line is "N passed, N failed". Returns 0 if nothing failed, 1 if something did, 2
 * if there was nothing to do (fa_last_error() says why: no such device, no kernel with that name). Catches
 * SIGSEGV, SIGBUS, SIGILL and SIGFPE while it runs, so one call at a time in a process. */
int fa_check_run(const fa_check_options *options, FILE *out);

/* Is this output right? For those who time a kernel and must not time a wrong one. args->o (and lse, if the
 * problem has it) are what a run wrote; `rows` rows of it (all, if there are no more) are computed again in
 * double and compared by the checker's tolerance (problem->kernel "standard" or "eager": that of the
 * baselines). All pointers are host memory; an appending problem's cache is that after the run. line: what
 * was compared, or what is wrong. Errors: MEMORY. */
typedef struct fa_check_result {
  int32_t passed;
  int64_t rows;
  double max_error; /* max|o - oracle| */
  double tolerance;
  char line[400];
} fa_check_result;
fa_status fa_check_problem(const fa_attention_problem *problem, const fa_attention_args *args, int64_t rows,
                           uint64_t seed, fa_check_result *result);

/* The same of those rows: row n is query n / heads_q of all entries' queries, one entry behind the other, and head
 * n % heads_q. For a run that did not write all of them. */
fa_status fa_check_rows(const fa_attention_problem *problem, const fa_attention_args *args, const int64_t *rows,
                        int64_t count, fa_check_result *result);

#endif
