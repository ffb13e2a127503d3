#include "ascend/host/unfused_ascend.h"

#include <string.h>

#include "ascend/host/baseline_tiles.h"
#include "core/tiling_mask.h"

enum { ROW_ELEMENTS = 16 };

/* One query of a group's heads: rows of one product, so that K and V are read once. */
static int folds(const fa_plan *plan) { return plan->problem.max_seqlen_q == 1 && plan->group > 1; }

static void describe_products(const fa_plan *plan, fa_band band, int uses_band, fa_ascend_unfused *u) {
  const fa_attention_problem *p = &plan->problem;
  fa_ascend_matmul *s = &u->scores, *v = &u->values;
  const int64_t rows = folds(plan) ? plan->group : p->max_seqlen_q;
  memset(s, 0, sizeof *s);
  s->m = rows;
  s->n = p->max_seqlen_kv;
  s->k = p->head_dim_qk;
  s->is_bf16 = p->dtype == FA_BFLOAT16;
  s->b_is_transposed = 1;
  s->batch = (int32_t)p->batch;
  s->heads = (int32_t)(folds(plan) ? p->heads_kv : p->heads_q);
  s->group = (int32_t)(folds(plan) ? 1 : plan->group);
  s->c_row = u->row;
  s->c_head = rows * u->row;
  s->c_batch = s->heads * s->c_head;
  s->band_lower = band.lower;
  s->band_upper = band.upper;
  *v = *s;
  s->band = uses_band && u->has_band && !folds(plan) ? FA_ASCEND_BAND_COLUMNS : FA_ASCEND_BAND_NONE;
  v->band = uses_band && u->has_band && !folds(plan) ? FA_ASCEND_BAND_DEPTH : FA_ASCEND_BAND_NONE;
  v->b_is_transposed = 0;
  v->a_row = s->c_row;
  v->a_head = s->c_head;
  v->a_batch = s->c_batch;
  v->n = p->head_dim_v;
  v->k = p->max_seqlen_kv;
}

static void describe_passes(const fa_attention_problem *p, fa_band band, fa_ascend_unfused *u) {
  fa_ascend_passes *t = &u->passes;
  memset(t, 0, sizeof *t);
  t->x_row = t->y_row = t->mask_row = u->row;
  t->x_matrix = t->y_matrix = p->max_seqlen_q * u->row;
  t->rows = p->max_seqlen_q;
  t->columns = p->max_seqlen_kv;
  t->band_lower = band.lower;
  t->band_upper = band.upper;
  t->is_bf16 = p->dtype == FA_BFLOAT16;
  t->batch = (int32_t)p->batch;
  t->heads = (int32_t)p->heads_q;
  t->has_lse = p->has_lse;
  t->scale = p->scale;
}

static void lay_out(fa_plan *plan, int has_wide, fa_ascend_unfused *u) {
  const size_t scores = (size_t)(u->pairs * plan->problem.max_seqlen_q * u->row);
  u->scores_bytes = 2 * scores;
  u->wide_at = (size_t)fa_round_up((int64_t)u->scores_bytes, 512);
  u->wide_bytes = has_wide ? 4 * scores : 0;
  u->mask_at = (size_t)fa_round_up((int64_t)(u->wide_at + u->wide_bytes), 512);
  u->mask_bytes = has_wide && u->has_band ? (size_t)(plan->problem.max_seqlen_q * u->row) * 2 : 0;
  plan->kernel_workspace_bytes = u->mask_at + u->mask_bytes;
}

static fa_status find_all(const fa_plan *plan, const fa_ascend_code *const *codes, int count, fa_ascend_unfused *u) {
  const fa_ascend_runtime *runtime = fa_ascend_device_of(plan->context)->runtime;
  fa_status status = runtime->find(plan->context, &fa_ascend_matmul_code, &u->matmul);
  for (int n = 0; n < count && status == FA_OK; ++n) status = runtime->find(plan->context, codes[n], &u->pass[n]);
  return status;
}

fa_status fa_ascend_prepare_unfused(fa_plan *plan, int uses_band, int has_wide, const fa_ascend_code *const *codes, int count) {
  const fa_attention_problem *p = &plan->problem;
  const int32_t groups = fa_ascend_device_of(plan->context)->chip.groups;
  const fa_band band = fa_band_of(p, p->max_seqlen_q, p->max_seqlen_kv);
  fa_ascend_unfused u;
  memset(&u, 0, sizeof u);
  if (p->max_seqlen_q == 0 || p->max_seqlen_kv == 0)
    return fa_fail(FA_ERROR_UNSUPPORTED, "an unfused baseline needs at least one query and one key");
  u.row = fa_round_up(p->max_seqlen_kv, ROW_ELEMENTS);
  u.pairs = p->batch * p->heads_q;
  if ((double)u.pairs * (double)p->max_seqlen_q * (double)u.row > 0x1p50 || p->batch > INT32_MAX || u.pairs > INT32_MAX)
    return fa_fail(FA_ERROR_UNSUPPORTED, "the scores of %lld heads, %lld x %lld each, are beyond any device's memory",
                   (long long)u.pairs, (long long)p->max_seqlen_q, (long long)u.row);
  u.has_band = band.lower != -FA_BAND_UNLIMITED || band.upper != FA_BAND_UNLIMITED;
  describe_products(plan, band, uses_band, &u);
  describe_passes(p, band, &u);
  fa_ascend_matmul_tiles(&u.scores, groups);
  fa_ascend_matmul_tiles(&u.values, groups);
  if (uses_band) {
    const int reaches = !folds(plan);
    fa_ascend_softmax_rows(&u.passes, reaches ? &u.scores : NULL, reaches ? &u.values : NULL, 2 * groups);
  } else {
    fa_ascend_softmax_rows(&u.passes, NULL, NULL, 2 * groups);
  }
  const fa_status status = find_all(plan, codes, count, &u);
  if (status != FA_OK) return status;
  fa_ascend_unfused *kept = fa_host_allocate(plan->context, sizeof *kept);
  if (!kept) return FA_ERROR_MEMORY;
  lay_out(plan, has_wide, &u);
  *kept = u;
  plan->kernel_data = kept;
  plan->tiles.level1_rows = u.scores.tile_m;
  plan->tiles.level1_keys = u.scores.tile_n;
  plan->tiles.level2_rows = u.scores.base_m;
  plan->tiles.level2_keys = u.scores.base_n;
  return FA_OK;
}

/* --------------------------------------------------------------------- a run */

fa_ascend_unfused_run fa_ascend_begin_unfused(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                              fa_stream stream) {
  fa_ascend_unfused_run r;
  memset(&r, 0, sizeof r);
  r.plan = plan;
  r.data = plan->kernel_data;
  r.args = args;
  r.workspace = workspace;
  r.stream = stream;
  fa_ascend_given(&plan->problem, args, r.given);
  r.passes = r.data->passes;
  r.passes.lse_batch = plan->problem.has_lse ? args->lse_stride_batch : 0;
  r.passes.lse_head = plan->problem.has_lse ? args->lse_stride_head : 0;
  return r;
}

fa_ascend_argument fa_ascend_scores(const fa_ascend_unfused_run *r, fa_ascend_access access) {
  return fa_ascend_bytes("scores", r->workspace, r->data->scores_bytes, access);
}

static fa_status start(const fa_ascend_unfused_run *r, fa_ascend_function function, int32_t blocks,
                       const fa_ascend_argument *arguments, int count, const void *tiling, size_t tiling_bytes, int follows) {
  fa_ascend_argument all[FA_ASCEND_MOST_ARGUMENTS];
  memcpy(all, arguments, (size_t)count * sizeof *all);
  all[count] = fa_ascend_bytes("workspace", NULL, 0, FA_ASCEND_SCRATCH);
  const fa_ascend_launch launch = {function, blocks, all, count + 1, tiling, tiling_bytes, follows};
  return fa_ascend_device_of(r->plan->context)->runtime->start(r->plan->context, &launch, r->stream);
}

static int32_t groups_of(const fa_ascend_unfused_run *r) { return fa_ascend_device_of(r->plan->context)->chip.groups; }

/* Rows of q and o as a product has them. */
typedef struct rows_of {
  int64_t batch, head, row;
} rows_of;
static rows_of rows_in(const fa_plan *plan, const fa_tensor *t) {
  const rows_of plain = {t->stride_batch, t->stride_head, t->stride_seq};
  const rows_of folded = {t->stride_batch, plan->group * t->stride_head, t->stride_head};
  return folds(plan) ? folded : plain;
}

fa_status fa_ascend_multiply_scores(const fa_ascend_unfused_run *r) {
  fa_ascend_matmul t = r->data->scores;
  const rows_of q = rows_in(r->plan, &r->args->q);
  t.a_batch = q.batch, t.a_head = q.head, t.a_row = q.row;
  t.b_batch = r->args->k.stride_batch, t.b_head = r->args->k.stride_head, t.b_row = r->args->k.stride_seq;
  const fa_ascend_argument arguments[] = {r->given[FA_ASCEND_Q], r->given[FA_ASCEND_K], fa_ascend_scores(r, FA_ASCEND_WRITES)};
  return start(r, r->data->matmul, groups_of(r), arguments, 3, &t, sizeof t, 0);
}

fa_status fa_ascend_multiply_values(const fa_ascend_unfused_run *r) {
  fa_ascend_matmul t = r->data->values;
  const rows_of o = rows_in(r->plan, &r->args->o);
  t.b_batch = r->args->v.stride_batch, t.b_head = r->args->v.stride_head, t.b_row = r->args->v.stride_seq;
  t.c_batch = o.batch, t.c_head = o.head, t.c_row = o.row;
  const fa_ascend_argument arguments[] = {fa_ascend_scores(r, FA_ASCEND_READS), r->given[FA_ASCEND_V], r->given[FA_ASCEND_O]};
  return start(r, r->data->matmul, groups_of(r), arguments, 3, &t, sizeof t, 1);
}

fa_status fa_ascend_start_pass(const fa_ascend_unfused_run *r, int pass, const fa_ascend_argument *arguments, int count,
                               const fa_ascend_passes *passes) {
  return start(r, r->data->pass[pass], 2 * groups_of(r), arguments, count, passes, sizeof *passes, 1);
}
