/* fastattn bench: options, the table for people, the rows for programs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_time.h"
#include "commands.h"

static struct {
  fa_common_options common;
  const char **shapes;
  const char *window, *dtype, *kv_dtype, *layout;
  int causal, page_size, repeats, suite;
} options = {.common = FA_COMMON_OPTIONS_INIT, .layout = "bshd", .dtype = "bf16", .repeats = 5};

static const struct poptOption table[] = {
    {"shape", '\0', POPT_ARG_ARGV, &options.shapes, 0,
     "batch, query heads, KV heads, queries, keys, head size, and the head size of v if it is another; may "
     "be "
     "given several times",
     "B,HQ,HKV,SQ,SKV,D[,DV]"},
    {"suite", '\0', POPT_ARG_NONE, &options.suite, 0,
     "a small set of usual shapes and types instead of --shape; about five minutes on two cores", NULL},
    {"causal", '\0', POPT_ARG_NONE, &options.causal, 0,
     "a query sees no later key; the last query sees the last key", NULL},
    {"window", '\0', POPT_ARG_STRING, &options.window, 0,
     "a query sees L keys to the left and R to the right of itself; -1 is unlimited (default -1,-1)", "L,R"},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtype, 0, "f32, f16 or bf16 (default bf16)", "TYPE"},
    {"kv-dtype", '\0', POPT_ARG_STRING, &options.kv_dtype, 0,
     "type of the KV cache: that of --dtype, int8 or fp8 (default: that of --dtype)", "TYPE"},
    {"page", '\0', POPT_ARG_INT, &options.page_size, 0,
     "keep K and V in shuffled pages of N tokens; 0 is one block (default 0)", "N"},
    {"layout", '\0', POPT_ARG_STRING, &options.layout, 0,
     "order of the tensors in memory: bshd or bhsd (default bshd)", "NAME"},
    {"repeats", '\0', POPT_ARG_INT, &options.repeats, 0,
     "timed runs of each; the median and the minimum are reported (default 5)", "N"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "bench", "prefill|decode --shape B,HQ,HKV,SQ,SKV,D[,DV] [OPTION...]",
    "Times attention on random data beside the two usual ways to do it: `standard`, matrix\n"
    "products with the whole score matrix in memory at their best, and `eager`, the same as\n"
    "a framework runs it step by step. The three take turns in one run, after each result\n"
    "was checked against a double-precision reference; a wrong result is not timed.\n"
    "The column roof says how much of the machine is used, of a ceiling measured on the spot\n"
    "with the same threads and named below the row: decode has that of reading the same bytes\n"
    "(GB/s), prefill the arithmetic of the unit its kernel multiplies with (TFLOP/s). On AMX\n"
    "fp16 has a third of it, three products of bf16 terms, and fp32 that of fp32 FMA, which\n"
    "the terms are there to beat: above 100 % they do. Memory is what a run takes beyond q, k,\n"
    "v and o.",
    "  fastattn bench prefill --shape 1,32,8,4096,4096,128 --causal\n"
    "  fastattn bench decode --shape 1,32,8,1,65536,128 --repeats 9 --json decode.json"};

/* ------------------------------------------------------------------- cases */

typedef struct suite_case {
  const char *shape;
  fa_dtype dtype;
  int causal;
} suite_case;

static const suite_case prefill_suite[] = {
    {"1,32,8,1024,1024,128", FA_BFLOAT16, 1},      {"1,32,8,2048,2048,128", FA_BFLOAT16, 1},
    {"1,32,8,4096,4096,128", FA_BFLOAT16, 1},      {"1,32,8,4096,4096,128", FA_BFLOAT16, 0},
    {"1,32,8,4096,4096,64", FA_BFLOAT16, 0},       {"1,32,8,2048,2048,128", FA_FLOAT16, 1},
    {"1,32,8,2048,2048,128", FA_FLOAT32, 1},       {"1,9,3,512,512,64", FA_FLOAT32, 1},
    {"1,16,16,2048,2048,192,128", FA_BFLOAT16, 1},
};
static const suite_case decode_suite[] = {
    {"1,32,8,1,4096,128", FA_BFLOAT16, 0},  {"1,32,8,1,16384,128", FA_BFLOAT16, 0},
    {"1,32,8,1,65536,128", FA_BFLOAT16, 0}, {"1,32,8,1,262144,128", FA_BFLOAT16, 0},
    {"1,32,8,1,65536,128", FA_FLOAT16, 0},  {"1,32,8,1,65536,128", FA_FLOAT32, 0},
    {"8,32,8,1,4096,128", FA_BFLOAT16, 0},
};

/* Everything but the shape. */
static int read_options(const char *operation, fa_bench_case *c) {
  memset(c, 0, sizeof *c);
  if (!operation || (strcmp(operation, "prefill") != 0 && strcmp(operation, "decode") != 0)) {
    return fa_usage_error("%s%s%s; say `fastattn bench prefill` or `fastattn bench decode`",
                          operation ? "unknown operation '" : "what to time is missing",
                          operation ? operation : "", operation ? "'" : "");
  }
  c->is_decode = strcmp(operation, "decode") == 0;
  if (!options.shapes && !options.suite)
    return fa_usage_error("--shape is missing (or --suite for usual shapes)");
  if (options.shapes && options.suite)
    return fa_usage_error("--shape and --suite exclude each other; give one");
  if (options.repeats < 1 || options.repeats > 1000) {
    return fa_usage_error("--repeats is %d; it must be 1 to 1000", options.repeats);
  }
  if (options.page_size < 0) return fa_usage_error("--page is %d; it must be at least 0", options.page_size);
  if (!fa_options_dtype(options.dtype, &c->dtype) || c->dtype > FA_BFLOAT16) {
    return fa_usage_error("unknown type '%s'; allowed: f32, f16, bf16", options.dtype);
  }
  c->kv_dtype = c->dtype;
  if (options.kv_dtype && !fa_options_dtype(options.kv_dtype, &c->kv_dtype)) {
    return fa_usage_error("unknown KV type '%s'; allowed: %s, int8, fp8", options.kv_dtype, options.dtype);
  }
  c->bhsd = strcmp(options.layout, "bhsd") == 0;
  if (!c->bhsd && strcmp(options.layout, "bshd") != 0) {
    return fa_usage_error("unknown layout '%s'; allowed: bshd, bhsd", options.layout);
  }
  int64_t window[2] = {-1, -1};
  if (options.window && fa_options_integers(options.window, 2, 2, window) != 2) {
    return fa_usage_error("--window is '%s'; it must be two integers L,R, -1 for unlimited", options.window);
  }
  c->window_left = window[0];
  c->window_right = window[1];
  c->causal = options.causal;
  c->page_size = options.page_size;
  c->kernel = options.common.kernel;
  return FA_EXIT_OK;
}

/* -------------------------------------------------------------- the results */

typedef struct row {
  fa_bench_result result;
  double tflops, gbps, roof_percent; /* roof_percent < 0: no roof */
} row;

static void finish(const fa_bench_case *c, row *r) {
  const double ms = r->result.timing[FA_BENCH_FAST].ms;
  r->tflops = fa_bench_operations(c) / ms * 1e-9;
  r->gbps = fa_bench_bytes(c) / ms * 1e-6;
  const double reached = c->is_decode ? r->gbps : r->tflops;
  r->roof_percent = r->result.roof_name ? 100.0 * reached / r->result.roof : -1.0;
}

static void print_head(bool is_decode) {
  printf("%-31s %-5s %-20s %9s %8s %5s  %17s %17s  %s\n", is_decode ? "decode" : "prefill", "type", "kernel",
         "ms", is_decode ? "GB/s" : "TFLOP/s", "roof", "standard ms     x", "eager ms     x",
         "memory MB: fast std eager");
}

static void print_ratio(const fa_bench_timing *fast, const fa_bench_timing *other) {
  if (other->ran)
    printf(" %10.4g %5.1fx", other->ms, other->ms / fast->ms);
  else
    printf(" %10s %6s", "-", "-");
}

static void print_memory(const fa_bench_timing *timing) {
  if (timing->ran && timing->peak_bytes >= 0)
    printf(" %6.*f", timing->peak_bytes < 10000000 ? 1 : 0, (double)timing->peak_bytes * 1e-6);
  else
    printf(" %6s", "-");
}

/* What 100 % is, when it is not what it was for the row before. */
static void print_roof(const fa_bench_result *result, bool is_decode) {
  static const char *last;
  if (!result->roof_name || (last && strcmp(last, result->roof_name) == 0)) return;
  printf("  - roof: %s (100 %% is %.3g %s here)\n", result->roof_name, result->roof, is_decode ? "GB/s" : "TFLOP/s");
  last = result->roof_name;
}

static void print_row(const fa_bench_case *c, const row *r) {
  const fa_bench_timing *const timing = r->result.timing;
  char shape[FA_BENCH_SHAPE_TEXT], text[FA_BENCH_SHAPE_TEXT + 16], roof[16] = "-", type[24];
  snprintf(text, sizeof text, "%s%s", fa_bench_shape_text(c, shape), c->causal ? " causal" : "");
  snprintf(type, sizeof type, c->kv_dtype == c->dtype ? "%s" : "%s/%s", fa_dtype_name(c->dtype),
           fa_dtype_name(c->kv_dtype));
  if (r->roof_percent >= 0.0) snprintf(roof, sizeof roof, "%.0f%%", r->roof_percent);
  printf("%-31s %-5s %-20s %9.4g %8.3g %5s ", text, type, timing[FA_BENCH_FAST].kernel,
         timing[FA_BENCH_FAST].ms, c->is_decode ? r->gbps : r->tflops, roof);
  for (int who = FA_BENCH_STANDARD; who <= FA_BENCH_EAGER; who++)
    print_ratio(&timing[FA_BENCH_FAST], &timing[who]);
  printf(" ");
  for (int who = FA_BENCH_FAST; who <= FA_BENCH_EAGER; who++) print_memory(&timing[who]);
  printf("\n");
  print_roof(&r->result, c->is_decode);
  for (int who = FA_BENCH_STANDARD; who <= FA_BENCH_EAGER; who++) {
    if (!timing[who].ran)
      printf("  - %s: %s\n", who == FA_BENCH_EAGER ? "eager" : "standard", timing[who].why_not);
  }
  fflush(stdout);
}

static void add_number(cJSON *object, const char *name, bool known, double value) {
  if (known)
    cJSON_AddNumberToObject(object, name, value);
  else
    cJSON_AddNullToObject(object, name);
}

static void add_row(cJSON *rows, const fa_bench_case *c, const row *r, const fa_device_info *device) {
  const fa_bench_timing *const fast = &r->result.timing[FA_BENCH_FAST];
  const fa_bench_timing *const standard = &r->result.timing[FA_BENCH_STANDARD];
  const fa_bench_timing *const eager = &r->result.timing[FA_BENCH_EAGER];
  cJSON *const json = cJSON_CreateObject();
  cJSON_AddItemToArray(rows, json);
  cJSON_AddStringToObject(json, "op", c->is_decode ? "decode" : "prefill");
  const double shape[] = {(double)c->batch,     (double)c->heads_q,   (double)c->heads_kv,
                          (double)c->seqlen_q,  (double)c->seqlen_kv, (double)c->head_dim_qk,
                          (double)c->head_dim_v};
  cJSON_AddItemToObject(json, "shape", cJSON_CreateDoubleArray(shape, sizeof shape / sizeof shape[0]));
  cJSON_AddBoolToObject(json, "causal", c->causal);
  const double window[] = {(double)c->window_left, (double)c->window_right};
  cJSON_AddItemToObject(json, "window", cJSON_CreateDoubleArray(window, 2));
  cJSON_AddStringToObject(json, "dtype", fa_dtype_name(c->dtype));
  cJSON_AddStringToObject(json, "kv_dtype", fa_dtype_name(c->kv_dtype));
  cJSON_AddNumberToObject(json, "page_size", (double)c->page_size);
  cJSON_AddStringToObject(json, "layout", c->bhsd ? "bhsd" : "bshd");
  cJSON_AddStringToObject(json, "device", device->name);
  cJSON_AddStringToObject(json, "kernel", fast->kernel);
  cJSON_AddNumberToObject(json, "ms", fast->ms);
  cJSON_AddNumberToObject(json, "ms_min", fast->ms_min);
  cJSON_AddNumberToObject(json, "tflops", r->tflops);
  cJSON_AddNumberToObject(json, "gbps", r->gbps);
  add_number(json, "roof", r->result.roof_name != NULL, r->result.roof);
  cJSON_AddStringToObject(json, "roof_unit", c->is_decode ? "GB/s" : "TFLOP/s");
  if (r->result.roof_name)
    cJSON_AddStringToObject(json, "roof_name", r->result.roof_name);
  else
    cJSON_AddNullToObject(json, "roof_name");
  add_number(json, "plain_read_gbps", r->result.plain_read > 0.0, r->result.plain_read);
  add_number(json, "roof_percent", r->roof_percent >= 0.0, r->roof_percent);
  add_number(json, "standard_ms", standard->ran, standard->ms);
  add_number(json, "standard_ms_min", standard->ran, standard->ms_min);
  add_number(json, "eager_ms", eager->ran, eager->ms);
  add_number(json, "eager_ms_min", eager->ran, eager->ms_min);
  add_number(json, "speedup", standard->ran, standard->ms / fast->ms);
  add_number(json, "speedup_eager", eager->ran, eager->ms / fast->ms);
  cJSON_AddNumberToObject(json, "max_err", fast->max_err);
  add_number(json, "standard_max_err", standard->ran, standard->max_err);
  add_number(json, "eager_max_err", eager->ran, eager->max_err);
  cJSON_AddNumberToObject(json, "workspace_bytes", (double)fast->workspace_bytes);
  add_number(json, "standard_workspace_bytes", standard->ran, (double)standard->workspace_bytes);
  add_number(json, "eager_workspace_bytes", eager->ran, (double)eager->workspace_bytes);
  add_number(json, "peak_bytes", fast->peak_bytes >= 0, (double)fast->peak_bytes);
  add_number(json, "standard_peak_bytes", standard->ran && standard->peak_bytes >= 0,
             (double)standard->peak_bytes);
  add_number(json, "eager_peak_bytes", eager->ran && eager->peak_bytes >= 0, (double)eager->peak_bytes);
  cJSON_AddNumberToObject(json, "threads", r->result.threads);
  cJSON_AddNumberToObject(json, "repeats", options.repeats);
  cJSON_AddStringToObject(json, "machine", device->description);
  cJSON_AddStringToObject(json, "commit", fa_commit());
}

/* ---------------------------------------------------------------- the command */

static int bench_one(fa_context *context, const fa_device_info *device, const fa_bench_case *c, cJSON *rows) {
  char shape[FA_BENCH_SHAPE_TEXT];
  const bool shows_progress = isatty(STDERR_FILENO);
  if (shows_progress) fprintf(stderr, "timing %s ...", fa_bench_shape_text(c, shape));
  static row r;
  const int code = fa_bench_time(context, device, c, options.repeats, &r.result);
  if (shows_progress) fprintf(stderr, "\r%60s\r", "");
  if (code) return code;
  finish(c, &r);
  if (fa_options_prints_text(&options.common)) {
    if (cJSON_GetArraySize(rows) == 0) print_head(c->is_decode);
    print_row(c, &r);
  }
  add_row(rows, c, &r, device);
  return FA_EXIT_OK;
}

static int bench_shapes(fa_context *context, const fa_device_info *device, fa_bench_case *c, cJSON *rows) {
  int code = FA_EXIT_OK;
  if (!options.suite) {
    /* all of them before the first is timed: a slip in the last should not cost the wait */
    for (const char **shape = options.shapes; *shape && !code; shape++) code = fa_bench_read_shape(*shape, c);
    for (const char **shape = options.shapes; *shape && !code; shape++) {
      code = fa_bench_read_shape(*shape, c);
      if (!code) code = bench_one(context, device, c, rows);
    }
    return code;
  }
  const suite_case *const suite = c->is_decode ? decode_suite : prefill_suite;
  const size_t count =
      c->is_decode ? sizeof decode_suite / sizeof *suite : sizeof prefill_suite / sizeof *suite;
  for (size_t i = 0; i < count && !code; i++) {
    code = fa_bench_read_shape(suite[i].shape, c);
    c->dtype = c->kv_dtype = suite[i].dtype;
    c->causal = suite[i].causal;
    if (!code) code = bench_one(context, device, c, rows);
  }
  return code;
}

/* "cuda" and "cuda:0" are one device. */
static bool same_device(const char *a, const char *b) {
  const size_t length_a = strcspn(a, ":"), length_b = strcspn(b, ":");
  const char *const index_a = a[length_a] ? a + length_a : ":0", *const index_b =
                                                                     b[length_b] ? b + length_b : ":0";
  return length_a == length_b && strncmp(a, b, length_a) == 0 && strcmp(index_a, index_b) == 0;
}

int fa_bench_find_device(const char *name, fa_device_info *device) {
  for (int32_t i = 0; i < fa_device_count(); i++) {
    *device = (fa_device_info)FA_DEVICE_INFO_INIT;
    const fa_status status = fa_device_describe(i, device);
    if (status) return fa_library_error(status);
    if (same_device(device->name, name)) return FA_EXIT_OK;
  }
  return fa_failure("device '%s' does not describe itself", name);
}

bool fa_bench_is_emulated(const char *device) { return strncmp(device, "ascend-sim", strlen("ascend-sim")) == 0; }

int fa_bench_command(int argc, const char **argv) {
  int code;
  const char *operation;
  if (!fa_options_parse(&help, table, argc, argv, &operation, &code)) return code;
  fa_bench_case c;
  code = read_options(operation, &c);
  if (code) return code;
  if (fa_bench_is_emulated(options.common.device))
    return fa_usage_error("device '%s' is emulated, and how long that takes says nothing of the chip; use "
                          "`fastattn sim` for the model's times", options.common.device);
  fa_output output = FA_OUTPUT_INIT;
  if (options.common.json) code = fa_output_open(&output, options.common.json);
  fa_context *context = NULL;
  fa_device_info device;
  if (!code) code = fa_options_context(&options.common, &context);
  if (!code) code = fa_bench_find_device(options.common.device, &device);
  cJSON *const rows = cJSON_CreateArray();
  if (!code) code = bench_shapes(context, &device, &c, rows);
  if (!code && options.common.json) code = fa_output_json(&output, rows);
  cJSON_Delete(rows);
  fa_output_discard(&output);
  fa_context_destroy(context);
  return code;
}
