/* Weights on the CPU and the products on them.
 *
 * A matrix is packed for oneDNN once, in bf16 where the CPU multiplies that in hardware and the engine's type
 * is bf16, else in fp32. Embeddings are read from the part's own blocks, a row at a time. */
#include "matrix_cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dequantize.h"
#include "llama_error.h"
#include "row_operators.h"

struct fa_matrix {
  int64_t rows, columns;
  unsigned use;
  int count;
  fa_weight_part parts[FA_MATRIX_PARTS];
  int packed_count; /* 2 for a matrix of two parts, a gate and what it gates: one activates, the other
                       multiplies */
  fa_packed_weights *packed[2];
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* -------------------------------------------------------------------------- rows */

/* Uniform of the wanted deviation, from the element's place alone, so that a random table needs no memory.
 * The mixing is splitmix64's (Steele, Lea and Flood, 2014). */
static void random_row(const fa_weight_part *part, int64_t row, float *floats) {
  const float scale = sqrtf(12.0f / (float)part->columns);
  for (int64_t i = 0; i < part->columns; i++) {
    uint64_t z = part->seed + (uint64_t)(row * part->columns + i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    floats[i] = ((float)(z >> 40) * 0x1p-24f - 0.5f) * scale;
  }
}

static void row_to_floats(const fa_weight_part *part, int64_t row, float *floats) {
  if (!part->data) {
    random_row(part, row, floats);
    return;
  }
  const fa_ggml_type *type = fa_ggml_type_of(part->type);
  const int64_t row_bytes = part->columns / type->block_elements * type->block_bytes;
  type->to_float(part->data + row * row_bytes, floats, part->columns);
}

/* ----------------------------------------------------------------------- packing */

/* Rows of all parts, one below the other, rounded to the type of oneDNN's operands. */
static fa_status stack_rows(const fa_cpu_engine *engine, const fa_weight_part *parts, int count,
                            char *stacked) {
  const size_t row_bytes = (size_t)parts[0].columns * fa_dtype_bytes(engine->operand);
  bool failed = false;
  for (int i = 0; i < count; stacked += (size_t)parts[i].rows * row_bytes, i++) {
#pragma omp parallel num_threads(engine->threads)
    {
      float *floats = malloc((size_t)parts[i].columns * sizeof *floats);
      if (!floats) {
#pragma omp atomic write
        failed = true;
      }
#pragma omp for schedule(static)
      for (int64_t row = 0; row < parts[i].rows; row++) {
        if (!floats) continue;
        row_to_floats(&parts[i], row, floats);
        fa_row_from_floats(floats, parts[i].columns, engine->operand, stacked + (size_t)row * row_bytes);
      }
      free(floats);
    }
  }
  return failed ? fa_llama_out_of_memory("a row of weights") : FA_OK;
}

static fa_status pack(fa_cpu_engine *engine, const fa_weight_part *parts, int count,
                      fa_packed_weights **packed) {
  int64_t rows = 0;
  for (int i = 0; i < count; i++) rows += parts[i].rows;
  char *stacked = malloc((size_t)rows * (size_t)parts[0].columns * fa_dtype_bytes(engine->operand));
  if (!stacked) return fa_llama_out_of_memory("weights to be packed");
  fa_status status = stack_rows(engine, parts, count, stacked);
  if (status == FA_OK) {
    status = fa_packed_weights_create(engine->products, rows, parts[0].columns, stacked, packed);
  }
  free(stacked);
  return status;
}

static fa_status reserve_rows(fa_cpu_engine *engine, int64_t columns) {
  if (columns <= engine->longest_row) return FA_OK;
  const size_t bytes = (size_t)FA_CPU_BLOCK_ROWS * (size_t)columns * sizeof(float);
  if (engine->operand != engine->base.dtype) {
    float *converted = aligned_alloc(64, bytes);
    if (!converted) return fa_llama_out_of_memory("what enters a product");
    free(engine->converted);
    engine->converted = converted;
  }
  engine->longest_row = columns;
  return FA_OK;
}

static fa_status check_parts(const fa_weight_part *parts, int count, unsigned use) {
  if (count < 1 || count > FA_MATRIX_PARTS || ((use & FA_MATRIX_EMBEDDING) && count != 1)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a matrix of %d parts; 1 .. %d are allowed, 1 for an embedding",
                         count, FA_MATRIX_PARTS);
  }
  for (int i = 0; i < count; i++) {
    const fa_ggml_type *type = fa_ggml_type_of(parts[i].type);
    const char *name = parts[i].name ? parts[i].name : "a weight";
    if (!type || (parts[i].data && !type->to_float)) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED, "tensor '%s' is of type %s; read here: %s", name,
                           type ? type->name : "unknown", fa_ggml_types_read);
    }
    if (parts[i].rows < 1 || parts[i].columns < 1 || parts[i].columns != parts[0].columns ||
        parts[i].columns % type->block_elements) {
      return fa_llama_fail(
          FA_ERROR_ARGUMENT,
          "tensor '%s' is %lld x %lld of type %s; parts of a matrix have one number of columns, a "
          "multiple of %d here (the first: %lld)",
          name, (long long)parts[i].rows, (long long)parts[i].columns, type->name, (int)type->block_elements,
          (long long)parts[0].columns);
    }
  }
  return FA_OK;
}

fa_status fa_cpu_matrix_create(fa_cpu_engine *engine, const fa_weight_part *parts, int count, unsigned use,
                               fa_matrix **result) {
  fa_status status = check_parts(parts, count, use);
  if (status != FA_OK) return status;
  fa_matrix *matrix = calloc(1, sizeof *matrix);
  if (!matrix) return fa_llama_out_of_memory("a weight");
  matrix->columns = parts[0].columns;
  matrix->use = use;
  matrix->count = count;
  for (int i = 0; i < count; i++) {
    matrix->parts[i] = parts[i];
    matrix->parts[i].name = NULL;
    matrix->rows += parts[i].rows;
  }
  if (use & FA_MATRIX_PRODUCT) {
    status = reserve_rows(engine, matrix->columns);
    matrix->packed_count = count == 2 ? 2 : 1;
    for (int i = 0; i < matrix->packed_count && status == FA_OK; i++) {
      status = pack(engine, parts + i, count == 2 ? 1 : count, &matrix->packed[i]);
    }
  }
  if (status != FA_OK) {
    fa_cpu_matrix_free(matrix);
    return status;
  }
  *result = matrix;
  return FA_OK;
}

void fa_cpu_matrix_free(fa_matrix *matrix) {
  if (!matrix) return;
  for (int i = 0; i < matrix->packed_count; i++) fa_packed_weights_free(matrix->packed[i]);
  free(matrix);
}

size_t fa_cpu_matrix_bytes(const fa_matrix *matrix) {
  size_t bytes = 0;
  for (int i = 0; i < matrix->packed_count; i++) bytes += fa_packed_weights_bytes(matrix->packed[i]);
  return bytes;
}

/* ----------------------------------------------------------------------- products */

fa_status fa_cpu_embed(fa_cpu_engine *engine, const fa_matrix *table, int64_t rows, const int32_t *tokens,
                       float scale, float *x) {
  for (int64_t row = 0; row < rows; row++) {
    if (tokens[row] < 0 || tokens[row] >= table->rows) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "token %d at place %lld; the vocabulary has 0 .. %lld",
                           tokens[row], (long long)row, (long long)table->rows - 1);
    }
  }
#pragma omp parallel for num_threads(engine->threads) schedule(static) if (rows > 8)
  for (int64_t row = 0; row < rows; row++) {
    float *out = x + row * table->columns;
    row_to_floats(&table->parts[0], tokens[row], out);
    if (scale != 1.0f) {
      for (int64_t i = 0; i < table->columns; i++) out[i] *= scale;
    }
  }
  return FA_OK;
}

/* Rows of a of the operands' type: as they are, or converted; at most a block of them. */
static const void *operand_rows(fa_cpu_engine *engine, int64_t rows, int64_t columns, const void *a) {
  if (engine->operand == engine->base.dtype) return a;
  const size_t row_bytes = (size_t)columns * fa_dtype_bytes(engine->base.dtype);
#pragma omp parallel for num_threads(engine->threads) schedule(static) if (rows > 8)
  for (int64_t row = 0; row < rows; row++) {
    fa_row_to_floats(engine->base.dtype, (const char *)a + (size_t)row * row_bytes, columns,
                     engine->converted + row * columns);
  }
  return engine->converted;
}

/* At most a block of rows. */
static fa_status packed_product(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue,
                                int64_t rows, const void *a, float *y) {
  fa_product_call call = {.finish = epilogue == FA_EPILOGUE_ADD ? FA_FINISH_ADD : FA_FINISH_STORE,
                          .rows = rows,
                          .y_stride = matrix->rows,
                          .x = operand_rows(engine, rows, matrix->columns, a)};
  fa_status status = FA_OK;
  for (int i = 0; i < matrix->packed_count && status == FA_OK; i++) {
    call.y = y + (i ? matrix->parts[0].rows : 0);
    status = fa_products_run(engine->products, matrix->packed[i], &call);
  }
  return status;
}

fa_status fa_cpu_product(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows,
                         const void *a, void *y) {
  const size_t a_bytes = (size_t)matrix->columns * fa_dtype_bytes(engine->base.dtype);
  fa_status status = FA_OK;
  for (int64_t row = 0; row < rows && status == FA_OK; row += FA_CPU_BLOCK_ROWS) {
    status = packed_product(engine, matrix, epilogue, least(FA_CPU_BLOCK_ROWS, rows - row),
                            (const char *)a + (size_t)row * a_bytes, (float *)y + row * matrix->rows);
  }
  return status;
}

/* Everything fused: the activation into the gate's product, the multiplication and rounding into the other's.
 */
static fa_status fused_gated_product(fa_cpu_engine *engine, const fa_matrix *gated, bool has_gate,
                                     fa_activation activation, int64_t rows, const void *a, float *scratch,
                                     void *y) {
  const int64_t inner = has_gate ? gated->rows / 2 : gated->rows;
  fa_product_call call = {.finish = has_gate ? FA_FINISH_ACTIVATE : FA_FINISH_ACTIVATE_ROUND,
                          .activation = activation,
                          .rows = rows,
                          .y_stride = inner,
                          .x = a,
                          .y = has_gate ? (void *)scratch : y};
  const fa_status status = fa_products_run(engine->products, gated->packed[0], &call);
  if (status != FA_OK || !has_gate) return status;
  call.finish = FA_FINISH_TIMES_ROUND;
  call.factor = scratch;
  call.y = y;
  return fa_products_run(engine->products, gated->packed[1], &call);
}

fa_status fa_cpu_gated_product(fa_cpu_engine *engine, const fa_matrix *gated, bool has_gate,
                               fa_activation activation, int64_t rows, const void *a, void *scratch,
                               void *y) {
  const int64_t inner = has_gate ? gated->rows / 2 : gated->rows;
  const size_t bytes = fa_dtype_bytes(engine->base.dtype);
  const bool halves = gated->packed_count == 2 && gated->parts[0].rows == inner;
  const bool fused = engine->operand == engine->base.dtype && (has_gate ? halves : gated->packed_count == 1);
  fa_status status = FA_OK;
  if (has_gate && gated->rows % 2) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "gate and up of %lld rows together; they have the same number",
                         (long long)gated->rows);
  }
  for (int64_t row = 0; row < rows && status == FA_OK; row += FA_CPU_BLOCK_ROWS) {
    const int64_t block = least(FA_CPU_BLOCK_ROWS, rows - row);
    const char *in = (const char *)a + (size_t)(row * gated->columns) * bytes;
    char *out = (char *)y + (size_t)(row * inner) * bytes;
    if (fused) {
      status = fused_gated_product(engine, gated, has_gate, activation, block, in, scratch, out);
      continue;
    }
    status = packed_product(engine, gated, FA_EPILOGUE_WIDE, block, in, scratch);
    if (status != FA_OK) break;
    fa_rows_activate(engine->threads, block, inner, activation, scratch,
                     has_gate ? (float *)scratch + inner : NULL, gated->rows, engine->base.dtype, out);
  }
  return status;
}
