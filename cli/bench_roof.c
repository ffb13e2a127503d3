/* Chooses and times the loops of bench_roof_<isa>.c. */
#include "bench_roof.h"

#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if FA_X86 || FA_ARM64
/* isa holds words; "avx512" must not be found in "avx512_bf16" alone. */
static int has(const char *isa, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = isa; (at = strstr(at, word)) != NULL; at += length) {
    const int begins = at == isa || at[-1] == ' ';
    if (begins && (at[length] == ' ' || at[length] == '\0')) return 1;
  }
  return 0;
}
#endif

const fa_roof_unit *fa_roof_of(const char *arch, const char *isa, int is_16_bit) {
#if FA_X86
  static const fa_roof_unit *const units[] = {&fa_roof_amx, &fa_roof_avx512_bf16, &fa_roof_avx512, &fa_roof_avx2, &fa_roof_c};
#elif FA_ARM64
  static const fa_roof_unit *const units[] = {&fa_roof_neon_bf16, &fa_roof_neon_fhm, &fa_roof_neon, &fa_roof_c};
#else
  static const fa_roof_unit *const units[] = {&fa_roof_c};
#endif
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    if (strcmp(arch, units[i]->arch) == 0) return units[i];
  }
#if FA_X86
  if (is_16_bit && has(isa, "amx_bf16")) return &fa_roof_amx;
  if (has(isa, "avx512")) return &fa_roof_avx512;
  if (has(isa, "avx2")) return &fa_roof_avx2;
#elif FA_ARM64
  if (is_16_bit && has(isa, "neon_bf16")) return &fa_roof_neon_bf16;
  if (has(isa, "neon")) return &fa_roof_neon;
#else
  (void)isa;
  (void)is_16_bit;
#endif
  return &fa_roof_c;
}

double fa_roof_arithmetic(const fa_roof_unit *unit, int threads) {
  static const fa_roof_unit *sized; /* rounds belong to this unit */
  static int64_t rounds;
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
  return operations / (now() - begin) * 1e-12;
}

double fa_roof_bandwidth(const char *isa, int threads, int streams, const void *const memory[2],
                         const size_t bytes[2]) {
  /* Small enough that threads finish together, large enough to stream. */
  enum { PIECE = 1 << 20, GRAIN = 1024 };
  const fa_roof_unit *const unit = fa_roof_of("", isa, 0);
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
