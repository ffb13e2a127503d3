/* Safetensors: one file and several, and files that lie: one line that says what is wrong, never a crash.
 * Parsed from memory of exactly the file's size, so that the address sanitizer sees every byte read beyond
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dequantize.h"
#include "llama.h"
#include "safetensors.h"

typedef struct made {
  uint8_t bytes[4096];
  size_t size;
} made;

/* A header and `data` bytes, which count up from 0. */
static made make(const char *header, size_t data) {
  made file = {.size = 8 + strlen(header) + data};
  const uint64_t length = strlen(header);
  assert_true(file.size <= sizeof file.bytes);
  for (int i = 0; i < 8; i++) file.bytes[i] = (uint8_t)(length >> (8 * i));
  memcpy(file.bytes + 8, header, length);
  for (size_t i = 0; i < data; i++) file.bytes[8 + length + i] = (uint8_t)i;
  return file;
}

static fa_status open_made(const made *file, uint8_t **exact, fa_safetensors **opened) {
  *exact = malloc(file->size ? file->size : 1);
  assert_non_null(*exact);
  memcpy(*exact, file->bytes, file->size);
  *opened = NULL;
  return fa_safetensors_open_memory(*exact, file->size, "x.safetensors", opened);
}

static void assert_line(const char *line) {
  assert_null(strchr(fa_llama_last_error(), '\n'));
  if (!strstr(fa_llama_last_error(), line)) fail_msg("'%s' does not say '%s'", fa_llama_last_error(), line);
}

static void test_whole(void **state) {
  (void)state;
  uint8_t *exact;
  fa_safetensors *file;
  const made good = make(
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
      "\"c\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[20,22]},"
      "\"d\":{\"dtype\":\"F8_E4M3\",\"shape\":[0,7],\"data_offsets\":[22,22]}}  ",
      22);
  if (open_made(&good, &exact, &file) != FA_OK) fail_msg("%s", fa_llama_last_error());
  assert_string_equal(fa_safetensors_name(file), "x.safetensors");
  assert_int_equal(fa_safetensors_count(file), 4);
  const fa_safetensor *a = fa_safetensors_find(file, "a"), *b = fa_safetensors_find(file, "b"),
                      *c = fa_safetensors_find(file, "c"), *d = fa_safetensors_find(file, "d");
  assert_true(a && b && c && d);
  assert_null(fa_safetensors_find(file, "__metadata__"));
  assert_ptr_equal(fa_safetensors_at(file, 0), a);
  assert_true(a->type == FA_GGML_F32 && a->dims == 1 && a->size[0] == 2 && a->size[1] == 1 && a->bytes == 8);
  assert_true(b->type == FA_GGML_F16 && b->dims == 2 && b->size[0] == 3 && b->size[1] == 2 &&
              b->elements == 6);
  assert_int_equal(b->data[0], 8);
  assert_true(c->type == FA_GGML_BF16 && c->dims == 0 && c->elements == 1 && c->data[0] == 20);
  assert_true(d->type == -1 && d->elements == 0);
  assert_string_equal(d->dtype, "F8_E4M3");
  fa_safetensors_close(file);
  free(exact);
}

static void test_lies(void **state) {
  (void)state;
  static const struct {
    const char *header;
    size_t data;
    const char *line;
  } cases[] = {
      {"[]", 0, "not a JSON object"},
      {"{", 0, "not JSON"},
      {"{} x", 0, "follows"},
      {"{\"a\":3}", 0, "'a' is not described"},
      {"{\"a\":{}}", 0, "dtype ''"},
      {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype 'F31'"},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "has no shape"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
       "more than 4 dimensions"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "size that is none"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "size that is none"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9007199254740992,9007199254740992],\"data_offsets\":[0,4]}}", 4,
       "larger than memory"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "no data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "no data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3,
       "ends at byte 4 of the data, which has 3"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9007199254740992]}}", 4, "truncated"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8,
       "has 4 bytes, its shape 2 elements of 4"},
      {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[2]"
       ",\"data_offsets\":[3,5]}}",
       8, "'a' and 'b' overlap"},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],"
       "\"data_offsets\":[1,2]}}",
       2, "'a' is there twice"},
  };
  uint8_t *exact;
  fa_safetensors *file;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const made lie = make(cases[i].header, cases[i].data);
    if (open_made(&lie, &exact, &file) == FA_OK) fail_msg("accepted: %s", cases[i].header);
    assert_line(cases[i].line);
    free(exact);
  }
  made cut = make("{}", 0);
  cut.bytes[7] = 0x80; /* a header of 2^63 bytes */
  assert_int_equal(open_made(&cut, &exact, &file), FA_ERROR_ARGUMENT);
  assert_line("says that its header has");
  free(exact);
  cut.size = 7;
  assert_int_equal(open_made(&cut, &exact, &file), FA_ERROR_ARGUMENT);
  assert_line("has 7 bytes");
  free(exact);
}

static const char *write_file(const char *folder, const char *name, const void *bytes, size_t size) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  fclose(file);
  return path;
}

static void remove_files(const char *folder) {
  static const char *const names[] = {"one.safetensors", "two.safetensors", "model.safetensors",
                                      "model.safetensors.index.json"};
  char path[256];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    unlink(path);
  }
  rmdir(folder);
}

static void test_shards(void **state) {
  (void)state;
  char folder[] = "/tmp/fastattention-shards-XXXXXX";
  fa_safetensors *opened = NULL;
  assert_non_null(mkdtemp(folder));
  const made one = make(
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
      "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[4,12]}}",
      12);
  const made two = make("{\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}", 4);
  write_file(folder, "one.safetensors", one.bytes, one.size);
  write_file(folder, "two.safetensors", two.bytes, two.size);
  static const struct {
    const char *index, *line; /* NULL: it opens */
  } cases[] = {
      {"{\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"one.safetensors\",\"i\":\"one.safetensors\"}}",
       NULL},
      {"{\"weight_map\":{\"b\":\"two.safetensors\",\"c\":\"one.safetensors\"}}", "names the tensor 'c'"},
      {"{\"weight_map\":{\"b\":\"three.safetensors\"}}", "cannot open"},
      {"{\"weight_map\":{\"b\":\"../two.safetensors\"}}", "names the file '../two.safetensors'"},
      {"{\"weight_map\":{\"b\":2}}", "'b' has no file's name"},
      {"{\"weight_map\":{}}", "no weight_map"},
      {"[1]", "no weight_map"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_file(folder, "model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
    const fa_status status = fa_safetensors_open(folder, &opened);
    if (cases[i].line) {
      assert_int_not_equal(status, FA_OK);
      assert_line(cases[i].line);
      continue;
    }
    if (status != FA_OK) fail_msg("%s", fa_llama_last_error());
    assert_int_equal(fa_safetensors_count(opened), 3);
    assert_int_equal(fa_safetensors_find(opened, "b")->size[0], 2);
    assert_int_equal(fa_safetensors_find(opened, "a")->data[3], 3);
    fa_safetensors_close(opened);
  }
  /* Without an index: model.safetensors; and a file by its name. */
  unlink(write_file(folder, "model.safetensors.index.json", "", 0));
  assert_int_equal(fa_safetensors_open(folder, &opened), FA_ERROR_ARGUMENT);
  assert_line("cannot open");
  write_file(folder, "model.safetensors", two.bytes, two.size);
  assert_int_equal(fa_safetensors_open(folder, &opened), FA_OK);
  assert_int_equal(fa_safetensors_count(opened), 1);
  fa_safetensors_close(opened);
  assert_int_equal(fa_safetensors_open(write_file(folder, "one.safetensors", one.bytes, one.size), &opened),
                   FA_OK);
  assert_int_equal(fa_safetensors_count(opened), 2);
  fa_safetensors_close(opened);
  /* The same tensor in two files. */
  static const char twice[] = "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}";
  write_file(folder, "two.safetensors", one.bytes, one.size);
  write_file(folder, "model.safetensors.index.json", twice, strlen(twice));
  assert_int_equal(fa_safetensors_open(folder, &opened), FA_ERROR_ARGUMENT);
  assert_line("is there twice");
  remove_files(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole),
      cmocka_unit_test(test_lies),
      cmocka_unit_test(test_shards),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
