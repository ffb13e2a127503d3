/* tokenizer.json's "model" (BPE: tokens and merges) and "added_tokens". */
#include <stdlib.h>
#include <string.h>

#include "json_file.h"
#include "llama_error.h"
#include "tokenizer_json.h"

enum { MAX_TOKENS = 1 << 24, MAX_HOLES = 4096 };

static fa_status wrong(const fa_tokenizer_files *files, const char *what) {
  return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %s; the file is damaged", files->name, what);
}

/* What this BPE does not do must not be ignored silently. */
static fa_status refuse_unknown_options(const fa_tokenizer_files *files, const cJSON *model) {
  static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  const cJSON *type = cJSON_GetObjectItemCaseSensitive(model, "type");
  const cJSON *dropout = cJSON_GetObjectItemCaseSensitive(model, "dropout");
  if (!cJSON_IsObject(model)) return wrong(files, "it has no \"model\"");
  if (type && strcmp(fa_json_text(model, "type"), "BPE") != 0) {
    return fa_tokenizer_refuse(files, "a model", type, "BPE");
  }
  for (size_t i = 0; i < 2; i++) {
    if (fa_json_text(model, affixes[i])[0]) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: the model's %s is '%.50s'; only none is done here",
                           files->name, affixes[i], fa_json_text(model, affixes[i]));
    }
  }
  if (cJSON_IsNumber(dropout) && dropout->valuedouble != 0.0) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: the model's dropout is %g; only none is done here",
                         files->name, dropout->valuedouble);
  }
  return FA_OK;
}

/* Tokens there are to be: one more than the largest id. Also the bytes of all names. */
static fa_status measure(const fa_tokenizer_files *files, const cJSON *vocabulary, const cJSON *added,
                         int64_t *count, size_t *bytes) {
  const cJSON *token;
  int64_t names = 0, id;
  *count = 0;
  *bytes = 1;
  cJSON_ArrayForEach(token, vocabulary) {
    if (!fa_json_integer(token, 0, MAX_TOKENS - 1, &id))
      return wrong(files, "a token of the vocabulary has no number");
    if (id >= *count) *count = id + 1;
    *bytes += strlen(token->string);
    names++;
  }
  cJSON_ArrayForEach(token, added) {
    if (!fa_json_integer(cJSON_GetObjectItemCaseSensitive(token, "id"), 0, MAX_TOKENS - 1, &id) ||
        !fa_json_text(token, "content")[0]) {
      return wrong(files, "an added token has no number or no content");
    }
    if (id >= *count) *count = id + 1;
    *bytes += strlen(fa_json_text(token, "content"));
    names++;
  }
  if (*count < 1 || *count > names + MAX_HOLES) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: %lld tokens with numbers up to %lld; the file is damaged",
                         files->name, (long long)names, (long long)*count - 1);
  }
  return FA_OK;
}

static fa_gguf_string copy_name(char **names, const char *text) {
  const fa_gguf_string name = {*names, strlen(text)};
  memcpy(*names, text, name.length);
  *names += name.length;
  return name;
}

static bool is_byte_name(const char *name) {
  return strlen(name) == 6 && memcmp(name, "<0x", 3) == 0 && name[5] == '>' &&
         strspn(name + 3, "0123456789ABCDEF") == 2;
}

static fa_status read_tokens(const fa_tokenizer_files *files, const cJSON *vocabulary, bool byte_fallback,
                             fa_tokenizer *tokenizer, char **names) {
  fa_vocabulary *v = &tokenizer->vocabulary;
  const cJSON *token;
  cJSON_ArrayForEach(token, vocabulary) {
    int64_t id = 0;
    fa_json_integer(token, 0, MAX_TOKENS - 1, &id); /* measure() has seen to it */
    const fa_token_type type = byte_fallback && is_byte_name(token->string) ? FA_TOKEN_BYTE : FA_TOKEN_NORMAL;
    if (v->tokens[id].type != FA_TOKEN_UNUSED) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: two tokens have the number %lld; the file is damaged",
                           files->name, (long long)id);
    }
    if (!fa_vocabulary_put(v, (int32_t)id, copy_name(names, token->string), type)) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: the token '%.50s' is there twice; the file is damaged",
                           files->name, token->string);
    }
  }
  return FA_OK;
}

/* A token matched in normalised text is looked for as the normaliser writes it. */
static fa_status add_match(const cJSON *added, fa_tokenizer *tokenizer, fa_token_match match) {
  char *changed = NULL;
  if (!fa_json_true(added, "normalized", !match.control)) return fa_token_set_add(&tokenizer->matched, match);
  fa_status status = fa_normalizer_apply(&tokenizer->normalizer, match.name.bytes, match.name.length, true,
                                         &changed, &match.name.length);
  if (changed) match.name.bytes = changed;
  if (status == FA_OK && match.name.length) status = fa_token_set_add(&tokenizer->matched_normalized, match);
  free(changed);
  return status;
}

static fa_status read_added(const fa_tokenizer_files *files, const cJSON *added, fa_tokenizer *tokenizer,
                            char **names) {
  fa_vocabulary *v = &tokenizer->vocabulary;
  const cJSON *token;
  fa_status status = FA_OK;
  cJSON_ArrayForEach(token, added) {
    int64_t id = 0;
    const char *content = fa_json_text(token, "content");
    const bool control = fa_json_true(token, "special", false);
    fa_json_integer(cJSON_GetObjectItemCaseSensitive(token, "id"), 0, MAX_TOKENS - 1, &id);
    const int32_t there = fa_vocabulary_id(v, content, strlen(content));
    if (fa_json_true(token, "single_word", false)) {
      return fa_llama_fail(
          FA_ERROR_UNSUPPORTED,
          "%s: the added token '%.50s' is for whole words (single_word), which is not done here", files->name,
          content);
    }
    if (there >= 0 ? there != id : v->tokens[id].type != FA_TOKEN_UNUSED) {
      return fa_llama_fail(
          FA_ERROR_ARGUMENT,
          "%s: the added token '%.50s' of number %lld is not what the vocabulary says; the file is damaged",
          files->name, content, (long long)id);
    }
    if (there < 0) (void)fa_vocabulary_put(v, (int32_t)id, copy_name(names, content), FA_TOKEN_NORMAL);
    v->tokens[id].type = control ? FA_TOKEN_CONTROL : FA_TOKEN_USER_DEFINED;
    const fa_token_match match = {.name = v->tokens[id].name,
                                  .id = (int32_t)id,
                                  .control = control,
                                  .takes_left = fa_json_true(token, "lstrip", false),
                                  .takes_right = fa_json_true(token, "rstrip", false)};
    status = add_match(token, tokenizer, match);
    if (status != FA_OK) return status;
  }
  fa_token_set_ready(&tokenizer->matched);
  fa_token_set_ready(&tokenizer->matched_normalized);
  return FA_OK;
}

/* A merge is "left right" or ["left", "right"]. */
static bool read_pair(const cJSON *merge, const char **left, size_t *left_length, const char **right) {
  if (cJSON_IsString(merge)) {
    const char *space = strchr(merge->valuestring, ' ');
    if (!space || strchr(space + 1, ' ')) return false;
    *left = merge->valuestring;
    *left_length = (size_t)(space - merge->valuestring);
    *right = space + 1;
    return true;
  }
  if (!cJSON_IsArray(merge) || !cJSON_IsString(merge->child) || !cJSON_IsString(merge->child->next))
    return false;
  *left = merge->child->valuestring;
  *left_length = strlen(*left);
  *right = merge->child->next->valuestring;
  return true;
}

static fa_status read_merges(const fa_tokenizer_files *files, const cJSON *merges, fa_vocabulary *v) {
  const cJSON *merge;
  if (!cJSON_IsArray(merges)) return wrong(files, "the model has no \"merges\"");
  fa_status status = fa_vocabulary_begin_merges(v, (uint64_t)cJSON_GetArraySize(merges));
  char *joined = status == FA_OK ? malloc(2 * v->longest + 1) : NULL;
  if (status == FA_OK && !joined) status = fa_llama_out_of_memory("the merges");
  int32_t rank = 0;
  if (status == FA_OK) {
    cJSON_ArrayForEach(merge, merges) {
      const char *left, *right;
      size_t left_length;
      int32_t left_id = -1, right_id = -1, result = -1;
      if (read_pair(merge, &left, &left_length, &right)) {
        const size_t right_length = strlen(right);
        left_id = fa_vocabulary_id(v, left, left_length);
        right_id = fa_vocabulary_id(v, right, right_length);
        if (left_id >= 0 && right_id >= 0) {
          memcpy(joined, left, left_length);
          memcpy(joined + left_length, right, right_length);
          result = fa_vocabulary_id(v, joined, left_length + right_length);
        }
      }
      if (result < 0) {
        status = fa_llama_fail(FA_ERROR_ARGUMENT,
                               "%s: merge %d is not two tokens that make a third; the file is damaged",
                               files->name, rank);
        break;
      }
      fa_vocabulary_add_merge(v, left_id, right_id, rank++, result, true);
    }
  }
  free(joined);
  return status;
}

fa_status fa_tokenizer_read_vocabulary(const fa_tokenizer_files *files, fa_tokenizer *tokenizer) {
  const cJSON *model = cJSON_GetObjectItemCaseSensitive(files->tokenizer, "model");
  const cJSON *added = cJSON_GetObjectItemCaseSensitive(files->tokenizer, "added_tokens");
  const cJSON *vocabulary = cJSON_GetObjectItemCaseSensitive(model, "vocab");
  const bool byte_fallback = fa_json_true(model, "byte_fallback", false);
  fa_vocabulary *v = &tokenizer->vocabulary;
  int64_t count;
  size_t bytes;
  fa_status status = refuse_unknown_options(files, model);
  if (status == FA_OK && !cJSON_IsObject(vocabulary)) status = wrong(files, "the model has no \"vocab\"");
  if (status == FA_OK && added && !cJSON_IsArray(added)) status = wrong(files, "\"added_tokens\" is no list");
  if (status == FA_OK) status = measure(files, vocabulary, added, &count, &bytes);
  if (status == FA_OK) status = fa_vocabulary_begin(v, count);
  if (status != FA_OK) return status;
  char *names = v->names = malloc(bytes);
  if (!names) return fa_llama_out_of_memory("the vocabulary");
  status = read_tokens(files, vocabulary, byte_fallback, tokenizer, &names);
  if (status == FA_OK) status = read_merges(files, cJSON_GetObjectItemCaseSensitive(model, "merges"), v);
  if (status == FA_OK) status = read_added(files, added, tokenizer, &names);
  if (status == FA_OK) {
    status = fa_vocabulary_spell(
        v, tokenizer->kind == FA_TOKENIZER_BYTES ? FA_SPELLING_ALPHABET : FA_SPELLING_TEXT);
  }
  if (status != FA_OK) return status;
  if (tokenizer->kind == FA_TOKENIZER_CHARACTERS && !byte_fallback) {
    for (int b = 0; b < 256; b++) v->byte_ids[b] = -1;
  }
  const char *unknown = fa_json_text(model, "unk_token");
  if (unknown[0]) tokenizer->unknown = fa_vocabulary_id(v, unknown, strlen(unknown));
  tokenizer->fuse_unknown = fa_json_true(model, "fuse_unk", false);
  tokenizer->whole_tokens = fa_json_true(model, "ignore_merges", false);
  if (unknown[0] && tokenizer->unknown < 0) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: the unk_token '%.50s' is not in the vocabulary", files->name,
                         unknown);
  }
  return FA_OK;
}
