/* Products on quantised weights against plain loops in double over the floats they stand for: every type,
 * alone and stacked with others, few rows and many, whichever way they are multiplied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "dots_ggml.h"
#include "llama.h"
#include "operator_cases.h"

static const int32_t quantised[] = {FA_GGML_Q4_0, FA_GGML_Q4_1,   FA_GGML_Q5_0, FA_GGML_Q5_1,
                                    FA_GGML_Q8_0, FA_GGML_IQ4_NL, FA_GGML_Q2_K, FA_GGML_Q3_K,
                                    FA_GGML_Q4_K, FA_GGML_Q5_K,   FA_GGML_Q6_K};
enum { QUANTISED = sizeof quantised / sizeof quantised[0] };

static const double largest_offset = 0.25; /* m of Q4_1 and Q5_1 */

static void put_half(uint8_t *at, double value) {
  const uint16_t half = fa_f16_of((float)value);
  memcpy(at, &half, sizeof half);
}

/* Random blocks with scales that make weights of about 1. */
static uint8_t *random_blocks(int32_t number, int64_t elements) {
  static const struct {
    int32_t type;
    int scale_at, offset_at;
    double scale;
  } places[] = {{FA_GGML_Q4_0, 0, -1, 0.1},   {FA_GGML_Q4_1, 0, 2, 0.06},     {FA_GGML_Q5_0, 0, -1, 0.05},
                {FA_GGML_Q5_1, 0, 2, 0.03},   {FA_GGML_Q8_0, 0, -1, 0.008},   {FA_GGML_IQ4_NL, 0, -1, 0.008},
                {FA_GGML_Q2_K, 80, 82, 0.03}, {FA_GGML_Q3_K, 108, -1, 0.01},  {FA_GGML_Q4_K, 0, 2, 0.001},
                {FA_GGML_Q5_K, 0, 2, 0.0005}, {FA_GGML_Q6_K, 208, -1, 0.0003}};
  const fa_ggml_type *type = fa_ggml_type_of(number);
  const int64_t blocks = elements / type->block_elements;
  uint8_t *bytes = malloc((size_t)(blocks * type->block_bytes));
  size_t p = 0;
  while (places[p].type != number) p++;
  for (int64_t i = 0; i < blocks * type->block_bytes; i++) bytes[i] = (uint8_t)case_below(256);
  for (int64_t i = 0; i < blocks; i++) {
    uint8_t *block = bytes + i * type->block_bytes;
    const bool wide = type->block_elements == 32 && places[p].offset_at >= 0;
    put_half(block + places[p].scale_at, places[p].scale * (1.0 + case_number() / 2.0));
    if (places[p].offset_at >= 0) {
      put_half(block + places[p].offset_at, (wide ? largest_offset : places[p].scale) * case_number());
    }
  }
  return bytes;
}

/* Sum of row `a` times row `w`, and how far it may be off.
 *   dot products: activations are rounded to 8 bits in blocks of 32 or 256 with a step of their largest /
 * 127, kept in fp16; so by half a step, and 127 steps times 2^-11. Offsets multiply a sum rounded to fp16.
 *   unpacked weights: rounded to bf16 at worst. */
static double bounded_dot(fa_dtype dtype, const void *a, const float *w, int64_t n, double *tolerance) {
  double sum = 0.0, absolute = 0.0;
  *tolerance = 0.0;
  for (int64_t first = 0; first < n; first += 256) {
    double largest = 0.0, weights = 0.0, block_sum = 0.0;
    for (int64_t i = first; i < n && i < first + 256; i++) {
      const double x = (double)case_get(dtype, a, i), term = x * (double)w[i];
      sum += term;
      absolute += fabs(term);
      largest = fmax(largest, fabs(x));
      weights += fabs((double)w[i]);
      block_sum += fabs(x);
    }
    *tolerance +=
        largest * weights * (0.51 / 127.0 + 0x1p-11) + largest_offset * (block_sum + largest) * 0x1p-10;
  }
  if (dtype == FA_FLOAT32) *tolerance = 0.0; /* products of fp32 */
  *tolerance += (dtype == FA_FLOAT32 ? 0.0 : absolute * 0x1p-8) + sum_error(absolute, n);
  return sum;
}

typedef struct weights_case {
  int count;
  int32_t types[FA_MATRIX_PARTS];
  int64_t rows[FA_MATRIX_PARTS], columns;
} weights_case;

static fa_matrix *matrix_of(fa_engine *engine, const weights_case *c, uint8_t *blocks[], float *floats) {
  fa_weight_part parts[FA_MATRIX_PARTS];
  fa_matrix *matrix = NULL;
  for (int i = 0; i < c->count; floats += c->rows[i++] * c->columns) {
    blocks[i] = random_blocks(c->types[i], c->rows[i] * c->columns);
    fa_ggml_type_of(c->types[i])->to_float(blocks[i], floats, c->rows[i] * c->columns);
    parts[i] = (fa_weight_part){"test", c->types[i], c->rows[i], c->columns, blocks[i], 0};
  }
  assert_int_equal(ops->matrix_create(engine, parts, c->count, FA_MATRIX_PRODUCT, &matrix), FA_OK);
  return matrix;
}

static void check(fa_engine *engine, const weights_case *c, int64_t rows) {
  const fa_dtype dtype = engine->dtype;
  const int64_t total = c->rows[0] + c->rows[1] + c->rows[2], n = c->columns;
  float *w = case_buffer(total * n), *in = case_floats(rows * n, 1.0),
        *before = case_floats(rows * total, 3.0);
  float *y = case_buffer(rows * total);
  void *a = case_rounded(dtype, in, rows * n);
  uint8_t *blocks[FA_MATRIX_PARTS];
  fa_matrix *matrix = matrix_of(engine, c, blocks, w);
  for (fa_epilogue epilogue = FA_EPILOGUE_WIDE; epilogue <= FA_EPILOGUE_ADD; epilogue++) {
    memcpy(y, before, (size_t)(rows * total) * sizeof *y);
    assert_int_equal(ops->product(engine, matrix, epilogue, rows, a, y), FA_OK);
    for (int64_t i = 0; i < rows * total; i++) {
      const double start = epilogue == FA_EPILOGUE_ADD ? (double)before[i] : 0.0;
      double tolerance;
      const double expected =
          start + bounded_dot(dtype, row_at(dtype, a, i / total, n), w + i % total * n, n, &tolerance);
      close_to(fa_ggml_type_of(c->types[0])->name, i, (double)y[i], expected,
               tolerance + fabs(start) * 0x1p-22);
    }
  }
  ops->matrix_free(engine, matrix);
  for (int i = 0; i < c->count; i++) free(blocks[i]);
  free(w);
  free(in);
  free(before);
  free(y);
  free(a);
}

static void test_types(void **state) {
  (void)state;
  fa_context *context = context_of(2);
  for (size_t t = 0; t < 3; t++) {
    fa_engine *engine = engine_of(context, case_types[t]);
    for (size_t i = 0; i < QUANTISED; i++) {
      const bool large = fa_ggml_type_of(quantised[i])->block_elements == 256;
      const weights_case one = {1, {quantised[i]}, {37}, large ? 512 : 96};
      static const int64_t rows[] = {1, 3, 8, 9, 33};
      for (size_t r = 0; r < 5; r++) check(engine, &one, rows[r]);
    }
    ops->close(engine);
  }
  fa_context_destroy(context);
}

/* As files mix them: rows of activations are rounded for each kind of weights. */
static void test_stacked_types(void **state) {
  (void)state;
  static const weights_case cases[] = {
      {3, {FA_GGML_Q4_K, FA_GGML_Q4_K, FA_GGML_Q6_K}, {70, 9, 9}, 256},
      {3, {FA_GGML_Q4_1, FA_GGML_Q8_0, FA_GGML_Q5_1}, {130, 1, 67}, 64},
      {3, {FA_GGML_Q5_0, FA_GGML_Q6_K, FA_GGML_Q4_1}, {3, 65, 2}, 512},
      {2, {FA_GGML_Q8_0, FA_GGML_Q4_0}, {5, 3}, 32},
  };
  fa_context *context = context_of(3);
  fa_engine *engine = engine_of(context, FA_BFLOAT16);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    check(engine, &cases[i], 1);
    check(engine, &cases[i], 5);
    check(engine, &cases[i], 40);
  }
  ops->close(engine);
  fa_context_destroy(context);
}

static double silu(double z) { return z / (1.0 + exp(-z)); }

static void check_gated(fa_engine *engine, const weights_case *c, int64_t rows) {
  const fa_dtype dtype = engine->dtype;
  const int64_t inner = c->rows[0], n = c->columns;
  float *w = case_buffer(2 * inner * n), *in = case_floats(rows * n, 0.1),
        *scratch = case_buffer(2 * rows * inner);
  void *a = case_rounded(dtype, in, rows * n), *y = case_buffer(rows * inner);
  uint8_t *blocks[FA_MATRIX_PARTS];
  fa_matrix *matrix = matrix_of(engine, c, blocks, w);
  const bool gate = c->count == 2;
  assert_int_equal(ops->gated_product(engine, matrix, gate, FA_ACTIVATION_SILU, rows, a, scratch, y), FA_OK);
  for (int64_t i = 0; i < rows * inner; i++) {
    const void *x = row_at(dtype, a, i / inner, n);
    double gate_off, up_off = 0.0, up = 1.0;
    const double z = bounded_dot(dtype, x, w + i % inner * n, n, &gate_off);
    if (gate) up = bounded_dot(dtype, x, w + (inner + i % inner) * n, n, &up_off);
    const double off = (1.13 * gate_off + fabs(z) * 0x1p-20) * (fabs(up) + up_off) + fabs(silu(z)) * up_off;
    close_to("gated", i, (double)case_get(dtype, y, i), silu(z) * up,
             off + case_rounding(dtype, fabs(silu(z) * up) + off));
  }
  ops->matrix_free(engine, matrix);
  for (int i = 0; i < c->count; i++) free(blocks[i]);
  free(w);
  free(in);
  free(scratch);
  free(a);
  free(y);
}

static void test_gated(void **state) {
  (void)state;
  static const weights_case cases[] = {{2, {FA_GGML_Q4_1, FA_GGML_Q4_1}, {131, 131}, 96},
                                       {2, {FA_GGML_Q4_K, FA_GGML_Q5_0}, {66, 66}, 256},
                                       {1, {FA_GGML_Q8_0}, {130}, 64}};
  fa_context *context = context_of(2);
  for (size_t t = 0; t < 3; t++) {
    fa_engine *engine = engine_of(context, case_types[t]);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
      check_gated(engine, &cases[i], 1);
      check_gated(engine, &cases[i], 7);
      check_gated(engine, &cases[i], 30);
    }
    ops->close(engine);
  }
  fa_context_destroy(context);
}

/* More rows of weights than a slab holds. */
static void test_several_slabs(void **state) {
  (void)state;
  static const weights_case wide = {1, {FA_GGML_Q4_0}, {310}, 16384};
  static const weights_case gated = {2, {FA_GGML_Q4_0, FA_GGML_Q8_0}, {150, 150}, 16384};
  fa_context *context = context_of(2);
  fa_engine *engine = engine_of(context, FA_BFLOAT16);
  check(engine, &wide, 10);
  check_gated(engine, &gated, 10);
  ops->close(engine);
  fa_context_destroy(context);
}

/* Bytes a product of one row reads, and random weights, where ggml is there: the type's own. */
static void test_bytes_and_random_weights(void **state) {
  (void)state;
  enum { ROWS = 200, WIDTH = 256 };
  fa_context *context = context_of(2);
  fa_engine *engine = engine_of(context, FA_FLOAT32), *another = engine_of(context, FA_FLOAT32);
  for (size_t i = 0; i < QUANTISED; i++) {
    const fa_weight_part part = {"random", quantised[i], ROWS, WIDTH, NULL, 5};
    const fa_ggml_type *type = fa_ggml_type_of(quantised[i]);
    const fa_dots *dots = fa_dots_of(quantised[i]);
    static float one[WIDTH], column[ROWS], rows[ROWS * WIDTH];
    int32_t tokens[ROWS];
    double squares = 0.0;
    fa_matrix *table = NULL;
    one[3] = 1.0f;
    for (int32_t row = 0; row < ROWS; row++) tokens[row] = row;
    assert_int_equal(ops->matrix_create(engine, &part, 1, FA_MATRIX_PRODUCT | FA_MATRIX_EMBEDDING, &table),
                     FA_OK);
    if (dots && dots->from_floats) {
      assert_int_equal(ops->matrix_bytes(table), ROWS * WIDTH / type->block_elements * type->block_bytes);
    }
    assert_int_equal(ops->embed(another, table, ROWS, tokens, 1.0f, rows), FA_OK);
    assert_int_equal(ops->product(another, table, FA_EPILOGUE_F32, 1, one, column), FA_OK);
    for (int row = 0; row < ROWS; row++) {
      close_to(type->name, row, (double)column[row], (double)rows[row * WIDTH + 3],
               0.004 * fabs((double)column[row]) + 1e-4);
    }
    for (int64_t e = 0; e < ROWS * WIDTH; e++) squares += (double)rows[e] * (double)rows[e];
    close_to(type->name, -1, sqrt(squares / (ROWS * WIDTH)), 1.0 / 16.0, 0.05 / 16.0);
    ops->matrix_free(engine, table);
  }
  ops->close(another);
  ops->close(engine);
  fa_context_destroy(context);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_types), cmocka_unit_test(test_stacked_types),
                                     cmocka_unit_test(test_gated), cmocka_unit_test(test_several_slabs),
                                     cmocka_unit_test(test_bytes_and_random_weights)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
