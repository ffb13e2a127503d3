/* What a device does for the layers of a model, behind one table: everything but attention, which is
 * fa_attention_run on every device. layers.c is written against this and against nothing of a device.
 *
 *   engine (a context, a stream, a type)  ->  matrices (weights made ready)  ->  operators on device buffers
 *
 * Types of what operators read and write:
 *   x       the residual stream, fp32
 *   dtype   the engine's type (f32, f16, bf16): what enters a product, queries, the KV cache
 *   wide    what a product leaves for the next operator: fp32 or dtype, as the device likes; buffers for it are
 *           allocated with 4 bytes an element
 *
 * All tensors are dense, rows first, in the context's device memory (fa_buffer_allocate) unless said to be the
 * host's. Operators are ordered on engine->stream and return without waiting for it. One thread at a time uses an
 * engine. Errors: a status, its line in fa_llama_last_error(). */
#ifndef FA_LLAMA_OPERATORS_H
#define FA_LLAMA_OPERATORS_H

#include <stdbool.h>

#include "fastattention/fastattention.h"

typedef struct fa_operators fa_operators;

typedef struct fa_engine {
  const fa_operators *operators;
  fa_context *context;
  fa_stream stream;
  fa_dtype dtype;
  int64_t block_rows; /* rows the operators between two attentions do best at a time */
  int64_t few_rows;   /* for up to so many rows a product does better without adding, and the norm behind it adds; or 0 */
} fa_engine;

/* Weights a product reads, or rows an embedding looks up, made ready for a device. Immutable: every engine of the same
 * context and type may use it, several at once, while the one it was made by is open. */
typedef struct fa_matrix fa_matrix;

/* Rows of a weight as a model file holds them. */
typedef struct fa_weight_part {
  const char *name; /* for error lines; read during the call */
  int32_t type;     /* a ggml type number: dequantize.h */
  int64_t rows, columns;
  const uint8_t *data; /* host, row by row in blocks of the type, lives as long as the matrix; NULL: random values */
  uint64_t seed;       /* of random values, whose standard deviation is 1 / sqrt(columns) */
} fa_weight_part;

enum { FA_MATRIX_PARTS = 3 };

typedef enum fa_matrix_use {
  FA_MATRIX_PRODUCT = 1 << 0,
  FA_MATRIX_EMBEDDING = 1 << 1 /* both: tied embeddings */
} fa_matrix_use;

typedef enum fa_epilogue {
  FA_EPILOGUE_WIDE, /* y = p       y wide */
  FA_EPILOGUE_F32,  /* y = p       y fp32 */
  FA_EPILOGUE_ADD   /* y = y + p   y fp32 */
} fa_epilogue;

typedef enum fa_activation {
  FA_ACTIVATION_SILU,     /* z / (1 + exp(-z)) */
  FA_ACTIVATION_GELU_TANH /* z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) */
} fa_activation;

/* Where the heads of a row of the stacked query-key-value product go: add biases, normalise heads of q and k (RMS),
 * rotate q and k at the row's position, round to dtype, store q densely and k, v into their slots of a paged cache. */
typedef struct fa_head_placement {
  int64_t rows;
  int64_t heads_q, heads_kv, head_dim_qk, head_dim_v;
  int64_t rotary_dim;     /* even, 0 .. head_dim_qk; the rest of a head passes as it is */
  bool rotary_interleaved; /* pairs (2d, 2d + 1); else (d, d + rotary_dim / 2) */
  const float *rotary;    /* [positions, rotary_dim / 2] of (cos, sin) */
  const int32_t *positions; /* [rows] */
  const int32_t *slots;     /* [rows]: page * page_size + place in the page */
  const void *qkv;          /* wide [rows, heads_q dqk + heads_kv dqk + heads_kv dv] */
  const float *bias;        /* [columns of qkv] or NULL */
  const float *q_norm, *k_norm; /* [head_dim_qk] or NULL */
  float norm_epsilon;
  void *q;    /* dtype [rows, heads_q, head_dim_qk] */
  void *k, *v; /* dtype, pages of one layer: [pages, heads_kv, page_size, head_dim] */
  int64_t page_size;
} fa_head_placement;

/* How one row's next token is drawn (sampler.h says the rules). */
typedef struct fa_sample_row {
  float temperature;        /* 0: the best token */
  float top_p, min_p;
  float repetition_penalty; /* 1: off */
  int32_t top_k;            /* 0: all */
  float uniform;            /* 0 <= u < 1, this step's draw */
} fa_sample_row;

typedef struct fa_graph fa_graph; /* a captured step */

struct fa_operators {
  const char *device; /* "cpu", "cuda" */

  /* context: of this device; it must outlive the engine. Errors: UNSUPPORTED (dtype), MEMORY, DEVICE. */
  fa_status (*open)(fa_context *context, fa_dtype dtype, fa_engine **engine);
  void (*close)(fa_engine *engine); /* NULL is fine; after its matrices and graphs */

  /* `count` parts of the same columns stacked by rows. use: bits of fa_matrix_use; an embedding has one part. */
  fa_status (*matrix_create)(fa_engine *engine, const fa_weight_part *parts, int count, unsigned use, fa_matrix **matrix);
  void (*matrix_free)(fa_engine *engine, fa_matrix *matrix); /* NULL is fine */
  size_t (*matrix_bytes)(const fa_matrix *matrix);           /* read by a product of one row */

  /* x = scale * table[tokens] */
  fa_status (*embed)(fa_engine *engine, const fa_matrix *table, int64_t rows, const int32_t *tokens, float scale, float *x);
  /* y = x / sqrt(mean(x^2) + epsilon) * weight    x fp32, y dtype [rows, width] */
  fa_status (*norm)(fa_engine *engine, int64_t rows, int64_t width, const float *x, const float *weight, float epsilon, void *y);
  /* x = x + t, then y = norm(x) as above          t, x fp32; NULL where few_rows is 0 */
  fa_status (*add_norm)(fa_engine *engine, int64_t rows, int64_t width, const float *t, const float *weight, float epsilon,
                        float *x, void *y);
  /* x = x + norm(t) as above                      t wide, x fp32 */
  fa_status (*norm_add)(fa_engine *engine, int64_t rows, int64_t width, const void *t, const float *weight, float epsilon,
                        float *x);
  /* p[rows, outputs] = a[rows, inputs] W^T, then the epilogue. a of dtype. */
  fa_status (*product)(fa_engine *engine, const fa_matrix *matrix, fa_epilogue epilogue, int64_t rows, const void *a, void *y);
  /* y = act(a Wgate^T) * (a Wup^T), y dtype [rows, inner]; without a gate y = act(a Wup^T). `gated` is the matrix of
   * gate and up (or up alone) stacked; scratch: wide [rows, its rows]. */
  fa_status (*gated_product)(fa_engine *engine, const fa_matrix *gated, bool has_gate, fa_activation activation, int64_t rows,
                             const void *a, void *scratch, void *y);
  fa_status (*place_heads)(fa_engine *engine, const fa_head_placement *placement);
  /* y[i] = x[rows_of[i]]: rows of fp32 picked out, for the logits of some rows. */
  fa_status (*pick_rows)(fa_engine *engine, int64_t count, int64_t width, const float *x, const int32_t *rows_of, float *y);
  /* tokens[row] drawn from logits [rows, vocabulary], which may be overwritten. settings: [rows] on the device. seen:
   * [rows, vocabulary], nonzero where a token has occurred, marked for the token drawn; NULL: no row has a penalty. */
  fa_status (*sample)(fa_engine *engine, int64_t rows, int64_t vocabulary, float *logits, const fa_sample_row *settings,
                      uint8_t *seen, int32_t *tokens);

  /* Work between begin and end is recorded, not done; launch does it in stream order. NULL, all four, on a device
   * that has nothing like it. begin .. end contain no allocation and no host read. */
  fa_status (*graph_begin)(fa_engine *engine);
  fa_status (*graph_end)(fa_engine *engine, fa_graph **graph); /* also ends a capture that failed: then *graph is NULL */
  fa_status (*graph_launch)(fa_engine *engine, fa_graph *graph);
  void (*graph_free)(fa_engine *engine, fa_graph *graph); /* NULL is fine */
};

/* Whether devices called so ("cpu", "cuda"), all of them, multiply bf16 in hardware, by their public descriptions. */
bool fa_multiplies_bf16(const char *device);

extern const fa_operators fa_cpu_operators;
#if FA_WITH_CUDA
extern const fa_operators fa_cuda_operators;
#endif

#endif
