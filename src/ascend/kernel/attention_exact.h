// Rows of attention computed alone, by the Vector unit in fp32. Part of attention_ascend.cpp.
//
//   m = max_j s_j over the row's own keys, s_j = scale q . k_j     o = sum_j exp(s_j - m) v_j / l     lse = m + ln l
//
// A tile multiplies every row's P with every key's V, and 0 times infinity is NaN: a NaN or infinity in the V of a key that some rows
// drop, or that weighs 0, gets into all rows of the tile. Rows that came out not finite, or whose scores are beyond anything
// sensible, are done again here from the keys they keep and no others, so that infinities and NaN arrive exactly where IEEE
// arithmetic takes them: a NaN or +inf score makes the row NaN, a key of score -inf is no key, and a key that is kept brings an
// infinity of its V with it however little it weighs.
//
// Two passes over the keys, four at a time, one vector instruction after the other: some 600 cycles a key. UB: a free buffer of
// scores, 11 KB of it: q and o [256] fp32, K or V [4][256] as they come and as fp32. Bound: latency; it is not meant to be fast.
#ifndef FA_ASCEND_ATTENTION_EXACT_H
#define FA_ASCEND_ATTENTION_EXACT_H

#include "attention_piece.h"

constexpr int32_t kKeysAtOnce = 4;
constexpr float kLeastWeight = 1e-35f; // still normal after it is divided by as many parts as there may be

// Exponent bits all ones: NaN or an infinity.
__aicore__ inline bool AttentionIsFinite(int32_t bits) { return (static_cast<uint32_t>(bits) & 0x7f800000u) != 0x7f800000u; }

template <typename T>
class AttentionExact {
 public:
  __aicore__ inline void Begin(const fa_ascend_attention *t, const AttentionWork *work, const AttentionArguments &arguments) {
    t_ = t;
    work_ = work;
    q_ = (__gm__ T *)arguments.q;
    k_ = (__gm__ T *)arguments.k;
    v_ = (__gm__ T *)arguments.v;
    dim_q_ = fa_ascend_up(t->head_dim_qk, kLanes);
    dim_v_ = fa_ascend_up(t->head_dim_v, kLanes);
  }

  // o and lse of a row into the first head_dim_v elements and the first element of what it returns; `spare`: FA_ASCEND_ROW_SCRATCH
  // bytes. Nothing is under way in any pipe before it or behind it.
  __aicore__ inline void Row(const AttentionItem &item, int32_t row, const LocalTensor<float> &spare) {
    LayOut(spare);
    AttentionFill(spare, 0.0f, FA_ASCEND_ROW_SCRATCH / 256);
    PipeBarrier<PIPE_ALL>();
    AttentionLoadRows(raw_k_, q_ + work_->RowOffset(t_->q, item, row), 1, t_->head_dim_qk, 0, dim_q_);
    PipeBarrier<PIPE_ALL>();
    Cast(q, raw_k_, RoundMode::CAST_NONE, static_cast<uint32_t>(t_->head_dim_qk));

    int32_t begin, end;
    work_->KeysOfRow(item, row, begin, end);
    float most = 0.0f;
    bool has_key = false, is_nan = false;
    for (int32_t key = begin; key < end && !is_nan;) {
      const int32_t keys = ScoresFrom(item, key, end);
      const LocalTensor<int32_t> bits = scores_.template ReinterpretCast<int32_t>();
      for (int32_t n = 0; n < keys; ++n) {
        const int32_t b = bits.GetValue(static_cast<uint32_t>(n));
        if (static_cast<uint32_t>(b) == kMinusInfinity) continue;
        is_nan = is_nan || !AttentionIsFinite(b);
        const float score = scores_.GetValue(static_cast<uint32_t>(n));
        if (!has_key || score > most) most = score;
        has_key = true;
      }
      key += keys;
    }
    if (is_nan || !has_key) {
      const uint32_t value = is_nan ? kNan : 0, value_lse = is_nan ? kNan : kMinusInfinity;
      Duplicate(o.template ReinterpretCast<int32_t>(), static_cast<int32_t>(value), dim_v_);
      Duplicate(lse.template ReinterpretCast<int32_t>(), static_cast<int32_t>(value_lse), kLanes);
      PipeBarrier<PIPE_ALL>();
      return;
    }

    float sum = 0.0f;
    for (int32_t key = begin; key < end;) {
      const int32_t keys = ScoresFrom(item, key, end);
      Adds(scores_, scores_, -most, kLanes);
      PipeBarrier<PIPE_V>();
      Exp(weights_, scores_, kLanes);
      LoadTokens(raw_v_, v_, t_->v, item, key, keys, t_->head_dim_v, dim_v_);
      PipeBarrier<PIPE_ALL>();
      Cast(wide_, raw_v_, RoundMode::CAST_NONE, static_cast<uint32_t>(keys * dim_v_));
      PipeBarrier<PIPE_V>();
      const LocalTensor<int32_t> bits = scores_.template ReinterpretCast<int32_t>();
      for (int32_t n = 0; n < keys; ++n) {
        if (static_cast<uint32_t>(bits.GetValue(static_cast<uint32_t>(n))) == kMinusInfinity) continue;
        const float weight = weights_.GetValue(static_cast<uint32_t>(n));
        const LocalTensor<float> value = wide_[static_cast<uint32_t>(n * dim_v_)];
        sum += weight;
        Muls(value, value, weight < kLeastWeight ? kLeastWeight : weight, dim_v_);
        PipeBarrier<PIPE_V>();
        Add(o, o, value, dim_v_);
        PipeBarrier<PIPE_V>();
      }
      key += keys;
    }
    Muls(o, o, 1.0f / sum, dim_v_);
    Duplicate(lse, sum, kLanes);
    PipeBarrier<PIPE_V>();
    Ln(lse, lse, kLanes);
    PipeBarrier<PIPE_V>();
    Adds(lse, lse, most, kLanes);
    PipeBarrier<PIPE_ALL>();
  }

  LocalTensor<float> o, lse; // of the last row
  // Room for o as the output's type.
  __aicore__ inline LocalTensor<T> Narrow() const { return raw_v_; }

 private:
  __aicore__ inline void LayOut(const LocalTensor<float> &spare) {
    constexpr uint32_t dim = 256, keys = kKeysAtOnce;
    q = spare;
    o = spare[dim];
    scores_ = spare[2 * dim];
    weights_ = spare[2 * dim + kLanes];
    lse = spare[2 * dim + 2 * kLanes];
    wide_ = spare[3 * dim];
    folded_ = spare[(3 + keys) * dim];
    raw_k_ = spare[(4 + keys) * dim].template ReinterpretCast<T>();
    raw_v_ = spare[(4 + keys + keys / 2) * dim].template ReinterpretCast<T>();
  }

  // Up to four keys or values from token `key` on.
  __aicore__ inline void LoadTokens(const LocalTensor<T> &to, __gm__ T *from, const fa_ascend_strides &s, const AttentionItem &item,
                                    int32_t key, int32_t keys, int32_t columns, int32_t pitch) {
    for (int32_t n = 0; n < keys;) {
      const int32_t whole_run = work_->Run(item, key + n), run = whole_run < keys - n ? whole_run : keys - n;
      const int64_t at = work_->TokenOffset(s, item, key + n, work_->Page(item, key + n));
      AttentionLoadRows(to[static_cast<uint32_t>(n * pitch)], from + at, run, columns, s.seq, pitch);
      n += run;
    }
  }

  // Scores of the keys from `key` on, at most four and none from `end` on; how many. The scalar unit may read them.
  __aicore__ inline int32_t ScoresFrom(const AttentionItem &item, int32_t key, int32_t end) {
    const int32_t keys = end - key < kKeysAtOnce ? end - key : kKeysAtOnce;
    const uint8_t pitch = static_cast<uint8_t>(dim_q_ / 8);
    PipeBarrier<PIPE_ALL>();
    LoadTokens(raw_k_, k_, t_->k, item, key, keys, t_->head_dim_qk, dim_q_);
    PipeBarrier<PIPE_ALL>();
    Cast(wide_, raw_k_, RoundMode::CAST_NONE, static_cast<uint32_t>(keys * dim_q_));
    PipeBarrier<PIPE_V>();
    for (int32_t d = 0; d < dim_q_; d += kLanes) {
      const LocalTensor<float> column = wide_[static_cast<uint32_t>(d)];
      Mul(column, column, q[static_cast<uint32_t>(d)], static_cast<uint64_t>(kLanes), static_cast<uint8_t>(keys),
          BinaryRepeatParams(1, 1, 1, pitch, pitch, 0));
    }
    PipeBarrier<PIPE_V>();
    BlockReduceSum(folded_, wide_, keys * dim_q_ / kLanes, kLanes, 1, 1, 8);
    PipeBarrier<PIPE_V>();
    WholeReduceSum(scores_, folded_, dim_q_ / 8, keys, 1, 1, dim_q_ / kLanes);
    PipeBarrier<PIPE_V>();
    Muls(scores_, scores_, t_->scale, kLanes);
    PipeBarrier<PIPE_ALL>();
    return keys;
  }

  const fa_ascend_attention *t_;
  const AttentionWork *work_;
  __gm__ T *q_, *k_, *v_;
  int32_t dim_q_, dim_v_;
  LocalTensor<float> q, scores_, weights_, wide_, folded_;
  LocalTensor<T> raw_k_, raw_v_;
};

#endif
