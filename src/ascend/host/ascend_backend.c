/* Ascend NPUs as a backend, through CANN's runtime (ascend_runtime.h). Not run: written from the public API reference, compiled,
 * and refused where there is no NPU, which is all that could be tried. What a first run should look at:
 *   - Kernels of KERNEL_TYPE_MIX_AIC_1_2 need an address for flags between Cube and Vector. A launch by <<<>>> passes it unseen;
 *     the reference does not say who does with aclrtLaunchKernelWithHostArgs (aclrtGetHardwareSyncAddr would give it).
 *   - Host memory of a launch's arguments is taken to be read before the call returns, as with <<<>>>.
 * Device code is not part of the library: CANN's compiler makes <folder>/<file>.o of each src/ascend/kernel/<file>.cpp
 * (bisheng --npu-arch=dav-2201), and FASTATTENTION_ASCEND_KERNELS names the folder by its absolute path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ascend/host/ascend.h"
#include "ascend/host/ascend_runtime.h"

enum { MOST_BINARIES = 16 };

static int32_t device_count(void) { return fa_ascend_acl_open()->devices; }
static const char *missing(void) { return fa_ascend_acl_open()->missing; }

/* Every device of a machine is of one kind; the name may be known only once one was set. */
static int chip_of(int32_t index, fa_ascend_chip *chip) {
  const fa_ascend_acl *acl = fa_ascend_acl_open();
  const char *name = acl->soc_name();
  if (!name && acl->device_set(index) == 0) name = acl->soc_name();
  const char *known = name ? strstr(name, "910B") : NULL;
  int64_t value = 0;
  if (!known || !fa_ascend_chip_named(known, chip)) return 0;
  if (acl->device_info((uint32_t)index, FA_ACL_CUBE_CORES, &value) == 0 && value > 0 && value <= 1024)
    chip->groups = (int32_t)value;
  if (acl->device_info((uint32_t)index, FA_ACL_MEMORY_BYTES, &value) == 0) chip->memory_bytes = value;
  return 1;
}

static uint64_t device_isa(int32_t index) {
  fa_ascend_chip chip;
  return index < device_count() && chip_of(index, &chip) ? FA_ASCEND_A2 : 0;
}

static fa_status device_describe(int32_t index, fa_device_info *info) {
  static _Thread_local char name[16], description[96];
  fa_ascend_chip chip = {"of another kind", 0, 0, 0};
  const int is_known = chip_of(index, &chip);
  snprintf(name, sizeof name, "ascend:%d", index);
  snprintf(description, sizeof description, "Ascend %s, %d AIC, %d AIV", chip.name, chip.groups, 2 * chip.groups);
  info->name = name;
  info->description = description;
  info->isa = is_known ? "dav-c220" : "";
  info->memory_bytes = chip.memory_bytes;
  info->cache_l2_bytes = chip.l2_bytes;
  info->units = chip.groups;
  return FA_OK;
}

/* --------------------------------------------------------------------- contexts */

typedef struct acl_context {
  fa_ascend_device device;
  pthread_mutex_t loading;
  struct {
    const char *file;
    void *handle;
  } binaries[MOST_BINARIES];
} acl_context;

static acl_context *of(const fa_context *context) { return context->backend_data; }

static fa_status failed(const fa_context *context, const char *what, fa_acl_error error) {
  return fa_fail(FA_ERROR_DEVICE, "ascend:%d: %s: error %d %.200s", context->device_index, what, error, fa_ascend_acl_text());
}

/* Calls the runtime with the context's device current in this thread, whatever was current before. */
#define WITH_DEVICE(context, error, call)                                         \
  do {                                                                            \
    const fa_ascend_acl *acl = fa_ascend_acl_open();                              \
    int32_t before = -1;                                                          \
    if (acl->device_get(&before) != 0) before = -1;                               \
    (error) = acl->device_set((context)->device_index);                           \
    if (!(error)) (error) = acl->call;                                            \
    if (before >= 0 && before != (context)->device_index) (void)acl->device_set(before); \
  } while (0)

static const fa_ascend_runtime runtime;

static fa_status context_open(fa_context *context, int32_t threads) {
  (void)threads; /* of the CPU */
  const fa_acl_error error = fa_ascend_acl_open()->device_set(context->device_index);
  if (error) return failed(context, "the device could not be opened", error);
  fa_ascend_chip chip;
  if (!chip_of(context->device_index, &chip))
    return fa_fail(FA_ERROR_UNSUPPORTED, "ascend:%d is not a chip of Ascend 910B, which is what the kernels are written for",
                   context->device_index);
  acl_context *made = fa_host_allocate(context, sizeof *made);
  if (!made) return FA_ERROR_MEMORY;
  memset(made, 0, sizeof *made);
  fa_ascend_device_open(&made->device, &runtime, &chip);
  pthread_mutex_init(&made->loading, NULL);
  context->backend_data = made;
  context->threads = 1;
  return FA_OK;
}

static void context_close(fa_context *context) {
  acl_context *data = of(context);
  fa_ascend_device_close(context);
  for (int n = 0; n < MOST_BINARIES && data->binaries[n].file; ++n) {
    fa_acl_error error;
    WITH_DEVICE(context, error, binary_unload(data->binaries[n].handle));
    (void)error;
  }
  pthread_mutex_destroy(&data->loading);
  fa_host_free(context, data);
}

static fa_status buffer_allocate(fa_context *context, size_t bytes, void **memory) {
  fa_acl_error error;
  WITH_DEVICE(context, error, memory_allocate(memory, bytes, FA_ACL_MALLOC_HUGE_FIRST));
  if (error)
    return fa_fail(fa_acl_is_shortage(error) ? FA_ERROR_MEMORY : FA_ERROR_DEVICE,
                   "ascend:%d: could not allocate %zu bytes (error %d); free some or use a smaller problem",
                   context->device_index, bytes, error);
  return FA_OK;
}

static void buffer_free(fa_context *context, void *memory) {
  fa_acl_error error;
  WITH_DEVICE(context, error, memory_free(memory));
  (void)error;
}

static fa_status buffer_copy(fa_context *context, void *destination, const void *source, size_t bytes, fa_copy_kind kind,
                             fa_stream stream) {
  const int direction = kind == FA_COPY_HOST_TO_DEVICE   ? FA_ACL_HOST_TO_DEVICE
                        : kind == FA_COPY_DEVICE_TO_HOST ? FA_ACL_DEVICE_TO_HOST
                                                         : FA_ACL_DEVICE_TO_DEVICE;
  fa_acl_error error;
  WITH_DEVICE(context, error, copy(destination, bytes, source, bytes, direction, stream));
  return error ? failed(context, "a copy failed", error) : FA_OK;
}

static fa_status stream_create(fa_context *context, fa_stream *stream) {
  fa_acl_error error;
  WITH_DEVICE(context, error, stream_create(stream));
  return error ? failed(context, "a stream could not be made", error) : FA_OK;
}
static void stream_destroy(fa_context *context, fa_stream stream) {
  fa_acl_error error;
  WITH_DEVICE(context, error, stream_destroy(stream));
  (void)error;
}
static fa_status stream_synchronize(fa_context *context, fa_stream stream) {
  fa_acl_error error;
  WITH_DEVICE(context, error, stream_synchronize(stream));
  return error ? failed(context, "work on a stream failed", error) : FA_OK;
}

struct fa_event {
  void *handle;
  int recorded;
};
static fa_status event_create(fa_context *context, fa_event **event) {
  fa_acl_error error;
  *event = fa_host_allocate(context, sizeof **event);
  if (!*event) return FA_ERROR_MEMORY;
  (*event)->recorded = 0;
  WITH_DEVICE(context, error, event_create(&(*event)->handle));
  if (!error) return FA_OK;
  fa_host_free(context, *event);
  *event = NULL;
  return failed(context, "an event could not be made", error);
}
static void event_destroy(fa_context *context, fa_event *event) {
  fa_acl_error error;
  WITH_DEVICE(context, error, event_destroy(event->handle));
  (void)error;
  fa_host_free(context, event);
}
static fa_status event_record(fa_context *context, fa_event *event, fa_stream stream) {
  fa_acl_error error;
  WITH_DEVICE(context, error, event_record(event->handle, stream));
  event->recorded = !error;
  return error ? failed(context, "an event could not be recorded", error) : FA_OK;
}
static fa_status event_elapsed(fa_context *context, const fa_event *begin, const fa_event *end, double *ms) {
  if (!begin->recorded || !end->recorded)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_event_elapsed: an event was never recorded; call fa_event_record on both");
  fa_acl_error error;
  float elapsed = 0.0f;
  WITH_DEVICE(context, error, event_elapsed(&elapsed, begin->handle, end->handle));
  *ms = (double)elapsed;
  return error ? failed(context, "the time between two events could not be read", error) : FA_OK;
}

/* --------------------------------------------------------------------- device code */

static fa_status load(const fa_context *context, const char *file, void **binary) {
  acl_context *data = of(context);
  const char *folder = getenv("FASTATTENTION_ASCEND_KERNELS");
  char path[1024];
  int n = 0;
  while (n < MOST_BINARIES && data->binaries[n].file && strcmp(data->binaries[n].file, file) != 0) ++n;
  if (n < MOST_BINARIES && data->binaries[n].file) {
    *binary = data->binaries[n].handle;
    return FA_OK;
  }
  if (n == MOST_BINARIES) return fa_fail(FA_ERROR_UNSUPPORTED, "more than %d binaries of device code", MOST_BINARIES);
  if (!folder)
    return fa_fail(FA_ERROR_UNSUPPORTED, "no device code: set FASTATTENTION_ASCEND_KERNELS to the folder of %s.o, which CANN's "
                   "compiler makes of src/ascend/kernel/%s.cpp", file, file);
  if ((size_t)snprintf(path, sizeof path, "%s/%s.o", folder, file) >= sizeof path)
    return fa_fail(FA_ERROR_UNSUPPORTED, "FASTATTENTION_ASCEND_KERNELS is longer than %zu bytes; use a shorter path",
                   sizeof path);
  fa_acl_error error;
  WITH_DEVICE(context, error, binary_load(path, NULL, binary));
  if (error)
    return fa_fail(FA_ERROR_UNSUPPORTED, "device code %.300s could not be loaded (error %d); compile it for this chip", path,
                   error);
  data->binaries[n].file = file;
  data->binaries[n].handle = *binary;
  return FA_OK;
}

static fa_status find(const fa_context *context, const fa_ascend_code *code, fa_ascend_function *function) {
  void *binary = NULL, *found = NULL;
  pthread_mutex_lock(&of(context)->loading);
  const fa_status status = load(context, code->file, &binary);
  pthread_mutex_unlock(&of(context)->loading);
  if (status != FA_OK) return status;
  fa_acl_error error;
  WITH_DEVICE(context, error, binary_function(binary, code->function, &found));
  *function = found;
  return error ? failed(context, code->function, error) : FA_OK;
}

/* Pointers are passed on unseen: the runtime can only be asked about memory that is its own. */
static fa_status start(const fa_context *context, const fa_ascend_launch *launch, fa_stream stream) {
  enum { POINTER = 8, BEFORE_TILING = (FA_ASCEND_MOST_ARGUMENTS + 1) * POINTER };
  _Static_assert(sizeof(void *) == POINTER && BEFORE_TILING % 32 == 0, "the tiling struct lies on 32 bytes");
  _Alignas(32) unsigned char arguments[BEFORE_TILING + FA_ASCEND_MOST_TILING_BYTES] = {0};
  for (int n = 0; n < launch->count; ++n)
    memcpy(arguments + n * POINTER, &launch->arguments[n].pointer, POINTER);
  memcpy(arguments + BEFORE_TILING, launch->tiling, launch->tiling_bytes);
  fa_acl_placeholder tiling = {(uint32_t)launch->count * POINTER, BEFORE_TILING};
  fa_acl_error error;
  WITH_DEVICE(context, error, launch(launch->function, (uint32_t)launch->blocks, stream, NULL, arguments,
                                     BEFORE_TILING + launch->tiling_bytes, &tiling, 1));
  return error ? failed(context, "a kernel could not be started", error) : FA_OK;
}

static const fa_ascend_runtime runtime = {find, start};

static fa_status run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  return plan->kernel->run(plan, args, workspace, stream);
}

static fa_status merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim,
                       const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b, fa_stream stream) {
  (void)dtype, (void)batch, (void)seqlen, (void)heads, (void)dim, (void)o_a, (void)lse_a, (void)o_b, (void)lse_b, (void)stream;
  return fa_fail(FA_ERROR_UNSUPPORTED, "ascend:%d has no kernel that merges; copy both sides to the CPU and merge there",
                 context->device_index);
}

const fa_backend fa_ascend_backend = {
    .name = "ascend",
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
    .prepare_run = fa_ascend_prepare_run,
    .run = run,
    .merge = merge,
};
