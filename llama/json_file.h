/* JSON out of files nobody has checked: bounded and looked through before cJSON, which recurses, sees it. */
#ifndef FA_LLAMA_JSON_FILE_H
#define FA_LLAMA_JSON_FILE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "fastattention/fastattention.h"

/* `name` is what error lines call the text. cJSON_Delete the result. Errors: ARGUMENT (not UTF-8, nested
 * deeper than 64, a NUL in it, not JSON), MEMORY. */
fa_status fa_json_parse(const char *text, size_t length, const char *name, cJSON **json);
/* A whole file of at most `most_bytes`. */
fa_status fa_json_read_file(const char *path, size_t most_bytes, cJSON **json);
/* "directory/file" of at most `most_bytes`; *json is NULL for OK when there is no such file and it is not
 * required. */
fa_status fa_json_read_in(const char *directory, const char *file, bool required, size_t most_bytes,
                          cJSON **json);
/* The bytes of a file, terminated; free them. */
fa_status fa_text_read_file(const char *path, size_t most_bytes, char **text, size_t *length);

/* Whether a number is whole and in [least, most]; then *value. */
bool fa_json_integer(const cJSON *number, int64_t least, int64_t most, int64_t *value);

#endif
