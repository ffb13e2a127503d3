/* What is asked of sampling, and its random stream: known numbers, the same again, every probability its share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "sampler.h"

static fa_sampler *sampler_of(const fa_sampler_options *options, int64_t vocabulary) {
  fa_sampler *sampler = NULL;
  if (fa_sampler_create(vocabulary, options, &sampler) != FA_OK) fail_msg("%s", fa_llama_last_error());
  return sampler;
}

/* The known answers that come with the paper's code (Random123: philox4x32-10). */
static void the_stream_is_philox(void **state) {
  (void)state;
  static const struct {
    uint64_t seed, sequence, step;
    uint32_t word;
  } known[] = {{0, 0, 0, 0x6627e8d5},
               {UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x408f276d},
               {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, 0xd16cfe09}};
  for (size_t n = 0; n < sizeof known / sizeof known[0]; n++) {
    fa_sampler_options options = FA_SAMPLER_OPTIONS_INIT;
    options.seed = known[n].seed;
    fa_sampler *sampler = sampler_of(&options, 0);
    const fa_sample_row row = fa_sampler_step(sampler, known[n].sequence, known[n].step);
    assert_true(row.uniform == (float)(known[n].word >> 8) / 16777216.0f);
    fa_sampler_free(sampler);
  }
}

/* 19 degrees of freedom: above 60 comes once in 200,000 tries of a right generator, and these draws never change. */
static void draws_follow_the_probabilities(void **state) {
  (void)state;
  enum { TOKENS = 20, DRAWS = 40000 };
  float logits[TOKENS];
  double p[TOKENS], sum = 0.0;
  for (int i = 0; i < TOKENS; i++) sum += p[i] = 1.0 + (i * 7) % TOKENS;
  for (int i = 0; i < TOKENS; i++) logits[i] = (float)log(p[i]);
  for (int varied = 0; varied < 3; varied++) { /* seeds, sequences, steps */
    int counts[TOKENS] = {0};
    for (uint64_t n = 0; n < DRAWS; n++) {
      fa_sampler_options options = FA_SAMPLER_OPTIONS_INIT;
      options.temperature = 1.0;
      options.seed = varied == 0 ? n : 42;
      fa_sampler *sampler = sampler_of(&options, 0);
      const fa_sample_row row = fa_sampler_step(sampler, varied == 1 ? n : 3, varied == 2 ? n : 5);
      float copy[TOKENS];
      memcpy(copy, logits, sizeof copy);
      counts[fa_sample_token(copy, TOKENS, &row, NULL)]++;
      fa_sampler_free(sampler);
    }
    double chi = 0.0;
    for (int i = 0; i < TOKENS; i++) {
      const double wanted = (double)DRAWS * p[i] / sum;
      chi += (counts[i] - wanted) * (counts[i] - wanted) / wanted;
    }
    if (!(chi < 60.0)) fail_msg("chi-square %g of 19 degrees of freedom, varied: %d", chi, varied);
  }
}

static void the_same_again_with_the_same_seed(void **state) {
  (void)state;
  const float logits[6] = {0.1f, 0.3f, 0.05f, 0.4f, -1.0f, 0.15f};
  fa_sampler_options options = FA_SAMPLER_OPTIONS_INIT;
  options.temperature = 1.0;
  options.seed = 42;
  fa_sampler *a = sampler_of(&options, 6), *b = sampler_of(&options, 6);
  options.seed = 43;
  fa_sampler *c = sampler_of(&options, 6);
  int differences = 0;
  for (uint64_t i = 0; i < 200; i++) {
    const int32_t token = fa_sampler_next(a, logits);
    const fa_sample_row row = fa_sampler_step(b, 0, i);
    assert_int_equal(token, fa_sampler_next(b, logits));
    float copy[6];
    memcpy(copy, logits, sizeof copy);
    assert_int_equal(token, fa_sample_token(copy, 6, &row, NULL));
    differences += token != fa_sampler_next(c, logits);
  }
  assert_true(differences > 50);
  fa_sampler_free(a);
  fa_sampler_free(b);
  fa_sampler_free(c);
}

/* Tokens of the prompt and tokens drawn are penalised alike. */
static void seen_tokens_are_penalised(void **state) {
  (void)state;
  const float logits[4] = {4.0f, 3.9f, 3.8f, 0.0f};
  fa_sampler_options options = FA_SAMPLER_OPTIONS_INIT;
  options.repetition_penalty = 1.5;
  fa_sampler *sampler = sampler_of(&options, 4);
  const int32_t prompt[] = {0, -1, 4, 0};
  fa_sampler_see(sampler, prompt, 4);
  assert_int_equal(fa_sampler_next(sampler, logits), 1);
  assert_int_equal(fa_sampler_next(sampler, logits), 2);
  assert_int_equal(fa_sampler_next(sampler, logits), 0); /* all three seen */
  fa_sampler_free(sampler);
}

static void options_out_of_range(void **state) {
  (void)state;
  const fa_sampler_options bad[] = {
      {-1.0, 0, 1.0, 0.0, 1.0, 0}, {NAN, 0, 1.0, 0.0, 1.0, 0},  {INFINITY, 0, 1.0, 0.0, 1.0, 0},
      {1.0, -1, 1.0, 0.0, 1.0, 0}, {1.0, 0, 0.0, 0.0, 1.0, 0},  {1.0, 0, 1.5, 0.0, 1.0, 0},
      {1.0, 0, NAN, 0.0, 1.0, 0},  {1.0, 0, 1.0, -0.1, 1.0, 0}, {1.0, 0, 1.0, 1.1, 1.0, 0},
      {1.0, 0, 1.0, NAN, 1.0, 0},  {1.0, 0, 1.0, 0.0, 0.0, 0},  {1.0, 0, 1.0, 0.0, -1.0, 0},
      {1.0, 0, 1.0, 0.0, 101, 0},  {1.0, 0, 1.0, 0.0, NAN, 0}};
  static const char *const words[] = {"temperature is", "temperature is", "temperature is", "top-k is -1", "top-p is",
                                      "top-p is", "top-p is", "min-p is", "min-p is", "min-p is",
                                      "repetition penalty is", "repetition penalty is", "repetition penalty is", "repetition penalty is"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    fa_sampler *sampler;
    assert_int_equal(fa_sampler_create(6, &bad[i], &sampler), FA_ERROR_ARGUMENT);
    assert_null(sampler);
    assert_non_null(strstr(fa_llama_last_error(), words[i]));
  }
  const fa_sampler_options good = FA_SAMPLER_OPTIONS_INIT;
  fa_sampler *sampler;
  assert_int_equal(fa_sampler_create(-1, &good, &sampler), FA_ERROR_ARGUMENT);
  fa_sampler_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_stream_is_philox),
      cmocka_unit_test(draws_follow_the_probabilities),
      cmocka_unit_test(the_same_again_with_the_same_seed),
      cmocka_unit_test(seen_tokens_are_penalised),
      cmocka_unit_test(options_out_of_range),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
