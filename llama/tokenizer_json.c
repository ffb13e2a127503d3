/* A tokenizer out of Hugging Face's files. "truncation" and "padding" are settings of a call, not of the
 * tokenizer, and are not looked at; the decoder is what the kind of the vocabulary says. */
#include "tokenizer_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_file.h"
#include "llama_error.h"

enum { MAX_TOKENIZER_BYTES = 64 << 20, MAX_SETTINGS_BYTES = 4 << 20, MAX_NESTED = 4, MAX_PATH = 4096 };

const char *fa_json_text(const cJSON *object, const char *member) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, member);
  return cJSON_IsString(value) ? value->valuestring : "";
}

bool fa_json_true(const cJSON *object, const char *member, bool absent) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, member);
  return cJSON_IsBool(value) ? cJSON_IsTrue(value) : absent;
}

fa_status fa_tokenizer_refuse(const fa_tokenizer_files *files, const char *what, const cJSON *type,
                              const char *known) {
  return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: %s of type '%.50s' is not done here; done are %s",
                       files->name, what, cJSON_IsString(type) ? type->valuestring : "", known);
}

/* The one token a template puts before or behind the text. */
static fa_status take_template_token(const fa_tokenizer_files *files, const char *name, bool behind,
                                     fa_tokenizer *tokenizer) {
  bool *adds = behind ? &tokenizer->add_eos : &tokenizer->add_bos;
  const int32_t id = fa_vocabulary_id(&tokenizer->vocabulary, name, strlen(name));
  if (id < 0 || *adds) {
    return fa_llama_fail(
        FA_ERROR_UNSUPPORTED,
        "%s: the post_processor puts '%.50s' %s the text; done here: one token that is in the vocabulary",
        files->name, name, behind ? "behind" : "before");
  }
  *adds = true;
  *(behind ? &tokenizer->eos : &tokenizer->bos) = id;
  return FA_OK;
}

static fa_status read_post_processor(const fa_tokenizer_files *files, const cJSON *given,
                                     fa_tokenizer *tokenizer, int depth) {
  const cJSON *type = cJSON_GetObjectItemCaseSensitive(given, "type"), *inner;
  const char *kind = fa_json_text(given, "type");
  fa_status status = FA_OK;
  bool behind = false;
  if (!given || cJSON_IsNull(given) || strcmp(kind, "ByteLevel") == 0)
    return FA_OK; /* that one moves offsets only */
  if (strcmp(kind, "Sequence") == 0 && depth < MAX_NESTED) {
    cJSON_ArrayForEach(inner, cJSON_GetObjectItemCaseSensitive(given, "processors")) {
      status = read_post_processor(files, inner, tokenizer, depth + 1);
      if (status != FA_OK) return status;
    }
    return FA_OK;
  }
  if (strcmp(kind, "TemplateProcessing") != 0) {
    return fa_tokenizer_refuse(files, "a post_processor", type, "Sequence, TemplateProcessing, ByteLevel");
  }
  cJSON_ArrayForEach(inner, cJSON_GetObjectItemCaseSensitive(given, "single")) {
    const cJSON *special = cJSON_GetObjectItemCaseSensitive(inner, "SpecialToken");
    if (special)
      status = take_template_token(files, fa_json_text(special, "id"), behind, tokenizer);
    else
      behind = true; /* the text */
    if (status != FA_OK) return status;
  }
  return FA_OK;
}

/* A token of tokenizer_config.json: its name, or an object with it as content. -1: not there. */
static int32_t named_token(const fa_tokenizer *tokenizer, const cJSON *settings, const char *member) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(settings, member);
  const char *name = cJSON_IsString(value) ? value->valuestring : fa_json_text(value, "content");
  return name[0] ? fa_vocabulary_id(&tokenizer->vocabulary, name, strlen(name)) : -1;
}

/* eos_token_id: a number or a list of them. */
static fa_status read_ends(const fa_tokenizer_files *files, const cJSON *config, fa_tokenizer *tokenizer) {
  const cJSON *given = cJSON_GetObjectItemCaseSensitive(config, "eos_token_id"), *end;
  const cJSON *one = cJSON_IsArray(given) ? given->child : given;
  for (end = one; end; end = cJSON_IsArray(given) ? end->next : NULL) {
    int64_t id;
    if (cJSON_IsNull(end)) continue;
    /* Models have more rows than their vocabulary has tokens, but none of those ends a text. */
    if (!fa_json_integer(end, 0, INT32_MAX, &id)) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: an eos_token_id beside it is no token's number",
                           files->name);
    }
    if (id < tokenizer->vocabulary.count) fa_tokenizer_add_end(tokenizer, (int32_t)id);
  }
  return FA_OK;
}

static const char *chat_template_of(const fa_tokenizer_files *files) {
  const cJSON *given = cJSON_GetObjectItemCaseSensitive(files->settings, "chat_template"), *one;
  if (files->chat_template) return files->chat_template;
  if (cJSON_IsString(given)) return given->valuestring;
  cJSON_ArrayForEach(one, given) { /* several: the one called default */
    if (strcmp(fa_json_text(one, "name"), "default") == 0) return fa_json_text(one, "template");
  }
  return "";
}

static fa_status read_settings(const fa_tokenizer_files *files, fa_tokenizer *tokenizer) {
  const cJSON *processor = cJSON_GetObjectItemCaseSensitive(files->tokenizer, "post_processor");
  tokenizer->bos = named_token(tokenizer, files->settings, "bos_token");
  tokenizer->eos = named_token(tokenizer, files->settings, "eos_token");
  fa_tokenizer_add_end(tokenizer, tokenizer->eos);
  fa_status status = read_post_processor(files, processor, tokenizer, 0);
  if (status == FA_OK && (!processor || cJSON_IsNull(processor))) {
    tokenizer->add_bos = tokenizer->bos >= 0 && fa_json_true(files->settings, "add_bos_token", false);
    tokenizer->add_eos = tokenizer->eos >= 0 && fa_json_true(files->settings, "add_eos_token", false);
  }
  if (status == FA_OK) status = read_ends(files, files->generation, tokenizer);
  if (status == FA_OK) status = read_ends(files, files->model, tokenizer);
  if (status != FA_OK) return status;
  fa_tokenizer_add_known_ends(tokenizer);
  const char *template = chat_template_of(files);
  if (!template[0]) return FA_OK;
  tokenizer->owned_template = strdup(template);
  if (!tokenizer->owned_template) return fa_llama_out_of_memory("the chat template");
  tokenizer->chat_template = (fa_gguf_string){tokenizer->owned_template, strlen(template)};
  return FA_OK;
}

fa_status fa_tokenizer_create_json(const fa_tokenizer_files *files, fa_tokenizer **result) {
  fa_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
  if (!tokenizer) return fa_llama_out_of_memory("the tokenizer");
  tokenizer->bos = tokenizer->eos = tokenizer->unknown = -1;
  fa_status status = fa_tokenizer_read_pipeline(files, tokenizer);
  if (status == FA_OK) status = fa_tokenizer_read_vocabulary(files, tokenizer);
  if (status == FA_OK) status = read_settings(files, tokenizer);
  if (status != FA_OK) {
    fa_tokenizer_free(tokenizer);
    return status;
  }
  *result = tokenizer;
  return FA_OK;
}

fa_status fa_tokenizer_open_json(const char *directory, fa_tokenizer **tokenizer) {
  char path[MAX_PATH];
  cJSON *main = NULL, *settings = NULL, *generation = NULL, *model = NULL;
  char *chat_template = NULL;
  size_t length;
  fa_status status = fa_json_read_in(directory, "tokenizer.json", true, MAX_TOKENIZER_BYTES, &main);
  if (status == FA_OK)
    status = fa_json_read_in(directory, "tokenizer_config.json", false, MAX_SETTINGS_BYTES, &settings);
  if (status == FA_OK)
    status = fa_json_read_in(directory, "generation_config.json", false, MAX_SETTINGS_BYTES, &generation);
  if (status == FA_OK) status = fa_json_read_in(directory, "config.json", false, MAX_SETTINGS_BYTES, &model);
  if (status == FA_OK) {
    (void)snprintf(path, sizeof path, "%s/chat_template.jinja",
                   directory); /* shorter than generation_config.json's */
    if (access(path, F_OK) == 0)
      status = fa_text_read_file(path, MAX_SETTINGS_BYTES, &chat_template, &length);
  }
  if (status == FA_OK) {
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    const fa_tokenizer_files files = {path, main, settings, generation, model, chat_template};
    status = fa_tokenizer_create_json(&files, tokenizer);
  }
  cJSON_Delete(main);
  cJSON_Delete(settings);
  cJSON_Delete(generation);
  cJSON_Delete(model);
  free(chat_template);
  return status;
}
