/* Sampling: which tokens can come, how often, and the same again with the same seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "llama.h"

enum { VOCABULARY = 6, DRAWS = 20000 };
/* Probabilities 0.4, 0.3, 0.15, 0.1, 0.05 of tokens 3, 1, 5, 0, 2; token 4 can not come. */
static const double probabilities[VOCABULARY] = {0.1, 0.3, 0.05, 0.4, 0.0, 0.15};
static float logits[VOCABULARY];

static int fill_logits(void **state) {
  (void)state;
  for (int i = 0; i < VOCABULARY; i++)
    logits[i] = probabilities[i] > 0.0 ? (float)log(probabilities[i]) : -INFINITY;
  return 0;
}

static void draw(double temperature, int64_t top_k, double top_p, uint64_t seed, int counts[VOCABULARY]) {
  const fa_sampler_options options = {temperature, top_k, top_p, seed};
  fa_sampler *sampler;
  assert_int_equal(fa_sampler_create(VOCABULARY, &options, &sampler), FA_OK);
  memset(counts, 0, VOCABULARY * sizeof *counts);
  for (int i = 0; i < DRAWS; i++) counts[fa_sampler_next(sampler, logits)]++;
  fa_sampler_free(sampler);
}

/* Five standard deviations of a binomial count. */
static void assert_share(int count, double probability) {
  const double expected = (double)DRAWS * probability;
  assert_true(fabs(count - expected) <= 5.0 * sqrt(expected * (1.0 - probability)) + 1e-9);
}

static void test_whole_distribution(void **state) {
  (void)state;
  int counts[VOCABULARY];
  draw(1.0, 0, 1.0, 1, counts);
  for (int i = 0; i < VOCABULARY; i++) assert_share(counts[i], probabilities[i]);
}

static void test_temperature(void **state) {
  (void)state;
  int counts[VOCABULARY];
  double sum = 0.0;
  draw(0.5, 0, 1.0, 2, counts);
  for (int i = 0; i < VOCABULARY; i++) sum += probabilities[i] * probabilities[i];
  for (int i = 0; i < VOCABULARY; i++) assert_share(counts[i], probabilities[i] * probabilities[i] / sum);
}

static void test_top_k(void **state) {
  (void)state;
  int counts[VOCABULARY];
  draw(1.0, 2, 1.0, 3, counts);
  assert_share(counts[3], 0.4 / 0.7);
  assert_share(counts[1], 0.3 / 0.7);
  assert_int_equal(counts[3] + counts[1], DRAWS);
  draw(1.0, 1, 1.0, 3, counts);
  assert_int_equal(counts[3], DRAWS);
}

/* 0.4 + 0.3 < 0.8 <= 0.4 + 0.3 + 0.15. */
static void test_top_p(void **state) {
  (void)state;
  int counts[VOCABULARY];
  draw(1.0, 0, 0.8, 4, counts);
  assert_share(counts[3], 0.4 / 0.85);
  assert_share(counts[5], 0.15 / 0.85);
  assert_int_equal(counts[3] + counts[1] + counts[5], DRAWS);
  draw(1.0, 0, 1e-9, 4, counts);
  assert_int_equal(counts[3], DRAWS);
  draw(1.0, 4, 0.8, 5, counts); /* of the four likeliest, 0.95 in all: 0.76 is reached by three */
  assert_int_equal(counts[3] + counts[1] + counts[5], DRAWS);
}

static void test_seeds(void **state) {
  (void)state;
  const fa_sampler_options options = {1.0, 0, 1.0, 42}, other = {1.0, 0, 1.0, 43};
  fa_sampler *a, *b, *c;
  int differences = 0;
  assert_int_equal(fa_sampler_create(VOCABULARY, &options, &a), FA_OK);
  assert_int_equal(fa_sampler_create(VOCABULARY, &options, &b), FA_OK);
  assert_int_equal(fa_sampler_create(VOCABULARY, &other, &c), FA_OK);
  for (int i = 0; i < 200; i++) {
    const int32_t token = fa_sampler_next(a, logits);
    assert_int_equal(token, fa_sampler_next(b, logits));
    differences += token != fa_sampler_next(c, logits);
  }
  assert_true(differences > 50);
  fa_sampler_free(a);
  fa_sampler_free(b);
  fa_sampler_free(c);
}

static void test_greedy(void **state) {
  (void)state;
  const float ties[] = {1.0f, 3.0f, 3.0f, -INFINITY}, nan_first[] = {NAN, 1.0f, 2.0f, 0.0f};
  float gap;
  assert_int_equal(fa_greedy_token(ties, 4, &gap), 1);
  assert_true(gap == 0.0f);
  assert_int_equal(fa_greedy_token(nan_first, 4, NULL), 2);
  int counts[VOCABULARY];
  draw(0.0, 0, 1.0, 6, counts);
  assert_int_equal(counts[3], DRAWS);
}

/* Equal logits everywhere: the nucleus is decided by id, and nothing divides by zero. */
static void test_degenerate(void **state) {
  (void)state;
  const float flat[4] = {0.0f, 0.0f, 0.0f, 0.0f}, none[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  const fa_sampler_options options = {1.0, 0, 0.5, 7};
  fa_sampler *sampler;
  assert_int_equal(fa_sampler_create(4, &options, &sampler), FA_OK);
  for (int i = 0; i < 100; i++) assert_true(fa_sampler_next(sampler, flat) < 2);
  assert_int_equal(fa_sampler_next(sampler, none), 0);
  fa_sampler_free(sampler);
}

/* Logits of a damaged model: a NaN is never drawn, whatever else is asked for. */
static void test_nan(void **state) {
  (void)state;
  const float some[4] = {NAN, 1.0f, 2.0f, -NAN}, all[4] = {NAN, NAN, NAN, NAN},
              high[4] = {NAN, INFINITY, 0.0f, NAN};
  for (int64_t top_k = 0; top_k < 4; top_k++) {
    const fa_sampler_options options = {1.0, top_k, 0.9, 8};
    fa_sampler *sampler;
    assert_int_equal(fa_sampler_create(4, &options, &sampler), FA_OK);
    for (int i = 0; i < 50; i++) {
      const int32_t token = fa_sampler_next(sampler, some);
      assert_true(token == 1 || token == 2);
      assert_int_equal(fa_sampler_next(sampler, all), 0);
      assert_int_equal(fa_sampler_next(sampler, high), 1);
    }
    fa_sampler_free(sampler);
  }
}

static void test_bad_options(void **state) {
  (void)state;
  const fa_sampler_options bad[] = {{-1.0, 0, 1.0, 0}, {NAN, 0, 1.0, 0}, {INFINITY, 0, 1.0, 0},
                                    {1.0, -1, 1.0, 0}, {1.0, 0, 0.0, 0}, {1.0, 0, 1.5, 0},
                                    {1.0, 0, NAN, 0}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    fa_sampler *sampler;
    assert_int_equal(fa_sampler_create(VOCABULARY, &bad[i], &sampler), FA_ERROR_ARGUMENT);
    assert_true(fa_llama_last_error()[0] != '\0');
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole_distribution),
      cmocka_unit_test(test_temperature),
      cmocka_unit_test(test_top_k),
      cmocka_unit_test(test_top_p),
      cmocka_unit_test(test_seeds),
      cmocka_unit_test(test_greedy),
      cmocka_unit_test(test_degenerate),
      cmocka_unit_test(test_nan),
      cmocka_unit_test(test_bad_options),
  };
  return cmocka_run_group_tests(tests, fill_logits, NULL);
}
