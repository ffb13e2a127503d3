/* Moves between GM and the local memories: rules, bytes touched, time. Values: value_move.c. */
#include "davinci/core.h"
#include "davinci/values.h"

static const dv_figures *figures(void) { return &dv_current->run->chip->figures; }
static double most_of(double a, double b) { return a > b ? a : b; }
/* The published latencies are of moves that start alone. */
static double behind_start(double latency) { return most_of(latency - figures()->move_start, 0.0); }
static uint64_t blocks_of(uint64_t bytes) { return (bytes + 31) / 32 * 32; }

/* ------------------------------------------------------------------ rows */

static dv_pipe pipe_of(dv_here here, const dv_copy *copy) {
  const dv_memory from = copy->from.memory, to = copy->to.memory;
  if (from == DV_GM && (to == DV_UB || to == DV_L1)) return DV_MTE2;
  if ((from == DV_UB || from == DV_L1) && to == DV_GM) return DV_MTE3;
  if (from == DV_UB && to == DV_UB) return DV_V;
  dv_fail(here, "broken rule", "there is no way from memory %d to memory %d", (int)from, (int)to);
}

/* One side of a copy: bounds of local memory, rows told to the hazard finder (which: dv_reads, dv_writes or dv_adds). */
typedef void (*tell)(dv_here here, dv_address at, uint64_t bytes);
static void touch_rows(dv_here here, dv_address at, uint32_t rows, int64_t stride, uint64_t bytes, tell which) {
  if (at.memory != DV_GM) {
    bytes = blocks_of(bytes);
    dv_check_local(here, at, (uint64_t)(stride * (int64_t)(rows - 1)) + bytes, 32);
  }
  if (stride == (int64_t)bytes) {
    bytes *= rows;
    rows = 1;
  }
  for (uint32_t r = 0; r < rows; ++r) {
    const dv_address row = dv_further(at, (uint64_t)((int64_t)r * stride));
    which(here, row, bytes);
  }
}

void dv_issue_copy(dv_here here, const dv_copy *copy) {
  const dv_place *place = dv_begin(here);
  const dv_pipe pipe = pipe_of(here, copy);
  if (copy->rows == 0 || copy->bytes == 0) return;
  if (copy->rows > 4095) dv_fail(here, "broken rule", "blockCount %u; 1 to 4095", copy->rows);
  if (copy->left_pad * copy->fill_bytes > 32 || copy->right_pad * copy->fill_bytes > 32)
    dv_fail(here, "broken rule", "padding of %u and %u elements; at most 32 bytes a side", copy->left_pad, copy->right_pad);
  const uint32_t element = dv_type_bytes(copy->type);
  if (copy->is_byte_granular && (copy->bytes > 2097151 || copy->bytes % element))
    dv_fail(here, "broken rule", "blockLen %u; whole elements, at most 2097151 bytes", copy->bytes);
  const dv_address gm = copy->from.memory == DV_GM ? copy->from : copy->to;
  if (!copy->is_byte_granular && gm.memory == DV_GM && gm.at % element)
    dv_fail(here, "misaligned", "a GM address that is not a multiple of the element's %u bytes", element);
  const uint64_t padded = copy->bytes + (uint64_t)(copy->left_pad + copy->right_pad) * copy->fill_bytes;
  dv_order_begin(place, pipe);
  touch_rows(here, copy->from, copy->rows, copy->from_stride, copy->bytes, dv_reads);
  const int adds = dv_current->atomic_adds && pipe == DV_MTE3;
  if (adds && dv_current->atomic_type != copy->type) dv_fail(here, "broken rule", "atomic adds of another type");
  touch_rows(here, copy->to, copy->rows, copy->to_stride, copy->to.memory == DV_GM ? copy->bytes : padded,
             adds ? dv_adds : dv_writes);
  if (dv_current->group->computes) dv_value_copy(copy, dv_pointer(copy->to), dv_pointer(copy->from), adds);

  const dv_figures *f = figures();
  const double row = most_of(copy->bytes, copy->rows > 1 ? f->move_row : 0.0), bytes = row * copy->rows;
  if (pipe == DV_V) {
    dv_post(place, pipe, bytes / 256.0 * f->repeat_1, f->vector_head + f->vector_tail);
  } else if (pipe == DV_MTE2) {
    const dv_gm_move move = {copy->from.at, copy->bytes, copy->rows, copy->from_stride, 0, bytes};
    const int to_ub = copy->to.memory == DV_UB;
    dv_post_gm(place, pipe, &move, f->move_start + bytes / (to_ub ? f->gm_ub_rate : f->gm_l1_rate),
               behind_start(to_ub ? f->gm_ub_latency : f->gm_l1_latency));
  } else {
    const dv_gm_move move = {copy->to.at, copy->bytes, copy->rows, copy->to_stride, 1, bytes};
    dv_post_gm(place, pipe, &move, f->move_start + bytes / f->ub_gm_rate, behind_start(f->ub_gm_latency));
  }
}

/* ------------------------------------------------------------------ ND to Nz */

void dv_issue_nd2nz(dv_here here, const dv_nd2nz *move) {
  const dv_place *place = dv_begin(here);
  if (move->from.memory != DV_GM || move->to.memory != DV_L1) dv_fail(here, "broken rule", "Nd2Nz goes from GM to L1");
  if (move->matrices == 0 || move->rows == 0 || move->columns == 0) return;
  if (move->matrices > 4095 || move->rows > 16384)
    dv_fail(here, "broken rule", "ndNum %u, nValue %u; at most 4095, 16384", move->matrices, move->rows);
  if (move->to_column > 16384 || move->to_column < 1 || move->to_row > 16384 || move->to_row < 1)
    dv_fail(here, "broken rule", "dstNzC0Stride %u, dstNzNStride %u; 1 to 16384", move->to_column, move->to_row);
  if (move->rows > 1 && move->from_row == 0) dv_fail(here, "broken rule", "srcDValue 0; 1 to 65535");
  const uint64_t row_bytes = (uint64_t)move->columns * move->element_bytes, columns = blocks_of(row_bytes) / 32;
  const uint64_t bytes = ((columns - 1) * move->to_column + (uint64_t)(move->rows - 1) * move->to_row + 1) * 32;
  dv_order_begin(place, DV_MTE2);
  for (uint32_t n = 0; n < move->matrices; ++n) {
    const dv_address from = dv_further(move->from, (uint64_t)n * move->from_matrix * move->element_bytes);
    const dv_address to = dv_further(move->to, (uint64_t)n * move->to_matrix * move->element_bytes);
    dv_check_local(here, to, bytes, 32);
    touch_rows(here, from, move->rows, (int64_t)move->from_row * move->element_bytes, row_bytes, dv_reads);
    for (uint64_t c = 0; c < columns; ++c) {
      const dv_address column = dv_further(to, c * move->to_column * 32);
      touch_rows(here, column, move->rows, (int64_t)move->to_row * 32, 32, dv_writes);
    }
  }
  if (dv_current->group->computes) dv_value_nd2nz(move, dv_pointer(move->to), dv_pointer(move->from));
  const dv_figures *f = figures();
  const double moved = (double)columns * 32.0 * move->rows * move->matrices;
  /* Matrices that do not follow each other row by row: as if they did, which only L2 could tell. */
  const dv_gm_move gm = {move->from.at, row_bytes, move->rows * move->matrices,
                         (int64_t)(move->rows > 1 ? move->from_row : move->from_matrix) * move->element_bytes, 0, moved};
  dv_post_gm(place, DV_MTE2, &gm, f->move_start + moved / f->nd2nz_rate, behind_start(f->nd2nz_latency));
}

/* ------------------------------------------------------------------ L1 to L0 */

/* A fractal moves whether written or not: what of it nobody wrote stays so, and is found when it is used. */
static void touch_fractals(dv_address to, dv_address from, uint64_t fractals, int transposes) {
  dv_core *core = dv_current;
  if (!core->group->computes) return;
  dv_order *order = core->group->order;
  const int source = core->group->space[0][DV_L1], target = core->group->space[0][to.memory];
  if (dv_order_read_any(order, source, from.at, fractals * 512)) {
    dv_order_write(order, target, to.at, fractals * 512);
    return;
  }
  for (uint64_t n = 0; n < fractals; ++n) {
    uint32_t written = 0; /* rows of the fractal, which are blocks */
    for (uint32_t r = 0; r < 16; ++r)
      written |= (uint32_t)dv_order_read_any(order, source, from.at + n * 512 + r * 32, 32) << r;
    if (transposes && written) written = 0xffff; /* rows turn to columns of every row; the Mmad's k says which count */
    for (uint32_t r = 0; r < 16; ++r) {
      if (written >> r & 1u)
        dv_order_write(order, target, to.at + n * 512 + r * 32, 32);
      else
        dv_order_write_nothing(order, target, to.at + n * 512 + r * 32, 32);
    }
  }
}

static void post_load(const dv_place *place, dv_memory to, double fractals) {
  const dv_figures *f = figures();
  dv_post(place, DV_MTE1, fractals * 512.0 / (to == DV_L0A ? f->l0a_rate : f->l0b_rate), f->mte1_latency);
}

static void check_load(dv_here here, dv_address to, dv_address from, uint32_t element_bytes, uint32_t repeats) {
  if (from.memory != DV_L1 || (to.memory != DV_L0A && to.memory != DV_L0B))
    dv_fail(here, "broken rule", "LoadData goes from L1 to L0A or L0B here");
  if (element_bytes != 2) dv_fail(here, "broken rule", "elements of %u bytes; LoadData knows those of 2 here", element_bytes);
  if (repeats > 255) dv_fail(here, "broken rule", "repeatTimes %u; 1 to 255", repeats);
}

void dv_issue_load2d(dv_here here, const dv_load2d *load) {
  const dv_place *place = dv_begin(here);
  check_load(here, load->to, load->from, load->element_bytes, load->repeats);
  if (load->repeats == 0) return;
  dv_order_begin(place, DV_MTE1);
  const dv_address from = dv_further(load->from, (uint64_t)load->start * 512);
  dv_check_local(here, from, (uint64_t)(load->repeats - 1) * load->from_stride * 512 + 512, 32);
  dv_check_local(here, load->to, (uint64_t)(load->repeats - 1) * (load->to_gap + 1) * 512 + 512, 512);
  if (load->from_stride == 1 && load->to_gap == 0) {
    touch_fractals(load->to, from, load->repeats, load->transpose);
  } else {
    for (uint32_t n = 0; n < load->repeats; ++n) {
      const dv_address source = dv_further(from, (uint64_t)n * load->from_stride * 512);
      const dv_address target = dv_further(load->to, (uint64_t)n * (load->to_gap + 1) * 512);
      touch_fractals(target, source, 1, load->transpose);
    }
  }
  if (dv_current->group->computes) dv_value_load2d(load, dv_pointer(load->to), dv_pointer(load->from));
  post_load(place, load->to.memory, load->repeats);
}

void dv_issue_load_transposed(dv_here here, const dv_load_transposed *load) {
  const dv_place *place = dv_begin(here);
  check_load(here, load->to, load->from, load->element_bytes, load->repeats);
  if (load->repeats == 0) return;
  dv_order_begin(place, DV_MTE1);
  const dv_address from = dv_further(load->from, (uint64_t)load->start * 512);
  dv_check_local(here, from, (uint64_t)(load->repeats - 1) * load->from_stride * 512 + 512, 32);
  dv_check_local(here, load->to, (uint64_t)(load->repeats - 1) * (load->to_gap + 1) * 512 + 512, 512);
  for (uint32_t n = 0; n < load->repeats; ++n) {
    const dv_address source = dv_further(from, (uint64_t)n * load->from_stride * 512);
    const dv_address target = dv_further(load->to, (uint64_t)n * (load->to_gap + 1) * 512);
    touch_fractals(target, source, 1, 1);
  }
  if (dv_current->group->computes) dv_value_load_transposed(load, dv_pointer(load->to), dv_pointer(load->from));
  post_load(place, load->to.memory, load->repeats);
}

void dv_issue_fill(dv_here here, const dv_fill *fill) {
  const dv_place *place = dv_begin(here);
  const uint64_t unit = fill->to.memory == DV_L1 ? 32 : 512;
  const dv_pipe pipe = fill->to.memory == DV_L1 ? DV_MTE2 : DV_MTE1;
  if (fill->to.memory != DV_L1 && fill->to.memory != DV_L0A && fill->to.memory != DV_L0B)
    dv_fail(here, "broken rule", "InitConstValue fills L1, L0A or L0B");
  if (fill->repeats == 0 || fill->blocks == 0) return;
  dv_order_begin(place, pipe);
  touch_rows(here, fill->to, fill->repeats, (int64_t)((fill->blocks + fill->gap) * unit), fill->blocks * unit, dv_writes);
  if (dv_current->group->computes) dv_value_fill(fill, dv_pointer(fill->to));
  const double bytes = (double)fill->repeats * fill->blocks * (double)unit;
  dv_post(place, pipe, figures()->move_start + bytes / figures()->gm_l1_rate, figures()->mte1_latency);
}
