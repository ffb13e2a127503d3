/* The one way an error leaves the library: a status and this thread's line. */
#ifndef FA_CORE_STATUS_H
#define FA_CORE_STATUS_H

#include "fastattention/fastattention.h"

/* Sets fa_last_error() to the formatted line and returns `status`, so that a check is one statement:
 *   return fa_fail(FA_ERROR_ARGUMENT, "batch is %lld; it must be at least 1", ...);
 * The line says what was given, what is allowed and, where it is not obvious, what to do. No newline. */
fa_status fa_fail(fa_status status, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Empties the line again, where a failure inside the library was dealt with there. */
void fa_forget_error(void);

#endif
