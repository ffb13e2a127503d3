/* Attention of a chunk over the paged cache: which problem it is, and the plans kept for it.
 *
 *   single tokens           [segments, 1] queries, lengths read on the device, maxima of the session: one plan a
 *                           generation, fit for a captured step
 *   equal counts and pasts  [segments, count] queries, exact
 *   anything else           ragged queries, lengths read on the device
 *
 * Where every sequence has one page and the pages lie at equal distances, keys and values are dense tensors. Baselines
 * know nothing else: theirs are run sequence by sequence where the segments differ. */
#include <string.h>

#include "llama_error.h"
#include "session.h"

enum { ROUND = 256 }; /* rows of ragged problems, so that passes of about the same size share a plan */

static int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

bool fa_llama_is_dense(const fa_llama_session *s, const fa_chunk *chunk, int64_t *stride) {
  *stride = 0;
  if (s->pages_a_sequence != 1) return false;
  if (chunk->segments > 1) *stride = chunk->segment[1].page - chunk->segment[0].page;
  for (int64_t i = 1; i < chunk->segments; i++) {
    if (chunk->segment[i].page - chunk->segment[i - 1].page != *stride) return false;
  }
  return true;
}

void fa_llama_forget_plans(fa_llama_session *s) {
  for (int i = 0; i < FA_KEPT_PLANS; i++) fa_plan_destroy(s->choices[i].plan);
  memset(s->choices, 0, sizeof s->choices);
}

static fa_status reserve_workspace(fa_llama_session *s, size_t bytes) {
  if (bytes <= s->workspace_bytes) return FA_OK;
  fa_context *context = s->model->context;
  fa_llama_forget_captured(s); /* they point into the old one */
  fa_buffer_free(context, s->workspace);
  s->workspace = NULL;
  s->workspace_bytes = 0;
  const fa_status status = fa_buffer_allocate(context, bytes, &s->workspace);
  if (status != FA_OK) return fa_llama_fail_library(status, "attention workspace");
  s->workspace_bytes = bytes;
  return FA_OK;
}

static fa_status make_plan(fa_llama_session *s, fa_attention_choice *c) {
  const fa_llama_shape *shape = &s->model->shape;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.dtype = problem.kv_dtype = s->engine->dtype;
  problem.batch = c->batch;
  problem.heads_q = shape->heads_q;
  problem.heads_kv = shape->heads_kv;
  problem.head_dim_qk = shape->head_dim_qk;
  problem.head_dim_v = shape->head_dim_v;
  problem.max_seqlen_q = c->queries;
  problem.max_seqlen_kv = c->keys;
  problem.scale = shape->attention_scale;
  problem.causal = c->queries > 1;
  problem.ragged_q = c->rows > 0;
  problem.total_seqlen_q = c->rows;
  problem.has_seqlens_kv = c->has_lengths;
  if (c->has_window) problem.window_left = shape->window - 1;
  if (c->is_paged) {
    problem.page_size = s->page_size;
    problem.num_pages = fa_kv_cache_num_pages(s->cache);
  }
  problem.kernel = s->kernel;
  fa_status status = fa_plan_create(s->model->context, &problem, &c->plan);
  if (status != FA_OK) return fa_llama_fail_library(status, c->queries > 1 ? "prompt attention" : "decoding attention");
  fa_plan_info info = FA_PLAN_INFO_INIT;
  if (fa_plan_describe(c->plan, &info) == FA_OK) {
    char *name = c->queries > 1 ? s->prefill_name : s->decode_name;
    strncpy(name, info.kernel, sizeof s->decode_name - 1);
  }
  return reserve_workspace(s, fa_plan_workspace_bytes(c->plan));
}

/* The plan for `wanted`, from the kept ones or in the place of the one unused longest. */
static fa_status find_plan(fa_llama_session *s, const fa_attention_choice *wanted, const fa_plan **plan) {
  fa_attention_choice *oldest = &s->choices[0];
  for (int i = 0; i < FA_KEPT_PLANS; i++) {
    fa_attention_choice *c = &s->choices[i];
    if (c->last_use && c->batch == wanted->batch && c->queries == wanted->queries && c->rows == wanted->rows &&
        c->keys == wanted->keys && c->is_paged == wanted->is_paged && c->has_lengths == wanted->has_lengths &&
        c->has_window == wanted->has_window) {
      c->last_use = ++s->clock;
      *plan = c->plan;
      return reserve_workspace(s, fa_plan_workspace_bytes(c->plan)); /* lost where a larger one could not be had */
    }
    if (c->last_use < oldest->last_use) oldest = c;
  }
  if (oldest->plan) {
    /* Work in flight, or a captured step, may use what the plan holds on the device. */
    fa_llama_forget_captured(s);
    const fa_status status = fa_stream_synchronize(s->model->context, s->engine->stream);
    if (status != FA_OK) return fa_llama_fail_library(status, "attention");
    fa_plan_destroy(oldest->plan);
  }
  *oldest = *wanted;
  oldest->plan = NULL;
  oldest->last_use = 0;
  const fa_status status = make_plan(s, oldest);
  if (status != FA_OK) {
    fa_plan_destroy(oldest->plan);
    oldest->plan = NULL;
    return status;
  }
  oldest->last_use = ++s->clock;
  *plan = oldest->plan;
  return FA_OK;
}

fa_status fa_llama_plan_decode(fa_llama_session *s, int64_t batch) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_plan *plan;
  fa_attention_choice c = {.batch = batch, .queries = 1, .keys = s->max_tokens, .is_paged = s->pages_a_sequence > 1,
                           .has_lengths = true, .has_window = fa_llama_layer_has_window(shape, 0)};
  return find_plan(s, &c, &plan);
}

/* Segments first .. first + count - 1, which lie in rows `row` .. of q. */
static fa_status run(fa_llama_session *s, const fa_chunk *chunk, int64_t layer, int64_t first, int64_t count, int64_t row,
                     bool is_equal, bool is_dense, int64_t page_stride) {
  const fa_llama_shape *shape = &s->model->shape;
  const fa_segment *segment = &chunk->segment[first];
  fa_attention_choice c = {.batch = count, .has_window = fa_llama_layer_has_window(shape, layer), .is_paged = !is_dense};
  for (int64_t i = 0; i < count; i++) {
    if (segment[i].count > c.queries) c.queries = segment[i].count;
    if (segment[i].past + segment[i].count > c.keys) c.keys = segment[i].past + segment[i].count;
    c.rows += segment[i].count;
  }
  c.has_lengths = c.queries == 1 || !is_equal;
  if (c.has_lengths) c.keys = s->max_tokens; /* maxima that serve the passes to come, too */
  if (is_equal) {
    c.rows = 0;
  } else {
    c.queries = fa_least(round_up(c.queries, ROUND), s->max_rows);
    c.rows = fa_least(round_up(c.rows, ROUND), s->max_rows);
  }
  const fa_plan *plan;
  fa_status status = find_plan(s, &c, &plan);
  if (status != FA_OK) return status;

  const int64_t q_width = shape->heads_q * shape->head_dim_qk, o_width = shape->heads_q * shape->head_dim_v;
  const size_t size = fa_dtype_bytes(s->engine->dtype);
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  args.q = (fa_tensor){(char *)s->q + (size_t)(row * q_width) * size, c.queries * q_width, q_width, shape->head_dim_qk};
  args.o = (fa_tensor){(char *)s->o + (size_t)(row * o_width) * size, c.queries * o_width, o_width, shape->head_dim_v};
  status = fa_kv_cache_layer(s->cache, layer, &args.k, &args.v);
  if (is_dense) {
    args.k.data = (char *)args.k.data + (size_t)(segment->page * args.k.stride_batch) * size;
    args.v.data = (char *)args.v.data + (size_t)(segment->page * args.v.stride_batch) * size;
    args.k.stride_batch *= page_stride;
    args.v.stride_batch *= page_stride;
  } else {
    args.page_table = s->device_page_table + first * s->pages_a_sequence;
    args.page_table_stride = s->pages_a_sequence;
  }
  args.seqlens_kv = c.has_lengths ? chunk->seqlens_kv + first : NULL;
  args.cu_seqlens_q = is_equal ? NULL : chunk->cu_seqlens_q + first;
  if (status == FA_OK) status = fa_attention_run(plan, &args, s->workspace, s->workspace_bytes, s->engine->stream);
  return status == FA_OK ? FA_OK : fa_llama_fail_library(status, "attention");
}

fa_status fa_llama_attend(fa_llama_session *s, const fa_chunk *chunk, int64_t layer) {
  int64_t page_stride;
  const bool is_dense = fa_llama_is_dense(s, chunk, &page_stride);
  bool is_equal = true, is_single = chunk->segment[0].count == 1;
  for (int64_t i = 1; i < chunk->segments; i++) {
    is_equal &= chunk->segment[i].count == chunk->segment[0].count && chunk->segment[i].past == chunk->segment[0].past;
    is_single &= chunk->segment[i].count == 1;
  }
  if (!s->is_baseline || (is_dense && (is_equal || is_single)))
    return run(s, chunk, layer, 0, chunk->segments, 0, is_equal || is_single, is_dense, page_stride);
  fa_status status = FA_OK;
  int64_t row = 0;
  for (int64_t i = 0; i < chunk->segments && status == FA_OK; row += chunk->segment[i++].count)
    status = run(s, chunk, layer, i, 1, row, true, s->pages_a_sequence == 1, 0);
  return status;
}
