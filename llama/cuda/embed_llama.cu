/* Rows picked out of a table:
 *   embed       y[i] = scale * table[index[i]]    table of dtype, y fp32
 *   pick_rows   the same of an fp32 table
 * Grid x: blocks of 4096 columns, y: rows. Four columns a thread at a time, so that a warp's stores are whole lines (eight
 * would leave holes between the 16-byte stores); four times, all loads before the first store. Bound: bandwidth,
 * rows * width * (4 + bytes of dtype). */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 256, FOUR = 4, TIMES = 4 };

template <typename T> struct alignas(FOUR * sizeof(T)) packed_four {
  T x[FOUR];
};

template <bool ALIGNED, typename T> FA_DEVICE void copy_row(const fa_embed_params &p, int64_t row) {
  const int64_t begin = ((int64_t)blockIdx.x * THREADS * TIMES + threadIdx.x) * FOUR;
  const int64_t index = max((int64_t)0, min((int64_t)p.index[row], p.table_rows - 1));
  const T *from = (const T *)p.table + index * p.width;
  float *to = p.y + row * p.width;
  if constexpr (ALIGNED) {
    packed_four<T> loaded[TIMES];
#pragma unroll
    for (int n = 0; n < TIMES; ++n) {
      const int64_t at = min(begin + n * THREADS * FOUR, p.width - FOUR); /* no branch between the loads */
      loaded[n] = *(const packed_four<T> *)(from + at);
    }
#pragma unroll
    for (int n = 0; n < TIMES; ++n) {
      const int64_t at = begin + n * THREADS * FOUR;
      packed_four<float> scaled;
#pragma unroll
      for (int e = 0; e < FOUR; ++e) scaled.x[e] = to_float(loaded[n].x[e]) * p.scale;
      if (at < p.width) *(packed_four<float> *)(to + at) = scaled;
    }
  } else {
    for (int n = 0; n < TIMES; ++n)
      for (int e = 0; e < FOUR; ++e) {
        const int64_t at = begin + n * THREADS * FOUR + e;
        if (at < p.width) to[at] = to_float(from[at]) * p.scale;
      }
  }
}

template <typename T> FA_DEVICE void copy_rows(const fa_embed_params &p) {
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    if (p.aligned)
      copy_row<true, T>(p, row);
    else
      copy_row<false, T>(p, row);
  }
}

FA_LLAMA_KERNELS(embed_rows, fa_embed_params, THREADS, copy_rows<T>(p))
