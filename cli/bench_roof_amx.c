/* The AMX ceiling: bf16 products of real data, two by two tiles, every operand loaded from L1. Zeros in the
 * tiles would flatter (the clock stays higher), operands kept in tiles would too (no kernel can). */
#define _DEFAULT_SOURCE /* syscall */
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench_roof.h"

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
enum { TILE = 1024, STEPS = 4 }; /* 4 steps of 32: a head size of 128; 16 tiles are 16 KiB */

typedef struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_config;

/* Values between -2 and 2 with all their bits in use. */
static void fill(uint16_t *values, size_t count) {
  uint32_t state = 0x9e3779b9u;
  for (size_t i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    values[i] = (uint16_t)(0x3e80u + (state >> 16 & 0x17fu) + (state >> 31 << 15));
  }
}

static double multiply(int64_t rounds, volatile float *sink) {
  static _Alignas(64) uint16_t a[2][STEPS][TILE / 2], b[2][STEPS][TILE / 2];
  _Alignas(64) float out[16][16];
  static int filled;
#pragma omp critical(fa_roof_amx_fill)
  if (!filled) {
    syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
    fill(&a[0][0][0], sizeof a / sizeof(uint16_t));
    fill(&b[0][0][0], sizeof b / sizeof(uint16_t));
    filled = 1;
  }
  tile_config config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int t = 0; t < 8; t++) {
    config.row_bytes[t] = 64;
    config.rows[t] = 16;
  }
  /* gcc 12 drops the stores behind _tile_loadconfig */
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t r = 0; r < rounds; r++) {
    for (int k = 0; k < STEPS; k++) {
      _tile_loadd(4, a[0][k], 64);
      _tile_loadd(6, b[0][k], 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a[1][k], 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, b[1][k], 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, 64);
  _tile_release();
  *sink = out[3][5];
  return (double)rounds * (double)STEPS * 4.0 * (16.0 * 16.0 * 32.0 * 2.0);
}

const fa_roof_unit fa_roof_amx = {"amx", "amx_bf16", 1u << FA_FLOAT16 | 1u << FA_BFLOAT16, "AMX bf16, real data, tiles from L1",
                                  multiply, NULL};
