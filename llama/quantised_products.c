/* Products on quantised weights, which stay in memory as the file has them.
 *
 * Few rows (decoding): each row of activations is rounded to 8 bits in blocks, as ggml does it, and
 * multiplied with the weights' blocks by its dot products (scripts/fetch_ggml.sh says why ggml); output rows
 * are shared among the threads in one parallel region a product, with whatever follows the product in it.
 * Bound: reading the weights, or 2 ns a block of 32 a thread (Q4_1 on Zen 4).
 *
 * Many rows (prompts), and any number in fp32: a slab of weights at a time is unpacked to oneDNN's operands,
 * on all threads, and multiplied where it lies. Unpacking takes 0.2 to 0.7 ns an element a thread, what 20 to
 * 80 rows of the bf16 product take. Bound: the product's arithmetic. Numbers: docs/performance.md. */
#include <omp.h>

#include "dequantize.h"
#include "llama_error.h"
#include "matrix_cpu.h"
#include "row_operators.h"

/* Up to here dot products are faster than unpacking. Who asks for fp32 gets products of fp32 at any number of
 * rows. */
enum { FEW_ROWS = 8 };

/* Of unpacked weights: stays in the last cache beside the operands. */
enum { SLAB_BYTES = 4 << 20, SLAB_ROWS = 64 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ----------------------------------------------------------------------- few rows */

/* Activations as each part's dot products want them. */
typedef struct rounded {
  char *rows[FA_MATRIX_PARTS];
  size_t row_bytes[FA_MATRIX_PARTS];
} rounded;

static fa_status round_rows(fa_cpu_engine *engine, const fa_matrix *matrix, int64_t rows, const void *a,
                            rounded *r) {
  const int64_t columns = matrix->columns;
  const size_t a_bytes = (size_t)columns * fa_dtype_bytes(engine->base.dtype),
               f_bytes = (size_t)columns * sizeof(float);
  size_t bytes = f_bytes;
  for (int i = 0; i < matrix->count; i++) {
    const fa_ggml_type *type = fa_ggml_type_of(matrix->dots[i]->other_type);
    r->row_bytes[i] = (size_t)(columns / type->block_elements) * (size_t)type->block_bytes;
    bytes += (size_t)FEW_ROWS * r->row_bytes[i];
  }
  const fa_status status = fa_cpu_reserve(&engine->rounded, bytes);
  if (status != FA_OK) return status;
  float *floats = engine->rounded.memory;
  char *next = (char *)floats + f_bytes;
  for (int i = 0; i < matrix->count; i++) {
    int same = 0;
    while (matrix->dots[same]->other_type != matrix->dots[i]->other_type) same++;
    r->rows[i] = same < i ? r->rows[same] : next;
    if (same == i) next += (size_t)rows * r->row_bytes[i];
  }
  for (int64_t row = 0; row < rows; row++) {
    const char *in = (const char *)a + (size_t)row * a_bytes;
    if (engine->base.dtype != FA_FLOAT32) fa_row_to_floats(engine->base.dtype, in, columns, floats);
    for (int i = 0; i < matrix->count; i++) {
      if (i && r->rows[i] == r->rows[i - 1]) continue;
      matrix->dots[i]->other_from_floats(engine->base.dtype == FA_FLOAT32 ? (const float *)in : floats,
                                         r->rows[i] + (size_t)row * r->row_bytes[i], columns);
    }
  }
  return FA_OK;
}

/* The rows [first, last) of outputs that are this thread's. */
static void share(int64_t total, int64_t *first, int64_t *last) {
  const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
  *first = total * thread / threads;
  *last = total * (thread + 1) / threads;
}

/* sums[row][i] = row `row` of activations times row first + i of the part. */
enum { PIECE = 64 };

static void dots_of(const fa_matrix *matrix, int part, const rounded *r, int64_t rows, int64_t first,
                    int64_t count, float sums[FEW_ROWS][PIECE]) {
  const fa_weight_part *p = &matrix->parts[part];
  const fa_ggml_type *type = fa_ggml_type_of(p->type);
  const size_t w_bytes = (size_t)(p->columns / type->block_elements) * (size_t)type->block_bytes;
  const uint8_t *weights = p->data + (size_t)first * w_bytes;
  const int n = (int)p->columns;
  for (int64_t i = 0; i < count; i++, weights += w_bytes) {
    for (int64_t row = 0; row < rows; row++) {
      matrix->dots[part]->dot(n, &sums[row][i], 0, weights, 0,
                              r->rows[part] + (size_t)row * r->row_bytes[part], 0, 1);
    }
  }
}

static void finish(fa_epilogue epilogue, const float *sums, float *y, int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] = epilogue == FA_EPILOGUE_ADD ? y[i] + sums[i] : sums[i];
}

static fa_status few_rows(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows,
                          const void *a, float *y) {
  rounded r;
  const fa_status status = round_rows(engine, matrix, rows, a, &r);
  if (status != FA_OK) return status;
#pragma omp parallel num_threads(engine->threads)
  {
    float sums[FEW_ROWS][PIECE];
    int64_t first, last, top = 0;
    share(matrix->rows, &first, &last);
    for (int part = 0; part < matrix->count; top += matrix->parts[part++].rows) {
      const int64_t end = least(last, top + matrix->parts[part].rows);
      for (int64_t at = first > top ? first : top; at < end; at += PIECE) {
        const int64_t count = least(PIECE, end - at);
        dots_of(matrix, part, &r, rows, at - top, count, sums);
        for (int64_t row = 0; row < rows; row++)
          finish(epilogue, sums[row], y + row * matrix->rows + at, count);
      }
    }
  }
  return FA_OK;
}

static fa_status few_rows_gated(fa_cpu_engine *engine, const fa_matrix *gated, fa_activation activation,
                                int64_t rows, const void *a, void *y) {
  rounded r;
  const fa_status status = round_rows(engine, gated, rows, a, &r);
  if (status != FA_OK) return status;
  const int64_t inner = gated->parts[0].rows;
  const size_t bytes = fa_dtype_bytes(engine->base.dtype);
#pragma omp parallel num_threads(engine->threads)
  {
    float gates[FEW_ROWS][PIECE], ups[FEW_ROWS][PIECE];
    int64_t first, last;
    share(inner, &first, &last);
    for (int64_t at = first; at < last; at += PIECE) {
      const int64_t count = least(PIECE, last - at);
      dots_of(gated, 0, &r, rows, at, count, gates);
      if (gated->count == 2) dots_of(gated, 1, &r, rows, at, count, ups);
      for (int64_t row = 0; row < rows; row++) {
        fa_row_activate(count, activation, gates[row], gated->count == 2 ? ups[row] : NULL,
                        engine->base.dtype, (char *)y + (size_t)(row * inner + at) * bytes);
      }
    }
  }
  return FA_OK;
}

/* ---------------------------------------------------------------------- many rows */

static int64_t slab_rows(const fa_cpu_engine *engine, int64_t columns) {
  const int64_t rows =
      SLAB_BYTES / (columns * (int64_t)fa_dtype_bytes(engine->operand)) / SLAB_ROWS * SLAB_ROWS;
  return rows > SLAB_ROWS ? rows : SLAB_ROWS;
}

/* Rows of a part, unpacked and multiplied: call as in matmul_onednn.h, y at the first of them. */
static fa_status slab_product(fa_cpu_engine *engine, const fa_weight_part *part, int64_t first, int64_t count,
                              const fa_product_call *call) {
  const fa_status status =
      fa_cpu_reserve(&engine->slab, (size_t)slab_rows(engine, part->columns) * (size_t)part->columns *
                                        fa_dtype_bytes(engine->operand));
  if (status != FA_OK) return status;
  fa_cpu_unpack_rows(engine, part, first, count, engine->slab.memory);
  return fa_products_run_rows(engine->products, count, part->columns, engine->slab.memory, call);
}

static fa_status many_rows(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows,
                           const void *a, float *y) {
  const int64_t slab = slab_rows(engine, matrix->columns);
  fa_product_call call = {.finish = epilogue == FA_EPILOGUE_ADD ? FA_FINISH_ADD : FA_FINISH_STORE,
                          .rows = rows,
                          .y_stride = matrix->rows};
  fa_status status = fa_cpu_operand_rows(engine, rows, matrix->columns, a, &call.x);
  for (int part = 0; part < matrix->count; y += matrix->parts[part++].rows) {
    const int64_t total = matrix->parts[part].rows;
    for (int64_t at = 0; at < total && status == FA_OK; at += slab) {
      call.y = y + at;
      status = slab_product(engine, &matrix->parts[part], at, least(slab, total - at), &call);
    }
  }
  return status;
}

/* As products on packed weights: the activation in the gate's product, multiplication and rounding in the
 * other's. For parts of one slab: oneDNN has no fast product that multiplies into rows with gaps. */
static fa_status many_rows_gated(fa_cpu_engine *engine, const fa_matrix *gated, fa_activation activation,
                                 int64_t rows, const void *a, float *scratch, void *y) {
  const int64_t inner = gated->parts[0].rows;
  const bool has_gate = gated->count == 2;
  fa_product_call call = {.finish = has_gate ? FA_FINISH_ACTIVATE : FA_FINISH_ACTIVATE_ROUND,
                          .activation = activation,
                          .rows = rows,
                          .y_stride = inner,
                          .x = a,
                          .y = has_gate ? (void *)scratch : y};
  const fa_status status = slab_product(engine, &gated->parts[0], 0, inner, &call);
  if (status != FA_OK || !has_gate) return status;
  call.finish = FA_FINISH_TIMES_ROUND;
  call.factor = scratch;
  call.y = y;
  return slab_product(engine, &gated->parts[1], 0, inner, &call);
}

/* ------------------------------------------------------------------------- either */

/* Eight bits have no NaN and no infinity: a row that holds one is multiplied in its own type, so that it shows. */
static bool is_finite(fa_dtype dtype, const uint16_t *a, int64_t count) {
  const uint16_t exponent = dtype == FA_BFLOAT16 ? 0x7f80 : 0x7c00;
  int found = 0;
  for (int64_t i = 0; i < count; i++) found |= (a[i] & exponent) == exponent;
  return !found;
}

static bool few(const fa_cpu_engine *engine, int64_t rows, int64_t columns, const void *a) {
  return rows <= FEW_ROWS && engine->base.dtype != FA_FLOAT32 && is_finite(engine->base.dtype, a, rows * columns);
}

fa_status fa_quantised_product(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue,
                               int64_t rows, const void *a, float *y) {
  if (few(engine, rows, matrix->columns, a)) return few_rows(engine, matrix, epilogue, rows, a, y);
  return many_rows(engine, matrix, epilogue, rows, a, y);
}

fa_status fa_quantised_gated_product(fa_cpu_engine *engine, const fa_matrix *gated, fa_activation activation,
                                     int64_t rows, const void *a, float *scratch, void *y) {
  if (few(engine, rows, gated->columns, a)) return few_rows_gated(engine, gated, activation, rows, a, y);
  if (engine->operand == engine->base.dtype && gated->parts[0].rows <= slab_rows(engine, gated->columns)) {
    return many_rows_gated(engine, gated, activation, rows, a, scratch, y);
  }
  const int64_t inner = gated->parts[0].rows;
  const fa_status status = many_rows(engine, gated, FA_EPILOGUE_WIDE, rows, a, scratch);
  if (status != FA_OK) return status;
  fa_rows_activate(engine->threads, rows, inner, activation, scratch,
                   gated->count == 2 ? scratch + inner : NULL, gated->rows, engine->base.dtype, y);
  return FA_OK;
}
