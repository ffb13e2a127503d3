/* From the file's tensors to packed weights: each is checked against the shape the metadata promises,
 * dequantised on all threads into one scratch matrix, and packed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "model.h"

/* A tensor of exactly [rows, columns] (a vector: rows 1, one dimension) of a type that can be read. */
static fa_status find_tensor(const fa_llama_model *model, const char *name, bool vector, int64_t rows,
                             int64_t columns, const fa_gguf_tensor **found) {
  const fa_gguf_tensor *tensor = fa_gguf_find_tensor(model->gguf, name);
  const char *file = fa_gguf_name(model->gguf);
  *found = tensor;
  if (!tensor) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: tensor '%s' is missing; the file does not hold a whole model", file, name);
  }
  const fa_ggml_type *type = fa_ggml_type_of(tensor->type);
  if (!type->to_float) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: tensor '%s' is of type %s; read here: %s", file, name,
                         type->name, fa_ggml_types_read);
  }
  if (tensor->dims != (vector ? 1 : 2) || tensor->size[0] != columns || tensor->size[1] != rows) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: tensor '%s' is %lld x %lld (%d dimensions); the metadata wants %lld x %lld",
                         file, name, (long long)tensor->size[1], (long long)tensor->size[0], tensor->dims,
                         (long long)rows, (long long)columns);
  }
  return FA_OK;
}

static fa_status load_vector(fa_llama_model *model, const char *name, int64_t count, float **vector) {
  const fa_gguf_tensor *tensor;
  const fa_status status = find_tensor(model, name, true, 1, count, &tensor);
  if (status != FA_OK) return status;
  *vector = malloc((size_t)count * sizeof **vector);
  if (!*vector) return fa_llama_out_of_memory("a weight");
  fa_ggml_type_of(tensor->type)->to_float(tensor->data, *vector, count);
  model->parameters += count;
  return FA_OK;
}

static void dequantize_rows(const fa_llama_model *model, const fa_gguf_tensor *tensor, float *rows) {
  const fa_ggml_type *type = fa_ggml_type_of(tensor->type);
  const int64_t columns = tensor->size[0], count = tensor->elements / columns;
  const int64_t row_bytes = columns / type->block_elements * type->block_bytes;
#pragma omp parallel for num_threads(fa_context_threads(model->context)) schedule(static)
  for (int64_t row = 0; row < count; row++) {
    type->to_float(tensor->data + row * row_bytes, rows + row * columns, columns);
  }
}

/* Up to three tensors of the same input width, stacked into one weight: fewer, larger products. */
typedef struct part {
  const char *name;
  int64_t rows;
} part;

static fa_status load_matrix(fa_llama_model *model, int64_t layer, const part *parts, int count,
                             int64_t columns, fa_packed_weight **weight) {
  const fa_gguf_tensor *tensors[3];
  int64_t rows = 0;
  for (int i = 0; i < count; i++) {
    char name[64];
    if (layer >= 0)
      snprintf(name, sizeof name, "blk.%lld.%s.weight", (long long)layer, parts[i].name);
    else
      snprintf(name, sizeof name, "%s.weight", parts[i].name);
    const fa_status status = find_tensor(model, name, false, parts[i].rows, columns, &tensors[i]);
    if (status != FA_OK) return status;
    rows += parts[i].rows;
  }
  float *scratch = malloc((size_t)rows * (size_t)columns * sizeof *scratch);
  if (!scratch) return fa_llama_out_of_memory("a weight");
  float *next = scratch;
  for (int i = 0; i < count; i++) {
    dequantize_rows(model, tensors[i], next);
    next += tensors[i]->elements;
  }
  const fa_status status = fa_packed_weight_create(model->packer, rows, columns, scratch, weight);
  free(scratch);
  return status;
}

static fa_status load_layer(fa_llama_model *model, int64_t index) {
  const fa_llama_shape *s = &model->shape;
  fa_llama_layer *layer = &model->layers[index];
  const int64_t key_rows = s->heads_kv * s->head_dim_qk, value_rows = s->heads_kv * s->head_dim_v;
  const int64_t query_rows = s->heads_q * s->head_dim_qk, out_columns = s->heads_q * s->head_dim_v;
  const part qkv[] = {{"attn_q", query_rows}, {"attn_k", key_rows}, {"attn_v", value_rows}};
  const part out = {"attn_output", s->hidden}, down = {"ffn_down", s->hidden};
  const part gate = {"ffn_gate", s->feed_forward}, up = {"ffn_up", s->feed_forward};
  char name[64];
  snprintf(name, sizeof name, "blk.%lld.attn_norm.weight", (long long)index);
  fa_status status = load_vector(model, name, s->hidden, &layer->attention_norm);
  snprintf(name, sizeof name, "blk.%lld.ffn_norm.weight", (long long)index);
  if (status == FA_OK) status = load_vector(model, name, s->hidden, &layer->ffn_norm);
  if (status == FA_OK) status = load_matrix(model, index, qkv, 3, s->hidden, &layer->qkv);
  if (status == FA_OK) status = load_matrix(model, index, &out, 1, out_columns, &layer->out);
  if (status == FA_OK) status = load_matrix(model, index, &gate, 1, s->hidden, &layer->gate);
  if (status == FA_OK) status = load_matrix(model, index, &up, 1, s->hidden, &layer->up);
  if (status == FA_OK) status = load_matrix(model, index, &down, 1, s->feed_forward, &layer->down);
  model->parameters +=
      fa_llama_qkv_width(s) * s->hidden + s->hidden * out_columns + 3 * s->hidden * s->feed_forward;
  return status;
}

/* A tensor nobody asked for (a bias, an adapter) would change the result: better no answer than a wrong one.
 */
static fa_status refuse_unknown_tensors(const fa_llama_model *model, int64_t known) {
  if (fa_gguf_tensor_count(model->gguf) == known) return FA_OK;
  static const char *const names[] = {"attn_norm",   "ffn_norm", "attn_q", "attn_k",  "attn_v",
                                      "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
  for (int64_t i = 0; i < fa_gguf_tensor_count(model->gguf); i++) {
    const fa_gguf_string name = fa_gguf_tensor_at(model->gguf, i)->name;
    bool expected =
        fa_gguf_string_is(name, "token_embd.weight") || fa_gguf_string_is(name, "output.weight") ||
        fa_gguf_string_is(name, "output_norm.weight") || fa_gguf_string_is(name, "rope_freqs.weight");
    for (int64_t layer = 0; layer < model->shape.layers && !expected; layer++) {
      for (size_t n = 0; n < sizeof names / sizeof names[0] && !expected; n++) {
        char text[64];
        snprintf(text, sizeof text, "blk.%lld.%s.weight", (long long)layer, names[n]);
        expected = fa_gguf_string_is(name, text);
      }
    }
    if (!expected) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                           "%s: tensor '%.*s' has no place in a Llama model of %lld layers",
                           fa_gguf_name(model->gguf), name.length < 200 ? (int)name.length : 200, name.bytes,
                           (long long)model->shape.layers);
    }
  }
  return FA_OK;
}

fa_status fa_llama_weights_load(fa_llama_model *model) {
  const fa_llama_shape *s = &model->shape;
  const bool tied = !fa_gguf_find_tensor(model->gguf, "output.weight");
  const bool divisors = fa_gguf_find_tensor(model->gguf, "rope_freqs.weight");
  const part output = {tied ? "token_embd" : "output", s->vocabulary};
  fa_status status = refuse_unknown_tensors(model, 2 + !tied + divisors + 9 * s->layers);
  if (status != FA_OK) return status;
  model->layers = calloc((size_t)s->layers, sizeof *model->layers);
  if (!model->layers) return fa_llama_out_of_memory("the layers");
  status = find_tensor(model, "token_embd.weight", false, s->vocabulary, s->hidden, &model->embedding);
  if (status == FA_OK) status = load_vector(model, "output_norm.weight", s->hidden, &model->output_norm);
  if (status == FA_OK && divisors) {
    status = load_vector(model, "rope_freqs.weight", s->rotary_dim / 2, &model->rotary_divisors);
  }
  for (int64_t i = 0; i < s->layers && status == FA_OK; i++) status = load_layer(model, i);
  if (status == FA_OK) status = load_matrix(model, -1, &output, 1, s->hidden, &model->output);
  model->parameters += (tied ? 1 : 2) * s->vocabulary * s->hidden;
  return status;
}

void fa_llama_weights_unload(fa_llama_model *model) {
  for (int64_t i = 0; model->layers && i < model->shape.layers; i++) {
    fa_llama_layer *layer = &model->layers[i];
    free(layer->attention_norm);
    free(layer->ffn_norm);
    fa_packed_weight_free(layer->qkv);
    fa_packed_weight_free(layer->out);
    fa_packed_weight_free(layer->gate);
    fa_packed_weight_free(layer->up);
    fa_packed_weight_free(layer->down);
  }
  free(model->layers);
  free(model->output_norm);
  free(model->rotary_divisors);
  fa_packed_weight_free(model->output);
}
