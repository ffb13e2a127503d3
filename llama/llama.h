/* The model runner: a model file in, token probabilities out, on any device that operators.h has a table for.
 * Attention goes through fastattention.h only.
 *
 *   model (weights, vocabulary; immutable) -> session (KV cache, sequences) -> eval -> logits or sampled tokens
 *
 * Every function that can fail returns fa_status and leaves one line in fa_llama_last_error() of its thread.
 * A model may be shared by threads; a session serves one thread at a time. */
#ifndef FA_LLAMA_H
#define FA_LLAMA_H

#include <stdbool.h>

#include "fastattention/fastattention.h"
#include "operators.h"

const char *fa_llama_last_error(void); /* "" when none failed yet */

/* ---------------------------------------------------------------------------- shape */

/* A dense decoder, layer after layer:
 *   a = x + [norm](attention(norm(x) Wqkv [+ b], cache) Wo)      [norm] where post_norms
 *   x = a + [norm]((act(norm(a) Wgate) * norm(a) Wup) Wdown)     act(norm(a) Wup) Wdown without a gate
 * All norms are RMS norms. */
typedef struct fa_llama_shape {
  int64_t layers;
  int64_t hidden;
  int64_t heads_q;
  int64_t heads_kv;
  int64_t head_dim_qk;
  int64_t head_dim_v;
  int64_t feed_forward;
  int64_t vocabulary;
  int64_t context; /* longest sequence the model was trained for */

  int64_t rotary_dim; /* even, at most head_dim_qk */
  double rotary_base;
  double rotary_factor;     /* positions are divided by it */
  double rotary_base_local; /* of layers with a window, whose positions are not divided; 0: they rotate as the others */
  bool rotary_interleaved;  /* pairs (2d, 2d + 1), as GGUF orders Llama's weights; else (d, d + rotary_dim / 2) */

  int64_t window;       /* keys a windowed layer sees, its own included; 0: no layer has a window */
  int64_t global_every; /* layers n - 1, 2n - 1, ... see everything; 0: every layer has the window */

  float norm_epsilon;
  float attention_scale; /* 0: 1 / sqrt(head_dim_qk) */
  float embedding_scale;
  fa_activation activation;
  bool has_gate, has_qkv_bias, has_qk_norm, has_post_norms, tied_embeddings;
} fa_llama_shape;

/* Shapes of published models by the names people call them ("llama-7b", "qwen3-8b", ...; "pangu-38b" is our stand-in:
 * PanGu's shape is not public). Errors: ARGUMENT with the known names. */
fa_status fa_llama_shape_named(const char *name, fa_llama_shape *shape);
int fa_llama_shape_count(void);
const char *fa_llama_shape_name(int index);

int64_t fa_llama_shape_parameters(const fa_llama_shape *shape);

/* Whether layer `index`, from 0, has the window. */
static inline bool fa_llama_layer_has_window(const fa_llama_shape *s, int64_t index) {
  return s->window > 0 && (s->global_every == 0 || (index + 1) % s->global_every != 0);
}

/* ---------------------------------------------------------------------------- model */

typedef struct fa_llama_model fa_llama_model;
typedef struct fa_tokenizer fa_tokenizer;

/* done of total, of whatever takes long: weights, tokens of a prompt. */
typedef void (*fa_llama_progress)(void *user, int64_t done, int64_t total);

typedef struct fa_llama_load_options {
  const fa_operators *operators; /* of the context's device; NULL: the CPU's */
  int32_t dtype;                 /* an fa_dtype: of weights a device keeps unquantised, activations and KV cache; -1: what
                                  * the device multiplies best */
  fa_llama_progress progress;    /* after each layer; NULL: none */
  void *progress_user;
} fa_llama_load_options;
#define FA_LLAMA_LOAD_OPTIONS_INIT \
  { NULL, -1, NULL, NULL }

/* path: a GGUF file, or a folder with config.json, *.safetensors (one or several with an index) and tokenizer.json.
 * Weights are made ready for the context's device. The context gives the thread count and must outlive the model.
 * options NULL: all defaults. Errors: ARGUMENT (no such file, damaged, shapes that do not fit), UNSUPPORTED (another
 * architecture, a tensor type not read here), MEMORY, DEVICE. */
fa_status fa_llama_model_load(fa_context *context, const char *path, const fa_llama_load_options *options,
                              fa_llama_model **model);
/* The same from a shape and random weights of the options' type, made on the device: speed without a file. It has no
 * tokenizer. */
fa_status fa_llama_model_random(fa_context *context, const fa_llama_shape *shape, const fa_llama_load_options *options,
                                fa_llama_model **model);
void fa_llama_model_free(fa_llama_model *model); /* NULL is fine; after its sessions */

const fa_llama_shape *fa_llama_model_shape(const fa_llama_model *model);
const fa_tokenizer *fa_llama_model_tokenizer(const fa_llama_model *model); /* NULL of random weights */
fa_dtype fa_llama_model_dtype(const fa_llama_model *model);      /* of activations and KV cache */
const char *fa_llama_model_device(const fa_llama_model *model);  /* "cpu", "cuda" */
size_t fa_llama_model_weight_bytes(const fa_llama_model *model); /* read for one decoded token */
int64_t fa_llama_model_parameters(const fa_llama_model *model);

/* -------------------------------------------------------------------------- session */

typedef struct fa_llama_session fa_llama_session;

typedef struct fa_llama_session_options {
  int64_t max_tokens;    /* 1 .. shape.context: tokens a sequence may have */
  int64_t max_sequences; /* >= 1: sequences at once */
  int64_t max_rows;      /* tokens evaluated at a time: longer prompts go in chunks; 0 chooses */
  int64_t page_size;     /* tokens a page of the KV cache; 0 chooses: 256, or max_tokens for a single sequence */
  int64_t num_pages;     /* 0: enough for all sequences at their longest */
  const char *kernel;    /* fa_attention_problem.kernel; NULL: the fastest */
  bool no_graph;         /* decode without captured steps where the device has them */
  fa_llama_progress progress; /* after each chunk of a prompt; NULL: none */
  void *progress_user;
} fa_llama_session_options;
#define FA_LLAMA_SESSION_OPTIONS_INIT \
  { 0, 1, 0, 0, 0, NULL, false, NULL, NULL }

/* Errors: ARGUMENT, UNSUPPORTED (unknown kernel), MEMORY. */
fa_status fa_llama_session_create(const fa_llama_model *model, const fa_llama_session_options *options,
                                  fa_llama_session **session);
void fa_llama_session_free(fa_llama_session *session); /* NULL is fine */

/* New tokens of one sequence, numbered 0 .. max_sequences - 1; a sequence begins empty. */
typedef struct fa_llama_entry {
  int32_t sequence;
  const int32_t *tokens;
  int64_t count; /* >= 1 */
} fa_llama_entry;

/* Appends tokens to 1 .. max_sequences different sequences, all in one pass (in chunks of max_rows), whatever their
 * counts. Afterwards the logits of each entry's last token are there. Errors: ARGUMENT (token outside the vocabulary,
 * sequence full or named twice), MEMORY (no page is free); nothing is appended then. After DEVICE the session can only
 * be freed. */
fa_status fa_llama_eval_batch(fa_llama_session *session, const fa_llama_entry *entries, int64_t count);
/* Of sequence 0 alone. */
fa_status fa_llama_eval(fa_llama_session *session, const int32_t *tokens, int64_t count);

/* Copies the logits after each entry of the last eval: [entries, vocabulary]. Waits for the device. */
fa_status fa_llama_next_logits(fa_llama_session *session, float *logits);
/* Draws each entry's next token by settings[entry], on the device. Tokens that a sequence holds, and those drawn, count
 * as seen for repetition penalties. Waits for the device. */
fa_status fa_llama_sample(fa_llama_session *session, const fa_sample_row *settings, int32_t *tokens);
/* Logits after rows [row, row + rows) of the last eval, which must have had at most max_rows rows, entry behind entry:
 * [rows, vocabulary]. */
fa_status fa_llama_logits(fa_llama_session *session, int64_t row, int64_t rows, float *logits);

const fa_llama_model *fa_llama_session_model(const fa_llama_session *session);
int64_t fa_llama_session_position(const fa_llama_session *session, int32_t sequence); /* tokens it has */
/* Forgets all but the first `tokens` tokens of a sequence and gives back the pages behind them. */
fa_status fa_llama_session_rewind(fa_llama_session *session, int32_t sequence, int64_t tokens);
/* Waits until the device has done all that was asked. */
fa_status fa_llama_session_synchronize(fa_llama_session *session);

/* Device memory of a session, in bytes. */
typedef struct fa_llama_memory {
  size_t weights;    /* the model's */
  size_t cache;
  size_t activations;
  size_t workspace; /* of attention */
} fa_llama_memory;
void fa_llama_session_memory(const fa_llama_session *session, fa_llama_memory *memory);

/* Names in the kernel table of what ran last for prompts and for single tokens; "" before. */
const char *fa_llama_session_prefill_kernel(const fa_llama_session *session);
const char *fa_llama_session_decode_kernel(const fa_llama_session *session);

/* Is shown the logits that a score comes from: some rows at a time, in order. */
typedef struct fa_llama_watcher {
  /* next: [rows] tokens that follow; log_sums: [rows] ln of the sum of exp of a row; logits: [rows, vocabulary]. */
  void (*rows)(void *user, int64_t rows, const int32_t *next, const double *log_sums, const float *logits);
  void *user;
} fa_llama_watcher;

/* Empties sequence 0, reads `count` >= 1 tokens into it, and gives the sum of -log p of all but the first, in nats.
 * watcher NULL: none. */
fa_status fa_llama_score(fa_llama_session *session, int threads, const int32_t *tokens, int64_t count,
                         const fa_llama_watcher *watcher, double *nats);

/* ------------------------------------------------------------------------ tokenizer */

typedef struct fa_token_list {
  int32_t *ids;
  int64_t count;
  int64_t capacity;
} fa_token_list;
#define FA_TOKEN_LIST_INIT \
  { NULL, 0, 0 }

fa_status fa_token_list_append(fa_token_list *list, int32_t id);
void fa_token_list_free(fa_token_list *list);

enum {
  FA_ENCODE_PLAIN = 0,
  FA_ENCODE_SPECIAL = 1 << 0, /* names of control tokens in the text stand for the tokens */
  FA_ENCODE_BOS = 1 << 1,     /* begin with the begin-of-sequence token if the model wants one */
  FA_ENCODE_EOS = 1 << 2      /* end with the end-of-sequence token if the model wants one */
};

/* The tokenizer of a model in Hugging Face's format: reads tokenizer.json of the directory, and where they are there
 * tokenizer_config.json, chat_template.jinja, generation_config.json and config.json (special tokens, chat template,
 * which tokens end a text). Errors: ARGUMENT (no such file, damaged), UNSUPPORTED (a step of the tokenizer that is not
 * done here; the line names it), MEMORY. */
fa_status fa_tokenizer_open_json(const char *directory, fa_tokenizer **tokenizer);
void fa_tokenizer_free(fa_tokenizer *tokenizer); /* NULL is fine */

/* Appends the tokens of `length` bytes of text. Names of user-defined tokens always stand for them. Bytes that are
 * not UTF-8 count as U+FFFD, as the reference does. */
fa_status fa_tokenizer_encode(const fa_tokenizer *tokenizer, const char *text, size_t length, unsigned how,
                              fa_token_list *list);
/* Bytes of one token (not terminated; may be part of a character). NULL for an id outside the vocabulary. */
const char *fa_tokenizer_piece(const fa_tokenizer *tokenizer, int32_t id, size_t *length);
int64_t fa_tokenizer_count(const fa_tokenizer *tokenizer);
bool fa_tokenizer_is_control(const fa_tokenizer *tokenizer, int32_t id);
/* Whether generation ends with this token. */
bool fa_tokenizer_is_end(const fa_tokenizer *tokenizer, int32_t id);
/* Whether the file carries a chat template (whatever its family). */
bool fa_tokenizer_has_chat_template(const fa_tokenizer *tokenizer);

typedef struct fa_chat_message {
  const char *role; /* "system", "user" or "assistant" */
  const char *text;
} fa_chat_message;

/* The tokens of a conversation of `count` >= 1 messages, the last of them the user's, ready for the assistant's answer, by
 * the model's own template. Where no system message is the first, the template's default, if it has one. Names of control
 * tokens in the messages stay text. Errors: ARGUMENT (roles that do not take turns as the template wants it), UNSUPPORTED
 * (no template, of a family that is not known, a system message where the template takes none), MEMORY. */
fa_status fa_tokenizer_encode_messages(const fa_tokenizer *tokenizer, const fa_chat_message *messages, int64_t count,
                                       fa_token_list *list);
/* The same for one user message and a system message, which may be NULL. */
fa_status fa_tokenizer_encode_chat(const fa_tokenizer *tokenizer, const char *system, const char *user,
                                   fa_token_list *list);

/* Copies `length` bytes to `text` (at least 3 * length + 1 bytes) as valid, terminated UTF-8, U+FFFD for what
 * is not UTF-8. Returns the bytes written without the terminator. */
size_t fa_utf8_repair(const char *bytes, size_t length, char *text);

/* -------------------------------------------------------------------------- sampler */

/* Options that were checked, and the random stream of their seed. sampler.h has the rules and what a batch needs. */
typedef struct fa_sampler fa_sampler;

typedef struct fa_sampler_options {
  double temperature;        /* >= 0; 0 is greedy */
  int64_t top_k;             /* >= 0; 0 is all */
  double top_p;              /* 0 < p <= 1; 1 is all */
  double min_p;              /* 0 <= p <= 1, of the likeliest token's probability; 0 is all */
  double repetition_penalty; /* 0.01 .. 100; 1 is off */
  uint64_t seed;
} fa_sampler_options;
#define FA_SAMPLER_OPTIONS_INIT \
  { 0.0, 0, 1.0, 0.0, 1.0, 0 }

/* vocabulary: of fa_sampler_next; 0 where only fa_sampler_step is called. Errors: ARGUMENT (an option out of its
 * range), MEMORY. */
fa_status fa_sampler_create(int64_t vocabulary, const fa_sampler_options *options, fa_sampler **sampler);
void fa_sampler_free(fa_sampler *sampler); /* NULL is fine */
/* These tokens have occurred, as those of a prompt: the repetition penalty counts them. */
void fa_sampler_see(fa_sampler *sampler, const int32_t *tokens, int64_t count);
/* The next token of one sequence. The same options, logits and number of calls give the same tokens. Allocates
 * nothing. */
int32_t fa_sampler_next(fa_sampler *sampler, const float *logits);

/* The largest logit (the first among equals) and, in *gap, its distance to the second best. */
int32_t fa_greedy_token(const float *logits, int64_t vocabulary, float *gap);

/* ------------------------------------------------------------------ comparing kernels */

typedef struct fa_agreement {
  int64_t steps;            /* greedy tokens compared */
  int64_t first_difference; /* step of the first different token; -1: none */
  float gap;                /* distance of the two best logits at that step, by kernel a */
  float max_logit_error;    /* largest |logit a - logit b| of the steps before it, and of itself */
} fa_agreement;

/* Greedy generation with two kernels from the same prompt. "Same tokens" holds if first_difference is -1, or
 * gap is below the logit tolerance there. Stops at the first difference. */
fa_status fa_llama_compare(const fa_llama_model *model, const int32_t *prompt, int64_t count, int64_t steps,
                           const char *kernel_a, const char *kernel_b, fa_agreement *agreement);

#endif
