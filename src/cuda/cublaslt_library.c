#include "cuda/cublaslt_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static fa_cublaslt_library library;
static pthread_once_t opened = PTHREAD_ONCE_INIT;

static void open_library(void) {
  static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
  void *handle = NULL;
  for (size_t n = 0; n < sizeof names / sizeof names[0] && !handle; ++n) handle = dlopen(names[n], RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    library.missing =
        "cuBLASLt (libcublasLt.so.12 or .13) was not found; install cuBLAS or add its folder to LD_LIBRARY_PATH";
    return;
  }
#define FIELD(name, symbol, parameters)                                                                \
  {                                                                                                    \
    void *const address = dlsym(handle, symbol);                                                       \
    if (!address) library.missing = "cuBLASLt lacks " symbol "; install cuBLAS 12 or 13";              \
    memcpy(&library.name, &address, sizeof address);                                                   \
  }
  FA_CUBLASLT_FUNCTIONS(FIELD)
#undef FIELD
}

const fa_cublaslt_library *fa_cublaslt_library_open(void) {
  pthread_once(&opened, open_library);
  return &library;
}
