/* A run's traces: what it wrote where it had to, and everything it must have left alone. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_case.h"
#include "ref/ref.h"

void fa_verdict_fail(fa_verdict *verdict, const char *format, ...) {
  const size_t used = strlen(verdict->text);
  va_list arguments;
  verdict->passed = 0;
  va_start(arguments, format);
  vsnprintf(verdict->text + used, sizeof verdict->text - used, format, arguments);
  va_end(arguments);
}

typedef struct worst {
  int64_t wrong, b, i, h, d;
  double got, exact, tolerance, badness;
} worst;

static void note(worst *w, double got, double exact, double tolerance, int64_t b, int64_t i, int64_t h,
                 int64_t d) {
  double badness = fabs(got - exact) / tolerance;
  if (isnan(badness) || isinf(badness)) badness = 1e300;
  if (w->wrong++ && badness <= w->badness) return;
  w->badness = badness;
  w->got = got;
  w->exact = exact;
  w->tolerance = tolerance;
  w->b = b;
  w->i = i;
  w->h = h;
  w->d = d;
}

static int64_t o_index(const fa_case *c, int64_t b, int64_t i, int64_t h) {
  const fa_tensor *o = &c->args.o;
  const int64_t row = c->problem.ragged_q ? (c->args.cu_seqlens_q[b] + i) * o->stride_seq
                                          : b * o->stride_batch + i * o->stride_seq;
  return row + h * o->stride_head;
}

static int64_t lse_index(const fa_case *c, int64_t b, int64_t i, int64_t h) {
  const int64_t row = c->problem.ragged_q ? c->args.cu_seqlens_q[b] : b * c->args.lse_stride_batch;
  return row + h * c->args.lse_stride_head + i;
}

/* Queries down, head size across, of one batch entry and head: '.' right, 'x' wrong, '!' NaN or infinite
 * where it should not be or the other way round. A character stands for the worst of its cell. */
static void draw_map(const fa_case *c, int64_t b, int64_t h, fa_verdict *verdict) {
  enum { ROWS = 24, COLUMNS = 64 };
  const fa_attention_problem *p = &c->problem;
  const int64_t queries = fa_ref_seqlen_q(p, &c->args, b);
  const int64_t rows = fa_min(queries, ROWS), columns = fa_min(p->head_dim_v, COLUMNS);
  fa_verdict_fail(verdict, "    map of entry %lld, head %lld: %lld queries down, %lld elements across\n",
                  (long long)b, (long long)h, (long long)queries, (long long)p->head_dim_v);
  for (int64_t row = 0; row < rows; row++) {
    char line[COLUMNS + 1];
    memset(line, '.', sizeof line);
    for (int64_t i = row * queries / rows; i < (row + 1) * queries / rows; i++) {
      for (int64_t d = 0; d < p->head_dim_v; d++) {
        const double got = fa_ref_load(c->args.o.data, o_index(c, b, i, h) + d, p->dtype);
        const double exact =
            c->o[(fa_ref_packed_row(p, &c->args, b, i) * p->heads_q + h) * p->head_dim_v + d];
        char *cell = &line[d * columns / p->head_dim_v];
        if (fa_value_matches(got, exact, c->tolerance.o)) continue;
        if (isfinite(got) != isfinite(exact))
          *cell = '!';
        else if (*cell == '.')
          *cell = 'x';
      }
    }
    line[columns] = '\0';
    fa_verdict_fail(verdict, "    %5lld %s\n", (long long)(row * queries / rows), line);
  }
}

static void compare_o(fa_case *c, fa_verdict *verdict) {
  const fa_attention_problem *p = &c->problem;
  worst w;
  memset(&w, 0, sizeof w);
  for (int64_t b = 0; b < p->batch; b++) {
    for (int64_t i = 0; i < fa_ref_seqlen_q(p, &c->args, b); i++) {
      const int64_t packed = fa_ref_packed_row(p, &c->args, b, i) * p->heads_q;
      for (int64_t h = 0; h < p->heads_q; h++) {
        const int64_t at = o_index(c, b, i, h);
        const double *exact = c->o + (packed + h) * p->head_dim_v;
        for (int64_t d = 0; d < p->head_dim_v; d++) {
          const double got = fa_ref_load(c->args.o.data, at + d, p->dtype);
          const double error = fabs(got - exact[d]) / c->tolerance.o;
          if (error > verdict->max_error) verdict->max_error = error;
          if (!fa_value_matches(got, exact[d], c->tolerance.o))
            note(&w, got, exact[d], c->tolerance.o, b, i, h, d);
        }
      }
    }
  }
  if (!w.wrong) return;
  fa_verdict_fail(
      verdict,
      "    o: %lld elements wrong; worst [entry %lld, query %lld, head %lld, %lld]: got %.9g, want "
      "%.9g, error %.3g, tolerance %.3g\n",
      (long long)w.wrong, (long long)w.b, (long long)w.i, (long long)w.h, (long long)w.d, w.got, w.exact,
      fabs(w.got - w.exact), w.tolerance);
  draw_map(c, w.b, w.h, verdict);
}

static void compare_lse(fa_case *c, fa_verdict *verdict) {
  const fa_attention_problem *p = &c->problem;
  worst w;
  memset(&w, 0, sizeof w);
  for (int64_t b = 0; b < p->batch; b++) {
    for (int64_t i = 0; i < fa_ref_seqlen_q(p, &c->args, b); i++) {
      for (int64_t h = 0; h < p->heads_q; h++) {
        const double exact = c->lse[fa_ref_packed_row(p, &c->args, b, i) * p->heads_q + h];
        const double got = (double)c->args.lse[lse_index(c, b, i, h)];
        const double tolerance = c->tolerance.lse + c->tolerance.lse_relative * fabs(exact);
        if (!fa_value_matches(got, exact, tolerance)) note(&w, got, exact, tolerance, b, i, h, 0);
      }
    }
  }
  if (!w.wrong) return;
  fa_verdict_fail(
      verdict,
      "    lse: %lld wrong; worst [entry %lld, head %lld, query %lld]: got %.9g, want %.9g, error "
      "%.3g, tolerance %.3g\n",
      (long long)w.wrong, (long long)w.b, (long long)w.h, (long long)w.i, w.got, w.exact,
      fabs(w.got - w.exact), w.tolerance);
}

/* With every element made poison again, anything else in the array was written by mistake. */
static void compare_rest(fa_case *c, fa_array which, fa_verdict *verdict) {
  const fa_slot *slot = &c->slots[which];
  for (size_t n = 0; n < slot->bytes; n++) {
    if (slot->data[n] == FA_POISON) continue;
    fa_verdict_fail(verdict, "    %s: byte %zu of %zu, in a gap that is not its own, was overwritten\n",
                    fa_array_names[which], n, slot->bytes);
    memset(slot->data, FA_POISON, slot->bytes);
    return;
  }
}

static void erase_outputs(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  const size_t size = fa_dtype_bytes(p->dtype);
  for (int64_t b = 0; b < p->batch; b++) {
    for (int64_t i = 0; i < fa_ref_seqlen_q(p, &c->args, b); i++) {
      for (int64_t h = 0; h < p->heads_q; h++) {
        memset((unsigned char *)c->args.o.data + o_index(c, b, i, h) * (int64_t)size, FA_POISON,
               (size_t)p->head_dim_v * size);
        if (p->has_lse) memset(c->args.lse + lse_index(c, b, i, h), FA_POISON, sizeof(float));
      }
    }
  }
}

void fa_case_verify(fa_case *c, const uint64_t hashes[FA_ARRAYS], fa_verdict *verdict) {
  const fa_tolerance fused = c->tolerance;
  c->tolerance = fa_tolerance_unfused(fused, &c->unfused, c->max_abs_v);
  compare_o(c, verdict);
  if (c->problem.has_lse) compare_lse(c, verdict);
  c->tolerance = fused;
  erase_outputs(c);
  compare_rest(c, FA_ARRAY_O, verdict);
  if (c->problem.has_lse) compare_rest(c, FA_ARRAY_LSE, verdict);
  for (int n = 0; n < FA_ARRAYS; n++) {
    if (!fa_slot_surroundings_intact(&c->slots[n])) {
      fa_verdict_fail(verdict, "    %s: a guard band next to the array was overwritten\n", fa_array_names[n]);
    }
    if (hashes[n] && fa_slot_hash(&c->slots[n]) != hashes[n]) {
      fa_verdict_fail(verdict, "    %s: an input was written to\n", fa_array_names[n]);
    }
  }
}

/* ----------------------------------------------------------------------- appending */

/* Half a unit in the last place of a cache element that stands for x, in x's units, and a little for fp32
 * arithmetic before the rounding (`noise`). Saturated numbers may be as far away as they must. */
static double append_tolerance(fa_dtype kv_dtype, double x, double scale, double noise) {
  const double unit = fabs(scale);
  switch (kv_dtype) {
    case FA_INT8:
      if (fabs(x) > 127.0 * unit) return fabs(x) - 127.0 * unit + 0.501 * unit + noise;
      return 0.501 * unit + noise;
    case FA_FP8_E4M3: {
      const double code = unit > 0.0 ? fabs(x) / unit : 0.0;
      if (code > 448.0) return (code - 448.0 + 1e-3) * unit + noise;
      const double exponent = code > 0x1p-6 ? floor(log2(code)) : -6.0;
      return exp2(exponent - 4.0) * 1.001 * unit + noise;
    }
    case FA_FLOAT16:
      return fmax(exp2(floor(log2(fabs(x) + 1e-300)) - 11.0), 0x1p-25) * 1.001 + noise;
    case FA_BFLOAT16:
      return exp2(floor(log2(fabs(x) + 1e-300)) - 8.0) * 1.001 + noise;
    case FA_FLOAT32:
      return noise;
  }
  return 0.0;
}

typedef struct cache_side {
  const char *name;
  const fa_tensor *cache, *scales;
  fa_array array, scale_array;
  int64_t dim;
  int is_key;
} cache_side;

/* One appended token of one head against its exact value; then its bytes become the oracle's, so that a
 * comparison of whole arrays shows what else was written. */
static void verify_token(fa_case *c, const cache_side *side, int64_t b, int64_t h, int64_t n,
                         unsigned char *expected, unsigned char *expected_scales, fa_verdict *verdict) {
  const fa_attention_problem *p = &c->problem;
  const size_t size = fa_dtype_bytes(p->kv_dtype);
  const int64_t position = c->args.seqlens_kv[b] + n;
  double x[576], largest = 0.0, scale = 1.0;
  fa_ref_new_token(p, &c->args, b, h, n, side->is_key, x);
  for (int64_t d = 0; d < side->dim; d++) largest = fmax(largest, fabs(x[d]));
  const double noise = (side->is_key && p->rotary_dim ? 8.0 : 1.0) * 0x1p-24 * largest;

  if (p->kv_dtype != p->dtype) {
    const int64_t at = fa_ref_token_index(p, &c->args, side->scales, b, h, position);
    float *got = (float *)side->scales->data + at;
    const ptrdiff_t offset = (unsigned char *)got - c->slots[side->scale_array].data;
    float want;
    memcpy(&want, expected_scales + offset, sizeof want);
    scale = (double)*got;
    if (side->scales->stride_seq != 0 && want > 0.0f &&
        !(fabs(scale - (double)want) <= 1e-5 * (double)want)) {
      fa_verdict_fail(
          verdict, "    %s scale of appended token %lld of entry %lld, KV head %lld: got %.9g, want %.9g\n",
          side->name, (long long)n, (long long)b, (long long)h, scale, (double)want);
    }
    memcpy(expected_scales + offset, got, sizeof want);
  }
  const int64_t at = fa_ref_token_index(p, &c->args, side->cache, b, h, position);
  unsigned char *bytes = (unsigned char *)side->cache->data + at * (int64_t)size;
  for (int64_t d = 0; d < side->dim; d++) {
    const double got = scale * fa_ref_load(side->cache->data, at + d, p->kv_dtype);
    if (fabs(got - x[d]) <= append_tolerance(p->kv_dtype, x[d], scale, noise)) continue;
    fa_verdict_fail(verdict,
                    "    %s of appended token %lld of entry %lld, KV head %lld, element %lld: got %.9g, want "
                    "%.9g\n",
                    side->name, (long long)n, (long long)b, (long long)h, (long long)d, got, x[d]);
    break;
  }
  memcpy(expected + (bytes - c->slots[side->array].data), bytes, (size_t)side->dim * size);
}

static fa_status verify_rounding(fa_case *c, int poisoned, fa_verdict *verdict) {
  const fa_attention_problem *p = &c->problem;
  const cache_side sides[2] = {
      {"k", &c->args.k, &c->args.k_scale, FA_ARRAY_K, FA_ARRAY_K_SCALE, p->head_dim_qk, 1},
      {"v", &c->args.v, &c->args.v_scale, FA_ARRAY_V, FA_ARRAY_V_SCALE, p->head_dim_v, 0}};
  unsigned char *expected[FA_CACHE_ARRAYS] = {NULL, NULL, NULL, NULL};
  fa_status status = FA_OK;
  for (int n = 0; n < FA_CACHE_ARRAYS; n++) {
    const fa_slot *slot = &c->slots[fa_cache_arrays[n]];
    expected[n] = malloc(slot->bytes + 1);
    if (!expected[n])
      status = FA_ERROR_MEMORY;
    else if (slot->data)
      memcpy(expected[n], c->after[poisoned][n], slot->bytes);
  }
  for (int s = 0; s < 2 && status == FA_OK; s++) {
    for (int64_t b = 0; b < p->batch; b++) {
      for (int64_t n = 0; n < p->seqlen_new; n++) {
        for (int64_t h = 0; h < p->heads_kv; h++)
          verify_token(c, &sides[s], b, h, n, expected[s], expected[2 + s], verdict);
      }
    }
  }
  for (int n = 0; n < FA_CACHE_ARRAYS; n++) {
    const fa_slot *slot = &c->slots[fa_cache_arrays[n]];
    if (status == FA_OK && slot->data && memcmp(slot->data, expected[n], slot->bytes) != 0) {
      fa_verdict_fail(verdict, "    %s: appending wrote outside of the new tokens\n",
                      fa_array_names[fa_cache_arrays[n]]);
    }
    free(expected[n]);
  }
  return status;
}

fa_status fa_case_verify_cache(fa_case *c, int poisoned, fa_verdict *verdict) {
  int exact = 1;
  for (int n = 0; n < FA_CACHE_ARRAYS; n++) {
    const fa_slot *slot = &c->slots[fa_cache_arrays[n]];
    if (slot->data && memcmp(slot->data, c->after[poisoned][n], slot->bytes) != 0) exact = 0;
  }
  if (!exact) {
    const fa_status status = verify_rounding(c, poisoned, verdict);
    if (status != FA_OK) return status;
  }
  if (exact && !c->oracle_stale) return FA_OK;
  c->oracle_stale = !exact;
  return fa_case_oracle(c);
}
