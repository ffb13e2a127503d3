// What the passes over scores have in common: how cores share rows, and softmax's steps on rows in UB. Part of
// softmax_ascend.cpp and eager_ascend.cpp.
//
// A block of rows in UB is R rows of W fp32, W a multiple of 64, one behind the other: R * W elements to operations
// that do not care for rows. Reductions go a level at a time, 8 to 1 by blocks (1 cycle a repeat), until a row is 64
// elements or fewer, which WholeReduce makes 1 of (3 to 7 cycles a repeat).
#ifndef FA_ASCEND_PASSES_PARTS_H
#define FA_ASCEND_PASSES_PARTS_H

#include "kernel_operator.h"

#include "ascend/passes_tiling.h"

namespace fa_passes {

using namespace AscendC;

constexpr int32_t kMostRows = 128;    // of a block
constexpr int32_t kMostRepeats = 248; // a multiple of 8 below 256, so that what follows begins at 32 bytes
constexpr int64_t kAligned = 16;      // elements of the input type in 32 bytes
constexpr float kLowest = -3.0e38f; // what a row's maximum is at least: a row that keeps nothing has weights 0, not NaN
constexpr float kTiny = 1.0e-37f;   // what a row's sum is at least
constexpr float kMinusInfinity = -__builtin_inff();

__aicore__ inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
__aicore__ inline int64_t Most(int64_t a, int64_t b) { return a > b ? a : b; }
__aicore__ inline int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

template <bool first, typename A, typename B>
struct Chosen {
  using Type = A;
};
template <typename A, typename B>
struct Chosen<false, A, B> {
  using Type = B;
};

__aicore__ inline fa_ascend_passes ReadTiling(GM_ADDR at) {
  const __gm__ fa_ascend_passes *gm = (const __gm__ fa_ascend_passes *)at;
  fa_ascend_passes t;
  t.x_matrix = gm->x_matrix, t.x_row = gm->x_row, t.y_matrix = gm->y_matrix, t.y_row = gm->y_row;
  t.mask_batch = gm->mask_batch, t.mask_row = gm->mask_row, t.lse_batch = gm->lse_batch, t.lse_head = gm->lse_head;
  t.rows = gm->rows, t.columns = gm->columns, t.band_lower = gm->band_lower, t.band_upper = gm->band_upper;
  t.is_bf16 = gm->is_bf16, t.batch = gm->batch, t.heads = gm->heads, t.has_lse = gm->has_lse;
  t.block_rows = gm->block_rows, t.item_rows = gm->item_rows, t.scale = gm->scale, t.reserved = 0;
  return t;
}

// Items are dealt out in rounds, every other one backwards: under a band item after item costs less, two rounds cost
// all the same.
class Deal {
 public:
  __aicore__ inline void Begin(int64_t items) {
    core_ = GetBlockIdx();
    cores_ = GetBlockNum();
    items_ = items;
    item = core_;
    is_back_ = false;
  }
  __aicore__ inline bool IsValid() const { return item < items_; }
  __aicore__ inline void Next() {
    item += is_back_ ? 2 * core_ + 1 : 2 * (cores_ - core_) - 1;
    is_back_ = !is_back_;
  }
  int64_t item;

 private:
  int64_t core_, cores_, items_;
  bool is_back_;
};

// ------------------------------------------------------------------ between GM and UB

// rows x columns to rows of `pitch` elements in UB, a multiple of 32 bytes; the last block of a row is filled with
// zeros.
template <typename T>
__aicore__ inline void RowsIn(const LocalTensor<T> &to, __gm__ T *from, int64_t stride, int32_t rows, int32_t columns,
                              int32_t pitch) {
  constexpr int32_t in_block = 32 / sizeof(T);
  const int32_t whole = static_cast<int32_t>(RoundUp(columns, in_block));
  GlobalTensor<T> source;
  source.SetGlobalBuffer(from);
  DataCopyExtParams move;
  move.blockCount = static_cast<uint16_t>(rows);
  move.blockLen = static_cast<uint32_t>(columns * sizeof(T));
  move.srcStride = static_cast<uint32_t>((stride - columns) * static_cast<int64_t>(sizeof(T)));
  move.dstStride = static_cast<uint32_t>((pitch - whole) / in_block);
  DataCopyPadExtParams<T> pad;
  pad.isPad = whole != columns;
  pad.rightPadding = static_cast<uint8_t>(whole - columns);
  DataCopyPad(to, source, move, pad);
}

template <typename T>
__aicore__ inline void RowsOut(__gm__ T *to, const LocalTensor<T> &from, int64_t stride, int32_t rows, int32_t columns,
                               int32_t pitch) {
  constexpr int32_t in_block = 32 / sizeof(T);
  GlobalTensor<T> target;
  target.SetGlobalBuffer(to);
  DataCopyExtParams move;
  move.blockCount = static_cast<uint16_t>(rows);
  move.blockLen = static_cast<uint32_t>(columns * sizeof(T));
  move.srcStride = static_cast<uint32_t>((pitch - RoundUp(columns, in_block)) / in_block);
  move.dstStride = static_cast<uint32_t>((stride - columns) * static_cast<int64_t>(sizeof(T)));
  DataCopyPad(target, from, move);
}

// ------------------------------------------------------------------ steps on rows of fp32

// Elements [begin, end) of a row that starts at `row`, to `value`; instructions begin at 64 elements and so at 32
// bytes.
__aicore__ inline void Fill(const LocalTensor<float> &row, int32_t begin, int32_t end, float value) {
  if (begin >= end) return;
  int32_t at = begin / 64 * 64;
  if (begin != at) {
    const int32_t last = end - at < 64 ? end - at : 64;
    const uint64_t below_end = last == 64 ? ~static_cast<uint64_t>(0) : (static_cast<uint64_t>(1) << last) - 1;
    uint64_t mask[2] = {below_end & ~((static_cast<uint64_t>(1) << (begin - at)) - 1), 0};
    Duplicate(row[at], value, mask, 1, 1, 8);
    at += 64;
  }
  if (at < end) Duplicate(row[at], value, end - at);
}

// x op= value of its row, for values broadcast to a block each: row by row, or 64 columns of all rows at a time.
template <bool subtracts>
__aicore__ inline void Combine(const LocalTensor<float> &x, const LocalTensor<float> &values, int32_t rows,
                               int32_t width) {
  const int32_t across = width / 64;
  BinaryRepeatParams strides;
  strides.src1BlkStride = 0;
  if (rows <= across || across * 8 > 255) {
    strides.src1RepStride = 0;
    for (int32_t row = 0; row < rows; ++row)
      for (int32_t at = 0; at < across; at += kMostRepeats) {
        const uint8_t repeats = static_cast<uint8_t>(Least(kMostRepeats, across - at));
        const LocalTensor<float> part = x[row * width + at * 64];
        if (subtracts) Sub(part, part, values[row * 8], static_cast<uint64_t>(64), repeats, strides);
        else Mul(part, part, values[row * 8], static_cast<uint64_t>(64), repeats, strides);
      }
    return;
  }
  strides.dstRepStride = strides.src0RepStride = static_cast<uint8_t>(across * 8);
  strides.src1RepStride = 1;
  for (int32_t at = 0; at < across; ++at) {
    if (subtracts) Sub(x[at * 64], x[at * 64], values, static_cast<uint64_t>(64), static_cast<uint8_t>(rows), strides);
    else Mul(x[at * 64], x[at * 64], values, static_cast<uint64_t>(64), static_cast<uint8_t>(rows), strides);
  }
}

template <bool is_sum>
__aicore__ inline void ReduceBlocks(const LocalTensor<float> &to, const LocalTensor<float> &from, int32_t repeats) {
  for (int32_t at = 0; at < repeats; at += kMostRepeats) {
    const int32_t part = static_cast<int32_t>(Least(kMostRepeats, repeats - at));
    if (is_sum) BlockReduceSum(to[at * 8], from[at * 64], part, 64, 1, 1, 8);
    else BlockReduceMax(to[at * 8], from[at * 64], part, 64, 1, 1, 8);
  }
}

// Rows of a first level's results begin where whole repeats of the next level do.
__aicore__ inline int32_t PartialWidth(int32_t width) {
  return static_cast<int32_t>(RoundUp(width, width <= 512 ? 64 : width <= 4096 ? 512 : 4096) / 8);
}
// The sum or the maximum of each row to out[row]. `first` has room for rows * PartialWidth(width), less than a quarter
// of x, `second` for an eighth of that. Ends without a barrier.
template <bool is_sum>
__aicore__ inline void ReduceRows(const LocalTensor<float> &out, const LocalTensor<float> &x,
                                  const LocalTensor<float> &first, const LocalTensor<float> &second, int32_t rows,
                                  int32_t width) {
  int32_t pitch = PartialWidth(width);
  if (pitch * 8 == width) {
    ReduceBlocks<is_sum>(first, x, rows * width / 64);
  } else {
    const float neutral = is_sum ? 0.0f : kMinusInfinity; // between the rows
    for (int32_t row = 0; row < rows; ++row) {
      ReduceBlocks<is_sum>(first[row * pitch], x[row * width], width / 64);
      Duplicate(first[row * pitch + width / 8], neutral, pitch - width / 8);
    }
  }
  LocalTensor<float> now = first, next = second;
  while (pitch > 64) {
    PipeBarrier<PIPE_V>();
    ReduceBlocks<is_sum>(next, now, rows * pitch / 64);
    const LocalTensor<float> swap = now;
    now = next;
    next = swap;
    pitch /= 8;
  }
  PipeBarrier<PIPE_V>();
  if (is_sum) WholeReduceSum(out, now, pitch, rows, 1, 1, pitch / 8);
  else WholeReduceMax(out, now, pitch, rows, 1, 1, pitch / 8, ReduceOrder::ORDER_ONLY_VALUE);
}

// Values of rows to a block each; `rows` is rounded up to 8, so values has to be written that far.
__aicore__ inline void Broadcast(const LocalTensor<float> &blocks, const LocalTensor<float> &values, int32_t rows) {
  Brcb(blocks, values, static_cast<uint8_t>((rows + 7) / 8), BrcbRepeatParams(1, 8));
}

} // namespace fa_passes

#endif
