/* AMX tiles and the AVX-512 moves around them: loads, products, 16 x 16 transposes, packing K, V and Q.
 *
 * Tile operations are inline assembly with memory clobbers rather than intrinsics: gcc 12 declares no memory input
 * on tile loads (and drops the stores that fill the configuration), so a preceding vector store of P or O may be
 * moved behind the load that needs it.
 *
 * Operand layouts of C[16 x 16 fp32] += A[16 x 32 bf16] B[32 x 16 bf16], each tile 1 KB contiguous:
 *   A: row m holds k = 0..31.   B: row r holds, for n = 0..15, the pair (k = 2r, k = 2r + 1).   C: row m holds n = 0..15. */
#ifndef FA_CPU_TILES_AMX_H
#define FA_CPU_TILES_AMX_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FA_AMX_INLINE static inline __attribute__((always_inline))
#define FA_TILE_BYTES 1024
#define FA_TILE_FLOATS 256

#ifdef FA_EMULATE_AMX
#include "cpu/tiles_emulated.h"
#else
#define FA_TILE_LOAD(tile, address) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(address), "r"((int64_t)64) : "memory")
/* 16 rows of 64 bytes, `stride` bytes apart; they may overlap. */
#define FA_TILE_LOAD_ROWS(tile, address, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(address), "r"((int64_t)(stride)) : "memory")
/* FA_TILE_LOAD with a hint that the line is read once: keeps streamed K, V and O from pushing S and P out of L1. */
#define FA_TILE_STREAM(tile, address) \
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile : : "r"(address), "r"((int64_t)64) : "memory")
#define FA_TILE_STORE(tile, address) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(address), "r"((int64_t)64) : "memory")
#define FA_TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : : : "memory")
#define FA_TILE_MULTIPLY(c, a, b) \
  __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
/* The same of signed bytes, four a sum, into int32. */
#define FA_TILE_MULTIPLY_INT8(c, a, b) \
  __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")

/* 16 rows of 64 bytes, `stride` bytes apart, from the first on: where they overlap, the later row stays. */
#define FA_TILE_STORE_ROWS(tile, address, stride) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(address), "r"((int64_t)(stride)) : "memory")

typedef struct fa_tile_config {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t column_bytes[16];
  uint8_t rows[16];
} fa_tile_config;

/* All eight tiles 16 rows of 64 bytes, for this thread, until fa_tiles_release. */
FA_AMX_INLINE void fa_tiles_configure(void) {
  fa_tile_config config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.column_bytes[i] = 64;
    config.rows[i] = 16;
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}
FA_AMX_INLINE void fa_tiles_release(void) { __asm__ volatile("tilerelease" : : : "memory"); }
#endif

/* Two A tiles (4, 5) by two B tiles (6, 7) into four accumulators. */
FA_AMX_INLINE void fa_tile_multiply_2x2(void) {
  FA_TILE_MULTIPLY(0, 4, 6);
  FA_TILE_MULTIPLY(1, 4, 7);
  FA_TILE_MULTIPLY(2, 5, 6);
  FA_TILE_MULTIPLY(3, 5, 7);
}

/* Transposes 16 x 16 elements of 32 bits held in r. */
FA_AMX_INLINE void fa_transpose_16x16(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
    t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
    t[j + 8] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
    t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
  }
  for (int j = 0; j < 8; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}

/* 32 of a row's bf16 from `offset` on, zeros from element `dim` on; nothing beyond the row is read. */
FA_AMX_INLINE __m512i fa_load_32_bf16(const char *row, int64_t offset, int64_t dim) {
  const int64_t left = dim - offset;
  if (left >= 32) return _mm512_loadu_si512(row + offset * 2);
  if (left <= 0) return _mm512_setzero_si512();
  return _mm512_maskz_loadu_epi16((__mmask32)((1u << left) - 1u), row + offset * 2);
}

#endif
