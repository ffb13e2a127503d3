/* What the Cube matmul of the baselines is told (kernel/matmul_ascend.cpp): one struct, filled on the host, read from
 * GM by the device. Plain data of 8 and 4 bytes without padding, the same in C, C++ and Ascend C.
 *
 * C[b, h] = A[b, h] B[b, h / group]: A is m x k, C is m x n, B is k x n or, transposed, n x k; rows of each any number
 * of elements apart. */
#ifndef FA_ASCEND_MATMUL_TILING_H
#define FA_ASCEND_MATMUL_TILING_H

#include <stdint.h>

/* What of the product a band i + lower <= j <= i + upper leaves out: i is the row of C, j its column (scores: a block
 * of C that keeps nothing is not computed) or the position along k (weights times values: a tile of rows begins and
 * ends at what it keeps). */
enum { FA_ASCEND_BAND_NONE = 0, FA_ASCEND_BAND_COLUMNS = 1, FA_ASCEND_BAND_DEPTH = 2 };

typedef struct fa_ascend_matmul {
  int64_t a_batch, a_head, a_row; /* elements; any sign */
  int64_t b_batch, b_head, b_row;
  int64_t c_batch, c_head, c_row;
  int64_t m, n, k;
  int64_t band_lower, band_upper;

  int32_t is_bf16;         /* A, B, and C unless c_is_f32; else f16 */
  int32_t c_is_f32;
  int32_t b_is_transposed; /* B is n x k: b_row lies between rows of n */
  int32_t band;
  int32_t batch, heads, group;

  /* Level two: what halves of L0A, L0B and L0C hold; multiples of 16, any product of two of them at most 16384. */
  int32_t base_m, base_n, base_k;
  /* Level one: a core's tile, multiples of base_m and base_n, and how much of k one move to L1 brings of A and of B,
   * multiples of base_k; 2 * (tile_m * chunk_a + tile_n * chunk_b) elements fit in L1. Unless both chunks hold all of
   * k, tile_m is at most 2 * base_m and tile_n is base_n. */
  int32_t tile_m, tile_n, chunk_a, chunk_b;
  int32_t swizzle; /* rows of tiles that cores take column by column, so that they share A and B in L2 */
  int32_t reserved;
} fa_ascend_matmul;

#endif
