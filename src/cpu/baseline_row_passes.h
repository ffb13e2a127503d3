/* The passes of baseline_rows.h as static inline code; the including file says for which instruction set and
 * names the table. Loops are written so that they vectorise; where compilers do not manage (maximum, fp16),
 * intrinsics. */
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
    _mm256_storeu_si256(
        (__m256i *)(void *)(to + j),
        _mm512_cvtps_ph(_mm512_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  for (; j + 8 <= count; j += 8)
    _mm_storeu_si128(
        (__m128i *)(void *)(to + j),
        _mm256_cvtps_ph(_mm256_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
  for (; j < count; j++) to[j] = fa_f16_from_float(from[j]);
}

static inline void load_row(fa_dtype dtype, float *restrict to, const void *restrict from, int64_t first,
                            int64_t count) {
  if (dtype == FA_FLOAT32)
    memcpy(to, (const float *)from + first, (size_t)count * sizeof(float));
  else if (dtype == FA_FLOAT16)
    load_f16(to, (const uint16_t *)from + first, count);
  else
    for (int64_t j = 0; j < count; j++) to[j] = fa_bf16_to_float(((const uint16_t *)from)[first + j]);
}

static inline void store_row(fa_dtype dtype, void *restrict to, int64_t first, const float *restrict from,
                             int64_t count) {
  if (dtype == FA_FLOAT32)
    memcpy((float *)to + first, from, (size_t)count * sizeof(float));
  else if (dtype == FA_FLOAT16)
    store_f16((uint16_t *)to + first, from, count);
  else
    for (int64_t j = 0; j < count; j++) ((uint16_t *)to)[first + j] = bf16_rounded(from[j]);
}

/* ------------------------------------------------------------------------ softmax */

#if defined(__AVX512F__)
static inline __attribute__((always_inline)) __m512 load_lanes(fa_dtype dtype, const void *from, int64_t j) {
  if (dtype == FA_FLOAT32) return _mm512_loadu_ps((const float *)from + j);
  const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)from + j));
  if (dtype == FA_FLOAT16) return _mm512_cvtph_ps(halves);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* x is no NaN. */
static inline __attribute__((always_inline)) void store_lanes(fa_dtype dtype, void *to, int64_t j, __m512 x) {
  if (dtype == FA_FLOAT32) {
    _mm512_storeu_ps((float *)to + j, x);
    return;
  }
  __m256i halves;
  if (dtype == FA_FLOAT16) {
    halves = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  } else {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
  _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)to + j), halves);
}

/* 2^y, y <= 0, as exact as P's type can show: 2^y = 2^floor(y) 2^r, r = y - floor(y), with minimax
 * polynomials of relative error 7.5e-5 (bf16), 2.6e-6 (fp16), 7.5e-8 (fp32). 0 for -infinity, NaN for NaN. */
static inline __attribute__((always_inline)) __m512 exp2_lanes(fa_dtype dtype, __m512 y) {
  static const float bf16[] = {7.802452266e-02f, 2.260671554e-01f, 6.958335405e-01f, 9.999252186e-01f};
  static const float f16[] = {1.353416791e-02f, 5.201146062e-02f, 2.414427569e-01f, 6.930038345e-01f,
                              1.000002593e+00f};
  static const float f32[] = {1.877576673e-03f, 8.989340095e-03f, 5.582631805e-02f,
                              2.401536170e-01f, 6.931530732e-01f, 9.999999251e-01f};
  const float *c = dtype == FA_FLOAT32 ? f32 : dtype == FA_FLOAT16 ? f16 : bf16;
  const int degree = dtype == FA_FLOAT32 ? 5 : dtype == FA_FLOAT16 ? 4 : 3;
  /* Below the normal numbers: 0 at once, since a vscalefps that underflows takes a hundred cycles. Keeps NaN.
   */
  const __mmask16 normal = _mm512_cmp_ps_mask(y, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  const __m512 r = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(c[0]);
  for (int n = 1; n <= degree; n++) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c[n]));
  return _mm512_maskz_scalef_ps(normal, p, y);
}
#endif

/* The largest of `count` elements of `from` from `first` on, which go to `to` as fp32 on the way (unless they
 * are there). NaN is passed over here and comes back through the exponential. */
static inline __attribute__((always_inline)) float load_maximum(fa_dtype dtype, float *to, const void *from,
                                                                int64_t first, int64_t count) {
  float top[LANES], m = -INFINITY;
  int64_t j = 0;
  for (int l = 0; l < LANES; l++) top[l] = -INFINITY;
#if defined(__AVX512F__)
  __m512 m0 = _mm512_set1_ps(-INFINITY), m1 = m0;
  for (; j + 32 <= count; j += 32) {
    const __m512 x0 = load_lanes(dtype, from, first + j), x1 = load_lanes(dtype, from, first + j + 16);
    if (dtype != FA_FLOAT32) {
      _mm512_storeu_ps(to + j, x0);
      _mm512_storeu_ps(to + j + 16, x1);
    }
    m0 = _mm512_max_ps(x0, m0);
    m1 = _mm512_max_ps(x1, m1);
  }
  _mm512_storeu_ps(top, _mm512_max_ps(m0, m1));
#endif
  const int64_t rest = j;
  if ((const char *)to != (const char *)from + (size_t)first * fa_dtype_size(dtype))
    load_row(dtype, to + rest, from, first + rest, count - rest);
  for (; j + LANES <= count; j += LANES)
    for (int l = 0; l < LANES; l++) top[l] = to[j + l] > top[l] ? to[j + l] : top[l];
  for (; j < count; j++) m = to[j] > m ? to[j] : m;
  for (int l = 0; l < LANES; l++) m = top[l] > m ? top[l] : m;
  return m;
}

/* s = exp(s - m), for P of dtype; returns the sum. */
static inline __attribute__((always_inline)) float exponentials(fa_dtype dtype, float *s, int64_t count,
                                                                float m) {
  float part[LANES] = {0}, sum = 0.0f;
  int64_t j = 0;
#if defined(__AVX512F__)
  const __m512 log2e = _mm512_set1_ps(FA_EXP_LOG2E), top = _mm512_set1_ps(m);
  __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
  for (; j + 32 <= count; j += 32) {
    const __m512 x0 = _mm512_sub_ps(_mm512_loadu_ps(s + j), top),
                 x1 = _mm512_sub_ps(_mm512_loadu_ps(s + j + 16), top);
    const __m512 e0 = exp2_lanes(dtype, _mm512_mul_ps(x0, log2e)),
                 e1 = exp2_lanes(dtype, _mm512_mul_ps(x1, log2e));
    _mm512_storeu_ps(s + j, e0);
    _mm512_storeu_ps(s + j + 16, e1);
    sum0 = _mm512_add_ps(sum0, e0);
    sum1 = _mm512_add_ps(sum1, e1);
  }
  _mm512_storeu_ps(part, _mm512_add_ps(sum0, sum1));
#else
  (void)dtype;
#endif
  for (; j + LANES <= count; j += LANES) {
    for (int l = 0; l < LANES; l++) {
      s[j + l] = fa_exp_lane(s[j + l] - m);
      part[l] += s[j + l];
    }
  }
  for (; j < count; j++) {
    s[j] = fa_exp_lane(s[j] - m);
    sum += s[j];
  }
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) part[l] += part[l + width];
  return sum + part[0];
}

/* P = factor * s, to row[first ..] of dtype. */
static inline __attribute__((always_inline)) void store_scaled(fa_dtype dtype, void *row, int64_t first,
                                                               float *s, int64_t count, float factor) {
  int64_t j = 0;
#if defined(__AVX512F__)
  const __m512 f = _mm512_set1_ps(factor);
  if (isfinite(factor)) {
    for (; j + 16 <= count; j += 16)
      store_lanes(dtype, row, first + j, _mm512_mul_ps(_mm512_loadu_ps(s + j), f));
  }
#endif
  const int64_t rest = j;
  for (; j < count; j++) s[j] *= factor;
  if (dtype != FA_FLOAT32 || (float *)row + first != s)
    store_row(dtype, row, first + rest, s + rest, count - rest);
}

/* Scores s with maximum m to P = exp(s - lse) in row[first ..] of dtype; returns lse. A row without any key
 * gives zeros, and the sink or -infinity. */
static inline __attribute__((always_inline)) float probabilities_of(fa_dtype dtype, void *row, int64_t first,
                                                                    float *s, int64_t count, float m,
                                                                    const float *sink) {
  if (sink && *sink > m) m = *sink;
  if (m == -INFINITY) m = 0.0f; /* all weights become 0, NaN stays */
  float sum = exponentials(dtype, s, count, m);
  if (sink) sum += fa_exp_lane(*sink - m);
  store_scaled(dtype, row, first, s, count, sum == 0.0f ? 0.0f : 1.0f / sum);
  return sum == 0.0f ? -INFINITY : m + logf(sum);
}

static inline __attribute__((always_inline)) float softmax_of(fa_dtype dtype, void *row, int64_t keys,
                                                              const fa_score_rules *rules, int64_t query,
                                                              const float *sink, float *scratch) {
  const int64_t size = dtype == FA_FLOAT32 ? 4 : 2;
  const fa_key_range kept = fa_score_band_row(rules, query, 0, keys);
  const int64_t count = kept.end - kept.begin;
  float *s = dtype == FA_FLOAT32 ? (float *)row + kept.begin : scratch;
  float m = load_maximum(dtype, s, row, kept.begin, count);
  if (rules->any) {
    fa_score_rules_apply_row(rules, s, query, kept.begin, count);
    m = load_maximum(FA_FLOAT32, s, s, 0, count);
  }
  const float lse = probabilities_of(dtype, row, kept.begin, s, count, m, sink);
  memset(row, 0, (size_t)(kept.begin * size));
  memset((char *)row + kept.end * size, 0, (size_t)((keys - kept.end) * size));
  return lse;
}

static float pass_softmax(fa_dtype dtype, void *row, int64_t keys, const fa_score_rules *rules, int64_t query,
                          const float *sink, float *scratch) {
  switch (dtype) {
    case FA_FLOAT16:
      return softmax_of(FA_FLOAT16, row, keys, rules, query, sink, scratch);
    case FA_BFLOAT16:
      return softmax_of(FA_BFLOAT16, row, keys, rules, query, sink, scratch);
    default:
      return softmax_of(FA_FLOAT32, row, keys, rules, query, sink, scratch);
  }
}

/* ------------------------------------------------------------ a framework's passes */

/* Element-wise passes go through a piece that stays in L1. */
enum { PIECE = 512 };

static void pass_scale(fa_dtype dtype, void *row, int64_t keys, float factor) {
  float piece[PIECE];
  for (int64_t first = 0; first < keys; first += PIECE) {
    const int64_t count = fa_min(PIECE, keys - first);
    load_row(dtype, piece, row, first, count);
    for (int64_t j = 0; j < count; j++) piece[j] *= factor;
    store_row(dtype, row, first, piece, count);
  }
}

static void pass_softcap(fa_dtype dtype, void *row, int64_t keys, float cap) {
  float piece[PIECE];
  for (int64_t first = 0; first < keys; first += PIECE) {
    const int64_t count = fa_min(PIECE, keys - first);
    load_row(dtype, piece, row, first, count);
    for (int64_t j = 0; j < count; j++) piece[j] = cap * fa_tanh_lane(piece[j] / cap);
    store_row(dtype, row, first, piece, count);
  }
}

static void pass_add(fa_dtype dtype, void *row, const void *mask_row, int64_t keys) {
  float piece[PIECE], other[PIECE];
  for (int64_t first = 0; first < keys; first += PIECE) {
    const int64_t count = fa_min(PIECE, keys - first);
    load_row(dtype, piece, row, first, count);
    load_row(dtype, other, mask_row, first, count);
    for (int64_t j = 0; j < count; j++) piece[j] += other[j];
    store_row(dtype, row, first, piece, count);
  }
}

static float pass_softmax_wide(fa_dtype dtype, const void *row, float *probabilities, int64_t keys,
                               const float *sink) {
  float m;
  switch (dtype) {
    case FA_FLOAT16:
      m = load_maximum(FA_FLOAT16, probabilities, row, 0, keys);
      break;
    case FA_BFLOAT16:
      m = load_maximum(FA_BFLOAT16, probabilities, row, 0, keys);
      break;
    default:
      m = load_maximum(FA_FLOAT32, probabilities, row, 0, keys);
      break; /* in place */
  }
  return probabilities_of(FA_FLOAT32, probabilities, 0, probabilities, keys, m, sink);
}

static void pass_narrow(fa_dtype dtype, void *row, const float *probabilities, int64_t keys) {
  store_row(dtype, row, 0, probabilities, keys);
}

static void pass_mask(fa_dtype dtype, void *mask_row, int64_t keys, const fa_score_rules *rules,
                      int64_t query, float *scratch) {
  const fa_key_range kept = fa_score_band_row(rules, query, 0, keys);
  for (int64_t j = 0; j < keys; j++) scratch[j] = j >= kept.begin && j < kept.end ? 0.0f : -INFINITY;
  if (rules->any)
    fa_score_rules_apply_row(rules, scratch + kept.begin, query, kept.begin, kept.end - kept.begin);
  store_row(dtype, mask_row, 0, scratch, keys);
}

#define FA_BASELINE_ROWS \
  { pass_softmax, pass_scale, pass_softcap, pass_add, pass_softmax_wide, pass_narrow, pass_mask }

#endif
