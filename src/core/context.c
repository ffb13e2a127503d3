/* Contexts: one device, its threads, its allocator; and the calls that pass straight to the backend. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/descriptor.h"
#include "core/kernel.h"
#include "core/status.h"
#include "core/tuning.h"

#define HOST_ALIGNMENT 64

static void *default_allocate(void *user, size_t bytes, size_t alignment) {
  (void)user;
  if (bytes > SIZE_MAX - alignment) return NULL;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void default_release(void *user, void *memory) {
  (void)user;
  free(memory);
}

void *fa_host_allocate(const fa_context *context, size_t bytes) {
  void *memory = context->allocator.allocate(context->allocator.user, bytes ? bytes : 1, HOST_ALIGNMENT);
  if (!memory)
    fa_fail(FA_ERROR_MEMORY, "could not allocate %zu bytes of host memory; free some or use a smaller problem", bytes);
  return memory;
}

void fa_host_free(const fa_context *context, void *memory) {
  if (memory) context->allocator.release(context->allocator.user, memory);
}

/* "name" or "name:N" with N a plain decimal number. */
static int device_matches(const char *device, const char *name, int32_t *index) {
  const size_t length = strlen(name);
  if (strncmp(device, name, length) != 0) return 0;
  *index = 0;
  if (device[length] == '\0') return 1;
  if (device[length] != ':' || device[length + 1] < '0' || device[length + 1] > '9') return 0;
  char *end = NULL;
  errno = 0;
  const long number = strtol(device + length + 1, &end, 10);
  if (errno || *end != '\0' || number > INT32_MAX) return 0;
  *index = (int32_t)number;
  return 1;
}

static fa_status find_device(const char *device, const fa_backend **backend, int32_t *index) {
  for (int b = 0; fa_backends[b]; ++b) {
    if (!device_matches(device, fa_backends[b]->name, index)) continue;
    const int32_t count = fa_backends[b]->device_count();
    if (count == 0 && fa_backends[b]->missing)
      return fa_fail(FA_ERROR_DEVICE, "device '%s' is not there: %s", device, fa_backends[b]->missing());
    if (*index >= count)
      return fa_fail(FA_ERROR_DEVICE, "device '%s' is not there; %s devices found: %d", device,
                     fa_backends[b]->name, count);
    *backend = fa_backends[b];
    return FA_OK;
  }
  char known[128] = "";
  for (int b = 0; fa_backends[b]; ++b) {
    strncat(known, b ? ", " : "", sizeof known - strlen(known) - 1);
    strncat(known, fa_backends[b]->name, sizeof known - strlen(known) - 1);
  }
  return fa_fail(FA_ERROR_ARGUMENT, "unknown device '%.64s'; this build knows %s (with :N for the N-th)", device,
                 known);
}

fa_status fa_context_create(const fa_context_options *options, fa_context **context) {
  if (!context) return fa_fail(FA_ERROR_ARGUMENT, "context is NULL; pass the address of an fa_context pointer");
  *context = NULL;
  fa_context_options given = FA_CONTEXT_OPTIONS_INIT;
  if (options) {
    const fa_status status = fa_read_descriptor("fa_context_options", &given, sizeof given, options,
                                                options->struct_size);
    if (status != FA_OK) return status;
  }
  if (given.threads < 0 || given.threads > 4096)
    return fa_fail(FA_ERROR_ARGUMENT, "threads is %d; it must be 0 (one per core) to 4096", given.threads);
  if (!given.allocator.allocate != !given.allocator.release)
    return fa_fail(FA_ERROR_ARGUMENT, "allocator has only one of allocate and release; set both or neither");
  if (!given.allocator.allocate) {
    given.allocator.allocate = default_allocate;
    given.allocator.release = default_release;
  }

  fa_context blank;
  memset(&blank, 0, sizeof blank);
  blank.allocator = given.allocator;
  fa_status status = find_device(given.device ? given.device : "cpu", &blank.backend, &blank.device_index);
  if (status != FA_OK) return status;
  fa_context *made = fa_host_allocate(&blank, sizeof *made);
  if (!made) return FA_ERROR_MEMORY;
  *made = blank;
  status = made->backend->context_open(made, given.threads);
  if (status != FA_OK) {
    fa_host_free(&blank, made);
    return status;
  }
  status = fa_tuning_from_environment(made);
  if (status != FA_OK) {
    fa_context_destroy(made);
    return status;
  }
  *context = made;
  return FA_OK;
}

void fa_context_destroy(fa_context *context) {
  if (!context) return;
  fa_host_free(context, context->tuning);
  context->backend->context_close(context);
  const fa_context copy = *context;
  fa_host_free(&copy, context);
}

int32_t fa_context_threads(const fa_context *context) { return context ? context->threads : 0; }

#define REQUIRE(pointer) \
  if (!(pointer)) return fa_fail(FA_ERROR_ARGUMENT, "%s: %s is NULL", __func__, #pointer)

fa_status fa_buffer_allocate(fa_context *context, size_t bytes, void **memory) {
  REQUIRE(context);
  REQUIRE(memory);
  *memory = NULL;
  return bytes ? context->backend->buffer_allocate(context, bytes, memory) : FA_OK;
}

void fa_buffer_free(fa_context *context, void *memory) {
  if (context && memory) context->backend->buffer_free(context, memory);
}

fa_status fa_buffer_copy(fa_context *context, void *destination, const void *source, size_t bytes,
                         fa_copy_kind kind, fa_stream stream) {
  REQUIRE(context);
  if (bytes == 0) return FA_OK;
  REQUIRE(destination);
  REQUIRE(source);
  if ((int)kind < FA_COPY_HOST_TO_DEVICE || (int)kind > FA_COPY_DEVICE_TO_DEVICE)
    return fa_fail(FA_ERROR_ARGUMENT, "copy kind is %d; it must be an fa_copy_kind, 0 to 2", (int)kind);
  return context->backend->buffer_copy(context, destination, source, bytes, kind, stream);
}

fa_status fa_stream_create(fa_context *context, fa_stream *stream) {
  REQUIRE(context);
  REQUIRE(stream);
  return context->backend->stream_create(context, stream);
}

void fa_stream_destroy(fa_context *context, fa_stream stream) {
  if (context && stream) context->backend->stream_destroy(context, stream);
}

fa_status fa_stream_synchronize(fa_context *context, fa_stream stream) {
  REQUIRE(context);
  return context->backend->stream_synchronize(context, stream);
}

fa_status fa_event_create(fa_context *context, fa_event **event) {
  REQUIRE(context);
  REQUIRE(event);
  return context->backend->event_create(context, event);
}

void fa_event_destroy(fa_context *context, fa_event *event) {
  if (context && event) context->backend->event_destroy(context, event);
}

fa_status fa_event_record(fa_context *context, fa_event *event, fa_stream stream) {
  REQUIRE(context);
  REQUIRE(event);
  return context->backend->event_record(context, event, stream);
}

fa_status fa_event_elapsed(fa_context *context, const fa_event *begin, const fa_event *end, double *ms) {
  REQUIRE(context);
  REQUIRE(begin);
  REQUIRE(end);
  REQUIRE(ms);
  return context->backend->event_elapsed(context, begin, end, ms);
}
