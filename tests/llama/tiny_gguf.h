/* A whole Llama model of a few kilobytes, made in memory: two layers, every tensor type the runner reads, and
 * a byte-level vocabulary. Tests damage it. */
#ifndef FA_TESTS_TINY_GGUF_H
#define FA_TESTS_TINY_GGUF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dequantize.h"
#include "gguf.h"
#include "utf8.h"
#include "vocabulary.h"

enum {
  TINY_LAYERS = 2,
  TINY_HIDDEN = 64,
  TINY_HEADS = 4,
  TINY_KV_HEADS = 2,
  TINY_FEED_FORWARD = 256,
  TINY_VOCABULARY = 262
};

typedef struct tiny {
  uint8_t *bytes;
  size_t size, capacity;
  size_t header; /* bytes before the tensor data */
  /* Left out while it is made. */
  const char *without_key, *without_tensor;
  const float *rope_freqs; /* [head dim / 2]; NULL: none */
} tiny;

static inline void tiny_put(tiny *t, const void *bytes, size_t size) {
  if (t->size + size > t->capacity) {
    t->capacity = 2 * (t->size + size);
    t->bytes = realloc(t->bytes, t->capacity);
    if (!t->bytes) abort();
  }
  memcpy(t->bytes + t->size, bytes, size);
  t->size += size;
}

static inline void tiny_u32(tiny *t, uint32_t value) { tiny_put(t, &value, sizeof value); }
static inline void tiny_u64(tiny *t, uint64_t value) { tiny_put(t, &value, sizeof value); }
static inline void tiny_string(tiny *t, const char *text) {
  tiny_u64(t, strlen(text));
  tiny_put(t, text, strlen(text));
}

/* Key and type; false when the key is to be left out. */
static inline bool tiny_key(tiny *t, uint64_t *pairs, const char *key, fa_gguf_type type) {
  if (t->without_key && strcmp(key, t->without_key) == 0) return false;
  ++*pairs;
  tiny_string(t, key);
  tiny_u32(t, (uint32_t)type);
  return true;
}

static inline void tiny_pairs(tiny *t, uint64_t *pairs) {
  static const struct {
    const char *key;
    uint32_t value;
  } integers[] = {{"llama.block_count", TINY_LAYERS},
                  {"llama.context_length", 128},
                  {"llama.embedding_length", TINY_HIDDEN},
                  {"llama.feed_forward_length", TINY_FEED_FORWARD},
                  {"llama.attention.head_count", TINY_HEADS},
                  {"llama.attention.head_count_kv", TINY_KV_HEADS},
                  {"llama.rope.dimension_count", TINY_HIDDEN / TINY_HEADS},
                  {"general.alignment", 32},
                  {"tokenizer.ggml.bos_token_id", 260},
                  {"tokenizer.ggml.eos_token_id", 261}};
  static const char *const texts[][2] = {
      {"general.architecture", "llama"},
      {"tokenizer.ggml.model", "gpt2"},
      {"tokenizer.ggml.pre", "smollm"},
      {"tokenizer.chat_template",
       "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}"}};
  static const char *const merges[] = {"h e", "l l", "he ll"};
  const float epsilon = 1e-5f, base = 10000.0f;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    if (tiny_key(t, pairs, texts[i][0], FA_GGUF_STRING)) tiny_string(t, texts[i][1]);
  }
  for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
    if (tiny_key(t, pairs, integers[i].key, FA_GGUF_UINT32)) tiny_u32(t, integers[i].value);
  }
  if (tiny_key(t, pairs, "llama.attention.layer_norm_rms_epsilon", FA_GGUF_FLOAT32)) tiny_put(t, &epsilon, 4);
  if (tiny_key(t, pairs, "llama.rope.freq_base", FA_GGUF_FLOAT32)) tiny_put(t, &base, 4);
  if (tiny_key(t, pairs, "tokenizer.ggml.tokens", FA_GGUF_ARRAY)) {
    tiny_u32(t, FA_GGUF_STRING);
    tiny_u64(t, TINY_VOCABULARY);
    for (int b = 0; b < 256; b++) {
      char name[5] = {0};
      fa_utf8_encode(fa_byte_alphabet((uint8_t)b), name);
      tiny_string(t, name);
    }
    static const char *const rest[] = {"he", "ll", "hell", "<unused>", "<|im_start|>", "<|im_end|>"};
    for (size_t i = 0; i < 6; i++) tiny_string(t, rest[i]);
  }
  if (tiny_key(t, pairs, "tokenizer.ggml.token_type", FA_GGUF_ARRAY)) {
    tiny_u32(t, FA_GGUF_INT32);
    tiny_u64(t, TINY_VOCABULARY);
    for (uint32_t id = 0; id < TINY_VOCABULARY; id++) tiny_u32(t, id < 259 ? 1 : 3);
  }
  if (tiny_key(t, pairs, "tokenizer.ggml.merges", FA_GGUF_ARRAY)) {
    tiny_u32(t, FA_GGUF_STRING);
    tiny_u64(t, 3);
    for (size_t i = 0; i < 3; i++) tiny_string(t, merges[i]);
  }
}

/* Small scales and varied integers, whatever the type. */
static inline void tiny_data(tiny *t, int32_t type, int64_t elements, uint32_t *random) {
  const fa_ggml_type *ggml = fa_ggml_type_of(type);
  for (int64_t i = 0; i < elements / ggml->block_elements; i++) {
    uint8_t block[256];
    for (int j = 0; j < ggml->block_bytes; j++) {
      *random = *random * 1664525u + 1013904223u;
      block[j] = (uint8_t)(*random >> 24);
    }
    const uint16_t scale = 0x1c00, minus = 0x9800; /* 2^-8, and -2^-9 as the minimum of Q4_1 */
    const float value = ((float)block[0] - 127.5f) / 1024.0f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t high = (uint16_t)(bits >> 16),
                   half = (uint16_t)(0x2800u | (block[1] & 0x83u) << 8 | block[0]);
    switch (type) {
      case FA_GGML_F32:
        memcpy(block, &value, 4);
        break;
      case FA_GGML_BF16:
        memcpy(block, &high, 2);
        break;
      case FA_GGML_F16:
        memcpy(block, &half, 2);
        break;
      case FA_GGML_Q6_K:
        memcpy(block + 208, &scale, 2);
        break;
      case FA_GGML_Q4_1:
        memcpy(block + 2, &minus, 2); /* fall through */
      default:
        memcpy(block, &scale, 2);
        break;
    }
    tiny_put(t, block, (size_t)ggml->block_bytes);
  }
}

typedef struct tiny_tensor {
  char name[40];
  int32_t type;
  int64_t columns, rows; /* rows 0: a vector */
} tiny_tensor;

static inline int tiny_tensors(tiny_tensor list[32]) {
  static const tiny_tensor layer[] = {{"attn_norm", FA_GGML_F32, TINY_HIDDEN, 0},
                                      {"ffn_norm", FA_GGML_F32, TINY_HIDDEN, 0},
                                      {"attn_q", FA_GGML_Q4_0, TINY_HIDDEN, TINY_HIDDEN},
                                      {"attn_k", FA_GGML_F16, TINY_HIDDEN, TINY_HIDDEN / 2},
                                      {"attn_v", FA_GGML_BF16, TINY_HIDDEN, TINY_HIDDEN / 2},
                                      {"attn_output", FA_GGML_Q8_0, TINY_HIDDEN, TINY_HIDDEN},
                                      {"ffn_gate", FA_GGML_Q4_1, TINY_HIDDEN, TINY_FEED_FORWARD},
                                      {"ffn_up", FA_GGML_F32, TINY_HIDDEN, TINY_FEED_FORWARD},
                                      {"ffn_down", FA_GGML_Q6_K, TINY_FEED_FORWARD, TINY_HIDDEN}};
  int count = 0;
  list[count++] = (tiny_tensor){"token_embd.weight", FA_GGML_Q8_0, TINY_HIDDEN, TINY_VOCABULARY};
  list[count++] = (tiny_tensor){"output_norm.weight", FA_GGML_F32, TINY_HIDDEN, 0};
  for (int i = 0; i < TINY_LAYERS; i++) {
    for (size_t k = 0; k < sizeof layer / sizeof layer[0]; k++) {
      tiny_tensor *tensor = &list[count++];
      *tensor = layer[k];
      char short_name[40];
      memcpy(short_name, tensor->name, sizeof short_name);
      snprintf(tensor->name, sizeof tensor->name, "blk.%d.%.20s.weight", i, short_name);
    }
  }
  return count;
}

static inline uint64_t tiny_bytes_of(const tiny_tensor *tensor) {
  const fa_ggml_type *type = fa_ggml_type_of(tensor->type);
  const int64_t elements = tensor->columns * (tensor->rows ? tensor->rows : 1);
  return (uint64_t)(elements / type->block_elements * type->block_bytes);
}

/* Fills t; without_key, without_tensor and rope_freqs are read. Free t->bytes. */
static inline void tiny_make(tiny *t) {
  tiny_tensor list[32];
  uint64_t pairs = 0, offset = 0, kept = 0;
  uint32_t random = 1;
  const int count = tiny_tensors(list);
  t->bytes = NULL;
  t->size = t->capacity = 0;
  for (int i = 0; i < count; i++) kept += !t->without_tensor || strcmp(list[i].name, t->without_tensor) != 0;
  kept += t->rope_freqs != NULL;
  tiny_put(t, "GGUF", 4);
  tiny_u32(t, 3);
  tiny_u64(t, kept);
  tiny_u64(t, 0);
  tiny_pairs(t, &pairs);
  memcpy(t->bytes + 16, &pairs, sizeof pairs);
  for (int i = 0; i < count; i++) {
    if (t->without_tensor && strcmp(list[i].name, t->without_tensor) == 0) continue;
    tiny_string(t, list[i].name);
    tiny_u32(t, list[i].rows ? 2 : 1);
    tiny_u64(t, (uint64_t)list[i].columns);
    if (list[i].rows) tiny_u64(t, (uint64_t)list[i].rows);
    tiny_u32(t, (uint32_t)list[i].type);
    tiny_u64(t, offset);
    offset += (tiny_bytes_of(&list[i]) + 31) / 32 * 32;
  }
  if (t->rope_freqs) {
    tiny_string(t, "rope_freqs.weight");
    tiny_u32(t, 1);
    tiny_u64(t, TINY_HIDDEN / TINY_HEADS / 2);
    tiny_u32(t, FA_GGML_F32);
    tiny_u64(t, offset);
  }
  static const uint8_t zeros[32];
  while (t->size % 32) tiny_put(t, zeros, 1);
  t->header = t->size;
  for (int i = 0; i < count; i++) {
    if (t->without_tensor && strcmp(list[i].name, t->without_tensor) == 0) continue;
    tiny_data(t, list[i].type, list[i].columns * (list[i].rows ? list[i].rows : 1), &random);
    while (t->size % 32) tiny_put(t, zeros, 1);
  }
  if (t->rope_freqs) tiny_put(t, t->rope_freqs, TINY_HIDDEN / TINY_HEADS / 2 * sizeof *t->rope_freqs);
}

/* What follows a key or a tensor's name in the header: its type, or its number of dimensions. */
static inline uint8_t *tiny_after(const tiny *t, const char *name) {
  const size_t length = strlen(name);
  for (size_t at = 24; at + 8 + length < t->header; at++) {
    uint64_t said;
    memcpy(&said, t->bytes + at, sizeof said);
    if (said == length && memcmp(t->bytes + at + 8, name, length) == 0) return t->bytes + at + 8 + length;
  }
  abort();
}

#endif
