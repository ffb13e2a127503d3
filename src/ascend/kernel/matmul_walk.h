// Which tiles of C a core computes, and in what order. Part of matmul_ascend.cpp.
//
// Matrices in order; of each the rows of tiles in groups of `swizzle`, the last first (under a causal band they have
// most to do); of a group the columns one after the other, forwards and backwards in turn, so that at any time the
// cores work on a block of C about as high as wide and find A and B in L2. Round n of the cores over this order runs
// the other way round in odd n: under a band, where rows of tiles cost more and more, two rounds cost every core the
// same.
#ifndef FA_ASCEND_MATMUL_WALK_H
#define FA_ASCEND_MATMUL_WALK_H

#include "ascend/matmul_tiling.h"

__aicore__ inline int64_t MatmulLeast(int64_t a, int64_t b) { return a < b ? a : b; }
__aicore__ inline int64_t MatmulMost(int64_t a, int64_t b) { return a > b ? a : b; }
__aicore__ inline int64_t MatmulCeil(int64_t a, int64_t b) { return (a + b - 1) / b; }

class MatmulWalk {
 public:
  // The tile: rows, columns, and the part of k that it needs (none: C is 0).
  int64_t batch, head, row, rows, column, columns, depth_begin, depth_end;
  bool is_valid;

  __aicore__ inline void Begin(const fa_ascend_matmul &t, int64_t core, int64_t cores) {
    matrix_ = 0;
    last_group_ = MatmulCeil(MatmulCeil(t.m, t.tile_m), t.swizzle) - 1;
    group_ = last_group_;
    core_ = core;
    cores_ = cores;
    round_ = 0;
    at_ = core;
    is_valid = last_group_ >= 0 && t.batch > 0 && t.heads > 0 && t.n > 0;
    Measure(t);
    Settle(t);
  }

  __aicore__ inline void Next(const fa_ascend_matmul &t) {
    at_ += round_ % 2 == 0 ? 2 * (cores_ - core_) - 1 : 2 * core_ + 1;
    ++round_;
    Settle(t);
  }

 private:
  // What the group has: its rows of tiles and the columns of tiles that any of them keeps.
  __aicore__ inline void Measure(const fa_ascend_matmul &t) {
    if (!is_valid) return;
    first_tile_ = group_ * t.swizzle;
    tiles_ = MatmulLeast(t.swizzle, MatmulCeil(t.m, t.tile_m) - first_tile_);
    int64_t begin = 0, end = t.n;
    if (t.band == FA_ASCEND_BAND_COLUMNS) {
      begin = MatmulMost(first_tile_ * t.tile_m + t.band_lower, 0);
      end = MatmulLeast(MatmulLeast((first_tile_ + tiles_) * t.tile_m, t.m) + t.band_upper, t.n);
    }
    first_column_ = begin / t.tile_n;
    columns_ = end > begin ? MatmulCeil(end, t.tile_n) - first_column_ : 0;
  }

  __aicore__ inline void Settle(const fa_ascend_matmul &t) {
    while (is_valid) {
      if (at_ >= tiles_ * columns_) {
        at_ -= tiles_ * columns_;
        if (--group_ < 0) {
          group_ = last_group_;
          is_valid = ++matrix_ < static_cast<int64_t>(t.batch) * t.heads;
        }
        Measure(t);
        continue;
      }
      Place(t);
      if (t.band != FA_ASCEND_BAND_COLUMNS || Keeps(t, row, rows, column, columns)) return;
      at_ += round_ % 2 == 0 ? 2 * (cores_ - core_) - 1 : 2 * core_ + 1;
      ++round_;
    }
  }

  __aicore__ inline void Place(const fa_ascend_matmul &t) {
    const int64_t across = at_ / tiles_, down = tiles_ - 1 - at_ % tiles_;
    const int64_t column_tile = first_column_ + (group_ % 2 == 0 ? across : columns_ - 1 - across);
    batch = matrix_ / t.heads;
    head = matrix_ % t.heads;
    row = (first_tile_ + down) * t.tile_m;
    rows = MatmulLeast(t.tile_m, t.m - row);
    column = column_tile * t.tile_n;
    columns = MatmulLeast(t.tile_n, t.n - column);
    depth_begin = 0;
    depth_end = t.k;
    if (t.band == FA_ASCEND_BAND_DEPTH) {
      depth_begin = MatmulMost(row + t.band_lower, 0) / 16 * 16;
      depth_end = MatmulLeast(row + rows + t.band_upper, t.k);
      if (depth_end <= depth_begin) depth_begin = depth_end = 0;
    }
  }

 public:
  // Whether any element of a block lies in the band.
  __aicore__ static inline bool Keeps(const fa_ascend_matmul &t, int64_t row, int64_t rows, int64_t column,
                                      int64_t columns) {
    return column <= row + rows - 1 + t.band_upper && column + columns - 1 >= row + t.band_lower;
  }

 private:
  int64_t matrix_, group_, last_group_, core_, cores_, round_, at_; // at_: place in the group
  int64_t first_tile_, tiles_, first_column_, columns_;
};

#endif
