/* Weights on the CPU and the products on them.
 *
 * Quantised weights stay as the file has them where ggml multiplies their type (quantised_products.c).
 * Others, and all where it is not there, are packed for oneDNN once: in bf16 where the CPU multiplies that in
 * hardware and the engine's type is bf16, else in fp32. Embeddings are read from the part's own blocks, a row
 * at a time. */
#include "matrix_cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dequantize.h"
#include "llama_error.h"
#include "row_operators.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

fa_status fa_cpu_reserve(fa_cpu_scratch *scratch, size_t bytes) {
  if (bytes <= scratch->bytes) return FA_OK;
  free(scratch->memory);
  scratch->bytes = 0;
  scratch->memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!scratch->memory) return fa_llama_out_of_memory("the scratch memory of a product");
  scratch->bytes = bytes;
  return FA_OK;
}

/* -------------------------------------------------------------------------- rows */

/* Elements unpacked at a time, whole blocks of every type; their floats stay in the first cache. */
enum { PIECE = 2048 };

/* Uniform of the wanted deviation, from the element's place alone, so that a random table needs no memory.
 * The mixing is splitmix64's (Steele, Lea and Flood, 2014). */
static void random_floats(const fa_weight_part *part, int64_t row, int64_t first, int64_t count,
                          float *floats) {
  const float scale = sqrtf(12.0f / (float)part->columns);
  for (int64_t i = 0; i < count; i++) {
    uint64_t z = part->seed + (uint64_t)(row * part->columns + first + i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    floats[i] = ((float)(z >> 40) * 0x1p-24f - 0.5f) * scale;
  }
}

static size_t blocks_bytes(const fa_weight_part *part, int64_t elements) {
  const fa_ggml_type *type = fa_ggml_type_of(part->type);
  return (size_t)(elements / type->block_elements) * (size_t)type->block_bytes;
}

/* Elements [first, first + count) of a row; both multiples of a block. */
static void part_floats(const fa_weight_part *part, int64_t row, int64_t first, int64_t count,
                        float *floats) {
  if (!part->data) {
    random_floats(part, row, first, count, floats);
    return;
  }
  fa_ggml_type_of(part->type)
      ->to_float(part->data + (size_t)row * blocks_bytes(part, part->columns) + blocks_bytes(part, first),
                 floats, count);
}

void fa_cpu_unpack_rows(const fa_cpu_engine *engine, const fa_weight_part *part, int64_t first, int64_t rows,
                        void *unpacked) {
  const fa_dtype dtype = engine->operand;
#pragma omp parallel for num_threads(engine->threads) schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    float floats[PIECE];
    for (int64_t at = 0; at < part->columns; at += PIECE) {
      const int64_t count = least(PIECE, part->columns - at), place = row * part->columns + at;
      if (dtype == FA_FLOAT32) {
        part_floats(part, first + row, at, count, (float *)unpacked + place);
        continue;
      }
      part_floats(part, first + row, at, count, floats);
      fa_row_from_floats(floats, count, dtype, (uint16_t *)unpacked + place);
    }
  }
}

/* ------------------------------------------------------------------------ making */

static fa_status pack(fa_cpu_engine *engine, const fa_weight_part *parts, int count,
                      fa_packed_weights **packed) {
  const size_t row_bytes = (size_t)parts[0].columns * fa_dtype_bytes(engine->operand);
  int64_t rows = 0;
  for (int i = 0; i < count; i++) rows += parts[i].rows;
  char *stacked = malloc((size_t)rows * row_bytes), *next = stacked;
  if (!stacked) return fa_llama_out_of_memory("weights to be packed");
  for (int i = 0; i < count; next += (size_t)parts[i].rows * row_bytes, i++) {
    fa_cpu_unpack_rows(engine, &parts[i], 0, parts[i].rows, next);
  }
  const fa_status status =
      fa_packed_weights_create(engine->products, rows, parts[0].columns, stacked, packed);
  free(stacked);
  return status;
}

static fa_status pack_all(fa_cpu_engine *engine, fa_matrix *matrix) {
  fa_status status = FA_OK;
  matrix->packed_count = matrix->count == 2 ? 2 : 1;
  for (int i = 0; i < matrix->packed_count && status == FA_OK; i++) {
    status = pack(engine, matrix->parts + i, matrix->count == 2 ? 1 : matrix->count, &matrix->packed[i]);
  }
  return status;
}

/* Random weights of a quantised type have to be somewhere: in blocks of that type. */
static fa_status make_blocks(const fa_cpu_engine *engine, const fa_dots *dots, fa_weight_part *part,
                             uint8_t **owned) {
  const size_t row_bytes = blocks_bytes(part, part->columns);
  uint8_t *blocks = malloc((size_t)part->rows * row_bytes);
  if (!blocks) return fa_llama_out_of_memory("random weights");
#pragma omp parallel for num_threads(engine->threads) schedule(static)
  for (int64_t row = 0; row < part->rows; row++) {
    float floats[PIECE];
    for (int64_t at = 0; at < part->columns; at += PIECE) {
      const int64_t count = least(PIECE, part->columns - at);
      random_floats(part, row, at, count, floats);
      dots->from_floats(floats, blocks + (size_t)row * row_bytes + blocks_bytes(part, at), count);
    }
  }
  *owned = blocks;
  part->data = blocks;
  return FA_OK;
}

/* Whether all parts can be multiplied as they are. */
static bool stays_quantised(const fa_weight_part *parts, int count) {
  for (int i = 0; i < count; i++) {
    const fa_dots *dots = fa_dots_of(parts[i].type);
    if (!dots || (!parts[i].data && !dots->from_floats) ||
        parts[i].columns % fa_ggml_type_of(dots->other_type)->block_elements ||
        parts[i].columns > INT32_MAX) {
      return false;
    }
  }
  return true;
}

static fa_status keep_quantised(const fa_cpu_engine *engine, fa_matrix *matrix) {
  fa_status status = FA_OK;
  for (int i = 0; i < matrix->count && status == FA_OK; i++) {
    matrix->dots[i] = fa_dots_of(matrix->parts[i].type);
    if (!matrix->parts[i].data) {
      status = make_blocks(engine, matrix->dots[i], &matrix->parts[i], &matrix->owned[i]);
    }
  }
  return status;
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
  matrix->count = count;
  for (int i = 0; i < count; i++) {
    matrix->parts[i] = parts[i];
    matrix->parts[i].name = NULL;
    matrix->rows += parts[i].rows;
  }
  if (use & FA_MATRIX_PRODUCT) {
    status = stays_quantised(parts, count) ? keep_quantised(engine, matrix) : pack_all(engine, matrix);
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
  for (int i = 0; i < matrix->count; i++) free(matrix->owned[i]);
  free(matrix);
}

size_t fa_cpu_matrix_bytes(const fa_matrix *matrix) {
  size_t bytes = 0;
  for (int i = 0; i < matrix->packed_count; i++) bytes += fa_packed_weights_bytes(matrix->packed[i]);
  for (int i = 0; i < matrix->count && matrix->dots[0]; i++) {
    bytes += blocks_bytes(&matrix->parts[i], matrix->parts[i].rows * matrix->columns);
  }
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
    part_floats(&table->parts[0], tokens[row], 0, table->columns, out);
    for (int64_t i = 0; i < table->columns && scale != 1.0f; i++) out[i] *= scale;
  }
  return FA_OK;
}

fa_status fa_cpu_operand_rows(fa_cpu_engine *engine, int64_t rows, int64_t columns, const void *a,
                              const void **operands) {
  *operands = a;
  if (engine->operand == engine->base.dtype) return FA_OK;
  const size_t row_bytes = (size_t)columns * fa_dtype_bytes(engine->base.dtype);
  const fa_status status =
      fa_cpu_reserve(&engine->converted, (size_t)FA_CPU_BLOCK_ROWS * (size_t)columns * sizeof(float));
  if (status != FA_OK) return status;
  float *converted = engine->converted.memory;
#pragma omp parallel for num_threads(engine->threads) schedule(static) if (rows > 8)
  for (int64_t row = 0; row < rows; row++) {
    fa_row_to_floats(engine->base.dtype, (const char *)a + (size_t)row * row_bytes, columns,
                     converted + row * columns);
  }
  *operands = converted;
  return FA_OK;
}

/* At most a block of rows. */
static fa_status product(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows,
                         const void *a, float *y) {
  if (matrix->dots[0]) return fa_quantised_product(engine, matrix, epilogue, rows, a, y);
  fa_product_call call = {.finish = epilogue == FA_EPILOGUE_ADD ? FA_FINISH_ADD : FA_FINISH_STORE,
                          .rows = rows,
                          .y_stride = matrix->rows};
  fa_status status = fa_cpu_operand_rows(engine, rows, matrix->columns, a, &call.x);
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
    status = product(engine, matrix, epilogue, least(FA_CPU_BLOCK_ROWS, rows - row),
                     (const char *)a + (size_t)row * a_bytes, (float *)y + row * matrix->rows);
  }
  return status;
}

/* Everything fused: the activation into the gate's product, the multiplication and rounding into the other's.
 */
static fa_status packed_gated_product(fa_cpu_engine *engine, const fa_matrix *gated, bool has_gate,
                                      fa_activation activation, int64_t rows, const void *a, float *scratch,
                                      void *y) {
  fa_product_call call = {.finish = has_gate ? FA_FINISH_ACTIVATE : FA_FINISH_ACTIVATE_ROUND,
                          .activation = activation,
                          .rows = rows,
                          .y_stride = gated->parts[0].rows,
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
  /* Each of its own part, so that one can follow the other. */
  const bool apart = gated->count == (has_gate ? 2 : 1) && gated->parts[0].rows == inner;
  fa_status status = FA_OK;
  if (has_gate && gated->rows % 2) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "gate and up of %lld rows together; they have the same number",
                         (long long)gated->rows);
  }
  for (int64_t row = 0; row < rows && status == FA_OK; row += FA_CPU_BLOCK_ROWS) {
    const int64_t block = least(FA_CPU_BLOCK_ROWS, rows - row);
    const char *in = (const char *)a + (size_t)(row * gated->columns) * bytes;
    char *out = (char *)y + (size_t)(row * inner) * bytes;
    if (apart && gated->dots[0]) {
      status = fa_quantised_gated_product(engine, gated, activation, block, in, scratch, out);
    } else if (apart && engine->operand == engine->base.dtype) {
      status = packed_gated_product(engine, gated, has_gate, activation, block, in, scratch, out);
    } else {
      status = product(engine, gated, FA_EPILOGUE_WIDE, block, in, scratch);
      if (status != FA_OK) break;
      fa_rows_activate(engine->threads, block, inner, activation, scratch,
                       has_gate ? (float *)scratch + inner : NULL, gated->rows, engine->base.dtype, out);
    }
  }
  return status;
}
