/* New tokens into the cache: k rotated at its position, both rounded to the cache's type. For an int8 or fp8
 * cache the value is x / scale, with the scale found there, or, where scales are per token, with a scale of
 * the token's own (its largest magnitude lands on the type's largest number; one for all heads if they share
 * it). */
#include <math.h>
#include <stdlib.h>

#include "ref/ref_problem.h"

void fa_ref_new_token(const fa_attention_problem *p, const fa_attention_args *args, int64_t b,
                      int64_t kv_head, int64_t n, int is_key, double *x) {
  const fa_tensor *t = is_key ? &args->k_new : &args->v_new;
  const int64_t dim = is_key ? p->head_dim_qk : p->head_dim_v;
  const int64_t index = b * t->stride_batch + n * t->stride_seq + kv_head * t->stride_head;
  for (int64_t d = 0; d < dim; d++) x[d] = fa_ref_load(t->data, index + d, p->dtype);
  if (is_key && p->rotary_dim > 0) ref_rotate(p, args, args->seqlens_kv[b] + n, x);
}

/* Largest magnitude of token n, over one KV head or (kv_head < 0) all of them. */
static double largest_of_token(const fa_attention_problem *p, const fa_attention_args *args, int64_t b,
                               int64_t kv_head, int64_t n, int is_key, double *x) {
  const int64_t dim = is_key ? p->head_dim_qk : p->head_dim_v;
  double largest = 0.0;
  for (int64_t g = 0; g < p->heads_kv; g++) {
    if (kv_head >= 0 && g != kv_head) continue;
    fa_ref_new_token(p, args, b, g, n, is_key, x);
    for (int64_t d = 0; d < dim; d++) largest = fmax(largest, fabs(x[d]));
  }
  return largest;
}

static void append_one(const fa_attention_problem *p, const fa_attention_args *args, int64_t b,
                       int64_t kv_head, int64_t n, int is_key, double *x) {
  const fa_tensor *cache = is_key ? &args->k : &args->v, *scales = is_key ? &args->k_scale : &args->v_scale;
  const int64_t dim = is_key ? p->head_dim_qk : p->head_dim_v;
  const int64_t position = args->seqlens_kv[b] + n;
  double scale = 1.0;
  if (p->kv_dtype != p->dtype) {
    float *cell = (float *)scales->data + fa_ref_token_index(p, args, scales, b, kv_head, position);
    if (scales->stride_seq != 0) {
      const int64_t heads = scales->stride_head != 0 ? kv_head : -1;
      const double top = p->kv_dtype == FA_INT8 ? 127.0 : 448.0;
      *cell = (float)(largest_of_token(p, args, b, heads, n, is_key, x) / top);
    }
    scale = (double)*cell;
  }
  fa_ref_new_token(p, args, b, kv_head, n, is_key, x);
  const int64_t index = fa_ref_token_index(p, args, cache, b, kv_head, position);
  for (int64_t d = 0; d < dim; d++) {
    fa_ref_store(cache->data, index + d, scale != 0.0 ? x[d] / scale : 0.0, p->kv_dtype);
  }
}

fa_status fa_ref_append(const fa_attention_problem *p, const fa_attention_args *args) {
  const int64_t widest = p->head_dim_qk > p->head_dim_v ? p->head_dim_qk : p->head_dim_v;
  double *x = malloc((size_t)widest * sizeof(double));
  if (!x) return FA_ERROR_MEMORY;
  for (int64_t b = 0; b < p->batch; b++) {
    for (int64_t n = 0; n < p->seqlen_new; n++) {
      for (int64_t kv_head = 0; kv_head < p->heads_kv; kv_head++) {
        append_one(p, args, b, kv_head, n, 1, x);
        append_one(p, args, b, kv_head, n, 0, x);
      }
    }
  }
  free(x);
  return FA_OK;
}
