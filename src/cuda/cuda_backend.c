/* NVIDIA GPUs as a backend: the primary context of a device, its memory, streams, events and images. Everything goes
 * through the driver's own handles, so a cudaStream_t or a pointer of another library passes as it is. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "cuda/append_cuda.h"
#include "cuda/blocks_shape.h"
#include "cuda/cuda.h"
#include "cuda/cuda_driver.h"
#include "cuda/cuda_images.h"

enum { MAX_DEVICES = 64, MAX_IMAGES = 32 };

/* What a device is, read once. */
typedef struct device_facts {
  int32_t capability; /* 10 * major + minor; 0: not read yet */
  int32_t multiprocessors;
  uint32_t shared_limit, shared_total; /* bytes of a block, of a multiprocessor */
  int64_t l2_bytes, memory_bytes;
  char name[96];
} device_facts;
static device_facts all_facts[MAX_DEVICES];
static pthread_once_t facts_read = PTHREAD_ONCE_INIT;

static int attribute(CUdevice device, CUdevice_attribute which) {
  int value = 0;
  return fa_cuda_driver_open()->device_attribute(&value, which, device) == CUDA_SUCCESS ? value : 0;
}

static void read_facts(void) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  for (int n = 0; n < d->devices && n < MAX_DEVICES; ++n) {
    CUdevice device;
    size_t memory = 0;
    if (d->device_get(&device, n) != CUDA_SUCCESS) continue;
    device_facts *f = &all_facts[n];
    if (d->device_name(f->name, (int)sizeof f->name, device) != CUDA_SUCCESS) f->name[0] = '\0';
    if (d->device_memory(&memory, device) == CUDA_SUCCESS) f->memory_bytes = (int64_t)memory;
    f->multiprocessors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    f->shared_limit = (uint32_t)attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    f->shared_total = (uint32_t)attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    f->l2_bytes = attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    f->capability = 10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                    attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  }
}

static const device_facts *facts_of(int32_t index) {
  pthread_once(&facts_read, read_facts);
  return &all_facts[index];
}

static int32_t device_count(void) {
  const int devices = fa_cuda_driver_open()->devices;
  return devices < MAX_DEVICES ? devices : MAX_DEVICES;
}

static const char *missing(void) { return fa_cuda_driver_open()->missing; }

static uint64_t device_isa(int32_t index) {
  if (index >= device_count()) return 0;
  const int32_t capability = facts_of(index)->capability;
  uint64_t isa = 0;
  if (capability >= 70) isa |= FA_CUDA_SM70;
  if (capability >= 75) isa |= FA_CUDA_SM75;
  if (capability >= 80) isa |= FA_CUDA_SM80;
  return isa;
}

static fa_status device_describe(int32_t index, fa_device_info *info) {
  static _Thread_local char name[16], description[160], isa[16];
  const device_facts *f = facts_of(index);
  snprintf(name, sizeof name, "cuda:%d", index);
  snprintf(description, sizeof description, "%s, %d multiprocessors, %u KiB of shared memory a block", f->name,
           f->multiprocessors, f->shared_limit / 1024);
  snprintf(isa, sizeof isa, "sm_%d", f->capability);
  info->name = name;
  info->description = description;
  info->isa = isa;
  info->memory_bytes = f->memory_bytes;
  info->cache_l1_bytes = f->shared_limit;
  info->cache_l2_bytes = f->l2_bytes;
  info->units = f->multiprocessors;
  return FA_OK;
}

/* --------------------------------------------------------------------- contexts */

typedef struct cuda_context {
  CUdevice device;
  CUcontext primary;
  pthread_mutex_t images; /* plans of several threads may need the same image first */
  CUmodule modules[MAX_IMAGES];
  _Atomic(fa_cuda_function) common[FA_CUDA_COMMON]; /* found once */
} cuda_context;

static cuda_context *of(const fa_context *context) { return context->backend_data; }

static fa_status failed(const fa_context *context, const char *what, CUresult result) {
  return fa_fail(result == CUDA_ERROR_OUT_OF_MEMORY ? FA_ERROR_MEMORY : FA_ERROR_DEVICE, "cuda:%d: %s: %s",
                 context->device_index, what, fa_cuda_result_text(result));
}

/* Calls the driver with the context's device current, whatever was current before. */
#define WITH_DEVICE(context, result, call)                                     \
  do {                                                                         \
    const fa_cuda_driver *d = fa_cuda_driver_open();                           \
    CUcontext before;                                                          \
    (result) = d->context_push(of(context)->primary);                          \
    if ((result) == CUDA_SUCCESS) {                                            \
      (result) = d->call;                                                      \
      (void)d->context_pop(&before);                                           \
    }                                                                          \
  } while (0)

fa_status fa_cuda_enter(const fa_context *context) {
  const CUresult result = fa_cuda_driver_open()->context_push(of(context)->primary);
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "the device could not be made current", result);
}

void fa_cuda_leave(void) {
  CUcontext before;
  (void)fa_cuda_driver_open()->context_pop(&before);
}

static fa_status context_open(fa_context *context, int32_t threads) {
  (void)threads; /* of the CPU */
  const fa_cuda_driver *d = fa_cuda_driver_open();
  cuda_context *made = fa_host_allocate(context, sizeof *made);
  if (!made) return FA_ERROR_MEMORY;
  memset(made, 0, sizeof *made);
  CUresult result = d->device_get(&made->device, context->device_index);
  if (result == CUDA_SUCCESS) result = d->primary_retain(&made->primary, made->device);
  if (result != CUDA_SUCCESS) {
    fa_host_free(context, made);
    return failed(context, "the device could not be opened", result);
  }
  pthread_mutex_init(&made->images, NULL);
  context->backend_data = made;
  context->threads = 1;
  return FA_OK;
}

static void context_close(fa_context *context) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  cuda_context *data = of(context);
  CUcontext before;
  if (d->context_push(data->primary) == CUDA_SUCCESS) {
    for (int n = 0; n < MAX_IMAGES; ++n)
      if (data->modules[n]) (void)d->module_unload(data->modules[n]);
    (void)d->context_pop(&before);
  }
  (void)d->primary_release(data->device);
  pthread_mutex_destroy(&data->images);
  fa_host_free(context, data);
}

static fa_status buffer_allocate(fa_context *context, size_t bytes, void **memory) {
  CUresult result;
  CUdeviceptr address = 0;
  WITH_DEVICE(context, result, memory_allocate(&address, bytes));
  if (result != CUDA_SUCCESS)
    return fa_fail(result == CUDA_ERROR_OUT_OF_MEMORY ? FA_ERROR_MEMORY : FA_ERROR_DEVICE,
                   "cuda:%d: could not allocate %zu bytes (%s); free some or use a smaller problem",
                   context->device_index, bytes, fa_cuda_result_text(result));
  *memory = (void *)(uintptr_t)address;
  return FA_OK;
}

static void buffer_free(fa_context *context, void *memory) {
  CUresult result;
  WITH_DEVICE(context, result, memory_free((CUdeviceptr)(uintptr_t)memory));
  (void)result;
}

static fa_status buffer_copy(fa_context *context, void *destination, const void *source, size_t bytes,
                             fa_copy_kind kind, fa_stream stream) {
  CUresult result;
  const CUdeviceptr to = (CUdeviceptr)(uintptr_t)destination, from = (CUdeviceptr)(uintptr_t)source;
  if (kind == FA_COPY_HOST_TO_DEVICE)
    WITH_DEVICE(context, result, copy_to_device(to, source, bytes, (CUstream)stream));
  else if (kind == FA_COPY_DEVICE_TO_HOST)
    WITH_DEVICE(context, result, copy_to_host(destination, from, bytes, (CUstream)stream));
  else
    WITH_DEVICE(context, result, copy(to, from, bytes, (CUstream)stream));
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "a copy failed", result);
}

static fa_status stream_create(fa_context *context, fa_stream *stream) {
  CUresult result;
  CUstream made = NULL;
  WITH_DEVICE(context, result, stream_create(&made, CU_STREAM_NON_BLOCKING));
  *stream = made;
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "a stream could not be made", result);
}
static void stream_destroy(fa_context *context, fa_stream stream) {
  CUresult result;
  WITH_DEVICE(context, result, stream_destroy((CUstream)stream));
  (void)result;
}
static fa_status stream_synchronize(fa_context *context, fa_stream stream) {
  CUresult result;
  WITH_DEVICE(context, result, stream_synchronize((CUstream)stream));
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "work on a stream failed", result);
}

struct fa_event {
  CUevent handle;
  int recorded;
};
static fa_status event_create(fa_context *context, fa_event **event) {
  CUresult result;
  *event = fa_host_allocate(context, sizeof **event);
  if (!*event) return FA_ERROR_MEMORY;
  (*event)->recorded = 0;
  WITH_DEVICE(context, result, event_create(&(*event)->handle, CU_EVENT_DEFAULT));
  if (result == CUDA_SUCCESS) return FA_OK;
  fa_host_free(context, *event);
  *event = NULL;
  return failed(context, "an event could not be made", result);
}
static void event_destroy(fa_context *context, fa_event *event) {
  CUresult result;
  if (!event) return;
  WITH_DEVICE(context, result, event_destroy(event->handle));
  (void)result;
  fa_host_free(context, event);
}
static fa_status event_record(fa_context *context, fa_event *event, fa_stream stream) {
  CUresult result;
  WITH_DEVICE(context, result, event_record(event->handle, (CUstream)stream));
  event->recorded = result == CUDA_SUCCESS;
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "an event could not be recorded", result);
}
static fa_status event_elapsed(fa_context *context, const fa_event *begin, const fa_event *end, double *ms) {
  if (!begin->recorded || !end->recorded)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_event_elapsed: an event was never recorded; call fa_event_record on both");
  CUresult result;
  float elapsed = 0.0f;
  WITH_DEVICE(context, result, event_elapsed(&elapsed, begin->handle, end->handle));
  *ms = (double)elapsed;
  if (result == CUDA_ERROR_NOT_READY)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_event_elapsed: an event has not happened yet; synchronize its stream first");
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "the time between two events could not be read", result);
}

/* --------------------------------------------------------------------- images */

static fa_status load(const fa_context *context, const char *image, CUmodule *module) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  cuda_context *data = of(context);
  int n = 0;
  while (n < fa_cuda_images_count && n < MAX_IMAGES && strcmp(fa_cuda_images[n].name, image) != 0) ++n;
  if (n == fa_cuda_images_count || n == MAX_IMAGES)
    return fa_fail(FA_ERROR_UNSUPPORTED, "this build has no device code '%s'", image);
  pthread_mutex_lock(&data->images);
  const CUresult result =
      data->modules[n] ? CUDA_SUCCESS : d->module_load(&data->modules[n], fa_cuda_images[n].begin);
  *module = data->modules[n];
  pthread_mutex_unlock(&data->images);
  if (result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION ||
      result == CUDA_ERROR_INVALID_PTX || result == CUDA_ERROR_JIT_COMPILER_NOT_FOUND)
    return fa_fail(FA_ERROR_UNSUPPORTED, "device code '%s' was not built for this GPU (sm_%d) and the driver cannot compile "
                   "it (%s); build with -DFA_CUDA_ARCHITECTURES=%d or update the driver", image,
                   fa_cuda_capability(context), fa_cuda_result_text(result), fa_cuda_capability(context));
  return result == CUDA_SUCCESS ? FA_OK : failed(context, image, result);
}

fa_status fa_cuda_find(const fa_context *context, const char *image, const char *name, unsigned shared_bytes,
                       fa_cuda_function *function) {
  if (shared_bytes > fa_cuda_shared_limit(context))
    return fa_fail(FA_ERROR_UNSUPPORTED, "%s needs %u bytes of shared memory a block and the GPU has %u", name,
                   shared_bytes, fa_cuda_shared_limit(context));
  const fa_cuda_driver *d = fa_cuda_driver_open();
  CUcontext before;
  CUmodule module = NULL;
  CUfunction found = NULL;
  CUresult result = d->context_push(of(context)->primary);
  if (result != CUDA_SUCCESS) return failed(context, "the device could not be made current", result);
  fa_status status = load(context, image, &module);
  if (status == FA_OK) {
    result = d->module_function(&found, module, name);
    if (result == CUDA_SUCCESS)
      result = d->function_attribute(found, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared_bytes);
    if (result != CUDA_SUCCESS) status = failed(context, name, result);
  }
  (void)d->context_pop(&before);
  *function = (fa_cuda_function)found;
  return status;
}

fa_status fa_cuda_find_common(const fa_context *context, fa_cuda_common which, fa_cuda_function *function) {
  static const char *const names[FA_CUDA_COMMON] = {"append_any", "merge_any"}; /* of image and function */
  cuda_context *data = of(context);
  *function = atomic_load_explicit(&data->common[which], memory_order_acquire);
  if (*function) return FA_OK;
  const fa_status status = fa_cuda_find(context, names[which], names[which], 0, function);
  if (status == FA_OK) atomic_store_explicit(&data->common[which], *function, memory_order_release);
  return status;
}

enum { MOST_ATTRIBUTES = 2 };

static CUlaunchConfig launch_config(fa_cuda_shape shape, CUlaunchAttribute attributes[MOST_ATTRIBUTES]) {
  CUlaunchConfig config = {.gridDimX = shape.grid[0], .gridDimY = shape.grid[1], .gridDimZ = shape.grid[2],
                           .blockDimX = shape.threads, .blockDimY = 1, .blockDimZ = 1,
                           .sharedMemBytes = shape.shared_bytes, .attrs = attributes, .numAttrs = 0};
  memset(attributes, 0, MOST_ATTRIBUTES * sizeof *attributes);
  if (shape.cluster) {
    CUlaunchAttribute *cluster = &attributes[config.numAttrs++];
    cluster->id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    cluster->value.clusterDim.x = shape.cluster;
    cluster->value.clusterDim.y = cluster->value.clusterDim.z = 1;
  }
  if (shape.follows) {
    CUlaunchAttribute *follows = &attributes[config.numAttrs++];
    follows->id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    follows->value.programmaticStreamSerializationAllowed = 1;
  }
  return config;
}

/* Older code can neither use clusters nor wait, whatever the device. */
static int has_code_from_90(const fa_context *context, fa_cuda_function function) {
  CUresult result;
  int code = 0;
  if (fa_cuda_capability(context) < FA_CUDA_CLUSTERS) return 0;
  WITH_DEVICE(context, result, function_fact(&code, CU_FUNC_ATTRIBUTE_PTX_VERSION, (CUfunction)function));
  return result == CUDA_SUCCESS && code >= FA_CUDA_CLUSTERS;
}

int fa_cuda_may_follow(const fa_context *context, fa_cuda_function function) {
  enum { GRAPHS_KEEP_IT = 12030 }; /* CUDA 12.3 */
  const fa_cuda_driver *d = fa_cuda_driver_open();
  int version = 0;
  return d->version(&version) == CUDA_SUCCESS && version >= GRAPHS_KEEP_IT && has_code_from_90(context, function);
}

int32_t fa_cuda_clusters_at_once(const fa_context *context, fa_cuda_function function, fa_cuda_shape shape) {
  enum { PORTABLE_CLUSTER = 8 };
  CUresult result;
  CUlaunchAttribute attributes[MOST_ATTRIBUTES];
  int clusters = 0;
  if (!has_code_from_90(context, function)) return 0;
  if (shape.cluster > PORTABLE_CLUSTER) {
    WITH_DEVICE(context, result,
                function_attribute((CUfunction)function, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
    if (result != CUDA_SUCCESS) return 0;
  }
  CUlaunchConfig config = launch_config(shape, attributes);
  WITH_DEVICE(context, result, most_clusters(&clusters, (CUfunction)function, &config));
  return result == CUDA_SUCCESS ? clusters : 0;
}

fa_status fa_cuda_start_with(const fa_context *context, fa_cuda_function function, fa_cuda_shape shape,
                             const void *params, fa_stream stream) {
  CUresult result;
  /* The driver copies the parameters before it returns. */
  void *parameters[1];
  memcpy(parameters, &params, sizeof params);
  if (shape.cluster || shape.follows) {
    CUlaunchAttribute attributes[MOST_ATTRIBUTES];
    CUlaunchConfig config = launch_config(shape, attributes);
    config.hStream = (CUstream)stream;
    WITH_DEVICE(context, result, launch_with(&config, (CUfunction)function, parameters, NULL));
  } else {
    WITH_DEVICE(context, result,
                launch((CUfunction)function, shape.grid[0], shape.grid[1], shape.grid[2], shape.threads, 1, 1,
                       shape.shared_bytes, (CUstream)stream, parameters, NULL));
  }
  return result == CUDA_SUCCESS ? FA_OK : failed(context, "a kernel could not be started", result);
}

fa_status fa_cuda_start(const fa_context *context, fa_cuda_function function, fa_cuda_shape shape,
                        const fa_cuda_params *params, fa_stream stream) {
  return fa_cuda_start_with(context, function, shape, params, stream);
}

int32_t fa_cuda_multiprocessors(const fa_context *context) {
  const int32_t known = facts_of(context->device_index)->multiprocessors;
  return known > 0 ? known : 1;
}
unsigned fa_cuda_shared_limit(const fa_context *context) { return facts_of(context->device_index)->shared_limit; }
int32_t fa_cuda_blocks_at_once(const fa_context *context, unsigned shared_bytes) {
  const device_facts *f = facts_of(context->device_index);
  return fa_blocks_at_once(f->capability, f->shared_limit, f->shared_total, shared_bytes);
}
int64_t fa_cuda_l2_bytes(const fa_context *context) { return facts_of(context->device_index)->l2_bytes; }
int32_t fa_cuda_capability(const fa_context *context) { return facts_of(context->device_index)->capability; }

const fa_backend fa_cuda_backend = {
    .name = "cuda",
    .device_count = device_count,
    .missing = missing,
    .device_describe = device_describe,
    .device_isa = device_isa,
    .context_open = context_open,
    .context_close = context_close,
    .buffer_allocate = buffer_allocate,
    .buffer_free = buffer_free,
    .buffer_copy = buffer_copy,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_synchronize = stream_synchronize,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .event_elapsed = event_elapsed,
    .prepare_run = fa_cuda_prepare_append,
    .run = fa_cuda_run,
    .merge = fa_cuda_merge,
};
