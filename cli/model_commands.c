/* What generate, perplexity and bench-model share. */
#include "model_commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench_time.h"

int fa_model_failure(void) { return fa_failure("%s", fa_llama_last_error()); }

double fa_model_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* By name or by family, as fa_attention_problem.kernel takes it. */
static bool is_kernel(const char *name) {
  for (int32_t i = 0; i < fa_kernel_count(); i++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &info) != FA_OK) continue;
    if (strcmp(info.name, name) == 0 || strcmp(info.arch, name) == 0) return true;
  }
  return false;
}

int fa_model_attention(const char *attention, const char *kernel, const char **problem_kernel,
                       const char **name) {
  static const char *const known[] = {"fast", "standard", "eager"};
  if (attention && kernel) {
    return fa_usage_error("--attention %s and --kernel %s are both given; one names the kernel", attention,
                          kernel);
  }
  *name = kernel ? kernel : attention ? attention : "fast";
  *problem_kernel = NULL;
  bool allowed = kernel != NULL;
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) allowed |= strcmp(*name, known[i]) == 0;
  if (!allowed) return fa_usage_error("--attention is '%s'; allowed: fast, standard, eager", attention);
  if (strcmp(*name, "fast") == 0) return FA_EXIT_OK;
  *problem_kernel = *name;
  if (is_kernel(*name)) return FA_EXIT_OK;
  return fa_usage_error("unknown kernel '%s'; `fastattn info` lists those of this build", *name);
}

const fa_operators *fa_model_operators(const char *device) {
  if (strcmp(device, "cpu") == 0) return &fa_cpu_operators;
#if FA_WITH_CUDA
  if (fa_is_device_of(device, "cuda")) return &fa_cuda_operators;
  (void)fa_usage_error("--device is '%s'; models run on cpu and cuda", device);
#else
  (void)fa_usage_error("--device is '%s'; models run on cpu (this build is without CUDA)", device);
#endif
  return NULL;
}

int fa_model_dtype(const char *text, int32_t *dtype) {
  fa_dtype given;
  *dtype = -1;
  if (!text) return FA_EXIT_OK;
  if (!fa_options_dtype(text, &given) || given > FA_BFLOAT16)
    return fa_usage_error("--dtype is '%s'; allowed: f32, f16, bf16", text);
  *dtype = (int32_t)given;
  return FA_EXIT_OK;
}

void fa_model_progress(void *what, int64_t done, int64_t total) {
  if (!isatty(STDERR_FILENO)) return;
  fprintf(stderr, "\r%s %lld of %lld", (const char *)what, (long long)done, (long long)total);
  if (done == total) fprintf(stderr, "\r%40s\r", "");
}

int fa_model_open(const fa_common_options *common, const char *path, const char *dtype, fa_context **context,
                  fa_llama_model **model) {
  static char loading[] = "loading layer";
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  load.operators = fa_model_operators(common->device);
  if (!load.operators) return FA_EXIT_USAGE;
  load.progress = fa_model_progress;
  load.progress_user = loading;
  int code = fa_model_dtype(dtype, &load.dtype);
  if (code == FA_EXIT_OK) code = fa_options_context(common, context);
  if (code != FA_EXIT_OK) return code;
  return fa_llama_model_load(*context, path, &load, model) == FA_OK ? FA_EXIT_OK : fa_model_failure();
}

cJSON *fa_model_memory(const fa_llama_session *session) {
  fa_llama_memory memory;
  fa_llama_session_memory(session, &memory);
  cJSON *bytes = cJSON_CreateObject();
  cJSON_AddNumberToObject(bytes, "weights", (double)memory.weights);
  cJSON_AddNumberToObject(bytes, "cache", (double)memory.cache);
  cJSON_AddNumberToObject(bytes, "activations", (double)memory.activations);
  cJSON_AddNumberToObject(bytes, "workspace", (double)memory.workspace);
  return bytes;
}

int fa_model_read_text(const char *path, char **text, size_t *length) {
  const bool standard = strcmp(path, "-") == 0;
  FILE *file = standard ? stdin : fopen(path, "rb");
  if (!file) return fa_failure("cannot open %s: %s", path, strerror(errno));
  size_t capacity = 1 << 16, used = 0, got = 0;
  char *bytes = malloc(capacity);
  while (bytes && (got = fread(bytes + used, 1, capacity - used - 1, file)) > 0) {
    used += got;
    if (used + 1 < capacity) continue;
    char *larger = realloc(bytes, capacity *= 2);
    if (!larger) free(bytes);
    bytes = larger;
  }
  const bool broken = ferror(file) != 0;
  const int error = errno;
  if (!standard) fclose(file);
  if (!bytes) return fa_failure("no memory for the text of %s", path);
  if (broken) {
    free(bytes);
    return fa_failure("cannot read %s: %s", path, strerror(error));
  }
  bytes[used] = '\0';
  *text = bytes;
  *length = used;
  return FA_EXIT_OK;
}

void fa_model_describe(cJSON *row, const fa_common_options *common, const fa_context *context,
                       const fa_llama_model *model, const char *path) {
  fa_device_info device;
  cJSON_AddStringToObject(row, "model", path);
  cJSON_AddNumberToObject(row, "parameters", (double)fa_llama_model_parameters(model));
  cJSON_AddStringToObject(row, "dtype", fa_dtype_name(fa_llama_model_dtype(model)));
  cJSON_AddStringToObject(row, "device", common->device);
  cJSON_AddNumberToObject(row, "threads", fa_context_threads(context));
  if (fa_bench_find_device(common->device, &device) == FA_EXIT_OK)
    cJSON_AddStringToObject(row, "machine", device.description);
  cJSON_AddStringToObject(row, "commit", fa_commit());
}
