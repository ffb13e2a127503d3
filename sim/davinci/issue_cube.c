/* Mmad and Fixpipe: rules, bytes touched, time. Values: value_cube.c. */
#include "davinci/core.h"
#include "davinci/values.h"

static const dv_figures *figures(void) { return &dv_current->run->chip->figures; }
static double most_of(double a, double b) { return a > b ? a : b; }
static uint32_t sixteens(uint32_t n) { return (n + 15) / 16; }
static uint32_t least_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Of a matrix of fractals the bytes that count: the first rows of each fractal of the last row of fractals. Fractal (r, c) is
 * number r * row_step + c * column_step; a row is row_bytes, of which the last column's fractals use fewer. */
typedef struct fractals {
  dv_address at;
  uint32_t rows, columns; /* elements */
  uint32_t row_step, column_step, row_bytes;
  uint32_t column_bytes;  /* of an element */
} fractals;

static void touch(dv_here here, const fractals *f, int writes) {
  const uint32_t rows = sixteens(f->rows), columns = sixteens(f->columns);
  const int is_whole = f->rows % 16 == 0 && f->columns % 16 == 0;
  const int fills = (f->row_step == 1 && f->column_step == rows) || (f->column_step == 1 && f->row_step == columns);
  if (is_whole && fills) {
    if (writes)
      dv_writes(here, f->at, (uint64_t)rows * columns * 16 * f->row_bytes);
    else
      dv_reads(here, f->at, (uint64_t)rows * columns * 16 * f->row_bytes);
    return;
  }
  for (uint32_t r = 0; r < rows; ++r)
    for (uint32_t c = 0; c < columns; ++c) {
      const uint32_t used = least_of(16, f->columns - 16 * c) * f->column_bytes, count = least_of(16, f->rows - 16 * r);
      const dv_address at = dv_further(f->at, ((uint64_t)r * f->row_step + (uint64_t)c * f->column_step) * 16 * f->row_bytes);
      for (uint32_t k = 0; k < (used == f->row_bytes ? 1 : count); ++k) {
        const dv_address row = dv_further(at, (uint64_t)k * f->row_bytes);
        const uint64_t bytes = used == f->row_bytes ? (uint64_t)count * f->row_bytes : used;
        if (writes)
          dv_writes(here, row, bytes);
        else
          dv_reads(here, row, bytes);
      }
    }
}

void dv_issue_mmad(dv_here here, const dv_mmad *mmad) {
  const dv_place *place = dv_begin(here);
  const uint32_t m = sixteens(mmad->m), n = sixteens(mmad->n), k = sixteens(mmad->k);
  if (mmad->a.memory != DV_L0A || mmad->b.memory != DV_L0B || mmad->c.memory != DV_L0C)
    dv_fail(here, "broken rule", "Mmad takes A of L0A, B of L0B and C of L0C");
  if ((mmad->type != DV_F16 && mmad->type != DV_BF16) || mmad->to != DV_F32)
    dv_fail(here, "broken rule", "Mmad of these types is not known here; f16 or bf16 to f32");
  if (m == 0 || n == 0 || k == 0) return;
  if (mmad->m == 1) dv_fail(here, "broken rule", "m = 1 reads A as a vector on this chip (GEMV); use m = 16");
  if (mmad->m > 4095 || mmad->n > 4095 || mmad->k > 4095)
    dv_fail(here, "broken rule", "m %u, n %u, k %u; at most 4095", mmad->m, mmad->n, mmad->k);
  if (mmad->unit_flag) dv_fail(here, "broken rule", "unitFlag %u, which is not known here", mmad->unit_flag);
  dv_check_local(here, mmad->a, (uint64_t)m * k * 512, 512);
  dv_check_local(here, mmad->b, (uint64_t)n * k * 512, 512);
  dv_check_local(here, mmad->c, (uint64_t)m * n * 1024, 1024);
  dv_order_begin(place, DV_M);
  /* Large products into one C follow each other; small ones need PipeBarrier<PIPE_M>. Whole fractals count, as documented. */
  if (!mmad->begins_at_zero && mmad->m / 16 * (mmad->n / 16) >= 10 && dv_current->group->computes)
    dv_order_barrier_before(dv_current->group->order, dv_order_queue(dv_current, DV_M));
  const fractals a = {mmad->a, mmad->m, mmad->k, k, 1, 32, 2};
  const fractals b = {mmad->b, mmad->n, mmad->k, 1, n, 32, 2};
  const fractals c = {mmad->c, mmad->m, mmad->n, 1, m, 64, 4};
  touch(here, &a, 0);
  touch(here, &b, 0);
  if (!mmad->begins_at_zero) touch(here, &c, 0);
  touch(here, &c, 1);
  if (dv_current->group->computes) dv_value_mmad(mmad, dv_pointer(mmad->c), dv_pointer(mmad->a), dv_pointer(mmad->b));
  const double work = (double)m * n * k;
  dv_current->run->report->mmad_flops += work * 8192.0;
  dv_post(place, DV_M, figures()->mmad_start + work * figures()->mmad_fractal, figures()->mmad_latency);
}

/* Rows of GM, or columns of fractals of L1, must not lie on one another. */
static void check_to_stride(dv_here here, const dv_fixpipe *fixpipe) {
  const uint32_t least = fixpipe->keeps_nz ? fixpipe->rows : fixpipe->columns;
  const int has_next = fixpipe->keeps_nz ? fixpipe->columns > 16 : fixpipe->rows > 1;
  if (fixpipe->to_stride == 0 || (has_next && fixpipe->to_stride < least))
    dv_fail(here, "broken rule", "dstStride %u; at least %u, or what it writes lies on itself", fixpipe->to_stride, least);
}

static void touch_nz(dv_here here, const dv_fixpipe *fixpipe, uint32_t columns) {
  const uint64_t bytes = (uint64_t)fixpipe->rows * 32;
  dv_check_local(here, fixpipe->to, (uint64_t)(columns - 1) * fixpipe->to_stride * 32 + bytes, 32);
  for (uint32_t c = 0; c < columns; ++c) {
    const dv_address column = dv_further(fixpipe->to, (uint64_t)c * fixpipe->to_stride * 32);
    dv_writes(here, column, bytes);
  }
}

void dv_issue_fixpipe(dv_here here, const dv_fixpipe *given) {
  const dv_place *place = dv_begin(here);
  dv_fixpipe with_mode = *given;
  const dv_fixpipe *fixpipe = &with_mode;
  with_mode.saturates = !(dv_current->ctrl >> DV_CTRL_KEEPS_INF & 1u);
  const int to_l1 = fixpipe->to.memory == DV_L1;
  if (fixpipe->from.memory != DV_L0C || (!to_l1 && fixpipe->to.memory != DV_GM))
    dv_fail(here, "broken rule", "Fixpipe goes from L0C to GM or L1");
  if (fixpipe->keeps_nz != to_l1)
    dv_fail(here, "broken rule", "Fixpipe keeps Nz on its way to L1, and only there is that known here");
  if (to_l1 && (dv_type_bytes(fixpipe->type) != 2 || fixpipe->columns % 16))
    dv_fail(here, "broken rule", "Fixpipe to L1 gives f16 or bf16 here, whole columns of fractals (nSize %u)", fixpipe->columns);
  if (fixpipe->matrices != 1) dv_fail(here, "broken rule", "ndNum %u; only 1 is known here", fixpipe->matrices);
  if (fixpipe->unit_flag) dv_fail(here, "broken rule", "unitFlag %u, which is not known here", fixpipe->unit_flag);
  if (fixpipe->rows == 0 || fixpipe->columns == 0) return;
  if (fixpipe->columns > 4095 || fixpipe->rows > 8192)
    dv_fail(here, "broken rule", "nSize %u, mSize %u; at most 4095, 8192", fixpipe->columns, fixpipe->rows);
  if (fixpipe->from_stride % 16 || fixpipe->from_stride < fixpipe->rows)
    dv_fail(here, "broken rule", "srcStride %u for %u rows; the rows rounded up to 16", fixpipe->from_stride, fixpipe->rows);
  check_to_stride(here, fixpipe);
  if (dv_current->atomic_adds && dv_current->atomic_type != fixpipe->type)
    dv_fail(here, "broken rule", "atomic adds of another type");
  const uint32_t columns = sixteens(fixpipe->columns);
  dv_check_local(here, fixpipe->from, (uint64_t)(columns - 1) * fixpipe->from_stride * 64 + (uint64_t)fixpipe->rows * 64, 64);
  dv_order_begin(place, DV_FIX);
  const fractals c = {fixpipe->from, fixpipe->rows, fixpipe->columns, 1, fixpipe->from_stride / 16, 64, 4};
  touch(here, &c, 0);
  const uint64_t bytes = (uint64_t)fixpipe->columns * dv_type_bytes(fixpipe->type);
  const uint64_t stride = (uint64_t)fixpipe->to_stride * dv_type_bytes(fixpipe->type);
  if (to_l1) touch_nz(here, fixpipe, columns);
  for (uint32_t r = 0; r < fixpipe->rows && !to_l1; ++r) {
    const dv_address row = dv_further(fixpipe->to, r * stride);
    if (dv_current->atomic_adds)
      dv_adds(here, row, bytes);
    else
      dv_writes(here, row, bytes);
  }
  if (dv_current->group->computes)
    dv_value_fixpipe(fixpipe, dv_pointer(fixpipe->to), dv_pointer(fixpipe->from), dv_current->atomic_adds && !to_l1);
  const dv_figures *f = figures();
  const double moved = (double)bytes * fixpipe->rows;
  if (to_l1) { /* nothing is published of this way: the rate of the other */
    dv_post(place, DV_FIX, moved / f->fix_rate, f->fix_latency);
    return;
  }
  const dv_gm_move gm = {fixpipe->to.at, bytes, fixpipe->rows, (int64_t)stride, 1, moved};
  dv_post_gm(place, DV_FIX, &gm, most_of(f->fix_row * fixpipe->rows, moved / f->fix_rate), f->fix_latency);
}
