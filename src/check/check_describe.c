/* A problem in one line, as a person who has to mend a kernel wants to read it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check/check_case.h"

typedef struct line {
  char *text;
  size_t size;
} line;

static void add(const line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(const line *l, const char *format, ...) {
  const size_t used = strlen(l->text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(l->text + used, l->size - used, format, arguments);
  va_end(arguments);
}

static void add_lengths(const line *l, const char *name, const int32_t *values, int64_t count) {
  add(l, " %s=", name);
  for (int64_t n = 0; n < count; n++) add(l, n ? ",%d" : "%d", values[n]);
}

static void add_strides(const line *l, const char *name, const fa_tensor *t) {
  add(l, " %s(%lld,%lld,%lld)", name, (long long)t->stride_batch, (long long)t->stride_seq,
      (long long)t->stride_head);
}

char *fa_case_describe(const fa_case *c, char *text, size_t size) {
  const fa_attention_problem *p = &c->problem;
  const fa_attention_args *a = &c->args;
  const line l = {text, size};
  text[0] = '\0';
  add(&l, "%s", fa_dtype_name(p->dtype));
  if (p->kv_dtype != p->dtype) add(&l, " kv=%s", fa_dtype_name(p->kv_dtype));
  add(&l, " B%lld H%lld/%lld Sq%lld Skv%lld D%lld/%lld", (long long)p->batch, (long long)p->heads_q,
      (long long)p->heads_kv, (long long)p->max_seqlen_q, (long long)p->max_seqlen_kv,
      (long long)p->head_dim_qk, (long long)p->head_dim_v);
  if (p->scale != 0.0f) add(&l, " scale=%g", (double)p->scale);
  if (p->causal) add(&l, " causal");
  if (p->window_left >= 0 || p->window_right >= 0)
    add(&l, " window=%lld,%lld", (long long)p->window_left, (long long)p->window_right);
  if (p->softcap > 0.0f) add(&l, " softcap=%g", (double)p->softcap);
  if (p->has_alibi) add(&l, " alibi");
  if (p->has_sinks) add(&l, " sinks");
  if (p->has_bias) add(&l, " bias=%s", fa_dtype_name(p->bias_dtype));
  if (p->has_mask) add(&l, " mask");
  if (p->has_lse) add(&l, " lse");
  if (p->kv_splits) add(&l, " splits=%d", p->kv_splits);
  if (p->page_size) add(&l, " page=%lldx%lld", (long long)p->num_pages, (long long)p->page_size);
  if (p->seqlen_new) add(&l, " new=%lld", (long long)p->seqlen_new);
  if (p->rotary_dim) add(&l, " rotary=%lld%s", (long long)p->rotary_dim, p->rotary_interleaved ? "i" : "");
  if (a->cu_seqlens_q) add_lengths(&l, "cu_q", a->cu_seqlens_q, p->batch + 1);
  if (a->cu_seqlens_kv) add_lengths(&l, "cu_kv", a->cu_seqlens_kv, p->batch + 1);
  if (a->seqlens_kv) add_lengths(&l, "seqlens_kv", a->seqlens_kv, p->batch);
  add(&l, " values=%s%s strides", fa_values_names[c->values], c->poison_masked ? " poisoned-masked" : "");
  add_strides(&l, "q", &a->q);
  add_strides(&l, "k", &a->k);
  add_strides(&l, "v", &a->v);
  add_strides(&l, "o", &a->o);
  if (p->has_bias) add_strides(&l, "bias", &a->bias);
  if (p->has_mask) add_strides(&l, "mask", &a->mask);
  return text;
}
