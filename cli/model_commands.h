/* The subcommands that run a language model; left out of a build without oneDNN or PCRE2. */
#ifndef FA_CLI_MODEL_COMMANDS_H
#define FA_CLI_MODEL_COMMANDS_H

#include "llama.h"
#include "options.h"

int fa_generate_command(int argc, const char **argv);
int fa_perplexity_command(int argc, const char **argv);
int fa_bench_model_command(int argc, const char **argv);

/* --attention and --kernel -> fa_attention_problem.kernel (NULL: the fastest) and what to call it.
 * Both return FA_EXIT_OK, or print and return the exit code. */
int fa_model_attention(const char *attention, const char *kernel, const char **problem_kernel,
                       const char **name);
/* The operators of --device; NULL, printed, where models do not run on it. */
const fa_operators *fa_model_operators(const char *device);
/* --dtype -> fa_llama_load_options.dtype: NULL is -1. FA_EXIT_OK, or prints and returns the exit code. */
int fa_model_dtype(const char *text, int32_t *dtype);
/* Opens --device and --threads, and the model at `path` on it; progress on a terminal. */
int fa_model_open(const fa_common_options *common, const char *path, const char *dtype, fa_context **context,
                  fa_llama_model **model);
/* Shows "<what> <done> of <total>" on a terminal's standard error; `user` is what. */
void fa_model_progress(void *what, int64_t done, int64_t total);
/* Bytes of a session's memory as a JSON object. */
cJSON *fa_model_memory(const fa_llama_session *session);

/* Reads a whole file, "-" is standard input. *text is malloc'd and terminated. */
int fa_model_read_text(const char *path, char **text, size_t *length);

/* What the JSON of both commands says about the machine and the build. */
void fa_model_describe(cJSON *row, const fa_common_options *common, const fa_context *context,
                       const fa_llama_model *model, const char *path);

/* Prints fa_llama_last_error(). */
int fa_model_failure(void);

double fa_model_seconds(void);

#endif
