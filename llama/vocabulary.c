#include "vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "utf8.h"

/* Printable Latin-1 stands for itself; the other 68 bytes are counted up from U+0100. */
static bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

uint32_t fa_byte_alphabet(uint8_t byte) {
  if (stands_for_itself(byte)) return byte;
  uint32_t code = 0x100;
  for (uint32_t b = 0; b < byte; b++) code += !stands_for_itself(b);
  return code;
}

/* FNV-1a. */
static uint64_t hash_bytes(const char *bytes, size_t length) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
  return hash ^ hash >> 32;
}

static uint64_t hash_pair(uint64_t pair) {
  pair *= 0x9e3779b97f4a7c15u;
  return pair ^ pair >> 32;
}

static uint64_t table_size(uint64_t entries) {
  uint64_t size = 16;
  while (size < 2 * entries) size *= 2;
  return size;
}

int32_t fa_vocabulary_id(const fa_vocabulary *vocabulary, const char *name, size_t length) {
  for (uint64_t at = hash_bytes(name, length);; at++) {
    const int32_t id = vocabulary->ids[at & vocabulary->ids_mask];
    if (id < 0) return -1;
    const fa_gguf_string held = vocabulary->tokens[id].name;
    if (held.length == length && memcmp(held.bytes, name, length) == 0) return id;
  }
}

const fa_bpe_merge *fa_vocabulary_merge(const fa_vocabulary *vocabulary, int32_t left, int32_t right) {
  const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  for (uint64_t at = hash_pair(pair);; at++) {
    const fa_bpe_merge *merge = &vocabulary->merges[at & vocabulary->merges_mask];
    if (merge->pair == pair) return merge;
    if (merge->pair == UINT64_MAX) return NULL;
  }
}

static fa_status load_names(const fa_gguf *gguf, fa_vocabulary *vocabulary) {
  fa_gguf_array names, types;
  fa_status status = fa_gguf_list(gguf, "tokenizer.ggml.tokens", true, FA_GGUF_STRING, &names);
  if (status != FA_OK) return status;
  status = fa_gguf_list(gguf, "tokenizer.ggml.token_type", false, FA_GGUF_INT32, &types);
  if (status != FA_OK) return status;
  if (names.count < 1 || names.count > (uint64_t)1 << 24) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %llu tokens in the vocabulary; 1 .. 16777216 are allowed",
                         fa_gguf_name(gguf), (unsigned long long)names.count);
  }
  if (types.values && types.count != names.count) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %llu token types for %llu tokens; there must be as many",
                         fa_gguf_name(gguf), (unsigned long long)types.count,
                         (unsigned long long)names.count);
  }
  vocabulary->count = (int64_t)names.count;
  const uint64_t size = table_size(names.count);
  vocabulary->ids_mask = size - 1;
  vocabulary->tokens = calloc(names.count, sizeof *vocabulary->tokens);
  vocabulary->ids = malloc(size * sizeof *vocabulary->ids);
  if (!vocabulary->tokens || !vocabulary->ids) return fa_llama_out_of_memory("the vocabulary");
  for (uint64_t i = 0; i < size; i++) vocabulary->ids[i] = -1;
  const uint8_t *cursor = names.values;
  for (int32_t id = 0; id < vocabulary->count; id++) {
    fa_token *token = &vocabulary->tokens[id];
    token->name = fa_gguf_next_string(&cursor);
    const int64_t type = types.values ? fa_gguf_array_integer(&types, (uint64_t)id) : FA_TOKEN_NORMAL;
    token->type = type >= FA_TOKEN_NORMAL && type <= FA_TOKEN_BYTE ? (fa_token_type)type : FA_TOKEN_NORMAL;
    if (fa_vocabulary_id(vocabulary, token->name.bytes, token->name.length) >= 0) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: token %d is in the vocabulary twice", fa_gguf_name(gguf),
                           id);
    }
    uint64_t at = hash_bytes(token->name.bytes, token->name.length);
    while (vocabulary->ids[at & vocabulary->ids_mask] >= 0) at++;
    vocabulary->ids[at & vocabulary->ids_mask] = id;
  }
  return FA_OK;
}

/* Fills token.bytes and byte_ids. A name's bytes are never more than its characters' own. */
static fa_status load_bytes(fa_vocabulary *vocabulary) {
  int bytes_of[0x144];
  for (size_t c = 0; c < sizeof bytes_of / sizeof bytes_of[0]; c++) bytes_of[c] = -1;
  for (int b = 0; b < 256; b++) {
    char name[4];
    const uint32_t code = fa_byte_alphabet((uint8_t)b);
    bytes_of[code] = b;
    vocabulary->byte_ids[b] = fa_vocabulary_id(vocabulary, name, fa_utf8_encode(code, name));
  }
  size_t total = 1;
  for (int64_t id = 0; id < vocabulary->count; id++) total += vocabulary->tokens[id].name.length;
  char *out = vocabulary->arena = malloc(total);
  if (!out) return fa_llama_out_of_memory("the vocabulary");
  for (int64_t id = 0; id < vocabulary->count; id++) {
    fa_token *token = &vocabulary->tokens[id];
    const bool as_written = token->type == FA_TOKEN_CONTROL || token->type == FA_TOKEN_USER_DEFINED;
    token->bytes.bytes = out;
    for (size_t at = 0; at < token->name.length;) {
      uint32_t code;
      size_t invalid;
      const size_t step = fa_utf8_decode(token->name.bytes + at, token->name.length - at, &code, &invalid);
      if (!as_written && step && code < 0x144 && bytes_of[code] >= 0) {
        *out++ = (char)bytes_of[code];
      } else {
        memcpy(out, token->name.bytes + at, step ? step : invalid);
        out += step ? step : invalid;
      }
      at += step ? step : invalid;
    }
    token->bytes.length = (size_t)(out - token->bytes.bytes);
  }
  return FA_OK;
}

static fa_status load_merges(const fa_gguf *gguf, fa_vocabulary *vocabulary) {
  fa_gguf_array lines;
  char joined[1024];
  const fa_status status = fa_gguf_list(gguf, "tokenizer.ggml.merges", true, FA_GGUF_STRING, &lines);
  if (status != FA_OK) return status;
  if (lines.count > (uint64_t)1 << 24) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %llu merges; up to 16777216 are allowed", fa_gguf_name(gguf),
                         (unsigned long long)lines.count);
  }
  const uint64_t size = table_size(lines.count);
  vocabulary->merges_mask = size - 1;
  vocabulary->merges = malloc(size * sizeof *vocabulary->merges);
  if (!vocabulary->merges) return fa_llama_out_of_memory("the merges");
  for (uint64_t i = 0; i < size; i++) vocabulary->merges[i].pair = UINT64_MAX;
  const uint8_t *cursor = lines.values;
  for (int32_t rank = 0; (uint64_t)rank < lines.count; rank++) {
    const fa_gguf_string line = fa_gguf_next_string(&cursor);
    /* "left right"; neither holds a space, except that a first character may be one. */
    const char *space =
        line.length > 2 && line.length <= sizeof joined ? memchr(line.bytes + 1, ' ', line.length - 1) : NULL;
    if (!space) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: merge %d is not two tokens with a space between",
                           fa_gguf_name(gguf), rank);
    }
    const size_t left_length = (size_t)(space - line.bytes), right_length = line.length - left_length - 1;
    memcpy(joined, line.bytes, left_length);
    memcpy(joined + left_length, space + 1, right_length);
    const int32_t left = fa_vocabulary_id(vocabulary, line.bytes, left_length);
    const int32_t right = fa_vocabulary_id(vocabulary, space + 1, right_length);
    const int32_t result = fa_vocabulary_id(vocabulary, joined, left_length + right_length);
    if (left < 0 || right < 0 || result < 0) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: merge %d names a token that is not in the vocabulary",
                           fa_gguf_name(gguf), rank);
    }
    if (fa_vocabulary_merge(vocabulary, left, right)) continue; /* the earlier, better rank stands */
    const fa_bpe_merge merge = {(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, result};
    uint64_t at = hash_pair(merge.pair);
    while (vocabulary->merges[at & vocabulary->merges_mask].pair != UINT64_MAX) at++;
    vocabulary->merges[at & vocabulary->merges_mask] = merge;
  }
  return FA_OK;
}

fa_status fa_vocabulary_load(const fa_gguf *gguf, fa_vocabulary *vocabulary) {
  memset(vocabulary, 0, sizeof *vocabulary);
  fa_status status = load_names(gguf, vocabulary);
  if (status == FA_OK) status = load_bytes(vocabulary);
  if (status == FA_OK) status = load_merges(gguf, vocabulary);
  if (status != FA_OK) fa_vocabulary_unload(vocabulary);
  return status;
}

void fa_vocabulary_unload(fa_vocabulary *vocabulary) {
  free(vocabulary->tokens);
  free(vocabulary->arena);
  free(vocabulary->ids);
  free(vocabulary->merges);
  memset(vocabulary, 0, sizeof *vocabulary);
}
