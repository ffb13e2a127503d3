/* Attention on Ascend as a framework runs it unfused, for comparison: a launch for each of
 *   S = Q K^T, mask = an S_q x S_kv tensor of 0 and -inf, S *= scale, S += mask, P32 = softmax(S), P = P32 cast, O = P V
 * (the mask's two only where there is one). kernel/matmul_ascend.cpp, kernel/eager_ascend.cpp. S, mask and P of
 * problem.dtype, P32 in fp32, all heads at once: 6 * batch * heads_q * S_q * S_kv bytes of workspace, and the mask's. */
#include <stdio.h>

#include "ascend/host/unfused_ascend.h"
#include "core/kernel_declarations.h"
#include "core/tiling_mask.h"

enum { MASK, SCALE, ADD, SOFTMAX, CAST, PASSES };

fa_status fa_eager_ascend_prepare(fa_plan *plan) {
  static const fa_ascend_code *const codes[PASSES] = {&fa_ascend_mask_tensor_code, &fa_ascend_scale_code, &fa_ascend_add_code,
                                                      &fa_ascend_wide_softmax_code, &fa_ascend_cast_code};
  const fa_status status = fa_ascend_prepare_unfused(plan, 0, 1, codes, PASSES);
  if (status == FA_OK)
    snprintf(plan->reason, sizeof plan->reason,
             "eager attention: two products and a pass over the scores of all heads for each step between");
  return status;
}

void fa_eager_ascend_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }

#define TRY(call)                           \
  do {                                      \
    const fa_status try_status = (call);    \
    if (try_status != FA_OK) return try_status; \
  } while (0)

fa_status fa_eager_ascend_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const fa_ascend_unfused_run r = fa_ascend_begin_unfused(plan, args, workspace, stream);
  const fa_ascend_access changes = FA_ASCEND_READS | FA_ASCEND_WRITES;
  const fa_ascend_argument wide = fa_ascend_bytes("wide", r.workspace + r.data->wide_at, r.data->wide_bytes, FA_ASCEND_READS);
  const fa_ascend_argument mask = fa_ascend_bytes("mask", r.workspace + r.data->mask_at, r.data->mask_bytes, FA_ASCEND_READS);
  fa_ascend_argument made_wide = wide, made_mask = mask;
  made_wide.access = made_mask.access = FA_ASCEND_WRITES;
  fa_ascend_passes unbanded = r.passes; /* the mask tensor has it */
  unbanded.band_lower = -FA_BAND_UNLIMITED;
  unbanded.band_upper = FA_BAND_UNLIMITED;

  TRY(fa_ascend_multiply_scores(&r));
  if (r.data->has_band) TRY(fa_ascend_start_pass(&r, MASK, &made_mask, 1, &r.passes));
  const fa_ascend_argument scaled[] = {fa_ascend_scores(&r, changes)};
  TRY(fa_ascend_start_pass(&r, SCALE, scaled, 1, &unbanded));
  const fa_ascend_argument added[] = {fa_ascend_scores(&r, changes), mask};
  if (r.data->has_band) TRY(fa_ascend_start_pass(&r, ADD, added, 2, &unbanded));
  const fa_ascend_argument softmax[] = {fa_ascend_scores(&r, FA_ASCEND_READS), made_wide, r.given[FA_ASCEND_LSE]};
  TRY(fa_ascend_start_pass(&r, SOFTMAX, softmax, 3, &unbanded));
  const fa_ascend_argument cast[] = {wide, fa_ascend_scores(&r, FA_ASCEND_WRITES)};
  TRY(fa_ascend_start_pass(&r, CAST, cast, 2, &unbanded));
  return fa_ascend_multiply_values(&r);
}
