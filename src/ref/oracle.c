/* o_i = sum_j exp(s_j - m) v_j / l,  l = sum_j exp(s_j - m) [+ exp(sink - m)],  lse_i = m + log(l), in
 * double. */
#include <math.h>
#include <stdlib.h>

#include "ref/ref_problem.h"

double ref_oracle_row(const ref_head *h, int64_t i, double *scratch, double *o, double *score_size) {
  (void)score_size;
  const fa_attention_problem *p = h->problem;
  double *q = scratch, *row = q + p->head_dim_qk, *scores = row + p->head_dim_qk + p->head_dim_v;
  const double softcap = (double)p->softcap, slope = ref_slope(h);
  const int64_t diagonal = i + h->seqlen_kv - h->seqlen_q;
  double maximum = p->has_sinks ? (double)h->args->sinks[h->head] : -(double)INFINITY;

  ref_query(h, i, q);
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    scores[j] = -(double)INFINITY; /* as long as the key is not kept */
    if (!fa_ref_keeps(p, h->args, h->b, h->head, i, j)) continue;
    const double *k = ref_key(h, j, row);
    double dot = 0.0;
    for (int64_t d = 0; d < p->head_dim_qk; d++) dot += q[d] * k[d];
    double s = h->scale * dot;
    if (p->softcap > 0.0f) s = softcap * tanh(s / softcap);
    if (p->has_alibi) s -= slope * (double)llabs(diagonal - j);
    if (p->has_bias) s += ref_bias(h, i, j);
    scores[j] = s;
    if (!isnan(maximum) && !(s <= maximum)) maximum = s; /* a NaN score stays */
  }

  for (int64_t d = 0; d < p->head_dim_v; d++) o[d] = 0.0;
  if (maximum == -(double)INFINITY) return -(double)INFINITY;
  double sum = p->has_sinks ? exp((double)h->args->sinks[h->head] - maximum) : 0.0;
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    if (scores[j] == -(double)INFINITY) continue;
    double weight = exp(scores[j] - maximum);
    if (weight < 1e-300)
      weight = 1e-300; /* however little a kept key weighs, an infinity in its value arrives */
    const double *v = ref_value(h, j, row);
    sum += weight;
    for (int64_t d = 0; d < p->head_dim_v; d++) o[d] += weight * v[d];
  }
  for (int64_t d = 0; d < p->head_dim_v; d++) o[d] /= sum;
  return maximum + log(sum);
}
