/* Appending new tokens to the KV cache, with rotary position embedding, before attention runs over all of
 * them.
 *
 *   x'[a] = x[a] cos - x[b] sin,  x'[b] = x[b] cos + x[a] sin   for the pairs (a, b) of the first rotary_dim
 * elements: (d, d + rotary_dim / 2), or interleaved (2d, 2d + 1), with cos and sin of row `position`, column
 * d.
 *
 * k_new, v_new: [batch, seqlen_new, heads_kv, dim] of dtype. Token t of entry b goes to slot seqlens_kv[b] +
 * t of the cache (dense or paged) of kv_dtype, k rotated at that position in fp32 and rounded once. q:
 * rotated at S_kv - S_q + i into the workspace, in dtype. One item is a token (all its KV heads, so that a
 * scale they share is computed once) or a query row of all heads. Scratch: two rows of fp32 on the stack.
 * Bound: reading and writing the new tokens once. */
#include "cpu/kv_append.h"

#include <math.h>

#define MAX_DIM 576

typedef struct append_task {
  const fa_plan *plan;
  const fa_attention_args *args;
  char *rotated_q; /* [rows, heads_q, head_dim_qk]; NULL: nothing to rotate */
} append_task;

static void rotate(const append_task *task, float *row, int64_t position) {
  const int64_t half = task->plan->problem.rotary_dim / 2;
  const int interleaved = task->plan->problem.rotary_interleaved;
  const float *cosines = task->args->rotary_cos + position * half;
  const float *sines = task->args->rotary_sin + position * half;
  for (int64_t d = 0; d < half; ++d) {
    float *a = row + (interleaved ? 2 * d : d), *b = row + (interleaved ? 2 * d + 1 : d + half);
    const float x = *a, y = *b;
    *a = x * cosines[d] - y * sines[d];
    *b = y * cosines[d] + x * sines[d];
  }
}

/* -------------------------------------------------------------- quantising */

static float largest_quantised(fa_dtype dtype) { return dtype == FA_INT8 ? 127.0f : 448.0f; }

static float largest_magnitude(const float *row, int64_t dim) {
  float largest = 0.0f;
  for (int64_t d = 0; d < dim; ++d) largest = fmaxf(largest, fabsf(row[d])); /* fmaxf passes NaN over */
  return largest;
}

static void quantise_row(char *data, const float *row, int64_t dim, fa_dtype dtype, float scale) {
  const int usable = scale != 0.0f && isfinite(scale); /* else every value reads back as 0 or NaN anyway */
  for (int64_t d = 0; d < dim; ++d) {
    const float value = usable ? row[d] / scale : 0.0f;
    if (dtype == FA_FP8_E4M3)
      ((uint8_t *)data)[d] = fa_fp8_from_float(value);
    else
      ((int8_t *)data)[d] = (int8_t)(value != value ? 0.0f : rintf(fminf(fmaxf(value, -127.0f), 127.0f)));
  }
}

/* ------------------------------------------------------------- one token */

/* k or v of one append: where it comes from, where it goes. */
typedef struct token_source {
  const fa_tensor *fresh, *cache, *scale;
  int64_t dim;
  int is_rotated;
} token_source;

static void fresh_row(const append_task *task, const token_source *s, float *row, int64_t b, int64_t t,
                      int64_t h, int64_t position) {
  const fa_dtype dtype = task->plan->problem.dtype;
  const int64_t at = b * s->fresh->stride_batch + t * s->fresh->stride_seq + h * s->fresh->stride_head;
  fa_load_row(row, (const char *)s->fresh->data + at * (int64_t)fa_dtype_size(dtype), s->dim, dtype);
  if (s->is_rotated) rotate(task, row, position);
}

static char *slot_of(const append_task *task, const fa_tensor *tensor, size_t element_bytes, int64_t b,
                     int64_t h, int64_t position) {
  const fa_cpu_tokens tokens = fa_cpu_tokens_of(task->plan, task->args, tensor, element_bytes, b, h);
  return fa_cpu_token(&tokens, position);
}

/* A token's own scale maps its largest magnitude to the largest value of the type; heads that share the scale
 * (stride_head 0) are looked at together. Scales that batch entries share cannot be one token's own: used as
 * found. */
static void store_scales(const append_task *task, const token_source *s, int64_t b, int64_t t,
                         int64_t position) {
  const fa_attention_problem *p = &task->plan->problem;
  const int is_shared_by_batch = !p->page_size && s->scale->stride_batch == 0 && p->batch > 1;
  if (s->scale->stride_seq == 0 || is_shared_by_batch) return;
  float row[MAX_DIM], largest = 0.0f;
  for (int64_t h = 0; h < p->heads_kv; ++h) {
    fresh_row(task, s, row, b, t, h, position);
    largest = fmaxf(s->scale->stride_head ? 0.0f : largest, largest_magnitude(row, s->dim));
    const float scale = fminf(largest, 3.0e38f) / largest_quantised(p->kv_dtype);
    *(float *)(void *)slot_of(task, s->scale, sizeof(float), b, h, position) = scale;
  }
}

static void append_token(const append_task *task, const token_source *s, int64_t b, int64_t t) {
  const fa_attention_problem *p = &task->plan->problem;
  const int64_t position = task->args->seqlens_kv[b] + t;
  const int is_quantised = p->kv_dtype != p->dtype;
  float row[MAX_DIM];
  if (is_quantised) store_scales(task, s, b, t, position);
  for (int64_t h = 0; h < p->heads_kv; ++h) {
    char *slot = slot_of(task, s->cache, fa_dtype_size(p->kv_dtype), b, h, position);
    fresh_row(task, s, row, b, t, h, position);
    if (is_quantised)
      quantise_row(slot, row, s->dim, p->kv_dtype,
                   *(const float *)(const void *)slot_of(task, s->scale, sizeof(float), b, h, position));
    else
      fa_store_row(slot, row, s->dim, p->dtype);
  }
}

/* ------------------------------------------------------------------ queries */

/* Rows of the rotated q are packed: [batch, max_seqlen_q] or [total_seqlen_q], then heads_q, head_dim_qk. */
static fa_tensor rotated_tensor(const fa_plan *plan, void *data) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t row = p->heads_q * p->head_dim_qk;
  const fa_tensor tensor = {data, p->max_seqlen_q * row, row, p->head_dim_qk};
  return tensor;
}

static void rotate_query(const append_task *task, int64_t b, int64_t i) {
  const fa_attention_problem *p = &task->plan->problem;
  const int64_t seqlen_q = fa_cpu_seqlen_q(task->plan, task->args, b);
  if (i >= seqlen_q) return;
  const int64_t position = fa_cpu_seqlen_kv(task->plan, task->args, b) - seqlen_q + i;
  const fa_tensor rotated = rotated_tensor(task->plan, task->rotated_q);
  float row[MAX_DIM];
  for (int64_t h = 0; h < p->heads_q; ++h) {
    const fa_cpu_rows from = fa_cpu_q_rows(task->plan, task->args, &task->args->q, b, h);
    const fa_cpu_rows to = fa_cpu_q_rows(task->plan, task->args, &rotated, b, h);
    fa_load_row(row, from.data + i * from.stride, p->head_dim_qk, p->dtype);
    rotate(task, row, position);
    fa_store_row(to.data + i * to.stride, row, p->head_dim_qk, p->dtype);
  }
}

static void append_body(void *shared, fa_cpu_work *work, int thread) {
  const append_task *task = shared;
  const fa_attention_problem *p = &task->plan->problem;
  const fa_attention_args *a = task->args;
  const token_source k = {&a->k_new, &a->k, &a->k_scale, p->head_dim_qk, p->rotary_dim > 0};
  const token_source v = {&a->v_new, &a->v, &a->v_scale, p->head_dim_v, 0};
  const int64_t tokens = p->batch * p->seqlen_new;
  (void)thread;
  int64_t item;
  while ((item = fa_cpu_take(work)) >= 0) {
    if (item < tokens) {
      append_token(task, &k, item / p->seqlen_new, item % p->seqlen_new);
      append_token(task, &v, item / p->seqlen_new, item % p->seqlen_new);
    } else {
      rotate_query(task, (item - tokens) / p->max_seqlen_q, (item - tokens) % p->max_seqlen_q);
    }
  }
}

size_t fa_cpu_append_workspace_bytes(const fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  if (!p->rotary_dim) return 0;
  const int64_t rows = p->ragged_q ? p->total_seqlen_q : p->batch * p->max_seqlen_q;
  return (size_t)fa_round_up(rows * p->heads_q * p->head_dim_qk * (int64_t)fa_dtype_size(p->dtype), 64);
}

void fa_cpu_append(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                   fa_attention_args *rotated) {
  const fa_attention_problem *p = &plan->problem;
  append_task task = {plan, args, p->rotary_dim ? workspace : NULL};
  const int64_t queries = task.rotated_q ? p->batch * p->max_seqlen_q : 0;
  *rotated = *args;
  if (p->rotary_dim) rotated->q = rotated_tensor(plan, workspace);
  fa_cpu_parallel(plan->context->threads, p->batch * p->seqlen_new + queries, append_body, &task);
}
