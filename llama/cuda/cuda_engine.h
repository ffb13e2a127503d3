/* The runner's engine on an NVIDIA GPU: what the files of this folder share. It lives in the context's primary CUDA context,
 * so that memory, streams and fa_attention_run go together with what is launched here. */
#ifndef FA_LLAMA_CUDA_ENGINE_H
#define FA_LLAMA_CUDA_ENGINE_H

#include "cuda/cuda_driver.h"
#include "operators.h"

typedef enum fa_llama_kernel {
  FA_LLAMA_EMBED,
  FA_LLAMA_PICK,
  FA_LLAMA_NORM,
  FA_LLAMA_NORM_ADD,
  FA_LLAMA_GATE,
  FA_LLAMA_PLACE,
  FA_LLAMA_PLACE_ROWS,
  FA_LLAMA_RANDOM,
  FA_LLAMA_SAMPLE,
  FA_LLAMA_KERNELS /* how many */
} fa_llama_kernel;

enum {
  FA_LLAMA_WORKSPACE_BYTES = 32 << 20,
  FA_LLAMA_IMAGES = 8,
  FA_LLAMA_FEW_ROWS = 16 /* up to here a product is bound by reading its weights: its algorithm is chosen by time */
};

typedef struct fa_cuda_products fa_cuda_products; /* product_cuda.c */
typedef struct fa_staging fa_staging;   /* matrix_cuda.c */

typedef struct fa_cuda_engine {
  fa_engine base; /* first: a fa_engine of this device is one of these */
  int ordinal, multiprocessors;
  int is_capturing;
  int is_retained;
  CUcontext primary;
  CUmodule modules[FA_LLAMA_IMAGES];
  CUfunction kernels[FA_LLAMA_KERNELS];
  void *workspace; /* of the products, FA_LLAMA_WORKSPACE_BYTES */
  fa_cuda_products *products;
  fa_staging *staging; /* NULL before the first matrix from a file */
} fa_cuda_engine;

struct fa_matrix {
  void *data; /* [rows, columns] of the engine's type */
  int64_t rows, columns;
  size_t bytes;
};

static inline fa_cuda_engine *fa_cuda_engine_of(fa_engine *engine) { return (fa_cuda_engine *)(void *)engine; }

static inline int64_t fa_engine_dtype_bytes(const fa_engine *engine) { return engine->dtype == FA_FLOAT32 ? 4 : 2; }

static inline CUdeviceptr fa_device_address(const void *memory) { return (CUdeviceptr)(uintptr_t)memory; }

/* "cuda:0: <what>: <the driver's words>" */
fa_status fa_llama_cuda_failed(const fa_cuda_engine *engine, const char *what, CUresult result);

/* Makes the engine's device current, whatever was before; and puts that back. */
fa_status fa_llama_cuda_enter(const fa_cuda_engine *engine);
void fa_llama_cuda_leave(void);

/* Starts a kernel on the engine's stream; params are copied. Errors: DEVICE. */
fa_status fa_llama_cuda_start(fa_cuda_engine *engine, fa_llama_kernel kernel, int64_t grid_x, int64_t grid_y, int64_t threads,
                              int64_t shared_bytes, const void *params);

/* Whether every one of `count` pointers is NULL or a multiple of 16 bytes. */
bool fa_llama_cuda_aligned(const void *const *pointers, int count);

/* product_cuda.c. Errors: UNSUPPORTED (no cuBLASLt), MEMORY, DEVICE. */
fa_status fa_cuda_products_create(fa_cuda_engine *engine);
void fa_cuda_products_free(fa_cuda_engine *engine);
fa_status fa_cuda_product(fa_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows, const void *a, void *y);

/* matrix_cuda.c */
fa_status fa_cuda_matrix_create(fa_engine *engine, const fa_weight_part *parts, int count, unsigned use, fa_matrix **matrix);
void fa_cuda_matrix_free(fa_engine *engine, fa_matrix *matrix);
size_t fa_cuda_matrix_bytes(const fa_matrix *matrix);
void fa_staging_free(fa_cuda_engine *engine);

/* engine_cuda.c */
fa_status fa_cuda_engine_open(fa_context *context, fa_dtype dtype, fa_engine **engine);
void fa_cuda_engine_close(fa_engine *engine);

/* graph_cuda.c */
fa_status fa_cuda_graph_begin(fa_engine *engine);
fa_status fa_cuda_graph_end(fa_engine *engine, fa_graph **graph);
fa_status fa_cuda_graph_launch(fa_engine *engine, fa_graph *graph);
void fa_cuda_graph_free(fa_engine *engine, fa_graph *graph);

#endif
