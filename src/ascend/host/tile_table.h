/* Tiles that auto-tuning found better than the rule in tiling_choice.c: the first row that covers a problem counts. A 0 in the
 * last three columns leaves that tile to the rule. Rows come from runs of the emulated chip (docs say which, and how). */
#ifndef FA_ASCEND_TILE_TABLE_H
#define FA_ASCEND_TILE_TABLE_H

#include <stdint.h>

typedef struct fa_ascend_tile_row {
  int32_t head_dim;     /* at most: the larger of K's and V's */
  int64_t keys;         /* at most: the longest sequence */
  int32_t causal;       /* 0 or 1, as the problem */
  int32_t level1_keys, preload, level2_rows;
} fa_ascend_tile_row;

static const fa_ascend_tile_row fa_ascend_tile_rows[] = {
    {0, 0, 0, 0, 0, 0}, /* the end */
};

#endif
