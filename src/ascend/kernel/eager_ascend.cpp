// Attention as a framework runs it unfused, between its two products S = Q K^T and O = P V: each of these is a launch
// of its own that reads and writes all of the scores, [batch * heads][S_q][S_kv].
//   fa_eager_mask_tensor_ascend  mask = 0 where the band keeps, -inf elsewhere, one S_q x S_kv tensor of the input type
//   fa_eager_scale_ascend        S *= scale                    S f16 or bf16
//   fa_eager_add_ascend          S += mask                     broadcast over heads
//   fa_eager_softmax_ascend      P32 = softmax(S), lse         fp32 out (softmax_rows.h)
//   fa_eager_cast_ascend         P = P32                       f16 or bf16 out
// Element-wise ones take rows, or parts of one, through UB: two buffers in, two out, arithmetic in fp32.
// Bound: GM (2 + 2 bytes a score, the mask 2 more from L2, the softmax 2 + 4, the cast 4 + 2); Vector 2 to 5 cycles for
// 64 elements.
#include "softmax_rows.h"

namespace {

using namespace AscendC;
using fa_passes::Deal;
using fa_passes::Least;
using fa_passes::Most;
using fa_passes::RoundUp;

enum Pass { kMask, kScale, kAdd, kCast };

// Rows [row, row + rows) and columns [column, column + columns) of a matrix.
struct Piece {
  int64_t matrix, row, column;
  int32_t rows, columns, pitch;
};

class Pieces {
 public:
  Piece piece;
  bool is_valid;

  __aicore__ inline void Begin(const fa_ascend_passes &t, int64_t matrices, int64_t elements) {
    columns_ = Least(t.columns, elements);
    across_ = columns_ ? (t.columns + columns_ - 1) / columns_ : 0;
    // No more rows at a time than give every core some.
    const int64_t share = (matrices * t.rows + GetBlockNum() - 1) / GetBlockNum();
    rows_ = Most(Least(Least(elements / RoundUp(Most(columns_, 1), fa_passes::kAligned), share), 1024), 1);
    down_ = (t.rows + rows_ - 1) / rows_;
    deal_.Begin(matrices * down_ * across_);
    Place(t);
  }
  __aicore__ inline void Next(const fa_ascend_passes &t) {
    deal_.Next();
    Place(t);
  }

 private:
  __aicore__ inline void Place(const fa_ascend_passes &t) {
    is_valid = deal_.IsValid();
    if (!is_valid) return;
    const int64_t line = deal_.item / across_;
    piece.matrix = line / down_;
    piece.row = line % down_ * rows_;
    piece.column = deal_.item % across_ * columns_;
    piece.rows = static_cast<int32_t>(Least(rows_, t.rows - piece.row));
    piece.columns = static_cast<int32_t>(Least(columns_, t.columns - piece.column));
    piece.pitch = static_cast<int32_t>(RoundUp(piece.columns, fa_passes::kAligned));
  }

  Deal deal_;
  int64_t rows_, columns_, down_, across_;
};

template <typename T, Pass pass>
class Elements {
 public:
  // in: scores, or fp32 weights to cast; out: scores or weights, or the mask.
  __aicore__ inline void Run(const fa_ascend_passes &tiling, GM_ADDR in, GM_ADDR mask, GM_ADDR out) {
    t_ = tiling;
    in_ = (__gm__ In *)in;
    mask_ = (__gm__ T *)mask;
    out_ = (__gm__ T *)out;
    TPipe pipe;
    TBuf<TPosition::VECCALC> ub;
    pipe.InitBuffer(ub, kElements * kBytesEach);
    uint32_t at = 0;
    for (int32_t n = 0; n < 2; ++n) {
      from_[n] = ub.GetWithOffset<In>(kElements, at), at += kElements * sizeof(In);
      to_[n] = ub.GetWithOffset<T>(kElements, at), at += kElements * 2;
      if (pass == kAdd) with_[n] = ub.GetWithOffset<T>(kElements, at), at += kElements * 2;
    }
    if (pass != kCast) work_ = ub.GetWithOffset<float>(kElements, at), at += kElements * 4;
    if (pass == kAdd) other_ = ub.GetWithOffset<float>(kElements, at);
    // Rows of fp32 may end 8 elements before their pitch does, and all of a pitch is cast.
    if (pass == kCast && t_.columns % 16 != 0)
      for (int32_t n = 0; n < 2; ++n) Duplicate(from_[n].template ReinterpretCast<float>(), 0.0f, kElements);
    for (int32_t n = 0; n < 2; ++n) {
      if (pass != kMask) SetFlag<HardEvent::V_MTE2>(n);
      SetFlag<HardEvent::MTE3_V>(n);
    }

    Pieces pieces;
    pieces.Begin(t_, pass == kMask ? (t_.mask_batch ? t_.batch : 1) : static_cast<int64_t>(t_.batch) * t_.heads,
                 kElements);
    int32_t loaded = 0;
    if (pieces.is_valid) Load(pieces.piece, loaded++ % 2);
    for (int32_t n = 0; pieces.is_valid; ++n) {
      const Piece piece = pieces.piece;
      pieces.Next(t_);
      if (pieces.is_valid) Load(pieces.piece, loaded++ % 2);
      Compute(piece, n % 2);
    }
    for (int32_t n = 0; n < 2; ++n) {
      if (pass != kMask) WaitFlag<HardEvent::V_MTE2>(n);
      WaitFlag<HardEvent::MTE3_V>(n);
    }
  }

 private:
  using In = typename fa_passes::Chosen<pass == kCast, float, T>::Type;
  static constexpr int32_t kElements = pass == kAdd ? 9216 : 15360;
  static constexpr int32_t kBytesEach = pass == kAdd ? 20 : 12;

  __aicore__ inline void Load(const Piece &piece, int32_t n) {
    if (pass == kMask) return;
    const int64_t matrix = pass == kCast ? t_.y_matrix : t_.x_matrix, row = pass == kCast ? t_.y_row : t_.x_row;
    WaitFlag<HardEvent::V_MTE2>(n);
    fa_passes::RowsIn(from_[n], in_ + (piece.matrix * matrix + piece.row * row + piece.column), row, piece.rows,
                      piece.columns, piece.pitch);
    if (pass == kAdd)
      fa_passes::RowsIn(with_[n],
                        mask_ + (piece.matrix / t_.heads * t_.mask_batch + piece.row * t_.mask_row + piece.column),
                        t_.mask_row, piece.rows, piece.columns, piece.pitch);
    SetFlag<HardEvent::MTE2_V>(n);
  }

  __aicore__ inline void Compute(const Piece &piece, int32_t n) {
    const int32_t count = piece.rows * piece.pitch;
    if (pass != kMask) WaitFlag<HardEvent::MTE2_V>(n);
    if (pass == kMask || pass == kCast) WaitFlag<HardEvent::MTE3_V>(n);
    if (pass == kMask) {
      Draw(work_, piece);
    } else if (pass == kCast) {
      Narrow(to_[n], from_[n].template ReinterpretCast<float>(), count);
    } else {
      Cast(work_, from_[n].template ReinterpretCast<T>(), RoundMode::CAST_NONE, static_cast<uint32_t>(count));
      if (pass == kAdd) Cast(other_, with_[n], RoundMode::CAST_NONE, static_cast<uint32_t>(count));
      PipeBarrier<PIPE_V>();
      if (pass == kAdd) Add(work_, work_, other_, count);
      else Muls(work_, work_, t_.scale, count);
      PipeBarrier<PIPE_V>();
      WaitFlag<HardEvent::MTE3_V>(n);
    }
    if (pass != kCast) Narrow(to_[n], work_, count);
    if (pass != kMask) SetFlag<HardEvent::V_MTE2>(n);
    SetFlag<HardEvent::V_MTE3>(n);
    WaitFlag<HardEvent::V_MTE3>(n);
    const int64_t matrix = pass == kMask ? t_.mask_batch : t_.x_matrix, row = pass == kMask ? t_.mask_row : t_.x_row;
    fa_passes::RowsOut(out_ + (piece.matrix * matrix + piece.row * row + piece.column), to_[n], row, piece.rows,
                       piece.columns, piece.pitch);
    SetFlag<HardEvent::MTE3_V>(n);
    PipeBarrier<PIPE_V>();
  }

  __aicore__ inline void Narrow(const LocalTensor<T> &to, const LocalTensor<float> &from, int32_t count) {
    Cast(to, from, RoundMode::CAST_RINT, static_cast<uint32_t>(count));
  }

  // Rows of the mask: 0, then -inf before and behind what a row keeps. A row's parts are filled from 64 elements on.
  __aicore__ inline void Draw(const LocalTensor<float> &to, const Piece &piece) {
    Duplicate(to, 0.0f, piece.rows * piece.pitch);
    PipeBarrier<PIPE_V>();
    for (int32_t side = 0; side < 2; ++side) {
      for (int32_t n = 0; n < piece.rows; ++n) {
        const int64_t row = piece.row + n, behind = piece.column + piece.columns;
        const int64_t begin = Least(Most(row + t_.band_lower, piece.column), behind) - piece.column;
        const int64_t end = Most(Least(row + t_.band_upper + 1, behind) - piece.column, begin);
        const LocalTensor<float> line = to[n * piece.pitch];
        if (side == 0) fa_passes::Fill(line, 0, static_cast<int32_t>(begin), fa_passes::kMinusInfinity);
        else fa_passes::Fill(line, static_cast<int32_t>(end), piece.columns, fa_passes::kMinusInfinity);
      }
      PipeBarrier<PIPE_V>();
    }
  }

  fa_ascend_passes t_;
  __gm__ In *in_;
  __gm__ T *mask_, *out_;
  LocalTensor<In> from_[2];
  LocalTensor<T> to_[2], with_[2];
  LocalTensor<float> work_, other_;
};

template <Pass pass>
__aicore__ inline void Run(GM_ADDR in, GM_ADDR mask, GM_ADDR out, GM_ADDR tiling) {
  const fa_ascend_passes t = fa_passes::ReadTiling(tiling);
  SetCtrlSpr<48, 48>(1); // infinities and NaN stay what they are in f16 and bf16
  if (t.is_bf16) Elements<bfloat16_t, pass>().Run(t, in, mask, out);
  else Elements<half, pass>().Run(t, in, mask, out);
  SetCtrlSpr<48, 48>(0);
}

} // namespace

// mask: written, [1 or batch][S_q][S_kv] of the input type. workspace is not used by any of these.
extern "C" __global__ __aicore__ void fa_eager_mask_tensor_ascend(GM_ADDR mask, GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  (void)workspace;
  if ASCEND_IS_AIV
    Run<kMask>(mask, mask, mask, tiling);
}

// x: S, read and written.
extern "C" __global__ __aicore__ void fa_eager_scale_ascend(GM_ADDR x, GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  (void)workspace;
  if ASCEND_IS_AIV
    Run<kScale>(x, x, x, tiling);
}

// x: S, read and written; mask: read.
extern "C" __global__ __aicore__ void fa_eager_add_ascend(GM_ADDR x, GM_ADDR mask, GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  (void)workspace;
  if ASCEND_IS_AIV
    Run<kAdd>(x, mask, x, tiling);
}

// x: S, read; y: P in fp32, written; lse: not read if the tiling has none. The tiling's band keeps everything, its
// block_rows are 0.
extern "C" __global__ __aicore__ void fa_eager_softmax_ascend(GM_ADDR x, GM_ADDR y, GM_ADDR lse, GM_ADDR workspace,
                                                              GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  (void)workspace;
  if ASCEND_IS_AIV {
    const fa_ascend_passes t = fa_passes::ReadTiling(tiling);
    SetCtrlSpr<48, 48>(1);
    if (t.is_bf16) fa_passes::SoftmaxRows<bfloat16_t, true>().Run(t, x, y, lse);
    else fa_passes::SoftmaxRows<half, true>().Run(t, x, y, lse);
    SetCtrlSpr<48, 48>(0);
  }
}

// y: P in fp32, read; x: P in the input type, written.
extern "C" __global__ __aicore__ void fa_eager_cast_ascend(GM_ADDR y, GM_ADDR x, GM_ADDR workspace, GM_ADDR tiling) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  (void)workspace;
  if ASCEND_IS_AIV
    Run<kCast>(y, y, x, tiling);
}
