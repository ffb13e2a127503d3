/* Sampling: exactly which tokens stay by each rule, and where the draw falls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"

#define OFF \
  { .temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f }

static uint32_t random_below(uint64_t *seed, uint32_t below) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((*seed >> 32) * below >> 32);
}

static float random_normal(uint64_t *seed) {
  float sum = -6.0f;
  for (int n = 0; n < 12; n++) sum += (float)random_below(seed, 1 << 20) * 0x1p-20f;
  return sum;
}

static int32_t drawn(const float *logits, int64_t count, fa_sample_row settings, double uniform, const uint8_t *seen) {
  static float copy[1 << 18];
  static uint8_t marks[1 << 18];
  memcpy(copy, logits, (size_t)count * sizeof *logits);
  if (seen) memcpy(marks, seen, (size_t)count);
  settings.uniform = (float)uniform;
  const int32_t token = fa_sample_token(copy, count, &settings, seen ? marks : NULL);
  assert_in_range(token, 0, count - 1);
  for (int64_t i = 0; seen && i < count; i++) assert_true(marks[i] == (i == token ? 1 : seen[i]));
  return token;
}

/* ------------------------------------------------- the rules, written down plainly */

enum { SMALL = 24 };

typedef struct expected {
  double p[SMALL];    /* of the draw: 0 where a token went */
  bool is_close_call; /* a rounding may decide otherwise */
} expected;

static expected plainly(const float *logits, int count, const fa_sample_row *s, const uint8_t *seen) {
  expected e = {{0.0}, false};
  float l[SMALL];
  double best = -INFINITY, sum = 0.0, mass = 0.0;
  for (int i = 0; i < count; i++) {
    l[i] = logits[i];
    if (seen && seen[i]) l[i] = l[i] > 0.0f ? l[i] / s->repetition_penalty : l[i] * s->repetition_penalty;
    if ((double)l[i] > best) best = (double)l[i];
  }
  for (int i = 0; i < count; i++) {
    int larger = 0;
    for (int j = 0; j < count; j++) larger += l[j] > l[i];
    if (s->top_k == 0 || larger < s->top_k) e.p[i] = exp(((double)l[i] - best) / (double)s->temperature);
    sum += e.p[i];
  }
  for (int i = 0; i < count; i++) e.p[i] /= sum;
  bool stays[SMALL];
  for (int i = 0; i < count; i++) {
    double before = 0.0; /* the mass of the more probable; what reaches top_p without it needs it not */
    for (int j = 0; j < count; j++) before += l[j] > l[i] ? e.p[j] : 0.0;
    stays[i] = e.p[i] > 0.0 && (s->top_p >= 1.0f || before < (double)s->top_p) && e.p[i] * sum >= (double)s->min_p;
    if (s->top_p < 1.0f && fabs(before - (double)s->top_p) < 1e-5) e.is_close_call = true;
    if (s->min_p > 0.0f && s->min_p < 1.0f && fabs(e.p[i] * sum - (double)s->min_p) < 1e-5) e.is_close_call = true;
  }
  for (int i = 0; i < count; i++) mass += stays[i] ? e.p[i] : 0.0;
  for (int i = 0; i < count; i++) e.p[i] = stays[i] ? e.p[i] / mass : 0.0;
  return e;
}

/* In the middle of each token's part of 0 .. 1 that token is drawn, and near the ends none that went. */
static void same_draws(const float *logits, int count, const fa_sample_row *s, const uint8_t *seen) {
  const expected e = plainly(logits, count, s, seen);
  if (e.is_close_call) return;
  double passed = 0.0;
  for (int i = 0; i < count; i++) {
    if (e.p[i] > 1e-5) assert_int_equal(drawn(logits, count, *s, passed + e.p[i] / 2.0, seen), i);
    passed += e.p[i];
    if (passed < 1.0 - 1e-7) assert_true(e.p[drawn(logits, count, *s, passed, seen)] > 0.0);
  }
  assert_true(e.p[drawn(logits, count, *s, 0.0, seen)] > 0.0);
  assert_true(e.p[drawn(logits, count, *s, 1.0 - 0x1p-24, seen)] > 0.0);
}

static void every_set_as_enumerated(void **state) {
  (void)state;
  uint64_t seed = 11;
  for (int round = 0; round < 6000; round++) {
    float logits[SMALL];
    uint8_t seen[SMALL];
    const int count = 1 + (int)random_below(&seed, SMALL);
    const bool ties = random_below(&seed, 2) == 0;
    const float spread = ties ? 2.0f : 0.1f + (float)random_below(&seed, 8);
    for (int i = 0; i < count; i++) {
      logits[i] = spread * random_normal(&seed);
      if (ties) logits[i] = roundf(logits[i]);
      if (random_below(&seed, 20) == 0) logits[i] = -INFINITY;
      seen[i] = random_below(&seed, 3) == 0;
    }
    logits[random_below(&seed, (uint32_t)count)] = 1.0f; /* one at least that can be drawn */
    fa_sample_row s = OFF;
    static const float temperatures[] = {1.0f, 0.25f, 0.7f, 3.0f}, penalties[] = {1.0f, 1.3f, 2.0f, 0.5f};
    s.temperature = temperatures[random_below(&seed, 4)];
    s.repetition_penalty = penalties[random_below(&seed, 4)];
    if (random_below(&seed, 2)) s.top_k = 1 + (int32_t)random_below(&seed, SMALL + 2);
    if (random_below(&seed, 2)) s.top_p = 0.01f + 0.98f * (float)random_below(&seed, 1000) / 1000.0f;
    if (random_below(&seed, 3) == 0) s.min_p = (float)random_below(&seed, 1001) / 1000.0f;
    same_draws(logits, count, &s, random_below(&seed, 2) ? seen : NULL);
  }
}

/* Cases whose sums are exact: ties with the last that stays stay, and reaching p exactly is enough. */
static void ties_and_limits(void **state) {
  (void)state;
  const float flat[5] = {2.0f, 2.0f, 2.0f, 2.0f, 2.0f}, steps[6] = {0.0f, 5.0f, 5.0f, 7.0f, 7.0f, -0.0f};
  fa_sample_row s = OFF;
  for (int32_t k = 0; k < 7; k++) /* all equal: any k keeps all, and so does any p */
    for (int n = 0; n < 5; n++) {
      s.top_k = k;
      s.top_p = k ? 0.2f : 1.0f;
      s.min_p = 1.0f;
      assert_int_equal(drawn(flat, 5, s, 0.2 * n + 0.1, NULL), n);
    }
  s = (fa_sample_row)OFF;
  s.temperature = 1e30f; /* all weights 1 */
  static const int32_t stays[7] = {6, 2, 2, 4, 4, 6, 6};
  static const int32_t tokens[7][6] = {{0, 1, 2, 3, 4, 5}, {3, 4}, {3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4},
                                       {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}};
  for (s.top_k = 0; s.top_k < 7; s.top_k++)
    for (int32_t n = 0; n < stays[s.top_k]; n++)
      assert_int_equal(drawn(steps, 6, s, (n + 0.5) / stays[s.top_k], NULL), tokens[s.top_k][n]);
  const float halves[3] = {-1000.0f, 3.0f, 3.0f}; /* 0, 1/2, 1/2 */
  s = (fa_sample_row)OFF;
  s.top_p = 0.5f;
  assert_int_equal(drawn(halves, 3, s, 0.25, NULL), 1);
  assert_int_equal(drawn(halves, 3, s, 0.75, NULL), 2);
  assert_int_equal(drawn(halves, 3, s, 0.0, NULL), 1);
  assert_int_equal(drawn(halves, 3, s, 1.0 - 0x1p-24, NULL), 2);
  assert_int_equal(drawn(halves, 3, s, 0.5, NULL), 2); /* reached is not passed */
  const float turned[3] = {3.0f, 3.0f, -1000.0f};
  assert_int_equal(drawn(halves, 3, s, 1.0, NULL), 2); /* not allowed, and harmless */
  assert_int_equal(drawn(turned, 3, s, 1.0, NULL), 1);
  s.top_p = 1.0f;
  assert_int_equal(drawn(turned, 3, s, 1.0, NULL), 1);
  const float zeros[3] = {-0.0f, 0.0f, -1.0f}; /* two equals */
  s.temperature = 1e30f;
  s.top_k = 2;
  assert_int_equal(drawn(zeros, 3, s, 0.99, NULL), 1);
  const float many[1024] = {0.0f};
  s.top_k = 0;
  for (int n = 0; n < 1024; n++) assert_int_equal(drawn(many, 1024, s, n / 1024.0, NULL), n);
  s.temperature = 1.0f;
  s.top_p = 0.0f;
  assert_int_equal(drawn(halves, 3, s, 0.1, NULL), 1);
  s.top_k = INT32_MAX;
  s.temperature = 1e-40f; /* no smaller one: the two best only */
  assert_int_equal(drawn(halves, 3, s, 0.9, NULL), 2);
}

static void greedy_takes_the_first_best(void **state) {
  (void)state;
  static float logits[5000];
  uint64_t seed = 3;
  fa_sample_row s = OFF;
  s.temperature = 0.0f;
  for (int64_t count = 1; count < 5000; count += 1 + count / 3) {
    for (int64_t i = 0; i < count; i++) logits[i] = random_normal(&seed);
    const int64_t at = random_below(&seed, (uint32_t)count), again = random_below(&seed, (uint32_t)count);
    logits[at] = logits[again] = 100.0f;
    assert_int_equal(drawn(logits, count, s, 0.99, NULL), at < again ? at : again);
    logits[at] = logits[again] = NAN;
    float gap;
    assert_int_equal(drawn(logits, count, s, 0.99, NULL), fa_greedy_token(logits, count, &gap));
  }
  const float ties[] = {1.0f, 3.0f, 3.0f, -INFINITY}, nan_first[] = {NAN, 1.0f, 2.0f, 0.0f};
  float gap;
  assert_int_equal(fa_greedy_token(ties, 4, &gap), 1);
  assert_true(gap == 0.0f);
  assert_int_equal(fa_greedy_token(nan_first, 4, NULL), 2);
  /* The penalty comes first: 4 / 2 < 3, and -1 * 2 < -1.5. */
  const float penalised[] = {4.0f, 3.0f}, negative[] = {-1.0f, -1.5f};
  const uint8_t seen[] = {1, 0};
  s.repetition_penalty = 2.0f;
  assert_int_equal(drawn(penalised, 2, s, 0.0, seen), 1);
  assert_int_equal(drawn(negative, 2, s, 0.0, seen), 1);
  assert_int_equal(drawn(penalised, 2, s, 0.0, NULL), 0);
}

static void never_a_nan(void **state) {
  (void)state;
  const float some[4] = {NAN, 1.0f, 2.0f, -NAN}, all[4] = {NAN, NAN, NAN, NAN}, high[4] = {NAN, INFINITY, 0.0f, NAN},
              low[4] = {NAN, -INFINITY, -INFINITY, NAN}, two[4] = {0.0f, INFINITY, INFINITY, NAN};
  uint8_t seen[4] = {1, 1, 0, 1};
  for (int n = 0; n < 400; n++) {
    fa_sample_row s = {(n & 1) ? 0.0f : 1.0f, (n & 2) ? 0.9f : 1.0f, (n & 4) ? 0.01f : 0.0f, (n & 8) ? 1.5f : 1.0f,
                       n >> 4 & 3, 0.0f};
    const double u = n / 400.0;
    const uint8_t *marks = n & 64 ? seen : NULL;
    const int32_t token = drawn(some, 4, s, u, marks);
    assert_true(token == 1 || token == 2);
    assert_int_equal(drawn(all, 4, s, u, marks), 0);
    assert_int_equal(drawn(high, 4, s, u, marks), 1);
    assert_int_equal(drawn(two, 4, s, u, marks), 1);
    assert_int_equal(drawn(low, 4, s, u, marks), 1);
  }
}

/* ------------------------------------------------------------------ large rows */

static int falling(const void *a, const void *b) {
  const float x = *(const float *)a, y = *(const float *)b;
  return (x < y) - (x > y);
}

/* With a huge temperature all that stay are as likely: the n-th of m is drawn at (n + 1/2) / m. */
static void top_k_of_large_vocabularies(void **state) {
  (void)state;
  static float logits[1 << 18], sorted[1 << 18];
  static const int64_t counts[] = {63, 64, 65, 1000, 65535, 65537, 151936, 1 << 18};
  uint64_t seed = 5;
  for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
    const int64_t count = counts[c];
    for (int64_t i = 0; i < count; i++) {
      logits[i] = random_normal(&seed);
      if (c % 2) logits[i] = roundf(logits[i] * 100.0f) / 100.0f; /* many ties, zeros of both signs */
    }
    memcpy(sorted, logits, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, falling);
    static const int64_t ks[] = {1, 2, 40, 900, 1024, 1025, 30000, 1 << 17};
    for (size_t n = 0; n < sizeof ks / sizeof ks[0]; n++) {
      if (ks[n] >= count) continue;
      fa_sample_row s = OFF;
      s.temperature = 1e30f;
      s.top_k = (int32_t)ks[n];
      const float least = sorted[ks[n] - 1];
      int64_t stay = 0, passed = 0;
      for (int64_t i = 0; i < count; i++) stay += logits[i] >= least;
      const int64_t wanted[3] = {0, random_below(&seed, (uint32_t)stay), stay - 1};
      for (int w = 0; w < 3; w++) {
        int64_t i = 0;
        for (passed = 0; logits[i] < least || passed++ < wanted[w]; i++) {
        }
        assert_int_equal(drawn(logits, count, s, ((double)wanted[w] + 0.5) / (double)stay, NULL), i);
      }
    }
  }
}

/* The last that stays of a nucleus is found where its weights were put: at the ends and in the middle of the row. */
static void top_p_of_large_vocabularies(void **state) {
  (void)state;
  static float logits[1 << 18];
  uint64_t seed = 8;
  for (int round = 0; round < 12; round++) {
    const int64_t count = (1 << 18) - round * 7919;
    for (int64_t i = 0; i < count; i++) logits[i] = -30.0f + random_normal(&seed); /* together below 1e-7 */
    int64_t at[4] = {0, count / 3 + round, count - 40, count - 1};
    const float p[4] = {0.1f, 0.2f, 0.3f, 0.4f};
    for (int n = 0; n < 4; n++) logits[at[n]] = logf(p[n]);
    for (int stay = 1; stay <= 4; stay++) {
      static const float top_p[5] = {0.0f, 0.35f, 0.65f, 0.85f, 0.95f};
      fa_sample_row s = OFF;
      s.top_p = top_p[stay];
      double sum = 0.0, passed = 0.0;
      for (int n = 4 - stay; n < 4; n++) sum += (double)p[n];
      for (int n = 4 - stay; n < 4; n++) {
        assert_int_equal(drawn(logits, count, s, (passed + 0.01 * (double)p[n]) / sum, NULL), at[n]);
        assert_int_equal(drawn(logits, count, s, (passed + 0.99 * (double)p[n]) / sum, NULL), at[n]);
        passed += (double)p[n];
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_set_as_enumerated),
      cmocka_unit_test(ties_and_limits),
      cmocka_unit_test(greedy_takes_the_first_best),
      cmocka_unit_test(never_a_nan),
      cmocka_unit_test(top_k_of_large_vocabularies),
      cmocka_unit_test(top_p_of_large_vocabularies),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
