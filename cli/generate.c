/* fastattn generate: a language model answers, or continues a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_commands.h"

static struct {
  fa_common_options common;
  const char *model, *prompt, *prompt_file, *system, *attention, *seed;
  double temperature, top_p;
  long top_k, tokens;
  int chat, raw;
} options = {.common = FA_COMMON_OPTIONS_INIT, .top_p = 1.0, .tokens = 128};

static const struct poptOption table[] = {
    {"model", 'm', POPT_ARG_STRING, &options.model, 0, "the model, a GGUF file of the Llama family", "FILE"},
    {"prompt", 'p', POPT_ARG_STRING, &options.prompt, 0, "what to answer, or with --raw to continue", "TEXT"},
    {"prompt-file", '\0', POPT_ARG_STRING, &options.prompt_file, 0,
     "read the prompt from a file; - is standard input", "FILE"},
    {"system", '\0', POPT_ARG_STRING, &options.system, 0,
     "the system message (default: that of the model's chat template)", "TEXT"},
    {"tokens", 'n', POPT_ARG_LONG, &options.tokens, 0, "tokens to generate at most (default 128)", "N"},
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
    {"seed", '\0', POPT_ARG_STRING, &options.seed, 0, "seed of sampling (default 0)", "N"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "generate", "-m FILE -p TEXT [-n N] [OPTION...]",
    "Lets a language model answer a question, or continue a text, and prints the tokens\n"
    "as they come; the speed follows on standard error. The prompt is processed at once,\n"
    "through the attention that --attention names. The same command with the same seed\n"
    "prints the same text.",
    "  fastattn generate -m SmolLM2-135M-Instruct.Q4_1.gguf -p \"Why is the sky blue?\" -n 64"};

typedef struct generation {
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  fa_sampler *sampler;
  fa_token_list prompt, generated;
  char *text; /* of the prompt, when read from a file */
  float *logits, *gaps;
  const char *kernel, *attention;
  fa_sampler_options sampling;
  bool ended;
  double load_s, prompt_s, decode_s;
  fa_output json;
} generation;

static int read_options(generation *g) {
  if (!options.model) return fa_usage_error("-m is missing; it names the model, a GGUF file");
  if (!options.prompt == !options.prompt_file) {
    return fa_usage_error(options.prompt ? "-p and --prompt-file are both given; one holds the prompt"
                                         : "-p is missing; it is the prompt (or --prompt-file)");
  }
  if (options.tokens < 1 || options.tokens > 1 << 26) {
    return fa_usage_error("-n is %ld; it must be 1 .. %d", options.tokens, 1 << 26);
  }
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
  if (!(options.temperature >= 0.0) || !isfinite(options.temperature)) {
    return fa_usage_error("--temp is %g; it must be finite and at least 0", options.temperature);
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    return fa_usage_error("--top-p is %g; it must be above 0 and at most 1", options.top_p);
  }
  if (options.top_k < 0) return fa_usage_error("--top-k is %ld; it must be at least 0", options.top_k);
  g->sampling.temperature = options.temperature;
  g->sampling.top_p = options.top_p;
  g->sampling.top_k = options.top_k;
  return fa_model_attention(options.attention, options.common.kernel, &g->kernel, &g->attention);
}

static int encode_prompt(generation *g) {
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(g->model);
  const bool chat = options.chat || (!options.raw && fa_tokenizer_has_chat_template(tokenizer));
  const char *text = options.prompt;
  size_t length = text ? strlen(text) : 0;
  if (!text) {
    const int code = fa_model_read_text(options.prompt_file, &g->text, &length);
    if (code != FA_EXIT_OK) return code;
    text = g->text;
    if (chat && strlen(text) != length) {
      return fa_failure("%s holds a zero byte; a message is text", options.prompt_file);
    }
  }
  const fa_status status =
      chat ? fa_tokenizer_encode_chat(tokenizer, options.system, text, &g->prompt)
           : fa_tokenizer_encode(tokenizer, text, length, FA_ENCODE_SPECIAL | FA_ENCODE_BOS, &g->prompt);
  if (status != FA_OK) return fa_model_failure();
  const int64_t context = fa_llama_model_shape(g->model)->context;
  if (g->prompt.count == 0) return fa_usage_error("the prompt is empty; give at least one character");
  if (g->prompt.count > context - options.tokens) {
    return fa_usage_error("a prompt of %lld tokens and -n %ld; together at most %lld, the model's context",
                          (long long)g->prompt.count, options.tokens, (long long)context);
  }
  return FA_EXIT_OK;
}

static int prepare(generation *g) {
  const double begin = fa_model_seconds();
  int code = fa_model_open(&options.common, options.model, &g->context, &g->model);
  if (code == FA_EXIT_OK) code = encode_prompt(g);
  if (code != FA_EXIT_OK) return code;
  const int64_t vocabulary = fa_llama_model_shape(g->model)->vocabulary;
  g->logits = malloc((size_t)vocabulary * sizeof *g->logits);
  g->gaps = malloc((size_t)options.tokens * sizeof *g->gaps);
  if (!g->logits || !g->gaps) return fa_failure("no memory for the logits");
  if (fa_sampler_create(vocabulary, &g->sampling, &g->sampler) != FA_OK ||
      fa_llama_session_create(g->model, g->prompt.count + options.tokens, g->kernel, &g->session) != FA_OK) {
    return fa_model_failure();
  }
  g->load_s = fa_model_seconds() - begin;
  return FA_EXIT_OK;
}

static int step(generation *g, const int32_t *tokens, int64_t count) {
  if (fa_llama_eval(g->session, tokens, count) != FA_OK ||
      fa_llama_logits(g->session, count - 1, 1, g->logits) != FA_OK) {
    return fa_model_failure();
  }
  const int64_t vocabulary = fa_llama_model_shape(g->model)->vocabulary;
  for (int64_t i = 0; i < vocabulary; i++) {
    if (!isfinite(g->logits[i])) return fa_failure("the model's logits are not finite; is the file damaged?");
  }
  return FA_EXIT_OK;
}

/* The bytes go out as they are: a character split over two tokens is whole again on the terminal. */
static void print_token(const generation *g, int32_t token) {
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(g->model);
  size_t length;
  const char *bytes = fa_tokenizer_piece(tokenizer, token, &length);
  if (fa_tokenizer_is_control(tokenizer, token)) return;
  fwrite(bytes, 1, length, stdout);
  fflush(stdout);
}

static int generate(generation *g) {
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(g->model);
  const int64_t vocabulary = fa_llama_model_shape(g->model)->vocabulary;
  const bool text = fa_options_prints_text(&options.common);
  double begin = fa_model_seconds();
  int code = step(g, g->prompt.ids, g->prompt.count);
  g->prompt_s = fa_model_seconds() - begin;
  begin = fa_model_seconds();
  while (code == FA_EXIT_OK) {
    const int32_t token = fa_sampler_next(g->sampler, g->logits);
    fa_greedy_token(g->logits, vocabulary, &g->gaps[g->generated.count]);
    if (fa_token_list_append(&g->generated, token) != FA_OK) return fa_model_failure();
    g->ended = fa_tokenizer_is_end(tokenizer, token);
    if (g->ended || g->generated.count == options.tokens) {
      if (text && !g->ended) print_token(g, token);
      break;
    }
    if (text) print_token(g, token);
    code = step(g, &token, 1);
  }
  g->decode_s = fa_model_seconds() - begin;
  if (code == FA_EXIT_OK && text && (putchar('\n') == EOF || fflush(stdout) != 0)) {
    return fa_failure("cannot write the text to standard output");
  }
  return code;
}

/* The first token comes with the prompt, so n tokens took n - 1 steps. */
static double decode_steps(const generation *g) { return (double)(g->generated.count - 1); }

static double rate(double count, double seconds) {
  return count > 0.0 && seconds > 0.0 ? count / seconds : 0.0;
}

static void report(const generation *g) {
  fprintf(stderr, "%s: prompt %lld tokens, %.1f tokens/s; generated %lld tokens, %.1f tokens/s; %d threads\n",
          g->attention, (long long)g->prompt.count, rate((double)g->prompt.count, g->prompt_s),
          (long long)g->generated.count, rate(decode_steps(g), g->decode_s), fa_context_threads(g->context));
}

/* Text of all generated tokens but the one that ended them, as valid UTF-8. */
static char *generated_text(const generation *g) {
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(g->model);
  size_t total = 0, length;
  for (int64_t i = 0; i < g->generated.count; i++) {
    fa_tokenizer_piece(tokenizer, g->generated.ids[i], &length);
    total += length;
  }
  char *bytes = malloc(total + 1), *valid = malloc(3 * total + 1);
  if (!bytes || !valid) {
    free(bytes);
    free(valid);
    return NULL;
  }
  total = 0;
  for (int64_t i = 0; i < g->generated.count; i++) {
    const char *piece = fa_tokenizer_piece(tokenizer, g->generated.ids[i], &length);
    if (fa_tokenizer_is_control(tokenizer, g->generated.ids[i])) continue;
    memcpy(bytes + total, piece, length);
    total += length;
  }
  fa_utf8_repair(bytes, total, valid);
  free(bytes);
  return valid;
}

static int write_json(generation *g) {
  cJSON *row = cJSON_CreateObject();
  char *text = generated_text(g);
  cJSON *tokens = cJSON_CreateIntArray(g->generated.ids, (int)g->generated.count);
  cJSON *gaps = cJSON_CreateFloatArray(g->gaps, (int)g->generated.count);
  int code;
  if (row && text && tokens && gaps) {
    cJSON_AddStringToObject(row, "op", "generate");
    fa_model_describe(row, g->context, g->model, options.model);
    cJSON_AddStringToObject(row, "attention", g->attention);
    cJSON_AddStringToObject(row, "prefill_kernel", fa_llama_session_prefill_kernel(g->session));
    cJSON_AddStringToObject(row, "decode_kernel", fa_llama_session_decode_kernel(g->session));
    cJSON_AddStringToObject(row, "text", text);
    cJSON_AddStringToObject(row, "finish", g->ended ? "end" : "length");
    cJSON_AddNumberToObject(row, "prompt_tokens", (double)g->prompt.count);
    cJSON_AddNumberToObject(row, "generated_tokens", (double)g->generated.count);
    cJSON_AddNumberToObject(row, "load_s", g->load_s);
    cJSON_AddNumberToObject(row, "prompt_ms", g->prompt_s * 1e3);
    cJSON_AddNumberToObject(row, "prompt_tokens_per_s", rate((double)g->prompt.count, g->prompt_s));
    cJSON_AddNumberToObject(row, "decode_ms", g->decode_s * 1e3);
    cJSON_AddNumberToObject(row, "decode_tokens_per_s", rate(decode_steps(g), g->decode_s));
    cJSON_AddItemToObject(row, "tokens", tokens);
    cJSON_AddItemToObject(row, "gaps", gaps);
    code = fa_output_json(&g->json, row);
  } else {
    cJSON_Delete(tokens);
    cJSON_Delete(gaps);
    code = fa_failure("no memory for the JSON");
  }
  cJSON_Delete(row);
  free(text);
  return code;
}

static void release(generation *g) {
  fa_output_discard(&g->json);
  fa_sampler_free(g->sampler);
  fa_llama_session_free(g->session);
  fa_llama_model_free(g->model);
  fa_context_destroy(g->context);
  fa_token_list_free(&g->prompt);
  fa_token_list_free(&g->generated);
  free(g->text);
  free(g->logits);
  free(g->gaps);
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
