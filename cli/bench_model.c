/* fastattn bench-model: a model's throughput with each attention, in one run. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_model.h"
#include "model_commands.h"

static struct {
  fa_common_options common;
  const char *arch, *model, *dtype, *attention, *batches, *prompts, *operations;
  long layers, generate, chunk, page, repeats;
  int random, no_graph;
} options = {.common = FA_COMMON_OPTIONS_INIT, .attention = "fast,standard,eager", .batches = "1", .prompts = "512,2048",
             .operations = "prefill,decode", .generate = 64, .repeats = 3};

static const struct poptOption table[] = {
    {"arch", '\0', POPT_ARG_STRING, &options.arch, 0, "a published model's shape, with random weights; see below", "NAME"},
    {"model", 'm', POPT_ARG_STRING, &options.model, 0, "a model to load instead: a GGUF file, or a folder with safetensors", "FILE"},
    {"random-weights", '\0', POPT_ARG_NONE, &options.random, 0, "said for clearness: --arch has no others", NULL},
    {"layers", '\0', POPT_ARG_LONG, &options.layers, 0, "of --arch take only the first N layers; 0 is all (default 0)", "N"},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtype, 0, "f32, f16 or bf16 (default: what the device multiplies best)", "T"},
    {"attention", '\0', POPT_ARG_STRING, &options.attention, 0,
     "which, in this order: fast, standard, eager, or kernels by name (default fast,standard,eager)", "LIST"},
    {"op", '\0', POPT_ARG_STRING, &options.operations, 0,
     "prefill, decode, mixed: while all but one sequence decode, one prompt is read in chunks (default prefill,decode)", "LIST"},
    {"batch", '\0', POPT_ARG_STRING, &options.batches, 0, "sequences at once (default 1)", "LIST"},
    {"prompt", '\0', POPT_ARG_STRING, &options.prompts, 0, "tokens of each prompt (default 512,2048)", "LIST"},
    {"gen", '\0', POPT_ARG_LONG, &options.generate, 0, "tokens decoded behind the prompts (default 64)", "N"},
    {"chunk", '\0', POPT_ARG_LONG, &options.chunk, 0, "tokens of prompts read at a time; 0 is 8192 at most (default 0)", "N"},
    {"page", '\0', POPT_ARG_LONG, &options.page, 0, "tokens a page of the KV cache; 0 chooses (default 0)", "N"},
    {"no-graph", '\0', POPT_ARG_NONE, &options.no_graph, 0, "decode without captured CUDA graphs", NULL},
    {"repeats", '\0', POPT_ARG_LONG, &options.repeats, 0, "prompts are timed so often, the median counts (default 3)", "N"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "bench-model", "--arch NAME | -m FILE [OPTION...]",
    "Times a model's prompts and its decoding over a grid of batch sizes and prompt\n"
    "lengths, with our attention and with the unfused ones, in one run. Speed does not\n"
    "depend on what weights say: --arch makes random ones of a published model's shape\n"
    "on the device. Names: llama-7b llama-13b llama-70b llama3-8b mistral-7b qwen2-7b\n"
    "qwen3-8b gemma3-270m smollm2-135m pangu-38b (a stand-in of our own).",
    "  fastattn bench-model --arch llama-7b --device cuda --prompt 1024,8192 --batch 1,8\n"
    "  fastattn bench-model --arch smollm2-135m --layers 4 --prompt 256 --gen 8"};

enum { MOST_VALUES = 32 };

static int read_list(const char *option, const char *text, int64_t *values) {
  const int count = fa_options_integers(text, 1, MOST_VALUES, values);
  for (int i = 0; i < count; i++) {
    if (values[i] < 1 || values[i] > 1 << 26) return -fa_usage_error("--%s is '%s'; values are 1 .. %d", option, text, 1 << 26);
  }
  if (count < 0) return -fa_usage_error("--%s is '%s'; give 1 to %d integers with commas", option, text, MOST_VALUES);
  return count;
}

static int read_operations(unsigned *operations) {
  static const char *const known[] = {"prefill", "decode", "mixed"};
  char text[64], *rest;
  *operations = 0;
  snprintf(text, sizeof text, "%s", options.operations);
  for (char *name = strtok_r(text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
    unsigned bit = 0;
    for (unsigned i = 0; i < 3; i++) {
      if (strcmp(name, known[i]) == 0) bit = 1u << i;
    }
    if (!bit) return fa_usage_error("--op is '%s'; allowed: prefill, decode, mixed", options.operations);
    *operations |= bit;
  }
  return *operations ? FA_EXIT_OK : fa_usage_error("--op names nothing; allowed: prefill, decode, mixed");
}

static int check_options(void) {
  if (!options.arch == !options.model)
    return fa_usage_error(options.arch ? "--arch and -m are both given; choose one" : "--arch is missing; it names a shape (or -m a model)");
  if (options.random && options.model) return fa_usage_error("--random-weights and -m are both given; choose one");
  if (options.layers && options.model) return fa_usage_error("--layers is for --arch; a file's model is run whole");
  if (options.layers < 0 || options.generate < 1 || options.chunk < 0 || options.page < 0 || options.repeats < 1 ||
      options.generate > 1 << 20 || options.repeats > 1000)
    return fa_usage_error("--layers %ld, --gen %ld, --chunk %ld, --page %ld, --repeats %ld; needed: at least 0, 1 .. 1048576, at "
                          "least 0, at least 0, 1 .. 1000", options.layers, options.generate, options.chunk, options.page,
                          options.repeats);
  return FA_EXIT_OK;
}

/* ------------------------------------------------------------------- the model */

static int open_random(const fa_common_options *common, int64_t longest, fa_context **context, fa_llama_model **model) {
  static char making[] = "making layer";
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  fa_llama_shape shape;
  load.operators = fa_model_operators(common->device);
  if (!load.operators) return FA_EXIT_USAGE;
  load.progress = fa_model_progress;
  load.progress_user = making;
  int code = fa_model_dtype(options.dtype, &load.dtype);
  if (code != FA_EXIT_OK) return code;
  if (fa_llama_shape_named(options.arch, &shape) != FA_OK) return fa_usage_error("%s", fa_llama_last_error());
  if (options.layers > shape.layers)
    return fa_usage_error("--layers is %ld; %s has %lld", options.layers, options.arch, (long long)shape.layers);
  if (options.layers) shape.layers = options.layers;
  if (shape.context < longest) shape.context = longest; /* random weights were trained for nothing */
  code = fa_options_context(common, context);
  if (code != FA_EXIT_OK) return code;
  return fa_llama_model_random(*context, &shape, &load, model) == FA_OK ? FA_EXIT_OK : fa_model_failure();
}

/* --------------------------------------------------------------------- results */

static void print_head(const fa_bench_model *b) {
  const fa_llama_shape *s = fa_llama_model_shape(b->model);
  printf("%s: %lld layers, %.2f G parameters, %s on %s; weights read for a token: %.2f GB\n", b->name, (long long)s->layers,
         (double)fa_llama_model_parameters(b->model) / 1e9, fa_dtype_name(fa_llama_model_dtype(b->model)), b->device,
         (double)fa_llama_model_weight_bytes(b->model) / 1e9);
  printf("%-8s %-9s %5s %7s %5s %11s %12s %9s %9s  %s\n", "op", "attention", "batch", "prompt", "gen", "ms", "tokens/s",
         "speed-up", "GB", "kernel");
}

/* Of the row before it in the same point whose attention is `name`. */
static double ms_of(const fa_bench_model_row *rows, int count, const char *name) {
  for (int i = 0; i < count; i++) {
    if (strcmp(rows[i].attention, name) == 0 && rows[i].ran) return rows[i].ms;
  }
  return NAN;
}

static void print_row(const fa_bench_model_row *r, double first_ms) {
  char speedup[24] = "";
  if (!r->ran) {
    printf("%-8s %-9s %5lld %7lld %5lld %11s  %s\n", r->op, r->attention, (long long)r->batch, (long long)r->prompt,
           (long long)r->generate, "-", r->why);
    return;
  }
  if (first_ms > 0.0 && first_ms != r->ms) snprintf(speedup, sizeof speedup, "%.2fx", r->ms / first_ms);
  const fa_llama_memory *m = &r->memory;
  printf("%-8s %-9s %5lld %7lld %5lld %11.3f %12.1f %9s %9.2f  %s\n", r->op, r->attention, (long long)r->batch,
         (long long)r->prompt, (long long)r->generate, r->ms, r->tokens_per_s, speedup,
         (double)(m->weights + m->cache + m->activations + m->workspace) / 1e9, r->kernel);
}

static void add_row(cJSON *rows, const fa_bench_model *b, const fa_context *context, const fa_bench_model_row *r, double fast,
                    double standard, double eager) {
  cJSON *row = cJSON_CreateObject();
  cJSON_AddStringToObject(row, "op", r->op);
  fa_model_describe(row, &options.common, context, b->model, b->name);
  cJSON_AddNumberToObject(row, "layers", (double)fa_llama_model_shape(b->model)->layers);
  cJSON_AddStringToObject(row, "attention", r->attention);
  cJSON_AddNumberToObject(row, "batch", (double)r->batch);
  cJSON_AddNumberToObject(row, "prompt", (double)r->prompt);
  cJSON_AddNumberToObject(row, "gen", (double)r->generate);
  cJSON_AddNumberToObject(row, "chunk", (double)r->chunk);
  cJSON_AddNumberToObject(row, "weight_bytes", (double)fa_llama_model_weight_bytes(b->model));
  if (r->ran) {
    cJSON_AddStringToObject(row, "kernel", r->kernel);
    cJSON_AddNumberToObject(row, "ms", r->ms);
    cJSON_AddNumberToObject(row, "ms_min", r->ms_min);
    cJSON_AddNumberToObject(row, "tokens_per_s", r->tokens_per_s);
    cJSON_AddItemToObject(row, "memory", r->json_memory);
    if (isfinite(fast)) cJSON_AddNumberToObject(row, "fast_speedup", r->ms / fast);
    if (isfinite(standard)) cJSON_AddNumberToObject(row, "standard_ms", standard);
    if (isfinite(eager)) cJSON_AddNumberToObject(row, "eager_ms", eager);
  } else {
    cJSON_AddStringToObject(row, "error", r->why);
  }
  cJSON_AddItemToArray(rows, row);
}

static int bench_point(const fa_bench_model *b, const fa_context *context, unsigned operation, int64_t batch, int64_t prompt,
                       cJSON *json) {
  static const char *const names[] = {"prefill", "decode", "mixed"};
  fa_bench_model_row rows[FA_BENCH_ATTENTIONS] = {{0}};
  for (int a = 0; a < b->attentions; a++) {
    fa_bench_model_row *r = &rows[a];
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%s %s, batch %lld, prompt %lld ...", names[operation], b->attention[a].name, (long long)batch, (long long)prompt);
    *r = (fa_bench_model_row){.op = names[operation], .attention = b->attention[a].name, .batch = batch, .prompt = prompt,
                              .generate = operation == 0 ? 0 : b->generate};
    const int code = fa_bench_model_time(b, &b->attention[a], r);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%70s\r", "");
    if (code != FA_EXIT_OK) return code;
  }
  const double fast = ms_of(rows, b->attentions, "fast"), standard = ms_of(rows, b->attentions, "standard"),
               eager = ms_of(rows, b->attentions, "eager");
  for (int a = 0; a < b->attentions; a++) {
    if (fa_options_prints_text(&options.common)) print_row(&rows[a], rows[0].ran ? rows[0].ms : 0.0);
    add_row(json, b, context, &rows[a], fast, standard, eager);
  }
  fflush(stdout);
  return FA_EXIT_OK;
}

static int read_attentions(fa_bench_model *b, char *text) {
  char *rest;
  for (char *name = strtok_r(text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
    if (b->attentions == FA_BENCH_ATTENTIONS)
      return fa_usage_error("--attention lists more than %d", FA_BENCH_ATTENTIONS);
    fa_bench_attention *a = &b->attention[b->attentions++];
    const bool is_known = strcmp(name, "fast") == 0 || strcmp(name, "standard") == 0 || strcmp(name, "eager") == 0;
    const int code = fa_model_attention(is_known ? name : NULL, is_known ? NULL : name, &a->kernel, &a->name);
    if (code != FA_EXIT_OK) return code;
  }
  return b->attentions ? FA_EXIT_OK : fa_usage_error("--attention names nothing; allowed: fast, standard, eager, kernels");
}

int fa_bench_model_command(int argc, const char **argv) {
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  int64_t batches[MOST_VALUES], prompts[MOST_VALUES], longest = 0;
  unsigned operations;
  code = check_options();
  if (code == FA_EXIT_OK) code = read_operations(&operations);
  if (code != FA_EXIT_OK) return code;
  const int batch_count = read_list("batch", options.batches, batches);
  if (batch_count < 0) return -batch_count;
  const int prompt_count = read_list("prompt", options.prompts, prompts);
  if (prompt_count < 0) return -prompt_count;
  for (int i = 0; i < batch_count; i++) {
    if (batches[i] > 65536) return fa_usage_error("--batch is '%s'; at most 65536 sequences are run at once", options.batches);
    if (operations == 1u << 2 && batches[i] < 2) return fa_usage_error("--op mixed needs a --batch of at least 2");
  }
  if (options.common.kernel && strcmp(options.attention, "fast,standard,eager") != 0)
    return fa_usage_error("--attention and --kernel are both given; --attention takes kernels by name too");
  for (int i = 0; i < prompt_count; i++) longest = prompts[i] > longest ? prompts[i] : longest;

  fa_bench_model b = {.name = options.arch ? options.arch : options.model, .device = options.common.device,
                      .generate = options.generate, .chunk = options.chunk, .page = options.page,
                      .repeats = (int)options.repeats, .no_graph = options.no_graph};
  char *attentions = strdup(options.common.kernel ? options.common.kernel : options.attention);
  fa_output output = FA_OUTPUT_INIT;
  fa_context *context = NULL;
  fa_llama_model *model = NULL;
  cJSON *rows = cJSON_CreateArray();
  if (!attentions || !rows) code = fa_failure("no memory");
  if (code == FA_EXIT_OK) code = read_attentions(&b, attentions);
  if (code == FA_EXIT_OK && options.common.json) code = fa_output_open(&output, options.common.json);
  if (code == FA_EXIT_OK) {
    code = options.arch ? open_random(&options.common, longest + options.generate + FA_BENCH_WARM_STEPS + 1, &context, &model)
                        : fa_model_open(&options.common, options.model, options.dtype, &context, &model);
  }
  b.model = model;
  if (code == FA_EXIT_OK && longest + options.generate + FA_BENCH_WARM_STEPS + 1 > fa_llama_model_shape(model)->context) {
    code = fa_usage_error("--prompt %lld and --gen %ld; together below %lld, the model's context", (long long)longest,
                          options.generate, (long long)fa_llama_model_shape(model)->context);
  }
  if (code == FA_EXIT_OK && fa_options_prints_text(&options.common)) print_head(&b);
  for (unsigned operation = 0; operation < 3; operation++) {
    for (int n = 0; n < batch_count; n++) {
      for (int p = 0; p < prompt_count && code == FA_EXIT_OK; p++) {
        if (!(operations & 1u << operation) || (operation == 2 && batches[n] < 2)) continue;
        code = bench_point(&b, context, operation, batches[n], prompts[p], rows);
      }
    }
  }
  if (code == FA_EXIT_OK && options.common.json) code = fa_output_json(&output, rows);
  cJSON_Delete(rows);
  fa_output_discard(&output);
  fa_llama_model_free(model);
  fa_context_destroy(context);
  free(attentions);
  return code;
}
