/* A launch: every core a coroutine that runs the kernel in program order; the one that is furthest behind on the clock goes on.
 * So a core may read what another wrote as soon as flags allow, and shared bandwidth is asked for nearly in order of time. */
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "davinci/core.h"
#include "davinci/launch_parts.h"

/* How far beyond the next core one may run: else they would change places at every instruction. */
static const double slack = 500.0; /* cycles */

/* ------------------------------------------------------------------ what core.c asks for */

void dv_give_way(void) {
  dv_core *core = dv_current;
  if (core->now > core->run->horizon) dv_to_scheduler(core);
}

void dv_wake(dv_core *core, double time) {
  dv_run_state *run = core->run;
  core->is_blocked = 0;
  if (time + slack < run->horizon) run->horizon = time + slack;
}

void dv_block(dv_here here) {
  dv_core *core = dv_current;
  core->is_blocked = 1;
  core->waits = here;
  dv_to_scheduler(core);
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

void dv_fail(dv_here here, const char *hazard, const char *format, ...) {
  dv_core *core = dv_current;
  dv_report *report = core->run->report;
  if (!core->run->has_failed) {
    va_list arguments;
    const int n = snprintf(report->line, sizeof report->line, "%s at %s:%d (%s %d of group %d)%s%s: ", here.instruction,
                           base_name(here.file), here.line, core->is_aic ? "AIC" : "AIV", core->sub, core->group->number,
                           hazard[0] ? ": " : "", hazard);
    va_start(arguments, format);
    if (n > 0 && (size_t)n < sizeof report->line) vsnprintf(report->line + n, sizeof report->line - (size_t)n, format, arguments);
    va_end(arguments);
    report->hazard = hazard;
    core->run->has_failed = 1;
  }
  for (;;) dv_to_scheduler(core);
}

static void on_hazard(void *user, const dv_hazard *hazard) {
  static const char *const kinds[] = {"read of bytes nobody wrote", "read too early",       "write too early",
                                      "out of bounds",              "flag past its limit", "flag set by two queues",
                                      "flag never waited for"};
  dv_run_state *run = user;
  dv_report *report = run->report;
  if (run->has_failed) return;
  run->has_failed = 1;
  report->hazard = kinds[hazard->kind];
  const dv_site *first = hazard->first, *found = hazard->second ? hazard->second : first;
  char other[128] = "", what[128];
  if (first && hazard->second)
    snprintf(other, sizeof other, " does not wait for %s at %s:%d", first->instruction, base_name(first->file), first->line);
  if (hazard->kind >= DV_FLAG_LIMIT)
    snprintf(what, sizeof what, "%s, %zu sets", hazard->space, hazard->bytes);
  else
    snprintf(what, sizeof what, "bytes %zu to %zu of %s", hazard->begin, hazard->begin + hazard->bytes, hazard->space);
  snprintf(report->line, sizeof report->line, "%s: %s at %s:%d%s; %s", kinds[hazard->kind],
           found->instruction, base_name(found->file), found->line, other, what);
}

/* ------------------------------------------------------------------ a launch */

/* The next kernel finds a core as this one left it. */
static void check_put_back(const dv_core *core) {
  const dv_here here = {"the end", core->run->launch->name ? core->run->launch->name : "", 0};
  if (core->atomic_adds) dv_fail(here, "broken rule", "SetAtomicAdd is still on; a kernel puts back what it set (SetAtomicNone)");
  if (core->ctrl) dv_fail(here, "broken rule", "CTRL is not as it was after launch; a kernel puts back what it set (SetCtrlSpr)");
}

static void body(void) {
  dv_core *core = dv_current;
  dv_entered(core);
  core->run->launch->kernel(core->run->launch->arguments);
  check_put_back(core);
  core->has_ended = 1;
  dv_to_scheduler(core);
}

static int open_core(dv_core *core) {
  static const size_t none = 0;
  const dv_figures *f = &core->run->chip->figures;
  const double aic[DV_MEMORIES] = {0, f->l1_bytes, f->l0a_bytes, f->l0b_bytes, f->l0c_bytes, 0};
  for (int m = 0; m < DV_MEMORIES; ++m) {
    const size_t bytes = core->is_aic ? (size_t)aic[m] : m == DV_UB ? (size_t)f->ub_bytes : none;
    if (bytes && !core->memory[m]) core->memory[m] = calloc(1, bytes);
    if (bytes && !core->memory[m]) return 0;
  }
  return dv_fiber_open(core, body);
}

/* Everything but memories and stacks starts anew. */
static void reset_core(dv_core *core, dv_run_state *run, dv_group *group, int n) {
  unsigned char *memory[DV_MEMORIES], *stack = core->stack;
  memcpy(memory, core->memory, sizeof memory);
  memset(core, 0, sizeof *core);
  memcpy(core->memory, memory, sizeof memory);
  core->stack = stack;
  core->run = run;
  core->group = group;
  core->is_aic = n == 0;
  core->sub = n == 2;
  core->block = group->number;
  core->mask.bits[0] = core->mask.bits[1] = ~(uint64_t)0;
  const dv_cores cores = run->launch->cores;
  core->is_used = cores == DV_CORES_MIX_1_2 || (cores == DV_CORES_AIC ? n == 0 : n == 1);
}

static int open_order(dv_run_state *run, dv_group *group) {
  static const char *const names[DV_CORES_A_GROUP][DV_MEMORIES] = {
      {"GM", "L1", "L0A", "L0B", "L0C", ""}, {"", "", "", "", "", "UB of AIV 0"}, {"", "", "", "", "", "UB of AIV 1"}};
  group->order = dv_order_open(DV_GROUP_QUEUES, on_hazard, run);
  if (!group->order) return 0;
  for (int n = 0; n < DV_CORES_A_GROUP; ++n) {
    dv_core *core = &group->core[n];
    if (!core->is_used) continue;
    dv_current = core;
    for (int m = 1; m < DV_MEMORIES; ++m) {
      const uint32_t bytes = dv_memory_bytes((dv_memory)m);
      group->space[n][m] = bytes ? dv_order_space(group->order, names[n][m], bytes, 32) : -1;
      if (bytes && group->space[n][m] < 0) return 0;
    }
    dv_order_serial(group->order, dv_order_queue(core, DV_S));
    if (run->launch->auto_sync && !core->is_aic) dv_order_serial(group->order, dv_order_queue(core, DV_V));
    dv_current = NULL;
  }
  for (int r = 0; r < run->regions_count; ++r) {
    const dv_gm_region *region = &run->regions[r];
    if (region->given.access == DV_INPUT) continue;
    group->gm_space[r] = dv_order_space(group->order, region->given.name, region->given.bytes, region->granule);
    if (group->gm_space[r] < 0) return 0;
    if (region->given.access == DV_INOUT) dv_order_all_given(group->order, group->gm_space[r]);
  }
  return 1;
}

/* NULL: all done, or all that are left are blocked. */
static dv_core *furthest_behind(dv_run_state *run) {
  dv_core *chosen = NULL;
  double next = 1e300;
  for (int g = 0; g < run->groups_count; ++g)
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) {
      dv_core *core = &run->groups[g].core[n];
      if (!core->is_used || core->has_ended || core->is_blocked) continue;
      if (!chosen || core->now < chosen->now) {
        if (chosen && chosen->now < next) next = chosen->now;
        chosen = core;
      } else if (core->now < next) {
        next = core->now;
      }
    }
  if (chosen) run->horizon = next + slack;
  return chosen;
}

static void tell_deadlock(dv_run_state *run) {
  int waiting = 0;
  for (int g = 0; g < run->groups_count; ++g)
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) {
      dv_core *core = &run->groups[g].core[n];
      if (!core->is_used || core->has_ended) continue;
      if (waiting++ == 0)
        snprintf(run->report->line, sizeof run->report->line,
                 "deadlock: %s at %s:%d (%s %d of group %d) waits for what nobody sets",
                 core->waits.instruction, base_name(core->waits.file), core->waits.line,
                 core->is_aic ? "AIC" : "AIV", core->sub, g);
    }
  if (waiting) {
    run->has_failed = 1;
    run->report->hazard = "deadlock";
  }
}

/* A counter that was raised and never waited for. */
static void check_left(dv_run_state *run) {
  for (int g = 0; g < run->groups_count && !run->has_failed; ++g) {
    if (run->groups[g].order) dv_order_end(run->groups[g].order);
    if (run->has_failed) break;
    if (run->groups[g].order && dv_order_has_failed(run->groups[g].order)) {
      run->has_failed = 1;
      snprintf(run->report->line, sizeof run->report->line, "no memory for the hazard finder");
      break;
    }
    for (int n = 0; n < DV_CORES_A_GROUP && !run->has_failed; ++n) {
      int id;
      if (!run->groups[g].core[n].is_used || !dv_cross_left(&run->groups[g].core[n], &id)) continue;
      run->has_failed = 1;
      run->report->hazard = "flag never waited for";
      snprintf(run->report->line, sizeof run->report->line, "cross-core flag %d of group %d is set at the end", id, g);
    }
  }
}

static void add_up(dv_run_state *run) {
  dv_report *report = run->report;
  for (int g = 0; g < run->groups_count; ++g)
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) {
      const dv_core *core = &run->groups[g].core[n];
      if (!core->is_used) continue;
      report->cores[n ? 1 : 0]++;
      if (core->now > report->cycles) report->cycles = core->now;
      for (int p = 0; p < DV_PIPES; ++p) {
        report->busy[n ? 1 : 0][p] += core->queue[p].busy;
        if (core->queue[p].ended > report->cycles) report->cycles = core->queue[p].ended;
      }
    }
  const dv_figures *f = &run->chip->figures;
  report->cycles += (run->launch->is_queued ? f->queued_launch_us : f->launch_us) * f->clock_ghz * 1e3;
  report->us = report->cycles / (f->clock_ghz * 1e3);
}

static int open_run(dv_run_state *run) {
  dv_chip *chip = run->chip;
  const dv_launch *launch = run->launch;
  const int most = launch->cores == DV_CORES_AIV ? 2 * dv_chip_groups(chip) : dv_chip_groups(chip);
  if (launch->blocks < 1 || launch->blocks > most) {
    snprintf(run->report->line, sizeof run->report->line, "%d blocks; %s has room for 1 to %d at once",
             launch->blocks, chip->name, most);
    return 0;
  }
  if (launch->regions_count > DV_MOST_SPACES / 2) {
    snprintf(run->report->line, sizeof run->report->line, "%d regions; at most %d", launch->regions_count, DV_MOST_SPACES / 2);
    return 0;
  }
  snprintf(run->report->line, sizeof run->report->line, "no memory for the emulated cores");
  if (!dv_gm_open(run)) return 0;
  if (chip->groups_room < launch->blocks) {
    dv_group *groups = realloc(chip->groups, (size_t)launch->blocks * sizeof *groups);
    if (!groups) return 0;
    memset(groups + chip->groups_room, 0, (size_t)(launch->blocks - chip->groups_room) * sizeof *groups);
    chip->groups = groups;
    chip->groups_room = launch->blocks;
  }
  run->groups = chip->groups;
  run->groups_count = launch->blocks;
  for (int g = 0; g < run->groups_count; ++g) {
    dv_group *group = &run->groups[g];
    group->number = g;
    group->order = NULL;
    memset(group->cross_flag, 0, sizeof group->cross_flag);
    group->computes = !launch->only_time || (g >= launch->first_computed && g <= launch->last_computed);
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) reset_core(&group->core[n], run, group, n);
  }
  for (int g = 0; g < run->groups_count; ++g) {
    for (int n = 0; n < DV_CORES_A_GROUP; ++n)
      if (run->groups[g].core[n].is_used && !open_core(&run->groups[g].core[n])) return 0;
    if (run->groups[g].computes && !open_order(run, &run->groups[g])) return 0;
  }
  chip->l2 = dv_bus_open(chip->figures.l2_rate, 32.0);
  chip->hbm = dv_bus_open(chip->figures.hbm_rate, 32.0);
  chip->synchronisations_count = 0;
  memset(chip->used_flag, 0, sizeof chip->used_flag);
  memset(chip->used_cross_flag, 0, sizeof chip->used_cross_flag);
  for (int n = 0; n < DV_PLACES; ++n)
    for (dv_place *place = chip->places[n]; place; place = place->next) place->count = 0;
  run->report->line[0] = '\0';
  return chip->l2 && chip->hbm;
}

static void close_run(dv_run_state *run) {
  for (int g = 0; g < run->groups_count; ++g) {
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) dv_cross_close(&run->groups[g].core[n]);
    dv_order_close(run->groups[g].order);
    run->groups[g].order = NULL;
    for (int n = 0; n < DV_CORES_A_GROUP; ++n) dv_fiber_close(&run->groups[g].core[n]);
  }
  dv_bus_close(run->chip->l2);
  dv_bus_close(run->chip->hbm);
  run->chip->l2 = run->chip->hbm = NULL;
  dv_gm_close(run);
}

int dv_run(dv_chip *chip, const dv_launch *launch, dv_report *report) {
  memset(report, 0, sizeof *report);
  report->hazard = "";
  dv_run_state *run = calloc(1, sizeof *run);
  if (!run) {
    snprintf(report->line, sizeof report->line, "no memory for the emulated cores");
    return 0;
  }
  run->chip = chip;
  run->launch = launch;
  run->report = report;
  int is_right = open_run(run);
  if (is_right) {
    for (dv_core *core; !run->has_failed && (core = furthest_behind(run));) dv_to_core(core);
    if (!run->has_failed) tell_deadlock(run);
    check_left(run);
    add_up(run);
    is_right = !run->has_failed;
    if (is_right && launch->trace) dv_trace_launch(launch->trace, chip, report->cycles);
  }
  close_run(run);
  free(run);
  return is_right;
}
