#include "check/check_mirror.h"

#include <stdlib.h>
#include <string.h>

#include "core/kernel.h"
#include "core/status.h"

#define BAND ((size_t)512)
#define ALIGNMENT 256

static size_t layout(fa_mirror *mirror, fa_slot *const *slots, int count) {
  size_t end = 0;
  mirror->count = 0;
  for (int n = 0; n < count && mirror->count < FA_MIRROR_SLOTS; n++) {
    const fa_slot *s = slots[n];
    if (!s->data) continue;
    const size_t before = (size_t)(s->data - s->begin), after = (size_t)(s->end - (s->data + s->bytes));
    unsigned char *low = s->data - (before < BAND ? before : BAND);
    const size_t bytes = (size_t)(s->data + s->bytes - low) + (after < BAND ? after : BAND);
    const size_t offset = (end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + (uintptr_t)low % ALIGNMENT;
    mirror->parts[mirror->count].low = low;
    mirror->parts[mirror->count].bytes = bytes;
    mirror->parts[mirror->count++].offset = offset;
    end = offset + bytes;
  }
  return end;
}

static fa_status reserve(fa_mirror *mirror, fa_context *context, size_t bytes) {
  if (mirror->context == context && mirror->capacity >= bytes) return FA_OK;
  fa_mirror_release(mirror);
  mirror->staging = malloc(bytes + bytes / 2);
  if (!mirror->staging) return fa_fail(FA_ERROR_MEMORY, "check: out of memory");
  mirror->context = context;
  mirror->capacity = bytes + bytes / 2;
  return fa_buffer_allocate(context, mirror->capacity, &mirror->device);
}

fa_status fa_mirror_upload(fa_mirror *mirror, fa_context *context, fa_slot *const *slots, int count) {
  mirror->active = !context->backend->memory_is_host;
  if (!mirror->active) return FA_OK;
  const size_t bytes = layout(mirror, slots, count);
  const fa_status status = reserve(mirror, context, bytes);
  if (status != FA_OK) return status;
  memset(mirror->staging, FA_POISON, bytes);
  for (int n = 0; n < mirror->count; n++)
    memcpy(mirror->staging + mirror->parts[n].offset, mirror->parts[n].low, mirror->parts[n].bytes);
  return fa_buffer_copy(context, mirror->device, mirror->staging, bytes, FA_COPY_HOST_TO_DEVICE, NULL);
}

void *fa_mirror_pointer(const fa_mirror *mirror, const void *host) {
  const unsigned char *wanted = host;
  for (int n = 0; mirror->active && n < mirror->count; n++) {
    if (wanted < mirror->parts[n].low || wanted > mirror->parts[n].low + mirror->parts[n].bytes) continue;
    return (unsigned char *)mirror->device + mirror->parts[n].offset + (wanted - mirror->parts[n].low);
  }
  return (void *)(uintptr_t)host;
}

fa_status fa_mirror_download(fa_mirror *mirror) {
  if (!mirror->active) return FA_OK;
  fa_status status = fa_stream_synchronize(mirror->context, NULL);
  if (status != FA_OK || mirror->count == 0) return status;
  const size_t bytes = mirror->parts[mirror->count - 1].offset + mirror->parts[mirror->count - 1].bytes;
  status = fa_buffer_copy(mirror->context, mirror->staging, mirror->device, bytes, FA_COPY_DEVICE_TO_HOST, NULL);
  if (status == FA_OK) status = fa_stream_synchronize(mirror->context, NULL);
  for (int n = 0; n < mirror->count && status == FA_OK; n++)
    memcpy(mirror->parts[n].low, mirror->staging + mirror->parts[n].offset, mirror->parts[n].bytes);
  return status;
}

void fa_mirror_release(fa_mirror *mirror) {
  if (mirror->context) fa_buffer_free(mirror->context, mirror->device);
  free(mirror->staging);
  memset(mirror, 0, sizeof *mirror);
}
