/* What this process uses and what the machine has left, from /proc. */
#ifndef FA_CLI_PROCESS_MEMORY_H
#define FA_CLI_PROCESS_MEMORY_H

#include <stdint.h>

int64_t fa_memory_available(void); /* bytes; -1 when unknown */

/* Peak of the resident memory since the last reset. Begin returns what is resident now, or -1 where the
 * kernel does not let the peak be reset; end returns the growth over that, or -1 likewise. */
int64_t fa_memory_peak_begin(void);
int64_t fa_memory_peak_end(int64_t begin);

#endif
