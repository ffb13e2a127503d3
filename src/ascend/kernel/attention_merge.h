// Joins the parts that kv_splits > 1 cut the keys into. Part of attention_ascend.cpp, after SyncAll.
//
//   m = max_p lse_p     w_p = exp(lse_p - m)     o = sum_p w_p o_p / sum_p w_p     lse = m + ln sum_p w_p
//
// A part that saw no key has lse = -inf and o = 0. A part that saw one weighs 1e-35 at least, so that an infinity in its o arrives; what
// is finite adds at most 1e-35 of itself. All AIVs take eight rows of an item in turn, a block of 32 bytes of each part's lse: what
// is one number a row goes through Vector for all parts of the eight at once. UB, for at most 256 parts: lse and weights
// [parts][8], o of 8 parts at a time, fp32 [8 parts][8][dim], folded in halves.
// Bound: reading the parts once, 32 KB a move at D_v = 128; with few parts, the chain of some 25 instructions.
#ifndef FA_ASCEND_ATTENTION_MERGE_H
#define FA_ASCEND_ATTENTION_MERGE_H

#include "attention_exact.h"

constexpr int32_t kMostParts = 256;
constexpr int32_t kPartsAtOnce = 8;
constexpr int32_t kRowsAtOnce = 8;
constexpr float kLeastFloat = -3.4028235e38f; // below the lse of any row that keeps a finite score

template <typename T>
class AttentionMerge {
 public:
  // `ub`: all of it, nothing in it is needed any more. Nothing is under way in any pipe.
  __aicore__ inline void Run(const fa_ascend_attention *t, const AttentionWork *work, const AttentionArguments &arguments,
                             const LocalTensor<float> &ub) {
    t_ = t;
    work_ = work;
    o_ = (__gm__ T *)arguments.o;
    lse_ = (__gm__ float *)arguments.lse;
    partial_o_ = (__gm__ float *)(arguments.workspace + t->partial_o);
    partial_lse_ = (__gm__ float *)(arguments.workspace + t->partial_lse);
    dim_ = fa_ascend_up(t->head_dim_v, kLanes);
    values_ = kRowsAtOnce * dim_;
    LayOut(ub);

    const int64_t all = GetBlockNum() * GetTaskRatio(), most_rows = t->packs_group ? t->group : t->max_seqlen_q; // of an item
    const int64_t most = (AttentionLeast(t->level1_rows, most_rows) + kRowsAtOnce - 1) / kRowsAtOnce;
    for (int64_t whole = 0, turn = 0; whole < work_->WholeItems(); ++whole, turn = (turn + most) % all) {
      AttentionItem item;
      const int64_t mine = (GetBlockIdx() - turn + all) % all;
      if (mine >= most) continue; // before its lengths are read, which takes long
      work_->Describe(work_->FirstPart(whole), item);
      for (int64_t row = mine * kRowsAtOnce; row < item.rows; row += all * kRowsAtOnce) Rows(item, static_cast<int32_t>(row));
    }
  }

 private:
  __aicore__ inline void LayOut(const LocalTensor<float> &ub) {
    constexpr uint32_t numbers = kMostParts * kRowsAtOnce;
    parts_ = ub;
    sum_ = parts_[static_cast<uint32_t>(kPartsAtOnce * values_)];
    narrow_ = sum_[static_cast<uint32_t>(values_)].template ReinterpretCast<T>();
    weights_ = sum_[static_cast<uint32_t>(2 * values_)];
    folded_ = weights_[numbers];
    spread_ = folded_[numbers];
    most_ = spread_[kPartsAtOnce * kRowsAtOnce * 8];
    total_ = most_[kLanes];
    lses_ = total_[kLanes];
    none_ = lses_[kLanes];
    is_empty_ = none_[kLanes].template ReinterpretCast<uint8_t>();
    Duplicate(none_.template ReinterpretCast<int32_t>(), static_cast<int32_t>(kMinusInfinity), kLanes);
  }

  __aicore__ inline void Rows(const AttentionItem &item, int32_t row) {
    const int32_t rows = item.rows - row < kRowsAtOnce ? item.rows - row : kRowsAtOnce;
    const int64_t between = work_->PartStride() * t_->level1_rows, at = static_cast<int64_t>(item.number) * t_->level1_rows + row;
    AttentionLoadRows(weights_, partial_lse_ + at, t_->kv_splits, rows, between, kRowsAtOnce);
    PipeBarrier<PIPE_ALL>();
    for (int32_t part = 0; part < t_->kv_splits; part += kPartsAtOnce) {
      const int32_t parts = t_->kv_splits - part < kPartsAtOnce ? t_->kv_splits - part : kPartsAtOnce;
      AttentionLoadRows(parts_, partial_o_ + (at + part * between) * dim_, parts, rows * dim_, between * dim_, values_);
      if (part == 0) Weigh();
      PipeBarrier<PIPE_ALL>();
      AddParts(part, parts);
      PipeBarrier<PIPE_ALL>();
    }
    Cast(narrow_, sum_, RoundMode::CAST_RINT, static_cast<uint32_t>(values_));
    if (t_->packs_group) Brcb(spread_, lses_, 1, BrcbRepeatParams(1, 8)); // the rows are heads, whose lse lie apart
    PipeBarrier<PIPE_ALL>();
    AttentionStoreRows(o_ + work_->RowOffset(t_->o, item, row), narrow_, rows, t_->head_dim_v, work_->RowStride(t_->o), dim_);
    if (t_->has_lse && t_->packs_group)
      AttentionStoreRows(lse_ + work_->LseOffset(item, row), spread_, rows, 1, t_->lse_head, 8);
    else if (t_->has_lse)
      AttentionStoreRows(lse_ + work_->LseOffset(item, row), lses_, 1, rows, 0, kLanes);
  }

  // lse to weights that add up to one, and the rows' lse. A NaN among the parts' lse makes its row's sum one, whatever Max does with it.
  __aicore__ inline void Weigh() {
    const int32_t numbers = t_->kv_splits * kRowsAtOnce, parts = t_->kv_splits;
    const uint8_t repeats = static_cast<uint8_t>((numbers + kLanes - 1) / kLanes);
    const BinaryRepeatParams with_eight(1, 1, 0, 8, 8, 0);
    Maxs(folded_, weights_, kLeastFloat, numbers);
    for (int32_t n = parts; n > 1; n = (n + 1) / 2) {
      PipeBarrier<PIPE_V>();
      Max(folded_, folded_, folded_[static_cast<uint32_t>((n + 1) / 2 * kRowsAtOnce)], n / 2 * kRowsAtOnce);
    }
    PipeBarrier<PIPE_V>();
    Adds(most_, folded_, 0.0f, kRowsAtOnce);
    Sub(weights_, weights_, folded_, static_cast<uint64_t>(kLanes), repeats, with_eight);
    PipeBarrier<PIPE_V>();
    Exp(weights_, weights_, numbers);
    PipeBarrier<PIPE_V>();
    Adds(folded_, weights_, 0.0f, numbers);
    for (int32_t n = parts; n > 1; n = (n + 1) / 2) {
      PipeBarrier<PIPE_V>();
      Add(folded_, folded_, folded_[static_cast<uint32_t>((n + 1) / 2 * kRowsAtOnce)], n / 2 * kRowsAtOnce);
    }
    Maxs(weights_, weights_, kLeastWeight, numbers);
    PipeBarrier<PIPE_V>();
    CompareScalar(is_empty_, folded_, 0.0f, CMPMODE::EQ, kLanes);
    Ln(lses_, folded_, kRowsAtOnce);
    Adds(total_, folded_, kLeastWeight, kRowsAtOnce);
    PipeBarrier<PIPE_V>();
    Add(lses_, lses_, most_, kRowsAtOnce);
    Div(weights_, weights_, total_, static_cast<uint64_t>(kLanes), repeats, with_eight);
    PipeBarrier<PIPE_V>();
    Select(lses_, is_empty_, none_, lses_, SELMODE::VSEL_TENSOR_TENSOR_MODE, kLanes);
  }

  // sum += sum of w_p o_p of the parts that are loaded.
  __aicore__ inline void AddParts(int32_t first, int32_t parts) {
    const uint8_t pitch = static_cast<uint8_t>(dim_ / 8);
    Brcb(spread_, weights_[static_cast<uint32_t>(first * kRowsAtOnce)], static_cast<uint8_t>(parts), BrcbRepeatParams(1, 8));
    if (first == 0) AttentionFill(sum_, 0.0f, values_ / kLanes);
    PipeBarrier<PIPE_V>();
    for (int32_t d = 0; d < dim_; d += kLanes) {
      const LocalTensor<float> column = parts_[static_cast<uint32_t>(d)];
      Mul(column, column, spread_, static_cast<uint64_t>(kLanes), static_cast<uint8_t>(parts * kRowsAtOnce),
          BinaryRepeatParams(1, 1, 0, pitch, pitch, 1));
    }
    for (; parts > 1; parts = (parts + 1) / 2) {
      PipeBarrier<PIPE_V>();
      Add(parts_, parts_, parts_[static_cast<uint32_t>((parts + 1) / 2 * values_)], parts / 2 * values_);
    }
    PipeBarrier<PIPE_V>();
    Add(sum_, sum_, parts_, values_);
  }

  const fa_ascend_attention *t_;
  const AttentionWork *work_;
  __gm__ T *o_;
  __gm__ float *lse_, *partial_o_, *partial_lse_;
  LocalTensor<float> parts_, sum_;                // [kPartsAtOnce][8][dim], [8][dim]
  LocalTensor<float> weights_, folded_;           // [parts][8]
  LocalTensor<float> spread_;                     // [kPartsAtOnce][8], each eight times
  LocalTensor<float> most_, total_, lses_, none_; // [8] of 64
  LocalTensor<uint8_t> is_empty_;
  LocalTensor<T> narrow_; // [8][dim]
  int32_t dim_, values_;
};

#endif
