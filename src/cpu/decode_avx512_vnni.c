/* Decode of an int8 cache with AVX-512's byte dot products (VPDPBUSD): four bytes multiplied and added to int32 a lane, a
 * quarter of the multiplications of decode_avx512, and nothing of K or V is converted.
 *
 *   tile[r][j] = q_r . k_j;   o_r += sum_j w_rj v_j
 *
 * q and the weights become integers of several base-256 digits, one product a digit, all sums exact in int32:
 *   q: 3 signed digits of a step that is max|q| of the row / 2^23; for bf16 the upper two, where two_suffice. The
 *   products take K + 128, and 128 sum(digits) off at the end.
 *   weights (with V's scales): 2 digits for bf16, 3 for fp16, unsigned, of a step that is the row's largest of the chunk
 *   / 2^16 or 2^24. Their sum is that of the unrounded weights.
 * That is finer than what the input type rounds o to, and coarser than fp32, which decode_avx512 does.
 *
 * Level 1: the keys of a part; level 2: chunks of 64 keys (decode_split.c). Registers: 24 sums of scores (4 rows x 8 keys,
 * 2 x 16, 1 x 32, in 3 digits), 4 keys a vector: 16 elements each of K rows, transposed by 128-bit lanes, so that few
 * shuffles are left to add across. P V takes 4 keys at once: their rows are interleaved byte by byte within 128-bit lanes, o
 * lies in scratch in the order which that gives. A row of q that is not finite, or so small that its step is not, and a
 * weight that is negative or not finite become NaN: the driver does again in plain C what is not finite. Masked keys
 * have weight 0 here. Bound: reading K and V once. Measured results: docs/performance.md, "CPU decode". */
#include "core/kernel_declarations.h"
#include "cpu/decode_avx512.h"

enum {
  DIGITS = 3,
  PIECE = 16, /* elements of q: a lane's bytes */
  SETS = 2    /* vectors of 16 scores a register block */
};
#define LEAST_OF_Q 0x1p-100f
#define LARGEST_DEVIATION 0x1p-11f
#define LEAST_WEIGHT 0x1p-100f

/* A row of q in scratch: this, then [pieces][DIGITS][PIECE] bytes, the lowest digit first; an even number of pieces. */
typedef struct q_head {
  int32_t offset[DIGITS]; /* -128 sum(digits) */
  float step;
} q_head;

FA_INLINE __mmask64 keep_of_bytes(int64_t bytes) {
  return bytes >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (unsigned)bytes) - 1u;
}

FA_INLINE __m512i load_bytes(const char *from, __mmask64 keep, int whole) {
  return whole ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(keep, from);
}

/* _mm512_dpbusd_epi32, of which gcc 12 makes a copy of the sum and a product: with 24 sums in registers, most then spill. */
FA_INLINE __m512i dot(__m512i sum, __m512i bytes, __m512i digits) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(digits));
  return sum;
}

/* ------------------------------------------------------------------ scores */

/* Two of the four 16-element pieces (first, first + 1; first is 0 or 2) of 4 keys, a key a lane, plus 128. */
FA_INLINE void load_pieces(const char *const *k, int64_t offset, __mmask64 keep, int whole, int first, __m512i *piece) {
  __m512i key[4];
  UNROLL for (int j = 0; j < 4; ++j) key[j] = load_bytes(k[j] + offset, keep, whole);
  const __m512i a = first ? _mm512_shuffle_i32x4(key[0], key[1], 0xee) : _mm512_shuffle_i32x4(key[0], key[1], 0x44);
  const __m512i b = first ? _mm512_shuffle_i32x4(key[2], key[3], 0xee) : _mm512_shuffle_i32x4(key[2], key[3], 0x44);
  const __m512i flip = _mm512_set1_epi8((char)0x80);
  piece[0] = _mm512_xor_si512(_mm512_shuffle_i32x4(a, b, 0x88), flip);
  piece[1] = _mm512_xor_si512(_mm512_shuffle_i32x4(a, b, 0xdd), flip);
}

/* 64 elements, or 32 in one half, of 8 / rows groups of 4 keys;
 * acc[(group * rows + r) * digits + digit]. */
FA_INLINE void scores_step(__m512i *acc, const char *q, int64_t q_stride, const char *const *k, int64_t offset, __mmask64 keep,
                           int whole, int halves, int rows, int digits) {
  const int groups = 8 / rows; /* outside: a division to check makes gcc drop the loop's annotation */
  UNROLL for (int g = 0; g < groups; g += 2) UNROLL for (int first = 0; first < 2 * halves; first += 2) {
    __m512i one[2], two[2];
    load_pieces(k + 4 * g, offset, keep, whole, first, one);
    load_pieces(k + 4 * g + 4, offset, keep, whole, first, two);
    UNROLL for (int p = 0; p < 2; ++p) UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int t = 0; t < digits; ++t) {
      const __m512i digit = _mm512_broadcast_i32x4(
          _mm_loadu_si128((const void *)(q + r * q_stride + ((first + p) * DIGITS + DIGITS - digits + t) * PIECE)));
      __m512i *sum = acc + (g * rows + r) * digits + t;
      sum[0] = dot(sum[0], one[p], digit);
      sum[rows * digits] = dot(sum[rows * digits], two[p], digit);
    }
  }
}

/* Sums within the lanes of 4 vectors: vector i's of lane j is element 4 j + i. */
FA_INLINE __m512i add_within_lanes(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* Element 4 j + i, of all lanes alike, belongs to row i / (4 / rows). */
FA_INLINE __m512i of_rows(const char *q, int64_t q_stride, int64_t offset, int rows) {
  int32_t each[4];
  for (int i = 0; i < 4; ++i) memcpy(each + i, q + i * rows / 4 * q_stride + offset, sizeof *each);
  return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)each));
}

FA_INLINE void scores_rows(const fa_decode_chunk *chunk, const float *q_rows, float *tile, int rows, int digits,
                           int64_t lines) {
  const int64_t dim = chunk->dim_qk, stride = chunk->q_stride * (int64_t)sizeof(float);
  const int keys = 4 * SETS * 4 / rows, groups = 4 / rows;
  const char *q = (const char *)q_rows;
  const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const vec unit = _mm512_castsi512_ps(of_rows(q, stride, (int64_t)offsetof(q_head, step), rows));
  const vec step = digits == 3 ? unit : vec_mul(unit, vec_set(256.0f));
  __m512i offsets[DIGITS];
  UNROLL for (int t = 0; t < digits; ++t) offsets[t] = of_rows(q, stride, 4 * (DIGITS - digits + t), rows);
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += keys) {
    const char *bytes = q + sizeof(q_head);
    int64_t d = 0;
    fa_decode_fetch_lines(&fetch, lines * 4 / rows);
    __m512i acc[SETS * 4 * DIGITS];
    UNROLL for (int i = 0; i < SETS * 4; ++i) UNROLL for (int t = 0; t < digits; ++t) acc[i * digits + t] =
        _mm512_setzero_si512();
    for (; d + 64 <= dim; d += 64, bytes += 4 * DIGITS * PIECE)
      scores_step(acc, bytes, stride, chunk->k + j, chunk->k_offset + d, 0, 1, 2, rows, digits);
    if (d + 32 < dim)
      scores_step(acc, bytes, stride, chunk->k + j, chunk->k_offset + d, keep_of_bytes(dim - d), 0, 2, rows, digits);
    else if (d < dim)
      scores_step(acc, bytes, stride, chunk->k + j, chunk->k_offset + d, keep_of_bytes(dim - d), 0, 1, rows, digits);
    UNROLL for (int s = 0; s < SETS; ++s) {
      vec digit[DIGITS];
      UNROLL for (int t = 0; t < digits; ++t) {
        const __m512i *sum = acc + s * 4 * digits + t;
#define SUM_OF(i) sum[((i) % groups * rows + (i) / groups) * digits]
        const __m512i whole = add_within_lanes(SUM_OF(0), SUM_OF(1), SUM_OF(2), SUM_OF(3));
#undef SUM_OF
        digit[t] = _mm512_cvtepi32_ps(_mm512_add_epi32(whole, offsets[t]));
      }
      const vec base = vec_set(256.0f), high = digits == 3 ? vec_fma(digit[2], base, digit[1]) : digit[1];
      const vec value = vec_fma(high, base, digit[0]);
      store_scores(tile + j + s * 4 * groups, _mm512_permutexvar_ps(turn, vec_mul(value, step)), rows);
    }
  }
  *chunk->fetch = fetch;
}

/* Whether two digits are enough: the error of a score has a standard deviation below LARGEST_DEVIATION. It is
 * that of D roundings of q to a multiple of 256 steps, times K of at most 128 and its scale. */
FA_INLINE int two_suffice(const fa_decode_chunk *chunk, const float *q, int rows) {
  float step = 0.0f;
  for (int r = 0; r < rows; ++r) {
    const float mine = ((const q_head *)(const void *)(q + r * chunk->q_stride))->step;
    if (mine > step) step = mine;
  }
  vec most = vec_zero();
  for (int j = 0; j < FA_DECODE_KEYS; j += VEC) most = vec_max(most, _mm512_abs_ps(vec_load(chunk->k_scale + j)));
  const float rounding = 256.0f * step * 0.288675f, size = 128.0f * sqrtf((float)chunk->dim_qk);
  return rounding * size * vec_top(most) * fabsf(chunk->scale) <= LARGEST_DEVIATION;
}

FA_INLINE void scores_some(const fa_decode_chunk *chunk, const float *q, float *tile, int rows, int digits, int64_t lines) {
  if (digits == 2 && two_suffice(chunk, q, rows)) scores_rows(chunk, q, tile, rows, 2, lines);
  else scores_rows(chunk, q, tile, rows, 3, lines);
}

FA_INLINE void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile, int digits) {
  const int64_t blocks = fa_ceil_div(rows, 4) * (FA_DECODE_KEYS / 8);
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES, blocks);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    scores_some(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, 4, digits, lines);
  if (r + 2 <= rows) {
    scores_some(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, 2, digits, lines);
    r += 2;
  }
  if (r < rows) scores_some(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, 1, digits, lines);
}

/* ------------------------------------------------------------------ output */

/* The step is a product, so that it is exact enough even where it is subnormal itself. */
typedef struct weight_step {
  float step, down;
} weight_step;

/* A row of weights to [digits][FA_DECODE_KEYS] bytes at the row's own beginning, the lowest digit first; returns
 * their step. */
FA_INLINE weight_step weights_to_digits(float *row, const float *v_scale, int digits) {
  enum { VECTORS = FA_DECODE_KEYS / VEC };
  const float largest = digits == 2 ? 65535.0f : 16776960.0f; /* the latter below 2^24 by more than a rounding */
  vec w[VECTORS];
  UNROLL for (int i = 0; i < VECTORS; ++i) w[i] = vec_mul(vec_load(row + VEC * i), vec_load(v_scale + VEC * i));
  /* Of numbers from 0 on the bits have the same order; those of all others are larger. */
  __m512i most = _mm512_castps_si512(w[0]);
  UNROLL for (int i = 1; i < VECTORS; ++i) most = _mm512_max_epu32(most, _mm512_castps_si512(w[i]));
  const uint32_t bits = _mm512_reduce_max_epu32(most);
  const int is_bad = bits >= 0x7f800000u;
  const float max = is_bad ? 0.0f : fa_float_from_bits(bits);
  const float up = max < LEAST_WEIGHT ? 1.0f / LEAST_WEIGHT : 1.0f;
  const vec factor = vec_set(max > 0.0f ? largest / (max * up) : 0.0f);
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    __m512i n = _mm512_cvtps_epi32(vec_mul(vec_mul(w[i], vec_set(up)), factor));
    if (is_bad) n = _mm512_setzero_si512();
    UNROLL for (int t = 0; t < digits; ++t, n = _mm512_srli_epi32(n, 8))
        _mm_storeu_si128((void *)((char *)row + FA_DECODE_KEYS * t + VEC * i), _mm512_cvtepi32_epi8(n));
  }
  return (weight_step){is_bad ? NAN : max * up / largest, 1.0f / up};
}

/* 4 keys' rows of 64 bytes, interleaved: vector m holds elements 16 l + 4 m + (0 to 3) in lane l. Of the four vectors
 * `count` from `first` (0 or 2) on. */
FA_INLINE void interleave(const char *const *v, int64_t offset, __mmask64 keep, int whole, int first, int count, __m512i *to) {
  __m512i key[4];
  UNROLL for (int j = 0; j < 4; ++j) key[j] = load_bytes(v[j] + offset, keep, whole);
  UNROLL for (int m = 0; m < count; m += 2) {
    const int is_low = first + m == 0;
    const __m512i a = is_low ? _mm512_unpacklo_epi8(key[0], key[1]) : _mm512_unpackhi_epi8(key[0], key[1]);
    const __m512i b = is_low ? _mm512_unpacklo_epi8(key[2], key[3]) : _mm512_unpackhi_epi8(key[2], key[3]);
    to[m] = _mm512_unpacklo_epi16(a, b);
    to[m + 1] = _mm512_unpackhi_epi16(a, b);
  }
}

/* o of 64 elements from d on (fewer: `keep`), vectors [first, first + count), += weights v. A vector of o has `width`
 * elements: 16, or 8 where no more than 32 elements are left. */
FA_INLINE void accumulate_block(const fa_decode_chunk *chunk, const float *weights, const weight_step *step, float *o, int64_t d,
                                __mmask64 keep, int whole, int rows, int digits, int first, int64_t lines) {
  const int count = rows == 4 ? 2 : 4;
  __m512i acc[4][4][DIGITS];
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int m = 0; m < count; ++m) UNROLL for (int t = 0; t < digits; ++t)
      acc[r][m][t] = _mm512_setzero_si512();
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += 4) {
    __m512i v[4];
    fa_decode_fetch_lines(&fetch, lines);
    interleave(chunk->v + j, chunk->v_offset + d, keep, whole, first, count, v);
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int t = 0; t < digits; ++t) {
      int32_t four;
      memcpy(&four, (const char *)(weights + r * FA_DECODE_KEYS) + FA_DECODE_KEYS * t + j, sizeof four);
      const __m512i w = _mm512_set1_epi32(four);
      UNROLL for (int m = 0; m < count; ++m) acc[r][m][t] = dot(acc[r][m][t], w, v[m]);
    }
  }
  *chunk->fetch = fetch;
  const int64_t width = whole || (keep >> 32) ? 16 : 8;
  const __mmask16 some = width == 16 ? 0xffff : 0xff;
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int m = 0; m < count; ++m) {
    float *to = o + r * chunk->o_stride + d + width * (first + m);
    vec sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(acc[r][m][1], 8), acc[r][m][0]));
    if (digits == 3) sum = vec_fma(_mm512_cvtepi32_ps(acc[r][m][2]), vec_set(65536.0f), sum);
    sum = vec_mul(sum, vec_set(step[r].step));
    _mm512_mask_storeu_ps(to, some, vec_fma(sum, vec_set(step[r].down), _mm512_maskz_loadu_ps(some, to)));
  }
}

FA_INLINE void accumulate_rows(const fa_decode_chunk *chunk, const float *weights, const weight_step *step, float *o, int rows,
                               int digits, int64_t lines) {
  const int64_t dim = chunk->dim_v;
  const int count = rows == 4 ? 2 : 4;
  int64_t d = 0;
  for (; d + 64 <= dim; d += 64) {
    accumulate_block(chunk, weights, step, o, d, 0, 1, rows, digits, 0, lines * count / 2);
    if (rows == 4) accumulate_block(chunk, weights, step, o, d, 0, 1, rows, digits, 2, lines);
  }
  if (d < dim) {
    const __mmask64 keep = keep_of_bytes(dim - d);
    accumulate_block(chunk, weights, step, o, d, keep, 0, rows, digits, 0, lines * count / 2);
    if (rows == 4) accumulate_block(chunk, weights, step, o, d, keep, 0, rows, digits, 2, lines);
  }
}

FA_INLINE void accumulate(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o, int digits) {
  const int64_t blocks = fa_ceil_div(rows, 4) * fa_ceil_div(chunk->dim_v, 64) * 2;
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE, blocks * (FA_DECODE_KEYS / 4));
  weight_step step[FA_DECODE_TILE];
  int64_t r = 0;
  for (int64_t i = 0; i < rows; ++i) step[i] = weights_to_digits(tile + i * FA_DECODE_KEYS, chunk->v_scale, digits);
  for (; r + 4 <= rows; r += 4)
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, step + r, o + r * chunk->o_stride, 4, digits, lines);
  if (r + 2 <= rows) {
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, step + r, o + r * chunk->o_stride, 2, digits, lines);
    r += 2;
  }
  if (r < rows)
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, step + r, o + r * chunk->o_stride, 1, digits, lines);
}

/* -------------------------------------------------------- q in, o out */

static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  (void)kv_dtype;
  const float largest = 8355680.0f; /* below the digits 127, 127, 127 by more than a rounding */
  float row[FA_DECODE_MAX_DIM] = {0.0f};
  uint32_t bits = 0;
  fa_load_row(row, q, dim, dtype);
  for (int64_t d = 0; d < dim; ++d) {
    const uint32_t size = fa_float_bits(row[d]) & 0x7fffffffu;
    bits = size > bits ? size : bits;
  }
  const float max = fa_float_from_bits(bits);
  const int is_bad = bits >= 0x7f800000u || (bits != 0 && max < LEAST_OF_Q);
  const vec factor = vec_set(is_bad || bits == 0 ? 0.0f : largest / max);
  q_head head = {.step = is_bad ? NAN : max / largest};
  char *bytes = (char *)to + sizeof head;
  for (int64_t d = 0; d < fa_round_up(dim, 2 * PIECE); d += PIECE) {
    __m512i n = is_bad ? _mm512_setzero_si512() : _mm512_cvtps_epi32(vec_mul(vec_load(row + d), factor));
    for (int t = 0; t < DIGITS; ++t, bytes += PIECE) {
      const __m512i digit = _mm512_srai_epi32(_mm512_slli_epi32(n, 24), 24);
      _mm_storeu_si128((void *)bytes, _mm512_cvtepi32_epi8(digit));
      head.offset[t] -= 128 * _mm512_reduce_add_epi32(digit);
      n = _mm512_srai_epi32(_mm512_sub_epi32(n, digit), 8);
    }
  }
  memcpy(to, &head, sizeof head);
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  (void)kv_dtype;
  for (int64_t d = 0; d < dim; d += 64) {
    const int64_t width = dim - d > 32 ? 16 : 8;
    const __mmask16 some = width == 16 ? 0xffff : 0xff;
    const __mmask64 keep = keep_of_bytes(dim - d);
    vec x[4];
    for (int m = 0; m < 4; ++m) x[m] = _mm512_maskz_loadu_ps(some, o + d + width * m);
    const vec a = _mm512_shuffle_f32x4(x[0], x[1], 0x44), b = _mm512_shuffle_f32x4(x[2], x[3], 0x44);
    const vec c = _mm512_shuffle_f32x4(x[0], x[1], 0xee), e = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
    _mm512_mask_storeu_ps(to + d, (__mmask16)keep, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_mask_storeu_ps(to + d + 16, (__mmask16)(keep >> 16), _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_mask_storeu_ps(to + d + 32, (__mmask16)(keep >> 32), _mm512_shuffle_f32x4(c, e, 0x88));
    _mm512_mask_storeu_ps(to + d + 48, (__mmask16)(keep >> 48), _mm512_shuffle_f32x4(c, e, 0xdd));
  }
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

#define LOOPS(name, digits)                                                                                       \
  static void scores_##name(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {            \
    scores(chunk, q, rows, tile, digits);                                                                         \
  }                                                                                                               \
  static void accumulate_##name(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {              \
    accumulate(chunk, tile, rows, o, digits);                                                                     \
  }                                                                                                               \
  static const fa_decode_isa name = {load_q, scores_##name, weigh, accumulate_##name, add, store_o, NULL, NULL, NULL, 0.0f};
LOOPS(two_digits, 2)
LOOPS(three_digits, 3)

fa_status fa_decode_avx512_vnni_prepare(fa_plan *plan) {
  if (plan->problem.kv_dtype != FA_INT8)
    return fa_fail(FA_ERROR_UNSUPPORTED, "decode_avx512_vnni takes a cache of int8 only; decode_avx512 takes any");
  return fa_decode_prepare(plan);
}

fa_status fa_decode_avx512_vnni_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                    fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, plan->problem.dtype == FA_BFLOAT16 ? &two_digits : &three_digits);
}
