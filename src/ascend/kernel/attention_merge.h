// Joins the parts that kv_splits > 1 cut the keys into. Part of attention_ascend.cpp, after SyncAll.
//
//   m = max_p lse_p     w_p = exp(lse_p - m)     o = sum_p w_p o_p / sum_p w_p     lse = m + ln sum_p w_p
//
// A part that saw no key has lse = -inf and o = 0. A part that saw one weighs 1e-30 at least, so that an infinity in its o arrives; what
// is finite adds at most 1e-30 of itself. All AIVs take rows in turn. UB, for at most 256 parts: lse [parts][8], of which the sum of a
// row with zeros is the number itself, weights [parts][8], and o of 32 parts at a time, fp32 [32][dim], folded in halves.
// Bound: reading the parts once, at 32 KB a move; a short row is bound by its chain of 25 instructions.
#ifndef FA_ASCEND_ATTENTION_MERGE_H
#define FA_ASCEND_ATTENTION_MERGE_H

#include "attention_exact.h"

constexpr int32_t kMostParts = 256;
constexpr int32_t kPartsAtOnce = 32;

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
    repeats_ = (t->kv_splits + kLanes - 1) / kLanes;
    parts_ = ub;
    lses_ = parts_[static_cast<uint32_t>(kPartsAtOnce * dim_)];
    weights_ = lses_[kMostParts * 8];
    row_ = weights_[kMostParts * 8];
    lanes_ = row_[static_cast<uint32_t>(dim_)];
    sums_ = lanes_[kMostParts];
    narrow_ = sums_[kLanes].template ReinterpretCast<T>();

    const int64_t all = GetBlockNum() * GetTaskRatio();
    const int64_t most = AttentionLeast(t->level1_rows, t->packs_group ? t->group : t->max_seqlen_q); // rows of an item
    for (int64_t whole = 0, turn = 0; whole < work_->WholeItems(); ++whole, turn = (turn + most) % all) {
      AttentionItem item;
      const int64_t mine = (GetBlockIdx() - turn + all) % all;
      if (mine >= most) continue; // before its lengths are read, which takes long
      work_->Describe(work_->FirstPart(whole), item);
      for (int64_t row = mine; row < item.rows; row += all) Row(item, static_cast<int32_t>(row));
    }
  }

 private:
  __aicore__ inline void Row(const AttentionItem &item, int32_t row) {
    const int64_t between = work_->PartStride() * t_->level1_rows, at = static_cast<int64_t>(item.number) * t_->level1_rows + row;
    Duplicate(lses_.template ReinterpretCast<int32_t>(), static_cast<int32_t>(kMinusInfinity), static_cast<uint64_t>(kLanes),
              static_cast<uint8_t>(repeats_ * 8), 1, 8);
    AttentionFill(row_, 0.0f, dim_ / kLanes);
    PipeBarrier<PIPE_ALL>();
    AttentionLoadRows(lses_, partial_lse_ + at, t_->kv_splits, 1, between, 8);
    PipeBarrier<PIPE_ALL>();
    const float most = Weights();
    for (int32_t part = 0; part < t_->kv_splits; part += kPartsAtOnce) {
      const int32_t parts = t_->kv_splits - part < kPartsAtOnce ? t_->kv_splits - part : kPartsAtOnce;
      AttentionLoadRows(parts_, partial_o_ + (at + part * between) * t_->head_dim_v, parts, t_->head_dim_v, between * t_->head_dim_v, dim_);
      PipeBarrier<PIPE_ALL>();
      AddParts(part, parts);
      PipeBarrier<PIPE_ALL>();
    }
    Muls(row_, row_, 1.0f / (total_ + kLeastWeight), dim_);
    Duplicate(sums_, total_, kLanes);
    PipeBarrier<PIPE_V>();
    Cast(narrow_, row_, RoundMode::CAST_RINT, static_cast<uint32_t>(dim_));
    Ln(sums_, sums_, kLanes);
    PipeBarrier<PIPE_V>();
    if (total_ == 0.0f)
      Duplicate(sums_.template ReinterpretCast<int32_t>(), static_cast<int32_t>(kMinusInfinity), kLanes);
    else
      Adds(sums_, sums_, most, kLanes);
    PipeBarrier<PIPE_ALL>();
    AttentionStoreRows(o_ + work_->RowOffset(t_->o, item, row), narrow_, 1, t_->head_dim_v, 0, dim_);
    if (t_->has_lse) AttentionStoreRows(lse_ + work_->LseOffset(item, row), sums_, 1, 1, 0, kLanes);
    PipeBarrier<PIPE_ALL>();
  }

  // What the parts weigh, not yet divided by their sum, which is left in total_; the largest lse.
  __aicore__ inline float Weights() {
    BlockReduceSum(lanes_, lses_, repeats_ * 8, kLanes, 1, 1, 8);
    PipeBarrier<PIPE_V>();
    WholeReduceMax(sums_, lanes_, kLanes, repeats_, 1, 1, 8, ReduceOrder::ORDER_ONLY_VALUE);
    PipeBarrier<PIPE_ALL>();
    float most = kMaskedScore;
    for (int32_t n = 0; n < repeats_; ++n) {
      const float value = sums_.GetValue(static_cast<uint32_t>(n));
      if (!(value <= most)) most = value; // a NaN is taken and stays: the sum will be NaN
      if (most != most) break;
    }
    PipeBarrier<PIPE_ALL>();
    Adds(lanes_, lanes_, -most, repeats_ * kLanes);
    PipeBarrier<PIPE_V>();
    Exp(lanes_, lanes_, repeats_ * kLanes);
    PipeBarrier<PIPE_V>();
    WholeReduceSum(sums_, lanes_, kLanes, repeats_, 1, 1, 8);
    PipeBarrier<PIPE_V>();
    Maxs(lanes_, lanes_, kLeastWeight, repeats_ * kLanes);
    PipeBarrier<PIPE_V>();
    Brcb(weights_, lanes_, static_cast<uint8_t>(repeats_ * 8), BrcbRepeatParams(1, 8));
    PipeBarrier<PIPE_ALL>();
    total_ = 0.0f;
    for (int32_t n = 0; n < repeats_; ++n) total_ += sums_.GetValue(static_cast<uint32_t>(n));
    return most;
  }

  // row += sum of w_p o_p of the parts that are loaded.
  __aicore__ inline void AddParts(int32_t first, int32_t parts) {
    const uint8_t pitch = static_cast<uint8_t>(dim_ / 8);
    for (int32_t d = 0; d < dim_; d += kLanes) {
      const LocalTensor<float> column = parts_[static_cast<uint32_t>(d)];
      Mul(column, column, weights_[static_cast<uint32_t>(first * 8)], static_cast<uint64_t>(kLanes), static_cast<uint8_t>(parts),
          BinaryRepeatParams(1, 1, 0, pitch, pitch, 1));
    }
    for (; parts > 1; parts = (parts + 1) / 2) {
      PipeBarrier<PIPE_V>();
      Add(parts_, parts_, parts_[static_cast<uint32_t>((parts + 1) / 2 * dim_)], parts / 2 * dim_);
    }
    PipeBarrier<PIPE_V>();
    Add(row_, row_, parts_, dim_);
  }

  const fa_ascend_attention *t_;
  const AttentionWork *work_;
  __gm__ T *o_;
  __gm__ float *lse_, *partial_o_, *partial_lse_;
  LocalTensor<float> parts_, lses_, weights_, row_, lanes_, sums_;
  LocalTensor<T> narrow_;
  float total_;
  int32_t dim_, repeats_;
};

#endif
