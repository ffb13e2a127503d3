/* The checker's arrays on a device of its own memory: what the device does to them, and beside them, is seen here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "check/check_mirror.h"
#include "core/kernel.h"

static int allocated;

static fa_status allocate(fa_context *context, size_t bytes, void **memory) {
  (void)context;
  *memory = malloc(bytes);
  allocated += *memory != NULL;
  return *memory ? FA_OK : FA_ERROR_MEMORY;
}

static void release(fa_context *context, void *memory) {
  (void)context;
  free(memory);
  allocated--;
}

static fa_status copy(fa_context *context, void *destination, const void *source, size_t bytes, fa_copy_kind kind,
                      fa_stream stream) {
  (void)context, (void)kind, (void)stream;
  memcpy(destination, source, bytes);
  return FA_OK;
}

static fa_status wait(fa_context *context, fa_stream stream) {
  (void)context, (void)stream;
  return FA_OK;
}

static const fa_backend device = {.name = "device",
                                  .buffer_allocate = allocate,
                                  .buffer_free = release,
                                  .buffer_copy = copy,
                                  .stream_synchronize = wait};
static const fa_backend host = {.name = "host", .memory_is_host = 1};

enum { SLOTS = 2 };

typedef struct arrays {
  fa_slot slots[SLOTS];
  fa_slot *list[SLOTS];
} arrays;

static void place(arrays *a, size_t bytes) {
  for (int n = 0; n < SLOTS; n++) {
    a->list[n] = &a->slots[n];
    assert_non_null(fa_slot_place(&a->slots[n], bytes, 64, n % 2));
    memset(a->slots[n].data, n + 1, bytes);
  }
}

static void assert_mirrored(fa_mirror *mirror, fa_context *context, arrays *a) {
  assert_int_equal(fa_mirror_upload(mirror, context, a->list, SLOTS), FA_OK);
  for (int n = 0; n < SLOTS; n++) {
    const fa_slot *slot = a->list[n];
    unsigned char *there = fa_mirror_pointer(mirror, slot->data);
    assert_ptr_not_equal(there, slot->data);
    assert_memory_equal(there, slot->data, slot->bytes);
    assert_int_equal((there - (unsigned char *)mirror->device) % 64, 0);
    assert_ptr_equal(fa_mirror_pointer(mirror, slot->data + slot->bytes / 2), there + slot->bytes / 2);
  }
  assert_null(fa_mirror_pointer(mirror, NULL));
}

static void arrays_are_on_the_device(void **state) {
  (void)state;
  fa_context one = {.backend = &device}, two = {.backend = &device};
  fa_mirror mirror = {0};
  arrays a = {0};
  place(&a, 100);
  assert_mirrored(&mirror, &one, &a); /* the first time */
  assert_mirrored(&mirror, &one, &a); /* in the same memory */
  place(&a, 100000);
  assert_mirrored(&mirror, &one, &a); /* grown */
  assert_mirrored(&mirror, &two, &a); /* in another context */
  assert_int_equal(allocated, 1);

  memset(fa_mirror_pointer(&mirror, a.slots[1].data), 7, 100000);
  assert_int_equal(fa_mirror_download(&mirror), FA_OK);
  assert_true(fa_mirror_gaps_intact(&mirror));
  for (int n = 0; n < 100000; n++) assert_int_equal(a.slots[1].data[n], 7);
  assert_int_equal(a.slots[0].data[0], 1);

  fa_mirror_release(&mirror);
  assert_int_equal(allocated, 0);
  for (int n = 0; n < SLOTS; n++) fa_slot_release(&a.slots[n]);
}

static void a_byte_beside_an_array_comes_back(void **state) {
  (void)state;
  fa_context context = {.backend = &device};
  fa_mirror mirror = {0};
  arrays a = {0};
  static const ptrdiff_t places[SLOTS][2] = {{1000, 1000 + (ptrdiff_t)FA_BAND - 1}, {-1, -(ptrdiff_t)FA_BAND}};
  for (int n = 0; n < SLOTS; n++) {
    for (int at = 0; at < 2; at++) {
      place(&a, 1000);
      assert_int_equal(fa_mirror_upload(&mirror, &context, a.list, SLOTS), FA_OK);
      ((unsigned char *)fa_mirror_pointer(&mirror, a.slots[n].data))[places[n][at]] = 0;
      assert_int_equal(fa_mirror_download(&mirror), FA_OK);
      for (int m = 0; m < SLOTS; m++) assert_int_equal(fa_slot_surroundings_intact(&a.slots[m]), m != n);
      assert_true(fa_mirror_gaps_intact(&mirror));
    }
  }
  fa_mirror_release(&mirror);
  for (int n = 0; n < SLOTS; n++) fa_slot_release(&a.slots[n]);
}

/* Behind the guard bands, on either side of either array, and behind an array at the end of its pages. */
static void a_byte_far_beside_is_seen(void **state) {
  (void)state;
  fa_context context = {.backend = &device};
  fa_mirror mirror = {0};
  arrays a = {0};
  for (int n = 0; n < SLOTS; n++) {
    for (int far = 0; far < 256; far += 51) {
      for (int side = 0; side < 2; side++) {
        place(&a, 1000);
        assert_int_equal(fa_mirror_upload(&mirror, &context, a.list, SLOTS), FA_OK);
        unsigned char *low = fa_mirror_pointer(&mirror, mirror.parts[n].low);
        low[side ? (ptrdiff_t)mirror.parts[n].bytes + far : -1 - far] = 0;
        assert_int_equal(fa_mirror_download(&mirror), FA_OK);
        for (int m = 0; m < SLOTS; m++) assert_true(fa_slot_surroundings_intact(&a.slots[m]));
        assert_false(fa_mirror_gaps_intact(&mirror));
      }
    }
  }
  fa_mirror_release(&mirror);
  for (int n = 0; n < SLOTS; n++) fa_slot_release(&a.slots[n]);
}

static void host_memory_is_used_as_it_is(void **state) {
  (void)state;
  fa_context context = {.backend = &host};
  fa_mirror mirror = {0};
  arrays a = {0};
  place(&a, 100);
  assert_int_equal(fa_mirror_upload(&mirror, &context, a.list, SLOTS), FA_OK);
  assert_ptr_equal(fa_mirror_pointer(&mirror, a.slots[0].data), a.slots[0].data);
  assert_int_equal(fa_mirror_download(&mirror), FA_OK);
  assert_true(fa_mirror_gaps_intact(&mirror));
  fa_mirror_release(&mirror);
  for (int n = 0; n < SLOTS; n++) fa_slot_release(&a.slots[n]);
}

static void no_array_is_left_out(void **state) {
  (void)state;
  fa_context context = {.backend = &device};
  fa_mirror mirror = {0};
  fa_slot *list[FA_MIRROR_SLOTS + 1] = {0};
  assert_int_equal(fa_mirror_upload(&mirror, &context, list, FA_MIRROR_SLOTS + 1), FA_ERROR_ARGUMENT);
  fa_mirror_release(&mirror);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(arrays_are_on_the_device),    cmocka_unit_test(a_byte_beside_an_array_comes_back),
      cmocka_unit_test(a_byte_far_beside_is_seen),   cmocka_unit_test(host_memory_is_used_as_it_is),
      cmocka_unit_test(no_array_is_left_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
