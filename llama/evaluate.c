/* Tokens in by chunks, logits and drawn tokens out. */
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "session.h"

enum { LOGIT_ROWS = 64 };

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
  c->seqlens_kv = s->step;
  c->cu_seqlens_q = s->step + c->segments;
  c->tokens = s->step + 2 * c->segments + 1;
  c->positions = c->tokens + c->rows;
  c->slots = c->positions + c->rows;
  fa_status status = fa_llama_to_device(s, s->step, c->host, (size_t)(2 * c->segments + 1 + 3 * c->rows) * sizeof *c->host);
  if (status == FA_OK && is_changed) {
    const size_t bytes = (size_t)(c->segments * s->pages_a_sequence) * sizeof *s->page_table;
    memcpy(s->sent_page_table, s->page_table, bytes);
    status = fa_llama_to_device(s, s->device_page_table, s->sent_page_table, bytes);
  }
  return status;
}

/* Of `rows` rows of x. */
static fa_status logits_of(fa_llama_session *s, int64_t rows, const float *x, float *logits) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_operators *on = s->engine->operators;
  const fa_status status = on->norm(s->engine, rows, shape->hidden, x, s->model->output_norm, shape->norm_epsilon, s->normed);
  return status == FA_OK ? on->product(s->engine, s->model->output, FA_EPILOGUE_F32, rows, s->normed, logits) : status;
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
  const int64_t page = is_dense ? s->chunk.segment[0].page : -1;
  if (!is_dense) stride = 0;
  if (c->has_run && (c->first_page != page || c->page_stride != stride)) {
    on->graph_free(s->engine, c->graph);
    *c = (fa_captured_step){0};
  }
  if (!c->has_run) {
    const fa_status status = decode(s); /* may forget all steps */
    if (status == FA_OK) *c = (fa_captured_step){NULL, true, page, stride};
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
    const int64_t take = fa_least(entries[*entry].count - *done, s->max_rows - c->rows);
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
  status = fa_llama_to_device(s, s->picked, last, (size_t)finished * sizeof *last);
  if (status == FA_OK) {
    status = s->engine->operators->pick_rows(s->engine, finished, s->model->shape.hidden, s->x, s->picked,
                                             s->last_x + first * s->model->shape.hidden);
  }
  return status == FA_OK && *entry == count ? logits_of(s, count, s->last_x, s->logits) : status;
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
    if (status == FA_OK && s->progress && total > count) {
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
  return fa_llama_to_host(s, logits, s->logits, (size_t)(s->last_entries * s->model->shape.vocabulary) * sizeof *logits);
}

/* Which tokens the sequences of the last eval hold, as rows of bytes on the device. */
static fa_status send_seen(fa_llama_session *s) {
  const int64_t vocabulary = s->model->shape.vocabulary;
  if (!s->host_seen) {
    s->host_seen = malloc((size_t)(s->max_sequences * vocabulary));
    if (!s->host_seen) return fa_llama_out_of_memory("the repetition penalty");
  }
  if (!s->seen) {
    const fa_status status = fa_llama_session_allocate(s, s->max_sequences, vocabulary, 1, &s->seen);
    if (status != FA_OK) return status;
  }
  memset(s->host_seen, 0, (size_t)(s->last_entries * vocabulary));
  for (int64_t e = 0; e < s->last_entries; e++) {
    const int32_t *tokens = s->history + s->last_sequences[e] * s->max_tokens;
    const int64_t count = fa_llama_session_position(s, s->last_sequences[e]);
    for (int64_t i = 0; i < count; i++) s->host_seen[e * vocabulary + tokens[i]] = 1;
  }
  return fa_llama_to_device(s, s->seen, s->host_seen, (size_t)(s->last_entries * vocabulary));
}

fa_status fa_llama_sample(fa_llama_session *s, const fa_sample_row *settings, int32_t *tokens) {
  if (!s->last_entries) return nothing_evaluated();
  bool has_penalty = false;
  for (int64_t e = 0; e < s->last_entries; e++) has_penalty |= settings[e].repetition_penalty != 1.0f;
  fa_status status = has_penalty ? send_seen(s) : FA_OK;
  if (status == FA_OK) status = fa_llama_to_device(s, s->settings, settings, (size_t)s->last_entries * sizeof *settings);
  if (status == FA_OK) {
    status = s->engine->operators->sample(s->engine, s->last_entries, s->model->shape.vocabulary, s->logits, s->settings,
                                          has_penalty ? s->seen : NULL, s->drawn);
  }
  return status == FA_OK ? fa_llama_to_host(s, tokens, s->drawn, (size_t)s->last_entries * sizeof *tokens) : status;
}

fa_status fa_llama_logits(fa_llama_session *s, int64_t row, int64_t rows, float *logits) {
  const fa_llama_shape *shape = &s->model->shape;
  if (row < 0 || rows < 0 || row > s->last_rows || rows > s->last_rows - row) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "logits of rows %lld .. %lld; the last eval left %lld", (long long)row,
                         (long long)(row + rows), (long long)s->last_rows);
  }
  fa_status status = s->row_logits ? FA_OK : fa_llama_session_allocate(s, LOGIT_ROWS, shape->vocabulary, sizeof(float), &s->row_logits);
  const int64_t most_rows = fa_least(LOGIT_ROWS, fa_least(s->engine->block_rows, s->max_rows));
  for (int64_t done = 0; done < rows && status == FA_OK; done += most_rows) {
    const int64_t block = fa_least(most_rows, rows - done);
    status = logits_of(s, block, s->x + (row + done) * shape->hidden, s->row_logits);
    if (status == FA_OK)
      status = fa_llama_to_host(s, logits + done * shape->vocabulary, s->row_logits, (size_t)(block * shape->vocabulary) * sizeof *logits);
  }
  return status;
}
