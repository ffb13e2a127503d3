/* What this processor can run and how large its caches are. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/cpu.h"

#if FA_X86
#include <cpuid.h>
#include <sys/syscall.h>

enum {
  XCR0_SSE_AVX = 0x6,      /* xmm, ymm state saved by the system */
  XCR0_AVX512 = 0xe6,      /* and opmask, zmm */
  XCR0_TILE = 0x60000,     /* tile configuration and data */
  ARCH_REQ_XCOMP_PERM = 0x1023,
  XFEATURE_XTILEDATA = 18
};

static uint64_t read_xcr0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

/* Tile data is 8 KB a thread, so Linux hands it out only on request, once for the process. */
static int request_tiles(void) {
#ifdef __linux__
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return 0;
#endif
}

static uint64_t detect(void) {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
  if ((c & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return 0;
  const uint64_t xcr0 = read_xcr0();
  if ((xcr0 & XCR0_SSE_AVX) != XCR0_SSE_AVX) return 0;
  uint32_t b7, c7, d7, a71 = 0;
  if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !(b7 & 1u << 5)) return 0;
  uint64_t isa = FA_CPU_AVX2;
  const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
  if ((b7 & avx512) != avx512 || (xcr0 & XCR0_AVX512) != XCR0_AVX512) return isa;
  isa |= FA_CPU_AVX512;
  if (c7 & 1u << 11) isa |= FA_CPU_AVX512_VNNI;
  if (a >= 1 && __get_cpuid_count(7, 1, &a71, &b, &c, &d) && a71 & 1u << 5) isa |= FA_CPU_AVX512_BF16;
  const uint32_t tile_unit = 1u << 24; /* AMX-TILE, whether or not the system hands it out */
  if (isa & FA_CPU_AVX512_BF16 && !(d7 & tile_unit)) isa |= FA_CPU_BF16_DOT;
#ifdef FA_EMULATE_AMX
  (void)request_tiles;
  if (isa & FA_CPU_AVX512_BF16) isa |= FA_CPU_AMX_BF16 | FA_CPU_AMX_INT8;
#else
  const uint32_t tiles = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE */
  if (isa & FA_CPU_AVX512_BF16 && (d7 & tiles) == tiles && (xcr0 & XCR0_TILE) == XCR0_TILE && request_tiles())
    isa |= FA_CPU_AMX_BF16 | (d7 & 1u << 25 ? FA_CPU_AMX_INT8 : 0);
#endif
  return isa;
}
#elif FA_ARM64 && defined(__linux__)
#include <sys/auxv.h>

/* Bits of the kernel's words, by their own names there less "HWCAP_": older headers lack the newer ones. */
enum {
  ASIMD = 1 << 1,     /* of AT_HWCAP */
  ASIMDFHM = 1 << 23, /* of AT_HWCAP */
  BF16 = 1 << 14      /* of AT_HWCAP2 */
};

static uint64_t detect(void) {
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  if (!(first & ASIMD)) return 0;
  uint64_t isa = FA_CPU_NEON;
  if (first & ASIMDFHM) isa |= FA_CPU_NEON_FHM;
  if (second & BF16) isa |= FA_CPU_NEON_BF16;
  return isa;
}
#elif FA_ARM64
/* Other systems on 64-bit Arm all demand NEON; the rest is not asked for. */
static uint64_t detect(void) { return FA_CPU_NEON; }
#else
static uint64_t detect(void) { return 0; }
#endif

uint64_t fa_cpu_isa(void) {
  /* Racing first calls compute the same value. Bit 63 marks it as known. */
  static uint64_t known;
  uint64_t isa = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (!isa) {
    isa = detect() | (uint64_t)1 << 63;
    __atomic_store_n(&known, isa, __ATOMIC_RELAXED);
  }
  return isa & ~((uint64_t)1 << 63);
}

#if defined(__linux__)
static int read_cache_entry(int index, const char *entry, char text[16]) {
  char path[80];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, entry);
  FILE *file = fopen(path, "r");
  const int was_read = file && fgets(text, 16, file);
  if (file) fclose(file);
  return was_read;
}

/* The first core's data or unified cache of this level; 0 when the system does not say. */
static int64_t listed_cache_bytes(int level) {
  char text[16];
  for (int index = 0; index < 8 && read_cache_entry(index, "level", text); index++) {
    if (atoi(text) != level || !read_cache_entry(index, "type", text) || text[0] == 'I') continue;
    if (!read_cache_entry(index, "size", text)) continue;
    char *unit;
    const long size = strtol(text, &unit, 10);
    return size > 0 ? (int64_t)size << (*unit == 'M' ? 20 : *unit == 'K' ? 10 : 0) : 0;
  }
  return 0;
}
#else
static int64_t listed_cache_bytes(int level) {
  (void)level;
  return 0;
}
#endif

/* Kept, as a run asks too and reads no files: racing first calls read the same. Bytes + 1, so that 0 is unknown. */
static int64_t kept_cache_bytes(int level) {
  static int64_t kept[4];
  int64_t bytes = __atomic_load_n(&kept[level], __ATOMIC_RELAXED) - 1;
  if (bytes < 0) {
    bytes = listed_cache_bytes(level);
    __atomic_store_n(&kept[level], bytes + 1, __ATOMIC_RELAXED);
  }
  return bytes;
}

int64_t fa_cpu_cache_bytes(int level) {
  if (level < 1 || level > 3) return 0;
  long bytes = -1;
#ifdef _SC_LEVEL1_DCACHE_SIZE
  static const int names[] = {0, _SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
  bytes = sysconf(names[level]); /* glibc knows x86's */
#endif
  return bytes > 0 ? bytes : kept_cache_bytes(level);
}
