/* The operators of NVIDIA GPUs against plain loops in double. Skipped, and said so, where there is no GPU. */
#include "cuda_device.h"

#include <math.h>

#include "dequantize.h"

static void assert_near(double is, double should, double tolerance, const char *what, int64_t at) {
  if (!(fabs(is - should) <= tolerance))
    fail_msg("%s: element %lld is %.9g, should be %.9g within %.3g", what, (long long)at, is, should, tolerance);
}

static void test_open_refuses(void **state) {
  (void)state;
  fa_context *cpu;
  fa_engine *engine = (fa_engine *)(void *)&cpu;
  OK(fa_context_create(NULL, &cpu));
  assert_int_equal(ops->open(cpu, FA_FLOAT16, &engine), FA_ERROR_UNSUPPORTED);
  assert_null(engine);
  assert_true(strlen(fa_llama_last_error()) > 20);
  assert_null(strchr(fa_llama_last_error(), '\n'));
  fa_context_destroy(cpu);
  ops->close(NULL);
}

static fa_matrix *matrix_of(fa_engine *engine, int64_t rows, int64_t columns, uint64_t seed, unsigned use, double **values) {
  void *host = random_array(FA_FLOAT32, rows * columns, seed, values);
  /* In two parts where it may be. */
  const int64_t first = use & FA_MATRIX_EMBEDDING || rows < 2 ? rows : rows / 3 + 1;
  const fa_weight_part parts[] = {{"w", FA_GGML_F32, first, columns, host, 0},
                                  {"w2", FA_GGML_F32, rows - first, columns, (uint8_t *)host + first * columns * 4, 0}};
  fa_matrix *matrix;
  OK(ops->matrix_create(engine, parts, first < rows ? 2 : 1, use, &matrix));
  assert_int_equal(ops->matrix_bytes(matrix), (size_t)(rows * columns) * bytes_of(engine->dtype));
  for (int64_t i = 0; i < rows * columns; ++i) (*values)[i] = rounded(engine->dtype, ((const float *)host)[i]);
  free(host);
  return matrix;
}

static void test_embed_and_pick(void **state) {
  (void)state;
  static const int64_t widths[] = {64, 576, 77, 4096};
  static const int32_t tokens[] = {7, 0, 299, 7, 128};
  enum { ROWS = 5, TABLE = 300 };
  EACH_ENGINE(engine) {
    for (size_t w = 0; w < sizeof widths / sizeof *widths; ++w) {
      const int64_t width = widths[w];
      double *table;
      fa_matrix *matrix = matrix_of(engine, TABLE, width, 1 + w, FA_MATRIX_EMBEDDING | FA_MATRIX_PRODUCT, &table);
      void *index = to_device(engine, tokens, sizeof tokens);
      void *x = poisoned_device(engine, (size_t)(ROWS * width) * 4), *y = poisoned_device(engine, (size_t)(ROWS * width) * 4);
      static const int32_t order[] = {4, 4, 1, 0, 2};
      void *rows_of = to_device(engine, order, sizeof order);
      OK(ops->embed(engine, matrix, ROWS, index, 1.5f, x));
      OK(ops->pick_rows(engine, ROWS, width, x, rows_of, y));
      double *embedded = read_back(engine, FA_FLOAT32, x, ROWS * width), *picked = read_back(engine, FA_FLOAT32, y, ROWS * width);
      for (int64_t i = 0; i < ROWS * width; ++i) {
        const double should = 1.5 * table[tokens[i / width] * width + i % width];
        assert_near(embedded[i], should, 1e-7 * fabs(should), "embed", i);
        assert_true(picked[i] == embedded[order[i / width] * width + i % width]);
      }
      free(table), free(embedded), free(picked);
      fa_buffer_free(device, index), fa_buffer_free(device, x), fa_buffer_free(device, y), fa_buffer_free(device, rows_of);
      ops->matrix_free(engine, matrix);
    }
  }
}

/* More than a slab of staging, of every type that is read, of parts that do not end with a slab. */
static void test_matrices_of_files(void **state) {
  (void)state;
  enum { COLUMNS = 1024, ROWS = 8300, LOOKED_AT = 5 };
  static const int32_t looked_at[LOOKED_AT] = {0, 4095, 4096, 8191, 8299};
  static const int32_t types[] = {FA_GGML_F32, FA_GGML_F16, FA_GGML_BF16, FA_GGML_Q8_0, FA_GGML_Q4_1, FA_GGML_Q6_K};
  EACH_ENGINE(engine) {
    void *index = to_device(engine, looked_at, sizeof looked_at);
    void *x = poisoned_device(engine, (size_t)LOOKED_AT * COLUMNS * 4);
    for (size_t t = 0; t < sizeof types / sizeof *types; ++t) {
      const fa_ggml_type *type = fa_ggml_type_of(types[t]);
      const size_t row = (size_t)(COLUMNS / type->block_elements * type->block_bytes), bytes = ROWS * row;
      uint8_t *data = malloc(bytes);
      float values[COLUMNS];
      assert_non_null(data);
      uint64_t seed = 11 + t;
      for (size_t i = 0; i < bytes; ++i) data[i] = (uint8_t)(draw(&seed) * 60.0f + 60.0f); /* small exponents: no NaN */
      const fa_weight_part part = {"file", types[t], ROWS, COLUMNS, data, 0};
      fa_matrix *matrix;
      OK(ops->matrix_create(engine, &part, 1, FA_MATRIX_EMBEDDING, &matrix));
      OK(ops->embed(engine, matrix, LOOKED_AT, index, 1.0f, x));
      double *embedded = read_back(engine, FA_FLOAT32, x, LOOKED_AT * COLUMNS);
      for (int r = 0; r < LOOKED_AT; ++r) {
        type->to_float(data + (size_t)looked_at[r] * row, values, COLUMNS);
        for (int i = 0; i < COLUMNS; ++i)
          if (embedded[r * COLUMNS + i] != rounded(engine->dtype, values[i]))
            fail_msg("%s row %d column %d: %g, not %g", type->name, looked_at[r], i, embedded[r * COLUMNS + i], (double)values[i]);
      }
      free(embedded), free(data);
      ops->matrix_free(engine, matrix);
    }
    fa_buffer_free(device, index), fa_buffer_free(device, x);
  }
}

static void test_matrices_refused(void **state) {
  (void)state;
  EACH_ENGINE(engine) {
    const uint8_t data[64] = {0};
    const fa_weight_part good = {"good", FA_GGML_F32, 2, 8, data, 0}, wide = {"wide", FA_GGML_F32, 1, 16, data, 0},
                         odd = {"odd", 999, 2, 8, data, 0}, broken = {"broken", FA_GGML_Q8_0, 1, 33, data, 0};
    const struct {
      fa_weight_part parts[2];
      int count;
      unsigned use;
      const char *word;
    } cases[] = {{{good, wide}, 2, FA_MATRIX_PRODUCT, "wide"},
                 {{odd, odd}, 1, FA_MATRIX_PRODUCT, "999"},
                 {{broken, broken}, 1, FA_MATRIX_PRODUCT, "broken"},
                 {{good, good}, 2, FA_MATRIX_EMBEDDING, "embedding"},
                 {{good, good}, 0, FA_MATRIX_PRODUCT, "parts"}};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; ++n) {
      fa_matrix *matrix = (fa_matrix *)(void *)&good;
      assert_int_not_equal(ops->matrix_create(engine, cases[n].parts, cases[n].count, cases[n].use, &matrix), FA_OK);
      assert_null(matrix);
      assert_non_null(strstr(fa_llama_last_error(), cases[n].word));
    }
  }
}

static void test_random_matrices(void **state) {
  (void)state;
  enum { ROWS = 512, COLUMNS = 1024, COUNT = ROWS * COLUMNS };
  const double count = COUNT, scale = sqrt(COLUMNS);
  EACH_ENGINE(engine) {
    int32_t every[ROWS];
    double first = 0.0;
    for (int i = 0; i < ROWS; ++i) every[i] = i;
    void *index = to_device(engine, every, sizeof every), *x = poisoned_device(engine, (size_t)COUNT * 4);
    for (uint64_t seed = 5; seed < 7; ++seed) {
      const fa_weight_part part = {"random", FA_GGML_Q6_K, ROWS, COLUMNS, NULL, seed};
      fa_matrix *matrix;
      OK(ops->matrix_create(engine, &part, 1, FA_MATRIX_EMBEDDING, &matrix));
      OK(ops->embed(engine, matrix, ROWS, index, 1.0f, x));
      double *values = read_back(engine, FA_FLOAT32, x, COUNT), sum = 0.0, squares = 0.0, fourth = 0.0, neighbours = 0.0;
      for (int i = 0; i < COUNT; ++i) {
        const double v = values[i] * scale;
        sum += v, squares += v * v, fourth += v * v * v * v;
        if (i) neighbours += v * values[i - 1] * scale;
      }
      /* Five standard deviations of a normal sample's moments. */
      assert_near(sum / count, 0.0, 5.0 / sqrt(count), "mean", 0);
      assert_near(squares / count, 1.0, 5.0 * sqrt(2.0 / count) + 1e-3, "variance", 0);
      assert_near(fourth / count, 3.0, 5.0 * sqrt(96.0 / count) + 1e-2, "fourth moment", 0);
      assert_near(neighbours / count, 0.0, 5.0 / sqrt(count), "neighbours", 0);
      if (seed == 5) first = values[0];
      else assert_true(values[0] != first);
      free(values);
      ops->matrix_free(engine, matrix);
    }
    fa_buffer_free(device, index), fa_buffer_free(device, x);
  }
}

static void test_products(void **state) {
  (void)state;
  static const int64_t shapes[][3] = {{64, 64, 1}, {576, 192, 3}, {1000, 4096, 17}, {40, 72, 5}, {4096, 512, 16}, {49152, 64, 2}, {256, 512, 130}};
  EACH_ENGINE(engine) {
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; ++s) {
      const int64_t outputs = shapes[s][0], inputs = shapes[s][1], rows = shapes[s][2], count = rows * outputs;
      double *weights, *a, *before;
      fa_matrix *matrix = matrix_of(engine, outputs, inputs, 21 + s, FA_MATRIX_PRODUCT, &weights);
      void *given = random_device(engine, engine->dtype, rows * inputs, 31 + s, &a);
      for (int epilogue = FA_EPILOGUE_WIDE; epilogue <= FA_EPILOGUE_ADD; ++epilogue) {
        const fa_dtype written = epilogue == FA_EPILOGUE_WIDE ? engine->dtype : FA_FLOAT32;
        void *y = random_device(engine, FA_FLOAT32, count, 41 + s, &before);
        OK(ops->product(engine, matrix, (fa_epilogue)epilogue, rows, given, y));
        double *got = read_back(engine, written, y, count);
        for (int64_t i = 0; i < count; ++i) {
          double sum = 0.0, magnitude = 0.0;
          for (int64_t k = 0; k < inputs; ++k) {
            const double product = a[i / outputs * inputs + k] * weights[i % outputs * inputs + k];
            sum += product, magnitude += fabs(product);
          }
          if (epilogue == FA_EPILOGUE_ADD) sum += before[i];
          assert_near(got[i], sum, 4e-6 * magnitude + 1.01 * unit_of(written) * fabs(sum) + 1e-7, "product", i);
        }
        free(got), free(before);
        fa_buffer_free(device, y);
      }
      free(weights), free(a);
      fa_buffer_free(device, given);
      ops->matrix_free(engine, matrix);
    }
  }
}

static double activated(fa_activation activation, double z) {
  return activation == FA_ACTIVATION_SILU ? z / (1.0 + exp(-z))
                                          : 0.5 * z * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (z + 0.044715 * z * z * z)));
}

static void test_gated_products(void **state) {
  (void)state;
  enum { INPUTS = 64 };
  EACH_ENGINE(engine) {
    for (int variant = 0; variant < 8; ++variant) {
      const int has_gate = variant & 1;
      const fa_activation activation = variant & 2 ? FA_ACTIVATION_GELU_TANH : FA_ACTIVATION_SILU;
      const int64_t inner = variant & 4 ? 1536 : 92, rows = variant & 4 ? 3 : 17; /* 92: not aligned */
      const int64_t outputs = inner * (has_gate ? 2 : 1);
      double *weights, *a;
      fa_matrix *matrix = matrix_of(engine, outputs, INPUTS, 51, FA_MATRIX_PRODUCT, &weights);
      void *given = random_device(engine, engine->dtype, rows * INPUTS, 52, &a);
      void *scratch = poisoned_device(engine, (size_t)(rows * outputs) * 4), *y = poisoned_device(engine, (size_t)(rows * inner) * 4);
      OK(ops->gated_product(engine, matrix, has_gate, activation, rows, given, scratch, y));
      double *got = read_back(engine, engine->dtype, y, rows * inner);
      for (int64_t i = 0; i < rows * inner; ++i) {
        double sums[2] = {0.0, 0.0};
        for (int part = 0; part < 1 + has_gate; ++part)
          for (int64_t k = 0; k < INPUTS; ++k) sums[part] += a[i / inner * INPUTS + k] * weights[(part * inner + i % inner) * INPUTS + k];
        const double up = has_gate ? sums[1] : 1.0, should = activated(activation, sums[0]) * up;
        /* Each of the two sums was rounded once, and the slope of an activation is at most 1.13. */
        const double tolerance = unit_of(engine->dtype) * (1.2 * fabs(sums[0] * up) + 2.1 * fabs(should)) + 4e-5;
        assert_near(got[i], should, tolerance, "gated product", i);
      }
      free(weights), free(a), free(got);
      fa_buffer_free(device, given), fa_buffer_free(device, scratch), fa_buffer_free(device, y);
      ops->matrix_free(engine, matrix);
    }
  }
}

static void test_norms(void **state) {
  (void)state;
  static const int64_t shapes[][2] = {{1, 64}, {3, 576}, {300, 1000}, {2, 77}, {1, 4096}, {1, 16384}};
  EACH_ENGINE(engine) {
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; ++s) {
      const int64_t rows = shapes[s][0], width = shapes[s][1];
      double *x, *t, *weight;
      void *dx = random_device(engine, FA_FLOAT32, rows * width, 61, &x), *dt = random_device(engine, engine->dtype, rows * width, 62, &t);
      void *dw = random_device(engine, FA_FLOAT32, width, 63, &weight), *y = poisoned_device(engine, (size_t)(rows * width) * 4);
      OK(ops->norm(engine, rows, width, dx, dw, 1e-3f, y));
      OK(ops->norm_add(engine, rows, width, dt, dw, 1e-3f, dx));
      double *normed = read_back(engine, engine->dtype, y, rows * width), *added = read_back(engine, FA_FLOAT32, dx, rows * width);
      double square_x = 0.0, square_t = 0.0;
      for (int64_t i = 0; i < rows * width; ++i) {
        if (i % width == 0) {
          square_x = square_t = 0.0;
          for (int64_t k = i; k < i + width; ++k) square_x += x[k] * x[k], square_t += t[k] * t[k];
        }
        const double should = x[i] / sqrt(square_x / (double)width + (double)1e-3f) * weight[i % width];
        const double more = t[i] / sqrt(square_t / (double)width + (double)1e-3f) * weight[i % width];
        assert_near(normed[i], should, (1.01 * unit_of(engine->dtype) + 2e-6) * fabs(should) + 1e-7, "norm", i);
        assert_near(added[i], x[i] + more, 2e-6 * (fabs(more) + fabs(x[i])), "norm_add", i);
      }
      free(x), free(t), free(weight), free(normed), free(added);
      fa_buffer_free(device, dx), fa_buffer_free(device, dt), fa_buffer_free(device, dw), fa_buffer_free(device, y);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_open_refuses),      cmocka_unit_test(test_embed_and_pick), cmocka_unit_test(test_matrices_of_files),
      cmocka_unit_test(test_matrices_refused),  cmocka_unit_test(test_random_matrices), cmocka_unit_test(test_products),
      cmocka_unit_test(test_gated_products),    cmocka_unit_test(test_norms),
  };
  return cmocka_run_group_tests(tests, find_device, leave_device);
}
