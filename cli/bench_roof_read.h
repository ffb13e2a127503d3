/* The reading loop of a ceiling, in the registers of the file that includes it: that many bytes in FA_ROOF_REGISTER. */
#ifndef FA_CLI_BENCH_ROOF_READ_H
#define FA_CLI_BENCH_ROOF_READ_H

#include <string.h>

#include "bench_roof.h"

typedef uint32_t fa_roof_register __attribute__((vector_size(FA_ROOF_REGISTER)));

/* Four streams: the prefetchers stop at page ends, and while one stream waits there the others go on (20.8
 * GB/s instead of 16.1 with two threads over 1 GiB, measured on a 2-core Sapphire Rapids VM). */
static void read_all(const char *begin, size_t bytes, int streams, volatile float *sink) {
  enum { CHUNK = FA_ROOF_REGISTER < 64 ? 64 : 128 };
  fa_roof_register mixed[4] = {{0}, {0}, {0}, {0}};
  const size_t gap = streams == 1 ? CHUNK : bytes / 4, stride = streams == 1 ? 4 * CHUNK : CHUNK;
  for (size_t i = 0; i < bytes / (4 * CHUNK); i++) {
    for (size_t w = 0; w < 4; w++) {
      for (size_t at = 0; at < CHUNK; at += FA_ROOF_REGISTER) {
        fa_roof_register loaded;
        memcpy(&loaded, begin + w * gap + i * stride + at, sizeof loaded);
        mixed[w] ^= loaded;
      }
    }
  }
  const fa_roof_register all = mixed[0] ^ mixed[1] ^ mixed[2] ^ mixed[3];
  uint32_t one = 0;
  for (size_t lane = 0; lane < FA_ROOF_REGISTER / sizeof one; lane++) one ^= all[lane];
  *sink = (float)one;
}

#endif
