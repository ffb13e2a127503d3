/* Ceilings measured by the bench itself, in the same run and with the same threads as what they are compared
 * with: how fast a unit multiplies, and how fast memory is read. Only for the CPU. */
#ifndef FA_CLI_BENCH_ROOF_H
#define FA_CLI_BENCH_ROOF_H

#include <stddef.h>
#include <stdint.h>

#include "fastattention/fastattention.h"

/* fp32 FMA: what every type is converted for. */
#define FA_ROOF_ANY (1u << FA_FLOAT32 | 1u << FA_FLOAT16 | 1u << FA_BFLOAT16)

/* One instruction set's loops. Each runs on the calling thread. */
typedef struct fa_roof_unit {
  const char *arch; /* as in the kernel table */
  const char *isa;  /* the word of fa_device_info.isa for it */
  uint32_t dtypes;  /* bits 1 << fa_dtype: inputs it is the way to multiply; of fp16, AMX by three products of bf16 terms */
  const char *name; /* "AMX bf16, real data, tiles from L1" */
  /* Multiplies and adds `rounds` times over; returns the floating-point operations done. `sink` keeps the
   * compiler from dropping the work. */
  double (*multiply)(int64_t rounds, volatile float *sink);
  /* Reads every byte once; bytes is a multiple of 1024. streams: 1 from begin to end, 4 in four places at
   * once. NULL for units that are not for fp32: machines that have them have another with as wide loads. */
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

/* What roof_percent is a percentage of. */
typedef struct fa_roof {
  const fa_roof_unit *unit; /* not NULL */
  int products;             /* of the unit, for one of the inputs' type: the roof is its rate divided by this */
  const char *name;         /* "a third of AMX bf16, real data, tiles from L1" */
} fa_roof;

/* The roof of a kernel of `arch` for inputs of `dtype`: the rate of the unit it multiplies with, but for what AMX computes
 * by bf16 terms. There fp16 takes three products at least, so its roof is a third of AMX's; and fp32 is held against fp32
 * FMA, which is what the terms are there to beat: above 100 % they do. For an arch without a unit of its own (a baseline),
 * the fastest way of `isa`, which is fa_device_info.isa. */
fa_roof fa_roof_of(const char *arch, const char *isa, fa_dtype dtype);

/* One sample, TFLOP/s of all threads together; takes about 50 ms after a first call that takes longer. */
double fa_roof_arithmetic(const fa_roof *roof, int threads);

/* One sample, GB/s: reads the first bytes[i] of both memory[i] once, with the widest loads of `isa`. */
double fa_roof_bandwidth(const char *isa, int threads, int streams, const void *const memory[2],
                         const size_t bytes[2]);

#endif
