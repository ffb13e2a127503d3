/* What the kernels of this folder share: packed rows, parts of the keys, elements of any type, the last step of a row.
 *
 * Rows of one KV head are packed: row r is query r / group of query head kv_head * group + r % group, so that all rows
 * that share K and V sit side by side and rows that are near in r are near in the band. */
#ifndef FA_CUDA_ANY_PARTS_CUH
#define FA_CUDA_ANY_PARTS_CUH

#include "cuda/sequence.cuh"

/* However little a kept key weighs, an infinity or NaN in its V arrives; nothing else can tell 1e-30 from 0. */
#define FA_LEAST_WEIGHT 1e-30f

/* What one block works on: x = ((batch * heads_kv + kv_head) * tiles + tile) * splits + part. Parts of the same rows lie
 * side by side: they may be a cluster. */
struct fa_item {
  int batch, kv_head, part, tile;
};

FA_DEVICE fa_item fa_item_of(const fa_cuda_params &p) {
  const int pair = blockIdx.x, row = fa_divide(pair, p.by_splits), head = fa_divide(row, p.by_tiles);
  fa_item item;
  item.part = pair - row * p.splits;
  item.tile = row - head * (int)p.by_tiles.value;
  item.batch = fa_divide(head, p.by_heads_kv);
  item.kv_head = head - item.batch * p.heads_kv;
  return item;
}

/* Query and head of packed row `row` of a KV head. */
FA_DEVICE void fa_unpack_row(const fa_cuda_params &p, int kv_head, int row, int &query, int &head) {
  query = fa_divide(row, p.by_group);
  head = kv_head * p.group + row - query * p.group;
}

/* Keys of part `part`: the keys that any query of the entry keeps, cut into equal parts of whole split_tiles. Taken
 * from the actual lengths, so that every part of a plan for 256K tokens has work at 4K. */
FA_DEVICE void fa_part_keys(const fa_cuda_params &p, const fa_sequence &s, int part, int &begin, int &end) {
  int first, last;
  fa_band_rows(p, s, 0, s.seqlen_q - 1, first, last);
  const int keys = max(last - first, 0);
  const int each = fa_divide(keys + p.splits - 1, p.by_splits);
  const int length = fa_divide(each + p.split_tile - 1, p.by_split_tile) * p.split_tile;
  begin = first + min((int64_t)part * length, (int64_t)keys);
  end = first + min((int64_t)(part + 1) * length, (int64_t)keys);
}

/* In place of a part: the whole row, to o and lse. */
enum { FA_WHOLE = -1 };

/* Row of split_o and split_sums, part included. */
FA_DEVICE int64_t fa_part_row(const fa_cuda_params &p, const fa_sequence &s, int part, int h, int i) {
  const int64_t rows = (int64_t)p.batch * p.heads_q * p.max_seqlen_q;
  return part * rows + ((int64_t)s.batch * p.heads_q + h) * p.max_seqlen_q + i;
}

/* ------------------------------------------------------------------ elements */

struct fa_i8 {
  int8_t value;
};
struct fa_f8 {
  uint8_t value;
};

FA_DEVICE float fa_float(float x) { return x; }
FA_DEVICE float fa_float(__half x) { return __half2float(x); }
FA_DEVICE float fa_float(__nv_bfloat16 x) { return __bfloat162float(x); }
FA_DEVICE float fa_float(fa_i8 x) { return (float)x.value; }
FA_DEVICE float fa_float(fa_f8 x) {
  const unsigned magnitude = x.value & 0x7fu;
  /* The exponent field moves to fp32's place and 2^120 makes up for the bias, subnormals included. */
  const float value = magnitude == 0x7fu ? CUDART_NAN_F : __uint_as_float(magnitude << 20) * 0x1p120f;
  return x.value & 0x80u ? -value : value;
}

FA_DEVICE void fa_store(float *to, float x) { *to = x; }
FA_DEVICE void fa_store(__half *to, float x) { *to = __float2half_rn(x); }
FA_DEVICE void fa_store(__nv_bfloat16 *to, float x) { *to = __float2bfloat16_rn(x); }

FA_DEVICE float fa_load_any(const void *data, int64_t at, int dtype) {
  switch (dtype) {
    case FA_F32: return ((const float *)data)[at];
    case FA_F16: return fa_float(((const __half *)data)[at]);
    case FA_BF16: return fa_float(((const __nv_bfloat16 *)data)[at]);
    case FA_I8: return fa_float(((const fa_i8 *)data)[at]);
    default: return fa_float(((const fa_f8 *)data)[at]);
  }
}

FA_DEVICE void fa_store_any(void *data, int64_t at, int dtype, float x) {
  switch (dtype) {
    case FA_F32: fa_store((float *)data + at, x); break;
    case FA_F16: fa_store((__half *)data + at, x); break;
    default: fa_store((__nv_bfloat16 *)data + at, x); break;
  }
}

FA_DEVICE float fa_scale_at(const fa_cuda_params &p, const fa_sequence &s, const fa_cuda_tensor &t, int h, int j) {
  return ((const float *)t.data)[fa_token_offset(p, s, t, h, j)];
}

/* --------------------------------------------------------- the end of a row */

/* A NaN is taken and stays. */
FA_DEVICE float fa_max_sticky(float max, float x) { return max == max && !(x <= max) ? x : max; }

/* What a row's unnormalised o is to be multiplied with, and its lse, from the maximum and the sum of its weights
 * (natural units). The sink joins where this is the whole row (`sink` not NULL). `sum` may be NaN. */
FA_DEVICE float fa_finish_row(float max, float sum, const float *sink, float &lse) {
  const float raised = sink ? fa_max_sticky(max, *sink) : max;
  if (raised == -CUDART_INF_F) {
    lse = sum == sum ? -CUDART_INF_F : CUDART_NAN_F;
    return sum == sum ? 0.0f : CUDART_NAN_F;
  }
  float weight = max == -CUDART_INF_F ? 0.0f : exp2f((max - raised) * FA_LOG2E);
  float total = sum * weight;
  if (sink) total += exp2f((*sink - raised) * FA_LOG2E);
  lse = raised + logf(total);
  if (max != -CUDART_INF_F) weight = weight < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : weight;
  return weight / total;
}

/* How a finished row ends, to where this part or run leaves it: lse, or maximum and sum apart, since the lse of very large
 * scores has no digit left for the sum. One thread a row. */
FA_DEVICE void fa_write_end(const fa_cuda_params &p, const fa_sequence &s, int part, int h, int i, float max, float sum,
                            float lse) {
  if (p.splits > 1 && part != FA_WHOLE)
    p.split_sums[fa_part_row(p, s, part, h, i)] = {max == -CUDART_INF_F ? lse : max, sum}; /* lse: NaN stays NaN */
  else if (p.lse)
    p.lse[fa_lse_offset(p, s, h, i)] = lse;
}

#endif
