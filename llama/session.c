/* A session from its making to its end: cache, tables, activations, and the place of each sequence. */
#include "session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"

enum { DEFAULT_ROWS = 8192, DEFAULT_PAGE = 256 };

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ------------------------------------------------------------------------- memory */

fa_status fa_llama_session_allocate(fa_llama_session *s, int64_t rows, int64_t columns, size_t bytes, void *to) {
  void *memory = NULL;
  size_t size;
  if (__builtin_mul_overflow((size_t)rows, (size_t)columns, &size) || __builtin_mul_overflow(size, bytes, &size))
    return fa_llama_out_of_memory("a session of that size");
  const fa_status status = fa_buffer_allocate(s->model->context, size, &memory);
  if (status != FA_OK) return fa_llama_fail_library(status, "activations");
  memcpy(to, &memory, sizeof memory);
  s->activation_bytes += size;
  return FA_OK;
}

static fa_status allocate_activations(fa_llama_session *s) {
  const fa_llama_shape *shape = &s->model->shape;
  const size_t size = fa_dtype_bytes(s->engine->dtype);
  const int64_t block = most(fa_least(s->engine->block_rows, s->max_rows), s->max_sequences);
  const int64_t wide = most(most(fa_llama_qkv_width(shape), fa_llama_gated_width(shape)), shape->hidden);
  fa_status status = fa_llama_session_allocate(s, s->max_rows, shape->hidden, sizeof(float), &s->x);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_rows, shape->heads_q * shape->head_dim_qk, size, &s->q);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_rows, shape->heads_q * shape->head_dim_v, size, &s->o);
  if (status == FA_OK) status = fa_llama_session_allocate(s, block, shape->hidden, size, &s->normed);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->engine->few_rows, shape->hidden, sizeof(float), &s->added);
  if (status == FA_OK) status = fa_llama_session_allocate(s, block, wide, sizeof(float), &s->wide);
  if (status == FA_OK) status = fa_llama_session_allocate(s, block, shape->feed_forward, size, &s->gated);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_sequences, shape->hidden, sizeof(float), &s->last_x);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_sequences, shape->vocabulary, sizeof(float), &s->logits);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_sequences, 1, sizeof(int32_t), &s->picked);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_sequences, 1, sizeof(int32_t), &s->drawn);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_sequences, 1, sizeof(fa_sample_row), &s->settings);
  if (status == FA_OK) status = fa_llama_session_allocate(s, s->max_sequences, s->pages_a_sequence, sizeof(int32_t), &s->device_page_table);
  if (status == FA_OK) status = fa_llama_session_allocate(s, 2 * s->max_sequences + 1 + 3 * s->max_rows, 1, sizeof(int32_t), &s->step);
  return status;
}

fa_status fa_llama_to_device(fa_llama_session *s, void *to, const void *from, size_t bytes) {
  const fa_status status = fa_buffer_copy(s->model->context, to, from, bytes, FA_COPY_HOST_TO_DEVICE, s->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "a copy to the device");
}

fa_status fa_llama_to_host(fa_llama_session *s, void *to, const void *from, size_t bytes) {
  fa_status status = fa_buffer_copy(s->model->context, to, from, bytes, FA_COPY_DEVICE_TO_HOST, s->engine->stream);
  if (status == FA_OK) status = fa_stream_synchronize(s->model->context, s->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "a copy from the device");
}

/* Angles in double: position * base^(-2d / rotary_dim) loses all its digits in fp32 at long contexts. */
static fa_status make_rotary(fa_llama_session *s, bool is_local, float **table) {
  const fa_llama_model *model = s->model;
  const int64_t dim = model->shape.rotary_dim;
  if (dim == 0) return FA_OK;
  const double base = is_local ? model->shape.rotary_base_local : model->shape.rotary_base;
  const double factor = is_local ? 1.0 : model->shape.rotary_factor;
  float *host = malloc((size_t)(s->max_tokens * dim) * sizeof *host);
  if (!host) return fa_llama_out_of_memory("the rotary table");
#pragma omp parallel for num_threads(fa_context_threads(model->context)) schedule(static)
  for (int64_t d = 0; d < dim; d += 2) {
    double frequency = pow(base, -(double)d / (double)dim) / factor;
    if (model->rotary_divisors && !is_local) frequency /= (double)model->rotary_divisors[d / 2];
    for (int64_t position = 0; position < s->max_tokens; position++) {
      host[position * dim + d] = (float)cos((double)position * frequency);
      host[position * dim + d + 1] = (float)sin((double)position * frequency);
    }
  }
  fa_status status = fa_llama_session_allocate(s, s->max_tokens, dim, sizeof(float), table);
  if (status == FA_OK) status = fa_llama_to_device(s, *table, host, (size_t)(s->max_tokens * dim) * sizeof *host);
  if (status == FA_OK) status = fa_llama_session_synchronize(s);
  free(host);
  return status;
}

static fa_status open_cache(fa_llama_session *s, int64_t num_pages) {
  const fa_llama_shape *shape = &s->model->shape;
  fa_kv_options options = FA_KV_OPTIONS_INIT;
  options.dtype = s->engine->dtype;
  options.layers = shape->layers;
  options.heads_kv = shape->heads_kv;
  options.head_dim_qk = shape->head_dim_qk;
  options.head_dim_v = shape->head_dim_v;
  options.page_size = s->page_size;
  options.num_pages = num_pages ? num_pages : s->pages_a_sequence * s->max_sequences;
  options.max_sequences = s->max_sequences;
  fa_status status = fa_kv_cache_create(s->model->context, &options, &s->cache);
  for (int64_t i = 0; i < s->max_sequences && status == FA_OK; i++) status = fa_kv_sequence_create(s->cache, &s->handles[i]);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "KV cache");
}

static fa_status open_session(fa_llama_session *s, const fa_llama_session_options *options) {
  const fa_llama_model *model = s->model;
  const size_t table = (size_t)(s->max_sequences * s->pages_a_sequence);
  s->handles = calloc((size_t)s->max_sequences, sizeof *s->handles);
  s->history = malloc((size_t)(s->max_sequences * s->max_tokens) * sizeof *s->history);
  s->page_table = calloc(table, sizeof *s->page_table);
  s->sent_page_table = calloc(table, sizeof *s->sent_page_table);
  s->captured = calloc((size_t)s->max_sequences + 1, sizeof *s->captured);
  s->last_sequences = calloc((size_t)s->max_sequences, sizeof *s->last_sequences);
  s->chunk.segment = calloc((size_t)s->max_sequences, sizeof *s->chunk.segment);
  s->chunk.host = malloc((size_t)(2 * s->max_sequences + 1 + 3 * s->max_rows) * sizeof *s->chunk.host);
  if (options->kernel) s->kernel = strdup(options->kernel);
  if (!s->handles || !s->history || !s->page_table || !s->sent_page_table || !s->captured || !s->last_sequences ||
      !s->chunk.segment || !s->chunk.host || (options->kernel && !s->kernel))
    return fa_llama_out_of_memory("the session");
  memset(s->sent_page_table, 0xff, table * sizeof *s->sent_page_table);
  fa_status status = model->engine->operators->open(model->context, model->engine->dtype, &s->engine);
  if (status != FA_OK) return status;
  s->uses_graphs = s->engine->operators->graph_begin && !options->no_graph && !s->is_baseline;
  status = make_rotary(s, false, &s->rotary[0]);
  if (status == FA_OK && model->shape.window && model->shape.rotary_base_local > 0.0) status = make_rotary(s, true, &s->rotary[1]);
  if (status == FA_OK) status = open_cache(s, options->num_pages);
  if (status == FA_OK) status = allocate_activations(s);
  return status == FA_OK ? fa_llama_plan_decode(s, 1) : status;
}

static fa_status check_options(const fa_llama_shape *shape, const fa_llama_session_options *o) {
  if (o->max_tokens < 1 || o->max_tokens > shape->context) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a session of %lld tokens; the model was trained for 1 .. %lld",
                         (long long)o->max_tokens, (long long)shape->context);
  }
  if (o->max_sequences < 1 || o->max_sequences > 65536 || o->max_rows < 0 || o->max_rows > INT32_MAX || o->page_size < 0 ||
      o->num_pages < 0) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "a session of %lld sequences, %lld rows at a time, pages of %lld tokens, %lld pages; sequences are "
                         "1 .. 65536, rows to 2^31 - 1, the others at least 0 (0 chooses)", (long long)o->max_sequences, (long long)o->max_rows,
                         (long long)o->page_size, (long long)o->num_pages);
  }
  return FA_OK;
}

static bool is_baseline(const char *kernel) {
  for (int32_t i = 0; kernel && i < fa_kernel_count(); i++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(i, &info) == FA_OK && info.is_baseline &&
        (strcmp(info.name, kernel) == 0 || strcmp(info.arch, kernel) == 0))
      return true;
  }
  return false;
}

fa_status fa_llama_session_create(const fa_llama_model *model, const fa_llama_session_options *options,
                                  fa_llama_session **result) {
  fa_status status = check_options(&model->shape, options);
  if (status != FA_OK) return status;
  fa_llama_session *s = calloc(1, sizeof *s);
  if (!s) return fa_llama_out_of_memory("the session");
  s->model = model;
  s->max_tokens = options->max_tokens;
  s->max_sequences = options->max_sequences;
  s->max_rows = options->max_rows ? options->max_rows : fa_least(DEFAULT_ROWS, s->max_tokens * s->max_sequences);
  s->max_rows = most(s->max_rows, s->max_sequences); /* a token of each in one pass */
  s->is_baseline = is_baseline(options->kernel);
  s->page_size = options->page_size;
  if (!s->page_size || s->is_baseline) s->page_size = s->max_sequences == 1 || s->is_baseline ? s->max_tokens : DEFAULT_PAGE;
  s->page_size = fa_least(s->page_size, s->max_tokens);
  s->pages_a_sequence = (s->max_tokens + s->page_size - 1) / s->page_size;
  s->progress = options->progress;
  s->progress_user = options->progress_user;
  status = open_session(s, options);
  if (status != FA_OK) {
    fa_llama_session_free(s);
    return status;
  }
  *result = s;
  return FA_OK;
}

void fa_llama_forget_captured(fa_llama_session *s) {
  for (int64_t i = 0; s->captured && i <= s->max_sequences; i++) {
    if (s->captured[i].graph) s->engine->operators->graph_free(s->engine, s->captured[i].graph);
    memset(&s->captured[i], 0, sizeof s->captured[i]);
  }
}

void fa_llama_session_free(fa_llama_session *s) {
  if (!s) return;
  fa_context *context = s->model->context;
  if (s->engine) (void)fa_stream_synchronize(context, s->engine->stream);
  fa_llama_forget_captured(s);
  fa_llama_forget_plans(s);
  void *buffers[] = {s->rotary[0], s->rotary[1], s->device_page_table, s->step, s->workspace, s->x, s->q, s->o, s->normed, s->added,
                     s->wide, s->gated, s->last_x, s->logits, s->row_logits, s->picked, s->drawn, s->settings, s->seen};
  for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) fa_buffer_free(context, buffers[i]);
  fa_kv_cache_destroy(s->cache);
  if (s->engine) s->engine->operators->close(s->engine);
  free(s->handles);
  free(s->history);
  free(s->page_table);
  free(s->sent_page_table);
  free(s->captured);
  free(s->last_sequences);
  free(s->chunk.segment);
  free(s->chunk.host);
  free(s->host_seen);
  free(s->kernel);
  free(s);
}

/* ---------------------------------------------------------------------- about it */

const fa_llama_model *fa_llama_session_model(const fa_llama_session *session) { return session->model; }

int64_t fa_llama_session_position(const fa_llama_session *s, int32_t sequence) {
  if (sequence < 0 || sequence >= s->max_sequences) return -1;
  return fa_kv_sequence_tokens(s->cache, s->handles[sequence]);
}

fa_status fa_llama_session_rewind(fa_llama_session *s, int32_t sequence, int64_t tokens) {
  const int64_t position = fa_llama_session_position(s, sequence);
  if (position < 0) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "sequence %d; the session has 0 .. %lld", sequence, (long long)s->max_sequences - 1);
  }
  if (tokens < 0 || tokens > position) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "rewind to %lld tokens; the sequence has %lld", (long long)tokens, (long long)position);
  }
  const fa_status status = fa_kv_sequence_resize(s->cache, s->handles[sequence], tokens);
  s->last_rows = s->last_entries = 0;
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "KV cache");
}

fa_status fa_llama_session_synchronize(fa_llama_session *s) {
  const fa_status status = fa_stream_synchronize(s->model->context, s->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "the device");
}

void fa_llama_session_memory(const fa_llama_session *s, fa_llama_memory *memory) {
  const fa_llama_model *model = s->model;
  memory->weights = fa_llama_model_weight_bytes(model);
  if (!model->shape.tied_embeddings) memory->weights += model->engine->operators->matrix_bytes(model->embedding);
  memory->cache = fa_kv_cache_bytes(s->cache);
  memory->activations = s->activation_bytes;
  memory->workspace = s->workspace_bytes;
}

const char *fa_llama_session_prefill_kernel(const fa_llama_session *session) { return session->prefill_name; }
const char *fa_llama_session_decode_kernel(const fa_llama_session *session) { return session->decode_name; }
