/* The operator table of NVIDIA GPUs: small kernels of this folder between cuBLASLt's products. On this device `wide` is
 * the engine's type. */
#include <stddef.h>
#include <string.h>

#include "cuda/cuda_engine.h"
#include "cuda/operators_params.h"
#include "llama_error.h"

enum {
  EIGHT = 8,
  COLUMNS = 256 * EIGHT,        /* of a block */
  EMBED_COLUMNS = 256 * 4 * 4,  /* of a block of embed_llama.cu */
  MOST_ROWS = 65535,            /* of a grid */
  PLACE_THREADS = 128,          /* place_heads_llama.cu */
  PLACE_ROW_THREADS = 256,      /* place_rows_llama.cu */
  PLACE_ROW_CHUNK = 16,         /* elements of a head that one of its lanes has */
  PLACE_ROW_DIM = 32 * PLACE_ROW_CHUNK
};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static fa_status copy_rows(fa_engine *base, fa_llama_kernel kernel, const fa_embed_params *given) {
  fa_embed_params params = *given;
  const void *const pointers[] = {params.table, params.y};
  params.aligned = params.width % EIGHT == 0 && fa_llama_cuda_aligned(pointers, COUNT(pointers));
  if (params.rows == 0) return FA_OK;
  return fa_llama_cuda_start(fa_cuda_engine_of(base), kernel, ceil_div(params.width, EMBED_COLUMNS),
                             least(params.rows, MOST_ROWS), 256, 0, &params);
}

static fa_status embed(fa_engine *base, const fa_matrix *table, int64_t rows, const int32_t *tokens, float scale, float *x) {
  const fa_embed_params params = {.rows = rows, .width = table->columns, .table_rows = table->rows, .index = tokens,
                                  .table = table->data, .y = x, .scale = scale};
  return copy_rows(base, FA_LLAMA_EMBED, &params);
}

static fa_status pick_rows(fa_engine *base, int64_t count, int64_t width, const float *x, const int32_t *rows_of, float *y) {
  const fa_embed_params params = {.rows = count, .width = width, .table_rows = INT32_MAX, .index = rows_of, .table = x, .y = y,
                                  .scale = 1.0f};
  return copy_rows(base, FA_LLAMA_PICK, &params);
}

static fa_status norm_rows(fa_engine *base, fa_llama_kernel kernel, int64_t rows, int64_t width, const void *from,
                           const float *added, const float *weight, float epsilon, void *to) {
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  const void *const pointers[] = {from, added, weight, to};
  fa_norm_params params;
  if (rows == 0) return FA_OK;
  memset(&params, 0, sizeof params);
  params.rows = rows;
  params.width = width;
  params.from = from;
  params.added = added;
  params.weight = weight;
  params.to = to;
  params.epsilon = epsilon;
  params.aligned = width % EIGHT == 0 && fa_llama_cuda_aligned(pointers, COUNT(pointers));
  /* A few rows: as many threads as have work, for the latency. Many: blocks that fit a multiprocessor together. */
  const int64_t most = rows < engine->multiprocessors ? 1024 : 256;
  return fa_llama_cuda_start(engine, kernel, rows, 1, least(ceil_div(width, EIGHT * 32) * 32, most), 0, &params);
}

static fa_status norm(fa_engine *base, int64_t rows, int64_t width, const float *x, const float *weight, float epsilon, void *y) {
  return norm_rows(base, FA_LLAMA_NORM, rows, width, x, NULL, weight, epsilon, y);
}

static fa_status add_norm(fa_engine *base, int64_t rows, int64_t width, const float *t, const float *weight, float epsilon,
                          float *x, void *y) {
  return norm_rows(base, FA_LLAMA_NORM, rows, width, x, t, weight, epsilon, y);
}

static fa_status norm_add(fa_engine *base, int64_t rows, int64_t width, const void *t, const float *weight, float epsilon,
                          float *x) {
  return norm_rows(base, FA_LLAMA_NORM_ADD, rows, width, t, NULL, weight, epsilon, x);
}

static fa_status gated_product(fa_engine *base, const fa_matrix *gated, bool has_gate, fa_activation activation, int64_t rows,
                               const void *a, void *scratch, void *y) {
  if (has_gate && gated->rows % 2 != 0)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a gated matrix has %lld rows; gate and up have the same number", (long long)gated->rows);
  const fa_status status = fa_cuda_product(base, gated, FA_EPILOGUE_WIDE, rows, a, scratch);
  if (status != FA_OK || rows == 0) return status;
  const void *const pointers[] = {scratch, y};
  fa_gate_params params;
  memset(&params, 0, sizeof params);
  params.rows = rows;
  params.inner = has_gate ? gated->rows / 2 : gated->rows;
  params.product = scratch;
  params.y = y;
  params.has_gate = has_gate;
  params.is_gelu = activation == FA_ACTIVATION_GELU_TANH;
  params.aligned = params.inner % EIGHT == 0 && fa_llama_cuda_aligned(pointers, COUNT(pointers));
  return fa_llama_cuda_start(fa_cuda_engine_of(base), FA_LLAMA_GATE, ceil_div(params.inner, COLUMNS), least(rows, MOST_ROWS), 256, 0,
                             &params);
}

static fa_status check_placement(const fa_head_placement *p) {
  if (p->heads_q < 1 || p->heads_kv < 1 || p->head_dim_qk < 1 || p->head_dim_v < 1 || p->page_size < 1 ||
      p->page_size > INT32_MAX || p->head_dim_qk > 2048 || p->head_dim_v > 2048 || p->heads_q > 65535 || p->heads_kv > 65535)
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "heads %lld and %lld of %lld and %lld elements, pages of %lld: allowed are 1 to 65535 heads of 1 to 2048 "
                         "elements and pages of 1 or more", (long long)p->heads_q, (long long)p->heads_kv,
                         (long long)p->head_dim_qk, (long long)p->head_dim_v, (long long)p->page_size);
  if (p->rotary_dim < 0 || p->rotary_dim > p->head_dim_qk || p->rotary_dim % 2 != 0)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "rotary_dim is %lld; it is even and at most the head's %lld", (long long)p->rotary_dim,
                         (long long)p->head_dim_qk);
  if (p->rows > INT32_MAX / (p->heads_q + 2 * p->heads_kv))
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%lld rows of %lld heads are 2^31 or more; use fewer rows at a time", (long long)p->rows,
                         (long long)(p->heads_q + 2 * p->heads_kv));
  return FA_OK;
}

/* Whether place_rows_llama.cu takes it; place_heads_llama.cu takes all. */
static bool is_in_chunks(const fa_head_placement *p, bool is_aligned) {
  return is_aligned && p->head_dim_qk % PLACE_ROW_CHUNK == 0 && p->head_dim_v % PLACE_ROW_CHUNK == 0 &&
         p->rotary_dim % PLACE_ROW_CHUNK == 0 && p->head_dim_qk <= PLACE_ROW_DIM && p->head_dim_v <= PLACE_ROW_DIM;
}

static fa_status place_heads(fa_engine *base, const fa_head_placement *p) {
  const fa_status status = check_placement(p);
  if (status != FA_OK || p->rows == 0) return status;
  const int64_t dim = p->head_dim_qk > p->head_dim_v ? p->head_dim_qk : p->head_dim_v;
  const void *const pointers[] = {p->qkv, p->bias, p->q_norm, p->k_norm, p->rotary, p->q, p->k, p->v};
  int32_t lanes = 1;
  while (lanes < 32 && lanes * EIGHT < dim) lanes *= 2;
  fa_place_params params;
  memset(&params, 0, sizeof params);
  params.rows = p->rows;
  params.heads = (int32_t)(p->heads_q + 2 * p->heads_kv);
  params.qkv = p->qkv;
  params.bias = p->bias;
  params.q_norm = p->q_norm;
  params.k_norm = p->k_norm;
  params.rotary = p->rotary;
  params.positions = p->positions;
  params.slots = p->slots;
  params.q = p->q;
  params.k = p->k;
  params.v = p->v;
  params.heads_q = (int32_t)p->heads_q;
  params.heads_kv = (int32_t)p->heads_kv;
  params.head_dim_qk = (int32_t)p->head_dim_qk;
  params.head_dim_v = (int32_t)p->head_dim_v;
  params.rotary_dim = (int32_t)p->rotary_dim;
  params.rotary_interleaved = p->rotary_interleaved;
  params.page_size = (int32_t)p->page_size;
  params.lanes = lanes;
  params.norm_epsilon = p->norm_epsilon;
  params.aligned =
      p->head_dim_qk % EIGHT == 0 && p->head_dim_v % EIGHT == 0 && fa_llama_cuda_aligned(pointers, COUNT(pointers));
  if (is_in_chunks(p, params.aligned)) {
    fa_cuda_engine *engine = fa_cuda_engine_of(base);
    params.lanes = 1;
    while (params.lanes * PLACE_ROW_CHUNK < dim) params.lanes *= 2;
    /* A few rows: blocks enough that each head has lanes of its own, for the latency. */
    const int64_t parts = p->rows < 4 * engine->multiprocessors ? ceil_div(params.heads, PLACE_ROW_THREADS / params.lanes) : 1;
    return fa_llama_cuda_start(engine, FA_LLAMA_PLACE_ROWS, p->rows, least(parts, MOST_ROWS), PLACE_ROW_THREADS, 0, &params);
  }
  const int64_t heads = PLACE_THREADS / lanes; /* of a block */
  return fa_llama_cuda_start(fa_cuda_engine_of(base), FA_LLAMA_PLACE, ceil_div(p->rows * params.heads, heads), 1, PLACE_THREADS,
                             heads * dim * (int64_t)sizeof(float), &params);
}

/* sample_llama.cu has this struct again. */
_Static_assert(offsetof(fa_sample_row, temperature) == 0 && offsetof(fa_sample_row, top_p) == 4 &&
                   offsetof(fa_sample_row, min_p) == 8 && offsetof(fa_sample_row, repetition_penalty) == 12 &&
                   offsetof(fa_sample_row, top_k) == 16 && offsetof(fa_sample_row, uniform) == 20 && sizeof(fa_sample_row) == 24,
               "fa_sample_row is as sample_llama.cu reads it");

static fa_status sample(fa_engine *base, int64_t rows, int64_t vocabulary, float *logits, const fa_sample_row *settings,
                        uint8_t *seen, int32_t *tokens) {
  if (vocabulary < 1 || vocabulary > INT32_MAX)
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a vocabulary of %lld tokens; it has 1 to 2^31 - 1", (long long)vocabulary);
  if (rows == 0) return FA_OK;
  fa_sample_params params;
  memset(&params, 0, sizeof params);
  params.logits = logits;
  params.settings = settings;
  params.seen = seen;
  params.tokens = tokens;
  params.vocabulary = vocabulary;
  return fa_llama_cuda_start(fa_cuda_engine_of(base), FA_LLAMA_SAMPLE, rows, 1, 1024, 0, &params);
}

const fa_operators fa_cuda_operators = {.device = "cuda",
                                        .open = fa_cuda_engine_open,
                                        .close = fa_cuda_engine_close,
                                        .matrix_create = fa_cuda_matrix_create,
                                        .matrix_free = fa_cuda_matrix_free,
                                        .matrix_bytes = fa_cuda_matrix_bytes,
                                        .embed = embed,
                                        .norm = norm,
                                        .add_norm = add_norm,
                                        .norm_add = norm_add,
                                        .product = fa_cuda_product,
                                        .gated_product = gated_product,
                                        .place_heads = place_heads,
                                        .pick_rows = pick_rows,
                                        .sample = sample,
                                        .graph_begin = fa_cuda_graph_begin,
                                        .graph_end = fa_cuda_graph_end,
                                        .graph_launch = fa_cuda_graph_launch,
                                        .graph_free = fa_cuda_graph_free};
