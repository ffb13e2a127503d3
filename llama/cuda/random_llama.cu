/* Weights to measure with: to[i] = deviation * normal(seed, i), by counter, so that nothing but i and the seed decides a
 * value. Bound: bandwidth, count * bytes of dtype (and about 40 instructions an element). */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 256 };

/* splitmix64's finaliser: every bit of the counter reaches every bit of the result. */
FA_DEVICE uint64_t mixed(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/* Two normal values from one counter (Box and Muller). */
FA_DEVICE float2 two_normal(uint64_t seed, uint64_t counter) {
  const uint64_t bits = mixed(mixed(seed + 0x9e3779b97f4a7c15u) + counter * 0x9e3779b97f4a7c15u);
  const float u = (float)((uint32_t)(bits >> 40) + 1u) * 0x1p-24f, angle = (float)(uint32_t)(bits & 0xffffffu) * 0x1p-23f;
  const float radius = sqrtf(-2.0f * logf(u));
  float sine, cosine;
  sincospif(angle, &sine, &cosine);
  return make_float2(radius * cosine, radius * sine);
}

template <typename T> FA_DEVICE void fill(const fa_random_params &p) {
  const int64_t pairs = (p.count + 1) / 2, step = (int64_t)gridDim.x * THREADS;
  for (int64_t pair = (int64_t)blockIdx.x * THREADS + threadIdx.x; pair < pairs; pair += step) {
    const float2 x = two_normal(p.seed, (uint64_t)pair);
    ((T *)p.to)[2 * pair] = from_float<T>(x.x * p.deviation);
    if (2 * pair + 1 < p.count) ((T *)p.to)[2 * pair + 1] = from_float<T>(x.y * p.deviation);
  }
}

FA_LLAMA_KERNELS(random_normal, fa_random_params, THREADS, fill<T>(p))
