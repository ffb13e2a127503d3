/* Timing one point of bench-model's grid. */
#ifndef FA_CLI_BENCH_MODEL_H
#define FA_CLI_BENCH_MODEL_H

#include <cjson/cJSON.h>

#include "llama.h"

enum { FA_BENCH_ATTENTIONS = 8, FA_BENCH_WARM_STEPS = 3 /* decoded before what is timed */ };

typedef struct fa_bench_attention {
  const char *name;
  const char *kernel; /* fa_attention_problem.kernel */
} fa_bench_attention;

typedef struct fa_bench_model {
  const fa_llama_model *model;
  const char *name, *device;
  fa_bench_attention attention[FA_BENCH_ATTENTIONS];
  int attentions;
  int64_t generate, chunk, page;
  int repeats;
  bool no_graph;
} fa_bench_model;

typedef struct fa_bench_model_row {
  const char *op, *attention;
  int64_t batch, prompt, generate, chunk;
  bool ran;
  char why[160];  /* when it did not */
  double ms;      /* prefill: of the prompts; decode: of a step; mixed: of a pass. Median */
  double ms_min;
  double tokens_per_s; /* all sequences together */
  char kernel[64];
  fa_llama_memory memory;
  cJSON *json_memory;
} fa_bench_model_row;

/* Fills what op, batch, prompt and generate ask for. A device out of memory, or an attention that does not do the
 * problem, is a row that did not run. FA_EXIT_OK, or prints and returns the exit code. */
int fa_bench_model_time(const fa_bench_model *bench, const fa_bench_attention *attention, fa_bench_model_row *row);

#endif
