/* Attention on Ascend by kernel/attention_ascend.cpp, FlashAttention-2 with tiles at two levels (attention_tiling.h):
 *   flash_ascend      Cube and Vector hand over up to 128 x 1024 scores at a time, Vector works through them in pieces
 *   one_level_ascend  the same kernel, a Cube block of 128 x 128 at a time: what two levels are worth, never chosen unasked
 * One launch; tiles, parts and workspace are tiling_choice.c's. */
#include <stdio.h>
#include <string.h>

#include "ascend/host/tiling_choice.h"
#include "core/kernel_declarations.h"
#include "core/tiling_mask.h"

typedef struct flash {
  fa_ascend_function function;
  fa_ascend_choice choice;
  const void *mask; /* NULL: no tile has an edge to mask */
} flash;

static void describe(fa_plan *plan, const fa_ascend_choice *c) {
  const fa_ascend_attention *t = &c->tiling;
  char parts[48] = "";
  if (t->kv_splits > 1) snprintf(parts, sizeof parts, ", keys in %d parts", t->kv_splits);
  snprintf(plan->reason, sizeof plan->reason,
           "%d items of %d rows on %d groups of cores%s%s; S, P and O in rings of %d, QK %d %s ahead", t->items,
           t->level1_rows, c->blocks, t->packs_group ? ", a KV head's query heads as rows" : "", parts, t->ring, t->preload,
           t->preload == 1 ? "tile" : "tiles");
  plan->tiles.level1_rows = t->level1_rows;
  plan->tiles.level1_keys = t->level1_keys;
  plan->tiles.level2_rows = t->level2_rows;
  plan->tiles.level2_keys = t->level1_keys;
  plan->kv_splits = t->kv_splits;
  plan->kernel_workspace_bytes = c->workspace_bytes;
}

static fa_status prepare(fa_plan *plan, int one_level) {
  const fa_ascend_device *device = fa_ascend_device_of(plan->context);
  fa_ascend_wish wish = device->wish;
  wish.one_level |= one_level;
  flash made;
  memset(&made, 0, sizeof made);
  fa_status status = fa_ascend_choose(&plan->problem, &device->chip, &wish, &made.choice);
  if (status == FA_OK) status = device->runtime->find(plan->context, &fa_ascend_attention_code, &made.function);
  if (status == FA_OK && made.choice.has_band) status = fa_ascend_tiling_mask(plan->context, &made.mask);
  if (status != FA_OK) return status;
  flash *kept = fa_host_allocate(plan->context, sizeof *kept);
  if (!kept) return FA_ERROR_MEMORY;
  *kept = made;
  plan->kernel_data = kept;
  describe(plan, &made.choice);
  return FA_OK;
}

static fa_status run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  const flash *data = plan->kernel_data;
  if (plan->problem.max_seqlen_q == 0) return FA_OK; /* no rows, whatever the ragged tensors could hold */
  fa_ascend_attention tiling = data->choice.tiling;
  fa_ascend_set_strides(&plan->problem, args, &tiling);
  fa_ascend_argument arguments[FA_ASCEND_GIVEN + 2];
  fa_ascend_given(&plan->problem, args, arguments);
  arguments[FA_ASCEND_GIVEN] = fa_ascend_bytes("mask", data->mask, fa_tiling_mask_bytes(tiling.mask_m), FA_ASCEND_READS);
  arguments[FA_ASCEND_GIVEN + 1] = fa_ascend_bytes("workspace", workspace, data->choice.workspace_bytes, FA_ASCEND_SCRATCH);
  const fa_ascend_launch launch = {data->function, data->choice.blocks, arguments, FA_ASCEND_GIVEN + 2,
                                   &tiling,        sizeof tiling,       0};
  return fa_ascend_device_of(plan->context)->runtime->start(plan->context, &launch, stream);
}

_Static_assert(sizeof(fa_ascend_attention) <= FA_ASCEND_MOST_TILING_BYTES, "a launch takes the tiling struct");

fa_status fa_flash_ascend_prepare(fa_plan *plan) { return prepare(plan, 0); }
void fa_flash_ascend_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }
fa_status fa_flash_ascend_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  return run(plan, args, workspace, stream);
}

fa_status fa_one_level_ascend_prepare(fa_plan *plan) { return prepare(plan, 1); }
void fa_one_level_ascend_release(fa_plan *plan) { fa_host_free(plan->context, plan->kernel_data); }
fa_status fa_one_level_ascend_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  return run(plan, args, workspace, stream);
}
