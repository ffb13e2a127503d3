/* Prefill attention in plain C: the kernel behind every other one, and the exact path of prefill_exact.h.
 *
 *   s = rules(scale * q k^T),  p = 2^-c exp(s - m),  l = sum p,  o = sum p v / l,  lse = m + ln l + c ln 2
 *
 * online over key blocks (m the running row maximum), c with 2^c >= S_kv. Scores, weights and sums are fp32.
 * Every type, every rule. Appended tokens and quantised K, V are just tokens once converted. Splitting the
 * keys (kv_splits) is what the online softmax does in sequence anyway, so a request for splits changes
 * nothing.
 *
 * Exactness beyond the formula, which is what the vector kernels fall back on this file for:
 *   - a masked key is left out: its V row is not touched, so nothing leaks from NaN or infinity there;
 *   - a kept key's weight never falls below 2^-100, so that an infinity in its V row arrives in o as it does
 *     in exact arithmetic, and no product is subnormal, which would be slow (a finite o moves by 2^-60 of the
 *     largest v);
 *   - the factor 2^-c keeps sum p v below the largest v, so that o overflows only where the exact o does.
 *
 * Shapes: q [S_q, D], k [S_kv, D], v [S_kv, D_v] of one (batch entry, query head).
 * Level one: 64 rows x 64 keys, all of it fp32 in scratch: K transposed [D, 64], V [64, D_v], Q [64, D], O
 *   [64, D_v] (128 KB at D = 128). Level two: 4 rows x 8 keys (or 8 values of D_v), eight registers of four
 *   lanes.
 * Bound: arithmetic; 4-lane multiply and add of the baseline instruction set.
 */
#include <stdbool.h>

#include "core/kernel_declarations.h"
#include "cpu/cpu.h"
#include "cpu/exp_lane.h"
#include "cpu/prefill_exact.h"
#include "cpu/score_rules.h"

static const float least_weight = 0x1p-100f;
enum { ROWS = 64, KEYS = 64, STRIP = 4, LANES = 8 };

/* All fp32; widths rounded up to LANES and zero-filled, so that the inner loops have no tails. */
typedef struct tile {
  int64_t dim, dim_v; /* padded: dim_v to LANES; dim is not */
  float *q;           /* [ROWS, dim] */
  float *k;           /* [dim, KEYS] */
  float *v;           /* [KEYS, dim_v] */
  float *o;           /* [ROWS, dim_v] */
  float *s;           /* [STRIP, KEYS] */
  float *m, *l;       /* [ROWS] */
} tile;

static size_t tile_floats(int64_t dim, int64_t dim_v) {
  return (size_t)(ROWS * dim + KEYS * dim + KEYS * dim_v + ROWS * dim_v + STRIP * KEYS + 2 * ROWS);
}

static tile tile_of(const fa_attention_problem *p, void *scratch) {
  tile t;
  t.dim = p->head_dim_qk;
  t.dim_v = fa_round_up(p->head_dim_v, LANES);
  t.q = scratch;
  t.k = t.q + ROWS * t.dim;
  t.v = t.k + t.dim * KEYS;
  t.o = t.v + KEYS * t.dim_v;
  t.s = t.o + ROWS * t.dim_v;
  t.m = t.s + STRIP * KEYS;
  t.l = t.m + ROWS;
  return t;
}

size_t fa_prefill_rows_exact_bytes(const fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  const size_t floats = tile_floats(p->head_dim_qk, fa_round_up(p->head_dim_v, LANES));
  return (floats * sizeof(float) + 63u) & ~(size_t)63u;
}

/* count values from `from`, each times scale, to `to` at a stride. */
static void load_row(float *restrict to, int64_t stride, const void *from, fa_dtype dtype, int64_t count,
                     float scale) {
  switch (dtype) {
    case FA_FLOAT32:
      for (int64_t d = 0; d < count; d++) to[d * stride] = ((const float *)from)[d];
      break;
    case FA_FLOAT16:
      for (int64_t d = 0; d < count; d++) to[d * stride] = fa_f16_to_float(((const uint16_t *)from)[d]);
      break;
    case FA_BFLOAT16:
      for (int64_t d = 0; d < count; d++) to[d * stride] = fa_bf16_to_float(((const uint16_t *)from)[d]);
      break;
    default:
      for (int64_t d = 0; d < count; d++) to[d * stride] = fa_load_float(from, d, dtype) * scale;
      break;
  }
}

static bool is_quantised(fa_dtype dtype) { return dtype == FA_INT8 || dtype == FA_FP8_E4M3; }

/* K (or V) tokens [key, key + keys): value d of token j goes to to[d * dim_stride + j * token_stride]. */
static void load_tokens(const fa_plan *plan, const fa_attention_args *args, const fa_tensor *t,
                        const fa_tensor *t_scale, int64_t b, int64_t kv_head, int64_t dim, int64_t key,
                        int64_t keys, float *to, int64_t dim_stride, int64_t token_stride) {
  const fa_dtype dtype = plan->problem.kv_dtype;
  const fa_cpu_tokens tokens = fa_cpu_tokens_of(plan, args, t, fa_dtype_size(dtype), b, kv_head);
  fa_cpu_tokens scales = tokens;
  if (is_quantised(dtype)) scales = fa_cpu_tokens_of(plan, args, t_scale, sizeof(float), b, kv_head);
  for (int64_t j = 0; j < keys; j++) {
    float scale = 1.0f;
    if (is_quantised(dtype)) memcpy(&scale, fa_cpu_token(&scales, key + j), sizeof scale);
    load_row(to + j * token_stride, dim_stride, fa_cpu_token(&tokens, key + j), dtype, dim, scale);
  }
}

/* Four lanes that the compiler maps to whatever the target has. Neither gcc 12 nor clang 19 keeps a 4 x 8
 * block of sums in registers when it is written as loops over arrays (docs/performance.md, "CPU prefill"). */
typedef float lanes __attribute__((vector_size(16), may_alias));
enum { WIDTH = 4 };

/* s[r][j] = scale * q[r] . k[:, j] for STRIP rows and `keys` keys rounded up to LANES. */
static void scores(const tile *t, const float *q, float scale, int64_t keys) {
  const float *q0 = q, *q1 = q0 + t->dim, *q2 = q1 + t->dim, *q3 = q2 + t->dim;
  for (int64_t j = 0; j < keys; j += LANES) {
    lanes a0 = {0}, b0 = {0}, a1 = {0}, b1 = {0}, a2 = {0}, b2 = {0}, a3 = {0}, b3 = {0};
    const float *k = t->k + j;
    for (int64_t d = 0; d < t->dim; d++, k += KEYS) {
      const lanes a = *(const lanes *)k, b = *(const lanes *)(k + WIDTH);
      a0 += a * q0[d], b0 += b * q0[d];
      a1 += a * q1[d], b1 += b * q1[d];
      a2 += a * q2[d], b2 += b * q2[d];
      a3 += a * q3[d], b3 += b * q3[d];
    }
    lanes *s = (lanes *)(t->s + j);
    s[0] = a0 * scale, s[1] = b0 * scale;
    s += KEYS / WIDTH, s[0] = a1 * scale, s[1] = b1 * scale;
    s += KEYS / WIDTH, s[0] = a2 * scale, s[1] = b2 * scale;
    s += KEYS / WIDTH, s[0] = a3 * scale, s[1] = b3 * scale;
  }
}

/* e^(m - reference), what earlier sums are multiplied by. Like a weight it never falls below least_weight for
 * a row that has kept a key, so that an infinity already in o stays one. */
static float shrink_of(float m, float reference) {
  const float shrink = fa_exp_lane(m - reference);
  return m == -INFINITY ? 0.0f : shrink < least_weight ? least_weight : shrink;
}

/* Turns the first `keys` scores of one row into weights; returns by how much earlier sums shrink. */
static float softmax_row(float *restrict s, int64_t keys, float unit, float *m, float *l) {
  float top = *m;
  for (int64_t j = 0; j < keys; j++) top = s[j] > top ? s[j] : top;
  const float reference = top == -INFINITY ? 0.0f : top;
  float sum[LANES] = {0.0f};
  int64_t j = 0;
  for (; j + LANES <= keys; j += LANES) {
    for (int x = 0; x < LANES; x++) {
      const float p = fa_exp_lane(s[j + x] - reference) * unit;
      const float kept = p < least_weight ? least_weight : p;
      s[j + x] = s[j + x] == -INFINITY ? 0.0f : kept;
    }
    for (int x = 0; x < LANES; x++) sum[x] += s[j + x];
  }
  for (; j < keys; j++) {
    const float p = fa_exp_lane(s[j] - reference) * unit;
    const float kept = p < least_weight ? least_weight : p;
    s[j] = s[j] == -INFINITY ? 0.0f : kept;
    sum[0] += s[j];
  }
  const float shrink = shrink_of(*m, reference);
  *l = *l * shrink + (((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])));
  *m = top;
  return shrink;
}

/* o[r] += s[r] v over the first `keys` keys, none of them masked, for STRIP rows. */
static void values(const tile *t, float *o, int64_t keys) {
  const float *p0 = t->s, *p1 = p0 + KEYS, *p2 = p1 + KEYS, *p3 = p2 + KEYS;
  for (int64_t c = 0; c < t->dim_v; c += LANES) {
    lanes *o0 = (lanes *)(o + c), *o1 = o0 + t->dim_v / WIDTH, *o2 = o1 + t->dim_v / WIDTH,
          *o3 = o2 + t->dim_v / WIDTH;
    lanes a0 = o0[0], b0 = o0[1], a1 = o1[0], b1 = o1[1], a2 = o2[0], b2 = o2[1], a3 = o3[0], b3 = o3[1];
    const float *v = t->v + c;
    for (int64_t j = 0; j < keys; j++, v += t->dim_v) {
      const lanes a = *(const lanes *)v, b = *(const lanes *)(v + WIDTH);
      a0 += a * p0[j], b0 += b * p0[j];
      a1 += a * p1[j], b1 += b * p1[j];
      a2 += a * p2[j], b2 += b * p2[j];
      a3 += a * p3[j], b3 += b * p3[j];
    }
    o0[0] = a0, o0[1] = b0, o1[0] = a1, o1[1] = b1, o2[0] = a2, o2[1] = b2, o3[0] = a3, o3[1] = b3;
  }
}

/* The same for one row whose masked keys have weight 0: they are left out, never multiplied. */
static void values_kept(const tile *t, const float *restrict s, float *restrict o, int64_t keys) {
  for (int64_t j = 0; j < keys; j++) {
    const float p = s[j];
    if (p == 0.0f) continue;
    const float *v = t->v + j * t->dim_v;
    for (int64_t c = 0; c < t->dim_v; c++) o[c] += p * v[c];
  }
}

/* STRIP rows from tile row r0 (the last `STRIP - rows` of them are padding) against keys
 * [key, key + keys). */
static void strip_block(const tile *t, const fa_score_rules *rules, float scale, float unit, int64_t row,
                        int64_t r0, int64_t rows, int64_t key, int64_t keys) {
  float *o = t->o + r0 * t->dim_v;
  scores(t, t->q + r0 * t->dim, scale, keys);
  fa_score_rules_apply(rules, t->s, KEYS, row + r0, rows, key, keys);
  fa_score_band_apply(rules, t->s, KEYS, row + r0, rows, key, keys);
  for (int64_t r = rows; r < STRIP; r++)
    for (int64_t j = 0; j < keys; j++) t->s[r * KEYS + j] = 0.0f;

  bool all_kept = true;
  for (int64_t r = 0; r < rows; r++) {
    float *s = t->s + r * KEYS;
    bool kept = true;
    for (int64_t j = 0; j < keys; j++) kept = kept & (s[j] != -INFINITY);
    all_kept = all_kept & kept;
    const float shrink = softmax_row(s, keys, unit, t->m + r0 + r, t->l + r0 + r);
    if (shrink != 1.0f)
      for (int64_t c = 0; c < t->dim_v; c++) o[r * t->dim_v + c] *= shrink;
  }
  if (all_kept) values(t, o, keys);
  else
    for (int64_t r = 0; r < rows; r++) values_kept(t, t->s + r * KEYS, o + r * t->dim_v, keys);
}

/* l and m of a finished row to o and lse. */
static void finish_row(const fa_plan *plan, const fa_attention_args *args, const tile *t, int64_t b,
                       int64_t h, int64_t i, int64_t r, float unit) {
  const fa_attention_problem *p = &plan->problem;
  float m = t->m[r], l = t->l[r], shrink = 1.0f;
  if (p->has_sinks) {
    const float sink = args->sinks[h], top = sink > m ? sink : m;
    if (top != -INFINITY) {
      shrink = shrink_of(m, top);
      l = l * shrink + fa_exp_lane(sink - top) * unit;
      m = top;
    }
  }
  const fa_cpu_rows o_rows = fa_cpu_q_rows(plan, args, &args->o, b, h);
  char *to = o_rows.data + i * o_rows.stride;
  const float *o = t->o + r * t->dim_v;
  for (int64_t d = 0; d < p->head_dim_v; d++)
    fa_store_float(to, d, l == 0.0f ? 0.0f : o[d] * shrink / l, p->dtype);
  if (p->has_lse) fa_cpu_lse_row(plan, args, b, h)[i] = l == 0.0f ? -INFINITY : m + logf(l / unit);
}

void fa_prefill_rows_exact(const fa_plan *plan, const fa_attention_args *args, int64_t b, int64_t h,
                           int64_t row, int64_t rows, void *scratch) {
  const fa_attention_problem *p = &plan->problem;
  const tile t = tile_of(p, scratch);
  const fa_score_rules rules = fa_score_rules_of(plan, args, b, h);
  const fa_cpu_rows q_rows = fa_cpu_q_rows(plan, args, &args->q, b, h);
  int exponent = 0;
  while (((int64_t)1 << exponent) < rules.seqlen_kv) exponent++;
  const float unit = ldexpf(1.0f, -exponent);

  memset(t.v, 0, (size_t)(KEYS * t.dim_v) * sizeof(float)); /* the padding of D_v stays 0 */
  for (int64_t block = row; block < row + rows; block += ROWS) {
    const int64_t count = fa_min(ROWS, row + rows - block);
    memset(t.q, 0, (size_t)(ROWS * t.dim) * sizeof(float));
    memset(t.o, 0, (size_t)(ROWS * t.dim_v) * sizeof(float));
    for (int64_t r = 0; r < count; r++) {
      load_row(t.q + r * t.dim, 1, q_rows.data + (block + r) * q_rows.stride, p->dtype, t.dim, 1.0f);
      t.m[r] = -INFINITY;
      t.l[r] = 0.0f;
    }
    const fa_key_range range = fa_band_keys(rules.band, block, count, rules.seqlen_kv);
    for (int64_t key = range.begin; key < range.end; key += KEYS) {
      const int64_t keys = fa_min(KEYS, range.end - key);
      memset(t.k, 0, (size_t)(t.dim * KEYS) * sizeof(float));
      load_tokens(plan, args, &args->k, &args->k_scale, b, h / plan->group, p->head_dim_qk, key, keys, t.k,
                  KEYS, 1);
      load_tokens(plan, args, &args->v, &args->v_scale, b, h / plan->group, p->head_dim_v, key, keys, t.v, 1,
                  t.dim_v);
      for (int64_t r0 = 0; r0 < count; r0 += STRIP) {
        const int64_t strip = fa_min(STRIP, count - r0);
        if (fa_band_block(rules.band, block + r0, strip, key, keys) == FA_BLOCK_SKIP) continue;
        strip_block(&t, &rules, p->scale, unit, block, r0, strip, key, keys);
      }
    }
    for (int64_t r = 0; r < count; r++) finish_row(plan, args, &t, b, h, block + r, r, unit);
  }
}

/* ------------------------------------------------------------------ the kernel */

fa_status fa_prefill_c_prepare(fa_plan *plan) {
  plan->tiles = (fa_tiles){ROWS, KEYS, STRIP, LANES};
  plan->kv_splits = 1;
  plan->kernel_workspace_bytes = (size_t)plan->context->threads * fa_prefill_rows_exact_bytes(plan);
  return FA_OK;
}

typedef struct job {
  const fa_plan *plan;
  const fa_attention_args *args;
  char *workspace;
  int64_t blocks; /* row blocks a head */
} job;

static void job_body(void *shared, fa_cpu_work *work, int thread) {
  const job *j = shared;
  const fa_attention_problem *p = &j->plan->problem;
  char *scratch = j->workspace + (size_t)thread * fa_prefill_rows_exact_bytes(j->plan);
  for (int64_t item = fa_cpu_take(work); item >= 0; item = fa_cpu_take(work)) {
    /* The last rows first: under a causal mask they are the longest. */
    const int64_t block = j->blocks - 1 - item / (p->batch * p->heads_q);
    const int64_t b = item / p->heads_q % p->batch, h = item % p->heads_q;
    const int64_t seqlen = fa_cpu_seqlen_q(j->plan, j->args, b), row = block * ROWS;
    if (row < seqlen) fa_prefill_rows_exact(j->plan, j->args, b, h, row, fa_min(ROWS, seqlen - row), scratch);
  }
}

fa_status fa_prefill_c_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                           fa_stream stream) {
  (void)stream;
  const fa_attention_problem *p = &plan->problem;
  job j = {plan, args, workspace, fa_ceil_div(p->max_seqlen_q, ROWS)};
  fa_cpu_parallel(plan->context->threads, j.blocks * p->batch * p->heads_q, job_body, &j);
  return FA_OK;
}
