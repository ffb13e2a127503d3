/* Heads of the stacked product into queries and pages, against plain loops in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "operator_cases.h"

typedef struct head_case {
  int64_t rows, heads_q, heads_kv, dim, v_dim, rotary_dim, page_size;
  bool interleaved, bias, norms;
} head_case;

/* Head `head` of row `row` of the stacked product, as it has to be stored; error: fp32's at any element. */
static void expected_head(const fa_head_placement *p, const head_case *c, int64_t row, int64_t first_column,
                          int64_t dim, const float *norm, bool rotated, double *head, double *error) {
  const int64_t width = (c->heads_q + c->heads_kv) * c->dim + c->heads_kv * c->v_dim;
  double largest = 0.0;
  for (int64_t d = 0; d < dim; d++) {
    head[d] = (double)((const float *)p->qkv)[row * width + first_column + d];
    if (p->bias) head[d] += (double)p->bias[first_column + d];
  }
  if (norm) {
    double squares = 0.0;
    for (int64_t d = 0; d < dim; d++) squares += head[d] * head[d];
    const double inverse = 1.0 / sqrt(squares / (double)dim + (double)p->norm_epsilon);
    for (int64_t d = 0; d < dim; d++) head[d] *= inverse * (double)norm[d];
  }
  const int64_t half = c->rotary_dim / 2;
  for (int64_t d = 0; d < half && rotated; d++) {
    const double cosine = (double)p->rotary[2 * (p->positions[row] * half + d)];
    const double sine = (double)p->rotary[2 * (p->positions[row] * half + d) + 1];
    const int64_t i = c->interleaved ? 2 * d : d, j = c->interleaved ? 2 * d + 1 : d + half;
    const double first = head[i], second = head[j];
    head[i] = first * cosine - second * sine;
    head[j] = first * sine + second * cosine;
  }
  for (int64_t d = 0; d < dim; d++) largest = fmax(largest, fabs(head[d]));
  *error = 2.0 * (largest + 4.0) * (double)(dim + 8) * 0x1p-25;
}

static void check_heads(fa_engine *engine, const head_case *c) {
  enum { PAGES = 5, POSITIONS = 50 };
  const fa_dtype dtype = engine->dtype;
  const int64_t width = (c->heads_q + c->heads_kv) * c->dim + c->heads_kv * c->v_dim;
  const int64_t k_elements = PAGES * c->heads_kv * c->page_size * c->dim,
                v_elements = PAGES * c->heads_kv * c->page_size * c->v_dim;
  float *qkv = case_floats(c->rows * width, 2.0), *bias = case_floats(width, 1.0);
  float *q_norm = case_floats(c->dim, 1.5), *k_norm = case_floats(c->dim, 1.5);
  float *rotary = case_floats(POSITIONS * (c->rotary_dim + 1), 1.0);
  int32_t positions[64], slots[64];
  char *k = case_buffer(k_elements), *v = case_buffer(v_elements),
       *q = case_buffer(c->rows * c->heads_q * c->dim);
  const size_t size = fa_dtype_bytes(dtype);
  for (int64_t i = 0; i < c->rows; i++) {
    positions[i] = (int32_t)case_below(POSITIONS);
    slots[i] = (int32_t)((i * 7 + 3) %
                         (PAGES * c->page_size)); /* all different: 7 divides no number of slots here */
  }
  const fa_head_placement p = {.rows = c->rows,
                               .heads_q = c->heads_q,
                               .heads_kv = c->heads_kv,
                               .head_dim_qk = c->dim,
                               .head_dim_v = c->v_dim,
                               .rotary_dim = c->rotary_dim,
                               .rotary_interleaved = c->interleaved,
                               .rotary = rotary,
                               .positions = positions,
                               .slots = slots,
                               .qkv = qkv,
                               .bias = c->bias ? bias : NULL,
                               .q_norm = c->norms ? q_norm : NULL,
                               .k_norm = c->norms ? k_norm : NULL,
                               .norm_epsilon = 1e-6f,
                               .q = q,
                               .k = k,
                               .v = v,
                               .page_size = c->page_size};
  assert_int_equal(ops->place_heads(engine, &p), FA_OK);
  for (int64_t row = 0; row < c->rows; row++) {
    const int64_t page = slots[row] / c->page_size, slot = slots[row] % c->page_size;
    for (int64_t h = 0; h < c->heads_q + 2 * c->heads_kv; h++) {
      const bool is_q = h < c->heads_q, is_v = h >= c->heads_q + c->heads_kv;
      const int64_t kv = is_v ? h - c->heads_q - c->heads_kv : h - c->heads_q, dim = is_v ? c->v_dim : c->dim;
      const int64_t column = is_v ? (c->heads_q + c->heads_kv) * c->dim + kv * dim : h * dim;
      const int64_t at =
          is_q ? (row * c->heads_q + h) * dim : ((page * c->heads_kv + kv) * c->page_size + slot) * dim;
      char *stored = (is_q ? q : is_v ? v : k) + (size_t)at * size;
      double head[256], error;
      expected_head(&p, c, row, column, dim, is_v ? NULL : is_q ? p.q_norm : p.k_norm, !is_v, head, &error);
      for (int64_t d = 0; d < dim; d++) {
        close_to(is_q   ? "q"
                 : is_v ? "v"
                        : "k",
                 d, (double)case_get(dtype, stored, d), head[d],
                 error + case_rounding(dtype, fabs(head[d]) + error));
      }
      memset(stored, 0xff, (size_t)dim * size);
    }
  }
  /* Nothing else was written. */
  for (size_t i = 0; i < (size_t)k_elements * size; i++) assert_int_equal((uint8_t)k[i], 0xff);
  for (size_t i = 0; i < (size_t)v_elements * size; i++) assert_int_equal((uint8_t)v[i], 0xff);
  free(qkv);
  free(bias);
  free(q_norm);
  free(k_norm);
  free(rotary);
  free(k);
  free(v);
  free(q);
}

static void test_heads(void **state) {
  (void)state;
  static const head_case cases[] = {
      {1, 9, 3, 64, 64, 64, 16, true, false, false},     {40, 9, 3, 64, 64, 64, 16, true, false, false},
      {33, 4, 1, 256, 256, 256, 8, false, false, true},  {5, 3, 1, 80, 48, 20, 3, false, true, true},
      {6, 2, 2, 37, 11, 6, 4, true, true, false},        {3, 2, 1, 33, 33, 0, 1, false, false, false},
      {40, 5, 5, 128, 128, 128, 16, false, true, false},
  };
  fa_context *context = context_of(2);
  for (size_t t = 0; t < 3; t++) {
    fa_engine *engine = engine_of(context, case_types[t]);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_heads(engine, &cases[i]);
    fa_head_placement longer = {.rows = 1, .head_dim_qk = 1025};
    assert_int_equal(ops->place_heads(engine, &longer), FA_ERROR_UNSUPPORTED);
    ops->close(engine);
  }
  fa_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_heads)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
