/* The CPU as a backend: host memory, streams that are always idle, and the way into a kernel. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/problem.h"
#include "cpu/cpu.h"
#include "cpu/kv_append.h"

static int32_t usable_cores(void) {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return (int32_t)CPU_COUNT(&set);
#endif
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores > 0 ? (int32_t)cores : 1;
}

static int32_t device_count(void) { return 1; }
static uint64_t device_isa(int32_t index) {
  (void)index;
  return fa_cpu_isa();
}

/* Fields of /proc/cpuinfo; the fallback stays where there is none. */
static void read_model_name(char *text, size_t size) {
  FILE *file = fopen("/proc/cpuinfo", "r");
  char line[256];
  while (file && fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    snprintf(text, size, "%s", colon + 2);
    text[strcspn(text, "\n")] = '\0';
    break;
  }
  if (file) fclose(file);
}

static fa_status device_describe(int32_t index, fa_device_info *info) {
  (void)index;
  static _Thread_local char description[256], isa_text[96];
  char model[200] = "unknown processor";
  read_model_name(model, sizeof model);
  snprintf(description, sizeof description, "%s, %d cores", model, usable_cores());
  const uint64_t isa = fa_cpu_isa();
  snprintf(isa_text, sizeof isa_text, "c%s%s%s%s%s%s%s%s%s", isa & FA_CPU_AVX2 ? " avx2" : "",
           isa & FA_CPU_AVX512 ? " avx512" : "", isa & FA_CPU_AVX512_VNNI ? " avx512_vnni" : "",
           isa & FA_CPU_AVX512_BF16 ? " avx512_bf16" : "", isa & FA_CPU_AMX_BF16 ? " amx_bf16" : "",
           isa & FA_CPU_AMX_INT8 ? " amx_int8" : "",
           isa & FA_CPU_NEON ? " neon" : "", isa & FA_CPU_NEON_FHM ? " neon_fhm" : "",
           isa & FA_CPU_NEON_BF16 ? " neon_bf16" : "");
  info->name = "cpu";
  info->description = description;
  info->isa = isa_text;
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  info->memory_bytes = pages > 0 && page > 0 ? (int64_t)pages * page : 0;
  info->cache_l1_bytes = fa_cpu_cache_bytes(1);
  info->cache_l2_bytes = fa_cpu_cache_bytes(2);
  info->cache_l3_bytes = fa_cpu_cache_bytes(3);
  info->units = usable_cores();
  return FA_OK;
}

static fa_status context_open(fa_context *context, int32_t threads) {
  context->threads = threads ? threads : usable_cores();
  return FA_OK;
}
static void context_close(fa_context *context) { (void)context; }

static fa_status buffer_allocate(fa_context *context, size_t bytes, void **memory) {
  *memory = fa_host_allocate(context, bytes);
  if (!*memory) return FA_ERROR_MEMORY;
#if defined(__linux__)
  /* Large buffers are read end to end, so 2 MB pages spare the TLB; a hint only. */
  const size_t huge = (size_t)2 << 20;
  const uintptr_t begin = ((uintptr_t)*memory + huge - 1) & ~(uintptr_t)(huge - 1);
  const uintptr_t end = ((uintptr_t)*memory + bytes) & ~(uintptr_t)(huge - 1);
  if (end > begin) (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#endif
  return FA_OK;
}
static void buffer_free(fa_context *context, void *memory) { fa_host_free(context, memory); }

static fa_status buffer_copy(fa_context *context, void *destination, const void *source, size_t bytes,
                             fa_copy_kind kind, fa_stream stream) {
  (void)context, (void)kind, (void)stream;
  memmove(destination, source, bytes);
  return FA_OK;
}

/* A stream needs an identity and nothing else. */
static fa_status stream_create(fa_context *context, fa_stream *stream) {
  *stream = fa_host_allocate(context, 1);
  return *stream ? FA_OK : FA_ERROR_MEMORY;
}
static void stream_destroy(fa_context *context, fa_stream stream) { fa_host_free(context, stream); }
static fa_status stream_synchronize(fa_context *context, fa_stream stream) {
  (void)context, (void)stream;
  return FA_OK;
}

struct fa_event {
  struct timespec time;
  int recorded;
};
static fa_status event_create(fa_context *context, fa_event **event) {
  *event = fa_host_allocate(context, sizeof **event);
  if (!*event) return FA_ERROR_MEMORY;
  memset(*event, 0, sizeof **event);
  return FA_OK;
}
static void event_destroy(fa_context *context, fa_event *event) { fa_host_free(context, event); }
static fa_status event_record(fa_context *context, fa_event *event, fa_stream stream) {
  (void)context, (void)stream;
  event->recorded = clock_gettime(CLOCK_MONOTONIC, &event->time) == 0;
  return event->recorded ? FA_OK : fa_fail(FA_ERROR_DEVICE, "the monotonic clock could not be read");
}
static fa_status event_elapsed(fa_context *context, const fa_event *begin, const fa_event *end, double *ms) {
  (void)context;
  if (!begin->recorded || !end->recorded)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_event_elapsed: an event was never recorded; call fa_event_record on both");
  *ms = (double)(end->time.tv_sec - begin->time.tv_sec) * 1e3 +
        (double)(end->time.tv_nsec - begin->time.tv_nsec) * 1e-6;
  return FA_OK;
}

static fa_status prepare_run(const fa_plan *plan, size_t *workspace_bytes) {
  *workspace_bytes = fa_cpu_append_workspace_bytes(plan);
  return FA_OK;
}

static fa_status run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const fa_status status = fa_check_lengths(&plan->problem, args);
  if (status != FA_OK) return status;
  if (!plan->problem.seqlen_new) return plan->kernel->run(plan, args, workspace, stream);
  fa_attention_args rotated;
  fa_cpu_append(plan, args, (char *)workspace + plan->kernel_workspace_bytes, &rotated);
  if (plan->problem.max_seqlen_q == 0) return FA_OK;
  return plan->kernel->run(plan, &rotated, workspace, stream);
}

const fa_backend fa_cpu_backend = {
    .name = "cpu",
    .memory_is_host = 1,
    .device_count = device_count,
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
    .prepare_run = prepare_run,
    .run = run,
    .merge = fa_cpu_merge,
};
