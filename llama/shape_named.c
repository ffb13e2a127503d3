/* Shapes of published models, from their configurations. */
#include <stdio.h>
#include <string.h>

#include "llama_error.h"
#include "model.h"

#define SILU .activation = FA_ACTIVATION_SILU, .has_gate = true
#define COMMON .rotary_factor = 1.0, .embedding_scale = 1.0f
#define LLAMA(l, h, hq, hkv, d, f, v, c, base, eps)                                                                 \
  {.layers = l, .hidden = h, .heads_q = hq, .heads_kv = hkv, .head_dim_qk = d, .head_dim_v = d, .feed_forward = f,  \
   .vocabulary = v, .context = c, .rotary_dim = d, .rotary_base = base, .norm_epsilon = eps, SILU, COMMON}

static const struct {
  const char *name;
  fa_llama_shape shape;
} named[] = {
    {"llama-7b", LLAMA(32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e4, 1e-5f)}, /* Llama 2 */
    {"llama-13b", LLAMA(40, 5120, 40, 40, 128, 13824, 32000, 4096, 1e4, 1e-5f)},
    {"llama-70b", LLAMA(80, 8192, 64, 8, 128, 28672, 32000, 4096, 1e4, 1e-5f)},
    {"llama3-8b", LLAMA(32, 4096, 32, 8, 128, 14336, 128256, 8192, 5e5, 1e-5f)},
    {"mistral-7b", LLAMA(32, 4096, 32, 8, 128, 14336, 32768, 32768, 1e6, 1e-5f)}, /* v0.3: no window */
    {"qwen2-7b",
     {.layers = 28, .hidden = 3584, .heads_q = 28, .heads_kv = 4, .head_dim_qk = 128, .head_dim_v = 128,
      .feed_forward = 18944, .vocabulary = 152064, .context = 32768, .rotary_dim = 128, .rotary_base = 1e6,
      .norm_epsilon = 1e-6f, .has_qkv_bias = true, SILU, COMMON}},
    {"qwen3-8b",
     {.layers = 36, .hidden = 4096, .heads_q = 32, .heads_kv = 8, .head_dim_qk = 128, .head_dim_v = 128,
      .feed_forward = 12288, .vocabulary = 151936, .context = 40960, .rotary_dim = 128, .rotary_base = 1e6,
      .norm_epsilon = 1e-6f, .has_qk_norm = true, SILU, COMMON}},
    {"gemma3-270m",
     {.layers = 18, .hidden = 640, .heads_q = 4, .heads_kv = 1, .head_dim_qk = 256, .head_dim_v = 256,
      .feed_forward = 2048, .vocabulary = 262144, .context = 32768, .rotary_dim = 256, .rotary_base = 1e6,
      .rotary_factor = 1.0, .rotary_base_local = 1e4, .window = 512, .global_every = 6, .norm_epsilon = 1e-6f,
      .attention_scale = 0.0625f, .embedding_scale = 25.298221f, .activation = FA_ACTIVATION_GELU_TANH,
      .has_gate = true, .has_qk_norm = true, .has_post_norms = true, .tied_embeddings = true}},
    {"smollm2-135m",
     {.layers = 30, .hidden = 576, .heads_q = 9, .heads_kv = 3, .head_dim_qk = 64, .head_dim_v = 64,
      .feed_forward = 1536, .vocabulary = 49152, .context = 8192, .rotary_dim = 64, .rotary_base = 1e5,
      .norm_epsilon = 1e-5f, .tied_embeddings = true, SILU, COMMON}},
    /* Stand-in: PanGu-38B's shape is not public. 38.0 G parameters; a plain GELU feed-forward, no GQA. */
    {"pangu-38b",
     {.layers = 46, .hidden = 8192, .heads_q = 64, .heads_kv = 64, .head_dim_qk = 128, .head_dim_v = 128,
      .feed_forward = 32768, .vocabulary = 112000, .context = 262144, .rotary_dim = 128, .rotary_base = 1e4,
      .norm_epsilon = 1e-5f, .activation = FA_ACTIVATION_GELU_TANH, .tied_embeddings = true, COMMON}},
};
enum { NAMED = sizeof named / sizeof named[0] };

int fa_llama_shape_count(void) { return NAMED; }
const char *fa_llama_shape_name(int index) { return named[index].name; }

fa_status fa_llama_shape_named(const char *name, fa_llama_shape *shape) {
  char known[256] = "";
  for (int i = 0; i < NAMED; i++) {
    if (strcmp(name, named[i].name) == 0) {
      *shape = named[i].shape;
      return FA_OK;
    }
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", named[i].name);
  }
  return fa_llama_fail(FA_ERROR_ARGUMENT, "no architecture is called '%.60s'; known are %s", name, known);
}

int64_t fa_llama_shape_parameters(const fa_llama_shape *s) {
  const int64_t attention = (fa_llama_qkv_width(s) + s->heads_q * s->head_dim_v) * s->hidden;
  const int64_t feed_forward = (s->has_gate ? 3 : 2) * s->hidden * s->feed_forward;
  const int64_t norms = (s->has_post_norms ? 4 : 2) * s->hidden + (s->has_qk_norm ? 2 * s->head_dim_qk : 0) +
                        (s->has_qkv_bias ? fa_llama_qkv_width(s) : 0);
  return s->layers * (attention + feed_forward + norms) + s->hidden + (s->tied_embeddings ? 1 : 2) * s->vocabulary * s->hidden;
}
