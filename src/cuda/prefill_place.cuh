/* Where a block of the tensor-core prefill works: its rows and head from blockIdx, and what it reads again. */
#ifndef FA_CUDA_PREFILL_PLACE_CUH
#define FA_CUDA_PREFILL_PLACE_CUH

#include "cuda/prefill_sections.h"
#include "cuda/sequence.cuh"

/* Which rows of which head. Grid: x query heads of a section, y blocks of rows, z sections; a section is some KV heads with
 * their query heads (prefill_cuda.c), and the last may be shorter: batch is p.batch or more then. */
struct fa_block {
  int row, head, kv_head, batch;
};

template <int ROWS> FA_DEVICE fa_block fa_block_of(const fa_cuda_params &p) {
  const int kv = fa_section_kv_head(blockIdx.x, blockIdx.z, gridDim.x, p.by_group);
  const int in_group = (int)blockIdx.x - fa_divide(blockIdx.x, p.by_group) * p.group;
  fa_block b;
  b.row = (int)(gridDim.y - 1 - blockIdx.y) * ROWS; /* causal: most work first */
  b.batch = fa_divide(kv, p.by_heads_kv);
  b.kv_head = kv - b.batch * p.heads_kv;
  b.head = b.kv_head * p.group + in_group;
  return b;
}

/* What the loop needs now and then lies behind the ring in shared memory: registers are for Q, O, S and P. */
struct fa_place {
  fa_sequence s;
  int begin, end; /* keys that some row of the block keeps */
  int first_key;  /* of the first tile */
  int row, head, kv_head;
};

/* Keys that some row of a warp keeps, behind fa_place. */
struct __align__(8) fa_warp_band {
  int begin, end;
};

#endif
