/* The passes of the two baselines over rows of scores, once for every instruction set: baseline_rows_<isa>.c
 * each compile baseline_row_passes.h for theirs.
 *
 * A row is the scores of one query against keys [0, keys), of `dtype`; what lies beyond the sequence's end in
 * it is padding of the matrix product. All arithmetic is in fp32; `scratch` has room for `keys` floats. */
#ifndef FA_CPU_BASELINE_ROWS_H
#define FA_CPU_BASELINE_ROWS_H

#include "cpu/score_rules.h"

typedef struct fa_baseline_rows {
  /* Scores to probabilities in place: reads the kept keys, writes every key (0 where not kept). `sink` is
   * NULL or this head's logit. Returns the row's log-sum-exp. */
  float (*softmax)(fa_dtype dtype, void *row, int64_t keys, const fa_score_rules *rules, int64_t query,
                   const float *sink, float *scratch);

  /* What a framework runs one by one. */
  void (*scale)(fa_dtype dtype, void *row, int64_t keys, float factor);
  void (*softcap)(fa_dtype dtype, void *row, int64_t keys, float cap);
  void (*add)(fa_dtype dtype, void *row, const void *mask_row, int64_t keys);
  float (*softmax_wide)(fa_dtype dtype, const void *row, float *probabilities, int64_t keys,
                        const float *sink);
  void (*narrow)(fa_dtype dtype, void *row, const float *probabilities, int64_t keys);
  /* One query's row of the additive mask: ALiBi and bias, -infinity where a rule leaves the key out. */
  void (*mask)(fa_dtype dtype, void *mask_row, int64_t keys, const fa_score_rules *rules, int64_t query,
               float *scratch);
} fa_baseline_rows;

extern const fa_baseline_rows fa_baseline_rows_c, fa_baseline_rows_avx2, fa_baseline_rows_avx512;

/* The best of this machine. */
static inline const fa_baseline_rows *fa_baseline_rows_here(void) {
#if FA_X86
  const uint64_t isa = fa_cpu_isa();
  if (isa & FA_CPU_AVX512) return &fa_baseline_rows_avx512;
  if (isa & FA_CPU_AVX2) return &fa_baseline_rows_avx2;
#endif
  return &fa_baseline_rows_c;
}

#endif
