/* Faults inside a kernel, caught on the thread that called it; on another thread they end the process after
 * the report, for there is no way back from there. */
#ifndef FA_CHECK_CRASH_H
#define FA_CHECK_CRASH_H

#include <setjmp.h>
#include <stdio.h>

extern sigjmp_buf fa_crash_return;

/* Run on failure from a place with no way back: what to print, prepared beforehand. */
void fa_crash_install(FILE *out);
void fa_crash_uninstall(void);

/* if ((signal = sigsetjmp(fa_crash_return, 1)) == 0) { fa_crash_arm(...); ...; fa_crash_disarm(); } else
 * crashed. last_words is printed if the process has to end; seconds: after which the call counts as hanging.
 */
void fa_crash_arm(const char *last_words, unsigned seconds);
void fa_crash_disarm(void);

const char *fa_crash_name(int signal_number);

#endif
