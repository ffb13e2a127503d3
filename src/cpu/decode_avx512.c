/* Decode with AVX-512: fp32, fp16, bf16, int8 and fp8 KV, fp32 arithmetic.
 *
 *   tile[r][j] = q_r . k_j;   o_r += sum_j w_rj v_j
 *
 * Level 1: the keys of a part; level 2: chunks of 64 keys (decode_split.c). Registers: 16 accumulators, rows
 * x keys of scores (1 x 16, 2 x 8, 4 x 4) or rows x vectors of o (1 x 8, 2 x 8, 4 x 4), so that any group
 * keeps the two multipliers busy; the 16 sums of scores are added up across lanes together. 32 elements of a
 * row are two vectors: for bf16 the even and the odd elements (one shift, one mask, no shuffle), so q and o
 * lie in that order in scratch. Masked keys have weight 0 here; the driver does again in plain C what came
 * out not finite. Bound: reading K and V once. Measured on two Sapphire Rapids cores, bf16,
 * 1,32,8,1,262144,128: 88 ms, 12.1 GB/s, 55 to 62 % of a four-stream read (docs/performance.md). */
#include "core/kernel_declarations.h"
#include "cpu/decode_avx512.h"

/* ------------------------------------------------- 32 elements as two vectors */

/* E4M3 as fp16 is 1 / FP8_UNIT of its value, its subnormals included: the sums make up for it. All ones is NaN. */
#define FP8_UNIT 256.0f
FA_INLINE void from_fp8(__m256i bytes, __m512 *a, __m512 *b) {
  const __m512i wide = _mm512_cvtepi8_epi16(bytes);
  const __m512i half = _mm512_and_si512(_mm512_slli_epi16(wide, 7), _mm512_set1_epi16((int16_t)0xbf80));
  const __mmask32 is_nan =
      _mm512_cmpeq_epi16_mask(_mm512_or_si512(wide, _mm512_set1_epi16((int16_t)0xff80)), _mm512_set1_epi16(-1));
  const __m512i both = _mm512_mask_mov_epi16(half, is_nan, _mm512_set1_epi16(0x7e00));
  *a = _mm512_cvtph_ps(_mm512_castsi512_si256(both));
  *b = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(both, 1));
}

FA_INLINE void split_bf16(__m512i both, __m512 *a, __m512 *b) {
  *a = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  *b = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int32_t)0xffff0000)));
}

/* keep: which of the 32 elements exist; the others are not read and are 0. */
FA_INLINE void load_pair(const char *from, __mmask32 keep, int whole, fa_dtype dtype, __m512 *a, __m512 *b) {
  const __mmask16 low = (__mmask16)keep, high = (__mmask16)(keep >> 16);
  switch (dtype) {
    case FA_FLOAT32:
      *a = whole ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(low, from);
      *b = whole ? _mm512_loadu_ps(from + 64) : _mm512_maskz_loadu_ps(high, from + 64);
      break;
    case FA_FLOAT16:
      *a = _mm512_cvtph_ps(whole ? _mm256_loadu_si256((const void *)from)
                                 : _mm256_maskz_loadu_epi16(low, from));
      *b = _mm512_cvtph_ps(whole ? _mm256_loadu_si256((const void *)(from + 32))
                                 : _mm256_maskz_loadu_epi16(high, from + 32));
      break;
    case FA_BFLOAT16:
      split_bf16(whole ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(keep, from), a, b);
      break;
    default: {
      const __m256i bytes =
          whole ? _mm256_loadu_si256((const void *)from) : _mm256_maskz_loadu_epi8(keep, from);
      if (dtype == FA_INT8) {
        *a = vec_from_int8(_mm256_castsi256_si128(bytes));
        *b = vec_from_int8(_mm256_extracti128_si256(bytes, 1));
      } else {
        from_fp8(bytes, a, b);
      }
      break;
    }
  }
}

/* Even and odd elements back into their order. */
FA_INLINE void interleave(__m512 *a, __m512 *b) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const __m512 even = *a, odd = *b;
  *a = _mm512_permutex2var_ps(even, first, odd);
  *b = _mm512_permutex2var_ps(even, second, odd);
}

FA_INLINE int64_t size_of(fa_dtype dtype) { return (int64_t)fa_dtype_size(dtype); }

/* ------------------------------------------------------------------ scores */

/* rows x (16 / rows) scores; acc[r * keys + j]. */
FA_INLINE void scores_step(__m512 *acc, const float *q, int64_t q_stride, const char *const *k, int64_t offset,
                        __mmask32 keep, int whole, fa_dtype dtype, int rows) {
  const int keys = 16 / rows;
  __m512 qa[4], qb[4];
  UNROLL for (int r = 0; r < rows; ++r) {
    qa[r] = _mm512_loadu_ps(q + r * q_stride);
    qb[r] = _mm512_loadu_ps(q + r * q_stride + 16);
  }
  UNROLL for (int j = 0; j < keys; ++j) {
    __m512 a, b;
    load_pair(k[j] + offset, keep, whole, dtype, &a, &b);
    UNROLL for (int r = 0; r < rows; ++r) acc[r * keys + j] = _mm512_fmadd_ps(qa[r], a, acc[r * keys + j]);
    UNROLL for (int r = 0; r < rows; ++r) acc[r * keys + j] = _mm512_fmadd_ps(qb[r], b, acc[r * keys + j]);
  }
}

FA_INLINE void scores_block(const fa_decode_chunk *chunk, const float *q, const char *const *k, float *tile,
                         fa_dtype dtype, int rows) {
  const int64_t dim = chunk->dim_qk, stride = chunk->q_stride;
  int64_t offset = chunk->k_offset, d = 0;
  __m512 acc[16];
  UNROLL for (int i = 0; i < 16; ++i) acc[i] = _mm512_setzero_ps();
  for (; d + 32 <= dim; d += 32, offset += 32 * size_of(dtype))
    scores_step(acc, q + d, stride, k, offset, 0, 1, dtype, rows);
  if (d < dim) scores_step(acc, q + d, stride, k, offset, keep_of(dim - d), 0, dtype, rows);
  const __m512 sums = add_across(acc);
  store_scores(tile, dtype == FA_FP8_E4M3 ? vec_mul(sums, vec_set(FP8_UNIT)) : sums, rows);
}

FA_INLINE void scores_rows(const fa_decode_chunk *chunk, const float *q, float *tile, fa_dtype dtype, int rows,
                        int64_t lines) {
  const int64_t keys = 16 / rows;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += keys) {
    fa_decode_fetch_lines(&fetch, lines * 4 / rows);
    scores_block(chunk, q, chunk->k + j, tile + j, dtype, rows);
  }
  *chunk->fetch = fetch;
}

FA_INLINE void scores_of(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile,
                      fa_dtype dtype) {
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

static void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {
  switch (chunk->kv_dtype) {
    case FA_FLOAT32:
      scores_of(chunk, q, rows, tile, FA_FLOAT32);
      break;
    case FA_FLOAT16:
      scores_of(chunk, q, rows, tile, FA_FLOAT16);
      break;
    case FA_BFLOAT16:
      scores_of(chunk, q, rows, tile, FA_BFLOAT16);
      break;
    case FA_INT8:
      scores_of(chunk, q, rows, tile, FA_INT8);
      break;
    case FA_FP8_E4M3:
      scores_of(chunk, q, rows, tile, FA_FP8_E4M3);
      break;
  }
}

/* ------------------------------------------------------------------ output */

/* o[rows][32 * pairs] += weights v, elements from d on. */
FA_INLINE void accumulate_block(const fa_decode_chunk *chunk, const float *weights, float *o, int64_t d,
                             __mmask32 keep, int whole, fa_dtype dtype, int rows, int pairs, int64_t lines) {
  const int64_t offset = chunk->v_offset + d * size_of(dtype), stride = chunk->o_stride;
  __m512 acc[4][8];
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < 2 * pairs; ++i) acc[r][i] =
      _mm512_loadu_ps(o + r * stride + d + 16 * i);
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; ++j) {
    const char *v = chunk->v[j] + offset;
    if (j % 4 == 0) fa_decode_fetch_lines(&fetch, lines);
    __m512 w[4];
    UNROLL for (int r = 0; r < rows; ++r) w[r] = _mm512_set1_ps(weights[r * FA_DECODE_KEYS + j]);
    UNROLL for (int i = 0; i < pairs; ++i) {
      __m512 a, b;
      load_pair(v + 32 * i * size_of(dtype), keep, whole, dtype, &a, &b);
      UNROLL for (int r = 0; r < rows; ++r) acc[r][2 * i] = _mm512_fmadd_ps(w[r], a, acc[r][2 * i]);
      UNROLL for (int r = 0; r < rows; ++r) acc[r][2 * i + 1] = _mm512_fmadd_ps(w[r], b, acc[r][2 * i + 1]);
    }
  }
  *chunk->fetch = fetch;
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < 2 * pairs; ++i)
      _mm512_storeu_ps(o + r * stride + d + 16 * i, acc[r][i]);
}

FA_INLINE void accumulate_rows(const fa_decode_chunk *chunk, const float *weights, float *o, fa_dtype dtype,
                            int rows, int64_t lines) {
  const int pairs = rows == 4 ? 2 : 4;
  const int64_t dim = chunk->dim_v;
  int64_t d = 0;
  for (; d + 32 * pairs <= dim; d += 32 * pairs)
    accumulate_block(chunk, weights, o, d, 0, 1, dtype, rows, pairs, lines * pairs);
  for (; d + 32 <= dim; d += 32) accumulate_block(chunk, weights, o, d, 0, 1, dtype, rows, 1, lines);
  if (d < dim) accumulate_block(chunk, weights, o, d, keep_of(dim - d), 0, dtype, rows, 1, lines);
}

FA_INLINE void accumulate_of(const fa_decode_chunk *chunk, const float *tile, int64_t rows, float *o,
                          fa_dtype dtype) {
  const int64_t blocks = fa_ceil_div(rows, 4) * fa_ceil_div(chunk->dim_v, 32);
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE, blocks * (FA_DECODE_KEYS / 4));
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 4, lines);
  if (r + 2 <= rows) {
    accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 2, lines);
    r += 2;
  }
  if (r < rows) accumulate_rows(chunk, tile + r * FA_DECODE_KEYS, o + r * chunk->o_stride, dtype, 1, lines);
}

static void accumulate(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  if (chunk->v_scale) fa_decode_scale_weights(chunk, rows, tile);
  switch (chunk->kv_dtype) {
    case FA_FLOAT32:
      accumulate_of(chunk, tile, rows, o, FA_FLOAT32);
      break;
    case FA_FLOAT16:
      accumulate_of(chunk, tile, rows, o, FA_FLOAT16);
      break;
    case FA_BFLOAT16:
      accumulate_of(chunk, tile, rows, o, FA_BFLOAT16);
      break;
    case FA_INT8:
      accumulate_of(chunk, tile, rows, o, FA_INT8);
      break;
    case FA_FP8_E4M3:
      for (int64_t i = 0; i < rows * FA_DECODE_KEYS; ++i) tile[i] *= FP8_UNIT;
      accumulate_of(chunk, tile, rows, o, FA_FP8_E4M3);
      break;
  }
}

/* -------------------------------------------------------- q in, o out */

static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  for (int64_t d = 0; d < dim; d += 32, to += 32) {
    const __mmask32 keep = keep_of(dim - d);
    __m512 a, b;
    load_pair(q + d * size_of(dtype), keep, 0, dtype, &a, &b);
    if (dtype == FA_BFLOAT16 && kv_dtype != FA_BFLOAT16) interleave(&a, &b);
    _mm512_storeu_ps(to, a);
    _mm512_storeu_ps(to + 16, b);
  }
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  for (int64_t d = 0; d < dim; d += 32) {
    const __mmask32 keep = keep_of(dim - d);
    __m512 a = _mm512_loadu_ps(o + d), b = _mm512_loadu_ps(o + d + 16);
    if (kv_dtype == FA_BFLOAT16) interleave(&a, &b);
    _mm512_mask_storeu_ps(to + d, (__mmask16)keep, a);
    _mm512_mask_storeu_ps(to + d + 16, (__mmask16)(keep >> 16), b);
  }
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL, 0.0f};

fa_status fa_decode_avx512_prepare(fa_plan *plan) { return fa_decode_prepare(plan); }

fa_status fa_decode_avx512_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                               fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
