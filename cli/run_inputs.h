/* The arrays of `fastattn run`: from files to a problem and its arguments in device memory. */
#ifndef FA_CLI_RUN_INPUTS_H
#define FA_CLI_RUN_INPUTS_H

#include "npy.h"

typedef enum fa_run_array {
  FA_RUN_Q,
  FA_RUN_K,
  FA_RUN_V,
  FA_RUN_ALIBI,
  FA_RUN_BIAS,
  FA_RUN_MASK,
  FA_RUN_SINKS,
  FA_RUN_CU_SEQLENS_Q,
  FA_RUN_CU_SEQLENS_K,
  FA_RUN_ARRAYS
} fa_run_array;

typedef struct fa_run_inputs {
  const char *path[FA_RUN_ARRAYS]; /* NULL: not given; error lines name them */
  bool bhsd;                       /* layout of q, k, v and o: (b, h, s, d) instead of (b, s, h, d) */
  fa_npy array[FA_RUN_ARRAYS];
  void *device[FA_RUN_ARRAYS];
  int output_rank; /* of o: as q, with the head size of v */
  int64_t output_shape[FA_NPY_MAX_RANK];
} fa_run_inputs;

/* All three return FA_EXIT_OK, or print the line and return the exit code. */
int fa_run_inputs_read(fa_run_inputs *inputs);
/* Fills the shapes and features that arrays stand for into *problem (INIT beforehand, dtype set), and the
 * strides of args. */
int fa_run_inputs_describe(fa_run_inputs *inputs, fa_attention_problem *problem, fa_attention_args *args);
/* Copies to the device, q, k and v as problem->dtype, and puts the pointers into args. */
int fa_run_inputs_upload(fa_run_inputs *inputs, fa_context *context, const fa_attention_problem *problem,
                         fa_attention_args *args);
void fa_run_inputs_free(fa_run_inputs *inputs,
                        fa_context *context); /* context may be NULL before an upload */

#endif
