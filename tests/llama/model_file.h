/* Where the tests find the real model: FASTATTENTION_MODEL, or the cache that scripts/fetch_model.sh fills.
 */
#ifndef FA_TESTS_MODEL_FILE_H
#define FA_TESTS_MODEL_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#define FA_TEST_MODEL_NAME "SmolLM2-135M-Instruct.Q4_1.gguf"
#define FA_TEST_GEMMA_NAME "gemma-3-270m-q4_k_m.gguf" /* scripts/fetch_model.sh gemma3 */

/* NULL when it is not here; then the test says so and skips. */
static inline const char *fa_test_model_named(const char *name, const char *variable) {
  static char path[4096];
  const char *given = getenv(variable), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (given && *given)
    snprintf(path, sizeof path, "%s", given);
  else if (cache && *cache)
    snprintf(path, sizeof path, "%s/fastattention/%s", cache, name);
  else
    snprintf(path, sizeof path, "%s/.cache/fastattention/%s", home ? home : "", name);
  FILE *file = fopen(path, "rb");
  if (file) fclose(file);
  if (!file) fprintf(stderr, "no model at %s (scripts/fetch_model.sh brings it): skipped\n", path);
  return file ? path : NULL;
}

/* FASTATTENTION_TEST_DEVICE, or the CPU: the same tests serve every device that models run on. */
static inline const char *fa_test_device(void) {
  const char *given = getenv("FASTATTENTION_TEST_DEVICE");
  return given && *given ? given : "cpu";
}

static inline const fa_operators *fa_test_operators(void) {
#if FA_WITH_CUDA
  if (strncmp(fa_test_device(), "cuda", 4) == 0) return &fa_cuda_operators;
#endif
  return &fa_cpu_operators;
}

static inline const char *fa_test_model(void) {
  return fa_test_model_named(FA_TEST_MODEL_NAME, "FASTATTENTION_MODEL");
}

static inline const char *fa_test_gemma(void) {
  return fa_test_model_named(FA_TEST_GEMMA_NAME, "FASTATTENTION_GEMMA");
}

#endif
