/* Chooses and times the loops of bench_roof_<isa>.c. */
#include "bench_roof.h"

#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* isa holds words; "avx512" must not be found in "avx512_bf16" alone. */
static int has(const char *isa, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = isa; (at = strstr(at, word)) != NULL; at += length) {
    const int begins = at == isa || at[-1] == ' ';
    if (begins && (at[length] == ' ' || at[length] == '\0')) return 1;
  }
  return 0;
}

/* The fastest first. */
static const fa_roof_unit *const units[] = {
#if FA_X86
    &fa_roof_amx, &fa_roof_avx512_bf16, &fa_roof_avx512, &fa_roof_avx2,
#elif FA_ARM64
    &fa_roof_neon_bf16, &fa_roof_neon_fhm, &fa_roof_neon,
#endif
    &fa_roof_c};

/* The fastest for inputs of `dtype`, of `arch` or, without one, of those `isa` has. NULL: none. */
static const fa_roof_unit *find(const char *arch, const char *isa, fa_dtype dtype) {
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    const int is_of = arch ? strcmp(arch, units[i]->arch) == 0 : has(isa, units[i]->isa);
    if (is_of && units[i]->dtypes >> dtype & 1u) return units[i];
  }
  return NULL;
}

fa_roof fa_roof_of(const char *arch, const char *isa, fa_dtype dtype) {
  const fa_roof_unit *unit = find(arch, isa, dtype);
  if (!unit) unit = find(NULL, isa, dtype);
  if (!unit) unit = &fa_roof_c;
  if (dtype == FA_FLOAT16 && strcmp(unit->arch, "amx") == 0)
    return (fa_roof){unit, 3, "a third of AMX bf16, real data, tiles from L1"};
  return (fa_roof){unit, 1, unit->name};
}

double fa_roof_arithmetic(const fa_roof *roof, int threads) {
  static const fa_roof_unit *sized; /* rounds belong to this unit */
  static int64_t rounds;
  const fa_roof_unit *const unit = roof->unit;
  if (sized != unit) {
    double seconds = 0.0;
    for (rounds = 1024; seconds < 0.02; rounds *= 2) {
      volatile float sink;
      const double begin = now();
      unit->multiply(rounds, &sink);
      seconds = now() - begin;
    }
    sized = unit; /* the last doubling makes it 40 ms or more */
  }
  double operations = 0.0;
  const int64_t each = rounds;
  const double begin = now();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
  {
    volatile float sink;
    operations += unit->multiply(each, &sink);
  }
  return operations / (now() - begin) * 1e-12 / roof->products;
}

double fa_roof_bandwidth(const char *isa, int threads, int streams, const void *const memory[2],
                         const size_t bytes[2]) {
  /* Small enough that threads finish together, large enough to stream. */
  enum { PIECE = 1 << 20, GRAIN = 1024 };
  const fa_roof_unit *const unit = fa_roof_of("", isa, FA_FLOAT32).unit;
  const size_t whole[2] = {bytes[0] / GRAIN * GRAIN, bytes[1] / GRAIN * GRAIN};
  const int64_t pieces = (int64_t)((whole[0] + PIECE - 1) / PIECE);
  const int64_t all = pieces + (int64_t)((whole[1] + PIECE - 1) / PIECE);
  const double begin = now();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < all; i++) {
    const int second = i >= pieces;
    const size_t at = (size_t)(second ? i - pieces : i) * PIECE;
    const size_t size = whole[second] - at < PIECE ? whole[second] - at : PIECE;
    volatile float sink;
    unit->read((const char *)memory[second] + at, size, streams, &sink);
  }
  return (double)(whole[0] + whole[1]) / (now() - begin) * 1e-9;
}
