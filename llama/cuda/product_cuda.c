/* Matrix products by cuBLASLt, with an algorithm kept for every shape.
 *
 *   y[rows, outputs] = a[rows, inputs] W[outputs, inputs]^T
 *
 * cuBLASLt counts column by column: D[outputs x rows] = A^T B with A[inputs x outputs] = W and B[inputs x rows] = a, the
 * arrangement its tensor-core code likes best. Sums in fp32; an fp32 engine multiplies in fp32 (no TF32).
 *
 * Few rows only read the weights, and the first algorithm that the library names is often not the quickest at that: the first
 * time such a shape comes outside a capture, what it names is timed, weights in memory and not in the cache. Split sums go
 * through the workspace in fp32, never by atomics, so that a run repeats its bits. */
#include <stdlib.h>
#include <string.h>

#include "cuda/cublaslt_library.h"
#include "cuda/cuda_engine.h"
#include "llama_error.h"

enum {
  SHAPES = 256,   /* kept */
  NAMED = 32,     /* algorithms timed */
  TIMES = 3,      /* each, of so many launches: */
  LAUNCHES = 8,
  COLD_BYTES = 64 << 20, /* weights of so many bytes are read from memory each time: no L2 cache holds them */
  LEAST_ALIGNMENT = 256
};

typedef struct shape {
  int64_t outputs, inputs, rows;
  int32_t is_f32;                   /* what is written is fp32 */
  uint32_t align_a, align_w, align_y; /* bytes, powers of two */
} shape;

typedef struct known_shape {
  shape key;
  cublasLtMatrixLayout_t w, a, y; /* w NULL: the place is free */
  cublasLtMatmulAlgo_t algorithm;
  int is_settled;
  uint64_t used; /* when */
} known_shape;

struct fa_cuda_products {
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t description;
  cublasLtMatmulPreference_t preference;
  uint64_t clock;
  known_shape known[SHAPES];
};

static fa_status failed(const fa_cuda_engine *engine, const char *what, cublasStatus_t status) {
  return fa_llama_fail(status == CUBLAS_STATUS_ALLOC_FAILED   ? FA_ERROR_MEMORY
                       : status == CUBLAS_STATUS_ARCH_MISMATCH ? FA_ERROR_UNSUPPORTED
                                                               : FA_ERROR_DEVICE,
                       "cuda:%d: %s (cuBLASLt status %d)", engine->ordinal, what, (int)status);
}

static cudaDataType type_of(fa_dtype dtype) {
  return dtype == FA_FLOAT32 ? CUDA_R_32F : dtype == FA_FLOAT16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* ---------------------------------------------------------------------- opening */

static void forget(known_shape *known) {
  const fa_cublaslt_library *lt = fa_cublaslt_library_open();
  if (known->w) (void)lt->layout_destroy(known->w);
  if (known->a) (void)lt->layout_destroy(known->a);
  if (known->y) (void)lt->layout_destroy(known->y);
  memset(known, 0, sizeof *known);
}

void fa_cuda_products_free(fa_cuda_engine *engine) {
  fa_cuda_products *products = engine->products;
  const fa_cublaslt_library *lt = fa_cublaslt_library_open();
  if (!products) return;
  for (int n = 0; n < SHAPES; ++n) forget(&products->known[n]);
  if (products->preference) (void)lt->preference_destroy(products->preference);
  if (products->description) (void)lt->descriptor_destroy(products->description);
  if (products->handle) (void)lt->destroy(products->handle);
  free(products);
  engine->products = NULL;
}

/* With the device current. */
fa_status fa_cuda_products_create(fa_cuda_engine *engine) {
  const fa_cublaslt_library *lt = fa_cublaslt_library_open();
  if (lt->missing) return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s", lt->missing);
  fa_cuda_products *p = calloc(1, sizeof *p);
  if (!p) return fa_llama_out_of_memory("the products' algorithms");
  engine->products = p;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const uint64_t workspace = FA_LLAMA_WORKSPACE_BYTES;
  const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  cublasStatus_t status = lt->create(&p->handle);
  if (status == CUBLAS_STATUS_SUCCESS) status = lt->descriptor_create(&p->description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = lt->descriptor_set(p->description, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  if (status == CUBLAS_STATUS_SUCCESS) status = lt->preference_create(&p->preference);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = lt->preference_set(p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = lt->preference_set(p->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums);
  return status == CUBLAS_STATUS_SUCCESS ? FA_OK : failed(engine, "cuBLASLt could not be set up; GPUs before Turing need cuBLAS 12", status);
}

/* ------------------------------------------------------------------- algorithms */

static uint32_t alignment_of(const void *pointer) {
  const uintptr_t address = (uintptr_t)pointer | LEAST_ALIGNMENT;
  return (uint32_t)(address & (~address + 1u));
}

typedef struct operands {
  const void *w, *a;
  void *y;
  float beta;
} operands;

/* cuBLASLt may load an algorithm's code at its first use, which a capture would not allow. */
static void exchange_capture_mode(const fa_cuda_engine *engine, CUstreamCaptureMode *mode) {
  if (engine->is_capturing) (void)fa_cuda_driver_open()->capture_mode(mode);
}

static cublasStatus_t multiply(const fa_cuda_engine *engine, const known_shape *known, const cublasLtMatmulAlgo_t *algorithm,
                               const operands *o) {
  const float one = 1.0f;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  exchange_capture_mode(engine, &mode);
  const cublasStatus_t status = fa_cublaslt_library_open()->multiply(
      engine->products->handle, engine->products->description, &one, o->w, known->w, o->a, known->a, &o->beta, o->y, known->y, o->y,
      known->y, algorithm, engine->workspace, FA_LLAMA_WORKSPACE_BYTES, (cudaStream_t)engine->base.stream);
  exchange_capture_mode(engine, &mode);
  return status;
}

/* The best of TIMES runs of LAUNCHES in a row, in ms a launch; negative: it does not run. */
static float time_of(fa_cuda_engine *engine, const known_shape *known, const cublasLtMatmulAlgo_t *algorithm, const operands *o,
                     const CUevent events[2]) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  const CUstream stream = (CUstream)engine->base.stream;
  float best = -1.0f;
  for (int n = 0; n <= TIMES; ++n) { /* the first loads code */
    float ms;
    if (d->event_record(events[0], stream) != CUDA_SUCCESS) return -1.0f;
    for (int launch = 0; launch < LAUNCHES; ++launch)
      if (multiply(engine, known, algorithm, o) != CUBLAS_STATUS_SUCCESS) return -1.0f;
    if (d->event_record(events[1], stream) != CUDA_SUCCESS || d->event_synchronize(events[1]) != CUDA_SUCCESS ||
        d->event_elapsed(&ms, events[0], events[1]) != CUDA_SUCCESS)
      return -1.0f;
    if (n > 0 && (best < 0.0f || ms < best)) best = ms;
  }
  return best / (float)LAUNCHES;
}

/* Keeps the quickest of the named algorithms, the first where nothing can be timed. */
static void choose_by_time(fa_cuda_engine *engine, known_shape *known, const cublasLtMatmulHeuristicResult_t *named, int count,
                           const operands *given) {
  const fa_cuda_driver *d = fa_cuda_driver_open();
  CUevent events[2] = {NULL, NULL};
  void *scratch = NULL;
  const int64_t written = known->key.rows * known->key.outputs * 4;
  float best = -1.0f;
  if (fa_buffer_allocate(engine->base.context, (size_t)written, &scratch) != FA_OK) return;
  if (d->event_create(&events[0], CU_EVENT_DEFAULT) == CUDA_SUCCESS && d->event_create(&events[1], CU_EVENT_DEFAULT) == CUDA_SUCCESS) {
    operands o = *given;
    o.y = scratch; /* the real one may be added to */
    (void)d->fill(fa_device_address(o.y), 0, (size_t)written, (CUstream)engine->base.stream);
    for (int n = 0; n < count; ++n) {
      const float ms = named[n].state == CUBLAS_STATUS_SUCCESS ? time_of(engine, known, &named[n].algo, &o, events) : -1.0f;
      if (ms < 0.0f || (best >= 0.0f && ms >= best)) continue;
      best = ms;
      known->algorithm = named[n].algo;
    }
  }
  for (int n = 0; n < 2; ++n)
    if (events[n]) (void)d->event_destroy(events[n]);
  fa_buffer_free(engine->base.context, scratch);
}

/* Weights that a cache may hold would be timed warm, which they are not in a model: there the library's first choice stays. */
static int is_timed(int64_t rows, int64_t weight_bytes) { return rows <= FA_LLAMA_FEW_ROWS && weight_bytes >= COLD_BYTES; }

static fa_status choose(fa_cuda_engine *engine, known_shape *known, const operands *o) {
  const fa_cublaslt_library *lt = fa_cublaslt_library_open();
  fa_cuda_products *p = engine->products;
  const shape *key = &known->key;
  const cudaDataType type = type_of(engine->base.dtype), written = key->is_f32 ? CUDA_R_32F : type;
  const uint64_t outputs = (uint64_t)key->outputs, inputs = (uint64_t)key->inputs, rows = (uint64_t)key->rows;
  const struct {
    cublasLtMatmulPreferenceAttributes_t which;
    uint32_t bytes;
  } alignments[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key->align_w},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key->align_a},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key->align_y},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key->align_y}};
  cublasLtMatmulHeuristicResult_t named[NAMED];
  int found = 0;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  if (!known->w) status = lt->layout_create(&known->w, type, inputs, outputs, key->inputs);
  if (status == CUBLAS_STATUS_SUCCESS && !known->a) status = lt->layout_create(&known->a, type, inputs, rows, key->inputs);
  if (status == CUBLAS_STATUS_SUCCESS && !known->y) status = lt->layout_create(&known->y, written, outputs, rows, key->outputs);
  for (size_t n = 0; n < sizeof alignments / sizeof *alignments && status == CUBLAS_STATUS_SUCCESS; ++n)
    status = lt->preference_set(p->preference, alignments[n].which, &alignments[n].bytes, sizeof alignments[n].bytes);
  const int64_t bytes = key->outputs * key->inputs * fa_engine_dtype_bytes(&engine->base);
  const int times = is_timed(key->rows, bytes) && !engine->is_capturing;
  known->is_settled = !engine->is_capturing;
  if (status == CUBLAS_STATUS_SUCCESS)
    status = lt->heuristic(p->handle, p->description, known->w, known->a, known->y, known->y, p->preference, times ? NAMED : 1, named,
                           &found);
  if (status == CUBLAS_STATUS_SUCCESS && (found == 0 || named[0].state != CUBLAS_STATUS_SUCCESS)) status = CUBLAS_STATUS_NOT_SUPPORTED;
  if (status != CUBLAS_STATUS_SUCCESS)
    return fa_llama_fail(status == CUBLAS_STATUS_NOT_SUPPORTED ? FA_ERROR_UNSUPPORTED : FA_ERROR_DEVICE,
                         "cuda:%d: cuBLASLt has no product of %lld x %lld weights and %lld rows for this GPU (status %d); GPUs before "
                         "Turing need cuBLAS 12", engine->ordinal, (long long)key->outputs, (long long)key->inputs,
                         (long long)key->rows, (int)status);
  known->algorithm = named[0].algo;
  if (times) choose_by_time(engine, known, named, found, o);
  return FA_OK;
}

/* The place of a shape: its own, or the one not used for longest, emptied. */
static known_shape *place_of(fa_cuda_products *p, const shape *key) {
  known_shape *oldest = &p->known[0];
  for (int n = 0; n < SHAPES; ++n) {
    known_shape *known = &p->known[n];
    if (known->w && memcmp(&known->key, key, sizeof *key) == 0) return known;
    if (known->used < oldest->used) oldest = known;
  }
  forget(oldest);
  oldest->key = *key;
  return oldest;
}

fa_status fa_cuda_product(fa_engine *base, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows, const void *a, void *y) {
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  if (rows == 0) return FA_OK;
  if (rows < 0 || rows > INT32_MAX)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a product of %lld rows; it takes 0 to 2^31 - 1", (long long)rows);
  const operands o = {matrix->data, a, y, epilogue == FA_EPILOGUE_ADD ? 1.0f : 0.0f};
  shape key;
  memset(&key, 0, sizeof key); /* compared as bytes */
  key.outputs = matrix->rows;
  key.inputs = matrix->columns;
  key.rows = rows;
  key.is_f32 = epilogue != FA_EPILOGUE_WIDE || base->dtype == FA_FLOAT32;
  key.align_w = alignment_of(matrix->data);
  key.align_a = alignment_of(a);
  key.align_y = alignment_of(y);
  fa_status status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) return status;
  known_shape *known = place_of(engine->products, &key);
  if (!known->w || (!known->is_settled && !engine->is_capturing)) {
    status = choose(engine, known, &o);
    if (status != FA_OK) forget(known);
  }
  if (status == FA_OK) {
    known->used = ++engine->products->clock;
    const cublasStatus_t result = multiply(engine, known, &known->algorithm, &o);
    if (result != CUBLAS_STATUS_SUCCESS) status = failed(engine, "a matrix product failed", result);
  }
  fa_llama_cuda_leave();
  return status;
}
