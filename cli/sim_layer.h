/* Prefill of a language model's layers on the emulated Ascend chip, with each way to do attention. */
#ifndef FA_CLI_SIM_LAYER_H
#define FA_CLI_SIM_LAYER_H

#include "sim_run.h"

#define FA_SIM_ARCH_NAMES "llama-7b, llama-13b, llama2-70b, llama3-8b, mistral-7b or qwen2.5-7b"

typedef struct fa_sim_layer {
  const fa_sim_chip *chip;
  const char *arch;
  int64_t batch, seq;
  fa_dtype dtype;
  const fa_ascend_wish *wish; /* of two-level */
  const fa_sim_tiling *const *tiling;
  int tilings;
} fa_sim_layer;

/* A row a tiling. Layers are only timed, after attention was compared on a smaller problem. */
int fa_sim_layers(const fa_sim_layer *layer, bool prints, cJSON *rows);

#endif
