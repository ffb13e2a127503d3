/* How many blocks a multiprocessor holds, as far as shared memory decides. Plain C. */
#ifndef FA_CUDA_BLOCKS_SHAPE_H
#define FA_CUDA_BLOCKS_SHAPE_H

#include <stdint.h>

/* A block may have `limit` bytes, all blocks of a multiprocessor `total`; the system keeps 1 KB of each block from compute
 * capability 8.0 (80) on. */
static inline int32_t fa_blocks_at_once(int32_t capability, uint32_t limit, uint32_t total, uint32_t shared_bytes) {
  const uint32_t kept = capability >= 80 ? 1024 : 0;
  if (shared_bytes > limit) return 0;
  return shared_bytes + kept == 0 ? INT32_MAX : (int32_t)(total / (shared_bytes + kept));
}

#endif
