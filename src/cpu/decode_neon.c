/* Decode with AArch64's NEON: fp32, fp16, bf16, int8 and fp8 KV, fp32 arithmetic.
 *
 *   tile[r][j] = q_r . k_j;   o_r += sum_j w_rj v_j
 *
 * Level 1: the keys of a part; level 2: chunks of 64 keys (decode_split.c). Registers: 8 accumulators of 8
 * lanes (16 of the 32 registers), rows x keys of scores (1 x 8, 2 x 4, 4 x 2) or rows x eights of o (1 x 8, 2
 * x 4, 4 x 2), beside them the eights of q, or the weights, of the rows, and one eight of K or V, which all
 * rows use as soon as it is converted. The end of a row that is no multiple of 8 goes through a buffer.
 * Masked keys have weight 0 here; the driver does again in plain C what came out not finite. Bound: reading K
 * and V once. Right under an emulator (emulated); its speed: not run. */
#include "core/kernel_declarations.h"
#include "cpu/decode_split.h"
#include "cpu/lanes_neon.h"

/* Accumulators live in registers only if every loop over them is unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* ------------------------------------------------------- 8 elements to fp32 */

FA_INLINE vec from_int8(int8x8_t bytes) {
  const int16x8_t wide = vmovl_s8(bytes);
  return (vec){vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)))};
}

/* E4M3 as fp16 is 2^-8 too small, its subnormals included; all ones is NaN. */
FA_INLINE vec from_fp8(uint8x8_t bytes) {
  const uint16x8_t wide = vmovl_u8(bytes), magnitude = vandq_u16(wide, vdupq_n_u16(0x7f));
  const uint16x8_t sign = vshlq_n_u16(vandq_u16(wide, vdupq_n_u16(0x80)), 8);
  const uint16x8_t nan = vandq_u16(vceqq_u16(magnitude, vdupq_n_u16(0x7f)), vdupq_n_u16(0x7e00));
  const uint16x8_t half = vorrq_u16(vorrq_u16(vshlq_n_u16(magnitude, 7), sign), nan);
  return vec_mul(vec_from_f16(half), vec_set(256.0f));
}

FA_INLINE int64_t size_of(fa_dtype dtype) { return (int64_t)fa_dtype_size(dtype); }

FA_INLINE vec load_eight(const char *from, fa_dtype dtype) {
  switch (dtype) {
    case FA_INT8:
      return from_int8(vld1_s8((const void *)from));
    case FA_FP8_E4M3:
      return from_fp8(vld1_u8((const void *)from));
    default:
      return vec_load_row(from, dtype, VEC);
  }
}

/* The first `elements` of 8; the others are not read and are 0. */
FA_INLINE vec load_part(const char *from, int64_t elements, fa_dtype dtype) {
  uint32_t whole[VEC] = {0};
  memcpy(whole, from, (size_t)(elements * size_of(dtype)));
  return load_eight((const char *)whole, dtype);
}

/* ------------------------------------------------------------------ scores */

/* Sums over the lanes of 4 vectors, vector i's in lane i. */
FA_INLINE float32x4_t add_across(const vec *x) {
  float32x4_t sum[4];
  UNROLL for (int i = 0; i < 4; ++i) sum[i] = vaddq_f32(x[i].low, x[i].high);
  return vpaddq_f32(vpaddq_f32(sum[0], sum[1]), vpaddq_f32(sum[2], sum[3]));
}

/* rows x (8 / rows) scores; acc[r * keys + j]. elements: 8, or fewer at the end of a row. */
FA_INLINE void scores_step(vec *acc, const float *q, int64_t q_stride, const char *const *k, int64_t offset,
                           int64_t elements, fa_dtype dtype, int rows) {
  const int keys = 8 / rows;
  vec x[4];
  UNROLL for (int r = 0; r < rows; ++r) x[r] = vec_load(q + r * q_stride);
  UNROLL for (int j = 0; j < keys; ++j) {
    const vec y =
        elements == VEC ? load_eight(k[j] + offset, dtype) : load_part(k[j] + offset, elements, dtype);
    UNROLL for (int r = 0; r < rows; ++r) acc[r * keys + j] = vec_fma(x[r], y, acc[r * keys + j]);
  }
}

FA_INLINE void scores_block(const fa_decode_chunk *chunk, const float *q, const char *const *k, float *tile,
                            fa_dtype dtype, int rows) {
  const int64_t dim = chunk->dim_qk, stride = chunk->q_stride;
  int64_t offset = chunk->k_offset, d = 0;
  vec acc[8];
  UNROLL for (int i = 0; i < 8; ++i) acc[i] = vec_zero();
  for (; d + VEC <= dim; d += VEC, offset += VEC * size_of(dtype))
    scores_step(acc, q + d, stride, k, offset, VEC, dtype, rows);
  if (d < dim) scores_step(acc, q + d, stride, k, offset, dim - d, dtype, rows);
  const float32x4_t low = add_across(acc), high = add_across(acc + 4);
  if (rows == 1) {
    vst1q_f32(tile, low);
    vst1q_f32(tile + 4, high);
  } else if (rows == 2) {
    vst1q_f32(tile, low);
    vst1q_f32(tile + FA_DECODE_KEYS, high);
  } else {
    vst1_f32(tile, vget_low_f32(low));
    vst1_f32(tile + FA_DECODE_KEYS, vget_high_f32(low));
    vst1_f32(tile + 2 * FA_DECODE_KEYS, vget_low_f32(high));
    vst1_f32(tile + 3 * FA_DECODE_KEYS, vget_high_f32(high));
  }
}

/* lines: to fetch for every 16 scores. */
FA_INLINE void scores_rows(const fa_decode_chunk *chunk, const float *q, float *tile, fa_dtype dtype,
                           int rows, int64_t lines) {
  const int64_t keys = 8 / rows;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  for (int64_t j = 0; j < chunk->keys; j += 2 * keys) {
    fa_decode_fetch_lines(&fetch, lines);
    scores_block(chunk, q, chunk->k + j, tile + j, dtype, rows);
    scores_block(chunk, q, chunk->k + j + keys, tile + j + keys, dtype, rows);
  }
  *chunk->fetch = fetch;
}

FA_INLINE void scores_of(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile,
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

/* o[rows][8 * eights] += weights v, elements from d on; elements: 8 * eights, or fewer at the end of a row
 * (eights 1). lines: to fetch for every 4 keys. */
FA_INLINE void accumulate_block(const fa_decode_chunk *chunk, const float *weights, float *o, int64_t d,
                                int64_t elements, fa_dtype dtype, int rows, int eights, int64_t lines) {
  const int64_t offset = chunk->v_offset + d * size_of(dtype), stride = chunk->o_stride;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  vec acc[4][8];
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < eights; ++i) acc[r][i] =
      vec_load(o + r * stride + d + VEC * i);
  for (int64_t j = 0; j < chunk->keys; ++j) {
    const char *v = chunk->v[j] + offset;
    if (j % 4 == 0) fa_decode_fetch_lines(&fetch, lines);
    UNROLL for (int i = 0; i < eights; ++i) {
      const vec y = elements == VEC * eights ? load_eight(v + VEC * i * size_of(dtype), dtype)
                                             : load_part(v, elements, dtype);
      UNROLL for (int r = 0; r < rows; ++r) acc[r][i] =
          vec_fma(vec_set(weights[r * FA_DECODE_KEYS + j]), y, acc[r][i]);
    }
  }
  *chunk->fetch = fetch;
  UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int i = 0; i < eights; ++i)
      vec_store(o + r * stride + d + VEC * i, acc[r][i]);
}

/* lines: to fetch for every 4 keys and 64 accumulators' worth of o. */
FA_INLINE void accumulate_rows(const fa_decode_chunk *chunk, const float *weights, float *o, fa_dtype dtype,
                               int rows, int64_t lines) {
  const int eights = 8 / rows;
  const int64_t dim = chunk->dim_v;
  int64_t d = 0;
  for (; d + VEC * eights <= dim; d += VEC * eights)
    accumulate_block(chunk, weights, o, d, VEC * eights, dtype, rows, eights, lines);
  for (; d + VEC <= dim; d += VEC) accumulate_block(chunk, weights, o, d, VEC, dtype, rows, 1, lines);
  if (d < dim) accumulate_block(chunk, weights, o, d, dim - d, dtype, rows, 1, lines);
}

FA_INLINE void accumulate_of(const fa_decode_chunk *chunk, const float *tile, int64_t rows, float *o,
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

/* Up to 7 floats behind `dim` are written too: rows in scratch are padded. */
static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  (void)kv_dtype;
  for (int64_t d = 0; d < dim; d += VEC)
    vec_store(to + d, vec_load_row(q + d * size_of(dtype), dtype, dim - d));
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  (void)kv_dtype;
  memcpy(to, o, (size_t)dim * sizeof *to);
}

static void weigh(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries, int64_t rows,
                  float *tile, fa_part *parts, float *o) {
  fa_decode_weigh(chunk, rules, queries, rows, tile, parts, o, 0);
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL};

fa_status fa_decode_neon_prepare(fa_plan *plan) { return fa_decode_prepare(plan); }

fa_status fa_decode_neon_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
