#include "layer_ops.h"

#include <math.h>
#include <string.h>

/* The loops here are plain and short; a prompt spends its time in them unless they use the widest vectors
 * there are. Sanitizers do not get along with functions chosen at load time. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define WIDEST_VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST_VECTORS
#endif

static inline uint16_t bf16_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  /* Rounding must not turn a NaN with low bits only into infinity. */
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded >> 16);
}

WIDEST_VECTORS static void round_to_bf16(const float *x, uint16_t *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = bf16_of(x[i]);
}

static void store_row(const float *x, fa_dtype dtype, void *y, int64_t index, int64_t count) {
  if (dtype == FA_BFLOAT16)
    round_to_bf16(x, (uint16_t *)y + index, count);
  else
    memcpy((float *)y + index, x, (size_t)count * sizeof *x);
}

WIDEST_VECTORS static float sum_of_squares(const float *x, int64_t count) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
  return sum;
}

WIDEST_VECTORS static void scale_by_weight(const float *x, const float *weight, float scale, float *y,
                                           int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = x[i] * scale * weight[i];
}

WIDEST_VECTORS static void scale_to_bf16(const float *x, const float *weight, float scale, uint16_t *y,
                                         int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = bf16_of(x[i] * scale * weight[i]);
}

void fa_rms_norm(int threads, int64_t rows, int64_t width, const float *x, const float *weight, float epsilon,
                 fa_dtype dtype, void *y) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
  for (int64_t row = 0; row < rows; row++) {
    const float *in = x + row * width;
    const float scale = 1.0f / sqrtf(sum_of_squares(in, width) / (float)width + epsilon);
    if (dtype == FA_BFLOAT16)
      scale_to_bf16(in, weight, scale, (uint16_t *)y + row * width, width);
    else
      scale_by_weight(in, weight, scale, (float *)y + row * width, width);
  }
}

/* One head of one token, in place of `out`. */
WIDEST_VECTORS static void rotate(const float *x, const float *rotary, int64_t rotary_dim, int64_t dim,
                                  float *out) {
#pragma omp simd
  for (int64_t d = 0; d < rotary_dim; d += 2) {
    const float cosine = rotary[d], sine = rotary[d + 1];
    out[d] = x[d] * cosine - x[d + 1] * sine;
    out[d + 1] = x[d] * sine + x[d + 1] * cosine;
  }
  for (int64_t d = rotary_dim; d < dim; d++) out[d] = x[d];
}

void fa_rotate_and_store(int threads, int64_t rows, const float *qkv, const fa_qkv_places *p,
                         int64_t first_row, int64_t first_token) {
  const int64_t dim = p->head_dim_qk, q_width = p->heads_q * dim, k_width = p->heads_kv * dim;
  const int64_t width = q_width + k_width + p->heads_kv * p->head_dim_v;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
  for (int64_t row = 0; row < rows; row++) {
    const float *in = qkv + row * width;
    const int64_t token = first_token + row;
    const float *rotary = p->rotary + token * p->rotary_dim;
    float rotated[576];
    for (int64_t h = 0; h < p->heads_q; h++) {
      rotate(in + h * dim, rotary, p->rotary_dim, dim, rotated);
      store_row(rotated, p->dtype, p->q, (first_row + row) * q_width + h * dim, dim);
    }
    for (int64_t h = 0; h < p->heads_kv; h++) {
      rotate(in + q_width + h * dim, rotary, p->rotary_dim, dim, rotated);
      store_row(rotated, p->dtype, p->k, (h * p->cache_tokens + token) * dim, dim);
      store_row(in + q_width + k_width + h * p->head_dim_v, p->dtype, p->v,
                (h * p->cache_tokens + token) * p->head_dim_v, p->head_dim_v);
    }
  }
}
