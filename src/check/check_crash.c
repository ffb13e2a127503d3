#define _GNU_SOURCE
#include "check/check_crash.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

sigjmp_buf fa_crash_return;

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

static struct sigaction previous[SIGNALS];
static stack_t previous_stack;
static unsigned char alternate_stack[1 << 16]; /* a kernel may have used up the ordinary one */
static volatile sig_atomic_t armed;
static const char *volatile words;
static pthread_t caller;
static int descriptor = STDERR_FILENO;

const char *fa_crash_name(int signal_number) {
  switch (signal_number) {
    case SIGSEGV:
      return "SIGSEGV (memory it must not touch)";
    case SIGBUS:
      return "SIGBUS";
    case SIGILL:
      return "SIGILL (an instruction this machine lacks)";
    case SIGFPE:
      return "SIGFPE";
    case SIGALRM:
      return "no end in sight (hanging)";
    default:
      return "a signal";
  }
}

static void say(const char *text) {
  if (write(descriptor, text, strlen(text)) < 0) return;
}

static void on_signal(int number) {
  if (armed && number != SIGALRM && pthread_equal(pthread_self(), caller)) {
    armed = 0;
    alarm(0);
    siglongjmp(fa_crash_return, number);
  }
  if (armed) {
    say("  FAILED, and the process cannot go on: ");
    say(fa_crash_name(number));
    say(number == SIGALRM ? "\n" : " on a thread of its own\n");
    say(words);
    _exit(1);
  }
  signal(number, SIG_DFL);
  raise(number);
}

void fa_crash_install(FILE *out) {
  struct sigaction action;
  stack_t stack;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  memset(&stack, 0, sizeof stack);
  stack.ss_sp = alternate_stack;
  stack.ss_size = sizeof alternate_stack;
  sigaltstack(&stack, &previous_stack);
  for (int n = 0; n < SIGNALS; n++) sigaction(signals[n], &action, &previous[n]);
  caller = pthread_self();
  descriptor = fileno(out) >= 0 ? fileno(out) : STDERR_FILENO;
}

void fa_crash_uninstall(void) {
  for (int n = 0; n < SIGNALS; n++) sigaction(signals[n], &previous[n], NULL);
  sigaltstack(&previous_stack, NULL);
}

void fa_crash_arm(const char *last_words, unsigned seconds) {
  words = last_words;
  armed = 1;
  alarm(seconds);
}

void fa_crash_disarm(void) {
  armed = 0;
  alarm(0);
}
