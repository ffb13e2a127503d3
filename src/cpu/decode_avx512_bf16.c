/* Decode of a bf16 or fp8 cache with AVX-512's bf16 dot products (VDPBF16PS, of Zen 4 and 5): pairs of bf16 multiplied and
 * added to fp32, half the multiplications of decode_avx512; bf16 as it lies in memory, fp8, which bf16 holds exactly, by a
 * table.
 *
 *   tile[r][j] = q_r . k_j;   o_r += sum_j w_rj v_j
 *
 * Level 1: the keys of a part; level 2: chunks of 64 keys (decode_split.c). Registers: 16 sums of scores, rows x keys
 * (1 x 16, 2 x 8, 4 x 4), of K rows as they lie in memory; 16 vectors of o (4 rows x 4; 2 or 1 x 8). P V takes pairs
 * of keys: two V rows are interleaved within 128-bit lanes, o lies in scratch in the order which that gives. The
 * weights are rounded to bf16, as in standard attention, their sum is not. A row of q lies in scratch as bf16.
 *
 * The instruction takes subnormals, and products below 2^-126, as 0. In a score that is nothing unless q has subnormals or
 * is huge: such rows of q become NaN. In o it is nothing beside a V of ordinary size: where the V that meet one
 * block of sums in a chunk are all below 2^-63, and not all 0, the sums become NaN. What is not finite is done again by
 * the driver in plain C, so these come out as exact as anything else. So do scales of an fp8 cache that make K huge or
 * all V of a chunk tiny. Masked keys have weight 0 here.
 *
 * Bound: reading K and V once. Measured results: docs/performance.md, "CPU decode". Xeons that have AMX multiply bf16
 * there: on them this instruction is slower than an fp32 FMA. */
#include "core/kernel_declarations.h"
#include "cpu/decode_avx512.h"

#define LARGEST_SCALE 0x1p60f
enum {
  LARGEST_OF_Q = (127 + 20) << 7, /* 2^20 times the largest scale: lost products of 2^-126 are below 2^-36 in all */
  EXPONENT = 0x7f80,              /* of bf16 bits */
  LEAST_EXPONENT = 64             /* a power of two, so that an OR of exponents tells whether all lie below */
};
#define LARGEST_K_SCALE 0x1p20f
#define LEAST_V_SCALE 0x1p-60f

/* ------------------------------------------------- 32 elements as pairs of bf16 */

/* bf16 of the 128 values of fp8 from 0 on; 0x7f is NaN. */
typedef struct fp8_table {
  __m512i part[4];
} fp8_table;

FA_INLINE fp8_table fp8_table_of(fa_dtype dtype) {
  fp8_table table = {{_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()}};
  if (dtype != FA_FP8_E4M3) return table;
  const __m512i lane = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10,
                                        9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  /* Normal numbers: exponent and 3 bits move up by 4, and the bias is 120 more; below 8 they are n / 512. */
  const __m512i subnormal = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3c60,
                                             0x3c40, 0x3c20, 0x3c00, 0x3bc0, 0x3b80, 0x3b00, 0);
  UNROLL for (int i = 0; i < 4; ++i) table.part[i] =
      _mm512_add_epi16(_mm512_slli_epi16(_mm512_add_epi16(lane, _mm512_set1_epi16((int16_t)(32 * i))), 4),
                       _mm512_set1_epi16(120 << 7));
  table.part[0] = _mm512_mask_mov_epi16(table.part[0], 0xff, subnormal);
  table.part[3] = _mm512_mask_mov_epi16(table.part[3], 1u << 31, _mm512_set1_epi16(0x7fc0));
  return table;
}

/* `keep`: which of the 32 elements exist; the others are not read and are 0. */
FA_INLINE __m512i load_32(const char *from, __mmask32 keep, int whole, fa_dtype dtype, const fp8_table *table) {
  if (dtype == FA_BFLOAT16) return whole ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(keep, from);
  const __m512i wide =
      _mm512_cvtepi8_epi16(whole ? _mm256_loadu_si256((const void *)from) : _mm256_maskz_loadu_epi8(keep, from));
  const __m512i low = _mm512_permutex2var_epi16(table->part[0], wide, table->part[1]); /* by 6 bits */
  const __m512i high = _mm512_permutex2var_epi16(table->part[2], wide, table->part[3]);
  const __m512i size = _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(wide, _mm512_set1_epi16(64)), high);
  return _mm512_ternarylogic_epi64(size, wide, _mm512_set1_epi16((int16_t)0x8000), 0xf8); /* size | (wide & sign) */
}

/* ------------------------------------------------------------------ scores */

FA_INLINE __m512 dot(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

/* rows x (16 / rows) scores; acc[r * keys + j]. */
FA_INLINE void scores_step(__m512 *acc, const char *q, int64_t q_stride, const char *const *k, int64_t offset, __mmask32 keep,
                        int whole, fa_dtype dtype, const fp8_table *table, int rows) {
  const int keys = 16 / rows;
  __m512i pairs[4];
  UNROLL for (int r = 0; r < rows; ++r) pairs[r] = _mm512_loadu_si512(q + r * q_stride);
  UNROLL for (int j = 0; j < keys; ++j) {
    const __m512i both = load_32(k[j] + offset, keep, whole, dtype, table);
    UNROLL for (int r = 0; r < rows; ++r) acc[r * keys + j] = dot(acc[r * keys + j], pairs[r], both);
  }
}

FA_INLINE void scores_rows(const fa_decode_chunk *chunk, const float *q, float *tile, fa_dtype dtype, int rows,
                           int64_t lines) {
  const int64_t keys = 16 / rows, dim = chunk->dim_qk, stride = chunk->q_stride * (int64_t)sizeof(float);
  const int64_t step = 32 * (int64_t)fa_dtype_size(dtype);
  const fp8_table table = fp8_table_of(dtype);
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += keys) {
    const char *row = (const char *)q;
    int64_t d = 0, offset = chunk->k_offset;
    fa_decode_fetch_lines(&fetch, lines * 4 / rows);
    __m512 acc[16];
    UNROLL for (int i = 0; i < 16; ++i) acc[i] = _mm512_setzero_ps();
    for (; d + 32 <= dim; d += 32, offset += step, row += 64)
      scores_step(acc, row, stride, chunk->k + j, offset, 0, 1, dtype, &table, rows);
    if (d < dim) scores_step(acc, row, stride, chunk->k + j, offset, keep_of(dim - d), 0, dtype, &table, rows);
    store_scores(tile + j, add_across(acc), rows);
  }
  *chunk->fetch = fetch;
}

FA_INLINE void scores_of(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile, fa_dtype dtype) {
  const int64_t blocks = fa_ceil_div(rows, 4) * (FA_DECODE_KEYS / 4);
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES, blocks);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    scores_rows(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, dtype, 4, lines);
  if (r + 2 <= rows) {
    scores_rows(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, dtype, 2, lines);
    r += 2;
  }
  if (r < rows) scores_rows(chunk, q + r * chunk->q_stride, tile + r * FA_DECODE_KEYS, dtype, 1, lines);
}

/* Of the scales of a chunk. */
static float largest_scale(const float *scale) {
  vec most = vec_zero();
  for (int j = 0; j < FA_DECODE_KEYS; j += VEC) most = vec_max(most, _mm512_abs_ps(vec_load(scale + j)));
  return vec_top(most);
}

static void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {
  if (chunk->kv_dtype == FA_BFLOAT16) {
    scores_of(chunk, q, rows, tile, FA_BFLOAT16);
    return;
  }
  scores_of(chunk, q, rows, tile, FA_FP8_E4M3);
  if (largest_scale(chunk->k_scale) > LARGEST_K_SCALE)
    for (int64_t i = 0; i < rows * FA_DECODE_KEYS; ++i) tile[i] = NAN;
}

/* ------------------------------------------------------------------ output */

/* A row of weights to bf16, at the row's own beginning: pairs of keys. */
static void round_weights(float *tile, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    float *row = tile + r * FA_DECODE_KEYS;
    const __m512i first = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + 16), _mm512_loadu_ps(row));
    const __m512i last = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + 48), _mm512_loadu_ps(row + 32));
    _mm512_storeu_si512(row, first);
    _mm512_storeu_si512(row + 16, last);
  }
}

/* Whether the bits of all V seen, together, are those of values all so small that some may have been lost. */
FA_INLINE int is_tiny(__m512i seen) {
  const __m512i exponent = _mm512_and_si512(seen, _mm512_set1_epi16((int16_t)EXPONENT));
  return _mm512_cmpge_epu16_mask(exponent, _mm512_set1_epi16(LEAST_EXPONENT << 7)) == 0 &&
         _mm512_test_epi16_mask(seen, _mm512_set1_epi16(0x7fff)) != 0;
}

/* o[rows][32 * vectors] += weights v, elements from d on. */
FA_INLINE void accumulate_block(const fa_decode_chunk *chunk, const float *weights, float *o, int64_t d, __mmask32 keep,
                             int whole, fa_dtype dtype, int rows, int vectors, int64_t lines) {
  const int64_t size = (int64_t)fa_dtype_size(dtype), offset = chunk->v_offset + size * d, stride = chunk->o_stride;
  __m512 acc[4][8];
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < 2 * vectors; ++i) acc[r][i] =
      _mm512_loadu_ps(o + r * stride + d + 16 * i);
  const fp8_table table = fp8_table_of(dtype);
  __m512i seen = _mm512_setzero_si512();
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += 2) {
    const char *even = chunk->v[j] + offset, *odd = chunk->v[j + 1] + offset;
    if (j % 4 == 0) fa_decode_fetch_lines(&fetch, lines);
    __m512i w[4];
    UNROLL for (int r = 0; r < rows; ++r) {
      int32_t pair;
      memcpy(&pair, (const char *)(weights + r * FA_DECODE_KEYS) + 2 * j, sizeof pair);
      w[r] = _mm512_set1_epi32(pair);
    }
    UNROLL for (int i = 0; i < vectors; ++i) {
      const __m512i a = load_32(even + 32 * i * size, keep, whole, dtype, &table);
      const __m512i b = load_32(odd + 32 * i * size, keep, whole, dtype, &table);
      const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
      if (dtype == FA_BFLOAT16) seen = _mm512_ternarylogic_epi64(seen, a, b, 0xfe); /* or */
      UNROLL for (int r = 0; r < rows; ++r) acc[r][2 * i] = dot(acc[r][2 * i], w[r], low);
      UNROLL for (int r = 0; r < rows; ++r) acc[r][2 * i + 1] = dot(acc[r][2 * i + 1], w[r], high);
    }
  }
  *chunk->fetch = fetch;
  if (is_tiny(seen)) acc[0][0] = _mm512_set1_ps(NAN);
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < 2 * vectors; ++i)
      _mm512_storeu_ps(o + r * stride + d + 16 * i, acc[r][i]);
}

FA_INLINE void accumulate_rows(const fa_decode_chunk *chunk, const float *weights, float *o, fa_dtype dtype, int rows,
                               int64_t lines) {
  const int vectors = rows == 4 ? 2 : 4;
  const int64_t dim = chunk->dim_v;
  int64_t d = 0;
  for (; d + 32 * vectors <= dim; d += 32 * vectors)
    accumulate_block(chunk, weights, o, d, 0, 1, dtype, rows, vectors, lines * vectors);
  for (; d + 32 <= dim; d += 32) accumulate_block(chunk, weights, o, d, 0, 1, dtype, rows, 1, lines);
  if (d < dim) accumulate_block(chunk, weights, o, d, keep_of(dim - d), 0, dtype, rows, 1, lines);
}

FA_INLINE void accumulate_of(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o, fa_dtype dtype) {
  const int64_t blocks = fa_ceil_div(rows, 4) * fa_ceil_div(chunk->dim_v, 32);
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE, blocks * (FA_DECODE_KEYS / 4));
  int64_t r = 0;
  round_weights(tile, rows);
  for (; r + 4 <= rows; r += 4)
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 4, lines);
  if (r + 2 <= rows) {
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 2, lines);
    r += 2;
  }
  if (r < rows) accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 1, lines);
}

static void accumulate(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  if (chunk->kv_dtype == FA_BFLOAT16) {
    accumulate_of(chunk, tile, rows, o, FA_BFLOAT16);
    return;
  }
  const float most = largest_scale(chunk->v_scale);
  fa_decode_scale_weights(chunk, rows, tile);
  accumulate_of(chunk, tile, rows, o, FA_FP8_E4M3);
  if (most > 0.0f && most < LEAST_V_SCALE) o[0] = NAN;
}

/* -------------------------------------------------------- q in, o out */

static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  (void)dtype, (void)kv_dtype;
  __mmask32 bad = 0;
  for (int64_t d = 0; d < dim; d += 32) {
    const __m512i x = load_32(q + 2 * d, keep_of(dim - d), 0, FA_BFLOAT16, NULL);
    const __m512i size = _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
    bad |= _mm512_cmpgt_epu16_mask(size, _mm512_set1_epi16(LARGEST_OF_Q));
    bad |= _mm512_cmplt_epu16_mask(_mm512_sub_epi16(size, _mm512_set1_epi16(1)), _mm512_set1_epi16(0x7f)); /* subnormal */
    _mm512_storeu_si512((char *)to + 2 * d, x);
  }
  if (bad) *(uint16_t *)(void *)to = 0x7fc0; /* NaN */
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  (void)kv_dtype;
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i last = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  for (int64_t d = 0; d < dim; d += 32) {
    const __mmask32 keep = keep_of(dim - d);
    const __m512 low = _mm512_loadu_ps(o + d), high = _mm512_loadu_ps(o + d + 16);
    _mm512_mask_storeu_ps(to + d, (__mmask16)keep, _mm512_permutex2var_ps(low, first, high));
    _mm512_mask_storeu_ps(to + d + 16, (__mmask16)(keep >> 16), _mm512_permutex2var_ps(low, last, high));
  }
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL, 0.0f};

fa_status fa_decode_avx512_bf16_prepare(fa_plan *plan) {
  if (plan->problem.kv_dtype == FA_INT8)
    return fa_fail(FA_ERROR_UNSUPPORTED, "decode_avx512_bf16 takes a cache of bf16 or fp8; decode_avx512 takes any");
  if (fabsf(plan->problem.scale) > LARGEST_SCALE)
    return fa_fail(FA_ERROR_UNSUPPORTED, "scale is %g; decode_avx512_bf16 takes at most %g, other kernels any",
                   (double)plan->problem.scale, (double)LARGEST_SCALE);
  return fa_decode_prepare(plan);
}

fa_status fa_decode_avx512_bf16_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                    fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
