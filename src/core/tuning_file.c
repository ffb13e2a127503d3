/* Reads a tuning file as if a stranger had written it: every line whole and right, or none of it. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/problem.h"
#include "core/status.h"
#include "core/tuning.h"

enum { ENTRY_WORDS = 17 };

typedef struct reader {
  const char *path;
  const char *at, *end;
  int32_t line;
  char text[FA_TUNING_MOST_LINE + 1];
} reader;

/* What of the path a line has room for: its end, which says more. */
static const char *short_path(const char *path, size_t most) {
  const size_t length = strlen(path);
  return length > most ? path + length - most : path;
}

/* "tuning file 'x', line 3: '...' is what is wrong" */
static fa_status wrong(const reader *r, const char *word, const char *what) {
  char shown[41];
  snprintf(shown, sizeof shown, "%.40s", word);
  for (char *c = shown; *c; ++c)
    if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') *c = '?';
  return fa_fail(FA_ERROR_ARGUMENT, "tuning file '%s', line %d: '%s' %s; `fastattn tune` writes a new one",
                 short_path(r->path, 120), r->line, shown, what);
}

/* The next line that says something into r->text, *is_there 0 at the end. */
static fa_status next_line(reader *r, int *is_there) {
  *is_there = 0;
  while (r->at < r->end && !*is_there) {
    const char *stop = memchr(r->at, '\n', (size_t)(r->end - r->at));
    ++r->line;
    if (!stop) return wrong(r, "", "the file ends inside a line");
    const size_t length = (size_t)(stop - r->at);
    if (length > FA_TUNING_MOST_LINE) return wrong(r, "", "the line is longer than 500 characters");
    memcpy(r->text, r->at, length);
    r->text[length] = '\0';
    for (size_t i = 0; i < length; ++i)
      if ((unsigned char)r->text[i] < ' ' || r->text[i] == 0x7f) return wrong(r, r->text, "holds a control character");
    r->at = stop + 1;
    *is_there = length > 0 && r->text[0] != '#';
  }
  return FA_OK;
}

/* "key rest of the line" -> rest */
static fa_status read_field(reader *r, const char *key, char *value, size_t size) {
  int is_there;
  const fa_status status = next_line(r, &is_there);
  if (status != FA_OK) return status;
  const size_t length = strlen(key);
  if (!is_there || strncmp(r->text, key, length) != 0 || r->text[length] != ' ') {
    char what[64];
    snprintf(what, sizeof what, "stands where '%s' is expected", key);
    return wrong(r, is_there ? r->text : "", what);
  }
  snprintf(value, size, "%.*s", (int)size - 1, r->text + length + 1);
  return FA_OK;
}

/* ----------------------------------------------------------------- entries */

static int split_words(char *text, char *words[ENTRY_WORDS + 1]) {
  int count = 0;
  for (char *at = text; *at;) {
    while (*at == ' ') *at++ = '\0';
    if (*at == '\0') break;
    if (count == ENTRY_WORDS + 1) break;
    words[count++] = at;
    while (*at && *at != ' ') ++at;
  }
  return count;
}

/* Digits only; -1 for anything else and beyond `most`. */
static int64_t number(const char *word, int64_t most) {
  int64_t value = 0;
  const size_t length = strlen(word);
  if (length == 0 || length > 18) return -1;
  for (size_t i = 0; i < length; ++i) {
    if (word[i] < '0' || word[i] > '9') return -1;
    value = value * 10 + (word[i] - '0');
  }
  return value <= most ? value : -1;
}

static int choose(const char *word, const char *zero, const char *one) {
  return strcmp(word, zero) == 0 ? 0 : strcmp(word, one) == 0 ? 1 : -1;
}

static int dtype_named(const char *word) {
  for (int t = FA_FLOAT32; t <= FA_FP8_E4M3; ++t)
    if (strcmp(word, fa_dtype_name((fa_dtype)t)) == 0) return t;
  return -1;
}

static int is_kernel_name(const char *word) {
  const size_t length = strlen(word);
  return length < FA_TUNING_NAME && strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_") == length;
}

static fa_status read_entry(reader *r, fa_tuning_entry_line *e) {
  static const char *const numbers[] = {"a head size, 1 to 576", "a head size, 1 to 576", "query heads a KV head", "",
                                        "a power of two", "a power of two", "a power of two", "threads, 1 to 4096", "",
                                        "level-one rows", "level-one keys", "splits, at most 4096", "nanoseconds, at least 1",
                                        "nanoseconds, at least 1"};
  char *words[ENTRY_WORDS + 1], what[96];
  const int count = split_words(r->text, words);
  if (count != ENTRY_WORDS) {
    snprintf(what, sizeof what, "begins a line of %s%d words; an entry has %d", count > ENTRY_WORDS ? "at least " : "", count,
             ENTRY_WORDS);
    return wrong(r, count ? words[0] : "", what);
  }
  memset(e, 0, sizeof *e);
  e->line = r->line;
  e->of.is_decode = choose(words[0], "prefill", "decode");
  if (e->of.is_decode < 0) return wrong(r, words[0], "is neither prefill nor decode");
  e->of.dtype = dtype_named(words[1]);
  if (e->of.dtype < 0 || e->of.dtype > FA_BFLOAT16) return wrong(r, words[1], "is none of f32, f16, bf16");
  e->of.kv_dtype = dtype_named(words[2]);
  if (e->of.kv_dtype < 0 || (e->of.kv_dtype < FA_INT8 && e->of.kv_dtype != e->of.dtype))
    return wrong(r, words[2], "is no type of a cache: that of q, int8 or fp8");
  e->of.causal = choose(words[6], "full", "causal");
  if (e->of.causal < 0) return wrong(r, words[6], "is neither causal nor full");
  if (!is_kernel_name(words[11])) return wrong(r, words[11], "is no kernel's name");
  snprintf(e->kernel, sizeof e->kernel, "%s", words[11]);

  int64_t *const places[] = {&e->of.head_dim_qk, &e->of.head_dim_v, &e->of.group, NULL, &e->of.queries, &e->of.keys,
                             &e->of.heads, &e->of.threads, NULL, &e->request.level1_rows, &e->request.level1_keys,
                             &e->request.kv_splits, &e->ns, &e->rule_ns};
  const int64_t extent = FA_MAX_EXTENT, most_ns = (int64_t)1000000000000000;
  const int64_t most[] = {FA_MAX_HEAD_DIM, FA_MAX_HEAD_DIM, extent, 0, extent, extent, (int64_t)1 << 62, 4096, 0,
                          extent, extent, 4096, most_ns, most_ns};
  for (int n = 0; n < ENTRY_WORDS - 3; ++n) {
    if (!places[n]) continue;
    const int is_request = n >= 9 && n <= 11, is_power = n >= 4 && n <= 6;
    const int64_t value = number(words[n + 3], most[n]);
    if (value < (is_request ? 0 : 1) || (is_power && (value & (value - 1)) != 0)) {
      snprintf(what, sizeof what, "is not %s", numbers[n]);
      return wrong(r, words[n + 3], what);
    }
    *places[n] = value;
  }
  if (e->of.is_decode != (e->of.queries <= FA_DECODE_ROWS))
    return wrong(r, words[7], e->of.is_decode ? "is more queries than decode has" : "is fewer queries than prefill has");
  return FA_OK;
}

static fa_status read_entries(reader *r, fa_tuning *tuning, int32_t room) {
  for (;;) {
    int is_there;
    fa_status status = next_line(r, &is_there);
    if (status != FA_OK || !is_there) return status;
    if (tuning->count == room) return wrong(r, "", "is one entry more than the 4096 a file may have");
    fa_tuning_entry_line *e = &tuning->entries[tuning->count];
    status = read_entry(r, e);
    if (status != FA_OK) return status;
    for (int32_t n = 0; n < tuning->count; ++n)
      if (memcmp(&tuning->entries[n].of, &e->of, sizeof e->of) == 0) {
        char what[64];
        snprintf(what, sizeof what, "begins an entry for what line %d is for", tuning->entries[n].line);
        return wrong(r, r->text, what);
      }
    ++tuning->count;
  }
}

/* -------------------------------------------------------------------- file */

/* is_used and why. */
static void compare_machine(fa_tuning *tuning, const char *const said[5], const fa_tuning_machine *m) {
  static const char *const names[] = {"version", "device", "processor", "instruction sets", "caches"};
  const char *const is[] = {fa_version(), m->device, m->processor, m->isa, m->caches};
  for (int n = 0; n < 5; ++n) {
    if (strcmp(said[n], is[n]) == 0) continue;
    snprintf(tuning->why, sizeof tuning->why, "not used: made for %s '%.100s', and here it is '%.100s'", names[n], said[n],
             is[n]);
    return;
  }
  tuning->is_used = 1;
  snprintf(tuning->why, sizeof tuning->why, "used, %d entries, each measured in both layouts (B,S,H,D and B,H,S,D)",
           tuning->count);
}

static fa_status parse(reader *r, fa_tuning *tuning, int32_t room, const fa_tuning_machine *machine) {
  char version[64], device[64], processor[256], isa[256], caches[256];
  int is_there;
  fa_status status = next_line(r, &is_there);
  if (status == FA_OK && (!is_there || strcmp(r->text, "fastattention tuning 2") != 0))
    status = wrong(r, is_there ? r->text : "", "stands where a tuning file begins 'fastattention tuning 2'");
  if (status == FA_OK) status = read_field(r, "version", version, sizeof version);
  if (status == FA_OK) status = read_field(r, "device", device, sizeof device);
  if (status == FA_OK) status = read_field(r, "processor", processor, sizeof processor);
  if (status == FA_OK) status = read_field(r, "isa", isa, sizeof isa);
  if (status == FA_OK) status = read_field(r, "caches", caches, sizeof caches);
  if (status == FA_OK) status = read_entries(r, tuning, room);
  if (status != FA_OK) return status;
  const char *const said[5] = {version, device, processor, isa, caches};
  compare_machine(tuning, said, machine);
  return FA_OK;
}

fa_status fa_tuning_parse(const fa_context *context, const char *path, const char *text, size_t size,
                          fa_tuning **tuning) {
  fa_tuning_machine machine;
  *tuning = NULL;
  fa_status status = fa_tuning_machine_of(context, &machine);
  if (status != FA_OK) return status;
  int64_t lines = 0; /* bounds the entries */
  for (size_t i = 0; i < size; ++i) lines += text[i] == '\n';
  const int32_t room = (int32_t)fa_min(lines, FA_TUNING_MOST_ENTRIES);
  fa_tuning *made = fa_host_allocate(context, sizeof *made + (size_t)room * sizeof made->entries[0]);
  if (!made) return FA_ERROR_MEMORY;
  memset(made, 0, sizeof *made);
  snprintf(made->path, sizeof made->path, "%s", short_path(path, sizeof made->path - 1));
  reader r = {.path = path, .at = text, .end = text + size};
  status = parse(&r, made, room, &machine);
  if (status != FA_OK) {
    fa_host_free(context, made);
    return status;
  }
  *tuning = made;
  return FA_OK;
}

static fa_status cannot_read(const char *path, const char *why) {
  return fa_fail(FA_ERROR_ARGUMENT, "tuning file '%s' cannot be read: %s; `fastattn tune --out FILE` writes one",
                 short_path(path, 200), why);
}

/* Not blocking: opening a pipe must not wait for somebody to write. */
static fa_status read_whole(const fa_context *context, const char *path, char **text, size_t *size) {
  struct stat about;
  *text = NULL;
  const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return cannot_read(path, strerror(errno));
  fa_status status = FA_OK;
  if (fstat(file, &about) != 0) status = cannot_read(path, strerror(errno));
  else if (!S_ISREG(about.st_mode)) status = cannot_read(path, "it is no regular file");
  if (status == FA_OK) {
    *text = fa_host_allocate(context, FA_TUNING_MOST_BYTES + 1);
    if (!*text) status = FA_ERROR_MEMORY;
  }
  while (status == FA_OK && *size <= FA_TUNING_MOST_BYTES) {
    const ssize_t got = read(file, *text + *size, FA_TUNING_MOST_BYTES + 1 - *size);
    if (got == 0) break;
    if (got > 0) *size += (size_t)got;
    else if (errno != EINTR) status = cannot_read(path, strerror(errno));
  }
  if (status == FA_OK && *size > FA_TUNING_MOST_BYTES) status = cannot_read(path, "it is larger than 1 MiB");
  close(file);
  return status;
}

fa_status fa_context_load_tuning(fa_context *context, const char *path) {
  if (!context) return fa_fail(FA_ERROR_ARGUMENT, "fa_context_load_tuning: context is NULL");
  fa_tuning *made = NULL;
  if (path) {
    char *text;
    size_t size = 0;
    fa_status status = read_whole(context, path, &text, &size);
    if (status == FA_OK) status = fa_tuning_parse(context, path, text, size, &made);
    fa_host_free(context, text);
    if (status != FA_OK) return status;
  }
  fa_host_free(context, context->tuning);
  context->tuning = made;
  return FA_OK;
}
