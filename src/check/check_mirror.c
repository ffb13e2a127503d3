#include "check/check_mirror.h"

#include <stdlib.h>
#include <string.h>

#include "core/kernel.h"
#include "core/status.h"

/* Also the least number of bytes, all poison, before, between and behind the parts. */
#define ALIGNMENT ((size_t)256)

static void layout(fa_mirror *mirror, fa_slot *const *slots, int count) {
  size_t end = 0;
  mirror->count = 0;
  for (int n = 0; n < count; n++) {
    const fa_slot *s = slots[n];
    if (!s->data) continue;
    const size_t before = (size_t)(s->data - s->begin), after = (size_t)(s->end - (s->data + s->bytes));
    unsigned char *low = s->data - (before < FA_BAND ? before : FA_BAND);
    const size_t bytes = (size_t)(s->data + s->bytes - low) + (after < FA_BAND ? after : FA_BAND);
    const size_t offset = (end + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + (uintptr_t)low % ALIGNMENT;
    mirror->parts[mirror->count].low = low;
    mirror->parts[mirror->count].bytes = bytes;
    mirror->parts[mirror->count++].offset = offset;
    end = offset + bytes;
  }
  mirror->bytes = end + ALIGNMENT;
}

static void free_memory(fa_mirror *mirror) {
  if (mirror->context) fa_buffer_free(mirror->context, mirror->device);
  free(mirror->staging);
  mirror->context = NULL;
  mirror->device = NULL;
  mirror->staging = NULL;
  mirror->capacity = 0;
}

/* The layout stays as it is. */
static fa_status reserve(fa_mirror *mirror, fa_context *context, size_t bytes) {
  if (mirror->context == context && mirror->capacity >= bytes) return FA_OK;
  free_memory(mirror);
  mirror->staging = malloc(bytes + bytes / 2);
  if (!mirror->staging) return fa_fail(FA_ERROR_MEMORY, "check: out of memory");
  mirror->context = context;
  const fa_status status = fa_buffer_allocate(context, bytes + bytes / 2, &mirror->device);
  if (status == FA_OK) mirror->capacity = bytes + bytes / 2;
  return status;
}

fa_status fa_mirror_upload(fa_mirror *mirror, fa_context *context, fa_slot *const *slots, int count) {
  mirror->active = !context->backend->memory_is_host;
  if (!mirror->active) return FA_OK;
  if (count > FA_MIRROR_SLOTS) return fa_fail(FA_ERROR_ARGUMENT, "check: %d arrays to mirror", count);
  layout(mirror, slots, count);
  const fa_status status = reserve(mirror, context, mirror->bytes);
  if (status != FA_OK) return status;
  memset(mirror->staging, FA_POISON, mirror->bytes);
  for (int n = 0; n < mirror->count; n++)
    memcpy(mirror->staging + mirror->parts[n].offset, mirror->parts[n].low, mirror->parts[n].bytes);
  return fa_buffer_copy(context, mirror->device, mirror->staging, mirror->bytes, FA_COPY_HOST_TO_DEVICE, NULL);
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
  status = fa_buffer_copy(mirror->context, mirror->staging, mirror->device, mirror->bytes, FA_COPY_DEVICE_TO_HOST,
                          NULL);
  if (status == FA_OK) status = fa_stream_synchronize(mirror->context, NULL);
  for (int n = 0; n < mirror->count && status == FA_OK; n++)
    memcpy(mirror->parts[n].low, mirror->staging + mirror->parts[n].offset, mirror->parts[n].bytes);
  return status;
}

static int all_poison(const unsigned char *bytes, size_t count) {
  for (size_t n = 0; n < count; n++) {
    if (bytes[n] != FA_POISON) return 0;
  }
  return 1;
}

int fa_mirror_gaps_intact(const fa_mirror *mirror) {
  size_t end = 0;
  if (!mirror->active) return 1;
  for (int n = 0; n < mirror->count; n++) {
    if (!all_poison(mirror->staging + end, mirror->parts[n].offset - end)) return 0;
    end = mirror->parts[n].offset + mirror->parts[n].bytes;
  }
  return all_poison(mirror->staging + end, mirror->bytes - end);
}

void fa_mirror_release(fa_mirror *mirror) {
  free_memory(mirror);
  memset(mirror, 0, sizeof *mirror);
}
