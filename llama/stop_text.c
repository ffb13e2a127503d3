/* Every stop string is matched by Knuth, Morris and Pratt's automaton, so a byte costs the same whatever came before;
 * held back is as much as the longest beginning that the text ends in. */
#include "stop_text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "utf8.h"

enum { MOST_REPAIRED = 3, CHARACTER = 4 };

typedef struct stop {
  const char *bytes;
  size_t length;
  size_t *border; /* [length] of the first n + 1 bytes: the longest proper beginning that is also their end */
  size_t matched; /* bytes of it that the text ends in, less than length */
} stop;

struct fa_stop_text {
  stop *stops; /* [count] */
  int count, stopped_by;
  char *bytes;      /* of all stops */
  size_t *borders;  /* of all stops */
  char *held;       /* [capacity], in use from begin to end */
  size_t capacity, begin, end;
  size_t most_held;
};

static void find_borders(stop *s) {
  size_t border = s->border[0] = 0;
  for (size_t n = 1; n < s->length; n++) {
    while (border && s->bytes[n] != s->bytes[border]) border = s->border[border - 1];
    if (s->bytes[n] == s->bytes[border]) border++;
    s->border[n] = border;
  }
}

/* Whether the stop string ends with this byte. */
static bool advance(stop *s, char byte) {
  while (s->matched && s->bytes[s->matched] != byte) s->matched = s->border[s->matched - 1];
  if (s->bytes[s->matched] == byte) s->matched++;
  return s->matched == s->length;
}

fa_status fa_stop_text_create(const char *const *stops, int count, fa_stop_text **result) {
  *result = NULL;
  if (count < 0) return fa_llama_fail(FA_ERROR_ARGUMENT, "%d stop strings; there must be at least 0", count);
  size_t total = 0, longest = 0;
  for (int n = 0; n < count; n++) {
    const size_t length = stops[n] ? strlen(stops[n]) : 0;
    if (length == 0) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "stop string %d is empty; it must have at least one byte", n + 1);
    }
    if (length > SIZE_MAX / 64 - total) return fa_llama_out_of_memory("the stop strings");
    total += length;
    if (length > longest) longest = length;
  }
  fa_stop_text *text = calloc(1, sizeof *text);
  if (!text) return fa_llama_out_of_memory("the stop strings");
  text->count = count;
  text->most_held = (longest ? longest - 1 : 0) + CHARACTER - 1;
  text->capacity = 2 * text->most_held + 2; /* half of it moves when the other half is full */
  text->stops = calloc((size_t)count + 1, sizeof *text->stops);
  text->bytes = malloc(total + 1);
  text->borders = malloc((total + 1) * sizeof *text->borders);
  text->held = malloc(text->capacity);
  if (!text->stops || !text->bytes || !text->borders || !text->held) {
    fa_stop_text_free(text);
    return fa_llama_out_of_memory("the stop strings");
  }
  size_t at = 0;
  for (int n = 0; n < count; n++) {
    stop *s = &text->stops[n];
    s->length = strlen(stops[n]);
    memcpy(text->bytes + at, stops[n], s->length);
    s->bytes = text->bytes + at;
    s->border = text->borders + at;
    at += s->length;
    find_borders(s);
  }
  fa_stop_text_restart(text);
  *result = text;
  return FA_OK;
}

void fa_stop_text_free(fa_stop_text *text) {
  if (!text) return;
  free(text->stops);
  free(text->bytes);
  free(text->borders);
  free(text->held);
  free(text);
}

void fa_stop_text_restart(fa_stop_text *text) {
  for (int n = 0; n < text->count; n++) text->stops[n].matched = 0;
  text->begin = text->end = 0;
  text->stopped_by = -1;
}

size_t fa_stop_text_room(const fa_stop_text *text, size_t length) {
  return MOST_REPAIRED * (text->most_held + length) + 1;
}

int fa_stop_text_stopped_by(const fa_stop_text *text) { return text->stopped_by; }

/* Shows held bytes but the last `keep`; an unfinished character at their end stays too, unless the text ends there. */
static size_t show(fa_stop_text *text, size_t keep, bool ends, char *shown) {
  const size_t end = text->end - keep;
  size_t written = 0;
  while (text->begin < end) {
    uint32_t code;
    size_t invalid;
    const char *at = text->held + text->begin;
    const size_t length = fa_utf8_decode(at, end - text->begin, &code, &invalid);
    const unsigned char lead = (unsigned char)*at;
    /* All there is of it is right so far, and more belongs to it. */
    const bool unfinished = !length && invalid == end - text->begin && lead >= 0xc2 && lead < 0xf5;
    if (unfinished && !ends) break;
    written += fa_utf8_encode(length ? code : 0xfffd, shown + written);
    text->begin += length ? length : invalid;
  }
  return written;
}

static void hold(fa_stop_text *text, char byte) {
  if (text->end == text->capacity) {
    memmove(text->held, text->held + text->begin, text->end - text->begin);
    text->end -= text->begin;
    text->begin = 0;
  }
  text->held[text->end++] = byte;
}

/* The text ends before the last `without` held bytes. */
static size_t finish(fa_stop_text *text, size_t without, char *shown) {
  const size_t written = show(text, without, true, shown);
  text->begin = text->end = 0;
  return written;
}

size_t fa_stop_text_feed(fa_stop_text *text, const char *bytes, size_t length, char *shown) {
  size_t written = 0;
  for (size_t i = 0; i < length && text->stopped_by < 0; i++) {
    size_t keep = 0, stopped = 0;
    hold(text, bytes[i]);
    for (int n = 0; n < text->count; n++) {
      stop *s = &text->stops[n];
      if (advance(s, bytes[i]) && s->length > stopped) {
        stopped = s->length;
        text->stopped_by = n;
      }
      if (s->matched > keep) keep = s->matched;
    }
    written += stopped ? finish(text, stopped, shown + written) : show(text, keep, false, shown + written);
  }
  shown[written] = '\0';
  return written;
}

size_t fa_stop_text_flush(fa_stop_text *text, char *shown) {
  const size_t written = finish(text, 0, shown);
  for (int n = 0; n < text->count; n++) text->stops[n].matched = 0;
  shown[written] = '\0';
  return written;
}
