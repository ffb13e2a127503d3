/* Matrix products on oneDNN: y[rows, outputs] = x[rows, inputs] W^T with W packed once.
 *
 * Products of one type: fp32, or bf16 operands with fp32 accumulation. What follows a product is fused into
 * it. */
#ifndef FA_LLAMA_MATMUL_ONEDNN_H
#define FA_LLAMA_MATMUL_ONEDNN_H

#include "fastattention/fastattention.h"

/* What happens to a product p before it is stored. */
typedef enum fa_epilogue {
  FA_EPILOGUE_STORE, /* y = p,             y fp32 */
  FA_EPILOGUE_ADD,   /* y = y + p,         y fp32 */
  FA_EPILOGUE_SWISH, /* y = p sigmoid(p),  y fp32 */
  FA_EPILOGUE_TIMES  /* y = p * other,     other fp32 [rows, outputs], y of the operands' type */
} fa_epilogue;

/* Immutable; shared by threads. */
typedef struct fa_packed_weight fa_packed_weight;

/* Runs products; keeps what it compiled for the row counts seen last. One thread at a time. */
typedef struct fa_matmul fa_matmul;

fa_status fa_matmul_create(fa_dtype dtype, int threads, fa_matmul **matmul);
void fa_matmul_free(fa_matmul *matmul); /* NULL is fine */

/* rows: [outputs, inputs] fp32, read before it returns. The weight may be used by any fa_matmul of the same
 * type and must not outlive the one that packed it. Errors: MEMORY, DEVICE. */
fa_status fa_packed_weight_create(fa_matmul *matmul, int64_t outputs, int64_t inputs, const float *rows,
                                  fa_packed_weight **weight);
void fa_packed_weight_free(fa_packed_weight *weight); /* NULL is fine */
size_t fa_packed_weight_bytes(const fa_packed_weight *weight);

/* x: [rows, inputs] of the operands' type; other: NULL unless TIMES; y: [rows, outputs]. All dense, rows
 * >= 1. */
fa_status fa_matmul_run(fa_matmul *matmul, const fa_packed_weight *weight, fa_epilogue epilogue, int64_t rows,
                        const void *x, const float *other, void *y);

#endif
