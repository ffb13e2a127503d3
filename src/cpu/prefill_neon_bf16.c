/* Prefill attention of bf16 with NEON's bf16 matrix product (BFMMLA, of Armv8.6 and 9, Neoverse V1 and N2):
 * 2 x 4 times 4 x 2 into 2 x 2 of fp32, four times the arithmetic of an fp32 FMA.
 *
 *   s = rules(scale * q k^T),  p = exp(s - m),  l = sum p,  o = sum p v / l,  lse = m + ln l
 *
 * Level one: the items and key blocks of prefill_tiles.h, packed in 16 bits (prefill_halves.h). Level
 * two: 6 rows x 16 keys (or values) a register tile: 24 accumulators of 2 x 2, 3 registers of Q or P and one
 * of K or V at a time. 4 of D, or 4 keys, load 11 times for 24 products. Q and P lie as [D or keys / 4][ROWS]
 * [4], so that a register is two rows.
 *
 * BFMMLA rounds its fp32 sums to odd: an error of up to one unit in the last place instead of a half, 2^-23
 * of a sum, where the weights are rounded to 2^-9. It takes subnormals as 0, so items with any are done by
 * the fp32 tiles. A product below 2^-126 counts as 0 as well: that is nothing, unless all of V is that small,
 * which is looked for too, or `scale` is beyond LARGEST_SCALE. Infinities and NaN come out as in fp32, and
 * such rows are done by fa_prefill_rows_exact.
 *
 * Bound: arithmetic, 2 S_q S_kv (D + D_v) operations a head at BFMMLA's rate. Right under an emulator
 * (emulated); its speed: not run. */
#include "cpu/lanes_neon.h"

enum { ROWS = 6, ITEM_STEP = ROWS, DEPTH = 4, PAIRS = ROWS / 2 };

#include "cpu/prefill_halves.h"

#define LARGEST_SCALE 0x1p60f
enum {
  LEAST_OF_V = (127 - 70) << 7, /* 2^-70 as bf16 bits */
  SUBNORMALS = 0x7f             /* the bits 1 to 0x7f */
};

/* The values seen so far: where one was subnormal, and the bits of the largest magnitude. */
typedef struct look {
  uint16x8_t subnormal, most;
} look;

FA_INLINE look look_begin(void) { return (look){vdupq_n_u16(0), vdupq_n_u16(0)}; }

FA_INLINE uint16x8_t look_at(look *seen, uint16x8_t x) {
  const uint16x8_t size = vandq_u16(x, vdupq_n_u16(0x7fff));
  const uint16x8_t below = vsubq_u16(size, vdupq_n_u16(1)); /* 0 becomes the largest */
  seen->subnormal = vorrq_u16(seen->subnormal, vcltq_u16(below, vdupq_n_u16(SUBNORMALS)));
  seen->most = vmaxq_u16(seen->most, size);
  return x;
}

/* ----------------------------------------------------------------- packing */

/* Fours of a row (NULL: of zeros) to every `stride`-th four of `to`. */
FA_INLINE void pack_fours(const char *row, int64_t dim, uint16_t *to, int64_t stride, look *seen) {
  for (int64_t d = 0; d < dim; d += 8, to += 8 * stride) {
    const uint16x8_t x = row ? look_at(seen, halves_load(row + d * 2, dim - d)) : vdupq_n_u16(0);
    vst1_u16(to, vget_low_u16(x));
    if (d + 4 < dim) vst1_u16(to + 4 * stride, vget_high_u16(x));
  }
}

static bool halves_pack_q(const char *rows, int64_t stride, int64_t count, int64_t dim, uint16_t *to) {
  look seen = look_begin();
  for (int64_t r = 0; r < ROWS; r++)
    pack_fours(r < count ? rows + r * stride : NULL, dim, to + r * 4, ROWS, &seen);
  return vmaxvq_u16(seen.subnormal) == 0;
}

static bool halves_pack_k(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, uint16_t *to) {
  look seen = look_begin();
  const int64_t padded = fa_round_up(dim, DEPTH), stop = fa_round_up(end - key, PANEL);
  for (int64_t n = 0; n < stop; n++)
    pack_fours(key + n < end ? fa_cpu_token(tokens, key + n) : NULL, dim,
               to + n / PANEL * PANEL * padded + n % PANEL * 4, PANEL, &seen);
  return vmaxvq_u16(seen.subnormal) == 0;
}

static bool halves_pack_v(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, int64_t keys,
                          uint16_t *to) {
  look seen = look_begin();
  const int64_t stop = fa_round_up(end - key, PANEL);
  for (int64_t n = 0; n < stop; n += 4) {
    const char *rows[4];
    for (int64_t i = 0; i < 4; i++) rows[i] = key + n + i < end ? fa_cpu_token(tokens, key + n + i) : NULL;
    for (int64_t d = 0; d < dim; d += 8) {
      uint16x8x4_t x;
      for (int i = 0; i < 4; i++)
        x.val[i] = rows[i] ? look_at(&seen, halves_load(rows[i] + d * 2, dim - d)) : vdupq_n_u16(0);
      vst4q_u16(to + d / PANEL * PANEL * keys + n * PANEL + d % PANEL * 4, x);
    }
  }
  const int most = vmaxvq_u16(seen.most);
  return vmaxvq_u16(seen.subnormal) == 0 && (most == 0 || most >= LEAST_OF_V);
}

/* ---------------------------------------------------------- the register tile */

static void halves_weights(const float *s, int64_t keys, uint16_t *p) {
  for (int64_t j = 0; j < keys; j += 4) {
#pragma GCC unroll 8
    for (int r = 0; r < PAIRS; r++, p += 8) {
      const float *row = s + 2 * r * SCORE_STRIDE + j;
      const bfloat16x8_t first = vcvtq_low_bf16_f32(vld1q_f32(row));
      vst1q_u16(p, vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(first, vld1q_f32(row + SCORE_STRIDE))));
    }
  }
}

/* acc += x y over `steps` fours, for n * 4 pairs of columns. */
FA_INLINE void multiply(float32x4_t acc[PAIRS][8], const uint16_t *restrict x, const uint16_t *restrict y,
                        int64_t steps, int n) {
  for (int64_t i = 0; i < steps; i++, x += ROWS * 4, y += PANEL * 4) {
    bfloat16x8_t a[PAIRS];
#pragma GCC unroll 8
    for (int r = 0; r < PAIRS; r++) a[r] = vreinterpretq_bf16_u16(vld1q_u16(x + 8 * r));
#pragma GCC unroll 8
    for (int c = 0; c < 4 * n; c++) {
      const bfloat16x8_t b = vreinterpretq_bf16_u16(vld1q_u16(y + 8 * c));
#pragma GCC unroll 8
      for (int r = 0; r < PAIRS; r++) acc[r][c] = vbfmmlaq_f32(acc[r][c], a[r], b);
    }
  }
}

static void halves_scores(const uint16_t *q, const uint16_t *k, int64_t dim, float scale, float *s) {
  float32x4_t acc[PAIRS][8];
#pragma GCC unroll 8
  for (int r = 0; r < PAIRS; r++)
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) acc[r][c] = vdupq_n_f32(0.0f);
  multiply(acc, q, k, dim / 4, 2);
#pragma GCC unroll 8
  for (int r = 0; r < PAIRS; r++)
#pragma GCC unroll 8
    for (int c = 0; c < 8; c += 2) {
      float *to = s + 2 * r * SCORE_STRIDE + 2 * c;
      vst1q_f32(to, vmulq_n_f32(neon_zip_pairs(acc[r][c], acc[r][c + 1], 0), scale));
      vst1q_f32(to + SCORE_STRIDE, vmulq_n_f32(neon_zip_pairs(acc[r][c], acc[r][c + 1], 1), scale));
    }
}

FA_INLINE void halves_values(const uint16_t *p, const uint16_t *v, int64_t keys, const float *shrink,
                             float *o, int64_t o_stride, int n) {
  float32x4_t acc[PAIRS][8];
#pragma GCC unroll 8
  for (int r = 0; r < PAIRS; r++)
#pragma GCC unroll 8
    for (int c = 0; c < 4 * n; c += 2) {
      const float *from = o + 2 * r * o_stride + 2 * c;
      const float32x4_t a = vmulq_n_f32(vld1q_f32(from), shrink[2 * r]);
      const float32x4_t b = vmulq_n_f32(vld1q_f32(from + o_stride), shrink[2 * r + 1]);
      acc[r][c] = neon_zip_pairs(a, b, 0);
      acc[r][c + 1] = neon_zip_pairs(a, b, 1);
    }
  multiply(acc, p, v, keys / 4, n);
#pragma GCC unroll 8
  for (int r = 0; r < PAIRS; r++)
#pragma GCC unroll 8
    for (int c = 0; c < 4 * n; c += 2) {
      float *to = o + 2 * r * o_stride + 2 * c;
      vst1q_f32(to, neon_zip_pairs(acc[r][c], acc[r][c + 1], 0));
      vst1q_f32(to + o_stride, neon_zip_pairs(acc[r][c], acc[r][c + 1], 1));
    }
}

fa_status fa_prefill_neon_bf16_prepare(fa_plan *plan) {
  if (fabsf(plan->problem.scale) > LARGEST_SCALE)
    return fa_fail(FA_ERROR_UNSUPPORTED, "scale is %g; prefill_neon_bf16 takes at most %g, other kernels any",
                   (double)plan->problem.scale, (double)LARGEST_SCALE);
  return halves_prepare(plan);
}

fa_status fa_prefill_neon_bf16_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                   fa_stream stream) {
  (void)stream;
  return halves_run(plan, args, workspace);
}
