#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char last_error[512];

fa_status fa_fail(fa_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

void fa_forget_error(void) { last_error[0] = '\0'; }

const char *fa_last_error(void) { return last_error; }

const char *fa_status_name(fa_status status) {
  switch (status) {
    case FA_OK: return "ok";
    case FA_ERROR_ARGUMENT: return "argument";
    case FA_ERROR_UNSUPPORTED: return "unsupported";
    case FA_ERROR_WORKSPACE: return "workspace";
    case FA_ERROR_MEMORY: return "memory";
    case FA_ERROR_DEVICE: return "device";
    case FA_ERROR_COMM: return "comm";
  }
  return "unknown";
}
