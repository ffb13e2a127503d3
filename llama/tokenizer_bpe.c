/* Byte-level BPE: text -> pieces (pretokenizer) -> bytes -> the pair of neighbours with the lowest merge rank
 * is joined until none is left. A heap of candidate pairs over a linked list makes a piece of n bytes cost n
 * log n. */
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "tokenizer.h"
#include "utf8.h"

fa_status fa_token_list_append(fa_token_list *list, int32_t id) {
  if (list->count == list->capacity) {
    const int64_t capacity = list->capacity ? 2 * list->capacity : 64;
    int32_t *ids = realloc(list->ids, (size_t)capacity * sizeof *ids);
    if (!ids) return fa_llama_out_of_memory("the tokens");
    list->ids = ids;
    list->capacity = capacity;
  }
  list->ids[list->count++] = id;
  return FA_OK;
}

void fa_token_list_free(fa_token_list *list) {
  free(list->ids);
  memset(list, 0, sizeof *list);
}

/* ------------------------------------------------------------------------ merging */

typedef struct symbol {
  int32_t id;             /* -1: joined into an earlier one */
  int32_t previous, next; /* -1 at the ends */
} symbol;

typedef struct candidate {
  int32_t rank, left, right; /* symbols */
  int32_t left_id, right_id; /* as they were; a candidate whose symbols have changed is stale */
  int32_t result;
} candidate;

typedef struct merger {
  const fa_tokenizer *tokenizer;
  fa_token_list *list;
  symbol *symbols;
  candidate *heap;
  int64_t heap_count;
  size_t capacity; /* symbols there is room for; candidates: twice as many */
} merger;

/* Lowest rank first, leftmost among equals. */
static bool before(const candidate *a, const candidate *b) {
  return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void push(merger *m, candidate added) {
  int64_t at = m->heap_count++;
  while (at > 0 && before(&added, &m->heap[(at - 1) / 2])) {
    m->heap[at] = m->heap[(at - 1) / 2];
    at = (at - 1) / 2;
  }
  m->heap[at] = added;
}

static candidate pop(merger *m) {
  const candidate top = m->heap[0], moved = m->heap[--m->heap_count];
  int64_t at = 0;
  for (int64_t child; (child = 2 * at + 1) < m->heap_count; at = child) {
    if (child + 1 < m->heap_count && before(&m->heap[child + 1], &m->heap[child])) child++;
    if (!before(&m->heap[child], &moved)) break;
    m->heap[at] = m->heap[child];
  }
  m->heap[at] = moved;
  return top;
}

static void consider(merger *m, int32_t left, int32_t right) {
  if (left < 0 || right < 0) return;
  const int32_t left_id = m->symbols[left].id, right_id = m->symbols[right].id;
  const fa_bpe_merge *merge = fa_vocabulary_merge(&m->tokenizer->vocabulary, left_id, right_id);
  if (merge) push(m, (candidate){merge->rank, left, right, left_id, right_id, merge->result});
}

static fa_status reserve(merger *m, size_t symbols) {
  if (symbols <= m->capacity) return FA_OK;
  if (symbols > INT32_MAX / 4) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "a word of %zu bytes in the text; up to %d are allowed", symbols,
                         INT32_MAX / 4);
  }
  const size_t capacity = symbols < 256 ? 256 : 2 * symbols;
  symbol *list = realloc(m->symbols, capacity * sizeof *list);
  if (list) m->symbols = list;
  /* n symbols push n - 1 candidates, and each of at most n - 1 joins up to two more. */
  candidate *heap = list ? realloc(m->heap, 3 * capacity * sizeof *heap) : NULL;
  if (heap) m->heap = heap;
  if (!list || !heap) return fa_llama_out_of_memory("a long word");
  m->capacity = capacity;
  return FA_OK;
}

static fa_status append_whole(merger *m, const char *bytes, size_t length, bool *found) {
  char name[512];
  size_t written = 0;
  *found = false;
  if (length > sizeof name / 2) return FA_OK;
  for (size_t i = 0; i < length; i++)
    written += fa_utf8_encode(fa_byte_alphabet((uint8_t)bytes[i]), name + written);
  const int32_t id = fa_vocabulary_id(&m->tokenizer->vocabulary, name, written);
  *found = id >= 0;
  return id >= 0 ? fa_token_list_append(m->list, id) : FA_OK;
}

static fa_status encode_piece(void *user, const char *bytes, size_t length) {
  merger *m = user;
  bool whole = false;
  fa_status status = reserve(m, length);
  if (status == FA_OK && fa_pretokenizer_whole_tokens(m->tokenizer->pretokenizer)) {
    status = append_whole(m, bytes, length, &whole);
  }
  if (status != FA_OK || whole) return status;
  int32_t count = 0;
  for (size_t i = 0; i < length; i++) {
    const int32_t id = m->tokenizer->vocabulary.byte_ids[(uint8_t)bytes[i]];
    if (id < 0) continue;
    m->symbols[count] = (symbol){id, count - 1, count + 1};
    count++;
  }
  if (count == 0) return FA_OK;
  m->symbols[count - 1].next = -1;
  m->heap_count = 0;
  for (int32_t i = 0; i + 1 < count; i++) consider(m, i, i + 1);
  while (m->heap_count > 0) {
    const candidate best = pop(m);
    symbol *left = &m->symbols[best.left], *right = &m->symbols[best.right];
    if (left->id != best.left_id || right->id != best.right_id || left->next != best.right) continue;
    left->id = best.result;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) m->symbols[left->next].previous = best.left;
    consider(m, left->previous, best.left);
    consider(m, best.left, left->next);
  }
  for (int32_t i = 0; i >= 0 && status == FA_OK; i = m->symbols[i].next) {
    status = fa_token_list_append(m->list, m->symbols[i].id);
  }
  return status;
}

/* Text without special tokens. Runs of valid UTF-8 and replacement characters make one text for the splitter.
 */
static fa_status encode_text(merger *m, const char *text, size_t length) {
  size_t at = 0, step = 1;
  uint32_t code;
  while (at < length && (step = fa_utf8_decode(text + at, length - at, &code, NULL)) > 0) at += step;
  if (at == length) return fa_pretokenizer_split(m->tokenizer->pretokenizer, text, length, encode_piece, m);
  char *repaired = length < SIZE_MAX / 4 ? malloc(3 * length + 1) : NULL;
  if (!repaired) return fa_llama_out_of_memory("the text");
  const size_t repaired_length = fa_utf8_repair(text, length, repaired);
  const fa_status status =
      fa_pretokenizer_split(m->tokenizer->pretokenizer, repaired, repaired_length, encode_piece, m);
  free(repaired);
  return status;
}

static bool is_special(const fa_token *token) {
  return token->type == FA_TOKEN_CONTROL || token->type == FA_TOKEN_USER_DEFINED;
}

/* The special token with the longest name that `text` begins with, or -1. */
static int32_t special_at(const fa_tokenizer *tokenizer, const char *text, size_t length) {
  if (!tokenizer->special_begins[(uint8_t)text[0]]) return -1;
  for (int i = 0; i < tokenizer->special_length_count; i++) {
    const size_t tried = (size_t)tokenizer->special_lengths[i];
    const int32_t id = tried <= length ? fa_vocabulary_id(&tokenizer->vocabulary, text, tried) : -1;
    if (id >= 0 && is_special(&tokenizer->vocabulary.tokens[id])) return id;
  }
  return -1;
}

fa_status fa_tokenizer_encode(const fa_tokenizer *tokenizer, const char *text, size_t length, unsigned how,
                              fa_token_list *list) {
  merger m = {tokenizer, list, NULL, NULL, 0, 0};
  fa_status status = FA_OK;
  if ((how & FA_ENCODE_BOS) && tokenizer->add_bos) status = fa_token_list_append(list, tokenizer->bos);
  size_t begin = 0;
  if (how & FA_ENCODE_SPECIAL) {
    for (size_t at = 0; at < length && status == FA_OK;) {
      const int32_t id = special_at(tokenizer, text + at, length - at);
      if (id < 0) {
        at++;
        continue;
      }
      if (at > begin) status = encode_text(&m, text + begin, at - begin);
      if (status == FA_OK) status = fa_token_list_append(list, id);
      begin = at += tokenizer->vocabulary.tokens[id].name.length;
    }
  }
  if (begin < length && status == FA_OK) status = encode_text(&m, text + begin, length - begin);
  free(m.symbols);
  free(m.heap);
  return status;
}

/* ------------------------------------------------------------------ loading, asking */

static void add_end(fa_tokenizer *tokenizer, int32_t id) {
  if (id < 0 || fa_tokenizer_is_end(tokenizer, id)) return;
  if (tokenizer->end_count < (int)(sizeof tokenizer->ends / sizeof tokenizer->ends[0])) {
    tokenizer->ends[tokenizer->end_count++] = id;
  }
}

/* Turn and text ends of the families, where the vocabulary has them as control tokens: files often name only
 * one. */
static fa_status load_ends(const fa_gguf *gguf, fa_tokenizer *tokenizer) {
  static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
  static const char *const names[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>",
                                      "<|end_of_text|>"};
  const int64_t last = tokenizer->vocabulary.count - 1;
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
    int64_t id = -1;
    const fa_status status = fa_gguf_integer(gguf, keys[i], false, 0, last, &id);
    if (status != FA_OK) return status;
    add_end(tokenizer, (int32_t)id);
  }
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const int32_t id = fa_vocabulary_id(&tokenizer->vocabulary, names[i], strlen(names[i]));
    if (id >= 0 && fa_tokenizer_is_control(tokenizer, id)) add_end(tokenizer, id);
  }
  return FA_OK;
}

static fa_status load_specials(fa_tokenizer *tokenizer) {
  enum { LONGEST = sizeof tokenizer->special_lengths / sizeof tokenizer->special_lengths[0] };
  bool has_length[LONGEST + 1] = {false};
  for (int32_t id = 0; id < tokenizer->vocabulary.count; id++) {
    const fa_token *token = &tokenizer->vocabulary.tokens[id];
    if (!is_special(token) || token->name.length == 0) continue;
    if (token->name.length > LONGEST) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                           "token %d is a control token of %zu bytes; up to %d are done here", id,
                           token->name.length, (int)LONGEST);
    }
    has_length[token->name.length] = true;
    tokenizer->special_begins[(uint8_t)token->name.bytes[0]] = true;
  }
  for (int length = LONGEST; length > 0; length--) {
    if (has_length[length]) tokenizer->special_lengths[tokenizer->special_length_count++] = length;
  }
  return FA_OK;
}

static fa_status load(const fa_gguf *gguf, fa_tokenizer *tokenizer) {
  fa_gguf_string model, pre = {"default", 7};
  int64_t bos = -1;
  fa_status status = fa_gguf_text(gguf, "tokenizer.ggml.model", true, &model);
  if (status != FA_OK) return status;
  if (!fa_gguf_string_is(model, "gpt2")) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                         "%s: tokenizer.ggml.model is '%.*s'; read here: gpt2 (byte-level BPE)",
                         fa_gguf_name(gguf), model.length < 100 ? (int)model.length : 100, model.bytes);
  }
  status = fa_gguf_text(gguf, "tokenizer.ggml.pre", false, &pre);
  if (status == FA_OK) status = fa_pretokenizer_create(pre, &tokenizer->pretokenizer);
  if (status == FA_OK) status = fa_vocabulary_load(gguf, &tokenizer->vocabulary);
  if (status == FA_OK) status = load_specials(tokenizer);
  if (status == FA_OK) status = load_ends(gguf, tokenizer);
  const int64_t last = tokenizer->vocabulary.count - 1;
  if (status == FA_OK) status = fa_gguf_integer(gguf, "tokenizer.ggml.bos_token_id", false, 0, last, &bos);
  if (status == FA_OK) status = fa_gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &tokenizer->add_bos);
  if (status == FA_OK)
    status = fa_gguf_text(gguf, "tokenizer.chat_template", false, &tokenizer->chat_template);
  if (status == FA_OK && tokenizer->add_bos && bos < 0) {
    status = fa_llama_fail(FA_ERROR_ARGUMENT, "%s: add_bos_token is set but bos_token_id is missing",
                           fa_gguf_name(gguf));
  }
  tokenizer->bos = (int32_t)bos;
  return status;
}

fa_status fa_tokenizer_create(const fa_gguf *gguf, fa_tokenizer **result) {
  fa_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
  if (!tokenizer) return fa_llama_out_of_memory("the tokenizer");
  const fa_status status = load(gguf, tokenizer);
  if (status != FA_OK) {
    fa_tokenizer_free(tokenizer);
    return status;
  }
  *result = tokenizer;
  return FA_OK;
}

void fa_tokenizer_free(fa_tokenizer *tokenizer) {
  if (!tokenizer) return;
  fa_vocabulary_unload(&tokenizer->vocabulary);
  fa_pretokenizer_free(tokenizer->pretokenizer);
  free(tokenizer);
}

static const fa_token *token_of(const fa_tokenizer *tokenizer, int32_t id) {
  return id >= 0 && id < tokenizer->vocabulary.count ? &tokenizer->vocabulary.tokens[id] : NULL;
}

const char *fa_tokenizer_piece(const fa_tokenizer *tokenizer, int32_t id, size_t *length) {
  const fa_token *token = token_of(tokenizer, id);
  *length = token ? token->bytes.length : 0;
  return token ? token->bytes.bytes : NULL;
}

int64_t fa_tokenizer_count(const fa_tokenizer *tokenizer) { return tokenizer->vocabulary.count; }

bool fa_tokenizer_is_control(const fa_tokenizer *tokenizer, int32_t id) {
  const fa_token *token = token_of(tokenizer, id);
  return token && token->type == FA_TOKEN_CONTROL;
}

bool fa_tokenizer_is_end(const fa_tokenizer *tokenizer, int32_t id) {
  for (int i = 0; i < tokenizer->end_count; i++) {
    if (tokenizer->ends[i] == id) return true;
  }
  return false;
}

bool fa_tokenizer_has_chat_template(const fa_tokenizer *tokenizer) {
  return tokenizer->chat_template.length > 0;
}
