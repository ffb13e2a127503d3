/* Each pre-tokenizer is one regular expression, or two where the first isolates what it matches and the
 * second works within the parts (as "Digits" before "ByteLevel" does). What no expression matches is a piece
 * of its own. White space is spelt out, because PCRE2's \s with UCP also takes U+180E, which Unicode took out
 * of White_Space in version 6.3 and the reference's \s therefore does not match. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pretokenizer.h"

#include <pcre2.h>
#include <stdlib.h>

#include "llama_error.h"

#define SPACES                                                                                             \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
  "3000}"
#define SPACE "[" SPACES "]"
#define NOT_SPACE "[^" SPACES "]"
#define TRAILING_SPACE SPACE "+(?!" NOT_SPACE ")|" SPACE "+"

#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|" TRAILING_SPACE
/* Llama 3 takes up to three digits at a time, Qwen 2 one. */
#define LLAMA3(digits)                                                                \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACES \
  "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE

static const struct family {
  const char *name;
  const char *isolate; /* NULL: one expression only */
  const char *split;
  bool whole_tokens;
} families[] = {
    {"gpt-2", NULL, GPT2, false},
    {"default", NULL, GPT2, false},
    {"smollm", "\\p{N}", GPT2, false},
    {"llama-bpe", NULL, LLAMA3("\\p{N}{1,3}"), true},
    {"llama3", NULL, LLAMA3("\\p{N}{1,3}"), true},
    {"qwen2", NULL, LLAMA3("\\p{N}"), false},
};

struct fa_pretokenizer {
  pcre2_code *isolate;
  pcre2_code *split;
  bool whole_tokens;
};

static pcre2_code *compile(const char *pattern) {
  int error;
  PCRE2_SIZE where;
  pcre2_code *code =
      pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &where, NULL);
  if (code) (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where there is no JIT it is interpreted */
  return code;
}

fa_status fa_pretokenizer_create(fa_gguf_string name, fa_pretokenizer **result) {
  for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
    const struct family *family = &families[i];
    if (!fa_gguf_string_is(name, family->name)) continue;
    fa_pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
    if (!pretokenizer) return fa_llama_out_of_memory("the pre-tokenizer");
    pretokenizer->whole_tokens = family->whole_tokens;
    pretokenizer->split = compile(family->split);
    if (family->isolate) pretokenizer->isolate = compile(family->isolate);
    if (!pretokenizer->split || (family->isolate && !pretokenizer->isolate)) {
      fa_pretokenizer_free(pretokenizer);
      return fa_llama_out_of_memory("the pre-tokenizer's expressions");
    }
    *result = pretokenizer;
    return FA_OK;
  }
  return fa_llama_fail(
      FA_ERROR_UNSUPPORTED,
      "tokenizer.ggml.pre is '%.*s'; known here are gpt-2, default, smollm, llama-bpe, llama3, qwen2",
      name.length < 100 ? (int)name.length : 100, name.bytes);
}

void fa_pretokenizer_free(fa_pretokenizer *pretokenizer) {
  if (!pretokenizer) return;
  pcre2_code_free(pretokenizer->isolate);
  pcre2_code_free(pretokenizer->split);
  free(pretokenizer);
}

bool fa_pretokenizer_whole_tokens(const fa_pretokenizer *pretokenizer) { return pretokenizer->whole_tokens; }

typedef struct emitter {
  pcre2_code *next; /* applied within each piece; NULL: hand it on */
  pcre2_match_data *match;
  fa_piece_function piece;
  void *user;
} emitter;

static fa_status split(const pcre2_code *code, pcre2_match_data *match, const char *text, size_t length,
                       fa_piece_function piece, void *user) {
  fa_status status = FA_OK;
  size_t at = 0;
  while (at < length && status == FA_OK) {
    /* The caller's text is valid UTF-8 and every match begins and ends between characters. */
    const int found = pcre2_match(code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, match, NULL);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
      return fa_llama_fail(FA_ERROR_MEMORY,
                           "the pre-tokenizer's expression failed on %zu bytes of text (PCRE2 error %d)",
                           length, found);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match);
    const size_t begin = found < 0 ? length : place[0], end = found < 0 ? length : place[1];
    if (begin > at) status = piece(user, text + at, begin - at);
    if (end > begin && status == FA_OK) status = piece(user, text + begin, end - begin);
    at = end;
  }
  return status;
}

static fa_status split_part(void *user, const char *bytes, size_t length) {
  const emitter *emit = user;
  return split(emit->next, emit->match, bytes, length, emit->piece, emit->user);
}

fa_status fa_pretokenizer_split(const fa_pretokenizer *pretokenizer, const char *text, size_t length,
                                fa_piece_function piece, void *user) {
  pcre2_match_data *match = pcre2_match_data_create(1, NULL);
  pcre2_match_data *inner = pcre2_match_data_create(1, NULL);
  fa_status status;
  if (!match || !inner) {
    status = fa_llama_out_of_memory("the pre-tokenizer");
  } else if (pretokenizer->isolate) {
    emitter emit = {pretokenizer->split, inner, piece, user};
    status = split(pretokenizer->isolate, match, text, length, split_part, &emit);
  } else {
    status = split(pretokenizer->split, match, text, length, piece, user);
  }
  pcre2_match_data_free(match);
  pcre2_match_data_free(inner);
  return status;
}
