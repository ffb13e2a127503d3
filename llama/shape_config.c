/* What a config.json (transformers) says of its model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_file.h"
#include "llama_error.h"
#include "model.h"

static const struct architecture {
  const char *model_type;
  bool has_qkv_bias, has_qk_norm, has_post_norms;
  bool asks_for_window; /* none unless use_sliding_window, and then from layer max_window_layers on */
  fa_activation activation;
} architectures[] = {
    {"llama", false, false, false, false, FA_ACTIVATION_SILU},
    {"mistral", false, false, false, false, FA_ACTIVATION_SILU},
    {"qwen2", true, false, false, true, FA_ACTIVATION_SILU},
    {"qwen3", false, true, false, true, FA_ACTIVATION_SILU},
    {"gemma3_text", false, true, true, false, FA_ACTIVATION_GELU_TANH},
};

typedef struct reader {
  char file[512];
  const cJSON *config;
} reader;

/* The member `name`, or NULL where it is absent or null. */
static const cJSON *member(const cJSON *object, const char *name) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
  return cJSON_IsNull(item) ? NULL : item;
}

static fa_status number(const reader *r, const cJSON *object, const char *name, bool required, double *value) {
  const cJSON *item = member(object, name);
  if (!item && !required) return FA_OK;
  if (!item) return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: '%s' is missing; the file does not describe a whole model", r->file, name);
  if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: '%s' is no number", r->file, name);
  *value = item->valuedouble;
  return FA_OK;
}

static fa_status integer(const reader *r, const char *name, bool required, int64_t *value) {
  const cJSON *item = member(r->config, name);
  if (!item && required)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: '%s' is missing; the file does not describe a whole model", r->file, name);
  if (item && !fa_json_integer(item, 0, INT32_MAX, value))
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: '%s' is not a whole number of 0 .. %d", r->file, name, INT32_MAX);
  return FA_OK;
}

static bool truth(const reader *r, const char *name, bool otherwise) {
  const cJSON *item = member(r->config, name);
  return item ? cJSON_IsTrue(item) : otherwise;
}

static const char *text(const cJSON *object, const char *name, const char *otherwise) {
  const char *value = cJSON_GetStringValue(member(object, name));
  return value ? value : otherwise;
}

static fa_status find_architecture(const reader *r, const struct architecture **found) {
  const char *type = text(r->config, "model_type", "");
  char known[128] = "";
  for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
    *found = &architectures[i];
    if (strcmp(type, architectures[i].model_type) == 0) return FA_OK;
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", architectures[i].model_type);
  }
  return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: model_type '%.60s'; run here: %s", r->file, type, known);
}

/* Llama 3.1's: long wavelengths are slowed down by `factor`, short ones stay, those between go over smoothly. */
static fa_status llama3_divisors(const reader *r, const cJSON *scaling, const fa_llama_shape *s, float **divisors) {
  double factor = 0.0, low = 0.0, high = 0.0, original = 0.0;
  fa_status status = number(r, scaling, "factor", true, &factor);
  if (status == FA_OK) status = number(r, scaling, "low_freq_factor", true, &low);
  if (status == FA_OK) status = number(r, scaling, "high_freq_factor", true, &high);
  if (status == FA_OK) status = number(r, scaling, "original_max_position_embeddings", true, &original);
  if (status != FA_OK) return status;
  if (!(factor > 0.0) || !(low > 0.0) || !(high > low) || !(original > 0.0)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: rotary scaling by %g between factors %g and %g of %g tokens; needed: above 0, "
                         "the second above the first", r->file, factor, low, high, original);
  }
  *divisors = malloc((size_t)(s->rotary_dim / 2 + 1) * sizeof **divisors);
  if (!*divisors) return fa_llama_out_of_memory("the rotary frequencies");
  for (int64_t d = 0; d < s->rotary_dim / 2; d++) {
    const double wavelength = 2.0 * 3.14159265358979323846 * pow(s->rotary_base, 2.0 * (double)d / (double)s->rotary_dim);
    const double share = fmin(fmax((original / wavelength - low) / (high - low), 0.0), 1.0);
    (*divisors)[d] = (float)(1.0 / ((1.0 - share) / factor + share));
  }
  return FA_OK;
}

/* Either flat (rope_theta, rope_scaling), or rope_parameters, which may be by kind of layer. */
static fa_status read_rotary(const reader *r, const struct architecture *a, fa_llama_shape *s, float **divisors) {
  const cJSON *parameters = member(r->config, "rope_parameters"), *scaling = member(r->config, "rope_scaling");
  const cJSON *full = member(parameters, "full_attention"), *local = member(parameters, "sliding_attention");
  double partial = 1.0;
  s->rotary_base = 10000.0;
  s->rotary_base_local = a->has_post_norms ? 10000.0 : 0.0; /* Gemma's windowed layers have their own */
  s->rotary_factor = 1.0;
  fa_status status = number(r, r->config, "rope_theta", false, &s->rotary_base);
  if (status == FA_OK) status = number(r, r->config, "rope_local_base_freq", false, &s->rotary_base_local);
  if (status == FA_OK) status = number(r, r->config, "partial_rotary_factor", false, &partial);
  if (full) parameters = full;
  if (status == FA_OK && parameters) status = number(r, parameters, "rope_theta", false, &s->rotary_base);
  if (status == FA_OK && local) status = number(r, local, "rope_theta", false, &s->rotary_base_local);
  if (status != FA_OK) return status;
  if (!(partial > 0.0 && partial <= 1.0))
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: 'partial_rotary_factor' is %g; it must be above 0 and at most 1", r->file, partial);
  s->rotary_dim = (int64_t)((double)s->head_dim_qk * partial);
  if (!scaling) scaling = parameters;
  const char *type = text(scaling, "rope_type", text(scaling, "type", "default"));
  if (strcmp(type, "default") == 0) return FA_OK;
  if (strcmp(type, "linear") == 0) return number(r, scaling, "factor", true, &s->rotary_factor);
  if (strcmp(type, "llama3") == 0) return llama3_divisors(r, scaling, s, divisors);
  return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: rotary scaling '%.60s'; done here: default, linear, llama3", r->file, type);
}

static fa_status read_first_window(const reader *r, fa_llama_shape *s) {
  int64_t first = 28; /* what Qwen's configurations mean where they do not say */
  const fa_status status = integer(r, "max_window_layers", false, &first);
  if (status != FA_OK || first == 0) return status;
  if (first < s->layers)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: max_window_layers is %lld of %lld layers; run here: 0 (a window in every "
                         "layer) or all of them (in none)", r->file, (long long)first, (long long)s->layers);
  s->window = 0;
  return FA_OK;
}

/* layer_types where the file has them; else sliding_window_pattern or max_window_layers; else all layers or none. */
static fa_status read_window(const reader *r, const struct architecture *a, fa_llama_shape *s) {
  fa_status status = integer(r, "sliding_window", false, &s->window);
  if (status != FA_OK || !s->window) return status;
  if (!truth(r, "use_sliding_window", !a->asks_for_window)) {
    s->window = 0;
    return FA_OK;
  }
  const cJSON *types = member(r->config, "layer_types"), *type;
  if (!types && a->asks_for_window) return read_first_window(r, s);
  if (!types) {
    s->global_every = a->has_post_norms ? 6 : 0; /* Gemma 3's, where the file does not say */
    return integer(r, "sliding_window_pattern", false, &s->global_every);
  }
  int64_t index = 0, windowed = 0, count = cJSON_GetArraySize(types);
  cJSON_ArrayForEach(type, types) {
    const char *name = cJSON_GetStringValue(type);
    const bool is_full = name && strcmp(name, "full_attention") == 0;
    if (!is_full && (!name || strcmp(name, "sliding_attention") != 0))
      return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: layer_types has '%.60s'; run here: full_attention, sliding_attention",
                           r->file, name ? name : "no text");
    if (is_full && s->global_every == 0) s->global_every = index + 1;
    windowed += !is_full;
    index++;
  }
  if (windowed == 0) s->window = s->global_every = 0;
  index = 0;
  cJSON_ArrayForEach(type, types) {
    if (s->window && fa_llama_layer_has_window(s, index++) != (strcmp(cJSON_GetStringValue(type), "sliding_attention") == 0))
      return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: layer_types do not repeat evenly; run here: every n-th layer sees "
                           "everything", r->file);
  }
  if (count != s->layers)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: layer_types has %lld entries for %lld layers", r->file, (long long)count,
                         (long long)s->layers);
  return FA_OK;
}

static fa_status read_activation(const reader *r, const struct architecture *a) {
  const char *given = text(r->config, "hidden_activation", text(r->config, "hidden_act", NULL));
  const char *wanted = a->activation == FA_ACTIVATION_SILU ? "silu" : "gelu_pytorch_tanh";
  if (!given || strcmp(given, wanted) == 0) return FA_OK;
  return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: activation '%.60s'; %s models run here with %s", r->file, given, a->model_type, wanted);
}

static fa_status read_config(const reader *r, fa_llama_shape *s, float **divisors) {
  const struct architecture *a;
  double epsilon = 0.0, scalar = 0.0, softcap = 0.0;
  fa_status status = find_architecture(r, &a);
  if (status == FA_OK) status = integer(r, "num_hidden_layers", true, &s->layers);
  if (status == FA_OK) status = integer(r, "hidden_size", true, &s->hidden);
  if (status == FA_OK) status = integer(r, "intermediate_size", true, &s->feed_forward);
  if (status == FA_OK) status = integer(r, "vocab_size", true, &s->vocabulary);
  if (status == FA_OK) status = integer(r, "max_position_embeddings", true, &s->context);
  if (status == FA_OK) status = integer(r, "num_attention_heads", true, &s->heads_q);
  s->heads_kv = s->heads_q;
  if (status == FA_OK) status = integer(r, "num_key_value_heads", false, &s->heads_kv);
  s->head_dim_qk = s->heads_q > 0 ? s->hidden / s->heads_q : 0;
  if (status == FA_OK) status = integer(r, "head_dim", false, &s->head_dim_qk);
  s->head_dim_v = s->head_dim_qk;
  if (status == FA_OK) status = number(r, r->config, "rms_norm_eps", true, &epsilon);
  if (status == FA_OK) status = number(r, r->config, "query_pre_attn_scalar", false, &scalar);
  if (status == FA_OK) status = number(r, r->config, "attn_logit_softcapping", false, &softcap);
  if (status == FA_OK && softcap == 0.0) status = number(r, r->config, "final_logit_softcapping", false, &softcap);
  if (status == FA_OK && softcap != 0.0)
    status = fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: caps logits at %g; models without a softcap are run here", r->file, softcap);
  if (status == FA_OK) status = read_activation(r, a);
  if (status != FA_OK) return status;
  s->activation = a->activation;
  s->has_gate = true;
  s->has_qkv_bias = a->has_qkv_bias || truth(r, "attention_bias", false);
  s->has_qk_norm = a->has_qk_norm;
  s->has_post_norms = a->has_post_norms;
  s->tied_embeddings = truth(r, "tie_word_embeddings", a->has_post_norms);
  s->norm_epsilon = (float)epsilon;
  s->attention_scale = scalar > 0.0 ? (float)(1.0 / sqrt(scalar)) : 0.0f;
  s->embedding_scale = s->has_post_norms ? sqrtf((float)s->hidden) : 1.0f; /* Gemma */
  /* Sizes first: what is allocated below goes by them. */
  s->rotary_base = s->rotary_base_local = s->rotary_factor = 1.0;
  status = fa_llama_shape_check(r->file, s);
  if (status == FA_OK) status = read_rotary(r, a, s, divisors);
  if (status == FA_OK) status = read_window(r, a, s);
  return status == FA_OK ? fa_llama_shape_check(r->file, s) : status;
}

fa_status fa_llama_shape_from_config(const char *folder, fa_llama_shape *shape, float **divisors) {
  reader r;
  cJSON *config = NULL;
  memset(shape, 0, sizeof *shape);
  *divisors = NULL;
  if (snprintf(r.file, sizeof r.file, "%s/config.json", folder) >= (int)sizeof r.file)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "the folder's name has %zu characters; at most 480 are taken", strlen(folder));
  fa_status status = fa_json_read_file(r.file, 1 << 20, &config);
  if (status != FA_OK) return status;
  r.config = config;
  status = read_config(&r, shape, divisors);
  cJSON_Delete(config);
  if (status != FA_OK) {
    free(*divisors);
    *divisors = NULL;
  }
  return status;
}
