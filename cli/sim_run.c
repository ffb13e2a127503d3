/* Chips, tilings and the clock of `fastattn sim`. */
#include "sim_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const fa_sim_tiling fa_sim_tilings[FA_SIM_TILINGS] = {
    {"two-level", "flash_ascend", NULL, true, false},
    {"one-level", "one_level_ascend", NULL, true, true},
    {"standard", "standard_ascend", "standard", false, false},
    {"eager", "eager_ascend", "eager", false, false}};

/* ------------------------------------------------------------------ chips */

static void read_chip(fa_sim_chip *chip, const dv_chip *from) {
  chip->name = dv_chip_name(from);
  chip->groups = dv_chip_groups(from);
  chip->clock_ghz = dv_chip_get(from, "clock_ghz");
  chip->hbm_rate = dv_chip_get(from, "hbm_rate");
  chip->l2_bytes = dv_chip_get(from, "l2_bytes");
  /* a fractal of 16 x 16 x 16 a cycle */
  chip->peak_tflops = chip->groups * chip->clock_ghz * 8192.0 / dv_chip_get(from, "mmad_fractal") * 1e-3;
}

int fa_sim_chip_find(const char *name, fa_sim_chip *chip) {
  static const char *const known[] = {"910b1", "910b2", "910b3", "910b4"};
  enum { KNOWN = sizeof known / sizeof known[0] };
  memset(chip, 0, sizeof *chip);
  for (int n = 0; n < KNOWN; n++) {
    if (!strcmp(name, known[n])) chip->name = known[n];
  }
  if (!chip->name) return fa_usage_error("unknown chip '%.64s'; allowed: 910b1, 910b2, 910b3, 910b4", name);
  for (int n = 0; n < KNOWN; n++) {
    snprintf(chip->device, sizeof chip->device, "ascend-sim:%d", n);
    fa_context *context = NULL;
    const int code = fa_sim_chip_open(chip, &context);
    if (code) return code;
    const bool is_it = !strcmp(dv_chip_name(fa_ascend_sim_chip(context)), name);
    if (is_it) read_chip(chip, fa_ascend_sim_chip(context));
    fa_context_destroy(context);
    if (is_it) return FA_EXIT_OK;
  }
  return fa_failure("no device ascend-sim:N is a %s", name);
}

static int unknown_parameter(const dv_chip *chip, const char *given) {
  const char *names[FA_SIM_MOST_SETTINGS];
  int count = 0;
  for (dv_parameter p; count < FA_SIM_MOST_SETTINGS && dv_chip_parameter(chip, count, &p); count++)
    names[count] = p.name;
  const char *const nearest = fa_options_nearest(given, names, count);
  if (nearest) return fa_usage_error("--set: unknown parameter '%s'; did you mean %s?", given, nearest);
  return fa_usage_error("--set: unknown parameter '%s'; --parameters lists them", given);
}

int fa_sim_chip_set(fa_sim_chip *chip, const char *text) {
  const char *const equals = strchr(text, '=');
  fa_sim_setting setting;
  const size_t length = equals ? (size_t)(equals - text) : 0;
  if (!equals || length == 0 || length >= sizeof setting.parameter)
    return fa_usage_error("--set is '%.64s'; it must be PARAMETER=VALUE, as in gm_ub_rate=49", text);
  memcpy(setting.parameter, text, length);
  setting.parameter[length] = '\0';
  char *end;
  setting.value = strtod(equals + 1, &end);
  if (end == equals + 1 || *end != '\0' || !isfinite(setting.value) || setting.value < 0.0)
    return fa_usage_error("--set: %s is '%.64s'; it must be a number of at least 0", setting.parameter,
                          equals + 1);
  if (chip->settings_count == FA_SIM_MOST_SETTINGS)
    return fa_usage_error("--set: at most %d of them", FA_SIM_MOST_SETTINGS);

  fa_context *context = NULL;
  int code = fa_sim_chip_open(chip, &context);
  if (code) return code;
  dv_chip *const opened = fa_ascend_sim_chip(context);
  if (isnan(dv_chip_get(opened, setting.parameter)))
    code = unknown_parameter(opened, setting.parameter);
  else if (!strcmp(setting.parameter, "groups") || strstr(setting.parameter, "_bytes"))
    code = fa_usage_error(
        "--set: %s decides how kernels are built and launched; only what takes time can be set",
        setting.parameter);
  else if (setting.value == 0.0 &&
           (strstr(setting.parameter, "_rate") || !strcmp(setting.parameter, "clock_ghz")))
    code = fa_usage_error("--set: %s is 0; it must be more", setting.parameter);
  else if (!dv_chip_set(opened, setting.parameter, setting.value))
    code = fa_usage_error("--set: %s cannot be %g; miss_factor is above 0 and at most 1, queue_depth a whole number from 1 to 64, "
                          "all else below 1e9", setting.parameter, setting.value);
  if (!code) {
    chip->settings[chip->settings_count++] = setting;
    read_chip(chip, opened);
  }
  fa_context_destroy(context);
  return code;
}

int fa_sim_chip_open(const fa_sim_chip *chip, fa_context **context) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.device = chip->device;
  const fa_status status = fa_context_create(&options, context);
  if (status) return fa_library_error(status);
  for (int n = 0; n < chip->settings_count; n++)
    dv_chip_set(fa_ascend_sim_chip(*context), chip->settings[n].parameter, chip->settings[n].value);
  return FA_EXIT_OK;
}

/* ------------------------------------------------------------------- time */

void fa_sim_clock_add(void *user, const char *function, const dv_report *report) {
  fa_sim_clock *const clock = user;
  clock->launches++;
  clock->cycles += report->cycles;
  clock->us += report->us;
  for (int kind = 0; kind < 2; kind++) {
    for (int pipe = 0; pipe < DV_PIPES; pipe++) clock->busy[kind][pipe] += report->busy[kind][pipe];
    if (report->cores[kind] > clock->cores[kind]) clock->cores[kind] = report->cores[kind];
  }
  clock->instructions += (double)report->instructions;
  clock->gm_read += report->gm_read;
  clock->gm_written += report->gm_written;
  clock->hbm += report->hbm;
  int part = 0;
  while (part < clock->parts && strcmp(clock->part[part].function, function) != 0) part++;
  if (part == FA_SIM_MOST_PARTS) part--;
  if (part == clock->parts) {
    snprintf(clock->part[part].function, sizeof clock->part[part].function, "%s", function);
    clock->parts++;
  }
  clock->part[part].launches++;
  clock->part[part].us += report->us;
}

double fa_sim_clock_use(const fa_sim_clock *clock, int is_aiv, dv_pipe pipe) {
  const double all = clock->cycles * clock->cores[is_aiv];
  return all > 0.0 ? clock->busy[is_aiv][pipe] / all : 0.0;
}

static int run_once(const fa_sim_job *job, fa_context *context, const fa_plan *plan, void *workspace,
                    fa_sim_extent extent, dv_trace *trace, fa_sim_clock *clock) {
  fa_ascend_sim_view view;
  memset(&view, 0, sizeof view);
  memset(clock, 0, sizeof *clock);
  view.wish = *job->wish;
  view.trace = trace;
  view.only_time = extent != FA_SIM_EVERYTHING;
  view.last_computed = extent == FA_SIM_NOTHING ? -1 : 0;
  view.watch = fa_sim_clock_add;
  view.user = clock;
  fa_ascend_sim_look(context, &view);
  const fa_status status =
      fa_attention_run(plan, &job->data->args, workspace, fa_plan_workspace_bytes(plan), NULL);
  fa_ascend_sim_look(context, NULL);
  if (status == FA_ERROR_DEVICE)
    return fa_failure("%s is wrong and is not timed: %s", job->tiling->name, fa_last_error());
  return status ? fa_library_error(status) : FA_EXIT_OK;
}

/* Q, K and V come from HBM in the first run, while in a benchmark's later ones they are in L2 if they fit: a
 * second run, where that would show. */
static bool wants_second_run(const fa_sim_job *job) {
  const double bytes = (double)fa_bench_data_bytes(job->c);
  const double least_cycles = fa_bench_operations(job->c) / job->chip->peak_tflops * 1e-3 * job->chip->clock_ghz;
  return bytes <= job->chip->l2_bytes && bytes / job->chip->hbm_rate > 0.01 * least_cycles;
}

static int run_plan(const fa_sim_job *job, fa_context *context, const fa_plan *plan, fa_sim_extent extent,
                    dv_trace *trace, bool *is_traced, fa_sim_clock *clock) {
  void *workspace = NULL;
  const fa_status status = fa_buffer_allocate(context, fa_plan_workspace_bytes(plan), &workspace);
  int code = status ? fa_library_error(status) : run_once(job, context, plan, workspace, extent, NULL, clock);
  if (!code && wants_second_run(job)) {
    code = run_once(job, context, plan, workspace, FA_SIM_NOTHING, NULL, clock);
    clock->is_warm = true;
  }
  if (!code && trace && clock->instructions <= (double)FA_SIM_MOST_EVENTS) {
    fa_sim_clock traced;
    code = run_once(job, context, plan, workspace, FA_SIM_NOTHING, trace, &traced);
    *is_traced = true;
  }
  fa_buffer_free(context, workspace);
  return code;
}

int fa_sim_time(const fa_sim_job *job, fa_sim_extent extent, dv_trace *trace, bool *is_traced,
                fa_sim_clock *clock) {
  fa_context *context = NULL;
  int code = fa_sim_chip_open(job->chip, &context);
  if (code) return code;
  fa_ascend_sim_view view;
  memset(&view, 0, sizeof view);
  view.wish = *job->wish;
  view.last_computed = -1;
  fa_ascend_sim_look(context, &view);
  const fa_attention_problem problem = fa_bench_problem(job->c, job->tiling->kernel);
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(context, &problem, &plan);
  code = status ? fa_library_error(status) : run_plan(job, context, plan, extent, trace, is_traced, clock);
  fa_plan_destroy(plan);
  fa_context_destroy(context);
  return code;
}

static fa_tensor tensor(void *memory, int64_t seq, int64_t heads, int64_t dim) {
  const fa_tensor t = {memory, seq * heads * dim, heads * dim, dim};
  return t;
}

int fa_sim_data_blank(fa_context *context, const fa_bench_case *c, fa_bench_data *data) {
  memset(data, 0, sizeof *data);
  const int64_t rows = c->batch * c->seqlen_q, keys = c->batch * c->seqlen_kv;
  const size_t size = fa_dtype_bytes(c->dtype);
  data->bytes[FA_BENCH_Q] = (size_t)(rows * c->heads_q * c->head_dim_qk) * size;
  data->bytes[FA_BENCH_K] = (size_t)(keys * c->heads_kv * c->head_dim_qk) * size;
  data->bytes[FA_BENCH_V] = (size_t)(keys * c->heads_kv * c->head_dim_v) * size;
  data->bytes[FA_BENCH_O] = (size_t)(rows * c->heads_q * c->head_dim_v) * size;
  for (int n = FA_BENCH_Q; n <= FA_BENCH_O; n++) {
    const fa_status status = fa_buffer_allocate(context, data->bytes[n], &data->buffer[n]);
    if (status) return fa_library_error(status);
  }
  data->args = (fa_attention_args)FA_ATTENTION_ARGS_INIT;
  data->args.q = tensor(data->buffer[FA_BENCH_Q], c->seqlen_q, c->heads_q, c->head_dim_qk);
  data->args.k = tensor(data->buffer[FA_BENCH_K], c->seqlen_kv, c->heads_kv, c->head_dim_qk);
  data->args.v = tensor(data->buffer[FA_BENCH_V], c->seqlen_kv, c->heads_kv, c->head_dim_v);
  data->args.o = tensor(data->buffer[FA_BENCH_O], c->seqlen_q, c->heads_q, c->head_dim_v);
  return FA_EXIT_OK;
}

/* ------------------------------------------------------------------ results */

double fa_sim_tflops(const fa_sim_result *result, double us) {
  return us > 0.0 ? result->flops / us * 1e-6 : 0.0;
}

double fa_sim_peak_percent(const fa_sim_chip *chip, const fa_sim_result *result, double us) {
  return 100.0 * fa_sim_tflops(result, us) / chip->peak_tflops;
}

void fa_sim_range(const fa_sim_result *result, double *slowest_us, double *fastest_us) {
  *slowest_us = *fastest_us = result->clock.us;
  for (int n = 0; result->has_corners && n < FA_SIM_CORNERS; n++) {
    *slowest_us = fmax(*slowest_us, result->corner[n].us);
    *fastest_us = fmin(*fastest_us, result->corner[n].us);
  }
}
