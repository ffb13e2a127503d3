/* The score rules beyond scale, on a tile of fp32 scores [rows, keys] between Q K^T and softmax: softcap,
 *   ALiBi, bias, boolean mask (fa_score_rules_apply), band (fa_score_band_apply).
 * A key that is masked out becomes -INFINITY; softmax turns that into a weight of exactly 0. The loops run
 * along the keys and vectorise in the including file's instruction set. A problem without rules pays one test
 * a tile. */
#ifndef FA_CPU_SCORE_RULES_H
#define FA_CPU_SCORE_RULES_H

#include "cpu/cpu.h"
#include "cpu/exp_lane.h"

/* Rules of one (batch entry, query head). */
typedef struct fa_score_rules {
  int32_t any;       /* 0: fa_score_rules_apply has nothing to do (the band is apart) */
  fa_dtype bias_dtype;
  float softcap;     /* 0: none */
  float slope;       /* 0: no ALiBi */
  int64_t diagonal;  /* S_kv - S_q: query i stands at key i + diagonal */
  const char *bias;  /* element (query 0, key 0), or NULL */
  int64_t bias_stride; /* bytes between queries */
  const uint8_t *mask;
  int64_t mask_stride;
  fa_band band;
  int64_t seqlen_kv;
} fa_score_rules;

static inline int32_t fa_score_rules_any(const fa_attention_problem *p) {
  return p->softcap > 0.0f || p->has_alibi || p->has_bias || p->has_mask;
}

static inline fa_score_rules fa_score_rules_of(const fa_plan *plan, const fa_attention_args *args, int64_t b,
                                               int64_t h) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t seqlen_q = fa_cpu_seqlen_q(plan, args, b), seqlen_kv = fa_cpu_seqlen_kv(plan, args, b);
  fa_score_rules rules = {0};
  rules.softcap = p->softcap;
  rules.diagonal = seqlen_kv - seqlen_q;
  rules.seqlen_kv = seqlen_kv;
  rules.band = fa_band_of(p, seqlen_q, seqlen_kv);
  if (p->has_alibi) rules.slope = args->alibi_slopes[b * args->alibi_stride_batch + h];
  if (p->has_bias && args->bias.data) { /* NULL: no query meets a key */
    const int64_t size = (int64_t)fa_dtype_size(p->bias_dtype);
    rules.bias_dtype = p->bias_dtype;
    rules.bias = (const char *)args->bias.data +
                 (b * args->bias.stride_batch + h * args->bias.stride_head) * size;
    rules.bias_stride = args->bias.stride_seq * size;
  }
  if (p->has_mask && args->mask.data) {
    rules.mask = (const uint8_t *)args->mask.data + b * args->mask.stride_batch + h * args->mask.stride_head;
    rules.mask_stride = args->mask.stride_seq;
  }
  rules.any = fa_score_rules_any(p);
  return rules;
}

/* fp16 without branches, so that it vectorises where there is no F16C. */
static inline float fa_score_f16(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu;
  const uint32_t scaled = fa_float_bits(fa_float_from_bits(magnitude << 13) * 0x1p112f);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  return fa_float_from_bits((magnitude >= 0x7c00u ? special : scaled) | (uint32_t)(h & 0x8000u) << 16);
}

static inline void fa_score_bias_row(float *restrict s, const void *bias, fa_dtype dtype, int64_t keys) {
  if (dtype == FA_FLOAT32) {
    const float *restrict from = bias;
    for (int64_t j = 0; j < keys; j++) s[j] += from[j];
  } else {
    const uint16_t *restrict from = bias;
    if (dtype == FA_FLOAT16)
      for (int64_t j = 0; j < keys; j++) s[j] += fa_score_f16(from[j]);
    else
      for (int64_t j = 0; j < keys; j++) s[j] += fa_bf16_to_float(from[j]);
  }
}

/* One query against keys [key, key + keys), all below seqlen_kv; s holds scale * q . k, for keys at stride 1.
 */
static inline void fa_score_rules_apply_row(const fa_score_rules *rules, float *restrict s, int64_t row,
                                            int64_t key, int64_t keys) {
  if (rules->softcap > 0.0f) {
    const float cap = rules->softcap;
    for (int64_t j = 0; j < keys; j++) s[j] = cap * fa_tanh_lane(s[j] / cap);
  }
  if (rules->slope != 0.0f) {
    const float slope = rules->slope;
    const int32_t distance = (int32_t)(row + rules->diagonal - key);
    for (int32_t j = 0; j < (int32_t)keys; j++) s[j] -= slope * fabsf((float)(distance - j));
  }
  if (rules->bias) {
    const char *bias =
        rules->bias + row * rules->bias_stride + key * (int64_t)fa_dtype_size(rules->bias_dtype);
    fa_score_bias_row(s, bias, rules->bias_dtype, keys);
  }
  if (rules->mask) {
    const uint8_t *restrict mask = rules->mask + row * rules->mask_stride + key;
    for (int64_t j = 0; j < keys; j++) s[j] = mask[j] ? s[j] : -INFINITY;
  }
}

/* A tile of queries [row, row + rows): row r of the tile starts at s + r * row_stride. */
static inline void fa_score_rules_apply(const fa_score_rules *rules, float *s, int64_t row_stride,
                                        int64_t row, int64_t rows, int64_t key, int64_t keys) {
  if (!rules->any) return;
  for (int64_t r = 0; r < rows; r++) fa_score_rules_apply_row(rules, s + r * row_stride, row + r, key, keys);
}

/* Keys of [key, key + keys) that query `row` keeps by band and sequence end, relative to key; empty: begin ==
 * end. */
static inline fa_key_range fa_score_band_row(const fa_score_rules *rules, int64_t row, int64_t key,
                                             int64_t keys) {
  const int64_t last = fa_min(row + rules->band.upper, rules->seqlen_kv - 1);
  fa_key_range range;
  range.begin = fa_min(fa_max(row + rules->band.lower - key, 0), keys);
  range.end = fa_max(fa_min(last + 1 - key, keys), range.begin);
  return range;
}

/* The tile-mask's window case by per-row bounds. keys may run past the sequence's end (padding of a vector
 * tile): what lies there becomes -INFINITY whatever it holds. */
static inline void fa_score_band_apply(const fa_score_rules *rules, float *s, int64_t row_stride, int64_t row,
                                       int64_t rows, int64_t key, int64_t keys) {
  for (int64_t r = 0; r < rows; r++) {
    float *to = s + r * row_stride;
    const fa_key_range range = fa_score_band_row(rules, row + r, key, keys);
    for (int64_t j = 0; j < range.begin; j++) to[j] = -INFINITY;
    for (int64_t j = range.end; j < keys; j++) to[j] = -INFINITY;
  }
}

#endif
