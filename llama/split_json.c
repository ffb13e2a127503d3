/* tokenizer.json's "normalizer" and "pre_tokenizer": how text is changed and cut before tokens are made of
 * it. */
#include <stdio.h>
#include <string.h>

#include "llama_error.h"
#include "tokenizer_json.h"
#include "utf8.h"

enum { MAX_NESTED = 4 };

static fa_status read_normalizer(const fa_tokenizer_files *files, const cJSON *given,
                                 fa_normalizer *normalizer, int depth) {
  const cJSON *type = cJSON_GetObjectItemCaseSensitive(given, "type"), *inner;
  const char *kind = fa_json_text(given, "type");
  fa_status status = FA_OK;
  if (!given || cJSON_IsNull(given)) return FA_OK;
  if (strcmp(kind, "Sequence") == 0 && depth < MAX_NESTED) {
    cJSON_ArrayForEach(inner, cJSON_GetObjectItemCaseSensitive(given, "normalizers")) {
      status = read_normalizer(files, inner, normalizer, depth + 1);
      if (status != FA_OK) return status;
    }
    return FA_OK;
  }
  if (strcmp(kind, "NFC") == 0) return fa_normalizer_add(normalizer, FA_NORMAL_NFC, NULL, NULL);
  if (strcmp(kind, "Prepend") == 0) {
    return fa_normalizer_add(normalizer, FA_NORMAL_PREPEND, NULL, fa_json_text(given, "prepend"));
  }
  if (strcmp(kind, "Replace") == 0) {
    const char *from = fa_json_text(cJSON_GetObjectItemCaseSensitive(given, "pattern"), "String");
    if (from[0])
      return fa_normalizer_add(normalizer, FA_NORMAL_REPLACE, from, fa_json_text(given, "content"));
    return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                         "%s: a Replace normalizer of something else than a string, which is not done here",
                         files->name);
  }
  return fa_tokenizer_refuse(files, "a normalizer", type, "Sequence, Prepend, Replace, NFC");
}

/* One character as an expression, which needs no quoting. */
static void write_code(const char *text, size_t length, char *out, size_t room) {
  uint32_t code = 0;
  (void)fa_utf8_decode(text, length, &code, NULL);
  snprintf(out, room, "\\x{%x}", code);
}

static fa_status read_metaspace(const fa_tokenizer_files *files, const cJSON *given,
                                fa_tokenizer *tokenizer) {
  const char *replacement = fa_json_text(given, "replacement"),
             *scheme = fa_json_text(given, "prepend_scheme");
  uint32_t code;
  if (!scheme[0]) scheme = fa_json_true(given, "add_prefix_space", true) ? "always" : "never";
  const bool always = strcmp(scheme, "always") == 0, first = strcmp(scheme, "first") == 0;
  const size_t length = strlen(replacement);
  if (length == 0 || fa_utf8_decode(replacement, length, &code, NULL) != length ||
      (!always && !first && strcmp(scheme, "never") != 0)) {
    return fa_llama_fail(
        FA_ERROR_UNSUPPORTED,
        "%s: a Metaspace of '%.20s', prepended '%.20s'; needed: one character, and always, first or never",
        files->name, replacement, scheme);
  }
  fa_status status = fa_normalizer_add(&tokenizer->piece_normalizer, FA_NORMAL_REPLACE, " ", replacement);
  if (status == FA_OK && (always || first)) {
    status = fa_normalizer_add(&tokenizer->piece_normalizer,
                               always ? FA_NORMAL_PREPEND_ONCE : FA_NORMAL_PREPEND_FIRST, NULL, replacement);
  }
  if (status == FA_OK && fa_json_true(given, "split", true)) {
    char one[16], pattern[64];
    write_code(replacement, length, one, sizeof one);
    snprintf(pattern, sizeof pattern, "%s[^%s]*", one, one);
    status = fa_pretokenizer_add(tokenizer->pretokenizer, pattern, FA_SPLIT_ISOLATED);
  }
  return status;
}

static fa_status read_split(const fa_tokenizer_files *files, const cJSON *given, fa_tokenizer *tokenizer) {
  const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(given, "pattern");
  const char *expression = fa_json_text(pattern, "Regex"), *text = fa_json_text(pattern, "String");
  const char *behaviour = fa_json_text(given, "behavior");
  const bool inverted = fa_json_true(given, "invert", false);
  char translated[FA_SPLIT_PATTERN + 1];
  fa_split_behaviour how;
  if (strcmp(behaviour, "Isolated") == 0) {
    how = FA_SPLIT_ISOLATED; /* whichever of the two is the match */
  } else if (strcmp(behaviour, "Removed") == 0) {
    how = inverted ? FA_SPLIT_KEPT_ALONE : FA_SPLIT_REMOVED;
  } else if (strcmp(behaviour, "MergedWithPrevious") == 0 && !inverted) {
    how = FA_SPLIT_MERGED_WITH_PREVIOUS;
  } else {
    return fa_llama_fail(
        FA_ERROR_UNSUPPORTED,
        "%s: a Split of behaviour '%.50s'%s; done here: Isolated, Removed, MergedWithPrevious (not inverted)",
        files->name, behaviour, inverted ? ", inverted" : "");
  }
  if (expression[0]) {
    const fa_status status = fa_pattern_translate(files->name, expression, translated);
    if (status != FA_OK) return status;
  } else {
    size_t written = 0, length = strlen(text);
    translated[0] = '\0';
    for (size_t at = 0, step; at < length; at += step) {
      uint32_t code;
      step = fa_utf8_decode(text + at, length - at, &code, NULL);
      if (!step || written + 16 > sizeof translated) break;
      write_code(text + at, step, translated + written, 16);
      written += strlen(translated + written);
    }
    if (length == 0 || written + 16 > sizeof translated) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                           "%s: a Split by no or by a very long text, which is not done here", files->name);
    }
  }
  return fa_pretokenizer_add(tokenizer->pretokenizer, translated, how);
}

static fa_status read_byte_level(const fa_tokenizer_files *files, const cJSON *given, fa_tokenizer *tokenizer,
                                 bool cut) {
  fa_status status = FA_OK;
  if (fa_json_true(given, "add_prefix_space", true)) {
    if (cut) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                           "%s: a ByteLevel that puts a space before each piece, which is not done here",
                           files->name);
    }
    status = fa_normalizer_add(&tokenizer->piece_normalizer, FA_NORMAL_PREPEND_ONCE, NULL, " ");
  }
  tokenizer->kind = FA_TOKENIZER_BYTES;
  if (status == FA_OK && fa_json_true(given, "use_regex", true))
    status = fa_pretokenizer_add_gpt2(tokenizer->pretokenizer);
  return status;
}

/* *cut: whether a step before has cut the text. */
static fa_status read_pretokenizer(const fa_tokenizer_files *files, const cJSON *given,
                                   fa_tokenizer *tokenizer, bool *cut, int depth) {
  const cJSON *type = cJSON_GetObjectItemCaseSensitive(given, "type"), *inner;
  const char *kind = fa_json_text(given, "type");
  fa_status status = FA_OK;
  if (!given || cJSON_IsNull(given)) return FA_OK;
  if (strcmp(kind, "Sequence") == 0 && depth < MAX_NESTED) {
    cJSON_ArrayForEach(inner, cJSON_GetObjectItemCaseSensitive(given, "pretokenizers")) {
      status = read_pretokenizer(files, inner, tokenizer, cut, depth + 1);
      if (status != FA_OK) return status;
    }
    return FA_OK;
  }
  if (tokenizer->kind == FA_TOKENIZER_BYTES) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: a pre_tokenizer behind ByteLevel, which is not done here",
                         files->name);
  }
  const bool before = *cut;
  *cut = true;
  if (strcmp(kind, "ByteLevel") == 0) return read_byte_level(files, given, tokenizer, before);
  if (strcmp(kind, "Split") == 0) return read_split(files, given, tokenizer);
  if (strcmp(kind, "Digits") == 0) {
    return fa_pretokenizer_add(tokenizer->pretokenizer,
                               fa_json_true(given, "individual_digits", false) ? "\\p{N}" : "\\p{N}+",
                               FA_SPLIT_ISOLATED);
  }
  if (strcmp(kind, "Metaspace") == 0 && !before) return read_metaspace(files, given, tokenizer);
  return fa_tokenizer_refuse(files, before ? "a pre_tokenizer behind another" : "a pre_tokenizer", type,
                             "Sequence, Split, Digits, ByteLevel, Metaspace (first)");
}

fa_status fa_tokenizer_read_pipeline(const fa_tokenizer_files *files, fa_tokenizer *tokenizer) {
  bool cut = false;
  tokenizer->kind = FA_TOKENIZER_CHARACTERS;
  fa_status status = read_normalizer(files, cJSON_GetObjectItemCaseSensitive(files->tokenizer, "normalizer"),
                                     &tokenizer->normalizer, 0);
  if (status == FA_OK) status = fa_pretokenizer_create_empty(&tokenizer->pretokenizer);
  if (status != FA_OK) return status;
  return read_pretokenizer(files, cJSON_GetObjectItemCaseSensitive(files->tokenizer, "pre_tokenizer"),
                           tokenizer, &cut, 0);
}
