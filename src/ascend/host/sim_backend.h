/* The emulated chip behind a context of `ascend-sim`: for those who look at more than its answers. */
#ifndef FA_ASCEND_SIM_BACKEND_H
#define FA_ASCEND_SIM_BACKEND_H

#include "ascend/host/tiling_choice.h"
#include "davinci/davinci.h"

typedef struct fa_ascend_sim_view {
  fa_ascend_wish wish; /* tiles of plans made from here on by the kernels that tile */
  dv_trace *trace;     /* NULL, or where launches add their events */
  /* 1: all but the blocks first_computed .. last_computed only pass the time; nothing they leave is of use (davinci.h). */
  int only_time, first_computed, last_computed;
  int is_queued; /* 1: runs wait in the stream behind other work, so that their launches cost less */
  const dv_skip *skips; /* synchronisation that launches leave out (mutation) */
  int skips_count;
  void (*watch)(void *user, const char *function,
                const dv_report *report); /* NULL, or called behind each launch; may not use the context */
  void *user;
} fa_ascend_sim_view;

/* Not while a run of the context is under way. NULL: nobody looks, as at the beginning. */
void fa_ascend_sim_look(fa_context *context, const fa_ascend_sim_view *view);

/* The chip, for its parameters and name. It goes with the context. */
dv_chip *fa_ascend_sim_chip(const fa_context *context);

#endif
