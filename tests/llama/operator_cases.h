/* What tests of the operators share: repeatable numbers, buffers of an engine's type, and weights that no
 * type rounds. */
#ifndef FA_TEST_OPERATOR_CASES_H
#define FA_TEST_OPERATOR_CASES_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "dequantize.h"
#include "lane_types.h"
#include "operators.h"

static uint64_t case_state = 1;

/* -1 <= x < 1 in steps of 2^-20. */
static inline double case_number(void) {
  case_state = case_state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)(case_state >> 43) * 0x1p-20 - 1.0;
}

static inline int64_t case_below(int64_t count) {
  case_number();
  return (int64_t)(case_state >> 33) % count;
}

static inline void *case_buffer(int64_t elements) {
  void *memory = aligned_alloc(64, ((size_t)elements * sizeof(double) / 64 + 2) * 64);
  memset(memory, 0xff, ((size_t)elements * sizeof(double) / 64 + 2) * 64); /* NaNs in every type */
  return memory;
}

static inline float *case_floats(int64_t count, double scale) {
  float *floats = case_buffer(count);
  for (int64_t i = 0; i < count; i++) floats[i] = (float)(case_number() * scale);
  return floats;
}

/* Multiples of 1/64 within +-2: the same in every type. */
static inline float *case_exact_floats(int64_t count) {
  float *floats = case_buffer(count);
  for (int64_t i = 0; i < count; i++) floats[i] = (float)(case_below(257) - 128) / 64.0f;
  return floats;
}

static inline float case_get(fa_dtype dtype, const void *base, int64_t i) {
  if (dtype == FA_BFLOAT16) return fa_float_of_bf16(((const uint16_t *)base)[i]);
  if (dtype == FA_FLOAT16) return fa_float_of_f16(((const uint16_t *)base)[i]);
  return ((const float *)base)[i];
}

static inline void case_set(fa_dtype dtype, void *base, int64_t i, float value) {
  if (dtype == FA_BFLOAT16)
    ((uint16_t *)base)[i] = fa_bf16_of(value);
  else if (dtype == FA_FLOAT16)
    ((uint16_t *)base)[i] = fa_f16_of(value);
  else
    ((float *)base)[i] = value;
}

static inline void *case_rounded(fa_dtype dtype, const float *floats, int64_t count) {
  void *rounded = case_buffer(count);
  for (int64_t i = 0; i < count; i++) case_set(dtype, rounded, i, floats[i]);
  return rounded;
}

/* Half a unit in the last place of `value` stored as `dtype`, and a rounding of fp32 before it. */
static inline double case_rounding(fa_dtype dtype, double value) {
  const double magnitude = value < 0 ? -value : value;
  if (dtype == FA_BFLOAT16) return magnitude * 0x1.01p-8 + 0x1p-126;
  if (dtype == FA_FLOAT16) return magnitude * 0x1.01p-11 + 0x1p-25;
  return magnitude * 0x1p-24;
}

static const fa_dtype case_types[] = {FA_FLOAT32, FA_FLOAT16, FA_BFLOAT16};
static const fa_operators *const ops = &fa_cpu_operators;

static inline fa_context *context_of(int threads) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  options.threads = threads;
  assert_int_equal(fa_context_create(&options, &context), FA_OK);
  return context;
}

static inline fa_engine *engine_of(fa_context *context, fa_dtype dtype) {
  fa_engine *engine = NULL;
  assert_int_equal(ops->open(context, dtype, &engine), FA_OK);
  assert_int_equal(engine->dtype, dtype);
  assert_ptr_equal(engine->operators, ops);
  return engine;
}

static inline void close_to(const char *what, int64_t i, double given, double expected, double tolerance) {
  if (!(fabs(given - expected) <= tolerance)) {
    fail_msg("%s, element %lld: %.9g, not %.9g (by %g; %g allowed)", what, (long long)i, given, expected,
             fabs(given - expected), tolerance);
  }
}

static inline fa_weight_part part_of(const float *floats, int64_t rows, int64_t columns) {
  return (fa_weight_part){
      .name = "test", .type = FA_GGML_F32, .rows = rows, .columns = columns, .data = (const uint8_t *)floats};
}

/* Sums of n terms in fp32, whatever their order. */
static inline double sum_error(double absolute_sum, int64_t n) {
  return absolute_sum * (double)(n + 2) * 0x1p-24;
}

static inline double dot(fa_dtype dtype, const void *a, const float *w, int64_t n, double *absolute) {
  double sum = 0.0;
  *absolute = 0.0;
  for (int64_t i = 0; i < n; i++) {
    const double term = (double)case_get(dtype, a, i) * (double)w[i];
    sum += term;
    *absolute += fabs(term);
  }
  return sum;
}

static inline const void *row_at(fa_dtype dtype, const void *a, int64_t row, int64_t width) {
  return (const char *)a + (size_t)(row * width) * fa_dtype_bytes(dtype);
}

#endif
