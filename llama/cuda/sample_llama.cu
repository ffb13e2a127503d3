/* The next token of each row of logits, a block of threads a row:
 *   penalty      l > 0 ? l / r : l * r for tokens that were seen
 *   temperature  0: the first of the largest; else v = (max - l) / temperature >= 0, weight exp(-v)
 *   top_k        kept: v <= the k-th smallest v (ties kept)
 *   top_p        of what top_k keeps: v <= the least v at which the weights reach top_p of their sum (ties kept)
 *   min_p        kept: weight >= min_p (the best token's is 1)
 *   draw         the first token in vocabulary order at which the sum of kept weights passes uniform * their sum
 *
 * Sums do not depend on the order they are taken in: v is kept as a multiple of 2^-26 (64 and more: as 64, which weighs
 * nothing), weights as multiples of 2^-40, so every sum is one of integers, and the thresholds come from histograms with
 * integer atomics: 11, 11 and 10 bits of v, the first in equal steps of 1/32, over which logits spread well. Two tokens
 * nearer than 2^-26 count as tied.
 *
 * Bound: one multiprocessor's reading of the row from the L2 cache: once for the best token, 3 to 10 times else. */
#include "cuda/vectors_llama.cuh"

enum { THREADS = 1024, WARPS = THREADS / 32, BINS = 2048, MOST_TILES = 1024, ALWAYS_KEPT = 0 };

/* fa_sample_row of operators.h, which is not included in device code. */
struct fa_sample_row {
  float temperature, top_p, min_p, repetition_penalty;
  int32_t top_k;
  float uniform;
};

struct best_token {
  float value;
  int64_t index;
};
FA_DEVICE best_token better(best_token a, best_token b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

struct shared_state {
  unsigned long long bins[BINS]; /* also sums of tiles */
  unsigned long long warps[WARPS];
  float values[WARPS];
  int64_t indices[WARPS];
  unsigned chosen;
  unsigned long long before;
  int64_t token;
};
static __shared__ shared_state shared;

FA_DEVICE best_token best_of_block(best_token best) {
#pragma unroll
  for (int step = 16; step; step >>= 1) {
    const best_token other = {__shfl_xor_sync(0xffffffffu, best.value, step),
                              (int64_t)__shfl_xor_sync(0xffffffffu, (long long)best.index, step)};
    best = better(best, other);
  }
  if (threadIdx.x % 32 == 0) {
    shared.values[threadIdx.x / 32] = best.value;
    shared.indices[threadIdx.x / 32] = best.index;
  }
  __syncthreads();
  best = {shared.values[0], shared.indices[0]};
  for (int w = 1; w < WARPS; ++w) best = better(best, {shared.values[w], shared.indices[w]});
  __syncthreads();
  return best;
}

FA_DEVICE unsigned long long sum_of_warp(unsigned long long x) {
#pragma unroll
  for (int step = 16; step; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/* Sum of x of this lane and those before. */
FA_DEVICE unsigned long long prefix_of_warp(unsigned long long x) {
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) {
    const unsigned long long before = __shfl_up_sync(0xffffffffu, x, step);
    if ((int)(threadIdx.x % 32) >= step) x += before;
  }
  return x;
}

/* The first of `count` shared.bins (at most 2 a thread) at which the sum reaches `need`, the last if none does, and the sum
 * before it. */
FA_DEVICE void first_bin(int count, unsigned long long need, unsigned &bin, unsigned long long &before) {
  const int at = 2 * (int)threadIdx.x;
  const unsigned long long first = at < count ? shared.bins[at] : 0, second = at + 1 < count ? shared.bins[at + 1] : 0;
  unsigned long long sum = prefix_of_warp(first + second);
  if (threadIdx.x % 32 == 31) shared.warps[threadIdx.x / 32] = sum;
  if (threadIdx.x == 0) {
    shared.chosen = (unsigned)count - 1;
    shared.before = 0;
  }
  __syncthreads();
  for (int w = 0; w < (int)(threadIdx.x / 32); ++w) sum += shared.warps[w];
  const unsigned long long start = sum - first - second;
  if (start < need && start + first >= need && at < count) {
    shared.chosen = (unsigned)at;
    shared.before = start;
  } else if (start + first < need && sum >= need && at + 1 < count) {
    shared.chosen = (unsigned)at + 1;
    shared.before = start + first;
  }
  __syncthreads();
  bin = shared.chosen;
  before = shared.before;
  __syncthreads();
}

/* v in steps of 2^-26. */
FA_DEVICE unsigned key_of(float v) { return v < 64.0f ? (unsigned)(v * 0x1p26f) : 0xffffffffu; } /* NaN: the last */
FA_DEVICE float weight_of(unsigned key) { return expf(-(float)key * 0x1p-26f); }
FA_DEVICE unsigned long long mass_of(unsigned key) { return (unsigned long long)(weight_of(key) * 0x1p40f); }

/* The least key at which the sum over keys <= it, of those <= `most`, reaches `need`: of ones, or of masses. */
template <bool MASS>
FA_DEVICE unsigned threshold(const unsigned *keys, int64_t count, unsigned most, unsigned long long need) {
  unsigned found = 0; /* its upper bits, so far */
  int low = 32;       /* lowest bit known */
#pragma unroll 1
  for (int round = 0; round < 3; ++round) {
    const int bits = round < 2 ? 11 : 10, shift = low - bits, bins = 1 << bits;
    for (int n = threadIdx.x; n < bins; n += THREADS) shared.bins[n] = 0;
    __syncthreads();
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < count; i += THREADS) {
      const unsigned key = keys[i];
      const bool is_here = low == 32 || (key ^ found) >> low == 0;
      if (!is_here || key > most) continue;
      const unsigned long long add = MASS ? mass_of(key) : 1;
      if (add) atomicAdd(&shared.bins[key >> shift & (unsigned)(bins - 1)], add);
    }
    __syncthreads();
    unsigned bin;
    unsigned long long before;
    first_bin(bins, need, bin, before);
    need -= before;
    found |= bin << shift;
    low = shift;
  }
  return found;
}

FA_DEVICE unsigned long long sum_of_masses(const unsigned *keys, int64_t count, unsigned most) {
  unsigned long long sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += THREADS) sum += keys[i] <= most ? mass_of(keys[i]) : 0;
  sum = sum_of_warp(sum);
  if (threadIdx.x % 32 == 0) shared.warps[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (int w = 0; w < WARPS; ++w) sum += shared.warps[w];
  __syncthreads();
  return sum;
}

/* The token where the sum of kept masses in vocabulary order passes uniform * their sum. Tiles are summed first, then one
 * warp walks through the tile. */
FA_DEVICE int64_t drawn(const unsigned *keys, int64_t count, unsigned most, float min_p, float uniform) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t tile = max((int64_t)256, (count + MOST_TILES * 32 - 1) / (MOST_TILES * 32) * 32);
  const int tiles = (int)((count + tile - 1) / tile);
  auto mass = [&](int64_t i) -> unsigned long long {
    if (i >= count) return 0;
    const unsigned key = keys[i];
    return key == ALWAYS_KEPT || (key <= most && weight_of(key) >= min_p) ? mass_of(key) : 0;
  };
  for (int t = warp; t < tiles; t += WARPS) {
    unsigned long long sum = 0;
#pragma unroll 4
    for (int64_t i = t * tile + lane; i < (t + 1) * tile; i += 32) sum += mass(i);
    sum = sum_of_warp(sum);
    if (lane == 0) shared.bins[t] = sum;
  }
  __syncthreads();
  unsigned long long total = 0;
  for (int t = lane; t < tiles; t += 32) total += shared.bins[t];
  total = sum_of_warp(total);
  const unsigned long long target = min((unsigned long long)((double)uniform * (double)total), total - 1);
  unsigned at;
  unsigned long long before;
  first_bin(tiles, target + 1, at, before);
  if (warp == 0) {
    unsigned long long sum = before;
    for (int64_t i = at * tile + lane;; i += 32) {
      const unsigned long long upto = sum + prefix_of_warp(mass(i));
      const unsigned passed = __ballot_sync(0xffffffffu, upto > target);
      if (passed || i - lane + 32 >= count) {
        if (lane == 0) shared.token = min(i + (passed ? __ffs((int)passed) - 1 : 0), count - 1);
        break;
      }
      sum = __shfl_sync(0xffffffffu, upto, 31);
    }
  }
  __syncthreads();
  return shared.token;
}

extern "C" __global__ void __launch_bounds__(THREADS) sample_rows(const __grid_constant__ fa_sample_params p) {
  float *logits = p.logits + blockIdx.x * p.vocabulary;
  uint8_t *seen = p.seen ? p.seen + blockIdx.x * p.vocabulary : nullptr;
  const fa_sample_row s = p.settings[blockIdx.x];
  const bool is_penalised = seen && s.repetition_penalty != 1.0f;
  auto logit = [&](int64_t i) {
    const float l = logits[i];
    if (!is_penalised || !seen[i]) return l;
    return l > 0.0f ? l / s.repetition_penalty : l * s.repetition_penalty;
  };
  best_token best = {-CUDART_INF_F, p.vocabulary}; /* a NaN is never better */
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < p.vocabulary; i += THREADS) best = better(best, {logit(i), i});
  best = best_of_block(best);
  int64_t token = best.index < p.vocabulary ? best.index : 0;
  if (s.temperature > 0.0f && best.index < p.vocabulary && best.value > -CUDART_INF_F) {
    unsigned *keys = (unsigned *)logits;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < p.vocabulary; i += THREADS) {
      const float l = logit(i);
      keys[i] = l == best.value ? ALWAYS_KEPT : key_of((best.value - l) / s.temperature);
    }
    __syncthreads();
    unsigned most = 0xfffffffeu; /* the last key weighs nothing */
    if (s.top_k > 0 && s.top_k < p.vocabulary)
      most = min(most, threshold<false>(keys, p.vocabulary, 0xffffffffu, (unsigned long long)s.top_k));
    if (s.top_p < 1.0f) {
      const double need = ceil((double)fmaxf(s.top_p, 0.0f) * (double)sum_of_masses(keys, p.vocabulary, most));
      most = threshold<true>(keys, p.vocabulary, most, max(1ull, (unsigned long long)need));
    }
    token = drawn(keys, p.vocabulary, most, s.min_p, s.uniform);
  }
  if (threadIdx.x == 0) {
    p.tokens[blockIdx.x] = (int32_t)token;
    if (seen) seen[token] = 1;
  }
}
