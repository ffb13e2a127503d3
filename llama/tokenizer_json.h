/* Reading tokenizer.json and the files beside it, in parts. */
#ifndef FA_LLAMA_TOKENIZER_JSON_H
#define FA_LLAMA_TOKENIZER_JSON_H

#include <cjson/cJSON.h>

#include "tokenizer.h"

typedef struct fa_tokenizer_files {
  const char *name;          /* of tokenizer.json, for error lines */
  const cJSON *tokenizer;    /* tokenizer.json */
  const cJSON *settings;     /* tokenizer_config.json, or NULL */
  const cJSON *generation;   /* generation_config.json, or NULL */
  const cJSON *model;        /* config.json, or NULL */
  const char *chat_template; /* chat_template.jinja, or NULL */
} fa_tokenizer_files;

/* Nothing of the files is kept. */
fa_status fa_tokenizer_create_json(const fa_tokenizer_files *files, fa_tokenizer **tokenizer);

/* normalizer and pre_tokenizer; also says the kind (split_json.c). */
fa_status fa_tokenizer_read_pipeline(const fa_tokenizer_files *files, fa_tokenizer *tokenizer);
/* model and added_tokens; after the pipeline (vocabulary_json.c). */
fa_status fa_tokenizer_read_vocabulary(const fa_tokenizer_files *files, fa_tokenizer *tokenizer);

/* A regular expression as the reference reads it, in PCRE2's terms: at most FA_SPLIT_PATTERN bytes and a NUL
 * to `pattern`. Errors: UNSUPPORTED (something that may mean another thing there; the line names it). */
fa_status fa_pattern_translate(const char *name, const char *given, char *pattern);

/* "name: what of type 'type' is not done here; ..." */
fa_status fa_tokenizer_refuse(const fa_tokenizer_files *files, const char *what, const cJSON *type,
                              const char *known);
/* A member's text, "" where it is absent or no string. */
const char *fa_json_text(const cJSON *object, const char *member);
bool fa_json_true(const cJSON *object, const char *member, bool absent);

#endif
