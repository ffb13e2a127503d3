/* See baseline_onednn.h. */
#define _GNU_SOURCE
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "cpu/baseline_onednn.h"
#include "cpu/product_onednn.h"

enum { LADDER = 160, FIRST_KEYS = 64, ROWS_AN_ITEM = 8, TOKENS_AN_ITEM = 64 };

typedef struct step {
  int64_t keys;
  fa_product scores, output;
} step;

/* Where things lie in the workspace. */
typedef struct layout {
  size_t scores, q, k, v, o, packed, scratchpad, scratch, extra, bytes;
} layout;

typedef struct baseline {
  pthread_mutex_t turn;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  int64_t pairs, rows; /* of one block */
  layout at;
  int steps;
  step ladder[LADDER];
} baseline;

/* ----------------------------------------------------------------- preparing */

static fa_status failed(dnnl_status_t status, const fa_plan *plan) {
  const char *type = fa_dtype_name(plan->problem.dtype);
  if (status == dnnl_out_of_memory) return fa_fail(FA_ERROR_MEMORY, "oneDNN is out of memory");
  if (status == dnnl_unimplemented)
    return fa_fail(FA_ERROR_UNSUPPORTED, "oneDNN %d.%d has no %s matrix product on this processor",
                   dnnl_version()->major, dnnl_version()->minor, type);
  return fa_fail(FA_ERROR_DEVICE, "oneDNN failed with status %d", (int)status);
}

static dnnl_data_type_t type_of(fa_dtype dtype) {
  return dtype == FA_FLOAT32 ? dnnl_f32 : dtype == FA_FLOAT16 ? dnnl_f16 : dnnl_bf16;
}

static dnnl_status_t create_step(baseline *w, const fa_plan *plan, int64_t keys, float scale) {
  const fa_attention_problem *p = &plan->problem;
  const dnnl_data_type_t type = type_of(p->dtype);
  const fa_product_shape scores = {w->pairs, w->rows, p->head_dim_qk, keys, 1, scale};
  const fa_product_shape output = {w->pairs, w->rows, keys, p->head_dim_v, 0, 1.0f};
  step *s = &w->ladder[w->steps++];
  s->keys = keys;
  const dnnl_status_t status = fa_product_create(&s->scores, w->engine, type, &scores);
  return status == dnnl_success ? fa_product_create(&s->output, w->engine, type, &output) : status;
}

/* 64, 80, 96, 112, 128, 160, ...: at most a quarter of a product is padding. One step where lengths are
 * fixed. */
static dnnl_status_t create_ladder(baseline *w, const fa_plan *plan, float scale) {
  const fa_attention_problem *p = &plan->problem;
  dnnl_status_t status = dnnl_success;
  if (p->max_seqlen_kv == 0 || p->max_seqlen_q == 0) return status;
  if (p->has_seqlens_kv || p->ragged_kv) {
    for (int64_t octave = FIRST_KEYS; octave < p->max_seqlen_kv; octave *= 2) {
      for (int64_t keys = octave; keys < 2 * octave && keys < p->max_seqlen_kv; keys += octave / 4) {
        if (status == dnnl_success) status = create_step(w, plan, keys, scale);
      }
    }
  }
  return status == dnnl_success ? create_step(w, plan, p->max_seqlen_kv, scale) : status;
}

static size_t claim(layout *at, int64_t bytes) {
  const size_t begin = at->bytes;
  at->bytes += (size_t)fa_round_up(bytes, 64);
  return begin;
}

static void lay_out(baseline *w, const fa_plan *plan, const fa_baseline_kind *kind) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t size = (int64_t)fa_dtype_size(p->dtype), keys = p->max_seqlen_kv;
  size_t scratchpad = 0, packed = 0;
  for (int n = 0; n < w->steps; n++) {
    if (w->ladder[n].scores.packed_bytes > packed) packed = w->ladder[n].scores.packed_bytes;
    if (w->ladder[n].scores.scratchpad_bytes > scratchpad) scratchpad = w->ladder[n].scores.scratchpad_bytes;
    if (w->ladder[n].output.scratchpad_bytes > scratchpad) scratchpad = w->ladder[n].output.scratchpad_bytes;
  }
  layout *at = &w->at;
  at->scores = claim(at, w->pairs * w->rows * keys * size);
  at->q = claim(at, w->pairs * w->rows * p->head_dim_qk * size);
  at->k = claim(at, w->pairs * keys * p->head_dim_qk * size);
  at->v = claim(at, w->pairs * keys * p->head_dim_v * size);
  at->o = claim(at, w->pairs * w->rows * p->head_dim_v * size);
  at->packed = claim(at, (int64_t)packed);
  at->scratchpad = claim(at, (int64_t)scratchpad);
  at->scratch = claim(at, plan->context->threads * fa_round_up(keys, 16) * 4);
  at->extra = claim(at, kind->extra_bytes(plan, w->pairs, w->rows));
}

/* All heads at once as long as scores and what goes with them stay under 8 GiB and 60 % of the memory. */
static void choose_blocks(baseline *w, fa_plan *plan, const fa_baseline_kind *kind) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t all_pairs = p->batch * p->heads_kv, all_rows = plan->group * p->max_seqlen_q;
  const double installed = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
  const double cap = installed * 0.6 < 0x1p33 ? installed * 0.6 : 0x1p33;
  const double size = (double)fa_dtype_size(p->dtype);
  int64_t pair_blocks = 1, row_blocks = 1;
  for (;;) {
    w->pairs = fa_ceil_div(all_pairs, pair_blocks);
    w->rows = fa_ceil_div(all_rows, row_blocks);
    const double bytes = (double)w->pairs * (double)w->rows * (double)p->max_seqlen_kv * size +
                         (double)kind->extra_bytes(plan, w->pairs, w->rows);
    if (bytes <= cap || (w->pairs <= 1 && w->rows <= 1)) break;
    if (w->pairs > 1)
      pair_blocks++;
    else
      row_blocks = row_blocks * 2;
  }
  if (pair_blocks * row_blocks == 1)
    snprintf(plan->reason, sizeof plan->reason, "%s attention, unfused: all %lld heads at once", kind->name,
             (long long)(p->batch * p->heads_q));
  else
    snprintf(plan->reason, sizeof plan->reason,
             "%s attention, unfused: the scores do not fit %.1f GiB, so %lld of %lld "
             "heads and %lld of %lld rows of a KV head at once",
             kind->name, cap / 0x1p30, (long long)(w->pairs * plan->group),
             (long long)(p->batch * p->heads_q), (long long)w->rows, (long long)all_rows);
}

fa_status fa_baseline_prepare(fa_plan *plan, const fa_baseline_kind *kind) {
  const fa_attention_problem *p = &plan->problem;
  baseline *w = fa_host_allocate(plan->context, sizeof *w);
  if (!w) return FA_ERROR_MEMORY;
  memset(w, 0, sizeof *w);
  pthread_mutex_init(&w->turn, NULL);
  plan->kernel_data = w;
  choose_blocks(w, plan, kind);

  /* A product is laid out for the number of threads there are when it is made. */
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(plan->context->threads);
  dnnl_status_t status = dnnl_engine_create(&w->engine, dnnl_cpu, 0);
  if (status == dnnl_success) status = dnnl_stream_create(&w->stream, w->engine, dnnl_stream_default_flags);
  if (status == dnnl_success) status = create_ladder(w, plan, kind->scale_in_product ? p->scale : 1.0f);
  omp_set_num_threads(threads_before);
  if (status != dnnl_success) {
    fa_baseline_release(plan);
    plan->kernel_data = NULL;
    return failed(status, plan);
  }
  lay_out(w, plan, kind);
  plan->kernel_workspace_bytes = w->at.bytes;
  plan->tiles = (fa_tiles){w->rows, p->max_seqlen_kv, w->rows, p->max_seqlen_kv};
  plan->kv_splits = 1;
  return FA_OK;
}

void fa_baseline_release(fa_plan *plan) {
  baseline *w = plan->kernel_data;
  if (!w) return;
  for (int n = 0; n < w->steps; n++) {
    fa_product_destroy(&w->ladder[n].scores);
    fa_product_destroy(&w->ladder[n].output);
  }
  if (w->stream) dnnl_stream_destroy(w->stream);
  if (w->engine) dnnl_engine_destroy(w->engine);
  pthread_mutex_destroy(&w->turn);
  fa_host_free(plan->context, w);
}

/* ---------------------------------------------------------- in and out of dense tensors */

/* Does t lie as [batch, heads, rows, dim] without gaps? Then no copy is needed. */
static int is_dense(const fa_tensor *t, int64_t batch, int64_t heads, int64_t rows, int64_t dim) {
  return (rows == 1 || t->stride_seq == dim) && (heads == 1 || t->stride_head == rows * dim) &&
         (batch == 1 || t->stride_batch == heads * rows * dim);
}

typedef struct move {
  const fa_baseline_block *block;
  const fa_tensor *tensor;
  char *dense; /* NULL: o becomes zeros */
  int64_t dim, items;
} move;

static void gather_tokens_body(void *shared, fa_cpu_work *work, int thread) {
  (void)thread;
  const move *m = shared;
  const fa_baseline_block *block = m->block;
  const fa_attention_problem *p = &block->plan->problem;
  const size_t size = fa_dtype_size(p->dtype), bytes = (size_t)m->dim * size;
  for (int64_t item = fa_cpu_take(work); item >= 0; item = fa_cpu_take(work)) {
    const int64_t pair = block->pair + item / m->items, first = item % m->items * TOKENS_AN_ITEM;
    const int64_t b = pair / p->heads_kv, last = fa_min(first + TOKENS_AN_ITEM, block->keys);
    const int64_t seqlen = fa_cpu_seqlen_kv(block->plan, block->args, b);
    const fa_cpu_tokens tokens =
        fa_cpu_tokens_of(block->plan, block->args, m->tensor, size, b, pair % p->heads_kv);
    char *to = m->dense + ((item / m->items) * block->keys + first) * (int64_t)bytes;
    for (int64_t j = first; j < last; j++, to += bytes) {
      if (j < seqlen)
        memcpy(to, fa_cpu_token(&tokens, j), bytes);
      else
        memset(to, 0, bytes);
    }
  }
}

static void gather_queries_body(void *shared, fa_cpu_work *work, int thread) {
  (void)thread;
  const move *m = shared;
  const fa_baseline_block *block = m->block;
  const size_t bytes = (size_t)m->dim * fa_dtype_size(block->plan->problem.dtype);
  for (int64_t item = fa_cpu_take(work); item >= 0; item = fa_cpu_take(work)) {
    const int64_t pair = item / m->items, first = item % m->items * ROWS_AN_ITEM;
    const int64_t last = fa_min(first + ROWS_AN_ITEM, block->rows);
    for (int64_t r = first; r < last; r++) {
      const fa_baseline_place at = fa_baseline_place_of(block->plan, block->pair + pair, block->row + r);
      const fa_cpu_rows rows = fa_cpu_q_rows(block->plan, block->args, m->tensor, at.b, at.h);
      char *to = m->dense + (pair * block->rows + r) * (int64_t)bytes;
      if (at.i < fa_cpu_seqlen_q(block->plan, block->args, at.b))
        memcpy(to, rows.data + at.i * rows.stride, bytes);
      else
        memset(to, 0, bytes);
    }
  }
}

static void scatter_output_body(void *shared, fa_cpu_work *work, int thread) {
  (void)thread;
  const move *m = shared;
  const fa_baseline_block *block = m->block;
  const size_t bytes = (size_t)m->dim * fa_dtype_size(block->plan->problem.dtype);
  for (int64_t item = fa_cpu_take(work); item >= 0; item = fa_cpu_take(work)) {
    const int64_t pair = item / m->items, first = item % m->items * ROWS_AN_ITEM;
    const int64_t last = fa_min(first + ROWS_AN_ITEM, block->rows);
    for (int64_t r = first; r < last; r++) {
      const fa_baseline_place at = fa_baseline_place_of(block->plan, block->pair + pair, block->row + r);
      if (at.i >= fa_cpu_seqlen_q(block->plan, block->args, at.b)) continue;
      const fa_cpu_rows rows = fa_cpu_q_rows(block->plan, block->args, m->tensor, at.b, at.h);
      char *to = rows.data + at.i * rows.stride;
      if (m->dense)
        memcpy(to, m->dense + (pair * block->rows + r) * (int64_t)bytes, bytes);
      else
        memset(to, 0, bytes);
    }
  }
}

static void move_rows(const fa_baseline_block *block, const fa_tensor *tensor, char *dense, int64_t dim,
                      int64_t rows, int64_t rows_an_item, fa_cpu_body body) {
  move m = {block, tensor, dense, dim, fa_ceil_div(rows, rows_an_item)};
  fa_cpu_parallel(block->plan->context->threads, block->pairs * m.items, body, &m);
}

/* k or v of the block as the products want it. */
static char *dense_tokens(const fa_baseline_block *block, const fa_tensor *t, char *room, int64_t dim,
                          int whole) {
  const fa_attention_problem *p = &block->plan->problem;
  if (whole && is_dense(t, p->batch, p->heads_kv, block->keys, dim))
    return (char *)t->data + block->pair * block->keys * dim * (int64_t)fa_dtype_size(p->dtype);
  move_rows(block, t, room, dim, block->keys, TOKENS_AN_ITEM, gather_tokens_body);
  return room;
}

static int rows_lie_dense(const fa_baseline_block *block, const fa_tensor *t, int64_t dim) {
  const fa_attention_problem *p = &block->plan->problem;
  return !p->ragged_q && is_dense(t, p->batch, p->heads_q, p->max_seqlen_q, dim);
}

static char *in_place(const fa_baseline_block *block, const fa_tensor *t, int64_t dim) {
  const fa_plan *plan = block->plan;
  const int64_t row = block->pair * plan->group * plan->problem.max_seqlen_q + block->row;
  return (char *)t->data + row * dim * (int64_t)fa_dtype_size(plan->problem.dtype);
}

/* --------------------------------------------------------------------- passes */

typedef struct row_pass {
  const fa_baseline_block *block;
  fa_baseline_pass pass;
  int64_t items; /* a pair */
} row_pass;

static void rows_body(void *shared, fa_cpu_work *work, int thread) {
  const row_pass *t = shared;
  const fa_baseline_block *block = t->block;
  const fa_plan *plan = block->plan;
  float *scratch = block->scratch + thread * fa_round_up(plan->problem.max_seqlen_kv, 16);
  for (int64_t item = fa_cpu_take(work); item >= 0; item = fa_cpu_take(work)) {
    const int64_t pair = item / t->items, first = item % t->items * ROWS_AN_ITEM;
    const int64_t last = fa_min(first + ROWS_AN_ITEM, block->rows);
    fa_score_rules rules = {0};
    int64_t head = -1;
    for (int64_t r = first; r < last; r++) {
      const fa_baseline_place at = fa_baseline_place_of(plan, block->pair + pair, block->row + r);
      if (at.i >= fa_cpu_seqlen_q(plan, block->args, at.b)) continue;
      if (at.h != head) rules = fa_score_rules_of(plan, block->args, at.b, at.h);
      head = at.h;
      t->pass(block, at, pair * block->rows + r, &rules, scratch);
    }
  }
}

void fa_baseline_rows_parallel(const fa_baseline_block *block, fa_baseline_pass pass) {
  row_pass t = {block, pass, fa_ceil_div(block->rows, ROWS_AN_ITEM)};
  fa_cpu_parallel(block->plan->context->threads, block->pairs * t.items, rows_body, &t);
}

/* --------------------------------------------------------------------- running */

static fa_status multiply(const baseline *w, const fa_plan *plan, const fa_product *m, char *source,
                          char *weights, char *result, char *workspace) {
  dnnl_status_t status = fa_product_run(m, w->stream, source, weights, result, workspace + w->at.packed,
                                        workspace + w->at.scratchpad);
  if (status == dnnl_success) status = dnnl_stream_wait(w->stream);
  return status == dnnl_success ? FA_OK : failed(status, plan);
}

/* The longest key sequence of the block; *whole: no sequence is shorter. */
static int64_t longest(const fa_baseline_block *block, int *whole) {
  const int64_t heads = block->plan->problem.heads_kv, keys = block->plan->problem.max_seqlen_kv;
  int64_t most = 0;
  *whole = !block->plan->problem.page_size && !block->plan->problem.ragged_kv;
  for (int64_t b = block->pair / heads; b <= (block->pair + block->pairs - 1) / heads; b++) {
    const int64_t seqlen = fa_cpu_seqlen_kv(block->plan, block->args, b);
    most = fa_max(most, seqlen);
    if (seqlen != keys) *whole = 0;
  }
  return most;
}

static fa_status run_block(const baseline *w, fa_baseline_block *block, char *workspace,
                           const fa_baseline_kind *kind) {
  const fa_plan *plan = block->plan;
  const fa_attention_problem *p = &plan->problem;
  const fa_attention_args *args = block->args;
  int whole = 0;
  const int64_t needed = longest(block, &whole);
  block->scores = workspace + w->at.scores;
  block->extra = workspace + w->at.extra;
  block->scratch = (float *)(void *)(workspace + w->at.scratch);
  block->keys = 0;
  if (needed == 0) {
    kind->passes(block); /* lse of rows without keys */
    move_rows(block, &args->o, NULL, p->head_dim_v, block->rows, ROWS_AN_ITEM, scatter_output_body);
    return FA_OK;
  }
  const step *s = w->ladder;
  while (s->keys < needed) s++;
  block->keys = s->keys;

  char *k = dense_tokens(block, &args->k, workspace + w->at.k, p->head_dim_qk, whole);
  char *v = dense_tokens(block, &args->v, workspace + w->at.v, p->head_dim_v, whole);
  char *q = workspace + w->at.q, *o = workspace + w->at.o;
  if (rows_lie_dense(block, &args->q, p->head_dim_qk))
    q = in_place(block, &args->q, p->head_dim_qk);
  else
    move_rows(block, &args->q, q, p->head_dim_qk, block->rows, ROWS_AN_ITEM, gather_queries_body);
  const int o_in_place = rows_lie_dense(block, &args->o, p->head_dim_v);
  if (o_in_place) o = in_place(block, &args->o, p->head_dim_v);

  fa_status status = multiply(w, plan, &s->scores, q, k, block->scores, workspace);
  if (status != FA_OK) return status;
  kind->passes(block);
  status = multiply(w, plan, &s->output, block->scores, v, o, workspace);
  if (status == FA_OK && !o_in_place)
    move_rows(block, &args->o, o, p->head_dim_v, block->rows, ROWS_AN_ITEM, scatter_output_body);
  return status;
}

fa_status fa_baseline_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                          const fa_baseline_kind *kind) {
  const fa_attention_problem *p = &plan->problem;
  baseline *w = plan->kernel_data;
  const int64_t all_pairs = p->batch * p->heads_kv, all_rows = plan->group * p->max_seqlen_q;
  const int threads_before = omp_get_max_threads();
  fa_status status = FA_OK;
  if (p->max_seqlen_q == 0) return FA_OK;
  pthread_mutex_lock(&w->turn);
  omp_set_num_threads(plan->context->threads);
  /* Products have one size, so the last block starts early and does some rows again, to the same result. */
  for (int64_t pair = 0; pair < all_pairs && status == FA_OK; pair += w->pairs) {
    for (int64_t row = 0; row < all_rows && status == FA_OK; row += w->rows) {
      fa_baseline_block block = {.plan = plan, .args = args, .passes = fa_baseline_rows_here()};
      block.pairs = w->pairs;
      block.rows = w->rows;
      block.pair = fa_min(pair, all_pairs - w->pairs);
      block.row = fa_min(row, all_rows - w->rows);
      status = run_block(w, &block, workspace, kind);
    }
  }
  omp_set_num_threads(threads_before);
  pthread_mutex_unlock(&w->turn);
  return status;
}
