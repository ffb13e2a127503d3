// The Vector core's share of attention: from S to P, and from O' to o. Part of attention_ascend.cpp.
//
// Level one: step i of the stream takes tile i's scores (fp32, from GM's ring) to weights, and adds O'(i - 1 - preload) to o. Each of
// the two AIVs has half of a tile's rows. Level two: pieces of level2_rows rows, three (or two) buffers of scores, two (or one) of weights. A
// round of steps works on the maxima of one piece, the weights of the piece before and a share of O', all independent of each
// other, with a barrier a step; the pieces follow each other through the ends of tiles and items.
//
// Weights of tile i ready means: S(i) was read, and O'(i - 1 - preload) was added, since that happened in the rounds before. So
// rings of preload + 1 tiles need no flags but three: the Cube writes S(i + ring) and O'(i + ring) behind P(i).
//
// UB (fa_ascend_attention_ub), at D_v = 128 and tiles of 128 x 1024 in pieces of 8 rows: scores 96 KB, weights 32, o 32, O' 8, rest 12;
// causal: weights 16, rest 16.
// Bound: the Vector unit, 8 cycles for 64 scores; then about 6 x 32 cycles of barriers a piece.
#ifndef FA_ASCEND_ATTENTION_VECTOR_H
#define FA_ASCEND_ATTENTION_VECTOR_H

#include "attention_mask.h"
#include "attention_merge.h"
#include "attention_output.h"

constexpr int32_t kTilesInSight = 16; // more than preload + 6
constexpr int32_t kPiecesInSight = 4;

template <typename T>
class AttentionVector {
 public:
  __aicore__ inline void Run(const fa_ascend_attention *tiling, const AttentionArguments &arguments) {
    t_ = tiling;
    const int64_t group = GetBlockIdx() / GetTaskRatio(), slots = group * t_->ring;
    const int64_t scores = static_cast<int64_t>(t_->level1_rows) * t_->level1_keys;
    s_ring_ = (__gm__ float *)(arguments.workspace + t_->s_ring) + slots * scores;
    p_ring_ = (__gm__ T *)(arguments.workspace + t_->p_ring) + slots * scores;
    TPipe pipe;
    ub_.LayOut(t_, pipe);
    work_.Begin(t_, arguments, group, GetBlockNum());
    softmax_.Begin(t_, &ub_);
    mask_.Begin(t_, &ub_, arguments.mask);
    output_.Begin(t_, &work_, arguments, &ub_, softmax_.Scale());
    for (int32_t n = 0; n < ub_.lay.scores_buffers; ++n) SetFlag<HardEvent::V_MTE2>(kScoresFlag + n);
    for (int32_t n = 0; n < 2; ++n) SetFlag<HardEvent::V_MTE2>(kPartFlag + n);
    for (int32_t n = 0; n < ub_.lay.weights_buffers; ++n) SetFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
    Stream();
    if (work_.EmptyItems() > 0) FinishEmptyItems(arguments, group);
    output_.Settle();
    for (int32_t n = 0; n < ub_.lay.scores_buffers; ++n) WaitFlag<HardEvent::V_MTE2>(kScoresFlag + n);
    for (int32_t n = 0; n < 2; ++n) WaitFlag<HardEvent::V_MTE2>(kPartFlag + n);
    for (int32_t n = 0; n < ub_.lay.weights_buffers; ++n) WaitFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
    if (t_->kv_splits == 1) return;
    PipeBarrier<PIPE_ALL>(); // redundant on the emulator, whose SyncAll waits for all pipes; the vendor's page does not promise it
    SyncAll<true>();
    AttentionMerge<T> merge;
    merge.Run(t_, &work_, arguments, ub_.all);
  }

 private:
  // ------------------------------------------------------------------ the stream

  __aicore__ inline void Stream() {
    has_tile_ = work_.NextTile(tiles_[0]);
    load_tile_ = load_row_ = loaded_ = first_ = second_ = ready_ = ready_before_ = spare_ = 0;
    if (has_tile_) Load();
    while (load_row_ > 0 && loaded_ < ub_.lay.scores_buffers) Load();
    while (first_ < loaded_) {
      const AttentionPiece &piece = pieces_[first_ % kPiecesInSight];
      const int32_t tile = piece.tile;
      const bool ends_tile = piece.ends_tile;
      if (piece.row == 0) StartStep(tile);
      output_.Take(ends_tile ? t_->level1_rows : piece.row + t_->level2_rows);
      if (first_ > second_)
        Round<true, true>(piece, pieces_[second_ % kPiecesInSight]);
      else
        Round<true, false>(piece, piece);
      if (ends_tile) EndStep(tile);
      LoadAhead();
    }
    const int32_t tiles = load_tile_;
    for (int32_t step = tiles; tiles > 0 && step <= tiles + t_->preload; ++step) {
      StartStep(step);
      output_.Take(t_->level1_rows);
      const AttentionPiece &piece = pieces_[second_ % kPiecesInSight];
      if (first_ > second_)
        Round<false, true>(piece, piece);
      else
        Round<false, false>(piece, piece);
      EndStep(step);
    }
  }

  // Loads what there are buffers for, at least one piece if there is one. A wait for scores holds up the whole core, so a tile's are
  // waited for once the weights that the Cube needs before it makes them are on their way, and have been for a round; with preload 1,
  // which makes them only behind the weights of the tile before the last, once there is nothing else to do.
  __aicore__ inline void LoadAhead() {
    if (t_->preload == 1 && has_tile_ && load_row_ == 0 && first_ == loaded_ && first_ > second_) {
      output_.Take(0);
      const AttentionPiece &piece = pieces_[second_ % kPiecesInSight];
      Round<false, true>(piece, piece);
    }
    while (has_tile_ && loaded_ - second_ < ub_.lay.scores_buffers) {
      const bool waits = load_row_ == 0 && (load_tile_ - t_->preload > ready_before_ || t_->preload == 1);
      if (waits && first_ < loaded_) return;
      Load();
    }
  }

  // O' of tile step - 1 - preload is added in this step.
  __aicore__ inline void StartStep(int32_t step) {
    const int32_t tile = step - 1 - t_->preload;
    if (tile < 0) return;
    CrossCoreWaitFlag<2, PIPE_MTE2>(kRowsReady);
    output_.StartTile(tiles_[tile % kTilesInSight], tile);
  }

  __aicore__ inline void EndStep(int32_t step) {
    const int32_t tile = step - 1 - t_->preload;
    if (tile < 0 || !tiles_[tile % kTilesInSight].is_last) return;
    WaitFlag<HardEvent::V_MTE2>(kScoresFlag + spare_); // takes the buffer as a load would
    SetFlag<HardEvent::MTE2_V>(kScoresFlag + spare_);
    WaitFlag<HardEvent::MTE2_V>(kScoresFlag + spare_);
    output_.Finish(tiles_[tile % kTilesInSight].item, ub_.scores[spare_]);
    SetFlag<HardEvent::V_MTE2>(kScoresFlag + spare_);
  }

  // ------------------------------------------------------------------ pieces

  __aicore__ inline void Load() {
    const AttentionTile &tile = tiles_[load_tile_ % kTilesInSight];
    AttentionPiece &piece = pieces_[loaded_ % kPiecesInSight];
    int32_t first, rows;
    work_.Half(tile.item, static_cast<int32_t>(GetSubBlockIdx()), first, rows);
    if (load_row_ == 0) CrossCoreWaitFlag<2, PIPE_MTE2>(kScoresReady);
    piece.tile = load_tile_;
    piece.row = load_row_;
    piece.rows = rows - load_row_ < t_->level2_rows ? rows - load_row_ : t_->level2_rows;
    piece.keys = tile.keys;
    piece.wide = fa_ascend_up(tile.keys, kLanes);
    piece.groups = piece.wide / kLanes;
    piece.buffer = loaded_ % ub_.lay.scores_buffers;
    piece.ends_tile = load_row_ + t_->level2_rows >= rows;
    if (piece.rows > 0) {
      const int64_t query = work_.FirstQuery(tile.item) + first + load_row_;
      WaitFlag<HardEvent::V_MTE2>(kScoresFlag + piece.buffer);
      AttentionLoadRows(ub_.scores[piece.buffer], s_ring_ + RingOffset(piece.tile, first + load_row_), piece.rows, tile.keys,
                        t_->level1_keys, piece.wide);
      mask_.Load(piece, tile.item, query, tile.key);
      SetFlag<HardEvent::MTE2_V>(kScoresFlag + piece.buffer);
    }
    ++loaded_;
    load_row_ += t_->level2_rows;
    if (!piece.ends_tile) return;
    load_row_ = 0;
    ++load_tile_;
    has_tile_ = work_.NextTile(tiles_[load_tile_ % kTilesInSight]);
  }

  __aicore__ inline int64_t RingOffset(int32_t tile, int32_t row) const {
    return (static_cast<int64_t>(tile % t_->ring) * t_->level1_rows + row) * t_->level1_keys;
  }

  // The maxima of one piece, the weights of another, the share of O' that was taken.
  template <bool has_first, bool has_second>
  __aicore__ inline void Round(const AttentionPiece &first, const AttentionPiece &second) {
    const bool takes_maxima = has_first && first.rows > 0, takes_weights = has_second && second.rows > 0;
    const bool ends = takes_weights && second.ends_tile;
    const LocalTensor<T> &weights = ub_.weights[ub_.NextWeights()];
    int32_t steps = output_.Steps();
    if (takes_maxima) {
      Prepare(first);
      steps = MostOf(steps, softmax_.MaximaSteps(first));
    }
    if (takes_weights) steps = MostOf(steps, ends ? softmax_.SumsSteps(second) : softmax_.WeightsSteps(second));
    for (int32_t step = 1; step <= steps; ++step) {
      if (takes_weights && step == softmax_.kWeightsStep) WaitFlag<HardEvent::MTE3_V>(kWeightsFlag + ub_.NextWeights());
      if (takes_weights) softmax_.WeightsStep(step, second, weights);
      if (takes_weights && step == softmax_.kWeightsStep) Store(second, weights);
      if (takes_maxima)
        softmax_.MaximaStep(step, first, IsFirst(first) ? ub_.least : ub_.Of(ub_.maximum, first.tile - 1),
                            ub_.Of(ub_.maximum, first.tile));
      if (ends)
        softmax_.SumsStep(step, second, IsFirst(second) ? ub_.least : ub_.Of(ub_.maximum, second.tile - 1),
                          IsFirst(second) ? ub_.zero : ub_.Of(ub_.sum, second.tile - 1));
      output_.Step(step, step == steps);
      PipeBarrier<PIPE_V>();
    }
    ready_before_ = ready_;
    if (has_first) ++first_;
    if (!has_second) return;
    ++second_;
    spare_ = second.buffer;
    if (second.ends_tile) Tell(second);
  }

  __aicore__ inline static int32_t MostOf(int32_t a, int32_t b) { return a > b ? a : b; }
  __aicore__ inline bool IsFirst(const AttentionPiece &piece) const { return tiles_[piece.tile % kTilesInSight].is_first; }

  // Scores as they are to be compared: loaded, scaled if it must be now, masked.
  __aicore__ inline void Prepare(const AttentionPiece &piece) {
    WaitFlag<HardEvent::MTE2_V>(kScoresFlag + piece.buffer);
    if (softmax_.ScalesFirst()) {
      softmax_.ScaleFirst(piece);
      PipeBarrier<PIPE_V>();
    }
    if (mask_.IsNeeded(piece)) mask_.Apply(piece);
  }

  // Weights to GM, from where the Cube takes all rows of the tile; a row alone gets a second one (attention_cube.h).
  __aicore__ inline void Store(const AttentionPiece &piece, const LocalTensor<T> &weights) {
    const int32_t n = ub_.NextWeights();
    ++ub_.weights_taken;
    const AttentionTile &tile = tiles_[piece.tile % kTilesInSight];
    int32_t first, rows;
    work_.Half(tile.item, static_cast<int32_t>(GetSubBlockIdx()), first, rows);
    SetFlag<HardEvent::V_MTE2>(kScoresFlag + piece.buffer);
    SetFlag<HardEvent::V_MTE3>(kWeightsFlag + n);
    WaitFlag<HardEvent::V_MTE3>(kWeightsFlag + n);
    AttentionStoreRows(p_ring_ + RingOffset(piece.tile, first + piece.row), weights, tile.item.rows == 1 ? 2 : piece.rows, piece.keys,
                       t_->level1_keys, piece.wide);
    SetFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
  }

  // All weights of the tile are stored, and what was added before them is added, also by an AIV that has no rows of this tile.
  __aicore__ inline void Tell(const AttentionPiece &piece) {
    if (piece.rows == 0) {
      const int32_t n = ub_.NextWeights();
      ++ub_.weights_taken;
      WaitFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
      SetFlag<HardEvent::V_MTE3>(kWeightsFlag + n);
      WaitFlag<HardEvent::V_MTE3>(kWeightsFlag + n);
      SetFlag<HardEvent::MTE3_V>(kWeightsFlag + n);
    }
    CrossCoreSetFlag<2, PIPE_MTE3>(kWeightsReady);
    ++ready_;
  }

  __aicore__ inline void FinishEmptyItems(const AttentionArguments &arguments, int64_t group) {
    AttentionItem item;
    work_.Begin(t_, arguments, group, GetBlockNum());
    while (work_.NextItem(item))
      if (item.rows > 0 && item.begin >= item.end) output_.FinishEmpty(item);
  }

  const fa_ascend_attention *t_;
  AttentionWork work_;
  AttentionUb<T> ub_;
  AttentionSoftmax<T> softmax_;
  AttentionMask<T> mask_;
  AttentionOutput<T> output_;
  AttentionTile tiles_[kTilesInSight];
  AttentionPiece pieces_[kPiecesInSight];
  __gm__ float *s_ring_;
  __gm__ T *p_ring_;
  bool has_tile_;                // tile load_tile_ is there
  int32_t load_tile_, load_row_; // of the next piece to load
  int32_t loaded_, first_, second_; // pieces that are loaded, have maxima, have weights
  int32_t ready_, ready_before_; // tiles whose weights are on their way, and were before the last round
  int32_t spare_;                // a buffer of scores that is free between rounds
};

#endif
