/* Opening the device for the runner: which GPU the context is of, its stream, our kernels, the products. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_engine.h"
#include "cuda/cuda_images.h"
#include "llama_error.h"

extern const fa_cuda_image fa_llama_cuda_images[]; /* cmake/CudaImages.cmake */
extern const int fa_llama_cuda_images_count;

enum { BLOCK_ROWS = 4096, FIRST_WITH_BF16 = 80 };

fa_status fa_llama_cuda_failed(const fa_cuda_engine *engine, const char *what, CUresult result) {
  return fa_llama_fail(result == CUDA_ERROR_OUT_OF_MEMORY ? FA_ERROR_MEMORY : FA_ERROR_DEVICE, "cuda:%d: %s: %s",
                       engine->ordinal, what, fa_cuda_result_text(result));
}

fa_status fa_llama_cuda_enter(const fa_cuda_engine *engine) {
  const CUresult result = fa_cuda_driver_open()->context_push(engine->primary);
  return result == CUDA_SUCCESS ? FA_OK : fa_llama_cuda_failed(engine, "the device could not be made current", result);
}

void fa_llama_cuda_leave(void) {
  CUcontext before;
  (void)fa_cuda_driver_open()->context_pop(&before);
}

fa_status fa_llama_cuda_start(fa_cuda_engine *engine, fa_llama_kernel kernel, int64_t grid_x, int64_t grid_y, int64_t threads,
                              int64_t shared_bytes, const void *params) {
  if (grid_x > INT32_MAX || grid_y > 65535)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "cuda:%d: %lld x %lld blocks are beyond a grid's 2^31 x 65535; use fewer rows at a time",
                         engine->ordinal, (long long)grid_x, (long long)grid_y);
  const fa_status status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) return status;
  void *parameters[1];
  memcpy(parameters, &params, sizeof params);
  const CUresult result =
      fa_cuda_driver_open()->launch(engine->kernels[kernel], (unsigned)grid_x, (unsigned)grid_y, 1, (unsigned)threads, 1, 1,
                                    (unsigned)shared_bytes, (CUstream)engine->base.stream, parameters, NULL);
  fa_llama_cuda_leave();
  return result == CUDA_SUCCESS ? FA_OK : fa_llama_cuda_failed(engine, "a kernel could not be started", result);
}

bool fa_llama_cuda_aligned(const void *const *pointers, int count) {
  for (int n = 0; n < count; ++n)
    if ((uintptr_t)pointers[n] % 16 != 0) return false;
  return true;
}

/* ----------------------------------------------------------------------- opening */

/* The device that `memory` lies on, which the context allocated; -1: it is no GPU's. The driver answers questions about
 * pointers with a context current, so each device in use is asked. */
static int device_of(const void *memory) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  for (int n = 0; n < d->devices; ++n) {
    CUdevice device;
    CUcontext primary, before;
    unsigned flags;
    int active = 0, ordinal = -1;
    if (d->device_get(&device, n) != CUDA_SUCCESS) continue;
    if (d->primary_state(device, &flags, &active) != CUDA_SUCCESS || !active) continue;
    if (d->primary_retain(&primary, device) != CUDA_SUCCESS) continue;
    if (d->context_push(primary) == CUDA_SUCCESS) {
      unsigned type = 0;
      const CUdeviceptr address = fa_device_address(memory);
      if (d->pointer_attribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) != CUDA_SUCCESS ||
          type != CU_MEMORYTYPE_DEVICE ||
          d->pointer_attribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address) != CUDA_SUCCESS)
        ordinal = -1;
      (void)d->context_pop(&before);
    }
    (void)d->primary_release(device);
    if (ordinal >= 0) return ordinal;
  }
  return -1;
}

static fa_status retain(fa_cuda_engine *engine) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  CUdevice device;
  engine->ordinal = device_of(engine->workspace);
  if (engine->ordinal < 0)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "the context is not of an NVIDIA GPU; create it with device \"cuda\" or \"cuda:N\"");
  CUresult result = d->device_get(&device, engine->ordinal);
  if (result == CUDA_SUCCESS) result = d->primary_retain(&engine->primary, device);
  if (result != CUDA_SUCCESS) return fa_llama_cuda_failed(engine, "the device could not be opened", result);
  engine->is_retained = 1;
  int major = 0;
  if (d->device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device) != CUDA_SUCCESS ||
      d->device_attribute(&engine->multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device) != CUDA_SUCCESS)
    return fa_llama_fail(FA_ERROR_DEVICE, "cuda:%d: the driver does not say what the device is", engine->ordinal);
  if (engine->base.dtype == FA_BFLOAT16 && 10 * major < FIRST_WITH_BF16)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "cuda:%d has no bf16 products (they begin with compute capability 8.0); use f16",
                         engine->ordinal);
  return FA_OK;
}

static fa_status load_image(fa_cuda_engine *engine, const char *name, CUmodule *module) {
  int n = 0;
  while (n < fa_llama_cuda_images_count && n < FA_LLAMA_IMAGES && strcmp(fa_llama_cuda_images[n].name, name) != 0) ++n;
  if (n == fa_llama_cuda_images_count || n == FA_LLAMA_IMAGES)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "this build has no device code '%s'; build with -DFA_CUDA_IMAGES=ON", name);
  CUresult result = CUDA_SUCCESS;
  if (!engine->modules[n]) result = fa_cuda_driver_open()->module_load(&engine->modules[n], fa_llama_cuda_images[n].begin);
  *module = engine->modules[n];
  if (result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION ||
      result == CUDA_ERROR_INVALID_PTX || result == CUDA_ERROR_JIT_COMPILER_NOT_FOUND)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "device code '%s' was not built for cuda:%d and the driver cannot compile it (%s); "
                         "build with FA_CUDA_ARCHITECTURES naming this GPU or update the driver", name, engine->ordinal,
                         fa_cuda_result_text(result));
  return result == CUDA_SUCCESS ? FA_OK : fa_llama_cuda_failed(engine, name, result);
}

/* Called with the device current. */
static fa_status find_kernels(fa_cuda_engine *engine) {
  const char *typed = engine->base.dtype == FA_FLOAT32 ? "_f32" : engine->base.dtype == FA_FLOAT16 ? "_f16" : "_bf16";
  const struct {
    const char *image, *stem, *type;
  } wanted[FA_LLAMA_KERNELS] = {[FA_LLAMA_EMBED] = {"embed_llama", "embed_rows", typed},
                                [FA_LLAMA_PICK] = {"embed_llama", "embed_rows", "_f32"},
                                [FA_LLAMA_NORM] = {"norm_llama", "norm", typed},
                                [FA_LLAMA_NORM_ADD] = {"norm_llama", "norm_add", typed},
                                [FA_LLAMA_GATE] = {"gate_llama", "gate", typed},
                                [FA_LLAMA_PLACE] = {"place_heads_llama", "place_heads", typed},
                                [FA_LLAMA_PLACE_ROWS] = {"place_rows_llama", "place_rows", typed},
                                [FA_LLAMA_RANDOM] = {"random_llama", "random_normal", typed},
                                [FA_LLAMA_SAMPLE] = {"sample_llama", "sample_rows", ""}};
  for (int n = 0; n < FA_LLAMA_KERNELS; ++n) {
    CUmodule module = NULL;
    char name[64];
    const fa_status status = load_image(engine, wanted[n].image, &module);
    if (status != FA_OK) return status;
    snprintf(name, sizeof name, "%s%s", wanted[n].stem, wanted[n].type);
    const CUresult result = fa_cuda_driver_open()->module_function(&engine->kernels[n], module, name);
    if (result != CUDA_SUCCESS) return fa_llama_cuda_failed(engine, name, result);
  }
  return FA_OK;
}

void fa_cuda_engine_close(fa_engine *base) {
  if (!base) return;
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  const fa_cuda_driver *d = fa_cuda_driver_open();
  if (engine->is_retained) {
    CUdevice device;
    if (base->stream) (void)fa_stream_synchronize(base->context, base->stream);
    if (fa_llama_cuda_enter(engine) == FA_OK) {
      fa_cuda_products_free(engine);
      fa_staging_free(engine);
      for (int n = 0; n < FA_LLAMA_IMAGES; ++n)
        if (engine->modules[n]) (void)d->module_unload(engine->modules[n]);
      fa_llama_cuda_leave();
    }
    if (d->device_get(&device, engine->ordinal) == CUDA_SUCCESS) (void)d->primary_release(device);
  }
  if (base->stream) fa_stream_destroy(base->context, base->stream);
  fa_buffer_free(base->context, engine->workspace);
  free(engine);
}

static fa_status set_up(fa_cuda_engine *engine) {
  fa_status status = fa_buffer_allocate(engine->base.context, FA_LLAMA_WORKSPACE_BYTES, &engine->workspace);
  if (status != FA_OK) return fa_llama_fail_library(status, "the products' workspace");
  status = retain(engine);
  if (status != FA_OK) return status;
  status = fa_stream_create(engine->base.context, &engine->base.stream);
  if (status != FA_OK) return fa_llama_fail_library(status, "the engine's stream");
  status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) return status;
  status = find_kernels(engine);
  if (status == FA_OK) status = fa_cuda_products_create(engine);
  fa_llama_cuda_leave();
  return status;
}

fa_status fa_cuda_engine_open(fa_context *context, fa_dtype dtype, fa_engine **engine) {
  *engine = NULL;
  const fa_cuda_driver *d = fa_cuda_driver_open();
  if (d->missing)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "no NVIDIA GPU can be used: %s; install the driver, or use device \"cpu\"", d->missing);
  if (dtype != FA_FLOAT32 && dtype != FA_FLOAT16 && dtype != FA_BFLOAT16)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "type %d cannot be a model's; use f32, f16 or bf16", (int)dtype);
  fa_cuda_engine *made = calloc(1, sizeof *made);
  if (!made) return fa_llama_out_of_memory("the engine");
  made->base = (fa_engine){.operators = &fa_cuda_operators, .context = context, .dtype = dtype, .block_rows = BLOCK_ROWS,
                           .few_rows = FA_LLAMA_FEW_ROWS};
  const fa_status status = set_up(made);
  if (status == FA_OK)
    *engine = &made->base;
  else
    fa_cuda_engine_close(&made->base);
  return status;
}
