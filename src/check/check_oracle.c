/* What a case should give, and how far from it is still right. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_case.h"
#include "ref/ref.h"

/* Relative to max|v|: what rounding P and o once more than the reference does may cost. */
static double floor_of(fa_dtype dtype) {
  return dtype == FA_BFLOAT16 ? 0x1p-8 : dtype == FA_FLOAT16 ? 0x1p-11 : 1e-6;
}

static double largest_difference(const double *a, const double *b, int64_t count) {
  double largest = 0.0;
  for (int64_t n = 0; n < count; n++) {
    const double difference = fabs(a[n] - b[n]);
    if (isfinite(difference) && difference > largest) largest = difference;
  }
  return largest;
}

/* What rounding the scores may cost where they are large. An fp32 score is a sum of D products; summed in any
 * order with random signs, its error has a standard deviation of 0.4 * 2^-24 * scale |q| |k| (each of D
 * additions rounds a partial sum of about sqrt(d) products), so 2^-24 * score_size is 2.5 of them. The
 * reference shows one sample of that error, which for a few rows may be near 0 by luck. An error e of the
 * scores moves p by a factor within exp(+-2e), o by at most 2 e max|v|, lse by at most e. Up to a score size
 * of 8 (fp32; 4096 fp16, 32768 bf16) this is below the floor. For o the term is dropped beyond 2^14: scores then
 * differ by so much that the rows are one-hot, and a rounding changes nothing; lse has all of e still. */
static double score_rounding(double score_size) { return 0x1p-24 * score_size; }

/* o: max|o - oracle| <= 2 * max|same-precision reference - oracle| + floor * max|v|, the floor as said above.
 *
 * lse = m + log(sum of exp(s - m)) is granted what the same rule gives it, by this derivation. Errors of the
 * scores reach lse undiminished and unamplified (its derivative by s_j is p_j, and the p_j sum to 1), and the
 * reference has them too: 2 * max|reference - oracle|, or e where the floor no longer holds it and that is
 * more. The sum may be of P after rounding to the input type, and the exponential no finer than that
 * rounding, a relative error of at most the type's floor; the logarithm makes it an absolute one: + floor.
 * At last lse is rounded to fp32, and before that m and the logarithm are, perhaps in base 2: a dozen
 * roundings of 2^-24 |lse| are + 1e-6 |lse|. */
fa_tolerance fa_tolerance_of(fa_dtype dtype, double max_abs_v, double score_size, const double *o_exact,
                             const double *o_same, int64_t count, const double *lse_exact,
                             const double *lse_same, int64_t rows) {
  const double e = isfinite(score_size) ? score_rounding(score_size) : 0.0;
  const int is_one_hot = score_size > 0x1p14;
  const double floor_unit = fmax(floor_of(dtype), is_one_hot ? 0.0 : 2.0 * e);
  fa_tolerance t;
  t.o = 2.0 * largest_difference(o_exact, o_same, count) + floor_unit * max_abs_v;
  t.lse = fmax(2.0 * largest_difference(lse_exact, lse_same, rows), is_one_hot ? e : 0.0) + floor_unit;
  t.lse_relative = 1e-6;
  return t;
}

fa_tolerance fa_tolerance_unfused(fa_tolerance fused, const fa_ref_unfused *loss, double max_abs_v) {
  fa_tolerance t = fused;
  /* Two weighted means differ by no more than 2 max|v|. */
  t.o += fmin(expm1(2.0 * loss->score_error) + loss->weight_error, 2.0) * max_abs_v;
  t.lse += loss->score_error;
  return t;
}

int fa_value_matches(double got, double exact, double tolerance) {
  if (isnan(exact) || isnan(got)) return isnan(exact) && isnan(got);
  if (isinf(exact) || isinf(got)) return got == exact;
  return fabs(got - exact) <= tolerance;
}

double fa_case_max_abs_v(const fa_attention_problem *p, const fa_attention_args *a) {
  const int quantised = p->kv_dtype != p->dtype;
  double largest = 0.0;
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t tokens = fa_ref_seqlen_kv(p, a, b);
    for (int64_t j = 0; j < tokens; j++) {
      for (int64_t h = 0; h < p->heads_kv; h++) {
        const int64_t at = fa_ref_token_index(p, a, &a->v, b, h, j);
        const double scale =
            quantised
                ? (double)((const float *)a->v_scale.data)[fa_ref_token_index(p, a, &a->v_scale, b, h, j)]
                : 1.0;
        for (int64_t d = 0; d < p->head_dim_v; d++) {
          const double v = fabs(scale * fa_ref_load(a->v.data, at + d, p->kv_dtype));
          if (isfinite(v) && v > largest) largest = v;
        }
      }
    }
  }
  return largest;
}

static double *unknowns(int64_t count) {
  double *numbers = malloc((size_t)(count > 0 ? count : 1) * sizeof *numbers);
  for (int64_t n = 0; numbers && n < count; n++) numbers[n] = (double)NAN;
  return numbers;
}

fa_status fa_case_oracle(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  c->rows = fa_ref_packed_rows(p);
  const int64_t lse_count = c->rows * p->heads_q, count = lse_count * p->head_dim_v;
  free(c->o);
  free(c->lse);
  c->o = unknowns(count);
  c->lse = unknowns(lse_count);
  double score_size = 0.0, *o_same = unknowns(count), *lse_same = unknowns(lse_count);
  fa_status status = c->o && c->lse && o_same && lse_same ? FA_OK : FA_ERROR_MEMORY;
  if (status == FA_OK) status = fa_ref_attention(p, &c->args, c->o, c->lse);
  if (status == FA_OK) status = fa_ref_same_precision(p, &c->args, o_same, lse_same, &score_size);
  if (status == FA_OK) {
    c->max_abs_v = fa_case_max_abs_v(p, &c->args);
    c->tolerance =
        fa_tolerance_of(p->dtype, c->max_abs_v, score_size, c->o, o_same, count, c->lse, lse_same, lse_count);
  }
  free(o_same);
  free(lse_same);
  return status;
}
