/* What decode_bf16_amx.c and decode_int8_amx.c share: rows of K and V as tile loads take them, and turning round scores. */
#ifndef FA_CPU_DECODE_TILES_AMX_H
#define FA_CPU_DECODE_TILES_AMX_H

#include "cpu/decode_avx512.h"
#include "cpu/tiles_amx.h"

enum {
  BLOCK = 16, /* keys a tile */
  BLOCKS = FA_DECODE_KEYS / BLOCK,
  PANEL = 16 /* rows of q a tile of scores */
};
#define ROW_BYTES 64
#define MOST_ROW_BYTES (FA_DECODE_MAX_DIM * 2)

/* Where span n of a row of `dim` elements begins; the last one ends with the row. */
FA_INLINE int64_t span_start(int64_t n, int64_t span, int64_t dim) { return fa_min(n * span, dim - span); }

/* ----------------------------------------------------------------- rows of K and V */

/* Evenly spaced rows: row j at base + j * stride. */
typedef struct spaced {
  const char *base;
  int64_t stride;
} spaced;

/* Whether rows [0, count), count 16 or 64, lie evenly apart. */
FA_INLINE int is_spaced(const char *const *rows, int64_t count) {
  const __m512i stride = _mm512_set1_epi64(rows[1] - rows[0]);
  __mmask8 odd = 0;
  for (int64_t j = 0; j < count; j += 8) {
    const __m512i these = _mm512_loadu_si512(rows + j);
    const __m512i next = _mm512_maskz_loadu_epi64(j + 8 < count ? 0xff : 0x7f, rows + j + 1);
    odd |= _mm512_mask_cmpneq_epi64_mask(j + 8 < count ? 0xff : 0x7f, _mm512_sub_epi64(next, these), stride);
  }
  return odd == 0;
}

/* `count` rows as a tile load takes them: where they lie, or copied (rows from `keys` on repeat the last). */
FA_INLINE spaced rows_of(const char *const *rows, int64_t offset, int64_t bytes, int64_t count,
                         char copy[BLOCK * MOST_ROW_BYTES]) {
  if (is_spaced(rows, count)) return (spaced){rows[0] + offset, rows[1] - rows[0]};
  const int64_t stride = fa_round_up(bytes, ROW_BYTES);
  for (int64_t j = 0; j < BLOCK; ++j) memcpy(copy + j * stride, rows[j] + offset, (size_t)bytes);
  return (spaced){copy, stride};
}

/* ------------------------------------------------------------------------- scores */

/* Columns of a panel's tile: the rows of q, to a power of two. */
FA_INLINE int64_t panel_width(int64_t rows) {
  return rows > 8 ? 16 : rows > 4 ? 8 : rows > 2 ? 4 : rows;
}

/* [16 keys, width] becomes [width, 16 keys]: sorts even from odd elements until rows are whole. */
FA_INLINE void turn(const float *from, int width, int64_t rows, float *tile) {
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
  __m512 x[PANEL], y[PANEL];
  UNROLL for (int i = 0; i < width; ++i) x[i] = _mm512_loadu_ps(from + i * 16);
  UNROLL for (int many = width; many > 1; many /= 2) {
    UNROLL for (int i = 0; i < width; i += 2) {
      const int at = i / many * many + i % many / 2;
      y[at] = _mm512_permutex2var_ps(x[i], evens, x[i + 1]);
      y[at + many / 2] = _mm512_permutex2var_ps(x[i], odds, x[i + 1]);
    }
    UNROLL for (int i = 0; i < width; ++i) x[i] = y[i];
  }
  UNROLL for (int i = 0; i < width; ++i) {
    int row = 0; /* i's bits in reverse */
    for (int bit = 1; bit < width; bit *= 2) row = row * 2 + (i / bit & 1);
    if (row < rows) _mm512_storeu_ps(tile + row * FA_DECODE_KEYS, x[i]);
  }
}

FA_INLINE void turn_any(const float *from, int64_t width, int64_t rows, float *tile) {
  switch (width) {
    case 1: turn(from, 1, rows, tile); break;
    case 2: turn(from, 2, rows, tile); break;
    case 4: turn(from, 4, rows, tile); break;
    case 8: turn(from, 8, rows, tile); break;
    default: turn(from, 16, rows, tile); break;
  }
}

static void begin(void) { fa_tiles_configure(); }
static void end(void) { fa_tiles_release(); }

#endif
