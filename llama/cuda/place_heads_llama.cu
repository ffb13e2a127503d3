/* Heads of rows of the stacked query-key-value product put where attention reads them:
 *   x + bias;  q, k: x / sqrt(mean(x^2) + epsilon) * norm;  q, k: pairs (a, b) of the first rotary_dim elements become
 *   (a cos - b sin, b cos + a sin) at the row's position;  rounded to dtype
 *   q [rows, heads_q, head_dim_qk];  k, v: page slots[row] / page_size, slot slots[row] % page_size of
 *   [pages, heads_kv, page_size, head_dim]
 * `lanes` lanes of a warp work on one head, eight elements each at a time; the head passes through shared memory, where
 * the pair's other half and the norm's sum find it. A negative slot stores no k and v. Dynamic shared memory: 4 bytes an
 * element of the heads a block holds. Heads of any size; those in whole chunks go to place_rows_llama.cu. Bound:
 * bandwidth, 2 * rows * columns of qkv * bytes of dtype. */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 128 };

extern __shared__ float staged[];

struct placed_head {
  int dim;           /* 0: nothing to do */
  int64_t column;    /* of qkv */
  const float *norm; /* NULL: none */
  bool is_rotated;
  int64_t to; /* element of q, k or v; negative: not stored */
};

template <typename T> FA_DEVICE placed_head head_at(const fa_place_params &p, int64_t row, int head, T *&to) {
  placed_head h = {};
  if (head < p.heads_q) {
    h.dim = p.head_dim_qk;
    h.column = (int64_t)head * p.head_dim_qk;
    h.norm = p.q_norm;
    h.is_rotated = true;
    h.to = (row * p.heads_q + head) * p.head_dim_qk;
    to = (T *)p.q;
    return h;
  }
  const bool is_key = head < p.heads_q + p.heads_kv;
  const int kv_head = head - p.heads_q - (is_key ? 0 : p.heads_kv), slot = p.slots[row];
  h.dim = is_key ? p.head_dim_qk : p.head_dim_v;
  h.column = ((int64_t)p.heads_q + (is_key ? 0 : p.heads_kv)) * p.head_dim_qk + (int64_t)kv_head * h.dim;
  h.norm = is_key ? p.k_norm : nullptr;
  h.is_rotated = is_key;
  h.to = slot < 0 ? -1 : (((int64_t)(slot / p.page_size) * p.heads_kv + kv_head) * p.page_size + slot % p.page_size) * h.dim;
  to = (T *)(is_key ? p.k : p.v);
  return h;
}

/* Element d of a staged head, rotated. */
FA_DEVICE float rotated(const fa_place_params &p, const float *head, const float *table, int d) {
  const int half = p.rotary_dim / 2;
  const int pair = p.rotary_interleaved ? d / 2 : d < half ? d : d - half;
  const bool is_first = p.rotary_interleaved ? d % 2 == 0 : d < half;
  const int partner = p.rotary_interleaved ? d ^ 1 : is_first ? d + half : d - half;
  const float2 turn = ((const float2 *)table)[pair];
  return is_first ? head[d] * turn.x - head[partner] * turn.y : head[d] * turn.x + head[partner] * turn.y;
}

template <bool ALIGNED, typename T> FA_DEVICE void place(const fa_place_params &p) {
  const int lane = threadIdx.x % p.lanes, group = threadIdx.x / p.lanes, groups = THREADS / p.lanes;
  const unsigned item = blockIdx.x * groups + group;
  const int64_t columns = (int64_t)(p.heads_q + p.heads_kv) * p.head_dim_qk + (int64_t)p.heads_kv * p.head_dim_v;
  float *head = staged + (int64_t)group * max(p.head_dim_qk, p.head_dim_v);
  const int64_t row = item / (unsigned)p.heads;
  T *to = nullptr;
  placed_head h = {}; /* lanes without one still take part in what the warp does together */
  if (row < p.rows) h = head_at(p, row, (int)(item % (unsigned)p.heads), to);

  float squares = 0.0f;
  for (int d = lane * EIGHT; d < h.dim; d += p.lanes * EIGHT) {
    eight_floats x = load_eight<ALIGNED>((const T *)p.qkv + row * columns + h.column, d, h.dim);
    if (p.bias) {
      const eight_floats bias = load_eight<ALIGNED>(p.bias + h.column, d, h.dim);
#pragma unroll
      for (int e = 0; e < EIGHT; ++e) x.x[e] += bias.x[e];
    }
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) squares += x.x[e] * x.x[e];
    store_eight<ALIGNED>(head, d, h.dim, x);
  }
  for (int step = p.lanes / 2; step; step >>= 1) squares += __shfl_xor_sync(0xffffffffu, squares, step);
  __syncwarp();
  if (h.norm) {
    const float factor = 1.0f / sqrtf(squares / (float)h.dim + p.norm_epsilon);
    for (int d = lane * EIGHT; d < h.dim; d += p.lanes * EIGHT) {
      eight_floats x = load_eight<ALIGNED>((const float *)head, d, h.dim);
      const eight_floats weight = load_eight<ALIGNED>(h.norm, d, h.dim);
#pragma unroll
      for (int e = 0; e < EIGHT; ++e) x.x[e] = x.x[e] * factor * weight.x[e];
      store_eight<ALIGNED>(head, d, h.dim, x);
    }
  }
  __syncwarp();
  if (h.to < 0) return;
  const int turned = h.is_rotated ? p.rotary_dim : 0;
  const float *table = turned ? p.rotary + (int64_t)max(p.positions[row], 0) * p.rotary_dim : nullptr;
  for (int d = lane * EIGHT; d < h.dim; d += p.lanes * EIGHT) {
    eight_floats x;
#pragma unroll
    for (int e = 0; e < EIGHT; ++e)
      x.x[e] = d + e < turned ? rotated(p, head, table, d + e) : d + e < h.dim ? head[d + e] : 0.0f;
    store_eight<ALIGNED>(to + h.to, d, h.dim, x);
  }
}

template <typename T> FA_DEVICE void place_any(const fa_place_params &p) {
  if (p.aligned)
    place<true, T>(p);
  else
    place<false, T>(p);
}

FA_LLAMA_KERNELS(place_heads, fa_place_params, THREADS, place_any<T>(p))
