/* The runner's own error line; the library's fa_fail is not visible from here. */
#ifndef FA_LLAMA_ERROR_H
#define FA_LLAMA_ERROR_H

#include "fastattention/fastattention.h"

/* Sets fa_llama_last_error() to the formatted line and returns `status`. Control characters that came in with
 * a name from a file are replaced, so that it stays one line. */
fa_status fa_llama_fail(fa_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* The same for a failed call of the library: "<doing>: <fa_last_error()>". */
fa_status fa_llama_fail_library(fa_status status, const char *doing) __attribute__((cold));

fa_status fa_llama_out_of_memory(const char *what) __attribute__((cold));

#endif
