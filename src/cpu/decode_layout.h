/* Workspace of decode_split.c: what all threads share, then the scratch of each. */
#ifndef FA_CPU_DECODE_LAYOUT_H
#define FA_CPU_DECODE_LAYOUT_H

#include "cpu/decode_split.h"

/* q and o of an item should stay in L2 beside the chunks that stream through it. */
#define SCRATCH_GOAL (256 << 10)

/* Items [next, end) of one thread, a cache line to itself. A thread does its own first and then what others have left:
 * so the same keys meet the same core in the next run, and its L2 may still have them. */
typedef struct share {
  int64_t next, end;
  char line[48];
} share;

/* One thread's scratch; sizes from the plan. */
typedef struct scratch {
  float *q, *o, *tile, *weights, *scales;
  fa_part *parts;
  fa_score_rules *rules;
  const char **rows; /* [2 (k, v), 2 (this chunk, next), FA_DECODE_KEYS] */
} scratch;

static int64_t most_heads(const fa_attention_problem *p) {
  const int64_t padded =
      fa_round_up(p->head_dim_qk, FA_DECODE_PAD) + fa_round_up(p->head_dim_v, FA_DECODE_PAD);
  const int64_t bytes =
      p->heads_q / p->heads_kv * fa_max(p->max_seqlen_q, 1) * padded * (int64_t)sizeof(float);
  return fa_min(fa_max(SCRATCH_GOAL / bytes, 1), p->heads_kv);
}

/* Lays scratch out at base (which may be NULL) and returns its size, a multiple of 64. */
static int64_t lay_out_scratch(const fa_plan *plan, char *base, scratch *s) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t heads = most_heads(p) * plan->group, rows = heads * fa_max(p->max_seqlen_q, 1);
  int64_t at = 0;
#define TAKE(field, type, count)                                \
  do {                                                          \
    if (base) s->field = (type *)(void *)(base + at);           \
    at = fa_round_up(at + (int64_t)sizeof(type) * (count), 64); \
  } while (0)
  TAKE(q, float, rows *fa_round_up(p->head_dim_qk, FA_DECODE_PAD));
  TAKE(o, float, (rows + most_heads(p) * FA_DECODE_SLACK) * fa_round_up(p->head_dim_v, FA_DECODE_PAD));
  TAKE(tile, float, FA_DECODE_TILE *FA_DECODE_KEYS);
  TAKE(scales, float, 2 * FA_DECODE_KEYS);
  TAKE(weights, float, plan->kv_splits);
  TAKE(parts, fa_part, rows);
  TAKE(rules, fa_score_rules, heads);
  TAKE(rows, const char *, 4 * FA_DECODE_KEYS);
#undef TAKE
  return at;
}

/* Offsets of what lies in the workspace before the threads' scratch. */
typedef struct layout {
  int64_t shares, parts, o, scratch, end;
} layout;

static layout lay_out(const fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t rows = plan->kv_splits > 1 ? p->batch * plan->kv_splits * p->heads_q * p->max_seqlen_q : 0;
  layout l;
  l.shares = fa_round_up(p->batch * p->heads_kv * (int64_t)sizeof(int32_t), 64);
  l.parts = l.shares + plan->context->threads * (int64_t)sizeof(share);
  l.o = l.parts + fa_round_up(rows * (int64_t)sizeof(fa_part), 64);
  l.scratch = l.o + rows * fa_round_up(p->head_dim_v, FA_DECODE_PAD) * (int64_t)sizeof(float);
  l.end = l.scratch + plan->context->threads * lay_out_scratch(plan, NULL, NULL);
  return l;
}

#endif
