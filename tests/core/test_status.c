/* Statuses, their names, and the one line a thread gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"

static void names(void **state) {
  (void)state;
  assert_string_equal(fa_status_name(FA_OK), "ok");
  assert_string_equal(fa_status_name(FA_ERROR_ARGUMENT), "argument");
  assert_string_equal(fa_status_name(FA_ERROR_UNSUPPORTED), "unsupported");
  assert_string_equal(fa_status_name(FA_ERROR_WORKSPACE), "workspace");
  assert_string_equal(fa_status_name(FA_ERROR_MEMORY), "memory");
  assert_string_equal(fa_status_name(FA_ERROR_DEVICE), "device");
  assert_string_equal(fa_status_name(FA_ERROR_COMM), "comm");
  assert_non_null(fa_status_name((fa_status)12345));
  assert_non_null(fa_version());
  assert_non_null(fa_commit());
  for (int bit = 0; bit < FA_FEATURE_COUNT; bit++) assert_non_null(fa_feature_name(bit));
  assert_null(fa_feature_name(FA_FEATURE_COUNT));
  assert_null(fa_feature_name(-1));
}

static void long_lines_are_cut(void **state) {
  (void)state;
  char text[3000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  assert_int_equal(fa_fail(FA_ERROR_DEVICE, "%s", text), FA_ERROR_DEVICE);
  assert_true(strlen(fa_last_error()) > 100 && strlen(fa_last_error()) < sizeof text);
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *fail_again_and_again(void *argument) {
  const int number = (int)(intptr_t)argument;
  char expected[64];
  if (strcmp(fa_last_error(), "") != 0) return "a fresh thread has a line already";
  for (int n = 0; n < ROUNDS; n++) {
    fa_fail(FA_ERROR_ARGUMENT, "thread %d, round %d", number, n);
    fa_context *context = NULL;
    if (fa_context_create(NULL, &context) != FA_OK) return "no context";
    fa_context_destroy(context);
    snprintf(expected, sizeof expected, "thread %d, round %d", number, n);
    if (strcmp(fa_last_error(), expected) != 0) return "another thread's line, or a success that changed it";
  }
  return NULL;
}

static void every_thread_has_its_own_line(void **state) {
  (void)state;
  pthread_t threads[THREADS];
  fa_fail(FA_ERROR_COMM, "the main thread's line");
  for (int n = 0; n < THREADS; n++)
    assert_int_equal(pthread_create(&threads[n], NULL, fail_again_and_again, (void *)(intptr_t)n), 0);
  for (int n = 0; n < THREADS; n++) {
    void *complaint = NULL;
    pthread_join(threads[n], &complaint);
    if (complaint) fail_msg("thread %d: %s", n, (const char *)complaint);
  }
  assert_string_equal(fa_last_error(), "the main thread's line");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(long_lines_are_cut),
                                     cmocka_unit_test(every_thread_has_its_own_line)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
