/* Prefill attention of bf16 with AVX-512's bf16 dot products (VDPBF16PS, of Zen 4 and 5 and of Cooper Lake and later
 * Xeons): pairs of bf16 multiplied and added to fp32, on Zen twice the arithmetic of an fp32 FMA.
 *
 *   s = rules(scale * q k^T),  p = exp(s - m),  l = sum p,  o = sum p v / l,  lse = m + ln l
 *
 * Level one: the items and key blocks of prefill_tiles.h, packed in 16 bits (prefill_halves.h). Level two: 12 rows x 32 keys
 * (or values) a register tile: 24 accumulators, 2 vectors of pairs of K or V and a broadcast pair of Q or P.
 *
 * The instruction takes subnormals as 0, so items with any are done by the fp32 tiles. A product below 2^-126 counts as 0 as
 * well: that is nothing, unless all of V is that small, which is looked for too, or `scale` is beyond LARGEST_SCALE.
 * Infinities and NaN come out as in fp32, and such rows are done by fa_prefill_rows_exact.
 *
 * Bound: arithmetic, 2 S_q S_kv (D + D_v) operations a head at VDPBF16PS's rate. Measured times: docs/performance.md, "CPU
 * prefill". Xeons that have AMX multiply bf16 there: on them this instruction is slower than an fp32 FMA. */
#include "cpu/lanes_avx512.h"

enum { ROWS = 12, ITEM_STEP = ROWS, DEPTH = 2 };

#include "cpu/prefill_halves.h"

#define LARGEST_SCALE 0x1p60f
enum {
  LEAST_OF_V = (127 - 70) << 7, /* 2^-70 as bf16 bits */
  SUBNORMALS = 0x7f,            /* the bits 1 to 0x7f */
  PAIRS = MOST_KEYS / DEPTH     /* of a row of P */
};

/* The values seen so far: where one was subnormal, and the bits of the largest magnitude. */
typedef struct look {
  __mmask32 subnormal;
  __m512i most;
} look;

FA_INLINE look look_begin(void) { return (look){0, _mm512_setzero_si512()}; }

FA_INLINE int look_most(const look *seen) {
  uint16_t most[32];
  int top = 0;
  _mm512_storeu_si512(most, seen->most);
  for (int i = 0; i < 32; i++) top = most[i] > top ? most[i] : top;
  return top;
}

/* 32 elements of a row from d on, 0 from `dim` on; nothing beyond is read. */
FA_INLINE __m512i load_32(const char *row, int64_t d, int64_t dim, look *seen) {
  const __mmask32 some = dim - d >= 32 ? 0xffffffffu : (1u << (dim - d)) - 1u;
  const __m512i x = _mm512_maskz_loadu_epi16(some, row + d * 2);
  const __m512i size = _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
  const __m512i below = _mm512_sub_epi16(size, _mm512_set1_epi16(1)); /* 0 becomes the largest */
  seen->subnormal |= _mm512_cmplt_epu16_mask(below, _mm512_set1_epi16(SUBNORMALS));
  seen->most = _mm512_max_epu16(seen->most, size);
  return x;
}

/* ----------------------------------------------------------------- packing */

/* Pairs d, d + 1 of 16 rows (NULL: of zeros) become vectors; those of `count` rows go to every `stride`-th pair of `to`. */
FA_INLINE void pack_pairs(const char *const rows[VEC], int64_t dim, __mmask16 lanes, int64_t stride, uint16_t *to,
                          look *seen) {
  for (int64_t d = 0; d < dim; d += 32) {
    vec x[VEC];
#pragma GCC unroll 16
    for (int r = 0; r < VEC; r++)
      x[r] = rows[r] ? _mm512_castsi512_ps(load_32(rows[r], d, dim, seen)) : vec_zero();
    vec_transpose(x);
    const int64_t pairs = fa_min(16, fa_ceil_div(dim - d, 2));
    for (int64_t i = 0; i < pairs; i++) _mm512_mask_storeu_ps(to + (d / 2 + i) * stride * 2, lanes, x[i]);
  }
}

static bool halves_pack_q(const char *rows, int64_t stride, int64_t count, int64_t dim, uint16_t *to) {
  look seen = look_begin();
  const char *from[VEC];
  for (int64_t r = 0; r < VEC; r++) from[r] = r < count ? rows + r * stride : NULL;
  pack_pairs(from, dim, (1u << ROWS) - 1u, ROWS, to, &seen);
  return seen.subnormal == 0;
}

static bool halves_pack_k(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, uint16_t *to) {
  look seen = look_begin();
  const int64_t padded = fa_round_up(dim, DEPTH), stop = fa_round_up(end - key, PANEL);
  for (int64_t n = 0; n < stop; n += VEC) {
    const char *from[VEC];
    for (int64_t i = 0; i < VEC; i++) from[i] = key + n + i < end ? fa_cpu_token(tokens, key + n + i) : NULL;
    pack_pairs(from, dim, 0xffffu, PANEL, to + n / PANEL * PANEL * padded + n % PANEL * 2, &seen);
  }
  return seen.subnormal == 0;
}

static bool halves_pack_v(const fa_cpu_tokens *tokens, int64_t key, int64_t end, int64_t dim, int64_t keys, uint16_t *to) {
  look seen = look_begin();
  const int64_t stop = fa_round_up(end - key, PANEL);
  for (int64_t n = 0; n < stop; n += 2) {
    const char *even = key + n < end ? fa_cpu_token(tokens, key + n) : NULL;
    const char *odd = key + n + 1 < end ? fa_cpu_token(tokens, key + n + 1) : NULL;
    for (int64_t d = 0; d < dim; d += PANEL) {
      const __m512i a = even ? load_32(even, d, dim, &seen) : _mm512_setzero_si512();
      const __m512i b = odd ? load_32(odd, d, dim, &seen) : _mm512_setzero_si512();
      uint16_t *pairs = to + d * keys + n * PANEL;
      __m512i first, last;
      interleave_pairs(a, b, &first, &last);
      _mm512_storeu_si512(pairs, first);
      _mm512_storeu_si512(pairs + 2 * VEC, last);
    }
  }
  const int most = look_most(&seen);
  return seen.subnormal == 0 && (most == 0 || most >= LEAST_OF_V);
}

/* ---------------------------------------------------------- the register tile */

/* P as [ROWS][PAIRS] pairs. */
static void halves_weights(const float *s, int64_t keys, uint16_t *p) {
  for (int r = 0; r < ROWS; r++)
    for (int64_t j = 0; j < keys; j += PANEL) {
      const float *from = s + r * SCORE_STRIDE + j;
      _mm512_storeu_si512(p + r * DEPTH * PAIRS + j,
                          (__m512i)_mm512_cvtne2ps_pbh(vec_load(from + VEC), vec_load(from)));
    }
}

/* acc += x y over `steps` pairs; pair i of row r is x[i * step + r * row]. */
FA_INLINE void multiply(vec acc[ROWS][2], const uint16_t *restrict x, int64_t row, int64_t step,
                        const uint16_t *restrict y, int64_t steps, int n) {
  for (int64_t i = 0; i < steps; i++, x += step * 2, y += PANEL * 2) {
    const __m512i y0 = _mm512_loadu_si512(y), y1 = n == 2 ? _mm512_loadu_si512(y + 2 * VEC) : y0;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      int pair;
      memcpy(&pair, x + r * row * 2, sizeof pair);
      const __m512i both = _mm512_set1_epi32(pair);
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], (__m512bh)both, (__m512bh)y0);
      if (n == 2) acc[r][1] = _mm512_dpbf16_ps(acc[r][1], (__m512bh)both, (__m512bh)y1);
    }
  }
}

static void halves_scores(const uint16_t *q, const uint16_t *k, int64_t dim, float scale, float *s) {
  vec acc[ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = vec_zero();
  multiply(acc, q, 1, ROWS, k, dim / DEPTH, 2);
  const vec factor = vec_set(scale);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    vec_store(s + r * SCORE_STRIDE, vec_mul(acc[r][0], factor));
    vec_store(s + r * SCORE_STRIDE + VEC, vec_mul(acc[r][1], factor));
  }
}

FA_INLINE void halves_values(const uint16_t *p, const uint16_t *v, int64_t keys, const float *shrink, float *o,
                             int64_t o_stride, int n) {
  vec acc[ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    const vec factor = vec_set(shrink[r]);
    acc[r][0] = vec_mul(vec_load(o + r * o_stride), factor);
    if (n == 2) acc[r][1] = vec_mul(vec_load(o + r * o_stride + VEC), factor);
  }
  multiply(acc, p, PAIRS, 1, v, keys / DEPTH, n);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    vec_store(o + r * o_stride, acc[r][0]);
    if (n == 2) vec_store(o + r * o_stride + VEC, acc[r][1]);
  }
}

fa_status fa_prefill_avx512_bf16_prepare(fa_plan *plan) {
  if (fabsf(plan->problem.scale) > LARGEST_SCALE)
    return fa_fail(FA_ERROR_UNSUPPORTED, "scale is %g; prefill_avx512_bf16 takes at most %g, other kernels any",
                   (double)plan->problem.scale, (double)LARGEST_SCALE);
  return halves_prepare(plan);
}

fa_status fa_prefill_avx512_bf16_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                     fa_stream stream) {
  (void)stream;
  return halves_run(plan, args, workspace);
}
