/* What a GGUF file says of its model. Keys are those of the architecture: "llama.block_count", "qwen3.block_count", ... */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "model.h"

enum { MAX_LAYERS = 1024, MAX_WIDTH = 1 << 20, MAX_HEADS = 1024, MAX_HEAD_DIM = 576, MAX_CONTEXT = 1 << 26 };

static const struct architecture {
  const char *name;
  bool rotary_interleaved; /* its converter reorders q and k for pairs (2d, 2d + 1) */
  bool has_qkv_bias, has_qk_norm, has_post_norms;
  fa_activation activation;
  int64_t global_every; /* of layers, where the file has a window */
} architectures[] = {
    {"llama", true, false, false, false, FA_ACTIVATION_SILU, 0}, /* Llama 2 and 3, Mistral, SmolLM2 */
    {"qwen2", false, true, false, false, FA_ACTIVATION_SILU, 0},
    {"qwen3", false, false, true, false, FA_ACTIVATION_SILU, 0},
    {"gemma3", false, false, true, true, FA_ACTIVATION_GELU_TANH, 6},
};

typedef struct reader {
  const fa_gguf *gguf;
  const struct architecture *architecture;
  char key[128];
} reader;

static const char *key(reader *r, const char *name) {
  snprintf(r->key, sizeof r->key, "%s.%s", r->architecture->name, name);
  return r->key;
}

static fa_status integer(reader *r, const char *name, bool required, int64_t least, int64_t most, int64_t *value) {
  return fa_gguf_integer(r->gguf, key(r, name), required, least, most, value);
}

static fa_status find_architecture(reader *r) {
  fa_gguf_string given;
  const fa_status status = fa_gguf_text(r->gguf, "general.architecture", true, &given);
  if (status != FA_OK) return status;
  char known[128] = "";
  for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
    r->architecture = &architectures[i];
    if (fa_gguf_string_is(given, architectures[i].name)) return FA_OK;
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", architectures[i].name);
  }
  return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: architecture '%.*s'; run here: %s", fa_gguf_name(r->gguf),
                       given.length < 100 ? (int)given.length : 100, given.bytes, known);
}

/* What this forward pass does not compute must not be ignored silently. */
static fa_status refuse_unknown_parts(reader *r) {
  int64_t experts = 0;
  double softcap = 0.0;
  fa_status status = integer(r, "expert_count", false, 0, INT32_MAX, &experts);
  if (status == FA_OK) status = fa_gguf_real(r->gguf, key(r, "attn_logit_softcapping"), false, &softcap);
  if (status == FA_OK && softcap == 0.0) status = fa_gguf_real(r->gguf, key(r, "final_logit_softcapping"), false, &softcap);
  if (status != FA_OK) return status;
  if (experts) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: a mixture of %lld experts; dense models are run here",
                         fa_gguf_name(r->gguf), (long long)experts);
  }
  if (softcap != 0.0) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: caps logits at %g; models without a softcap are run here",
                         fa_gguf_name(r->gguf), softcap);
  }
  return FA_OK;
}

static fa_status read_rotary(reader *r, fa_llama_shape *s) {
  fa_gguf_string scaling = {"none", 4};
  double epsilon = 0.0;
  s->rotary_base = 10000.0;
  s->rotary_base_local = r->architecture->has_post_norms ? 10000.0 : 0.0; /* Gemma's windowed layers have their own */
  s->rotary_factor = 1.0;
  s->rotary_dim = s->head_dim_qk;
  s->rotary_interleaved = r->architecture->rotary_interleaved;
  fa_status status = integer(r, "rope.dimension_count", false, 2, s->head_dim_qk, &s->rotary_dim);
  if (status == FA_OK) status = fa_gguf_real(r->gguf, key(r, "rope.freq_base"), false, &s->rotary_base);
  if (status == FA_OK) status = fa_gguf_real(r->gguf, key(r, "rope.freq_base_swa"), false, &s->rotary_base_local);
  if (status == FA_OK) status = fa_gguf_text(r->gguf, key(r, "rope.scaling.type"), false, &scaling);
  if (status == FA_OK && fa_gguf_string_is(scaling, "linear"))
    status = fa_gguf_real(r->gguf, key(r, "rope.scaling.factor"), true, &s->rotary_factor);
  if (status == FA_OK) status = fa_gguf_real(r->gguf, key(r, "attention.layer_norm_rms_epsilon"), true, &epsilon);
  if (status != FA_OK) return status;
  s->norm_epsilon = (float)epsilon;
  if (!fa_gguf_string_is(scaling, "none") && !fa_gguf_string_is(scaling, "linear")) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: rotary scaling '%.*s'; done here: none, linear", fa_gguf_name(r->gguf),
                         scaling.length < 100 ? (int)scaling.length : 100, scaling.bytes);
  }
  return FA_OK;
}

static fa_status read_window(reader *r, fa_llama_shape *s) {
  const fa_status status = integer(r, "attention.sliding_window", false, 0, MAX_CONTEXT, &s->window);
  s->global_every = s->window ? r->architecture->global_every : 0;
  return status;
}

/* Frequencies of a model whose long positions are slowed down (Llama 3.1 and later): read as they stand. */
static fa_status read_divisors(const fa_gguf *gguf, const fa_llama_shape *s, float **divisors) {
  const fa_gguf_tensor *tensor = fa_gguf_find_tensor(gguf, "rope_freqs.weight");
  if (!tensor) return FA_OK;
  const fa_ggml_type *type = fa_ggml_type_of(tensor->type);
  if (!type->to_float || tensor->dims != 1 || tensor->size[0] != s->rotary_dim / 2) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor 'rope_freqs.weight' is %s of %lld; the metadata wants %lld numbers",
                         fa_gguf_name(gguf), type->name, (long long)tensor->size[0], (long long)(s->rotary_dim / 2));
  }
  *divisors = malloc((size_t)(s->rotary_dim / 2) * sizeof **divisors);
  if (!*divisors) return fa_llama_out_of_memory("the rotary frequencies");
  type->to_float(tensor->data, *divisors, s->rotary_dim / 2);
  return FA_OK;
}

static fa_status read_heads(reader *r, fa_llama_shape *s) {
  s->heads_kv = s->heads_q;
  fa_status status = integer(r, "attention.head_count_kv", false, 1, s->heads_q, &s->heads_kv);
  s->head_dim_qk = s->hidden / s->heads_q;
  if (status == FA_OK) status = integer(r, "attention.key_length", false, 1, MAX_HEAD_DIM, &s->head_dim_qk);
  s->head_dim_v = s->head_dim_qk;
  if (status == FA_OK) status = integer(r, "attention.value_length", false, 1, MAX_HEAD_DIM, &s->head_dim_v);
  return status;
}

/* The vocabulary is what the embedding has rows for; the tokenizer must agree (model.c). */
static fa_status read_vocabulary(const fa_gguf *gguf, fa_llama_shape *s) {
  const fa_gguf_tensor *table = fa_gguf_find_tensor(gguf, "token_embd.weight");
  if (!table || table->dims != 2 || table->size[1] < 1 || table->size[1] > INT32_MAX) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor 'token_embd.weight' is missing or no matrix; the file does not "
                         "hold a whole model", fa_gguf_name(gguf));
  }
  s->vocabulary = table->size[1];
  s->tied_embeddings = !fa_gguf_find_tensor(gguf, "output.weight");
  return FA_OK;
}

fa_status fa_llama_shape_from_gguf(const fa_gguf *gguf, fa_llama_shape *s, float **divisors) {
  reader r = {gguf, NULL, ""};
  memset(s, 0, sizeof *s);
  *divisors = NULL;
  fa_status status = find_architecture(&r);
  if (status != FA_OK) return status;
  const struct {
    const char *name;
    int64_t most, *value;
  } sizes[] = {{"block_count", MAX_LAYERS, &s->layers},
               {"embedding_length", MAX_WIDTH, &s->hidden},
               {"feed_forward_length", MAX_WIDTH, &s->feed_forward},
               {"context_length", MAX_CONTEXT, &s->context},
               {"attention.head_count", MAX_HEADS, &s->heads_q}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && status == FA_OK; i++)
    status = integer(&r, sizes[i].name, true, 1, sizes[i].most, sizes[i].value);
  if (status == FA_OK) status = read_heads(&r, s);
  s->activation = r.architecture->activation;
  s->has_gate = true;
  s->has_qkv_bias = r.architecture->has_qkv_bias;
  s->has_qk_norm = r.architecture->has_qk_norm;
  s->has_post_norms = r.architecture->has_post_norms;
  s->embedding_scale = s->has_post_norms ? sqrtf((float)s->hidden) : 1.0f; /* Gemma */
  /* Gemma 3 of 27 B parameters alone scales by hidden / heads, and no key says so. */
  if (s->has_post_norms && s->layers == 62) s->attention_scale = 1.0f / sqrtf((float)(s->hidden / s->heads_q));
  if (status == FA_OK) status = read_rotary(&r, s);
  if (status == FA_OK) status = read_window(&r, s);
  if (status == FA_OK) status = read_vocabulary(gguf, s);
  if (status == FA_OK) status = refuse_unknown_parts(&r);
  if (status == FA_OK) status = fa_llama_shape_check(fa_gguf_name(gguf), s);
  return status == FA_OK ? read_divisors(gguf, s, divisors) : status;
}

fa_status fa_llama_shape_check(const char *file, const fa_llama_shape *s) {
  if (s->layers < 1 || s->layers > MAX_LAYERS || s->hidden < 1 || s->hidden > MAX_WIDTH || s->feed_forward < 1 ||
      s->feed_forward > MAX_WIDTH || s->context < 1 || s->context > MAX_CONTEXT || s->vocabulary < 1 ||
      s->vocabulary > INT32_MAX) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: %lld layers of width %lld, feed-forward %lld, context %lld, vocabulary %lld; layers 1 .. %d, "
                         "widths 1 .. %d, context 1 .. %d are run here", file, (long long)s->layers, (long long)s->hidden,
                         (long long)s->feed_forward, (long long)s->context, (long long)s->vocabulary, MAX_LAYERS, MAX_WIDTH,
                         MAX_CONTEXT);
  }
  if (s->heads_q < 1 || s->heads_q > MAX_HEADS || s->heads_kv < 1 || s->heads_q % s->heads_kv || s->head_dim_qk < 1 ||
      s->head_dim_qk > MAX_HEAD_DIM || s->head_dim_v < 1 || s->head_dim_v > MAX_HEAD_DIM) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: %lld query heads on %lld KV heads of %lld; query heads must be a multiple of KV heads, and "
                         "heads 1 .. %d long", file, (long long)s->heads_q, (long long)s->heads_kv, (long long)s->head_dim_qk,
                         MAX_HEAD_DIM);
  }
  if (s->rotary_dim < 0 || s->rotary_dim % 2 || s->rotary_dim > s->head_dim_qk || !(s->rotary_base > 0.0) ||
      !(s->rotary_factor > 0.0) || !(s->norm_epsilon >= 0.0f && isfinite(s->norm_epsilon)) || !(s->rotary_base_local >= 0.0)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: rotary dimensions %lld, base %g, factor %g, norm epsilon %g; needed: even, above 0, above 0, "
                         "at least 0", file, (long long)s->rotary_dim, s->rotary_base, s->rotary_factor,
                         (double)s->norm_epsilon);
  }
  return FA_OK;
}
