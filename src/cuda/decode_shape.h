/* What the decode kernels on tensor cores and their host side agree on. Plain C. */
#ifndef FA_CUDA_DECODE_SHAPE_H
#define FA_CUDA_DECODE_SHAPE_H

/* How the warps of a block share the work; see any/decode_any_mma.cuh. */
enum { FA_DECODE_OWN = 0, FA_DECODE_ROWS_MODE = 1, FA_DECODE_SLICE = 2 };

enum {
  FA_DECODE_STEP = 16,       /* keys of a step, and rows of a tile */
  FA_DECODE_MOST_WARPS = 8,  /* OWN of a sequence that one block reads; SLICE of head_dim_v 576 has 5 */
  FA_DECODE_MOST_STAGES = 4, /* of the ring in shared memory; at least 2 */
  /* Shared memory of the join at the end: a head of floats a warp (maximum, sum, factor of 16 rows) and 16 marks, then o
   * as [warp, 16, head_dim_v in whole pieces + FA_DECODE_JOIN_PAD]; SLICE has one o for all warps. */
  FA_DECODE_JOIN_HEAD = 64, /* floats a warp */
  FA_DECODE_JOIN_PAD = 4
};

#endif
