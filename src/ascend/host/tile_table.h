/* Tiles that auto-tuning found best: the first row that covers a problem counts. A 0 in the last column leaves it to the rule in
 * tiling_choice.c. Rows come from runs of the emulated chip (docs/ascend.md, model), by
 * bench/tune_ascend.py --json docs/ascend/tiles.json --table src/ascend/host/tile_table.h */
#ifndef FA_ASCEND_TILE_TABLE_H
#define FA_ASCEND_TILE_TABLE_H

#include <stdint.h>

typedef struct fa_ascend_tile_row {
  int32_t rows;     /* of a level-one tile, at most */
  int32_t head_dim; /* at most: the larger of K's and V's */
  int64_t stream;   /* keys that a group of cores passes, at most; 0: any */
  int32_t causal;   /* 0 or 1, as the problem */
  int32_t level1_keys, preload, level2_rows;
} fa_ascend_tile_row;

static const fa_ascend_tile_row fa_ascend_tile_rows[] = {
    {16, 64, 0, 0, 384, 4, 0},
    {16, 64, 0, 1, 384, 4, 0},
    {16, 128, 0, 0, 384, 4, 0},
    {16, 128, 0, 1, 384, 4, 0},
    {16, 192, 0, 0, 1024, 3, 0},
    {16, 192, 0, 1, 1024, 3, 0},
    {16, 256, 0, 0, 1024, 4, 0},
    {16, 256, 0, 1, 1024, 4, 0},
    {128, 64, 800, 0, 256, 3, 0},
    {128, 64, 800, 1, 256, 3, 0},
    {128, 64, 2400, 1, 256, 4, 0},
    {128, 64, 3000, 0, 384, 3, 0},
    {128, 64, 8000, 1, 384, 4, 0},
    {128, 64, 8000, 0, 512, 4, 0},
    {128, 64, 0, 0, 512, 4, 0},
    {128, 64, 0, 1, 512, 4, 0},
    {128, 128, 800, 0, 256, 2, 0},
    {128, 128, 800, 1, 256, 2, 0},
    {128, 128, 2400, 1, 384, 4, 0},
    {128, 128, 3000, 0, 512, 4, 0},
    {128, 128, 8000, 1, 1024, 2, 0},
    {128, 128, 8000, 0, 1024, 2, 0},
    {128, 128, 0, 0, 1024, 2, 0},
    {128, 128, 0, 1, 1024, 2, 0},
    {128, 192, 800, 0, 256, 2, 0},
    {128, 192, 800, 1, 256, 2, 0},
    {128, 192, 2400, 1, 384, 3, 0},
    {128, 192, 3000, 0, 512, 4, 0},
    {128, 192, 8000, 1, 768, 3, 0},
    {128, 192, 8000, 0, 768, 2, 0},
    {128, 192, 0, 0, 1024, 2, 0},
    {128, 192, 0, 1, 1024, 2, 0},
    {128, 256, 800, 0, 256, 3, 16},
    {128, 256, 800, 1, 256, 3, 16},
    {128, 256, 2400, 1, 384, 4, 0},
    {128, 256, 3000, 0, 512, 3, 0},
    {128, 256, 8000, 1, 768, 3, 0},
    {128, 256, 8000, 0, 1024, 2, 0},
    {128, 256, 0, 0, 1024, 2, 0},
    {128, 256, 0, 1, 1024, 2, 0},
    {0, 0, 0, 0, 0, 0, 0}, /* the end */
};

#endif
