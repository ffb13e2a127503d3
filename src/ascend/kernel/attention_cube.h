// The Cube core's share of attention: S = Q K^T and O' = P V of each tile. Part of attention_ascend.cpp.
//
// Level one: tile i is up to 128 rows x level1_keys. Step i of the stream writes S(i) (fp32, from L0C to GM's ring), then O'(i -
// preload) from the P that Vector wrote meanwhile. Level two: blocks of cube_keys keys. K [keys, D], V [keys, D_v] and P [rows,
// keys] come as Nz to L1, Q once an item. K's Nz is what L0B takes as K^T, so all of a block is one LoadData; V is transposed on the
// way, a row of fractals at a time. D beyond 128 is two products, D_v beyond 128 two accumulators. m, n and k are exact, L1 and L0
// are padded to fractals. A row alone would be read as a vector (GEMV): it goes in twice and comes out once.
//
// Memories: L1 two or three buffers each of Q, K, V, P (448 KB at most); L0A, L0B 2 x 32 KB; L0C 2 x 64 KB. K runs `buffers` blocks
// ahead; V's first blocks are loaded before Q K^T of another tile, the next tile's first keys before the wait for P. Flags by event:
// K 0-2, V with P 3-5 (L1); L0A 0-1, L0B 2-3; L0C 0-1. Q needs none: its buffer is taken when K's is, by which time every item but
// the last buffers - 1 is done with.
// Bound: Fixpipe of S (4.45 cycles a row of 128 keys: 570 a block) beside Mmad (512), then Mmad of P V (512 a block).
#ifndef FA_ASCEND_ATTENTION_CUBE_H
#define FA_ASCEND_ATTENTION_CUBE_H

#include "attention_work.h"

constexpr int32_t kChunk = 128;       // of D or D_v in one product
constexpr int32_t kHalfOfL0 = 16384;  // elements of half of L0A or L0B, fp32 of half of L0C
constexpr int32_t kFractal = 256;     // elements
constexpr int32_t kTilesKept = 16;    // more than preload + 2
constexpr int32_t kPagesKept = 256;   // even
constexpr int32_t kValueFlags = 3;    // V's flags follow K's
constexpr int32_t kRightFlags = 2;    // L0B's follow L0A's

__aicore__ inline int32_t AttentionFractals(int32_t n) { return (n + 15) / 16; }

template <typename T>
class AttentionCube {
 public:
  __aicore__ inline void Run(const fa_ascend_attention *tiling, const AttentionArguments &arguments) {
    t_ = tiling;
    q_ = (__gm__ T *)arguments.q;
    k_ = (__gm__ T *)arguments.k;
    v_ = (__gm__ T *)arguments.v;
    page_table_ = arguments.page_table;
    pages_are_pairs_ = (uint64_t)page_table_ % 8 == 0;
    for (int32_t n = 0; n < kPagesKept; ++n) kept_entries_[n] = -1;
    const int64_t slots = GetBlockIdx() * t_->ring, scores = static_cast<int64_t>(t_->level1_rows) * t_->level1_keys;
    pitch_o_ = AttentionFractals(t_->head_dim_v) * 16;
    s_ring_ = (__gm__ float *)(arguments.workspace + t_->s_ring) + slots * scores;
    p_ring_ = (__gm__ T *)(arguments.workspace + t_->p_ring) + slots * scores;
    o_ring_ = (__gm__ float *)(arguments.workspace + t_->o_ring) + slots * t_->level1_rows * pitch_o_;
    work_.Begin(t_, arguments, GetBlockIdx(), GetBlockNum());
    TPipe pipe;
    LayOut(pipe);
    Stream();
    for (int32_t n = 0; n < buffers_; ++n) {
      WaitFlag<HardEvent::MTE1_MTE2>(n);
      WaitFlag<HardEvent::MTE1_MTE2>(kValueFlags + n);
    }
    for (int32_t n = 0; n < 4; ++n) WaitFlag<HardEvent::M_MTE1>(n);
    for (int32_t n = 0; n < 2; ++n) WaitFlag<HardEvent::FIX_M>(n);
  }

 private:
  __aicore__ inline void LayOut(TPipe &pipe) {
    TBuf<TPosition::A1> l1;
    TBuf<TPosition::A2> l0a;
    TBuf<TPosition::B2> l0b;
    TBuf<TPosition::CO1> l0c;
    pipe.InitBuffer(l1, FA_ASCEND_L1_BYTES);
    pipe.InitBuffer(l0a, 65536);
    pipe.InitBuffer(l0b, 65536);
    pipe.InitBuffer(l0c, 131072);
    const fa_ascend_attention_l1 lay = fa_ascend_attention_l1_of(t_);
    buffers_ = lay.buffers;
    for (int32_t n = 0, at = 0; n < buffers_; ++n) {
      l1q_[n] = l1.GetWithOffset<T>(static_cast<uint32_t>(lay.q_bytes / 2), static_cast<uint32_t>(at));
      at += lay.q_bytes;
      l1k_[n] = l1.GetWithOffset<T>(static_cast<uint32_t>(lay.k_bytes / 2), static_cast<uint32_t>(at));
      at += lay.k_bytes;
      l1v_[n] = l1.GetWithOffset<T>(static_cast<uint32_t>(lay.v_bytes / 2), static_cast<uint32_t>(at));
      at += lay.v_bytes;
      l1p_[n] = l1.GetWithOffset<T>(static_cast<uint32_t>(lay.p_bytes / 2), static_cast<uint32_t>(at));
      at += lay.p_bytes;
      SetFlag<HardEvent::MTE1_MTE2>(n);
      SetFlag<HardEvent::MTE1_MTE2>(kValueFlags + n);
    }
    for (int32_t n = 0; n < 2; ++n) {
      l0a_[n] = l0a.GetWithOffset<T>(kHalfOfL0, static_cast<uint32_t>(n * kHalfOfL0 * 2));
      l0b_[n] = l0b.GetWithOffset<T>(kHalfOfL0, static_cast<uint32_t>(n * kHalfOfL0 * 2));
      l0c_[n] = l0c.GetWithOffset<float>(kHalfOfL0, static_cast<uint32_t>(n * kHalfOfL0 * 4));
      SetFlag<HardEvent::M_MTE1>(n);
      SetFlag<HardEvent::M_MTE1>(kRightFlags + n);
      SetFlag<HardEvent::FIX_M>(n);
    }
    left_ = right_ = sum_ = 0;
    keys_fetched_ = keys_used_ = values_fetched_ = values_used_ = items_ = 0;
  }

  // ------------------------------------------------------------------ the stream

  __aicore__ inline void Stream() {
    bool is_next = work_.NextTile(tiles_[0]);
    for (int32_t i = 0; is_next; ++i) {
      const AttentionTile &tile = tiles_[i % kTilesKept];
      is_next = work_.NextTile(tiles_[(i + 1) % kTilesKept]);
      if (i == 0) FetchKeysAhead(tile, 0);
      if (i >= t_->preload) FetchFirstValues(tiles_[(i - t_->preload) % kTilesKept]);
      Scores(tile, i);
      if (is_next) FetchKeysAhead(tiles_[(i + 1) % kTilesKept], 0);
      if (i >= t_->preload) {
        const AttentionTile &behind = tiles_[(i - t_->preload) % kTilesKept];
        FetchFirstWeights(behind, i - t_->preload);
        Rows(behind, i - t_->preload);
      }
      tiles_done_ = i + 1;
    }
    for (int32_t i = AttentionClamp(tiles_done_ - t_->preload, 0, tiles_done_); i < tiles_done_; ++i) {
      FetchFirstValues(tiles_[i % kTilesKept]);
      FetchFirstWeights(tiles_[i % kTilesKept], i);
      Rows(tiles_[i % kTilesKept], i);
    }
  }

  __aicore__ inline int32_t Blocks(const AttentionTile &tile) const { return (tile.keys + t_->cube_keys - 1) / t_->cube_keys; }
  __aicore__ inline int32_t KeysOfBlock(const AttentionTile &tile, int32_t block) const {
    const int32_t left = tile.keys - block * t_->cube_keys;
    return left < t_->cube_keys ? left : t_->cube_keys;
  }
  // Rows that the Cube multiplies.
  __aicore__ inline int32_t RowsOf(const AttentionTile &tile) const { return tile.item.rows == 1 ? 2 : tile.item.rows; }

  // ------------------------------------------------------------------ GM to L1

  // rows x columns to Nz, `high` rows a column of fractals.
  __aicore__ inline void Move(const LocalTensor<T> &to, __gm__ T *from, int32_t rows, int32_t columns, int64_t stride, int32_t high) {
    GlobalTensor<T> source;
    Nd2NzParams move;
    move.ndNum = 1;
    move.nValue = static_cast<uint16_t>(rows);
    move.dValue = static_cast<uint16_t>(columns);
    move.srcNdMatrixStride = 0;
    move.srcDValue = 1;
    move.dstNzC0Stride = static_cast<uint16_t>(high);
    move.dstNzNStride = 1;
    move.dstNzMatrixStride = 1;
    if (rows == 1 || (stride > 0 && stride <= kMostMoveStride)) {
      if (rows > 1) move.srcDValue = static_cast<uint16_t>(stride);
      source.SetGlobalBuffer(from);
      DataCopy(to, source, move);
      return;
    }
    move.nValue = 1;
    for (int32_t row = 0; row < rows; ++row) {
      source.SetGlobalBuffer(from + row * stride);
      DataCopy(to[static_cast<uint32_t>(row * 16)], source, move);
    }
  }

  // The scalar unit reads GM slowly: pages are kept from K's turn to V's, and read two at a time where they lie so.
  __aicore__ inline int32_t Page(const AttentionItem &item, int32_t token) {
    if (t_->page_size == 0) return 0;
    const int64_t entry = work_.PageEntry(item, token), last = item.batch * t_->page_table_stride + (item.end - 1) / t_->page_size;
    const int32_t slot = static_cast<int32_t>(entry % kPagesKept);
    if (kept_entries_[slot] != entry) {
      kept_entries_[slot] = entry;
      if (entry % 2 == 0 && entry < last && pages_are_pairs_) {
        GlobalTensor<int64_t> pairs;
        pairs.SetGlobalBuffer((__gm__ int64_t *)page_table_);
        const uint64_t two = static_cast<uint64_t>(pairs.GetValue(static_cast<uint64_t>(entry / 2)));
        kept_pages_[slot] = static_cast<int32_t>(two);
        kept_entries_[slot + 1] = entry + 1;
        kept_pages_[slot + 1] = static_cast<int32_t>(two >> 32);
      } else {
        kept_pages_[slot] = work_.Page(item, token);
      }
    }
    return kept_pages_[slot];
  }

  // Keys or values of a block, page by page.
  __aicore__ inline void MoveTokens(const LocalTensor<T> &to, __gm__ T *from, const fa_ascend_strides &s, const AttentionTile &tile,
                                    int32_t block, int32_t columns) {
    const int32_t keys = KeysOfBlock(tile, block), first = tile.key + block * t_->cube_keys, high = AttentionFractals(keys) * 16;
    for (int32_t row = 0; row < keys;) {
      const int32_t whole_run = work_.Run(tile.item, first + row), run = whole_run < keys - row ? whole_run : keys - row;
      const int64_t at = work_.TokenOffset(s, tile.item, first + row, Page(tile.item, first + row));
      Move(to[static_cast<uint32_t>(row * 16)], from + at, run, columns, s.seq, high);
      row += run;
    }
  }

  __aicore__ inline void FetchKeys(const AttentionTile &tile, int32_t block) {
    const int32_t buffer = keys_fetched_++ % buffers_;
    WaitFlag<HardEvent::MTE1_MTE2>(buffer);
    if (tile.is_first && block == 0) {
      const LocalTensor<T> &to = l1q_[items_++ % buffers_];
      const int32_t rows = tile.item.rows, high = AttentionFractals(rows) * 16;
      __gm__ T *from = q_ + work_.RowOffset(t_->q, tile.item, 0);
      Move(to, from, rows, t_->head_dim_qk, work_.RowStride(t_->q), high);
      if (rows == 1) Move(to[16], from, 1, t_->head_dim_qk, 0, high);
    }
    MoveTokens(l1k_[buffer], k_, t_->k, tile, block, t_->head_dim_qk);
    SetFlag<HardEvent::MTE2_MTE1>(buffer);
  }

  // As many blocks of the tile's keys as there are buffers, of whose blocks `used` are done with.
  __aicore__ inline void FetchKeysAhead(const AttentionTile &tile, int32_t used) {
    while (keys_fetched_ - keys_used_ < buffers_ && used + keys_fetched_ - keys_used_ < Blocks(tile))
      FetchKeys(tile, used + keys_fetched_ - keys_used_);
  }

  __aicore__ inline void FetchValues(const AttentionTile &tile, int32_t block) {
    const int32_t buffer = values_fetched_++ % buffers_;
    WaitFlag<HardEvent::MTE1_MTE2>(kValueFlags + buffer);
    MoveTokens(l1v_[buffer], v_, t_->v, tile, block, t_->head_dim_v);
  }

  __aicore__ inline void FetchFirstValues(const AttentionTile &tile) {
    for (int32_t block = 0; block < Blocks(tile) && block < buffers_; ++block) FetchValues(tile, block);
  }

  // P of a block whose V is on its way; the flag says that both are there.
  __aicore__ inline void FetchWeights(const AttentionTile &tile, int32_t i, int32_t block, int32_t buffer) {
    const int32_t rows = RowsOf(tile);
    __gm__ T *from = p_ring_ + static_cast<int64_t>(i % t_->ring) * t_->level1_rows * t_->level1_keys + block * t_->cube_keys;
    Move(l1p_[buffer], from, rows, KeysOfBlock(tile, block), t_->level1_keys, AttentionFractals(rows) * 16);
    SetFlag<HardEvent::MTE2_MTE1>(kValueFlags + buffer);
  }

  // ------------------------------------------------------------------ L1 to L0

  // `columns` from column `first` on of a Nz matrix to rows of fractals.
  __aicore__ inline void LoadLeft(const LocalTensor<T> &to, const LocalTensor<T> &from, int32_t rows, int32_t first, int32_t columns) {
    const int32_t high = AttentionFractals(rows), across = AttentionFractals(columns);
    for (int32_t r = 0; r < high; ++r)
      LoadData(to[static_cast<uint32_t>(r * across * kFractal)], from,
               LoadData2DParams(static_cast<uint16_t>(first / 16 * high + r), static_cast<uint8_t>(across), static_cast<uint16_t>(high),
                                0, 0, false, 0));
  }
  __aicore__ inline void LoadKeys(const LocalTensor<T> &to, const LocalTensor<T> &from, int32_t keys, int32_t first, int32_t columns) {
    const int32_t high = AttentionFractals(keys);
    LoadData(to, from,
             LoadData2DParams(static_cast<uint16_t>(first / 16 * high), static_cast<uint8_t>(high * AttentionFractals(columns)), 1, 0, 0,
                              false, 0));
  }
  __aicore__ inline void LoadValues(const LocalTensor<T> &to, const LocalTensor<T> &from, int32_t keys, int32_t first, int32_t columns) {
    const int32_t high = AttentionFractals(keys), across = AttentionFractals(columns);
    for (int32_t r = 0; r < high; ++r)
      LoadData(to[static_cast<uint32_t>(r * across * kFractal)], from,
               LoadData2DParams(static_cast<uint16_t>(first / 16 * high + r), static_cast<uint8_t>(across), static_cast<uint16_t>(high),
                                0, 0, true, 0));
  }

  // ------------------------------------------------------------------ products

  __aicore__ inline void Multiply(const LocalTensor<float> &c, const LocalTensor<T> &a, const LocalTensor<T> &b, int32_t m, int32_t n,
                                  int32_t k, bool begins) {
    MmadParams params;
    params.m = static_cast<uint16_t>(m);
    params.n = static_cast<uint16_t>(n);
    params.k = static_cast<uint16_t>(k);
    params.cmatrixInitVal = begins;
    if (!begins && (m / 16) * (n / 16) < 10) PipeBarrier<PIPE_M>(); // large ones wait by themselves
    Mmad(c, a, b, params);
  }

  __aicore__ inline void Store(__gm__ float *to, const LocalTensor<float> &c, int32_t rows, int32_t columns, int32_t high, int32_t pitch) {
    GlobalTensor<float> target;
    target.SetGlobalBuffer(to);
    FixpipeParamsV220 params;
    params.nSize = static_cast<uint16_t>(columns);
    params.mSize = static_cast<uint16_t>(rows);
    params.srcStride = static_cast<uint16_t>(high);
    params.dstStride = static_cast<uint32_t>(pitch);
    params.ndNum = 1;
    Fixpipe<float, float, CFG_ROW_MAJOR>(target, c, params);
  }

  // P of tile i's first blocks, once it is there.
  __aicore__ inline void FetchFirstWeights(const AttentionTile &tile, int32_t i) {
    CrossCoreWaitFlag<2, PIPE_MTE2>(kWeightsReady);
    for (int32_t block = 0; block < Blocks(tile) && block < buffers_; ++block)
      FetchWeights(tile, i, block, (values_used_ + block) % buffers_);
  }

  // S of tile i, a block of keys at a time.
  __aicore__ inline void Scores(const AttentionTile &tile, int32_t i) {
    const int32_t dim = t_->head_dim_qk, chunks = (dim + kChunk - 1) / kChunk, rows = RowsOf(tile), blocks = Blocks(tile);
    if (tile.is_first) ++items_used_;
    const LocalTensor<T> &q = l1q_[(items_used_ - 1) % buffers_];
    __gm__ float *to = s_ring_ + static_cast<int64_t>(i % t_->ring) * t_->level1_rows * t_->level1_keys;
    for (int32_t block = 0; block < blocks; ++block) {
      const int32_t buffer = keys_used_ % buffers_, keys = KeysOfBlock(tile, block), sum = sum_;
      WaitFlag<HardEvent::MTE2_MTE1>(buffer);
      for (int32_t chunk = 0; chunk < chunks; ++chunk) {
        const int32_t first = chunk * kChunk, columns = dim - first < kChunk ? dim - first : kChunk, right = right_;
        const bool takes_left = chunks > 1 || block == 0; // Q stays in L0A for a tile if it fits
        if (takes_left) {
          WaitFlag<HardEvent::M_MTE1>(left_);
          LoadLeft(l0a_[left_], q, rows, first, columns);
        }
        WaitFlag<HardEvent::M_MTE1>(kRightFlags + right);
        LoadKeys(l0b_[right], l1k_[buffer], keys, first, columns);
        SetFlag<HardEvent::MTE1_M>(right);
        if (chunk == chunks - 1) SetFlag<HardEvent::MTE1_MTE2>(buffer);
        WaitFlag<HardEvent::MTE1_M>(right);
        if (chunk == 0) WaitFlag<HardEvent::FIX_M>(sum);
        Multiply(l0c_[sum], l0a_[left_], l0b_[right], rows, keys, columns, chunk == 0);
        SetFlag<HardEvent::M_MTE1>(kRightFlags + right);
        right_ = 1 - right_;
        if (chunks > 1 || block == blocks - 1) {
          SetFlag<HardEvent::M_MTE1>(left_);
          left_ = 1 - left_;
        }
      }
      ++keys_used_;
      FetchKeysAhead(tile, block + 1);
      SetFlag<HardEvent::M_FIX>(sum);
      WaitFlag<HardEvent::M_FIX>(sum);
      Store(to + block * t_->cube_keys, l0c_[sum], rows, keys, AttentionFractals(rows) * 16, t_->level1_keys);
      SetFlag<HardEvent::FIX_M>(sum);
      sum_ = 1 - sum_;
    }
    CrossCoreSetFlag<2, PIPE_FIX>(kScoresReady);
  }

  // O' of tile i: all its blocks add up in L0C.
  __aicore__ inline void Rows(const AttentionTile &tile, int32_t i) {
    const int32_t dim = t_->head_dim_v, chunks = (dim + kChunk - 1) / kChunk, rows = RowsOf(tile), blocks = Blocks(tile);
    const int32_t high = AttentionFractals(rows) * 16;
    __gm__ float *to = o_ring_ + static_cast<int64_t>(i % t_->ring) * t_->level1_rows * pitch_o_;
    for (int32_t block = 0; block < blocks; ++block) {
      const int32_t buffer = values_used_ % buffers_, keys = KeysOfBlock(tile, block);
      WaitFlag<HardEvent::MTE2_MTE1>(kValueFlags + buffer);
      for (int32_t chunk = 0; chunk < chunks; ++chunk) {
        const int32_t first = chunk * kChunk, columns = dim - first < kChunk ? dim - first : kChunk, right = right_;
        const int32_t sum = chunk == 0 ? sum_ : 1 - sum_;
        if (chunk == 0) {
          WaitFlag<HardEvent::M_MTE1>(left_);
          LoadLeft(l0a_[left_], l1p_[buffer], rows, 0, keys);
        }
        WaitFlag<HardEvent::M_MTE1>(kRightFlags + right);
        LoadValues(l0b_[right], l1v_[buffer], keys, first, columns);
        SetFlag<HardEvent::MTE1_M>(right);
        if (chunk == chunks - 1) SetFlag<HardEvent::MTE1_MTE2>(kValueFlags + buffer);
        WaitFlag<HardEvent::MTE1_M>(right);
        if (block == 0) WaitFlag<HardEvent::FIX_M>(sum);
        Multiply(l0c_[sum], l0a_[left_], l0b_[right], rows, columns, keys, block == 0);
        SetFlag<HardEvent::M_MTE1>(kRightFlags + right);
        right_ = 1 - right_;
        if (block < blocks - 1) continue;
        SetFlag<HardEvent::M_FIX>(sum);
        WaitFlag<HardEvent::M_FIX>(sum);
        Store(to + first, l0c_[sum], tile.item.rows, columns, high, pitch_o_);
        SetFlag<HardEvent::FIX_M>(sum);
      }
      SetFlag<HardEvent::M_MTE1>(left_);
      left_ = 1 - left_;
      ++values_used_;
      if (block + buffers_ < blocks) {
        FetchValues(tile, block + buffers_);
        FetchWeights(tile, i, block + buffers_, buffer);
      }
    }
    if (chunks == 1) sum_ = 1 - sum_;
    CrossCoreSetFlag<2, PIPE_FIX>(kRowsReady);
  }

  const fa_ascend_attention *t_;
  AttentionWork work_;
  AttentionTile tiles_[kTilesKept];
  int64_t kept_entries_[kPagesKept];
  int32_t kept_pages_[kPagesKept];
  bool pages_are_pairs_;
  GM_ADDR page_table_;
  __gm__ T *q_, *k_, *v_, *p_ring_;
  __gm__ float *s_ring_, *o_ring_;
  LocalTensor<T> l1q_[3], l1k_[3], l1v_[3], l1p_[3], l0a_[2], l0b_[2];
  LocalTensor<float> l0c_[2];
  int32_t buffers_, pitch_o_;
  int32_t left_, right_, sum_; // which half of L0A, L0B, L0C is next
  int32_t keys_fetched_, keys_used_, values_fetched_, values_used_;
  int32_t items_, items_used_ = 0, tiles_done_ = 0;
};

#endif
