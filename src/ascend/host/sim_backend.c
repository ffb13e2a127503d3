/* Four chips that are not there, as a backend: sim/davinci runs the device code on the host, so results are `emulated`, and the
 * clock that events read is the emulator's, so times are a `model`.
 *
 * Memory is the host's, but a pointer counts as the device's only within a buffer of fa_buffer_allocate, as on a real one: what a
 * launch may touch is told to the emulator array by array. Lengths and page indices are checked before a run, since here they
 * can be read. Streams are always idle; runs of one context take turns at its chip. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ascend/host/ascend.h"
#include "ascend/host/sim_backend.h"
#include "core/dtype.h"
#include "core/problem.h"

/* ascend-sim alone is the 910B2, of which most has been published. */
static const char *const chips[] = {"910b2", "910b1", "910b3", "910b4"};
enum { CHIPS = sizeof chips / sizeof chips[0] };

static int32_t device_count(void) { return CHIPS; }
static uint64_t device_isa(int32_t index) { return index < CHIPS ? FA_ASCEND_A2 : 0; }

static fa_status device_describe(int32_t index, fa_device_info *info) {
  static _Thread_local char name[16], description[96];
  dv_chip *chip = dv_chip_open(chips[index]);
  if (!chip) return fa_fail(FA_ERROR_MEMORY, "no memory for the emulated chip %s", chips[index]);
  const int groups = dv_chip_groups(chip);
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  snprintf(name, sizeof name, "ascend-sim:%d", index);
  snprintf(description, sizeof description, "Ascend 910B%c emulated: %d AIC, %d AIV, %g GHz", chips[index][4], groups, 2 * groups,
           dv_chip_get(chip, "clock_ghz"));
  info->name = name;
  info->description = description;
  info->isa = "dav-c220";
  info->memory_bytes = pages > 0 && page > 0 ? (int64_t)pages * page : 0; /* the host's */
  info->cache_l1_bytes = (int64_t)dv_chip_get(chip, "l1_bytes");
  info->cache_l2_bytes = (int64_t)dv_chip_get(chip, "l2_bytes");
  info->units = groups;
  dv_chip_close(chip);
  return FA_OK;
}

/* --------------------------------------------------------------------- contexts */

typedef struct sim_context {
  fa_ascend_device device;
  dv_chip *chip;
  pthread_mutex_t turn; /* of the chip, its clock and the view */
  double us;            /* emulated time since the context was made */
  fa_ascend_sim_view view;
} sim_context;

static sim_context *of(const fa_context *context) { return context->backend_data; }

static const fa_ascend_runtime runtime;

static fa_status context_open(fa_context *context, int32_t threads) {
  (void)threads;
  fa_ascend_chip facts;
  sim_context *made = fa_host_allocate(context, sizeof *made);
  if (!made) return FA_ERROR_MEMORY;
  memset(made, 0, sizeof *made);
  made->chip = dv_chip_open(chips[context->device_index]);
  if (!made->chip) {
    fa_host_free(context, made);
    return fa_fail(FA_ERROR_MEMORY, "no memory for the emulated chip %s", chips[context->device_index]);
  }
  memset(&facts, 0, sizeof facts);
  snprintf(facts.name, sizeof facts.name, "910B%c", chips[context->device_index][4]);
  facts.groups = dv_chip_groups(made->chip);
  facts.l2_bytes = (int64_t)dv_chip_get(made->chip, "l2_bytes");
  fa_ascend_device_open(&made->device, &runtime, &facts);
  pthread_mutex_init(&made->turn, NULL);
  context->backend_data = made;
  context->threads = 1;
  return FA_OK;
}

static void context_close(fa_context *context) {
  sim_context *data = of(context);
  fa_ascend_device_close(context);
  dv_chip_close(data->chip);
  pthread_mutex_destroy(&data->turn);
  fa_host_free(context, data);
}

void fa_ascend_sim_look(fa_context *context, const fa_ascend_sim_view *view) {
  fa_ascend_sim_view nobody;
  memset(&nobody, 0, sizeof nobody);
  pthread_mutex_lock(&of(context)->turn);
  of(context)->view = view ? *view : nobody;
  of(context)->device.wish = of(context)->view.wish;
  pthread_mutex_unlock(&of(context)->turn);
}

dv_chip *fa_ascend_sim_chip(const fa_context *context) { return of(context)->chip; }

/* --------------------------------------------------------------------- memory */

/* Of each buffer, 64 bytes before what the caller got. Large ones are pages of their own that cost nothing before they are
 * touched: unfused attention of long sequences, of which only the time is looked at, asks for more than the host has. */
typedef struct buffer {
  struct buffer *before, *behind;
  size_t bytes;
  int32_t device_index, is_mapped;
} buffer;
enum { HEADER = 64, LARGE = 64 << 20 };
_Static_assert(sizeof(buffer) <= HEADER, "buffers keep their alignment");

/* Memory belongs to a device, not to a context. */
static pthread_mutex_t buffers_turn = PTHREAD_MUTEX_INITIALIZER;
static buffer buffers = {&buffers, &buffers, 0, -1, 0};

static fa_status buffer_allocate(fa_context *context, size_t bytes, void **memory) {
  const int is_mapped = bytes >= LARGE;
  buffer *made = NULL;
  if (is_mapped && bytes <= SIZE_MAX / 2)
    made = mmap(NULL, bytes + HEADER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  else if (!is_mapped)
    made = fa_host_allocate(context, bytes + HEADER);
  if (!made || made == MAP_FAILED)
    return is_mapped ? fa_fail(FA_ERROR_MEMORY, "ascend-sim:%d: could not map %zu bytes; use a smaller problem",
                               context->device_index, bytes)
                     : FA_ERROR_MEMORY;
  made->bytes = bytes;
  made->device_index = context->device_index;
  made->is_mapped = is_mapped;
  pthread_mutex_lock(&buffers_turn);
  made->before = &buffers;
  made->behind = buffers.behind;
  made->before->behind = made->behind->before = made;
  pthread_mutex_unlock(&buffers_turn);
  *memory = (char *)made + HEADER;
  return FA_OK;
}

static void buffer_free(fa_context *context, void *memory) {
  buffer *gone = (buffer *)(void *)((char *)memory - HEADER);
  pthread_mutex_lock(&buffers_turn);
  gone->before->behind = gone->behind;
  gone->behind->before = gone->before;
  pthread_mutex_unlock(&buffers_turn);
  if (gone->is_mapped) (void)munmap(gone, gone->bytes + HEADER);
  else fa_host_free(context, gone);
}

/* The device whose buffer holds all of it; -1: none. */
static int32_t holder_of(const void *begin, size_t bytes) {
  int32_t found = -1;
  pthread_mutex_lock(&buffers_turn);
  for (const buffer *b = buffers.behind; b != &buffers && found < 0; b = b->behind) {
    const uintptr_t low = (uintptr_t)b + HEADER, at = (uintptr_t)begin;
    if (at >= low && bytes <= b->bytes && at - low <= b->bytes - bytes) found = b->device_index;
  }
  pthread_mutex_unlock(&buffers_turn);
  return found;
}

static fa_status check_memory(const fa_context *context, const fa_ascend_argument *argument) {
  if (argument->bytes == 0) return FA_OK;
  const int32_t holder = holder_of(argument->begin, argument->bytes);
  if (holder == context->device_index) return FA_OK;
  if (holder >= 0)
    return fa_fail(FA_ERROR_ARGUMENT, "%s (%p) is memory of ascend-sim:%d and the context is of ascend-sim:%d; copy it there",
                   argument->name, argument->pointer, holder, context->device_index);
  return fa_fail(FA_ERROR_ARGUMENT, "%s (%p, %zu bytes) is not within a buffer of ascend-sim:%d; allocate it there "
                 "(fa_buffer_allocate) and copy", argument->name, argument->pointer, argument->bytes, context->device_index);
}

static fa_status buffer_copy(fa_context *context, void *destination, const void *source, size_t bytes, fa_copy_kind kind,
                             fa_stream stream) {
  (void)stream;
  const fa_ascend_argument to = fa_ascend_bytes("the destination of a copy", destination, bytes, FA_ASCEND_WRITES);
  const fa_ascend_argument from = fa_ascend_bytes("the source of a copy", source, bytes, FA_ASCEND_READS);
  fa_status status = kind == FA_COPY_DEVICE_TO_HOST ? FA_OK : check_memory(context, &to);
  if (status == FA_OK && kind != FA_COPY_HOST_TO_DEVICE) status = check_memory(context, &from);
  if (status == FA_OK) memmove(destination, source, bytes);
  return status;
}

/* --------------------------------------------------------------------- streams, events */

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
  double us; /* NaN: not recorded */
};
static fa_status event_create(fa_context *context, fa_event **event) {
  *event = fa_host_allocate(context, sizeof **event);
  if (!*event) return FA_ERROR_MEMORY;
  (*event)->us = NAN;
  return FA_OK;
}
static void event_destroy(fa_context *context, fa_event *event) { fa_host_free(context, event); }
static fa_status event_record(fa_context *context, fa_event *event, fa_stream stream) {
  (void)stream;
  pthread_mutex_lock(&of(context)->turn);
  event->us = of(context)->us;
  pthread_mutex_unlock(&of(context)->turn);
  return FA_OK;
}
static fa_status event_elapsed(fa_context *context, const fa_event *begin, const fa_event *end, double *ms) {
  (void)context;
  if (isnan(begin->us) || isnan(end->us))
    return fa_fail(FA_ERROR_ARGUMENT, "fa_event_elapsed: an event was never recorded; call fa_event_record on both");
  *ms = (end->us - begin->us) * 1e-3;
  return FA_OK;
}

/* --------------------------------------------------------------------- runs */

static fa_status find(const fa_context *context, const fa_ascend_code *code, fa_ascend_function *function) {
  (void)context;
  *function = (fa_ascend_function)(uintptr_t)code;
  return FA_OK;
}

static dv_region region_of(const fa_ascend_argument *argument) {
  const dv_access access = argument->access == FA_ASCEND_READS    ? DV_INPUT
                           : argument->access == FA_ASCEND_WRITES ? DV_OUTPUT
                           : argument->access == FA_ASCEND_SCRATCH ? DV_WORKSPACE
                                                                   : DV_INOUT;
  const dv_region region = {argument->name, argument->begin, argument->bytes, access};
  return region;
}

/* Tensors may interleave (q and o as halves of one): where an output lies among other arrays, both become one region, in which
 * the emulator can no longer tell them apart. */
static int join_regions(dv_region *regions, int count) {
  for (int a = 0; a < count; ++a)
    for (int b = a + 1; b < count; ++b) {
      const uintptr_t begin_a = (uintptr_t)regions[a].base, end_a = begin_a + regions[a].bytes;
      const uintptr_t begin_b = (uintptr_t)regions[b].base, end_b = begin_b + regions[b].bytes;
      if (end_a <= begin_b || end_b <= begin_a) continue;
      if (regions[a].access == DV_INPUT && regions[b].access == DV_INPUT) continue;
      regions[a].base = begin_a < begin_b ? regions[a].base : regions[b].base;
      regions[a].bytes = (size_t)((end_a > end_b ? end_a : end_b) - (begin_a < begin_b ? begin_a : begin_b));
      regions[a].access = DV_INOUT;
      regions[b] = regions[--count];
      a = -1; /* what it has become may lie among more */
      break;
    }
  return count;
}

static fa_status start(const fa_context *context, const fa_ascend_launch *launch, fa_stream stream) {
  static const dv_cores cores[] = {[FA_ASCEND_GROUPS] = DV_CORES_MIX_1_2,
                                   [FA_ASCEND_CUBE_CORES] = DV_CORES_AIC,
                                   [FA_ASCEND_VECTOR_CORES] = DV_CORES_AIV};
  (void)stream;
  const fa_ascend_code *code = (const fa_ascend_code *)(uintptr_t)launch->function;
  void *arguments[FA_ASCEND_MOST_ARGUMENTS + 1];
  dv_region regions[FA_ASCEND_MOST_ARGUMENTS + 1];
  int count = 0;
  for (int n = 0; n < launch->count; ++n) {
    const fa_status status = check_memory(context, &launch->arguments[n]);
    if (status != FA_OK) return status;
    arguments[n] = launch->arguments[n].pointer;
    if (launch->arguments[n].bytes) regions[count++] = region_of(&launch->arguments[n]);
  }
  _Alignas(64) unsigned char tiling[FA_ASCEND_MOST_TILING_BYTES];
  memcpy(tiling, launch->tiling, launch->tiling_bytes);
  const fa_ascend_argument last = fa_ascend_bytes("tiling", tiling, launch->tiling_bytes, FA_ASCEND_READS);
  arguments[launch->count] = tiling;
  regions[count++] = region_of(&last);

  sim_context *data = of(context);
  dv_report report;
  dv_launch emulated;
  memset(&emulated, 0, sizeof emulated);
  emulated.name = code->function;
  emulated.kernel = code->emulated;
  emulated.arguments = arguments;
  emulated.cores = cores[code->cores];
  emulated.blocks = launch->blocks;
  emulated.regions = regions;
  emulated.regions_count = join_regions(regions, count);
  emulated.last_computed = -1;
  pthread_mutex_lock(&data->turn);
  emulated.is_strict = 1;
  emulated.is_queued = launch->follows || data->view.is_queued;
  emulated.trace = data->view.trace;
  emulated.skips = data->view.skips;
  emulated.skips_count = data->view.skips_count;
  if (data->view.only_time) {
    emulated.only_time = 1;
    emulated.first_computed = data->view.first_computed;
    emulated.last_computed = data->view.last_computed;
  }
  const int is_right = dv_run(data->chip, &emulated, &report);
  if (is_right) data->us += report.us;
  if (data->view.watch) data->view.watch(data->view.user, code->function, &report);
  pthread_mutex_unlock(&data->turn);
  return is_right ? FA_OK
                  : fa_fail(FA_ERROR_DEVICE, "ascend-sim:%d, %s: %.400s", context->device_index, code->function, report.line);
}

static const fa_ascend_runtime runtime = {find, start};

static fa_status run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  fa_ascend_argument given[FA_ASCEND_GIVEN];
  fa_ascend_given(&plan->problem, args, given);
  const fa_ascend_argument scratch = fa_ascend_bytes("workspace", workspace, plan->workspace_bytes, FA_ASCEND_SCRATCH);
  fa_status status = check_memory(plan->context, &scratch);
  for (int n = 0; n < FA_ASCEND_GIVEN && status == FA_OK; ++n) status = check_memory(plan->context, &given[n]);
  if (status == FA_OK) status = fa_check_lengths(&plan->problem, args);
  return status == FA_OK ? plan->kernel->run(plan, args, workspace, stream) : status;
}

/* --------------------------------------------------------------------- merging */

typedef struct row_side {
  char *o;
  float lse;
} row_side;

/* w_x = exp(lse_x - m); a side that saw no key is left out rather than multiplied by 0. */
static float merge_row(fa_dtype dtype, int64_t dim, row_side a, row_side b) {
  const float most = a.lse > b.lse || isnan(a.lse) ? a.lse : b.lse;
  const float weight_a = a.lse == -INFINITY ? 0.0f : expf(a.lse - most);
  const float weight_b = b.lse == -INFINITY ? 0.0f : expf(b.lse - most);
  const float sum = weight_a + weight_b;
  for (int64_t d = 0; d < dim; ++d) {
    float value = 0.0f;
    if (a.lse != -INFINITY) value = weight_a / sum * fa_load_float(a.o, d, dtype);
    if (b.lse != -INFINITY) value += weight_b / sum * fa_load_float(b.o, d, dtype);
    fa_store_float(a.o, d, value, dtype);
  }
  return most == -INFINITY ? most : most + logf(sum);
}

/* Plain C on the host: the emulated chip has no kernel for it, and takes no time for it. */
static fa_status merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim,
                       const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b, fa_stream stream) {
  (void)stream;
  const int64_t extents[4] = {batch, seqlen, heads, dim}, size = (int64_t)fa_dtype_bytes(dtype);
  const int64_t strides_a[4] = {o_a->stride_batch, o_a->stride_seq, o_a->stride_head, 1};
  const int64_t strides_b[4] = {o_b->stride_batch, o_b->stride_seq, o_b->stride_head, 1};
  const size_t lse_bytes = (size_t)(batch * heads * seqlen) * sizeof(float);
  const fa_ascend_argument given[] = {
      fa_ascend_tensor("o_a", o_a->data, extents, strides_a, (size_t)size, FA_ASCEND_WRITES),
      fa_ascend_tensor("o_b", o_b->data, extents, strides_b, (size_t)size, FA_ASCEND_READS),
      fa_ascend_bytes("lse_a", lse_a, lse_bytes, FA_ASCEND_WRITES), fa_ascend_bytes("lse_b", lse_b, lse_bytes, FA_ASCEND_READS)};
  for (size_t n = 0; n < sizeof given / sizeof given[0]; ++n) {
    const fa_status status = check_memory(context, &given[n]);
    if (status != FA_OK) return status;
  }
  for (int64_t row = 0; row < batch * heads * seqlen; ++row) {
    const int64_t i = row % seqlen, h = row / seqlen % heads, b = row / seqlen / heads;
    const int64_t at_a = b * strides_a[0] + i * strides_a[1] + h * strides_a[2];
    const int64_t at_b = b * strides_b[0] + i * strides_b[1] + h * strides_b[2];
    const row_side a = {(char *)o_a->data + at_a * size, lse_a[row]}, other = {(char *)o_b->data + at_b * size, lse_b[row]};
    lse_a[row] = merge_row(dtype, dim, a, other);
  }
  return FA_OK;
}

const fa_backend fa_ascend_sim_backend = {
    .name = "ascend-sim",
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
    .prepare_run = fa_ascend_prepare_run,
    .run = run,
    .merge = merge,
};
