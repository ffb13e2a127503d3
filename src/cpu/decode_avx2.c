/* Decode with AVX2, FMA and F16C: fp32, fp16, bf16, int8 and fp8 KV, fp32 arithmetic.
 *
 *   tile[r][j] = q_r . k_j;   o_r += sum_j w_rj v_j
 *
 * Level 1: the keys of a part; level 2: chunks of 64 keys (decode_split.c). Registers: 8 accumulators, rows x
 * keys of scores (1 x 8, 2 x 4, 4 x 2) or rows x vectors of o (1 x 8, 2 x 4, 4 x 2); the 8 sums of scores are
 * added up across lanes together. 16 elements of a row are two vectors: for bf16 the even and the odd
 * elements (one shift, one mask, no shuffle), so q and o lie in that order in scratch. The end of a row that
 * is no multiple of 16 goes through a buffer, since there are no masked 16-bit loads. Masked keys have weight
 * 0 here; the driver does again in plain C what came out not finite. Bound: reading K and V once. Measured on
 * two Sapphire Rapids cores, bf16, 1,32,8,1,262144,128: 111 ms, 9.6 GB/s, 55 % of a one-stream read
 * (docs/performance.md). */
#include <immintrin.h>

#include "core/kernel_declarations.h"
#include "cpu/decode_split.h"

#define INLINE static inline __attribute__((always_inline))
/* Accumulators live in registers only if every loop over them is unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* ------------------------------------------------- 16 elements as two vectors */

INLINE __m256 from_int8(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }

/* E4M3 as fp16 is 2^-8 too small, its subnormals included; all ones is NaN. */
INLINE void split_fp8(__m128i bytes, __m256 *a, __m256 *b) {
  const __m256i wide = _mm256_cvtepu8_epi16(bytes);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  const __m256i is_nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
  const __m256i nan = _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7e00));
  const __m256i half = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign), nan);
  const __m256 up = _mm256_set1_ps(256.0f);
  *a = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)), up);
  *b = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)), up);
}

INLINE void split_bf16(__m256i both, __m256 *a, __m256 *b) {
  *a = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  *b = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int32_t)0xffff0000)));
}

INLINE int64_t size_of(fa_dtype dtype) { return (int64_t)fa_dtype_size(dtype); }

INLINE void load_pair(const char *from, fa_dtype dtype, __m256 *a, __m256 *b) {
  switch (dtype) {
    case FA_FLOAT32:
      *a = _mm256_loadu_ps((const void *)from);
      *b = _mm256_loadu_ps((const void *)(from + 32));
      break;
    case FA_FLOAT16:
      *a = _mm256_cvtph_ps(_mm_loadu_si128((const void *)from));
      *b = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + 16)));
      break;
    case FA_BFLOAT16:
      split_bf16(_mm256_loadu_si256((const void *)from), a, b);
      break;
    case FA_INT8:
      *a = from_int8(_mm_loadl_epi64((const void *)from));
      *b = from_int8(_mm_loadl_epi64((const void *)(from + 8)));
      break;
    default:
      split_fp8(_mm_loadu_si128((const void *)from), a, b);
      break;
  }
}

/* The first `elements` of 16; the others are not read and are 0. */
INLINE void load_part(const char *from, int64_t elements, fa_dtype dtype, __m256 *a, __m256 *b) {
  char whole[64] = {0};
  memcpy(whole, from, (size_t)(elements * size_of(dtype)));
  load_pair(whole, dtype, a, b);
}

/* Even and odd elements back into their order. */
INLINE void interleave(__m256 *a, __m256 *b) {
  const __m256 low = _mm256_unpacklo_ps(*a, *b), high = _mm256_unpackhi_ps(*a, *b);
  *a = _mm256_permute2f128_ps(low, high, 0x20);
  *b = _mm256_permute2f128_ps(low, high, 0x31);
}

/* ------------------------------------------------------------------ scores */

/* Sums over the lanes of 8 vectors, vector i's in lane i. */
INLINE __m256 add_across(const __m256 *x) {
  __m256 pair[4], four[2];
  UNROLL for (int i = 0; i < 4; ++i) pair[i] =
      _mm256_add_ps(_mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]));
  UNROLL for (int i = 0; i < 2; ++i) {
    const __m256d a = _mm256_castps_pd(pair[2 * i]), b = _mm256_castps_pd(pair[2 * i + 1]);
    four[i] =
        _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  }
  return _mm256_add_ps(_mm256_permute2f128_ps(four[0], four[1], 0x20),
                       _mm256_permute2f128_ps(four[0], four[1], 0x31));
}

/* rows x (8 / rows) scores; acc[r * keys + j]. elements: 16, or fewer at the end of a row. */
INLINE void scores_step(__m256 *acc, const float *q, int64_t q_stride, const char *const *k, int64_t offset,
                        int64_t elements, fa_dtype dtype, int rows) {
  const int keys = 8 / rows;
  __m256 a[8], b[8];
  UNROLL for (int j = 0; j < keys; ++j) {
    if (elements == 16)
      load_pair(k[j] + offset, dtype, &a[j], &b[j]);
    else
      load_part(k[j] + offset, elements, dtype, &a[j], &b[j]);
  }
  UNROLL for (int r = 0; r < rows; ++r) {
    const __m256 qa = _mm256_loadu_ps(q + r * q_stride), qb = _mm256_loadu_ps(q + r * q_stride + 8);
    UNROLL for (int j = 0; j < keys; ++j) acc[r * keys + j] = _mm256_fmadd_ps(qa, a[j], acc[r * keys + j]);
    UNROLL for (int j = 0; j < keys; ++j) acc[r * keys + j] = _mm256_fmadd_ps(qb, b[j], acc[r * keys + j]);
  }
}

INLINE void store_two(float *to, __m128 sums, int half) {
  if (half)
    _mm_storeh_pd((double *)(void *)to, _mm_castps_pd(sums));
  else
    _mm_storel_pd((double *)(void *)to, _mm_castps_pd(sums));
}

INLINE void scores_block(const fa_decode_chunk *chunk, const float *q, const char *const *k, float *tile,
                         fa_dtype dtype, int rows) {
  const int64_t dim = chunk->dim_qk, stride = chunk->q_stride;
  int64_t offset = chunk->k_offset, d = 0;
  __m256 acc[8];
  UNROLL for (int i = 0; i < 8; ++i) acc[i] = _mm256_setzero_ps();
  for (; d + 16 <= dim; d += 16, offset += 16 * size_of(dtype))
    scores_step(acc, q + d, stride, k, offset, 16, dtype, rows);
  if (d < dim) scores_step(acc, q + d, stride, k, offset, dim - d, dtype, rows);
  const __m256 sums = add_across(acc);
  const __m128 low = _mm256_castps256_ps128(sums), high = _mm256_extractf128_ps(sums, 1);
  if (rows == 1) {
    _mm256_storeu_ps(tile, sums);
  } else if (rows == 2) {
    _mm_storeu_ps(tile, low);
    _mm_storeu_ps(tile + FA_DECODE_KEYS, high);
  } else {
    store_two(tile, low, 0);
    store_two(tile + FA_DECODE_KEYS, low, 1);
    store_two(tile + 2 * FA_DECODE_KEYS, high, 0);
    store_two(tile + 3 * FA_DECODE_KEYS, high, 1);
  }
}

/* lines: to fetch for every 16 scores. */
INLINE void scores_rows(const fa_decode_chunk *chunk, const float *q, float *tile, fa_dtype dtype, int rows,
                        int64_t lines) {
  const int64_t keys = 8 / rows;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += 2 * keys) {
    fa_decode_fetch_lines(&fetch, lines);
    scores_block(chunk, q, chunk->k + j, tile + j, dtype, rows);
    scores_block(chunk, q, chunk->k + j + keys, tile + j + keys, dtype, rows);
  }
  *chunk->fetch = fetch;
}

INLINE void scores_of(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile,
                      fa_dtype dtype) {
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES, fa_ceil_div(rows * FA_DECODE_KEYS, 16));
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

/* o[rows][16 * pairs] += weights v, elements from d on; elements: 16 * pairs, or fewer at the end of a row
 * (pairs 1). lines: to fetch for every 4 keys. */
INLINE void accumulate_block(const fa_decode_chunk *chunk, const float *weights, float *o, int64_t d,
                             int64_t elements, fa_dtype dtype, int rows, int pairs, int64_t lines) {
  const int64_t offset = chunk->v_offset + d * size_of(dtype), stride = chunk->o_stride;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  __m256 acc[4][8];
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < 2 * pairs; ++i) acc[r][i] =
      _mm256_loadu_ps(o + r * stride + d + 8 * i);
  for (int64_t j = 0; j < chunk->keys; ++j) {
    const char *v = chunk->v[j] + offset;
    if (j % 4 == 0) fa_decode_fetch_lines(&fetch, lines);
    UNROLL for (int i = 0; i < pairs; ++i) {
      __m256 a, b;
      if (elements == 16 * pairs)
        load_pair(v + 16 * i * size_of(dtype), dtype, &a, &b);
      else
        load_part(v, elements, dtype, &a, &b);
      UNROLL for (int r = 0; r < rows; ++r) {
        const __m256 w = _mm256_broadcast_ss(weights + r * FA_DECODE_KEYS + j);
        acc[r][2 * i] = _mm256_fmadd_ps(w, a, acc[r][2 * i]);
        acc[r][2 * i + 1] = _mm256_fmadd_ps(w, b, acc[r][2 * i + 1]);
      }
    }
  }
  *chunk->fetch = fetch;
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < 2 * pairs; ++i)
      _mm256_storeu_ps(o + r * stride + d + 8 * i, acc[r][i]);
}

/* lines: to fetch for every 4 keys and 64 accumulators' worth of o. */
INLINE void accumulate_rows(const fa_decode_chunk *chunk, const float *weights, float *o, fa_dtype dtype,
                            int rows, int64_t lines) {
  const int pairs = 4 / rows;
  const int64_t dim = chunk->dim_v;
  int64_t d = 0;
  for (; d + 16 * pairs <= dim; d += 16 * pairs)
    accumulate_block(chunk, weights, o, d, 16 * pairs, dtype, rows, pairs, lines);
  for (; d + 16 <= dim; d += 16) accumulate_block(chunk, weights, o, d, 16, dtype, rows, 1, lines);
  if (d < dim) accumulate_block(chunk, weights, o, d, dim - d, dtype, rows, 1, lines);
}

INLINE void accumulate_of(const fa_decode_chunk *chunk, const float *tile, int64_t rows, float *o,
                          fa_dtype dtype) {
  const int64_t blocks = fa_ceil_div(rows * chunk->dim_v, 64);
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
      accumulate_of(chunk, tile, rows, o, FA_FP8_E4M3);
      break;
  }
}

/* -------------------------------------------------------- q in, o out, softmax */

/* Up to 15 floats behind `dim` are written too: rows in scratch are padded. */
static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  for (int64_t d = 0; d < dim; d += 16) {
    __m256 a, b;
    load_part(q + d * size_of(dtype), fa_min(dim - d, 16), dtype, &a, &b);
    if (dtype == FA_BFLOAT16 && kv_dtype != FA_BFLOAT16) interleave(&a, &b);
    _mm256_storeu_ps(to + d, a);
    _mm256_storeu_ps(to + d + 8, b);
  }
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  for (int64_t d = 0; d < dim; d += 16) {
    __m256 a = _mm256_loadu_ps(o + d), b = _mm256_loadu_ps(o + d + 8);
    float whole[16];
    if (kv_dtype == FA_BFLOAT16) interleave(&a, &b);
    _mm256_storeu_ps(whole, a);
    _mm256_storeu_ps(whole + 8, b);
    memcpy(to + d, whole, (size_t)fa_min(dim - d, 16) * sizeof *to);
  }
}

static void weigh(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries, int64_t rows,
                  float *tile, fa_part *parts, float *o) {
  fa_decode_weigh(chunk, rules, queries, rows, tile, parts, o, 0);
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL};

fa_status fa_decode_avx2_prepare(fa_plan *plan) { return fa_decode_prepare(plan); }

fa_status fa_decode_avx2_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
