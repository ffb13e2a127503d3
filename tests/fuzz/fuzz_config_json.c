/* config.json: the model's shape out of it. The reader opens a file; here the linker gives it the input
 * instead. */
#include "fuzz_target.h"
#include "json_file.h"
#include "model.h"

static const char *input;
static size_t input_size;

fa_status __wrap_fa_json_read_file(const char *path, size_t most_bytes, cJSON **json);

fa_status __wrap_fa_json_read_file(const char *path, size_t most_bytes, cJSON **json) {
  *json = NULL;
  return input_size > most_bytes ? FA_ERROR_ARGUMENT : fa_json_parse(input, input_size, path, json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fa_llama_shape shape;
  float *divisors = NULL;
  input = (const char *)data;
  input_size = size;
  const fa_status status = fa_llama_shape_from_config("fuzz", &shape, &divisors);
  fuzz_expect_line(status);
  if (status == FA_OK) {
    volatile float seen = 0.0f;
    FUZZ_EXPECT(shape.layers > 0 && shape.hidden > 0 && shape.heads_kv > 0 &&
                shape.heads_q % shape.heads_kv == 0);
    for (int64_t i = 0; divisors && i < shape.rotary_dim / 2; i++) seen = seen + divisors[i];
  }
  free(divisors);
  return 0;
}
