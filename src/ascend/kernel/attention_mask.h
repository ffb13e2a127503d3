// The tiling-mask on a Vector core: which scores of a piece the band drops. Part of attention_ascend.cpp.
//
// Of rows [q, q + rows) and keys from k on, row r keeps columns  q + r + lower - k <= c <= q + r + upper - k. The mask in GM is
// [2M, 2M] bytes, element (r, c) is 1 where c <= r (core/tiling_mask.h): with d = q + upper - k the upper edge keeps c <= r + d, the
// window that begins d rows down (d >= 0) or -d columns in, no further than M; the lower edge keeps the complement of the window for
// d = q + lower - 1 - k. A piece is looked at in groups of 64 keys: a group that keeps everything is left alone, one that keeps
// nothing is filled, and only those that an edge runs through, two at each edge, need a window: [level2_rows, 64] bytes, cast to
// fp16 and compared with 0 to bits, by which Select takes the score or kMaskedScore: masks select, they never multiply.
//
// Bits are kept for the next piece with the same d: under a causal band over aligned tiles there are 8 windows in all, and nearly
// every piece finds its own. Pieces are loaded and masked in the same order, so that what a piece finds when it is loaded is there
// when it is masked.
//
// UB: windows as they come, 2 x level2_rows x 64 bytes an edge and buffer of scores; 128 rows of bits, 1 KB; fp16 where sums are folded.
#ifndef FA_ASCEND_ATTENTION_MASK_H
#define FA_ASCEND_ATTENTION_MASK_H

#include "attention_softmax.h"

constexpr int32_t kMostWindowsKept = 16;
constexpr int64_t kNoWindow = static_cast<int64_t>(1) << 40;

template <typename T>
class AttentionMask {
 public:
  __aicore__ inline void Begin(const fa_ascend_attention *t, AttentionUb<T> *ub, GM_ADDR mask) {
    t_ = t;
    ub_ = ub;
    mask_ = (__gm__ uint8_t *)mask;
    at_once_ = (ub->lay.folded - ub->lay.reduced) / (t->level2_rows * kLanes * 2);
    next_ = 0;
    for (int32_t n = 0; n < kMostWindowsKept; ++n) kept_[n] = kNoWindow;
  }

  // Where the edges cross the piece, whose first row is query q and first key k; what windows it has yet to load.
  __aicore__ inline void Load(AttentionPiece &p, const AttentionItem &item, int64_t q, int64_t k) {
    p.none_to = p.full_from = p.windows_loaded = 0;
    p.full_to = p.none_from = p.groups;
    p.has_open_tail = p.keys < p.wide;
    if (t_->packs_group) return; // all rows keep the item's keys
    int32_t n = 0;
    if (item.upper < kUnlimited) {
      const int64_t full = q + item.upper - k + 1, none = full + p.rows - 1; // columns before and from
      p.full_to = full >= p.keys ? p.groups : AttentionClamp(full, 0, p.keys) / kLanes;
      p.none_from = (AttentionClamp(none, 0, p.keys) + kLanes - 1) / kLanes;
      if (full < p.keys && none <= p.keys) p.has_open_tail = false; // the upper edge fills it
      for (int32_t g = p.full_to; g < p.none_from; ++g) Find(p, n++, 2 * (full - 1 - g * kLanes));
    }
    if (item.lower > -kUnlimited) {
      const int64_t none = q + item.lower - k, full = none + p.rows - 1;
      p.none_to = none >= p.keys ? p.groups : AttentionClamp(none, 0, p.keys) / kLanes;
      p.full_from = (AttentionClamp(full, 0, p.keys) + kLanes - 1) / kLanes;
      for (int32_t g = p.none_to; g < p.full_from; ++g) Find(p, n++, 2 * (none - 1 - g * kLanes) + 1);
    }
  }

  __aicore__ inline bool IsNeeded(const AttentionPiece &p) const {
    return p.full_from > 0 || p.full_to < p.groups || p.has_open_tail;
  }

  // Keys that are dropped, and those behind the tile's last, become kMaskedScore. Between barriers of its own.
  __aicore__ inline void Apply(const AttentionPiece &p) {
    const LocalTensor<float> &s = ub_->scores[p.buffer];
    const uint8_t pitch = AttentionCount(p.wide / 8);
    if (p.has_open_tail) {
      const int32_t last = p.wide - kLanes;
      uint64_t behind[2] = {~static_cast<uint64_t>(0) << (p.keys - last), 0};
      Duplicate(s[static_cast<uint32_t>(last)], kMaskedScore, behind, AttentionCount(p.rows), 1, pitch);
    }
    for (int32_t slot = 0; slot < p.windows_loaded; slot += at_once_)
      Compare(p, slot, p.windows_loaded - slot < at_once_ ? p.windows_loaded - slot : at_once_);
    if (p.has_open_tail) PipeBarrier<PIPE_V>();
    if (p.full_from == 0 && p.full_to == p.groups) return;
    for (int32_t g = 0; g < p.groups; ++g)
      if (g < p.none_to || g >= p.none_from)
        Duplicate(s[static_cast<uint32_t>(g * kLanes)], kMaskedScore, static_cast<uint64_t>(kLanes),
                  AttentionCount(p.rows), 1, pitch);
      else if (g >= p.full_to)
        Choose(p, s[static_cast<uint32_t>(g * kLanes)], g - p.full_to, pitch);
    PipeBarrier<PIPE_V>();
    if (p.full_from == p.none_to) return;
    for (int32_t g = p.none_to; g < p.full_from; ++g)
      if (g < p.none_from) Choose(p, s[static_cast<uint32_t>(g * kLanes)], p.none_from - p.full_to + g - p.none_to, pitch);
    PipeBarrier<PIPE_V>();
  }

 private:
  // Window n of the piece: twice its d, and 1 where it is the complement that counts.
  __aicore__ inline void Find(AttentionPiece &p, int32_t n, int64_t window) {
    int32_t at = 0;
    while (at < ub_->lay.windows_kept && kept_[at] != window) ++at;
    if (at == ub_->lay.windows_kept) {
      for (int32_t other = 0; other < n; ++other) // at most three, of at least four: none twice in a row
        if (p.windows[other] == next_) next_ = (next_ + 1) % ub_->lay.windows_kept, other = -1;
      at = next_;
      next_ = (next_ + 1) % ub_->lay.windows_kept;
      kept_[at] = window;
      const int64_t side = 2 * static_cast<int64_t>(t_->mask_m), right = window >> 1;
      const int64_t row = AttentionClamp(right, 0, t_->mask_m), column = AttentionClamp(-right, 0, t_->mask_m);
      p.loaded[p.windows_loaded] = static_cast<uint8_t>(2 * at + static_cast<int32_t>(window & 1));
      AttentionLoadRows(ub_->masks[p.buffer][Window(p.windows_loaded++)], mask_ + row * side + column,
                        t_->level2_rows, kLanes, side, kLanes);
    }
    p.windows[n] = static_cast<uint8_t>(at);
  }

  __aicore__ inline uint32_t Window(int32_t slot) const { return static_cast<uint32_t>(slot * t_->level2_rows * kLanes); }
  __aicore__ inline LocalTensor<uint8_t> Bits(int32_t kept) const {
    return ub_->windows[static_cast<uint32_t>(kept * t_->level2_rows * kLanes / 8)];
  }

  // Loaded windows to bits.
  __aicore__ inline void Compare(const AttentionPiece &p, int32_t slot, int32_t count) {
    const LocalTensor<half> wide = ub_->reduced.template ReinterpretCast<half>();
    Cast(wide, ub_->masks[p.buffer][Window(slot)], RoundMode::CAST_NONE, Window(count));
    PipeBarrier<PIPE_V>();
    for (int32_t n = 0; n < count; ++n) {
      const int32_t loaded = p.loaded[slot + n];
      if (loaded % 2 == 0)
        CompareScalar(Bits(loaded / 2), wide[Window(n)], static_cast<half>(0), CMPMODE::GT, Window(1));
      else
        CompareScalar(Bits(loaded / 2), wide[Window(n)], static_cast<half>(0), CMPMODE::EQ, Window(1));
    }
    PipeBarrier<PIPE_V>();
  }

  __aicore__ inline void Choose(const AttentionPiece &p, const LocalTensor<float> &group, int32_t n, uint8_t pitch) {
    Select(group, Bits(p.windows[n]), group, kMaskedScore, SELMODE::VSEL_TENSOR_SCALAR_MODE, static_cast<uint64_t>(kLanes),
           AttentionCount(p.rows), BinaryRepeatParams(1, 1, 1, pitch, pitch, 8));
  }

  const fa_ascend_attention *t_;
  AttentionUb<T> *ub_;
  __gm__ uint8_t *mask_;
  int64_t kept_[kMostWindowsKept]; // which windows' bits are kept where
  int32_t next_, at_once_;
};

#endif
