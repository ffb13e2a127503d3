/* The passes of unfused attention on the GPU, between the two matrix products of cuBLAS.
 *
 *   standard: one pass reads S, applies rules and band, takes the softmax in fp32, writes P in place. What the band masks
 *     is not read, only written as zeros.
 *   eager: a pass each for scale, for adding a full S_q x S_kv mask of the input type, for softmax to fp32, and for the
 *     cast back, as a framework runs it; all over the full matrix.
 *
 * A block of threads is a row. A thread holds groups of neighbouring keys, of 16 bytes in the wider of the types a pass
 * reads and writes, so that a warp's accesses are whole lines; all its loads are under way before the first is used.
 * Softmax holds its row in registers in the type it came in and takes each exponential twice (sum, then output), which
 * is cheaper than the registers of fp32 copies: with those fewer rows are under way. Rules make other values of the
 * scores, which are held in fp32. Rows of more than 32768 keys are read again for each sweep, from the L2 cache.
 *
 * Bound: bandwidth. Bytes a score of 16 bits: standard 4 (causal: 3), eager 4 (scale) + 4 (add; the mask comes from the
 * L2 cache, the rows of all heads that add it run together) + 6 (softmax) + 6 (cast), and the mask's writing. */
#include "cuda/baseline_params.h"
#include "cuda/sequence.cuh"

template <typename T> FA_DEVICE float to_float(T x);
template <> __device__ __forceinline__ float to_float(float x) { return x; }
template <> __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
template <> __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> FA_DEVICE T from_float(float x);
template <> __device__ __forceinline__ float from_float(float x) { return x; }
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }

/* N neighbouring elements at once. */
template <typename T, int N> struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) neighbours {
  T x[N];
};

/* Of a group, so that the wider of two types takes 16 bytes. */
template <typename A, typename B>
constexpr int group_of = 16 / (int)(sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B));

/* Of all threads of the block; `scratch` has 32 floats that nothing else of the kernel uses. */
template <typename F> FA_DEVICE float reduce(float x, float *scratch, F combine, float neutral) {
  for (int step = 16; step; step >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : neutral;
  for (int step = 16; step; step >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
FA_DEVICE float reduce_maximum(float x, float *scratch) {
  return reduce(x, scratch, [](float a, float b) { return fmaxf(a, b); }, -CUDART_INF_F);
}
FA_DEVICE float reduce_sum(float x, float *scratch) {
  return reduce(x, scratch, [](float a, float b) { return a + b; }, 0.0f);
}

struct row_place {
  int b, h, i;
  int64_t at; /* element of scores */
};
FA_DEVICE row_place place_of(const fa_baseline_params &w, int i, int pair_of_block) {
  const int pair = w.first + pair_of_block;
  row_place place = {pair / w.run.heads_q, pair % w.run.heads_q, i, 0};
  place.at = ((int64_t)pair_of_block * w.run.max_seqlen_q + i) * w.scores_width;
  return place;
}
FA_DEVICE row_place place_of(const fa_baseline_params &w) { return place_of(w, (int)blockIdx.x, (int)blockIdx.y); }

FA_DEVICE void write_lse(const fa_baseline_params &w, const row_place &place, float maximum, float sum) {
  if (!w.run.lse || threadIdx.x) return;
  const fa_sequence s = fa_sequence_of(w.run, place.b);
  w.run.lse[fa_lse_offset(w.run, s, place.h, place.i)] = sum == 0.0f ? -CUDART_INF_F : maximum + logf(sum); /* NaN stays */
}

enum softmax_kind {
  PLAIN, /* standard: the band and sinks */
  RULES, /* the same, and what fa_apply_rules has */
  WIDE   /* eager: the scores as they are, P in fp32 */
};

template <bool FIRST, typename A, typename B> struct either { using type = A; };
template <typename A, typename B> struct either<false, A, B> { using type = B; };

/* VALUES keys a thread; 0: any number, and the row is read again for each sweep. */
template <typename T, int VALUES, softmax_kind KIND> FA_DEVICE void softmax_row(const fa_baseline_params &w) {
  using OUT = typename either<KIND == WIDE, float, T>::type;
  using KEPT = typename either<KIND == RULES, float, T>::type;
  constexpr int N = group_of<T, OUT>, HELD = VALUES / N;
  __shared__ float scratch[2][32];
  const fa_cuda_params &p = w.run;
  const row_place place = place_of(w);
  const fa_sequence s = fa_sequence_of(p, place.b);
  int begin = 0, end = p.max_seqlen_kv;
  if constexpr (KIND != WIDE) fa_band_row(p, s, place.i, begin, end);
  const neighbours<T, N> *row = (const neighbours<T, N> *)((const T *)w.scores + place.at);
  neighbours<OUT, N> *out = (neighbours<OUT, N> *)((KIND == WIDE ? (OUT *)w.wide : (OUT *)w.scores) + place.at);
  const int groups = (p.max_seqlen_kv + N - 1) / N;
  const int first = begin / N, last = begin < end ? (end + N - 1) / N : first; /* groups with a key to keep */
  const int first_read = begin < end ? first : 0;

  auto is_read = [&](int g) { return g >= first && g < last; };
  auto scores = [&](int g, const neighbours<T, N> &loaded) {
    neighbours<KEPT, N> kept;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const int j = g * N + e;
      const bool is_kept = j >= begin && j < end;
      if constexpr (KIND == RULES) /* p.scale is 1: the product has it already */
        kept.x[e] = is_kept ? fa_apply_rules(p, s, place.h, place.i, j, to_float(loaded.x[e])) : -CUDART_INF_F;
      else
        kept.x[e] = is_kept ? loaded.x[e] : from_float<T>(-CUDART_INF_F);
    }
    return kept;
  };
  auto larger = [](float maximum, const neighbours<KEPT, N> &kept) {
#pragma unroll
    for (int e = 0; e < N; ++e) maximum = fmaxf(maximum, to_float(kept.x[e]));
    return maximum;
  };
  auto weight = [](KEPT score, float shift) { return fa_exp2((to_float(score) - shift) * FA_LOG2E); };
  auto added = [&](float sum, const neighbours<KEPT, N> &kept, float shift) {
#pragma unroll
    for (int e = 0; e < N; ++e) sum += weight(kept.x[e], shift);
    return sum;
  };
  auto scaled = [&](const neighbours<KEPT, N> &kept, float shift, float factor) {
    neighbours<OUT, N> result;
#pragma unroll
    for (int e = 0; e < N; ++e) result.x[e] = from_float<OUT>(weight(kept.x[e], shift) * factor);
    return result;
  };

  const float sink = KIND != WIDE && p.sinks ? p.sinks[place.h] : -CUDART_INF_F;
  neighbours<KEPT, N> held[VALUES ? HELD : 1];
  float maximum = sink;
  if constexpr (VALUES != 0) {
    neighbours<T, N> loaded[HELD];
#pragma unroll
    for (int n = 0; n < HELD; ++n) {
      const int g = n * blockDim.x + threadIdx.x;
      loaded[n] = row[is_read(g) ? g : first_read]; /* no branch between the loads */
    }
#pragma unroll
    for (int n = 0; n < HELD; ++n) {
      const int g = n * blockDim.x + threadIdx.x;
      if (!is_read(g)) continue;
      held[n] = scores(g, loaded[n]);
      maximum = larger(maximum, held[n]);
    }
  } else {
#pragma unroll 4
    for (int g = first + threadIdx.x; g < last; g += blockDim.x) maximum = larger(maximum, scores(g, row[g]));
  }
  maximum = reduce_maximum(maximum, scratch[0]);
  const float shift = maximum == -CUDART_INF_F ? 0.0f : maximum;
  float sum = 0.0f;
  if constexpr (VALUES != 0) {
#pragma unroll
    for (int n = 0; n < HELD; ++n)
      if (is_read(n * blockDim.x + threadIdx.x)) sum = added(sum, held[n], shift);
  } else {
#pragma unroll 4
    for (int g = first + threadIdx.x; g < last; g += blockDim.x) sum = added(sum, scores(g, row[g]), shift);
  }
  sum = reduce_sum(sum, scratch[1]);
  if (KIND != WIDE && p.sinks) sum += exp2f((sink - shift) * FA_LOG2E);
  write_lse(w, place, maximum, sum);
  const float inverse = sum > 0.0f ? 1.0f / sum : sum == 0.0f ? 0.0f : sum; /* NaN stays */
  const float masked = sum != sum ? sum : 0.0f;
  neighbours<OUT, N> zeros;
#pragma unroll
  for (int e = 0; e < N; ++e) zeros.x[e] = from_float<OUT>(masked);
  if constexpr (VALUES != 0) {
#pragma unroll
    for (int n = 0; n < HELD; ++n) {
      const int g = n * blockDim.x + threadIdx.x;
      if (g < groups) out[g] = is_read(g) ? scaled(held[n], shift, inverse) : zeros;
    }
  } else {
#pragma unroll 4
    for (int g = threadIdx.x; g < groups; g += blockDim.x)
      out[g] = is_read(g) ? scaled(scores(g, row[g]), shift, inverse) : zeros;
  }
}

/* ------------------------------------------------------------- eager's passes, element by element */

/* UNROLL groups a thread at once: all loads, then all stores. */
template <int UNROLL, typename LOAD, typename STORE> FA_DEVICE void sweep(int groups, LOAD load, STORE store) {
  for (int first = threadIdx.x; first < groups; first += UNROLL * blockDim.x) {
    decltype(load(0)) held[UNROLL];
#pragma unroll
    for (int n = 0; n < UNROLL; ++n)
      held[n] = load(min(first + n * (int)blockDim.x, groups - 1)); /* no branch between the loads */
#pragma unroll
    for (int n = 0; n < UNROLL; ++n)
      if (first + n * (int)blockDim.x < groups) store(first + n * blockDim.x, held[n]);
  }
}

template <typename T> FA_DEVICE void scale_pass(const fa_baseline_params &w) {
  constexpr int N = group_of<T, T>;
  neighbours<T, N> *row = (neighbours<T, N> *)((T *)w.scores + place_of(w).at);
  sweep<4>((w.run.max_seqlen_kv + N - 1) / N, [&](int g) { return row[g]; }, [&](int g, neighbours<T, N> x) {
#pragma unroll
    for (int e = 0; e < N; ++e) x.x[e] = from_float<T>(to_float(x.x[e]) * w.run.scale);
    row[g] = x;
  });
}

template <typename T> FA_DEVICE void mask_pass(const fa_baseline_params &w) {
  constexpr int N = group_of<T, T>;
  int begin, end;
  fa_band_row(w.run, fa_sequence_of(w.run, (int)blockIdx.y), (int)blockIdx.x, begin, end);
  T *mask = (T *)w.mask + ((int64_t)blockIdx.y * w.run.max_seqlen_q + blockIdx.x) * w.scores_width;
  for (int g = threadIdx.x; g * N < w.run.max_seqlen_kv; g += blockDim.x) {
    neighbours<T, N> x;
#pragma unroll
    for (int e = 0; e < N; ++e) x.x[e] = from_float<T>(g * N + e >= begin && g * N + e < end ? 0.0f : -CUDART_INF_F);
    ((neighbours<T, N> *)mask)[g] = x;
  }
}

/* Grid: one row of all pairs after another, so that these meet their mask's row in the L2 cache. */
template <typename T> FA_DEVICE void add_pass(const fa_baseline_params &w) {
  constexpr int N = group_of<T, T>;
  struct score_and_mask {
    neighbours<T, N> score, mask;
  };
  const row_place place = place_of(w, (int)(blockIdx.x / w.count), (int)(blockIdx.x % w.count));
  const int entry = w.run.seqlens_kv ? place.b : 0, keys = fa_sequence_of(w.run, place.b).seqlen_kv;
  neighbours<T, N> *row = (neighbours<T, N> *)((T *)w.scores + place.at);
  const neighbours<T, N> *mask =
      (const neighbours<T, N> *)((const T *)w.mask + ((int64_t)entry * w.run.max_seqlen_q + place.i) * w.scores_width);
  /* Behind the sequence anything may lie, and adding to a NaN does not mask it. */
  sweep<2>((w.run.max_seqlen_kv + N - 1) / N, [&](int g) { return score_and_mask{row[g], mask[g]}; },
           [&](int g, score_and_mask x) {
#pragma unroll
             for (int e = 0; e < N; ++e)
               x.score.x[e] = from_float<T>(g * N + e < keys ? to_float(x.score.x[e]) + to_float(x.mask.x[e]) : -CUDART_INF_F);
             row[g] = x.score;
           });
}

template <typename T> FA_DEVICE void cast_pass(const fa_baseline_params &w) {
  constexpr int N = group_of<float, T>;
  const int64_t at = place_of(w).at;
  const neighbours<float, N> *from = (const neighbours<float, N> *)(w.wide + at);
  neighbours<T, N> *to = (neighbours<T, N> *)((T *)w.scores + at);
  sweep<4>((w.run.max_seqlen_kv + N - 1) / N, [&](int g) { return from[g]; }, [&](int g, const neighbours<float, N> &x) {
    neighbours<T, N> rounded;
#pragma unroll
    for (int e = 0; e < N; ++e) rounded.x[e] = from_float<T>(x.x[e]);
    to[g] = rounded;
  });
}

/* ------------------------------------------------------------- operands */

/* Rows of `source` [batch, seq, heads, dim] into the dense tensor run.q, or back. Grid y: heads, z: batch entries. */
template <typename T> FA_DEVICE void copy_rows(const fa_baseline_params &w, bool back) {
  const fa_cuda_tensor &dense = w.run.q, &strided = w.source;
  const int h = blockIdx.y, b = blockIdx.z, step = w.source_whole ? 16 / (int)sizeof(T) : 1;
  const int per_row = (w.run.head_dim_qk + step - 1) / step;
  const unsigned n = blockIdx.x * blockDim.x + threadIdx.x;
  const int i = (int)(n / per_row), d = (int)(n % per_row) * step;
  if (i >= w.source_rows) return;
  T *packed = (T *)dense.data + b * dense.stride_batch + i * dense.stride_seq + h * dense.stride_head + d;
  T *given = (T *)strided.data + b * strided.stride_batch + i * strided.stride_seq + h * strided.stride_head + d;
  const bool is_behind = w.source_ends && i >= fa_sequence_of(w.run, b).seqlen_kv;
  if (w.source_whole) {
    const uint4 x = is_behind ? make_uint4(0, 0, 0, 0) : *(const uint4 *)(back ? packed : given);
    *(uint4 *)(back ? given : packed) = x;
  } else {
    const T x = is_behind ? from_float<T>(0.0f) : back ? *packed : *given;
    *(back ? given : packed) = x;
  }
}

template <typename T> FA_DEVICE const void *head_of(const fa_cuda_tensor &t, int b, int h) {
  return (const T *)t.data + b * t.stride_batch + h * t.stride_head;
}

template <typename T> FA_DEVICE void find_operands(const fa_baseline_params &w) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= w.count) return;
  const int pair = w.first + n, b = pair / w.run.heads_q, h = pair % w.run.heads_q;
  w.q_rows[n] = head_of<T>(w.run.q, b, h);
  w.k_rows[n] = head_of<T>(w.run.k, b, h / w.run.group);
  w.v_rows[n] = head_of<T>(w.run.v, b, h / w.run.group);
  w.o_rows[n] = (void *)head_of<T>(w.run.o, b, h);
  w.score_blocks[n] = (T *)w.scores + (int64_t)n * w.run.max_seqlen_q * w.scores_width;
}

/* The threads that a block may have (baseline_cuda.c's numbers) and the blocks that a multiprocessor is to hold, which
 * gives the registers, for 1024 threads of a multiprocessor (sm_75 has no more); most take fewer. */
#define KERNEL(name, type, threads, blocks, call)                                                                          \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name##_##type(const __grid_constant__ fa_baseline_params w) { \
    call;                                                                                                                  \
  }
#define SOFTMAX(name, type, T, KIND)                               \
  KERNEL(name##_8, type, 128, 8, (softmax_row<T, 8, KIND>(w)))    \
  KERNEL(name##_16, type, 512, 2, (softmax_row<T, 16, KIND>(w)))  \
  KERNEL(name##_32, type, 1024, 1, (softmax_row<T, 32, KIND>(w))) \
  KERNEL(name##_any, type, 1024, 1, (softmax_row<T, 0, KIND>(w)))
#define KERNELS(type, T)                                       \
  SOFTMAX(baseline_softmax, type, T, PLAIN)                    \
  SOFTMAX(baseline_softmax_rules, type, T, RULES)              \
  SOFTMAX(baseline_wide_softmax, type, T, WIDE)                \
  KERNEL(baseline_scale, type, 256, 4, scale_pass<T>(w))       \
  KERNEL(baseline_mask, type, 256, 4, mask_pass<T>(w))         \
  KERNEL(baseline_add, type, 256, 4, add_pass<T>(w))           \
  KERNEL(baseline_cast, type, 256, 4, cast_pass<T>(w))         \
  KERNEL(baseline_pack, type, 256, 4, copy_rows<T>(w, false))  \
  KERNEL(baseline_unpack, type, 256, 4, copy_rows<T>(w, true)) \
  KERNEL(baseline_operands, type, 256, 4, find_operands<T>(w))
KERNELS(f32, float)
KERNELS(f16, __half)
KERNELS(bf16, __nv_bfloat16)
