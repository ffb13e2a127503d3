/* What the fuzz targets share. A target is one function of bytes, which libFuzzer calls (FA_FUZZ), or
 * feed_corpus.c with the files of the corpus, in every build. */
#ifndef FA_TESTS_FUZZ_TARGET_H
#define FA_TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is refused has one line that says why. */
static inline void fuzz_expect_line(fa_status status) {
  const char *line = fa_llama_last_error();
  if (status == FA_OK) return;
  if (!line[0] || strchr(line, '\n')) {
    fprintf(stderr, "status %d with the line '%s'\n", (int)status, line);
    abort();
  }
}

/* Whether something holds of what was accepted. */
#define FUZZ_EXPECT(condition)                     \
  do {                                             \
    if (!(condition)) {                            \
      fprintf(stderr, "not so: %s\n", #condition); \
      abort();                                     \
    }                                              \
  } while (0)

/* Everything a tokenizer does with a text. */
void fuzz_tokenizer(const fa_tokenizer *tokenizer, const char *text, size_t length);

#endif
