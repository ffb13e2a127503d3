/* tokenizer.json and a text to encode: four parts with a NUL between, which JSON does not hold:
 * tokenizer.json, then tokenizer_config.json, generation_config.json, and the text. All but the first may be
 * missing. */
#include "fuzz_target.h"
#include "json_file.h"
#include "tokenizer_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *part[4];
  size_t length[4];
  cJSON *json[3] = {NULL, NULL, NULL};
  fa_tokenizer *tokenizer = NULL;
  const char *at = (const char *)data, *end = at + size;
  for (int i = 0; i < 4; i++) {
    const char *stop = i < 3 && at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
    part[i] = at;
    length[i] = (size_t)((stop ? stop : end) - at);
    at = stop ? stop + 1 : end;
  }
  for (int i = 0; i < 3; i++) {
    if (i > 0 && length[i] == 0) continue;
    const fa_status status = fa_json_parse(part[i], length[i], "fuzz.json", &json[i]);
    fuzz_expect_line(status);
    if (status != FA_OK && i == 0) return 0;
  }
  const fa_tokenizer_files files = {"fuzz.json", json[0], json[1], json[2], NULL, NULL};
  const fa_status status = fa_tokenizer_create_json(&files, &tokenizer);
  fuzz_expect_line(status);
  if (status == FA_OK) {
    static const char text[] = "Hello, 'tis 12  w\xc3\xb6rlds\n\n<s></s> \xff\xf0\x9f\x98\x80";
    fuzz_tokenizer(tokenizer, text, sizeof text - 1);
    if (length[3] && length[3] <= 4096) fuzz_tokenizer(tokenizer, part[3], length[3]);
  }
  fa_tokenizer_free(tokenizer);
  for (int i = 0; i < 3; i++) cJSON_Delete(json[i]);
  return 0;
}
