// The tiling-mask on a Vector core: which scores of a piece the band drops. Part of attention_ascend.cpp.
//
// Of rows [q, q + rows) and keys from k on, row r keeps columns  q + r + lower - k <= c <= q + r + upper - k. The mask in GM is
// [2M, 2M] bytes, element (r, c) is 1 where c <= r (core/tiling_mask.h): with d = q + upper - k the upper edge keeps c <= r + d, the
// window that begins d rows down (d >= 0) or -d columns in, no further than M; the lower edge keeps the complement of the window for
// d = q + lower - 1 - k. A piece is looked at in groups of 64 keys: a group that keeps everything is left alone, one that keeps
// nothing is filled, and only those that an edge runs through, two at each edge, have a window loaded: [rows, 64] bytes.
//
// Bytes are cast to fp16, compared with 0 to bits, and Select takes the score or kMaskedScore: masks select, they never multiply.
// UB: windows, at most 4 x rows x 64 bytes a buffer of scores; fp16 and bits lie where the sums of the piece before were folded.
#ifndef FA_ASCEND_ATTENTION_MASK_H
#define FA_ASCEND_ATTENTION_MASK_H

#include "attention_softmax.h"

template <typename T>
class AttentionMask {
 public:
  __aicore__ inline void Begin(const fa_ascend_attention *t, AttentionUb<T> *ub, GM_ADDR mask) {
    t_ = t;
    ub_ = ub;
    mask_ = (__gm__ uint8_t *)mask;
    at_once_ = (ub->lay.folded - ub->lay.reduced) / (t->level2_rows * kLanes * 2);
  }

  // Where the edges cross the piece, whose first row is query q and first key k.
  __aicore__ inline void Place(AttentionPiece &p, const AttentionItem &item, int64_t q, int64_t k) const {
    p.none_to = p.full_from = 0;
    p.full_to = p.none_from = p.groups;
    if (t_->packs_group) return; // all rows keep the item's keys
    if (item.lower > -kUnlimited) {
      const int64_t none = q + item.lower - k, full = none + p.rows - 1; // columns before and from
      p.none_to = none >= p.keys ? p.groups : AttentionClamp(none, 0, p.keys) / kLanes;
      p.full_from = (AttentionClamp(full, 0, p.keys) + kLanes - 1) / kLanes;
    }
    if (item.upper < kUnlimited) {
      const int64_t full = q + item.upper - k + 1, none = full + p.rows - 1;
      p.full_to = full >= p.keys ? p.groups : AttentionClamp(full, 0, p.keys) / kLanes;
      p.none_from = (AttentionClamp(none, 0, p.keys) + kLanes - 1) / kLanes;
    }
  }

  // Windows of the groups that an edge crosses: the upper edge's, then the lower edge's.
  __aicore__ inline void Load(const AttentionPiece &p, const AttentionItem &item, int64_t q, int64_t k) {
    int32_t slot = 0;
    for (int32_t g = p.full_to; g < p.none_from; ++g) LoadWindow(p, slot++, q + item.upper - (k + g * kLanes));
    for (int32_t g = p.none_to; g < p.full_from; ++g) LoadWindow(p, slot++, q + item.lower - 1 - (k + g * kLanes));
  }

  __aicore__ inline bool IsNeeded(const AttentionPiece &p) const {
    return p.full_from > 0 || p.full_to < p.groups || p.keys < p.wide;
  }

  // Keys that are dropped, and those behind the tile's last, become kMaskedScore. Between barriers of its own.
  __aicore__ inline void Apply(const AttentionPiece &p) {
    const LocalTensor<float> &s = ub_->scores[p.buffer];
    const int32_t uppers = p.none_from - p.full_to, windows = uppers + p.full_from - p.none_to;
    const uint8_t pitch = AttentionCount(p.wide / 8);
    if (p.keys < p.wide) {
      const int32_t last = p.wide - kLanes;
      const uint64_t behind[2] = {~static_cast<uint64_t>(0) << (p.keys - last), 0};
      Duplicate(s[static_cast<uint32_t>(last)], kMaskedScore, behind, AttentionCount(p.rows), 1, pitch);
    }
    for (int32_t slot = 0; slot < windows; slot += at_once_)
      Compare(p, slot, windows - slot < at_once_ ? windows - slot : at_once_, uppers);
    PipeBarrier<PIPE_V>();
    for (int32_t g = 0; g < p.groups; ++g)
      if (g < p.none_to || g >= p.none_from)
        Duplicate(s[static_cast<uint32_t>(g * kLanes)], kMaskedScore, static_cast<uint64_t>(kLanes), AttentionCount(p.rows), 1, pitch);
      else if (g >= p.full_to)
        Choose(p, s[static_cast<uint32_t>(g * kLanes)], g - p.full_to, pitch);
    PipeBarrier<PIPE_V>();
    if (p.full_from == p.none_to) return;
    for (int32_t g = p.none_to; g < p.full_from; ++g)
      if (g < p.none_from) Choose(p, s[static_cast<uint32_t>(g * kLanes)], uppers + g - p.none_to, pitch);
    PipeBarrier<PIPE_V>();
  }

 private:
  __aicore__ inline void LoadWindow(const AttentionPiece &p, int32_t slot, int64_t right) {
    const int64_t side = 2 * static_cast<int64_t>(t_->mask_m);
    const int64_t row = AttentionClamp(right, 0, t_->mask_m), column = AttentionClamp(-right, 0, t_->mask_m);
    AttentionLoadRows(ub_->masks[p.buffer][Window(slot)], mask_ + row * side + column, p.rows, kLanes, side, kLanes);
  }

  __aicore__ inline uint32_t Window(int32_t slot) const { return static_cast<uint32_t>(slot * t_->level2_rows * kLanes); }
  // fp32 elements that the bits of a window take: a bit a score.
  __aicore__ inline LocalTensor<uint8_t> Bits(int32_t slot) const {
    return ub_->folded[0][static_cast<uint32_t>(slot * t_->level2_rows * 2)].template ReinterpretCast<uint8_t>();
  }

  __aicore__ inline void Compare(const AttentionPiece &p, int32_t slot, int32_t count, int32_t uppers) {
    const LocalTensor<half> wide = ub_->reduced.template ReinterpretCast<half>();
    const uint32_t each = Window(1);
    Cast(wide, ub_->masks[p.buffer][Window(slot)], RoundMode::CAST_NONE, each * static_cast<uint32_t>(count));
    PipeBarrier<PIPE_V>();
    const int32_t kept_where_1 = AttentionClamp(uppers - slot, 0, count);
    if (kept_where_1 > 0)
      CompareScalar(Bits(slot), wide, static_cast<half>(0), CMPMODE::GT, each * static_cast<uint32_t>(kept_where_1));
    if (kept_where_1 < count)
      CompareScalar(Bits(slot + kept_where_1), wide[each * static_cast<uint32_t>(kept_where_1)], static_cast<half>(0), CMPMODE::EQ,
                    each * static_cast<uint32_t>(count - kept_where_1));
    PipeBarrier<PIPE_V>();
  }

  __aicore__ inline void Choose(const AttentionPiece &p, const LocalTensor<float> &group, int32_t slot, uint8_t pitch) {
    Select(group, Bits(slot), group, kMaskedScore, SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint64_t>(kLanes),
           AttentionCount(p.rows), BinaryRepeatParams(1, 1, 1, pitch, pitch, 8));
  }

  const fa_ascend_attention *t_;
  AttentionUb<T> *ub_;
  __gm__ uint8_t *mask_;
  int32_t at_once_;
};

#endif
