/* The instances of the tensor-core prefill kernels: one list feeds the device code (names, tiles) and the host side
 * (choice, grid, shared memory). Plain C.
 *
 * FA_SHAPE(type, dqk, dv, row tiles of 16 a warp, warps, keys a tile, key tiles of 16 a step, blocks an SM)
 *
 * Where a bucket comes more than once the others are for short sequences (fewer rows a block) and for GPUs with less shared
 * memory (99 KB on sm_86 and sm_89, 64 KB on sm_75).
 * Head sizes are buckets: a smaller head is padded with zeros in shared memory. Rows a block = row tiles x 16 x warps.
 * Two row tiles a warp halve the reads of K and V from shared memory; where O and Q no longer fit into 255 registers
 * that way (192 and 256) a warp takes one. */
#ifndef FA_CUDA_PREFILL_SHAPES_H
#define FA_CUDA_PREFILL_SHAPES_H

/* Without score rules. */
#define FA_SM80_PLAIN(type)                 \
  FA_SHAPE(type, 64, 64, 2, 4, 64, 1, 3)    \
  FA_SHAPE(type, 96, 96, 2, 4, 64, 2, 2)    \
  FA_SHAPE(type, 128, 128, 2, 4, 64, 1, 2)  \
  FA_SHAPE(type, 128, 128, 2, 4, 32, 1, 2)  \
  FA_SHAPE(type, 192, 128, 1, 4, 32, 2, 2)  \
  FA_SHAPE(type, 192, 192, 1, 8, 64, 2, 1)  \
  FA_SHAPE(type, 192, 192, 1, 4, 32, 2, 2)  \
  FA_SHAPE(type, 256, 256, 1, 8, 64, 2, 1)  \
  FA_SHAPE(type, 256, 256, 1, 4, 32, 2, 2)  \
  FA_SHAPE(type, 256, 256, 1, 8, 32, 2, 1)
/* With softcap, ALiBi, bias, mask: fewer buckets. */
#define FA_SM80_RULES(type)                 \
  FA_SHAPE(type, 64, 64, 2, 4, 64, 2, 2)    \
  FA_SHAPE(type, 128, 128, 1, 4, 64, 2, 2)  \
  FA_SHAPE(type, 256, 256, 1, 8, 32, 1, 1)

/* A Turing block has at most 64 KB of shared memory, and the tile on its way is held in registers (some are spilled at
 * 128 with two row tiles, and at 256). */
#define FA_SM75_PLAIN(type)                 \
  FA_SHAPE(type, 64, 64, 2, 4, 32, 2, 2)    \
  FA_SHAPE(type, 96, 96, 1, 4, 32, 2, 2)    \
  FA_SHAPE(type, 128, 128, 2, 8, 32, 1, 1)  \
  FA_SHAPE(type, 128, 128, 1, 4, 32, 2, 2)  \
  FA_SHAPE(type, 128, 128, 1, 8, 32, 2, 1)  \
  FA_SHAPE(type, 192, 128, 1, 4, 32, 2, 2)  \
  FA_SHAPE(type, 192, 192, 1, 8, 32, 2, 1)  \
  FA_SHAPE(type, 256, 256, 1, 8, 16, 1, 1)
#define FA_SM75_RULES(type)                 \
  FA_SHAPE(type, 64, 64, 1, 4, 32, 2, 2)    \
  FA_SHAPE(type, 128, 128, 1, 4, 32, 2, 2)  \
  FA_SHAPE(type, 256, 256, 1, 8, 16, 1, 1)

/* K and V of two tiles and, behind them, fa_place and a fa_warp_band a warp; or Q, which is read once at the start. */
#define FA_PREFILL_RING_BYTES(dqk, dv, tile) (2 * 2 * (tile) * ((dqk) + (dv)))
#define FA_PREFILL_Q_BYTES(dqk, row_tiles, warps) (2 * (dqk) * 16 * (row_tiles) * (warps))
#define FA_PREFILL_PLACE_BYTES 256
#define FA_PREFILL_SHARED_BYTES(dqk, dv, row_tiles, warps, tile)                                               \
  (FA_PREFILL_RING_BYTES(dqk, dv, tile) + FA_PREFILL_PLACE_BYTES > FA_PREFILL_Q_BYTES(dqk, row_tiles, warps)   \
       ? FA_PREFILL_RING_BYTES(dqk, dv, tile) + FA_PREFILL_PLACE_BYTES                                         \
       : FA_PREFILL_Q_BYTES(dqk, row_tiles, warps))

#endif
