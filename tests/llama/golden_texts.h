/* The texts the tokenizers are tried on, those of goldens/tokenizer_smollm.bin, and what a golden file says
 * of one. */
#ifndef FA_TESTS_GOLDEN_TEXTS_H
#define FA_TESTS_GOLDEN_TEXTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "llama.h"

static inline uint32_t golden_u16(const unsigned char *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static inline uint32_t golden_u32(const unsigned char *at) {
  return golden_u16(at) | golden_u16(at + 2) << 16;
}

/* Tests run in the root of the tree. Free the result. */
static inline unsigned char *golden_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) fail_msg("no %s", path);
  *size = (size_t)ftell(file);
  rewind(file);
  unsigned char *bytes = malloc(*size + 1);
  if (!bytes || fread(bytes, 1, *size, file) != *size) fail_msg("cannot read %s", path);
  bytes[*size] = 0;
  fclose(file);
  return bytes;
}

typedef struct golden_text {
  const char *bytes;
  size_t length;
} golden_text;

/* Those of the file `smollm`, then `extra` ones, each u32 bytes and the text, at *at, which is moved on. */
static inline golden_text *golden_texts(const unsigned char *smollm, uint32_t extra, const unsigned char **at,
                                        uint32_t *count) {
  const uint32_t held = golden_u32(smollm + 4);
  golden_text *texts = malloc((held + extra) * sizeof *texts);
  assert_non_null(texts);
  const unsigned char *cursor = smollm + 8;
  for (uint32_t i = 0; i < held; i++) {
    texts[i] = (golden_text){(const char *)cursor + 2, golden_u16(cursor)};
    cursor += 2 + texts[i].length;
    cursor += 2 + 2 * golden_u16(cursor) + 12;
  }
  for (uint32_t i = held; i < held + extra; i++) {
    texts[i] = (golden_text){(const char *)*at + 4, golden_u32(*at)};
    *at += 4 + texts[i].length;
  }
  *count = held + extra;
  return texts;
}

static inline uint32_t golden_hash(const fa_token_list *list) {
  uint32_t hash = 0x811c9dc5u;
  for (int64_t i = 0; i < list->count; i++) {
    for (int b = 0; b < 4; b++) hash = (hash ^ ((uint32_t)list->ids[i] >> (8 * b) & 0xffu)) * 0x01000193u;
  }
  return hash;
}

/* u32 tokens, u32 hash of them; 0xffffffff tokens: nothing is said. */
static inline void assert_golden_tokens(const fa_tokenizer *tokenizer, golden_text text, unsigned how,
                                        const unsigned char *golden, const char *name) {
  fa_token_list list = FA_TOKEN_LIST_INIT;
  if (golden_u32(golden) == UINT32_MAX) return;
  if (fa_tokenizer_encode(tokenizer, text.bytes, text.length, how, &list) != FA_OK)
    fail_msg("%s: %s", name, fa_llama_last_error());
  if (list.count != golden_u32(golden) || golden_hash(&list) != golden_u32(golden + 4)) {
    for (int64_t i = 0; i < list.count && i < 64; i++) fprintf(stderr, " %d", list.ids[i]);
    fail_msg("%s: the tokens of '%.*s' (%zu bytes; above the first of %lld) are not the reference's %u", name,
             text.length < 200 ? (int)text.length : 200, text.bytes, text.length, (long long)list.count,
             golden_u32(golden));
  }
  fa_token_list_free(&list);
}

#endif
