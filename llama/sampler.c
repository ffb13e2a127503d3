/* What a user asks of sampling, checked, and the random stream that goes with it. */
#include "sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"

struct fa_sampler {
  fa_sampler_options options;
  int64_t vocabulary;
  uint64_t step;   /* of fa_sampler_next */
  float *logits;   /* [vocabulary] its copy, which drawing overwrites */
  uint8_t *seen;   /* [vocabulary]; NULL: no penalty */
};

/* Philox4x32-10: ten rounds of two 32 x 32 products, keyed by the seed. */
static uint32_t philox(uint64_t seed, uint64_t sequence, uint64_t step) {
  uint32_t c[4] = {(uint32_t)step, (uint32_t)(step >> 32), (uint32_t)sequence, (uint32_t)(sequence >> 32)};
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)c[0] * 0xd2511f53u, b = (uint64_t)c[2] * 0xcd9e8d57u;
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key[1],
                              (uint32_t)a};
    memcpy(c, next, sizeof c);
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  return c[0];
}

static fa_status check(const fa_sampler_options *o) {
  if (!(o->temperature >= 0.0) || !isfinite(o->temperature)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "temperature is %g; it must be finite and at least 0", o->temperature);
  }
  if (o->top_k < 0) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "top-k is %lld; it must be at least 0 (0 is all)", (long long)o->top_k);
  }
  if (!(o->top_p > 0.0 && o->top_p <= 1.0)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "top-p is %g; it must be above 0 and at most 1", o->top_p);
  }
  if (!(o->min_p >= 0.0 && o->min_p <= 1.0)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "min-p is %g; it must be 0 to 1 (0 is off)", o->min_p);
  }
  if (!(o->repetition_penalty >= 0.01 && o->repetition_penalty <= 100.0)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "the repetition penalty is %g; it must be 0.01 to 100 (1 is off)",
                         o->repetition_penalty);
  }
  return FA_OK;
}

fa_status fa_sampler_create(int64_t vocabulary, const fa_sampler_options *options, fa_sampler **result) {
  *result = NULL;
  const fa_status status = check(options);
  if (status != FA_OK) return status;
  if (vocabulary < 0 || vocabulary > INT32_MAX) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a vocabulary of %lld tokens; it must be 0 to %d", (long long)vocabulary,
                         INT32_MAX);
  }
  fa_sampler *sampler = calloc(1, sizeof *sampler);
  if (!sampler) return fa_llama_out_of_memory("the sampler");
  sampler->options = *options;
  sampler->vocabulary = vocabulary;
  const bool penalty = options->repetition_penalty != 1.0;
  if (vocabulary) sampler->logits = malloc((size_t)vocabulary * sizeof *sampler->logits);
  if (vocabulary && penalty) sampler->seen = calloc((size_t)vocabulary, 1);
  if (vocabulary && (!sampler->logits || (penalty && !sampler->seen))) {
    fa_sampler_free(sampler);
    return fa_llama_out_of_memory("the sampler");
  }
  *result = sampler;
  return FA_OK;
}

void fa_sampler_free(fa_sampler *sampler) {
  if (!sampler) return;
  free(sampler->logits);
  free(sampler->seen);
  free(sampler);
}

fa_sample_row fa_sampler_step(const fa_sampler *sampler, uint64_t sequence, uint64_t step) {
  const fa_sampler_options *o = &sampler->options;
  return (fa_sample_row){.temperature = (float)fmin(o->temperature, 1e30),
                         .top_p = (float)o->top_p,
                         .min_p = (float)o->min_p,
                         .repetition_penalty = (float)o->repetition_penalty,
                         .top_k = o->top_k < INT32_MAX ? (int32_t)o->top_k : INT32_MAX,
                         .uniform = (float)(philox(o->seed, sequence, step) >> 8) * 0x1p-24f};
}

void fa_sampler_see(fa_sampler *sampler, const int32_t *tokens, int64_t count) {
  for (int64_t i = 0; sampler->seen && i < count; i++)
    if (tokens[i] >= 0 && tokens[i] < sampler->vocabulary) sampler->seen[tokens[i]] = 1;
}

int32_t fa_sampler_next(fa_sampler *sampler, const float *logits) {
  const fa_sample_row settings = fa_sampler_step(sampler, 0, sampler->step++);
  if (!sampler->vocabulary) return 0;
  memcpy(sampler->logits, logits, (size_t)sampler->vocabulary * sizeof *logits);
  return fa_sample_token(sampler->logits, sampler->vocabulary, &settings, sampler->seen);
}
