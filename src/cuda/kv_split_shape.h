/* How many parts a KV sequence is cut into, and what joining them and its host side agree on. Plain C. */
#ifndef FA_CUDA_KV_SPLIT_SHAPE_H
#define FA_CUDA_KV_SPLIT_SHAPE_H

#include <stdint.h>

enum {
  FA_MOST_SPLITS = 256,
  FA_JOIN_COLUMNS = 128, /* threads side by side */
  FA_JOIN_GROUPS = 4,    /* that share the parts */
  FA_JOIN_THREADS = FA_JOIN_COLUMNS * FA_JOIN_GROUPS,

  /* What joining costs, in keys that a multiprocessor reads meanwhile: a launch behind the kernel, and writing and
   * reading a row of a part. */
  FA_JOIN_KEYS = 512,
  FA_JOIN_ROW_KEYS = 2,

  /* A multiprocessor reads this much, in fifths, of what it gets when all of them read, when half of them do (64 blocks
   * on an H200, measured). */
  FA_ALONE_FIFTHS = 8
};

/* `units` blocks a part, `rows` rows of o in all, `keys` of the longest sequence, no part shorter than `least_part`. The
 * least time of the busiest multiprocessor: its blocks, each with its part of the keys, and joining. All that runs beside
 * each other on a multiprocessor shares its way to memory, so what counts is how many blocks it gets in all. A device
 * that is full without splitting gains nothing that o in fp32, once a part, would not cost; one that is half empty reads
 * faster in each block, and has nothing to join. */
static inline int64_t fa_split_count(int64_t units, int64_t rows, int64_t keys, int64_t processors, int64_t least_part) {
  const int64_t parts = (keys + least_part - 1) / least_part, most = parts < FA_MOST_SPLITS ? parts : FA_MOST_SPLITS;
  if (processors < 1) processors = 1;
  if (units >= 2 * processors) return 1;
  const int64_t alone = (units + processors - 1) / processors * keys * 5 / FA_ALONE_FIFTHS, all = units * keys / processors;
  int64_t best = 1, best_cost = alone > all ? alone : all;
  for (int64_t n = 2; n <= most; ++n) {
    const int64_t blocks = (units * n + processors - 1) / processors, part = (keys + n - 1) / n;
    const int64_t cost = blocks * part + FA_JOIN_KEYS + FA_JOIN_ROW_KEYS * n * ((rows + processors - 1) / processors);
    if (cost < best_cost) best = n, best_cost = cost;
  }
  return best;
}

#endif
