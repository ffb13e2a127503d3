/* One point of bench-model's grid: a session is made for it, warmed up, timed and freed. Prompts are random tokens, the
 * same for every attention; a decoded token is drawn on the device and comes back, as in real use. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_model.h"
#include "model_commands.h"

enum { MIXED_CHUNK = 512 };

typedef struct timing {
  const fa_bench_model *bench;
  fa_bench_model_row *row;
  fa_llama_session *session;
  fa_llama_entry *entries; /* [batch] */
  int32_t *tokens;         /* [batch, prompt] */
  int32_t *drawn;          /* [batch] */
  fa_sample_row *settings; /* [batch] greedy */
  double *ms;              /* [samples] */
  int64_t samples;
} timing;

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void note(timing *t, double begin) { t->ms[t->samples++] = 1e3 * (fa_model_seconds() - begin); }

static fa_status rewind_all(timing *t) {
  fa_status status = FA_OK;
  for (int64_t i = 0; i < t->row->batch && status == FA_OK; i++) status = fa_llama_session_rewind(t->session, (int32_t)i, 0);
  return status;
}

static fa_status read_prompts(timing *t, int64_t sequences) {
  const int64_t prompt = t->row->prompt;
  for (int64_t i = 0; i < sequences; i++) t->entries[i] = (fa_llama_entry){(int32_t)i, t->tokens + i * prompt, prompt};
  fa_status status = rewind_all(t);
  if (status == FA_OK) status = fa_llama_eval_batch(t->session, t->entries, sequences);
  return status == FA_OK ? fa_llama_session_synchronize(t->session) : status;
}

static fa_status time_prefill(timing *t) {
  fa_status status = read_prompts(t, t->row->batch);
  for (int i = 0; i < t->bench->repeats && status == FA_OK; i++) {
    const double begin = fa_model_seconds();
    status = read_prompts(t, t->row->batch);
    note(t, begin);
  }
  return status;
}

static fa_status step(timing *t, int64_t sequences) {
  for (int64_t i = 0; i < sequences; i++) t->entries[i] = (fa_llama_entry){(int32_t)i, &t->drawn[i], 1};
  const fa_status status = fa_llama_eval_batch(t->session, t->entries, sequences);
  return status == FA_OK ? fa_llama_sample(t->session, t->settings, t->drawn) : status;
}

static fa_status time_decode(timing *t) {
  fa_status status = read_prompts(t, t->row->batch);
  if (status == FA_OK) status = fa_llama_sample(t->session, t->settings, t->drawn);
  for (int64_t i = 0; i < t->row->generate + FA_BENCH_WARM_STEPS && status == FA_OK; i++) {
    const double begin = fa_model_seconds();
    status = step(t, t->row->batch);
    if (i >= FA_BENCH_WARM_STEPS) note(t, begin);
  }
  return status;
}

/* All but one sequence decode; the last one's prompt is read MIXED_CHUNK tokens a pass, again and again. */
static fa_status time_mixed(timing *t) {
  const int64_t decoding = t->row->batch - 1, prompt = t->row->prompt, last = decoding;
  const int64_t chunk = prompt < MIXED_CHUNK ? prompt : MIXED_CHUNK;
  fa_status status = read_prompts(t, decoding);
  if (status == FA_OK) status = fa_llama_sample(t->session, t->settings, t->drawn);
  int64_t done = 0;
  for (int64_t i = 0; i < t->row->generate + FA_BENCH_WARM_STEPS && status == FA_OK; i++) {
    if (done + chunk > prompt) {
      status = fa_llama_session_rewind(t->session, (int32_t)last, 0);
      done = 0;
      if (status != FA_OK) break;
    }
    const double begin = fa_model_seconds();
    for (int64_t e = 0; e < decoding; e++) t->entries[e] = (fa_llama_entry){(int32_t)e, &t->drawn[e], 1};
    t->entries[last] = (fa_llama_entry){(int32_t)last, t->tokens + last * prompt + done, chunk};
    status = fa_llama_eval_batch(t->session, t->entries, t->row->batch);
    if (status == FA_OK) status = fa_llama_sample(t->session, t->settings, t->drawn);
    if (i >= FA_BENCH_WARM_STEPS) note(t, begin);
    done += chunk;
  }
  return status;
}

static fa_status run(timing *t, const fa_bench_attention *attention) {
  const fa_bench_model_row *row = t->row;
  fa_llama_session_options options = FA_LLAMA_SESSION_OPTIONS_INIT;
  options.max_tokens = row->prompt + t->bench->generate + FA_BENCH_WARM_STEPS + 1;
  options.max_sequences = row->batch;
  options.max_rows = t->bench->chunk;
  options.page_size = t->bench->page;
  options.kernel = attention->kernel;
  options.no_graph = t->bench->no_graph;
  fa_status status = fa_llama_session_create(t->bench->model, &options, &t->session);
  if (status != FA_OK) return status;
  return strcmp(row->op, "prefill") == 0 ? time_prefill(t) : strcmp(row->op, "decode") == 0 ? time_decode(t) : time_mixed(t);
}

static void summarise(timing *t) {
  fa_bench_model_row *row = t->row;
  const bool is_prefill = strcmp(row->op, "prefill") == 0;
  const int64_t chunk = row->prompt < MIXED_CHUNK ? row->prompt : MIXED_CHUNK;
  const int64_t tokens = is_prefill                       ? row->batch * row->prompt
                         : strcmp(row->op, "decode") == 0 ? row->batch
                                                          : row->batch - 1 + chunk;
  qsort(t->ms, (size_t)t->samples, sizeof *t->ms, compare);
  row->ran = true;
  row->ms = t->ms[t->samples / 2];
  row->ms_min = t->ms[0];
  row->tokens_per_s = 1e3 * (double)tokens / row->ms;
  fa_llama_session_memory(t->session, &row->memory);
  row->json_memory = fa_model_memory(t->session);
  snprintf(row->kernel, sizeof row->kernel, "%s", strcmp(row->op, "decode") == 0 ? fa_llama_session_decode_kernel(t->session)
                                                                               : fa_llama_session_prefill_kernel(t->session));
}

int fa_bench_model_time(const fa_bench_model *bench, const fa_bench_attention *attention, fa_bench_model_row *row) {
  const int64_t vocabulary = fa_llama_model_shape(bench->model)->vocabulary;
  const size_t batch = (size_t)row->batch, tokens = batch * (size_t)row->prompt;
  const size_t samples = (size_t)(bench->repeats > bench->generate ? bench->repeats : bench->generate) + 1;
  timing t = {.bench = bench, .row = row};
  row->chunk = bench->chunk;
  t.entries = calloc(batch, sizeof *t.entries);
  t.tokens = malloc(tokens * sizeof *t.tokens);
  t.drawn = calloc(batch, sizeof *t.drawn);
  t.settings = calloc(batch, sizeof *t.settings);
  t.ms = calloc(samples, sizeof *t.ms);
  fa_status status = FA_ERROR_MEMORY;
  if (t.entries && t.tokens && t.drawn && t.settings && t.ms) {
    uint32_t random = 1;
    for (size_t i = 0; i < tokens; i++) {
      random = random * 1664525u + 1013904223u;
      t.tokens[i] = (int32_t)((random >> 8) % (uint64_t)vocabulary);
    }
    for (size_t i = 0; i < batch; i++) t.settings[i] = (fa_sample_row){.top_p = 1.0f, .repetition_penalty = 1.0f};
    status = run(&t, attention);
    if (status == FA_OK) summarise(&t);
  }
  int code = FA_EXIT_OK;
  if (status == FA_ERROR_MEMORY || status == FA_ERROR_UNSUPPORTED)
    snprintf(row->why, sizeof row->why, "%s", t.ms ? fa_llama_last_error() : "no memory for the prompts");
  else if (status != FA_OK)
    code = fa_model_failure();
  fa_llama_session_free(t.session);
  free(t.entries);
  free(t.tokens);
  free(t.drawn);
  free(t.settings);
  free(t.ms);
  return code;
}
