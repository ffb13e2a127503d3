/* Each pre-tokenizer is one regular expression, or several, each of which works within the parts the one
 * before it made (as "Digits" before "ByteLevel" does). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pretokenizer.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"

#define SPACES FA_SPLIT_SPACES
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

/* Backtracking a match may do, for expressions out of files, and the same for each byte of text, for runs of
 * white space that an expression walks back over: more than any real one needs, far less than hours. */
enum { MATCH_LIMIT = 1000000, MATCH_LIMIT_PER_BYTE = 8 };

struct fa_pretokenizer {
  struct step {
    pcre2_code *code;
    fa_split_behaviour behaviour;
  } steps[FA_SPLIT_STEPS];
  int count;
  bool whole_tokens;
};

fa_status fa_pretokenizer_create_empty(fa_pretokenizer **pretokenizer) {
  *pretokenizer = calloc(1, sizeof **pretokenizer);
  return *pretokenizer ? FA_OK : fa_llama_out_of_memory("the pre-tokenizer");
}

fa_status fa_pretokenizer_add(fa_pretokenizer *pretokenizer, const char *pattern,
                              fa_split_behaviour behaviour) {
  int error;
  PCRE2_SIZE where;
  if (pretokenizer->count == FA_SPLIT_STEPS || strlen(pattern) > FA_SPLIT_PATTERN) {
    return fa_llama_fail(
        FA_ERROR_UNSUPPORTED,
        "the tokenizer cuts text by more than %d expressions, or by one of more than %d bytes",
        FA_SPLIT_STEPS, FA_SPLIT_PATTERN);
  }
  pcre2_code *code =
      pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &where, NULL);
  if (!code) {
    PCRE2_UCHAR said[120] = "";
    pcre2_get_error_message(error, said, sizeof said);
    return fa_llama_fail(error == PCRE2_ERROR_HEAP_FAILED ? FA_ERROR_MEMORY : FA_ERROR_UNSUPPORTED,
                         "the tokenizer's expression '%.200s' does not compile: %s", pattern,
                         (const char *)said);
  }
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where there is no JIT it is interpreted */
  pretokenizer->steps[pretokenizer->count++] = (struct step){code, behaviour};
  return FA_OK;
}

fa_status fa_pretokenizer_add_gpt2(fa_pretokenizer *pretokenizer) {
  return fa_pretokenizer_add(pretokenizer, GPT2, FA_SPLIT_ISOLATED);
}

fa_status fa_pretokenizer_create(fa_gguf_string name, fa_pretokenizer **result) {
  for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
    const struct family *family = &families[i];
    if (!fa_gguf_string_is(name, family->name)) continue;
    fa_pretokenizer *pretokenizer;
    fa_status status = fa_pretokenizer_create_empty(&pretokenizer);
    if (status != FA_OK) return status;
    pretokenizer->whole_tokens = family->whole_tokens;
    if (family->isolate) status = fa_pretokenizer_add(pretokenizer, family->isolate, FA_SPLIT_ISOLATED);
    if (status == FA_OK) status = fa_pretokenizer_add(pretokenizer, family->split, FA_SPLIT_ISOLATED);
    if (status != FA_OK) {
      fa_pretokenizer_free(pretokenizer);
      return status;
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
  for (int i = 0; i < pretokenizer->count; i++) pcre2_code_free(pretokenizer->steps[i].code);
  free(pretokenizer);
}

bool fa_pretokenizer_whole_tokens(const fa_pretokenizer *pretokenizer) { return pretokenizer->whole_tokens; }

/* One text being cut: a match block for each step, which are nested. */
typedef struct cutter {
  const fa_pretokenizer *pretokenizer;
  pcre2_match_data *matches[FA_SPLIT_STEPS];
  pcre2_match_context *limits;
  fa_piece_function piece;
  void *user;
} cutter;

/* begin == end where there is no match. The text is valid UTF-8 and every match begins and ends between
 * characters. */
static fa_status next_match(const cutter *cut, int step, const char *text, size_t length, size_t at,
                            size_t *begin, size_t *end) {
  const pcre2_code *code = cut->pretokenizer->steps[step].code;
  pcre2_match_data *match = cut->matches[step];
  for (;;) {
    int found = pcre2_match(code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, match, cut->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match,
                          cut->limits);
    }
    *begin = *end = length;
    if (found == PCRE2_ERROR_NOMATCH) return FA_OK;
    if (found < 0) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                           "the pre-tokenizer's expression failed on %zu bytes of text (PCRE2 error %d)",
                           length, found);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match);
    *begin = place[0];
    *end = place[1];
    if (*end > *begin && *begin >= at) return FA_OK;
    /* An empty match cuts nothing; look on behind the next character. */
    at = (*begin > at ? *begin : at) + 1;
    while (at < length && ((unsigned char)text[at] & 0xc0) == 0x80) at++;
    if (at >= length) {
      *begin = *end = length;
      return FA_OK;
    }
  }
}

static fa_status cut_from(const cutter *cut, int step, const char *text, size_t length) {
  if (step == cut->pretokenizer->count) return cut->piece(cut->user, text, length);
  const fa_split_behaviour behaviour = cut->pretokenizer->steps[step].behaviour;
  fa_status status = FA_OK;
  for (size_t at = 0, begin, end; at < length && status == FA_OK; at = end) {
    status = next_match(cut, step, text, length, at, &begin, &end);
    if (status != FA_OK) break;
    const size_t between = behaviour == FA_SPLIT_MERGED_WITH_PREVIOUS ? end : begin;
    if (between > at && behaviour != FA_SPLIT_KEPT_ALONE)
      status = cut_from(cut, step + 1, text + at, between - at);
    if (status == FA_OK && end > begin &&
        (behaviour == FA_SPLIT_ISOLATED || behaviour == FA_SPLIT_KEPT_ALONE)) {
      status = cut_from(cut, step + 1, text + begin, end - begin);
    }
  }
  return status;
}

fa_status fa_pretokenizer_split(const fa_pretokenizer *pretokenizer, const char *text, size_t length,
                                fa_piece_function piece, void *user) {
  cutter cut = {.pretokenizer = pretokenizer, .piece = piece, .user = user};
  cut.limits = pcre2_match_context_create(NULL);
  bool whole = cut.limits != NULL;
  for (int i = 0; i < pretokenizer->count; i++) {
    cut.matches[i] = pcre2_match_data_create(1, NULL);
    whole = whole && cut.matches[i];
  }
  fa_status status = FA_OK;
  if (!whole) {
    status = fa_llama_out_of_memory("the pre-tokenizer");
  } else {
    const size_t room = (UINT32_MAX - MATCH_LIMIT) / MATCH_LIMIT_PER_BYTE;
    pcre2_set_match_limit(cut.limits,
                          MATCH_LIMIT + MATCH_LIMIT_PER_BYTE * (uint32_t)(length < room ? length : room));
    status = cut_from(&cut, 0, text, length);
  }
  for (int i = 0; i < pretokenizer->count; i++) pcre2_match_data_free(cut.matches[i]);
  pcre2_match_context_free(cut.limits);
  return status;
}
