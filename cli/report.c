/* fastattn report: checks, benches and a description of a device, in one file that its owner can send. */
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/model/gpu_model.h"
#include "bench_time.h"
#include "check/check.h"
#include "commands.h"

static struct {
  fa_common_options common;
  const char *out;
  long long cases;
  int quick;
} options = {.common = FA_COMMON_OPTIONS_INIT, .out = "fastattn-report.md", .cases = 500};

static const struct poptOption table[] = {
    {"out", '\0', POPT_ARG_STRING, &options.out, 0,
     "the file to write; - is standard output (default fastattn-report.md)", "FILE"},
    {"cases", '\0', POPT_ARG_LONGLONG, &options.cases, 0,
     "random problems each kernel is checked on (default 500)", "N"},
    {"quick", '\0', POPT_ARG_NONE, &options.quick, 0,
     "fewer and smaller problems are timed: seconds, not minutes", NULL},
    FA_OPTION_DEVICE(options.common),
    FA_OPTION_THREADS(options.common),
    FA_OPTION_KERNEL(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "report", "[OPTION...]",
    "Writes one file about a device, for its owner to send: what the machine is, which\n"
    "kernels it runs, whether they are right (as `fastattn check`), how fast they are (as\n"
    "`fastattn bench`, beside standard attention) and, for a V100 or a T4, how that compares\n"
    "with the times this project's model predicts. Each number says whether it was measured\n"
    "or is the model's. Nothing is sent; the file's last lines say where it is welcome.",
    "  fastattn report --device cuda\n"
    "  fastattn report --quick --cases 100 --out cpu.md"};

/* ------------------------------------------------------------------ machine */

static void print_driver(FILE *out) {
  FILE *const version = fopen("/proc/driver/nvidia/version", "r");
  if (!version) return;
  char line[256];
  if (fgets(line, sizeof line, version)) {
    line[strcspn(line, "\n")] = '\0';
    fprintf(out, "- NVIDIA driver: %s\n", line);
  }
  fclose(version);
}

static void print_machine(FILE *out, fa_context *context, const fa_device_info *device) {
  struct utsname system;
  char day[32] = "";
  const time_t now = time(NULL);
  struct tm utc;
  if (gmtime_r(&now, &utc)) strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &utc);
  fprintf(out, "# FastAttention on %s\n\n", device->description);
  fprintf(out, "- Written: %s\n- FastAttention %s, commit %s\n", day, fa_version(), fa_commit());
  fprintf(out, "- Device: %s, %s; %s; %d units, %.1f GiB of memory\n", device->name, device->description,
          device->isa, device->units, (double)device->memory_bytes / 1073741824.0);
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info host = FA_DEVICE_INFO_INIT;
    if (strcmp(device->name, "cpu") != 0 && fa_device_describe(i, &host) == FA_OK &&
        strcmp(host.name, "cpu") == 0)
      fprintf(out, "- Host: %s, %.1f GiB of memory\n", host.description,
              (double)host.memory_bytes / 1073741824.0);
  }
  if (uname(&system) == 0)
    fprintf(out, "- System: %s %s, %s\n", system.sysname, system.release, system.machine);
  if (strcmp(device->name, "cpu") != 0) print_driver(out);
  fprintf(out, "- Threads: %d\n", fa_context_threads(context));
}

static void print_kernels(FILE *out, const char *device) {
  fprintf(out,
          "\n## Kernels\n\n| name | architecture | operation | types | head size | runs here "
          "|\n|---|---|---|---|---|---|\n");
  for (int32_t i = 0; i < fa_kernel_count(); i++) {
    fa_kernel_info k = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &k) || !fa_is_device_of(device, k.device)) continue;
    fprintf(out, "| %s | %s | %s |", k.name, k.arch, k.operation);
    for (int t = FA_FLOAT32; t <= FA_FP8_E4M3; t++) {
      if (k.dtypes >> t & 1u) fprintf(out, " %s", fa_dtype_name((fa_dtype)t));
    }
    fprintf(out, " | to %lld | %s%s |\n", (long long)k.max_head_dim, k.available ? "yes" : "no",
            k.is_baseline ? ", a baseline" : "");
  }
}

/* ------------------------------------------------------------------- checks */

static int write_checks(FILE *out) {
  fa_check_options check = FA_CHECK_OPTIONS_INIT;
  check.device = options.common.device;
  check.kernel = options.common.kernel;
  check.cases = options.cases;
  check.threads = options.common.threads;
  fprintf(out,
          "\n## Checks (measured)\n\nEvery kernel of the device against attention in double precision, %lld "
          "random problems.\n\n```\n",
          options.cases);
  const int failed = fa_check_run(&check, out);
  if (failed == 2) fprintf(out, "nothing was checked: %s\n", fa_last_error());
  fprintf(out, "```\n");
  return failed;
}

/* ------------------------------------------------------------------ benches */

typedef struct bench_grid {
  const int64_t *head_dims, *prefill_lengths, *decode_lengths; /* each ends with 0 */
  int repeats;
} bench_grid;

static const bench_grid full_grid = {(const int64_t[]){64, 128, 256, 0}, (const int64_t[]){1024, 4096, 0},
                                     (const int64_t[]){4096, 32768, 0}, 5};
static const bench_grid quick_grid = {(const int64_t[]){64, 128, 0}, (const int64_t[]){256, 0},
                                      (const int64_t[]){1024, 0}, 3};

/* A GPU is filled with 16K tokens of a model 2048 wide, as papers do; a CPU would take hours. */
static fa_bench_case prefill_case(bool is_cpu, int64_t dim, int64_t length, int causal) {
  fa_bench_case c = {
      .seqlen_q = length, .seqlen_kv = length, .head_dim_qk = dim, .head_dim_v = dim, .causal = causal};
  c.batch = is_cpu || options.quick ? 1 : 16384 / length;
  c.heads_q = c.heads_kv = is_cpu ? 4 : 2048 / dim;
  c.dtype = c.kv_dtype = is_cpu ? FA_BFLOAT16 : FA_FLOAT16;
  c.window_left = c.window_right = -1;
  c.kernel = options.common.kernel;
  return c;
}

static fa_bench_case decode_case(bool is_cpu, int64_t length) {
  fa_bench_case c = {
      .is_decode = true, .batch = 1, .heads_q = 32, .heads_kv = 8, .seqlen_q = 1, .seqlen_kv = length};
  c.head_dim_qk = c.head_dim_v = 128;
  c.dtype = c.kv_dtype = is_cpu ? FA_BFLOAT16 : FA_FLOAT16;
  c.window_left = c.window_right = -1;
  c.kernel = options.common.kernel;
  return c;
}

/* Milliseconds by the model; 0 where it has none. */
static double model_ms(const fa_model_gpu *gpu, const fa_bench_case *c, const char *kernel) {
  if (!gpu) return 0.0;
  const fa_model_problem problem = {c->batch,     c->heads_q,     c->heads_kv, c->seqlen_q,
                                    c->seqlen_kv, c->head_dim_qk, c->causal};
  if (c->is_decode) return strcmp(kernel, "decode_any") == 0 ? fa_model_decode_ms(gpu, &problem) : 0.0;
  const fa_model_kernel *const instance = fa_model_find_kernel(gpu->kernel, gpu->name, c->head_dim_qk);
  if (!instance || strncmp(kernel, gpu->kernel, strlen(gpu->kernel)) != 0) return 0.0;
  return fa_model_prefill_ms(gpu, instance, &problem);
}

static void print_ratio(FILE *out, const fa_bench_timing *fast, const fa_bench_timing *other) {
  if (other->ran)
    fprintf(out, " %.4g (%.2fx) |", other->ms, other->ms / fast->ms);
  else
    fprintf(out, " - |");
}

/* One line of the table; a problem that cannot be timed here is a line that says so, not the end of the
 * report. */
static int write_bench(FILE *out, fa_context *context, const fa_device_info *device, const fa_bench_case *c,
                       int repeats) {
  static fa_bench_result result;
  char shape[FA_BENCH_SHAPE_TEXT];
  const bool shows_progress = isatty(STDERR_FILENO);
  fprintf(out, "| %s %s%s | %s |", c->is_decode ? "decode" : "prefill", fa_bench_shape_text(c, shape),
          c->causal ? " causal" : "", fa_dtype_name(c->dtype));
  const fa_attention_problem problem = fa_bench_problem(c, c->kernel);
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(context, &problem, &plan);
  fa_plan_destroy(plan);
  if (status) {
    fprintf(out, " not timed: %s | | | | | | |\n", fa_last_error());
    return FA_EXIT_OK;
  }
  if (shows_progress) fprintf(stderr, "timing %s ...", shape);
  const int code = fa_bench_time(context, device, c, repeats, &result);
  if (shows_progress) fprintf(stderr, "\r%60s\r", "");
  if (code) {
    fprintf(out, " not timed: %s | | | | | | |\n", *fa_last_error() ? fa_last_error() : "the result was wrong");
    return code;
  }
  const fa_bench_timing *const fast = &result.timing[FA_BENCH_FAST];
  const double rate =
      c->is_decode ? fa_bench_bytes(c) / fast->ms * 1e-6 : fa_bench_operations(c) / fast->ms * 1e-9;
  fprintf(out, " %s | %.4g | %.4g %s |", fast->kernel, fast->ms, rate, c->is_decode ? "GB/s" : "TFLOP/s");
  print_ratio(out, fast, &result.timing[FA_BENCH_STANDARD]);
  print_ratio(out, fast, &result.timing[FA_BENCH_EAGER]);
  const double predicted = model_ms(fa_model_find_gpu(device->description), c, fast->kernel);
  if (predicted > 0.0)
    fprintf(out, " %.4g | %.2f |\n", predicted, fast->ms / predicted);
  else
    fprintf(out, " - | - |\n");
  return FA_EXIT_OK;
}

static int write_benches(FILE *out, fa_context *context, const fa_device_info *device) {
  if (fa_bench_is_emulated(device->name)) {
    fprintf(out, "\n## Times\n\nNone: the device is emulated. `fastattn sim` has the model's.\n");
    return FA_EXIT_OK;
  }
  const bool is_cpu = strcmp(device->name, "cpu") == 0;
  const bench_grid *const grid = options.quick ? &quick_grid : &full_grid;
  const fa_model_gpu *const gpu = fa_model_find_gpu(device->description);
  fprintf(
      out,
      "\n## Times (measured), beside the model\n\nMedian of %d runs, each result checked first; shapes "
      "are batch, query heads, KV heads, queries, keys, head size. In brackets: how many times as long as "
      "this library's kernel.\n",
      grid->repeats);
  if (gpu) {
    fprintf(out,
            "Model: what a %s would take by the instruction counts of its kernels, at the clock and memory rate "
            "that docs/gpu_model.md names: prefill's main loop, decode's reading of the cache.\n\n",
            gpu->name);
  } else {
    fprintf(out, "There is no model for this device (V100 and T4 have one).\n\n");
  }
  fprintf(out,
          "| problem | type | kernel | ms (measured) | rate (measured) | standard, ms (measured) | eager, ms "
          "(measured) | ms (model) | measured / model |\n"
          "|---|---|---|---|---|---|---|---|---|\n");
  int worst = FA_EXIT_OK;
  for (const int64_t *dim = grid->head_dims; *dim; dim++) {
    for (const int64_t *length = grid->prefill_lengths; *length; length++) {
      for (int causal = 0; causal <= 1; causal++) {
        const fa_bench_case c = prefill_case(is_cpu, *dim, *length, causal);
        if (write_bench(out, context, device, &c, grid->repeats)) worst = FA_EXIT_FAILURE;
      }
    }
  }
  for (const int64_t *length = grid->decode_lengths; *length; length++) {
    const fa_bench_case c = decode_case(is_cpu, *length);
    if (write_bench(out, context, device, &c, grid->repeats)) worst = FA_EXIT_FAILURE;
  }
  return worst;
}

/* -------------------------------------------------------------- the command */

static int write_report(FILE *out, fa_context *context, const fa_device_info *found) {
  fa_device_info device = *found;
  /* A device's strings last until the next one is described. */
  char name[64], description[256], isa[256];
  snprintf(name, sizeof name, "%s", device.name);
  snprintf(description, sizeof description, "%s", device.description);
  snprintf(isa, sizeof isa, "%s", device.isa);
  device.name = name;
  device.description = description;
  device.isa = isa;
  print_machine(out, context, &device);
  print_kernels(out, device.name);
  const int failed = write_checks(out);
  const int untimed = write_benches(out, context, &device);
  fprintf(out,
          "\n## Where to send this\n\nOpen an issue at the project's repository and attach this file. Thank "
          "you.\n");
  if (failed) return fa_failure("a check failed or could not run; the report says which");
  return untimed;
}

int fa_report_command(int argc, const char **argv) {
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  if (options.cases < 1) return fa_usage_error("--cases is %lld; it must be at least 1", options.cases);
  fa_context *context;
  code = fa_options_context(&options.common, &context);
  if (code) return code;
  fa_output output = FA_OUTPUT_INIT;
  fa_device_info device;
  code = fa_options_kernel(&options.common, context);
  if (!code) code = fa_bench_find_device(options.common.device, &device);
  if (!code) code = fa_output_open(&output, options.out);
  if (!code) {
    /* What went wrong belongs into the file too: it is kept. */
    code = write_report(output.file, context, &device);
    const int written = fa_output_commit(&output);
    if (written)
      code = written;
    else if (strcmp(options.out, "-") != 0)
      printf("%s is written; open an issue and attach it.\n", options.out);
  }
  fa_context_destroy(context);
  return code;
}
