/* The oracle: attention in double over the whole vocabulary of the public header, and the same computation in
 * the input's own precision, which says how large an honest error is. Plain loops over host memory, sharing
 * nothing with core or the kernels, not even the conversions of 16-bit numbers: what both got wrong could not
 * be seen. */
#ifndef FA_REF_H
#define FA_REF_H

#include "fastattention/fastattention.h"

/* All functions here read host memory and trust their arguments: validation is core's.
 *
 * Packed results: a row is (batch entry, query), row b * max_seqlen_q + i, or, ragged, row cu_seqlens_q[b] +
 * i. o   [rows, heads_q, head_dim_v] lse [rows, heads_q] Rows of no sequence (ragged, behind the last one)
 * are left alone. Either pointer may be NULL.
 *
 * The cache must already hold appended tokens (fa_ref_append); q is rotated here. A score of -inf (from a
 * bias of -inf) counts as a key not kept. Errors: MEMORY. */
fa_status fa_ref_attention(const fa_attention_problem *problem, const fa_attention_args *args, double *o,
                           double *lse);

/* The same, as plain code in the input's precision would do it: scores and sums in fp32, P rounded to
 * problem.dtype, o rounded to problem.dtype, a rotated q rounded to problem.dtype.
 * score_size: the largest scale * |q| * |k| + |alibi| + |bias| of a kept score, what rounding errors of
 * scores are relative to. May be NULL. */
fa_status fa_ref_same_precision(const fa_attention_problem *problem, const fa_attention_args *args, double *o,
                                double *lse, double *score_size);

/* One row of either, for problems too large to do whole. */
typedef struct fa_ref_row {
  int64_t batch;
  int64_t query;
  int64_t head;
} fa_ref_row;

/* o [count, head_dim_v], lse [count], each in both precisions; max_abs_v: largest finite |v| of the rows'
 * keys; score_size as above. */
fa_status fa_ref_rows(const fa_attention_problem *problem, const fa_attention_args *args,
                      const fa_ref_row *rows, int64_t count, double *o, double *lse, double *o_same,
                      double *lse_same, double *max_abs_v, double *score_size);

/* How far unfused attention, which keeps its scores in problem.dtype, may be off by that alone
 * (ref_unfused.c): lse by score_error, o by (exp(2 * score_error) - 1 + weight_error) * max|v|. every_pass: not only the
 * scaled product is rounded, but what each of a framework's passes leaves. overflows: a score, kept or not,
 * leaves the type's range, so that no result can be asked for. All rows, or some. Errors: MEMORY. */
typedef struct fa_ref_unfused {
  double score_error;
  double weight_error; /* relative, of weights that were divided by their sum and then rounded */
  int overflows;
} fa_ref_unfused;
fa_status fa_ref_unfused_loss(const fa_attention_problem *problem, const fa_attention_args *args,
                              int every_pass, fa_ref_unfused *loss);
fa_status fa_ref_unfused_loss_rows(const fa_attention_problem *problem, const fa_attention_args *args,
                                   int every_pass, const fa_ref_row *rows, int64_t count,
                                   fa_ref_unfused *loss);

/* Rotates k_new, writes k_new and v_new behind the seqlens_kv[b] tokens of the cache args->k, args->v. */
fa_status fa_ref_append(const fa_attention_problem *problem, const fa_attention_args *args);

/* Lengths of one batch entry, appended tokens included. */
int64_t fa_ref_seqlen_q(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b);
int64_t fa_ref_seqlen_kv(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b);

/* Packed row of query i of entry b; and how many packed rows there are. */
int64_t fa_ref_packed_row(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b,
                          int64_t i);
int64_t fa_ref_packed_rows(const fa_attention_problem *problem);

/* 1 where query i of (b, head) keeps key j. */
int fa_ref_keeps(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b, int64_t head,
                 int64_t i, int64_t j);

/* Element index of (b, kv_head, token j) of the cache tensor t, or of its scales. */
int64_t fa_ref_token_index(const fa_attention_problem *problem, const fa_attention_args *args,
                           const fa_tensor *t, int64_t b, int64_t kv_head, int64_t j);

/* Token n of k_new (rotated) or v_new as fa_ref_append puts it into the cache, before rounding: x [head_dim].
 */
void fa_ref_new_token(const fa_attention_problem *problem, const fa_attention_args *args, int64_t b,
                      int64_t kv_head, int64_t n, int is_key, double *x);

/* Element `index` of an array of any type, as the real number it stands for (int8, fp8: before the scale). */
double fa_ref_load(const void *data, int64_t index, fa_dtype dtype);
/* Rounds to nearest even; fp32, fp16 and bf16 overflow to infinity, int8 and fp8 saturate. */
void fa_ref_store(void *data, int64_t index, double value, fa_dtype dtype);
double fa_ref_round(double value, fa_dtype dtype);

#endif
