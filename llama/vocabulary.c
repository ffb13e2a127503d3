#include "vocabulary.h"

#include <stdio.h>
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
  if (length > vocabulary->longest) return -1;
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

fa_status fa_vocabulary_begin(fa_vocabulary *vocabulary, int64_t count) {
  const uint64_t size = table_size((uint64_t)count);
  vocabulary->count = count;
  vocabulary->ids_mask = size - 1;
  vocabulary->tokens = calloc((size_t)count, sizeof *vocabulary->tokens);
  vocabulary->ids = malloc(size * sizeof *vocabulary->ids);
  if (!vocabulary->tokens || !vocabulary->ids) return fa_llama_out_of_memory("the vocabulary");
  for (uint64_t i = 0; i < size; i++) vocabulary->ids[i] = -1;
  for (int64_t id = 0; id < count; id++) {
    vocabulary->tokens[id] = (fa_token){{"", 0}, {"", 0}, FA_TOKEN_UNUSED};
  }
  return FA_OK;
}

bool fa_vocabulary_put(fa_vocabulary *vocabulary, int32_t id, fa_gguf_string name, fa_token_type type) {
  vocabulary->tokens[id] = (fa_token){name, {"", 0}, type};
  if (name.length == 0) return true;
  if (fa_vocabulary_id(vocabulary, name.bytes, name.length) >= 0) return false;
  uint64_t at = hash_bytes(name.bytes, name.length);
  while (vocabulary->ids[at & vocabulary->ids_mask] >= 0) at++;
  vocabulary->ids[at & vocabulary->ids_mask] = id;
  if (name.length > vocabulary->longest) vocabulary->longest = name.length;
  return true;
}

/* Writes what a name of the alphabet stands for; never more bytes than the name has. */
static char *spell_alphabet(const int *bytes_of, fa_gguf_string name, char *out) {
  for (size_t at = 0; at < name.length;) {
    uint32_t code;
    size_t invalid;
    const size_t step = fa_utf8_decode(name.bytes + at, name.length - at, &code, &invalid);
    if (step && code < 0x144 && bytes_of[code] >= 0) {
      *out++ = (char)bytes_of[code];
    } else {
      memcpy(out, name.bytes + at, step ? step : invalid);
      out += step ? step : invalid;
    }
    at += step ? step : invalid;
  }
  return out;
}

static char *spell_text(fa_gguf_string name, char *out) {
  for (size_t at = 0; at < name.length;) {
    if (name.length - at >= 3 && memcmp(name.bytes + at, "\xe2\x96\x81", 3) == 0) {
      *out++ = ' ';
      at += 3;
    } else {
      *out++ = name.bytes[at++];
    }
  }
  return out;
}

fa_status fa_vocabulary_spell(fa_vocabulary *vocabulary, fa_spelling spelling) {
  int bytes_of[0x144];
  for (size_t c = 0; c < sizeof bytes_of / sizeof bytes_of[0]; c++) bytes_of[c] = -1;
  for (int b = 0; b < 256; b++) {
    char name[8];
    const uint32_t code = fa_byte_alphabet((uint8_t)b);
    bytes_of[code] = b;
    const size_t length = spelling == FA_SPELLING_ALPHABET
                              ? fa_utf8_encode(code, name)
                              : (size_t)snprintf(name, sizeof name, "<0x%02X>", b);
    vocabulary->byte_ids[b] = fa_vocabulary_id(vocabulary, name, length);
  }
  size_t total = 1;
  for (int64_t id = 0; id < vocabulary->count; id++) total += vocabulary->tokens[id].name.length;
  char *out = vocabulary->arena = malloc(total);
  if (!out) return fa_llama_out_of_memory("the vocabulary");
  for (int64_t id = 0; id < vocabulary->count; id++) {
    fa_token *token = &vocabulary->tokens[id];
    const bool as_written = token->type == FA_TOKEN_CONTROL || token->type == FA_TOKEN_USER_DEFINED;
    token->bytes.bytes = out;
    if (spelling == FA_SPELLING_TEXT) {
      out = spell_text(token->name, out);
    } else if (as_written) {
      if (token->name.length) memcpy(out, token->name.bytes, token->name.length);
      out += token->name.length;
    } else {
      out = spell_alphabet(bytes_of, token->name, out);
    }
    token->bytes.length = (size_t)(out - token->bytes.bytes);
  }
  for (int b = 0; b < 256 && spelling == FA_SPELLING_TEXT; b++) {
    const int32_t id = vocabulary->byte_ids[b];
    if (id < 0 || vocabulary->tokens[id].type != FA_TOKEN_BYTE) continue;
    *(char *)(uintptr_t)vocabulary->tokens[id].bytes.bytes = (char)b; /* in the arena */
    vocabulary->tokens[id].bytes.length = 1;
  }
  return FA_OK;
}

fa_status fa_vocabulary_begin_merges(fa_vocabulary *vocabulary, uint64_t count) {
  const uint64_t size = table_size(count);
  vocabulary->merges_mask = size - 1;
  vocabulary->merges = malloc(size * sizeof *vocabulary->merges);
  if (!vocabulary->merges) return fa_llama_out_of_memory("the merges");
  for (uint64_t i = 0; i < size; i++) vocabulary->merges[i].pair = UINT64_MAX;
  return FA_OK;
}

void fa_vocabulary_add_merge(fa_vocabulary *vocabulary, int32_t left, int32_t right, int32_t rank,
                             int32_t result, bool last_stands) {
  const fa_bpe_merge merge = {(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, result};
  for (uint64_t at = hash_pair(merge.pair);; at++) {
    fa_bpe_merge *slot = &vocabulary->merges[at & vocabulary->merges_mask];
    if (slot->pair != UINT64_MAX && slot->pair != merge.pair) continue;
    if (slot->pair == UINT64_MAX || last_stands) *slot = merge;
    return;
  }
}

void fa_vocabulary_unload(fa_vocabulary *vocabulary) {
  free(vocabulary->tokens);
  free(vocabulary->names);
  free(vocabulary->arena);
  free(vocabulary->ids);
  free(vocabulary->merges);
  free(vocabulary->ranks);
  memset(vocabulary, 0, sizeof *vocabulary);
}
