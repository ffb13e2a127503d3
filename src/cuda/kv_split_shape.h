/* How many parts a KV sequence is cut into, and what joining them and its host side agree on. Plain C. */
#ifndef FA_CUDA_KV_SPLIT_SHAPE_H
#define FA_CUDA_KV_SPLIT_SHAPE_H

#include <stdint.h>

enum {
  FA_MOST_SPLITS = 256,
  FA_JOIN_COLUMNS = 128, /* threads side by side */
  FA_JOIN_GROUPS = 4,    /* that share the parts */
  FA_JOIN_THREADS = FA_JOIN_COLUMNS * FA_JOIN_GROUPS,

  FA_JOIN_ROW_KEYS = 2, /* what writing and reading a row of a part costs, in the keys of fa_split_rates */
  FA_CLUSTER_KEYS = 4   /* and each block of a cluster */
};

/* How blocks share a device. Times are in keys that a multiprocessor works through while all work. */
typedef struct fa_split_rates {
  int64_t at_once;       /* blocks of a multiprocessor that share the way to memory, not the multiprocessor */
  int64_t alone_tenths;  /* time a key, in tenths, of a block where at most half of the multiprocessors have one ... */
  int64_t paired_tenths; /* ... and where more have */
  int64_t join_keys;     /* a launch behind that joins parts */
} fa_split_rates;

/* Bound by arithmetic: a multiprocessor is no faster for being alone. */
static inline fa_split_rates fa_rates_of_arithmetic(void) {
  const fa_split_rates rates = {1, 10, 10, 512};
  return rates;
}

/* Bound by reading, in blocks of 4 or 8 warps. Measured on an H200: 64 blocks read as fast as 132, 96 do not, since
 * multiprocessors share their way in pairs, and pairs with one block end first. Before clusters (capability 9.0): not run
 * there; more careful, and a launch is fewer keys where memory is slower. */
static inline fa_split_rates fa_rates_of_reading(int has_clusters) {
  const fa_split_rates measured = {2, 5, 8, 1024}, careful = {2, 6, 10, 512};
  return has_clusters ? measured : careful;
}

static inline int64_t fa_work_keys(fa_split_rates rates, int64_t blocks, int64_t part, int64_t processors) {
  const int64_t wave = rates.at_once * processors, left = blocks % wave;
  const int64_t alone = part * (2 * blocks <= processors ? rates.alone_tenths : rates.paired_tenths) / 10;
  const int64_t shared = left * part / processors;
  return blocks / wave * rates.at_once * part + (left == 0 ? 0 : alone > shared ? alone : shared);
}

/* `units` blocks a part, `rows` rows of o in all, `keys` of the longest sequence in `parts` that a launch behind joins. Blocks
 * of such parts are not taken to be faster alone. */
static inline int64_t fa_split_cost(fa_split_rates rates, int64_t units, int64_t rows, int64_t keys, int64_t processors,
                                    int64_t parts) {
  if (parts == 1) return fa_work_keys(rates, units, keys, processors);
  const int64_t blocks = (units * parts + processors - 1) / processors, part = (keys + parts - 1) / parts;
  return blocks * part + rates.join_keys + FA_JOIN_ROW_KEYS * parts * ((rows + processors - 1) / processors);
}

/* The same where the blocks of a cluster join them. */
static inline int64_t fa_cluster_cost(fa_split_rates rates, int64_t units, int64_t keys, int64_t processors, int64_t parts) {
  return fa_work_keys(rates, units * parts, (keys + parts - 1) / parts, processors) + FA_CLUSTER_KEYS * parts;
}

/* The cheapest number of parts for a launch behind, none shorter than `least_part`. A device that is full without splitting
 * gains nothing that o in fp32, once a part, would not cost. */
static inline int64_t fa_split_count(fa_split_rates rates, int64_t units, int64_t rows, int64_t keys, int64_t processors,
                                     int64_t least_part) {
  const int64_t parts = (keys + least_part - 1) / least_part, most = parts < FA_MOST_SPLITS ? parts : FA_MOST_SPLITS;
  if (units >= 2 * processors) return 1;
  int64_t best = 1, best_cost = fa_split_cost(rates, units, rows, keys, processors, 1);
  for (int64_t n = 2; n <= most; ++n) {
    const int64_t cost = fa_split_cost(rates, units, rows, keys, processors, n);
    if (cost < best_cost) best = n, best_cost = cost;
  }
  return best;
}

#endif
