#include "cuda/cuda_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static fa_cuda_driver driver;
static pthread_once_t opened = PTHREAD_ONCE_INIT;
static char missing_text[160];

static void open_driver(void) {
  /* Never closed: the driver keeps threads of its own. */
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    driver.missing = "libcuda.so.1, which comes with the NVIDIA driver, was not found";
    return;
  }
  /* POSIX has a symbol's address copied, not converted, into a function pointer. */
#define FIELD(name, symbol, parameters)                                                                             \
  {                                                                                                                 \
    void *const address = dlsym(library, symbol);                                                                   \
    if (!address) {                                                                                                 \
      snprintf(missing_text, sizeof missing_text, "libcuda.so.1 has no %s: the NVIDIA driver is too old", symbol);  \
      driver.missing = missing_text;                                                                                \
      return;                                                                                                       \
    }                                                                                                               \
    memcpy(&driver.name, &address, sizeof address);                                                                 \
  }
  FA_CUDA_DRIVER_FUNCTIONS(FIELD)
#undef FIELD
  CUresult result = driver.init(0);
  if (result == CUDA_SUCCESS) result = driver.device_count(&driver.devices);
  if (result == CUDA_SUCCESS && driver.devices > 0) return;
  driver.devices = 0;
  snprintf(missing_text, sizeof missing_text, "the NVIDIA driver found no GPU (%s)",
           result == CUDA_SUCCESS ? "it counts none" : fa_cuda_result_text(result));
  driver.missing = missing_text;
}

const fa_cuda_driver *fa_cuda_driver_open(void) {
  pthread_once(&opened, open_driver);
  return &driver;
}

const char *fa_cuda_result_text(CUresult result) {
  const char *text = NULL;
  if (driver.error_string && driver.error_string(result, &text) == CUDA_SUCCESS && text) return text;
  return "unknown error";
}
