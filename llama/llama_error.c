#include "llama_error.h"

#include <stdarg.h>
#include <stdio.h>

#include "llama.h"

static _Thread_local char last_error[1024];

const char *fa_llama_last_error(void) { return last_error; }

fa_status fa_llama_fail(fa_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  if (length < 0) last_error[0] = '\0';
  for (char *c = last_error; *c; c++) {
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  }
  return status;
}

fa_status fa_llama_fail_library(fa_status status, const char *doing) {
  return fa_llama_fail(status, "%s: %s", doing, fa_last_error());
}

fa_status fa_llama_out_of_memory(const char *what) {
  return fa_llama_fail(FA_ERROR_MEMORY, "no memory for %s", what);
}
