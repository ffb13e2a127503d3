/* How many parts a KV sequence is cut into, and what joining them and its host side agree on. Plain C. */
#ifndef FA_CUDA_KV_SPLIT_SHAPE_H
#define FA_CUDA_KV_SPLIT_SHAPE_H

#include <stdint.h>

enum {
  FA_MOST_SPLITS = 256,
  FA_JOIN_COLUMNS = 128, /* threads side by side */
  FA_JOIN_GROUPS = 4,    /* that share the parts */
  FA_JOIN_THREADS = FA_JOIN_COLUMNS * FA_JOIN_GROUPS,

  /* What joining costs, in keys that a multiprocessor reads meanwhile while all read: a launch behind the kernel, writing
   * and reading a row of a part; or, in a cluster, every block. */
  FA_JOIN_KEYS = 1024,
  FA_JOIN_ROW_KEYS = 2,
  FA_CLUSTER_KEYS = 4,

  /* Of that time, in tenths, a block of 8 warps needs where at most half of the multiprocessors have one, and where more do
   * (64 and 96 blocks on an H200, measured: multiprocessors share their way in pairs, and pairs with one block end first). */
  FA_ALONE_TENTHS = 5,
  FA_PAIRED_TENTHS = 8
};

/* The time of `blocks` parts of `part` keys, in keys that a multiprocessor reads while all read. What runs at once shares the
 * way to memory, so that all end together wherever they are: two blocks a multiprocessor, or what is left over in the end. */
static inline int64_t fa_read_keys(int64_t blocks, int64_t part, int64_t processors) {
  const int64_t at_once = 2 * processors, left = blocks % at_once;
  const int64_t alone = part * (2 * blocks <= processors ? FA_ALONE_TENTHS : FA_PAIRED_TENTHS) / 10;
  const int64_t shared = left * part / processors;
  return blocks / at_once * 2 * part + (left == 0 ? 0 : alone > shared ? alone : shared);
}

/* `units` blocks a part, `rows` rows of o in all, `keys` of the longest sequence in `parts` that a launch behind joins. Blocks
 * of such parts have fewer warps and are not taken to read faster alone. */
static inline int64_t fa_split_cost(int64_t units, int64_t rows, int64_t keys, int64_t processors, int64_t parts) {
  if (parts == 1) return fa_read_keys(units, keys, processors);
  const int64_t blocks = (units * parts + processors - 1) / processors, part = (keys + parts - 1) / parts;
  return blocks * part + FA_JOIN_KEYS + FA_JOIN_ROW_KEYS * parts * ((rows + processors - 1) / processors);
}

/* The same where the blocks of a cluster join them. */
static inline int64_t fa_cluster_cost(int64_t units, int64_t keys, int64_t processors, int64_t parts) {
  return fa_read_keys(units * parts, (keys + parts - 1) / parts, processors) + FA_CLUSTER_KEYS * parts;
}

/* The cheapest number of parts for a launch behind, none shorter than `least_part`. A device that is full without splitting
 * gains nothing that o in fp32, once a part, would not cost. */
static inline int64_t fa_split_count(int64_t units, int64_t rows, int64_t keys, int64_t processors, int64_t least_part) {
  const int64_t parts = (keys + least_part - 1) / least_part, most = parts < FA_MOST_SPLITS ? parts : FA_MOST_SPLITS;
  if (units >= 2 * processors) return 1;
  int64_t best = 1, best_cost = fa_split_cost(units, rows, keys, processors, 1);
  for (int64_t n = 2; n <= most; ++n) {
    const int64_t cost = fa_split_cost(units, rows, keys, processors, n);
    if (cost < best_cost) best = n, best_cost = cost;
  }
  return best;
}

#endif
