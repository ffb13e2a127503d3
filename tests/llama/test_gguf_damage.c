/* Damaged and hostile GGUF files: one line that says what is wrong, never a crash. Parsed from memory of
 * exactly the file's size, so that the address sanitizer sees every byte read beyond it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "llama.h"
#include "model.h"
#include "tiny_gguf.h"
#include "tokenizer.h"

static void assert_line(const char *part) {
  const char *line = fa_llama_last_error();
  assert_true(line[0] != '\0');
  assert_null(strchr(line, '\n'));
  if (!strstr(line, part)) fail_msg("'%s' does not say '%s'", line, part);
}

/* Everything that reads metadata; the weights need a file. */
static fa_status read_whole(const uint8_t *bytes, size_t size) {
  fa_gguf *gguf = NULL;
  fa_tokenizer *tokenizer = NULL;
  fa_llama_shape shape;
  float *divisors = NULL;
  uint8_t *exact = malloc(size ? size : 1);
  assert_non_null(exact);
  memcpy(exact, bytes, size);
  fa_status status = fa_gguf_open_memory(exact, size, "damaged.gguf", &gguf);
  if (status == FA_OK) {
    volatile uint8_t seen = 0;
    for (int64_t i = 0; i < fa_gguf_tensor_count(gguf); i++) {
      const fa_gguf_tensor *tensor = fa_gguf_tensor_at(gguf, i);
      seen = (uint8_t)(seen + tensor->data[0] + tensor->data[tensor->bytes - 1]);
    }
    status = fa_llama_shape_from_gguf(gguf, &shape, &divisors);
    if (status == FA_OK) status = fa_tokenizer_create(gguf, &tokenizer);
  }
  if (status == FA_OK) {
    fa_token_list list = FA_TOKEN_LIST_INIT;
    size_t length;
    assert_int_equal(fa_tokenizer_encode(tokenizer, "hello <|im_end|>", 16, FA_ENCODE_SPECIAL, &list), FA_OK);
    for (int64_t i = 0; i < list.count; i++)
      assert_non_null(fa_tokenizer_piece(tokenizer, list.ids[i], &length));
    fa_token_list_free(&list);
    (void)fa_tokenizer_encode_chat(tokenizer, NULL, "hello", &list);
    fa_token_list_free(&list);
  } else {
    assert_line("");
  }
  fa_tokenizer_free(tokenizer);
  fa_gguf_close(gguf);
  free(divisors);
  free(exact);
  return status;
}

/* Through the file, with weights and a step. */
static fa_status run_whole(const uint8_t *bytes, size_t size) {
  char path[] = "/tmp/fastattention-damage-XXXXXX";
  const int file = mkstemp(path);
  fa_context *context;
  fa_llama_model *model = NULL;
  fa_llama_session *session = NULL;
  assert_true(file >= 0);
  assert_int_equal(write(file, bytes, size), size);
  close(file);
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  fa_llama_load_options load = FA_LLAMA_LOAD_OPTIONS_INIT;
  fa_llama_session_options options = FA_LLAMA_SESSION_OPTIONS_INIT;
  load.dtype = FA_FLOAT32;
  options.max_tokens = 2;
  fa_status status = fa_llama_model_load(context, path, &load, &model);
  if (status == FA_OK) {
    const int32_t tokens[] = {0, 1};
    float *logits = malloc((size_t)fa_llama_model_shape(model)->vocabulary * sizeof *logits);
    status = fa_llama_session_create(model, &options, &session);
    if (status == FA_OK && fa_llama_model_shape(model)->vocabulary > 1)
      status = fa_llama_eval(session, tokens, 2);
    if (status == FA_OK) status = fa_llama_logits(session, 1, 1, logits);
    free(logits);
  }
  if (status != FA_OK) assert_line("");
  fa_llama_session_free(session);
  fa_llama_model_free(model);
  fa_context_destroy(context);
  unlink(path);
  return status;
}

static void test_whole(void **state) {
  (void)state;
  tiny t = {0};
  tiny_make(&t);
  if (read_whole(t.bytes, t.size) != FA_OK) fail_msg("%s", fa_llama_last_error());
  if (run_whole(t.bytes, t.size) != FA_OK) fail_msg("%s", fa_llama_last_error());
  free(t.bytes);
}

static void test_truncated(void **state) {
  (void)state;
  tiny t = {0};
  tiny_make(&t);
  for (size_t size = 0; size < t.header; size++) assert_int_not_equal(read_whole(t.bytes, size), FA_OK);
  for (size_t size = t.header; size + 32 < t.size; size += 997) {
    assert_int_not_equal(read_whole(t.bytes, size), FA_OK);
    assert_line("truncated");
  }
  assert_int_not_equal(run_whole(t.bytes, t.header), FA_OK);
  free(t.bytes);
}

/* A patch of the header: where, relative to what follows a key or a tensor's name, and what the line must
 * say. */
typedef struct patch {
  const char *name; /* NULL: from the beginning of the file */
  size_t at;
  uint64_t value;
  size_t bytes;
  const char *line;
} patch;

static void test_patched(void **state) {
  (void)state;
  const uint64_t huge = (uint64_t)1 << 61;
  /* After a key: u32 type, value; an array: u32 type, u32 element type, u64 count. After a tensor's name: u32
   * dims, u64 columns, u64 rows, u32 type, u64 offset. */
  const patch patches[] = {
      {NULL, 0, 0x46554748, 4, "does not begin with"},
      {NULL, 4, 1, 4, "version 1"},
      {NULL, 4, 0x03000000, 4, "little-endian"},
      {NULL, 8, huge, 8, "more than fit"},
      {NULL, 8, UINT64_MAX, 8, "more than fit"},
      {NULL, 16, huge, 8, "more than fit"},
      {NULL, 16, 1000, 8, "ends inside a metadata key"},
      {NULL, 24, UINT64_MAX, 8, "ends inside"},
      {NULL, 24, 0, 8, "0 bytes"},
      {"general.architecture", 0, 99, 4, "unknown type 99"},
      {"general.architecture", 0, FA_GGUF_UINT32, 4, "ends inside a metadata key"},
      {"general.architecture", 4, huge, 8, "ends inside"},
      {"general.architecture", 12, 0x616d6d67, 4, "architecture 'gmmaa'"},
      {"llama.block_count", 0, FA_GGUF_FLOAT32, 4, "'llama.block_count' is of type FLOAT32"},
      {"llama.block_count", 4, 0, 4, "'llama.block_count' is 0"},
      {"llama.block_count", 4, 0xffffffff, 4, "'llama.block_count' is 4294967295"},
      {"llama.attention.head_count", 4, 3, 4, "query heads"},
      {"llama.attention.head_count_kv", 4, 3, 4, "query heads"},
      {"llama.rope.dimension_count", 4, 7, 4, "rotary dimensions 7"},
      {"llama.rope.dimension_count", 4, 18, 4, "'llama.rope.dimension_count' is 18"},
      {"llama.attention.layer_norm_rms_epsilon", 4, 0x7fc00000, 4, "not a finite number"},
      {"llama.rope.freq_base", 4, 0xff800000, 4, "not a finite number"},
      {"general.alignment", 4, 0, 4, "'general.alignment' is 0"},
      {"general.alignment", 4, 48, 4, "power of two"},
      {"general.alignment", 4, 0x80000000, 4, "'general.alignment' is"},
      {"general.alignment", 4, 4096, 4, "multiple of 4096"},
      {"tokenizer.ggml.bos_token_id", 4, 9999, 4, "'tokenizer.ggml.bos_token_id' is 9999"},
      {"tokenizer.ggml.eos_token_id", 4, 262, 4, "'tokenizer.ggml.eos_token_id' is 262"},
      {"tokenizer.ggml.tokens", 0, FA_GGUF_STRING, 4, "ends inside a metadata string"},
      {"tokenizer.ggml.tokens", 4, FA_GGUF_ARRAY, 4, "ends inside an array"},
      {"tokenizer.ggml.tokens", 4, 77, 4, "unknown type 77"},
      {"tokenizer.ggml.tokens", 8, huge, 8, "ends inside"},
      {"tokenizer.ggml.tokens", 8, 261, 8, "'<|im_end|>' has unknown type"},
      {"tokenizer.ggml.tokens", 16, UINT64_MAX, 8, "ends inside"},
      {"tokenizer.ggml.token_type", 4, FA_GGUF_FLOAT64, 4, "ends inside a metadata key"},
      {"tokenizer.ggml.token_type", 4, FA_GGUF_UINT32, 4, "array of UINT32"},
      {"tokenizer.ggml.token_type", 8, (uint64_t)1 << 62, 8, "ends inside"},
      {"tokenizer.ggml.merges", 24, 'h' | 'x' << 8, 2, "not two tokens"},
      {"tokenizer.ggml.merges", 24, 'h' | ' ' << 8 | 'q' << 16, 3, "not in the vocabulary"},
      {"tokenizer.ggml.pre", 12, 0x7a7a7a7a, 4, "'zzzzlm'"},
      {"tokenizer.ggml.model", 12, 0x7a7a7a7a, 4, "'zzzz'"},
      {"blk.0.attn_q.weight", 0, 0, 4, "0 dimensions"},
      {"blk.0.attn_q.weight", 0, 5, 4, "5 dimensions"},
      {"blk.0.attn_q.weight", 4, 0, 8, "size 0"},
      {"blk.0.attn_q.weight", 4, huge, 8, "has size 64 in dimension 1"},
      {"blk.0.attn_q.weight", 12, huge, 8, "size"},
      {"blk.0.attn_q.weight", 4, 33, 8, "multiple of 32"},
      {"blk.0.attn_q.weight", 20, 4, 4, "unknown type 4"},
      {"blk.0.attn_q.weight", 20, 0xffffffff, 4, "unknown type"},
      {"blk.0.attn_q.weight", 24, UINT64_MAX & ~(uint64_t)31, 8, "beyond the file"},
      {"blk.0.attn_q.weight", 24, 8, 8, "multiple of 32"},
      {"blk.0.attn_q.weight", 24, 0, 8, "overlap"},
      {"blk.1.ffn_down.weight", 24, (uint64_t)1 << 40, 8, "beyond the file"},
  };
  for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
    tiny t = {0};
    tiny_make(&t);
    uint8_t *at = (patches[i].name ? tiny_after(&t, patches[i].name) : t.bytes) + patches[i].at;
    memcpy(at, &patches[i].value, patches[i].bytes);
    if (read_whole(t.bytes, t.size) == FA_OK) fail_msg("patch %zu (%s) was accepted", i, patches[i].line);
    assert_line(patches[i].line);
    free(t.bytes);
  }
}

/* Names that end up twice, by changing one into another of the same length. */
static void test_twice(void **state) {
  (void)state;
  tiny t = {0};
  tiny_make(&t);
  memcpy(tiny_after(&t, "tokenizer.ggml.bos_token_id") - 12, "eos_token_id", 12);
  assert_int_equal(read_whole(t.bytes, t.size), FA_ERROR_ARGUMENT);
  assert_line("'tokenizer.ggml.eos_token_id' is there twice");
  free(t.bytes);
  tiny_make(&t);
  memcpy(tiny_after(&t, "blk.0.attn_q.weight") - 8, "k.weight", 8);
  assert_int_equal(read_whole(t.bytes, t.size), FA_ERROR_ARGUMENT);
  assert_line("'blk.0.attn_k.weight' is there twice");
  free(t.bytes);
}

static void test_missing(void **state) {
  (void)state;
  static const char *const needed[] = {
      "general.architecture",       "tokenizer.ggml.model",
      "tokenizer.ggml.tokens",      "tokenizer.ggml.merges",
      "llama.block_count",          "llama.embedding_length",
      "llama.feed_forward_length",  "llama.context_length",
      "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"};
  static const char *const optional[] = {"general.alignment", "tokenizer.ggml.token_type",
                                         "llama.rope.freq_base", "llama.rope.dimension_count",
                                         "tokenizer.chat_template"};
  for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
    tiny t = {.without_key = needed[i]};
    tiny_make(&t);
    assert_int_equal(read_whole(t.bytes, t.size), FA_ERROR_ARGUMENT);
    assert_line(needed[i]);
    assert_line("missing");
    free(t.bytes);
  }
  for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) {
    tiny t = {.without_key = optional[i]};
    tiny_make(&t);
    assert_int_equal(read_whole(t.bytes, t.size), FA_OK);
    free(t.bytes);
  }
  tiny_tensor list[32];
  const int count = tiny_tensors(list);
  for (int i = 0; i < count; i++) {
    tiny t = {.without_tensor = list[i].name};
    tiny_make(&t);
    assert_int_equal(run_whole(t.bytes, t.size), FA_ERROR_ARGUMENT);
    assert_line(list[i].name);
    assert_line("missing");
    free(t.bytes);
  }
}

static void test_wrong_tensors(void **state) {
  (void)state;
  const patch patches[] = {
      {"blk.1.attn_k.weight", 12, 31, 8, "'blk.1.attn_k.weight' is 31 x 64"},
      {"blk.1.attn_norm.weight", 4, 32, 8, "'blk.1.attn_norm.weight'"},
      {"token_embd.weight", 12, 261, 8, "embedding rows for 261"},
      {"blk.1.attn_output.weight", 20, 9, 4, "overlap"},
      {"blk.1.attn_k.weight", 20, 25, 4, "of type I16"},
      {"blk.1.ffn_up.weight", (size_t)-8, 0x2e736169622e7570, 8, "'blk.1.ffn_up.weight' is missing"},
      {"llama.block_count", 4, 1, 4, "'blk.1."},
      {"llama.block_count", 4, 3, 4, "'blk.2."},
      {"llama.feed_forward_length", 4, 255, 4, "255"},
      {"llama.embedding_length", 4, 1 << 20, 4, "4 query heads on 2 KV heads of 262144"},
  };
  for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
    tiny t = {0};
    tiny_make(&t);
    memcpy(tiny_after(&t, patches[i].name) + patches[i].at, &patches[i].value, patches[i].bytes);
    if (run_whole(t.bytes, t.size) == FA_OK) fail_msg("patch %zu (%s) was accepted", i, patches[i].line);
    assert_line(patches[i].line);
    free(t.bytes);
  }
}

/* Arrays in arrays: legal four deep, an error beyond, where they would come to eat the stack. */
static void test_nested_arrays(void **state) {
  (void)state;
  static const uint32_t depths[] = {1, 2, 4, 5, 6, 100000};
  for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++) {
    tiny t = {0};
    tiny_put(&t, "GGUF", 4);
    tiny_u32(&t, 3);
    tiny_u64(&t, 0);
    tiny_u64(&t, 1);
    tiny_string(&t, "nested");
    tiny_u32(&t, FA_GGUF_ARRAY);
    for (uint32_t i = 1; i < depths[d]; i++) {
      tiny_u32(&t, FA_GGUF_ARRAY);
      tiny_u64(&t, 1);
    }
    tiny_u32(&t, FA_GGUF_UINT8);
    tiny_u64(&t, 0);
    fa_gguf *gguf = NULL;
    const fa_status status = fa_gguf_open_memory(t.bytes, t.size, "nested.gguf", &gguf);
    assert_int_equal(status, depths[d] <= 4 ? FA_OK : FA_ERROR_ARGUMENT);
    if (status != FA_OK) assert_line("nests deeper than 4");
    fa_gguf_close(gguf);
    free(t.bytes);
  }
}

static void test_not_files(void **state) {
  (void)state;
  fa_gguf *gguf;
  assert_int_equal(fa_gguf_open("/nonexistent/model.gguf", &gguf), FA_ERROR_ARGUMENT);
  assert_line("No such file");
  assert_int_equal(fa_gguf_open("/tmp", &gguf), FA_ERROR_ARGUMENT);
  assert_line("not a regular file");
  assert_int_equal(fa_gguf_open("/dev/null", &gguf), FA_ERROR_ARGUMENT);
  assert_line("not a regular file");
  assert_int_equal(fa_gguf_open("", &gguf), FA_ERROR_ARGUMENT);
  assert_line("cannot open");
}

/* xorshift64: the cases are the same everywhere. */
static uint64_t next(uint64_t *random) {
  *random ^= *random << 13;
  *random ^= *random >> 7;
  *random ^= *random << 17;
  return *random;
}

static void mutate(tiny *t, uint64_t *random) {
  static const uint64_t edges[] = {
      0,          1,          0xff,       0x7fffffff, 0x80000000,         0xffffffff,
      1ull << 32, 1ull << 60, 1ull << 61, 1ull << 62, 0x7fffffffffffffff, UINT64_MAX};
  for (uint64_t n = next(random) % 4 + 1; n > 0; n--) {
    const size_t at = next(random) % (next(random) % 8 ? t->header : t->size);
    const size_t width = (size_t)1 << next(random) % 4;
    const uint64_t edge = edges[next(random) % (sizeof edges / sizeof edges[0])];
    switch (next(random) % 5) {
      case 0:
        t->bytes[at] = (uint8_t)(t->bytes[at] ^ 1u << next(random) % 8);
        break;
      case 1:
        t->bytes[at] = (uint8_t)next(random);
        break;
      case 2:
        if (at + width <= t->size) memcpy(t->bytes + at, &edge, width);
        break;
      case 3: { /* one part of the header over another */
        const size_t from = next(random) % t->header, length = next(random) % 64;
        if (at + length <= t->size && from + length <= t->size)
          memmove(t->bytes + at, t->bytes + from, length);
        break;
      }
      default:
        if (next(random) % 4 == 0) t->size = at + 1;
        if (t->header > t->size) t->header = t->size;
        break;
    }
  }
}

static void test_mutated(void **state) {
  (void)state;
  const bool longer = getenv("FA_TEST_LONG") != NULL;
  const int cases = longer ? 100000 : 4000;
  uint64_t random = 0x9e3779b97f4a7c15;
  int accepted = 0;
  for (int i = 0; i < cases; i++) {
    tiny t = {0};
    tiny_make(&t);
    mutate(&t, &random);
    const bool whole = i % 40 == 0;
    accepted += (whole ? run_whole(t.bytes, t.size) : read_whole(t.bytes, t.size)) == FA_OK;
    free(t.bytes);
  }
  print_message("%d of %d mutated files are still models\n", accepted, cases);
  assert_true(accepted > 0 && accepted < cases);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole),         cmocka_unit_test(test_truncated),
      cmocka_unit_test(test_patched),       cmocka_unit_test(test_twice),
      cmocka_unit_test(test_missing),       cmocka_unit_test(test_wrong_tensors),
      cmocka_unit_test(test_nested_arrays), cmocka_unit_test(test_not_files),
      cmocka_unit_test(test_mutated),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
