/* The statements a kernel is made of: how often each was come by, which of them a launch leaves out, which flags it used. */
#include <stdlib.h>
#include <string.h>

#include "davinci/core.h"
#include "davinci/launch_parts.h"

static int is_synchronisation(const char *instruction) {
  static const char *const named[] = {"SetFlag", "WaitFlag", "PipeBarrier", "CrossCoreSetFlag", "CrossCoreWaitFlag", "SyncAll"};
  for (size_t n = 0; n < sizeof named / sizeof named[0]; ++n)
    if (strcmp(named[n], instruction) == 0) return 1;
  return 0;
}

static int is_skipped(const dv_launch *launch, dv_here here) {
  for (int n = 0; n < launch->skips_count; ++n)
    if (launch->skips[n].instruction && launch->skips[n].line == here.line &&
        strcmp(launch->skips[n].instruction, here.instruction) == 0 &&
        dv_ends_with(here.file, launch->skips[n].file))
      return 1;
  return 0;
}

int dv_skips_flag(int from, int to, int id) {
  const dv_run_state *run = dv_current->run;
  if (from < 0)
    run->chip->used_cross_flag[id] = 1;
  else
    run->chip->used_flag[from][to][id] = 1;
  for (int n = 0; n < run->launch->skips_count; ++n) {
    const dv_skip *skip = &run->launch->skips[n];
    if (!skip->instruction && skip->from == from && skip->id == id && (from < 0 || skip->to == to)) return 1;
  }
  return 0;
}

static int remember(dv_chip *chip, dv_place *place) {
  if (chip->synchronisations_count == chip->synchronisations_room) {
    const int room = chip->synchronisations_room ? 2 * chip->synchronisations_room : 64;
    dv_place **all = realloc(chip->synchronisations, (size_t)room * sizeof *all);
    if (!all) return 0;
    chip->synchronisations = all;
    chip->synchronisations_room = room;
  }
  chip->synchronisations[chip->synchronisations_count++] = place;
  return 1;
}

/* A hazard found by the last instruction ends the run before the next begins. */
const dv_place *dv_begin(dv_here here) {
  dv_core *core = dv_current;
  while (core->run->has_failed) dv_to_scheduler(core);
  dv_chip *chip = core->run->chip;
  const size_t hash = ((uintptr_t)here.file / 16 + (uintptr_t)here.instruction / 4 + (unsigned)here.line * 7u) % DV_PLACES;
  dv_place *place = chip->places[hash];
  while (place && (place->site.line != here.line || place->site.file != here.file || place->site.instruction != here.instruction))
    place = place->next;
  if (!place) {
    place = calloc(1, sizeof *place);
    if (!place) dv_fail(here, "", "no memory for a statement");
    place->site = here;
    place->next = chip->places[hash];
    chip->places[hash] = place;
    place->is_synchronisation = is_synchronisation(here.instruction);
  }
  if (place->is_synchronisation && place->count == 0) {
    if (!remember(chip, place)) dv_fail(here, "", "no memory for a statement");
    place->is_skipped = is_skipped(core->run->launch, here);
  }
  place->count++;
  return place;
}

int dv_last_synchronisation(const dv_chip *chip, int index, dv_synchronisation *found) {
  if (index < 0 || index >= chip->synchronisations_count) return 0;
  found->here = chip->synchronisations[index]->site;
  found->count = chip->synchronisations[index]->count;
  return 1;
}

int dv_last_flag(const dv_chip *chip, int from, int to, int id) {
  if (id < 0 || id >= (from < 0 ? DV_CROSS_FLAGS : DV_EVENTS) || from >= DV_PIPES ||
      (from >= 0 && (to < 0 || to >= DV_PIPES)))
    return 0;
  return from < 0 ? chip->used_cross_flag[id] : chip->used_flag[from][to][id];
}
