// FlashAttention-2 on an Ascend 910B: o = softmax(scale Q K^T within the band) V, lse, for one launch of groups of cores.
//
//   q [batch, S_q, heads_q, D]   k [batch, S_kv, heads_kv, D]   v [batch, S_kv, heads_kv, D_v]   o as q with D_v   f16 or bf16
//   lse fp32 [batch, heads_q, S_q]; ragged, paged, any strides: attention_tiling.h. Scores, sums and o so far are fp32.
//
// Tiles at two levels. Level one is what Cube (AIC) and Vector (two AIVs) hand to each other through rings in GM, which stay in L2:
// up to 128 rows x level1_keys of scores, their weights, and the rows of o they give; Q K^T runs `preload` tiles ahead of P V. Level
// two is what fits the units: the Cube multiplies blocks of cube_keys keys from L1 through L0 (attention_cube.h), Vector takes pieces
// of level2_rows rows in UB (attention_vector.h). Both cores walk one stream of tiles over all of the group's items
// (attention_work.h) and wait for each other by three flags. The order of every sum is fixed: the same inputs give the same bits.
//
// Bound: the Vector unit at D = 128 and below; the Cube at D = 256; reading K and V when rows are few.
#define FA_ASCEND_DEVICE __aicore__
#include "kernel_operator.h"

using namespace AscendC;

#include "attention_cube.h"
#include "attention_vector.h"

// GM's struct to the core's own, field by field: GM is an address space of its own.
__aicore__ inline void AttentionCopy(fa_ascend_strides &to, const __gm__ fa_ascend_strides &from) {
  to.batch = from.batch;
  to.seq = from.seq;
  to.head = from.head;
}
__aicore__ inline void AttentionCopy(fa_ascend_attention &to, const __gm__ fa_ascend_attention &from) {
  AttentionCopy(to.q, from.q);
  AttentionCopy(to.k, from.k);
  AttentionCopy(to.v, from.v);
  AttentionCopy(to.o, from.o);
  to.lse_batch = from.lse_batch, to.lse_head = from.lse_head, to.page_table_stride = from.page_table_stride;
  to.window_left = from.window_left, to.window_right = from.window_right;
  to.s_ring = from.s_ring, to.p_ring = from.p_ring, to.o_ring = from.o_ring;
  to.partial_o = from.partial_o, to.partial_lse = from.partial_lse;
  to.is_bf16 = from.is_bf16, to.batch = from.batch;
  to.heads_q = from.heads_q, to.heads_kv = from.heads_kv, to.group = from.group;
  to.max_seqlen_q = from.max_seqlen_q, to.max_seqlen_kv = from.max_seqlen_kv;
  to.head_dim_qk = from.head_dim_qk, to.head_dim_v = from.head_dim_v;
  to.ragged_q = from.ragged_q, to.ragged_kv = from.ragged_kv, to.has_seqlens_kv = from.has_seqlens_kv, to.has_lse = from.has_lse;
  to.page_size = from.page_size, to.scale = from.scale;
  to.packs_group = from.packs_group, to.row_blocks = from.row_blocks, to.kv_splits = from.kv_splits, to.items = from.items;
  to.level1_rows = from.level1_rows, to.level1_keys = from.level1_keys, to.preload = from.preload, to.ring = from.ring;
  to.cube_keys = from.cube_keys, to.level2_rows = from.level2_rows, to.mask_m = from.mask_m;
  to.pairs_at_once = from.pairs_at_once;
}

template <typename T>
__aicore__ inline void AttentionOf(const fa_ascend_attention *tiling, const AttentionArguments &arguments) {
  if ASCEND_IS_AIC {
    AttentionCube<T> cube;
    cube.Run(tiling, arguments);
  }
  if ASCEND_IS_AIV {
    AttentionVector<T> vector;
    vector.Run(tiling, arguments);
  }
}

extern "C" __global__ __aicore__ void fa_attention_ascend(GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o, GM_ADDR lse, GM_ADDR cu_seqlens_q,
                                                          GM_ADDR cu_seqlens_kv, GM_ADDR seqlens_kv, GM_ADDR page_table, GM_ADDR mask,
                                                          GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  fa_ascend_attention t;
  AttentionCopy(t, *(__gm__ fa_ascend_attention *)tiling);
  const AttentionArguments arguments = {q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, seqlens_kv, page_table, mask, workspace};
  SetCtrlSpr<48, 48>(1); // infinities and NaN stay what they are in f16 and bf16
  if (t.is_bf16)
    AttentionOf<bfloat16_t>(&t, arguments);
  else
    AttentionOf<half>(&t, arguments);
  SetCtrlSpr<48, 48>(0);
}
