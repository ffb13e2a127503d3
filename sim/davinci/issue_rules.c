/* What vector instructions may be given: types, strides, and where dst may lie on a source. */
#include "davinci/core.h"
#include "davinci/issue_parts.h"

#include <string.h>

static const char *const type_names[DV_TYPES] = {"float",    "half",   "bfloat16_t", "int32_t", "uint32_t", "int16_t",
                                                 "uint16_t", "int8_t", "uint8_t",    "int64_t", "uint64_t"};

/* ------------------------------------------------------------------ types */

enum {
  FLOATS = 1 << DV_F32 | 1 << DV_F16,
  NUMBERS = FLOATS | 1 << DV_S32 | 1 << DV_S16,
  SHIFTED = 1 << DV_S32 | 1 << DV_U32 | 1 << DV_S16 | 1 << DV_U16,
  WORDS = NUMBERS | SHIFTED | 1 << DV_BF16, /* what moves is not looked at */
  LOGICAL = 1 << DV_S16 | 1 << DV_U16
};
static const uint16_t types_of[DV_OPERATIONS] = {
    [DV_ADD] = NUMBERS,         [DV_SUB] = NUMBERS,        [DV_MUL] = NUMBERS,
    [DV_DIV] = FLOATS,          [DV_MAX] = NUMBERS,        [DV_MIN] = NUMBERS,
    [DV_AND] = LOGICAL,         [DV_OR] = LOGICAL,         [DV_NOT] = LOGICAL,
    [DV_MULADDDST] = FLOATS,    [DV_ADDS] = NUMBERS,       [DV_MULS] = NUMBERS,
    [DV_MAXS] = NUMBERS,        [DV_MINS] = NUMBERS,       [DV_SHIFT_LEFT] = SHIFTED,
    [DV_SHIFT_RIGHT] = SHIFTED, [DV_LEAKY_RELU] = FLOATS,  [DV_AXPY] = FLOATS,
    [DV_EXP] = FLOATS,          [DV_LN] = FLOATS,          [DV_SQRT] = FLOATS,
    [DV_RSQRT] = FLOATS,        [DV_REC] = FLOATS,         [DV_ABS] = FLOATS,
    [DV_RELU] = FLOATS | 1 << DV_S32, [DV_COPY] = WORDS,   [DV_DUPLICATE] = WORDS,
    [DV_PROGRESSION] = NUMBERS, [DV_WHOLE_MAX] = FLOATS,   [DV_WHOLE_MIN] = FLOATS,
    [DV_WHOLE_SUM] = FLOATS,    [DV_BLOCK_MAX] = FLOATS,   [DV_BLOCK_MIN] = FLOATS,
    [DV_BLOCK_SUM] = FLOATS,    [DV_PAIR_SUM] = FLOATS,    [DV_TOTAL_SUM] = FLOATS,
    [DV_BRCB] = WORDS,          [DV_COMPARE] = FLOATS | 1 << DV_S32,
    [DV_COMPARE_SCALAR] = FLOATS | 1 << DV_S32,            [DV_SELECT] = FLOATS,
    [DV_SELECT_SCALAR] = FLOATS};

enum {
  NONE = 1 << DV_ROUND_NONE,
  ODD = 1 << DV_ODD,
  WAYS = 1 << DV_RINT | 1 << DV_FLOOR | 1 << DV_CEIL | 1 << DV_ROUND_AWAY | 1 << DV_TRUNC
};
/* From, to: the ways of rounding; as Cast's page has them for Atlas A2. */
static const uint8_t casts[DV_TYPES][DV_TYPES] = {
    [DV_F32] = {[DV_F32] = WAYS,
                [DV_F16] = WAYS | ODD | NONE,
                [DV_BF16] = WAYS,
                [DV_S16] = WAYS,
                [DV_S32] = WAYS,
                [DV_S64] = WAYS},
    [DV_F16] =
        {[DV_F32] = NONE, [DV_S8] = WAYS | NONE, [DV_U8] = WAYS | NONE, [DV_S16] = WAYS, [DV_S32] = WAYS},
    [DV_BF16] = {[DV_F32] = NONE, [DV_S32] = WAYS},
    [DV_S8] = {[DV_F16] = NONE},
    [DV_U8] = {[DV_F16] = NONE},
    [DV_S16] = {[DV_F16] = WAYS | NONE, [DV_F32] = NONE},
    [DV_S32] = {[DV_F32] = WAYS | NONE, [DV_S16] = NONE, [DV_S64] = NONE},
    [DV_S64] = {[DV_F32] = WAYS, [DV_S32] = NONE}};

static void check_cast(dv_here here, const dv_vector *v) {
  if (v->type == DV_S32 && v->to == DV_F16)
    dv_fail(here, "broken rule", "int32_t to half takes SetDeqScale, which is not known here");
  if (!casts[v->type][v->to])
    dv_fail(here, "broken rule", "%s to %s: there is no such Cast on this chip", type_names[v->type],
            type_names[v->to]);
  if (!(casts[v->type][v->to] >> v->round & 1))
    dv_fail(here, "broken rule", "%s to %s does not round in mode %d", type_names[v->type], type_names[v->to], (int)v->round);
}

void dv_check_vector(dv_here here, const dv_vector *v) {
  const int widens = dv_adds_to_dst(v->op) && v->type == DV_F16 && v->to == DV_F32;
  if (v->op == DV_CAST) {
    check_cast(here, v);
  } else {
    if (!(types_of[v->op] >> v->type & 1)) dv_fail(here, "broken rule", "there is none in %s on this chip", type_names[v->type]);
    if (!dv_gives_bits(v->op) && !widens && v->type != v->to)
      dv_fail(here, "broken rule", "source and destination of two types, %s and %s", type_names[v->type], type_names[v->to]);
    if (dv_gives_bits(v->op) && v->type == DV_S32 && v->compare != DV_EQ)
      dv_fail(here, "broken rule", "int32_t is compared for EQ only on this chip");
  }
  if ((dv_is_elementwise(v->op) || v->op == DV_BRCB) && v->dst_block == 0)
    dv_fail(here, "broken rule", "the destination's blocks are 0 apart, which is undefined");
  if (v->op == DV_COPY && v->counts)
    dv_fail(here, "broken rule", "Copy where the mask counts, which is not known here");
}

/* ------------------------------------------------------------------ overlap */

/* A source and dst coincide in a repeat or lie apart in it, and no repeat reads what one before it wrote. Of the latter Add, Sub,
 * Mul, Max and Min are excused for their second source, where its repeats or dst's are 0 apart (a sum over repeats). A Cast that
 * narrows may begin where its source does: its page warns of those that widen only. */

enum { MOST_BLOCKS = 8192, MOST_OF_REPEAT = 8 };

/* Numbers of blocks of UB that an operand has in a repeat; at[n] counts where bit n of used is set. */
typedef struct repeat_blocks {
  uint64_t at[MOST_OF_REPEAT];
  uint32_t used;
} repeat_blocks;

static repeat_blocks blocks_of(uint64_t at, uint32_t block, uint32_t used) {
  repeat_blocks blocks = {.used = used};
  for (uint32_t n = 0; n < MOST_OF_REPEAT; ++n) blocks.at[n] = at / 32 + (uint64_t)n * block;
  return blocks;
}

static repeat_blocks dst_of(const dv_vector *v, uint32_t r, uint32_t per_repeat) {
  const uint32_t bytes = dv_type_bytes(v->to);
  if (dv_is_elementwise(v->op))
    return blocks_of(v->dst.at + (uint64_t)r * v->dst_repeat * 32, v->dst_block, dv_blocks_used(v, r, per_repeat, bytes));
  const uint64_t at = dv_gives_bits(v->op) ? v->dst.at + (uint64_t)r * per_repeat / 8
                                           : v->dst.at + (uint64_t)r * v->dst_repeat * dv_result_bytes(v);
  const uint32_t writes = dv_gives_bits(v->op) ? per_repeat / 8 : dv_result_bytes(v);
  return blocks_of(at, 1, (1u << ((at % 32 + writes + 31) / 32)) - 1);
}

static int have_common(const repeat_blocks *a, const repeat_blocks *b) {
  for (uint32_t n = 0; n < MOST_OF_REPEAT; ++n)
    for (uint32_t i = 0; i < MOST_OF_REPEAT && (a->used >> n & 1u); ++i)
      if ((b->used >> i & 1u) && a->at[n] == b->at[i]) return 1;
  return 0;
}

static int may_share(const dv_vector *v, const repeat_blocks *dst, const repeat_blocks *source) {
  const uint32_t from_bytes = dv_type_bytes(v->type), to_bytes = dv_type_bytes(v->to);
  if (!have_common(dst, source)) return 1;
  if (!dv_is_elementwise(v->op) || to_bytes > from_bytes) return 0;
  if (to_bytes < from_bytes) return dst->at[0] == source->at[0] && v->dst_block == 1 && v->src0_block == 1;
  for (uint32_t n = 0; n < MOST_OF_REPEAT; ++n)
    if ((dst->used >> n & 1u) && dst->at[n] != source->at[n]) return 0;
  return 1;
}

static int is_excused(const dv_vector *v) {
  const int sums = v->op == DV_ADD || v->op == DV_SUB || v->op == DV_MUL || v->op == DV_MAX || v->op == DV_MIN;
  return sums && v->type != DV_S16 && (v->src1_repeat == 0 || v->dst_repeat == 0);
}

typedef struct block_set {
  uint64_t bits[MOST_BLOCKS / 64];
} block_set;
static int has_any(const block_set *set, const repeat_blocks *blocks) {
  for (uint32_t n = 0; n < MOST_OF_REPEAT; ++n)
    if ((blocks->used >> n & 1u) && blocks->at[n] < MOST_BLOCKS &&
        (set->bits[blocks->at[n] / 64] >> blocks->at[n] % 64 & 1u))
      return 1;
  return 0;
}
static void add(block_set *set, const repeat_blocks *blocks) {
  for (uint32_t n = 0; n < MOST_OF_REPEAT; ++n)
    if ((blocks->used >> n & 1u) && blocks->at[n] < MOST_BLOCKS)
      set->bits[blocks->at[n] / 64] |= (uint64_t)1 << blocks->at[n] % 64;
}

static void walk(dv_here here, const dv_vector *v, uint32_t per_repeat, int sources) {
  const uint32_t bytes = dv_type_bytes(v->type);
  block_set written;
  memset(&written, 0, sizeof written);
  for (uint32_t r = 0; r < v->repeats; ++r) {
    const repeat_blocks dst = dst_of(v, r, per_repeat);
    const uint32_t used = dv_blocks_used(v, r, per_repeat, bytes);
    for (int s = 0; s < sources; ++s) {
      const uint64_t at = s ? v->src1.at + (uint64_t)r * v->src1_repeat * 32 : v->src0.at + (uint64_t)r * v->src0_repeat * 32;
      const repeat_blocks source = blocks_of(at, s ? v->src1_block : v->src0_block, used);
      if (!may_share(v, &dst, &source))
        dv_fail(here, "broken rule", "in repeat %u the destination covers a source in part", r);
      if (has_any(&written, &source) && !(s && is_excused(v)))
        dv_fail(here, "broken rule", "repeat %u reads what a repeat before it writes", r);
    }
    if (dv_adds_to_dst(v->op) && has_any(&written, &dst))
      dv_fail(here, "broken rule", "repeat %u adds to what a repeat before it writes", r);
    add(&written, &dst);
  }
}

/* From the first byte to behind the last of an operand that has whole blocks. */
static uint64_t span_of(const dv_vector *v, uint32_t block, uint32_t repeat) {
  return ((uint64_t)(v->repeats - 1) * repeat + 7ull * block + 1) * 32;
}
static int lie_apart(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) { return a + a_bytes <= b || b + b_bytes <= a; }
/* Each repeat of a source behind the one before it, and dst exactly on it. */
static int coincides(const dv_vector *v, uint64_t at, uint32_t block, uint32_t repeat) {
  return dv_is_elementwise(v->op) && v->type == v->to && at == v->dst.at && block == v->dst_block && repeat == v->dst_repeat &&
         (v->repeats == 1 || repeat > 7 * block);
}

void dv_check_overlap(dv_here here, const dv_vector *v, uint32_t per_repeat) {
  const uint32_t bytes = dv_type_bytes(v->type);
  const int sources = dv_operands_of(v->op) == DV_NO_SOURCE ? 0 : dv_operands_of(v->op) == DV_TWO_SOURCES ? 2 : 1;
  uint64_t dst_span = span_of(v, v->dst_block, v->dst_repeat);
  if (sources == 0 || v->op == DV_TOTAL_SUM) return; /* the latter is several instructions */
  if (v->op == DV_BRCB) {
    if (!lie_apart(v->dst.at, dst_span, v->src0.at, (uint64_t)v->repeats * 8 * bytes))
      dv_fail(here, "broken rule", "source and destination are the same memory");
    return;
  }
  if (dv_gives_bits(v->op)) dst_span = (uint64_t)v->repeats * per_repeat / 8;
  else if (!dv_is_elementwise(v->op))
    dst_span = (uint64_t)(v->repeats - 1) * v->dst_repeat * dv_result_bytes(v) + dv_result_bytes(v);
  const uint64_t selectors = v->selector_repeats ? (uint64_t)v->repeats * per_repeat / 8 : per_repeat / 8;
  if (dv_selects(v->op) && !lie_apart(v->dst.at, dst_span, v->selector.at, selectors))
    dv_fail(here, "broken rule", "the destination covers the selector");
  int is_plain = !(dv_adds_to_dst(v->op) && v->repeats > 1 && v->dst_repeat <= 7 * v->dst_block);
  for (int s = 0; s < sources; ++s) {
    const uint64_t at = s ? v->src1.at : v->src0.at;
    const uint32_t block = s ? v->src1_block : v->src0_block, repeat = s ? v->src1_repeat : v->src0_repeat;
    is_plain &= lie_apart(v->dst.at, dst_span, at, span_of(v, block, repeat)) || coincides(v, at, block, repeat);
  }
  if (!is_plain) walk(here, v, per_repeat, sources);
}
