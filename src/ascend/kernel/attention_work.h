// What a group of cores works on, and in what order: items, their lengths, bands and keys, and the stream of tiles that the AIC
// and both AIVs walk with this same code. Part of attention_ascend.cpp.
//
// An item is (part of the keys, block of rows, head, batch entry); heavy row blocks (the last ones, under a causal band) come
// first, and round n over the groups runs the other way round in odd n, so that two rounds cost every group the same. Query i of
// S_q keeps keys i + S_kv - S_q - left <= j <= i + S_kv - S_q + right. An item's keys are those that any of its rows keeps, cut to
// its part; they are taken level1_keys at a time: the tiles. An item without keys has no tiles.
//
// Memory: GM by the scalar unit only (lengths, page table). Bound: none, a few hundred scalar cycles an item.
#ifndef FA_ASCEND_ATTENTION_WORK_H
#define FA_ASCEND_ATTENTION_WORK_H

#include "ascend/attention_tiling.h"

struct AttentionArguments {
  GM_ADDR q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, seqlens_kv, page_table, mask, workspace;
};

// Flags between an AIC and its AIVs.
enum { kScoresReady = 1, kWeightsReady = 2, kRowsReady = 3 };

// No score of a kept key is as low, unless it is minus infinity or its row is computed alone (attention_exact.h).
constexpr float kMaskedScore = -1e38f;
constexpr int64_t kUnlimited = static_cast<int64_t>(1) << 60;

__aicore__ inline int64_t AttentionLeast(int64_t a, int64_t b) { return a < b ? a : b; }
__aicore__ inline int64_t AttentionMost(int64_t a, int64_t b) { return a > b ? a : b; }
__aicore__ inline int32_t AttentionClamp(int64_t n, int64_t least, int64_t most) {
  return static_cast<int32_t>(AttentionMost(AttentionLeast(n, most), least));
}

struct AttentionItem {
  int64_t lower, upper; // query i keeps keys i + lower to i + upper
  int64_t q_start, kv_start; // of the batch entry in q, o, lse and in k, v: rows if ragged, else none
  int32_t batch, kv_head, head; // head: of queries, the first if the rows are a KV head's query heads
  int32_t row, rows;            // of the sequence's queries, or of the KV head's query heads
  int32_t begin, end;           // keys
  int32_t number;               // of the item, its place in the partial results
};

struct AttentionTile {
  AttentionItem item;
  int32_t key, keys;
  bool is_first, is_last; // of its item
};

class AttentionWork {
 public:
  __aicore__ inline void Begin(const fa_ascend_attention *tiling, const AttentionArguments &arguments, int64_t group,
                               int64_t groups) {
    t_ = tiling;
    cu_seqlens_q_.SetGlobalBuffer((__gm__ int32_t *)arguments.cu_seqlens_q);
    cu_seqlens_kv_.SetGlobalBuffer((__gm__ int32_t *)arguments.cu_seqlens_kv);
    seqlens_kv_.SetGlobalBuffer((__gm__ int32_t *)arguments.seqlens_kv);
    page_table_.SetGlobalBuffer((__gm__ int32_t *)arguments.page_table);
    group_ = group;
    groups_ = groups;
    round_ = 0;
    item_.begin = item_.end = key_ = 0;
    empty_items_ = 0;
  }

  // The next tile of this group; false: there is none.
  __aicore__ inline bool NextTile(AttentionTile &tile) {
    while (key_ >= item_.end) {
      if (!NextItem(item_)) return false;
      key_ = item_.begin;
      if (item_.rows > 0 && item_.begin >= item_.end) ++empty_items_;
    }
    tile.item = item_;
    tile.key = key_;
    tile.keys = static_cast<int32_t>(AttentionLeast(t_->level1_keys, item_.end - key_));
    tile.is_first = key_ == item_.begin;
    key_ += tile.keys;
    tile.is_last = key_ == item_.end;
    return true;
  }

  __aicore__ inline bool NextItem(AttentionItem &item) {
    const int64_t number = round_ * groups_ + (round_ % 2 == 0 ? group_ : groups_ - 1 - group_);
    ++round_;
    if (number >= t_->items) return false;
    Describe(number, item);
    return true;
  }

  // Items with rows but no keys that NextTile came by.
  __aicore__ inline int32_t EmptyItems() const { return empty_items_; }

  // The parts of the same rows are so many items apart.
  __aicore__ inline int64_t PartStride() const {
    return static_cast<int64_t>(t_->batch) * (t_->packs_group ? t_->heads_kv : t_->heads_q);
  }
  // Items but for their part: n of them, and the first part of each.
  __aicore__ inline int64_t WholeItems() const { return t_->items / t_->kv_splits; }
  __aicore__ inline int64_t FirstPart(int64_t whole) const {
    return whole / PartStride() * t_->kv_splits * PartStride() + whole % PartStride();
  }

  __aicore__ inline void Describe(int64_t number, AttentionItem &item) const {
    const int64_t heads = t_->packs_group ? t_->heads_kv : t_->heads_q,
                  blocks = static_cast<int64_t>(t_->row_blocks) * t_->kv_splits;
    const int64_t first_pair = number / (t_->pairs_at_once * blocks) * t_->pairs_at_once;
    const int64_t pairs = AttentionLeast(t_->pairs_at_once, t_->batch * heads - first_pair);
    const int64_t rest = (number - first_pair * blocks) / pairs, pair = first_pair + (number - first_pair * blocks) % pairs;
    item.number = static_cast<int32_t>(number);
    const int32_t head = static_cast<int32_t>(pair % heads);
    item.batch = static_cast<int32_t>(pair / heads);
    const int64_t part = rest % t_->kv_splits, block = t_->row_blocks - 1 - rest / t_->kv_splits;
    item.kv_head = t_->packs_group ? head : head / t_->group;
    item.head = t_->packs_group ? head * t_->group : head;

    const uint64_t entry = static_cast<uint64_t>(item.batch);
    int64_t queries = t_->max_seqlen_q, keys = t_->max_seqlen_kv;
    item.q_start = item.kv_start = 0;
    if (t_->ragged_q) {
      item.q_start = cu_seqlens_q_.GetValue(entry);
      queries = AttentionClamp(cu_seqlens_q_.GetValue(entry + 1) - item.q_start, 0, t_->max_seqlen_q);
    }
    if (t_->ragged_kv) {
      item.kv_start = cu_seqlens_kv_.GetValue(entry);
      keys = AttentionClamp(cu_seqlens_kv_.GetValue(entry + 1) - item.kv_start, 0, t_->max_seqlen_kv);
    }
    if (t_->has_seqlens_kv) keys = AttentionClamp(seqlens_kv_.GetValue(entry), 0, t_->max_seqlen_kv);
    const int64_t offset = keys - queries;
    item.lower = t_->window_left < 0 ? -kUnlimited : offset - t_->window_left;
    item.upper = t_->window_right < 0 ? kUnlimited : offset + t_->window_right;

    item.row = static_cast<int32_t>(block * t_->level1_rows);
    item.rows = AttentionClamp((t_->packs_group ? queries * t_->group : queries) - item.row, 0, t_->level1_rows);
    const int64_t first = FirstQuery(item), last = first + (t_->packs_group ? 1 : item.rows) - 1;
    const int64_t begin = AttentionClamp(first + item.lower, 0, keys), end = AttentionClamp(last + item.upper + 1, 0, keys);
    const int64_t unit = t_->cube_keys, size = ((end - begin + t_->kv_splits - 1) / t_->kv_splits + unit - 1) / unit * unit;
    item.begin = static_cast<int32_t>(begin + part * size < end ? begin + part * size : end);
    item.end = static_cast<int32_t>(AttentionLeast(begin + (part + 1) * size, end));
    if (item.rows == 0 || item.end <= item.begin) item.begin = item.end = 0;
  }

  // Query index of an item's first row; rows that are query heads have one query, 0.
  __aicore__ inline int64_t FirstQuery(const AttentionItem &item) const { return t_->packs_group ? 0 : item.row; }

  // Elements from one row of the item to the next.
  __aicore__ inline int64_t RowStride(const fa_ascend_strides &s) const { return t_->packs_group ? s.head : s.seq; }

  // Element of q or o that row `row` of the item begins at.
  __aicore__ inline int64_t RowOffset(const fa_ascend_strides &s, const AttentionItem &item, int32_t row) const {
    const int64_t start = t_->ragged_q ? item.q_start * s.seq : item.batch * s.batch;
    return start + item.head * s.head + (item.row + static_cast<int64_t>(row)) * RowStride(s);
  }
  __aicore__ inline int64_t LseOffset(const AttentionItem &item, int32_t row) const {
    const int64_t start = t_->ragged_q ? item.q_start : item.batch * t_->lse_batch;
    return start + item.head * t_->lse_head + (item.row + static_cast<int64_t>(row)) * (t_->packs_group ? t_->lse_head : 1);
  }

  // Tokens from `token` on that lie s.seq apart in k and v.
  __aicore__ inline int32_t Run(const AttentionItem &item, int32_t token) const {
    return t_->page_size == 0 ? item.end - token : t_->page_size - token % t_->page_size;
  }
  // Where the page table has the page of a token; the page.
  __aicore__ inline int64_t PageEntry(const AttentionItem &item, int32_t token) const {
    return item.batch * t_->page_table_stride + token / t_->page_size;
  }
  __aicore__ inline int32_t Page(const AttentionItem &item, int32_t token) const {
    return t_->page_size == 0 ? 0 : page_table_.GetValue(static_cast<uint64_t>(PageEntry(item, token)));
  }
  // Element of k or v that a token of that page begins at.
  __aicore__ inline int64_t TokenOffset(const fa_ascend_strides &s, const AttentionItem &item, int32_t token,
                                        int32_t page) const {
    const int64_t head = item.kv_head * s.head;
    if (t_->page_size != 0) return head + page * s.batch + token % t_->page_size * s.seq;
    return head + (t_->ragged_kv ? (item.kv_start + token) * s.seq : item.batch * s.batch + token * s.seq);
  }

  // Rows of an AIV's half: the first one's, rounded up to 8, the rest.
  __aicore__ inline void Half(const AttentionItem &item, int32_t sub_block, int32_t &first, int32_t &rows) const {
    const int32_t upper_half = ((item.rows + 1) / 2 + 7) / 8 * 8;
    const int32_t cut = upper_half < item.rows ? upper_half : item.rows;
    first = sub_block == 0 ? 0 : cut;
    rows = sub_block == 0 ? cut : item.rows - cut;
  }

  // Of rows [first, first + rows) of an item those that keep no key: the first `before` and those from `after` on.
  __aicore__ inline void EmptyRows(const AttentionItem &item, int32_t first, int32_t rows, int32_t &before,
                                   int32_t &after) const {
    if (t_->packs_group || item.begin >= item.end) {
      before = item.begin >= item.end ? rows : 0;
      after = rows;
      return;
    }
    const int64_t query = FirstQuery(item) + first;
    before = AttentionClamp(item.begin - item.upper - query, 0, rows);
    after = AttentionClamp(item.end - item.lower - query, before, rows);
  }

  // The keys that a row of the item keeps.
  __aicore__ inline void KeysOfRow(const AttentionItem &item, int32_t row, int32_t &begin, int32_t &end) const {
    const int64_t query = FirstQuery(item) + (t_->packs_group ? 0 : row);
    begin = AttentionClamp(query + item.lower, item.begin, item.end);
    end = AttentionClamp(query + item.upper + 1, begin, item.end);
  }

 private:
  const fa_ascend_attention *t_;
  GlobalTensor<int32_t> cu_seqlens_q_, cu_seqlens_kv_, seqlens_kv_, page_table_;
  AttentionItem item_; // NextTile is in it
  int64_t group_, groups_, round_;
  int32_t key_, empty_items_;
};

// One Nd2Nz can say strides of 1 to 65535 elements, in GM to UB moves gaps are unsigned.
constexpr int64_t kMostMoveStride = 65535;
constexpr int64_t kMostGap = 0xffffffff;

// rows x bytes from GM to UB, `stride` bytes apart there, `pitch` bytes (a multiple of 32) here; zeros up to the next 32.
template <typename T>
__aicore__ inline void AttentionLoadRows(const LocalTensor<T> &to, __gm__ T *from, int32_t rows, int32_t columns, int64_t stride,
                                         int32_t pitch) {
  constexpr int32_t block = 32 / static_cast<int32_t>(sizeof(T));
  const int32_t whole = (columns + block - 1) / block * block;
  DataCopyPadExtParams<T> pad; // zeros; members, as bfloat16_t may have no conversion from a number
  pad.isPad = whole != columns;
  pad.rightPadding = static_cast<uint8_t>(whole - columns);
  const uint32_t bytes = static_cast<uint32_t>(columns * static_cast<int32_t>(sizeof(T)));
  const int64_t gap = (stride - columns) * static_cast<int64_t>(sizeof(T));
  GlobalTensor<T> source;
  if (rows == 1 || (gap >= 0 && gap <= kMostGap)) {
    source.SetGlobalBuffer(from);
    DataCopyPad(to, source,
                DataCopyExtParams(static_cast<uint16_t>(rows), bytes, rows == 1 ? 0 : static_cast<uint32_t>(gap),
                                  static_cast<uint32_t>((pitch - whole) / block), 0),
                pad);
    return;
  }
  for (int32_t r = 0; r < rows; ++r) {
    source.SetGlobalBuffer(from + r * stride);
    DataCopyPad(to[static_cast<uint32_t>(r * pitch)], source, DataCopyExtParams(1, bytes, 0, 0, 0), pad);
  }
}

// The same way back. pitch and stride: elements.
template <typename T>
__aicore__ inline void AttentionStoreRows(__gm__ T *to, const LocalTensor<T> &from, int32_t rows, int32_t columns, int64_t stride,
                                          int32_t pitch) {
  constexpr int32_t block = 32 / static_cast<int32_t>(sizeof(T));
  const int32_t whole = (columns + block - 1) / block * block;
  const uint32_t bytes = static_cast<uint32_t>(columns * static_cast<int32_t>(sizeof(T)));
  const int64_t gap = (stride - columns) * static_cast<int64_t>(sizeof(T));
  GlobalTensor<T> target;
  if (rows == 1 || (gap >= 0 && gap <= kMostGap)) {
    target.SetGlobalBuffer(to);
    DataCopyPad(target, from,
                DataCopyExtParams(static_cast<uint16_t>(rows), bytes, static_cast<uint32_t>((pitch - whole) / block),
                                  rows == 1 ? 0 : static_cast<uint32_t>(gap), 0));
    return;
  }
  for (int32_t r = 0; r < rows; ++r) {
    target.SetGlobalBuffer(to + r * stride);
    DataCopyPad(target, from[static_cast<uint32_t>(r * pitch)], DataCopyExtParams(1, bytes, 0, 0, 0));
  }
}

#endif
