/* Two-level tiles, parts and the workspace's layout of the attention kernel: from a problem and a chip, nothing else. */
#ifndef FA_ASCEND_TILING_CHOICE_H
#define FA_ASCEND_TILING_CHOICE_H

#include "ascend/attention_tiling.h"
#include "ascend/host/ascend.h"

typedef struct fa_ascend_choice {
  fa_ascend_attention tiling; /* all but strides, which are a run's */
  int32_t blocks;             /* groups of cores that work; each has rings of its own */
  size_t workspace_bytes;
  int has_band; /* the kernel reads the tiling-mask */
} fa_ascend_choice;

/* problem: checked, its scale resolved. wish NULL: none.
 * Errors: UNSUPPORTED (sizes beyond the kernel's integers, or no tiles fit), ARGUMENT (a wish no kernel could fulfil). */
fa_status fa_ascend_choose(const fa_attention_problem *problem, const fa_ascend_chip *chip, const fa_ascend_wish *wish,
                           fa_ascend_choice *choice);

/* The strides of a run; those that its problem does not read become 0. */
void fa_ascend_set_strides(const fa_attention_problem *problem, const fa_attention_args *args, fa_ascend_attention *tiling);

#endif
