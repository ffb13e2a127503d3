/* Which ceiling `fastattn bench` holds a kernel against, on machines that need not be this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "bench_roof.h"

static void expect(const char *arch, const char *isa, fa_dtype dtype, const fa_roof_unit *unit, int products,
                   const char *name) {
  const fa_roof roof = fa_roof_of(arch, isa, dtype);
  if (roof.unit != unit || roof.products != products || strcmp(roof.name, name) != 0)
    fail_msg("%s on '%s': %s, divided by %d, not %s by %d", arch, isa, roof.name, roof.products, name, products);
}

static void a_roof_is_that_of_the_unit(void **state) {
  (void)state;
#if FA_X86
  static const char sapphire_rapids[] = "c avx2 avx512 avx512_bf16 amx_bf16", zen4[] = "c avx2 avx512 avx512_bf16";
  static const char third[] = "a third of AMX bf16, real data, tiles from L1";
  for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++) {
    expect("avx512", sapphire_rapids, (fa_dtype)dtype, &fa_roof_avx512, 1, "AVX-512 fp32 FMA");
    expect("avx2", zen4, (fa_dtype)dtype, &fa_roof_avx2, 1, "AVX2 fp32 FMA");
  }
  expect("amx", sapphire_rapids, FA_BFLOAT16, &fa_roof_amx, 1, "AMX bf16, real data, tiles from L1");
  expect("amx", sapphire_rapids, FA_FLOAT16, &fa_roof_amx, 3, third);
  expect("amx", sapphire_rapids, FA_FLOAT32, &fa_roof_avx512, 1, "AVX-512 fp32 FMA");
  expect("avx512_bf16", zen4, FA_BFLOAT16, &fa_roof_avx512_bf16, 1, "VDPBF16PS");
  expect("standard", sapphire_rapids, FA_BFLOAT16, &fa_roof_amx, 1, "AMX bf16, real data, tiles from L1");
  expect("standard", sapphire_rapids, FA_FLOAT16, &fa_roof_amx, 3, third);
  expect("standard", sapphire_rapids, FA_FLOAT32, &fa_roof_avx512, 1, "AVX-512 fp32 FMA");
  expect("standard", zen4, FA_BFLOAT16, &fa_roof_avx512_bf16, 1, "VDPBF16PS");
  expect("standard", zen4, FA_FLOAT16, &fa_roof_avx512, 1, "AVX-512 fp32 FMA");
  expect("eager", "c avx2", FA_BFLOAT16, &fa_roof_avx2, 1, "AVX2 fp32 FMA");
  expect("eager", "c avx512_bf16", FA_FLOAT16, &fa_roof_c, 1, "plain C multiply and add"); /* a word, not a part of one */
#elif FA_ARM64
  expect("neon", "c neon neon_fhm neon_bf16", FA_BFLOAT16, &fa_roof_neon, 1, "NEON fp32 FMA");
  expect("standard", "c neon neon_fhm neon_bf16", FA_FLOAT16, &fa_roof_neon_fhm, 1, "NEON fp16 multiply-add into fp32");
  expect("standard", "c neon", FA_FLOAT16, &fa_roof_neon, 1, "NEON fp32 FMA");
#endif
  expect("c", "c avx2 avx512 neon", FA_BFLOAT16, &fa_roof_c, 1, "plain C multiply and add");
  expect("standard", "c", FA_FLOAT32, &fa_roof_c, 1, "plain C multiply and add");
}

/* In memory of its own, so that the address sanitizer sees where the reading ends. */
static void loops_run(void **state) {
  (void)state;
  static const char memory[2][3 * 1024 + 5];
  const void *const both[2] = {memory[0], memory[1]};
  const size_t bytes[2] = {sizeof memory[0], 1024};
  const fa_roof plain = fa_roof_of("c", "c", FA_FLOAT32);
  assert_true(fa_roof_arithmetic(&plain, 2) > 0.0);
  for (int streams = 1; streams <= 4; streams += 3) assert_true(fa_roof_bandwidth("c", 2, streams, both, bytes) > 0.0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_roof_is_that_of_the_unit), cmocka_unit_test(loops_run)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
