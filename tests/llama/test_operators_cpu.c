/* Every operator of the CPU against plain loops in double, in all three types and at shapes that fill no
 * vector. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "llama.h"
#include "operator_cases.h"

/* ----------------------------------------------------------------------- products */

static void check_product(fa_engine *engine, int64_t rows, int64_t inputs, const int64_t *outputs,
                          int count) {
  const fa_dtype dtype = engine->dtype;
  int64_t total = 0;
  for (int i = 0; i < count; i++) total += outputs[i];
  float *w = case_exact_floats(total * inputs), *in = case_floats(rows * inputs, 1.0);
  float *before = case_floats(rows * total, 3.0);
  void *a = case_rounded(dtype, in, rows * inputs);
  float *y = case_buffer(rows * total);
  fa_weight_part parts[FA_MATRIX_PARTS];
  fa_matrix *matrix = NULL;
  for (int64_t i = 0, row = 0; i < count; row += outputs[i++])
    parts[i] = part_of(w + row * inputs, outputs[i], inputs);
  assert_int_equal(ops->matrix_create(engine, parts, count, FA_MATRIX_PRODUCT, &matrix), FA_OK);
  assert_true(ops->matrix_bytes(matrix) >= (size_t)(total * inputs) * 2);
  for (fa_epilogue epilogue = FA_EPILOGUE_WIDE; epilogue <= FA_EPILOGUE_ADD; epilogue++) {
    memcpy(y, before, (size_t)(rows * total) * sizeof *y);
    assert_int_equal(ops->product(engine, matrix, epilogue, rows, a, y), FA_OK);
    for (int64_t i = 0; i < rows * total; i++) {
      double absolute;
      double expected =
          dot(dtype, row_at(dtype, a, i / total, inputs), w + i % total * inputs, inputs, &absolute);
      if (epilogue == FA_EPILOGUE_ADD) {
        expected += (double)before[i];
        absolute += fabs((double)before[i]);
      }
      close_to("product", i, (double)y[i], expected, sum_error(absolute, inputs));
    }
  }
  ops->matrix_free(engine, matrix);
  free(w);
  free(in);
  free(before);
  free(a);
  free(y);
}

static void test_products(void **state) {
  (void)state;
  fa_context *context = context_of(2);
  for (size_t t = 0; t < 3; t++) {
    fa_engine *engine = engine_of(context, case_types[t]);
    check_product(engine, 1, 64, (const int64_t[]){48, 16, 16}, 3);
    check_product(engine, 3, 37, (const int64_t[]){5, 1, 7}, 3);
    check_product(engine, 17, 96, (const int64_t[]){33, 65}, 2);
    check_product(engine, 1, 1, (const int64_t[]){1}, 1);
    check_product(engine, 5, 130, (const int64_t[]){259}, 1);
    check_product(engine, 515, 40, (const int64_t[]){24}, 1); /* more rows than a block */
    ops->close(engine);
  }
  fa_context_destroy(context);
}

static double activated(fa_activation activation, double z) {
  if (activation == FA_ACTIVATION_SILU) return z / (1.0 + exp(-z));
  return z / 2.0 * (1.0 + tanh(sqrt(2.0 / 3.14159265358979323846) * (z + 0.044715 * z * z * z)));
}

/* parts 2: gate and up as they stand in files; 1: in one tensor. */
static void check_gated(fa_engine *engine, bool has_gate, int parts, fa_activation activation, int64_t rows,
                        int64_t inputs, int64_t inner) {
  const fa_dtype dtype = engine->dtype;
  const int64_t total = has_gate ? 2 * inner : inner;
  float *w = case_exact_floats(total * inputs), *in = case_floats(rows * inputs, 1.0);
  void *a = case_rounded(dtype, in, rows * inputs), *y = case_buffer(rows * inner);
  float *scratch = case_buffer(rows * total);
  const fa_weight_part stacked[2] = {part_of(w, total / parts, inputs),
                                     part_of(w + total / parts * inputs, total / parts, inputs)};
  fa_matrix *matrix = NULL;
  assert_int_equal(ops->matrix_create(engine, stacked, parts, FA_MATRIX_PRODUCT, &matrix), FA_OK);
  assert_int_equal(ops->gated_product(engine, matrix, has_gate, activation, rows, a, scratch, y), FA_OK);
  for (int64_t i = 0; i < rows * inner; i++) {
    const void *x = row_at(dtype, a, i / inner, inputs);
    double gate_sum, up_sum = 0.0, up = 1.0;
    const double z = dot(dtype, x, w + i % inner * inputs, inputs, &gate_sum);
    if (has_gate) up = dot(dtype, x, w + (inner + i % inner) * inputs, inputs, &up_sum);
    const double act = activated(activation, z), expected = act * up;
    /* Slopes of both activations stay below 1.13. The exponential's or tanh's own error is some units in the
     * last place of a factor between 0 and 1 of z. */
    const double act_error = 1.13 * sum_error(gate_sum, inputs) + fabs(z) * 0x1p-20;
    const double tolerance =
        act_error * (fabs(up) + sum_error(up_sum, inputs)) + fabs(act) * sum_error(up_sum, inputs);
    close_to(activation == FA_ACTIVATION_SILU ? "silu" : "gelu", i, (double)case_get(dtype, y, i), expected,
             tolerance + case_rounding(dtype, fabs(expected) + tolerance));
  }
  ops->matrix_free(engine, matrix);
  free(w);
  free(in);
  free(a);
  free(y);
  free(scratch);
}

static void test_gated_products(void **state) {
  (void)state;
  fa_context *context = context_of(2);
  for (size_t t = 0; t < 3; t++) {
    fa_engine *engine = engine_of(context, case_types[t]);
    for (fa_activation act = FA_ACTIVATION_SILU; act <= FA_ACTIVATION_GELU_TANH; act++) {
      check_gated(engine, true, 2, act, 1, 64, 96);
      check_gated(engine, true, 2, act, 19, 33, 41);
      check_gated(engine, true, 1, act, 3, 64, 31);
      check_gated(engine, false, 1, act, 7, 64, 35);
      check_gated(engine, true, 2, act, 515, 24, 16);
    }
    ops->close(engine);
  }
  fa_context_destroy(context);
}

/* -------------------------------------------------------------------------- rows */

static void check_norm(fa_engine *engine, int64_t rows, int64_t width, double scale) {
  const fa_dtype dtype = engine->dtype;
  const float epsilon = 1e-5f;
  float *x = case_floats(rows * width, scale), *weight = case_floats(width, 2.0);
  float *sum = case_floats(rows * width, 1.0), *before = case_buffer(rows * width);
  void *y = case_buffer(rows * width);
  memcpy(before, sum, (size_t)(rows * width) * sizeof *sum);
  assert_int_equal(ops->norm(engine, rows, width, x, weight, epsilon, y), FA_OK);
  assert_int_equal(ops->norm_add(engine, rows, width, x, weight, epsilon, sum), FA_OK);
  for (int64_t row = 0; row < rows; row++) {
    double squares = 0.0;
    for (int64_t i = 0; i < width; i++) squares += (double)x[row * width + i] * (double)x[row * width + i];
    const double inverse = 1.0 / sqrt(squares / (double)width + (double)epsilon);
    for (int64_t i = row * width; i < (row + 1) * width; i++) {
      const double expected = (double)x[i] * inverse * (double)weight[i % width];
      const double error = fabs(expected) * (double)(width + 8) * 0x1p-25;
      close_to("norm", i, (double)case_get(dtype, y, i), expected,
               error + case_rounding(dtype, fabs(expected) + error));
      close_to("norm_add", i, (double)sum[i], (double)before[i] + expected,
               error + (fabs((double)before[i]) + fabs(expected)) * 0x1p-23);
    }
  }
  free(x);
  free(weight);
  free(sum);
  free(before);
  free(y);
}

static void test_norms(void **state) {
  (void)state;
  fa_context *context = context_of(2);
  for (size_t t = 0; t < 3; t++) {
    fa_engine *engine = engine_of(context, case_types[t]);
    check_norm(engine, 1, 1, 1.0);
    check_norm(engine, 3, 37, 1.0);
    check_norm(engine, 40, 577, 100.0);
    check_norm(engine, 2, 64, 1e-4); /* epsilon counts */
    ops->close(engine);
  }
  fa_context_destroy(context);
}

static void test_embedding_and_picking(void **state) {
  (void)state;
  enum { TOKENS = 11, WIDTH = 64, ROWS = 9 };
  static const int32_t tokens[ROWS] = {0, 10, 3, 3, 7, 1, 2, 9, 10}, chosen[3] = {8, 0, 3};
  fa_context *context = context_of(2);
  fa_engine *engine = engine_of(context, FA_BFLOAT16);
  uint8_t blocks[TOKENS * WIDTH / 32 * 34]; /* Q8_0 */
  float expected[TOKENS * WIDTH], x[ROWS * WIDTH], y[3 * WIDTH];
  for (size_t i = 0; i < sizeof blocks; i++)
    blocks[i] = (uint8_t)(i % 34 == 0 ? 0 : i % 34 == 1 ? 0x2c : case_below(256));
  fa_ggml_type_of(FA_GGML_Q8_0)->to_float(blocks, expected, TOKENS * WIDTH);
  const fa_weight_part part = {"table", FA_GGML_Q8_0, TOKENS, WIDTH, blocks, 0};
  fa_matrix *table = NULL;
  assert_int_equal(ops->matrix_create(engine, &part, 1, FA_MATRIX_EMBEDDING, &table), FA_OK);
  assert_int_equal(ops->embed(engine, table, ROWS, tokens, 0.5f, x), FA_OK);
  for (int i = 0; i < ROWS * WIDTH; i++)
    assert_true(x[i] == 0.5f * expected[tokens[i / WIDTH] * WIDTH + i % WIDTH]);
  assert_int_equal(ops->pick_rows(engine, 3, WIDTH, x, chosen, y), FA_OK);
  for (int i = 0; i < 3 * WIDTH; i++) assert_true(y[i] == x[chosen[i / WIDTH] * WIDTH + i % WIDTH]);
  const int32_t beyond = TOKENS;
  assert_int_equal(ops->embed(engine, table, 1, &beyond, 1.0f, x), FA_ERROR_ARGUMENT);
  assert_string_equal(fa_llama_last_error(), "token 11 at place 0; the vocabulary has 0 .. 10");
  ops->matrix_free(engine, table);
  ops->close(engine);
  fa_context_destroy(context);
}

/* A tied table of random values: what is looked up is what a product multiplies by. */
static void test_random_weights(void **state) {
  (void)state;
  enum { ROWS = 300, WIDTH = 128 };
  fa_context *context = context_of(2);
  fa_engine *engine = engine_of(context, FA_FLOAT32);
  const fa_weight_part part = {"random", FA_GGML_BF16, ROWS, WIDTH, NULL, 7};
  static float one[WIDTH], column[ROWS], rows[ROWS * WIDTH];
  static int32_t tokens[ROWS];
  fa_matrix *table = NULL;
  double sum = 0.0, squares = 0.0;
  for (int i = 0; i < ROWS; i++) tokens[i] = i;
  one[5] = 1.0f;
  assert_int_equal(ops->matrix_create(engine, &part, 1, FA_MATRIX_PRODUCT | FA_MATRIX_EMBEDDING, &table),
                   FA_OK);
  assert_int_equal(ops->embed(engine, table, ROWS, tokens, 1.0f, rows), FA_OK);
  assert_int_equal(ops->product(engine, table, FA_EPILOGUE_F32, 1, one, column), FA_OK);
  for (int i = 0; i < ROWS; i++) assert_true(column[i] == rows[i * WIDTH + 5]);
  for (int i = 0; i < ROWS * WIDTH; i++) {
    sum += (double)rows[i];
    squares += (double)rows[i] * (double)rows[i];
  }
  const double count = ROWS * WIDTH, deviation = 1.0 / sqrt(WIDTH);
  close_to("mean", 0, sum / count, 0.0, 5.0 * deviation / sqrt(count));
  close_to("deviation", 0, sqrt(squares / count), deviation, 0.02 * deviation);
  ops->matrix_free(engine, table);
  ops->close(engine);
  fa_context_destroy(context);
}

/* ------------------------------------------------------------------------ the rest */

static void test_best_tokens(void **state) {
  (void)state;
  enum { ROWS = 3, VOCABULARY = 101 };
  static const fa_sample_row greedy = {0.0f, 1.0f, 0.0f, 1.0f, 0, 0.5f};
  const fa_sample_row settings[ROWS] = {greedy, greedy, greedy};
  fa_context *context = context_of(2);
  fa_engine *engine = engine_of(context, FA_FLOAT32);
  float *logits = case_floats(ROWS * VOCABULARY, 1.0);
  uint8_t seen[ROWS * VOCABULARY] = {0};
  int32_t tokens[ROWS];
  for (int row = 0; row < ROWS; row++) logits[row * VOCABULARY + 50 * row] = 2.0f;
  assert_int_equal(ops->sample(engine, ROWS, VOCABULARY, logits, settings, seen, tokens), FA_OK);
  for (int i = 0; i < ROWS * VOCABULARY; i++)
    assert_int_equal(seen[i], i % VOCABULARY == 50 * (i / VOCABULARY));
  for (int row = 0; row < ROWS; row++) assert_int_equal(tokens[row], 50 * row);
  free(logits);
  ops->close(engine);
  fa_context_destroy(context);
}

static void test_bad_parts(void **state) {
  (void)state;
  static const float floats[64] = {0};
  fa_context *context = context_of(1);
  fa_engine *engine = engine_of(context, FA_FLOAT32);
  fa_matrix *matrix = NULL;
  fa_weight_part parts[2] = {part_of(floats, 2, 16), part_of(floats, 2, 8)};
  assert_int_equal(ops->matrix_create(engine, parts, 2, FA_MATRIX_PRODUCT, &matrix), FA_ERROR_ARGUMENT);
  assert_int_equal(ops->matrix_create(engine, parts, 0, FA_MATRIX_PRODUCT, &matrix), FA_ERROR_ARGUMENT);
  assert_int_equal(ops->matrix_create(engine, parts, 4, FA_MATRIX_PRODUCT, &matrix), FA_ERROR_ARGUMENT);
  parts[1] = parts[0];
  assert_int_equal(ops->matrix_create(engine, parts, 2, FA_MATRIX_EMBEDDING, &matrix), FA_ERROR_ARGUMENT);
  parts[0].type = FA_GGML_Q8_0; /* 16 columns are half a block */
  assert_int_equal(ops->matrix_create(engine, parts, 1, FA_MATRIX_PRODUCT, &matrix), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_llama_last_error(), "'test'"));
  parts[0].type = 16; /* IQ2_XXS */
  assert_int_equal(ops->matrix_create(engine, parts, 1, FA_MATRIX_PRODUCT, &matrix), FA_ERROR_UNSUPPORTED);
  assert_non_null(strstr(fa_llama_last_error(), "IQ2_XXS"));
  parts[0].type = -3;
  assert_int_equal(ops->matrix_create(engine, parts, 1, FA_MATRIX_PRODUCT, &matrix), FA_ERROR_UNSUPPORTED);
  assert_null(matrix);
  fa_engine *none = NULL;
  assert_int_equal(ops->open(context, FA_INT8, &none), FA_ERROR_UNSUPPORTED);
  assert_null(none);
  ops->matrix_free(engine, NULL);
  ops->close(engine);
  ops->close(NULL);
  fa_context_destroy(context);
}

/* Rounding to nearest even and back, over every half and between each two. */
static void test_lanes(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 0x10000u; h++) {
    const uint16_t half = (uint16_t)h;
    const float value = fa_float_of_f16(half), next = fa_float_of_f16((uint16_t)(h + 1));
    if ((h & 0x7fffu) > 0x7c00u) {
      assert_true(isnan(value) && isnan(fa_float_of_f16(fa_f16_of(value))));
      continue;
    }
    const int exponent = (int)(h >> 10 & 31u);
    const double expected = exponent == 31 ? (double)INFINITY
                            : exponent     ? ldexp(1024.0 + (h & 1023u), exponent - 25)
                                           : ldexp((double)(h & 1023u), -24);
    assert_true((double)value == (h & 0x8000u ? -expected : expected));
    assert_int_equal(fa_f16_of(value), half);
    if (exponent == 31 || exponent == 30) continue;
    assert_int_equal(fa_f16_of((value + next) / 2.0f), h & 1u ? half + 1 : half);
  }
  assert_int_equal(fa_f16_of(65519.99f), 0x7bff);
  assert_int_equal(fa_f16_of(65520.0f), 0x7c00);
  assert_int_equal(fa_f16_of(-1e30f), 0xfc00);
  assert_int_equal(fa_bf16_of(fa_float_of_bits(0x3f808000u)), 0x3f80);
  assert_int_equal(fa_bf16_of(fa_float_of_bits(0x3f818000u)), 0x3f82);
  assert_true(isnan(fa_float_of_bf16(fa_bf16_of(fa_float_of_bits(0x7f800001u)))));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_products),       cmocka_unit_test(test_gated_products),
      cmocka_unit_test(test_norms),          cmocka_unit_test(test_embedding_and_picking),
      cmocka_unit_test(test_random_weights), cmocka_unit_test(test_best_tokens),
      cmocka_unit_test(test_bad_parts),      cmocka_unit_test(test_lanes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
