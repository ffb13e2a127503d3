/* FastAttention: tuning. What a plan chooses by rule, chosen by measurement instead.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * `fastattn tune` measures kernels, level-one tiles and KV splits and keeps what wins in a small text file. A context
 * that is given the file, by fa_context_load_tuning or by the environment variable FASTATTENTION_TUNING, plans by it
 * wherever it has an entry for the problem's class:
 *   operation, types, head sizes, query heads a KV head, causal or not, threads (equal), and
 *   longest query, longest key sequence, batch x KV heads (to the nearest power of two).
 * A plan is made before strides are known, so one entry serves B,S,H,D and B,H,S,D (heads interleaved and not), though the
 * best kernel or split may differ: `fastattn tune` measures both and keeps what is faster than the rule's choice in one and
 * not slower in the other. Who writes entries with fa_tuning_entry owes the same.
 * A problem with a window, ALiBi, softcap, bias, mask, kv_splits or a kernel of its own is planned by rule as before.
 * The file says on which processor, with which instruction sets and caches and by which version it was made; for any
 * other it is not used, and fa_plan_info.reason says so. What an entry asks for is checked as a stranger's; what the
 * kernel cannot take is not used either.
 *
 * The same kernel, tiles and splits give the same bits; a tuning file may change all three, and so the last bits.
 */
#ifndef FASTATTENTION_FA_TUNING_H
#define FASTATTENTION_FA_TUNING_H

#include <fastattention/fastattention.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads the file at `path` and plans by it from now on, in place of any other; NULL: by rule again. Plans that exist
 * stay as they are. Not concurrent with any other use of the context. fa_context_create does the same with the file
 * that FASTATTENTION_TUNING names, if it is set and not empty, and fails where this fails: who names a file wants it used.
 * Errors: ARGUMENT (no such file, or not a whole and right tuning file: which line and why; the context then keeps what
 * it had), MEMORY. A file of another machine is no error. */
FA_API fa_status fa_context_load_tuning(fa_context *context, const char *path);

typedef struct fa_tuning_info {
  size_t struct_size;
  const char *path;  /* of the file loaded (its last 255 bytes); NULL: none. Lives until the next load */
  const char *why;   /* one line: what is used, or why it is not */
  int32_t used;      /* 1: plans consult it */
  int32_t entries;
} fa_tuning_info;

#define FA_TUNING_INFO_INIT \
  { sizeof(fa_tuning_info), NULL, NULL, 0, 0 }

FA_API fa_status fa_tuning_describe(const fa_context *context, fa_tuning_info *info);

/* --------------------------------------------------- for programs that tune */

/* A kernel with its level-one tiles and splits, given instead of chosen. */
typedef struct fa_plan_choice {
  size_t struct_size;
  const char *kernel;  /* by name, not NULL; takes the place of problem.kernel */
  int64_t level1_rows; /* query rows; 0: the kernel's own. Larger than the problem means all of it */
  int64_t level1_keys; /* keys; the same */
  int64_t kv_splits;   /* most parts a KV sequence is cut into; the same. Not with problem.kv_splits */
} fa_plan_choice;

#define FA_PLAN_CHOICE_INIT \
  { sizeof(fa_plan_choice), NULL, 0, 0, 0 }

/* fa_plan_create, by this choice and no tuning file.
 * Errors: those of fa_plan_create; ARGUMENT also for what the kernel cannot take, and the line says what it can. */
FA_API fa_status fa_plan_create_with(fa_context *context, const fa_attention_problem *problem,
                                     const fa_plan_choice *choice, fa_plan **plan);

#define FA_TUNING_TEXT 1024

/* The text of a tuning file, to be written one behind the other: the head for this context's device (several lines),
 * then a line an entry, each with its newline. `text` has `size` bytes, FA_TUNING_TEXT always suffice. ms: median of
 * the choice; rule_ms: that of what the rule chooses (finite, > 0); both in the layout where the choice gains less.
 * Errors: ARGUMENT (NULL, size), UNSUPPORTED (a problem that no entry can describe). */
FA_API fa_status fa_tuning_head(const fa_context *context, char *text, size_t size);
FA_API fa_status fa_tuning_entry(const fa_context *context, const fa_attention_problem *problem,
                                 const fa_plan_choice *choice, double ms, double rule_ms, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
