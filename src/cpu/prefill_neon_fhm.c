/* Prefill attention of fp16 with NEON's widening multiply-add (FMLAL and FMLAL2, FEAT_FHM of Armv8.2 and
 * later): fp16 products, exact, added in fp32 with one rounding.
 *
 *   s = rules(scale * q k^T),  p = exp(s - m),  l = sum p,  o = sum p v / l,  lse = m + ln l
 *
 * Level one: the items and key blocks of prefill_tiles.h, packed in 16 bits (prefill_halves.h), so that
 * K and V take half the room and half the loads of prefill_neon. Level two: 6 rows x 16 keys (or values) a
 * register tile: 24 accumulators of 4 lanes, 2 registers of K or V and a broadcast of Q or P. A step of D
 * loads 8 times for 24 products. Q lies as [ROWS][D], P as [ROWS][MOST_KEYS]. fp16 has no number that these
 * products do not take.
 *
 * Bound: arithmetic, 2 S_q S_kv (D + D_v) operations a head at FMLAL's rate. Right under an emulator
 * (emulated); its speed: not run. */
#include "cpu/lanes_neon.h"

enum { ROWS = 6, ITEM_STEP = ROWS, DEPTH = 1 };

#include "cpu/prefill_halves.h"

/* ----------------------------------------------------------------- packing */

static bool halves_pack_q(const char *rows, int64_t stride, int64_t count, int64_t dim, uint16_t *to) {
  for (int64_t r = 0; r < ROWS; r++, to += dim) {
    if (r < count)
      memcpy(to, rows + r * stride, (size_t)dim * 2);
    else
      memset(to, 0, (size_t)dim * 2);
  }
  return true;
}

/* Rows become columns. */
FA_INLINE void transpose(uint16x8_t x[8]) {
  uint16x8_t y[8];
  /* Three times the first half's elements between the second half's: row i to column i. */
#pragma GCC unroll 4
  for (int time = 0; time < 3; time++) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      y[2 * i] = vzip1q_u16(x[i], x[i + 4]);
      y[2 * i + 1] = vzip2q_u16(x[i], x[i + 4]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) x[i] = y[i];
  }
}

static bool halves_pack_k(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, uint16_t *to) {
  const int64_t stop = fa_round_up(end - key, PANEL);
  for (int64_t n = 0; n < stop; n += 8) {
    const char *rows[8];
    uint16_t *panel = to + n / PANEL * PANEL * dim + n % PANEL;
    for (int64_t i = 0; i < 8; i++) rows[i] = key + n + i < end ? fa_cpu_token(tokens, key + n + i) : NULL;
    for (int64_t d = 0; d < dim; d += 8) {
      uint16x8_t x[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) x[i] = rows[i] ? halves_load(rows[i] + d * 2, dim - d) : vdupq_n_u16(0);
      transpose(x);
      const int64_t columns = fa_min(8, dim - d);
      for (int64_t i = 0; i < columns; i++) vst1q_u16(panel + (d + i) * PANEL, x[i]);
    }
  }
  return true;
}

static bool halves_pack_v(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, int64_t keys,
                          uint16_t *to) {
  const int64_t stop = fa_round_up(end - key, PANEL);
  for (int64_t n = 0; n < stop; n++) {
    const char *row = key + n < end ? fa_cpu_token(tokens, key + n) : NULL;
    for (int64_t d = 0; d < dim; d += 8)
      vst1q_u16(to + d / PANEL * PANEL * keys + n * PANEL + d % PANEL,
                row ? halves_load(row + d * 2, dim - d) : vdupq_n_u16(0));
  }
  return true;
}

/* ---------------------------------------------------------- the register tile */

static void halves_weights(const float *s, int64_t keys, uint16_t *p) {
  for (int64_t r = 0; r < ROWS; r++)
    for (int64_t j = 0; j < keys; j += VEC)
      vst1q_u16(p + r * MOST_KEYS + j, vec_to_f16(vec_load(s + r * SCORE_STRIDE + j)));
}

/* acc += x y over `steps` elements of ROWS rows, `stride` apart, for n vectors of columns. */
FA_INLINE void multiply(vec acc[ROWS][2], const uint16_t *restrict x, int64_t stride,
                        const uint16_t *restrict y, int64_t steps, int n) {
  for (int64_t i = 0; i < steps; i++, x++, y += PANEL) {
    const float16x8_t y0 = vreinterpretq_f16_u16(vld1q_u16(y));
    const float16x8_t y1 = n == 2 ? vreinterpretq_f16_u16(vld1q_u16(y + 8)) : y0;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const float16x4_t a = vreinterpret_f16_u16(vcreate_u16(x[r * stride]));
      acc[r][0].low = vfmlalq_lane_low_f16(acc[r][0].low, y0, a, 0);
      acc[r][0].high = vfmlalq_lane_high_f16(acc[r][0].high, y0, a, 0);
      if (n == 2) acc[r][1].low = vfmlalq_lane_low_f16(acc[r][1].low, y1, a, 0);
      if (n == 2) acc[r][1].high = vfmlalq_lane_high_f16(acc[r][1].high, y1, a, 0);
    }
  }
}

static void halves_scores(const uint16_t *q, const uint16_t *k, int64_t dim, float scale, float *s) {
  vec acc[ROWS][2];
  const vec factor = vec_set(scale);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = vec_zero();
  multiply(acc, q, dim, k, dim, 2);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    vec_store(s + r * SCORE_STRIDE, vec_mul(acc[r][0], factor));
    vec_store(s + r * SCORE_STRIDE + VEC, vec_mul(acc[r][1], factor));
  }
}

FA_INLINE void halves_values(const uint16_t *p, const uint16_t *v, int64_t keys, const float *shrink,
                             float *o, int64_t o_stride, int n) {
  vec acc[ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    const vec factor = vec_set(shrink[r]);
    acc[r][0] = vec_mul(vec_load(o + r * o_stride), factor);
    if (n == 2) acc[r][1] = vec_mul(vec_load(o + r * o_stride + VEC), factor);
  }
  multiply(acc, p, MOST_KEYS, v, keys, n);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    vec_store(o + r * o_stride, acc[r][0]);
    if (n == 2) vec_store(o + r * o_stride + VEC, acc[r][1]);
  }
}

fa_status fa_prefill_neon_fhm_prepare(fa_plan *plan) { return halves_prepare(plan); }

fa_status fa_prefill_neon_fhm_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                  fa_stream stream) {
  (void)stream;
  return halves_run(plan, args, workspace);
}
