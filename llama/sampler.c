/* Choosing the next token: temperature, then top-k, then top-p, as transformers orders them. Equal logits
 * rank by id, so that nothing depends on a sorting algorithm. */
#include <math.h>
#include <stdlib.h>

#include "llama.h"
#include "llama_error.h"

typedef struct ranked {
  float logit;
  int32_t id;
} ranked;

struct fa_sampler {
  fa_sampler_options options;
  int64_t vocabulary;
  uint64_t state[4];
  ranked *candidates; /* [vocabulary] */
  double *weights;    /* [vocabulary] */
};

/* xoshiro256**, seeded by splitmix64 (Blackman and Vigna). */
static uint64_t rotate_left(uint64_t x, int k) { return x << k | x >> (64 - k); }

static uint64_t next_random(uint64_t state[4]) {
  const uint64_t result = rotate_left(state[1] * 5, 7) * 9, t = state[1] << 17;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= t;
  state[3] = rotate_left(state[3], 45);
  return result;
}

static void seed_random(uint64_t state[4], uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    state[i] = z ^ z >> 31;
  }
}

fa_status fa_sampler_create(int64_t vocabulary, const fa_sampler_options *options, fa_sampler **result) {
  if (!(options->temperature >= 0.0) || !isfinite(options->temperature)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "temperature is %g; it must be finite and at least 0",
                         options->temperature);
  }
  if (!(options->top_p > 0.0 && options->top_p <= 1.0)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "top-p is %g; it must be above 0 and at most 1", options->top_p);
  }
  if (options->top_k < 0) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "top-k is %lld; it must be at least 0 (0 is all)",
                         (long long)options->top_k);
  }
  fa_sampler *sampler = calloc(1, sizeof *sampler);
  if (!sampler) return fa_llama_out_of_memory("the sampler");
  sampler->options = *options;
  sampler->vocabulary = vocabulary;
  seed_random(sampler->state, options->seed);
  sampler->candidates = malloc((size_t)vocabulary * sizeof *sampler->candidates);
  sampler->weights = malloc((size_t)vocabulary * sizeof *sampler->weights);
  if (!sampler->candidates || !sampler->weights) {
    fa_sampler_free(sampler);
    return fa_llama_out_of_memory("the sampler");
  }
  *result = sampler;
  return FA_OK;
}

void fa_sampler_free(fa_sampler *sampler) {
  if (!sampler) return;
  free(sampler->candidates);
  free(sampler->weights);
  free(sampler);
}

int32_t fa_greedy_token(const float *logits, int64_t vocabulary, float *gap) {
  float best = -INFINITY, second = -INFINITY;
  int32_t token = 0;
  for (int64_t i = 0; i < vocabulary; i++) {
    if (logits[i] > best) {
      second = best;
      best = logits[i];
      token = (int32_t)i;
    } else if (logits[i] > second) {
      second = logits[i];
    }
  }
  if (gap) *gap = best - second;
  return token;
}

static int best_first(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
  return (x->id > y->id) - (x->id < y->id);
}

/* Worst at the root: keeps the k best of all in candidates[0 .. k). */
static int64_t keep_top_k(ranked *candidates, const float *logits, int64_t vocabulary, int64_t k) {
  int64_t count = 0;
  for (int64_t i = 0; i < vocabulary; i++) {
    const ranked added = {logits[i], (int32_t)i};
    if (isnan(logits[i])) continue;
    int64_t at;
    if (count < k) {
      at = count++;
      for (; at > 0 && best_first(&candidates[(at - 1) / 2], &added) < 0; at = (at - 1) / 2) {
        candidates[at] = candidates[(at - 1) / 2];
      }
    } else {
      if (best_first(&added, &candidates[0]) > 0) continue;
      at = 0;
      for (int64_t child; (child = 2 * at + 1) < k; at = child) {
        if (child + 1 < k && best_first(&candidates[child + 1], &candidates[child]) > 0) child++;
        if (best_first(&candidates[child], &added) < 0) break;
        candidates[at] = candidates[child];
      }
    }
    candidates[at] = added;
  }
  return count;
}

/* A token below (1 - p) / vocabulary of the probability can not be needed to reach p: all such together hold
 * less than 1 - p. So few are left to sort. */
static int64_t keep_likely(fa_sampler *sampler, const float *logits, float best) {
  const double scale = 1.0 / sampler->options.temperature;
  double sum = 0.0;
  for (int64_t i = 0; i < sampler->vocabulary; i++) {
    sampler->weights[i] = isnan(logits[i]) ? 0.0 : exp((double)(logits[i] - best) * scale);
    sum += sampler->weights[i];
  }
  const double least = sum * (1.0 - sampler->options.top_p) / (double)sampler->vocabulary;
  int64_t count = 0;
  for (int64_t i = 0; i < sampler->vocabulary; i++) {
    if (sampler->weights[i] >= least && sampler->weights[i] > 0.0)
      sampler->candidates[count++] = (ranked){logits[i], (int32_t)i};
  }
  return count;
}

int32_t fa_sampler_next(fa_sampler *sampler, const float *logits) {
  const fa_sampler_options *options = &sampler->options;
  const int32_t greedy = fa_greedy_token(logits, sampler->vocabulary, NULL);
  /* No distribution to draw from: infinite or NaN logits give the best finite rule there is, the greedy one.
   */
  if (options->temperature == 0.0 || !isfinite(logits[greedy])) return greedy;
  const bool some = options->top_k > 0 && options->top_k < sampler->vocabulary;
  const int64_t count = some ? keep_top_k(sampler->candidates, logits, sampler->vocabulary, options->top_k)
                             : keep_likely(sampler, logits, logits[greedy]);
  qsort(sampler->candidates, (size_t)count, sizeof *sampler->candidates, best_first);
  double sum = 0.0;
  for (int64_t i = 0; i < count; i++) {
    sampler->weights[i] = exp((double)(sampler->candidates[i].logit - logits[greedy]) / options->temperature);
    sum += sampler->weights[i];
  }
  int64_t kept = 0;
  double kept_sum = 0.0;
  while (kept < count && (kept == 0 || kept_sum < options->top_p * sum)) kept_sum += sampler->weights[kept++];
  const double drawn = (double)(next_random(sampler->state) >> 11) * 0x1p-53 * kept_sum;
  double passed = 0.0;
  for (int64_t i = 0; i < kept; i++) {
    passed += sampler->weights[i];
    if (drawn < passed) return sampler->candidates[i].id;
  }
  return sampler->candidates[kept - 1].id;
}
