/* Where a case's arrays lie: permuted, with gaps, broadcast or running backwards, between guard bands; and
 * how long its sequences are. */
#include <stdlib.h>
#include <string.h>

#include "check/check_case.h"

const char *const fa_array_names[FA_ARRAYS] = {"q",
                                               "k",
                                               "v",
                                               "o",
                                               "lse",
                                               "alibi_slopes",
                                               "sinks",
                                               "bias",
                                               "mask",
                                               "cu_seqlens_q",
                                               "cu_seqlens_kv",
                                               "seqlens_kv",
                                               "page_table",
                                               "k_new",
                                               "v_new",
                                               "rotary_cos",
                                               "rotary_sin",
                                               "k_scale",
                                               "v_scale",
                                               "workspace"};

/* Passed as a stride that is "not read": far outside of anything, should it be. */
#define NEVER_READ (INT64_MAX - 7)

enum { BATCH, SEQ, HEAD };

typedef enum layout_freedom { DENSE_OUTPUT, ANY_INPUT } layout_freedom;

/* Strides for [batch, seq, head, dim] in a random order with random gaps; how many elements they span, and
 * where element (0, 0, 0, 0) is. Inputs may also broadcast a dimension or run backwards through it. */
static void draw_layout(fa_random *r, const int64_t extent[3], int64_t dim, layout_freedom freedom,
                        fa_tensor *t, int64_t *span, int64_t *origin) {
  static const int orders[6][3] = {{HEAD, SEQ, BATCH}, {SEQ, HEAD, BATCH}, {HEAD, BATCH, SEQ},
                                   {BATCH, HEAD, SEQ}, {SEQ, BATCH, HEAD}, {BATCH, SEQ, HEAD}};
  const int *order = orders[fa_random_range(r, 0, fa_random_chance(r, 70) ? 1 : 5)];
  const int gaps = fa_random_chance(r, 50), strange = freedom == ANY_INPUT && fa_random_chance(r, 12);
  int64_t stride[3], reach = dim;
  *origin = 0;
  *span = dim;
  for (int n = 0; n < 3; n++) {
    const int which = order[n];
    const int64_t steps = fa_max(extent[which] - 1, 0);
    if (gaps && fa_random_chance(r, 50)) reach += fa_random_range(r, 1, 19);
    stride[which] = reach;
    if (strange && fa_random_chance(r, 40)) stride[which] = 0;
    *span += steps * stride[which];
    if (stride[which]) reach *= fa_max(extent[which], 1);
    if (fa_random_chance(r, strange || freedom == DENSE_OUTPUT ? 20 : 3)) {
      *origin += steps * stride[which];
      stride[which] = -stride[which];
    }
  }
  if (extent[BATCH] * extent[SEQ] * extent[HEAD] * dim == 0) *span = *origin = 0;
  t->stride_batch = stride[BATCH];
  t->stride_seq = stride[SEQ];
  t->stride_head = stride[HEAD];
}

static int place(fa_case *c, fa_array which, int64_t elements, size_t element_bytes) {
  const size_t alignment = fa_random_chance(&c->random, 60) ? element_bytes : 64;
  return fa_slot_place(&c->slots[which], (size_t)elements * element_bytes, alignment,
                       fa_random_chance(&c->random, 60)) != NULL;
}

static int place_tensor(fa_case *c, fa_array which, const int64_t extent[3], int64_t dim,
                        size_t element_bytes, layout_freedom freedom, fa_tensor *t) {
  int64_t span, origin;
  draw_layout(&c->random, extent, dim, freedom, t, &span, &origin);
  if (!place(c, which, span, element_bytes)) return 0;
  t->data = c->slots[which].data + (size_t)origin * element_bytes;
  if (span == 0 && fa_random_chance(&c->random, 50)) t->data = NULL;
  return 1;
}

static int place_queries(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  fa_attention_args *a = &c->args;
  const size_t size = fa_dtype_bytes(p->dtype);
  const int64_t extent[3] = {p->ragged_q ? 1 : p->batch, p->ragged_q ? p->total_seqlen_q : p->max_seqlen_q,
                             p->heads_q};
  if (!place_tensor(c, FA_ARRAY_Q, extent, p->head_dim_qk, size, ANY_INPUT, &a->q)) return 0;
  if (!place_tensor(c, FA_ARRAY_O, extent, p->head_dim_v, size, DENSE_OUTPUT, &a->o)) return 0;
  if (p->ragged_q) a->q.stride_batch = a->o.stride_batch = NEVER_READ;
  if (!p->has_lse) return 1;
  /* lse has its sequence innermost: a [batch, 1, heads, seq] tensor. */
  const int64_t lse_extent[3] = {extent[BATCH], 1, p->heads_q};
  fa_tensor lse;
  if (!place_tensor(c, FA_ARRAY_LSE, lse_extent, extent[SEQ], sizeof(float), DENSE_OUTPUT, &lse)) return 0;
  a->lse = lse.data;
  a->lse_stride_batch = p->ragged_q ? NEVER_READ : lse.stride_batch;
  a->lse_stride_head = lse.stride_head;
  return 1;
}

/* Scales per tensor, per head, per token or both; with appending, a scale of a token's own belongs to one
 * token. */
static int place_scale(fa_case *c, fa_array which, const int64_t extent[3], fa_tensor *t) {
  const int64_t kind = fa_random_range(&c->random, 0, 3);
  const int per_token = kind >= 2, per_head = kind == 1 || kind == 3;
  const int64_t kept[3] = {per_token ? extent[BATCH] : 1, per_token ? extent[SEQ] : 1,
                           per_head ? extent[HEAD] : 1};
  if (!place_tensor(c, which, kept, 1, sizeof(float), DENSE_OUTPUT, t)) return 0;
  if (!per_token) t->stride_batch = t->stride_seq = 0;
  if (!per_head) t->stride_head = 0;
  if (c->problem.ragged_kv) t->stride_batch = NEVER_READ;
  return 1;
}

static int place_cache(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  fa_attention_args *a = &c->args;
  const size_t size = fa_dtype_bytes(p->kv_dtype);
  const layout_freedom freedom = p->seqlen_new ? DENSE_OUTPUT : ANY_INPUT;
  int64_t extent[3] = {p->batch, p->max_seqlen_kv, p->heads_kv};
  if (p->page_size) {
    extent[BATCH] = p->num_pages;
    extent[SEQ] = p->page_size;
  } else if (p->ragged_kv) {
    extent[BATCH] = 1;
    extent[SEQ] = p->total_seqlen_kv;
  }
  if (!place_tensor(c, FA_ARRAY_K, extent, p->head_dim_qk, size, freedom, &a->k)) return 0;
  if (!place_tensor(c, FA_ARRAY_V, extent, p->head_dim_v, size, freedom, &a->v)) return 0;
  if (p->ragged_kv) a->k.stride_batch = a->v.stride_batch = NEVER_READ;
  if (p->max_seqlen_kv == 0 || extent[BATCH] == 0) return 1;
  if (p->kv_dtype == p->dtype) return 1;
  return place_scale(c, FA_ARRAY_K_SCALE, extent, &a->k_scale) &&
         place_scale(c, FA_ARRAY_V_SCALE, extent, &a->v_scale);
}

/* Bias and mask: [batch, heads, queries, keys], each of the first three possibly 1 and broadcast. */
static int place_score_tensor(fa_case *c, fa_array which, size_t element_bytes, fa_tensor *t) {
  const fa_attention_problem *p = &c->problem;
  fa_random *r = &c->random;
  const int one_batch = fa_random_chance(r, 40), one_head = fa_random_chance(r, 40),
            one_query = fa_random_chance(r, 25);
  const int64_t extent[3] = {one_batch ? 1 : p->batch, one_query ? 1 : p->max_seqlen_q,
                             one_head ? 1 : p->heads_q};
  if (!place_tensor(c, which, extent, p->max_seqlen_kv, element_bytes, DENSE_OUTPUT, t)) return 0;
  if (one_batch) t->stride_batch = 0;
  if (one_query) t->stride_seq = 0;
  if (one_head) t->stride_head = 0;
  return 1;
}

static int place_appended(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  fa_attention_args *a = &c->args;
  const size_t size = fa_dtype_bytes(p->dtype);
  const int64_t extent[3] = {p->batch, p->seqlen_new, p->heads_kv};
  if (!place_tensor(c, FA_ARRAY_K_NEW, extent, p->head_dim_qk, size, ANY_INPUT, &a->k_new)) return 0;
  if (!place_tensor(c, FA_ARRAY_V_NEW, extent, p->head_dim_v, size, ANY_INPUT, &a->v_new)) return 0;
  if (!p->rotary_dim) return 1;
  const int64_t angles = p->rotary_positions * (p->rotary_dim / 2);
  if (!place(c, FA_ARRAY_COS, angles, sizeof(float)) || !place(c, FA_ARRAY_SIN, angles, sizeof(float)))
    return 0;
  a->rotary_cos = (const float *)(const void *)c->slots[FA_ARRAY_COS].data;
  a->rotary_sin = (const float *)(const void *)c->slots[FA_ARRAY_SIN].data;
  return 1;
}

static int place_small(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  fa_attention_args *a = &c->args;
  if (p->has_alibi) {
    const int64_t gap = fa_random_range(&c->random, 0, 2),
                  rows = fa_random_chance(&c->random, 50) ? p->batch : 1;
    a->alibi_stride_batch = rows > 1 ? p->heads_q + gap : 0;
    if (!place(c, FA_ARRAY_SLOPES, (rows - 1) * a->alibi_stride_batch + p->heads_q, sizeof(float))) return 0;
    a->alibi_slopes = (const float *)(const void *)c->slots[FA_ARRAY_SLOPES].data;
  }
  if (p->has_sinks) {
    if (!place(c, FA_ARRAY_SINKS, p->heads_q, sizeof(float))) return 0;
    a->sinks = (const float *)(const void *)c->slots[FA_ARRAY_SINKS].data;
  }
  if (p->has_bias && !place_score_tensor(c, FA_ARRAY_BIAS, fa_dtype_bytes(p->bias_dtype), &a->bias)) return 0;
  if (p->has_mask && !place_score_tensor(c, FA_ARRAY_MASK, 1, &a->mask)) return 0;
  return 1;
}

fa_status fa_case_draw_arrays(fa_case *c) {
  const fa_attention_args blank = FA_ATTENTION_ARGS_INIT;
  c->args = blank;
  for (int n = 0; n < FA_ARRAYS; n++) c->slots[n].data = NULL;
  if (fa_case_draw_lengths(c) != FA_OK) return FA_ERROR_MEMORY;
  if (!place_queries(c) || !place_cache(c) || !place_small(c)) return FA_ERROR_MEMORY;
  if (c->problem.seqlen_new && !place_appended(c)) return FA_ERROR_MEMORY;
  return fa_case_fill(c);
}

void fa_case_clear(fa_case *c) {
  for (int poisoned = 0; poisoned < 2; poisoned++) {
    for (int n = 0; n < FA_CACHE_ARRAYS; n++) {
      free(c->before[poisoned][n]);
      free(c->after[poisoned][n]);
      c->before[poisoned][n] = c->after[poisoned][n] = NULL;
    }
  }
  free(c->o);
  free(c->lse);
  c->o = c->lse = NULL;
}
