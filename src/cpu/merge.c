/* Joining attentions of the same queries over disjoint keys by log-sum-exp.
 *
 *   m = max(lse_a, lse_b);  w_x = exp(lse_x - m);  o = (o_a w_a + o_b w_b) / (w_a + w_b);  lse = m + log(w_a
 * + w_b)
 *
 * o: [batch, seqlen, heads, dim], lse: [batch, heads, seqlen]. One item is ROWS rows of one head. A side
 * whose lse is -inf saw no key: it is left out rather than multiplied by 0, so whatever its o holds cannot
 * leak. Bound: reading o_a and o_b and writing o_a once. No scratch. */
#include "cpu/merge.h"

#include <math.h>

#define ROWS 64
#define LEAST_WEIGHT 1e-30f

float fa_cpu_join_parts(const fa_part *parts, int64_t count, int64_t stride, const float *sink,
                        float *weights) {
  float max = sink ? *sink : -INFINITY;
  for (int64_t p = 0; p < count; ++p)
    if (max == max && !(parts[p * stride].max <= max))
      max = parts[p * stride].max; /* a NaN is taken and stays */
  float sum = sink && *sink != -INFINITY ? expf(*sink - max) : 0.0f;
  for (int64_t p = 0; p < count; ++p) {
    const fa_part part = parts[p * stride];
    weights[p] = part.max == -INFINITY ? 0.0f : expf(part.max - max);
    if (part.max == -INFINITY) continue;
    sum += weights[p] * part.sum;
    /* However little a part weighs, an infinity or NaN in it arrives. What is finite adds at most 1e-30 of
     * itself. */
    if (weights[p] < LEAST_WEIGHT) weights[p] = LEAST_WEIGHT;
  }
  if (max == -INFINITY) return -INFINITY;
  for (int64_t p = 0; p < count; ++p)
    if (weights[p] != 0.0f) weights[p] /= sum;
  return max + logf(sum);
}

typedef struct merge_task {
  fa_dtype dtype;
  int64_t seqlen, heads, dim, row_blocks;
  const fa_tensor *o_a, *o_b;
  float *lse_a;
  const float *lse_b;
} merge_task;

static char *row_of(const merge_task *t, const fa_tensor *o, int64_t b, int64_t h, int64_t i) {
  return (char *)o->data +
         (b * o->stride_batch + i * o->stride_seq + h * o->stride_head) * (int64_t)fa_dtype_size(t->dtype);
}

static void merge_row(const merge_task *t, int64_t b, int64_t h, int64_t i) {
  float *lse = t->lse_a + (b * t->heads + h) * t->seqlen + i;
  const fa_part sides[2] = {{*lse, 1.0f}, {t->lse_b[(b * t->heads + h) * t->seqlen + i], 1.0f}};
  char *a = row_of(t, t->o_a, b, h, i);
  const char *other = row_of(t, t->o_b, b, h, i);
  float weights[2];
  *lse = fa_cpu_join_parts(sides, 2, 1, NULL, weights);
  const int has_a = sides[0].max != -INFINITY, has_b = sides[1].max != -INFINITY;
  for (int64_t d = 0; d < t->dim; ++d) {
    float value = 0.0f;
    if (has_a) value = weights[0] * fa_load_float(a, d, t->dtype);
    if (has_b) value += weights[1] * fa_load_float(other, d, t->dtype);
    fa_store_float(a, d, value, t->dtype);
  }
}

static void merge_body(void *shared, fa_cpu_work *work, int thread) {
  const merge_task *t = shared;
  (void)thread;
  int64_t item;
  while ((item = fa_cpu_take(work)) >= 0) {
    const int64_t first = item % t->row_blocks * ROWS, bh = item / t->row_blocks;
    for (int64_t i = first; i < fa_min(first + ROWS, t->seqlen); ++i)
      merge_row(t, bh / t->heads, bh % t->heads, i);
  }
}

fa_status fa_cpu_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads,
                       int64_t dim, const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b,
                       const float *lse_b, fa_stream stream) {
  merge_task task = {dtype, seqlen, heads, dim, fa_ceil_div(seqlen, ROWS), o_a, o_b, lse_a, lse_b};
  (void)stream;
  fa_cpu_parallel(context->threads, batch * heads * task.row_blocks, merge_body, &task);
  return FA_OK;
}
