/* What attention loses by keeping its scores in the input type, the way unfused attention does: a bound from
 * the exact scores, for the tolerance of the two baselines.
 *
 * Let score j be off by at most e_j = u a_j, with u half a unit in the last place and a_j the sum of the
 * magnitudes that are rounded on the way to it. With p_j the exact weights and E = log(sum_j p_j exp(e_j)):
 *   |lse' - lse| <= E,   p'_j / p_j <= exp(e_j + E),   |o' - o| <= (exp(2E) - 1) max|v|.
 * Weights leave the softmax divided by their sum, so their rounding, up to u each and all one way where they are equal,
 * adds u max|v|; the same-precision reference, which divides at the end, does not have it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ref/ref_problem.h"

static double half_unit(fa_dtype dtype) {
  return dtype == FA_BFLOAT16 ? 0x1p-8 : dtype == FA_FLOAT16 ? 0x1p-11 : 0x1p-24;
}
static double largest_number(fa_dtype dtype) { return dtype == FA_FLOAT16 ? 65504.0 : 3.3e38; }

/* What is rounded: the product alone (with the scale in it), or the result of every pass. */
static double rounded_on_the_way(const ref_head *h, int64_t i, int64_t j, double dot, int every_pass,
                                 double *score, double *largest) {
  const fa_attention_problem *p = h->problem;
  const double scaled = h->scale * dot, softcap = (double)p->softcap;
  const double additive =
      (p->has_bias ? ref_bias(h, i, j) : 0.0) -
      (p->has_alibi ? ref_slope(h) * (double)llabs(i + h->seqlen_kv - h->seqlen_q - j) : 0.0);
  const double capped = p->softcap > 0.0f ? softcap * tanh(scaled / softcap) : scaled;
  *score = capped + additive;
  *largest = fmax(*largest, fabs(scaled));
  if (!every_pass) return fabs(scaled);
  *largest = fmax(*largest, fmax(fabs(dot), isfinite(additive) ? fmax(fabs(additive), fabs(*score)) : 0.0));
  return 2.0 * fabs(scaled) + (p->softcap > 0.0f ? fabs(capped) : 0.0) + fabs(additive) + fabs(*score);
}

/* log(sum of exp) of numbers that come one by one. */
typedef struct log_sum {
  double maximum, sum;
} log_sum;

static void add_exponent(log_sum *l, double exponent) {
  if (exponent > l->maximum) {
    l->sum *= exp(l->maximum - exponent);
    l->maximum = exponent;
  }
  l->sum += exp(exponent - l->maximum);
}

static void ref_unfused_row(const ref_head *h, int64_t i, int every_pass, double *scratch,
                            fa_ref_unfused *loss) {
  const fa_attention_problem *p = h->problem;
  const double unit = half_unit(p->dtype);
  double *q = scratch, *row = q + p->head_dim_qk, largest = 0.0;
  log_sum exact = {-(double)INFINITY, 0.0}, moved = exact;

  if (p->has_sinks) {
    add_exponent(&exact, (double)h->args->sinks[h->head]);
    moved = exact;
  }
  ref_query(h, i, q);
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    const double *k = ref_key(h, j, row);
    double dot = 0.0, score;
    for (int64_t d = 0; d < p->head_dim_qk; d++) dot += q[d] * k[d];
    const double a = rounded_on_the_way(h, i, j, dot, every_pass, &score, &largest);
    if (!fa_ref_keeps(p, h->args, h->b, h->head, i, j) || !isfinite(score)) continue;
    add_exponent(&exact, score);
    add_exponent(&moved, score + unit * a);
  }
  if (exact.sum > 0.0) {
    const double error = moved.maximum - exact.maximum + log(moved.sum / exact.sum);
    loss->score_error = fmax(loss->score_error, error);
  }
  if (!(largest < largest_number(p->dtype))) loss->overflows = 1;
}

static fa_status rows_of_everything(const fa_attention_problem *problem, const fa_attention_args *args,
                                    int every_pass, double *scratch, double *k, double *v,
                                    fa_ref_unfused *loss) {
  const int64_t group = problem->heads_q / problem->heads_kv;
  if (!scratch || !k || !v) return FA_ERROR_MEMORY;
  for (int64_t b = 0; b < problem->batch; b++) {
    for (int64_t head = 0; head < problem->heads_q; head++) {
      ref_head h = ref_head_of(problem, args, b, head);
      if (h.seqlen_q == 0) continue;
      if (head % group == 0) ref_gather(&h, k, v);
      h.k = k;
      h.v = v;
      for (int64_t i = 0; i < h.seqlen_q; i++) ref_unfused_row(&h, i, every_pass, scratch, loss);
    }
  }
  return FA_OK;
}

fa_status fa_ref_unfused_loss(const fa_attention_problem *problem, const fa_attention_args *args,
                              int every_pass, fa_ref_unfused *loss) {
  const int64_t keys = problem->max_seqlen_kv + 1;
  double *scratch = malloc((size_t)ref_scratch_count(problem, keys) * sizeof *scratch);
  double *k = malloc((size_t)(keys * problem->head_dim_qk) * sizeof *k);
  double *v = malloc((size_t)(keys * problem->head_dim_v) * sizeof *v);
  memset(loss, 0, sizeof *loss);
  loss->weight_error = half_unit(problem->dtype);
  const fa_status status = rows_of_everything(problem, args, every_pass, scratch, k, v, loss);
  free(scratch);
  free(k);
  free(v);
  return status;
}

fa_status fa_ref_unfused_loss_rows(const fa_attention_problem *problem, const fa_attention_args *args,
                                   int every_pass, const fa_ref_row *rows, int64_t count,
                                   fa_ref_unfused *loss) {
  double *scratch = malloc((size_t)ref_scratch_count(problem, problem->max_seqlen_kv + 1) * sizeof *scratch);
  memset(loss, 0, sizeof *loss);
  loss->weight_error = half_unit(problem->dtype);
  for (int64_t n = 0; scratch && n < count; n++) {
    const ref_head h = ref_head_of(problem, args, rows[n].batch, rows[n].head);
    ref_unfused_row(&h, rows[n].query, every_pass, scratch, loss);
  }
  const int enough = scratch != NULL;
  free(scratch);
  return enough ? FA_OK : FA_ERROR_MEMORY;
}
