/* Where the numbers of one (batch entry, query head) are, shared by both precisions. */
#ifndef FA_REF_PROBLEM_H
#define FA_REF_PROBLEM_H

#include "ref/ref.h"

typedef struct ref_head {
  const fa_attention_problem *problem;
  const fa_attention_args *args;
  int64_t b;
  int64_t head;
  int64_t kv_head;
  int64_t seqlen_q;
  int64_t seqlen_kv;
  double scale;
  const double *k; /* [seqlen_kv, head_dim_qk] gathered, or NULL: converted row by row */
  const double *v; /* [seqlen_kv, head_dim_v] */
} ref_head;

ref_head ref_head_of(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b,
                     int64_t head);

/* All keys and values of the head's KV head. */
void ref_gather(const ref_head *head, double *k, double *v);

/* Row j of k or v: where it was gathered, or converted into scratch. */
const double *ref_key(const ref_head *head, int64_t j, double *scratch);
const double *ref_value(const ref_head *head, int64_t j, double *scratch);

/* q of query i, rotated if the problem says so (in double; not rounded). */
void ref_query(const ref_head *head, int64_t i, double *q);

/* Rotates the first rotary_dim elements of x by the angles of `position`. */
void ref_rotate(const fa_attention_problem *problem, const fa_attention_args *args, int64_t position,
                double *x);

/* The slope and the bias of the score at (i, j); 0 where the problem has none. */
double ref_slope(const ref_head *head);
double ref_bias(const ref_head *head, int64_t i, int64_t j);

/* Numbers a row needs: q, one key, one value, the scores. */
int64_t ref_scratch_count(const fa_attention_problem *problem, int64_t seqlen_kv);

/* One row; o [head_dim_v] is written, the lse returned. scratch: ref_scratch_count numbers. *score_size is
 * raised to the largest one met (see ref.h); the oracle leaves it alone. */
double ref_oracle_row(const ref_head *head, int64_t i, double *scratch, double *o, double *score_size);
double ref_same_precision_row(const ref_head *head, int64_t i, double *scratch, double *o,
                              double *score_size);

#endif
