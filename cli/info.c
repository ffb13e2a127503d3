/* fastattn info: devices, kernels, features, and what typical problems would choose. */
#include <stdlib.h>
#include <string.h>

#include "bench_time.h"
#include "commands.h"
#include "fastattention/fa_tuning.h"
#include "options.h"

static struct { fa_common_options common; } options = {FA_COMMON_OPTIONS_INIT};

static const struct poptOption table[] = {FA_OPTION_DEVICE(options.common), FA_OPTION_THREADS(options.common),
                                          FA_OPTION_KERNEL(options.common), FA_OPTION_JSON(options.common),
                                          POPT_TABLEEND};

static const fa_command_help help = {
    "info", "[OPTION...]",
    "Shows the devices found, the kernels of this build and the features each has, and\n"
    "for a few typical problems which kernel is chosen, with which tiles, and why.\n"
    "Tiles have two levels: the first fills the large near memory (L2 cache), the second\n"
    "the unit that multiplies (registers, AMX tiles); each is query rows x keys. A tuning\n"
    "file (see `fastattn tune`) is named by FASTATTENTION_TUNING.",
    "  fastattn info\n"
    "  fastattn info --json - | python3 -m json.tool"};

typedef struct typical {
  const char *name;
  fa_dtype dtype;
  int64_t heads_q, heads_kv, seqlen_q, seqlen_kv, dim, dim_v;
  int32_t causal;
  int64_t window_left; /* -1: none */
  float softcap;
  int64_t page_size; /* 0: not paged */
} typical;

static const typical typicals[] = {
    {"prompt of 4K tokens, bf16", FA_BFLOAT16, 32, 8, 4096, 4096, 128, 128, 1, -1, 0.0f, 0},
    {"prompt of 4K tokens, f16", FA_FLOAT16, 32, 8, 4096, 4096, 128, 128, 1, -1, 0.0f, 0},
    {"prompt of 512 tokens, bf16", FA_BFLOAT16, 32, 8, 512, 512, 128, 128, 1, -1, 0.0f, 0},
    {"prompt of 4K tokens, f32", FA_FLOAT32, 32, 8, 4096, 4096, 128, 128, 1, -1, 0.0f, 0},
    {"small model's prompt, f32", FA_FLOAT32, 9, 3, 512, 512, 64, 64, 1, -1, 0.0f, 0},
    {"sliding window and softcap, bf16", FA_BFLOAT16, 8, 4, 8192, 8192, 256, 256, 1, 4096, 50.0f, 0},
    {"MLA prompt (192/128), bf16", FA_BFLOAT16, 16, 16, 4096, 4096, 192, 128, 1, -1, 0.0f, 0},
    {"next token after 256K, bf16", FA_BFLOAT16, 32, 8, 1, 262144, 128, 128, 1, -1, 0.0f, 0},
    {"next token after 4K, bf16", FA_BFLOAT16, 32, 8, 1, 4096, 128, 128, 1, -1, 0.0f, 0},
    {"next token after 4K, f32", FA_FLOAT32, 32, 8, 1, 4096, 128, 128, 1, -1, 0.0f, 0},
    {"next token, paged cache, f16", FA_FLOAT16, 32, 8, 1, 32768, 128, 128, 1, -1, 0.0f, 64},
};
enum { TYPICALS = sizeof typicals / sizeof typicals[0] };

static fa_attention_problem problem_of(const typical *t) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = p.kv_dtype = t->dtype;
  p.heads_q = t->heads_q;
  p.heads_kv = t->heads_kv;
  p.max_seqlen_q = t->seqlen_q;
  p.max_seqlen_kv = t->seqlen_kv;
  p.head_dim_qk = t->dim;
  p.head_dim_v = t->dim_v;
  p.causal = t->causal;
  p.window_left = t->window_left;
  p.softcap = t->softcap;
  p.page_size = t->page_size;
  if (t->page_size) {
    p.num_pages = t->seqlen_kv / t->page_size;
    p.has_seqlens_kv = 1;
  }
  p.kernel = options.common.kernel;
  return p;
}

static const char *bytes_text(int64_t bytes, char text[24]) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  int unit = 0;
  for (; value >= 1024.0 && unit < 4; unit++) value /= 1024.0;
  snprintf(text, 24, "%.*f %s", value < 10.0 && unit ? 1 : 0, value, units[unit]);
  return text;
}

static const char *types_text(uint32_t dtypes, char text[48]) {
  text[0] = '\0';
  for (int t = FA_FLOAT32; t <= FA_FP8_E4M3; t++) {
    if (!(dtypes >> t & 1u)) continue;
    if (text[0]) strcat(text, " ");
    strcat(text, fa_dtype_name((fa_dtype)t));
  }
  return text;
}

static bool is_there(const char *name) {
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info d = FA_DEVICE_INFO_INIT;
    if (fa_device_describe(i, &d) == FA_OK && fa_is_device_of(d.name, name)) return true;
  }
  return false;
}

/* A device that this build has kernels for and this machine lacks, and why. */
typedef struct missing_device {
  const char *name;
  char reason[256];
} missing_device;
enum { MOST_MISSING = 4 };

static void find_reason(missing_device *device) {
  fa_context_options asked = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  asked.device = device->name;
  device->reason[0] = '\0';
  if (fa_context_create(&asked, &context)) {
    char known[64]; /* what the line says first */
    const int length = snprintf(known, sizeof known, "device '%s' is not there: ", device->name);
    const char *const line = fa_last_error();
    snprintf(device->reason, sizeof device->reason, "%s", strncmp(line, known, (size_t)length) ? line : line + length);
  }
  fa_context_destroy(context);
}

static int find_missing(missing_device found[MOST_MISSING]) {
  int count = 0;
  for (int32_t i = 0; i < fa_kernel_count() && count < MOST_MISSING; i++) {
    fa_kernel_info k = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &k) || is_there(k.device)) continue;
    bool known = false;
    for (int n = 0; n < count; n++) known |= strcmp(found[n].name, k.device) == 0;
    if (known) continue;
    found[count].name = k.device;
    find_reason(&found[count++]);
  }
  return count;
}

/* ------------------------------------------------------------ for people */

static void print_devices(void) {
  printf("Devices\n");
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info d = FA_DEVICE_INFO_INIT;
    if (fa_device_describe(i, &d)) continue;
    const char *const units = fa_is_device_of(d.name, "cpu") ? "cores" : fa_is_device_of(d.name, "cuda") ? "multiprocessors" : "units";
    const int64_t caches[] = {d.cache_l1_bytes, d.cache_l2_bytes, d.cache_l3_bytes};
    char text[24];
    printf("  %-8s %s\n           %d %s, %s of memory", d.name, d.description, d.units, units,
           bytes_text(d.memory_bytes, text));
    const char *before = ", caches";
    for (int level = 1; level <= 3; level++) { /* 0: there is none, or nobody knows */
      if (caches[level - 1] == 0) continue;
      printf("%s L%d %s", before, level, bytes_text(caches[level - 1], text));
      before = ",";
    }
    printf("\n           %s\n", d.isa);
  }
  missing_device missing[MOST_MISSING];
  const int count = find_missing(missing);
  for (int n = 0; n < count; n++) printf("  %-8s not there: %s\n", missing[n].name, missing[n].reason);
}

static void print_kernels(void) {
  const int32_t count = fa_kernel_count();
  printf(
      "\nKernels, fastest first; the first that runs here and does the whole problem is chosen\n"
      "   #  %-24s %-8s %-8s %-13s %-9s %s\n",
      "name", "device", "operation", "types", "head size", "runs here");
  for (int32_t i = 0; i < count; i++) {
    fa_kernel_info k = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &k)) continue;
    char types[48], head[24];
    snprintf(head, sizeof head, "<= %lld", (long long)k.max_head_dim);
    printf("  %2d  %-24s %-8s %-9s %-13s %-9s %s%s\n", i + 1, k.name, k.device, k.operation,
           types_text(k.dtypes, types), head, k.available ? "yes" : "no",
           k.is_baseline ? ", a baseline: only by name" : "");
  }
  printf("\nFeatures by kernel number (x: has it; what a kernel lacks, a later one does)\n  %-10s", "");
  for (int32_t i = 0; i < count; i++) printf("%3d", i + 1);
  printf("\n");
  for (int bit = 0; bit < FA_FEATURE_COUNT; bit++) {
    printf("  %-10s", fa_feature_name(bit));
    for (int32_t i = 0; i < count; i++) {
      fa_kernel_info k = FA_KERNEL_INFO_INIT;
      if (fa_kernel_describe(i, &k) == FA_OK) printf("  %c", k.features >> bit & 1u ? 'x' : '.');
    }
    printf("\n");
  }
}

/* Indented by six, broken between words. */
static void print_wrapped(const char *text) {
  enum { WIDTH = 90 };
  while (*text) {
    size_t length = strlen(text);
    if (length > WIDTH) {
      for (length = WIDTH; length > 0 && text[length] != ' ';) length--;
      if (length == 0) length = strcspn(text, " ");
    }
    printf("      %.*s\n", (int)length, text);
    text += length;
    text += strspn(text, " ");
  }
}

/* What plans go by besides the problem. */
static void print_tuning(fa_context *context) {
  fa_tuning_info tuning = FA_TUNING_INFO_INIT;
  if (fa_tuning_describe(context, &tuning)) return;
  printf("\nTuning\n");
  if (tuning.path) {
    printf("  %s\n", tuning.path);
    print_wrapped(tuning.why);
  } else {
    printf("  %s: FASTATTENTION_TUNING is not set\n", tuning.why);
  }
  fa_device_info d = FA_DEVICE_INFO_INIT;
  char text[24];
  if (!fa_is_device_of(options.common.device, "cpu") || fa_bench_find_device(options.common.device, &d)) return;
  if (d.cache_l2_bytes)
    printf("  the rule's tiles are for an L2 of %s a core\n", bytes_text(d.cache_l2_bytes, text));
  else
    printf("  the rule's tiles are for an L2 of 1 MiB a core: the system does not say how large it is\n");
}

static void print_choices(fa_context *context) {
  printf("\nWhat would be chosen with %d threads (shape is B,HQ,HKV,SQ,SKV,D[,DV])\n",
         fa_context_threads(context));
  for (int i = 0; i < TYPICALS; i++) {
    const typical *const t = &typicals[i];
    const fa_attention_problem problem = problem_of(t);
    fa_plan *plan;
    printf("  %s: 1,%lld,%lld,%lld,%lld,%lld", t->name, (long long)t->heads_q, (long long)t->heads_kv,
           (long long)t->seqlen_q, (long long)t->seqlen_kv, (long long)t->dim);
    if (t->dim_v != t->dim) printf(",%lld", (long long)t->dim_v);
    printf("%s\n", t->causal && t->seqlen_q > 1 ? " causal" : "");
    if (fa_plan_create(context, &problem, &plan)) {
      printf("      none: %s\n", fa_last_error());
      continue;
    }
    fa_plan_info chosen = FA_PLAN_INFO_INIT;
    char workspace[24];
    if (fa_plan_describe(plan, &chosen) == FA_OK) {
      printf("      %s, tiles %lldx%lld in %lldx%lld, splits %lld, workspace %s\n", chosen.kernel,
             (long long)chosen.level2_rows, (long long)chosen.level2_keys, (long long)chosen.level1_rows,
             (long long)chosen.level1_keys, (long long)chosen.kv_splits,
             bytes_text((int64_t)chosen.workspace_bytes, workspace));
      print_wrapped(chosen.reason);
    }
    fa_plan_destroy(plan);
  }
}

/* ---------------------------------------------------------- for programs */

static void add_devices(cJSON *info) {
  cJSON *const devices = cJSON_AddArrayToObject(info, "devices");
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info d = FA_DEVICE_INFO_INIT;
    if (fa_device_describe(i, &d)) continue;
    cJSON *const device = cJSON_CreateObject();
    cJSON_AddItemToArray(devices, device);
    cJSON_AddStringToObject(device, "name", d.name);
    cJSON_AddStringToObject(device, "description", d.description);
    cJSON_AddStringToObject(device, "isa", d.isa);
    cJSON_AddNumberToObject(device, "units", d.units);
    cJSON_AddNumberToObject(device, "memory_bytes", (double)d.memory_bytes);
    cJSON_AddNumberToObject(device, "cache_l1_bytes", (double)d.cache_l1_bytes);
    cJSON_AddNumberToObject(device, "cache_l2_bytes", (double)d.cache_l2_bytes);
    cJSON_AddNumberToObject(device, "cache_l3_bytes", (double)d.cache_l3_bytes);
  }
}

static void add_missing(cJSON *info) {
  cJSON *const array = cJSON_AddArrayToObject(info, "missing");
  missing_device missing[MOST_MISSING];
  const int count = find_missing(missing);
  for (int n = 0; n < count; n++) {
    cJSON *const device = cJSON_CreateObject();
    cJSON_AddItemToArray(array, device);
    cJSON_AddStringToObject(device, "name", missing[n].name);
    cJSON_AddStringToObject(device, "reason", missing[n].reason);
  }
}

static void add_kernels(cJSON *info) {
  cJSON *const kernels = cJSON_AddArrayToObject(info, "kernels");
  for (int32_t i = 0; i < fa_kernel_count(); i++) {
    fa_kernel_info k = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &k)) continue;
    cJSON *const kernel = cJSON_CreateObject();
    cJSON_AddItemToArray(kernels, kernel);
    cJSON_AddStringToObject(kernel, "name", k.name);
    cJSON_AddStringToObject(kernel, "device", k.device);
    cJSON_AddStringToObject(kernel, "arch", k.arch);
    cJSON_AddStringToObject(kernel, "operation", k.operation);
    cJSON *const dtypes = cJSON_AddArrayToObject(kernel, "dtypes");
    for (int t = FA_FLOAT32; t <= FA_FP8_E4M3; t++) {
      if (k.dtypes >> t & 1u) cJSON_AddItemToArray(dtypes, cJSON_CreateString(fa_dtype_name((fa_dtype)t)));
    }
    cJSON *const features = cJSON_AddArrayToObject(kernel, "features");
    for (int bit = 0; bit < FA_FEATURE_COUNT; bit++) {
      if (k.features >> bit & 1u) cJSON_AddItemToArray(features, cJSON_CreateString(fa_feature_name(bit)));
    }
    cJSON_AddNumberToObject(kernel, "max_head_dim", (double)k.max_head_dim);
    cJSON_AddBoolToObject(kernel, "available", k.available);
    cJSON_AddBoolToObject(kernel, "baseline", k.is_baseline);
  }
}

static void add_tuning(cJSON *info, fa_context *context) {
  fa_tuning_info tuning = FA_TUNING_INFO_INIT;
  cJSON *const object = cJSON_AddObjectToObject(info, "tuning");
  if (fa_tuning_describe(context, &tuning)) return;
  if (tuning.path)
    cJSON_AddStringToObject(object, "file", tuning.path);
  else
    cJSON_AddNullToObject(object, "file");
  cJSON_AddBoolToObject(object, "used", tuning.used);
  cJSON_AddStringToObject(object, "why", tuning.why);
  cJSON_AddNumberToObject(object, "entries", tuning.entries);
}

static void add_choices(cJSON *info, fa_context *context) {
  cJSON *const choices = cJSON_AddArrayToObject(info, "choices");
  for (int i = 0; i < TYPICALS; i++) {
    const typical *const t = &typicals[i];
    const fa_attention_problem problem = problem_of(t);
    cJSON *const choice = cJSON_CreateObject();
    cJSON_AddItemToArray(choices, choice);
    cJSON_AddStringToObject(choice, "problem", t->name);
    const double shape[] = {1.0,
                            (double)t->heads_q,
                            (double)t->heads_kv,
                            (double)t->seqlen_q,
                            (double)t->seqlen_kv,
                            (double)t->dim,
                            (double)t->dim_v};
    cJSON_AddItemToObject(choice, "shape", cJSON_CreateDoubleArray(shape, sizeof shape / sizeof shape[0]));
    cJSON_AddStringToObject(choice, "dtype", fa_dtype_name(t->dtype));
    cJSON_AddBoolToObject(choice, "causal", t->causal);
    fa_plan *plan;
    if (fa_plan_create(context, &problem, &plan)) {
      cJSON_AddNullToObject(choice, "kernel");
      cJSON_AddStringToObject(choice, "reason", fa_last_error());
      continue;
    }
    fa_plan_info chosen = FA_PLAN_INFO_INIT;
    if (fa_plan_describe(plan, &chosen) == FA_OK) {
      cJSON_AddStringToObject(choice, "kernel", chosen.kernel);
      cJSON_AddStringToObject(choice, "reason", chosen.reason);
      cJSON_AddNumberToObject(choice, "level1_rows", (double)chosen.level1_rows);
      cJSON_AddNumberToObject(choice, "level1_keys", (double)chosen.level1_keys);
      cJSON_AddNumberToObject(choice, "level2_rows", (double)chosen.level2_rows);
      cJSON_AddNumberToObject(choice, "level2_keys", (double)chosen.level2_keys);
      cJSON_AddNumberToObject(choice, "kv_splits", (double)chosen.kv_splits);
      cJSON_AddNumberToObject(choice, "threads", (double)chosen.threads);
      cJSON_AddNumberToObject(choice, "workspace_bytes", (double)chosen.workspace_bytes);
    }
    fa_plan_destroy(plan);
  }
}

static int write_json(fa_context *context) {
  fa_output output;
  int code = fa_output_open(&output, options.common.json);
  if (code) return code;
  cJSON *const info = cJSON_CreateObject();
  cJSON_AddStringToObject(info, "version", fa_version());
  cJSON_AddStringToObject(info, "commit", fa_commit());
  add_devices(info);
  add_missing(info);
  add_kernels(info);
  add_tuning(info, context);
  add_choices(info, context);
  code = fa_output_json(&output, info);
  cJSON_Delete(info);
  return code;
}

int fa_info_command(int argc, const char **argv) {
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  fa_context *context;
  code = fa_options_context(&options.common, &context);
  if (code) return code;
  code = fa_options_kernel(&options.common, context);
  if (code) {
    fa_context_destroy(context);
    return code;
  }
  if (fa_options_prints_text(&options.common)) {
    printf("FastAttention %s (commit %s)\n\n", fa_version(), fa_commit());
    print_devices();
    print_kernels();
    print_tuning(context);
    print_choices(context);
  }
  if (options.common.json) code = write_json(context);
  fa_context_destroy(context);
  return code;
}
