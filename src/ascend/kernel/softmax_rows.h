// Softmax of rows of scores that go through UB: standard attention's only pass, and one of eager attention's. Part of
// softmax_ascend.cpp and eager_ascend.cpp.
//
// P = exp(scale * S - m) / l, m the largest and l the sum over what the band keeps of the row, in fp32; 0 elsewhere; a
// row that keeps nothing is 0 with lse = -inf. Standard: S and P f16 or bf16, in place. Wide (eager): S f16 or bf16, P
// fp32, no scale, no band.
//
// A step is as many rows as fit in UB (20480 fp32, wide 14336), loaded while the step before is computed and stored
// while the one behind is: S and P share two buffers (wide: two for S, two for P). A row that does not fit is taken in
// steps of its own, twice over: maximum and sum first, growing with each step (l *= exp(m - m')), then the weights.
// A row's m and 1 / l reach its elements through the scalar unit where rows are long (Adds and Muls, 1 cycle a repeat),
// else broadcast to blocks (Sub and Mul, 2 cycles a repeat).
// Bound, standard: Vector 9.3 cycles for 64 elements (Cast 1, Muls 1, maximum 1.1, Adds 1, Exp 2, sum 1.1, Muls 1,
// Cast 1) and some 15 steps of dependent instructions, about 35 cycles each, a block; HBM, 128 bytes in and out for 64
// elements, where S is not in L2.
#ifndef FA_ASCEND_SOFTMAX_ROWS_H
#define FA_ASCEND_SOFTMAX_ROWS_H

#include "passes_parts.h"

namespace fa_passes {

// Rows [row, row + rows) of a matrix and their columns [begin, end), of which [from, to) have to be read.
struct Step {
  enum Kind { kWhole, kSum, kWeigh };
  Kind kind;
  bool opens;  // the first step of its row
  bool weighs; // the first kWeigh of its row
  int64_t matrix, row, begin, end, from, to;
  int32_t rows, width;
};

class Steps {
 public:
  Step step;
  bool is_valid;

  __aicore__ inline void Begin(const fa_ascend_passes &t, int64_t elements) {
    elements_ = elements;
    strips_ = (t.rows + t.item_rows - 1) / t.item_rows;
    deal_.Begin(strips_ * t.batch * t.heads);
    is_valid = deal_.IsValid();
    if (is_valid) OpenItem(t);
  }

  __aicore__ inline void Next(const fa_ascend_passes &t) {
    if (step.kind == Step::kSum && step.end < row_to_) {
      OpenSum(t, step.end, false);
    } else if (step.kind == Step::kSum) {
      OpenWeigh(t, row_begin_, false);
    } else if (step.kind == Step::kWeigh && step.end < row_end_) {
      OpenWeigh(t, step.end, false);
      step.weighs = false;
    } else if (step.row + step.rows < item_end_) {
      OpenRows(t, step.row + step.rows);
    } else {
      deal_.Next();
      is_valid = deal_.IsValid();
      if (is_valid) OpenItem(t);
    }
  }

 private:
  // The last matrices come first, as they are what the product before left in L2; of each the last rows, which keep
  // most.
  __aicore__ inline void OpenItem(const fa_ascend_passes &t) {
    const int64_t strip = strips_ - 1 - deal_.item % strips_, row = strip * t.item_rows;
    step.matrix = static_cast<int64_t>(t.batch) * t.heads - 1 - deal_.item / strips_;
    item_end_ = Least(row + t.item_rows, t.rows);
    row_begin_ = 0;
    row_end_ = t.columns;
    if (t.block_rows > 0) {
      const int64_t first = row / t.block_rows * t.block_rows, behind = Least(first + t.block_rows, t.rows);
      row_begin_ = Most(first + t.band_lower, 0) / kAligned * kAligned;
      row_end_ = Least(behind + t.band_upper, t.columns);
      if (row_end_ <= row_begin_) row_begin_ = row_end_ = 0;
    }
    OpenRows(t, row);
  }

  __aicore__ inline void OpenRows(const fa_ascend_passes &t, int64_t row) {
    const int64_t width = RoundUp(row_end_ - row_begin_, 64);
    step.row = row;
    step.opens = step.weighs = true;
    if (width > elements_) {
      step.rows = 1;
      row_to_ = Kept(row + t.band_upper + 1);
      const int64_t from = Kept(row + t.band_lower);
      if (from < row_to_) OpenSum(t, row_begin_ + (from - row_begin_) / kAligned * kAligned, true);
      else OpenWeigh(t, row_begin_, true);
      return;
    }
    const int64_t most = width ? Least(elements_ / width, kMostRows) : kMostRows;
    step.rows = static_cast<int32_t>(Least(item_end_ - row, most));
    step.kind = Step::kWhole;
    Window(t, row_begin_, row_end_);
  }

  __aicore__ inline void OpenSum(const fa_ascend_passes &t, int64_t begin, bool opens) {
    step.kind = Step::kSum;
    step.opens = opens;
    Window(t, begin, Least(begin + elements_, row_to_));
  }

  __aicore__ inline void OpenWeigh(const fa_ascend_passes &t, int64_t begin, bool opens) {
    step.kind = Step::kWeigh;
    step.opens = opens;
    Window(t, begin, Least(begin + elements_, row_end_));
  }

  __aicore__ inline int64_t Kept(int64_t column) const {
    return Least(Most(column, row_begin_), row_end_);
  }

  __aicore__ inline void Window(const fa_ascend_passes &t, int64_t begin, int64_t end) {
    step.begin = begin;
    step.end = end;
    step.width = static_cast<int32_t>(RoundUp(end - begin, 64));
    step.from = Most(begin, Most(step.row + t.band_lower, 0) / kAligned * kAligned);
    step.to = Least(end, step.row + step.rows + t.band_upper);
  }

  Deal deal_;
  int64_t elements_, strips_, item_end_, row_begin_, row_end_, row_to_;
};

template <typename T, bool is_wide>
class SoftmaxRows {
 public:
  __aicore__ inline void Run(const fa_ascend_passes &tiling, GM_ADDR x, GM_ADDR y, GM_ADDR lse) {
    t_ = tiling;
    x_ = (__gm__ T *)x;
    y_ = (__gm__ float *)y;
    lse_ = (__gm__ float *)lse;
    TPipe pipe;
    TBuf<TPosition::VECCALC> ub;
    pipe.InitBuffer(ub, kBytes);
    Lay(ub);

    Steps steps;
    steps.Begin(t_, kElements);
    int32_t loaded = 0;
    if (steps.is_valid) Load(steps.step, loaded++ % 2);
    for (int32_t n = 0; steps.is_valid; ++n) {
      const Step step = steps.step;
      steps.Next(t_);
      if (steps.is_valid) Load(steps.step, loaded++ % 2);
      Compute(step, n % 2);
    }
    for (int32_t n = 0; n < 2; ++n) {
      WaitFree(n);
      if (is_wide) WaitFlag<HardEvent::MTE3_V>(n);
    }
  }

 private:
  static constexpr int32_t kElements = is_wide ? 14336 : 20480;
  static constexpr int32_t kLongRow = 1024;
  static constexpr int32_t kOuts = is_wide ? 2 : 1;
  static constexpr int32_t kValues = kMostRows * 4;
  static constexpr int32_t kBytes =
      kElements * (2 * 2 + kOuts * 4) + kElements + kElements / 8 + 6 * kValues + kMostRows * 32;
  static_assert(kBytes <= 196608, "UB holds 192 KB");

  __aicore__ inline void Lay(TBuf<TPosition::VECCALC> &ub) {
    uint32_t at = 0;
    for (int32_t n = 0; n < 2; ++n, at += kElements * 2) scores_[n] = ub.GetWithOffset<T>(kElements, at);
    for (int32_t n = 0; n < kOuts; ++n, at += kElements * 4) work_[n] = ub.GetWithOffset<float>(kElements, at);
    first_ = ub.GetWithOffset<float>(kElements / 4, at), at += kElements;
    second_ = ub.GetWithOffset<float>(kElements / 32, at), at += kElements / 8;
    const LocalTensor<float> values = ub.GetWithOffset<float>(6 * kMostRows, at);
    at += 6 * kValues;
    maxima_ = values, sums_ = values[kMostRows], inverse_ = values[2 * kMostRows], spare_ = values[3 * kMostRows];
    for (int32_t n = 0; n < 2; ++n) logs_[n] = values[(4 + n) * kMostRows];
    blocks_ = ub.GetWithOffset<float>(kMostRows * 8, at);

    // Broadcast reads values by eights; where rows end inside a width, Cast reads what lies behind them.
    Duplicate(values, 0.0f, 6 * kMostRows);
    const int64_t bound = static_cast<int64_t>(1) << 59;
    if (t_.columns % 64 != 0 || t_.band_lower > -bound || t_.band_upper < bound)
      for (int32_t n = 0; n < 2; ++n)
        Duplicate(scores_[n].template ReinterpretCast<int16_t>(), static_cast<int16_t>(0), kElements);
    for (int32_t n = 0; n < 2; ++n) {
      SetFlag<HardEvent::V_MTE2>(n);
      if (is_wide) continue;
      WaitFlag<HardEvent::V_MTE2>(n);
      SetFlag<HardEvent::MTE3_MTE2>(n);
    }
    if (is_wide)
      for (int32_t n = 0; n < 2; ++n) SetFlag<HardEvent::MTE3_V>(n);
  }

  // The buffer that a load fills: free when Vector has read it (wide), or when its weights have left it.
  __aicore__ inline void WaitFree(int32_t n) {
    if (is_wide) WaitFlag<HardEvent::V_MTE2>(n);
    else WaitFlag<HardEvent::MTE3_MTE2>(n);
  }

  __aicore__ inline void Load(const Step &step, int32_t n) {
    WaitFree(n);
    if (step.from < step.to)
      RowsIn(scores_[n][static_cast<uint32_t>(step.from - step.begin)],
             x_ + (step.matrix * t_.x_matrix + step.row * t_.x_row + step.from), t_.x_row, step.rows,
             static_cast<int32_t>(step.to - step.from), step.width);
    SetFlag<HardEvent::MTE2_V>(n);
  }

  __aicore__ inline void Compute(const Step &step, int32_t n) {
    const LocalTensor<float> x = work_[is_wide ? n : 0];
    const int32_t count = step.rows * step.width;
    WaitFlag<HardEvent::MTE2_V>(n);
    if (is_wide) WaitFlag<HardEvent::MTE3_V>(n);
    if (count) {
      Cast(x, scores_[n], RoundMode::CAST_NONE, static_cast<uint32_t>(count));
      PipeBarrier<PIPE_V>();
      if (!is_wide) {
        Muls(x, x, t_.scale, count);
        PipeBarrier<PIPE_V>();
      }
      LeaveOut(x, step);
    }
    if (is_wide) SetFlag<HardEvent::V_MTE2>(n);
    if (step.kind == Step::kSum || (step.kind == Step::kWeigh && step.opens)) Sum(x, step);
    bool has_lse = t_.has_lse;
    if (step.kind == Step::kWhole) Whole(x, step, n);
    else if (step.kind == Step::kWeigh && step.weighs) Invert(1, n);
    else has_lse = false;
    if (step.kind == Step::kWeigh) {
      Shift(x, maxima_, 1, step.width);
      Exp(x, x, step.width);
      Scale(x, inverse_, 1, step.width);
    }
    if (!is_wide && count && step.kind != Step::kSum)
      Cast(scores_[n], x, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
    SetFlag<HardEvent::V_MTE3>(n);
    WaitFlag<HardEvent::V_MTE3>(n);
    if (count && step.kind != Step::kSum) {
      const int32_t columns = static_cast<int32_t>(step.end - step.begin);
      if (is_wide)
        RowsOut(y_ + (step.matrix * t_.y_matrix + step.row * t_.y_row + step.begin), x, t_.y_row, step.rows, columns,
                step.width);
      else
        RowsOut(x_ + (step.matrix * t_.x_matrix + step.row * t_.x_row + step.begin), scores_[n], t_.x_row, step.rows,
                columns, step.width);
    }
    if (has_lse) {
      const int64_t batch = step.matrix / t_.heads, head = step.matrix % t_.heads;
      RowsOut(lse_ + (batch * t_.lse_batch + head * t_.lse_head + step.row), logs_[n], step.rows, 1, step.rows,
              kMostRows);
    }
    if (is_wide) SetFlag<HardEvent::MTE3_V>(n);
    else SetFlag<HardEvent::MTE3_MTE2>(n);
    PipeBarrier<PIPE_V>();
  }

  // What a row does not keep becomes -inf: before it and, behind a barrier since both may touch a block, behind it.
  __aicore__ inline void LeaveOut(const LocalTensor<float> &x, const Step &step) {
    const bool has_left = step.row + step.rows - 1 + t_.band_lower > step.begin;
    for (int32_t side = has_left ? 0 : 1; side < 2; ++side) {
      for (int32_t n = 0; n < step.rows; ++n) {
        const int64_t row = step.row + n, width = step.width;
        const int64_t begin = Least(Most(row + t_.band_lower - step.begin, 0), width);
        const int64_t end = Most(Least(row + t_.band_upper + 1, Least(step.end, t_.columns)) - step.begin, begin);
        if (side == 0) Fill(x[n * step.width], 0, static_cast<int32_t>(begin), kMinusInfinity);
        else Fill(x[n * step.width], static_cast<int32_t>(end), step.width, kMinusInfinity);
      }
      PipeBarrier<PIPE_V>();
    }
  }

  __aicore__ inline void Whole(const LocalTensor<float> &x, const Step &step, int32_t n) {
    const int32_t rows = step.rows, count = rows * step.width;
    if (count == 0) {
      Duplicate(logs_[n], kMinusInfinity, rows);
      return;
    }
    ReduceRows<false>(maxima_, x, first_, second_, rows, step.width);
    PipeBarrier<PIPE_V>();
    Shift(x, maxima_, rows, step.width);
    Exp(x, x, count);
    PipeBarrier<PIPE_V>();
    ReduceRows<true>(sums_, x, first_, second_, rows, step.width);
    Invert(rows, n);
    Scale(x, inverse_, rows, step.width);
  }

  // x -= the value of its row, or kLowest if that is more.
  __aicore__ inline void Shift(const LocalTensor<float> &x, const LocalTensor<float> &values, int32_t rows,
                               int32_t width) {
    if (width >= kLongRow) {
      SetFlag<HardEvent::V_S>(0);
      WaitFlag<HardEvent::V_S>(0);
      for (int32_t n = 0; n < rows; ++n) {
        const float value = values.GetValue(n);
        Adds(x[n * width], x[n * width], value > kLowest ? -value : -kLowest, width);
      }
      SetFlag<HardEvent::S_V>(0);
      WaitFlag<HardEvent::S_V>(0);
    } else {
      Maxs(values, values, kLowest, rows);
      PipeBarrier<PIPE_V>();
      Broadcast(blocks_, values, rows);
      PipeBarrier<PIPE_V>();
      Combine<true>(x, blocks_, rows, width);
    }
    PipeBarrier<PIPE_V>();
  }

  // x *= the value of its row; behind a barrier of its own where x is concerned.
  __aicore__ inline void Scale(const LocalTensor<float> &x, const LocalTensor<float> &values, int32_t rows,
                               int32_t width) {
    if (width >= kLongRow) {
      SetFlag<HardEvent::V_S>(0);
      WaitFlag<HardEvent::V_S>(0);
      for (int32_t n = 0; n < rows; ++n) Muls(x[n * width], x[n * width], values.GetValue(n), width);
      SetFlag<HardEvent::S_V>(0);
      WaitFlag<HardEvent::S_V>(0);
    } else {
      Broadcast(blocks_, values, rows);
      PipeBarrier<PIPE_V>();
      Combine<false>(x, blocks_, rows, width);
    }
    PipeBarrier<PIPE_V>();
  }

  // 1 / l, and lse = m + ln l.
  __aicore__ inline void Invert(int32_t rows, int32_t n) {
    PipeBarrier<PIPE_V>();
    Maxs(inverse_, sums_, kTiny, rows);
    Duplicate(spare_, 1.0f, rows);
    if (t_.has_lse) Ln(logs_[n], sums_, rows);
    PipeBarrier<PIPE_V>();
    Div(inverse_, spare_, inverse_, rows);
    if (t_.has_lse) Add(logs_[n], logs_[n], maxima_, rows);
    PipeBarrier<PIPE_V>();
  }

  // A part of a row on top of what its maximum and sum were before; lanes 1 to 7 of the values are of no meaning.
  __aicore__ inline void Sum(const LocalTensor<float> &x, const Step &step) {
    if (step.opens) {
      Duplicate(maxima_, kLowest, 8);
      Duplicate(sums_, 0.0f, 8);
    }
    if (step.kind != Step::kSum) return;
    ReduceRows<false>(spare_, x, first_, second_, 1, step.width);
    PipeBarrier<PIPE_V>();
    Max(spare_, spare_, maxima_, 8);
    PipeBarrier<PIPE_V>();
    Sub(maxima_, maxima_, spare_, 8);
    PipeBarrier<PIPE_V>();
    Exp(maxima_, maxima_, 8);
    Shift(x, spare_, 1, step.width);
    Exp(x, x, step.width);
    Mul(sums_, sums_, maxima_, 8);
    PipeBarrier<PIPE_V>();
    ReduceRows<true>(inverse_, x, first_, second_, 1, step.width);
    Adds(maxima_, spare_, 0.0f, 8);
    PipeBarrier<PIPE_V>();
    Add(sums_, sums_, inverse_, 8);
  }

  fa_ascend_passes t_;
  __gm__ T *x_;
  __gm__ float *y_, *lse_;
  LocalTensor<T> scores_[2];
  LocalTensor<float> work_[kOuts], first_, second_, maxima_, sums_, inverse_, spare_, logs_[2], blocks_;
};

} // namespace fa_passes

#endif
