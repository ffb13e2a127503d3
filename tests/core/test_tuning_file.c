/* Tuning files: whole ones are read, damaged and hostile ones get one line that says what is wrong. Parsed from memory
 * of exactly the file's size, so that the address sanitizer sees every byte read beyond it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/tuning.h"

#define ENTRY "prefill bf16 bf16 128 128 4 causal 4096 4096 8 2   prefill_c 0 0 0 11000000 12000000\n"
#define DECODE "decode f16 int8 64 64 1 full 1 1024 32 1 decode_c 0 0 8 11 12\n"

static char head[FA_TUNING_TEXT];

/* A file of this machine with these lines behind its head. */
static char *file_of(const char *lines) {
  char *text = malloc(strlen(head) + strlen(lines) + 1);
  assert_non_null(text);
  strcpy(text, head);
  return strcat(text, lines);
}

static fa_status parse(const fa_context *context, const char *text, size_t size, fa_tuning **tuning) {
  char *exact = malloc(size ? size : 1);
  assert_non_null(exact);
  memcpy(exact, text, size);
  const fa_status status = fa_tuning_parse(context, "t.tuning", exact, size, tuning);
  free(exact);
  if (status != FA_OK) {
    assert_int_equal(status, FA_ERROR_ARGUMENT);
    assert_null(*tuning);
    assert_int_equal(strncmp(fa_last_error(), "tuning file 't.tuning', line ", 29), 0);
    for (const char *c = fa_last_error(); *c; c++) assert_true(*c >= ' ' && *c <= '~');
  }
  return status;
}

static void whole_files_are_read(void **state) {
  fa_tuning *tuning;
  char *text = file_of("\n# a comment\n" ENTRY "\n" DECODE);
  assert_int_equal(parse(*state, text, strlen(text), &tuning), FA_OK);
  assert_int_equal(tuning->is_used, 1);
  assert_int_equal(tuning->count, 2);
  assert_string_equal(tuning->entries[0].kernel, "prefill_c");
  assert_int_equal(tuning->entries[0].of.keys, 4096);
  assert_int_equal(tuning->entries[0].of.causal, 1);
  assert_int_equal(tuning->entries[0].line, 10);
  assert_int_equal(tuning->entries[1].of.kv_dtype, FA_INT8);
  assert_int_equal(tuning->entries[1].request.kv_splits, 8);
  assert_int_equal(tuning->entries[1].rule_ns, 12);
  fa_host_free(*state, tuning);
  assert_int_equal(parse(*state, head, strlen(head), &tuning), FA_OK); /* nothing beat the rule */
  assert_int_equal(tuning->count, 0);
  fa_host_free(*state, tuning);
  free(text);
}

/* No machine but the one it was made on; but what is broken is broken everywhere. */
static void other_machines(void **state) {
  static const char *const lines[] = {"\nversion ", "\ndevice ", "\nprocessor ", "\nisa ", "\ncaches "};
  static const char *const says[] = {"made for version 'x", "made for device 'x", "made for processor 'x",
                                     "made for instruction sets 'x", "made for caches 'x"};
  for (int n = 0; n < 5; n++) {
    char text[2 * FA_TUNING_TEXT];
    fa_tuning *tuning;
    const size_t before = (size_t)(strstr(head, lines[n]) - head) + strlen(lines[n]);
    snprintf(text, sizeof text, "%.*sx%s" ENTRY, (int)before, head, head + before);
    assert_int_equal(parse(*state, text, strlen(text), &tuning), FA_OK);
    assert_int_equal(tuning->is_used, 0);
    assert_int_equal(tuning->count, 1);
    assert_non_null(strstr(tuning->why, says[n]));
    fa_host_free(*state, tuning);
    strcat(text, "nonsense\n");
    assert_int_equal(parse(*state, text, strlen(text), &tuning), FA_ERROR_ARGUMENT);
  }
}

static void truncated(void **state) {
  fa_tuning *tuning;
  char *text = file_of(ENTRY DECODE);
  int whole = 0;
  for (size_t size = 0; size < strlen(text); size++) {
    const fa_status status = parse(*state, text, size, &tuning);
    if (status == FA_OK) { /* only where a line ends */
      assert_int_equal(text[size - 1], '\n');
      fa_host_free(*state, tuning);
      whole++;
    }
  }
  assert_int_equal(whole, 3); /* behind the caches, the comment and the first entry */
  free(text);
}

static void wrong_lines(void **state) {
  static const struct {
    const char *line, *says;
  } wrong[] = {
      {"nonsense\n", "line of 1 words; an entry has 17"},
      {"prefill bf16 bf16 128 128 4 causal 4096 4096 8 2 k 0 0 0 1 1 1\n", "at least 18 words"},
      {"   \n", "line of 0 words"},
      {"refill bf16 bf16 128 128 4 causal 4096 4096 8 2 k 0 0 0 1 1\n", "'refill' is neither prefill nor decode"},
      {"prefill int8 int8 128 128 4 causal 4096 4096 8 2 k 0 0 0 1 1\n", "'int8' is none of f32, f16, bf16"},
      {"prefill bf16 f16 128 128 4 causal 4096 4096 8 2 k 0 0 0 1 1\n", "'f16' is no type of a cache"},
      {"prefill bf16 bf16 577 128 4 causal 4096 4096 8 2 k 0 0 0 1 1\n", "'577' is not a head size"},
      {"prefill bf16 bf16 128 0 4 causal 4096 4096 8 2 k 0 0 0 1 1\n", "'0' is not a head size"},
      {"prefill bf16 bf16 128 128 0 causal 4096 4096 8 2 k 0 0 0 1 1\n", "'0' is not query heads"},
      {"prefill bf16 bf16 128 128 4 maybe 4096 4096 8 2 k 0 0 0 1 1\n", "'maybe' is neither causal nor full"},
      {"prefill bf16 bf16 128 128 4 full 4095 4096 8 2 k 0 0 0 1 1\n", "'4095' is not a power of two"},
      {"prefill bf16 bf16 128 128 4 full 4096 9223372036854775808 8 2 k 0 0 0 1 1\n", "is not a power of two"},
      {"prefill bf16 bf16 128 128 4 full 4096 4294967296 8 2 k 0 0 0 1 1\n", "'4294967296' is not a power"},
      {"prefill bf16 bf16 128 128 4 full 16 4096 8 2 k 0 0 0 1 1\n", "fewer queries than prefill has"},
      {"decode bf16 bf16 128 128 4 full 32 4096 8 2 k 0 0 0 1 1\n", "more queries than decode has"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 0 k 0 0 0 1 1\n", "'0' is not threads"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 4097 k 0 0 0 1 1\n", "'4097' is not threads"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 K%n 0 0 0 1 1\n", "'K%n' is no kernel's name"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 "
       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0 0 0 1 1\n", "is no kernel's name"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 k -1 0 0 1 1\n", "'-1' is not level-one rows"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 k 0 1e3 0 1 1\n", "'1e3' is not level-one keys"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 k 0 0 4097 1 1\n", "'4097' is not splits"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 k 0 0 0 0 1\n", "'0' is not nanoseconds"},
      {"prefill bf16 bf16 128 128 4 full 4096 4096 8 2 k 0 0 0 1 99999999999999999999\n", "is not nanoseconds"},
      {"prefill bf16 bf16 128 128 4 full 4096\t4096 8 2 k 0 0 0 1 1\n", "holds a control character"},
      {"prefill\r\n", "holds a control character"},
      {ENTRY ENTRY, "begins an entry for what line 8 is for"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    fa_tuning *tuning;
    char *text = file_of(wrong[i].line);
    if (parse(*state, text, strlen(text), &tuning) == FA_OK) fail_msg("accepted: %s", wrong[i].line);
    if (!strstr(fa_last_error(), wrong[i].says)) fail_msg("'%s' does not say '%s'", fa_last_error(), wrong[i].says);
    free(text);
  }
}

static void too_long(void **state) {
  fa_tuning *tuning;
  char line[600];
  memset(line, 'x', sizeof line);
  strcpy(line + 590, "\n");
  char *text = file_of(line);
  assert_int_equal(parse(*state, text, strlen(text), &tuning), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "longer than 500"));
  free(text);

  char *many = malloc(strlen(head) + (FA_TUNING_MOST_ENTRIES + 1) * 80u + 1), *at = many;
  assert_non_null(many);
  at += sprintf(at, "%s", head);
  for (int n = 0; n <= FA_TUNING_MOST_ENTRIES; n++)
    at += sprintf(at, "decode f32 f32 %d 1 %d full 1 1 1 1 k 0 0 0 1 1\n", n % 500 + 1, n / 500 + 1);
  assert_int_equal(parse(*state, many, (size_t)(at - many), &tuning), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "one entry more than the 4096"));
  free(many);
}

/* Bytes changed at random: never more than a line. */
static void damaged(void **state) {
  uint64_t random = 1;
  int accepted = 0;
  char *text = file_of(ENTRY DECODE);
  const size_t size = strlen(text);
  char *changed = malloc(size);
  for (int n = 0; n < 20000; n++) {
    fa_tuning *tuning;
    memcpy(changed, text, size);
    for (int times = 0; times <= n % 3; times++) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      changed[(random >> 33) % size] = (char)(random >> 25);
    }
    if (parse(*state, changed, size, &tuning) != FA_OK) continue;
    accepted++;
    fa_host_free(*state, tuning);
  }
  assert_true(accepted > 100 && accepted < 19000); /* comments and the processor's name may be anything */
  free(changed);
  free(text);
}

static void write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
}

static void files_and_the_environment(void **state) {
  char folder[] = "/tmp/fastattention-tuning-XXXXXX", path[64], pipe[64];
  fa_context *context = NULL;
  fa_tuning_info info = FA_TUNING_INFO_INIT;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/t", folder);
  snprintf(pipe, sizeof pipe, "%s/p", folder);
  assert_int_equal(mkfifo(pipe, 0600), 0);
  char *text = file_of(ENTRY);
  write_file(path, text);

  assert_int_equal(fa_context_load_tuning(*state, path), FA_OK);
  assert_int_equal(fa_tuning_describe(*state, &info), FA_OK);
  assert_string_equal(info.path, path);
  assert_true(info.used && info.entries == 1);
  /* what cannot be read leaves what was there */
  assert_int_equal(fa_context_load_tuning(*state, pipe), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "no regular file"));
  assert_int_equal(fa_context_load_tuning(*state, folder), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_context_load_tuning(*state, "/none/t"), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "cannot be read"));
  assert_int_equal(fa_tuning_describe(*state, &info), FA_OK);
  assert_int_equal(info.entries, 1);
  assert_int_equal(fa_context_load_tuning(*state, NULL), FA_OK);
  assert_int_equal(fa_tuning_describe(*state, &info), FA_OK);
  assert_true(!info.path && !info.used && info.why[0]);

  assert_int_equal(setenv("FASTATTENTION_TUNING", path, 1), 0);
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  assert_int_equal(fa_tuning_describe(context, &info), FA_OK);
  assert_true(info.used);
  fa_context_destroy(context);
  write_file(path, "hello\n");
  assert_int_equal(fa_context_create(NULL, &context), FA_ERROR_ARGUMENT);
  assert_null(context);
  assert_non_null(strstr(fa_last_error(), "'hello' stands where a tuning file begins"));
  assert_int_equal(truncate(path, 2 << 20), 0);
  assert_int_equal(fa_context_create(NULL, &context), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "larger than 1 MiB"));
  assert_int_equal(setenv("FASTATTENTION_TUNING", "", 1), 0);
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  fa_context_destroy(context);
  unsetenv("FASTATTENTION_TUNING");
  unlink(path);
  unlink(pipe);
  rmdir(folder);
  free(text);
}

/* Allocation n fails. */
static int left;
static void *allocate(void *user, size_t bytes, size_t alignment) {
  (void)user;
  return left-- > 0 ? aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : NULL;
}
static void release(void *user, void *memory) {
  (void)user;
  free(memory);
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  char path[] = "/tmp/fastattention-tuning-XXXXXX";
  const int file = mkstemp(path);
  assert_true(file >= 0);
  close(file);
  char *text = file_of(ENTRY);
  write_file(path, text);
  free(text);
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.allocator = (fa_allocator){allocate, release, NULL};
  fa_context *context;
  assert_int_equal(setenv("FASTATTENTION_TUNING", path, 1), 0);
  fa_status status = FA_ERROR_MEMORY;
  int failures = 0;
  for (; status != FA_OK; failures++) {
    left = failures;
    status = fa_context_create(&options, &context);
    if (status != FA_OK) assert_int_equal(status, FA_ERROR_MEMORY);
  }
  assert_int_equal(failures, 4); /* context, text, entries; then nothing is left to fail */
  fa_context_destroy(context);
  unsetenv("FASTATTENTION_TUNING");
  unlink(path);
}

static int setup(void **state) {
  unsetenv("FASTATTENTION_TUNING");
  return fa_context_create(NULL, (fa_context **)state) != FA_OK || fa_tuning_head(*state, head, sizeof head) != FA_OK;
}
static int teardown(void **state) {
  fa_context_destroy(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(whole_files_are_read), cmocka_unit_test(other_machines),
      cmocka_unit_test(truncated),            cmocka_unit_test(wrong_lines),
      cmocka_unit_test(too_long),             cmocka_unit_test(damaged),
      cmocka_unit_test(files_and_the_environment), cmocka_unit_test(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
