/* The model runner: a GGUF file in, token probabilities out. Attention goes through fastattention.h only,
 * matrix products through oneDNN.
 *
 *   model (weights, vocabulary; immutable) -> session (KV cache, position) -> eval -> logits -> sampler
 *
 * Every function that can fail returns fa_status and leaves one line in fa_llama_last_error() of its thread.
 * A model may be shared by threads; a session serves one thread at a time. */
#ifndef FA_LLAMA_H
#define FA_LLAMA_H

#include <stdbool.h>

#include "fastattention/fastattention.h"

const char *fa_llama_last_error(void); /* "" when none failed yet */

/* ---------------------------------------------------------------------------- model */

typedef enum fa_llama_precision {
  FA_LLAMA_AUTO, /* bf16 where the CPU multiplies bf16 in hardware, else fp32 */
  FA_LLAMA_BF16,
  FA_LLAMA_F32
} fa_llama_precision;

typedef struct fa_llama_model fa_llama_model;
typedef struct fa_tokenizer fa_tokenizer;

typedef struct fa_llama_shape {
  int64_t layers;
  int64_t hidden;
  int64_t heads_q;
  int64_t heads_kv;
  int64_t head_dim_qk;
  int64_t head_dim_v;
  int64_t feed_forward;
  int64_t vocabulary;
  int64_t context;    /* longest sequence the model was trained for */
  int64_t rotary_dim; /* even, at most head_dim_qk */
  double rotary_base;
  double rotary_factor; /* positions are divided by it */
  float norm_epsilon;
} fa_llama_shape;

/* Reads the weights and packs them as oneDNN multiplies them best. The context gives the
 * thread count and must outlive the model.
 * Errors: ARGUMENT (no such file, damaged, shapes that do not fit), UNSUPPORTED (another architecture, a
 * tensor type not read here), MEMORY, DEVICE (oneDNN). */
fa_status fa_llama_model_load(fa_context *context, const char *path, fa_llama_precision precision,
                              fa_llama_model **model);
void fa_llama_model_free(fa_llama_model *model); /* NULL is fine; after its sessions */

const fa_llama_shape *fa_llama_model_shape(const fa_llama_model *model);
const fa_tokenizer *fa_llama_model_tokenizer(const fa_llama_model *model);
fa_dtype fa_llama_model_dtype(const fa_llama_model *model);      /* of weights and KV cache */
size_t fa_llama_model_weight_bytes(const fa_llama_model *model); /* read for one decoded token */
int64_t fa_llama_model_parameters(const fa_llama_model *model);

/* -------------------------------------------------------------------------- session */

typedef struct fa_llama_session fa_llama_session;

/* max_tokens: 1 .. shape.context, what the KV cache holds. kernel: fa_attention_problem.kernel, NULL for the
 * fastest. Errors: ARGUMENT, UNSUPPORTED (unknown kernel), MEMORY. */
fa_status fa_llama_session_create(const fa_llama_model *model, int64_t max_tokens, const char *kernel,
                                  fa_llama_session **session);
void fa_llama_session_free(fa_llama_session *session); /* NULL is fine */

/* Appends `count` >= 1 tokens to the sequence: one prefill, whatever the count.
 * Errors: ARGUMENT (token outside the vocabulary, cache full), MEMORY. */
fa_status fa_llama_eval(fa_llama_session *session, const int32_t *tokens, int64_t count);

/* Logits after rows [row, row + rows) of the last eval: [rows, vocabulary]. */
fa_status fa_llama_logits(fa_llama_session *session, int64_t row, int64_t rows, float *logits);

const fa_llama_model *fa_llama_session_model(const fa_llama_session *session);
int64_t fa_llama_session_position(const fa_llama_session *session); /* tokens in the cache */
/* Forgets all but the first `tokens` tokens. */
fa_status fa_llama_session_rewind(fa_llama_session *session, int64_t tokens);

/* Names in the kernel table of what ran last for prompts and for single tokens; "" before. */
const char *fa_llama_session_prefill_kernel(const fa_llama_session *session);
const char *fa_llama_session_decode_kernel(const fa_llama_session *session);

/* Forgets everything, reads `count` >= 1 tokens, and gives the sum of -log p of all but the first, in nats.
 */
fa_status fa_llama_score(fa_llama_session *session, int threads, const int32_t *tokens, int64_t count,
                         double *nats);

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
  FA_ENCODE_BOS = 1 << 1      /* begin with the begin-of-sequence token if the model wants one */
};

/* Appends the tokens of `length` bytes of text. Bytes that are not UTF-8 count as U+FFFD, as the reference
 * does. */
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

/* The tokens of a conversation of one user message, ready for the assistant's answer, by the model's own
 * template. system may be NULL: the template's default, if it has one. Names of control tokens in the
 * messages stay text. Errors: UNSUPPORTED (no template, or of a family that is not known). */
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
