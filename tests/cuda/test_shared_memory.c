/* Shared memory that the tensor-core prefill kernels ask for, against what the GPUs they are made for have: 64 KB a block
 * on Turing, 99 KB on the cards of compute capability 8.6 and 8.9. (Volta's: a static assertion in cuda/prefill_sm70.c;
 * decode asks the device.) An H100 would not notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/blocks_shape.h"
#include "cuda/prefill_shapes.h"

enum { TURING = 64 * 1024, CONSUMER = 99 * 1024 };
enum { f16, bf16 };

typedef struct shape {
  int type, dqk, dv, shared_bytes;
} shape;

#define FA_SHAPE(type, dqk, dv, row_tiles, warps, tile, step, blocks) \
  {type, dqk, dv, FA_PREFILL_SHARED_BYTES(dqk, dv, row_tiles, warps, tile)},
static const shape sm75_plain[] = {FA_SM75_PLAIN(f16)};
static const shape sm75_rules[] = {FA_SM75_RULES(f16)};
static const shape sm80_plain[] = {FA_SM80_PLAIN(f16) FA_SM80_PLAIN(bf16)};
static const shape sm80_rules[] = {FA_SM80_RULES(f16) FA_SM80_RULES(bf16)};
#define COUNT(shapes) (sizeof(shapes) / sizeof *(shapes))

/* Every bucket has an instance that fits; its first one need not. */
static void every_bucket_fits(const shape *shapes, size_t count, int limit) {
  for (size_t i = 0; i < count; i++) {
    int least = shapes[i].shared_bytes;
    for (size_t other = 0; other < count; other++)
      if (shapes[other].type == shapes[i].type && shapes[other].dqk == shapes[i].dqk && shapes[other].dv == shapes[i].dv &&
          shapes[other].shared_bytes < least)
        least = shapes[other].shared_bytes;
    if (least > limit)
      fail_msg("head sizes %d and %d need %d bytes of shared memory; %d are there", shapes[i].dqk, shapes[i].dv, least, limit);
  }
}

static void turing(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(sm75_plain); i++) assert_true(sm75_plain[i].shared_bytes <= TURING);
  for (size_t i = 0; i < COUNT(sm75_rules); i++) assert_true(sm75_rules[i].shared_bytes <= TURING);
}

static void consumer_ampere_and_ada(void **state) {
  (void)state;
  every_bucket_fits(sm80_plain, COUNT(sm80_plain), CONSUMER);
  every_bucket_fits(sm80_rules, COUNT(sm80_rules), CONSUMER);
}

/* The kilobyte a block that the system keeps came with Ampere: a T4 holds a block of all its 64 KB. */
static void blocks_of_a_multiprocessor(void **state) {
  (void)state;
  assert_int_equal(fa_blocks_at_once(75, TURING, TURING, 65536), 1);
  assert_int_equal(fa_blocks_at_once(75, TURING, TURING, 33024), 1);
  assert_int_equal(fa_blocks_at_once(75, TURING, TURING, 32768), 2);
  assert_int_equal(fa_blocks_at_once(75, TURING, TURING, 65537), 0);
  assert_int_equal(fa_blocks_at_once(86, CONSUMER, 100 * 1024, 50 * 1024), 1);
  assert_int_equal(fa_blocks_at_once(90, 227 * 1024, 228 * 1024, 75 * 1024), 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(turing), cmocka_unit_test(consumer_ampere_and_ada),
                                     cmocka_unit_test(blocks_of_a_multiprocessor)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
