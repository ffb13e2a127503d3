/* Joining attentions of the same queries over disjoint keys by log-sum-exp. See merge.c. */
#ifndef FA_CPU_MERGE_H
#define FA_CPU_MERGE_H

#include "cpu/cpu.h"

/* fa_backend.merge of the CPU: fa_merge of the public header, arguments checked. */
fa_status fa_cpu_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads,
                       int64_t dim, const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b,
                       fa_stream stream);

/* What one part of the keys leaves for a query row: o = sum exp(s_j - max) v_j (kept apart), and these. */
typedef struct fa_part {
  float max; /* of the scores kept; -inf when none was */
  float sum; /* of exp(s_j - max) */
} fa_part;

/* Joins `count` parts (and the sink, unless NULL) of one row in their order: weights[p] is what part p's o is to be
 * multiplied with, 0 for a part to be left out. Returns lse. parts lie `stride` apart. */
float fa_cpu_join_parts(const fa_part *parts, int64_t count, int64_t stride, const float *sink, float *weights);

#endif
