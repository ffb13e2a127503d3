/* Weights on the device: parts of any type of the file's turned into the engine's on all cores, a slab at a time while the
 * slab before it is being copied; random values are made where they stay. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_engine.h"
#include "cuda/operators_params.h"
#include "dequantize.h"
#include "llama_error.h"

enum {
  SLABS = 2,
  SLAB_BYTES = 16 << 20,
  PIECE = 4096 /* elements a thread converts at a time: whole blocks of every type */
};

struct fa_staging {
  uint8_t *slabs[SLABS]; /* pinned, SLAB_BYTES each */
  CUevent copied[SLABS];
};

/* ------------------------------------------------------------------- rounding */

/* To nearest, ties to even. Without branches, so that the compiler makes vectors of it. */
static inline uint16_t f16_bits(float x) {
  uint32_t bits, small_bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  float small; /* below 2^-14: the adder rounds to a multiple of 2^-24 */
  memcpy(&small, &magnitude, sizeof small);
  small += 0.5f;
  memcpy(&small_bits, &small, sizeof small_bits);
  const uint32_t rounded = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  const uint32_t finite = magnitude >= 0x47800000u ? 0x7c00u : rounded; /* 2^16 and more; what rounds up to it is right anyway */
  const uint32_t value = magnitude < 0x38800000u ? small_bits - 0x3f000000u : finite;
  return (uint16_t)(sign | (magnitude > 0x7f800000u ? 0x7e00u : value));
}

static inline uint16_t bf16_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded);
}

static void round_to(fa_dtype dtype, const float *from, int64_t count, void *to) {
  uint16_t *halves = to;
  if (dtype == FA_FLOAT32)
    memcpy(to, from, (size_t)count * sizeof *from);
  else if (dtype == FA_FLOAT16)
    for (int64_t i = 0; i < count; ++i) halves[i] = f16_bits(from[i]);
  else
    for (int64_t i = 0; i < count; ++i) halves[i] = bf16_bits(from[i]);
}

/* Elements [0, count) of `source`, whole blocks of the type, into the slab. */
static void convert(const fa_ggml_type *type, bool is_as_it_is, fa_dtype dtype, const uint8_t *source, int64_t count, uint8_t *slab) {
  const int64_t size = dtype == FA_FLOAT32 ? 4 : 2, pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t first = piece * PIECE, elements = count - first < PIECE ? count - first : PIECE;
    const uint8_t *from = source + first / type->block_elements * type->block_bytes;
    float values[PIECE];
    if (is_as_it_is) {
      memcpy(slab + first * size, from, (size_t)(elements * size));
      continue;
    }
    type->to_float(from, values, elements);
    round_to(dtype, values, elements, slab + first * size);
  }
}

/* -------------------------------------------------------------------- staging */

/* With the device current. */
void fa_staging_free(fa_cuda_engine *engine) {
  fa_staging *staging = engine->staging;
  const fa_cuda_driver *d = fa_cuda_driver_open();
  if (!staging) return;
  for (int n = 0; n < SLABS; ++n) {
    if (staging->copied[n]) (void)d->event_destroy(staging->copied[n]);
    if (staging->slabs[n]) (void)d->host_free(staging->slabs[n]);
  }
  free(staging);
  engine->staging = NULL;
}

static fa_status find_staging(fa_cuda_engine *engine) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  if (engine->staging) return FA_OK;
  engine->staging = calloc(1, sizeof *engine->staging);
  if (!engine->staging) return fa_llama_out_of_memory("staging weights");
  for (int n = 0; n < SLABS; ++n) {
    void *slab = NULL;
    CUresult result = d->host_allocate(&slab, SLAB_BYTES, 0);
    engine->staging->slabs[n] = slab;
    if (result == CUDA_SUCCESS) result = d->event_create(&engine->staging->copied[n], CU_EVENT_DISABLE_TIMING);
    if (result != CUDA_SUCCESS) {
      fa_staging_free(engine);
      return fa_llama_cuda_failed(engine, "no pinned memory to stage weights in", result);
    }
  }
  return FA_OK;
}

/* With the device current, on the engine's stream. */
static fa_status upload(fa_cuda_engine *engine, const fa_weight_part *part, uint8_t *to) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  const fa_ggml_type *type = fa_ggml_type_of(part->type);
  const fa_dtype dtype = engine->base.dtype;
  const int64_t size = fa_engine_dtype_bytes(&engine->base), count = part->rows * part->columns, slab_elements = SLAB_BYTES / size;
  const bool is_as_it_is = (part->type == FA_GGML_F32 && dtype == FA_FLOAT32) ||
                           (part->type == FA_GGML_F16 && dtype == FA_FLOAT16) ||
                           (part->type == FA_GGML_BF16 && dtype == FA_BFLOAT16);
  const fa_status status = find_staging(engine);
  if (status != FA_OK) return status;
  int slab = 0;
  for (int64_t first = 0; first < count; first += slab_elements, slab = (slab + 1) % SLABS) {
    const int64_t elements = count - first < slab_elements ? count - first : slab_elements;
    const CUevent copied = engine->staging->copied[slab];
    CUresult result = d->event_synchronize(copied); /* one never recorded counts as past */
    if (result != CUDA_SUCCESS) return fa_llama_cuda_failed(engine, part->name, result);
    convert(type, is_as_it_is, dtype, part->data + first / type->block_elements * type->block_bytes, elements,
            engine->staging->slabs[slab]);
    result = d->copy_to_device(fa_device_address(to + first * size), engine->staging->slabs[slab], (size_t)(elements * size),
                               (CUstream)engine->base.stream);
    if (result == CUDA_SUCCESS) result = d->event_record(copied, (CUstream)engine->base.stream);
    if (result != CUDA_SUCCESS) return fa_llama_cuda_failed(engine, part->name, result);
  }
  return FA_OK;
}

/* The standard deviation 1 / sqrt(columns) keeps a layer's output as large as its input. */
static fa_status make_random(fa_cuda_engine *engine, const fa_weight_part *part, void *to) {
  fa_random_params params;
  memset(&params, 0, sizeof params);
  params.to = to;
  params.count = part->rows * part->columns;
  params.seed = part->seed;
  params.deviation = (float)(1.0 / sqrt((double)part->columns));
  return fa_llama_cuda_start(engine, FA_LLAMA_RANDOM, 16 * (int64_t)engine->multiprocessors, 1, 256, 0, &params);
}

/* --------------------------------------------------------------------- matrices */

static fa_status check_part(const fa_weight_part *part, const fa_weight_part *first) {
  const fa_ggml_type *type = fa_ggml_type_of(part->type);
  if (part->rows < 1 || part->columns < 1 || part->rows > INT32_MAX || part->columns > INT32_MAX ||
      part->columns != first->columns)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %lld rows of %lld columns (its neighbours' have %lld); each is 1 to 2^31 - 1 and "
                         "stacked parts have the same columns", part->name, (long long)part->rows, (long long)part->columns,
                         (long long)first->columns);
  if (!part->data) return FA_OK;
  if (!type || !type->to_float)
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: type %d (%s) is not read; read are %s", part->name, (int)part->type,
                         type ? type->name : "unknown", fa_ggml_types_read);
  if (part->columns % type->block_elements != 0)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: rows of %lld elements are no whole blocks of %s (%d)", part->name,
                         (long long)part->columns, type->name, (int)type->block_elements);
  return FA_OK;
}

/* Fills and waits: whatever uses the matrix next may be on another stream. */
static fa_status fill(fa_cuda_engine *engine, const fa_weight_part *parts, int count, uint8_t *to) {
  fa_status status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) return status;
  for (int n = 0; n < count && status == FA_OK; ++n) {
    status = parts[n].data ? upload(engine, &parts[n], to) : make_random(engine, &parts[n], to);
    to += parts[n].rows * parts[n].columns * fa_engine_dtype_bytes(&engine->base);
  }
  const CUresult result = fa_cuda_driver_open()->stream_synchronize((CUstream)engine->base.stream);
  fa_llama_cuda_leave();
  if (status == FA_OK && result != CUDA_SUCCESS) status = fa_llama_cuda_failed(engine, "copying weights", result);
  return status;
}

fa_status fa_cuda_matrix_create(fa_engine *base, const fa_weight_part *parts, int count, unsigned use, fa_matrix **matrix) {
  *matrix = NULL;
  if (count < 1 || count > FA_MATRIX_PARTS || (count > 1 && (use & FA_MATRIX_EMBEDDING)))
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a matrix of %d parts; it has 1 to %d, one for an embedding", count, FA_MATRIX_PARTS);
  int64_t rows = 0;
  for (int n = 0; n < count; ++n) {
    const fa_status status = check_part(&parts[n], &parts[0]);
    if (status != FA_OK) return status;
    rows += parts[n].rows;
  }
  fa_matrix *made = calloc(1, sizeof *made);
  if (!made) return fa_llama_out_of_memory(parts[0].name);
  made->rows = rows;
  made->columns = parts[0].columns;
  made->bytes = (size_t)rows * (size_t)made->columns * (size_t)fa_engine_dtype_bytes(base);
  fa_status status = fa_buffer_allocate(base->context, made->bytes, &made->data);
  if (status != FA_OK)
    status = fa_llama_fail_library(status, parts[0].name);
  else
    status = fill(fa_cuda_engine_of(base), parts, count, made->data);
  if (status == FA_OK)
    *matrix = made;
  else
    fa_cuda_matrix_free(base, made);
  return status;
}

void fa_cuda_matrix_free(fa_engine *base, fa_matrix *matrix) {
  if (!matrix) return;
  fa_buffer_free(base->context, matrix->data);
  free(matrix);
}

size_t fa_cuda_matrix_bytes(const fa_matrix *matrix) { return matrix->bytes; }
