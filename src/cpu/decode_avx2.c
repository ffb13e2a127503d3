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
#include "core/kernel_declarations.h"
#include "cpu/lanes_avx2.h"

enum { UNIT = 16 };
#include "cpu/decode_loops.h"

/* ------------------------------------------------- 16 elements as two vectors */

FA_INLINE __m256 from_int8(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }

/* E4M3 as fp16 is 2^-8 too small, its subnormals included; all ones is NaN. */
FA_INLINE void split_fp8(__m128i bytes, __m256 *a, __m256 *b) {
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

FA_INLINE void split_bf16(__m256i both, __m256 *a, __m256 *b) {
  *a = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  *b = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int32_t)0xffff0000)));
}

FA_INLINE void load_pair(const char *from, fa_dtype dtype, __m256 *a, __m256 *b) {
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

FA_INLINE void load_unit(const char *from, int64_t elements, fa_dtype dtype, __m256 y[2]) {
  if (elements == UNIT) {
    load_pair(from, dtype, &y[0], &y[1]);
  } else {
    char whole[64] = {0};
    memcpy(whole, from, (size_t)(elements * size_of(dtype)));
    load_pair(whole, dtype, &y[0], &y[1]);
  }
}

/* Even and odd elements back into their order. */
FA_INLINE void interleave(__m256 *a, __m256 *b) {
  const __m256 low = _mm256_unpacklo_ps(*a, *b), high = _mm256_unpackhi_ps(*a, *b);
  *a = _mm256_permute2f128_ps(low, high, 0x20);
  *b = _mm256_permute2f128_ps(low, high, 0x31);
}

/* ------------------------------------------------------------------ scores */

/* Sums over the lanes of 8 vectors, vector i's in lane i. */
FA_INLINE __m256 add_across(const __m256 *x) {
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

/* Rows of q are read where they are used: the keys' vectors and the accumulators leave no register for them. */
FA_INLINE void scores_step(__m256 acc[8], const float *q, int64_t q_stride, const char *const *k, int64_t offset,
                           int64_t elements, fa_dtype dtype, int rows) {
  const int keys = 8 / rows;
  __m256 y[8][2];
  UNROLL for (int j = 0; j < keys; ++j) load_unit(k[j] + offset, elements, dtype, y[j]);
  UNROLL for (int r = 0; r < rows; ++r) {
    const __m256 qa = _mm256_loadu_ps(q + r * q_stride), qb = _mm256_loadu_ps(q + r * q_stride + 8);
    UNROLL for (int j = 0; j < keys; ++j) acc[r * keys + j] = _mm256_fmadd_ps(qa, y[j][0], acc[r * keys + j]);
    UNROLL for (int j = 0; j < keys; ++j) acc[r * keys + j] = _mm256_fmadd_ps(qb, y[j][1], acc[r * keys + j]);
  }
}

FA_INLINE void store_two(float *to, __m128 sums, int half) {
  if (half)
    _mm_storeh_pd((double *)(void *)to, _mm_castps_pd(sums));
  else
    _mm_storel_pd((double *)(void *)to, _mm_castps_pd(sums));
}

FA_INLINE void store_scores(float *tile, const __m256 acc[8], int rows) {
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

/* -------------------------------------------------------- q in, o out, softmax */

/* Up to 15 floats behind `dim` are written too: rows in scratch are padded. */
static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  for (int64_t d = 0; d < dim; d += 16) {
    __m256 y[2];
    load_unit(q + d * size_of(dtype), fa_min(dim - d, 16), dtype, y);
    if (dtype == FA_BFLOAT16 && kv_dtype != FA_BFLOAT16) interleave(&y[0], &y[1]);
    _mm256_storeu_ps(to + d, y[0]);
    _mm256_storeu_ps(to + d + 8, y[1]);
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

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL, 0.0f};

fa_status fa_decode_avx2_prepare(fa_plan *plan) { return fa_decode_prepare(plan); }

fa_status fa_decode_avx2_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
