/* fastattn tune: options, the problems to measure, the table for people, rows for programs, the file for the library. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_time.h"
#include "commands.h"
#include "tune_search.h"

static struct {
  fa_common_options common;
  const char **shapes;
  const char *dtypes, *out;
  int causal, quick, full;
} options = {.common = FA_COMMON_OPTIONS_INIT, .out = "fastattention.tuning"};

static const struct poptOption table[] = {
    {"shape", '\0', POPT_ARG_ARGV, &options.shapes, 0,
     "batch, query heads, KV heads, queries, keys, head size, and the head size of v if it is another; may be "
     "given several times (default: a usual set, 32 query heads over 8)",
     "B,HQ,HKV,SQ,SKV,D[,DV]"},
    {"causal", '\0', POPT_ARG_NONE, &options.causal, 0, "with --shape: a query sees no later key", NULL},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtypes, 0,
     "types to tune, of f32, f16 and bf16 (default bf16,f16,f32)", "TYPE[,TYPE]"},
    {"quick", '\0', POPT_ARG_NONE, &options.quick, 0, "a few shapes and tiles; about a minute", NULL},
    {"full", '\0', POPT_ARG_NONE, &options.full, 0,
     "also without causal mask, without groups and more batches, and more tiles; about two hours", NULL},
    {"out", '\0', POPT_ARG_STRING, &options.out, 0,
     "the tuning file; - is standard output (default fastattention.tuning)", "FILE"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "tune", "[--quick|--full|--shape B,HQ,HKV,SQ,SKV,D[,DV]] [OPTION...]",
    "Measures, on this machine's CPU, what a plan could choose for usual problems: kernels,\n"
    "level-one tiles, parts a long cache is cut into. Results are checked first, alternatives\n"
    "take turns, and the best is measured again beside the rule's choice. What is then faster\n"
    "in nearly every turn, by 3 % and more than the noise, goes into a file. Let nothing else\n"
    "run on the machine meanwhile. All is measured with the tensors in both orders, B,S,H,D and\n"
    "B,H,S,D, because a plan is made before it is told which: what is kept is faster in one and\n"
    "not slower in the other. The library plans by that file when FASTATTENTION_TUNING\n"
    "names it, for problems of the same kind and about the same size, on the processor and\n"
    "with the number of threads it was measured with; `fastattn info` shows what is then\n"
    "chosen. Without --quick or --full it takes about a quarter of an hour. With --kernel\n"
    "only that kernel or family is tried.",
    "  fastattn tune --quick --out $HOME/fastattention.tuning\n"
    "  FASTATTENTION_TUNING=$HOME/fastattention.tuning fastattn info"};

/* ------------------------------------------------------------------- problems */

/* Room for the largest set: see add_usual. */
enum { MOST_CASES = 1024 };

typedef struct case_list {
  fa_bench_case list[MOST_CASES];
  int count;
} case_list;

static void add_case(case_list *cases, fa_dtype dtype, int64_t batch, int64_t heads_kv, int64_t queries, int64_t keys,
                     int64_t dim, int causal) {
  const fa_bench_case c = {.is_decode = queries == 1,
                           .batch = batch,
                           .heads_q = 32,
                           .heads_kv = heads_kv,
                           .seqlen_q = queries,
                           .seqlen_kv = keys,
                           .head_dim_qk = dim,
                           .head_dim_v = dim,
                           .dtype = dtype,
                           .kv_dtype = dtype,
                           .causal = causal,
                           .window_left = -1,
                           .window_right = -1};
  if (cases->count < MOST_CASES) cases->list[cases->count++] = c;
}

static void add_quick(case_list *cases, fa_dtype dtype) {
  for (int64_t length = 512; length <= 2048; length *= 4) add_case(cases, dtype, 1, 8, length, length, 128, 1);
  for (int64_t keys = 1024; keys <= 16384; keys *= 16) add_case(cases, dtype, 1, 8, 1, keys, 128, 0);
}

/* --full doubles every choice but type and lengths. Batches of long caches are as bound by memory as one is. */
static void add_usual(case_list *cases, fa_dtype dtype, bool full) {
  const int64_t longest_of_many = 8192;
  for (int64_t dim = 64; dim <= 128; dim *= 2)
    for (int64_t heads_kv = 8; heads_kv <= (full ? 32 : 8); heads_kv *= 4) {
      for (int causal = 1; causal >= (full ? 0 : 1); causal--)
        for (int64_t length = 128; length <= 4096; length *= 2) add_case(cases, dtype, 1, heads_kv, length, length, dim, causal);
      for (int64_t batch = 1; batch <= 8; batch *= full ? 2 : 8)
        for (int64_t keys = 512; keys <= (batch == 1 ? 65536 : longest_of_many); keys *= 2)
          add_case(cases, dtype, batch, heads_kv, 1, keys, dim, 0);
    }
}

static int add_shape(case_list *cases, const char *shape, fa_dtype dtype) {
  add_case(cases, dtype, 1, 8, 2, 1, 1, options.causal);
  fa_bench_case *const c = &cases->list[cases->count - 1];
  const int code = fa_bench_read_shape(shape, c);
  c->is_decode = c->seqlen_q <= 16;
  return code;
}

/* "bf16,f16" -> types in that order; each once. */
static int read_dtypes(const char *text, fa_dtype dtypes[3], int *count) {
  *count = 0;
  if (!text) text = "bf16,f16,f32";
  for (const char *at = text;;) {
    char name[8];
    const size_t length = strcspn(at, ",");
    snprintf(name, sizeof name, "%.*s", length < sizeof name ? (int)length : 0, at);
    fa_dtype dtype = FA_FLOAT32;
    bool right = fa_options_dtype(name, &dtype) && dtype <= FA_BFLOAT16 && *count < 3;
    for (int n = 0; n < *count && n < 3; n++) right = right && dtypes[n] != dtype;
    if (!right) return fa_usage_error("--dtype is '%.64s'; it must be some of f32, f16, bf16 with commas between", text);
    dtypes[(*count)++] = dtype;
    if (at[length] == '\0') return FA_EXIT_OK;
    at += length + 1;
  }
}

static int read_cases(case_list *cases) {
  fa_dtype dtypes[3];
  int count;
  if (!!options.shapes + !!options.quick + !!options.full > 1)
    return fa_usage_error("--shape, --quick and --full exclude each other; give one or none");
  if (options.causal && !options.shapes) return fa_usage_error("--causal goes with --shape; the usual set has its own");
  if (!fa_is_device_of(options.common.device, "cpu"))
    return fa_usage_error("--device is %s; only plans for the CPU follow a tuning file", options.common.device);
  int code = read_dtypes(options.dtypes, dtypes, &count);
  for (int n = 0; n < count && !code; n++) {
    if (options.quick) add_quick(cases, dtypes[n]);
    else if (!options.shapes) add_usual(cases, dtypes[n], options.full);
    int given = 0;
    for (const char **shape = options.shapes; shape && *shape && !code; shape++) {
      if (++given > MOST_CASES / 3) return fa_usage_error("--shape was given more than %d times", MOST_CASES / 3);
      code = add_shape(cases, *shape, dtypes[n]);
    }
  }
  return code;
}

/* -------------------------------------------------------------- the results */

static char *plan_text(const fa_plan_info *info, char text[120]) {
  snprintf(text, 120, "%s %lldx%lld", info->kernel, (long long)info->level1_rows, (long long)info->level1_keys);
  if (info->kv_splits > 1) {
    const size_t length = strlen(text);
    snprintf(text + length, 120 - length, ", %lld splits", (long long)info->kv_splits);
  }
  return text;
}

static char *case_text(const fa_bench_case *c, char text[FA_BENCH_SHAPE_TEXT + 32]) {
  char shape[FA_BENCH_SHAPE_TEXT];
  snprintf(text, FA_BENCH_SHAPE_TEXT + 32, "%s%s %s", fa_bench_shape_text(c, shape), c->causal ? " causal" : "",
           fa_dtype_name(c->dtype));
  return text;
}

static void print_row(const fa_bench_case *c, const fa_tune_result *r) {
  char text[FA_BENCH_SHAPE_TEXT + 32], rule[120], best[120];
  const double *const was = r->rule.ms, *const is = r->best.ms;
  printf("%-34s %-36s %9.4g %9.4g  ", case_text(c, text), plan_text(&r->rule.info, rule), was[FA_TUNE_BSHD],
         was[FA_TUNE_BHSD]);
  if (r->tried)
    printf("%-36s %6.2fx %6.2fx  %s\n", plan_text(&r->best.info, best), was[FA_TUNE_BSHD] / is[FA_TUNE_BSHD],
           was[FA_TUNE_BHSD] / is[FA_TUNE_BHSD], r->is_better ? "kept" : "-");
  else
    printf("nothing else does it\n");
  fflush(stdout);
}

static void add_measured(cJSON *row, const char *prefix, const fa_tune_measured *m, fa_tune_layout layout) {
  const struct {
    const char *name;
    double value;
  } numbers[] = {{"level1_rows", (double)m->info.level1_rows},
                 {"level1_keys", (double)m->info.level1_keys},
                 {"kv_splits", (double)m->info.kv_splits},
                 {"ms", m->ms[layout]},
                 {"ms_min", m->ms_min[layout]}};
  char name[32];
  snprintf(name, sizeof name, "%skernel", prefix);
  cJSON_AddStringToObject(row, name, m->info.kernel);
  for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) {
    snprintf(name, sizeof name, "%s%s", prefix, numbers[n].name);
    cJSON_AddNumberToObject(row, name, numbers[n].value);
  }
}

/* Both layouts, each with its times; the row's own are those of where the choice gains less. */
static void add_layouts(cJSON *row, const fa_tune_result *r) {
  cJSON_AddStringToObject(row, "layout", fa_tune_layout_names[r->least]);
  cJSON *const layouts = cJSON_AddObjectToObject(row, "layouts");
  for (int n = 0; n < FA_TUNE_LAYOUTS; n++) {
    cJSON *const layout = cJSON_AddObjectToObject(layouts, fa_tune_layout_names[n]);
    cJSON_AddNumberToObject(layout, "ms", r->best.ms[n]);
    cJSON_AddNumberToObject(layout, "ms_min", r->best.ms_min[n]);
    cJSON_AddNumberToObject(layout, "rule_ms", r->rule.ms[n]);
    cJSON_AddNumberToObject(layout, "rule_ms_min", r->rule.ms_min[n]);
    cJSON_AddNumberToObject(layout, "speedup", r->rule.ms[n] / r->best.ms[n]);
    cJSON_AddNumberToObject(layout, "wins", r->wins[n]);
  }
}

static void add_row(cJSON *rows, const fa_bench_case *c, const fa_tune_result *r, const fa_device_info *device, int threads) {
  cJSON *const row = cJSON_CreateObject();
  cJSON_AddItemToArray(rows, row);
  cJSON_AddStringToObject(row, "op", c->is_decode ? "decode" : "prefill");
  const double shape[] = {(double)c->batch,     (double)c->heads_q,     (double)c->heads_kv,  (double)c->seqlen_q,
                          (double)c->seqlen_kv, (double)c->head_dim_qk, (double)c->head_dim_v};
  cJSON_AddItemToObject(row, "shape", cJSON_CreateDoubleArray(shape, sizeof shape / sizeof shape[0]));
  cJSON_AddBoolToObject(row, "causal", c->causal);
  cJSON_AddStringToObject(row, "dtype", fa_dtype_name(c->dtype));
  cJSON_AddStringToObject(row, "device", device->name);
  add_measured(row, "", &r->best, r->least);
  add_measured(row, "rule_", &r->rule, r->least);
  cJSON_AddNumberToObject(row, "speedup", r->rule.ms[r->least] / r->best.ms[r->least]);
  add_layouts(row, r);
  cJSON_AddBoolToObject(row, "kept", r->is_better);
  cJSON_AddNumberToObject(row, "tried", r->tried);
  cJSON_AddNumberToObject(row, "rounds", r->rounds);
  cJSON_AddNumberToObject(row, "wins", r->wins[r->least]);
  cJSON_AddNumberToObject(row, "max_err", r->max_err);
  cJSON_AddNumberToObject(row, "threads", threads);
  cJSON_AddStringToObject(row, "machine", device->description);
  cJSON_AddStringToObject(row, "commit", fa_commit());
}

/* ---------------------------------------------------------------- the command */

typedef struct tuning {
  fa_context *context;
  fa_device_info device;
  fa_output file, json;
  cJSON *rows;
  int kept, busy;
} tuning;

static bool prints_text(void) { return fa_options_prints_text(&options.common) && strcmp(options.out, "-") != 0; }

static int write_text(fa_output *output, fa_status status, const char *text) {
  if (status) return fa_library_error(status);
  fputs(text, output->file);
  return FA_EXIT_OK;
}

static int tune_one(tuning *t, const fa_bench_case *c, int n, int count) {
  const fa_tune_effort effort = {options.quick ? 1500.0 : options.full ? 8000.0 : 4000.0, options.quick ? 1 : 2,
                                 !isatty(STDERR_FILENO)};
  char what[FA_BENCH_SHAPE_TEXT + 32], progress[FA_BENCH_SHAPE_TEXT + 64], text[FA_TUNING_TEXT];
  snprintf(progress, sizeof progress, "%d of %d, %s", n + 1, count, case_text(c, what));
  fa_tune_result result;
  int code = fa_tune_search(t->context, c, options.common.kernel, &effort, progress, &result);
  if (code) return code;
  if (prints_text()) print_row(c, &result);
  add_row(t->rows, c, &result, &t->device, fa_context_threads(t->context));
  const fa_tune_measured *const rule = &result.rule;
  t->busy += rule->ms[FA_TUNE_BSHD] > FA_TUNE_BUSY * rule->ms_min[FA_TUNE_BSHD] ||
             rule->ms[FA_TUNE_BHSD] > FA_TUNE_BUSY * rule->ms_min[FA_TUNE_BHSD];
  if (!result.is_better) return FA_EXIT_OK;
  t->kept++;
  const fa_attention_problem problem = fa_bench_problem(c, NULL);
  return write_text(&t->file, fa_tuning_entry(t->context, &problem, &result.best.choice, result.best.ms[result.least],
                                              rule->ms[result.least], text, sizeof text), text);
}

static int tune_all(tuning *t, const case_list *cases) {
  char text[FA_TUNING_TEXT];
  int code = write_text(&t->file, fa_tuning_head(t->context, text, sizeof text), text);
  if (!code && prints_text())
    printf("%-34s %-36s %9s %9s  %-36s %7s %7s\n", "problem", "by rule: kernel, level-one tiles", "bshd ms", "bhsd ms",
           "the best other", "bshd", "bhsd");
  for (int n = 0; n < cases->count && !code; n++) code = tune_one(t, &cases->list[n], n, cases->count);
  return code;
}

static int commit(tuning *t) {
  char said[300];
  snprintf(said, sizeof said, "%d of %d problems have an entry in %.200s", t->kept, cJSON_GetArraySize(t->rows), options.out);
  int code = options.common.json ? fa_output_json(&t->json, t->rows) : FA_EXIT_OK;
  if (!code) code = fa_output_commit(&t->file);
  if (code || !prints_text()) return code;
  if (t->busy)
    printf("the machine was busy with something else during %d problems (medians more than a quarter above minima): little\n"
           "can be told apart then; better run it again when nothing else runs\n", t->busy);
  printf("%s; FASTATTENTION_TUNING=%s makes plans follow it\n", said, options.out);
  return code;
}

int fa_tune_command(int argc, const char **argv) {
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  static case_list cases;
  code = read_cases(&cases);
  if (code) return code;
  if (options.common.json && !strcmp(options.common.json, "-") && !strcmp(options.out, "-"))
    return fa_usage_error("--out and --json are both standard output; name a file for one");
  /* The rule is what others are measured against, and a broken file is what this command mends. */
  unsetenv("FASTATTENTION_TUNING");
  tuning t = {.file = FA_OUTPUT_INIT, .json = FA_OUTPUT_INIT, .rows = cJSON_CreateArray()};
  code = fa_options_context(&options.common, &t.context);
  if (!code) code = fa_options_kernel(&options.common, t.context);
  if (!code) code = fa_bench_find_device(options.common.device, &t.device);
  if (!code) code = fa_output_open(&t.file, options.out);
  if (!code && options.common.json) code = fa_output_open(&t.json, options.common.json);
  if (!code) code = tune_all(&t, &cases);
  if (!code) code = commit(&t);
  cJSON_Delete(t.rows);
  fa_output_discard(&t.file);
  fa_output_discard(&t.json);
  fa_context_destroy(t.context);
  return code;
}
