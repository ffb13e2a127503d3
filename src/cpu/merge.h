/* Joining attentions of the same queries over disjoint keys by log-sum-exp. See merge.c. */
#ifndef FA_CPU_MERGE_H
#define FA_CPU_MERGE_H

#include "cpu/cpu.h"

/* What one part of the keys leaves for a query row: o = sum exp(s_j - max) v_j (kept apart), and these. */
typedef struct fa_part {
  float max; /* of the scores kept; -inf when none was */
  float sum; /* of exp(s_j - max) */
} fa_part;

/* Joins `count` parts (and the sink, unless NULL) of one row in their order: weights[p] is what part p's o is
 * to be multiplied with, 0 for a part to be left out. Returns lse. parts lie `stride` apart. */
float fa_cpu_join_parts(const fa_part *parts, int64_t count, int64_t stride, const float *sink,
                        float *weights);

#endif
