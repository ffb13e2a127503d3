/* The gate of a feed-forward layer, between its two products:
 *   y = act(z) * u    from rows of z then u; without a gate y = act(z)
 *   silu  z / (1 + exp(-z)),  gelu  z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))
 * Grid x: blocks of 2048 columns, y: rows. Bound: bandwidth, 3 * rows * inner * bytes of dtype (2 without a gate). */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 256 };

template <bool GELU> FA_DEVICE float activated(float z) {
  if constexpr (GELU) return 0.5f * z * (1.0f + tanhf(0.7978845608028654f * (z + 0.044715f * z * z * z)));
  return z / (1.0f + expf(-z));
}

template <bool ALIGNED, bool GELU, typename T> FA_DEVICE void gate_row(const fa_gate_params &p, int64_t row) {
  const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EIGHT;
  if (at >= p.inner) return;
  const T *from = (const T *)p.product + row * p.inner * (p.has_gate ? 2 : 1);
  eight_floats z = load_eight<ALIGNED>(from, at, p.inner);
#pragma unroll
  for (int e = 0; e < EIGHT; ++e) z.x[e] = activated<GELU>(z.x[e]);
  if (p.has_gate) {
    const eight_floats up = load_eight<ALIGNED>(from + p.inner, at, p.inner);
#pragma unroll
    for (int e = 0; e < EIGHT; ++e) z.x[e] *= up.x[e];
  }
  store_eight<ALIGNED>((T *)p.y + row * p.inner, at, p.inner, z);
}

template <bool ALIGNED, bool GELU, typename T> FA_DEVICE void gate_rows(const fa_gate_params &p) {
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) gate_row<ALIGNED, GELU, T>(p, row);
}

template <bool ALIGNED, typename T> FA_DEVICE void gate_any(const fa_gate_params &p) {
  if (p.is_gelu)
    gate_rows<ALIGNED, true, T>(p);
  else
    gate_rows<ALIGNED, false, T>(p);
}

template <typename T> FA_DEVICE void gate_all(const fa_gate_params &p) {
  if (p.aligned)
    gate_any<true, T>(p);
  else
    gate_any<false, T>(p);
}

FA_LLAMA_KERNELS(gate, fa_gate_params, THREADS, gate_all<T>(p))
