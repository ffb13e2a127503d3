/* Tokens and query rows into the packed fp32 layouts of prefill_tiles.h, converted on the way: once per (KV
 * head, key block), shared by every query head and row of a work item. Before it the including file includes
 * its lanes_*.h. */
#ifndef FA_CPU_PREFILL_PACK_H
#define FA_CPU_PREFILL_PACK_H

#include <stdbool.h>

#include "cpu/cpu.h"

enum { PANEL = 2 * VEC };

/* rows[n] points at row n, the first `count` of VEC; column d of them becomes VEC floats at to + d *
 * stride. */
FA_INLINE void pack_columns(const char *const rows[VEC], int64_t count, fa_dtype dtype, int64_t dim,
                            float *to, int64_t stride) {
  const int64_t size = (int64_t)fa_dtype_size(dtype);
  for (int64_t d = 0; d < dim; d += VEC) {
    vec x[VEC];
#pragma GCC unroll 16
    for (int n = 0; n < VEC; n++)
      x[n] = n < count ? vec_load_row(rows[n] + d * size, dtype, dim - d) : vec_zero();
    vec_transpose(x);
    const int64_t columns = fa_min(VEC, dim - d);
    for (int64_t n = 0; n < columns; n++) vec_store(to + (d + n) * stride, x[n]);
  }
}

FA_INLINE void pack_rows(const char *from, fa_dtype dtype, int64_t dim, float *to, int64_t panel_stride) {
  const int64_t size = (int64_t)fa_dtype_size(dtype);
  for (int64_t d = 0; d < dim; d += VEC)
    vec_store(to + d / PANEL * panel_stride + d % PANEL, vec_load_row(from + d * size, dtype, dim - d));
}

static void pack_columns_any(const char *const rows[VEC], int64_t count, fa_dtype dtype, int64_t dim,
                             float *to, int64_t stride) {
  if (dtype == FA_FLOAT32) pack_columns(rows, count, FA_FLOAT32, dim, to, stride);
  else if (dtype == FA_FLOAT16) pack_columns(rows, count, FA_FLOAT16, dim, to, stride);
  else pack_columns(rows, count, FA_BFLOAT16, dim, to, stride);
}

static void pack_rows_any(const char *from, fa_dtype dtype, int64_t dim, float *to, int64_t panel_stride) {
  if (dtype == FA_FLOAT32) pack_rows(from, FA_FLOAT32, dim, to, panel_stride);
  else if (dtype == FA_FLOAT16) pack_rows(from, FA_FLOAT16, dim, to, panel_stride);
  else pack_rows(from, FA_BFLOAT16, dim, to, panel_stride);
}

/* Where one head's K or V tokens are, and how they become fp32. */
typedef struct source {
  fa_cpu_tokens tokens, scales;
  fa_dtype dtype;
  bool quantised;
  int64_t dim;
} source;

static source source_of(const fa_plan *plan, const fa_attention_args *args, const fa_tensor *t,
                        const fa_tensor *t_scale, int64_t dim, int64_t b, int64_t kv_head) {
  source s;
  s.dtype = plan->problem.kv_dtype;
  s.quantised = s.dtype == FA_INT8 || s.dtype == FA_FP8_E4M3;
  s.dim = dim;
  s.tokens = fa_cpu_tokens_of(plan, args, t, fa_dtype_size(s.dtype), b, kv_head);
  s.scales = s.tokens;
  if (s.quantised) s.scales = fa_cpu_tokens_of(plan, args, t_scale, sizeof(float), b, kv_head);
  return s;
}

/* Row of token j; quantised ones are first scaled into `buffer`. */
static const char *source_row(const source *s, int64_t j, fa_dtype *dtype, float *buffer) {
  const char *row = fa_cpu_token(&s->tokens, j);
  *dtype = s->dtype;
  if (!s->quantised) return row;
  float scale;
  memcpy(&scale, fa_cpu_token(&s->scales, j), sizeof scale);
  for (int64_t d = 0; d < s->dim; d++) buffer[d] = fa_load_float(row, d, s->dtype) * scale;
  *dtype = FA_FLOAT32;
  return (const char *)buffer;
}

/* K tokens [key, end) into key panels; lanes beyond `end` are 0. */
static void pack_k(const source *s, int64_t key, int64_t end, float *to) {
  float buffer[VEC][576];
  const char *rows[VEC];
  fa_dtype dtype = s->dtype;
  for (int64_t j = key; j < fa_round_up(end - key, PANEL) + key; j += VEC) {
    const int64_t count = fa_max(0, fa_min(VEC, end - j));
    for (int64_t n = 0; n < count; n++) rows[n] = source_row(s, j + n, &dtype, buffer[n]);
    for (int64_t n = count; n < VEC; n++) rows[n] = NULL;
    const int64_t at = j - key;
    pack_columns_any(rows, count, dtype, s->dim, to + at / PANEL * PANEL * s->dim + at % PANEL, PANEL);
  }
}

/* V tokens [key, end) into D_v panels of `keys` rows. */
static void pack_v(const source *s, int64_t key, int64_t end, int64_t keys, float *to) {
  float buffer[576];
  for (int64_t j = key; j < end; j++) {
    fa_dtype dtype;
    const char *row = source_row(s, j, &dtype, buffer);
    pack_rows_any(row, dtype, s->dim, to + (j - key) * PANEL, keys * PANEL);
  }
}

#endif
