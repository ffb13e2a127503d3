/* A conversation in the model's own format. The template in the file is a program (Jinja), which is not
 * interpreted: its text tells the family and the variant, and the family's format is written here. */
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "tokenizer.h"
#include "utf8.h"

/* The prompt so far: tokens, and the text behind the last of them, which is encoded as one. */
typedef struct prompt {
  const fa_tokenizer *tokenizer;
  const fa_chat_message *messages;
  int64_t count;
  fa_token_list *list;
  char *text;
  size_t length, capacity;
  bool begun;       /* something stands before the text */
  fa_status status; /* the first that failed; the rest is then left out */
} prompt;

static const char *find(fa_gguf_string text, size_t from, const char *wanted) {
  const size_t length = strlen(wanted);
  for (size_t at = from; at + length <= text.length; at++) {
    if (memcmp(text.bytes + at, wanted, length) == 0) return text.bytes + at;
  }
  return NULL;
}

static bool says(const prompt *p, const char *wanted) {
  return find(p->tokenizer->chat_template, 0, wanted) != NULL;
}

static void put(prompt *p, const char *bytes, size_t length) {
  if (p->status != FA_OK || length == 0) return;
  if (length > p->capacity - p->length) {
    const size_t capacity =
        length <= SIZE_MAX / 4 && p->length <= SIZE_MAX / 4 ? 2 * (p->length + length) + 256 : 0;
    char *text = capacity ? realloc(p->text, capacity) : NULL;
    if (!text) {
      p->status = fa_llama_out_of_memory("the prompt");
      return;
    }
    p->text = text;
    p->capacity = capacity;
  }
  memcpy(p->text + p->length, bytes, length);
  p->length += length;
}

static void put_text(prompt *p, const char *text) { put(p, text, strlen(text)); }

/* Nothing in the text stands for a control token. */
static void flush(prompt *p) {
  if (p->status == FA_OK && p->length) {
    p->status =
        fa_tokenizer_encode_part(p->tokenizer, p->text, p->length, FA_ENCODE_PLAIN, !p->begun, p->list);
    p->begun = true;
  }
  p->length = 0;
}

/* bos and eos are written as nothing where the model has none. */
static void put_token(prompt *p, int32_t id) {
  if (id < 0) return;
  flush(p);
  if (p->status == FA_OK) p->status = fa_token_list_append(p->list, id);
  p->begun = true;
}

static int32_t special_token(const prompt *p, const char *name) {
  const int32_t id = fa_vocabulary_id(&p->tokenizer->vocabulary, name, strlen(name));
  if (id < 0) return -1;
  const fa_token_type type = p->tokenizer->vocabulary.tokens[id].type;
  return type == FA_TOKEN_CONTROL || type == FA_TOKEN_USER_DEFINED ? id : -1;
}

static void put_special(prompt *p, const char *name) {
  const int32_t id = special_token(p, name);
  if (id < 0 && p->status == FA_OK) {
    p->status = fa_llama_fail(FA_ERROR_UNSUPPORTED,
                              "the chat template uses '%s', which the vocabulary lacks; use --raw", name);
  }
  put_token(p, id);
}

/* What is a control token in later vocabularies and text in earlier ones. */
static void put_marker(prompt *p, const char *name) {
  const int32_t id = special_token(p, name);
  if (id >= 0)
    put_token(p, id);
  else
    put_text(p, name);
}

/* Python's str.strip(), which is the template's trim. */
static bool is_stripped(uint32_t code) { return fa_is_space(code) || (code >= 0x1c && code <= 0x1f); }

static fa_gguf_string trimmed(const char *text) {
  size_t begin = 0, end = strlen(text);
  for (size_t step; begin < end; begin += step) {
    uint32_t code;
    step = fa_utf8_decode(text + begin, end - begin, &code, NULL);
    if (!step || !is_stripped(code)) break;
  }
  while (end > begin) {
    size_t start = end - 1;
    uint32_t code;
    while (start > begin && ((uint8_t)text[start] & 0xc0) == 0x80) start--;
    if (fa_utf8_decode(text + start, end - start, &code, NULL) != end - start || !is_stripped(code)) break;
    end = start;
  }
  return (fa_gguf_string){text + begin, end - begin};
}

static void put_trimmed(prompt *p, const char *text) {
  const fa_gguf_string kept = trimmed(text);
  put(p, kept.bytes, kept.length);
}

static bool is_role(const fa_chat_message *message, const char *role) {
  return strcmp(message->role, role) == 0;
}

/* The system message a conversation begins with, taken off it; NULL: none. */
static const char *take_system(prompt *p) {
  if (!is_role(&p->messages[0], "system")) return NULL;
  p->count--;
  return p->messages++->text;
}

/* Families whose templates raise an exception for anything else. */
static bool takes_turns(prompt *p) {
  for (int64_t i = 0; i < p->count && p->status == FA_OK; i++) {
    if (is_role(&p->messages[i], i % 2 ? "assistant" : "user")) continue;
    p->status = fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "message %lld of the conversation has the role '%.50s'; this model's user and assistant take turns, "
        "the user first, behind at most one system message",
        (long long)i, p->messages[i].role);
  }
  return p->status == FA_OK;
}

/* ------------------------------------------------------------------------------------------ ChatML */

/* What a ChatML template says for a system message that was not given: the text it writes itself between
 * "<|im_start|>system\n" (a newline, or backslash n) and "<|im_end|>". Length 0 when it writes none. */
static fa_gguf_string default_system(fa_gguf_string chat_template) {
  static const char begin[] = "<|im_start|>system";
  const char *at = find(chat_template, 0, begin);
  for (; at; at = find(chat_template, (size_t)(at - chat_template.bytes) + 1, begin)) {
    size_t from = (size_t)(at - chat_template.bytes) + sizeof begin - 1;
    if (from < chat_template.length && chat_template.bytes[from] == '\n')
      from++;
    else if (from + 1 < chat_template.length && memcmp(chat_template.bytes + from, "\\n", 2) == 0)
      from += 2;
    else
      continue;
    const char *end = find(chat_template, from, "<|im_end|>");
    if (!end) break;
    const fa_gguf_string text = {chat_template.bytes + from, (size_t)(end - chat_template.bytes) - from};
    /* A quote or brace means that the template computes what stands there. */
    bool literal = text.length > 0;
    for (size_t i = 0; i < text.length; i++) literal = literal && !strchr("'\"{}\\", text.bytes[i]);
    if (literal) return text;
  }
  return (fa_gguf_string){"", 0};
}

static void chatml_message(prompt *p, const char *role, fa_gguf_string text) {
  put_special(p, "<|im_start|>");
  put_text(p, role);
  put_text(p, "\n");
  put(p, text.bytes, text.length);
  put_special(p, "<|im_end|>");
  put_text(p, "\n");
}

/* Without what the assistant has thought before it answered, for models that think (Qwen 3). */
static const char *without_thought(const char *text) {
  static const char end[] = "</think>";
  const char *at = strstr(text, end);
  if (!at) return text;
  for (const char *next; (next = strstr(at + 1, end));) at = next;
  at += sizeof end - 1;
  return at + strspn(at, "\n");
}

static void encode_chatml(prompt *p) {
  const fa_gguf_string system = default_system(p->tokenizer->chat_template);
  const bool thinks = says(p, "</think>");
  if (!is_role(&p->messages[0], "system") && system.length) chatml_message(p, "system", system);
  for (int64_t i = 0; i < p->count; i++) {
    const char *text = p->messages[i].text;
    if (thinks && is_role(&p->messages[i], "assistant")) text = without_thought(text);
    chatml_message(p, p->messages[i].role, (fa_gguf_string){text, strlen(text)});
  }
  put_special(p, "<|im_start|>");
  put_text(p, "assistant\n");
}

/* ----------------------------------------------------------------------------------------- Llama 3 */

static void llama3_header(prompt *p, const char *role) {
  put_special(p, "<|start_header_id|>");
  put_text(p, role);
  put_special(p, "<|end_header_id|>");
  put_text(p, "\n\n");
}

static void encode_llama3(prompt *p) {
  put_token(p, p->tokenizer->bos);
  if (says(p, "Cutting Knowledge Date: December 2023")) {
    /* Llama 3.1 and later always have a system message; today is the template's own day, so that a prompt
     * does not change from one day to the next. */
    const char *system = take_system(p);
    llama3_header(p, "system");
    put_text(p, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    if (system) put_trimmed(p, system);
    put_special(p, "<|eot_id|>");
  }
  for (int64_t i = 0; i < p->count; i++) {
    llama3_header(p, p->messages[i].role);
    put_trimmed(p, p->messages[i].text);
    put_special(p, "<|eot_id|>");
  }
  llama3_header(p, "assistant");
}

/* ------------------------------------------------------------------------------------------- Gemma */

static void refuse_system(prompt *p) {
  p->status = fa_llama_fail(
      FA_ERROR_UNSUPPORTED,
      "this model's chat template takes no system message; put it at the head of the user's first");
}

static void encode_gemma(prompt *p) {
  const char *system = take_system(p);
  if (!takes_turns(p)) return;
  if (system && says(p, "System role not supported")) {
    refuse_system(p);
    return;
  }
  put_token(p, p->tokenizer->bos);
  for (int64_t i = 0; i < p->count; i++) {
    put_special(p, "<start_of_turn>");
    put_text(p, i % 2 ? "model\n" : "user\n");
    if (i == 0 && system) {
      put_text(p, system);
      put_text(p, "\n\n");
    }
    put_trimmed(p, p->messages[i].text);
    put_special(p, "<end_of_turn>");
    put_text(p, "\n");
  }
  put_special(p, "<start_of_turn>");
  put_text(p, "model\n");
}

/* ----------------------------------------------------------------------- [INST]: Llama 2 and Mistral */

/* "<s>[INST] <<SYS>>\nsystem\n<</SYS>>\n\nuser [/INST] assistant </s><s>[INST] user [/INST]" */
static void encode_llama2(prompt *p) {
  const char *system = take_system(p);
  if (!takes_turns(p)) return;
  for (int64_t i = 0; i < p->count; i++) {
    const char *text = p->messages[i].text;
    if (i % 2) {
      put_text(p, " ");
      put_trimmed(p, text);
      put_text(p, " ");
      put_token(p, p->tokenizer->eos);
      continue;
    }
    put_token(p, p->tokenizer->bos);
    put_text(p, "[INST] ");
    if (i == 0 && system) {
      /* What is trimmed is all of it. */
      const fa_gguf_string kept = trimmed(text);
      put_text(p, "<<SYS>>\n");
      put_text(p, system);
      put_text(p, "\n<</SYS>>\n\n");
      if (kept.length) put(p, text, (size_t)(kept.bytes - text) + kept.length);
      while (!kept.length && p->status == FA_OK && p->text[p->length - 1] == '\n') p->length--;
    } else {
      put_trimmed(p, text);
    }
    put_text(p, " [/INST]");
  }
}

/* Where the versions of Mistral's template differ, which their text shows. */
static void encode_mistral(prompt *p) {
  const char *system = take_system(p);
  const bool space_before = says(p, "\" [INST]") || says(p, "' [INST]");
  const bool space_behind = says(p, "[INST] ");
  const bool space_at_end = says(p, " [/INST]");
  const bool answer_spaced = says(p, "\" \" + message[") || says(p, "' ' + message[");
  const bool answer_trimmed =
      says(p, "[\"content\"]|trim + eos_token") || says(p, "['content']|trim + eos_token");
  const bool eos_spaced = says(p, "eos_token + ' '") || says(p, "eos_token + \" \"");
  const int64_t system_at = says(p, "loop.last and system_message") ? p->count - 1 : 0;
  if (!takes_turns(p)) return;
  if (system && !says(p, "system_message")) {
    refuse_system(p);
    return;
  }
  put_token(p, p->tokenizer->bos);
  for (int64_t i = 0; i < p->count; i++) {
    if (i % 2) {
      if (answer_spaced) put_text(p, " ");
      if (answer_trimmed)
        put_trimmed(p, p->messages[i].text);
      else
        put_text(p, p->messages[i].text);
      put_token(p, p->tokenizer->eos);
      if (eos_spaced) put_text(p, " ");
      continue;
    }
    if (space_before) put_text(p, " ");
    put_marker(p, "[INST]");
    if (space_behind) put_text(p, " ");
    if (system && i == system_at) {
      put_text(p, system);
      put_text(p, "\n\n");
    }
    put_text(p, p->messages[i].text);
    if (space_at_end) put_text(p, " ");
    put_marker(p, "[/INST]");
  }
}

/* ------------------------------------------------------------------------------------------------ */

static void encode(prompt *p) {
  if (says(p, "<|im_start|>"))
    encode_chatml(p);
  else if (says(p, "<|start_header_id|>") && says(p, "<|eot_id|>"))
    encode_llama3(p);
  else if (says(p, "<start_of_turn>"))
    encode_gemma(p);
  else if (says(p, "[INST]") && says(p, "<<SYS>>"))
    encode_llama2(p);
  else if (says(p, "[INST]") && !says(p, "[SYSTEM_PROMPT]"))
    encode_mistral(p);
  else
    p->status = fa_llama_fail(FA_ERROR_UNSUPPORTED,
                              "the model's chat template is of no known family (known: ChatML, Llama 3, "
                              "Gemma, Llama 2, Mistral); use --raw");
  flush(p);
}

static fa_status check_messages(const fa_chat_message *messages, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (is_role(&messages[i], "user") || is_role(&messages[i], "assistant") ||
        is_role(&messages[i], "system"))
      continue;
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "message %lld has the role '%.50s'; system, user and assistant are allowed",
                         (long long)i, messages[i].role);
  }
  if (count < 1 || !is_role(&messages[count - 1], "user")) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "a conversation ends with a message of the user's, which is to be answered");
  }
  return FA_OK;
}

fa_status fa_tokenizer_encode_messages(const fa_tokenizer *tokenizer, const fa_chat_message *messages,
                                       int64_t count, fa_token_list *list) {
  prompt p = {.tokenizer = tokenizer, .messages = messages, .count = count, .list = list};
  const fa_status status = check_messages(messages, count);
  if (status != FA_OK) return status;
  if (tokenizer->chat_template.length == 0) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                         "the model has no chat template; use --raw to continue plain text");
  }
  encode(&p);
  free(p.text);
  return p.status;
}

fa_status fa_tokenizer_encode_chat(const fa_tokenizer *tokenizer, const char *system, const char *user,
                                   fa_token_list *list) {
  const fa_chat_message messages[] = {{"system", system}, {"user", user}};
  return fa_tokenizer_encode_messages(tokenizer, system ? messages : messages + 1, system ? 2 : 1, list);
}
