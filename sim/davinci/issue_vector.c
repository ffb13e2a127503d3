/* Vector instructions: rules, bytes touched, time. Values: value_vector.c, value_reduce.c. */
#include "davinci/core.h"
#include "davinci/issue_parts.h"
#include "davinci/values.h"

static const dv_figures *figures(void) { return &dv_current->run->chip->figures; }

static double cycles_of(const dv_vector *v) {
  const dv_figures *f = figures();
  switch (v->op) {
    case DV_DIV: return f->repeat_div;
    case DV_WHOLE_MAX: case DV_WHOLE_MIN: return f->repeat_whole_max;
    case DV_WHOLE_SUM: case DV_TOTAL_SUM: return f->repeat_whole_sum;
    case DV_ADD:
    case DV_SUB:
    case DV_MUL:
    case DV_MAX:
    case DV_MIN:
    case DV_EXP:
    case DV_LN:
    case DV_SELECT:
    case DV_SELECT_SCALAR:
      return f->repeat_2;
    case DV_SQRT: case DV_RSQRT: case DV_REC: case DV_AXPY: case DV_MULADDDST: case DV_AND: case DV_OR: case DV_COMPARE:
    case DV_COMPARE_SCALAR:
      return f->repeat_unlisted;
    default: return f->repeat_1;
  }
}

uint32_t dv_blocks_used(const dv_vector *v, uint32_t repeat, uint32_t per_repeat, uint32_t bytes) {
  const uint32_t per_block = 32 / bytes, blocks = (per_repeat + per_block - 1) / per_block;
  uint32_t used = 0;
  for (uint32_t b = 0; b < blocks; ++b)
    for (uint32_t e = b * per_block; e < (b + 1) * per_block && e < per_repeat; ++e) {
      const int takes_part = v->counts ? repeat * per_repeat + e < v->count : (int)(v->mask[e / 64] >> e % 64 & 1u);
      if (takes_part) {
        used |= 1u << b;
        break;
      }
    }
  return used;
}

static int takes_all(const dv_vector *v, uint32_t per_repeat) {
  const uint64_t low = per_repeat >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << per_repeat) - 1;
  const uint64_t high = per_repeat > 64 ? ~(uint64_t)0 : 0;
  return (v->mask[0] & low) == low && (v->mask[1] & high) == high;
}

/* An operand that is laid out as elements: `block` and `repeat` strides of 32 B. */
static void touch_elements(dv_here here, const dv_vector *v, dv_address at, uint32_t bytes, uint32_t per_repeat, uint32_t block,
                           uint32_t repeat, int writes) {
  const uint32_t blocks = per_repeat * bytes / 32;
  if (block == 1 && (repeat == blocks || v->repeats == 1) && (v->counts || takes_all(v, per_repeat))) {
    const uint64_t used = v->counts ? (uint64_t)v->count * bytes : (uint64_t)v->repeats * blocks * 32;
    dv_check_local(here, at, used, 32);
    if (writes)
      dv_writes(here, at, used);
    else
      dv_reads(here, at, used);
    return;
  }
  if (at.at % 32) dv_check_local(here, at, 32, 32);
  for (uint32_t r = 0; r < v->repeats; ++r) {
    const uint32_t used = dv_blocks_used(v, r, per_repeat, bytes);
    for (uint32_t b = 0, run = 0; b <= blocks; ++b) {
      /* Runs of neighbouring blocks at once. */
      if (b < blocks && (used >> b & 1u) && (block == 1 || run == 0)) {
        ++run;
        if (block == 1) continue;
      }
      if (run) {
        const uint32_t first = block == 1 ? b - run : b;
        const dv_address from = dv_further(at, ((uint64_t)r * repeat + (uint64_t)first * block) * 32);
        dv_check_local(here, from, (uint64_t)run * 32, 32);
        if (writes)
          dv_writes(here, from, (uint64_t)run * 32);
        else
          dv_reads(here, from, (uint64_t)run * 32);
        run = 0;
      }
    }
  }
}

static void touch_bytes(dv_here here, dv_address at, uint64_t bytes, unsigned alignment, int writes) {
  dv_check_local(here, at, bytes, alignment);
  if (writes)
    dv_writes(here, at, bytes);
  else
    dv_reads(here, at, bytes);
}

uint32_t dv_result_bytes(const dv_vector *v) {
  const uint32_t bytes = dv_type_bytes(v->to);
  if (dv_is_block(v->op)) return 8 * bytes;
  if (v->op == DV_PAIR_SUM) return 128;
  return v->order == DV_ONLY_INDEX ? 4 : v->order == DV_ONLY_VALUE || v->op == DV_WHOLE_SUM ? bytes : 2 * bytes;
}

/* What a reduction, a comparison or a broadcast writes is not laid out as its source. */
static void touch_result(dv_here here, const dv_vector *v, uint32_t per_repeat) {
  const uint32_t bytes = dv_type_bytes(v->to);
  if (dv_gives_bits(v->op)) {
    touch_bytes(here, v->dst, (uint64_t)v->repeats * per_repeat / 8, 32, 1);
  } else if (v->op == DV_TOTAL_SUM) {
    touch_bytes(here, v->dst, bytes, bytes, 1);
  } else if (dv_is_whole(v->op) || dv_is_block(v->op) || v->op == DV_PAIR_SUM) {
    const uint32_t unit = dv_result_bytes(v);
    for (uint32_t r = 0; r < v->repeats; ++r) {
      const dv_address at = dv_further(v->dst, (uint64_t)r * v->dst_repeat * unit);
      touch_bytes(here, at, unit, dv_is_whole(v->op) ? unit : 8 * bytes, 1);
    }
  } else if (v->op == DV_BRCB) {
    for (uint32_t r = 0; r < v->repeats; ++r)
      for (uint32_t b = 0; b < 8; ++b) {
        const dv_address at = dv_further(v->dst, ((uint64_t)r * v->dst_repeat + (uint64_t)b * v->dst_block) * 32);
        touch_bytes(here, at, 32, 32, 1);
      }
  } else {
    touch_elements(here, v, v->dst, bytes, per_repeat, v->dst_block, v->dst_repeat, 1);
  }
}

/* A Select that goes through its selector takes the last 8 KB of UB for itself. Told once for all that follow one another: they
 * do not disturb each other. */
static void take_scratch(void) {
  dv_core *core = dv_current;
  if (!core->is_scratch_touched || !core->group->computes) return;
  const uint32_t bytes = dv_memory_bytes(DV_UB);
  dv_order_write_nothing(core->group->order, core->group->space[1 + core->sub][DV_UB], bytes - DV_SCRATCH, DV_SCRATCH);
  core->is_scratch_touched = 0;
}

/* Two sources in one bank cost a cycle a repeat: 16 groups of banks by 32 B, three banks of each by 64 KB. */
static double conflicts(const dv_vector *v) {
  if (dv_operands_of(v->op) != DV_TWO_SOURCES || v->src1_block == 0 || v->src0.at == v->src1.at) return 0.0;
  const int same = v->src0.at / 32 % 16 == v->src1.at / 32 % 16 && v->src0.at / 65536 == v->src1.at / 65536;
  return same ? figures()->bank_conflict : 0.0;
}

void dv_issue_vector(dv_here here, const dv_vector *given) {
  const dv_place *place = dv_begin(here);
  dv_vector v = *given;
  v.saturates = !(dv_current->ctrl >> DV_CTRL_KEEPS_INF & 1u);
  const uint32_t from_bytes = dv_type_bytes(v.type), to_bytes = dv_gives_bits(v.op) ? from_bytes : dv_type_bytes(v.to);
  const uint32_t per_repeat = 256 / (from_bytes > to_bytes ? from_bytes : to_bytes);
  dv_check_vector(here, &v);
  if (v.counts) {
    v.repeats = (v.count + per_repeat - 1) / per_repeat;
    if (dv_gives_bits(v.op) && v.count * from_bytes % 256)
      dv_fail(here, "broken rule", "%u elements to compare; the last %u bytes of no whole 256 are not",
              v.count, v.count * from_bytes % 256);
  } else if (v.repeats > 255) {
    dv_fail(here, "broken rule", "repeatTime %u; at most 255", v.repeats);
  }
  if (v.repeats == 0 || (v.counts ? v.count == 0 : !(v.mask[0] | v.mask[1]))) return;
  dv_order_begin(place, DV_V);
  const dv_operands sources = dv_operands_of(v.op);
  if (v.op == DV_BRCB) {
    touch_bytes(here, v.src0, (uint64_t)v.repeats * 8 * from_bytes, 32, 0);
  } else if (sources != DV_NO_SOURCE) {
    touch_elements(here, &v, v.src0, from_bytes, per_repeat, v.src0_block, v.src0_repeat, 0);
    if (sources == DV_TWO_SOURCES) touch_elements(here, &v, v.src1, from_bytes, per_repeat, v.src1_block, v.src1_repeat, 0);
  }
  if (dv_selects(v.op))
    touch_bytes(here, v.selector,
                v.selector_repeats ? ((uint64_t)v.repeats * per_repeat + 7) / 8 : per_repeat / 8, 32, 0);
  if (dv_adds_to_dst(v.op)) touch_elements(here, &v, v.dst, to_bytes, per_repeat, v.dst_block, v.dst_repeat, 0);
  touch_result(here, &v, per_repeat);
  if (dv_selects(v.op) && v.selector_repeats) take_scratch();
  dv_check_overlap(here, &v, per_repeat);
  if (dv_current->group->computes && v.op == DV_TOTAL_SUM)
    dv_value_total_sum(&v, dv_pointer(v.dst), dv_pointer(v.src0));
  else if (dv_current->group->computes)
    dv_value_vector(&v, dv_pointer(v.dst), dv_pointer(v.src0), dv_pointer(v.src1),
                    dv_selects(v.op) ? dv_pointer(v.selector) : NULL);
  const dv_figures *f = figures();
  dv_post(place, DV_V, v.repeats * (cycles_of(&v) + conflicts(&v)), f->vector_head + f->vector_tail);
}
