/* Mmad and Fixpipe on plain memory (values.h).
 *
 * Mmad widens chunks of A and B to fp32 and multiplies tiles of 16 x 16 in order of rising k, a product and a sum
 * rounded to fp32 each: how the Cube rounds inside is not documented. Products of two f16 or two bf16 are exact in
 * fp32, so that the order is all that is chosen here. It needs 40 KB of stack. */
#include "davinci/value_parts.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

enum { SIDE = 16, CHUNK_M = 128, CHUNK_K = 64 };

static inline uint32_t fractals(uint32_t elements) { return (elements + SIDE - 1) / SIDE; }
static inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ------------------------------------------------------------------ a tile: c[16][16] += a[16][CHUNK_K] b[k][16] */

typedef float floats4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float floats8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float floats16 __attribute__((vector_size(64), aligned(4), may_alias));

/* `rows` of `across` vectors at a time: as many sums as the registers hold. */
#define UNROLLED _Pragma("GCC unroll 16")
#define SUM_TILE(floats, rows, across)                                                                             \
  enum { WIDTH = sizeof(floats) / sizeof(float) };                                                                 \
  for (int row = 0; row < SIDE; row += (rows))                                                                     \
    for (int column = 0; column < SIDE; column += WIDTH * (across)) {                                              \
      float *const to = c + row * SIDE + column;                                                                   \
      floats sums[rows][across], right[across];                                                                    \
      UNROLLED for (int n = 0; n < (rows); ++n)                                                                    \
        UNROLLED for (int w = 0; w < (across); ++w) sums[n][w] = *(const floats *)(to + n * SIDE + w * WIDTH);     \
      for (uint32_t i = 0; i < k; ++i) {                                                                           \
        UNROLLED for (int w = 0; w < (across); ++w) right[w] = *(const floats *)(b + i * SIDE + column + w * WIDTH); \
        UNROLLED for (int n = 0; n < (rows); ++n)                                                                  \
          UNROLLED for (int w = 0; w < (across); ++w) sums[n][w] += a[(row + n) * CHUNK_K + (int)i] * right[w];    \
      }                                                                                                            \
      UNROLLED for (int n = 0; n < (rows); ++n)                                                                    \
        UNROLLED for (int w = 0; w < (across); ++w) *(floats *)(to + n * SIDE + w * WIDTH) = sums[n][w];           \
    }

typedef void tile_function(float *c, const float *a, const float *b, uint32_t k);
static void tile_c(float *c, const float *a, const float *b, uint32_t k) { SUM_TILE(floats4, 4, 2) }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void tile_avx2(float *c, const float *a, const float *b, uint32_t k) {
  SUM_TILE(floats8, 4, 2)
}
__attribute__((target("avx512f"))) static void tile_avx512(float *c, const float *a, const float *b, uint32_t k) {
  SUM_TILE(floats16, 16, 1)
}
static tile_function *fastest_tile(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") ? tile_avx512 : __builtin_cpu_supports("avx2") ? tile_avx2 : tile_c;
}
#else
static tile_function *fastest_tile(void) { return tile_c; }
#endif

/* ------------------------------------------------------------------ Mmad */

/* Rows m0.. and columns k0.. of A, a row to CHUNK_K floats; with m = 1 L0A holds a plain vector, as documented
 * (GEMV). */
static void widen_a(const dv_mmad *mmad, float *to, const uint16_t *a, uint32_t m0, uint32_t k0, uint32_t k) {
  if (mmad->m == 1) {
    dv_widen(mmad->type, to, a + k0, k);
    return;
  }
  const uint32_t across = fractals(mmad->k), rows = least(CHUNK_M, mmad->m - m0);
  for (uint32_t down = 0; down < fractals(rows); ++down)
    for (uint32_t n = 0; n < fractals(k); ++n) {
      float fractal[SIDE][SIDE];
      dv_widen(mmad->type, fractal[0], a + ((m0 / SIDE + down) * across + k0 / SIDE + n) * SIDE * SIDE, SIDE * SIDE);
      for (uint32_t row = 0; row < SIDE; ++row)
        memcpy(to + (down * SIDE + row) * CHUNK_K + n * SIDE, fractal[row], sizeof fractal[row]);
    }
}

/* Rows k0.. of a column of B's fractals, from n rows of 16 k to k rows of 16 n. */
static void widen_b(const dv_mmad *mmad, float *to, const uint16_t *b, uint32_t column, uint32_t k0, uint32_t k) {
  const uint32_t across = fractals(mmad->n);
  for (uint32_t down = 0; down < fractals(k); ++down) {
    float fractal[SIDE][SIDE], (*out)[SIDE] = (float(*)[SIDE])(to + down * SIDE * SIDE);
    dv_widen(mmad->type, fractal[0], b + ((k0 / SIDE + down) * across + column) * SIDE * SIDE, SIDE * SIDE);
    for (int i = 0; i < SIDE; ++i)
      for (int n = 0; n < SIDE; ++n) out[i][n] = fractal[n][i];
  }
}

static void copy_corner(float *to, const float *from, uint32_t rows, uint32_t columns) {
  for (uint32_t row = 0; row < rows; ++row) memcpy(to + row * SIDE, from + row * SIDE, columns * sizeof *to);
}

/* f16 or bf16 to fp32; the engine refuses other types before this. What lies in the fractals beyond m, n and k has
 * no part in the result, and C keeps what it had there. */
void dv_value_mmad(const dv_mmad *mmad, void *c, const void *a, const void *b) {
  tile_function *const multiply = fastest_tile();
  const uint32_t column_step = fractals(mmad->m) * SIDE * SIDE;
  float panel_a[CHUNK_M * CHUNK_K], panel_b[CHUNK_K * SIDE], tile[SIDE * SIDE];
  memset(panel_a, 0, sizeof panel_a); /* with m = 1 only a row is set */
  for (uint32_t m0 = 0; m0 < mmad->m; m0 += CHUNK_M)
    for (uint32_t k0 = 0; k0 < mmad->k; k0 += CHUNK_K) {
      const uint32_t k = least(CHUNK_K, mmad->k - k0), rows = least(CHUNK_M, mmad->m - m0);
      widen_a(mmad, panel_a, a, m0, k0, k);
      for (uint32_t column = 0; column < fractals(mmad->n); ++column) {
        const uint32_t columns = least(SIDE, mmad->n - column * SIDE);
        widen_b(mmad, panel_b, b, column, k0, k);
        for (uint32_t down = 0; down < fractals(rows); ++down) {
          float *const to = (float *)c + column * column_step + (m0 / SIDE + down) * SIDE * SIDE;
          const uint32_t tile_rows = least(SIDE, rows - down * SIDE);
          const int is_whole = tile_rows == SIDE && columns == SIDE;
          memset(tile, 0, sizeof tile);
          if (k0 || !mmad->begins_at_zero) {
            if (is_whole) memcpy(tile, to, sizeof tile);
            else copy_corner(tile, to, tile_rows, columns);
          }
          multiply(tile, panel_a + down * SIDE * CHUNK_K, panel_b, k);
          if (is_whole) memcpy(to, tile, sizeof tile);
          else copy_corner(to, tile, tile_rows, columns);
        }
      }
    }
}

/* ------------------------------------------------------------------ Fixpipe */

/* Up to 16 columns of a row, as `type`. Relu keeps NaN (not documented). fp32 and s32 go on as they are. */
static void fix_row(const dv_fixpipe *fixpipe, unsigned char *to, const unsigned char *from, uint32_t columns,
                    int adds) {
  uint32_t words[SIDE];
  unsigned char out[SIDE * 4];
  memcpy(words, from, columns * sizeof *words);
  if (fixpipe->relu)
    for (uint32_t n = 0; n < columns; ++n) {
      const int is_nan = fixpipe->from_type == DV_F32 && (words[n] & 0x7fffffffu) > 0x7f800000u;
      if (words[n] >> 31 && !is_nan) words[n] = 0;
    }
  dv_cast(fixpipe->from_type, fixpipe->type, DV_RINT, out, words, fixpipe->type == fixpipe->from_type ? 0 : columns,
          fixpipe->saturates);
  const void *result = fixpipe->type == fixpipe->from_type ? (const void *)words : out;
  if (adds) dv_accumulate(fixpipe->type, to, result, columns);
  else memcpy(to, result, columns * dv_type_bytes(fixpipe->type));
}

/* Documented units: from_stride 16 elements (rows of a column of fractals), from_matrix 256 elements of L0C,
 * to_matrix elements; with keeps_nz to_stride is the blocks of 32 bytes from a column of fractals to the next in
 * GM. */
void dv_value_fixpipe(const dv_fixpipe *fixpipe, void *to, const void *from, int adds) {
  const size_t bytes = dv_type_bytes(fixpipe->type), row_bytes = SIDE * sizeof(float);
  for (uint32_t matrix = 0; matrix < fixpipe->matrices; ++matrix) {
    unsigned char *const out = (unsigned char *)to + (size_t)matrix * fixpipe->to_matrix * bytes;
    const unsigned char *in = from;
    in += (size_t)matrix * fixpipe->from_matrix * SIDE * row_bytes;
    for (uint32_t strip = 0; strip < fractals(fixpipe->columns); ++strip) {
      const uint32_t columns = least(SIDE, fixpipe->columns - strip * SIDE);
      const size_t to_strip = fixpipe->keeps_nz ? (size_t)fixpipe->to_stride * DV_BLOCK : SIDE * bytes;
      const size_t step = fixpipe->keeps_nz ? SIDE * bytes : fixpipe->to_stride * bytes;
      const unsigned char *row_in = in + (size_t)strip * fixpipe->from_stride * row_bytes;
      unsigned char *row_out = out + strip * to_strip;
      for (uint32_t row = 0; row < fixpipe->rows; ++row, row_in += row_bytes, row_out += step)
        fix_row(fixpipe, row_out, row_in, columns, adds);
    }
  }
}
