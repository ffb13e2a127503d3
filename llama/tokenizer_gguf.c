/* The tokenizer of a GGUF file: "gpt2" (byte-level BPE) and "llama" (SentencePiece). */
#include <stdlib.h>

#include "llama_error.h"
#include "tokenizer.h"

/* Control tokens where they are asked for, user-defined ones always. */
static fa_status load_matches(fa_tokenizer *tokenizer) {
  fa_status status = FA_OK;
  for (int32_t id = 0; id < tokenizer->vocabulary.count && status == FA_OK; id++) {
    const fa_token *token = &tokenizer->vocabulary.tokens[id];
    const bool control = token->type == FA_TOKEN_CONTROL || token->type == FA_TOKEN_UNKNOWN;
    if (token->name.length == 0 || (!control && token->type != FA_TOKEN_USER_DEFINED)) continue;
    status = fa_token_set_add(&tokenizer->matched,
                              (fa_token_match){.name = token->name, .id = id, .control = control});
  }
  fa_token_set_ready(&tokenizer->matched);
  return status;
}

static fa_status read_id(const fa_gguf *gguf, const fa_tokenizer *tokenizer, const char *key, int32_t *id) {
  int64_t value = *id;
  const fa_status status = fa_gguf_integer(gguf, key, false, 0, tokenizer->vocabulary.count - 1, &value);
  *id = (int32_t)value;
  return status;
}

static fa_status load_ends(const fa_gguf *gguf, fa_tokenizer *tokenizer) {
  int32_t turn = -1;
  fa_status status = read_id(gguf, tokenizer, "tokenizer.ggml.bos_token_id", &tokenizer->bos);
  if (status == FA_OK) status = read_id(gguf, tokenizer, "tokenizer.ggml.eos_token_id", &tokenizer->eos);
  if (status == FA_OK) status = read_id(gguf, tokenizer, "tokenizer.ggml.eot_token_id", &turn);
  /* What readers of these files take for granted where nothing is said. */
  if (tokenizer->kind == FA_TOKENIZER_SCORES || tokenizer->whole_tokens)
    tokenizer->add_bos = tokenizer->bos >= 0;
  if (status == FA_OK) status = fa_gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &tokenizer->add_bos);
  if (status == FA_OK) status = fa_gguf_bool(gguf, "tokenizer.ggml.add_eos_token", &tokenizer->add_eos);
  if (status != FA_OK) return status;
  fa_tokenizer_add_end(tokenizer, tokenizer->eos);
  fa_tokenizer_add_end(tokenizer, turn);
  fa_tokenizer_add_known_ends(tokenizer);
  if ((tokenizer->add_bos && tokenizer->bos < 0) || (tokenizer->add_eos && tokenizer->eos < 0)) {
    const char *name = tokenizer->add_bos && tokenizer->bos < 0 ? "bos" : "eos";
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: add_%s_token is set but %s_token_id is missing",
                         fa_gguf_name(gguf), name, name);
  }
  return FA_OK;
}

static fa_status load_bytes(const fa_gguf *gguf, fa_tokenizer *tokenizer) {
  fa_gguf_string pre = {"default", 7};
  fa_status status = fa_gguf_text(gguf, "tokenizer.ggml.pre", false, &pre);
  if (status == FA_OK) status = fa_pretokenizer_create(pre, &tokenizer->pretokenizer);
  if (status != FA_OK) return status;
  tokenizer->whole_tokens = fa_pretokenizer_whole_tokens(tokenizer->pretokenizer);
  return fa_vocabulary_load(gguf, FA_SPELLING_ALPHABET, &tokenizer->vocabulary);
}

static fa_status load_scores(const fa_gguf *gguf, fa_tokenizer *tokenizer) {
  bool prefix = true;
  fa_status status = fa_gguf_bool(gguf, "tokenizer.ggml.add_space_prefix", &prefix);
  if (status == FA_OK && prefix)
    status = fa_normalizer_add(&tokenizer->normalizer, FA_NORMAL_PREPEND, NULL, " ");
  if (status == FA_OK)
    status = fa_normalizer_add(&tokenizer->normalizer, FA_NORMAL_REPLACE, " ", "\xe2\x96\x81");
  if (status == FA_OK) status = fa_vocabulary_load(gguf, FA_SPELLING_TEXT, &tokenizer->vocabulary);
  if (status != FA_OK) return status;
  tokenizer->kind = FA_TOKENIZER_SCORES;
  tokenizer->unknown = 0;
  status = read_id(gguf, tokenizer, "tokenizer.ggml.unknown_token_id", &tokenizer->unknown);
  return status;
}

static fa_status load(const fa_gguf *gguf, fa_tokenizer *tokenizer) {
  fa_gguf_string model;
  fa_status status = fa_gguf_text(gguf, "tokenizer.ggml.model", true, &model);
  if (status != FA_OK) return status;
  tokenizer->bos = tokenizer->eos = tokenizer->unknown = -1;
  if (fa_gguf_string_is(model, "gpt2")) {
    status = load_bytes(gguf, tokenizer);
  } else if (fa_gguf_string_is(model, "llama")) {
    status = load_scores(gguf, tokenizer);
  } else {
    status = fa_llama_fail(
        FA_ERROR_UNSUPPORTED,
        "%s: tokenizer.ggml.model is '%.*s'; read here: gpt2 (byte-level BPE), llama (SentencePiece)",
        fa_gguf_name(gguf), model.length < 100 ? (int)model.length : 100, model.bytes);
  }
  if (status == FA_OK) status = load_matches(tokenizer);
  if (status == FA_OK) status = load_ends(gguf, tokenizer);
  if (status == FA_OK)
    status = fa_gguf_text(gguf, "tokenizer.chat_template", false, &tokenizer->chat_template);
  return status;
}

fa_status fa_tokenizer_create(const fa_gguf *gguf, fa_tokenizer **result) {
  fa_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
  if (!tokenizer) return fa_llama_out_of_memory("the tokenizer");
  const fa_status status = load(gguf, tokenizer);
  if (status != FA_OK) {
    fa_tokenizer_free(tokenizer);
    return status;
  }
  *result = tokenizer;
  return FA_OK;
}
