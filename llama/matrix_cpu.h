/* The CPU's engine and its weights, shared by operators_cpu.c (the table), matrix_cpu.c (making weights,
 * products on packed ones) and quantised_products.c. */
#ifndef FA_LLAMA_MATRIX_CPU_H
#define FA_LLAMA_MATRIX_CPU_H

#include "dots_ggml.h"
#include "operators.h"
#include "matmul_onednn.h"

enum { FA_CPU_BLOCK_ROWS = 512 };

/* Memory that grows to what the largest matrix met so far needs. */
typedef struct fa_cpu_scratch {
  void *memory;
  size_t bytes;
} fa_cpu_scratch;

typedef struct fa_cpu_engine {
  fa_engine base;
  int threads;
  fa_products *products;
  fa_dtype operand; /* of oneDNN's products: bf16 where that is the engine's type and the CPU multiplies it,
                       else fp32 */
  fa_cpu_scratch
      converted; /* what enters a product, a block of rows, where the engine's type is not `operand` */
  fa_cpu_scratch rounded; /* the same rounded to 8 bits, few rows */
  fa_cpu_scratch slab;    /* rows of quantised weights as `operand` */
} fa_cpu_engine;

struct fa_matrix {
  int64_t rows, columns;
  int count;
  fa_weight_part parts[FA_MATRIX_PARTS];
  const fa_dots
      *dots[FA_MATRIX_PARTS];      /* of every part where weights stay quantised; NULL: they are packed */
  uint8_t *owned[FA_MATRIX_PARTS]; /* random blocks; NULL: a file's */
  int packed_count; /* 2 for a matrix of two parts, a gate and what it gates, else 1; 0: none */
  fa_packed_weights *packed[2];
};

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

/* Errors: MEMORY. */
fa_status fa_cpu_reserve(fa_cpu_scratch *scratch, size_t bytes);

/* Rows of a part, from `first`, as oneDNN's operands; on all threads. */
void fa_cpu_unpack_rows(const fa_cpu_engine *engine, const fa_weight_part *part, int64_t first, int64_t rows,
                        void *unpacked);

/* Rows of `a` (at most a block of them) as oneDNN's operands: as they are, or converted. Errors: MEMORY. */
fa_status fa_cpu_operand_rows(fa_cpu_engine *engine, int64_t rows, int64_t columns, const void *a,
                              const void **operands);

/* On quantised weights, at most a block of rows. */
fa_status fa_quantised_product(fa_cpu_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue,
                               int64_t rows, const void *a, float *y);
/* gated: a gate and what it gates in two parts of the same rows, or the latter alone. */
fa_status fa_quantised_gated_product(fa_cpu_engine *engine, const fa_matrix *gated, fa_activation activation,
                                     int64_t rows, const void *a, float *scratch, void *y);

#endif
