/* What the passes over scores are told that standard and eager attention run between their two products
 * (kernel/softmax_ascend.cpp, kernel/eager_ascend.cpp): one struct, filled on the host, read from GM by the device.
 * Plain data of 8 and 4 bytes without padding, the same in C, C++ and Ascend C.
 *
 * Scores are batch x heads matrices of `rows` x `columns`; a pass takes those fields it needs. Rows of x, y and the
 * mask begin a multiple of 16 elements apart (x_row, y_row, mask_row, and matrices too), the tensors themselves at a
 * multiple of 32 bytes. */
#ifndef FA_ASCEND_PASSES_TILING_H
#define FA_ASCEND_PASSES_TILING_H

#include <stdint.h>

typedef struct fa_ascend_passes {
  int64_t x_matrix, x_row;      /* elements: scores and weights in the input type; matrix = batch * heads + head */
  int64_t y_matrix, y_row;      /* elements: weights in fp32 */
  int64_t mask_batch, mask_row; /* elements: additive mask in the input type, for all heads; mask_batch may be 0 */
  int64_t lse_batch, lse_head;  /* elements; fp32, rows next to each other */
  int64_t rows, columns;        /* S_q, S_kv */
  int64_t band_lower, band_upper; /* kept: i + lower <= j <= i + upper; +-(1 << 60): no bound */

  int32_t is_bf16; /* else f16 */
  int32_t batch, heads;
  int32_t has_lse;
  int32_t block_rows; /* rows whose weights the product with V takes together, its tile_m: zeros are written where one
                         of them keeps something; 0: everywhere */
  int32_t item_rows;  /* rows of an item of work; a divisor of block_rows and of the first product's base_m */
  float scale;
  int32_t reserved;
} fa_ascend_passes;

#endif
