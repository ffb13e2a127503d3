/* Matrix products on oneDNN: y[rows, outputs] = x[rows, inputs] W^T, and what follows a product fused into
 * it.
 *
 * Operands are of one type, bf16 or fp32; sums are fp32. */
#ifndef FA_LLAMA_MATMUL_ONEDNN_H
#define FA_LLAMA_MATMUL_ONEDNN_H

#include "operators.h"

/* What happens to a product p before it is stored. */
typedef enum fa_finish {
  FA_FINISH_STORE,          /* y = p                fp32 */
  FA_FINISH_ADD,            /* y = y + p            fp32 */
  FA_FINISH_ACTIVATE,       /* y = act(p)           fp32 */
  FA_FINISH_ACTIVATE_ROUND, /* y = act(p)           of the operands' type */
  FA_FINISH_TIMES_ROUND     /* y = p * factor       of the operands' type */
} fa_finish;

typedef struct fa_product_call {
  fa_finish finish;
  fa_activation activation; /* read where finish activates */
  int64_t rows;             /* >= 1 */
  int64_t y_stride;         /* elements from a row of y to the next, >= outputs */
  const void *x;            /* [rows, inputs] of the operands' type, dense */
  const float *factor;      /* [rows, outputs], dense; NULL unless TIMES */
  void *y;
} fa_product_call;

/* Weights of products. Immutable. */
typedef struct fa_packed_weights fa_packed_weights;

/* Runs products; keeps what it compiled for the shapes seen last. One thread at a time. */
typedef struct fa_products fa_products;

/* Errors: MEMORY, DEVICE. */
fa_status fa_products_create(bool bf16, int threads, fa_products **products);
void fa_products_free(fa_products *products); /* NULL is fine; after its weights */

/* rows: [outputs, inputs] of the operands' type, read before it returns. Errors: MEMORY, DEVICE. */
fa_status fa_packed_weights_create(fa_products *products, int64_t outputs, int64_t inputs, const void *rows,
                                   fa_packed_weights **weights);
void fa_packed_weights_free(fa_packed_weights *weights); /* NULL is fine */
size_t fa_packed_weights_bytes(const fa_packed_weights *weights);

fa_status fa_products_run(fa_products *products, const fa_packed_weights *weights, const fa_product_call *call);

/* The same with weights [outputs, inputs] of the operands' type as they lie, dense. */
fa_status fa_products_run_rows(fa_products *products, int64_t outputs, int64_t inputs, const void *rows,
                               const fa_product_call *call);

#endif
