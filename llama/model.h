/* The weights of a Llama model as the forward pass wants them. */
#ifndef FA_LLAMA_MODEL_H
#define FA_LLAMA_MODEL_H

#include "dequantize.h"
#include "gguf.h"
#include "llama.h"
#include "matmul_onednn.h"

typedef struct fa_llama_layer {
  float *attention_norm;  /* [hidden] */
  float *ffn_norm;        /* [hidden] */
  fa_packed_weight *qkv;  /* [heads_q * dqk + heads_kv * dqk + heads_kv * dv, hidden] */
  fa_packed_weight *out;  /* [hidden, heads_q * dv] */
  fa_packed_weight *gate; /* [feed_forward, hidden] */
  fa_packed_weight *up;   /* [feed_forward, hidden] */
  fa_packed_weight *down; /* [hidden, feed_forward] */
} fa_llama_layer;

struct fa_llama_model {
  fa_context *context;
  fa_gguf *gguf;
  fa_tokenizer *tokenizer;
  fa_llama_shape shape;
  fa_dtype dtype; /* of packed weights, activations entering a product, and KV cache */
  fa_matmul *packer;
  const fa_gguf_tensor *embedding; /* [vocabulary, hidden], dequantised a row at a time */
  fa_llama_layer *layers;
  float *output_norm;       /* [hidden] */
  fa_packed_weight *output; /* [vocabulary, hidden] */
  float *rotary_divisors;   /* [rotary_dim / 2] by which frequencies are divided; NULL: none */
  int64_t parameters;
};

/* Fills shape from the metadata. */
fa_status fa_llama_shape_read(const fa_gguf *gguf, fa_llama_shape *shape);
/* Fills layers, embedding, norms and output; shape, dtype, gguf and packer are set. */
fa_status fa_llama_weights_load(fa_llama_model *model);
void fa_llama_weights_unload(fa_llama_model *model);

static inline int64_t fa_llama_qkv_width(const fa_llama_shape *s) {
  return (s->heads_q + s->heads_kv) * s->head_dim_qk + s->heads_kv * s->head_dim_v;
}

#endif
