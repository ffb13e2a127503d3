/* Standard attention on Ascend, at its best, for comparison: three launches,
 *   S = Q K^T                        kernel/matmul_ascend.cpp    blocks that the band leaves out are not computed
 *   P = softmax(scale * S) in place  kernel/softmax_ascend.cpp   one pass: scale, band, softmax in fp32, P where S was
 *   O = P V                          kernel/matmul_ascend.cpp    keys that no row of a tile keeps are left out
 * S and P of problem.dtype, sums in fp32, all heads at once: 2 * batch * heads_q * S_q * S_kv bytes of workspace. */
#include <stdio.h>

#include "ascend/host/unfused_ascend.h"
#include "core/kernel_declarations.h"

fa_status fa_standard_ascend_prepare(fa_plan *plan) {
  static const fa_ascend_code *const codes[] = {&fa_ascend_softmax_code};
  const fa_status status = fa_ascend_prepare_unfused(plan, 1, 0, codes, 1);
  if (status == FA_OK)
    snprintf(plan->reason, sizeof plan->reason,
             "standard attention, unfused: two products and one pass over the scores of all heads");
  return status;
}

void fa_standard_ascend_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }

fa_status fa_standard_ascend_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const fa_ascend_unfused_run r = fa_ascend_begin_unfused(plan, args, workspace, stream);
  const fa_ascend_argument softmax[] = {fa_ascend_scores(&r, FA_ASCEND_READS | FA_ASCEND_WRITES), r.given[FA_ASCEND_LSE]};
  fa_status status = fa_ascend_multiply_scores(&r);
  if (status == FA_OK) status = fa_ascend_start_pass(&r, 0, softmax, 2, &r.passes);
  return status == FA_OK ? fa_ascend_multiply_values(&r) : status;
}
