/* The CPU's engine and its weights, between operators_cpu.c (the table) and matrix_cpu.c (weights and
 * products). */
#ifndef FA_LLAMA_MATRIX_CPU_H
#define FA_LLAMA_MATRIX_CPU_H

#include "operators.h"
#include "product_onednn.h"

enum { FA_CPU_BLOCK_ROWS = 512 };

typedef struct fa_cpu_engine {
  fa_engine base;
  int threads;
  fa_products *products;
  fa_dtype operand; /* of oneDNN's products: bf16 where that is the engine's type and the CPU multiplies it,
                       else fp32 */
  float
      *converted; /* [FA_CPU_BLOCK_ROWS, longest_row]: what enters a product where that is not of `operand` */
  int64_t longest_row; /* of any matrix made so far */
} fa_cpu_engine;

fa_status fa_cpu_matrix_create(fa_cpu_engine *engine, const fa_weight_part *parts, int count, unsigned use,
                               fa_matrix **matrix);
void fa_cpu_matrix_free(fa_matrix *matrix);
size_t fa_cpu_matrix_bytes(const fa_matrix *matrix);

fa_status fa_cpu_embed(fa_cpu_engine *engine, const fa_matrix *table, int64_t rows, const int32_t *tokens,
                       float scale, float *x);
fa_status fa_cpu_product(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows,
                         const void *a, void *y);
fa_status fa_cpu_gated_product(fa_cpu_engine *engine, const fa_matrix *gated, bool has_gate,
                               fa_activation activation, int64_t rows, const void *a, void *scratch, void *y);

#endif
