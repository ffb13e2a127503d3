/* The plain-C attention of a few rows, which any faster CPU kernel calls for rows it cannot answer itself: a
 * vector kernel multiplies masked keys by a weight of 0, and 0 * NaN is NaN. So it tests its finished rows,
 * and the rare row that is not finite is done again here, where masked keys are left out instead. */
#ifndef FA_CPU_PREFILL_EXACT_H
#define FA_CPU_PREFILL_EXACT_H

#include "core/kernel.h"

/* Scratch of one caller at a time, a multiple of 64; from the plan's maxima. */
size_t fa_prefill_rows_exact_bytes(const fa_plan *plan);

/* Writes o and, if asked for, lse of queries [row, row + rows) of batch entry b and query head h. scratch is
 * aligned to 64 and may hold anything. */
void fa_prefill_rows_exact(const fa_plan *plan, const fa_attention_args *args, int64_t b, int64_t h,
                           int64_t row, int64_t rows, void *scratch);

#endif
