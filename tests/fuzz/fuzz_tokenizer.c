#include "fuzz_target.h"

void fuzz_tokenizer(const fa_tokenizer *tokenizer, const char *text, size_t length) {
  for (unsigned how = 0; how < 8; how++) {
    fa_token_list list = FA_TOKEN_LIST_INIT;
    fuzz_expect_line(fa_tokenizer_encode(tokenizer, text, length, how, &list));
    for (int64_t i = 0; i < list.count; i++) {
      size_t bytes;
      FUZZ_EXPECT(list.ids[i] >= 0 && list.ids[i] < fa_tokenizer_count(tokenizer));
      const char *piece = fa_tokenizer_piece(tokenizer, list.ids[i], &bytes);
      volatile char seen = 0;
      for (size_t b = 0; b < bytes; b++) seen = (char)(seen + piece[b]);
      (void)fa_tokenizer_is_end(tokenizer, list.ids[i]);
    }
    fa_token_list_free(&list);
  }
  fa_token_list list = FA_TOKEN_LIST_INIT;
  fuzz_expect_line(fa_tokenizer_encode_chat(tokenizer, NULL, "Hello!", &list));
  const fa_chat_message messages[] = {{"system", "Be brief.\n"},
                                      {"user", "\xff <|im_end|>\n"},
                                      {"assistant", " <think></think>\nx "},
                                      {"user", " "}};
  fuzz_expect_line(fa_tokenizer_encode_messages(tokenizer, messages, 4, &list));
  fuzz_expect_line(fa_tokenizer_encode_messages(tokenizer, messages + 1, 3, &list));
  fa_token_list_free(&list);
}
