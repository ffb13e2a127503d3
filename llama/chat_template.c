/* A conversation in the model's own format. The template in the file is a program (Jinja), which is not
 * interpreted: its text tells the family, and the family's format is written here. */
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "tokenizer.h"

static const char *find(fa_gguf_string text, size_t from, const char *wanted) {
  const size_t length = strlen(wanted);
  for (size_t at = from; at + length <= text.length; at++) {
    if (memcmp(text.bytes + at, wanted, length) == 0) return text.bytes + at;
  }
  return NULL;
}

static fa_status append_special(const fa_tokenizer *tokenizer, const char *name, fa_token_list *list) {
  const int32_t id = fa_vocabulary_id(&tokenizer->vocabulary, name, strlen(name));
  if (id < 0) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                         "the chat template uses '%s', which the vocabulary lacks; use --raw", name);
  }
  return fa_token_list_append(list, id);
}

/* before + text + after as one piece of text, in which nothing stands for a control token. */
static fa_status append_text(const fa_tokenizer *tokenizer, const char *before, fa_gguf_string text,
                             const char *after, fa_token_list *list) {
  const size_t head = strlen(before), tail = strlen(after);
  char *joined = malloc(head + text.length + tail + 1);
  if (!joined) return fa_llama_out_of_memory("the prompt");
  memcpy(joined, before, head);
  if (text.length) memcpy(joined + head, text.bytes, text.length);
  memcpy(joined + head + text.length, after, tail);
  const fa_status status =
      fa_tokenizer_encode(tokenizer, joined, head + text.length + tail, FA_ENCODE_PLAIN, list);
  free(joined);
  return status;
}

/* What a ChatML template says for a system message that was not given: the text it writes itself between
 * "<|im_start|>system\n" (a newline, or backslash n) and "<|im_end|>". Length 0 when it writes none. */
static fa_gguf_string default_system(fa_gguf_string chat_template) {
  static const char begin[] = "<|im_start|>system";
  fa_gguf_string none = {"", 0};
  const char *at = find(chat_template, 0, begin);
  if (!at) return none;
  size_t from = (size_t)(at - chat_template.bytes) + sizeof begin - 1;
  if (from < chat_template.length && chat_template.bytes[from] == '\n')
    from++;
  else if (from + 1 < chat_template.length && memcmp(chat_template.bytes + from, "\\n", 2) == 0)
    from += 2;
  else
    return none;
  const char *end = find(chat_template, from, "<|im_end|>");
  if (!end) return none;
  const fa_gguf_string text = {chat_template.bytes + from, (size_t)(end - chat_template.bytes) - from};
  /* A quote or brace means that the template computes what stands there. */
  for (size_t i = 0; i < text.length; i++) {
    if (strchr("'\"{}\\", text.bytes[i])) return none;
  }
  return text;
}

static fa_status chatml_message(const fa_tokenizer *tokenizer, const char *role, fa_gguf_string text,
                                fa_token_list *list) {
  fa_status status = append_special(tokenizer, "<|im_start|>", list);
  if (status == FA_OK) status = append_text(tokenizer, role, text, "", list);
  if (status == FA_OK) status = append_special(tokenizer, "<|im_end|>", list);
  return status == FA_OK ? append_text(tokenizer, "\n", (fa_gguf_string){"", 0}, "", list) : status;
}

static fa_status encode_chatml(const fa_tokenizer *tokenizer, const char *system, const char *user,
                               fa_token_list *list) {
  const fa_gguf_string said =
      system ? (fa_gguf_string){system, strlen(system)} : default_system(tokenizer->chat_template);
  fa_status status = FA_OK;
  if (system || said.length) status = chatml_message(tokenizer, "system\n", said, list);
  if (status == FA_OK)
    status = chatml_message(tokenizer, "user\n", (fa_gguf_string){user, strlen(user)}, list);
  if (status == FA_OK) status = append_special(tokenizer, "<|im_start|>", list);
  return status == FA_OK ? append_text(tokenizer, "assistant\n", (fa_gguf_string){"", 0}, "", list) : status;
}

static fa_gguf_string trimmed(const char *text) {
  static const char blanks[] = " \t\r\n\v\f";
  const char *begin = text + strspn(text, blanks);
  size_t length = strlen(begin);
  while (length && strchr(blanks, begin[length - 1])) length--;
  return (fa_gguf_string){begin, length};
}

static fa_status llama3_header(const fa_tokenizer *tokenizer, const char *role, fa_token_list *list) {
  fa_status status = append_special(tokenizer, "<|start_header_id|>", list);
  if (status == FA_OK) status = append_text(tokenizer, role, (fa_gguf_string){"", 0}, "", list);
  return status == FA_OK ? append_special(tokenizer, "<|end_header_id|>", list) : status;
}

static fa_status llama3_message(const fa_tokenizer *tokenizer, const char *role, const char *text,
                                fa_token_list *list) {
  fa_status status = llama3_header(tokenizer, role, list);
  if (status == FA_OK) status = append_text(tokenizer, "\n\n", trimmed(text), "", list);
  return status == FA_OK ? append_special(tokenizer, "<|eot_id|>", list) : status;
}

static fa_status encode_llama3(const fa_tokenizer *tokenizer, const char *system, const char *user,
                               fa_token_list *list) {
  fa_status status = tokenizer->bos >= 0 ? fa_token_list_append(list, tokenizer->bos) : FA_OK;
  if (system && status == FA_OK) status = llama3_message(tokenizer, "system", system, list);
  if (status == FA_OK) status = llama3_message(tokenizer, "user", user, list);
  if (status == FA_OK) status = llama3_header(tokenizer, "assistant", list);
  return status == FA_OK ? append_text(tokenizer, "\n\n", (fa_gguf_string){"", 0}, "", list) : status;
}

fa_status fa_tokenizer_encode_chat(const fa_tokenizer *tokenizer, const char *system, const char *user,
                                   fa_token_list *list) {
  const fa_gguf_string chat_template = tokenizer->chat_template;
  if (chat_template.length == 0) {
    return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                         "the model has no chat template; use --raw to continue plain text");
  }
  if (find(chat_template, 0, "<|im_start|>")) return encode_chatml(tokenizer, system, user, list);
  if (find(chat_template, 0, "<|start_header_id|>") && find(chat_template, 0, "<|eot_id|>")) {
    return encode_llama3(tokenizer, system, user, list);
  }
  return fa_llama_fail(FA_ERROR_UNSUPPORTED,
                       "the model's chat template is of no known family (known: ChatML, Llama 3); use --raw");
}
