/* Attention on plain multiply-adds: o = softmax(rules(scale q k^T)) v for every type, feature, head size and stride.
 *
 * Rows of a KV head are packed (parts.cuh); a block of 8 warps has 8 RW rows, a warp RW of them, and walks 32 keys at a
 * time. Level 1: K and q in chunks of 64 dims, then V in chunks of 128 columns, as fp32 in shared memory. Level 2: RW
 * rows x 32 keys a warp: in q k^T a lane has one key (16 bytes of it against RW broadcasts of q), in p v a lane has
 * columns lane, lane + 32, .. (a broadcast of RW weights against 4 columns).
 *   RW 8: 64 rows, head_dim_v to 128;  RW 4: 32 rows, to 256;  RW 2: 16 rows, to 640: o is 32 to 40 registers.
 * Shared memory: 33 KB at RW 8, 20 KB at RW 2.
 * Exact: a key that is not kept weighs 0 and is stepped over; one that is kept weighs at least 1e-30.
 * P stays in fp32. Bound: arithmetic, 2 multiply-adds a score and dim. Not run: times. */
#ifndef FA_CUDA_ANY_PREFILL_ANY_CUH
#define FA_CUDA_ANY_PREFILL_ANY_CUH

#include "cuda/any/parts.cuh"

enum { FA_ANY_WARPS = 8, FA_ANY_KEYS = 32, FA_ANY_CHUNK = 64, FA_ANY_CHUNK_V = 128, FA_ANY_PAD = 4 };

template <class E>
struct __align__(4 * sizeof(E)) fa_four {
  E x[4];
};

/* Elements 0 .. 3 of `left`, zeros behind. `whole`: `from` is aligned to four elements. */
template <class E>
FA_DEVICE float4 fa_load_four(const E *from, int left, bool whole) {
  if (whole && left >= 4) {
    const fa_four<E> x = *(const fa_four<E> *)from;
    return make_float4(fa_float(x.x[0]), fa_float(x.x[1]), fa_float(x.x[2]), fa_float(x.x[3]));
  }
  return make_float4(left > 0 ? fa_float(from[0]) : 0.0f, left > 1 ? fa_float(from[1]) : 0.0f,
                     left > 2 ? fa_float(from[2]) : 0.0f, left > 3 ? fa_float(from[3]) : 0.0f);
}

/* A call, so that what the rules need does not sit in registers through the loop over keys. */
static __device__ __noinline__ float fa_rules_apart(const fa_cuda_params &p, int b, int h, int i, int j, float dot) {
  return fa_apply_rules(p, fa_sequence_of(p, b), h, i, j, dot);
}

template <class T, class KV, int RW, int CHUNKS_V>
FA_DEVICE void fa_attend_any(const fa_cuda_params &p) {
  constexpr int ROWS = FA_ANY_WARPS * RW, THREADS = FA_ANY_WARPS * 32;
  constexpr int K_STRIDE = FA_ANY_CHUNK + FA_ANY_PAD; /* 8 lanes' 16 bytes of 8 keys fall on 32 banks */
  constexpr int K_FLOATS = FA_ANY_KEYS * K_STRIDE, Q_FLOATS = ROWS * FA_ANY_CHUNK;
  constexpr int V_FLOATS = FA_ANY_KEYS * FA_ANY_CHUNK_V;
  __shared__ __align__(16) float near[K_FLOATS + Q_FLOATS > V_FLOATS ? K_FLOATS + Q_FLOATS : V_FLOATS];
  __shared__ __align__(16) float weights[FA_ANY_WARPS][FA_ANY_KEYS][RW];
  __shared__ int queries[ROWS], heads[ROWS]; /* query -1: no such row; here for want of registers */
  float *k_near = near, *q_near = near + K_FLOATS, *v_near = near;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const fa_item item = fa_item_of(p);
  const fa_sequence s = fa_sequence_of(p, item.batch);
  const int count = p.group * s.seqlen_q, first_row = item.tile * ROWS;
  if (first_row >= count) return;
  const bool whole = p.aligned, is_scaled = p.kv_dtype != p.dtype, has_rules = fa_has_rules(p);

  int begin, end, low, high;
  fa_part_keys(p, s, item.part, begin, end);
  fa_band_rows(p, s, fa_divide(first_row, p.by_group), fa_divide(min(first_row + ROWS - 1, count - 1), p.by_group), low, high);
  begin = max(begin, low), end = min(end, high);

  float max_score[RW], sum[RW], o[RW][4 * CHUNKS_V];
#pragma unroll
  for (int r = 0; r < RW; ++r) {
    max_score[r] = -CUDART_INF_F, sum[r] = 0.0f;
#pragma unroll
    for (int n = 0; n < 4 * CHUNKS_V; ++n) o[r][n] = 0.0f;
  }

  if (threadIdx.x < ROWS) {
    const int row = first_row + threadIdx.x;
    fa_unpack_row(p, item.kv_head, row, queries[threadIdx.x], heads[threadIdx.x]);
    if (row >= count) queries[threadIdx.x] = -1;
  }
  __syncthreads();

  for (int key = begin; key < end; key += FA_ANY_KEYS) {
    float score[RW];
#pragma unroll
    for (int r = 0; r < RW; ++r) score[r] = 0.0f;
    for (int dim = 0; dim < p.head_dim_qk; dim += FA_ANY_CHUNK) {
      __syncthreads();
      for (int n = threadIdx.x; n < FA_ANY_KEYS * FA_ANY_CHUNK / 4; n += THREADS) {
        const int j = n / (FA_ANY_CHUNK / 4), d = n % (FA_ANY_CHUNK / 4) * 4, left = p.head_dim_qk - dim - d;
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (key + j < end && left > 0)
          x = fa_load_four((const KV *)p.k.data + fa_token_offset(p, s, p.k, item.kv_head, key + j) + dim + d, left, whole);
        *(float4 *)(k_near + j * K_STRIDE + d) = x;
      }
#pragma unroll 1 /* registers */
      for (int n = threadIdx.x; n < ROWS * FA_ANY_CHUNK / 4; n += THREADS) {
        const int r = n / (FA_ANY_CHUNK / 4), d = n % (FA_ANY_CHUNK / 4) * 4, left = p.head_dim_qk - dim - d;
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (queries[r] >= 0 && left > 0)
          x = fa_load_four((const T *)p.q.data + fa_row_offset(p, s, p.q, heads[r], queries[r]) + dim + d, left, whole);
        *(float4 *)(q_near + r * FA_ANY_CHUNK + d) = x;
      }
      __syncthreads();
#pragma unroll(RW == 8 ? 1 : 2)
      for (int d = 0; d < FA_ANY_CHUNK; d += 4) {
        const float4 k = *(const float4 *)(k_near + lane * K_STRIDE + d);
#pragma unroll
        for (int r = 0; r < RW; ++r) {
          const float4 q = *(const float4 *)(q_near + (warp * RW + r) * FA_ANY_CHUNK + d);
          score[r] = fmaf(q.x, k.x, score[r]);
          score[r] = fmaf(q.y, k.y, score[r]);
          score[r] = fmaf(q.z, k.z, score[r]);
          score[r] = fmaf(q.w, k.w, score[r]);
        }
      }
    }

    const int j = key + lane;
    const float k_scale = is_scaled && j < end ? fa_scale_at(p, s, p.k_scale, item.kv_head, j) : 1.0f;
#pragma unroll
    for (int r = 0; r < RW; ++r) weights[warp][lane][r] = score[r] * k_scale;
#pragma unroll 1
    for (int r = 0; r < RW; ++r) {
      const int query = queries[warp * RW + r], head = heads[warp * RW + r];
      float x = -CUDART_INF_F;
      if (query >= 0 && j < end) {
        fa_band_row(p, s, query, low, high);
        if (j >= low && j < high) {
          x = weights[warp][lane][r];
          x = has_rules ? fa_rules_apart(p, item.batch, head, query, j, x) : x * p.scale;
        }
      }
      weights[warp][lane][r] = x;
    }
#pragma unroll
    for (int r = 0; r < RW; ++r) {
      const float x = weights[warp][lane][r];
      float most = x;
#pragma unroll
      for (int across = 16; across; across /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, across));
      most = fmaxf(most, max_score[r]);
      const float reference = most == -CUDART_INF_F ? 0.0f : most; /* lets a NaN through to the sum */
      const float down = exp2f((max_score[r] - reference) * FA_LOG2E), weight = exp2f((x - reference) * FA_LOG2E);
      sum[r] = sum[r] * down + weight;
      max_score[r] = most;
      weights[warp][lane][r] = x == -CUDART_INF_F ? 0.0f : weight < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : weight;
      if (down != 1.0f) {
        const float o_down = down < FA_LEAST_WEIGHT ? FA_LEAST_WEIGHT : down;
#pragma unroll
        for (int n = 0; n < 4 * CHUNKS_V; ++n) o[r][n] *= o_down;
      }
    }
    __syncwarp();

#pragma unroll
    for (int chunk = 0; chunk < CHUNKS_V; ++chunk) {
      if (chunk * FA_ANY_CHUNK_V >= p.head_dim_v) break;
      __syncthreads();
      for (int n = threadIdx.x; n < FA_ANY_KEYS * FA_ANY_CHUNK_V / 4; n += THREADS) {
        const int token = n / (FA_ANY_CHUNK_V / 4), d = chunk * FA_ANY_CHUNK_V + n % (FA_ANY_CHUNK_V / 4) * 4;
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (key + token < end && d < p.head_dim_v) {
          x = fa_load_four((const KV *)p.v.data + fa_token_offset(p, s, p.v, item.kv_head, key + token) + d,
                           p.head_dim_v - d, whole);
          if (is_scaled) {
            const float scale = fa_scale_at(p, s, p.v_scale, item.kv_head, key + token);
            x.x *= scale, x.y *= scale, x.z *= scale, x.w *= scale;
          }
        }
        *(float4 *)(v_near + token * FA_ANY_CHUNK_V + n % (FA_ANY_CHUNK_V / 4) * 4) = x;
      }
      __syncthreads();
#pragma unroll 2
      for (int token = 0; token < FA_ANY_KEYS; ++token) {
        float weight[RW], v[4];
#pragma unroll
        for (int r = 0; r < RW; ++r) weight[r] = weights[warp][token][r];
#pragma unroll
        for (int n = 0; n < 4; ++n) v[n] = v_near[token * FA_ANY_CHUNK_V + n * 32 + lane];
#pragma unroll
        for (int r = 0; r < RW; ++r)
          if (weight[r] != 0.0f) {
#pragma unroll
            for (int n = 0; n < 4; ++n) o[r][chunk * 4 + n] = fmaf(weight[r], v[n], o[r][chunk * 4 + n]);
          }
      }
    }
  }

#pragma unroll
  for (int r = 0; r < RW; ++r) {
    const int query = queries[warp * RW + r], head = heads[warp * RW + r];
    if (query < 0) break;
#pragma unroll
    for (int across = 16; across; across /= 2) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], across);
    float lse;
    const float *sink = p.splits == 1 && p.sinks ? p.sinks + head : nullptr;
    const float inverse = fa_finish_row(max_score[r], sum[r], sink, lse);
    const int64_t to = p.splits > 1 ? fa_part_row(p, s, item.part, head, query) * p.head_dim_v
                                    : fa_row_offset(p, s, p.o, head, query);
#pragma unroll
    for (int n = 0; n < 4 * CHUNKS_V; ++n) {
      if (n * 32 + lane >= p.head_dim_v) break;
      const float value = o[r][n] * inverse;
      if (p.splits > 1)
        p.split_o[to + n * 32 + lane] = value;
      else
        fa_store((T *)p.o.data + to + n * 32 + lane, value);
    }
    if (lane == 0) fa_write_end(p, s, item.part, head, query, max_score[r], sum[r], lse);
  }
}

#define FA_ANY_KERNEL(name, T, KV, RW, CHUNKS_V)                                                                    \
  extern "C" __global__ void __launch_bounds__(FA_ANY_WARPS * 32, 2) name(const __grid_constant__ fa_cuda_params p) { \
    fa_attend_any<T, KV, RW, CHUNKS_V>(p);                                                                          \
  }

#endif
