/* The passes of baseline_rows.h as static inline code; the including file says for which instruction set and names
 * the table. Loops are written so that they vectorise; where compilers do not manage (maximum, fp16), intrinsics. */
#ifndef FA_CPU_BASELINE_ROW_PASSES_H
#define FA_CPU_BASELINE_ROW_PASSES_H

#include "cpu/baseline_rows.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum { LANES = 16 };

/* ---------------------------------------------------------------- to and from fp32 */

static inline uint16_t bf16_rounded(float value) {
  const uint32_t bits = fa_float_bits(value);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) >> 16);
}

static inline void load_f16(float *restrict to, const uint16_t *restrict from, int64_t count) {
  int64_t j = 0;
#if defined(__AVX512F__)
  for (; j + 16 <= count; j += 16)
    _mm512_storeu_ps(to + j, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(from + j))));
#elif defined(__F16C__)
  for (; j + 8 <= count; j += 8)
    _mm256_storeu_ps(to + j, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + j))));
#endif
  for (; j < count; j++) to[j] = fa_score_f16(from[j]);
}

static inline void store_f16(uint16_t *restrict to, const float *restrict from, int64_t count) {
  int64_t j = 0;
#if defined(__AVX512F__)
  for (; j + 16 <= count; j += 16)
    _mm256_storeu_si256((__m256i *)(void *)(to + j),
                        _mm512_cvtps_ph(_mm512_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  for (; j + 8 <= count; j += 8)
    _mm_storeu_si128((__m128i *)(void *)(to + j),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
  for (; j < count; j++) to[j] = fa_f16_from_float(from[j]);
}

static inline void load_row(fa_dtype dtype, float *restrict to, const void *restrict from, int64_t first,
                            int64_t count) {
  if (dtype == FA_FLOAT32) memcpy(to, (const float *)from + first, (size_t)count * sizeof(float));
  else if (dtype == FA_FLOAT16) load_f16(to, (const uint16_t *)from + first, count);
  else
    for (int64_t j = 0; j < count; j++) to[j] = fa_bf16_to_float(((const uint16_t *)from)[first + j]);
}

static inline void store_row(fa_dtype dtype, void *restrict to, int64_t first, const float *restrict from,
                             int64_t count) {
  if (dtype == FA_FLOAT32) memcpy((float *)to + first, from, (size_t)count * sizeof(float));
  else if (dtype == FA_FLOAT16) store_f16((uint16_t *)to + first, from, count);
  else
    for (int64_t j = 0; j < count; j++) ((uint16_t *)to)[first + j] = bf16_rounded(from[j]);
}

/* ------------------------------------------------------------------------ softmax */

/* NaN is passed over here and comes back through the exponential. */
static inline float row_maximum(const float *s, int64_t count) {
  float top[LANES], m = -INFINITY;
  int64_t j = 0;
  for (int l = 0; l < LANES; l++) top[l] = -INFINITY;
#if defined(__AVX512F__)
  __m512 m0 = _mm512_set1_ps(-INFINITY), m1 = m0;
  for (; j + 32 <= count; j += 32) {
    m0 = _mm512_max_ps(_mm512_loadu_ps(s + j), m0);
    m1 = _mm512_max_ps(_mm512_loadu_ps(s + j + 16), m1);
  }
  _mm512_storeu_ps(top, _mm512_max_ps(m0, m1));
#else
  for (; j + LANES <= count; j += LANES)
    for (int l = 0; l < LANES; l++) top[l] = s[j + l] > top[l] ? s[j + l] : top[l];
#endif
  for (; j < count; j++) m = s[j] > m ? s[j] : m;
  for (int l = 0; l < LANES; l++) m = top[l] > m ? top[l] : m;
  return m;
}

/* s = exp(s - m); returns the sum. */
static inline float row_exponentials(float *s, int64_t count, float m) {
  float part[LANES] = {0}, sum = 0.0f;
  int64_t j = 0;
#if defined(__AVX512F__)
  /* 2^y = 2^n 2^r with n = round(y) and a polynomial (that of Cephes) in r = y - n; relative error 2e-7. */
  const __m512 log2e = _mm512_set1_ps(FA_EXP_LOG2E), least = _mm512_set1_ps(-150.0f), bias = _mm512_set1_ps(-m);
  __m512 total = _mm512_setzero_ps();
  for (; j + 16 <= count; j += 16) {
    /* The operand order of max keeps NaN; exp2 of -150 and below is 0. */
    const __m512 x = _mm512_add_ps(_mm512_loadu_ps(s + j), bias);
    const __m512 y = _mm512_max_ps(least, _mm512_mul_ps(x, log2e));
    const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r = _mm512_sub_ps(y, n);
    __m512 p = _mm512_set1_ps(1.535336188e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339887440e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618437357e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550332471e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264791e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931472029e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    const __m512 e = _mm512_scalef_ps(p, n);
    _mm512_storeu_ps(s + j, e);
    total = _mm512_add_ps(total, e);
  }
  _mm512_storeu_ps(part, total);
#else
  for (; j + LANES <= count; j += LANES) {
    for (int l = 0; l < LANES; l++) {
      s[j + l] = fa_exp_lane(s[j + l] - m);
      part[l] += s[j + l];
    }
  }
#endif
  for (; j < count; j++) {
    s[j] = fa_exp_lane(s[j] - m);
    sum += s[j];
  }
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) part[l] += part[l + width];
  return sum + part[0];
}

/* s = exp(s - lse); returns lse. A row without any key gives zeros, and the sink or -infinity. */
static inline float row_softmax(float *s, int64_t count, const float *sink) {
  float m = row_maximum(s, count);
  if (sink && *sink > m) m = *sink;
  if (m == -INFINITY) m = 0.0f; /* all weights become 0, NaN stays */
  float sum = row_exponentials(s, count, m);
  if (sink) sum += fa_exp_lane(*sink - m);
  if (sum == 0.0f) return -INFINITY;
  const float factor = 1.0f / sum;
  for (int64_t j = 0; j < count; j++) s[j] *= factor;
  return m + logf(sum);
}

static inline __attribute__((always_inline)) float softmax_of(fa_dtype dtype, void *row, int64_t keys,
                                                              const fa_score_rules *rules, int64_t query,
                                                              const float *sink, float *scratch) {
  const int64_t size = dtype == FA_FLOAT32 ? 4 : 2;
  const fa_key_range kept = fa_score_band_row(rules, query, 0, keys);
  const int64_t count = kept.end - kept.begin;
  float *s = dtype == FA_FLOAT32 ? (float *)row + kept.begin : scratch;
  if (dtype != FA_FLOAT32) load_row(dtype, s, row, kept.begin, count);
  if (rules->any) fa_score_rules_apply_row(rules, s, query, kept.begin, count);
  const float lse = row_softmax(s, count, sink);
  if (dtype != FA_FLOAT32) store_row(dtype, row, kept.begin, s, count);
  memset(row, 0, (size_t)(kept.begin * size));
  memset((char *)row + kept.end * size, 0, (size_t)((keys - kept.end) * size));
  return lse;
}

static float pass_softmax(fa_dtype dtype, void *row, int64_t keys, const fa_score_rules *rules, int64_t query,
                          const float *sink, float *scratch) {
  switch (dtype) {
    case FA_FLOAT16: return softmax_of(FA_FLOAT16, row, keys, rules, query, sink, scratch);
    case FA_BFLOAT16: return softmax_of(FA_BFLOAT16, row, keys, rules, query, sink, scratch);
    default: return softmax_of(FA_FLOAT32, row, keys, rules, query, sink, scratch);
  }
}

/* ------------------------------------------------------------ a framework's passes */

/* Element-wise passes go through a piece that stays in L1. */
enum { PIECE = 512 };

#define FOR_PIECES(dtype, row, keys, piece, body)                         \
  for (int64_t first = 0; first < (keys); first += PIECE) {               \
    const int64_t count = fa_min(PIECE, (keys) - first);                  \
    load_row(dtype, piece, row, first, count);                            \
    body                                                                  \
    store_row(dtype, row, first, piece, count);                           \
  }

static void pass_scale(fa_dtype dtype, void *row, int64_t keys, float factor) {
  float piece[PIECE];
  FOR_PIECES(dtype, row, keys, piece, for (int64_t j = 0; j < count; j++) piece[j] *= factor;)
}

static void pass_softcap(fa_dtype dtype, void *row, int64_t keys, float cap) {
  float piece[PIECE];
  FOR_PIECES(dtype, row, keys, piece, for (int64_t j = 0; j < count; j++) piece[j] = cap * fa_tanh_lane(piece[j] / cap);)
}

static void pass_add(fa_dtype dtype, void *row, const void *mask_row, int64_t keys) {
  float piece[PIECE], other[PIECE];
  FOR_PIECES(dtype, row, keys, piece, load_row(dtype, other, mask_row, first, count);
             for (int64_t j = 0; j < count; j++) piece[j] += other[j];)
}

static float pass_softmax_wide(fa_dtype dtype, const void *row, float *probabilities, int64_t keys,
                               const float *sink) {
  if (probabilities != row) load_row(dtype, probabilities, row, 0, keys); /* fp32 works in place */
  return row_softmax(probabilities, keys, sink);
}

static void pass_narrow(fa_dtype dtype, void *row, const float *probabilities, int64_t keys) {
  store_row(dtype, row, 0, probabilities, keys);
}

static void pass_mask(fa_dtype dtype, void *mask_row, int64_t keys, const fa_score_rules *rules, int64_t query,
                      float *scratch) {
  const fa_key_range kept = fa_score_band_row(rules, query, 0, keys);
  for (int64_t j = 0; j < keys; j++) scratch[j] = j >= kept.begin && j < kept.end ? 0.0f : -INFINITY;
  if (rules->any) fa_score_rules_apply_row(rules, scratch + kept.begin, query, kept.begin, kept.end - kept.begin);
  store_row(dtype, mask_row, 0, scratch, keys);
}

#define FA_BASELINE_ROWS \
  {pass_softmax, pass_scale, pass_softcap, pass_add, pass_softmax_wide, pass_narrow, pass_mask}

#endif
