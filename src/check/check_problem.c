/* One output of somebody else's run, some rows of it. */
#include "check/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_case.h"
#include "ref/ref.h"

static int64_t rows_of(const fa_attention_problem *p, const fa_attention_args *a) {
  int64_t rows = 0;
  for (int64_t b = 0; b < p->batch; b++) rows += fa_ref_seqlen_q(p, a, b);
  return rows * p->heads_q;
}

/* Row n of all (entry, query, head). */
static fa_ref_row row_at(const fa_attention_problem *p, const fa_attention_args *a, int64_t n) {
  fa_ref_row row = {0, n / p->heads_q, n % p->heads_q};
  while (row.query >= fa_ref_seqlen_q(p, a, row.batch)) row.query -= fa_ref_seqlen_q(p, a, row.batch++);
  return row;
}

/* The first and the last row, and random ones between. */
static void draw_rows(const fa_attention_problem *p, const fa_attention_args *a, int64_t all, int64_t count,
                      uint64_t seed, fa_ref_row *rows) {
  fa_random random = {seed};
  for (int64_t n = 0; n < count; n++) {
    int64_t at = n;
    if (count < all) at = n == 0 ? 0 : n == 1 ? all - 1 : fa_random_range(&random, 0, all - 1);
    rows[n] = row_at(p, a, at);
  }
}

static int compare_row(const fa_attention_problem *p, const fa_attention_args *a, const fa_ref_row *row,
                       const double *o, double lse, const fa_tolerance *t, fa_check_result *result) {
  const int64_t start = p->ragged_q ? a->cu_seqlens_q[row->batch] : 0;
  const int64_t at = (p->ragged_q ? 0 : row->batch * a->o.stride_batch) +
                     (start + row->query) * a->o.stride_seq + row->head * a->o.stride_head;
  for (int64_t d = 0; d < p->head_dim_v; d++) {
    const double got = fa_ref_load(a->o.data, at + d, p->dtype);
    if (isfinite(got) && isfinite(o[d])) result->max_error = fmax(result->max_error, fabs(got - o[d]));
    if (fa_value_matches(got, o[d], t->o)) continue;
    snprintf(result->line, sizeof result->line,
             "o[entry %lld, query %lld, head %lld, %lld] is %.9g where the oracle has %.9g (tolerance %.3g)",
             (long long)row->batch, (long long)row->query, (long long)row->head, (long long)d, got, o[d],
             t->o);
    return 0;
  }
  if (!p->has_lse) return 1;
  const int64_t lse_row = p->ragged_q ? start : row->batch * a->lse_stride_batch;
  const double got = (double)a->lse[lse_row + row->head * a->lse_stride_head + row->query];
  if (fa_value_matches(got, lse, t->lse + t->lse_relative * fabs(lse))) return 1;
  snprintf(result->line, sizeof result->line,
           "lse[entry %lld, head %lld, query %lld] is %.9g where the oracle has %.9g (tolerance %.3g)",
           (long long)row->batch, (long long)row->head, (long long)row->query, got, lse,
           t->lse + t->lse_relative * fabs(lse));
  return 0;
}

static fa_status compare_rows(const fa_attention_problem *p, const fa_attention_args *a, const fa_ref_row *chosen,
                              int64_t count, fa_check_result *result) {
  const int64_t dim = p->head_dim_v;
  double *numbers = malloc((size_t)(2 * count * (dim + 1) + 1) * sizeof *numbers);
  double *o = numbers, *lse = o + count * dim, *o_same = lse + count, *lse_same = o_same + count * dim;
  double max_abs_v = 0.0, score_size = 0.0;
  fa_status status = numbers ? FA_OK : FA_ERROR_MEMORY;
  if (status == FA_OK) status = fa_ref_rows(p, a, chosen, count, o, lse, o_same, lse_same, &max_abs_v, &score_size);
  if (status == FA_OK) {
    fa_tolerance t =
        fa_tolerance_of(p->dtype, max_abs_v, score_size, o, o_same, count * dim, lse, lse_same, count);
    const int eager = p->kernel && strcmp(p->kernel, "eager") == 0;
    if (eager || (p->kernel && strcmp(p->kernel, "standard") == 0)) {
      fa_ref_unfused loss = {0.0, 0.0, 0};
      status = fa_ref_unfused_loss_rows(p, a, eager, chosen, count, &loss);
      t = fa_tolerance_unfused(t, &loss, max_abs_v);
    }
    result->tolerance = t.o;
    for (int64_t n = 0; n < count && result->passed; n++)
      result->passed = compare_row(p, a, &chosen[n], o + n * dim, lse[n], &t, result);
    if (result->passed) {
      snprintf(result->line, sizeof result->line,
               "%lld rows agree with the oracle: largest error %.3g, tolerance %.3g", (long long)count,
               result->max_error, t.o);
    }
  }
  free(numbers);
  return status;
}

static fa_ref_row *begin(int64_t count, fa_check_result *result) {
  memset(result, 0, sizeof *result);
  result->rows = count;
  result->passed = 1;
  return malloc((size_t)(count + 1) * sizeof(fa_ref_row));
}

fa_status fa_check_problem(const fa_attention_problem *p, const fa_attention_args *a, int64_t rows,
                           uint64_t seed, fa_check_result *result) {
  const int64_t all = rows_of(p, a), count = fa_min(fa_max(rows, 1), all);
  fa_ref_row *chosen = begin(count, result);
  if (!chosen) return FA_ERROR_MEMORY;
  draw_rows(p, a, all, count, seed, chosen);
  const fa_status status = compare_rows(p, a, chosen, count, result);
  free(chosen);
  return status;
}

fa_status fa_check_rows(const fa_attention_problem *p, const fa_attention_args *a, const int64_t *rows,
                        int64_t count, fa_check_result *result) {
  fa_ref_row *chosen = begin(count, result);
  if (!chosen) return FA_ERROR_MEMORY;
  for (int64_t n = 0; n < count; n++) chosen[n] = row_at(p, a, rows[n]);
  const fa_status status = compare_rows(p, a, chosen, count, result);
  free(chosen);
  return status;
}
