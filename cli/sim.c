/* fastattn sim: the Ascend kernels on the emulated chip. Options and the order of things. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "sim_layer.h"
#include "sim_rows.h"

static struct {
  fa_common_options common;
  const char *tilings, *shape, *dtype, *window, *chip, *level1, *level2, *trace, *arch;
  const char **set;
  int causal, preload, splits, sweeps, functional, rows, parameters;
  long long seq, batch;
} options = {.common = FA_COMMON_OPTIONS_INIT, .dtype = "f16", .chip = "910b2", .batch = 1};

static const struct poptOption table[] = {
    {"tiling", '\0', POPT_ARG_STRING, &options.tilings, 0,
     "two-level, one-level, standard or eager, several with commas between (default two-level; with --arch: "
     "two-level,standard,eager)",
     "NAME[,NAME]"},
    {"shape", '\0', POPT_ARG_STRING, &options.shape, 0,
     "batch, query heads, KV heads, queries, keys, head size, and the head size of v if it is another",
     "B,HQ,HKV,SQ,SKV,D[,DV]"},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtype, 0, "f16 or bf16 (default f16)", "TYPE"},
    {"causal", '\0', POPT_ARG_NONE, &options.causal, 0,
     "a query sees no later key; the last query sees the last key", NULL},
    {"window", '\0', POPT_ARG_STRING, &options.window, 0,
     "a query sees L keys to the left and R to the right of itself; -1 is unlimited (default -1,-1)", "L,R"},
    {"chip", '\0', POPT_ARG_STRING, &options.chip, 0, "910b1, 910b2, 910b3 or 910b4 (default 910b2)", "NAME"},
    {"level1", '\0', POPT_ARG_STRING, &options.level1, 0,
     "two-level: the tile that Cube and Vector hand to each other (default: a tuned table's)", "ROWSxKEYS"},
    {"preload", '\0', POPT_ARG_INT, &options.preload, 0,
     "two-level: how many tiles QK runs ahead of PV (default: a tuned table's)", "N"},
    {"level2", '\0', POPT_ARG_STRING, &options.level2, 0,
     "two-level: the piece that Vector takes at a time, as wide as level one (default: a rule's)",
     "ROWSxKEYS"},
    {"splits", '\0', POPT_ARG_INT, &options.splits, 0, "parts of each key sequence, joined at the end (default: a rule's)", "N"},
    {"set", '\0', POPT_ARG_ARGV, &options.set, 0, "give the clock another figure; may be given several times",
     "PARAMETER=VALUE"},
    {"sweep", '\0', POPT_ARG_NONE, &options.sweeps, 0,
     "also with the ends of what is uncertain: GM->UB moves (gm_ub_latency, gm_ub_rate) and cross_flag_cost",
     NULL},
    {"check", '\0', POPT_ARG_INT, &options.rows, 0,
     "rows of o to compare with the reference (default 2 to 24)", "ROWS"},
    {"functional", '\0', POPT_ARG_NONE, &options.functional, 0, "compute all of it, however long that takes",
     NULL},
    {"arch", '\0', POPT_ARG_STRING, &options.arch, 0,
     "prefill of a model's layers instead of --shape: " FA_SIM_ARCH_NAMES, "NAME"},
    {"seq", '\0', POPT_ARG_LONGLONG, &options.seq, 0, "with --arch: tokens of a prompt", "S"},
    {"batch", '\0', POPT_ARG_LONGLONG, &options.batch, 0, "with --arch: prompts (default 1)", "B"},
    {"trace", '\0', POPT_ARG_STRING, &options.trace, 0,
     "what ran when, of the first tiling, as a trace that Perfetto opens", "FILE"},
    {"parameters", '\0', POPT_ARG_NONE, &options.parameters, 0,
     "print the clock's figures and where they come from", NULL},
    FA_OPTION_JSON(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "sim", "--tiling NAME[,NAME] --shape B,HQ,HKV,SQ,SKV,D[,DV] [OPTION...]",
    "Runs the kernels for Ascend NPUs on an emulated 910B: their results are compared with a\n"
    "double-precision reference, orders of instructions that only happen to be right are\n"
    "found (hazards), and a clock says how long a real one would take. No NPU is needed and\n"
    "none was: every time is a `model`. What is too large to compute is only timed, after\n"
    "a part of it or a smaller problem of its kind was compared. A wrong result is not timed.",
    "  fastattn sim --tiling two-level,standard,eager --shape 1,8,8,1024,1024,128 --causal\n"
    "  fastattn sim --shape 1,1,1,4096,4096,128 --level1 128x256 --preload 4 --sweep\n"
    "  fastattn sim --arch llama-7b --seq 2048 --json prefill.json"};

typedef struct asked {
  const fa_sim_tiling *tiling[FA_SIM_TILINGS];
  int tilings;
  fa_bench_case c;
  fa_ascend_wish wish; /* of two-level */
  int64_t level2_keys; /* 0: not given */
  fa_sim_chip chip;
} asked;

/* ---------------------------------------------------------------- options */

#define MOST_SCORES 2e11 /* some 50 minutes of two-level's timing on a core */

static int read_tilings(const char *text, asked *a) {
  for (const char *at = text;; at++) {
    const size_t length = strcspn(at, ",");
    const fa_sim_tiling *found = NULL;
    for (int n = 0; n < FA_SIM_TILINGS; n++) {
      if (strlen(fa_sim_tilings[n].name) == length && !strncmp(fa_sim_tilings[n].name, at, length))
        found = &fa_sim_tilings[n];
    }
    if (!found)
      return fa_usage_error("unknown tiling '%.*s'; allowed: two-level, one-level, standard, eager",
                            length > 64 ? 64 : (int)length, at);
    for (int n = 0; n < a->tilings; n++) {
      if (a->tiling[n] == found) return fa_usage_error("--tiling names %s twice", found->name);
    }
    a->tiling[a->tilings++] = found;
    at += length;
    if (*at == '\0') return FA_EXIT_OK;
  }
}

static int read_tile(const char *option, const char *text, int64_t *rows, int64_t *keys) {
  char *end = NULL;
  const long long first = strtoll(text, &end, 10);
  const bool has_both = end != text && *end == 'x' && end[1] >= '0' && end[1] <= '9';
  const long long second = has_both ? strtoll(end + 1, &end, 10) : 0;
  if (!has_both || *end != '\0' || first < 1 || second < 1 || first > 65536 || second > 65536)
    return fa_usage_error("%s is '%.64s'; it must be ROWSxKEYS, as in 128x1024", option, text);
  *rows = first;
  *keys = second;
  return FA_EXIT_OK;
}

static int read_wish(asked *a) {
  int code = FA_EXIT_OK;
  if (options.level1)
    code = read_tile("--level1", options.level1, &a->wish.level1_rows, &a->wish.level1_keys);
  if (!code && options.level2)
    code = read_tile("--level2", options.level2, &a->wish.level2_rows, &a->level2_keys);
  if (code) return code;
  if (options.preload < 0) return fa_usage_error("--preload is %d; it must be 1 to 8", options.preload);
  a->wish.preload = options.preload;
  bool is_taken = false;
  for (int n = 0; n < a->tilings; n++)
    is_taken = is_taken || (a->tiling[n]->is_flash && !a->tiling[n]->is_one_level);
  if (!is_taken && (options.level1 || options.level2 || options.preload))
    return fa_usage_error("--level1, --level2 and --preload are for two-level, which --tiling does not name");
  return FA_EXIT_OK;
}

static int read_shape(fa_bench_case *c) {
  int64_t size[7];
  int count = fa_options_integers(options.shape, 6, 7, size);
  for (int n = 0; n < count; n++) {
    if (size[n] < 1 || size[n] > INT32_MAX) count = -1;
  }
  if (count < 0)
    return fa_usage_error(
        "--shape is '%.64s'; it must be 6 or 7 integers of at least 1: B,HQ,HKV,SQ,SKV,D[,DV]",
        options.shape);
  c->batch = size[0];
  c->heads_q = size[1];
  c->heads_kv = size[2];
  c->seqlen_q = size[3];
  c->seqlen_kv = size[4];
  c->head_dim_qk = size[5];
  c->head_dim_v = count == 7 ? size[6] : size[5];
  int64_t window[2] = {-1, -1};
  if (options.window && fa_options_integers(options.window, 2, 2, window) != 2)
    return fa_usage_error("--window is '%.64s'; it must be two integers L,R, -1 for unlimited",
                          options.window);
  c->window_left = window[0];
  c->window_right = window[1];
  c->causal = options.causal;
  const double scores = (double)c->batch * (double)c->heads_q * (double)c->seqlen_q * (double)c->seqlen_kv;
  if (scores > MOST_SCORES)
    return fa_usage_error("--shape has %.3g scores, which would take hours; at most %.3g", scores, MOST_SCORES);
  if (options.splits < 0 || options.splits > 256)
    return fa_usage_error("--splits is %d; 1 to 256, or 0 for the rule's", options.splits);
  c->kv_splits = options.splits;
  return FA_EXIT_OK;
}

static int read_options(asked *a) {
  memset(a, 0, sizeof *a);
  int code = read_tilings(options.tilings ? options.tilings
                          : options.arch  ? "two-level,standard,eager"
                                          : "two-level",
                          a);
  if (code) return code;
  if (!fa_options_dtype(options.dtype, &a->c.dtype) ||
      (a->c.dtype != FA_FLOAT16 && a->c.dtype != FA_BFLOAT16))
    return fa_usage_error("unknown type '%.64s'; allowed: f16, bf16", options.dtype);
  a->c.kv_dtype = a->c.dtype;
  if (!options.shape && !options.arch)
    return fa_usage_error("--shape is missing (or --arch for a model's layers)");
  if (options.shape && options.arch) return fa_usage_error("--shape and --arch exclude each other; give one");
  if (options.rows < 0) return fa_usage_error("--check is %d; it must be at least 1", options.rows);
  if (options.arch && (options.causal || options.splits || options.trace || options.sweeps ||
                       options.window || options.functional || options.rows))
    return fa_usage_error(
        "--causal, --splits, --trace, --sweep, --window, --functional and --check are for --shape, not for --arch");
  if (options.shape && (options.seq || options.batch != 1))
    return fa_usage_error("--seq and --batch are for --arch; --shape says them itself");
  code = options.shape ? read_shape(&a->c) : FA_EXIT_OK;
  if (!code) code = read_wish(a);
  if (!code) code = fa_sim_chip_find(options.chip, &a->chip);
  for (const char **set = options.set; set && *set && !code; set++) code = fa_sim_chip_set(&a->chip, *set);
  return code;
}

/* ---------------------------------------------------------------- a tiling */

/* Tiles, workspace and masks, as the kernel's own plan has them. */
static int describe(const asked *a, const fa_sim_tiling *tiling, const fa_ascend_wish *wish,
                    fa_sim_result *r) {
  fa_context *context = NULL;
  int code = fa_sim_chip_open(&a->chip, &context);
  if (code) return code;
  fa_ascend_sim_view view;
  memset(&view, 0, sizeof view);
  view.wish = *wish;
  fa_ascend_sim_look(context, &view);
  const fa_attention_problem problem = fa_bench_problem(&a->c, tiling->kernel);
  fa_plan *plan = NULL;
  r->plan = (fa_plan_info)FA_PLAN_INFO_INIT;
  fa_status status = fa_plan_create(context, &problem, &plan);
  if (!status) status = fa_plan_describe(plan, &r->plan);
  r->full_mask_bytes = (double)a->c.seqlen_q * (double)a->c.seqlen_kv * (double)fa_dtype_bytes(a->c.dtype);
  if (!status && tiling->is_flash) {
    fa_ascend_chip facts;
    fa_ascend_choice choice;
    fa_ascend_wish own = *wish;
    char name[8];
    snprintf(name, sizeof name, "910B%c", a->chip.name[4]);
    own.one_level = tiling->is_one_level;
    fa_ascend_chip_named(name, &facts);
    status = fa_ascend_choose(&problem, &facts, &own, &choice);
    r->preload = choice.tiling.preload;
    r->cube_keys = choice.tiling.cube_keys;
    r->mask_bytes = choice.has_band ? 4.0 * choice.tiling.mask_m * choice.tiling.mask_m : 0.0;
  } else {
    const bool is_banded = a->c.causal || a->c.window_left >= 0 || a->c.window_right >= 0;
    r->mask_bytes = is_banded && tiling->rule && !strcmp(tiling->rule, "eager") ? r->full_mask_bytes : 0.0;
  }
  code = status ? fa_library_error(status) : FA_EXIT_OK;
  fa_plan_destroy(plan);
  fa_context_destroy(context);
  if (!code && a->level2_keys && tiling->is_flash && !tiling->is_one_level &&
      a->level2_keys != r->plan.level2_keys)
    code = fa_usage_error("--level2 is %s; Vector takes rows of level one whole, so its keys must be %lld",
                          options.level2, (long long)r->plan.level2_keys);
  return code;
}

/* Both ends of each of the two figures that nobody published for sure. */
static int sweep(const fa_sim_job *job, fa_sim_result *r) {
  static const fa_sim_corner corners[FA_SIM_CORNERS] = {{151.0, 49.0, 1000.0, 0.0},
                                                        {151.0, 49.0, 100.0, 0.0},
                                                        {197.0, 123.0, 1000.0, 0.0},
                                                        {197.0, 123.0, 100.0, 0.0}};
  fa_context *context = NULL;
  fa_bench_data data;
  memset(&data, 0, sizeof data);
  int code = fa_sim_chip_open(job->chip, &context);
  if (!code) code = fa_sim_data_blank(context, job->c, &data);
  for (int n = 0; n < FA_SIM_CORNERS && !code; n++) {
    fa_sim_chip chip = *job->chip;
    char text[64];
    r->corner[n] = corners[n];
    snprintf(text, sizeof text, "gm_ub_latency=%g", corners[n].gm_ub_latency);
    code = fa_sim_chip_set(&chip, text);
    snprintf(text, sizeof text, "gm_ub_rate=%g", corners[n].gm_ub_rate);
    if (!code) code = fa_sim_chip_set(&chip, text);
    snprintf(text, sizeof text, "cross_flag_cost=%g", corners[n].cross_flag_cost);
    if (!code) code = fa_sim_chip_set(&chip, text);
    fa_sim_job own = *job;
    own.chip = &chip;
    own.data = &data;
    fa_sim_clock clock;
    if (!code) code = fa_sim_time(&own, FA_SIM_NOTHING, NULL, NULL, &clock);
    r->corner[n].us = clock.us;
  }
  r->has_corners = true;
  if (context) fa_bench_data_free(context, &data);
  fa_context_destroy(context);
  return code;
}

static int run_tiling(const asked *a, const fa_sim_tiling *tiling, dv_trace *trace, bool *is_traced,
                      fa_sim_result *r) {
  const fa_ascend_wish nothing = {.one_level = 0};
  const fa_ascend_wish *const wish = tiling->is_flash && !tiling->is_one_level ? &a->wish : &nothing;
  const fa_sim_job job = {&a->chip, tiling, wish, &a->c, NULL};
  const bool shows_progress = isatty(STDERR_FILENO);
  memset(r, 0, sizeof *r);
  r->flops = fa_bench_operations(&a->c);
  int code = describe(a, tiling, wish, r);
  if (shows_progress) fprintf(stderr, "emulating %s ...", tiling->name);
  if (!code) code = fa_sim_check_and_time(&job, options.functional, options.rows, trace, is_traced, r);
  if (!code && options.sweeps) code = sweep(&job, r);
  if (shows_progress) fprintf(stderr, "\r%40s\r", "");
  return code;
}

static int write_trace(fa_output *output, const dv_trace *trace, bool is_traced, const fa_sim_result *r) {
  if (!is_traced)
    return fa_failure(
        "no trace is written: it would have %.0f events and a viewer takes %d; give a smaller shape",
        r->clock.instructions, FA_SIM_MOST_EVENTS);
  if (!dv_trace_write(trace, output->file))
    return fa_failure("no memory for the trace, or it could not be written");
  return fa_output_commit(output);
}

/* trace_code: what became of the trace, which is no reason to keep the rows back. */
static int run_tilings(const asked *a, dv_trace *trace, fa_output *trace_output, cJSON *rows,
                       int *trace_code) {
  static fa_sim_result results[FA_SIM_TILINGS];
  const bool prints = fa_options_prints_text(&options.common);
  bool is_traced = false;
  int code = FA_EXIT_OK;
  for (int n = 0; n < a->tilings && !code; n++) {
    code = run_tiling(a, a->tiling[n], n ? NULL : trace, &is_traced, &results[n]);
    if (code) break;
    if (prints && n == 0) {
      fa_sim_print_chip(&a->chip);
      fa_sim_print_head(&a->c);
    }
    if (prints) fa_sim_print_row(&a->chip, a->tiling[n], &results[n]);
    fa_sim_add_row(rows, &a->chip, a->tiling[n], &a->c, &results[n]);
  }
  for (int n = 1; n < a->tilings && !code && prints; n++)
    fa_sim_print_ratio(a->tiling[0], &results[0], a->tiling[n], &results[n]);
  if (!code && trace) *trace_code = write_trace(trace_output, trace, is_traced, &results[0]);
  return code;
}

/* ---------------------------------------------------------------- the command */

static int run(const asked *a, fa_output *trace_output, cJSON *rows, int *trace_code) {
  if (options.arch) {
    const fa_sim_layer layer = {&a->chip,   options.arch, options.batch, options.seq,
                                a->c.dtype, &a->wish,     a->tiling,     a->tilings};
    return fa_sim_layers(&layer, fa_options_prints_text(&options.common), rows);
  }
  dv_trace *const trace = options.trace ? dv_trace_open() : NULL;
  const int code = options.trace && !trace ? fa_failure("no memory for a trace")
                                           : run_tilings(a, trace, trace_output, rows, trace_code);
  dv_trace_close(trace);
  return code;
}

int fa_sim_command(int argc, const char **argv) {
  int code, trace_code = FA_EXIT_OK;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  static asked a;
  if (!options.parameters) code = read_options(&a);
  if (code) return code;
  fa_output output = FA_OUTPUT_INIT, trace_output = FA_OUTPUT_INIT;
  if (options.common.json) code = fa_output_open(&output, options.common.json);
  if (!code && options.trace && !options.parameters) code = fa_output_open(&trace_output, options.trace);
  cJSON *const rows = cJSON_CreateArray();
  if (!code)
    code = options.parameters ? fa_sim_show_parameters(fa_options_prints_text(&options.common), rows)
                              : run(&a, &trace_output, rows, &trace_code);
  if (!code && options.common.json) code = fa_output_json(&output, rows);
  cJSON_Delete(rows);
  fa_output_discard(&output);
  fa_output_discard(&trace_output);
  return code ? code : trace_code;
}
