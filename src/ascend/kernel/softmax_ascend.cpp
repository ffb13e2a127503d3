// Standard attention's one pass between its products: P = softmax(scale * S) of each row in place, S = Q K^T and P f16
// or bf16, [batch * heads][S_q][S_kv], rows any multiple of 16 elements apart; causal and window by index, no mask
// tensor; log-sum-exp, fp32, if asked for. On the Vector cores alone; steps, UB and bound: softmax_rows.h.
#include "softmax_rows.h"

// x: S, then P. lse: not read if the tiling has none. workspace is not used.
extern "C" __global__ __aicore__ void fa_softmax_ascend(GM_ADDR x, GM_ADDR lse, GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  (void)workspace;
  if ASCEND_IS_AIV {
    const fa_ascend_passes t = fa_passes::ReadTiling(tiling);
    AscendC::SetCtrlSpr<48, 48>(1); // infinities and NaN stay what they are in f16 and bf16
    if (t.is_bf16) fa_passes::SoftmaxRows<bfloat16_t, false>().Run(t, x, x, lse);
    else fa_passes::SoftmaxRows<half, false>().Run(t, x, x, lse);
    AscendC::SetCtrlSpr<48, 48>(0);
  }
}
