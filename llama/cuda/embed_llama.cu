/* Rows picked out of a table:
 *   embed       y[i] = scale * table[index[i]]    table of dtype, y fp32
 *   pick_rows   the same of an fp32 table
 * Grid x: blocks of 2048 columns, y: rows. Bound: bandwidth, rows * width * (4 + bytes of dtype). */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 256 };

template <bool ALIGNED, typename T> FA_DEVICE void copy_row(const fa_embed_params &p, int64_t row) {
  const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EIGHT;
  if (at >= p.width) return;
  const int64_t index = max((int64_t)0, min((int64_t)p.index[row], p.table_rows - 1));
  eight_floats x = load_eight<ALIGNED>((const T *)p.table + index * p.width, at, p.width);
#pragma unroll
  for (int e = 0; e < EIGHT; ++e) x.x[e] *= p.scale;
  store_eight<ALIGNED>(p.y + row * p.width, at, p.width, x);
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
