#include "json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llama_error.h"
#include "utf8.h"

enum { MAX_DEPTH = 64, MAX_PATH = 4096 };

/* What cJSON must not see: a depth that costs it the stack, and NULs, at which its strings would end early.
 */
static fa_status look_through(const char *text, size_t length, const char *name) {
  int depth = 0;
  bool in_string = false;
  for (size_t at = 0, step; at < length; at += step) {
    uint32_t code;
    step = fa_utf8_decode(text + at, length - at, &code, NULL);
    if (!step)
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: byte %zu is not UTF-8; the file is damaged", name, at);
    if (code == 0 || (in_string && length - at >= 6 && memcmp(text + at, "\\u0000", 6) == 0)) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: a NUL character at byte %zu; none is allowed", name, at);
    }
    if (in_string) {
      if (code == '\\') step = length - at > 1 && (unsigned char)text[at + 1] < 0x80 ? 2 : 1;
      in_string = code != '"';
    } else if (code == '"') {
      in_string = true;
    } else if (code == '[' || code == '{') {
      if (++depth > MAX_DEPTH) {
        return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: nested deeper than %d at byte %zu; the file is damaged",
                             name, MAX_DEPTH, at);
      }
    } else if (code == ']' || code == '}') {
      depth--;
    }
  }
  return FA_OK;
}

fa_status fa_json_parse(const char *text, size_t length, const char *name, cJSON **json) {
  const char *end = NULL;
  *json = NULL;
  const fa_status status = look_through(text, length, name);
  if (status != FA_OK) return status;
  *json = cJSON_ParseWithLengthOpts(text, length, &end, 0);
  if (!*json) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s is not JSON (at byte %zu of %zu); it is damaged", name,
                         end ? (size_t)(end - text) : length, length);
  }
  while (end < text + length && strchr(" \t\r\n", *end)) end++;
  if (end < text + length) {
    cJSON_Delete(*json);
    *json = NULL;
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: something follows the JSON at byte %zu; the file is damaged",
                         name, (size_t)(end - text));
  }
  return FA_OK;
}

static fa_status read_open(int file, const char *path, size_t most_bytes, char **text, size_t *length) {
  struct stat about;
  if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s is not a regular file", path);
  }
  if (about.st_size < 0 || (uint64_t)about.st_size > most_bytes) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s has %lld bytes; up to %zu are read", path,
                         (long long)about.st_size, most_bytes);
  }
  char *bytes = malloc((size_t)about.st_size + 1);
  if (!bytes) return fa_llama_out_of_memory(path);
  size_t done = 0;
  while (done < (size_t)about.st_size) {
    const ssize_t got = read(file, bytes + done, (size_t)about.st_size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      const char *why = got < 0 ? strerror(errno) : "it became shorter";
      free(bytes);
      return fa_llama_fail(FA_ERROR_ARGUMENT, "cannot read %s: %s", path, why);
    }
    done += (size_t)got;
  }
  bytes[done] = '\0';
  *text = bytes;
  *length = done;
  return FA_OK;
}

fa_status fa_text_read_file(const char *path, size_t most_bytes, char **text, size_t *length) {
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fa_llama_fail(FA_ERROR_ARGUMENT, "cannot open %s: %s", path, strerror(errno));
  const fa_status status = read_open(file, path, most_bytes, text, length);
  close(file);
  return status;
}

fa_status fa_json_read_file(const char *path, size_t most_bytes, cJSON **json) {
  char *text = NULL;
  size_t length;
  *json = NULL;
  fa_status status = fa_text_read_file(path, most_bytes, &text, &length);
  if (status == FA_OK) status = fa_json_parse(text, length, path, json);
  free(text);
  return status;
}

fa_status fa_json_read_in(const char *directory, const char *file, bool required, size_t most_bytes,
                          cJSON **json) {
  char path[MAX_PATH];
  *json = NULL;
  const int length = snprintf(path, sizeof path, "%s/%s", directory, file);
  if (length < 0 || length >= (int)sizeof path) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "the path of %s is longer than %d bytes", file, MAX_PATH - 1);
  }
  if (!required && access(path, F_OK) != 0) return FA_OK;
  return fa_json_read_file(path, most_bytes, json);
}

bool fa_json_integer(const cJSON *number, int64_t least, int64_t most, int64_t *value) {
  if (!cJSON_IsNumber(number)) return false;
  const double given = number->valuedouble;
  /* Whole numbers up to 2^53 are exact in what cJSON keeps. */
  if (!(given >= -9007199254740992.0 && given <= 9007199254740992.0) || given != floor(given)) return false;
  if ((int64_t)given < least || (int64_t)given > most) return false;
  *value = (int64_t)given;
  return true;
}
