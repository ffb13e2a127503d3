/* What the files of vector instructions share (issue_vector.c, issue_rules.c). */
#ifndef DV_ISSUE_PARTS_H
#define DV_ISSUE_PARTS_H

#include "davinci/instructions.h"

typedef enum dv_operands { DV_ONE_SOURCE, DV_TWO_SOURCES, DV_NO_SOURCE } dv_operands;

static inline dv_operands dv_operands_of(dv_operation op) {
  if (op <= DV_MULADDDST || op == DV_COMPARE || op == DV_SELECT) return DV_TWO_SOURCES;
  return op == DV_DUPLICATE || op == DV_PROGRESSION ? DV_NO_SOURCE : DV_ONE_SOURCE;
}
static inline int dv_adds_to_dst(dv_operation op) { return op == DV_MULADDDST || op == DV_AXPY; }
static inline int dv_is_whole(dv_operation op) { return op >= DV_WHOLE_MAX && op <= DV_WHOLE_SUM; }
static inline int dv_is_block(dv_operation op) { return op >= DV_BLOCK_MAX && op <= DV_BLOCK_SUM; }
static inline int dv_gives_bits(dv_operation op) { return op == DV_COMPARE || op == DV_COMPARE_SCALAR; }
static inline int dv_selects(dv_operation op) { return op == DV_SELECT || op == DV_SELECT_SCALAR; }
/* dst is laid out as the sources are: blocks of a repeat, repeats. */
static inline int dv_is_elementwise(dv_operation op) { return op < DV_WHOLE_MAX || dv_selects(op); }

/* Bytes that a repeat of a WholeReduce, BlockReduce or PairReduce writes, which is what its dst_repeat counts. */
uint32_t dv_result_bytes(const dv_vector *v);
/* Blocks (bits) of `bytes` wide elements of a repeat that take part. */
uint32_t dv_blocks_used(const dv_vector *v, uint32_t repeat, uint32_t per_repeat, uint32_t bytes);

/* Fails where the vendor's documentation has no such instruction: types, rounding, strides. */
void dv_check_vector(dv_here here, const dv_vector *v);
/* Fails where dst lies on a source other than it may. Addresses are in bounds. */
void dv_check_overlap(dv_here here, const dv_vector *v, uint32_t per_repeat);

#endif
