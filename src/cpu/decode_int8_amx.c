/* Decode of an int8 cache with AMX's byte products: K and V are loaded into tiles as they lie and never converted.
 *
 *   s^T[16 keys, rows] = K q^T;   o[rows, D_v] += p V
 *
 * q and the weights become signed digits of base 128, x = step (d0 + d1 / 128 + d2 / 16384) with step the largest magnitude
 * / 127: of the row of q, of the row's weights in a chunk. Sums of digits times bytes are exact in int32, and what is left of
 * x, 2^-22 of the largest, is less than fp16 and bf16 resolve; the weights of bf16 do with two digits (2^-15, where rounding
 * them to bf16 would leave 2^-9). fp32 is decode_avx512's.
 *
 * The tiles are those of decode_bf16_amx.c with four bytes where it has two bf16: q as quads of elements x rows for each
 * digit; the weights four times, digit h of key j at byte 4j + h of row 4r + h, which sums the columns 4n + h of V. The last
 * 64 elements of a row that is no multiple of 64 overlap the ones before.
 *
 * Level one: the keys of a part, level two: chunks of 64 keys (decode_split.c). A row of q whose digits cannot be had
 * (not finite, or all of it below LEAST) and weights that are not finite become NaN, and the driver does again in plain C
 * what is not finite.
 * Bound: reading K and V once. Measured: docs/performance.md. */
#include "core/kernel_declarations.h"
#include "cpu/decode_tiles_amx.h"

enum {
  SPAN = 64, /* elements of a row in a tile */
  QUADS = SPAN / 4,
  DIGITS = 3,
  VALUE_ROWS = 4 /* rows of o a tile */
};
#define LARGEST_DIGIT 127.0f
#define BASE 128.0f
#define LEAST 1e-30f
#define UP 0x1p120f /* the least subnormal number times this is more than LEAST */

/* ------------------------------------------------------------------------- digits */

/* Of 16 values, the largest below 127.5 in magnitude. */
FA_INLINE void to_digits(vec x, __m512i *digit, int digits) {
  UNROLL for (int t = 0; t < digits; ++t) {
    digit[t] = _mm512_cvtps_epi32(x);
    x = vec_mul(vec_sub(x, _mm512_cvtepi32_ps(digit[t])), vec_set(BASE));
  }
}

/* step and its inverse from the largest magnitude, as bits (those of a NaN are larger than any number's). */
typedef struct digit_step {
  float step, inverse;
} digit_step;

FA_INLINE digit_step step_of(uint32_t most) {
  const float largest = fa_float_from_bits(most);
  if (most == 0) return (digit_step){0.0f, 0.0f};
  if (most >= 0x7f800000u || largest < LEAST) return (digit_step){NAN, 0.0f};
  return (digit_step){largest / LARGEST_DIGIT, LARGEST_DIGIT / largest};
}

FA_INLINE __m512i magnitude(vec x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/* ------------------------------------------------------------------------- scores */

/* Panels of up to 16 rows: [D / 64][DIGITS][16 quads of elements][rows] bytes, 0 for what a last span has twice; the rows'
 * steps end where the next panel begins. */
FA_INLINE const char *q_digits(const char *q, int64_t n, int64_t digit, int64_t rows) {
  return q + ((n * DIGITS + digit) * QUADS * rows) * 4;
}
FA_INLINE const float *q_steps(const float *q, int64_t q_stride, int64_t rows) { return q + rows * (q_stride - 1); }

static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  (void)kv_dtype;
  for (int64_t d = 0; d < dim; d += VEC)
    vec_store(to + d, vec_load_row(q + d * (int64_t)fa_dtype_size(dtype), dtype, dim - d));
}

/* One row of q to its digits, spans side by side; returns the step. */
static float row_to_digits(const float *q, int64_t dim, int8_t to[DIGITS][FA_DECODE_MAX_DIM]) {
  __m512i most = _mm512_setzero_si512();
  for (int64_t d = 0; d < dim; d += VEC)
    most = _mm512_max_epu32(most, magnitude(vec_load_row((const char *)(q + d), FA_FLOAT32, dim - d)));
  const digit_step s = step_of(_mm512_reduce_max_epu32(most));
  for (int64_t n = 0; n * SPAN < dim; ++n)
    for (int64_t i = 0; i < SPAN; i += VEC) {
      const int64_t d = span_start(n, SPAN, dim) + i, twice = fa_min(fa_max(n * SPAN - d, 0), VEC);
      const __mmask16 is_new = (__mmask16)(0xffffu << twice);
      __m512i digit[DIGITS];
      to_digits(_mm512_maskz_mul_ps(is_new, _mm512_maskz_loadu_ps(is_new, q + d), vec_set(s.inverse)), digit, DIGITS);
      if (!(s.step > 0.0f)) digit[0] = digit[1] = digit[2] = _mm512_setzero_si512();
      UNROLL for (int t = 0; t < DIGITS; ++t)
          _mm_storeu_si128((__m128i *)(void *)(to[t] + n * SPAN + i), _mm512_cvtepi32_epi8(digit[t]));
    }
  return s.step;
}

static void arrange_q(float *q, int64_t rows, int64_t q_stride, int64_t dim) {
  int8_t digits[PANEL][DIGITS][FA_DECODE_MAX_DIM];
  float steps[PANEL];
  for (int64_t first = 0; first < rows; first += PANEL, q += PANEL * q_stride) {
    const int64_t some = fa_min(rows - first, PANEL);
    for (int64_t r = 0; r < some; ++r) steps[r] = row_to_digits(q + r * q_stride, dim, digits[r]);
    char *to = (char *)q;
    for (int64_t n = 0; n * SPAN < dim; ++n)
      for (int t = 0; t < DIGITS; ++t)
        for (int64_t i = 0; i < SPAN; i += 4)
          for (int64_t r = 0; r < some; ++r, to += 4) memcpy(to, digits[r][t] + n * SPAN + i, 4);
    memcpy(q + some * (q_stride - 1), steps, (size_t)some * sizeof *steps);
  }
}

/* One panel of q against 1 or 2 blocks of keys. */
FA_INLINE void scores_panel(const fa_decode_chunk *chunk, const float *q, int64_t rows, spaced k, int blocks, float *tile,
                            int64_t lines) {
  const int64_t width = panel_width(rows), steps = fa_ceil_div(chunk->dim_qk, SPAN), next = BLOCK * k.stride;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  FA_TILE_ZERO(0);
  FA_TILE_ZERO(1);
  FA_TILE_ZERO(2);
  if (blocks == 2) {
    FA_TILE_ZERO(3);
    FA_TILE_ZERO(4);
    FA_TILE_ZERO(5);
  }
  for (int64_t n = 0; n < steps; ++n) {
    const char *from = k.base + span_start(n, SPAN, chunk->dim_qk);
    FA_TILE_LOAD_ROWS(6, from, k.stride);
    FA_TILE_LOAD_ROWS(7, q_digits((const char *)q, n, 0, rows), rows * 4);
    FA_TILE_MULTIPLY_INT8(0, 6, 7);
    FA_TILE_LOAD_ROWS(7, q_digits((const char *)q, n, 1, rows), rows * 4);
    FA_TILE_MULTIPLY_INT8(1, 6, 7);
    FA_TILE_LOAD_ROWS(7, q_digits((const char *)q, n, 2, rows), rows * 4);
    FA_TILE_MULTIPLY_INT8(2, 6, 7);
    if (blocks == 2) {
      FA_TILE_LOAD_ROWS(6, from + next, k.stride);
      FA_TILE_MULTIPLY_INT8(5, 6, 7);
      FA_TILE_LOAD_ROWS(7, q_digits((const char *)q, n, 1, rows), rows * 4);
      FA_TILE_MULTIPLY_INT8(4, 6, 7);
      FA_TILE_LOAD_ROWS(7, q_digits((const char *)q, n, 0, rows), rows * 4);
      FA_TILE_MULTIPLY_INT8(3, 6, 7);
    }
    fa_decode_fetch_lines(&fetch, lines * blocks);
  }
  *chunk->fetch = fetch;

  /* 16 rows of `width` and what the last one leaves behind them. */
  _Alignas(64) int32_t sums[2 * DIGITS][FA_TILE_FLOATS + 16];
  FA_TILE_STORE_ROWS(0, sums[0], width * 4);
  FA_TILE_STORE_ROWS(1, sums[1], width * 4);
  FA_TILE_STORE_ROWS(2, sums[2], width * 4);
  if (blocks == 2) {
    FA_TILE_STORE_ROWS(3, sums[3], width * 4);
    FA_TILE_STORE_ROWS(4, sums[4], width * 4);
    FA_TILE_STORE_ROWS(5, sums[5], width * 4);
  }
  _Alignas(64) float step[PANEL]; /* of each element of a vector of scores */
  for (int64_t i = 0; i < PANEL; ++i) {
    const int64_t r = i & (width - 1); /* a power of two */
    step[i] = r < rows ? q_steps(q, chunk->q_stride, rows)[r] : 0.0f;
  }
  const vec unit = vec_load(step), down = vec_set(1.0f / BASE);
  for (int b = 0; b < blocks; ++b) {
    _Alignas(64) float scores[FA_TILE_FLOATS];
    const int32_t *sum = sums[b * DIGITS];
    for (int64_t i = 0; i < width * BLOCK; i += VEC) {
      vec x = _mm512_cvtepi32_ps(_mm512_loadu_si512(sum + 2 * (FA_TILE_FLOATS + 16) + i));
      x = vec_fma(x, down, _mm512_cvtepi32_ps(_mm512_loadu_si512(sum + FA_TILE_FLOATS + 16 + i)));
      x = vec_fma(x, down, _mm512_cvtepi32_ps(_mm512_loadu_si512(sum + i)));
      vec_store(scores + i, vec_mul(x, unit));
    }
    turn_any(scores, width, rows, tile + b * BLOCK);
  }
}

static void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {
  const int64_t blocks = fa_ceil_div(chunk->keys, BLOCK), panels = fa_ceil_div(rows, PANEL);
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES,
                                              panels * fa_ceil_div(chunk->dim_qk, SPAN) * blocks);
  char copy[BLOCK * MOST_ROW_BYTES];
  const int is_whole = chunk->keys == FA_DECODE_KEYS && is_spaced(chunk->k, FA_DECODE_KEYS);
  for (int64_t b = 0; b < blocks; b += is_whole ? 2 : 1) {
    const spaced whole = {chunk->k[b * BLOCK] + chunk->k_offset, chunk->k[1] - chunk->k[0]};
    const spaced k = is_whole ? whole : rows_of(chunk->k + b * BLOCK, chunk->k_offset, chunk->dim_qk, BLOCK, copy);
    for (int64_t r = 0; r < rows; r += PANEL) {
      const float *panel = q + r * chunk->q_stride;
      float *to = tile + r * FA_DECODE_KEYS + b * BLOCK;
      if (is_whole) scores_panel(chunk, panel, fa_min(rows - r, PANEL), k, 2, to, lines);
      else scores_panel(chunk, panel, fa_min(rows - r, PANEL), k, 1, to, lines);
    }
  }
}

/* ------------------------------------------------------------------------- output */

/* Weights of up to 4 rows, [digits][BLOCKS] tiles, each digit in the four places of a quad; their steps. */
FA_INLINE void spread_weights(const float *tile, const float *v_scale, int64_t rows, char *p, float *steps, int digits) {
  for (int64_t r = 0; r < rows; ++r) {
    vec w[BLOCKS];
    __m512i most = _mm512_setzero_si512();
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      w[b] = vec_mul(vec_load(tile + r * FA_DECODE_KEYS + b * BLOCK), vec_load(v_scale + b * BLOCK));
      most = _mm512_max_epu32(most, magnitude(w[b]));
    }
    const uint32_t bits = _mm512_reduce_max_epu32(most);
    const float up = fa_float_from_bits(bits) < LEAST ? UP : 1.0f; /* far below the maximum so far, or small scales */
    const digit_step s = step_of(bits < 0x7f800000u ? fa_float_bits(fa_float_from_bits(bits) * up) : bits);
    steps[r] = s.step / up;
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      __m512i digit[DIGITS];
      to_digits(vec_mul(vec_mul(w[b], vec_set(up)), vec_set(s.inverse)), digit, digits);
      UNROLL for (int t = 0; t < digits; ++t) {
        char *to = p + (t * BLOCKS + b) * FA_TILE_BYTES + 4 * r * ROW_BYTES;
        __m512i byte = _mm512_and_si512(digit[t], _mm512_set1_epi32(0xff));
        UNROLL for (int h = 0; h < 4; ++h, byte = _mm512_slli_epi32(byte, 8)) _mm512_store_si512(to + h * ROW_BYTES, byte);
      }
    }
  }
}

/* o += p v for 64 columns and `blocks` blocks of keys. */
FA_INLINE void values_span(const fa_decode_chunk *chunk, const char *p, const float *steps, int64_t rows, spaced v,
                           int64_t blocks, float *o, int64_t lines, int digits) {
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  FA_TILE_ZERO(0);
  FA_TILE_ZERO(1);
  if (digits == 3) FA_TILE_ZERO(2);
  for (int64_t b = 0; b < blocks; ++b) {
    FA_TILE_LOAD_ROWS(6, v.base + b * BLOCK * v.stride, v.stride);
    FA_TILE_LOAD(3, p + b * FA_TILE_BYTES);
    FA_TILE_MULTIPLY_INT8(0, 3, 6);
    FA_TILE_LOAD(4, p + (BLOCKS + b) * FA_TILE_BYTES);
    FA_TILE_MULTIPLY_INT8(1, 4, 6);
    if (digits == 3) {
      FA_TILE_LOAD(5, p + (2 * BLOCKS + b) * FA_TILE_BYTES);
      FA_TILE_MULTIPLY_INT8(2, 5, 6);
    }
    fa_decode_fetch_lines(&fetch, lines);
  }
  *chunk->fetch = fetch;
  _Alignas(64) int32_t sums[DIGITS][FA_TILE_FLOATS];
  FA_TILE_STORE(0, sums[0]);
  FA_TILE_STORE(1, sums[1]);
  if (digits == 3) FA_TILE_STORE(2, sums[2]);
  const vec down = vec_set(1.0f / BASE);
  for (int64_t r = 0; r < rows; ++r, o += chunk->o_stride)
    UNROLL for (int64_t h = 0; h < 4; ++h) {
      const int64_t at = (4 * r + h) * 16;
      vec x = _mm512_cvtepi32_ps(_mm512_load_si512(sums[digits - 1] + at));
      if (digits == 3) x = vec_fma(x, down, _mm512_cvtepi32_ps(_mm512_load_si512(sums[1] + at)));
      x = vec_fma(x, down, _mm512_cvtepi32_ps(_mm512_load_si512(sums[0] + at)));
      vec_store(o + h * 16, vec_fma(x, vec_set(steps[r]), vec_load(o + h * 16)));
    }
}

/* o in scratch: spans of 64 columns, of each the columns 4n, 4n + 1, 4n + 2, 4n + 3. */
FA_INLINE void accumulate(const fa_decode_chunk *chunk, const float *tile, int64_t rows, float *o, int digits) {
  const int64_t blocks = fa_ceil_div(chunk->keys, BLOCK), spans = fa_ceil_div(chunk->dim_v, SPAN);
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE,
                                              fa_ceil_div(rows, VALUE_ROWS) * spans * blocks);
  const int is_whole = chunk->keys == FA_DECODE_KEYS && is_spaced(chunk->v, FA_DECODE_KEYS);
  const spaced whole = {chunk->v[0] + chunk->v_offset, chunk->v[1] - chunk->v[0]};
  _Alignas(64) char p[DIGITS * BLOCKS * FA_TILE_BYTES];
  char copy[BLOCK * MOST_ROW_BYTES];
  for (int64_t r = 0; r < rows; r += VALUE_ROWS) {
    const int64_t some = fa_min(rows - r, VALUE_ROWS);
    float steps[VALUE_ROWS], *to = o + r * chunk->o_stride;
    if (some < VALUE_ROWS) memset(p, 0, sizeof p);
    spread_weights(tile + r * FA_DECODE_KEYS, chunk->v_scale, some, p, steps, digits);
    for (int64_t b = 0; b < blocks; b += is_whole ? BLOCKS : 1) {
      const spaced v = is_whole ? whole : rows_of(chunk->v + b * BLOCK, chunk->v_offset, chunk->dim_v, BLOCK, copy);
      for (int64_t n = 0; n < spans; ++n) {
        const spaced from = {v.base + span_start(n, SPAN, chunk->dim_v), v.stride};
        values_span(chunk, p + b * FA_TILE_BYTES, steps, some, from, is_whole ? BLOCKS : 1, to + n * SPAN, lines,
                    digits);
      }
    }
  }
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  (void)kv_dtype;
  const __m512i columns = _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 2);
  for (int64_t n = 0; n * SPAN < dim; ++n) /* the last span begins within the one before: right again */
    for (int64_t h = 0; h < 4; ++h)
      _mm512_i32scatter_ps(to + span_start(n, SPAN, dim) + h, columns, vec_load(o + n * SPAN + h * 16), 4);
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static void accumulate_2(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  accumulate(chunk, tile, rows, o, 2);
}
static void accumulate_3(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  accumulate(chunk, tile, rows, o, 3);
}
static const fa_decode_isa two_digits = {load_q, scores, weigh, accumulate_2, add, store_o, arrange_q, begin, end, 0.0f};
static const fa_decode_isa three_digits = {load_q, scores, weigh, accumulate_3, add, store_o, arrange_q, begin, end, 0.0f};

fa_status fa_decode_int8_amx_prepare(fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  if (p->kv_dtype != FA_INT8)
    return fa_fail(FA_ERROR_UNSUPPORTED, "K and V are %s; decode_int8_amx takes int8, other kernels any",
                   fa_dtype_name(p->kv_dtype));
  if (fa_min(p->head_dim_qk, p->head_dim_v) < SPAN)
    return fa_fail(FA_ERROR_UNSUPPORTED, "head sizes are %lld and %lld; decode_int8_amx takes %d and more, other kernels any",
                   (long long)p->head_dim_qk, (long long)p->head_dim_v, SPAN);
  return fa_decode_prepare(plan);
}

fa_status fa_decode_int8_amx_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, plan->problem.dtype == FA_BFLOAT16 ? &two_digits : &three_digits);
}
