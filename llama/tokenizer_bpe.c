/* Byte-pair encoding of one piece: its bytes or characters, and then the pair of neighbours with the lowest
 * merge rank joined until none is left. */
#include <string.h>

#include "tokenizer.h"
#include "utf8.h"

static bool join(void *user, const fa_symbol *left, const fa_symbol *right, int32_t *rank, int32_t *id) {
  const fa_encoder *encoder = user;
  const fa_bpe_merge *merge = fa_vocabulary_merge(&encoder->tokenizer->vocabulary, left->id, right->id);
  if (!merge) return false;
  *rank = merge->rank;
  *id = merge->result;
  return true;
}

/* The token the piece is as it stands, or -1. Control tokens are not made of text. */
static int32_t whole_token(const fa_tokenizer *tokenizer, const char *bytes, size_t length) {
  char name[512];
  if (tokenizer->kind == FA_TOKENIZER_BYTES) {
    size_t written = 0;
    if (length > sizeof name / 2) return -1;
    for (size_t i = 0; i < length; i++)
      written += fa_utf8_encode(fa_byte_alphabet((uint8_t)bytes[i]), name + written);
    bytes = name;
    length = written;
  }
  const int32_t id = fa_vocabulary_id(&tokenizer->vocabulary, bytes, length);
  return id >= 0 && !fa_tokenizer_is_control(tokenizer, id) ? id : -1;
}

/* What has no token becomes the unknown token, a run of it one only where they are fused. */
static void add_unknown(fa_encoder *encoder, int32_t begin, int32_t length) {
  const fa_tokenizer *tokenizer = encoder->tokenizer;
  fa_merger *merger = &encoder->merger;
  if (tokenizer->unknown < 0) return;
  fa_symbol *last = merger->count ? &merger->symbols[merger->count - 1] : NULL;
  if (tokenizer->fuse_unknown && last && last->id == tokenizer->unknown &&
      last->begin + last->length == begin)
    last->length += length;
  else
    fa_merger_add(merger, tokenizer->unknown, begin, length);
}

/* Whether the vocabulary has all bytes of a character. */
static bool has_bytes(const fa_vocabulary *vocabulary, const char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (vocabulary->byte_ids[(uint8_t)bytes[i]] < 0) return false;
  }
  return true;
}

static void add_characters(fa_encoder *encoder, const char *bytes, size_t length) {
  const fa_vocabulary *vocabulary = &encoder->tokenizer->vocabulary;
  for (size_t at = 0, step; at < length; at += step) {
    uint32_t code;
    step = fa_utf8_decode(bytes + at, length - at, &code, NULL);
    if (!step) step = 1; /* the text is valid */
    const int32_t id = fa_vocabulary_id(vocabulary, bytes + at, step);
    if (id >= 0) {
      fa_merger_add(&encoder->merger, id, (int32_t)at, (int32_t)step);
    } else if (has_bytes(vocabulary, bytes + at, step)) {
      for (size_t i = at; i < at + step; i++) {
        fa_merger_add(&encoder->merger, vocabulary->byte_ids[(uint8_t)bytes[i]], (int32_t)i, 1);
      }
    } else {
      add_unknown(encoder, (int32_t)at, (int32_t)step);
    }
  }
}

fa_status fa_encode_piece_bpe(fa_encoder *encoder, const char *bytes, size_t length) {
  const fa_tokenizer *tokenizer = encoder->tokenizer;
  if (tokenizer->whole_tokens) {
    const int32_t id = whole_token(tokenizer, bytes, length);
    if (id >= 0) return fa_token_list_append(encoder->list, id);
  }
  fa_status status = fa_merger_begin(&encoder->merger, length);
  if (status != FA_OK) return status;
  if (tokenizer->kind == FA_TOKENIZER_CHARACTERS) {
    add_characters(encoder, bytes, length);
  } else {
    for (size_t i = 0; i < length; i++) {
      const int32_t id = tokenizer->vocabulary.byte_ids[(uint8_t)bytes[i]];
      if (id >= 0)
        fa_merger_add(&encoder->merger, id, (int32_t)i, 1);
      else
        add_unknown(encoder, (int32_t)i, 1);
    }
  }
  fa_merger_join(&encoder->merger, join, encoder);
  const fa_merger *merger = &encoder->merger;
  for (int32_t i = merger->count ? 0 : -1; i >= 0 && status == FA_OK; i = merger->symbols[i].next) {
    status = fa_token_list_append(encoder->list, merger->symbols[i].id);
  }
  return status;
}
