// Softmax of a piece of scores in steps, so that two pieces can be worked on at once. Part of attention_ascend.cpp.
//
//   m' = max(m, max_j s_j)     w_j = exp(scale (s_j - m'))     l = sum_j w_j     P = w rounded to the input type
//
// s is fp32 as the Cube wrote it; maxima are of unscaled scores, which saves a pass over them (a scale that is not positive, or tiny,
// is multiplied in before instead). [rows, wide] fp32 in UB, in place; a step is a few independent instructions, each over the whole
// piece where its form allows. Dependent vector instructions need a barrier that costs the unit's head and tail (25 to 45 cycles), and
// a piece's maxima and weights are chains of six such steps each: the steps of one piece's weights run beside those of the next
// one's maxima, with one barrier for both.
//
// Cycles a repeat of 64 scores: BlockReduceMax 1, Sub 2, Muls 1, Exp 2, BlockReduceSum 1, Cast 1: 8, against 8 Mmad cycles of Q K^T
// and P V of D = 128 by 64 of 128 rows: Vector is the bound of the whole kernel.
#ifndef FA_ASCEND_ATTENTION_SOFTMAX_H
#define FA_ASCEND_ATTENTION_SOFTMAX_H

#include "attention_piece.h"

__aicore__ inline int32_t AttentionUp8(int32_t n) { return (n + 7) / 8 * 8; }
__aicore__ inline uint8_t AttentionCount(int32_t n) { return static_cast<uint8_t>(n); }

// Max or Add over a row's groups and lanes.
template <bool is_max>
struct AttentionFold {
  __aicore__ inline static void Two(const LocalTensor<float> &to, const LocalTensor<float> &a,
                                    const LocalTensor<float> &b, int32_t lanes, int32_t repeats,
                                    int32_t block, int32_t repeat) {
    const BinaryRepeatParams strides(1, AttentionCount(block), AttentionCount(block), 8,
                                     AttentionCount(repeat), AttentionCount(repeat));
    if (is_max)
      Max(to, a, b, static_cast<uint64_t>(lanes), AttentionCount(repeats), strides);
    else
      Add(to, a, b, static_cast<uint64_t>(lanes), AttentionCount(repeats), strides);
  }
  // Each block of 8 to one, of the first `lanes` of a repeat; the others' ones stay as they are.
  __aicore__ inline static void Blocks(const LocalTensor<float> &to, const LocalTensor<float> &from,
                                       int32_t lanes, int32_t repeats, int32_t repeat) {
    if (is_max)
      BlockReduceMax(to, from, repeats, lanes, 1, 1, repeat);
    else
      BlockReduceSum(to, from, repeats, lanes, 1, 1, repeat);
  }
  // How a row of `groups` blocks of 8 (after a first fold of its scores) becomes one number. Few blocks are folded in pairs, eight rows
  // at a time. Of more, eight at a time become a block: where there are fewer, the rest of that block is what Prepare left there. Sums of
  // few rows take WholeReduceSum, a step less for 3 cycles a row and eight blocks.
  __aicore__ inline static bool Pairs(int32_t groups) { return groups <= 2 || groups == 4; }
  __aicore__ inline static bool Whole(int32_t groups, int32_t rows) {
    return !is_max && groups > 1 && (rows <= 32 || !Pairs(groups));
  }
  // Steps it takes: the first is 1.
  __aicore__ inline static int32_t Steps(int32_t groups, int32_t rows) {
    if (Whole(groups, rows)) return groups <= 8 ? 1 : 2;
    return groups == 1 ? 1 : groups == 4 || groups > 8 ? 3 : 2;
  }
  // Beside the first fold.
  __aicore__ inline static void Prepare(const LocalTensor<float> &a, const LocalTensor<float> &b, int32_t groups, int32_t rows) {
    if (Whole(groups, rows) || Pairs(groups) || groups % 8 == 0) return;
    AttentionFill(groups < 8 ? a : b, is_max ? kMaskedScore : 0.0f, AttentionUp8(rows) / 8);
  }
  // Step `step` of [rows][groups][8] to `to` [rows]; a and b: scratch of [rows][8].
  __aicore__ inline static void Step(int32_t step, const LocalTensor<float> &to, const LocalTensor<float> &from,
                                     const LocalTensor<float> &a, const LocalTensor<float> &b, int32_t groups, int32_t rows) {
    const int32_t eights = AttentionUp8(rows) / 8, first = groups < 8 ? groups : 8;
    if (Whole(groups, rows)) {
      if (step == 2) {
        Two(to, to, b, eights * 8, 1, 1, 8);
        return;
      }
      WholeReduceSum(to, from, first * 8, rows, 1, 1, groups);
      if (groups > 8) WholeReduceSum(b, from[kLanes], (groups - 8) * 8, rows, 1, 1, groups);
    } else if (step == Steps(groups, rows)) {
      Blocks(to, groups == 1 ? from : a, kLanes, eights, 8);
    } else if (step == 2) {
      Two(a, a, b, kLanes, eights, 1, 8);
    } else if (Pairs(groups)) {
      Two(a, from, from[8], kLanes, eights, groups, 8 * groups);
      if (groups == 4) Two(b, from[16], from[24], kLanes, eights, groups, 8 * groups);
    } else {
      Blocks(a, from, first * 8, rows, groups);
      if (groups > 8) Blocks(b, from[kLanes], (groups - 8) * 8, rows, groups);
    }
  }
};

template <typename T>
class AttentionSoftmax {
 public:
  __aicore__ inline void Begin(const fa_ascend_attention *t, AttentionUb<T> *ub) {
    ub_ = ub;
    scales_first_ = !(t->scale >= 1e-20f);
    first_scale_ = t->scale;
    scale_ = scales_first_ ? 1.0f : t->scale;
  }

  __aicore__ inline bool ScalesFirst() const { return scales_first_; }
  // What remains to be multiplied with a maximum.
  __aicore__ inline float Scale() const { return scale_; }

  // All scores, where the scale is not left to the weights.
  __aicore__ inline void ScaleFirst(const AttentionPiece &p) {
    const LocalTensor<float> &s = ub_->scores[p.buffer];
    Muls(s, s, first_scale_, static_cast<uint64_t>(kLanes), AttentionCount(p.rows * p.groups), UnaryRepeatParams(1, 1, 8, 8));
  }

  __aicore__ inline int32_t MaximaSteps(const AttentionPiece &p) const {
    return AttentionFold<true>::Steps(p.groups, p.rows) + 3;
  }

  // m' of the piece's rows from m, and each eight times over in `maxima`.
  __aicore__ inline void MaximaStep(int32_t step, const AttentionPiece &p, const LocalTensor<float> &before,
                                    const LocalTensor<float> &now) {
    using Fold = AttentionFold<true>;
    const int32_t folds = Fold::Steps(p.groups, p.rows);
    const LocalTensor<float> mine = now[static_cast<uint32_t>(p.row)];
    if (step == 1) {
      Fold::Blocks(ub_->reduced, ub_->scores[p.buffer], kLanes, p.rows * p.groups, 8);
      Fold::Prepare(ub_->folded[0], ub_->folded[1], p.groups, p.rows);
    } else if (step <= folds + 1) {
      Fold::Step(step - 1, mine, ub_->reduced, ub_->folded[0], ub_->folded[1], p.groups, p.rows);
    } else if (step == folds + 2) {
      Max(mine, mine, before[static_cast<uint32_t>(p.row)], static_cast<uint64_t>(AttentionUp8(p.rows)), 1,
          BinaryRepeatParams(1, 1, 1, 8, 8, 8));
    } else if (step == folds + 3) {
      Brcb(ub_->maxima, mine, AttentionCount(AttentionUp8(p.rows) / 8), BrcbRepeatParams(1, 8));
    }
  }

  // The step behind which nothing of the piece's scores is needed any more, and its weights are there.
  static constexpr int32_t kWeightsStep = 4;
  __aicore__ inline int32_t WeightsSteps(const AttentionPiece &p) const {
    return kWeightsStep + AttentionFold<false>::Steps(p.groups, p.rows);
  }

  __aicore__ inline void WeightsStep(int32_t step, const AttentionPiece &p, const LocalTensor<T> &weights) {
    using Fold = AttentionFold<false>;
    const LocalTensor<float> &s = ub_->scores[p.buffer];
    const int32_t repeats = p.rows * p.groups;
    if (step == 1) {
      SubtractMaxima(p, s);
    } else if (step == 2) {
      Muls(s, s, scale_, static_cast<uint64_t>(kLanes), AttentionCount(repeats), UnaryRepeatParams(1, 1, 8, 8));
    } else if (step == 3) {
      Exp(s, s, static_cast<uint64_t>(kLanes), AttentionCount(repeats), UnaryRepeatParams(1, 1, 8, 8));
    } else if (step == kWeightsStep) {
      Fold::Blocks(ub_->reduced, s, kLanes, repeats, 8);
      Fold::Prepare(ub_->folded[2], ub_->folded[3], p.groups, p.rows);
      Cast(weights, s, RoundMode::CAST_RINT, static_cast<uint64_t>(kLanes), AttentionCount(repeats),
           UnaryRepeatParams(1, 1, 4, 8));
    } else if (step <= WeightsSteps(p)) {
      Fold::Step(step - kWeightsStep, ub_->sums[static_cast<uint32_t>(p.row)], ub_->reduced, ub_->folded[2],
                 ub_->folded[3], p.groups, p.rows);
    }
  }

  // A tile's share of the row sums, in steps beside WeightsStep of its last piece: factor = exp(scale (m - m')), l' = l factor + sums.
  __aicore__ inline int32_t SumsSteps(const AttentionPiece &p) const { return WeightsSteps(p) + 1; }
  __aicore__ inline void SumsStep(int32_t step, const AttentionPiece &p, const LocalTensor<float> &maximum_before,
                                  const LocalTensor<float> &sum_before) {
    const LocalTensor<float> factor = ub_->Of(ub_->factor, p.tile), sum = ub_->Of(ub_->sum, p.tile);
    if (step == 1)
      Sub(factor, maximum_before, ub_->Of(ub_->maximum, p.tile), kLanes);
    else if (step == 2)
      Muls(factor, factor, scale_, kLanes);
    else if (step == 3)
      Exp(factor, factor, kLanes);
    else if (step == 4)
      Mul(sum, sum_before, factor, kLanes);
    else if (step == SumsSteps(p))
      Add(sum, sum, ub_->sums, kLanes);
  }

 private:
  // A row at a time or 64 keys of all rows at a time, whichever is fewer instructions.
  __aicore__ inline void SubtractMaxima(const AttentionPiece &p, const LocalTensor<float> &s) {
    const uint8_t pitch = AttentionCount(p.wide / 8);
    if (p.rows <= p.groups) {
      for (int32_t r = 0; r < p.rows; ++r) {
        const LocalTensor<float> row = s[static_cast<uint32_t>(r * p.wide)];
        Sub(row, row, ub_->maxima[static_cast<uint32_t>(r * 8)], static_cast<uint64_t>(kLanes), AttentionCount(p.groups),
            BinaryRepeatParams(1, 1, 0, 8, 8, 0));
      }
      return;
    }
    for (int32_t g = 0; g < p.groups; ++g) {
      const LocalTensor<float> column = s[static_cast<uint32_t>(g * kLanes)];
      Sub(column, column, ub_->maxima, static_cast<uint64_t>(kLanes), AttentionCount(p.rows),
          BinaryRepeatParams(1, 1, 0, pitch, pitch, 1));
    }
  }

  AttentionUb<T> *ub_;
  bool scales_first_;
  float first_scale_, scale_;
};

#endif
