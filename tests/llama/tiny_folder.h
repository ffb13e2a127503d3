/* The tiny model of tiny_gguf.h as a Hugging Face folder of fp32 safetensors. Tests change it. After
 * cmocka.h. */
#ifndef FA_TESTS_TINY_FOLDER_H
#define FA_TESTS_TINY_FOLDER_H

#include <stdio.h>
#include <unistd.h>

#include "tiny_gguf.h"

enum { HEAD_DIM = TINY_HIDDEN / TINY_HEADS };

typedef struct entry {
  char name[80];
  int64_t rows, columns; /* rows 0: a vector */
  float *values;
} entry;

static entry entries[48];
static int count;
static char folder[] = "/tmp/fastattention-folder-XXXXXX";

static const char *path_of(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static FILE *create(const char *name) {
  FILE *file = fopen(path_of(name), "wb");
  assert_non_null(file);
  return file;
}

static void write_text(const char *name, const char *text) {
  FILE *file = create(name);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

/* The first of two members with one name counts, so that `changes` ("\"member\":value,") go before the rest.
 */
static void write_config(const char *changes) {
  char text[1024];
  snprintf(text, sizeof text,
           "{%s\"model_type\":\"llama\",\"num_hidden_layers\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,"
           "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":%d,"
           "\"max_position_embeddings\":128,\"rope_theta\":10000.0,\"rope_scaling\":null,"
           "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"attention_bias\":false,\"mlp_bias\":false,"
           "\"tie_word_embeddings\":true,\"bos_token_id\":260,\"eos_token_id\":261}",
           changes, TINY_LAYERS, TINY_HIDDEN, TINY_FEED_FORWARD, TINY_HEADS, TINY_KV_HEADS, HEAD_DIM,
           TINY_VOCABULARY);
  write_text("config.json", text);
}

/* The vocabulary, merges and pre-tokenizer of tiny_gguf.h. */
static void write_tokenizer(void) {
  FILE *file = create("tokenizer.json");
  fputs(
      "{\"added_tokens\":[{\"id\":259,\"content\":\"<unused>\",\"special\":true},{\"id\":260,\"content\":"
      "\"<|im_start|>\",\"special\":true},{\"id\":261,\"content\":\"<|im_end|>\",\"special\":true}],"
      "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
      "\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]},"
      "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":"
      "[\"h e\",\"l l\",\"he ll\"],\"vocab\":{\"he\":256,\"ll\":257,\"hell\":258",
      file);
  for (int b = 0; b < 256; b++) {
    char name[5] = {0};
    fa_utf8_encode(fa_byte_alphabet((uint8_t)b), name);
    fprintf(file, ",\"%s%s\":%d", b == '"' || b == '\\' ? "\\" : "", name, b);
  }
  fputs("}}}", file);
  assert_int_equal(fclose(file), 0);
}

/* Entries [first, end) without one; `turned` has its rows and columns exchanged. */
static void write_weights(const char *name, int first, int end, const char *without, const char *turned) {
  static char header[16384];
  size_t length = 0, at = 0;
  for (int i = first; i < end; i++) {
    const entry *e = &entries[i];
    char shape[64];
    const size_t bytes = (size_t)(e->columns * (e->rows ? e->rows : 1)) * sizeof(float);
    const bool is_turned = turned && strcmp(turned, e->name) == 0;
    if (without && strcmp(without, e->name) == 0) continue;
    snprintf(shape, sizeof shape, "%lld,%lld", (long long)(is_turned ? e->columns : e->rows),
             (long long)(is_turned ? e->rows : e->columns));
    length += (size_t)snprintf(header + length, sizeof header - length,
                               "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                               length ? ',' : '{', e->name, e->rows ? shape : strchr(shape, ',') + 1, at,
                               at + bytes);
    assert_true(length + 1 < sizeof header);
    at += bytes;
  }
  header[length++] = '}';
  FILE *file = create(name);
  for (int i = 0; i < 8; i++) fputc((int)((uint64_t)length >> (8 * i) & 0xff), file);
  fwrite(header, 1, length, file);
  for (int i = first; i < end; i++) {
    const entry *e = &entries[i];
    if (without && strcmp(without, e->name) == 0) continue;
    fwrite(e->values, sizeof(float), (size_t)(e->columns * (e->rows ? e->rows : 1)), file);
  }
  assert_int_equal(fclose(file), 0);
}

static entry *add_entry(const char *name, int64_t rows, int64_t columns) {
  entry *e = &entries[count++];
  assert_true(count <= (int)(sizeof entries / sizeof entries[0]));
  snprintf(e->name, sizeof e->name, "%s", name);
  e->rows = rows;
  e->columns = columns;
  e->values = malloc((size_t)(columns * (rows ? rows : 1)) * sizeof *e->values);
  assert_non_null(e->values);
  return e;
}

/* GGUF has the rows of a head as pairs (2d, 2d + 1), Hugging Face as (d, d + half). */
static void take_pairs_apart(entry *e) {
  const int64_t half = HEAD_DIM / 2, columns = e->columns;
  float *from = malloc((size_t)(e->rows * columns) * sizeof *from);
  assert_non_null(from);
  memcpy(from, e->values, (size_t)(e->rows * columns) * sizeof *from);
  for (int64_t row = 0; row < e->rows; row++) {
    const int64_t head = row / HEAD_DIM, d = row % half, second = row % HEAD_DIM / half;
    memcpy(e->values + row * columns, from + (head * HEAD_DIM + 2 * d + second) * columns,
           (size_t)columns * sizeof *from);
  }
  free(from);
}

/* The tensors of a tiny GGUF under Hugging Face's names. */
static void take_entries(const tiny *t) {
  static const char *const names[][2] = {
      {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"}};
  fa_gguf *gguf;
  assert_int_equal(fa_gguf_open_memory(t->bytes, t->size, "tiny.gguf", &gguf), FA_OK);
  for (int64_t i = 0; i < fa_gguf_tensor_count(gguf); i++) {
    const fa_gguf_tensor *tensor = fa_gguf_tensor_at(gguf, i);
    char name[80] = "";
    if (fa_gguf_string_is(tensor->name, "token_embd.weight")) strcpy(name, "model.embed_tokens.weight");
    if (fa_gguf_string_is(tensor->name, "output_norm.weight")) strcpy(name, "model.norm.weight");
    for (int layer = 0; layer < TINY_LAYERS; layer++) {
      for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        char given[80];
        snprintf(given, sizeof given, "blk.%d.%s.weight", layer, names[k][0]);
        if (fa_gguf_string_is(tensor->name, given))
          snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, names[k][1]);
      }
    }
    assert_true(name[0] != '\0');
    entry *e = add_entry(name, tensor->dims == 2 ? tensor->size[1] : 0, tensor->size[0]);
    fa_ggml_type_of(tensor->type)->to_float(tensor->data, e->values, tensor->elements);
    if (strstr(name, "q_proj") || strstr(name, "k_proj")) take_pairs_apart(e);
  }
  fa_gguf_close(gguf);
}

/* As tiny_make, but with scores of attention that are far from even: else positions would hardly show in
 * logits. */
static void make_gguf(tiny *t) {
  fa_gguf *gguf;
  tiny_make(t);
  assert_int_equal(fa_gguf_open_memory(t->bytes, t->size, "tiny.gguf", &gguf), FA_OK);
  for (int layer = 0; layer < TINY_LAYERS; layer++) {
    char name[80];
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
    uint8_t *at = t->bytes + (fa_gguf_find_tensor(gguf, name)->data - t->bytes);
    for (int i = 0; i < TINY_HIDDEN; i++, at += sizeof(float)) {
      float value;
      memcpy(&value, at, sizeof value);
      value *= 64.0f;
      memcpy(at, &value, sizeof value);
    }
  }
  fa_gguf_close(gguf);
}

static int set_up(void **state) {
  (void)state;
  tiny t = {0};
  assert_non_null(mkdtemp(folder));
  make_gguf(&t);
  take_entries(&t);
  free(t.bytes);
  write_tokenizer();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  static const char *const names[] = {"config.json",
                                      "tokenizer.json",
                                      "tiny.gguf",
                                      "model.safetensors",
                                      "model.safetensors.index.json",
                                      "model-00001-of-00002.safetensors",
                                      "model-00002-of-00002.safetensors"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(path_of(names[i]));
  while (count) free(entries[--count].values);
  return rmdir(folder);
}

#endif
