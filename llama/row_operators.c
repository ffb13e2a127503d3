#include "row_operators.h"

#include <math.h>

#include "lane_types.h"

/* Fewer elements than this are done sooner than another thread wakes. */
enum { SHARED_ELEMENTS = 1 << 14 };

/* ------------------------------------------------------------------------ types */

WIDEST_VECTORS static void bf16_from(const float *x, uint16_t *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = fa_bf16_of(x[i]);
}

WIDEST_VECTORS static void f16_from(const float *x, uint16_t *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = fa_f16_of(x[i]);
}

WIDEST_VECTORS static void bf16_to(const uint16_t *x, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = fa_float_of_bf16(x[i]);
}

WIDEST_VECTORS static void f16_to(const uint16_t *x, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = fa_float_of_f16(x[i]);
}

void fa_row_to_floats(fa_dtype dtype, const void *source, int64_t count, float *floats) {
  if (dtype == FA_BFLOAT16)
    bf16_to(source, floats, count);
  else if (dtype == FA_FLOAT16)
    f16_to(source, floats, count);
  else
    memcpy(floats, source, (size_t)count * sizeof *floats);
}

void fa_row_from_floats(const float *floats, int64_t count, fa_dtype dtype, void *destination) {
  if (dtype == FA_BFLOAT16)
    bf16_from(floats, destination, count);
  else if (dtype == FA_FLOAT16)
    f16_from(floats, destination, count);
  else
    memcpy(destination, floats, (size_t)count * sizeof *floats);
}

static void *element(void *base, fa_dtype dtype, int64_t index) {
  return (char *)base + (size_t)index * (dtype == FA_FLOAT32 ? 4 : 2);
}

/* ------------------------------------------------------------------------- norms */

WIDEST_VECTORS static float sum_of_squares(const float *x, int64_t count) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
  return sum;
}

static float inverse_rms(const float *x, int64_t width, float epsilon) {
  return 1.0f / sqrtf(sum_of_squares(x, width) / (float)width + epsilon);
}

WIDEST_VECTORS static void scale_f32(const float *x, const float *weight, float scale, float *y,
                                     int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = x[i] * scale * weight[i];
}

WIDEST_VECTORS static void scale_bf16(const float *x, const float *weight, float scale, uint16_t *y,
                                      int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = fa_bf16_of(x[i] * scale * weight[i]);
}

WIDEST_VECTORS static void scale_f16(const float *x, const float *weight, float scale, uint16_t *y,
                                     int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = fa_f16_of(x[i] * scale * weight[i]);
}

WIDEST_VECTORS static void add_scaled(const float *t, const float *weight, float scale, float *x,
                                      int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) x[i] += t[i] * scale * weight[i];
}

void fa_rows_norm(int threads, int64_t rows, int64_t width, const float *x, const float *weight,
                  float epsilon, fa_dtype dtype, void *y) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1 && rows * width > SHARED_ELEMENTS)
  for (int64_t row = 0; row < rows; row++) {
    const float *in = x + row * width;
    void *out = element(y, dtype, row * width);
    const float scale = inverse_rms(in, width, epsilon);
    if (dtype == FA_BFLOAT16)
      scale_bf16(in, weight, scale, out, width);
    else if (dtype == FA_FLOAT16)
      scale_f16(in, weight, scale, out, width);
    else
      scale_f32(in, weight, scale, out, width);
  }
}

void fa_rows_norm_add(int threads, int64_t rows, int64_t width, const float *t, const float *weight,
                      float epsilon, float *x) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1 && rows * width > SHARED_ELEMENTS)
  for (int64_t row = 0; row < rows; row++) {
    const float *in = t + row * width;
    add_scaled(in, weight, inverse_rms(in, width, epsilon), x + row * width, width);
  }
}

/* ------------------------------------------------------------------- activations */

/* exp(x) to 2 units in the last place: 2^n times a polynomial in the rest, |rest| <= ln(2) / 2; libm's does
 * not become vectors. Beyond +-87.3 the end of that range, where what is built on it has long settled. */
static inline float exp_lane(float x) {
  const float bounded = x < -87.3f ? -87.3f : x > 87.3f ? 87.3f : x;
  const float shifted = bounded * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: n in the low bits */
  const float n = shifted - 12582912.0f;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f; /* ln(2) in two terms */
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  const float scaled = p * fa_float_of_bits((fa_bits_of(shifted) << 23) + 0x3f800000u);
  return x != x ? x : scaled;
}

static inline float silu(float z) { return z / (1.0f + exp_lane(-z)); }

/* z / 2 (1 + tanh(u)) = z / (1 + exp(-2 u)) */
static inline float gelu_tanh(float z) {
  return z / (1.0f + exp_lane(-1.59576912f * (z + 0.044715f * z * z * z)));
}

WIDEST_VECTORS static void silu_times(const float *gate, const float *up, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = silu(gate[i]) * up[i];
}

WIDEST_VECTORS static void gelu_times(const float *gate, const float *up, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = gelu_tanh(gate[i]) * up[i];
}

WIDEST_VECTORS static void silu_alone(const float *gate, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = silu(gate[i]);
}

WIDEST_VECTORS static void gelu_alone(const float *gate, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = gelu_tanh(gate[i]);
}

static void activate(fa_activation activation, const float *gate, const float *up, float *y, int64_t count) {
  if (up && activation == FA_ACTIVATION_SILU)
    silu_times(gate, up, y, count);
  else if (up)
    gelu_times(gate, up, y, count);
  else if (activation == FA_ACTIVATION_SILU)
    silu_alone(gate, y, count);
  else
    gelu_alone(gate, y, count);
}

void fa_row_activate(int64_t width, fa_activation activation, const float *gate, const float *up,
                     fa_dtype dtype, void *y) {
  enum { PIECE = 1024 };
  for (int64_t at = 0; at < width; at += PIECE) {
    const int64_t count = width - at < PIECE ? width - at : PIECE;
    float piece[PIECE];
    activate(activation, gate + at, up ? up + at : NULL, piece, count);
    fa_row_from_floats(piece, count, dtype, element(y, dtype, at));
  }
}

void fa_rows_activate(int threads, int64_t rows, int64_t width, fa_activation activation, const float *gate,
                      const float *up, int64_t stride, fa_dtype dtype, void *y) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1 && rows * width > SHARED_ELEMENTS)
  for (int64_t row = 0; row < rows; row++) {
    fa_row_activate(width, activation, gate + row * stride, up ? up + row * stride : NULL, dtype,
                    element(y, dtype, row * width));
  }
}

/* ------------------------------------------------------------------------- heads */

WIDEST_VECTORS static void add_bias(const float *x, const float *bias, float *y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = x[i] + bias[i];
}

/* rotary: cos and sin in turn, one pair a pair of elements. */
WIDEST_VECTORS static void rotate_neighbours(const float *rotary, int64_t rotary_dim, float *head) {
#pragma omp simd
  for (int64_t d = 0; d < rotary_dim; d += 2) {
    const float cosine = rotary[d], sine = rotary[d + 1], first = head[d], second = head[d + 1];
    head[d] = first * cosine - second * sine;
    head[d + 1] = first * sine + second * cosine;
  }
}

WIDEST_VECTORS static void rotate_halves(const float *rotary, int64_t half, float *head) {
#pragma omp simd
  for (int64_t d = 0; d < half; d++) {
    const float cosine = rotary[2 * d], sine = rotary[2 * d + 1], first = head[d], second = head[d + half];
    head[d] = first * cosine - second * sine;
    head[d + half] = first * sine + second * cosine;
  }
}

/* One head of q or k: bias, norm, rotation; in fp32 throughout. */
static void prepare_head(const fa_head_placement *p, const float *in, const float *bias, const float *norm,
                         const float *rotary, float *head) {
  const int64_t dim = p->head_dim_qk;
  if (bias)
    add_bias(in, bias, head, dim);
  else
    memcpy(head, in, (size_t)dim * sizeof *head);
  if (norm) scale_f32(head, norm, inverse_rms(head, dim, p->norm_epsilon), head, dim);
  if (p->rotary_interleaved)
    rotate_neighbours(rotary, p->rotary_dim, head);
  else
    rotate_halves(rotary, p->rotary_dim / 2, head);
}

static void place_row(const fa_head_placement *p, fa_dtype dtype, int64_t row) {
  const int64_t dim = p->head_dim_qk, v_dim = p->head_dim_v, q_width = p->heads_q * dim,
                k_width = p->heads_kv * dim;
  const float *in = (const float *)p->qkv + row * (q_width + k_width + p->heads_kv * v_dim);
  const float *rotary = p->rotary + (int64_t)p->positions[row] * p->rotary_dim;
  const int64_t page = p->slots[row] / p->page_size, slot = p->slots[row] % p->page_size;
  const float *bias = p->bias;
  float head[FA_LONGEST_HEAD];
  for (int64_t h = 0; h < p->heads_q; h++) {
    prepare_head(p, in + h * dim, bias ? bias + h * dim : NULL, p->q_norm, rotary, head);
    fa_row_from_floats(head, dim, dtype, element(p->q, dtype, row * q_width + h * dim));
  }
  for (int64_t h = 0; h < p->heads_kv; h++) {
    const int64_t k_at = q_width + h * dim, v_at = q_width + k_width + h * v_dim;
    const int64_t place = (page * p->heads_kv + h) * p->page_size + slot;
    const float *value = in + v_at;
    prepare_head(p, in + k_at, bias ? bias + k_at : NULL, p->k_norm, rotary, head);
    fa_row_from_floats(head, dim, dtype, element(p->k, dtype, place * dim));
    if (bias) {
      add_bias(value, bias + v_at, head, v_dim);
      value = head;
    }
    fa_row_from_floats(value, v_dim, dtype, element(p->v, dtype, place * v_dim));
  }
}

void fa_rows_place_heads(int threads, const fa_head_placement *p, fa_dtype dtype) {
  const int64_t width = (p->heads_q + p->heads_kv) * p->head_dim_qk + p->heads_kv * p->head_dim_v;
#pragma omp parallel for num_threads(threads) \
    schedule(static) if (p->rows > 1 && p->rows * width > SHARED_ELEMENTS)
  for (int64_t row = 0; row < p->rows; row++) place_row(p, dtype, row);
}
