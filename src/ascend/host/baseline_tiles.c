/* Matmul: of a few tiles the one whose rounds over all cores cost least, each round what its slowest queue takes: the
 * Cube's fractals, the moves into L1, L0C's rows out (4.45 cycles each, or 118 bytes a cycle). A move brings 174 bytes
 * a cycle at best; 110 here, since all cores share L2 and part of the bytes come from HBM. All `model`. */
#include "ascend/host/baseline_tiles.h"

enum { L1_ELEMENTS = 262144, HALF_L0 = 16384, MOST_FLAT_DEPTH = 256 };

static int64_t ceil_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A side in equal parts of at most `most_part`, multiples of 16; 0 if there are none. */
static int64_t part_of(int64_t side, int64_t most_part) {
  const int64_t parts = ceil_to(side, most_part) / most_part;
  return side % (16 * parts) == 0 ? side / parts : 0;
}

/* Base blocks and chunks of a tile; 0 if there are none that fit. */
static int set_tile(fa_ascend_matmul *t, int64_t tile_m, int64_t tile_n) {
  const int64_t depth = ceil_to(most(t->k, 1), 16), rows = ceil_to(most(t->m, 1), 16),
                columns = ceil_to(most(t->n, 1), 16);
  const int is_flat = depth <= MOST_FLAT_DEPTH;
  /* Flat: wide blocks, as L0C's rows go out at 4.45 cycles each. Deep: as square as can be. */
  int64_t most_m = is_flat && depth <= 128 ? 64 : 128, most_n = is_flat && depth <= 128 ? 256 : 128;
  if (!is_flat && columns <= 64) most_m = 256, most_n = 64;
  tile_m = least(tile_m, rows);
  tile_n = least(tile_n, columns);
  const int64_t base_m = part_of(tile_m, most_m), base_n = part_of(tile_n, most_n);
  if (base_m == 0 || base_n == 0 || (!is_flat && (tile_n > base_n || tile_m > 2 * base_m))) return 0;
  const int64_t base_k = most(base_m, base_n) > 128 ? 64 : 128;
  int64_t chunk_a = ceil_to(depth, base_k), chunk_b = chunk_a;
  if (!is_flat) {
    /* A move's start costs the same however long it is: the smaller operand gets the longer chunks. */
    chunk_a = chunk_b = 128;
    while (2 * (tile_m * 2 * chunk_a + tile_n * chunk_b) <= L1_ELEMENTS && 2 * chunk_a * tile_m <= L1_ELEMENTS / 4)
      chunk_a *= 2;
    while (2 * (tile_m * chunk_a + tile_n * 2 * chunk_b) <= L1_ELEMENTS) chunk_b *= 2;
    chunk_b = least(chunk_b, 4096);
    chunk_a = least(chunk_a, 4096);
  }
  if (2 * (tile_m * chunk_a + tile_n * chunk_b) > L1_ELEMENTS) return 0;
  t->base_m = (int32_t)base_m, t->base_n = (int32_t)base_n, t->base_k = (int32_t)base_k;
  t->tile_m = (int32_t)tile_m, t->tile_n = (int32_t)tile_n;
  t->chunk_a = (int32_t)chunk_a, t->chunk_b = (int32_t)chunk_b;
  return 1;
}

static double cost_of(const fa_ascend_matmul *t, int cores) {
  const int64_t depth = ceil_to(most(t->k, 1), 16);
  const double tiles = (double)t->batch * t->heads * (double)(ceil_to(t->m, t->tile_m) / t->tile_m) *
                       (double)(ceil_to(t->n, t->tile_n) / t->tile_n);
  const double cube = (double)t->tile_m * t->tile_n * (double)depth / 4096.0;
  const double moves = (double)(ceil_to(depth, t->chunk_a) / t->chunk_a + ceil_to(depth, t->chunk_b) / t->chunk_b);
  const double in = 2.0 * (t->tile_m + t->tile_n) * (double)depth / 110.0 + 16.0 * moves;
  const double bytes_a_row = (t->c_is_f32 ? 4.0 : 2.0) * t->base_n;
  const double out =
      (double)t->tile_m * (t->tile_n / t->base_n) * (bytes_a_row / 118.0 > 4.45 ? bytes_a_row / 118.0 : 4.45);
  double rounds = (double)(int64_t)((tiles + cores - 1) / cores);
  /* Under a causal band depths grow from 0 to k: two rounds, the second one backwards, are as long as one. */
  if (t->band == FA_ASCEND_BAND_DEPTH && t->band_upper < t->k && t->band_lower <= -t->m)
    rounds = rounds <= 2.0 ? 1.0 : rounds / 2.0 + 0.25;
  const double slowest = cube > in ? (cube > out ? cube : out) : (in > out ? in : out);
  /* What is hidden is not hidden wholly; the first tile's chunks and the last one's rows hide behind nothing. */
  return rounds * (slowest + in / 4.0) + (in + out) / 2.0 + 1200.0;
}

void fa_ascend_matmul_tiles(fa_ascend_matmul *t, int cores) {
  static const int sides[] = {16, 32, 48, 64, 96, 128, 192, 256, 384, 512};
  enum { SIDES = sizeof sides / sizeof sides[0] };
  /* A band runs through tiles and makes them unequal; small ones even out. */
  const int most_side = t->band == FA_ASCEND_BAND_COLUMNS ? 256 : 512;
  fa_ascend_matmul best = *t;
  double least_cost = -1.0;
  for (int m = 0; m < SIDES && sides[m] <= most_side; ++m)
    for (int n = 3; n < SIDES && sides[n] <= most_side; ++n) {
      if (!set_tile(t, sides[m], sides[n])) continue;
      const double cost = cost_of(t, cores);
      if (least_cost < 0.0 || cost < least_cost) least_cost = cost, best = *t;
    }
  *t = best;
  /* As many rows of tiles as make what the cores read at a time about square. */
  int64_t swizzle = 1;
  while ((swizzle + 1) * (swizzle + 1) * t->tile_m <= (int64_t)cores * t->tile_n) ++swizzle;
  t->swizzle = t->band == FA_ASCEND_BAND_COLUMNS ? 1 : (int32_t)least(swizzle, 16);
}

/* ------------------------------------------------------------------ passes */

/* A core's share of items: blocks of as many rows as UB holds (20480 elements, 128 rows), each with some 550 cycles of
 * dependent instructions and 9.5 cycles for 64 scores. */
static double softmax_cost(const fa_ascend_passes *t, int64_t rows, int cores) {
  const int64_t width = ceil_to(most(t->columns, 1), 64), block = most(least(20480 / width, 128), 1);
  const double items = (double)t->batch * t->heads * (double)(ceil_to(t->rows, rows) / rows);
  const double blocks = (double)(ceil_to(rows, block) / block);
  return (double)(int64_t)((items + cores - 1) / cores) * (blocks * 550.0 + (double)(rows * width) / 64.0 * 9.5);
}

void fa_ascend_softmax_rows(fa_ascend_passes *t, const fa_ascend_matmul *scores, const fa_ascend_matmul *values,
                            int cores) {
  double least_cost = -1.0;
  t->block_rows = values && values->band == FA_ASCEND_BAND_DEPTH ? values->tile_m : 0;
  for (int32_t rows = 64; rows >= 1; --rows) {
    if (scores && scores->band != FA_ASCEND_BAND_NONE && scores->base_m % rows) continue;
    if (t->block_rows % rows) continue;
    const double cost = softmax_cost(t, rows, cores);
    if (least_cost < 0.0 || cost < least_cost) least_cost = cost, t->item_rows = rows;
  }
}
