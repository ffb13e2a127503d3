/* fastattn generate: a language model answers, or continues a text; several prompts at once if there are several. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "model_commands.h"

static struct {
  fa_common_options common;
  const char *model, *system, *attention, *seed, *dtype;
  const char **prompts, **prompt_files, **stops;
  double temperature, top_p, min_p, penalty;
  long top_k, tokens, chunk, page;
  int chat, raw;
} options = {.common = FA_COMMON_OPTIONS_INIT, .top_p = 1.0, .penalty = 1.0, .tokens = 128};

static const struct poptOption table[] = {
    {"model", 'm', POPT_ARG_STRING, &options.model, 0, "the model: a GGUF file, or a folder with safetensors", "FILE"},
    {"prompt", 'p', POPT_ARG_ARGV, &options.prompts, 0,
     "what to answer, or with --raw to continue; given several times, all are answered together", "TEXT"},
    {"prompt-file", '\0', POPT_ARG_ARGV, &options.prompt_files, 0,
     "read a prompt from a file; - is standard input; may be given several times", "FILE"},
    {"system", '\0', POPT_ARG_STRING, &options.system, 0,
     "the system message (default: that of the model's chat template)", "TEXT"},
    {"tokens", 'n', POPT_ARG_LONG, &options.tokens, 0, "tokens to generate at most (default 128)", "N"},
    {"stop", '\0', POPT_ARG_ARGV, &options.stops, 0, "end an answer where this text comes; may be given several times", "TEXT"},
    {"chat", '\0', POPT_ARG_NONE, &options.chat, 0,
     "put the prompt into the model's chat template (default where the model has one)", NULL},
    {"raw", '\0', POPT_ARG_NONE, &options.raw, 0, "continue the prompt as plain text", NULL},
    {"no-chat", '\0', POPT_ARG_NONE, &options.raw, 0, "the same as --raw", NULL},
    {"attention", '\0', POPT_ARG_STRING, &options.attention, 0,
     "fast, or a baseline to compare with: standard, eager (default fast)", "NAME"},
    {"temp", '\0', POPT_ARG_DOUBLE, &options.temperature, 0,
     "temperature of sampling; 0 takes the likeliest token each time (default 0)", "X"},
    {"top-k", '\0', POPT_ARG_LONG, &options.top_k, 0, "sample from the K likeliest; 0 is all (default 0)",
     "K"},
    {"top-p", '\0', POPT_ARG_DOUBLE, &options.top_p, 0,
     "sample from the likeliest that together have probability P (default 1)", "P"},
    {"min-p", '\0', POPT_ARG_DOUBLE, &options.min_p, 0,
     "leave out what is less likely than P times the likeliest (default 0)", "P"},
    {"repeat-penalty", '\0', POPT_ARG_DOUBLE, &options.penalty, 0,
     "divide the logits of tokens that have occurred, prompt included; 1 is off (default 1)", "R"},
    {"seed", '\0', POPT_ARG_STRING, &options.seed, 0, "seed of sampling (default 0)", "N"},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtype, 0,
     "f32, f16 or bf16: of activations, KV cache and unquantised weights (default: the device's best)", "T"},
    {"chunk", '\0', POPT_ARG_LONG, &options.chunk, 0, "tokens of prompts read at a time; 0 is 8192 at most (default 0)", "N"},
    {"page", '\0', POPT_ARG_LONG, &options.page, 0, "tokens a page of the KV cache; 0 chooses (default 0)", "N"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "generate", "-m FILE -p TEXT [-n N] [OPTION...]",
    "Lets a language model answer a question, or continue a text, and prints the tokens\n"
    "as they come; the speed follows on standard error. The prompt is processed at once,\n"
    "through the attention that --attention names. Several prompts are answered together,\n"
    "over one paged KV cache, and printed as they end. The same command with the same\n"
    "seed prints the same text on a CPU; on a GPU two tokens may change places where\n"
    "their logits are within rounding.",
    "  fastattn generate -m SmolLM2-135M-Instruct.Q4_1.gguf -p \"Why is the sky blue?\" -n 64"};

typedef struct generation {
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  fa_sampler *sampler;
  fa_answer *answers;
  int64_t count; /* of answers */
  const char *kernel, *attention;
  fa_sampler_options sampling;
  double load_s;
  fa_answering answering;
  fa_output json;
} generation;

static int64_t length_of(const char **list) {
  int64_t count = 0;
  while (list && list[count]) count++;
  return count;
}

static int read_options(generation *g) {
  if (!options.model) return fa_usage_error("-m is missing; it names the model, a GGUF file or a folder");
  g->count = length_of(options.prompts) + length_of(options.prompt_files);
  if (g->count == 0) return fa_usage_error("-p is missing; it is the prompt (or --prompt-file)");
  if (g->count > 4096) return fa_usage_error("%lld prompts; at most 4096 are answered together", (long long)g->count);
  if (options.tokens < 1 || options.tokens > 1 << 26) {
    return fa_usage_error("-n is %ld; it must be 1 .. %d", options.tokens, 1 << 26);
  }
  if (options.chunk < 0 || options.page < 0)
    return fa_usage_error("--chunk %ld, --page %ld; both must be at least 0", options.chunk, options.page);
  if (options.chat && options.raw) return fa_usage_error("--chat and --raw are both given; choose one");
  if (options.raw && options.system)
    return fa_usage_error("--system needs the chat template; leave out --raw");
  if (options.seed) {
    char *end;
    g->sampling.seed = strtoull(options.seed, &end, 0);
    if (end == options.seed || *end || strchr(options.seed, '-')) {
      return fa_usage_error("--seed is '%s'; it must be an integer of at least 0", options.seed);
    }
  }
  for (int64_t i = 0; i < length_of(options.stops); i++) {
    if (!options.stops[i][0]) return fa_usage_error("--stop is empty; give at least one character");
  }
  g->sampling.temperature = options.temperature;
  g->sampling.top_p = options.top_p;
  g->sampling.top_k = options.top_k;
  g->sampling.min_p = options.min_p;
  g->sampling.repetition_penalty = options.penalty;
  if (fa_sampler_create(0, &g->sampling, &g->sampler) != FA_OK) return fa_usage_error("%s", fa_llama_last_error());
  return fa_model_attention(options.attention, options.common.kernel, &g->kernel, &g->attention);
}

static int encode(generation *g, const char *text, size_t length, const char *file, fa_answer *answer) {
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(g->model);
  const bool chat = options.chat || (!options.raw && fa_tokenizer_has_chat_template(tokenizer));
  if (chat && strlen(text) != length) return fa_failure("%s holds a zero byte; a message is text", file);
  const fa_status status =
      chat ? fa_tokenizer_encode_chat(tokenizer, options.system, text, &answer->prompt)
           : fa_tokenizer_encode(tokenizer, text, length, FA_ENCODE_SPECIAL | FA_ENCODE_BOS, &answer->prompt);
  if (status != FA_OK) return fa_model_failure();
  const int64_t context = fa_llama_model_shape(g->model)->context;
  if (answer->prompt.count == 0) return fa_usage_error("the prompt is empty; give at least one character");
  if (answer->prompt.count > context - options.tokens) {
    return fa_usage_error("a prompt of %lld tokens and -n %ld; together at most %lld, the model's context",
                          (long long)answer->prompt.count, options.tokens, (long long)context);
  }
  return FA_EXIT_OK;
}

static int encode_prompts(generation *g) {
  const int64_t given = length_of(options.prompts);
  int code = FA_EXIT_OK;
  for (int64_t i = 0; i < g->count && code == FA_EXIT_OK; i++) {
    const char *file = i < given ? NULL : options.prompt_files[i - given];
    char *text = NULL;
    size_t length = file ? 0 : strlen(options.prompts[i]);
    if (file) code = fa_model_read_text(file, &text, &length);
    if (code == FA_EXIT_OK) code = encode(g, file ? text : options.prompts[i], length, file, &g->answers[i]);
    free(text);
    if (code == FA_EXIT_OK &&
        fa_stop_text_create(options.stops, (int)length_of(options.stops), &g->answers[i].stop) != FA_OK)
      code = fa_model_failure();
  }
  return code;
}

static int prepare(generation *g) {
  static char reading[] = "reading token";
  const double begin = fa_model_seconds();
  g->answers = calloc((size_t)g->count, sizeof *g->answers);
  if (!g->answers) return fa_failure("no memory for the answers");
  int code = fa_model_open(&options.common, options.model, options.dtype, &g->context, &g->model);
  if (code == FA_EXIT_OK) code = encode_prompts(g);
  if (code != FA_EXIT_OK) return code;
  fa_llama_session_options session = FA_LLAMA_SESSION_OPTIONS_INIT;
  for (int64_t i = 0; i < g->count; i++) {
    const int64_t tokens = g->answers[i].prompt.count + options.tokens;
    if (tokens > session.max_tokens) session.max_tokens = tokens;
  }
  session.max_sequences = g->count;
  session.max_rows = options.chunk;
  session.page_size = options.page;
  session.kernel = g->kernel;
  session.progress = fa_model_progress;
  session.progress_user = reading;
  if (fa_llama_session_create(g->model, &session, &g->session) != FA_OK) return fa_model_failure();
  g->load_s = fa_model_seconds() - begin;
  return FA_EXIT_OK;
}

/* A single answer is printed as it comes, several as they end. */
static void stream(void *user, const fa_answer *answer, const char *bytes, size_t length) {
  const generation *g = user;
  if (g->count == 1) fwrite(bytes, 1, length, stdout);
  else if (answer->finish) printf("[%lld] %s\n", (long long)(answer - g->answers) + 1, answer->text ? answer->text : "");
  fflush(stdout);
}

static int generate(generation *g) {
  const bool text = fa_options_prints_text(&options.common);
  g->answering = (fa_answering){.session = g->session, .sampler = g->sampler, .tokens = options.tokens,
                                .wants_gaps = options.common.json != NULL, .show = text ? stream : NULL, .user = g};
  const int code = fa_answers_run(&g->answering, g->answers, g->count);
  if (code != FA_EXIT_OK || !text) return code;
  if ((g->count == 1 && putchar('\n') == EOF) || fflush(stdout) != 0)
    return fa_failure("cannot write the text to standard output");
  return code;
}

static double rate(double count, double seconds) {
  return count > 0.0 && seconds > 0.0 ? count / seconds : 0.0;
}

static void count_tokens(const generation *g, int64_t *prompt, int64_t *generated) {
  *prompt = *generated = 0;
  for (int64_t i = 0; i < g->count; i++) {
    *prompt += g->answers[i].prompt.count;
    *generated += g->answers[i].generated.count;
  }
}

/* The first token comes with the prompt: generation's rate is that of the steps behind it. */
static void report(const generation *g) {
  int64_t prompt, generated;
  count_tokens(g, &prompt, &generated);
  fprintf(stderr, "%s: prompt %lld tokens, %.1f tokens/s; generated %lld tokens, %.1f tokens/s; ", g->attention, (long long)prompt,
          rate((double)prompt, g->answering.prompt_s), (long long)generated,
          rate((double)g->answering.decoded, g->answering.decode_s));
  if (strcmp(options.common.device, "cpu") == 0)
    fprintf(stderr, "%d threads\n", fa_context_threads(g->context));
  else
    fprintf(stderr, "%s\n", options.common.device);
}

static bool add_answer(cJSON *row, const fa_answer *answer) {
  cJSON *tokens = cJSON_CreateIntArray(answer->generated.ids, (int)answer->generated.count);
  cJSON *gaps = cJSON_CreateFloatArray(answer->gaps, (int)answer->generated.count);
  if (!tokens || !gaps) {
    cJSON_Delete(tokens);
    cJSON_Delete(gaps);
    return false;
  }
  cJSON_AddStringToObject(row, "text", answer->text ? answer->text : "");
  cJSON_AddStringToObject(row, "finish", answer->finish);
  cJSON_AddNumberToObject(row, "prompt_tokens", (double)answer->prompt.count);
  cJSON_AddNumberToObject(row, "generated_tokens", (double)answer->generated.count);
  cJSON_AddItemToObject(row, "tokens", tokens);
  cJSON_AddItemToObject(row, "gaps", gaps);
  return true;
}

static bool add_answers(cJSON *row, const generation *g) {
  if (g->count == 1) return add_answer(row, &g->answers[0]);
  cJSON *list = cJSON_AddArrayToObject(row, "answers");
  for (int64_t i = 0; i < g->count; i++) {
    cJSON *answer = cJSON_CreateObject();
    if (!answer || !cJSON_AddItemToArray(list, answer) || !add_answer(answer, &g->answers[i])) return false;
  }
  return true;
}

static int write_json(generation *g) {
  cJSON *row = cJSON_CreateObject();
  int64_t prompt, generated;
  int code;
  count_tokens(g, &prompt, &generated);
  if (row) {
    cJSON_AddStringToObject(row, "op", "generate");
    fa_model_describe(row, &options.common, g->context, g->model, options.model);
    cJSON_AddStringToObject(row, "attention", g->attention);
    cJSON_AddStringToObject(row, "prefill_kernel", fa_llama_session_prefill_kernel(g->session));
    cJSON_AddStringToObject(row, "decode_kernel", fa_llama_session_decode_kernel(g->session));
    cJSON_AddNumberToObject(row, "batch", (double)g->count);
    cJSON_AddNumberToObject(row, "load_s", g->load_s);
    cJSON_AddNumberToObject(row, "prompt_ms", g->answering.prompt_s * 1e3);
    cJSON_AddNumberToObject(row, "prompt_tokens_per_s", rate((double)prompt, g->answering.prompt_s));
    cJSON_AddNumberToObject(row, "decode_ms", g->answering.decode_s * 1e3);
    cJSON_AddNumberToObject(row, "decode_tokens_per_s", rate((double)g->answering.decoded, g->answering.decode_s));
    cJSON_AddItemToObject(row, "memory", fa_model_memory(g->session));
  }
  code = row && add_answers(row, g) ? fa_output_json(&g->json, row) : fa_failure("no memory for the JSON");
  cJSON_Delete(row);
  return code;
}

static void release(generation *g) {
  fa_output_discard(&g->json);
  for (int64_t i = 0; g->answers && i < g->count; i++) fa_answer_release(&g->answers[i]);
  free(g->answers);
  fa_sampler_free(g->sampler);
  fa_llama_session_free(g->session);
  fa_llama_model_free(g->model);
  fa_context_destroy(g->context);
}

int fa_generate_command(int argc, const char **argv) {
  generation g = {.sampling = FA_SAMPLER_OPTIONS_INIT, .json = FA_OUTPUT_INIT};
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  code = read_options(&g);
  if (code == FA_EXIT_OK && options.common.json) code = fa_output_open(&g.json, options.common.json);
  if (code == FA_EXIT_OK) code = prepare(&g);
  if (code == FA_EXIT_OK) code = generate(&g);
  if (code == FA_EXIT_OK) report(&g);
  if (code == FA_EXIT_OK && options.common.json) code = write_json(&g);
  release(&g);
  return code;
}
