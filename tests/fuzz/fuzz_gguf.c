/* A GGUF file: opened, every tensor's ends touched, the model's shape and the tokenizer read, a text encoded.
 */
#include "fuzz_target.h"
#include "gguf.h"
#include "model.h"
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char text[] = "Hello, 'tis 12  w\xc3\xb6rlds\n\n<|im_end|></s> \xff\xf0\x9f\x98\x80";
  fa_gguf *gguf = NULL;
  fa_tokenizer *tokenizer = NULL;
  fa_llama_shape shape;
  float *divisors = NULL;
  fa_status status = fa_gguf_open_memory(data, size, "fuzz.gguf", &gguf);
  fuzz_expect_line(status);
  if (status != FA_OK) return 0;
  volatile uint8_t seen = 0;
  for (int64_t i = 0; i < fa_gguf_tensor_count(gguf); i++) {
    const fa_gguf_tensor *tensor = fa_gguf_tensor_at(gguf, i);
    seen = (uint8_t)(seen + tensor->data[0] + tensor->data[tensor->bytes - 1]);
  }
  fuzz_expect_line(fa_llama_shape_from_gguf(gguf, &shape, &divisors));
  free(divisors);
  status = fa_tokenizer_create(gguf, &tokenizer);
  fuzz_expect_line(status);
  if (status == FA_OK) fuzz_tokenizer(tokenizer, text, sizeof text - 1);
  fa_tokenizer_free(tokenizer);
  fa_gguf_close(gguf);
  return 0;
}
