/* Happens-before on the emulated Ascend core (sim/davinci/order.h): each kind of hazard found with both places named, what is
 * ordered left alone. Random programs: test_order_random.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "davinci/order.h"

enum { MTE2, V, MTE3, QUEUES };

typedef struct found {
  int count;
  dv_hazard first;
} found;

static void report(void *user, const dv_hazard *hazard) {
  found *f = user;
  if (f->count++ == 0) f->first = *hazard;
}

static const dv_site load = {"DataCopy", "kernel.cpp", 10}, compute = {"Exp", "kernel.cpp", 20}, store = {"DataCopy", "kernel.cpp", 30};

typedef struct fixture {
  found found;
  dv_order *order;
  int ub;
} fixture;

static int open_order(void **state) {
  fixture *f = calloc(1, sizeof *f);
  f->order = dv_order_open(QUEUES, report, &f->found);
  f->ub = dv_order_space(f->order, "UB", 1000, 1);
  *state = f;
  return f->order && f->ub == 0 ? 0 : -1;
}
static int close_order(void **state) {
  fixture *f = *state;
  dv_order_close(f->order);
  free(f);
  return 0;
}

static void expect(const fixture *f, dv_hazard_kind kind, const dv_site *first, const dv_site *second, size_t begin) {
  assert_true(f->found.count > 0);
  assert_int_equal(f->found.first.kind, kind);
  assert_ptr_equal(f->found.first.first, first);
  assert_ptr_equal(f->found.first.second, second);
  assert_int_equal(f->found.first.begin, begin);
}

static void a_missing_flag_is_found(void **state) {
  fixture *f = *state;
  dv_order_issue(f->order, MTE2, &load);
  dv_order_write(f->order, f->ub, 64, 32);
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 0, 0);
  dv_order_read(f->order, f->ub, 95, 1);
  expect(f, DV_READ_TOO_EARLY, &load, &compute, 95);
  assert_string_equal(f->found.first.space, "UB");
}

static void a_flag_orders_through_other_queues(void **state) {
  fixture *f = *state;
  dv_flag *loaded = dv_flag_open(f->order, "MTE2_V 0", 1), *computed = dv_flag_open(f->order, "V_MTE3 0", 1);
  dv_order_issue(f->order, MTE2, &load);
  dv_order_write(f->order, f->ub, 0, 512);
  assert_false(dv_flag_wait(f->order, loaded, 1u << V)); /* not set yet */
  dv_flag_set(f->order, loaded, MTE2, &load);
  assert_true(dv_flag_wait(f->order, loaded, 1u << V));
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 0, 256);
  dv_order_write(f->order, f->ub, 0, 256);
  dv_flag_set(f->order, computed, V, &compute);
  assert_true(dv_flag_wait(f->order, computed, 1u << MTE3));
  dv_order_issue(f->order, MTE3, &store);
  dv_order_read(f->order, f->ub, 0, 512); /* the load itself is before it through V */
  dv_order_end(f->order);
  assert_int_equal(f->found.count, 0);
}

static void a_buffer_is_not_filled_again_while_it_is_read(void **state) {
  fixture *f = *state;
  dv_order_given(f->order, f->ub, 0, 1000);
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 0, 256);
  dv_order_issue(f->order, MTE3, &store);
  dv_order_read(f->order, f->ub, 0, 256);
  dv_flag *done = dv_flag_open(f->order, "MTE3_MTE2 0", 1);
  dv_flag_set(f->order, done, MTE3, &store);
  assert_true(dv_flag_wait(f->order, done, 1u << MTE2));
  dv_order_issue(f->order, MTE2, &load); /* MTE3 is done with it, V need not be */
  dv_order_write(f->order, f->ub, 255, 745);
  expect(f, DV_WRITE_TOO_EARLY, &compute, &load, 255);
  assert_int_equal(f->found.count, 1);
}

static void a_queue_overlaps_its_own_instructions(void **state) {
  fixture *f = *state;
  dv_order_given(f->order, f->ub, 0, 1000);
  for (int n = 0; n < 2; n++) {
    dv_order_issue(f->order, V, &compute);
    dv_order_read(f->order, f->ub, 0, 64);
    dv_order_write(f->order, f->ub, 0, 64); /* in place is one instruction's own business */
    assert_int_equal(f->found.count, 0);
    dv_order_barrier(f->order, V);
  }
  dv_order_issue(f->order, V, &store);
  dv_order_write(f->order, f->ub, 100, 4);
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 102, 64);
  expect(f, DV_READ_TOO_EARLY, &store, &compute, 102);
  assert_int_equal(f->found.count, 2); /* bytes 102 and 103 */
  dv_order_serial(f->order, MTE2);
  for (int n = 0; n < 2; n++) {
    dv_order_issue(f->order, MTE2, &load);
    dv_order_write(f->order, f->ub, 500, 64);
  }
  assert_int_equal(f->found.count, 2);
}

static void bytes_nobody_wrote_and_bytes_that_do_not_exist(void **state) {
  fixture *f = *state;
  dv_order_given(f->order, f->ub, 0, 10);
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 0, 10);
  assert_int_equal(f->found.count, 0);
  dv_order_read(f->order, f->ub, 9, 2);
  expect(f, DV_READ_UNWRITTEN, NULL, &compute, 10);
  f->found.count = 0;
  dv_order_write(f->order, f->ub, 999, 1);
  assert_int_equal(f->found.count, 0);
  dv_order_write(f->order, f->ub, 990, 20);
  expect(f, DV_OUT_OF_SPACE, NULL, &compute, 990);
  f->found.count = 0;
  dv_order_write(f->order, f->ub, 999, SIZE_MAX);
  expect(f, DV_OUT_OF_SPACE, NULL, &compute, 999);
  f->found.count = 0;
  dv_order_read(f->order, f->ub, 100000, 1);
  expect(f, DV_OUT_OF_SPACE, NULL, &compute, 100000);
}

static void an_instruction_may_read_a_byte_twice(void **state) {
  fixture *f = *state;
  dv_order_given(f->order, f->ub, 0, 1000);
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 5, 1);
  dv_order_issue(f->order, V, &store);
  dv_order_read(f->order, f->ub, 5, 1);
  dv_order_read(f->order, f->ub, 5, 1);
  dv_order_write(f->order, f->ub, 5, 1);
  expect(f, DV_WRITE_TOO_EARLY, &compute, &store, 5);
}

/* Operands that are read twice and filled again, as in L0: readers of before cost nothing. */
static void readers_are_forgotten(void **state) {
  fixture *f = *state;
  dv_flag *filled = dv_flag_open(f->order, "filled", 1), *read = dv_flag_open(f->order, "read", 1);
  for (int round = 0; round < 20000; round++) {
    assert_true(dv_order_issue(f->order, MTE2, &load));
    dv_order_write(f->order, f->ub, 0, 64);
    dv_flag_set(f->order, filled, MTE2, &load);
    assert_true(dv_flag_wait(f->order, filled, 1u << V));
    for (int n = 0; n < 2; n++) {
      assert_true(dv_order_issue(f->order, V, &compute));
      dv_order_read(f->order, f->ub, 0, 64);
    }
    dv_flag_set(f->order, read, V, &compute);
    assert_true(dv_flag_wait(f->order, read, 1u << MTE2));
  }
  assert_int_equal(f->found.count, 0);
}

static void what_does_not_exist_is_refused(void **state) {
  fixture *f = *state;
  assert_null(dv_order_open(0, report, NULL));
  assert_null(dv_order_open(DV_MOST_QUEUES + 1, report, NULL));
  assert_false(dv_order_issue(f->order, QUEUES, &load));
  assert_false(dv_order_issue(f->order, -1, &load));
  assert_int_equal(dv_order_space(f->order, "none", 8, 0), -1);
  assert_null(dv_flag_open(f->order, "none", 0));
}

static void flags_have_limits_and_are_waited_for(void **state) {
  fixture *f = *state;
  dv_flag *flag = dv_flag_open(f->order, "cross 3", 2);
  dv_order_issue(f->order, MTE2, &load);
  dv_flag_set(f->order, flag, MTE2, &load);
  dv_flag_set(f->order, flag, MTE2, &store);
  assert_int_equal(f->found.count, 0);
  dv_flag_set(f->order, flag, MTE2, &compute);
  expect(f, DV_FLAG_LIMIT, &load, &compute, 0);
  assert_int_equal(f->found.first.bytes, 3);
  f->found.count = 0;
  assert_true(dv_flag_wait(f->order, flag, 1u << V));
  dv_order_end(f->order);
  expect(f, DV_FLAG_LEFT, &store, NULL, 0);
}

/* Set, wait, set: in this run there was room, but nothing holds the second set up until the wait. */
static void a_flag_that_only_luck_leaves_room_in(void **state) {
  fixture *f = *state;
  dv_flag *there = dv_flag_open(f->order, "MTE2_V", 1), *back = dv_flag_open(f->order, "V_MTE2", 1);
  dv_order_issue(f->order, MTE2, &load);
  dv_flag_set(f->order, there, MTE2, &load);
  assert_true(dv_flag_wait(f->order, there, 1u << V));
  dv_order_issue(f->order, V, &compute);
  dv_flag_set(f->order, back, V, &compute);
  assert_true(dv_flag_wait(f->order, back, 1u << MTE2));
  dv_order_issue(f->order, MTE2, &load);
  dv_flag_set(f->order, there, MTE2, &load);
  assert_int_equal(f->found.count, 0);
  assert_true(dv_flag_wait(f->order, there, 1u << V));
  dv_flag_set(f->order, there, MTE2, &store);
  expect(f, DV_FLAG_LIMIT, &load, &store, 0);
}

static void two_queues_that_set_a_flag(void **state) {
  fixture *f = *state;
  dv_flag *flag = dv_flag_open(f->order, "cross 3", 4), *order = dv_flag_open(f->order, "order", 1);
  dv_order_issue(f->order, MTE2, &load);
  dv_flag_set(f->order, flag, MTE2, &load);
  dv_flag_set(f->order, order, MTE2, &load);
  assert_true(dv_flag_wait(f->order, order, 1u << V));
  dv_order_issue(f->order, V, &compute);
  dv_flag_set(f->order, flag, V, &compute);
  assert_int_equal(f->found.count, 0);
  dv_order_issue(f->order, MTE3, &store);
  dv_flag_set(f->order, flag, MTE3, &store);
  expect(f, DV_FLAG_RACE, &compute, &store, 0);
}

/* What nobody wrote may be moved, and is found behind the move. */
static void bytes_that_move_unwritten(void **state) {
  fixture *f = *state;
  dv_order_issue(f->order, MTE2, &load);
  dv_order_write(f->order, f->ub, 0, 4);
  dv_order_barrier(f->order, MTE2);
  dv_order_issue(f->order, MTE2, &store);
  assert_int_equal(dv_order_read_any(f->order, f->ub, 0, 4), 1);
  assert_int_equal(dv_order_read_any(f->order, f->ub, 4, 4), 0);
  dv_order_write_nothing(f->order, f->ub, 8, 4);
  assert_int_equal(f->found.count, 0);
  dv_order_barrier(f->order, MTE2);
  dv_order_issue(f->order, MTE2, &load);
  dv_order_read(f->order, f->ub, 8, 1);
  expect(f, DV_READ_UNWRITTEN, NULL, &load, 8);
}

static void a_join_orders_all_its_queues(void **state) {
  fixture *f = *state;
  dv_order_issue(f->order, MTE2, &load);
  dv_order_write(f->order, f->ub, 0, 4);
  dv_order_join(f->order, 1u << MTE2 | 1u << V);
  dv_order_issue(f->order, V, &compute);
  dv_order_read(f->order, f->ub, 0, 4);
  assert_int_equal(f->found.count, 0);
  dv_order_issue(f->order, MTE3, &store);
  dv_order_read(f->order, f->ub, 0, 4);
  expect(f, DV_READ_TOO_EARLY, &load, &store, 0);
}

static void granules_are_followed_as_a_whole(void **state) {
  fixture *f = *state;
  const int gm = dv_order_space(f->order, "GM", 100, 32);
  dv_order_issue(f->order, MTE2, &load);
  dv_order_write(f->order, gm, 96, 4);
  dv_order_barrier(f->order, MTE2);
  dv_order_issue(f->order, MTE2, &load);
  dv_order_read(f->order, gm, 96, 1);
  assert_int_equal(f->found.count, 0);
  dv_order_read(f->order, gm, 95, 1);
  expect(f, DV_READ_UNWRITTEN, NULL, &load, 64);
}

int main(void) {
#define IN_ORDER(test) cmocka_unit_test_setup_teardown(test, open_order, close_order)
  const struct CMUnitTest tests[] = {IN_ORDER(a_missing_flag_is_found),
                                     IN_ORDER(a_flag_orders_through_other_queues),
                                     IN_ORDER(a_buffer_is_not_filled_again_while_it_is_read),
                                     IN_ORDER(a_queue_overlaps_its_own_instructions),
                                     IN_ORDER(bytes_nobody_wrote_and_bytes_that_do_not_exist),
                                     IN_ORDER(an_instruction_may_read_a_byte_twice),
                                     IN_ORDER(readers_are_forgotten),
                                     IN_ORDER(what_does_not_exist_is_refused),
                                     IN_ORDER(flags_have_limits_and_are_waited_for),
                                     IN_ORDER(a_flag_that_only_luck_leaves_room_in),
                                     IN_ORDER(two_queues_that_set_a_flag),
                                     IN_ORDER(bytes_that_move_unwritten),
                                     IN_ORDER(a_join_orders_all_its_queues),
                                     IN_ORDER(granules_are_followed_as_a_whole)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
