/* cuBLASLt, opened at run time like the driver: matrix products whose algorithm the caller chooses and keeps. */
#ifndef FA_CUBLASLT_LIBRARY_H
#define FA_CUBLASLT_LIBRARY_H

#include <cublasLt.h>

/* FIELD(type of result is cublasStatus_t; name, exported symbol, parameters) */
#define FA_CUBLASLT_FUNCTIONS(FIELD)                                                                                 \
  FIELD(create, "cublasLtCreate", (cublasLtHandle_t *))                                                              \
  FIELD(destroy, "cublasLtDestroy", (cublasLtHandle_t))                                                              \
  FIELD(descriptor_create, "cublasLtMatmulDescCreate", (cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t)) \
  FIELD(descriptor_destroy, "cublasLtMatmulDescDestroy", (cublasLtMatmulDesc_t))                                     \
  FIELD(descriptor_set, "cublasLtMatmulDescSetAttribute",                                                            \
        (cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void *, size_t))                                \
  FIELD(layout_create, "cublasLtMatrixLayoutCreate",                                                                 \
        (cublasLtMatrixLayout_t *, cudaDataType_t, uint64_t, uint64_t, int64_t))                                     \
  FIELD(layout_destroy, "cublasLtMatrixLayoutDestroy", (cublasLtMatrixLayout_t))                                     \
  FIELD(preference_create, "cublasLtMatmulPreferenceCreate", (cublasLtMatmulPreference_t *))                         \
  FIELD(preference_destroy, "cublasLtMatmulPreferenceDestroy", (cublasLtMatmulPreference_t))                         \
  FIELD(preference_set, "cublasLtMatmulPreferenceSetAttribute",                                                      \
        (cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *, size_t))                    \
  FIELD(heuristic, "cublasLtMatmulAlgoGetHeuristic",                                                                 \
        (cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,                     \
         cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,                            \
         cublasLtMatmulHeuristicResult_t[], int *))                                                                  \
  FIELD(multiply, "cublasLtMatmul",                                                                                  \
        (cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t, const void *,   \
         cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t, void *, cublasLtMatrixLayout_t, \
         const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t))

typedef struct fa_cublaslt_library {
  const char *missing; /* NULL when it is there */
#define FIELD(name, symbol, parameters) cublasStatus_t(*name) parameters;
  FA_CUBLASLT_FUNCTIONS(FIELD)
#undef FIELD
} fa_cublaslt_library;

/* Opens it the first time. Never NULL; look at `missing`. */
const fa_cublaslt_library *fa_cublaslt_library_open(void);

#endif
