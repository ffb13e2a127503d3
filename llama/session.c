/* Sequences over a paged cache: tokens in by chunks, logits and drawn tokens out. */
#include "session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"

enum { DEFAULT_ROWS = 8192, DEFAULT_PAGE = 256, LOGIT_ROWS = 64 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ------------------------------------------------------------------------- memory */

static fa_status allocate(fa_llama_session *s, int64_t rows, int64_t columns, size_t bytes, void *to) {
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
  const int64_t block = most(least(s->engine->block_rows, s->max_rows), s->max_sequences);
  const int64_t wide = most(most(fa_llama_qkv_width(shape), fa_llama_gated_width(shape)), shape->hidden);
  fa_status status = allocate(s, s->max_rows, shape->hidden, sizeof(float), &s->x);
  if (status == FA_OK) status = allocate(s, s->max_rows, shape->heads_q * shape->head_dim_qk, size, &s->q);
  if (status == FA_OK) status = allocate(s, s->max_rows, shape->heads_q * shape->head_dim_v, size, &s->o);
  if (status == FA_OK) status = allocate(s, block, shape->hidden, size, &s->normed);
  if (status == FA_OK) status = allocate(s, s->engine->few_rows, shape->hidden, sizeof(float), &s->added);
  if (status == FA_OK) status = allocate(s, block, wide, sizeof(float), &s->wide);
  if (status == FA_OK) status = allocate(s, block, shape->feed_forward, size, &s->gated);
  if (status == FA_OK) status = allocate(s, s->max_sequences, shape->hidden, sizeof(float), &s->last_x);
  if (status == FA_OK) status = allocate(s, s->max_sequences, shape->vocabulary, sizeof(float), &s->logits);
  if (status == FA_OK) status = allocate(s, s->max_sequences, 1, sizeof(int32_t), &s->picked);
  if (status == FA_OK) status = allocate(s, s->max_sequences, 1, sizeof(int32_t), &s->drawn);
  if (status == FA_OK) status = allocate(s, s->max_sequences, 1, sizeof(fa_sample_row), &s->settings);
  if (status == FA_OK) status = allocate(s, s->max_sequences, s->pages_a_sequence, sizeof(int32_t), &s->device_page_table);
  if (status == FA_OK) status = allocate(s, 2 * s->max_sequences + 1 + 3 * s->max_rows, 1, sizeof(int32_t), &s->step);
  return status;
}

static fa_status to_device(fa_llama_session *s, void *to, const void *from, size_t bytes) {
  const fa_status status = fa_buffer_copy(s->model->context, to, from, bytes, FA_COPY_HOST_TO_DEVICE, s->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "a copy to the device");
}

/* Waits until it is there. */
static fa_status to_host(fa_llama_session *s, void *to, const void *from, size_t bytes) {
  fa_status status = fa_buffer_copy(s->model->context, to, from, bytes, FA_COPY_DEVICE_TO_HOST, s->engine->stream);
  if (status == FA_OK) status = fa_stream_synchronize(s->model->context, s->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "a copy from the device");
}

/* Angles in double: position * base^(-2d / rotary_dim) loses all its digits in fp32 at long contexts. */
static fa_status make_rotary(fa_llama_session *s, bool has_window, float **table) {
  const fa_llama_model *model = s->model;
  const bool is_local = has_window && model->shape.rotary_base_local > 0.0;
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
  fa_status status = allocate(s, s->max_tokens, dim, sizeof(float), table);
  if (status == FA_OK) status = to_device(s, *table, host, (size_t)(s->max_tokens * dim) * sizeof *host);
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
  if (status == FA_OK && model->shape.window) status = make_rotary(s, true, &s->rotary[1]);
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
  s->max_rows = options->max_rows ? options->max_rows : least(DEFAULT_ROWS, s->max_tokens * s->max_sequences);
  s->max_rows = most(s->max_rows, s->max_sequences); /* a token of each in one pass */
  s->is_baseline = is_baseline(options->kernel);
  s->page_size = options->page_size;
  if (!s->page_size || s->is_baseline) s->page_size = s->max_sequences == 1 || s->is_baseline ? s->max_tokens : DEFAULT_PAGE;
  s->page_size = least(s->page_size, s->max_tokens);
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

/* --------------------------------------------------------------------------- eval */

static fa_status check_entries(const fa_llama_session *s, const fa_llama_entry *entries, int64_t count) {
  if (count < 1 || count > s->max_sequences) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%lld sequences at once; the session was made for 1 .. %lld", (long long)count,
                         (long long)s->max_sequences);
  }
  for (int64_t e = 0; e < count; e++) {
    const fa_llama_entry *entry = &entries[e];
    if (entry->sequence < 0 || entry->sequence >= s->max_sequences) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "sequence %d; the session has 0 .. %lld", entry->sequence,
                           (long long)s->max_sequences - 1);
    }
    for (int64_t other = 0; other < e; other++) {
      if (entries[other].sequence == entry->sequence)
        return fa_llama_fail(FA_ERROR_ARGUMENT, "sequence %d is named twice in one call", entry->sequence);
    }
    const int64_t past = fa_llama_session_position(s, entry->sequence);
    if (entry->count < 1 || entry->count > s->max_tokens - past) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%lld tokens behind %lld in a cache of %lld; 1 .. %lld fit",
                           (long long)entry->count, (long long)past, (long long)s->max_tokens, (long long)(s->max_tokens - past));
    }
    for (int64_t i = 0; i < entry->count; i++) {
      if (entry->tokens[i] < 0 || entry->tokens[i] >= s->model->shape.vocabulary) {
        return fa_llama_fail(FA_ERROR_ARGUMENT, "token %d at place %lld; the vocabulary has 0 .. %lld", entry->tokens[i],
                             (long long)i, (long long)s->model->shape.vocabulary - 1);
      }
    }
  }
  return FA_OK;
}

/* Pages for all the tokens, or for none. */
static fa_status grow(fa_llama_session *s, const fa_llama_entry *entries, int64_t count) {
  for (int64_t e = 0; e < count; e++) {
    const int32_t handle = s->handles[entries[e].sequence];
    const int64_t past = fa_kv_sequence_tokens(s->cache, handle);
    const fa_status status = fa_kv_sequence_resize(s->cache, handle, past + entries[e].count);
    if (status == FA_OK) continue;
    const fa_status said = fa_llama_fail_library(status, "KV cache");
    while (e-- > 0) {
      const int32_t back = s->handles[entries[e].sequence];
      (void)fa_kv_sequence_resize(s->cache, back, fa_kv_sequence_tokens(s->cache, back) - entries[e].count);
    }
    return said;
  }
  return FA_OK;
}

/* The chunk's arrays on the host, and its pages; then both on the device. */
static fa_status send_chunk(fa_llama_session *s, const fa_llama_entry *entries, int64_t first_entry, const int64_t *begin) {
  fa_chunk *c = &s->chunk;
  int32_t *seqlens = c->host, *cu = seqlens + c->segments, *tokens = cu + c->segments + 1, *positions = tokens + c->rows,
          *slots = positions + c->rows;
  bool is_changed = false;
  int64_t row = 0;
  cu[0] = 0;
  for (int64_t i = 0; i < c->segments; i++) {
    fa_segment *segment = &c->segment[i];
    const fa_llama_entry *entry = &entries[first_entry + i];
    const int32_t handle = s->handles[entry->sequence];
    const int64_t offset = begin[i];
    int64_t pages;
    const int32_t *page = fa_kv_sequence_pages(s->cache, handle, &pages);
    fa_status status = fa_kv_sequence_slots(s->cache, handle, segment->past, segment->count, slots + row);
    if (status != FA_OK || !page) return fa_llama_fail_library(status, "KV cache");
    segment->page = page[0];
    memcpy(tokens + row, entry->tokens + offset, (size_t)segment->count * sizeof *tokens);
    for (int64_t t = 0; t < segment->count; t++) positions[row + t] = (int32_t)(segment->past + t);
    row += segment->count;
    seqlens[i] = (int32_t)(segment->past + segment->count);
    cu[i + 1] = (int32_t)row;
    int32_t *wanted = s->page_table + i * s->pages_a_sequence;
    memcpy(wanted, page, (size_t)pages * sizeof *page);
    is_changed |= memcmp(wanted, s->sent_page_table + i * s->pages_a_sequence, (size_t)pages * sizeof *page) != 0;
  }
  c->length = 2 * c->segments + 1 + 3 * c->rows;
  c->seqlens_kv = s->step;
  c->cu_seqlens_q = s->step + c->segments;
  c->tokens = s->step + 2 * c->segments + 1;
  c->positions = c->tokens + c->rows;
  c->slots = c->positions + c->rows;
  fa_status status = to_device(s, s->step, c->host, (size_t)c->length * sizeof *c->host);
  if (status == FA_OK && is_changed && s->pages_a_sequence > 1) {
    const size_t bytes = (size_t)(c->segments * s->pages_a_sequence) * sizeof *s->page_table;
    memcpy(s->sent_page_table, s->page_table, bytes);
    status = to_device(s, s->device_page_table, s->sent_page_table, bytes);
  }
  return status;
}

/* Logits of the first `rows` rows of last_x. */
static fa_status finish(fa_llama_session *s, int64_t rows) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_operators *on = s->engine->operators;
  const fa_status status = on->norm(s->engine, rows, shape->hidden, s->last_x, s->model->output_norm, shape->norm_epsilon,
                                    s->normed);
  return status == FA_OK ? on->product(s->engine, s->model->output, FA_EPILOGUE_F32, rows, s->normed, s->logits) : status;
}

static fa_status decode(fa_llama_session *s) {
  const fa_operators *on = s->engine->operators;
  const fa_status status = fa_llama_forward(s, &s->chunk, true); /* every row is the last of its sequence */
  return status == FA_OK ? on->product(s->engine, s->model->output, FA_EPILOGUE_F32, s->chunk.rows, s->normed, s->logits) : status;
}

/* A step of single tokens: run as it is the first time, captured the second, replayed from then on. */
static fa_status decode_captured(fa_llama_session *s) {
  const fa_operators *on = s->engine->operators;
  fa_captured_step *c = &s->captured[s->chunk.segments];
  int64_t stride;
  const bool is_dense = fa_llama_is_dense(s, &s->chunk, &stride);
  const int64_t page = is_dense ? s->chunk.segment[0].page : 0;
  if (c->graph && (c->first_page != page || c->page_stride != stride)) {
    on->graph_free(s->engine, c->graph);
    c->graph = NULL;
  }
  if (!c->has_run) {
    const fa_status status = decode(s);
    c->has_run = status == FA_OK;
    return status;
  }
  if (!c->graph) {
    fa_status status = on->graph_begin(s->engine);
    if (status != FA_OK) return status;
    status = decode(s);
    fa_graph *graph = NULL;
    const fa_status ended = on->graph_end(s->engine, &graph);
    if (status == FA_OK) status = ended;
    if (status != FA_OK) {
      on->graph_free(s->engine, graph);
      return status;
    }
    c = &s->captured[s->chunk.segments];
    *c = (fa_captured_step){graph, true, page, stride};
  }
  return on->graph_launch(s->engine, c->graph);
}

/* The next chunk: as many tokens of the entries from *entry on, of which *done are behind us, as fit. */
static fa_status eval_chunk(fa_llama_session *s, const fa_llama_entry *entries, int64_t count, const int64_t *past,
                            int64_t *entry, int64_t *done, int64_t *begin) {
  fa_chunk *c = &s->chunk;
  const int64_t first = *entry;
  int64_t finished = 0;
  c->rows = c->segments = 0;
  while (*entry < count && c->rows < s->max_rows) {
    const int64_t take = least(entries[*entry].count - *done, s->max_rows - c->rows);
    begin[c->segments] = *done;
    c->segment[c->segments++] = (fa_segment){entries[*entry].sequence, past[*entry] + *done, take, 0};
    c->rows += take;
    *done += take;
    if (*done < entries[*entry].count) break;
    finished++;
    ++*entry;
    *done = 0;
  }
  fa_status status = send_chunk(s, entries, first, begin);
  if (status != FA_OK) return status;
  const bool is_step = c->rows == count && c->segments == count; /* single tokens, all of them */
  if (is_step) return s->uses_graphs ? decode_captured(s) : decode(s);
  status = fa_llama_forward(s, c, false);
  if (status != FA_OK || finished == 0) return status;
  int32_t *last = c->host; /* what it held has been sent */
  int64_t row = 0;
  for (int64_t i = 0; i < finished; i++) last[i] = (int32_t)((row += c->segment[i].count) - 1);
  status = to_device(s, s->picked, last, (size_t)finished * sizeof *last);
  if (status == FA_OK) {
    status = s->engine->operators->pick_rows(s->engine, finished, s->model->shape.hidden, s->x, s->picked,
                                             s->last_x + first * s->model->shape.hidden);
  }
  return status == FA_OK && *entry == count ? finish(s, count) : status;
}

fa_status fa_llama_eval_batch(fa_llama_session *s, const fa_llama_entry *entries, int64_t count) {
  fa_status status = check_entries(s, entries, count);
  if (status != FA_OK) return status;
  int64_t *past = malloc(2 * (size_t)count * sizeof *past);
  if (!past) return fa_llama_out_of_memory("a batch");
  int64_t total = 0;
  for (int64_t e = 0; e < count; e++) {
    past[e] = fa_llama_session_position(s, entries[e].sequence);
    total += entries[e].count;
  }
  s->last_rows = s->last_entries = 0;
  status = grow(s, entries, count);
  for (int64_t entry = 0, done = 0, rows = 0; entry < count && status == FA_OK; rows += s->chunk.rows) {
    status = eval_chunk(s, entries, count, past, &entry, &done, past + count);
    if (status == FA_OK && s->progress && total > 1) {
      status = fa_llama_session_synchronize(s);
      if (status == FA_OK) s->progress(s->progress_user, rows + s->chunk.rows, total);
    }
  }
  if (status != FA_OK) {
    for (int64_t e = 0; e < count; e++) (void)fa_kv_sequence_resize(s->cache, s->handles[entries[e].sequence], past[e]);
  } else {
    s->last_entries = count;
    s->last_rows = total <= s->max_rows ? total : 0;
    for (int64_t e = 0; e < count; e++) {
      s->last_sequences[e] = entries[e].sequence;
      memcpy(s->history + entries[e].sequence * s->max_tokens + past[e], entries[e].tokens,
             (size_t)entries[e].count * sizeof *s->history);
    }
  }
  free(past);
  return status;
}

fa_status fa_llama_eval(fa_llama_session *session, const int32_t *tokens, int64_t count) {
  const fa_llama_entry entry = {0, tokens, count};
  return fa_llama_eval_batch(session, &entry, 1);
}

/* ------------------------------------------------------------------- what follows */

static fa_status nothing_evaluated(void) {
  return fa_llama_fail(FA_ERROR_ARGUMENT, "no logits: nothing was evaluated since the session began, failed or was rewound");
}

fa_status fa_llama_next_logits(fa_llama_session *s, float *logits) {
  if (!s->last_entries) return nothing_evaluated();
  return to_host(s, logits, s->logits, (size_t)(s->last_entries * s->model->shape.vocabulary) * sizeof *logits);
}

/* Which tokens the sequences of the last eval hold, as rows of bytes on the device. */
static fa_status send_seen(fa_llama_session *s) {
  const int64_t vocabulary = s->model->shape.vocabulary;
  if (!s->host_seen) {
    s->host_seen = malloc((size_t)(s->max_sequences * vocabulary));
    if (!s->host_seen) return fa_llama_out_of_memory("the repetition penalty");
  }
  if (!s->seen) {
    const fa_status status = allocate(s, s->max_sequences, vocabulary, 1, &s->seen);
    if (status != FA_OK) return status;
  }
  memset(s->host_seen, 0, (size_t)(s->last_entries * vocabulary));
  for (int64_t e = 0; e < s->last_entries; e++) {
    const int32_t *tokens = s->history + s->last_sequences[e] * s->max_tokens;
    const int64_t count = fa_llama_session_position(s, s->last_sequences[e]);
    for (int64_t i = 0; i < count; i++) s->host_seen[e * vocabulary + tokens[i]] = 1;
  }
  return to_device(s, s->seen, s->host_seen, (size_t)(s->last_entries * vocabulary));
}

fa_status fa_llama_sample(fa_llama_session *s, const fa_sample_row *settings, int32_t *tokens) {
  if (!s->last_entries) return nothing_evaluated();
  bool has_penalty = false;
  for (int64_t e = 0; e < s->last_entries; e++) has_penalty |= settings[e].repetition_penalty != 1.0f;
  fa_status status = has_penalty ? send_seen(s) : FA_OK;
  if (status == FA_OK) status = to_device(s, s->settings, settings, (size_t)s->last_entries * sizeof *settings);
  if (status == FA_OK) {
    status = s->engine->operators->sample(s->engine, s->last_entries, s->model->shape.vocabulary, s->logits, s->settings,
                                          has_penalty ? s->seen : NULL, s->drawn);
  }
  return status == FA_OK ? to_host(s, tokens, s->drawn, (size_t)s->last_entries * sizeof *tokens) : status;
}

fa_status fa_llama_logits(fa_llama_session *s, int64_t row, int64_t rows, float *logits) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_operators *on = s->engine->operators;
  if (row < 0 || rows < 0 || row > s->last_rows || rows > s->last_rows - row) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "logits of rows %lld .. %lld; the last eval left %lld", (long long)row,
                         (long long)(row + rows), (long long)s->last_rows);
  }
  fa_status status = s->row_logits ? FA_OK : allocate(s, LOGIT_ROWS, shape->vocabulary, sizeof(float), &s->row_logits);
  const int64_t most_rows = least(LOGIT_ROWS, least(s->engine->block_rows, s->max_rows));
  for (int64_t done = 0; done < rows && status == FA_OK; done += most_rows) {
    const int64_t block = least(most_rows, rows - done);
    status = on->norm(s->engine, block, shape->hidden, s->x + (row + done) * shape->hidden, s->model->output_norm,
                      shape->norm_epsilon, s->normed);
    if (status == FA_OK) status = on->product(s->engine, s->model->output, FA_EPILOGUE_F32, block, s->normed, s->row_logits);
    if (status == FA_OK)
      status = to_host(s, logits + done * shape->vocabulary, s->row_logits, (size_t)(block * shape->vocabulary) * sizeof *logits);
  }
  return status;
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
