/* Random numbers that depend on a seed and nothing else (splitmix64). */
#ifndef FA_CHECK_RANDOM_H
#define FA_CHECK_RANDOM_H

#include <stdint.h>

typedef struct fa_random {
  uint64_t state;
} fa_random;

static inline uint64_t fa_random_bits(fa_random *r) {
  uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* low .. high, both included. */
static inline int64_t fa_random_range(fa_random *r, int64_t low, int64_t high) {
  return low + (int64_t)(fa_random_bits(r) % (uint64_t)(high - low + 1));
}

static inline int fa_random_chance(fa_random *r, int percent) {
  return (int)(fa_random_bits(r) % 100u) < percent;
}

static inline double fa_random_unit(fa_random *r) { return (double)(fa_random_bits(r) >> 11) * 0x1p-53; }

/* Near enough to a normal distribution of variance 1. */
static inline double fa_random_normal(fa_random *r) {
  double sum = -2.0;
  for (int n = 0; n < 4; n++) sum += fa_random_unit(r);
  return sum * 1.7320508075688772;
}

#define FA_RANDOM_PICK(r, list) \
  ((list)[fa_random_range((r), 0, (int64_t)(sizeof(list) / sizeof((list)[0])) - 1)])

#endif
