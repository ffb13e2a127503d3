/* The oracle's formula as plain code in the input's precision would do it: every score operation and every
 * sum in fp32, P = exp(s - m) rounded to the input type before it meets V, o rounded to the input type. The
 * sum l takes P before rounding, as flash kernels do. */
#include <math.h>
#include <stdlib.h>

#include "ref/ref_problem.h"

double ref_same_precision_row(const ref_head *h, int64_t i, double *scratch, double *o, double *score_size) {
  const fa_attention_problem *p = h->problem;
  double *q = scratch, *row = q + p->head_dim_qk, *scores = row + p->head_dim_qk + p->head_dim_v;
  const float scale = (float)h->scale, softcap = p->softcap, slope = (float)ref_slope(h);
  const int64_t diagonal = i + h->seqlen_kv - h->seqlen_q;
  float maximum = p->has_sinks ? h->args->sinks[h->head] : -INFINITY;

  ref_query(h, i, q);
  if (p->rotary_dim > 0) {
    for (int64_t d = 0; d < p->head_dim_qk; d++) q[d] = fa_ref_round(q[d], p->dtype);
  }
  double q_norm = 0.0;
  for (int64_t d = 0; d < p->head_dim_qk; d++) q_norm += q[d] * q[d];
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    scores[j] = -(double)INFINITY;
    if (!fa_ref_keeps(p, h->args, h->b, h->head, i, j)) continue;
    const double *k = ref_key(h, j, row);
    float dot = 0.0f;
    double k_norm = 0.0;
    for (int64_t d = 0; d < p->head_dim_qk; d++) {
      dot += (float)q[d] * (float)k[d];
      k_norm += k[d] * k[d];
    }
    float s = scale * dot;
    if (softcap > 0.0f) s = softcap * tanhf(s / softcap);
    if (p->has_alibi) s -= slope * (float)llabs(diagonal - j);
    if (p->has_bias) s += (float)ref_bias(h, i, j);
    scores[j] = (double)s;
    const double bias = p->has_bias ? fabs(ref_bias(h, i, j)) : 0.0;
    const double size = fabs(h->scale) * sqrt(q_norm * k_norm) + fabs((double)slope * (double)(diagonal - j));
    if (isfinite(size + bias)) *score_size = fmax(*score_size, size + bias);
    if (!isnan(maximum) && !(s <= maximum)) maximum = s;
  }

  for (int64_t d = 0; d < p->head_dim_v; d++) o[d] = 0.0;
  if (maximum == -INFINITY) return -(double)INFINITY;
  float sum = p->has_sinks ? expf(h->args->sinks[h->head] - maximum) : 0.0f;
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    if (scores[j] == -(double)INFINITY) continue;
    const float weight = expf((float)scores[j] - maximum);
    const float rounded = (float)fa_ref_round((double)weight, p->dtype);
    const double *v = ref_value(h, j, row);
    sum += weight;
    for (int64_t d = 0; d < p->head_dim_v; d++) o[d] = (double)((float)o[d] + rounded * (float)v[d]);
  }
  for (int64_t d = 0; d < p->head_dim_v; d++) o[d] = fa_ref_round((double)((float)o[d] / sum), p->dtype);
  return (double)(maximum + logf(sum));
}
