/* The rule, for a block of `rows` queries from `row` on and `keys` keys from `key` on, under the band
 * i + lower <= j <= i + upper:
 *   the kept columns of block row r are  row + r + lower - key <= c <= row + r + upper - key.
 * With d = row + upper - key the upper edge keeps c <= r + d, which is the lower triangle (c <= r) moved d columns
 * to the right: start d rows down when d >= 0, -d columns in when d < 0. Shifts beyond m are as good as m, since the
 * block is at most m wide: the window is then all ones, or all zeros. */
#include "core/tiling_mask.h"

#include "core/kernel.h"

fa_band fa_band_of(const fa_attention_problem *problem, int64_t seqlen_q, int64_t seqlen_kv) {
  const int64_t offset = seqlen_kv - seqlen_q;
  fa_band band = {-FA_BAND_UNLIMITED, FA_BAND_UNLIMITED};
  if (problem->window_left >= 0 && problem->window_left < FA_BAND_UNLIMITED)
    band.lower = offset - problem->window_left;
  if (problem->window_right >= 0 && problem->window_right < FA_BAND_UNLIMITED)
    band.upper = offset + problem->window_right;
  if (problem->causal) band.upper = fa_min(band.upper, offset);
  return band;
}

fa_block_case fa_band_block(fa_band band, int64_t row, int64_t rows, int64_t key, int64_t keys) {
  const int64_t last_row = row + rows - 1;
  const int64_t last_key = key + keys - 1;
  if (key > last_row + band.upper || last_key < row + band.lower) return FA_BLOCK_SKIP;
  if (last_key <= row + band.upper && key >= last_row + band.lower) return FA_BLOCK_FULL;
  return FA_BLOCK_WINDOW;
}

fa_key_range fa_band_keys(fa_band band, int64_t row, int64_t rows, int64_t seqlen_kv) {
  fa_key_range range;
  range.begin = fa_min(fa_max(row + band.lower, 0), seqlen_kv);
  range.end = fa_min(fa_max(row + rows - 1 + band.upper + 1, 0), seqlen_kv);
  if (range.end <= range.begin) range.begin = range.end = 0;
  return range;
}

size_t fa_tiling_mask_bytes(int64_t m) { return (size_t)(2 * m) * (size_t)(2 * m); }

void fa_tiling_mask_fill(int64_t m, uint8_t *bytes) {
  for (int64_t r = 0; r < 2 * m; ++r)
    for (int64_t c = 0; c < 2 * m; ++c) bytes[r * 2 * m + c] = c <= r;
}

static fa_mask_shift shift_by(int64_t m, int64_t right) {
  fa_mask_shift shift = {0, 0};
  if (right >= 0) shift.row = fa_min(right, m);
  else shift.column = fa_min(-right, m);
  return shift;
}

fa_mask_shift fa_tiling_mask_upper(int64_t m, int64_t upper, int64_t row, int64_t key) {
  return shift_by(m, row + upper - key);
}

/* c >= r + row + lower - key is the complement of c <= r + (row + lower - 1 - key). */
fa_mask_shift fa_tiling_mask_lower(int64_t m, int64_t lower, int64_t row, int64_t key) {
  return shift_by(m, row + lower - 1 - key);
}
