// C[b, h] = A[b, h] B[b, h / group] on the Cube: the matrix product of standard attention, S = Q K^T and O = P V.
//
// A m x k and C m x n row by row, B k x n or, transposed, n x k, all f16 or bf16; sums in fp32, C rounded to the input
// type or left in fp32; m, n, k, strides any (matmul_tiling.h). A band leaves out what attention's mask makes 0.
//
// Tiles: level one tile_m x tile_n of C a core, from chunks of k in L1 (A 2 x 128 KB, B 2 x 128 KB, ND to Nz on the
// way); level two base_m x base_n x base_k through L0A and L0B (2 x 32 KB each) into halves of L0C (2 x 64 KB). Two
// walks over the core's tiles run ahead of the product by a chunk each, so that L1 is filled across the ends of tiles;
// every buffer is double.
//   - Chunks that do not hold all of k ("deep"): tile_m = 2 base_m and tile_n = base_n, both halves of L0C grow
//     together, and a block of B in L0B serves both. At 256 x 128 with 128 of k: Cube 1024 cycles, MTE1 512, MTE2 565
//     plus latency.
//   - Chunks that do ("flat", Q K^T): the tile is many base blocks, each finished before the next; where B's block fits
//     in L0B whole it stays there for all rows of the tile.
// Bound: the Cube (deep); L0C to GM (flat: 64 x 256 blocks write a row of 512 bytes in 4.45 cycles); HBM where A or C
// is not in L2. model, 910B2: 4096 x 4096 x 4096 in f16 takes 412 us without the launch, 94 % of the Cube's peak, which is
// more than is believed of the model (docs/ascend.md).
#include "kernel_operator.h"

#include "matmul_walk.h"

using namespace AscendC;

namespace {

constexpr int32_t kHalfL0 = 16384;     // elements of half of L0A or L0B
constexpr int32_t kHalfC = 16384;      // fp32 of half of L0C
constexpr int32_t kFractal = 256;      // elements
constexpr int32_t kMoveStride = 65535; // most elements between rows of one move
constexpr int32_t kB = 2;              // B's flags follow A's

__aicore__ inline int32_t Blocks16(int64_t n) { return static_cast<int32_t>((n + 15) / 16); }

template <typename T, typename C>
class Matmul {
 public:
  __aicore__ inline void Run(const fa_ascend_matmul &tiling, GM_ADDR a, GM_ADDR b, GM_ADDR c) {
    t_ = tiling;
    a_ = (__gm__ T *)a;
    b_ = (__gm__ T *)b;
    c_ = (__gm__ C *)c;
    TPipe pipe;
    TBuf<TPosition::A1> l1;
    TBuf<TPosition::A2> l0a;
    TBuf<TPosition::B2> l0b;
    TBuf<TPosition::CO1> l0c;
    pipe.InitBuffer(l1, 524288);
    pipe.InitBuffer(l0a, 65536);
    pipe.InitBuffer(l0b, 65536);
    pipe.InitBuffer(l0c, 131072);
    const int32_t part_a = t_.tile_m * t_.chunk_a, part_b = t_.tile_n * t_.chunk_b;
    for (int32_t n = 0; n < 2; ++n) {
      l1a_[n] = l1.GetWithOffset<T>(part_a, n * part_a * 2);
      l1b_[n] = l1.GetWithOffset<T>(part_b, (2 * part_a + n * part_b) * 2);
      l0a_[n] = l0a.GetWithOffset<T>(kHalfL0, n * kHalfL0 * 2);
      l0b_[n] = l0b.GetWithOffset<T>(kHalfL0, n * kHalfL0 * 2);
      l0c_[n] = l0c.GetWithOffset<float>(kHalfC, n * kHalfC * 4);
    }
    for (int32_t n = 0; n < 4; ++n) {
      SetFlag<HardEvent::MTE1_MTE2>(n);
      SetFlag<HardEvent::M_MTE1>(n);
    }
    for (int32_t n = 0; n < 2; ++n) SetFlag<HardEvent::FIX_M>(n);

    const int64_t core = GetBlockIdx(), cores = GetBlockNum();
    MatmulWalk tile;
    tile.Begin(t_, core, cores);
    next_a_ = next_b_ = tile;
    SkipEmpty(next_a_, depth_a_);
    SkipEmpty(next_b_, depth_b_);
    FetchA();
    FetchB();
    for (; tile.is_valid; tile.Next(t_)) {
      const int64_t depth = tile.depth_end - tile.depth_begin;
      if (depth > MatmulLeast(t_.chunk_a, t_.chunk_b)) Deep(tile, depth);
      else Flat(tile, static_cast<int32_t>(depth));
    }

    for (int32_t n = 0; n < 4; ++n) {
      WaitFlag<HardEvent::MTE1_MTE2>(n);
      WaitFlag<HardEvent::M_MTE1>(n);
    }
    for (int32_t n = 0; n < 2; ++n) WaitFlag<HardEvent::FIX_M>(n);
  }

 private:
  // ------------------------------------------------------------------ GM to L1

  __aicore__ inline void SkipEmpty(MatmulWalk &walk, int64_t &depth) {
    while (walk.is_valid && walk.depth_begin == walk.depth_end) walk.Next(t_);
    depth = walk.depth_begin;
  }

  // rows x columns in GM to Nz in L1, `high` rows a column of fractals. One move if its fields can say the stride, in
  // units of two elements if need be.
  __aicore__ inline void Move(const LocalTensor<T> &to, __gm__ T *from, int64_t stride, int32_t rows, int32_t columns,
                              int32_t high) {
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
    if (rows == 1 || (stride > 0 && stride <= kMoveStride)) {
      if (rows > 1) move.srcDValue = static_cast<uint16_t>(stride);
      source.SetGlobalBuffer(from);
      DataCopy(to, source, move);
    } else if (stride > 0 && stride <= 2 * kMoveStride && stride % 2 == 0 && columns % 2 == 0 &&
               (uint64_t)from % 4 == 0) {
      GlobalTensor<float> pairs;
      pairs.SetGlobalBuffer((__gm__ float *)from);
      move.dValue = static_cast<uint16_t>(columns / 2);
      move.srcDValue = static_cast<uint16_t>(stride / 2);
      DataCopy(to.template ReinterpretCast<float>(), pairs, move);
    } else {
      move.nValue = 1;
      for (int32_t row = 0; row < rows; ++row) {
        source.SetGlobalBuffer(from + row * stride);
        DataCopy(to[row * 16], source, move);
      }
    }
  }

  // The next chunk of A, of whatever tile it is.
  __aicore__ inline void FetchA() {
    if (!next_a_.is_valid) return;
    const int32_t buffer = fetched_a_++ % 2, rows = static_cast<int32_t>(next_a_.rows), high = Blocks16(rows) * 16;
    const int32_t depth = static_cast<int32_t>(MatmulLeast(t_.chunk_a, next_a_.depth_end - depth_a_));
    __gm__ T *from = a_ + (next_a_.batch * t_.a_batch + next_a_.head * t_.a_head + next_a_.row * t_.a_row + depth_a_);
    WaitFlag<HardEvent::MTE1_MTE2>(buffer);
    Move(l1a_[buffer], from, t_.a_row, rows, depth, high);
    // A product of a single row would read it as a vector: it gets a second row, which nobody stores.
    if (rows % t_.base_m == 1) Move(l1a_[buffer][rows * 16], from + (rows - 1) * t_.a_row, t_.a_row, 1, depth, high);
    SetFlag<HardEvent::MTE2_MTE1>(buffer);
    depth_a_ += depth;
    if (depth_a_ < next_a_.depth_end) return;
    next_a_.Next(t_);
    SkipEmpty(next_a_, depth_a_);
  }

  __aicore__ inline void FetchB() {
    if (!next_b_.is_valid) return;
    const int32_t buffer = fetched_b_++ % 2, columns = static_cast<int32_t>(next_b_.columns);
    const int32_t depth = static_cast<int32_t>(MatmulLeast(t_.chunk_b, next_b_.depth_end - depth_b_));
    const int64_t at = next_b_.batch * t_.b_batch + next_b_.head / t_.group * t_.b_head;
    WaitFlag<HardEvent::MTE1_MTE2>(kB + buffer);
    if (t_.b_is_transposed)
      Move(l1b_[buffer], b_ + (at + next_b_.column * t_.b_row + depth_b_), t_.b_row, columns, depth,
           Blocks16(columns) * 16);
    else
      Move(l1b_[buffer], b_ + (at + depth_b_ * t_.b_row + next_b_.column), t_.b_row, depth, columns,
           Blocks16(depth) * 16);
    SetFlag<HardEvent::MTE2_MTE1>(kB + buffer);
    depth_b_ += depth;
    if (depth_b_ < next_b_.depth_end) return;
    next_b_.Next(t_);
    SkipEmpty(next_b_, depth_b_);
  }

  // The chunk to be used now; the one behind it is on its way.
  __aicore__ inline void TakeA() {
    FetchA();
    WaitFlag<HardEvent::MTE2_MTE1>(taken_a_ % 2);
  }
  __aicore__ inline void TakeB() {
    FetchB();
    WaitFlag<HardEvent::MTE2_MTE1>(kB + taken_b_ % 2);
  }
  __aicore__ inline void GiveA() { SetFlag<HardEvent::MTE1_MTE2>(taken_a_++ % 2); }
  __aicore__ inline void GiveB() { SetFlag<HardEvent::MTE1_MTE2>(kB + taken_b_++ % 2); }

  // ------------------------------------------------------------------ L1 to L0

  // across x down fractals, `step` apart in L1, to rows of fractals; as few instructions as there are.
  __aicore__ inline void Fractals(const LocalTensor<T> &to, const LocalTensor<T> &from, int32_t down, int32_t down_step,
                                  int32_t across, int32_t across_step, bool transposes) {
    LoadData2DParams load;
    load.ifTranspose = transposes;
    if (down <= across) {
      load.repeatTimes = static_cast<uint8_t>(across);
      load.srcStride = static_cast<uint16_t>(across_step);
      for (int32_t n = 0; n < down; ++n) LoadData(to[n * across * kFractal], from[n * down_step * kFractal], load);
    } else {
      load.repeatTimes = static_cast<uint8_t>(down);
      load.srcStride = static_cast<uint16_t>(down_step);
      load.dstGap = static_cast<uint16_t>(across - 1);
      for (int32_t n = 0; n < across; ++n) LoadData(to[n * kFractal], from[n * across_step * kFractal], load);
    }
  }

  __aicore__ inline void Zeros(const LocalTensor<T> &to, int32_t fractals) {
    InitConstValueParams<half> fill;
    fill.repeatTimes = 1;
    fill.blockNum = static_cast<uint16_t>(fractals);
    fill.initValue = half(0.0f);
    InitConstValue(to.template ReinterpretCast<half>(), fill);
  }

  // Rows from `row` on of the tile's `high` rows, from `depth` on in the chunk; to L0A row of fractals by row of
  // fractals.
  __aicore__ inline void LoadA(int32_t slot, int32_t high, int32_t row, int32_t rows, int32_t at, int32_t depth) {
    WaitFlag<HardEvent::M_MTE1>(slot);
    if (high == 0) Zeros(l0a_[slot], Blocks16(rows));
    else
      Fractals(l0a_[slot], l1a_[taken_a_ % 2][(at / 16 * high + row / 16) * kFractal], Blocks16(rows), 1,
               Blocks16(depth), high, false);
  }

  // Columns from `column` on, to L0B with 16 of k after 16 of k. K's fractals already are what L0B wants of K^T; V's
  // are turned.
  __aicore__ inline void LoadB(int32_t slot, int32_t high, int32_t column, int32_t columns, int32_t at, int32_t depth) {
    WaitFlag<HardEvent::M_MTE1>(kB + slot);
    const LocalTensor<T> &from = l1b_[taken_b_ % 2];
    const int32_t across = Blocks16(columns), down = Blocks16(depth);
    if (high == 0) Zeros(l0b_[slot], across);
    else if (!t_.b_is_transposed)
      Fractals(l0b_[slot], from[(column / 16 * high + at / 16) * kFractal], down, 1, across, high, true);
    else if (across == high) Fractals(l0b_[slot], from[at / 16 * high * kFractal], 1, 0, down * across, 1, false);
    else Fractals(l0b_[slot], from[(at / 16 * high + column / 16) * kFractal], down, high, across, 1, false);
  }

  // ------------------------------------------------------------------ product

  __aicore__ inline void Multiply(int32_t half_c, int32_t slot_a, int32_t slot_b, int32_t rows, int32_t columns,
                                  int32_t depth, bool begins) {
    SetFlag<HardEvent::MTE1_M>(slot_a);
    WaitFlag<HardEvent::MTE1_M>(slot_a);
    if (begins) WaitFlag<HardEvent::FIX_M>(half_c);
    else if ((rows / 16) * (columns / 16) < 10) PipeBarrier<PIPE_M>(); // larger ones order themselves
    MmadParams mmad;
    mmad.m = static_cast<uint16_t>(rows == 1 ? 2 : rows);
    mmad.n = static_cast<uint16_t>(columns);
    mmad.k = static_cast<uint16_t>(depth);
    mmad.cmatrixInitVal = begins;
    Mmad(l0c_[half_c], l0a_[slot_a], l0b_[slot_b], mmad);
    SetFlag<HardEvent::M_MTE1>(slot_a);
  }

  __aicore__ inline void Store(int32_t half_c, const MatmulWalk &tile, int32_t row, int32_t rows, int32_t column,
                               int32_t columns) {
    SetFlag<HardEvent::M_FIX>(half_c);
    WaitFlag<HardEvent::M_FIX>(half_c);
    FixpipeParamsV220 fix;
    fix.nSize = static_cast<uint16_t>(columns);
    fix.mSize = static_cast<uint16_t>(rows);
    fix.srcStride = static_cast<uint16_t>(Blocks16(rows) * 16);
    fix.quantPre = sizeof(C) == 4 ? NoQuant : (t_.is_bf16 ? F322BF16 : F322F16);
    __gm__ C *to =
        c_ + (tile.batch * t_.c_batch + tile.head * t_.c_head + (tile.row + row) * t_.c_row + tile.column + column);
    GlobalTensor<C> out;
    out.SetGlobalBuffer(to);
    if (t_.c_row > 0 && t_.c_row <= 0xffffffff) {
      fix.dstStride = static_cast<uint32_t>(t_.c_row);
      Fixpipe(out, l0c_[half_c], fix);
    } else {
      fix.mSize = 1;
      fix.dstStride = static_cast<uint32_t>(columns);
      for (int32_t n = 0; n < rows; ++n) {
        out.SetGlobalBuffer(to + n * t_.c_row);
        Fixpipe(out, l0c_[half_c][n * 16], fix);
      }
    }
    SetFlag<HardEvent::FIX_M>(half_c);
  }

  // A tile of one base block of columns, two of rows, over several chunks.
  __aicore__ inline void Deep(const MatmulWalk &tile, int64_t depth) {
    const int32_t rows = static_cast<int32_t>(tile.rows), columns = static_cast<int32_t>(tile.columns);
    const int32_t high_a = Blocks16(rows), halves = static_cast<int32_t>(MatmulCeil(rows, t_.base_m));
    const int32_t first_half = half_c_;
    int32_t at_a = 0, at_b = 0, high_b = 0;
    for (int64_t k = 0; k < depth; k += t_.base_k) {
      const int32_t part = static_cast<int32_t>(MatmulLeast(t_.base_k, depth - k));
      const bool ends = k + part == depth;
      if (at_a == 0) TakeA();
      if (at_b == 0) {
        TakeB();
        high_b = Blocks16(t_.b_is_transposed ? columns : MatmulLeast(t_.chunk_b, depth - k));
      }
      const int32_t slot_b = slot_b_++ % 2;
      LoadB(slot_b, high_b, 0, columns, at_b, part);
      for (int32_t n = 0; n < halves; ++n) {
        const int32_t row = n * t_.base_m, in_half = static_cast<int32_t>(MatmulLeast(t_.base_m, rows - row));
        const int32_t slot_a = slot_a_++ % 2, half = (first_half + n) % 2;
        LoadA(slot_a, high_a, row, in_half, at_a, part);
        Multiply(half, slot_a, slot_b, in_half, columns, part, k == 0);
        if (ends) Store(half, tile, row, in_half, 0, columns);
      }
      SetFlag<HardEvent::M_MTE1>(kB + slot_b);
      at_a += part;
      at_b += part;
      if (ends || at_a == t_.chunk_a) GiveA(), at_a = 0;
      if (ends || at_b == t_.chunk_b) GiveB(), at_b = 0;
    }
    half_c_ = (first_half + halves) % 2;
  }

  // A tile of many base blocks from one chunk; or of zeros, where depth is 0.
  __aicore__ inline void Flat(const MatmulWalk &tile, int32_t depth) {
    const int32_t rows = static_cast<int32_t>(tile.rows), columns = static_cast<int32_t>(tile.columns);
    const int32_t high_a = depth ? Blocks16(rows) : 0;
    const int32_t high_b = depth ? Blocks16(t_.b_is_transposed ? columns : depth) : 0;
    const int32_t parts = depth ? static_cast<int32_t>(MatmulCeil(depth, t_.base_k)) : 1;
    const bool stays = parts <= 2; // B's block fits in L0B whole
    if (depth) {
      TakeA();
      TakeB();
    }
    for (int32_t column = 0; column < columns; column += t_.base_n) {
      const int32_t wide = static_cast<int32_t>(MatmulLeast(t_.base_n, columns - column));
      int32_t begin = 0, end = rows;
      if (t_.band == FA_ASCEND_BAND_COLUMNS) {
        while (begin < end && !Keeps(tile, begin, column, wide)) begin += t_.base_m;
        while (begin < end && !Keeps(tile, (end - 1) / t_.base_m * t_.base_m, column, wide))
          end = (end - 1) / t_.base_m * t_.base_m;
      }
      const int32_t first_slot = slot_b_;
      for (int32_t row = begin; row < end; row += t_.base_m) {
        const int32_t deep = static_cast<int32_t>(MatmulLeast(t_.base_m, rows - row));
        const int32_t half = half_c_++ % 2;
        for (int32_t n = 0; n < parts; ++n) {
          const int32_t at = n * t_.base_k,
                        part = depth ? static_cast<int32_t>(MatmulLeast(t_.base_k, depth - at)) : 16;
          const int32_t slot_a = slot_a_++ % 2, slot_b = (stays ? first_slot + n : slot_b_++) % 2;
          if (!stays || row == begin) LoadB(slot_b, high_b, column, wide, at, part);
          LoadA(slot_a, high_a, row, deep, at, part);
          Multiply(half, slot_a, slot_b, deep, wide, part, n == 0);
          if (!stays || row + deep >= end) SetFlag<HardEvent::M_MTE1>(kB + slot_b);
        }
        Store(half, tile, row, deep, column, wide);
      }
      if (stays) slot_b_ += parts;
    }
    if (depth) {
      GiveA();
      GiveB();
    }
  }

  __aicore__ inline bool Keeps(const MatmulWalk &tile, int32_t row, int32_t column, int32_t columns) {
    return MatmulWalk::Keeps(t_, tile.row + row, MatmulLeast(t_.base_m, tile.rows - row), tile.column + column,
                             columns);
  }

  fa_ascend_matmul t_;
  __gm__ T *a_, *b_;
  __gm__ C *c_;
  LocalTensor<T> l1a_[2], l1b_[2], l0a_[2], l0b_[2];
  LocalTensor<float> l0c_[2];
  MatmulWalk next_a_, next_b_; // the tiles that the next chunks are of
  int64_t depth_a_ = 0, depth_b_ = 0;
  int32_t fetched_a_ = 0, fetched_b_ = 0, taken_a_ = 0, taken_b_ = 0, slot_a_ = 0, slot_b_ = 0, half_c_ = 0;
};

__aicore__ inline fa_ascend_matmul ReadTiling(GM_ADDR at) {
  const __gm__ fa_ascend_matmul *gm = (const __gm__ fa_ascend_matmul *)at;
  fa_ascend_matmul t;
  t.a_batch = gm->a_batch, t.a_head = gm->a_head, t.a_row = gm->a_row;
  t.b_batch = gm->b_batch, t.b_head = gm->b_head, t.b_row = gm->b_row;
  t.c_batch = gm->c_batch, t.c_head = gm->c_head, t.c_row = gm->c_row;
  t.m = gm->m, t.n = gm->n, t.k = gm->k;
  t.band_lower = gm->band_lower, t.band_upper = gm->band_upper;
  t.is_bf16 = gm->is_bf16, t.c_is_f32 = gm->c_is_f32, t.b_is_transposed = gm->b_is_transposed, t.band = gm->band;
  t.batch = gm->batch, t.heads = gm->heads, t.group = gm->group;
  t.base_m = gm->base_m, t.base_n = gm->base_n, t.base_k = gm->base_k;
  t.tile_m = gm->tile_m, t.tile_n = gm->tile_n, t.chunk_a = gm->chunk_a, t.chunk_b = gm->chunk_b;
  t.swizzle = gm->swizzle, t.reserved = 0;
  return t;
}

} // namespace

// a, b: the input type; c: the input type or fp32. workspace is not used.
extern "C" __global__ __aicore__ void fa_matmul_ascend(GM_ADDR a, GM_ADDR b, GM_ADDR c, GM_ADDR workspace,
                                                       GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
  (void)workspace;
  if ASCEND_IS_AIC {
    const fa_ascend_matmul t = ReadTiling(tiling);
    SetCtrlSpr<48, 48>(1); // infinities and NaN stay what they are in f16 and bf16
    if (t.is_bf16 && t.c_is_f32) Matmul<bfloat16_t, float>().Run(t, a, b, c);
    else if (t.is_bf16) Matmul<bfloat16_t, bfloat16_t>().Run(t, a, b, c);
    else if (t.c_is_f32) Matmul<half, float>().Run(t, a, b, c);
    else Matmul<half, half>().Run(t, a, b, c);
    SetCtrlSpr<48, 48>(0);
  }
}
