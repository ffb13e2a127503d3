/* What the tests of the GPU's operators share: an engine, buffers on the device, arrays of any type as doubles. */
#ifndef FA_TESTS_CUDA_DEVICE_H
#define FA_TESTS_CUDA_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/dtype.h"
#include "llama.h"
#include "operators.h"

static fa_context *device; /* NULL: there is none, and tests skip */
static const fa_operators *ops;

static int find_device(void **state) {
  (void)state;
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.device = "cuda";
  ops = &fa_cuda_operators;
  if (fa_context_create(&options, &device) == FA_OK) return 0;
  device = NULL;
  print_message("no CUDA device, skipped: %s\n", fa_last_error());
  return 0;
}

static int leave_device(void **state) {
  (void)state;
  fa_context_destroy(device);
  return 0;
}

#define OK(call)                                                                                                         \
  do {                                                                                                                   \
    const fa_status ok_status = (call);                                                                                  \
    if (ok_status != FA_OK) fail_msg("%s: status %d: %s / %s", #call, (int)ok_status, fa_llama_last_error(), fa_last_error()); \
  } while (0)

/* NULL where the device or its products lack the type (said), as V100s do bf16. */
static inline fa_engine *engine_of(fa_dtype dtype) {
  fa_engine *engine = NULL;
  const fa_status status = ops->open(device, dtype, &engine);
  if (status == FA_ERROR_UNSUPPORTED) print_message("%s skipped: %s\n", fa_dtype_name(dtype), fa_llama_last_error());
  else if (status != FA_OK) fail_msg("open: %s", fa_llama_last_error());
  return engine;
}

static inline void *to_device(fa_engine *engine, const void *host, size_t bytes) {
  void *memory;
  OK(fa_buffer_allocate(engine->context, bytes, &memory));
  OK(fa_buffer_copy(engine->context, memory, host, bytes, FA_COPY_HOST_TO_DEVICE, engine->stream));
  OK(fa_stream_synchronize(engine->context, engine->stream));
  return memory;
}

static inline void rewrite(fa_engine *engine, void *memory, const void *host, size_t bytes) {
  OK(fa_buffer_copy(engine->context, memory, host, bytes, FA_COPY_HOST_TO_DEVICE, engine->stream));
  OK(fa_stream_synchronize(engine->context, engine->stream));
}

static inline void from_device(fa_engine *engine, void *host, const void *memory, size_t bytes) {
  OK(fa_buffer_copy(engine->context, host, memory, bytes, FA_COPY_DEVICE_TO_HOST, engine->stream));
  OK(fa_stream_synchronize(engine->context, engine->stream));
}

static inline size_t bytes_of(fa_dtype dtype) { return fa_dtype_bytes(dtype); }

static inline double read_element(fa_dtype dtype, const void *array, int64_t at) {
  if (dtype == FA_FLOAT32) return (double)((const float *)array)[at];
  const uint16_t bits = ((const uint16_t *)array)[at];
  return (double)(dtype == FA_FLOAT16 ? fa_f16_to_float(bits) : fa_bf16_to_float(bits));
}

static inline void write_element(fa_dtype dtype, void *array, int64_t at, float value) {
  if (dtype == FA_FLOAT32) ((float *)array)[at] = value;
  else ((uint16_t *)array)[at] = dtype == FA_FLOAT16 ? fa_f16_from_float(value) : fa_bf16_from_float(value);
}

static inline double rounded(fa_dtype dtype, float value) {
  uint32_t place;
  write_element(dtype, &place, 0, value);
  return read_element(dtype, &place, 0);
}

/* Half the distance of neighbouring values near 1. */
static inline double unit_of(fa_dtype dtype) {
  return dtype == FA_FLOAT32 ? 0x1p-24 : dtype == FA_FLOAT16 ? 0x1p-11 : 0x1p-8;
}

/* Uniform in -1 .. 1, of a variance of 1/3. */
static inline float draw(uint64_t *seed) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(*seed >> 32) * 0x1p-31f;
}

/* `count` elements of a type on the host, in `values` as they were rounded. */
static inline void *random_array(fa_dtype dtype, int64_t count, uint64_t seed, double **values) {
  void *array = malloc((size_t)count * 4);
  *values = malloc((size_t)count * sizeof **values);
  assert_true(array && *values);
  for (int64_t i = 0; i < count; ++i) {
    write_element(dtype, array, i, draw(&seed));
    (*values)[i] = read_element(dtype, array, i);
  }
  return array;
}

static inline void *random_device(fa_engine *engine, fa_dtype dtype, int64_t count, uint64_t seed, double **values) {
  void *host = random_array(dtype, count, seed, values);
  void *memory = to_device(engine, host, (size_t)count * bytes_of(dtype));
  free(host);
  return memory;
}

/* Elements on the device as doubles. */
static inline double *read_back(fa_engine *engine, fa_dtype dtype, const void *memory, int64_t count) {
  void *host = malloc((size_t)count * 4);
  double *values = malloc((size_t)count * sizeof *values);
  assert_true(host && values);
  from_device(engine, host, memory, (size_t)count * bytes_of(dtype));
  for (int64_t i = 0; i < count; ++i) values[i] = read_element(dtype, host, i);
  free(host);
  return values;
}

static inline void *poisoned_device(fa_engine *engine, size_t bytes) {
  void *host = malloc(bytes);
  assert_non_null(host);
  memset(host, 0xff, bytes); /* NaN in every type */
  void *memory = to_device(engine, host, bytes);
  free(host);
  return memory;
}

static const fa_dtype dtypes[] = {FA_FLOAT32, FA_FLOAT16, FA_BFLOAT16};

#define EACH_ENGINE(engine)                                                                     \
  if (!device) skip();                                                                          \
  for (size_t type_index = 0; type_index < sizeof dtypes / sizeof *dtypes; ++type_index)        \
    for (fa_engine *engine = engine_of(dtypes[type_index]); engine; ops->close(engine), engine = NULL)

#endif
