/* From a file's tensors to what a device multiplies: each is looked up under its format's name, checked against the
 * shape, and handed to the engine in the file's own type. Without a file the engine makes random values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "model.h"

/* The parts of a layer; names in GGUF behind "blk.<n>.", in safetensors behind "model.layers.<n>.". */
typedef enum role {
  ATTENTION_NORM,
  Q, K, V,
  Q_BIAS, K_BIAS, V_BIAS,
  Q_NORM, K_NORM,
  OUT,
  ATTENTION_POST_NORM,
  FFN_NORM,
  GATE, UP, DOWN,
  FFN_POST_NORM,
  ROLES
} role;

static const struct {
  const char *gguf, *safetensors;
} names[ROLES] = {
    [ATTENTION_NORM] = {"attn_norm.weight", "input_layernorm.weight"},
    [Q] = {"attn_q.weight", "self_attn.q_proj.weight"},
    [K] = {"attn_k.weight", "self_attn.k_proj.weight"},
    [V] = {"attn_v.weight", "self_attn.v_proj.weight"},
    [Q_BIAS] = {"attn_q.bias", "self_attn.q_proj.bias"},
    [K_BIAS] = {"attn_k.bias", "self_attn.k_proj.bias"},
    [V_BIAS] = {"attn_v.bias", "self_attn.v_proj.bias"},
    [Q_NORM] = {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    [K_NORM] = {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    [OUT] = {"attn_output.weight", "self_attn.o_proj.weight"},
    [ATTENTION_POST_NORM] = {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    [FFN_NORM] = {"ffn_norm.weight", "post_attention_layernorm.weight"}, /* where there are post-norms: below */
    [GATE] = {"ffn_gate.weight", "mlp.gate_proj.weight"},
    [UP] = {"ffn_up.weight", "mlp.up_proj.weight"},
    [DOWN] = {"ffn_down.weight", "mlp.down_proj.weight"},
    [FFN_POST_NORM] = {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
};

enum { NAME = 96 };

typedef struct loader {
  fa_llama_model *model;
  const fa_weight_source *source;
} loader;

static void name_of(const loader *l, int64_t layer, role r, char name[NAME]) {
  if (l->source->safetensors) {
    const char *part = names[r].safetensors;
    if (r == FFN_NORM && l->model->shape.has_post_norms) part = "pre_feedforward_layernorm.weight";
    snprintf(name, NAME, "model.layers.%lld.%s", (long long)layer, part);
  } else {
    snprintf(name, NAME, "blk.%lld.%s", (long long)layer, names[r].gguf);
  }
}

/* The tensor `name` as [rows, columns]; a vector has rows 1. The name must live as long as the part. */
static fa_status find_part(loader *l, const char *name, bool is_vector, int64_t rows, int64_t columns, fa_weight_part *part) {
  const fa_weight_source *from = l->source;
  int64_t size[2];
  int dims;
  *part = (fa_weight_part){.name = name, .rows = rows, .columns = columns};
  if (from->gguf) {
    const fa_gguf_tensor *tensor = fa_gguf_find_tensor(from->gguf, name);
    if (!tensor) goto missing;
    part->type = tensor->type, part->data = tensor->data;
    dims = tensor->dims, size[0] = tensor->size[0], size[1] = tensor->size[1];
  } else if (from->safetensors) {
    const fa_safetensor *tensor = fa_safetensors_find(from->safetensors, name);
    if (!tensor) goto missing;
    part->type = tensor->type, part->data = tensor->data;
    dims = tensor->dims, size[0] = tensor->size[0], size[1] = tensor->size[1];
  } else {
    part->type = from->random_type;
    for (const char *c = name; *c; c++) part->seed = (part->seed ^ (uint8_t)*c) * 0x100000001b3u; /* FNV-1a */
    return FA_OK;
  }
  const char *const file = from->gguf ? fa_gguf_name(from->gguf) : fa_safetensors_name(from->safetensors);
  const fa_ggml_type *type = fa_ggml_type_of(part->type);
  if (!type || !type->to_float) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: tensor '%s' is of type %s; read here: %s", file, name,
                         type ? type->name : fa_safetensors_find(from->safetensors, name)->dtype, fa_ggml_types_read);
  }
  if (dims != (is_vector ? 1 : 2) || size[0] != columns || (!is_vector && size[1] != rows)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%s' is %lld x %lld (%d dimensions); the metadata wants %lld x %lld",
                         file, name, (long long)(dims > 1 ? size[1] : 1), (long long)size[0], dims, (long long)rows,
                         (long long)columns);
  }
  return FA_OK;
missing:
  return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%s' is missing; the file does not hold a whole model",
                       from->gguf ? fa_gguf_name(from->gguf) : fa_safetensors_name(from->safetensors), name);
}

/* ------------------------------------------------------------------------ vectors */

static fa_status to_device(fa_llama_model *model, const float *values, int64_t count, float **vector) {
  void *memory = NULL;
  const size_t bytes = (size_t)count * sizeof *values;
  fa_status status = fa_buffer_allocate(model->context, bytes, &memory);
  if (status != FA_OK) return fa_llama_fail_library(status, "a weight");
  *vector = memory;
  status = fa_buffer_copy(model->context, memory, values, bytes, FA_COPY_HOST_TO_DEVICE, model->engine->stream);
  if (status == FA_OK) status = fa_stream_synchronize(model->context, model->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "a weight");
}

/* Random models have norms of one and biases of zero. */
static fa_status read_vector(loader *l, const char *name, int64_t count, float random, float offset, float *values) {
  fa_weight_part part;
  const fa_status status = find_part(l, name, true, 1, count, &part);
  if (status != FA_OK) return status;
  if (part.data)
    fa_ggml_type_of(part.type)->to_float(part.data, values, count);
  for (int64_t i = 0; i < count; i++) values[i] = part.data ? values[i] + offset : random;
  return FA_OK;
}

static fa_status load_norm(loader *l, const char *name, int64_t count, float **vector) {
  float *values = malloc((size_t)count * sizeof *values);
  if (!values) return fa_llama_out_of_memory("a weight");
  fa_status status = read_vector(l, name, count, 1.0f, l->source->norms_from_one ? 1.0f : 0.0f, values);
  if (status == FA_OK) status = to_device(l->model, values, count, vector);
  free(values);
  return status;
}

static fa_status load_layer_norm(loader *l, int64_t layer, role r, int64_t count, float **vector) {
  char name[NAME];
  name_of(l, layer, r, name);
  return load_norm(l, name, count, vector);
}

static fa_status load_qkv_bias(loader *l, int64_t layer, const int64_t rows[3], float **vector) {
  float *values = malloc((size_t)(rows[0] + rows[1] + rows[2]) * sizeof *values), *next = values;
  if (!values) return fa_llama_out_of_memory("a weight");
  fa_status status = FA_OK;
  for (int i = 0; i < 3 && status == FA_OK; next += rows[i++]) {
    char name[NAME];
    name_of(l, layer, (role)(Q_BIAS + i), name);
    status = read_vector(l, name, rows[i], 0.0f, 0.0f, next);
  }
  if (status == FA_OK) status = to_device(l->model, values, rows[0] + rows[1] + rows[2], vector);
  free(values);
  return status;
}

/* ----------------------------------------------------------------------- matrices */

static fa_status load_matrix(loader *l, int64_t layer, const role *roles, const int64_t *rows, int count, int64_t columns,
                             fa_matrix **matrix) {
  fa_weight_part parts[FA_MATRIX_PARTS];
  char part_names[FA_MATRIX_PARTS][NAME];
  for (int i = 0; i < count; i++) {
    name_of(l, layer, roles[i], part_names[i]);
    const fa_status status = find_part(l, part_names[i], false, rows[i], columns, &parts[i]);
    if (status != FA_OK) return status;
  }
  fa_engine *engine = l->model->engine;
  return engine->operators->matrix_create(engine, parts, count, FA_MATRIX_PRODUCT, matrix);
}

static fa_status load_layer(loader *l, int64_t index) {
  const fa_llama_shape *s = &l->model->shape;
  fa_llama_layer *layer = &l->model->layers[index];
  const int64_t qkv_rows[] = {s->heads_q * s->head_dim_qk, s->heads_kv * s->head_dim_qk, s->heads_kv * s->head_dim_v};
  const int64_t gated_rows[] = {s->feed_forward, s->feed_forward};
  static const role qkv[] = {Q, K, V}, gate_up[] = {GATE, UP}, out = OUT, down = DOWN;
  fa_status status = load_layer_norm(l, index, ATTENTION_NORM, s->hidden, &layer->attention_norm);
  if (status == FA_OK) status = load_layer_norm(l, index, FFN_NORM, s->hidden, &layer->ffn_norm);
  if (status == FA_OK && s->has_post_norms) {
    status = load_layer_norm(l, index, ATTENTION_POST_NORM, s->hidden, &layer->attention_post_norm);
    if (status == FA_OK) status = load_layer_norm(l, index, FFN_POST_NORM, s->hidden, &layer->ffn_post_norm);
  }
  if (status == FA_OK && s->has_qk_norm) {
    status = load_layer_norm(l, index, Q_NORM, s->head_dim_qk, &layer->q_norm);
    if (status == FA_OK) status = load_layer_norm(l, index, K_NORM, s->head_dim_qk, &layer->k_norm);
  }
  if (status == FA_OK && s->has_qkv_bias) status = load_qkv_bias(l, index, qkv_rows, &layer->qkv_bias);
  if (status == FA_OK) status = load_matrix(l, index, qkv, qkv_rows, 3, s->hidden, &layer->qkv);
  if (status == FA_OK) status = load_matrix(l, index, &out, &s->hidden, 1, s->heads_q * s->head_dim_v, &layer->out);
  if (status == FA_OK)
    status = load_matrix(l, index, s->has_gate ? gate_up : gate_up + 1, gated_rows, s->has_gate ? 2 : 1, s->hidden, &layer->gated);
  if (status == FA_OK) status = load_matrix(l, index, &down, &s->hidden, 1, s->feed_forward, &layer->down);
  return status;
}

static fa_status load_ends(loader *l) {
  fa_llama_model *model = l->model;
  const fa_llama_shape *s = &model->shape;
  const bool hf = l->source->safetensors != NULL;
  fa_engine *engine = model->engine;
  fa_weight_part table;
  fa_status status = find_part(l, hf ? "model.embed_tokens.weight" : "token_embd.weight", false, s->vocabulary, s->hidden, &table);
  if (status == FA_OK) {
    status = engine->operators->matrix_create(engine, &table, 1, FA_MATRIX_EMBEDDING | (s->tied_embeddings ? FA_MATRIX_PRODUCT : 0),
                                              &model->embedding);
  }
  if (status == FA_OK) status = load_norm(l, hf ? "model.norm.weight" : "output_norm.weight", s->hidden, &model->output_norm);
  if (status != FA_OK) return status;
  if (s->tied_embeddings) {
    model->output = model->embedding;
    return FA_OK;
  }
  fa_weight_part output;
  status = find_part(l, hf ? "lm_head.weight" : "output.weight", false, s->vocabulary, s->hidden, &output);
  return status == FA_OK ? engine->operators->matrix_create(engine, &output, 1, FA_MATRIX_PRODUCT, &model->output) : status;
}

/* ------------------------------------------------------------------- whole models */

/* Tensors that the forward pass need not read: frequencies that the shape has taken in already, and, where embeddings
 * are tied, the copy that some safetensors carry. */
static bool is_known(const char *name, size_t length, const fa_llama_shape *s) {
  static const char rotary[] = "rotary_emb.inv_freq";
  if (length >= sizeof rotary - 1 && memcmp(name + length - (sizeof rotary - 1), rotary, sizeof rotary - 1) == 0) return true;
  return (length == 17 && memcmp(name, "rope_freqs.weight", 17) == 0) ||
         (s->tied_embeddings && length == 14 && memcmp(name, "lm_head.weight", 14) == 0);
}

static bool has_role(const fa_llama_shape *s, role r) {
  if (r == GATE) return s->has_gate;
  if (r >= Q_BIAS && r <= V_BIAS) return s->has_qkv_bias;
  if (r == Q_NORM || r == K_NORM) return s->has_qk_norm;
  return (r != ATTENTION_POST_NORM && r != FFN_POST_NORM) || s->has_post_norms;
}

/* Whether one of the ends, or some layer's part, has this name. */
static bool has_place(const loader *l, const char *name, size_t length) {
  static const char *const ends[] = {"token_embd.weight", "output_norm.weight", "output.weight",
                                     "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
  const char *const prefix = l->source->safetensors ? "model.layers." : "blk.";
  const size_t skip = strlen(prefix);
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
    if (strlen(ends[i]) == length && memcmp(ends[i], name, length) == 0) return true;
  }
  if (length <= skip || memcmp(name, prefix, skip) != 0) return false;
  int64_t layer = 0;
  size_t at = skip;
  while (at < length && name[at] >= '0' && name[at] <= '9' && layer <= INT32_MAX) layer = 10 * layer + (name[at++] - '0');
  if (at == skip || layer >= l->model->shape.layers) return false;
  for (int r = 0; r < ROLES; r++) {
    char wanted[NAME];
    name_of(l, layer, (role)r, wanted);
    if (has_role(&l->model->shape, (role)r) && strlen(wanted) == length && memcmp(wanted, name, length) == 0) return true;
  }
  return false;
}

/* A tensor nobody asked for (a bias, an adapter) would change the result: better no answer than a wrong one. */
static fa_status refuse_unknown_tensors(const loader *l) {
  const fa_weight_source *from = l->source;
  const int64_t count = from->gguf ? fa_gguf_tensor_count(from->gguf)
                        : from->safetensors ? fa_safetensors_count(from->safetensors) : 0;
  int64_t roles = 0;
  for (int r = 0; r < ROLES; r++) roles += has_role(&l->model->shape, (role)r);
  const int64_t wanted = 2 + !l->model->shape.tied_embeddings + l->model->shape.layers * roles;
  /* With no tensor too many, a stranger stands for one that is missing, which is the better thing to say. */
  for (int64_t i = 0; i < count && count > wanted; i++) {
    const char *name = from->gguf ? fa_gguf_tensor_at(from->gguf, i)->name.bytes : fa_safetensors_at(from->safetensors, i)->name;
    const size_t length = from->gguf ? fa_gguf_tensor_at(from->gguf, i)->name.length : strlen(name);
    if (!is_known(name, length, &l->model->shape) && !has_place(l, name, length)) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: tensor '%.*s' has no place in this model of %lld layers",
                           from->gguf ? fa_gguf_name(from->gguf) : fa_safetensors_name(from->safetensors),
                           length < 200 ? (int)length : 200, name, (long long)l->model->shape.layers);
    }
  }
  return FA_OK;
}

fa_status fa_llama_weights_load(fa_llama_model *model, const fa_weight_source *source, fa_llama_progress progress, void *user) {
  loader l = {model, source};
  fa_status status = refuse_unknown_tensors(&l);
  if (status != FA_OK) return status;
  model->layers = calloc((size_t)model->shape.layers, sizeof *model->layers);
  if (!model->layers) return fa_llama_out_of_memory("the layers");
  status = load_ends(&l);
  for (int64_t i = 0; i < model->shape.layers && status == FA_OK; i++) {
    status = load_layer(&l, i);
    if (status == FA_OK && progress) progress(user, i + 1, model->shape.layers);
  }
  return status;
}

void fa_llama_weights_unload(fa_llama_model *model) {
  fa_engine *engine = model->engine;
  if (!engine) return;
  const fa_operators *on = engine->operators;
  for (int64_t i = 0; model->layers && i < model->shape.layers; i++) {
    fa_llama_layer *layer = &model->layers[i];
    float *vectors[] = {layer->attention_norm, layer->ffn_norm, layer->attention_post_norm, layer->ffn_post_norm,
                        layer->qkv_bias, layer->q_norm, layer->k_norm};
    for (size_t v = 0; v < sizeof vectors / sizeof vectors[0]; v++) fa_buffer_free(model->context, vectors[v]);
    on->matrix_free(engine, layer->qkv);
    on->matrix_free(engine, layer->out);
    on->matrix_free(engine, layer->gated);
    on->matrix_free(engine, layer->down);
  }
  free(model->layers);
  fa_buffer_free(model->context, model->output_norm);
  if (model->output != model->embedding) on->matrix_free(engine, model->output);
  on->matrix_free(engine, model->embedding);
  model->layers = NULL;
}
