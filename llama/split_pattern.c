/* Regular expressions of tokenizer.json are Oniguruma's. What means the same to PCRE2 is copied, \s is spelt
 * out, and what means, or may mean, another thing is refused. */
#include <stdio.h>
#include <string.h>

#include "llama_error.h"
#include "pretokenizer.h"
#include "tokenizer_json.h"

typedef struct translation {
  const char *name, *given, *at;
  char *out;
  size_t left;
  bool in_class;
} translation;

static bool put(translation *t, const char *text, size_t length) {
  if (length > t->left) return false;
  memcpy(t->out, text, length);
  t->out += length;
  t->left -= length;
  return true;
}

static bool put_text(translation *t, const char *text) { return put(t, text, strlen(text)); }

/* Copies `length` characters as they are. */
static bool copy(translation *t, size_t length) {
  const bool room = put(t, t->at, length);
  t->at += length;
  return room;
}

static const char hexadecimal[] = "0123456789abcdefABCDEF";

static bool escape(translation *t) {
  const char letter = t->at[1];
  if (letter == 's' || (letter == 'S' && !t->in_class)) {
    t->at += 2;
    if (t->in_class) return put_text(t, FA_SPLIT_SPACES);
    return put_text(t, letter == 's' ? "[" FA_SPLIT_SPACES "]" : "[^" FA_SPLIT_SPACES "]");
  }
  if (letter == 'p' || letter == 'P') {
    const size_t length =
        t->at[2] == '{' ? strspn(t->at + 3, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") : 0;
    return length && t->at[3 + length] == '}' && copy(t, 4 + length);
  }
  if (letter == 'x') {
    const size_t length = t->at[2] == '{' ? strspn(t->at + 3, hexadecimal) : 0;
    return length && length <= 6 && t->at[3 + length] == '}' && copy(t, 4 + length);
  }
  if (letter == 'u') {
    char code[16];
    if (strspn(t->at + 2, hexadecimal) < 4) return false;
    snprintf(code, sizeof code, "\\x{%.4s}", t->at + 2);
    t->at += 6;
    return put_text(t, code);
  }
  return letter && strchr("dDrntf.^$|()[]{}*+?-/\\'\"!#%&,:;<=>@_`~ ", letter) && copy(t, 2);
}

/* {n}, {n,} or {n,m}; what follows one means different things. */
static bool repetition(translation *t) {
  size_t length = 1 + strspn(t->at + 1, "0123456789");
  if (length == 1) return false;
  if (t->at[length] == ',') length += 1 + strspn(t->at + length + 1, "0123456789");
  return t->at[length] == '}' && t->at[length + 1] != '+' && t->at[length + 1] != '?' && copy(t, length + 1);
}

static bool group(translation *t) {
  static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?i:", "(?<=", "(?<!", "(?>"};
  if (t->at[1] == '*') return false;
  if (t->at[1] != '?') return copy(t, 1);
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strncmp(t->at, kinds[i], strlen(kinds[i])) == 0) return copy(t, strlen(kinds[i]));
  }
  return false;
}

static bool step(translation *t) {
  const char c = *t->at;
  if (c == '\\') return escape(t);
  if (t->in_class) {
    if (c == '[' || (c == '&' && t->at[1] == '&')) return false; /* classes in classes */
    t->in_class = c != ']';
    return copy(t, 1);
  }
  switch (c) {
    case '[':
      t->in_class = true;
      if (t->at[1] == ']' || (t->at[1] == '^' && t->at[2] == ']')) return false;
      return copy(t, t->at[1] == '^' ? 2 : 1);
    case '(':
      return group(t);
    case '{':
      return repetition(t);
    case '^':
    case '$':
      return false;
    default:
      return copy(t, 1);
  }
}

fa_status fa_pattern_translate(const char *name, const char *given, char *pattern) {
  translation t = {name, given, given, pattern, FA_SPLIT_PATTERN, false};
  while (*t.at) {
    const char *here = t.at;
    if (!step(&t)) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                           "%s: the expression '%.200s' is not one that is done here (from '%.20s' on)", name,
                           given, here);
    }
  }
  *t.out = '\0';
  return FA_OK;
}
