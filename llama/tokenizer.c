/* Text to tokens, whatever the kind of the tokenizer, and what can be asked about tokens. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "utf8.h"

fa_status fa_token_list_append(fa_token_list *list, int32_t id) {
  if (list->count == list->capacity) {
    const int64_t capacity = list->capacity ? 2 * list->capacity : 64;
    int32_t *ids = realloc(list->ids, (size_t)capacity * sizeof *ids);
    if (!ids) return fa_llama_out_of_memory("the tokens");
    list->ids = ids;
    list->capacity = capacity;
  }
  list->ids[list->count++] = id;
  return FA_OK;
}

void fa_token_list_free(fa_token_list *list) {
  free(list->ids);
  memset(list, 0, sizeof *list);
}

static fa_status encode_piece(void *user, const char *bytes, size_t length) {
  fa_encoder *encoder = user;
  return encoder->tokenizer->kind == FA_TOKENIZER_SCORES ? fa_encode_piece_spm(encoder, bytes, length)
                                                         : fa_encode_piece_bpe(encoder, bytes, length);
}

/* Text in which no token is matched any more. `first`: it is the beginning of the whole text. */
static fa_status encode_pieces(fa_encoder *encoder, const char *text, size_t length, bool first) {
  const fa_tokenizer *tokenizer = encoder->tokenizer;
  char *changed = NULL;
  fa_status status =
      fa_normalizer_apply(&tokenizer->piece_normalizer, text, length, first, &changed, &length);
  if (changed) text = changed;
  if (status == FA_OK && length > 0) {
    status = tokenizer->pretokenizer
                 ? fa_pretokenizer_split(tokenizer->pretokenizer, text, length, encode_piece, encoder)
                 : encode_piece(encoder, text, length);
  }
  free(changed);
  return status;
}

/* What lies between matches. */
typedef fa_status (*between_function)(fa_encoder *encoder, const char *text, size_t length, bool first);

/* A token's own rule may have it swallow the white space beside it. */
static size_t spaces_after(const char *text, size_t length) {
  size_t at = 0;
  for (size_t step; at < length; at += step) {
    uint32_t code;
    step = fa_utf8_decode(text + at, length - at, &code, NULL);
    if (!step || !fa_is_space(code)) break;
  }
  return at;
}

/* Bytes of text [begin, end) without the spaces at its end. */
static size_t without_spaces(const char *text, size_t begin, size_t end) {
  while (end > begin) {
    size_t start = end - 1;
    uint32_t code;
    while (start > begin && ((uint8_t)text[start] & 0xc0) == 0x80) start--;
    if (fa_utf8_decode(text + start, end - start, &code, NULL) != end - start || !fa_is_space(code)) break;
    end = start;
  }
  return end;
}

static fa_status split_at_tokens(fa_encoder *encoder, const fa_token_set *set, const char *text,
                                 size_t length, bool first, between_function between) {
  fa_status status = FA_OK;
  size_t begin = 0;
  for (size_t at = 0; set->count && at < length && status == FA_OK;) {
    const fa_token_match *match = fa_token_set_find(set, text + at, length - at, encoder->control);
    if (!match) {
      at++;
      continue;
    }
    const size_t end = match->takes_left ? without_spaces(text, begin, at) : at;
    if (end > begin) status = between(encoder, text + begin, end - begin, first && begin == 0);
    if (status == FA_OK) status = fa_token_list_append(encoder->list, match->id);
    at += match->name.length;
    if (match->takes_right) at += spaces_after(text + at, length - at);
    begin = at;
  }
  if (begin < length && status == FA_OK)
    status = between(encoder, text + begin, length - begin, first && begin == 0);
  return status;
}

static fa_status encode_normalized(fa_encoder *encoder, const char *text, size_t length, bool first) {
  const fa_tokenizer *tokenizer = encoder->tokenizer;
  char *changed = NULL;
  fa_status status = fa_normalizer_apply(&tokenizer->normalizer, text, length, first, &changed, &length);
  if (status == FA_OK && length > 0) {
    status = split_at_tokens(encoder, &tokenizer->matched_normalized, changed ? changed : text, length, first,
                             encode_pieces);
  }
  free(changed);
  return status;
}

/* Runs of valid UTF-8 and replacement characters make one text. */
static fa_status encode_between(fa_encoder *encoder, const char *text, size_t length, bool first) {
  size_t at = 0, step = 1;
  uint32_t code;
  while (at < length && (step = fa_utf8_decode(text + at, length - at, &code, NULL)) > 0) at += step;
  if (at == length) return encode_normalized(encoder, text, length, first);
  char *repaired = length < SIZE_MAX / 4 ? malloc(3 * length + 1) : NULL;
  if (!repaired) return fa_llama_out_of_memory("the text");
  const size_t repaired_length = fa_utf8_repair(text, length, repaired);
  const fa_status status = encode_normalized(encoder, repaired, repaired_length, first);
  free(repaired);
  return status;
}

fa_status fa_tokenizer_encode_part(const fa_tokenizer *tokenizer, const char *text, size_t length,
                                   unsigned how, bool first, fa_token_list *list) {
  fa_encoder encoder = {.tokenizer = tokenizer, .list = list, .control = (how & FA_ENCODE_SPECIAL) != 0};
  fa_status status = FA_OK;
  if ((how & FA_ENCODE_BOS) && tokenizer->add_bos) status = fa_token_list_append(list, tokenizer->bos);
  if (status == FA_OK)
    status = split_at_tokens(&encoder, &tokenizer->matched, text, length, first, encode_between);
  if (status == FA_OK && (how & FA_ENCODE_EOS) && tokenizer->add_eos) {
    status = fa_token_list_append(list, tokenizer->eos);
  }
  fa_merger_release(&encoder.merger);
  return status;
}

fa_status fa_tokenizer_encode(const fa_tokenizer *tokenizer, const char *text, size_t length, unsigned how,
                              fa_token_list *list) {
  return fa_tokenizer_encode_part(tokenizer, text, length, how, true, list);
}

void fa_tokenizer_add_end(fa_tokenizer *tokenizer, int32_t id) {
  if (id < 0 || fa_tokenizer_is_end(tokenizer, id)) return;
  if (tokenizer->end_count < (int)(sizeof tokenizer->ends / sizeof tokenizer->ends[0])) {
    tokenizer->ends[tokenizer->end_count++] = id;
  }
}

void fa_tokenizer_add_known_ends(fa_tokenizer *tokenizer) {
  static const char *const names[] = {"<|im_end|>",    "<|eot_id|>",      "<|eom_id|>",
                                      "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const int32_t id = fa_vocabulary_id(&tokenizer->vocabulary, names[i], strlen(names[i]));
    if (id >= 0 && fa_tokenizer_is_control(tokenizer, id)) fa_tokenizer_add_end(tokenizer, id);
  }
}

void fa_tokenizer_free(fa_tokenizer *tokenizer) {
  if (!tokenizer) return;
  fa_vocabulary_unload(&tokenizer->vocabulary);
  fa_token_set_release(&tokenizer->matched);
  fa_token_set_release(&tokenizer->matched_normalized);
  fa_normalizer_release(&tokenizer->normalizer);
  fa_normalizer_release(&tokenizer->piece_normalizer);
  fa_pretokenizer_free(tokenizer->pretokenizer);
  free(tokenizer->owned_template);
  free(tokenizer);
}

static const fa_token *token_of(const fa_tokenizer *tokenizer, int32_t id) {
  return id >= 0 && id < tokenizer->vocabulary.count ? &tokenizer->vocabulary.tokens[id] : NULL;
}

const char *fa_tokenizer_piece(const fa_tokenizer *tokenizer, int32_t id, size_t *length) {
  const fa_token *token = token_of(tokenizer, id);
  *length = token ? token->bytes.length : 0;
  return token ? token->bytes.bytes : NULL;
}

int64_t fa_tokenizer_count(const fa_tokenizer *tokenizer) { return tokenizer->vocabulary.count; }

bool fa_tokenizer_is_control(const fa_tokenizer *tokenizer, int32_t id) {
  const fa_token *token = token_of(tokenizer, id);
  return token && token->type == FA_TOKEN_CONTROL;
}

bool fa_tokenizer_is_end(const fa_tokenizer *tokenizer, int32_t id) {
  for (int i = 0; i < tokenizer->end_count; i++) {
    if (tokenizer->ends[i] == id) return true;
  }
  return false;
}

bool fa_tokenizer_has_chat_template(const fa_tokenizer *tokenizer) {
  return tokenizer->chat_template.length > 0;
}
