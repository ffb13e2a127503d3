/* The CPU's operators: work is done when a call returns, so streams and graphs need nothing. wide is fp32. */
#include "operators.h"

#include <stdlib.h>
#include <string.h>

#include "llama.h"
#include "llama_error.h"
#include "matrix_cpu.h"
#include "row_operators.h"
#include "sampler.h"

static fa_cpu_engine *cpu(fa_engine *engine) { return (fa_cpu_engine *)engine; }

static void close_engine(fa_engine *engine) {
  if (!engine) return;
  fa_products_free(cpu(engine)->products);
  free(cpu(engine)->converted.memory);
  free(cpu(engine)->rounded.memory);
  free(cpu(engine)->slab.memory);
  free(engine);
}

static fa_status open_engine(fa_context *context, fa_dtype dtype, fa_engine **result) {
  if (dtype != FA_FLOAT32 && dtype != FA_FLOAT16 && dtype != FA_BFLOAT16) {
    const char *name = fa_dtype_name(dtype);
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "a model's type is %s; f32, f16 and bf16 are run",
                         name ? name : "unknown");
  }
  fa_cpu_engine *engine = calloc(1, sizeof *engine);
  if (!engine) return fa_llama_out_of_memory("the engine");
  const bool bf16 = dtype == FA_BFLOAT16 && fa_multiplies_bf16("cpu");
  engine->base = (fa_engine){
      .operators = &fa_cpu_operators, .context = context, .dtype = dtype, .block_rows = FA_CPU_BLOCK_ROWS};
  engine->threads = fa_context_threads(context);
  engine->operand = bf16 ? FA_BFLOAT16 : FA_FLOAT32;
  const fa_status status = fa_products_create(bf16, engine->threads, &engine->products);
  if (status != FA_OK) {
    close_engine(&engine->base);
    return status;
  }
  *result = &engine->base;
  return FA_OK;
}

static fa_status matrix_create(fa_engine *engine, const fa_weight_part *parts, int count, unsigned use,
                               fa_matrix **matrix) {
  return fa_cpu_matrix_create(cpu(engine), parts, count, use, matrix);
}

static void matrix_free(fa_engine *engine, fa_matrix *matrix) {
  (void)engine;
  fa_cpu_matrix_free(matrix);
}

static fa_status embed(fa_engine *engine, const fa_matrix *table, int64_t rows, const int32_t *tokens,
                       float scale, float *x) {
  return fa_cpu_embed(cpu(engine), table, rows, tokens, scale, x);
}

static fa_status norm(fa_engine *engine, int64_t rows, int64_t width, const float *x, const float *weight,
                      float epsilon, void *y) {
  fa_rows_norm(cpu(engine)->threads, rows, width, x, weight, epsilon, engine->dtype, y);
  return FA_OK;
}

static fa_status norm_add(fa_engine *engine, int64_t rows, int64_t width, const void *t, const float *weight,
                          float epsilon, float *x) {
  fa_rows_norm_add(cpu(engine)->threads, rows, width, t, weight, epsilon, x);
  return FA_OK;
}

static fa_status product(fa_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows,
                         const void *a, void *y) {
  return fa_cpu_product(cpu(engine), matrix, epilogue, rows, a, y);
}

static fa_status gated_product(fa_engine *engine, const fa_matrix *gated, bool has_gate,
                               fa_activation activation, int64_t rows, const void *a, void *scratch,
                               void *y) {
  return fa_cpu_gated_product(cpu(engine), gated, has_gate, activation, rows, a, scratch, y);
}

static fa_status place_heads(fa_engine *engine, const fa_head_placement *p) {
  if (p->head_dim_qk > FA_LONGEST_HEAD || p->head_dim_v > FA_LONGEST_HEAD) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "heads of %lld and %lld; at most %d are placed",
                         (long long)p->head_dim_qk, (long long)p->head_dim_v, FA_LONGEST_HEAD);
  }
  fa_rows_place_heads(cpu(engine)->threads, p, engine->dtype);
  return FA_OK;
}

static fa_status pick_rows(fa_engine *engine, int64_t count, int64_t width, const float *x,
                           const int32_t *rows_of, float *y) {
  (void)engine;
  for (int64_t i = 0; i < count; i++)
    memcpy(y + i * width, x + rows_of[i] * width, (size_t)width * sizeof *y);
  return FA_OK;
}

static fa_status sample(fa_engine *engine, int64_t rows, int64_t vocabulary, float *logits,
                        const fa_sample_row *settings, uint8_t *seen, int32_t *tokens) {
#pragma omp parallel for num_threads(cpu(engine)->threads) schedule(static) if (rows > 1)
  for (int64_t row = 0; row < rows; row++) {
    tokens[row] = fa_sample_token(logits + row * vocabulary, vocabulary, &settings[row],
                                  seen ? seen + row * vocabulary : NULL);
  }
  return FA_OK;
}

const fa_operators fa_cpu_operators = {
    .device = "cpu",
    .open = open_engine,
    .close = close_engine,
    .matrix_create = matrix_create,
    .matrix_free = matrix_free,
    .matrix_bytes = fa_cpu_matrix_bytes,
    .embed = embed,
    .norm = norm,
    .norm_add = norm_add,
    .product = product,
    .gated_product = gated_product,
    .place_heads = place_heads,
    .pick_rows = pick_rows,
    .sample = sample,
};
