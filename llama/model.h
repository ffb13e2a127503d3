/* The weights of a model as the forward pass wants them, and where they come from. */
#ifndef FA_LLAMA_MODEL_H
#define FA_LLAMA_MODEL_H

#include "dequantize.h"
#include "gguf.h"
#include "llama.h"
#include "safetensors.h"

/* NULL where the shape has no such part. Vectors are fp32 on the device. */
typedef struct fa_llama_layer {
  float *attention_norm, *ffn_norm;                     /* [hidden] */
  float *attention_post_norm, *ffn_post_norm;           /* [hidden] */
  float *qkv_bias;                                      /* [qkv width] */
  float *q_norm, *k_norm;                               /* [head_dim_qk] */
  fa_matrix *qkv;   /* [heads_q * dqk + heads_kv * dqk + heads_kv * dv, hidden] */
  fa_matrix *out;   /* [hidden, heads_q * dv] */
  fa_matrix *gated; /* [gate then up, or up alone; hidden] */
  fa_matrix *down;  /* [hidden, feed_forward] */
} fa_llama_layer;

/* A file's tensors under the names of its format; neither: random values. */
typedef struct fa_weight_source {
  const fa_gguf *gguf;
  const fa_safetensors *safetensors;
  int32_t random_type;   /* the ggml type of random values */
  bool norms_from_one;   /* norm weights are stored less 1 (Gemma's safetensors) */
} fa_weight_source;

struct fa_llama_model {
  fa_context *context;
  fa_engine *engine; /* that made the matrices; each session opens its own */
  fa_gguf *gguf;
  fa_safetensors *safetensors;
  fa_tokenizer *tokenizer;
  fa_llama_shape shape;
  fa_matrix *embedding; /* [vocabulary, hidden] */
  fa_llama_layer *layers;
  float *output_norm;     /* [hidden], device */
  fa_matrix *output;      /* [vocabulary, hidden]; the embedding itself where it is tied */
  float *rotary_divisors; /* [rotary_dim / 2] on the host, by which frequencies are divided; NULL: none */
};

/* Fills shape from the metadata. *divisors: from the file's rope_freqs or scaling, malloc'd, or NULL. */
fa_status fa_llama_shape_from_gguf(const fa_gguf *gguf, fa_llama_shape *shape, float **divisors);
/* The same from a folder's config.json. */
fa_status fa_llama_shape_from_config(const char *folder, fa_llama_shape *shape, float **divisors);
/* Whether sizes are ones that this forward pass computes; `file` for the line. */
fa_status fa_llama_shape_check(const char *file, const fa_llama_shape *shape);

/* Fills layers, embedding, norms and output; shape and engine are set. */
fa_status fa_llama_weights_load(fa_llama_model *model, const fa_weight_source *source, fa_llama_progress progress,
                                void *user);
void fa_llama_weights_unload(fa_llama_model *model);

static inline int64_t fa_llama_qkv_width(const fa_llama_shape *s) {
  return (s->heads_q + s->heads_kv) * s->head_dim_qk + s->heads_kv * s->head_dim_v;
}
static inline int64_t fa_llama_gated_width(const fa_llama_shape *s) { return s->feed_forward * (s->has_gate ? 2 : 1); }

#endif
