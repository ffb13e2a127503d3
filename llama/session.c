/* The forward pass.
 *
 *   x = embedding[tokens]
 *   each layer:  q, k, v = rotate(norm(x) Wqkv);  x += attention(q, cache) Wo
 *                x += (swish(norm(x) Wgate) * norm(x) Wup) Wdown
 *   logits = norm(x) Wout, for the rows asked for
 *
 * x stays fp32; what enters a product or the cache is rounded to the model's type. A prompt of any length is
 * one attention problem; only the products around it go by blocks of rows, so that what lies between two of
 * them stays in cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layer_ops.h"
#include "llama_error.h"
#include "model.h"

enum { BLOCK_ROWS = 512 };

struct fa_llama_session {
  const fa_llama_model *model;
  fa_matmul *matmul;
  char *kernel; /* as asked for; NULL: the fastest */
  int64_t capacity, position;
  void *cache;   /* [layers, k then v, heads_kv, capacity, head_dim] */
  float *rotary; /* [capacity, rotary_dim] */

  fa_plan *decode;  /* one query, maxima of the capacity */
  fa_plan *prefill; /* for exactly prefill_rows queries behind prefill_past keys */
  int64_t prefill_rows, prefill_past;
  void *workspace;
  size_t workspace_bytes;
  char prefill_name[64], decode_name[64];

  /* Activations, for up to `rows` rows, and up to BLOCK_ROWS where a block suffices. */
  int64_t rows, last_rows;
  float *x;     /* [rows, hidden] */
  void *q, *o;  /* [rows, heads_q * head_dim] of the model's type */
  void *normed; /* [block, hidden] of the model's type */
  float *wide;  /* [block, max(qkv width, feed_forward)] */
  void *gated;  /* [block, feed_forward] of the model's type */
};

static size_t dtype_bytes(const fa_llama_session *s) { return fa_dtype_bytes(s->model->dtype); }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void *reserve(int64_t rows, int64_t columns, size_t bytes) {
  return aligned_alloc(64, ((size_t)rows * (size_t)columns * bytes + 63) / 64 * 64);
}

static void free_activations(fa_llama_session *s) {
  free(s->x);
  free(s->q);
  free(s->o);
  free(s->normed);
  free(s->wide);
  free(s->gated);
  s->x = s->wide = NULL;
  s->q = s->o = s->normed = s->gated = NULL;
  s->rows = 0;
}

static fa_status reserve_activations(fa_llama_session *s, int64_t rows) {
  if (rows <= s->rows) return FA_OK;
  const fa_llama_shape *shape = &s->model->shape;
  const int64_t block = least(rows, BLOCK_ROWS);
  const int64_t qkv = fa_llama_qkv_width(shape);
  free_activations(s);
  s->x = reserve(rows, shape->hidden, sizeof(float));
  s->q = reserve(rows, shape->heads_q * shape->head_dim_qk, dtype_bytes(s));
  s->o = reserve(rows, shape->heads_q * shape->head_dim_v, dtype_bytes(s));
  s->normed = reserve(block, shape->hidden, dtype_bytes(s));
  s->wide = reserve(block, qkv > shape->feed_forward ? qkv : shape->feed_forward, sizeof(float));
  s->gated = reserve(block, shape->feed_forward, dtype_bytes(s));
  if (!s->x || !s->q || !s->o || !s->normed || !s->wide || !s->gated) {
    free_activations(s);
    return fa_llama_fail(FA_ERROR_MEMORY, "no memory for a prompt of %lld tokens", (long long)rows);
  }
  s->rows = rows;
  return FA_OK;
}

/* ---------------------------------------------------------------------- attention */

static char *layer_keys(const fa_llama_session *s, int64_t layer) {
  const fa_llama_shape *shape = &s->model->shape;
  const int64_t elements = shape->heads_kv * s->capacity * (shape->head_dim_qk + shape->head_dim_v);
  return (char *)s->cache + (size_t)(layer * elements) * dtype_bytes(s);
}

static char *layer_values(const fa_llama_session *s, int64_t layer) {
  const fa_llama_shape *shape = &s->model->shape;
  return layer_keys(s, layer) + (size_t)(shape->heads_kv * s->capacity * shape->head_dim_qk) * dtype_bytes(s);
}

static fa_status make_plan(fa_llama_session *s, int64_t queries, int64_t keys, fa_plan **plan,
                           char name[64]) {
  const fa_llama_shape *shape = &s->model->shape;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  fa_plan_info info = FA_PLAN_INFO_INIT;
  problem.dtype = problem.kv_dtype = s->model->dtype;
  problem.heads_q = shape->heads_q;
  problem.heads_kv = shape->heads_kv;
  problem.head_dim_qk = shape->head_dim_qk;
  problem.head_dim_v = shape->head_dim_v;
  problem.max_seqlen_q = queries;
  problem.max_seqlen_kv = keys;
  problem.causal = queries > 1;
  problem.has_seqlens_kv = queries == 1;
  problem.kernel = s->kernel;
  fa_status status = fa_plan_create(s->model->context, &problem, plan);
  if (status != FA_OK)
    return fa_llama_fail_library(status, queries > 1 ? "prompt attention" : "decoding attention");
  if (fa_plan_describe(*plan, &info) == FA_OK) {
    strncpy(name, info.kernel, 63);
    name[63] = '\0';
  }
  const size_t bytes = fa_plan_workspace_bytes(*plan);
  if (bytes <= s->workspace_bytes) return FA_OK;
  fa_buffer_free(s->model->context, s->workspace);
  s->workspace = NULL;
  s->workspace_bytes = 0;
  status = fa_buffer_allocate(s->model->context, bytes, &s->workspace);
  if (status != FA_OK) return fa_llama_fail_library(status, "attention workspace");
  s->workspace_bytes = bytes;
  return FA_OK;
}

/* The plan for `count` new tokens behind `position`. */
static fa_status find_plan(fa_llama_session *s, int64_t count, const fa_plan **plan) {
  fa_status status = FA_OK;
  if (count == 1) {
    if (!s->decode) status = make_plan(s, 1, s->capacity, &s->decode, s->decode_name);
    *plan = s->decode;
    return status;
  }
  if (!s->prefill || s->prefill_rows != count || s->prefill_past != s->position) {
    fa_plan_destroy(s->prefill);
    s->prefill = NULL;
    status = make_plan(s, count, s->position + count, &s->prefill, s->prefill_name);
    s->prefill_rows = count;
    s->prefill_past = s->position;
  }
  *plan = s->prefill;
  return status;
}

static fa_status attend(fa_llama_session *s, const fa_plan *plan, int64_t layer, int64_t count) {
  const fa_llama_shape *shape = &s->model->shape;
  const int32_t keys = (int32_t)(s->position + count);
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  const int64_t q_width = shape->heads_q * shape->head_dim_qk, o_width = shape->heads_q * shape->head_dim_v;
  args.q = (fa_tensor){s->q, count * q_width, q_width, shape->head_dim_qk};
  args.o = (fa_tensor){s->o, count * o_width, o_width, shape->head_dim_v};
  args.k = (fa_tensor){layer_keys(s, layer), 0, shape->head_dim_qk, s->capacity * shape->head_dim_qk};
  args.v = (fa_tensor){layer_values(s, layer), 0, shape->head_dim_v, s->capacity * shape->head_dim_v};
  args.seqlens_kv = count == 1 ? &keys : NULL;
  const fa_status status = fa_attention_run(plan, &args, s->workspace, s->workspace_bytes, NULL);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "attention");
}

/* ------------------------------------------------------------------------- layers */

static fa_status project_qkv(fa_llama_session *s, int64_t layer, int64_t count) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_llama_layer *w = &s->model->layers[layer];
  const int threads = fa_context_threads(s->model->context);
  const fa_qkv_places places = {shape->heads_q,       shape->heads_kv,
                                shape->head_dim_qk,   shape->head_dim_v,
                                shape->rotary_dim,    s->rotary,
                                s->model->dtype,      s->q,
                                layer_keys(s, layer), layer_values(s, layer),
                                s->capacity};
  fa_status status = FA_OK;
  for (int64_t row = 0; row < count && status == FA_OK; row += BLOCK_ROWS) {
    const int64_t rows = least(BLOCK_ROWS, count - row);
    fa_rms_norm(threads, rows, shape->hidden, s->x + row * shape->hidden, w->attention_norm,
                shape->norm_epsilon, s->model->dtype, s->normed);
    status = fa_matmul_run(s->matmul, w->qkv, FA_EPILOGUE_STORE, rows, s->normed, NULL, s->wide);
    if (status == FA_OK) fa_rotate_and_store(threads, rows, s->wide, &places, row, s->position + row);
  }
  return status;
}

static fa_status project_out_and_feed_forward(fa_llama_session *s, int64_t layer, int64_t count) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_llama_layer *w = &s->model->layers[layer];
  const int threads = fa_context_threads(s->model->context);
  const int64_t o_width = shape->heads_q * shape->head_dim_v;
  fa_status status = FA_OK;
  for (int64_t row = 0; row < count && status == FA_OK; row += BLOCK_ROWS) {
    const int64_t rows = least(BLOCK_ROWS, count - row);
    float *x = s->x + row * shape->hidden;
    const char *o = (const char *)s->o + (size_t)(row * o_width) * dtype_bytes(s);
    status = fa_matmul_run(s->matmul, w->out, FA_EPILOGUE_ADD, rows, o, NULL, x);
    if (status != FA_OK) return status;
    fa_rms_norm(threads, rows, shape->hidden, x, w->ffn_norm, shape->norm_epsilon, s->model->dtype,
                s->normed);
    status = fa_matmul_run(s->matmul, w->gate, FA_EPILOGUE_SWISH, rows, s->normed, NULL, s->wide);
    if (status == FA_OK) {
      status = fa_matmul_run(s->matmul, w->up, FA_EPILOGUE_TIMES, rows, s->normed, s->wide, s->gated);
    }
    if (status == FA_OK) status = fa_matmul_run(s->matmul, w->down, FA_EPILOGUE_ADD, rows, s->gated, NULL, x);
  }
  return status;
}

static void embed(fa_llama_session *s, const int32_t *tokens, int64_t count) {
  const fa_gguf_tensor *table = s->model->embedding;
  const fa_ggml_type *type = fa_ggml_type_of(table->type);
  const int64_t hidden = s->model->shape.hidden;
  const int64_t row_bytes = hidden / type->block_elements * type->block_bytes;
  for (int64_t i = 0; i < count; i++) {
    type->to_float(table->data + tokens[i] * row_bytes, s->x + i * hidden, hidden);
  }
}

fa_status fa_llama_eval(fa_llama_session *s, const int32_t *tokens, int64_t count) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_plan *plan = NULL;
  if (count < 1 || count > s->capacity - s->position) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%lld tokens behind %lld in a cache of %lld; 1 .. %lld fit",
                         (long long)count, (long long)s->position, (long long)s->capacity,
                         (long long)(s->capacity - s->position));
  }
  for (int64_t i = 0; i < count; i++) {
    if (tokens[i] < 0 || tokens[i] >= shape->vocabulary) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "token %d at place %lld; the vocabulary has 0 .. %lld",
                           tokens[i], (long long)i, (long long)shape->vocabulary - 1);
    }
  }
  s->last_rows = 0;
  fa_status status = reserve_activations(s, count);
  if (status == FA_OK) status = find_plan(s, count, &plan);
  if (status != FA_OK) return status;
  embed(s, tokens, count);
  for (int64_t layer = 0; layer < shape->layers && status == FA_OK; layer++) {
    status = project_qkv(s, layer, count);
    if (status == FA_OK) status = attend(s, plan, layer, count);
    if (status == FA_OK) status = project_out_and_feed_forward(s, layer, count);
  }
  if (status != FA_OK) return status;
  s->position += count;
  s->last_rows = count;
  return FA_OK;
}

fa_status fa_llama_logits(fa_llama_session *s, int64_t row, int64_t rows, float *logits) {
  const fa_llama_model *model = s->model;
  const fa_llama_shape *shape = &model->shape;
  if (row < 0 || rows < 0 || row > s->last_rows || rows > s->last_rows - row) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "logits of rows %lld .. %lld; the last eval had %lld",
                         (long long)row, (long long)(row + rows), (long long)s->last_rows);
  }
  fa_status status = FA_OK;
  for (int64_t done = 0; done < rows && status == FA_OK; done += BLOCK_ROWS) {
    const int64_t block = least(BLOCK_ROWS, rows - done);
    fa_rms_norm(fa_context_threads(model->context), block, shape->hidden, s->x + (row + done) * shape->hidden,
                model->output_norm, shape->norm_epsilon, model->dtype, s->normed);
    status = fa_matmul_run(s->matmul, model->output, FA_EPILOGUE_STORE, block, s->normed, NULL,
                           logits + done * shape->vocabulary);
  }
  return status;
}

/* ------------------------------------------------------------------------ sessions */

/* Angles in double: position * base^(-2d / rotary_dim) loses all its digits in fp32 at long contexts. */
static void fill_rotary(fa_llama_session *s) {
  const fa_llama_model *model = s->model;
  const int64_t dim = model->shape.rotary_dim;
#pragma omp parallel for num_threads(fa_context_threads(model->context)) schedule(static)
  for (int64_t position = 0; position < s->capacity; position++) {
    for (int64_t d = 0; d < dim; d += 2) {
      double angle = (double)position / model->shape.rotary_factor *
                     pow(model->shape.rotary_base, -(double)d / (double)dim);
      if (model->rotary_divisors) angle /= (double)model->rotary_divisors[d / 2];
      s->rotary[position * dim + d] = (float)cos(angle);
      s->rotary[position * dim + d + 1] = (float)sin(angle);
    }
  }
}

static fa_status open_session(fa_llama_session *s, const char *kernel) {
  const fa_llama_model *model = s->model;
  const fa_llama_shape *shape = &model->shape;
  const int64_t cache_elements =
      shape->layers * shape->heads_kv * s->capacity * (shape->head_dim_qk + shape->head_dim_v);
  if (kernel) {
    s->kernel = strdup(kernel);
    if (!s->kernel) return fa_llama_out_of_memory("the session");
  }
  s->rotary = reserve(s->capacity, shape->rotary_dim, sizeof(float));
  if (!s->rotary) return fa_llama_out_of_memory("the rotary table");
  fill_rotary(s);
  fa_status status = fa_buffer_allocate(model->context, (size_t)cache_elements * dtype_bytes(s), &s->cache);
  if (status != FA_OK) return fa_llama_fail_library(status, "KV cache");
  status = fa_matmul_create(model->dtype, fa_context_threads(model->context), &s->matmul);
  /* Now rather than after the prompt, so that an unknown kernel is said at once. */
  return status == FA_OK ? make_plan(s, 1, s->capacity, &s->decode, s->decode_name) : status;
}

fa_status fa_llama_session_create(const fa_llama_model *model, int64_t max_tokens, const char *kernel,
                                  fa_llama_session **result) {
  if (max_tokens < 1 || max_tokens > model->shape.context) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a session of %lld tokens; the model was trained for 1 .. %lld",
                         (long long)max_tokens, (long long)model->shape.context);
  }
  fa_llama_session *session = calloc(1, sizeof *session);
  if (!session) return fa_llama_out_of_memory("the session");
  session->model = model;
  session->capacity = max_tokens;
  const fa_status status = open_session(session, kernel);
  if (status != FA_OK) {
    fa_llama_session_free(session);
    return status;
  }
  *result = session;
  return FA_OK;
}

void fa_llama_session_free(fa_llama_session *session) {
  if (!session) return;
  free_activations(session);
  fa_plan_destroy(session->decode);
  fa_plan_destroy(session->prefill);
  fa_buffer_free(session->model->context, session->workspace);
  fa_buffer_free(session->model->context, session->cache);
  fa_matmul_free(session->matmul);
  free(session->rotary);
  free(session->kernel);
  free(session);
}

const fa_llama_model *fa_llama_session_model(const fa_llama_session *session) { return session->model; }
int64_t fa_llama_session_position(const fa_llama_session *session) { return session->position; }

fa_status fa_llama_session_rewind(fa_llama_session *session, int64_t tokens) {
  if (tokens < 0 || tokens > session->position) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "rewind to %lld tokens; the cache holds %lld", (long long)tokens,
                         (long long)session->position);
  }
  session->position = tokens;
  session->last_rows = 0;
  return FA_OK;
}

const char *fa_llama_session_prefill_kernel(const fa_llama_session *session) { return session->prefill_name; }
const char *fa_llama_session_decode_kernel(const fa_llama_session *session) { return session->decode_name; }
