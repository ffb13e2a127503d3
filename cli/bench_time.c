#include "bench_time.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_clock.h"
#include "bench_roof.h"
#include "bench_verify.h"
#include "process_memory.h"

enum { SEED = 20, MOST_REPEATS = 1000 };

typedef struct contender {
  fa_plan *plan;
  int in_a_row;
  bool is_short;
  double ms[MOST_REPEATS];
} contender;

typedef struct bench {
  fa_context *context;
  const fa_bench_case *c;
  fa_bench_data data;
  contender contender[FA_BENCH_CONTENDERS];
  void *workspace;
  size_t workspace_bytes;
} bench;

static fa_status run_once(bench *b, const fa_plan *plan) {
  const fa_status status =
      fa_attention_run(plan, &b->data.args, b->workspace, fa_plan_workspace_bytes(plan), NULL);
  return status ? status : fa_stream_synchronize(b->context, NULL);
}

/* The first run: what memory it takes and whether it is right. */
static int verify(bench *b, const fa_device_info *device, fa_bench_who who, fa_bench_timing *timing) {
  const fa_plan *const plan = b->contender[who].plan;
  const int64_t before = fa_memory_peak_begin();
  fa_status status = fa_buffer_allocate(b->context, timing->workspace_bytes, &b->workspace);
  if (!status) status = run_once(b, plan);
  timing->peak_bytes = fa_memory_peak_end(before);
  fa_buffer_free(b->context, b->workspace);
  b->workspace = NULL;
  if (status) return fa_library_error(status);
  return fa_bench_verify(b->context, device, b->c, &b->data, timing->kernel, &timing->max_err);
}

static int plan_contender(bench *b, fa_bench_who who, fa_bench_timing *timing) {
  static const char *const names[] = {NULL, "standard", "eager"};
  const fa_attention_problem problem =
      fa_bench_problem(b->c, who == FA_BENCH_FAST ? b->c->kernel : names[who]);
  fa_status status = fa_plan_create(b->context, &problem, &b->contender[who].plan);
  fa_plan_info info = FA_PLAN_INFO_INIT;
  if (!status) status = fa_plan_describe(b->contender[who].plan, &info);
  if (status && who == FA_BENCH_FAST) return fa_library_error(status);
  if (status) {
    snprintf(timing->why_not, sizeof timing->why_not, "%s", fa_last_error());
    return FA_EXIT_OK;
  }
  snprintf(timing->kernel, sizeof timing->kernel, "%s", info.kernel);
  timing->workspace_bytes = info.workspace_bytes;
  timing->ran = true;
  return FA_EXIT_OK;
}

/* Drops a baseline that would not fit beside the data; a fast kernel that does not fit is an error. */
static int must_fit(fa_bench_who who, fa_bench_timing *timing, size_t data_bytes, int64_t available) {
  const double wanted = (double)timing->workspace_bytes + (double)data_bytes;
  if (available < 0 || wanted < 0.9 * (double)available) return FA_EXIT_OK;
  if (who == FA_BENCH_FAST) {
    return fa_failure("this shape needs %.3g GB of memory and %.3g GB are free; use a smaller one",
                      wanted * 1e-9, (double)available * 1e-9);
  }
  snprintf(timing->why_not, sizeof timing->why_not, "needs %.3g GB of memory, %.3g GB are free",
           wanted * 1e-9, (double)available * 1e-9);
  timing->ran = false;
  return FA_EXIT_OK;
}

/* Warms up and learns how to time it. */
static fa_status warm_up(bench *b, fa_bench_who who) {
  contender *const one = &b->contender[who];
  fa_status status = run_once(b, one->plan);
  const double begin = fa_bench_now_ms();
  if (!status) status = run_once(b, one->plan);
  const double ms = fa_bench_now_ms() - begin;
  one->is_short = ms < FA_BENCH_SHORT_MS;
  one->in_a_row = fa_bench_in_a_row(ms);
  return status;
}

static fa_status sample(bench *b, fa_bench_who who, int repeat) {
  contender *const one = &b->contender[who];
  fa_status status = one->is_short ? run_once(b, one->plan) : FA_OK;
  const double begin = fa_bench_now_ms();
  for (int i = 0; i < one->in_a_row && !status; i++) status = run_once(b, one->plan);
  one->ms[repeat] = (fa_bench_now_ms() - begin) / one->in_a_row;
  return status;
}

/* GB/s over the keys and values; warm where the contenders are. */
static double sample_read(const bench *b, const fa_device_info *device, int threads, int streams) {
  const void *const memory[2] = {b->data.buffer[FA_BENCH_K], b->data.buffer[FA_BENCH_V]};
  const size_t bytes[2] = {(size_t)fa_bench_key_bytes(b->c, b->c->head_dim_qk),
                           (size_t)fa_bench_key_bytes(b->c, b->c->head_dim_v)};
  const double first = fa_roof_bandwidth(device->isa, threads, streams, memory, bytes);
  const double ms = (double)(bytes[0] + bytes[1]) / first * 1e-6;
  return ms > FA_BENCH_SHORT_MS ? first : fa_roof_bandwidth(device->isa, threads, streams, memory, bytes);
}

static int time_all(bench *b, const fa_device_info *device, int repeats, fa_bench_result *result) {
  fa_status status = fa_buffer_allocate(b->context, b->workspace_bytes, &b->workspace);
  for (int who = 0; who < FA_BENCH_CONTENDERS && !status; who++) {
    if (result->timing[who].ran) status = warm_up(b, (fa_bench_who)who);
  }
  static double roofs[MOST_REPEATS], plain_reads[MOST_REPEATS];
  const bool has_roof = strcmp(device->name, "cpu") == 0;
  fa_plan_info chosen = FA_PLAN_INFO_INIT;
  if (!status) status = fa_plan_describe(b->contender[FA_BENCH_FAST].plan, &chosen);
  fa_roof roof = {NULL, 0, NULL};
  if (!status && has_roof) roof = fa_roof_of(chosen.arch, device->isa, b->c->dtype);
  for (int repeat = 0; repeat < repeats && !status; repeat++) {
    if (has_roof && b->c->is_decode) {
      roofs[repeat] = sample_read(b, device, result->threads, 4);
      plain_reads[repeat] = sample_read(b, device, result->threads, 1);
    } else if (has_roof) {
      roofs[repeat] = fa_roof_arithmetic(&roof, result->threads);
    }
    for (int who = 0; who < FA_BENCH_CONTENDERS && !status; who++) {
      if (result->timing[who].ran) status = sample(b, (fa_bench_who)who, repeat);
    }
  }
  if (status) return fa_library_error(status);
  for (int who = 0; who < FA_BENCH_CONTENDERS; who++) {
    fa_bench_timing *const timing = &result->timing[who];
    if (!timing->ran) continue;
    timing->ms = fa_bench_median(b->contender[who].ms, repeats);
    timing->ms_min = b->contender[who].ms[0];
  }
  if (has_roof) {
    result->roof = fa_bench_median(roofs, repeats);
    if (b->c->is_decode) result->plain_read = fa_bench_median(plain_reads, repeats);
    result->roof_name = b->c->is_decode ? "a read of the same bytes, four streams a thread" : roof.name;
  }
  return FA_EXIT_OK;
}

static int bench_all(bench *b, const fa_device_info *device, int repeats, fa_bench_result *result) {
  int code = FA_EXIT_OK;
  const size_t data_bytes = fa_bench_data_bytes(b->c);
  const int64_t available = strcmp(device->name, "cpu") == 0 ? fa_memory_available() : -1;
  for (int who = 0; who < FA_BENCH_CONTENDERS && !code; who++) {
    fa_bench_timing *const timing = &result->timing[who];
    code = plan_contender(b, (fa_bench_who)who, timing);
    if (!code && timing->ran) code = must_fit((fa_bench_who)who, timing, data_bytes, available);
  }
  if (!code) code = fa_bench_data_create(b->context, b->c, SEED, &b->data);
  for (int who = 0; who < FA_BENCH_CONTENDERS && !code; who++) {
    fa_bench_timing *const timing = &result->timing[who];
    if (!timing->ran) continue;
    code = verify(b, device, (fa_bench_who)who, timing);
    if (timing->workspace_bytes > b->workspace_bytes) b->workspace_bytes = timing->workspace_bytes;
  }
  return code ? code : time_all(b, device, repeats, result);
}

int fa_bench_time(fa_context *context, const fa_device_info *device, const fa_bench_case *c, int repeats,
                  fa_bench_result *result) {
  static bench b; /* too large for some stacks */
  memset(&b, 0, sizeof b);
  memset(result, 0, sizeof *result);
  b.context = context;
  b.c = c;
  result->threads = fa_context_threads(context);
  const int code = bench_all(&b, device, repeats < MOST_REPEATS ? repeats : MOST_REPEATS, result);
  fa_buffer_free(context, b.workspace);
  fa_bench_data_free(context, &b.data);
  for (int who = 0; who < FA_BENCH_CONTENDERS; who++) fa_plan_destroy(b.contender[who].plan);
  return code;
}
