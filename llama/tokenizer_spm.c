/* SentencePiece's BPE of one piece: its characters, and then the neighbours that together are the token of
 * the best score joined until none is left. What is then no token is spelt in byte tokens. */
#include "tokenizer.h"
#include "utf8.h"

/* The token of these bytes that text may become; -1: none. */
static int32_t text_token(const fa_vocabulary *vocabulary, const char *bytes, size_t length) {
  const int32_t id = fa_vocabulary_id(vocabulary, bytes, length);
  if (id < 0) return -1;
  const fa_token_type type = vocabulary->tokens[id].type;
  return type == FA_TOKEN_NORMAL || type == FA_TOKEN_USER_DEFINED || type == FA_TOKEN_UNUSED ? id : -1;
}

static bool join(void *user, const fa_symbol *left, const fa_symbol *right, int32_t *rank, int32_t *id) {
  const fa_encoder *encoder = user;
  const fa_vocabulary *vocabulary = &encoder->tokenizer->vocabulary;
  *id = text_token(vocabulary, encoder->piece + left->begin, (size_t)left->length + (size_t)right->length);
  if (*id < 0) return false;
  *rank = vocabulary->ranks[*id];
  return true;
}

static fa_status append_bytes(fa_encoder *encoder, const fa_symbol *symbol) {
  const fa_tokenizer *tokenizer = encoder->tokenizer;
  const int32_t *byte_ids = tokenizer->vocabulary.byte_ids;
  fa_status status = FA_OK;
  for (int32_t i = 0; i < symbol->length && status == FA_OK; i++) {
    const int32_t id = byte_ids[(uint8_t)encoder->piece[symbol->begin + i]];
    if (id >= 0) {
      status = fa_token_list_append(encoder->list, id);
    } else if (tokenizer->unknown >= 0) {
      return fa_token_list_append(encoder->list, tokenizer->unknown);
    }
  }
  return status;
}

fa_status fa_encode_piece_spm(fa_encoder *encoder, const char *bytes, size_t length) {
  fa_merger *merger = &encoder->merger;
  fa_status status = fa_merger_begin(merger, length);
  if (status != FA_OK) return status;
  encoder->piece = bytes;
  for (size_t at = 0, step; at < length; at += step) {
    uint32_t code;
    step = fa_utf8_decode(bytes + at, length - at, &code, NULL);
    if (!step) step = 1; /* the text is valid */
    const int32_t id = text_token(&encoder->tokenizer->vocabulary, bytes + at, step);
    fa_merger_add(merger, id, (int32_t)at, (int32_t)step);
  }
  fa_merger_join(merger, join, encoder);
  for (int32_t i = merger->count ? 0 : -1; i >= 0 && status == FA_OK; i = merger->symbols[i].next) {
    const fa_symbol *symbol = &merger->symbols[i];
    status =
        symbol->id >= 0 ? fa_token_list_append(encoder->list, symbol->id) : append_bytes(encoder, symbol);
  }
  return status;
}
