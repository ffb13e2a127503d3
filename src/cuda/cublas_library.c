#include "cuda/cublas_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "core/status.h"
#include "cuda/cuda.h"

static fa_cublas_library library;
static pthread_once_t opened = PTHREAD_ONCE_INIT;

static void open_library(void) {
  static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
  void *handle = NULL;
  for (size_t n = 0; n < sizeof names / sizeof names[0] && !handle; ++n) handle = dlopen(names[n], RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    library.missing = "cuBLAS (libcublas.so.12 or .13) was not found; install it or add its folder to LD_LIBRARY_PATH";
    return;
  }
  const struct {
    const char *symbol;
    void *to;
  } wanted[] = {{"cublasCreate_v2", &library.create},
                {"cublasDestroy_v2", &library.destroy},
                {"cublasSetStream_v2", &library.set_stream},
                {"cublasGemmBatchedEx", &library.multiply}};
  for (size_t n = 0; n < sizeof wanted / sizeof wanted[0]; ++n) {
    void *const address = dlsym(handle, wanted[n].symbol);
    if (!address) library.missing = "cuBLAS lacks a function this library needs; install cuBLAS 12 or 13";
    memcpy(wanted[n].to, &address, sizeof address);
  }
}

const fa_cublas_library *fa_cublas_library_open(void) {
  pthread_once(&opened, open_library);
  return &library;
}

static fa_status failed(const fa_context *context, const char *what, cublasStatus_t status) {
  return fa_fail(status == CUBLAS_STATUS_ALLOC_FAILED ? FA_ERROR_MEMORY : FA_ERROR_DEVICE, "cuda:%d: %s (cuBLAS status %d)",
                 context->device_index, what, (int)status);
}

fa_status fa_cuda_cublas_create(const fa_context *context, cublasHandle_t *handle) {
  const fa_status current = fa_cuda_enter(context);
  if (current != FA_OK) return current;
  const cublasStatus_t status = fa_cublas_library_open()->create(handle);
  fa_cuda_leave();
  return status == CUBLAS_STATUS_SUCCESS ? FA_OK : failed(context, "cuBLAS could not be set up", status);
}

fa_status fa_cuda_cublas_multiply(const fa_context *context, cublasHandle_t handle, fa_stream stream,
                                  const fa_cublas_product *p) {
  const fa_cublas_library *cublas = fa_cublas_library_open();
  const fa_status current = fa_cuda_enter(context);
  if (current != FA_OK) return current;
  const float zero = 0.0f;
  cublasStatus_t status = cublas->set_stream(handle, (cudaStream_t)stream);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublas->multiply(handle, p->left, CUBLAS_OP_N, p->m, p->n, p->k, &p->alpha, p->a, p->type, p->lda, p->b,
                              p->type, p->ldb, &zero, p->c, p->type, p->ldc, p->count, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT);
  fa_cuda_leave();
  return status == CUBLAS_STATUS_SUCCESS ? FA_OK : failed(context, "a matrix product failed", status);
}
