/* The vocabulary of a GGUF file: tokenizer.ggml.tokens, token_type, and merges or scores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "vocabulary.h"

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
  status = fa_vocabulary_begin(vocabulary, (int64_t)names.count);
  if (status != FA_OK) return status;
  const uint8_t *cursor = names.values;
  for (int32_t id = 0; id < vocabulary->count; id++) {
    const int64_t type = types.values ? fa_gguf_array_integer(&types, (uint64_t)id) : FA_TOKEN_NORMAL;
    const bool known = type >= FA_TOKEN_NORMAL && type <= FA_TOKEN_BYTE;
    if (!fa_vocabulary_put(vocabulary, id, fa_gguf_next_string(&cursor),
                           known ? (fa_token_type)type : FA_TOKEN_NORMAL)) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: token %d is in the vocabulary twice", fa_gguf_name(gguf),
                           id);
    }
  }
  return FA_OK;
}

static fa_status load_merges(const fa_gguf *gguf, fa_vocabulary *vocabulary) {
  fa_gguf_array lines;
  char joined[1024];
  fa_status status = fa_gguf_list(gguf, "tokenizer.ggml.merges", true, FA_GGUF_STRING, &lines);
  if (status != FA_OK) return status;
  if (lines.count > (uint64_t)1 << 24) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %llu merges; up to 16777216 are allowed", fa_gguf_name(gguf),
                         (unsigned long long)lines.count);
  }
  status = fa_vocabulary_begin_merges(vocabulary, lines.count);
  if (status != FA_OK) return status;
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
    fa_vocabulary_add_merge(vocabulary, left, right, rank, result, false);
  }
  return FA_OK;
}

/* Floats in their order as integers, turned round: the best score is the lowest rank, equal ones are equal.
 */
static int32_t rank_of(float score) {
  int32_t bits;
  score += 0.0f; /* -0 becomes 0 */
  memcpy(&bits, &score, sizeof bits);
  return ~(bits < 0 ? bits ^ INT32_MAX : bits);
}

static fa_status load_scores(const fa_gguf *gguf, fa_vocabulary *vocabulary) {
  fa_gguf_array scores;
  const fa_status status = fa_gguf_list(gguf, "tokenizer.ggml.scores", true, FA_GGUF_FLOAT32, &scores);
  if (status != FA_OK) return status;
  if (scores.count != (uint64_t)vocabulary->count) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %llu scores for %lld tokens; there must be as many",
                         fa_gguf_name(gguf), (unsigned long long)scores.count, (long long)vocabulary->count);
  }
  vocabulary->ranks = malloc((size_t)vocabulary->count * sizeof *vocabulary->ranks);
  if (!vocabulary->ranks) return fa_llama_out_of_memory("the scores");
  for (int64_t id = 0; id < vocabulary->count; id++) {
    float score;
    memcpy(&score, scores.values + 4 * id, sizeof score);
    if (isnan(score)) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: the score of token %lld is not a number",
                           fa_gguf_name(gguf), (long long)id);
    }
    vocabulary->ranks[id] = rank_of(score);
  }
  return FA_OK;
}

fa_status fa_vocabulary_load(const fa_gguf *gguf, fa_spelling spelling, fa_vocabulary *vocabulary) {
  memset(vocabulary, 0, sizeof *vocabulary);
  fa_status status = load_names(gguf, vocabulary);
  if (status == FA_OK) status = fa_vocabulary_spell(vocabulary, spelling);
  if (status == FA_OK) {
    status = spelling == FA_SPELLING_ALPHABET ? load_merges(gguf, vocabulary) : load_scores(gguf, vocabulary);
  }
  if (status != FA_OK) fa_vocabulary_unload(vocabulary);
  return status;
}
