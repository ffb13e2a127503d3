/* The cores' stacks: each a coroutine's, with a page below it that nobody may touch, and the way from one to the other. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <sys/mman.h>
#include <unistd.h>

#include "davinci/core.h"
#include "davinci/launch_parts.h"

#if defined(__SANITIZE_ADDRESS__)
#define DV_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DV_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define DV_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DV_TSAN 1
#endif
#endif
#ifdef DV_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef DV_TSAN
#include <sanitizer/tsan_interface.h>
#endif

void dv_to_core(dv_core *core) {
  dv_run_state *run = core->run;
  run->current = core;
  dv_current = core;
#ifdef DV_ASAN
  __sanitizer_start_switch_fiber(&run->scheduler_fiber, core->stack, DV_STACK);
#endif
#ifdef DV_TSAN
  run->scheduler_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(core->fiber, 0);
#endif
  swapcontext(&run->scheduler, &core->context);
#ifdef DV_ASAN
  __sanitizer_finish_switch_fiber(run->scheduler_fiber, NULL, NULL);
#endif
  dv_current = NULL;
}

void dv_to_scheduler(dv_core *core) {
  dv_run_state *run = core->run;
#ifdef DV_ASAN
  __sanitizer_start_switch_fiber(core->has_ended ? NULL : &core->fiber, run->scheduler_stack, run->scheduler_stack_bytes);
#endif
#ifdef DV_TSAN
  __tsan_switch_to_fiber(run->scheduler_fiber, 0);
#endif
  swapcontext(&core->context, &run->scheduler);
#ifdef DV_ASAN
  __sanitizer_finish_switch_fiber(core->fiber, NULL, NULL);
#endif
}

void dv_entered(const dv_core *core) {
#ifdef DV_ASAN
  __sanitizer_finish_switch_fiber(NULL, &core->run->scheduler_stack, &core->run->scheduler_stack_bytes);
#else
  (void)core;
#endif
}

static size_t guard_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

int dv_fiber_open(dv_core *core, void (*body)(void)) {
  if (!core->stack) {
    const size_t guard = guard_bytes();
    unsigned char *all = mmap(NULL, guard + DV_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return 0;
    if (mprotect(all, guard, PROT_NONE) != 0) {
      munmap(all, guard + DV_STACK);
      return 0;
    }
    core->stack = all + guard;
  }
#ifdef DV_ASAN
  __asan_unpoison_memory_region(core->stack, DV_STACK); /* frames that a failed launch left */
#endif
  if (getcontext(&core->context) != 0) return 0;
  core->context.uc_stack.ss_sp = core->stack;
  core->context.uc_stack.ss_size = DV_STACK;
  core->context.uc_link = NULL;
  makecontext(&core->context, body, 0);
#ifdef DV_TSAN
  core->fiber = __tsan_create_fiber(0);
#endif
  return 1;
}

void dv_fiber_close(dv_core *core) {
#ifdef DV_TSAN
  if (core->fiber) __tsan_destroy_fiber(core->fiber);
#endif
  core->fiber = NULL;
}

void dv_stack_close(dv_core *core) {
  if (!core->stack) return;
#ifdef DV_ASAN
  __asan_unpoison_memory_region(core->stack, DV_STACK);
#endif
  munmap(core->stack - guard_bytes(), guard_bytes() + DV_STACK);
  core->stack = NULL;
}
