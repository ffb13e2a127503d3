/* Opening a model: its shape and tokenizer from the file, its weights through the device's operators. */
#include "model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llama_error.h"
#include "tokenizer.h"

static const fa_llama_load_options defaults = FA_LLAMA_LOAD_OPTIONS_INIT;

bool fa_multiplies_bf16(const char *device) {
  const bool is_cpu = strcmp(device, "cpu") == 0;
  bool has_bf16 = false, lacks_bf16 = false;
  for (int32_t i = 0; i < fa_device_count(); i++) {
    fa_device_info info = FA_DEVICE_INFO_INIT;
    if (fa_device_describe(i, &info) != FA_OK || strncmp(info.name, device, strlen(device)) != 0 || !info.isa) continue;
    const bool has = is_cpu ? strstr(info.isa, "bf16") != NULL : strncmp(info.isa, "sm_", 3) == 0 && atoi(info.isa + 3) >= 80;
    has_bf16 |= has;
    lacks_bf16 |= !has;
  }
  return has_bf16 && !lacks_bf16;
}

/* What the device multiplies best: bf16 where it has it in hardware, else f16, or fp32 for models whose activations outgrow f16
 * (Gemma's). */
static fa_dtype best_dtype(const char *device, const fa_llama_shape *shape) {
  return fa_multiplies_bf16(device) ? FA_BFLOAT16 : shape->has_post_norms ? FA_FLOAT32 : FA_FLOAT16;
}

static fa_status open_engine(fa_llama_model *model, const fa_llama_load_options *options) {
  const fa_operators *operators = options->operators ? options->operators : &fa_cpu_operators;
  const fa_dtype dtype = options->dtype >= 0 ? (fa_dtype)options->dtype : best_dtype(operators->device, &model->shape);
  return operators->open(model->context, dtype, &model->engine);
}

static fa_status open_gguf(fa_llama_model *model, const char *path) {
  fa_status status = fa_gguf_open(path, &model->gguf);
  if (status == FA_OK) status = fa_llama_shape_from_gguf(model->gguf, &model->shape, &model->rotary_divisors);
  return status == FA_OK ? fa_tokenizer_create(model->gguf, &model->tokenizer) : status;
}

static fa_status open_folder(fa_llama_model *model, const char *path) {
  fa_status status = fa_llama_shape_from_config(path, &model->shape, &model->rotary_divisors);
  if (status == FA_OK) status = fa_safetensors_open(path, &model->safetensors);
  return status == FA_OK ? fa_tokenizer_open_json(path, &model->tokenizer) : status;
}

static fa_status load(fa_llama_model *model, const char *path, const fa_llama_load_options *options) {
  struct stat about;
  const bool is_folder = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
  fa_status status = is_folder ? open_folder(model, path) : open_gguf(model, path);
  if (status != FA_OK) return status;
  /* Tables padded beyond the tokenizer's last id are common; an id without a row is damage. */
  if (fa_tokenizer_count(model->tokenizer) > model->shape.vocabulary) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: the tokenizer has %lld tokens, the embedding rows for %lld", path,
                         (long long)fa_tokenizer_count(model->tokenizer), (long long)model->shape.vocabulary);
  }
  status = open_engine(model, options);
  const fa_weight_source source = {.gguf = model->gguf, .safetensors = model->safetensors,
                                   .norms_from_one = model->safetensors && model->shape.has_post_norms};
  return status == FA_OK ? fa_llama_weights_load(model, &source, options->progress, options->progress_user) : status;
}

static fa_status make_random(fa_llama_model *model, const fa_llama_shape *shape, const fa_llama_load_options *options) {
  fa_status status = fa_llama_shape_check("random weights", shape);
  model->shape = *shape;
  if (status == FA_OK) status = open_engine(model, options);
  if (status != FA_OK) return status;
  const fa_dtype dtype = model->engine->dtype;
  const fa_weight_source source = {.random_type = dtype == FA_FLOAT32   ? FA_GGML_F32
                                                  : dtype == FA_FLOAT16 ? FA_GGML_F16
                                                                        : FA_GGML_BF16};
  return fa_llama_weights_load(model, &source, options->progress, options->progress_user);
}

static fa_status open_model(fa_context *context, const char *path, const fa_llama_shape *shape,
                            const fa_llama_load_options *options, fa_llama_model **result) {
  fa_llama_model *model = calloc(1, sizeof *model);
  if (!model) return fa_llama_out_of_memory("the model");
  model->context = context;
  if (!options) options = &defaults;
  const fa_status status = path ? load(model, path, options) : make_random(model, shape, options);
  if (status != FA_OK) {
    fa_llama_model_free(model);
    return status;
  }
  *result = model;
  return FA_OK;
}

fa_status fa_llama_model_load(fa_context *context, const char *path, const fa_llama_load_options *options,
                              fa_llama_model **model) {
  return open_model(context, path, NULL, options, model);
}

fa_status fa_llama_model_random(fa_context *context, const fa_llama_shape *shape, const fa_llama_load_options *options,
                                fa_llama_model **model) {
  return open_model(context, NULL, shape, options, model);
}

void fa_llama_model_free(fa_llama_model *model) {
  if (!model) return;
  fa_llama_weights_unload(model);
  if (model->engine) model->engine->operators->close(model->engine);
  fa_tokenizer_free(model->tokenizer);
  fa_safetensors_close(model->safetensors);
  fa_gguf_close(model->gguf);
  free(model->rotary_divisors);
  free(model);
}

const fa_llama_shape *fa_llama_model_shape(const fa_llama_model *model) { return &model->shape; }
const fa_tokenizer *fa_llama_model_tokenizer(const fa_llama_model *model) { return model->tokenizer; }
fa_dtype fa_llama_model_dtype(const fa_llama_model *model) { return model->engine->dtype; }
const char *fa_llama_model_device(const fa_llama_model *model) { return model->engine->operators->device; }
int64_t fa_llama_model_parameters(const fa_llama_model *model) { return fa_llama_shape_parameters(&model->shape); }

size_t fa_llama_model_weight_bytes(const fa_llama_model *model) {
  const fa_operators *on = model->engine->operators;
  size_t bytes = on->matrix_bytes(model->output);
  for (int64_t i = 0; i < model->shape.layers; i++) {
    const fa_llama_layer *layer = &model->layers[i];
    bytes += on->matrix_bytes(layer->qkv) + on->matrix_bytes(layer->out) + on->matrix_bytes(layer->gated) +
             on->matrix_bytes(layer->down);
  }
  return bytes;
}
