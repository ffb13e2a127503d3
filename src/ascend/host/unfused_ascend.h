/* What standard and eager attention on Ascend share: both products, the passes' description of the scores, their launches.
 *   S = Q K^T   [batch * heads_q, S_q, row] of problem.dtype, row = S_kv rounded up to 16
 *   O = P V     P where S was
 * All heads at once. A single query's heads of one KV head are taken as the rows of one product. Dense problems only. */
#ifndef FA_ASCEND_UNFUSED_ASCEND_H
#define FA_ASCEND_UNFUSED_ASCEND_H

#include "ascend/host/ascend.h"
#include "ascend/matmul_tiling.h"
#include "ascend/passes_tiling.h"

enum { FA_ASCEND_MOST_PASSES = 5 };

typedef struct fa_ascend_unfused {
  fa_ascend_matmul scores, values; /* strides of q, k, v and o are a run's */
  fa_ascend_passes passes;         /* with the problem's band; strides of lse are a run's */
  int has_band;
  int64_t row, pairs;     /* elements of a row of scores; matrices */
  size_t scores_bytes;    /* of S, at the workspace's beginning */
  size_t wide_at, wide_bytes, mask_at, mask_bytes; /* eager's P in fp32 and its mask tensor; 0 bytes: none */
  fa_ascend_function matmul, pass[FA_ASCEND_MOST_PASSES];
} fa_ascend_unfused;

/* plan->kernel_data, its workspace and tiles. uses_band: the products leave out what the band does (standard). codes: of `count`
 * passes. Errors: UNSUPPORTED (sizes, no device code), MEMORY. */
fa_status fa_ascend_prepare_unfused(fa_plan *plan, int uses_band, int has_wide, const fa_ascend_code *const *codes, int count);

/* One run: what the launches share. */
typedef struct fa_ascend_unfused_run {
  const fa_plan *plan;
  const fa_ascend_unfused *data;
  const fa_attention_args *args;
  char *workspace;
  fa_stream stream;
  fa_ascend_argument given[FA_ASCEND_GIVEN];
  fa_ascend_passes passes;
} fa_ascend_unfused_run;

fa_ascend_unfused_run fa_ascend_begin_unfused(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                              fa_stream stream);

/* The scores, [pairs, S_q, row] of problem.dtype. */
fa_ascend_argument fa_ascend_scores(const fa_ascend_unfused_run *r, fa_ascend_access access);

fa_status fa_ascend_multiply_scores(const fa_ascend_unfused_run *r);
fa_status fa_ascend_multiply_values(const fa_ascend_unfused_run *r);

/* A pass on all Vector cores: its arguments, then workspace (none uses it) and tiling. */
fa_status fa_ascend_start_pass(const fa_ascend_unfused_run *r, int pass, const fa_ascend_argument *arguments, int count,
                               const fa_ascend_passes *passes);

#endif
