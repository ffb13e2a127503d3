/* fastattn perplexity: how well a language model predicts a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_commands.h"
#include "saved_logits.h"

static struct {
  fa_common_options common;
  const char *model, *file, *attention, *dtype, *save, *compare;
  long window, most, top;
} options = {.common = FA_COMMON_OPTIONS_INIT, .top = 64};

static const struct poptOption table[] = {
    {"model", 'm', POPT_ARG_STRING, &options.model, 0, "the model: a GGUF file, or a folder with safetensors", "FILE"},
    {"file", 'f', POPT_ARG_STRING, &options.file, 0, "the text, UTF-8; - is standard input", "FILE"},
    {"ctx", '\0', POPT_ARG_LONG, &options.window, 0,
     "tokens predicted from one another at a time (default 2048, or the model's context if that is less)",
     "N"},
    {"max-tokens", '\0', POPT_ARG_LONG, &options.most, 0, "read no more of the text; 0 is all (default 0)",
     "N"},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtype, 0,
     "f32, f16 or bf16: of activations, KV cache and unquantised weights (default: the device's best)", "T"},
    {"attention", '\0', POPT_ARG_STRING, &options.attention, 0,
     "fast, or a baseline to compare with: standard, eager (default fast)", "NAME"},
    {"save-logits", '\0', POPT_ARG_STRING, &options.save, 0,
     "write the largest logits of every prediction; cli/saved_logits.h has the format", "FILE"},
    {"top", '\0', POPT_ARG_LONG, &options.top, 0, "logits of a prediction that --save-logits keeps (default 64)", "N"},
    {"compare-logits", '\0', POPT_ARG_STRING, &options.compare, 0,
     "compare with logits saved for this text and --ctx, by this or another program", "FILE"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "perplexity", "-m FILE -f TEXT [OPTION...]",
    "Cuts the text into windows of --ctx tokens and lets the model predict each token of\n"
    "a window from those before it; the first of each window is given. Perplexity is\n"
    "exp(mean of -log p): lower is better. Compare it between attentions on one text and\n"
    "window, not with numbers found elsewhere.\n"
    "--save-logits and --compare-logits show how far two runs are apart, token by token.",
    "  fastattn perplexity -m SmolLM2-135M-Instruct.Q4_1.gguf -f book.txt --ctx 1024\n"
    "  fastattn perplexity -m model.gguf -f book.txt --dtype f32 --save-logits f32.logits\n"
    "  fastattn perplexity -m model.gguf -f book.txt --dtype bf16 --compare-logits f32.logits"};

typedef struct measurement {
  fa_context *context;
  fa_llama_model *model;
  fa_llama_session *session;
  fa_token_list text;   /* of the whole file */
  fa_token_list window; /* begin-of-sequence token, if the model wants one, and some of the text */
  char *bytes;
  const char *kernel, *attention;
  int64_t predicted;
  double nats, seconds;
  fa_output json, save;
  fa_saved_logits_head head; /* of what is saved */
  fa_saved_logits saved;     /* to compare with */
  fa_logits_comparison comparison;
  int saved_code; /* not FA_EXIT_OK, and printed, once the saved logits failed */
} measurement;

static int read_options(measurement *m) {
  if (!options.model) return fa_usage_error("-m is missing; it names the model, a GGUF file or a folder");
  if (!options.file) return fa_usage_error("-f is missing; it names the text");
  if (options.window != 0 && options.window < 2) {
    return fa_usage_error("--ctx is %ld; it must be at least 2", options.window);
  }
  if (options.most < 0) return fa_usage_error("--max-tokens is %ld; it must be at least 0", options.most);
  if (options.top < 1 || options.top > FA_MOST_SAVED_LOGITS) {
    return fa_usage_error("--top is %ld; it must be 1 .. %d", options.top, FA_MOST_SAVED_LOGITS);
  }
  if (options.save && strcmp(options.save, "-") == 0) return fa_usage_error("--save-logits is -; it writes to a file");
  return fa_model_attention(options.attention, options.common.kernel, &m->kernel, &m->attention);
}

/* Of the text: in each window all tokens but the first. */
static int64_t predictions(const measurement *m) {
  const int64_t head = m->window.count, step = options.window - head, count = m->text.count;
  const int64_t windows = count / step, rest = count % step;
  return windows * (options.window - 1) + (rest + head > 1 && rest ? rest + head - 1 : 0);
}

/* Before anything is evaluated: whether what was saved is of this vocabulary and these windows. */
static int prepare_logits(measurement *m) {
  const int64_t vocabulary = fa_llama_model_shape(m->model)->vocabulary;
  m->head = (fa_saved_logits_head){options.top < vocabulary ? options.top : vocabulary, vocabulary, options.window,
                                   predictions(m)};
  const fa_saved_logits_head *saved = &m->saved.head;
  if (m->save.file) fa_saved_logits_write_head(m->save.file, &m->head);
  if (!options.compare || (saved->vocabulary == vocabulary && saved->window == options.window &&
                           saved->predictions == m->head.predictions)) {
    return FA_EXIT_OK;
  }
  return fa_usage_error("%s was saved for a vocabulary of %lld, --ctx %lld and %lld predictions; the model has %lld, --ctx is "
                        "%ld and the text gives %lld", options.compare, (long long)saved->vocabulary, (long long)saved->window,
                        (long long)saved->predictions, (long long)vocabulary, options.window,
                        (long long)m->head.predictions);
}

static int prepare(measurement *m) {
  size_t length;
  int code = fa_model_read_text(options.file, &m->bytes, &length);
  if (code == FA_EXIT_OK) code = fa_model_open(&options.common, options.model, options.dtype, &m->context, &m->model);
  if (code != FA_EXIT_OK) return code;
  const fa_tokenizer *tokenizer = fa_llama_model_tokenizer(m->model);
  const int64_t context = fa_llama_model_shape(m->model)->context;
  if (options.window == 0) options.window = context < 2048 ? (long)context : 2048;
  if (options.window > context) {
    return fa_usage_error("--ctx is %ld; the model was trained for at most %lld", options.window,
                          (long long)context);
  }
  if (fa_tokenizer_encode(tokenizer, m->bytes, length, FA_ENCODE_PLAIN, &m->text) != FA_OK ||
      fa_tokenizer_encode(tokenizer, "", 0, FA_ENCODE_BOS, &m->window) != FA_OK) {
    return fa_model_failure();
  }
  if (options.most && m->text.count > options.most) m->text.count = options.most;
  if (m->text.count + m->window.count < 2) {
    return fa_failure("%s gives %lld tokens; at least 2 are needed", options.file, (long long)m->text.count);
  }
  fa_llama_session_options session = FA_LLAMA_SESSION_OPTIONS_INIT;
  session.max_tokens = session.max_rows = options.window; /* all rows' logits are read */
  session.kernel = m->kernel;
  if (fa_llama_session_create(m->model, &session, &m->session) != FA_OK) return fa_model_failure();
  return prepare_logits(m);
}

static void compare_row(measurement *m, int32_t next, double log_sum, const float *logits) {
  static fa_saved_prediction saved;
  m->saved_code = fa_saved_logits_read(&m->saved, &saved);
  if (m->saved_code != FA_EXIT_OK) return;
  if (saved.token != next) {
    m->saved_code = fa_usage_error("%s has token %d at prediction %lld, this text has %d; compare runs of one text and tokenizer",
                                   options.compare, saved.token, (long long)m->saved.next - 1, next);
    return;
  }
  fa_logits_compare(&m->saved.head, &saved, log_sum, logits, &m->comparison);
}

static void see_rows(void *user, int64_t rows, const int32_t *next, const double *log_sums, const float *logits) {
  measurement *m = user;
  for (int64_t i = 0; i < rows; i++, logits += m->head.vocabulary) {
    if (m->save.file) fa_saved_logits_write(m->save.file, &m->head, next[i], log_sums[i], logits);
    if (m->saved.file && m->saved_code == FA_EXIT_OK) compare_row(m, next[i], log_sums[i], logits);
  }
}

static int measure(measurement *m) {
  const int64_t head = m->window.count, step = options.window - head;
  const fa_llama_watcher watcher = {see_rows, m};
  const double begin = fa_model_seconds();
  for (int64_t at = 0; at < m->text.count; at += step) {
    const int64_t take = m->text.count - at < step ? m->text.count - at : step;
    double nats;
    if (head + take < 2) break;
    m->window.count = head;
    for (int64_t i = 0; i < take; i++) {
      if (fa_token_list_append(&m->window, m->text.ids[at + i]) != FA_OK) return fa_model_failure();
    }
    if (fa_llama_score(m->session, fa_context_threads(m->context), m->window.ids, head + take,
                       options.save || options.compare ? &watcher : NULL, &nats) != FA_OK) {
      return fa_model_failure();
    }
    if (m->saved_code != FA_EXIT_OK) return m->saved_code;
    m->nats += nats;
    m->predicted += head + take - 1;
  }
  m->seconds = fa_model_seconds() - begin;
  if (!isfinite(m->nats)) return fa_failure("the model's logits are not finite; is the file damaged?");
  return FA_EXIT_OK;
}

static void print_comparison(const fa_logits_comparison *c) {
  const double count = (double)c->predictions;
  printf("against %s: log p of the %lld best tokens differ by %.3g on average, %.3g at most; divergence %.3g nats; best token "
         "the same in %.2f %%; perplexity %.4f there\n", options.compare, (long long)(c->logits / c->predictions),
         c->difference / (double)c->logits, c->largest_difference, c->divergence / count, 100.0 * (double)c->same_best / count,
         exp(c->saved_nats / count));
}

static void add_comparison(cJSON *row, const fa_logits_comparison *c) {
  const double count = (double)c->predictions;
  cJSON *found = cJSON_AddObjectToObject(row, "comparison");
  cJSON_AddStringToObject(found, "file", options.compare);
  cJSON_AddNumberToObject(found, "kept", (double)(c->logits / c->predictions));
  cJSON_AddNumberToObject(found, "mean_difference", c->difference / (double)c->logits);
  cJSON_AddNumberToObject(found, "max_difference", c->largest_difference);
  cJSON_AddNumberToObject(found, "divergence", c->divergence / count);
  cJSON_AddNumberToObject(found, "same_best", (double)c->same_best / count);
  cJSON_AddNumberToObject(found, "saved_perplexity", exp(c->saved_nats / count));
}

static int report(measurement *m) {
  const double perplexity = exp(m->nats / (double)m->predicted);
  if (fa_options_prints_text(&options.common)) {
    printf("perplexity %.4f over %lld tokens, windows of %ld, attention %s, %.1f tokens/s\n", perplexity,
           (long long)m->predicted, options.window, m->attention, (double)m->predicted / m->seconds);
    if (options.compare) print_comparison(&m->comparison);
  }
  if (!options.common.json) return FA_EXIT_OK;
  cJSON *row = cJSON_CreateObject();
  if (!row) return fa_failure("no memory for the JSON");
  cJSON_AddStringToObject(row, "op", "perplexity");
  fa_model_describe(row, &options.common, m->context, m->model, options.model);
  cJSON_AddStringToObject(row, "file", options.file);
  cJSON_AddStringToObject(row, "attention", m->attention);
  cJSON_AddStringToObject(row, "prefill_kernel", fa_llama_session_prefill_kernel(m->session));
  cJSON_AddNumberToObject(row, "ctx", (double)options.window);
  cJSON_AddNumberToObject(row, "perplexity", perplexity);
  cJSON_AddNumberToObject(row, "tokens", (double)m->predicted);
  cJSON_AddNumberToObject(row, "nats", m->nats);
  cJSON_AddNumberToObject(row, "ms", m->seconds * 1e3);
  cJSON_AddNumberToObject(row, "tokens_per_s", (double)m->predicted / m->seconds);
  if (options.compare) add_comparison(row, &m->comparison);
  const int code = fa_output_json(&m->json, row);
  cJSON_Delete(row);
  return code;
}

int fa_perplexity_command(int argc, const char **argv) {
  measurement m = {.json = FA_OUTPUT_INIT, .save = FA_OUTPUT_INIT};
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  code = read_options(&m);
  if (code == FA_EXIT_OK && options.common.json) code = fa_output_open(&m.json, options.common.json);
  if (code == FA_EXIT_OK && options.save) code = fa_output_open(&m.save, options.save);
  if (code == FA_EXIT_OK && options.compare) code = fa_saved_logits_open(options.compare, &m.saved);
  if (code == FA_EXIT_OK) code = prepare(&m);
  if (code == FA_EXIT_OK) code = measure(&m);
  if (code == FA_EXIT_OK && options.save) code = fa_output_commit(&m.save);
  if (code == FA_EXIT_OK) code = report(&m);
  fa_output_discard(&m.json);
  fa_output_discard(&m.save);
  fa_saved_logits_close(&m.saved);
  fa_llama_session_free(m.session);
  fa_llama_model_free(m.model);
  fa_context_destroy(m.context);
  fa_token_list_free(&m.text);
  fa_token_list_free(&m.window);
  free(m.bytes);
  return code;
}
