#include "ref/ref_problem.h"

#include <math.h>
#include <stdlib.h>

int64_t fa_ref_seqlen_q(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b) {
  if (problem->ragged_q) return (int64_t)args->cu_seqlens_q[b + 1] - (int64_t)args->cu_seqlens_q[b];
  return problem->max_seqlen_q;
}

int64_t fa_ref_seqlen_kv(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b) {
  if (problem->has_seqlens_kv) return (int64_t)args->seqlens_kv[b] + problem->seqlen_new;
  if (problem->ragged_kv) return (int64_t)args->cu_seqlens_kv[b + 1] - (int64_t)args->cu_seqlens_kv[b];
  return problem->max_seqlen_kv;
}

int64_t fa_ref_packed_row(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b,
                          int64_t i) {
  return problem->ragged_q ? (int64_t)args->cu_seqlens_q[b] + i : b * problem->max_seqlen_q + i;
}

int64_t fa_ref_packed_rows(const fa_attention_problem *problem) {
  return problem->ragged_q ? problem->total_seqlen_q : problem->batch * problem->max_seqlen_q;
}

int fa_ref_keeps(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b, int64_t head,
                 int64_t i, int64_t j) {
  const int64_t seqlen_q = fa_ref_seqlen_q(problem, args, b);
  const int64_t seqlen_kv = fa_ref_seqlen_kv(problem, args, b);
  const int64_t diagonal = i + seqlen_kv - seqlen_q; /* the key below which query i stands */
  if (j < 0 || j >= seqlen_kv) return 0;
  if (problem->causal && j > diagonal) return 0;
  if (problem->window_left >= 0 && diagonal - j > problem->window_left) return 0;
  if (problem->window_right >= 0 && j - diagonal > problem->window_right) return 0;
  if (problem->has_mask) {
    const uint8_t *mask = (const uint8_t *)args->mask.data;
    const int64_t row =
        b * args->mask.stride_batch + head * args->mask.stride_head + i * args->mask.stride_seq;
    if (mask[row + j] == 0) return 0;
  }
  return 1;
}

ref_head ref_head_of(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b,
                     int64_t head) {
  ref_head h;
  h.problem = problem;
  h.args = args;
  h.b = b;
  h.head = head;
  h.kv_head = head / (problem->heads_q / problem->heads_kv);
  h.seqlen_q = fa_ref_seqlen_q(problem, args, b);
  h.seqlen_kv = fa_ref_seqlen_kv(problem, args, b);
  h.scale = problem->scale != 0.0f ? (double)problem->scale : 1.0 / sqrt((double)problem->head_dim_qk);
  h.k = NULL;
  h.v = NULL;
  return h;
}

int64_t fa_ref_token_index(const fa_attention_problem *problem, const fa_attention_args *args,
                           const fa_tensor *t, int64_t b, int64_t kv_head, int64_t j) {
  int64_t index = kv_head * t->stride_head;
  if (problem->page_size > 0) {
    const int64_t page = args->page_table[b * args->page_table_stride + j / problem->page_size];
    index += page * t->stride_batch + (j % problem->page_size) * t->stride_seq;
  } else if (problem->ragged_kv) {
    index += ((int64_t)args->cu_seqlens_kv[b] + j) * t->stride_seq;
  } else {
    index += b * t->stride_batch + j * t->stride_seq;
  }
  return index;
}

static void token(const ref_head *h, const fa_tensor *t, const fa_tensor *scale, int64_t dim, int64_t j,
                  double *out) {
  const fa_dtype dtype = h->problem->kv_dtype;
  const int64_t index = fa_ref_token_index(h->problem, h->args, t, h->b, h->kv_head, j);
  double factor = 1.0;
  if (dtype == FA_INT8 || dtype == FA_FP8_E4M3) {
    factor = (double)((const float *)
                          scale->data)[fa_ref_token_index(h->problem, h->args, scale, h->b, h->kv_head, j)];
  }
  for (int64_t d = 0; d < dim; d++) out[d] = factor * fa_ref_load(t->data, index + d, dtype);
}

const double *ref_key(const ref_head *h, int64_t j, double *scratch) {
  const int64_t dim = h->problem->head_dim_qk;
  if (h->k) return h->k + j * dim;
  token(h, &h->args->k, &h->args->k_scale, dim, j, scratch);
  return scratch;
}

const double *ref_value(const ref_head *h, int64_t j, double *scratch) {
  const int64_t dim = h->problem->head_dim_v;
  if (h->v) return h->v + j * dim;
  token(h, &h->args->v, &h->args->v_scale, dim, j, scratch);
  return scratch;
}

void ref_gather(const ref_head *h, double *k, double *v) {
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    token(h, &h->args->k, &h->args->k_scale, h->problem->head_dim_qk, j, k + j * h->problem->head_dim_qk);
    token(h, &h->args->v, &h->args->v_scale, h->problem->head_dim_v, j, v + j * h->problem->head_dim_v);
  }
}

void ref_rotate(const fa_attention_problem *problem, const fa_attention_args *args, int64_t position,
                double *x) {
  const int64_t half = problem->rotary_dim / 2;
  for (int64_t n = 0; n < half; n++) {
    const int64_t first = problem->rotary_interleaved ? 2 * n : n;
    const int64_t second = problem->rotary_interleaved ? 2 * n + 1 : n + half;
    const double cosine = (double)args->rotary_cos[position * half + n];
    const double sine = (double)args->rotary_sin[position * half + n];
    const double a = x[first], b = x[second];
    x[first] = a * cosine - b * sine;
    x[second] = a * sine + b * cosine;
  }
}

void ref_query(const ref_head *h, int64_t i, double *q) {
  const fa_tensor *t = &h->args->q;
  int64_t index = h->head * t->stride_head;
  if (h->problem->ragged_q)
    index += ((int64_t)h->args->cu_seqlens_q[h->b] + i) * t->stride_seq;
  else
    index += h->b * t->stride_batch + i * t->stride_seq;
  for (int64_t d = 0; d < h->problem->head_dim_qk; d++)
    q[d] = fa_ref_load(t->data, index + d, h->problem->dtype);
  if (h->problem->rotary_dim > 0) ref_rotate(h->problem, h->args, h->seqlen_kv - h->seqlen_q + i, q);
}

double ref_slope(const ref_head *h) {
  if (!h->problem->has_alibi) return 0.0;
  return (double)h->args->alibi_slopes[h->b * h->args->alibi_stride_batch + h->head];
}

double ref_bias(const ref_head *h, int64_t i, int64_t j) {
  if (!h->problem->has_bias) return 0.0;
  const fa_tensor *t = &h->args->bias;
  const int64_t row = h->b * t->stride_batch + h->head * t->stride_head + i * t->stride_seq;
  return fa_ref_load(t->data, row + j, h->problem->bias_dtype);
}

int64_t ref_scratch_count(const fa_attention_problem *problem, int64_t seqlen_kv) {
  return 2 * problem->head_dim_qk + problem->head_dim_v + seqlen_kv;
}
