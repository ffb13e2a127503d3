#include "core/problem.h"

#include <math.h>

#include "core/descriptor.h"
#include "core/kernel.h"
#include "core/status.h"

typedef long long ll;

static fa_status check_range(const char *name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return FA_OK;
  return fa_fail(FA_ERROR_ARGUMENT, "%s is %lld; it must be %lld to %lld", name, (ll)value, (ll)low, (ll)high);
}

static fa_status check_flag(const char *name, int32_t value) {
  if (value == 0 || value == 1) return FA_OK;
  return fa_fail(FA_ERROR_ARGUMENT, "%s is %d; it must be 0 or 1", name, value);
}

static int is_compute_dtype(fa_dtype dtype) {
  return dtype == FA_FLOAT32 || dtype == FA_FLOAT16 || dtype == FA_BFLOAT16;
}

#define CHECK(call)                                          \
  do {                                                       \
    const fa_status check_status = (call);                   \
    if (check_status != FA_OK) return check_status;          \
  } while (0)

static fa_status check_shape(const fa_attention_problem *p) {
  CHECK(check_range("batch", p->batch, 1, FA_MAX_EXTENT));
  CHECK(check_range("heads_q", p->heads_q, 1, 65536));
  CHECK(check_range("heads_kv", p->heads_kv, 1, 65536));
  if (p->heads_q % p->heads_kv != 0)
    return fa_fail(FA_ERROR_ARGUMENT, "heads_q is %lld and heads_kv %lld; heads_q must be a multiple of heads_kv",
                   (ll)p->heads_q, (ll)p->heads_kv);
  CHECK(check_range("max_seqlen_q", p->max_seqlen_q, 0, FA_MAX_EXTENT));
  CHECK(check_range("max_seqlen_kv", p->max_seqlen_kv, 0, FA_MAX_EXTENT));
  const double longest = (double)fa_max(fa_max(p->max_seqlen_q, p->max_seqlen_kv), 1);
  if ((double)p->batch * (double)p->heads_q * longest > 0x1p44)
    return fa_fail(FA_ERROR_ARGUMENT, "batch %lld x heads_q %lld x longest sequence %.0f is beyond 2^44 rows; make the "
                   "problem smaller", (ll)p->batch, (ll)p->heads_q, longest);
  CHECK(check_range("head_dim_qk", p->head_dim_qk, 1, FA_MAX_HEAD_DIM));
  CHECK(check_range("head_dim_v", p->head_dim_v, 1, FA_MAX_HEAD_DIM));
  return FA_OK;
}

static fa_status check_types(const fa_attention_problem *p) {
  if (!is_compute_dtype(p->dtype))
    return fa_fail(FA_ERROR_ARGUMENT, "dtype is %s (%d); it must be f32, f16 or bf16", fa_dtype_name(p->dtype),
                   (int)p->dtype);
  if (p->kv_dtype != p->dtype && p->kv_dtype != FA_INT8 && p->kv_dtype != FA_FP8_E4M3)
    return fa_fail(FA_ERROR_ARGUMENT, "kv_dtype is %s (%d); it must be that of q (%s), int8 or fp8",
                   fa_dtype_name(p->kv_dtype), (int)p->kv_dtype, fa_dtype_name(p->dtype));
  if (p->has_bias && !is_compute_dtype(p->bias_dtype))
    return fa_fail(FA_ERROR_ARGUMENT, "bias_dtype is %s (%d); it must be f32, f16 or bf16",
                   fa_dtype_name(p->bias_dtype), (int)p->bias_dtype);
  return FA_OK;
}

static fa_status check_rules(const fa_attention_problem *p) {
  if (!isfinite(p->scale))
    return fa_fail(FA_ERROR_ARGUMENT, "scale is %g; it must be finite (0 stands for 1 / sqrt(head_dim_qk))",
                   (double)p->scale);
  if (!isfinite(p->softcap) || p->softcap < 0.0f)
    return fa_fail(FA_ERROR_ARGUMENT, "softcap is %g; it must be finite and not negative (0 is off)",
                   (double)p->softcap);
  CHECK(check_range("window_left", p->window_left, -1, INT64_MAX));
  CHECK(check_range("window_right", p->window_right, -1, INT64_MAX));
  CHECK(check_flag("causal", p->causal));
  CHECK(check_flag("has_alibi", p->has_alibi));
  CHECK(check_flag("has_sinks", p->has_sinks));
  CHECK(check_flag("has_mask", p->has_mask));
  CHECK(check_flag("has_bias", p->has_bias));
  CHECK(check_flag("has_lse", p->has_lse));
  return FA_OK;
}

static fa_status check_lengths_fields(const fa_attention_problem *p) {
  CHECK(check_flag("ragged_q", p->ragged_q));
  CHECK(check_flag("ragged_kv", p->ragged_kv));
  CHECK(check_flag("has_seqlens_kv", p->has_seqlens_kv));
  if (p->ragged_q) CHECK(check_range("total_seqlen_q", p->total_seqlen_q, 0, FA_MAX_EXTENT - 1));
  if (p->ragged_kv) CHECK(check_range("total_seqlen_kv", p->total_seqlen_kv, 0, FA_MAX_EXTENT - 1));
  CHECK(check_range("page_size", p->page_size, 0, FA_MAX_EXTENT));
  if (p->page_size) {
    CHECK(check_range("num_pages", p->num_pages, 0, FA_MAX_EXTENT));
    if (p->ragged_kv)
      return fa_fail(FA_ERROR_ARGUMENT, "ragged_kv and page_size %lld are both set; K and V are either ragged or paged",
                     (ll)p->page_size);
  }
  CHECK(check_range("kv_splits", p->kv_splits, 0, 4096));
  return FA_OK;
}

static fa_status check_appending(const fa_attention_problem *p) {
  CHECK(check_range("seqlen_new", p->seqlen_new, 0, p->max_seqlen_kv));
  if (p->seqlen_new && !p->has_seqlens_kv)
    return fa_fail(FA_ERROR_ARGUMENT, "seqlen_new is %lld but has_seqlens_kv is 0; appending needs the lengths",
                   (ll)p->seqlen_new);
  if (p->seqlen_new && p->ragged_kv)
    return fa_fail(FA_ERROR_ARGUMENT, "seqlen_new is %lld with ragged_kv; append to a dense or paged cache",
                   (ll)p->seqlen_new);
  CHECK(check_range("rotary_dim", p->rotary_dim, 0, p->head_dim_qk));
  CHECK(check_flag("rotary_interleaved", p->rotary_interleaved));
  if (!p->rotary_dim) return FA_OK;
  if (p->rotary_dim % 2)
    return fa_fail(FA_ERROR_ARGUMENT, "rotary_dim is %lld; it must be even", (ll)p->rotary_dim);
  if (!p->seqlen_new)
    return fa_fail(FA_ERROR_ARGUMENT, "rotary_dim is %lld but seqlen_new is 0; rotary comes with appending",
                   (ll)p->rotary_dim);
  if (p->max_seqlen_q > p->max_seqlen_kv)
    return fa_fail(FA_ERROR_ARGUMENT, "max_seqlen_q is %lld, above max_seqlen_kv %lld; rotated queries need positions "
                   "S_kv - S_q + i >= 0", (ll)p->max_seqlen_q, (ll)p->max_seqlen_kv);
  if (p->rotary_positions < p->max_seqlen_kv)
    return fa_fail(FA_ERROR_ARGUMENT, "rotary_positions is %lld; it must be at least max_seqlen_kv, %lld",
                   (ll)p->rotary_positions, (ll)p->max_seqlen_kv);
  return FA_OK;
}

fa_status fa_check_problem_fields(const fa_attention_problem *problem) {
  CHECK(check_shape(problem));
  CHECK(check_types(problem));
  CHECK(check_rules(problem));
  CHECK(check_lengths_fields(problem));
  CHECK(check_appending(problem));
  return FA_OK;
}

uint32_t fa_problem_features(const fa_attention_problem *problem) {
  fa_attention_problem given = FA_ATTENTION_PROBLEM_INIT, *p = &given;
  uint32_t features = 0;
  if (!problem ||
      fa_read_descriptor("fa_attention_problem", &given, sizeof given, problem, problem->struct_size) != FA_OK)
    return 0;
  if (p->causal) features |= FA_FEATURE_CAUSAL;
  if (p->window_left >= 0 || p->window_right >= 0) features |= FA_FEATURE_WINDOW;
  if (p->has_alibi) features |= FA_FEATURE_ALIBI;
  if (p->softcap > 0.0f) features |= FA_FEATURE_SOFTCAP;
  if (p->has_sinks) features |= FA_FEATURE_SINKS;
  if (p->has_bias) features |= FA_FEATURE_BIAS;
  if (p->has_mask) features |= FA_FEATURE_MASK;
  if (p->ragged_q || p->ragged_kv) features |= FA_FEATURE_RAGGED;
  if (p->page_size) features |= FA_FEATURE_PAGED;
  if (p->head_dim_v != p->head_dim_qk) features |= FA_FEATURE_DV;
  if (p->has_lse) features |= FA_FEATURE_LSE;
  if (p->has_seqlens_kv) features |= FA_FEATURE_SEQLENS;
  if (p->kv_dtype != p->dtype) features |= FA_FEATURE_KVQUANT;
  if (p->seqlen_new) features |= FA_FEATURE_APPEND;
  if (p->kv_splits > 1) features |= FA_FEATURE_SPLITS;
  return features;
}

/* ------------------------------------------------------------------- arguments */

static fa_status check_pointer(const char *name, const void *pointer, int needed) {
  if (pointer || !needed) return FA_OK;
  return fa_fail(FA_ERROR_ARGUMENT, "%s is NULL, but the plan's problem has it; pass its array", name);
}

/* An output addressed by up to four (extent, stride) pairs is free of self-overlap if, sorted by stride, each stride
 * steps over everything the smaller ones reach. Sufficient, and every sane layout passes. */
static fa_status check_no_overlap(const char *name, const int64_t extents[4], const int64_t strides[4]) {
  int64_t extent[4], stride[4];
  int count = 0;
  for (int i = 0; i < 4; ++i) {
    if (extents[i] <= 1) continue;
    const int64_t step = strides[i] < 0 ? -strides[i] : strides[i];
    int at = count++;
    for (; at > 0 && stride[at - 1] > step; --at) {
      stride[at] = stride[at - 1];
      extent[at] = extent[at - 1];
    }
    stride[at] = step;
    extent[at] = extents[i];
  }
  int64_t reach = 1; /* elements covered so far */
  for (int i = 0; i < count; ++i) {
    if (stride[i] < reach)
      return fa_fail(FA_ERROR_ARGUMENT,
                     "%s overlaps itself: a dimension of %lld elements has stride %lld where at least %lld is needed",
                     name, (ll)extent[i], (ll)stride[i], (ll)reach);
    const int64_t most = (int64_t)1 << 56; /* elements; more than any address space holds */
    if (extent[i] - 1 > (most - reach) / stride[i])
      return fa_fail(FA_ERROR_ARGUMENT, "%s reaches beyond any memory: a dimension of %lld elements has stride %lld",
                     name, (ll)extent[i], (ll)stride[i]);
    reach += (extent[i] - 1) * stride[i];
  }
  return FA_OK;
}

static fa_status check_stride(const char *name, int64_t stride) {
  const int64_t limit = (int64_t)1 << 44;
  if (stride >= -limit && stride <= limit) return FA_OK;
  return fa_fail(FA_ERROR_ARGUMENT, "%s is %lld; a stride must lie within +-2^44 elements", name, (ll)stride);
}

/* Where the farthest element lies must fit the arithmetic of every kernel, in bytes. */
static fa_status check_reach(const char *name, const int64_t extents[4], const int64_t strides[4]) {
  double reach = 0.0;
  for (int i = 0; i < 4; ++i) reach += (double)(extents[i] - 1) * fabs((double)strides[i]);
  if (reach <= 0x1p56) return FA_OK;
  return fa_fail(FA_ERROR_ARGUMENT, "%s reaches over %.0f elements; its sizes and strides must stay within 2^56", name,
                 reach);
}

typedef struct tensor_shape {
  int64_t extents[4]; /* batch (or pages), seq (or slots), heads, dim; with a 0 there is nothing to look at */
  int ragged;         /* stride_batch is not read */
  int written;
} tensor_shape;

static fa_status check_tensor(const char *name, const fa_tensor *tensor, tensor_shape shape) {
  for (int i = 0; i < 4; ++i)
    if (shape.extents[i] == 0) return FA_OK;
  CHECK(check_pointer(name, tensor->data, 1));
  const int64_t strides[4] = {shape.ragged ? 0 : tensor->stride_batch, tensor->stride_seq, tensor->stride_head, 1};
  for (int i = 0; i < 3; ++i) CHECK(check_stride(name, strides[i]));
  CHECK(check_reach(name, shape.extents, strides));
  return shape.written ? check_no_overlap(name, shape.extents, strides) : FA_OK;
}

static tensor_shape q_shape(const fa_attention_problem *p, int64_t dim, int written) {
  const tensor_shape shape = {{p->ragged_q ? 1 : p->batch, p->ragged_q ? p->total_seqlen_q : p->max_seqlen_q,
                               p->heads_q, dim}, p->ragged_q, written};
  return shape;
}

/* k, v and, with dim 1, their scales. Appending writes them. */
static tensor_shape kv_shape(const fa_attention_problem *p, int64_t dim, int written) {
  tensor_shape shape = {{p->batch, p->max_seqlen_kv, p->heads_kv, dim}, p->ragged_kv, written};
  if (p->page_size) shape.extents[0] = p->num_pages, shape.extents[1] = p->max_seqlen_kv ? p->page_size : 0;
  if (p->ragged_kv) shape.extents[0] = 1, shape.extents[1] = p->max_seqlen_kv ? p->total_seqlen_kv : 0;
  return shape;
}

/* Scores' companions, indexed (batch, head, query, key). */
static tensor_shape score_shape(const fa_attention_problem *p) {
  const tensor_shape shape = {{p->batch, p->max_seqlen_q, p->heads_q, p->max_seqlen_kv}, 0, 0};
  return shape;
}

static tensor_shape new_shape(const fa_attention_problem *p, int64_t dim) {
  const tensor_shape shape = {{p->batch, p->seqlen_new, p->heads_kv, dim}, 0, 0};
  return shape;
}

/* Appending writes the scales it finds per token; heads may share one. */
static fa_status check_scale(const fa_attention_problem *p, const char *name, const fa_tensor *scale) {
  tensor_shape shape = kv_shape(p, 1, p->seqlen_new && scale->stride_seq != 0);
  if (shape.written && scale->stride_head == 0) shape.extents[2] = 1;
  return check_tensor(name, scale, shape);
}

static fa_status check_lse(const fa_attention_problem *p, const fa_attention_args *a) {
  const tensor_shape rows = q_shape(p, 1, 1);
  const int64_t extents[4] = {rows.extents[0], rows.extents[2], rows.extents[1], 1};
  const int64_t strides[4] = {p->ragged_q ? 0 : a->lse_stride_batch, a->lse_stride_head, 1, 1};
  if (extents[2] == 0) return FA_OK;
  CHECK(check_pointer("lse", a->lse, 1));
  CHECK(check_stride("lse_stride_batch", strides[0]));
  CHECK(check_stride("lse_stride_head", strides[1]));
  CHECK(check_reach("lse", extents, strides));
  return check_no_overlap("lse", extents, strides);
}

static fa_status check_page_table(const fa_attention_problem *p, const fa_attention_args *a) {
  const int64_t slots = fa_ceil_div(p->max_seqlen_kv, p->page_size);
  CHECK(check_pointer("page_table", a->page_table, slots > 0));
  if (a->page_table_stride >= slots || p->batch == 1) return check_stride("page_table_stride", a->page_table_stride);
  return fa_fail(FA_ERROR_ARGUMENT, "page_table_stride is %lld; max_seqlen_kv %lld needs %lld pages a sequence",
                 (ll)a->page_table_stride, (ll)p->max_seqlen_kv, (ll)slots);
}

fa_status fa_check_args(const fa_attention_problem *p, const fa_attention_args *a) {
  CHECK(check_tensor("q", &a->q, q_shape(p, p->head_dim_qk, 0)));
  CHECK(check_tensor("o", &a->o, q_shape(p, p->head_dim_v, 1)));
  CHECK(check_tensor("k", &a->k, kv_shape(p, p->head_dim_qk, p->seqlen_new > 0)));
  CHECK(check_tensor("v", &a->v, kv_shape(p, p->head_dim_v, p->seqlen_new > 0)));
  CHECK(check_pointer("alibi_slopes", a->alibi_slopes, p->has_alibi));
  CHECK(check_stride("alibi_stride_batch", p->has_alibi ? a->alibi_stride_batch : 0));
  CHECK(check_pointer("sinks", a->sinks, p->has_sinks));
  if (p->has_bias) CHECK(check_tensor("bias", &a->bias, score_shape(p)));
  if (p->has_mask) CHECK(check_tensor("mask", &a->mask, score_shape(p)));
  CHECK(check_pointer("cu_seqlens_q", a->cu_seqlens_q, p->ragged_q));
  CHECK(check_pointer("cu_seqlens_kv", a->cu_seqlens_kv, p->ragged_kv));
  CHECK(check_pointer("seqlens_kv", a->seqlens_kv, p->has_seqlens_kv));
  if (p->page_size) CHECK(check_page_table(p, a));
  CHECK(check_tensor("k_new", &a->k_new, new_shape(p, p->head_dim_qk)));
  CHECK(check_tensor("v_new", &a->v_new, new_shape(p, p->head_dim_v)));
  CHECK(check_pointer("rotary_cos", a->rotary_cos, p->rotary_dim > 0));
  CHECK(check_pointer("rotary_sin", a->rotary_sin, p->rotary_dim > 0));
  if (p->kv_dtype != p->dtype) {
    CHECK(check_scale(p, "k_scale", &a->k_scale));
    CHECK(check_scale(p, "v_scale", &a->v_scale));
  }
  return p->has_lse ? check_lse(p, a) : FA_OK;
}

/* --------------------------------------------------------------------- lengths */

static fa_status check_cumulative(const char *name, const int32_t *cu, int64_t batch, int64_t longest, int64_t total) {
  if (cu[0] != 0) return fa_fail(FA_ERROR_ARGUMENT, "%s[0] is %d; it must be 0", name, cu[0]);
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = (int64_t)cu[b + 1] - cu[b];
    if (length < 0 || length > longest)
      return fa_fail(FA_ERROR_ARGUMENT, "%s[%lld] to [%lld] is %lld tokens; the plan allows 0 to %lld", name, (ll)b,
                     (ll)(b + 1), (ll)length, (ll)longest);
  }
  if (cu[batch] > total)
    return fa_fail(FA_ERROR_ARGUMENT, "%s[%lld] is %d; the tensor has %lld rows", name, (ll)batch, cu[batch],
                   (ll)total);
  return FA_OK;
}

static fa_status check_pages(const fa_attention_problem *p, const fa_attention_args *a, int64_t b, int64_t tokens) {
  const int64_t slots = fa_ceil_div(tokens, p->page_size);
  const int32_t *row = a->page_table + b * a->page_table_stride;
  for (int64_t s = 0; s < slots; ++s)
    if (row[s] < 0 || row[s] >= p->num_pages)
      return fa_fail(FA_ERROR_ARGUMENT, "page_table[%lld][%lld] is %d; the cache has pages 0 to %lld", (ll)b, (ll)s,
                     row[s], (ll)p->num_pages - 1);
  return FA_OK;
}

fa_status fa_check_lengths(const fa_attention_problem *p, const fa_attention_args *a) {
  if (p->ragged_q)
    CHECK(check_cumulative("cu_seqlens_q", a->cu_seqlens_q, p->batch, p->max_seqlen_q, p->total_seqlen_q));
  if (p->ragged_kv)
    CHECK(check_cumulative("cu_seqlens_kv", a->cu_seqlens_kv, p->batch, p->max_seqlen_kv, p->total_seqlen_kv));
  if (!p->has_seqlens_kv && !p->page_size) return FA_OK;
  for (int64_t b = 0; b < p->batch; ++b) {
    int64_t tokens = p->max_seqlen_kv;
    if (p->has_seqlens_kv) {
      const int64_t room = p->ragged_kv ? a->cu_seqlens_kv[b + 1] - a->cu_seqlens_kv[b]
                                        : p->max_seqlen_kv - p->seqlen_new;
      if (a->seqlens_kv[b] < 0 || a->seqlens_kv[b] > room)
        return fa_fail(FA_ERROR_ARGUMENT, "seqlens_kv[%lld] is %d; it must be 0 to %lld here", (ll)b, a->seqlens_kv[b],
                       (ll)room);
      tokens = a->seqlens_kv[b] + p->seqlen_new;
    }
    const int64_t queries = p->ragged_q ? a->cu_seqlens_q[b + 1] - a->cu_seqlens_q[b] : p->max_seqlen_q;
    if (p->rotary_dim && queries > tokens)
      return fa_fail(FA_ERROR_ARGUMENT, "entry %lld has %lld queries but %lld keys; rotated queries need positions "
                     "S_kv - S_q + i >= 0", (ll)b, (ll)queries, (ll)tokens);
    if (p->page_size) CHECK(check_pages(p, a, b, tokens));
  }
  return FA_OK;
}
