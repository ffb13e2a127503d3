/* Ceilings measured by the bench itself, in the same run and with the same threads as what they are compared
 * with: how fast a unit multiplies, and how fast memory is read. Only for the CPU. */
#ifndef FA_CLI_BENCH_ROOF_H
#define FA_CLI_BENCH_ROOF_H

#include <stddef.h>
#include <stdint.h>

/* One instruction set's loops. Each runs on the calling thread. */
typedef struct fa_roof_unit {
  const char *arch; /* as in the kernel table */
  const char *name; /* "AMX bf16, real data, tiles from L1" */
  /* Multiplies and adds `rounds` times over; returns the floating-point operations done. `sink` keeps the
   * compiler from dropping the work. */
  double (*multiply)(int64_t rounds, volatile float *sink);
  /* Reads every byte once; bytes is a multiple of 1024. streams: 1 from begin to end, 4 in four places at
   * once. */
  void (*read)(const char *begin, size_t bytes, int streams, volatile float *sink);
} fa_roof_unit;

extern const fa_roof_unit fa_roof_c;
#if FA_X86
extern const fa_roof_unit fa_roof_avx2;
extern const fa_roof_unit fa_roof_avx512;
extern const fa_roof_unit fa_roof_avx512_bf16;
extern const fa_roof_unit fa_roof_amx;
#elif FA_ARM64
extern const fa_roof_unit fa_roof_neon;
extern const fa_roof_unit fa_roof_neon_fhm;
extern const fa_roof_unit fa_roof_neon_bf16;
#endif

/* The unit a kernel of `arch` multiplies with. For an arch without a unit of its own (a baseline), the
 * fastest of `isa`, which is fa_device_info.isa, for 16-bit or 32-bit inputs. Never NULL. */
const fa_roof_unit *fa_roof_of(const char *arch, const char *isa, int is_16_bit);

/* One sample, TFLOP/s of all threads together; takes about 50 ms after a first call that takes longer. */
double fa_roof_arithmetic(const fa_roof_unit *unit, int threads);

/* One sample, GB/s: reads the first bytes[i] of both memory[i] once, with the widest loads of `isa`. */
double fa_roof_bandwidth(const char *isa, int threads, int streams, const void *const memory[2],
                         const size_t bytes[2]);

#endif
