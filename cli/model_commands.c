/* What generate and perplexity share. */
#include "model_commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

int fa_model_open(const fa_common_options *common, const char *path, fa_context **context,
                  fa_llama_model **model) {
  if (strcmp(common->device, "cpu") != 0) {
    return fa_usage_error("--device is '%s'; models run on cpu", common->device);
  }
  const int code = fa_options_context(common, context);
  if (code != FA_EXIT_OK) return code;
  return fa_llama_model_load(*context, path, FA_LLAMA_AUTO, model) == FA_OK ? FA_EXIT_OK : fa_model_failure();
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

void fa_model_describe(cJSON *row, const fa_context *context, const fa_llama_model *model, const char *path) {
  cJSON_AddStringToObject(row, "model", path);
  cJSON_AddNumberToObject(row, "parameters", (double)fa_llama_model_parameters(model));
  cJSON_AddStringToObject(row, "dtype", fa_dtype_name(fa_llama_model_dtype(model)));
  cJSON_AddStringToObject(row, "device", "cpu");
  cJSON_AddNumberToObject(row, "threads", fa_context_threads(context));
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info info = FA_DEVICE_INFO_INIT;
    if (fa_device_describe(i, &info) == FA_OK && strcmp(info.name, "cpu") == 0) {
      cJSON_AddStringToObject(row, "machine", info.description);
    }
  }
  cJSON_AddStringToObject(row, "commit", fa_commit());
}
