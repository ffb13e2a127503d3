/* What the files of a launch share (chip.c, launch.c, fiber.c, statement.c). */
#ifndef DV_LAUNCH_PARTS_H
#define DV_LAUNCH_PARTS_H

#include <string.h>

#include "davinci/core.h"

static inline int dv_ends_with(const char *text, const char *end) {
  const size_t a = strlen(text), b = strlen(end);
  return a >= b && strcmp(text + a - b, end) == 0;
}

/* fiber.c. open: the core will run `body` on a stack of its own, which it keeps over launches. 0: no memory. */
int dv_fiber_open(dv_core *core, void (*body)(void));
void dv_fiber_close(dv_core *core);
void dv_stack_close(dv_core *core);
void dv_entered(const dv_core *core); /* the first thing that `body` does */
void dv_to_core(dv_core *core);
void dv_to_scheduler(dv_core *core);

#endif
