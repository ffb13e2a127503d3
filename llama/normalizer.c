#include "normalizer.h"

#include <stdlib.h>
#include <string.h>

#if FA_HAVE_UTF8PROC
#include <utf8proc.h>
#endif

#include "llama_error.h"

fa_status fa_normalizer_add(fa_normalizer *normalizer, fa_normal_kind kind, const char *from,
                            const char *to) {
#if !FA_HAVE_UTF8PROC
  if (kind == FA_NORMAL_NFC) {
    return fa_llama_fail(
        FA_ERROR_UNSUPPORTED,
        "the tokenizer composes characters (NFC); this build has no utf8proc, which does it");
  }
#endif
  if (normalizer->count == FA_NORMAL_STEPS) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED, "the tokenizer's normalizer has more than %d steps",
                         FA_NORMAL_STEPS);
  }
  struct fa_normal_step *step = &normalizer->steps[normalizer->count++];
  step->kind = kind;
  step->from = strdup(from ? from : "");
  step->to = strdup(to ? to : "");
  if (!step->from || !step->to) return fa_llama_out_of_memory("the normalizer");
  step->from_length = strlen(step->from);
  step->to_length = strlen(step->to);
  return FA_OK;
}

static bool found_at(const struct fa_normal_step *step, const char *text, size_t left) {
  return step->from_length <= left && memcmp(text, step->from, step->from_length) == 0;
}

static fa_status replace(const struct fa_normal_step *step, const char *text, size_t length, char **changed,
                         size_t *changed_length) {
  size_t found = 0, written = 0;
  for (size_t at = 0; at < length;) {
    const bool here = found_at(step, text + at, length - at);
    found += here;
    at += here ? step->from_length : 1;
  }
  if (step->to_length && found > (SIZE_MAX / 2 - length) / step->to_length)
    return fa_llama_out_of_memory("the text");
  char *out = *changed = malloc(length + found * step->to_length + 1);
  if (!out) return fa_llama_out_of_memory("the text");
  for (size_t at = 0; at < length;) {
    if (found_at(step, text + at, length - at)) {
      memcpy(out + written, step->to, step->to_length);
      written += step->to_length;
      at += step->from_length;
    } else {
      out[written++] = text[at++];
    }
  }
  *changed_length = written;
  return FA_OK;
}

static fa_status prepend(const struct fa_normal_step *step, bool wanted, const char *text, size_t length,
                         char **changed, size_t *changed_length) {
  const size_t head = wanted && length ? step->to_length : 0;
  *changed = length <= SIZE_MAX - 1 - head ? malloc(head + length + 1) : NULL;
  if (!*changed) return fa_llama_out_of_memory("the text");
  if (head) memcpy(*changed, step->to, head);
  if (length) memcpy(*changed + head, text, length);
  *changed_length = head + length;
  return FA_OK;
}

#if FA_HAVE_UTF8PROC
static fa_status compose(const char *text, size_t length, char **changed, size_t *changed_length) {
  utf8proc_uint8_t *out;
  const utf8proc_ssize_t written =
      utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &out,
                   (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (written < 0) {
    return fa_llama_fail(FA_ERROR_MEMORY, "cannot compose %zu bytes of text: %s", length,
                         utf8proc_errmsg(written));
  }
  *changed = (char *)out;
  *changed_length = (size_t)written;
  return FA_OK;
}
#endif

static fa_status apply(const struct fa_normal_step *step, const char *text, size_t length, bool first,
                       char **changed, size_t *changed_length) {
  const bool begins = step->to_length <= length && memcmp(text, step->to, step->to_length) == 0;
  switch (step->kind) {
    case FA_NORMAL_REPLACE:
      return replace(step, text, length, changed, changed_length);
#if FA_HAVE_UTF8PROC
    case FA_NORMAL_NFC:
      return compose(text, length, changed, changed_length);
#endif
    case FA_NORMAL_PREPEND_ONCE:
      return prepend(step, !begins, text, length, changed, changed_length);
    case FA_NORMAL_PREPEND_FIRST:
      return prepend(step, first && !begins, text, length, changed, changed_length);
    default:
      return prepend(step, true, text, length, changed, changed_length);
  }
}

fa_status fa_normalizer_apply(const fa_normalizer *normalizer, const char *text, size_t length, bool first,
                              char **changed, size_t *changed_length) {
  char *held = NULL;
  size_t held_length = length;
  for (int i = 0; i < normalizer->count; i++) {
    char *next = NULL;
    size_t next_length = 0;
    const fa_status status =
        apply(&normalizer->steps[i], held ? held : text, held_length, first, &next, &next_length);
    free(held);
    if (status != FA_OK) return status;
    held = next;
    held_length = next_length;
  }
  *changed = held;
  *changed_length = held_length;
  return FA_OK;
}

void fa_normalizer_release(fa_normalizer *normalizer) {
  for (int i = 0; i < normalizer->count; i++) {
    free(normalizer->steps[i].from);
    free(normalizer->steps[i].to);
  }
  memset(normalizer, 0, sizeof *normalizer);
}
