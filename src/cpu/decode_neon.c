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
#include "cpu/lanes_neon.h"

enum { UNIT = 8 };
#include "cpu/decode_loops.h"

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

FA_INLINE void load_unit(const char *from, int64_t elements, fa_dtype dtype, vec y[1]) {
  if (elements == UNIT) {
    y[0] = load_eight(from, dtype);
  } else {
    uint32_t whole[VEC] = {0};
    memcpy(whole, from, (size_t)(elements * size_of(dtype)));
    y[0] = load_eight((const char *)whole, dtype);
  }
}

/* ------------------------------------------------------------------ scores */

/* Sums over the lanes of 4 vectors, vector i's in lane i. */
FA_INLINE float32x4_t add_across(const vec *x) {
  float32x4_t sum[4];
  UNROLL for (int i = 0; i < 4; ++i) sum[i] = vaddq_f32(x[i].low, x[i].high);
  return vpaddq_f32(vpaddq_f32(sum[0], sum[1]), vpaddq_f32(sum[2], sum[3]));
}

FA_INLINE void scores_step(vec acc[8], const float *q, int64_t q_stride, const char *const *k, int64_t offset,
                           int64_t elements, fa_dtype dtype, int rows) {
  const int keys = 8 / rows;
  vec x[4], y;
  UNROLL for (int r = 0; r < rows; ++r) x[r] = vec_load(q + r * q_stride);
  UNROLL for (int j = 0; j < keys; ++j) {
    load_unit(k[j] + offset, elements, dtype, &y);
    UNROLL for (int r = 0; r < rows; ++r) acc[r * keys + j] = vec_fma(x[r], y, acc[r * keys + j]);
  }
}

FA_INLINE void store_scores(float *tile, const vec acc[8], int rows) {
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

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, NULL, NULL, NULL, 0.0f};

fa_status fa_decode_neon_prepare(fa_plan *plan) { return fa_decode_prepare(plan); }

fa_status fa_decode_neon_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                             fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
