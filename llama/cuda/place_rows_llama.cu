/* What place_heads_llama.cu does, for heads in whole chunks: head sizes and rotary_dim multiples of 16, at most 512, all
 * pointers aligned. Same numbers but for the order of the norm's sum.
 *
 * A block is a row, or with few rows a part of its heads. p.lanes lanes of a warp work on one head and then on others of
 * the row; a lane has two chunks of eight elements, one in each half of the rotary part (or of what is behind it), so that
 * both elements of a pair are its own, and their cosines and sines stay in its registers for all heads of the row. The
 * next head's loads are under way while one is turned and stored. Bound: bandwidth, 2 * rows * columns of qkv * bytes of
 * dtype. */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 256 };

template <typename T> struct raw_chunks {
  packed_eight<T> x[2];
};

struct head_place {
  int column; /* of a row of qkv */
  int64_t to; /* element of q, k or v; negative: not stored */
  bool is_query, is_value;
};

FA_DEVICE head_place head_at(const fa_place_params &p, int64_t row, int slot, int head) {
  head_place h;
  h.is_query = head < p.heads_q;
  h.is_value = head >= p.heads_q + p.heads_kv;
  const int kv_head = head - p.heads_q - (h.is_value ? p.heads_kv : 0);
  if (h.is_query) {
    h.column = head * p.head_dim_qk;
    h.to = (row * p.heads_q + head) * p.head_dim_qk;
  } else {
    const int dim = h.is_value ? p.head_dim_v : p.head_dim_qk;
    h.column = (p.heads_q + (h.is_value ? p.heads_kv : 0)) * p.head_dim_qk + kv_head * dim;
    h.to = slot < 0 ? -1
                    : (((int64_t)(slot / p.page_size) * p.heads_kv + kv_head) * p.page_size + slot % p.page_size) * dim;
  }
  return h;
}

/* Where lane `lane` has its two chunks of a head of `dim` elements, of which `turned` are rotary; false: it has none. */
FA_DEVICE bool chunks_at(int lane, int dim, int turned, int at[2]) {
  const int pairs = turned / (2 * EIGHT), half = (lane < pairs ? turned : dim - turned) / 2;
  at[0] = lane < pairs ? lane * EIGHT : turned + (lane - pairs) * EIGHT;
  at[1] = at[0] + half;
  return lane < dim / (2 * EIGHT);
}

template <typename T> FA_DEVICE eight_floats floats_of(const packed_eight<T> &raw) {
  eight_floats out;
#pragma unroll
  for (int e = 0; e < EIGHT; ++e) out.x[e] = to_float(raw.x[e]);
  return out;
}

/* (cos, sin) of this lane's eight pairs. */
struct turns {
  float2 x[EIGHT];
};

FA_DEVICE turns turns_at(const fa_place_params &p, const float *table, const int at[2]) {
  turns t;
  const int first = p.rotary_interleaved ? at[0] / 2 : at[0];
  const int second = p.rotary_interleaved ? at[1] / 2 : at[0] + EIGHT / 2;
#pragma unroll
  for (int e = 0; e < EIGHT; e += 2) {
    const int pair = e < EIGHT / 2 ? first + e : second + e - EIGHT / 2;
    const float4 two = *(const float4 *)(table + 2 * pair);
    t.x[e] = make_float2(two.x, two.y);
    t.x[e + 1] = make_float2(two.z, two.w);
  }
  return t;
}

FA_DEVICE void turn(float &a, float &b, float2 by) {
  const float first = a * by.x - b * by.y;
  b = b * by.x + a * by.y;
  a = first;
}

FA_DEVICE void turn_chunks(bool is_interleaved, eight_floats x[2], const turns &by) {
  if (is_interleaved) {
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) turn(x[e / 4].x[e % 4 * 2], x[e / 4].x[e % 4 * 2 + 1], by.x[e]);
  } else {
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) turn(x[0].x[e], x[1].x[e], by.x[e]);
  }
}

template <typename T> FA_DEVICE void place_row(const fa_place_params &p, int64_t row) {
  const int lane = threadIdx.x % p.lanes, groups = THREADS / p.lanes, step = groups * gridDim.y;
  const int64_t columns = (int64_t)(p.heads_q + p.heads_kv) * p.head_dim_qk + (int64_t)p.heads_kv * p.head_dim_v;
  const T *qkv = (const T *)p.qkv + row * columns;
  int at_qk[2], at_v[2];
  const bool has_qk = chunks_at(lane, p.head_dim_qk, p.rotary_dim, at_qk), has_v = chunks_at(lane, p.head_dim_v, 0, at_v);
  const bool is_turned = lane < p.rotary_dim / (2 * EIGHT);
  const int slot = p.slots[row];

  auto load = [&](int head) {
    raw_chunks<T> raw = {};
    if (head >= p.heads) return raw;
    const head_place h = head_at(p, row, slot, head);
    if (h.is_value ? has_v : has_qk) {
#pragma unroll
      for (int c = 0; c < 2; ++c) raw.x[c] = *(const packed_eight<T> *)(qkv + h.column + (h.is_value ? at_v[c] : at_qk[c]));
    }
    return raw;
  };

  int head = blockIdx.y * groups + threadIdx.x / p.lanes;
  raw_chunks<T> next = load(head);
  turns by = {};
  if (is_turned) by = turns_at(p, p.rotary + (int64_t)max(p.positions[row], 0) * p.rotary_dim, at_qk);
  /* A warp's lanes go round together: the norm's sum is taken by all of them. */
  for (int round = blockIdx.y * groups; round < p.heads; round += step, head += step) {
    const raw_chunks<T> raw = next;
    next = load(head + step);
    const bool is_there = head < p.heads;
    const head_place h = head_at(p, row, slot, min(head, p.heads - 1));
    const bool has = is_there && (h.is_value ? has_v : has_qk);
    const int at[2] = {h.is_value ? at_v[0] : at_qk[0], h.is_value ? at_v[1] : at_qk[1]};
    eight_floats x[2] = {floats_of(raw.x[0]), floats_of(raw.x[1])};
    if (p.bias && has) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const eight_floats bias = load_eight<true>(p.bias + h.column, at[c], 0);
#pragma unroll
        for (int e = 0; e < EIGHT; ++e) x[c].x[e] += bias.x[e];
      }
    }
    if (p.q_norm || p.k_norm) {
      float squares = 0.0f;
#pragma unroll
      for (int e = 0; e < 2 * EIGHT; ++e) squares += x[e / EIGHT].x[e % EIGHT] * x[e / EIGHT].x[e % EIGHT];
      for (int s = p.lanes / 2; s; s >>= 1) squares += __shfl_xor_sync(0xffffffffu, squares, s);
      const float *norm = h.is_value ? nullptr : h.is_query ? p.q_norm : p.k_norm;
      if (norm && has) {
        const float factor = 1.0f / sqrtf(squares / (float)p.head_dim_qk + p.norm_epsilon);
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const eight_floats weight = load_eight<true>(norm, at[c], 0);
#pragma unroll
          for (int e = 0; e < EIGHT; ++e) x[c].x[e] = x[c].x[e] * factor * weight.x[e];
        }
      }
    }
    if (is_turned && !h.is_value) turn_chunks(p.rotary_interleaved, x, by);
    T *to = (T *)(h.is_query ? p.q : h.is_value ? p.v : p.k);
    if (has && h.to >= 0) {
#pragma unroll
      for (int c = 0; c < 2; ++c) store_eight<true>(to + h.to, at[c], 0, x[c]);
    }
  }
}

FA_LLAMA_KERNELS(place_rows, fa_place_params, THREADS, place_row<T>(p, blockIdx.x))
