// What a Vector core keeps in UB, and the pieces of scores it works on. Part of attention_ascend.cpp.
//
// A piece is up to level2_rows rows of this AIV's half of a tile, all the tile's keys; in UB its rows are `wide` apart, the keys
// rounded up to 64. Vector repeats are 64 fp32; rows of small tensors are handled 8 at a time, so that all tensors have room for
// rows rounded up to 8 (fa_ascend_attention_ub in attention_tiling.h). All of UB is written once when the kernel starts: what
// lies behind the last row or key is then stale but not unknown, and nothing of it is ever stored.
#ifndef FA_ASCEND_ATTENTION_PIECE_H
#define FA_ASCEND_ATTENTION_PIECE_H

#include "attention_work.h"

constexpr int32_t kLanes = FA_ASCEND_LANES;
constexpr int32_t kMostRepeats = 255;
constexpr uint32_t kMinusInfinity = 0xff800000u;
constexpr uint32_t kNan = 0x7fc00000u;

// Flags between the pipes of an AIV: MTE2_V and V_MTE2 for pieces of scores and parts of o, V_MTE3 and MTE3_V for pieces of
// weights and what else is stored.
enum { kScoresFlag = 0, kPartFlag = 3, kWeightsFlag = 0, kStoreFlag = 2 };

struct AttentionPiece {
  int32_t tile;           // its number in the stream
  int32_t row, rows;      // of this AIV's half
  int32_t keys, wide, groups; // groups: of 64 keys
  int32_t buffer;         // of scores
  bool ends_tile;
  // The band's edges (attention_mask.h). Lower: groups before none_to keep nothing, those from full_from on everything; upper: those
  // before full_to keep everything, those from none_from on nothing. Between them lie windows, the upper edge's first: which of those
  // that are kept, and how many of them are new.
  int32_t none_to, full_from, full_to, none_from;
  uint8_t windows[4], loaded[4];
  int32_t windows_loaded;
  bool has_open_tail; // behind the last key are lanes that no edge fills
};

// `repeats` times 64 elements, which may be more than one instruction takes.
__aicore__ inline void AttentionFill(const LocalTensor<float> &to, float value, int32_t repeats) {
  for (int32_t done = 0; done < repeats; done += kMostRepeats)
    Duplicate(to[static_cast<uint32_t>(done * kLanes)], value, static_cast<uint64_t>(kLanes),
              static_cast<uint8_t>(repeats - done < kMostRepeats ? repeats - done : kMostRepeats), 1, 8);
}

template <typename T>
struct AttentionUb {
  fa_ascend_attention_ub lay;
  LocalTensor<float> all;
  LocalTensor<float> scores[3];
  LocalTensor<T> weights[2];
  LocalTensor<float> acc, part[2];
  LocalTensor<uint8_t> masks[3];
  LocalTensor<uint8_t> windows;
  LocalTensor<float> reduced;
  LocalTensor<float> folded[4];
  LocalTensor<float> maximum, sum, factor;        // [stat_slots][64]
  LocalTensor<float> least, zero, one;            // [64], constant
  LocalTensor<float> sums, lse, inverse, scratch; // [64]
  LocalTensor<float> maxima;                      // [level2_rows][8], each eight times its row's maximum
  LocalTensor<float> factors;                     // [half_rows][8]
  int32_t weights_taken = 0;                      // how often one of `weights` was
  __aicore__ inline int32_t NextWeights() const { return weights_taken % lay.weights_buffers; }

  __aicore__ inline void LayOut(const fa_ascend_attention *t, TPipe &pipe) {
    TBuf<TPosition::VECCALC> ub;
    pipe.InitBuffer(ub, FA_ASCEND_UB_BYTES);
    lay = fa_ascend_attention_ub_of(t);
    const int32_t rows = t->level2_rows;
    for (int32_t n = 0; n < lay.scores_buffers; ++n) {
      const int32_t bytes = lay.mask_slots * rows * kLanes;
      scores[n] = Floats(ub, lay.scores + n * lay.scores_bytes, lay.scores_bytes / 4);
      masks[n] = ub.GetWithOffset<uint8_t>(static_cast<uint32_t>(bytes), static_cast<uint32_t>(lay.masks + n * bytes));
    }
    for (int32_t n = 0; n < lay.weights_buffers; ++n)
      weights[n] = ub.GetWithOffset<T>(static_cast<uint32_t>(lay.weights_bytes / 2),
                                       static_cast<uint32_t>(lay.weights + n * lay.weights_bytes));
    for (int32_t n = 0; n < 2; ++n) part[n] = Floats(ub, lay.part + n * lay.part_rows * lay.dim * 4, lay.part_rows * lay.dim);
    windows = ub.GetWithOffset<uint8_t>(static_cast<uint32_t>(lay.windows_kept * rows * 8), static_cast<uint32_t>(lay.windows));
    acc = Floats(ub, lay.acc, lay.half_rows * lay.dim);
    reduced = Floats(ub, lay.reduced, (lay.folded - lay.reduced) / 4);
    for (int32_t n = 0; n < 4; ++n) folded[n] = Floats(ub, lay.folded + n * rows * 32, rows * 8);
    const int32_t slots = lay.stat_slots * kLanes;
    maximum = Floats(ub, lay.stats, slots);
    sum = Floats(ub, lay.stats + 4 * slots, slots);
    factor = Floats(ub, lay.stats + 8 * slots, slots);
    LocalTensor<float> *const lanes[7] = {&least, &zero, &one, &sums, &lse, &inverse, &scratch};
    for (int32_t n = 0; n < 7; ++n) *lanes[n] = Floats(ub, lay.lanes + n * kLanes * 4, kLanes);
    maxima = Floats(ub, lay.maxima, rows * 8);
    factors = Floats(ub, lay.factors, lay.half_rows * 8);

    constexpr int32_t used = FA_ASCEND_UB_BYTES - FA_ASCEND_UB_RESERVED;
    all = Floats(ub, 0, used / 4);
    AttentionFill(all, 0.0f, used / 256);
    PipeBarrier<PIPE_V>();
    Duplicate(least, kMaskedScore, kLanes);
    Duplicate(one, 1.0f, kLanes);
  }

  // A tile's row of one of the rings.
  __aicore__ inline LocalTensor<float> Of(const LocalTensor<float> &ring, int32_t tile) const {
    return ring[static_cast<uint32_t>(tile % lay.stat_slots * kLanes)];
  }

 private:
  __aicore__ inline static LocalTensor<float> Floats(TBuf<TPosition::VECCALC> &ub, int32_t at, int32_t count) {
    return ub.GetWithOffset<float>(static_cast<uint32_t>(count), static_cast<uint32_t>(at));
  }
};

#endif
