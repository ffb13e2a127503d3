/* Where the blocks of a cluster leave their results for each other (cuda/decode_shape.h): every piece of every row has one
 * place, inside the memory that the host side asks for, and a block expects what is sent to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cuda/decode_shape.h"
#include "cuda/divisor.h"

enum { MOST_ROWS = 64, MOST_DIM = 576 };

static void letters_fit_and_are_expected(int parts, int rows, int dim_v) {
  static char taken[FA_DECODE_MOST_PARTS][MOST_ROWS * FA_DECODE_PIECES(MOST_DIM)];
  memset(taken, 0, sizeof taken);
  const int pieces = rows * FA_DECODE_PIECES(dim_v), bytes = FA_DECODE_EXCHANGE_BYTES(parts, rows, dim_v);
  const fa_divisor by_parts = fa_divisor_of(parts);
  assert_int_equal(bytes % 128, 0);
  assert_int_equal(FA_DECODE_LETTER_AT(0, parts, 0), FA_DECODE_MAILBOX_BYTES);
  assert_int_equal(FA_DECODE_LETTER_AT(1, parts, 0), FA_DECODE_LETTER_AT(0, parts, parts));
  for (int n = 0; n < pieces; n++) {
    const int slot = fa_divide(n, by_parts), owner = n - slot * parts;
    const int end = FA_DECODE_LETTER_AT(slot, parts, parts - 1) + FA_DECODE_LETTER_BYTES;
    if (owner >= parts || taken[owner][slot] || end > bytes)
      fail_msg("%d parts, %d rows of %d: piece %d in slot %d of block %d ends at %d of %d", parts, rows, dim_v, n, slot, owner,
               end, bytes);
    taken[owner][slot] = 1;
  }
  for (int block = 0, sent = 0; block < parts; block++) {
    const int expected = fa_divide(FA_DECODE_SLOTS_BY_PARTS(pieces, parts, block), by_parts);
    for (int slot = 0; slot < expected; slot++) assert_true(taken[block][slot]);
    sent += expected;
    if (block == parts - 1) assert_int_equal(sent, pieces);
  }
}

static void every_shape(void **state) {
  (void)state;
  for (int parts = 2; parts <= FA_DECODE_MOST_PARTS; parts++)
    for (int rows = 1; rows <= MOST_ROWS; rows++)
      for (int dim_v = 1; dim_v <= MOST_DIM; dim_v += dim_v % 128 > 2 && dim_v % 128 < 126 ? 31 : 1)
        letters_fit_and_are_expected(parts, rows, dim_v);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_shape)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
