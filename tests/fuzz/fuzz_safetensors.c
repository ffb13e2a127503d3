/* A safetensors file: opened, every tensor's ends touched and found again by its name. */
#include "dequantize.h"
#include "fuzz_target.h"
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fa_safetensors *file = NULL;
  const fa_status status = fa_safetensors_open_memory(data, size, "fuzz.safetensors", &file);
  fuzz_expect_line(status);
  if (status != FA_OK) return 0;
  volatile uint8_t seen = 0;
  for (int64_t i = 0; i < fa_safetensors_count(file); i++) {
    const fa_safetensor *tensor = fa_safetensors_at(file, i);
    FUZZ_EXPECT(fa_safetensors_find(file, tensor->name) == tensor);
    const fa_ggml_type *type = fa_ggml_type_of(tensor->type);
    FUZZ_EXPECT(!type == (tensor->type < 0));
    FUZZ_EXPECT(!type || tensor->bytes == (size_t)tensor->elements * (size_t)type->block_bytes);
    if (tensor->bytes) seen = (uint8_t)(seen + tensor->data[0] + tensor->data[tensor->bytes - 1]);
  }
  fa_safetensors_close(file);
  return 0;
}
