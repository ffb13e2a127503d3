/* The tile unit in AVX-512, for tests on processors without AMX: the instructions of tiles_amx.h, one by one, on eight
 * tiles in memory. Right answers, no speed: products and sums as the unit rounds them (fp32, to nearest even; subnormal
 * operands and results are zero), in the order of keys, which the unit's own order may differ from. */
#ifndef FA_CPU_TILES_EMULATED_H
#define FA_CPU_TILES_EMULATED_H

typedef __m512i fa_emulated_tile[16];
static _Thread_local fa_emulated_tile fa_emulated_tiles[8];
static _Thread_local int fa_emulated_is_configured;

/* The processor raises a fault where tiles are used without a configuration. */
FA_AMX_INLINE __m512i *fa_emulated_tile_of(int tile) {
  if (!fa_emulated_is_configured) __builtin_trap();
  return fa_emulated_tiles[tile];
}

FA_AMX_INLINE void fa_emulated_load(__m512i *tile, const void *address, int64_t stride) {
  for (int r = 0; r < 16; ++r) tile[r] = _mm512_loadu_si512((const char *)address + r * stride);
}
FA_AMX_INLINE void fa_emulated_store(const __m512i *tile, void *address, int64_t stride) {
  for (int r = 0; r < 16; ++r) _mm512_storeu_si512((char *)address + r * stride, tile[r]);
}

/* bf16 as fp32, subnormal numbers as zero. */
FA_AMX_INLINE __m512 fa_emulated_widen(__m512i bits) {
  const __mmask16 normal = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
  return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(normal, bits));
}
FA_AMX_INLINE __m512 fa_emulated_flush(__m512 x) {
  return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(
      _mm512_test_epi32_mask(_mm512_castps_si512(x), _mm512_set1_epi32(0x7f800000)), _mm512_castps_si512(x)));
}

static __attribute__((noinline, unused)) void fa_emulated_multiply(__m512i *c, const __m512i *a, const __m512i *b) {
  const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
  for (int m = 0; m < 16; ++m) {
    uint32_t pairs[16];
    _mm512_storeu_si512(pairs, a[m]);
    __m512 sum = _mm512_castsi512_ps(c[m]);
    for (int k = 0; k < 16; ++k) {
      const __m512 even = fa_emulated_widen(_mm512_set1_epi32((int)(pairs[k] << 16)));
      const __m512 odd = fa_emulated_widen(_mm512_set1_epi32((int)(pairs[k] & 0xffff0000u)));
      sum = fa_emulated_flush(_mm512_fmadd_ps(even, fa_emulated_widen(_mm512_slli_epi32(b[k], 16)), sum));
      sum = fa_emulated_flush(_mm512_fmadd_ps(odd, fa_emulated_widen(_mm512_and_si512(b[k], upper)), sum));
    }
    c[m] = _mm512_castps_si512(sum);
  }
}

static __attribute__((noinline, unused)) void fa_emulated_multiply_int8(__m512i *c, const __m512i *a, const __m512i *b) {
  for (int m = 0; m < 16; ++m) {
    int8_t left[64], right[64];
    int32_t sums[16];
    _mm512_storeu_si512(left, a[m]);
    _mm512_storeu_si512(sums, c[m]);
    for (int k = 0; k < 16; ++k) {
      _mm512_storeu_si512(right, b[k]);
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 4; ++i) sums[n] += left[4 * k + i] * right[4 * n + i];
    }
    c[m] = _mm512_loadu_si512(sums);
  }
}

#define FA_TILE_LOAD_ROWS(tile, address, stride) fa_emulated_load(fa_emulated_tile_of(tile), address, stride)
#define FA_TILE_LOAD(tile, address) FA_TILE_LOAD_ROWS(tile, address, 64)
#define FA_TILE_STREAM(tile, address) FA_TILE_LOAD(tile, address)
#define FA_TILE_STORE(tile, address) fa_emulated_store(fa_emulated_tile_of(tile), address, 64)
#define FA_TILE_STORE_ROWS(tile, address, stride) fa_emulated_store(fa_emulated_tile_of(tile), address, stride)
#define FA_TILE_ZERO(tile) memset(fa_emulated_tile_of(tile), 0, sizeof(fa_emulated_tile))
#define FA_TILE_MULTIPLY(c, a, b) \
  fa_emulated_multiply(fa_emulated_tile_of(c), fa_emulated_tile_of(a), fa_emulated_tile_of(b))
#define FA_TILE_MULTIPLY_INT8(c, a, b) \
  fa_emulated_multiply_int8(fa_emulated_tile_of(c), fa_emulated_tile_of(a), fa_emulated_tile_of(b))

FA_AMX_INLINE void fa_tiles_configure(void) {
  memset(fa_emulated_tiles, 0, sizeof fa_emulated_tiles);
  fa_emulated_is_configured = 1;
}
FA_AMX_INLINE void fa_tiles_release(void) { fa_emulated_is_configured = 0; }

#endif
