/* Sampling on NVIDIA GPUs against a plain implementation of its rules in double. Skipped where there is none. */
#include "cuda_device.h"

#include <math.h>

static int falling(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* What may be drawn: where in vocabulary order each kept token's share of the probability lies. */
typedef struct judged {
  double *begin, *end; /* [vocabulary], a token that is not kept: begin == end == -1 */
  int64_t best;
  int is_close; /* a threshold is nearer to a token that matters than single precision tells apart */
} judged;

static judged judge(int64_t n, const float *logits, const fa_sample_row *s, const uint8_t *seen) {
  judged j = {malloc((size_t)n * sizeof(double)), malloc((size_t)n * sizeof(double)), 0, 0};
  double *l = malloc((size_t)n * sizeof *l), *sorted = malloc((size_t)n * sizeof *l);
  assert_true(j.begin && j.end && l && sorted);
  for (int64_t i = 0; i < n; ++i) {
    l[i] = (double)logits[i];
    if (seen && seen[i]) l[i] = logits[i] > 0.0f ? (double)(logits[i] / s->repetition_penalty) : (double)(logits[i] * s->repetition_penalty);
    if (l[i] > l[j.best]) j.best = i;
    j.begin[i] = j.end[i] = -1.0;
  }
  const double max = l[j.best], temperature = (double)s->temperature;
  if (!(temperature > 0.0)) {
    free(l), free(sorted);
    return j;
  }
  for (int64_t i = 0; i < n; ++i) sorted[i] = l[i] = (l[i] - max) / temperature;
  qsort(sorted, (size_t)n, sizeof *sorted, falling);
  double least = s->top_k > 0 && s->top_k < n ? sorted[s->top_k - 1] : -INFINITY, sum = 0.0, upto = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += l[i] >= least ? exp(l[i]) : 0.0;
#define MATTERS(x) (exp(x) > 1e-6 * sum)
  if (s->top_k > 0 && s->top_k < n && sorted[s->top_k] != least && least - sorted[s->top_k] < 4e-6 && MATTERS(least)) j.is_close = 1;
  if (s->top_p < 1.0f) {
    for (int64_t i = 0; i < n && sorted[i] >= least; ++i) {
      upto += exp(sorted[i]);
      if (i + 1 < n && sorted[i + 1] == sorted[i]) continue; /* ties come together */
      if (fabs(upto / sum - (double)s->top_p) < 4e-6 && MATTERS(sorted[i])) j.is_close = 1;
      if (upto >= (double)s->top_p * sum) {
        if (i + 1 < n && sorted[i] - sorted[i + 1] < 4e-6 && MATTERS(sorted[i])) j.is_close = 1;
        least = sorted[i];
        break;
      }
    }
  }
  sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    if (fabs(exp(l[i]) - (double)s->min_p) < 1e-6 && (double)s->min_p > 0.0) j.is_close = 1;
    if (l[i] < least || exp(l[i]) < (double)s->min_p) continue;
    j.begin[i] = sum;
    j.end[i] = sum += exp(l[i]);
  }
  for (int64_t i = 0; i < n; ++i)
    if (j.end[i] >= 0.0) j.begin[i] /= sum, j.end[i] /= sum;
  free(l), free(sorted);
  return j;
}

static fa_sample_row row_of(float temperature, int32_t top_k, float top_p, float min_p, float penalty, float uniform) {
  return (fa_sample_row){temperature, top_p, min_p, penalty, top_k, uniform};
}

static void sample_on_device(fa_engine *engine, int64_t rows, int64_t n, const float *logits, const fa_sample_row *settings,
                             uint8_t *seen, int32_t *tokens) {
  void *dl = to_device(engine, logits, (size_t)(rows * n) * 4), *ds = to_device(engine, settings, (size_t)rows * sizeof *settings);
  void *dseen = seen ? to_device(engine, seen, (size_t)(rows * n)) : NULL, *dt = poisoned_device(engine, (size_t)rows * 4);
  OK(ops->sample(engine, rows, n, dl, ds, dseen, dt));
  from_device(engine, tokens, dt, (size_t)rows * 4);
  if (seen) from_device(engine, seen, dseen, (size_t)(rows * n));
  fa_buffer_free(device, dl), fa_buffer_free(device, ds), fa_buffer_free(device, dseen), fa_buffer_free(device, dt);
}

static void test_rules(void **state) {
  (void)state;
  static const int64_t vocabularies[] = {1, 2, 33, 1000, 49152, 50257, 262144};
  enum { MOST = 24 };
  if (!device) skip();
  fa_engine *engine = engine_of(FA_FLOAT32);
  int looked_at = 0, close = 0;
  for (size_t v = 0; v < sizeof vocabularies / sizeof *vocabularies; ++v) {
    const int64_t n = vocabularies[v];
    const int rows = n > 100000 ? 12 : MOST;
    float *logits = malloc((size_t)(rows * n) * 4);
    uint8_t *seen = malloc((size_t)(rows * n)), *after = malloc((size_t)(rows * n));
    fa_sample_row settings[MOST];
    int32_t tokens[MOST], again[MOST];
    uint64_t seed = 77 + v;
    assert_true(logits && seen && after);
    for (int64_t i = 0; i < rows * n; ++i) {
      /* Near to normal, deviation 3; coarse in every third row, so that values tie. */
      const float sum = 3.0f * (draw(&seed) + draw(&seed) + draw(&seed));
      logits[i] = i / n % 3 == 1 ? roundf(sum) : sum;
      seen[i] = draw(&seed) > 0.8f;
    }
    for (int r = 0; r < rows; ++r) {
      static const float temperatures[] = {1.0f, 0.3f, 2.0f, 0.0f}, top_ps[] = {1.0f, 0.9f, 0.5f, 0.99f, 0.0f}, min_ps[] = {0.0f, 0.05f, 0.0f};
      static const int32_t top_ks[] = {0, 1, 40, 7, 500, 0, 1000000};
      settings[r] = row_of(temperatures[r % 4 == 3 && r > 8 ? 0 : r % 4], top_ks[r % 7], top_ps[r % 5], min_ps[r % 3],
                           r % 2 ? 1.0f : 1.3f, 0.5f + 0.5f * draw(&seed));
    }
    memcpy(after, seen, (size_t)(rows * n));
    sample_on_device(engine, rows, n, logits, settings, after, tokens);
    for (int r = 0; r < rows; ++r) {
      const int64_t t = tokens[r];
      assert_in_range(t, 0, n - 1);
      judged j = judge(n, logits + r * n, &settings[r], seen + r * n);
      const double u = (double)settings[r].uniform;
      if (!(settings[r].temperature > 0.0f)) assert_int_equal(t, j.best);
      else if (j.is_close) close++;
      else if (!(j.begin[t] >= 0.0 && j.begin[t] - 2e-5 <= u && u <= j.end[t] + 2e-5))
        fail_msg("vocabulary %lld row %d: token %lld has [%g, %g), u is %g", (long long)n, r, (long long)t, j.begin[t], j.end[t], u);
      looked_at++;
      for (int64_t i = 0; i < n; ++i) assert_int_equal(after[r * n + i], i == t ? 1 : seen[r * n + i]);
      free(j.begin), free(j.end);
    }
    memcpy(after, seen, (size_t)(rows * n));
    sample_on_device(engine, rows, n, logits, settings, after, again);
    assert_memory_equal(tokens, again, (size_t)rows * 4);
    free(logits), free(seen), free(after);
  }
  assert_true(close * 10 < looked_at);
  ops->close(engine);
}

/* Every token comes exactly as often as its probability says when u runs over the interval. */
static void test_shares(void **state) {
  (void)state;
  enum { N = 6, DRAWS = 400 };
  static const float probabilities[N] = {0.1f, 0.3f, 0.05f, 0.4f, 0.0f, 0.15f};
  if (!device) skip();
  fa_engine *engine = engine_of(FA_FLOAT32);
  float *logits = malloc(DRAWS * N * sizeof *logits);
  fa_sample_row *settings = malloc(DRAWS * sizeof *settings);
  int32_t *tokens = malloc(DRAWS * sizeof *tokens), counts[N] = {0};
  assert_true(logits && settings && tokens);
  for (int r = 0; r < DRAWS; ++r) {
    for (int i = 0; i < N; ++i) logits[r * N + i] = logf(probabilities[i]);
    settings[r] = row_of(1.0f, 0, 1.0f, 0.0f, 1.0f, ((float)r + 0.5f) / (float)DRAWS);
  }
  sample_on_device(engine, DRAWS, N, logits, settings, NULL, tokens);
  for (int r = 0; r < DRAWS; ++r) counts[tokens[r]]++;
  for (int i = 0; i < N; ++i) assert_true(abs(counts[i] - (int)lroundf(probabilities[i] * (float)DRAWS)) <= 1);
  free(logits), free(settings), free(tokens);
  ops->close(engine);
}

static void test_edges(void **state) {
  (void)state;
  enum { N = 5 };
  static const struct {
    float logits[N];
    fa_sample_row row;
    int32_t token;
  } cases[] = {
      {{1.0f, 3.0f, 3.0f, 2.0f, 3.0f}, {0.0f, 1.0f, 0.0f, 1.0f, 0, 0.9f}, 1},              /* the first of equals */
      {{NAN, -INFINITY, -5.0f, NAN, -6.0f}, {0.0f, 1.0f, 0.0f, 1.0f, 0, 0.9f}, 2},         /* a NaN is never best */
      {{NAN, -INFINITY, -5.0f, NAN, -60.0f}, {1.0f, 1.0f, 0.0f, 1.0f, 0, 0.999f}, 2},      /* nor drawn */
      {{1.0f, INFINITY, 2.0f, 3.0f, 4.0f}, {1.0f, 0.9f, 0.0f, 1.0f, 3, 0.999f}, 1},
      {{-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}, {1.0f, 0.9f, 0.0f, 1.0f, 3, 0.5f}, 0},
      {{NAN, NAN, NAN, NAN, NAN}, {1.0f, 0.9f, 0.1f, 1.0f, 3, 0.5f}, 0},
      {{0.0f, 9.0f, 9.0f, 9.0f, 0.0f}, {1.0f, 1.0f, 0.0f, 1.0f, 1, 0.999f}, 3},            /* ties with the k-th are kept */
      {{0.0f, 9.0f, 9.0f, 9.0f, 0.0f}, {1.0f, 0.0f, 0.0f, 1.0f, 0, 0.999f}, 3},            /* and with top_p's last */
      {{0.0f, 9.0f, 8.0f, 1.0f, 0.0f}, {1.0f, 1.0f, 2.0f, 1.0f, 0, 0.999f}, 1},            /* the best stays whatever min_p */
      {{1.0f, 2.0f, 3.0f, 4.0f, 5.0f}, {1e-30f, 1.0f, 0.0f, 1.0f, 0, 0.0f}, 4},            /* cold */
      {{1e30f, -1e30f, 3.0f, 4.0f, 5.0f}, {1.0f, 1.0f, 0.0f, 1.0f, 0, 0.999f}, 0},
  };
  enum { ROWS = sizeof cases / sizeof *cases };
  if (!device) skip();
  fa_engine *engine = engine_of(FA_FLOAT32);
  float logits[ROWS][N];
  fa_sample_row settings[ROWS];
  int32_t tokens[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    memcpy(logits[r], cases[r].logits, sizeof logits[r]);
    settings[r] = cases[r].row;
  }
  sample_on_device(engine, ROWS, N, &logits[0][0], settings, NULL, tokens);
  for (int r = 0; r < ROWS; ++r)
    if (tokens[r] != cases[r].token) fail_msg("case %d gives token %d, not %d", r, tokens[r], cases[r].token);
  ops->close(engine);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules), cmocka_unit_test(test_shares), cmocka_unit_test(test_edges)};
  return cmocka_run_group_tests(tests, find_device, leave_device);
}
