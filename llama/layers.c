/* The forward pass, one for every device:
 *
 *   x = scale * embedding[tokens]
 *   each layer:  q, k, v = place(norm(x) Wqkv);  x += [norm](attention(q, cache) Wo)
 *                x += [norm]((act(norm(x) Wgate) * norm(x) Wup) Wdown)
 *
 * x stays fp32; what enters a product or the cache is rounded to the engine's type. All rows of a chunk are one
 * attention problem; the operators around it go by blocks of rows, so that on a CPU what lies between two products
 * stays in cache. */
#include "session.h"

static size_t dtype_bytes(const fa_llama_session *s) { return fa_dtype_bytes(s->engine->dtype); }

/* Whether products leave what they add to x to the norm that follows. */
static bool adds_late(const fa_llama_session *s, const fa_chunk *chunk) {
  return chunk->rows <= s->engine->few_rows && !s->model->shape.has_post_norms;
}

/* normed = norm(x), or of x + added, where a product left something to add. */
static fa_status norm(fa_llama_session *s, int64_t rows, bool has_added, const float *weight, float *x) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_operators *on = s->engine->operators;
  return has_added ? on->add_norm(s->engine, rows, shape->hidden, s->added, weight, shape->norm_epsilon, x, s->normed)
                   : on->norm(s->engine, rows, shape->hidden, x, weight, shape->norm_epsilon, s->normed);
}

static fa_status project_qkv(fa_llama_session *s, const fa_chunk *chunk, int64_t index) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_llama_layer *layer = &s->model->layers[index];
  const fa_operators *on = s->engine->operators;
  const int64_t q_width = shape->heads_q * shape->head_dim_qk;
  fa_tensor k, v;
  fa_status status = fa_kv_cache_layer(s->cache, index, &k, &v);
  for (int64_t row = 0; row < chunk->rows && status == FA_OK; row += s->engine->block_rows) {
    const int64_t rows = fa_least(s->engine->block_rows, chunk->rows - row);
    status = norm(s, rows, index > 0 && adds_late(s, chunk), layer->attention_norm, s->x + row * shape->hidden);
    if (status == FA_OK) status = on->product(s->engine, layer->qkv, FA_EPILOGUE_WIDE, rows, s->normed, s->wide);
    const fa_head_placement placement = {
        .rows = rows, .heads_q = shape->heads_q, .heads_kv = shape->heads_kv, .head_dim_qk = shape->head_dim_qk,
        .head_dim_v = shape->head_dim_v, .rotary_dim = shape->rotary_dim, .rotary_interleaved = shape->rotary_interleaved,
        .rotary = s->rotary[fa_llama_layer_has_window(shape, index) && s->rotary[1]], .positions = chunk->positions + row,
        .slots = chunk->slots + row, .qkv = s->wide, .bias = layer->qkv_bias, .q_norm = layer->q_norm,
        .k_norm = layer->k_norm, .norm_epsilon = shape->norm_epsilon, .q = (char *)s->q + (size_t)(row * q_width) * dtype_bytes(s),
        .k = k.data, .v = v.data, .page_size = s->page_size};
    if (status == FA_OK) status = on->place_heads(s->engine, &placement);
  }
  return status;
}

/* x += a W, now or late, or x += norm(a W) where the layer has a norm behind it. */
static fa_status add_product(fa_llama_session *s, const fa_matrix *matrix, const float *post_norm, int64_t rows, bool is_late,
                             const void *a, float *x) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_operators *on = s->engine->operators;
  if (is_late) return on->product(s->engine, matrix, FA_EPILOGUE_F32, rows, a, s->added);
  if (!post_norm) return on->product(s->engine, matrix, FA_EPILOGUE_ADD, rows, a, x);
  const fa_status status = on->product(s->engine, matrix, FA_EPILOGUE_WIDE, rows, a, s->wide);
  return status == FA_OK ? on->norm_add(s->engine, rows, shape->hidden, s->wide, post_norm, shape->norm_epsilon, x) : status;
}

static fa_status project_out_and_feed_forward(fa_llama_session *s, const fa_chunk *chunk, const fa_llama_layer *layer) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_operators *on = s->engine->operators;
  const int64_t o_width = shape->heads_q * shape->head_dim_v;
  const bool is_late = adds_late(s, chunk);
  fa_status status = FA_OK;
  for (int64_t row = 0; row < chunk->rows && status == FA_OK; row += s->engine->block_rows) {
    const int64_t rows = fa_least(s->engine->block_rows, chunk->rows - row);
    float *x = s->x + row * shape->hidden;
    const char *o = (const char *)s->o + (size_t)(row * o_width) * dtype_bytes(s);
    status = add_product(s, layer->out, layer->attention_post_norm, rows, is_late, o, x);
    if (status == FA_OK) status = norm(s, rows, is_late, layer->ffn_norm, x);
    if (status == FA_OK) {
      status = on->gated_product(s->engine, layer->gated, shape->has_gate, shape->activation, rows, s->normed, s->wide, s->gated);
    }
    if (status == FA_OK) status = add_product(s, layer->down, layer->ffn_post_norm, rows, is_late, s->gated, x);
  }
  return status;
}

fa_status fa_llama_forward(fa_llama_session *s, const fa_chunk *chunk, bool wants_norm) {
  const fa_llama_shape *shape = &s->model->shape;
  const bool is_late = adds_late(s, chunk);
  fa_status status = s->engine->operators->embed(s->engine, s->model->embedding, chunk->rows, chunk->tokens,
                                                 shape->embedding_scale, s->x);
  for (int64_t layer = 0; layer < shape->layers && status == FA_OK; layer++) {
    status = project_qkv(s, chunk, layer);
    if (status == FA_OK) status = fa_llama_attend(s, chunk, layer);
    if (status == FA_OK) status = project_out_and_feed_forward(s, chunk, &s->model->layers[layer]);
  }
  if (status != FA_OK || !(is_late || wants_norm)) return status;
  return norm(s, chunk->rows, is_late, s->model->output_norm, s->x);
}
