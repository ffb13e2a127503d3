/* cuBLAS, opened at run time like the driver: the few functions the baselines multiply with. */
#ifndef FA_CUBLAS_LIBRARY_H
#define FA_CUBLAS_LIBRARY_H

#include <cublas_v2.h>

#include "core/kernel.h"

typedef struct fa_cublas_library {
  const char *missing; /* NULL when it is there */
  cublasStatus_t (*create)(cublasHandle_t *);
  cublasStatus_t (*destroy)(cublasHandle_t);
  cublasStatus_t (*set_stream)(cublasHandle_t, cudaStream_t);
  cublasStatus_t (*multiply)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void *,
                             const void *const[], cudaDataType, int, const void *const[], cudaDataType, int,
                             const void *, void *const[], cudaDataType, int, int, cublasComputeType_t,
                             cublasGemmAlgo_t);
} fa_cublas_library;

/* Opens it the first time. Never NULL; look at `missing`. */
const fa_cublas_library *fa_cublas_library_open(void);

/* cuBLAS with a context's device current. Errors: DEVICE, MEMORY. */
fa_status fa_cuda_cublas_create(const fa_context *context, cublasHandle_t *handle);

/* count times C[m x n] = alpha * op(A)[m x k] B[k x n], column by column, of `type` with fp32 sums. */
typedef struct fa_cublas_product {
  cublasOperation_t left;
  int m, n, k, count;
  float alpha;
  cudaDataType type;
  const void *const *a, *const *b; /* [count] on the device */
  void *const *c;
  int lda, ldb, ldc;
} fa_cublas_product;
fa_status fa_cuda_cublas_multiply(const fa_context *context, cublasHandle_t handle, fa_stream stream,
                                  const fa_cublas_product *product);

#endif
