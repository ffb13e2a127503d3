/* What a model file says about itself, and opening one. */
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "model.h"
#include "tokenizer.h"

enum { MAX_LAYERS = 1024, MAX_WIDTH = 1 << 20, MAX_HEADS = 1024, MAX_HEAD_DIM = 576, MAX_CONTEXT = 1 << 26 };

/* What this forward pass does not compute must not be ignored silently. */
static fa_status refuse_unknown_parts(const fa_gguf *gguf) {
  int64_t experts = 0;
  fa_gguf_string scaling = {"none", 4};
  fa_status status = fa_gguf_integer(gguf, "llama.expert_count", false, 0, INT32_MAX, &experts);
  if (status == FA_OK) status = fa_gguf_text(gguf, "llama.rope.scaling.type", false, &scaling);
  if (status != FA_OK) return status;
  if (experts) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                         "%s: a mixture of %lld experts; dense Llama models are run here", fa_gguf_name(gguf),
                         (long long)experts);
  }
  if (!fa_gguf_string_is(scaling, "none") && !fa_gguf_string_is(scaling, "linear")) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: rotary scaling '%.*s'; done here: none, linear",
                         fa_gguf_name(gguf), scaling.length < 100 ? (int)scaling.length : 100, scaling.bytes);
  }
  return FA_OK;
}

static fa_status read_rotary(const fa_gguf *gguf, fa_llama_shape *shape) {
  fa_gguf_string scaling = {"none", 4};
  double epsilon = 0.0;
  shape->rotary_base = 10000.0;
  shape->rotary_factor = 1.0;
  shape->rotary_dim = shape->head_dim_qk;
  fa_status status =
      fa_gguf_integer(gguf, "llama.rope.dimension_count", false, 2, shape->head_dim_qk, &shape->rotary_dim);
  if (status == FA_OK) status = fa_gguf_real(gguf, "llama.rope.freq_base", false, &shape->rotary_base);
  if (status == FA_OK) status = fa_gguf_text(gguf, "llama.rope.scaling.type", false, &scaling);
  if (status == FA_OK && fa_gguf_string_is(scaling, "linear")) {
    status = fa_gguf_real(gguf, "llama.rope.scaling.factor", true, &shape->rotary_factor);
  }
  if (status == FA_OK) status = fa_gguf_real(gguf, "llama.attention.layer_norm_rms_epsilon", true, &epsilon);
  if (status != FA_OK) return status;
  if (shape->rotary_dim % 2 || !(shape->rotary_base > 0.0) || !(shape->rotary_factor > 0.0) ||
      !(epsilon >= 0.0)) {
    return fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "%s: rotary dimensions %lld, base %g, factor %g, norm epsilon %g; needed: even, above 0, above "
        "0, at least 0",
        fa_gguf_name(gguf), (long long)shape->rotary_dim, shape->rotary_base, shape->rotary_factor, epsilon);
  }
  shape->norm_epsilon = (float)epsilon;
  return FA_OK;
}

fa_status fa_llama_shape_read(const fa_gguf *gguf, fa_llama_shape *shape) {
  fa_gguf_string architecture;
  fa_status status = fa_gguf_text(gguf, "general.architecture", true, &architecture);
  if (status != FA_OK) return status;
  if (!fa_gguf_string_is(architecture, "llama")) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: architecture '%.*s'; run here: llama", fa_gguf_name(gguf),
                         architecture.length < 100 ? (int)architecture.length : 100, architecture.bytes);
  }
  memset(shape, 0, sizeof *shape);
  const struct {
    const char *key;
    int64_t most;
    int64_t *value;
  } sizes[] = {{"llama.block_count", MAX_LAYERS, &shape->layers},
               {"llama.embedding_length", MAX_WIDTH, &shape->hidden},
               {"llama.feed_forward_length", MAX_WIDTH, &shape->feed_forward},
               {"llama.context_length", MAX_CONTEXT, &shape->context},
               {"llama.attention.head_count", MAX_HEADS, &shape->heads_q}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && status == FA_OK; i++) {
    status = fa_gguf_integer(gguf, sizes[i].key, true, 1, sizes[i].most, sizes[i].value);
  }
  if (status != FA_OK) return status;
  shape->heads_kv = shape->heads_q;
  shape->head_dim_qk = shape->head_dim_v = shape->hidden / shape->heads_q;
  status = fa_gguf_integer(gguf, "llama.attention.head_count_kv", false, 1, shape->heads_q, &shape->heads_kv);
  if (status == FA_OK) {
    status = fa_gguf_integer(gguf, "llama.attention.key_length", false, 1, MAX_HEAD_DIM, &shape->head_dim_qk);
  }
  if (status == FA_OK) {
    status =
        fa_gguf_integer(gguf, "llama.attention.value_length", false, 1, MAX_HEAD_DIM, &shape->head_dim_v);
  }
  if (status != FA_OK) return status;
  if (shape->heads_q % shape->heads_kv || shape->head_dim_qk < 1 || shape->head_dim_qk > MAX_HEAD_DIM) {
    return fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "%s: %lld query heads on %lld KV heads of %lld; query heads must be a multiple of KV heads, and "
        "heads 1 .. %d long",
        fa_gguf_name(gguf), (long long)shape->heads_q, (long long)shape->heads_kv,
        (long long)shape->head_dim_qk, MAX_HEAD_DIM);
  }
  status = read_rotary(gguf, shape);
  return status == FA_OK ? refuse_unknown_parts(gguf) : status;
}

/* Whether this CPU multiplies bf16 in hardware, by the public description of device "cpu". */
static bool multiplies_bf16(void) {
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info info = FA_DEVICE_INFO_INIT;
    if (fa_device_describe(i, &info) == FA_OK && strcmp(info.name, "cpu") == 0) {
      return info.isa && strstr(info.isa, "bf16");
    }
  }
  return false;
}

static fa_status load(fa_llama_model *model, const char *path, fa_llama_precision precision) {
  const bool bf16 = precision == FA_LLAMA_BF16 || (precision == FA_LLAMA_AUTO && multiplies_bf16());
  model->dtype = bf16 ? FA_BFLOAT16 : FA_FLOAT32;
  fa_status status = fa_gguf_open(path, &model->gguf);
  if (status == FA_OK) status = fa_llama_shape_read(model->gguf, &model->shape);
  if (status == FA_OK) status = fa_tokenizer_create(model->gguf, &model->tokenizer);
  if (status != FA_OK) return status;
  model->shape.vocabulary = fa_tokenizer_count(model->tokenizer);
  status = fa_matmul_create(model->dtype, fa_context_threads(model->context), &model->packer);
  return status == FA_OK ? fa_llama_weights_load(model) : status;
}

fa_status fa_llama_model_load(fa_context *context, const char *path, fa_llama_precision precision,
                              fa_llama_model **result) {
  fa_llama_model *model = calloc(1, sizeof *model);
  if (!model) return fa_llama_out_of_memory("the model");
  model->context = context;
  const fa_status status = load(model, path, precision);
  if (status != FA_OK) {
    fa_llama_model_free(model);
    return status;
  }
  *result = model;
  return FA_OK;
}

void fa_llama_model_free(fa_llama_model *model) {
  if (!model) return;
  fa_llama_weights_unload(model);
  fa_matmul_free(model->packer);
  fa_tokenizer_free(model->tokenizer);
  fa_gguf_close(model->gguf);
  free(model);
}

const fa_llama_shape *fa_llama_model_shape(const fa_llama_model *model) { return &model->shape; }
const fa_tokenizer *fa_llama_model_tokenizer(const fa_llama_model *model) { return model->tokenizer; }
fa_dtype fa_llama_model_dtype(const fa_llama_model *model) { return model->dtype; }
int64_t fa_llama_model_parameters(const fa_llama_model *model) { return model->parameters; }

size_t fa_llama_model_weight_bytes(const fa_llama_model *model) {
  size_t bytes = fa_packed_weight_bytes(model->output);
  for (int64_t i = 0; i < model->shape.layers; i++) {
    const fa_llama_layer *layer = &model->layers[i];
    bytes += fa_packed_weight_bytes(layer->qkv) + fa_packed_weight_bytes(layer->out) +
             fa_packed_weight_bytes(layer->gate) + fa_packed_weight_bytes(layer->up) +
             fa_packed_weight_bytes(layer->down);
  }
  return bytes;
}
