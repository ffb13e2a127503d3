/* Rows into problems: every row of a problem, with its K and V converted once a KV head, or a few rows only.
 */
#include <math.h>
#include <stdlib.h>

#include "ref/ref_problem.h"

typedef double (*row_function)(const ref_head *head, int64_t i, double *scratch, double *o,
                               double *score_size);

static double *numbers(int64_t count) { return malloc((size_t)(count > 0 ? count : 1) * sizeof(double)); }

static fa_status every_row(const fa_attention_problem *problem, const fa_attention_args *args,
                           row_function row, double *o, double *lse, double *score_size) {
  const int64_t longest = problem->max_seqlen_kv, dim_v = problem->head_dim_v;
  const int64_t group = problem->heads_q / problem->heads_kv;
  double *scratch = numbers(ref_scratch_count(problem, longest)), *out = numbers(dim_v);
  double *k = numbers(longest * problem->head_dim_qk), *v = numbers(longest * dim_v);
  const int enough = scratch && out && k && v;

  for (int64_t b = 0; enough && b < problem->batch; b++) {
    for (int64_t head = 0; head < problem->heads_q; head++) {
      ref_head h = ref_head_of(problem, args, b, head);
      if (h.seqlen_q == 0) continue;
      if (head % group == 0) ref_gather(&h, k, v);
      h.k = k;
      h.v = v;
      for (int64_t i = 0; i < h.seqlen_q; i++) {
        const int64_t at = fa_ref_packed_row(problem, args, b, i) * problem->heads_q + head;
        const double row_lse = row(&h, i, scratch, o ? o + at * dim_v : out, score_size);
        if (lse) lse[at] = row_lse;
      }
    }
  }
  free(scratch);
  free(out);
  free(k);
  free(v);
  return enough ? FA_OK : FA_ERROR_MEMORY;
}

fa_status fa_ref_attention(const fa_attention_problem *problem, const fa_attention_args *args, double *o,
                           double *lse) {
  double unused = 0.0;
  return every_row(problem, args, ref_oracle_row, o, lse, &unused);
}

fa_status fa_ref_same_precision(const fa_attention_problem *problem, const fa_attention_args *args, double *o,
                                double *lse, double *score_size) {
  double largest = 0.0;
  const fa_status status = every_row(problem, args, ref_same_precision_row, o, lse, &largest);
  if (score_size) *score_size = largest;
  return status;
}

static double largest_value(const ref_head *h, double *scratch) {
  double largest = 0.0;
  for (int64_t j = 0; j < h->seqlen_kv; j++) {
    const double *v = ref_value(h, j, scratch);
    for (int64_t d = 0; d < h->problem->head_dim_v; d++) {
      if (isfinite(v[d]) && fabs(v[d]) > largest) largest = fabs(v[d]);
    }
  }
  return largest;
}

fa_status fa_ref_rows(const fa_attention_problem *problem, const fa_attention_args *args,
                      const fa_ref_row *rows, int64_t count, double *o, double *lse, double *o_same,
                      double *lse_same, double *max_abs_v, double *score_size) {
  const int64_t dim_v = problem->head_dim_v;
  double *scratch = numbers(ref_scratch_count(problem, problem->max_seqlen_kv));
  double largest = 0.0;

  *score_size = 0.0;
  for (int64_t n = 0; scratch && n < count; n++) {
    const ref_head h = ref_head_of(problem, args, rows[n].batch, rows[n].head);
    lse[n] = ref_oracle_row(&h, rows[n].query, scratch, o + n * dim_v, score_size);
    lse_same[n] = ref_same_precision_row(&h, rows[n].query, scratch, o_same + n * dim_v, score_size);
    int seen = 0;
    for (int64_t e = 0; e < n && !seen; e++) {
      const ref_head earlier = ref_head_of(problem, args, rows[e].batch, rows[e].head);
      seen = earlier.b == h.b && earlier.kv_head == h.kv_head;
    }
    if (!seen) largest = fmax(largest, largest_value(&h, scratch));
  }
  *max_abs_v = largest;
  const int enough = scratch != NULL;
  free(scratch);
  return enough ? FA_OK : FA_ERROR_MEMORY;
}
