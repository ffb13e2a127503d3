/* What the decode kernels on tensor cores and their host side agree on. Plain C. */
#ifndef FA_CUDA_DECODE_SHAPE_H
#define FA_CUDA_DECODE_SHAPE_H

/* How the warps of a block share the work; see any/decode_any_mma.cuh. */
enum { FA_DECODE_OWN = 0, FA_DECODE_ROWS_MODE = 1, FA_DECODE_SLICE = 2 };

enum {
  FA_DECODE_STEP = 16,       /* keys of a step, and rows of a tile */
  FA_DECODE_MOST_WARPS = 8, /* OWN alone on a multiprocessor; SLICE of head_dim_v 576 has 5 */
  /* Shared memory of the join at the end: maximum and sum of 16 rows a warp, then o as [warp, 16, head_dim_v in whole
   * pieces + FA_DECODE_JOIN_PAD]; SLICE has one o for all warps. */
  FA_DECODE_JOIN_HEAD = 32, /* floats a warp */
  FA_DECODE_JOIN_PAD = 4,

  FA_DECODE_MOST_PARTS = 16, /* warps of a block, blocks of a cluster (more than 8 of these have to be asked for) */
  FA_DECODE_PIECE = 128      /* columns of o that a warp joins at a time, four a lane */
};

/* Shared memory of a block of a cluster, where the others leave what they found of the rows' pieces that this one joins:
 * 16 bytes to count what arrives, then [slot, part] of a float4 (maximum, sum, not 0: to be done again) and the columns.
 * Piece n of all is joined by block n % parts in slot n / parts. What lies behind starts at a whole line of 128 bytes. */
#define FA_DECODE_PIECES(dim_v) (((dim_v) + FA_DECODE_PIECE - 1) / FA_DECODE_PIECE)
#define FA_DECODE_MAILBOX_BYTES 16
#define FA_DECODE_LETTER_BYTES (16 + FA_DECODE_PIECE * 4)
#define FA_DECODE_LETTER_AT(slot, parts, part) (FA_DECODE_MAILBOX_BYTES + ((slot) * (parts) + (part)) * FA_DECODE_LETTER_BYTES)
#define FA_DECODE_SLOTS_BY_PARTS(pieces, parts, block) ((pieces) + (parts) - 1 - (block)) /* / parts: slots of a block */
#define FA_DECODE_EXCHANGE_BYTES(parts, rows, dim_v) \
  ((FA_DECODE_MAILBOX_BYTES + ((rows) * FA_DECODE_PIECES(dim_v) + (parts)) * FA_DECODE_LETTER_BYTES + 127) / 128 \
   * 128)

#endif
