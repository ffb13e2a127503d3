// What a Vector core does with the Cube's O': adds it up, and finishes the rows of an item. Part of attention_ascend.cpp.
//
//   o = o factor(i) + O'(i), tile by tile;   o = o / l,  lse = scale m + ln l
//
// acc [half_rows, dim] fp32 stays in UB for all of an item. O' of a tile comes from GM's ring in parts of part_rows rows, two
// buffers; each piece of scores brings its share of them along, in steps beside the piece's own (attention_vector.h). Rows that keep
// no key are known by their index: o = 0, lse = -inf. Rows that are not finite are computed again (attention_exact.h): o's sum is
// looked at, and the maxima, which are about kMaskedScore where every kept score is minus infinity. With kv_splits > 1 what is stored
// is fp32, for attention_merge.h.
//
// Cycles a tile at 64 x 128: Mul 256, Add 256, of which no barrier is its own. An item's end: some 1000.
#ifndef FA_ASCEND_ATTENTION_OUTPUT_H
#define FA_ASCEND_ATTENTION_OUTPUT_H

#include "attention_exact.h"
#include "attention_softmax.h"

template <typename T>
class AttentionOutput {
 public:
  __aicore__ inline void Begin(const fa_ascend_attention *t, const AttentionWork *work, const AttentionArguments &arguments,
                               AttentionUb<T> *ub, float scale) {
    t_ = t;
    work_ = work;
    ub_ = ub;
    o_ = (__gm__ T *)arguments.o;
    lse_ = (__gm__ float *)arguments.lse;
    partial_o_ = (__gm__ float *)(arguments.workspace + t->partial_o);
    partial_lse_ = (__gm__ float *)(arguments.workspace + t->partial_lse);
    pitch_ = (t->head_dim_v + 15) / 16 * 16;
    const int64_t group = GetBlockIdx() / GetTaskRatio();
    ring_ = (__gm__ float *)(arguments.workspace + t->o_ring) + group * t->ring * t->level1_rows * pitch_;
    scale_ = scale;
    exact_.Begin(t, work, arguments);
    rows_ = from_ = to_ = 0;
    is_storing_ = false;
    parts_loaded_ = parts_added_ = 0;
  }

  // ------------------------------------------------------------------ adding up

  __aicore__ inline void StartTile(const AttentionTile &tile, int32_t number) {
    int32_t first;
    work_->Half(tile.item, static_cast<int32_t>(GetSubBlockIdx()), first, rows_);
    number_ = number;
    begins_ = tile.is_first;
    from_ = to_ = 0;
    tile_ = ring_ + (static_cast<int64_t>(number % t_->ring) * t_->level1_rows + first) * pitch_;
  }

  // The next share of the tile is its rows up to `row`.
  __aicore__ inline void Take(int32_t row) {
    from_ = to_;
    to_ = row < rows_ ? row : rows_;
    if (to_ < from_) to_ = from_;
    loading_ = adding_ = from_;
    LoadPart();
    LoadPart();
  }

  __aicore__ inline int32_t Steps() const {
    if (from_ == to_) return 0;
    const int32_t parts = (to_ - from_ + ub_->lay.part_rows - 1) / ub_->lay.part_rows;
    return parts > 4 ? 4 : 2 + (parts + 1) / 2;
  }

  __aicore__ inline void Step(int32_t step, bool is_last) {
    if (from_ == to_) return;
    const int32_t dim = ub_->lay.dim, rows = to_ - from_;
    const LocalTensor<float> acc = ub_->acc[static_cast<uint32_t>(from_ * dim)];
    if (step == 1) {
      Settle();
      if (!begins_)
        Brcb(ub_->factors, ub_->Of(ub_->factor, number_)[static_cast<uint32_t>(from_)], AttentionCount(AttentionUp8(rows) / 8),
             BrcbRepeatParams(1, 8));
    } else if (step == 2) {
      if (begins_)
        AttentionFill(acc, 0.0f, rows * dim / kLanes);
      else
        Scale(acc, ub_->factors, rows);
    } else {
      for (int32_t n = 0; adding_ < to_ && (n < 2 || is_last); ++n) AddPart();
    }
  }

  // ------------------------------------------------------------------ finishing

  // The item whose last tile was added. `spare`: FA_ASCEND_ROW_SCRATCH bytes.
  __aicore__ inline void Finish(const AttentionItem &item, const LocalTensor<float> &spare) {
    int32_t first, before, after;
    if (rows_ == 0) return;
    work_->Half(item, static_cast<int32_t>(GetSubBlockIdx()), first, rows_);
    work_->EmptyRows(item, first, rows_, before, after);
    const LocalTensor<float> maximum = ub_->Of(ub_->maximum, number_), sum = ub_->Of(ub_->sum, number_);
    const LocalTensor<float> checked = spare, folded = spare[kChecked], large = spare[kChecked + 256],
                             words = spare[kChecked + 320];
    const int32_t values = rows_ * ub_->lay.dim / 8;
    Settle();
    if (before > 0 || after < rows_) {
      ClearRows(before, after);
      SetLanes(maximum, before, after, 0);
      SetLanes(sum, before, after, 0x3f800000);
      PipeBarrier<PIPE_V>();
    }
    Ln(ub_->lse, sum, kLanes);
    Div(ub_->inverse, ub_->one, sum, kLanes);
    Muls(ub_->scratch, maximum, scale_, kLanes);
    Muls(large, maximum, 1e10f, kLanes);
    AttentionFill(checked[static_cast<uint32_t>(values)], 0.0f, 1);
    AttentionFill(folded, 0.0f, 4);
    PipeBarrier<PIPE_V>();
    Add(ub_->lse, ub_->lse, ub_->scratch, kLanes);
    Brcb(ub_->factors, ub_->inverse, AttentionCount(AttentionUp8(rows_) / 8), BrcbRepeatParams(1, 8));
    WholeReduceSum(words[8], large, rows_, 1, 1, 1, 8);
    PipeBarrier<PIPE_V>();
    Scale(ub_->acc, ub_->factors, rows_);
    SetLanes(ub_->lse, before, after, kMinusInfinity);
    PipeBarrier<PIPE_V>();
    SumEights(checked, ub_->acc, rows_ * ub_->lay.dim / kLanes);
    PipeBarrier<PIPE_V>();
    BlockReduceSum(folded, checked, (values + kLanes - 1) / kLanes, kLanes, 1, 1, 8);
    PipeBarrier<PIPE_V>();
    WholeReduceSum(words, folded, kLanes, 4, 1, 1, 8);
    SetFlag<HardEvent::V_S>(0);
    StoreRows(item, first);
    StoreLse(item, first);
    WaitFlag<HardEvent::V_S>(0);
    const LocalTensor<int32_t> bits = words.template ReinterpretCast<int32_t>();
    bool is_finite = AttentionIsFinite(bits.GetValue(8));
    for (uint32_t n = 0; n < 4; ++n) is_finite = is_finite && AttentionIsFinite(bits.GetValue(n));
    SetFlag<HardEvent::S_V>(0);
    WaitFlag<HardEvent::S_V>(0);
    if (!is_finite) Repair(item, first, before, after, spare);
  }

  // Rows of an item without keys.
  __aicore__ inline void FinishEmpty(const AttentionItem &item) {
    int32_t first;
    work_->Half(item, static_cast<int32_t>(GetSubBlockIdx()), first, rows_);
    if (rows_ == 0) return;
    Settle();
    PipeBarrier<PIPE_V>();
    AttentionFill(ub_->acc, 0.0f, rows_ * ub_->lay.dim / kLanes);
    SetLanes(ub_->lse, rows_, rows_, kMinusInfinity);
    PipeBarrier<PIPE_V>();
    StoreRows(item, first);
    StoreLse(item, first);
  }

  // Waits until everything stored from UB but weights has left it.
  __aicore__ inline void Settle() {
    if (!is_storing_) return;
    WaitFlag<HardEvent::MTE3_V>(kStoreFlag);
    is_storing_ = false;
  }

 private:
  static constexpr uint32_t kChecked = FA_ASCEND_LANES * 256 / 8 + FA_ASCEND_LANES; // sums of eights, and what fills a repeat

  __aicore__ inline void LoadPart() {
    if (loading_ >= to_) return;
    const int32_t n = parts_loaded_++ % 2, rows = to_ - loading_ < ub_->lay.part_rows ? to_ - loading_ : ub_->lay.part_rows;
    WaitFlag<HardEvent::V_MTE2>(kPartFlag + n);
    AttentionLoadRows(ub_->part[n], tile_ + static_cast<int64_t>(loading_) * pitch_, rows, t_->head_dim_v, pitch_, ub_->lay.dim);
    SetFlag<HardEvent::MTE2_V>(kPartFlag + n);
    loading_ += rows;
  }

  __aicore__ inline void AddPart() {
    const int32_t n = parts_added_++ % 2, rows = to_ - adding_ < ub_->lay.part_rows ? to_ - adding_ : ub_->lay.part_rows;
    const LocalTensor<float> acc = ub_->acc[static_cast<uint32_t>(adding_ * ub_->lay.dim)];
    WaitFlag<HardEvent::MTE2_V>(kPartFlag + n);
    Add(acc, acc, ub_->part[n], static_cast<uint64_t>(kLanes), AttentionCount(rows * ub_->lay.dim / kLanes),
        BinaryRepeatParams(1, 1, 1, 8, 8, 8));
    SetFlag<HardEvent::V_MTE2>(kPartFlag + n);
    adding_ += rows;
    LoadPart();
  }

  // Rows of `o` times their factor.
  __aicore__ inline void Scale(const LocalTensor<float> &o, const LocalTensor<float> &factors, int32_t rows) {
    const uint8_t pitch = AttentionCount(ub_->lay.dim / 8);
    for (int32_t d = 0; d < ub_->lay.dim; d += kLanes) {
      const LocalTensor<float> column = o[static_cast<uint32_t>(d)];
      Mul(column, column, factors, static_cast<uint64_t>(kLanes), AttentionCount(rows),
          BinaryRepeatParams(1, 1, 0, pitch, pitch, 1));
    }
  }

  __aicore__ inline void SumEights(const LocalTensor<float> &to, const LocalTensor<float> &from, int32_t repeats) {
    for (int32_t done = 0; done < repeats; done += kMostRepeats)
      BlockReduceSum(to[static_cast<uint32_t>(done * 8)], from[static_cast<uint32_t>(done * kLanes)],
                     repeats - done < kMostRepeats ? repeats - done : kMostRepeats, kLanes, 1, 1, 8);
  }

  __aicore__ inline void ClearRows(int32_t before, int32_t after) {
    const int32_t repeats = ub_->lay.dim / kLanes;
    if (before > 0) AttentionFill(ub_->acc, 0.0f, before * repeats);
    if (after < rows_) AttentionFill(ub_->acc[static_cast<uint32_t>(after * ub_->lay.dim)], 0.0f, (rows_ - after) * repeats);
  }

  // The lanes of rows that keep no key.
  __aicore__ inline void SetLanes(const LocalTensor<float> &lanes, int32_t before, int32_t after, uint32_t bits) {
    constexpr uint64_t all = ~static_cast<uint64_t>(0);
    const uint64_t head = before >= kLanes ? all : (static_cast<uint64_t>(1) << before) - 1;
    const uint64_t tail = after >= kLanes ? 0 : all << after;
    uint64_t mask[2] = {head | tail, 0};
    if (mask[0] == 0) return;
    Duplicate(lanes.template ReinterpretCast<int32_t>(), static_cast<int32_t>(bits), mask, 1, 1, 8);
  }

  // ------------------------------------------------------------------ storing

  __aicore__ inline bool IsPart() const { return t_->kv_splits > 1; }
  __aicore__ inline int64_t PartRow(const AttentionItem &item, int32_t row) const {
    return static_cast<int64_t>(item.number) * t_->level1_rows + row;
  }

  __aicore__ inline void StoreRows(const AttentionItem &item, int32_t first) {
    const int32_t dim = ub_->lay.dim;
    if (IsPart()) {
      SetFlag<HardEvent::V_MTE3>(kStoreFlag);
      WaitFlag<HardEvent::V_MTE3>(kStoreFlag);
      AttentionStoreRows(partial_o_ + PartRow(item, first) * dim, ub_->acc, rows_, dim, dim, dim);
      return;
    }
    const int32_t at_once = ub_->lay.weights_bytes / 2 / dim;
    for (int32_t row = 0; row < rows_; row += at_once) {
      const int32_t n = ub_->NextWeights(), rows = rows_ - row < at_once ? rows_ - row : at_once;
      ++ub_->weights_taken;
      WaitFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
      Cast(ub_->weights[n], ub_->acc[static_cast<uint32_t>(row * dim)], RoundMode::CAST_RINT, static_cast<uint32_t>(rows * dim));
      SetFlag<HardEvent::V_MTE3>(kWeightsFlag + n);
      WaitFlag<HardEvent::V_MTE3>(kWeightsFlag + n);
      AttentionStoreRows(o_ + work_->RowOffset(t_->o, item, first + row), ub_->weights[n], rows, t_->head_dim_v,
                         work_->RowStride(t_->o), dim);
      SetFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
    }
  }

  // Behind StoreRows, whose flag covers it where o is a part.
  __aicore__ inline void StoreLse(const AttentionItem &item, int32_t first) {
    if (!IsPart() && !t_->has_lse) return;
    const bool is_strided = t_->packs_group && !IsPart();
    if (is_strided) Brcb(ub_->factors, ub_->lse, AttentionCount(AttentionUp8(rows_) / 8), BrcbRepeatParams(1, 8));
    if (!IsPart()) {
      SetFlag<HardEvent::V_MTE3>(kStoreFlag);
      WaitFlag<HardEvent::V_MTE3>(kStoreFlag);
    }
    if (is_strided)
      AttentionStoreRows(lse_ + work_->LseOffset(item, first), ub_->factors, rows_, 1, t_->lse_head, 8);
    else
      AttentionStoreRows(
          IsPart() ? partial_lse_ + PartRow(item, first) : lse_ + work_->LseOffset(item, first), ub_->lse, 1,
          rows_, 0, kLanes);
    SetFlag<HardEvent::MTE3_V>(kStoreFlag);
    is_storing_ = true;
  }

  // Computes the rows again that are not finite.
  __aicore__ inline void Repair(const AttentionItem &item, int32_t first, int32_t before, int32_t after,
                                const LocalTensor<float> &spare) {
    const int32_t eights = ub_->lay.dim / 8;
    Muls(ub_->scratch, ub_->Of(ub_->maximum, number_), 1e10f, kLanes);
    SumEights(spare, ub_->acc, rows_ * ub_->lay.dim / kLanes);
    PipeBarrier<PIPE_V>();
    WholeReduceSum(ub_->inverse, spare, eights, rows_, 1, 1, eights / 8);
    PipeBarrier<PIPE_ALL>();
    for (int32_t r = before; r < after; ++r) {
      const uint32_t lane = static_cast<uint32_t>(r);
      if (AttentionIsFinite(ub_->inverse.template ReinterpretCast<int32_t>().GetValue(lane)) &&
          AttentionIsFinite(ub_->scratch.template ReinterpretCast<int32_t>().GetValue(lane)))
        continue;
      exact_.Row(item, first + r, spare);
      if (IsPart()) {
        AttentionStoreRows(partial_o_ + PartRow(item, first + r) * ub_->lay.dim, exact_.o, 1, t_->head_dim_v, 0, ub_->lay.dim);
      } else {
        Cast(exact_.Narrow(), exact_.o, RoundMode::CAST_RINT, static_cast<uint32_t>(t_->head_dim_v));
        PipeBarrier<PIPE_ALL>();
        AttentionStoreRows(o_ + work_->RowOffset(t_->o, item, first + r), exact_.Narrow(), 1, t_->head_dim_v, 0, ub_->lay.dim);
      }
      if (IsPart() || t_->has_lse)
        AttentionStoreRows(
            IsPart() ? partial_lse_ + PartRow(item, first + r) : lse_ + work_->LseOffset(item, first + r),
            exact_.lse, 1, 1, 0, kLanes);
      PipeBarrier<PIPE_ALL>();
    }
    SetFlag<HardEvent::S_V>(0); // of a last row that was looked at and left
    WaitFlag<HardEvent::S_V>(0);
  }

  const fa_ascend_attention *t_;
  const AttentionWork *work_;
  AttentionUb<T> *ub_;
  AttentionExact<T> exact_;
  __gm__ T *o_;
  __gm__ float *lse_, *partial_o_, *partial_lse_, *ring_, *tile_;
  float scale_;
  int32_t pitch_;                         // elements between rows of O' in GM
  int32_t number_, rows_, from_, to_;     // the tile, this AIV's rows of it, the share at hand
  int32_t loading_, adding_;              // rows of the share
  int32_t parts_loaded_, parts_added_;
  bool begins_, is_storing_;
};

#endif
