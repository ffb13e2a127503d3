/* One core: its queues on the clock, its flags, and what an instruction has to tell before it does anything. */
#include "davinci/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Thread_local dv_core *dv_current;

static double most_of(double a, double b) { return a > b ? a : b; }
static const dv_figures *figures(void) { return &dv_current->run->chip->figures; }

/* ------------------------------------------------------------------ posting */

double dv_post(const dv_place *place, dv_pipe pipe, double work, double latency) {
  dv_core *core = dv_current;
  dv_queue *q = &core->queue[pipe];
  const unsigned depth = (unsigned)figures()->queue_depth;
  core->now += figures()->scalar_issue;
  if (q->count >= depth) core->now = most_of(core->now, q->starts[(q->count - depth) % DV_MOST_DEPTH]);
  double start = most_of(core->now, q->free);
  if (pipe == DV_V && core->run->launch->auto_sync && !core->is_aic)
    start = most_of(start, q->ended); /* one ends before the next starts */
  const double end = start + work + latency;
  q->starts[q->count++ % DV_MOST_DEPTH] = start;
  q->free = start + work;
  q->ended = most_of(q->ended, end);
  q->busy += work;
  core->run->report->instructions++;
  if (core->run->launch->trace)
    dv_trace_event(core->run->launch->trace, core, pipe, place->site.instruction, start, start + work, end);
  dv_give_way();
  return start;
}

double dv_post_gm(const dv_place *place, dv_pipe pipe, const dv_gm_move *move, double work, double latency) {
  dv_core *core = dv_current;
  dv_chip *chip = core->run->chip;
  dv_queue *q = &core->queue[pipe];
  dv_report *report = core->run->report;
  double missed = 0.0, behind = 0.0;
  const double asked = (double)move->bytes * move->rows;
  for (uint32_t r = 0; r < move->rows; ++r) {
    const dv_l2_cost cost = dv_l2_access(chip, move->at + (uint64_t)((int64_t)r * move->stride), move->bytes, move->writes);
    missed += cost.missed;
    behind += cost.missed + cost.written_back;
  }
  if (move->writes)
    report->gm_written += asked;
  else
    report->gm_read += asked;
  report->hbm += behind;
  const double share = missed < asked ? missed / asked : 1.0;
  const double slowed = work * (1.0 + share * (1.0 / chip->figures.miss_factor - 1.0));
  const double ready = most_of(core->now + chip->figures.scalar_issue, q->free);
  const double rate = work > 0.0 ? move->moved / work : chip->figures.l2_rate;
  double end = dv_bus_transfer(chip->l2, ready, move->moved, rate);
  if (end >= 0.0 && behind > 0.0) {
    const double from_hbm = dv_bus_transfer(chip->hbm, ready, behind, most_of(rate, behind / most_of(work, 1.0)));
    end = from_hbm < 0.0 ? from_hbm : most_of(end, from_hbm);
  }
  if (end < 0.0) dv_fail(place->site, "", "no memory for the clock");
  return dv_post(place, pipe, most_of(slowed, end - ready), latency);
}

/* ------------------------------------------------------------------ bytes */

int dv_order_queue(const dv_core *core, dv_pipe pipe) {
  static const signed char aic[DV_PIPES] = {0, -1, 1, 2, 3, 4, 5}, aiv[DV_PIPES] = {0, 1, -1, -1, 2, 3, -1};
  return core->is_aic ? aic[pipe] : aiv[pipe] < 0 ? -1 : 6 + 4 * core->sub + aiv[pipe];
}

void dv_order_begin(const dv_place *place, dv_pipe pipe) {
  dv_core *core = dv_current;
  const int queue = dv_order_queue(core, pipe);
  if (queue < 0)
    dv_fail(place->site, "", "an %s has no such pipe", core->is_aic ? "AIC" : "AIV");
  if (core->group->computes && !dv_order_issue(core->group->order, queue, &place->site))
    dv_fail(place->site, "", "no memory for the hazard finder");
}

void *dv_pointer(dv_address address) {
  if (address.memory == DV_GM) return (void *)(uintptr_t)address.at;
  return dv_current->memory[address.memory] + address.at;
}

static const char *const memory_names[DV_MEMORIES] = {"GM", "L1", "L0A", "L0B", "L0C", "UB"};

void dv_check_local(dv_here here, dv_address address, uint64_t bytes, unsigned alignment) {
  const uint32_t room = dv_memory_bytes(address.memory);
  if (room == 0)
    dv_fail(here, "", "an %s has no %s", dv_current->is_aic ? "AIC" : "AIV", memory_names[address.memory]);
  if (address.at % alignment)
    dv_fail(here, "misaligned", "%s address %llu is not a multiple of %u bytes", memory_names[address.memory],
            (unsigned long long)address.at, alignment);
  if (bytes > room || address.at > room - bytes)
    dv_fail(here, "overflow", "bytes %llu to %llu of %s, which has %u", (unsigned long long)address.at,
            (unsigned long long)(address.at + bytes), memory_names[address.memory], room);
  if (address.end && address.at + bytes > address.end)
    dv_fail(here, "overflow", "bytes %llu to %llu of %s; the tensor's buffer ends at %u", (unsigned long long)address.at,
            (unsigned long long)(address.at + bytes), memory_names[address.memory], address.end);
}

static int space_of(dv_address address) {
  const dv_core *core = dv_current;
  return core->group->space[core->is_aic ? 0 : 1 + core->sub][address.memory];
}

static void note_scratch(dv_address at, uint64_t bytes) {
  if (at.memory == DV_UB && at.at + bytes > dv_memory_bytes(DV_UB) - DV_SCRATCH) dv_current->is_scratch_touched = 1;
}

void dv_reads(dv_here here, dv_address from, uint64_t bytes) {
  if (bytes == 0) return;
  if (from.memory == DV_GM) {
    const int region = dv_gm_find(here, from.at, bytes);
    if (dv_current->group->computes) dv_gm_touch(here, region, from.at, bytes, DV_GM_READS);
    return;
  }
  note_scratch(from, bytes);
  if (dv_current->group->computes) dv_order_read(dv_current->group->order, space_of(from), from.at, bytes);
}

static void change_gm(dv_here here, dv_address to, uint64_t bytes, dv_gm_access access) {
  const int region = dv_gm_find(here, to.at, bytes);
  if (dv_current->run->regions[region].given.access == DV_INPUT)
    dv_fail(here, "write of an input", "bytes %llu of %s", (unsigned long long)bytes,
            dv_current->run->regions[region].given.name);
  if (dv_current->group->computes) dv_gm_touch(here, region, to.at, bytes, access);
}

void dv_adds(dv_here here, dv_address to, uint64_t bytes) {
  if (bytes) change_gm(here, to, bytes, DV_GM_ADDS);
}

void dv_writes(dv_here here, dv_address to, uint64_t bytes) {
  if (bytes == 0) return;
  if (to.memory == DV_GM) {
    change_gm(here, to, bytes, DV_GM_WRITES);
    return;
  }
  note_scratch(to, bytes);
  if (dv_current->group->computes) dv_order_write(dv_current->group->order, space_of(to), to.at, bytes);
}

/* ------------------------------------------------------------------ flags and barriers */

static const char *const pipe_names[DV_PIPES + 1] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX", "ALL"};

uint32_t dv_queues_of(const dv_core *core) {
  uint32_t queues = 0;
  for (int p = 0; p < DV_PIPES; ++p)
    if (dv_order_queue(core, (dv_pipe)p) >= 0) queues |= 1u << dv_order_queue(core, (dv_pipe)p);
  return queues;
}

/* What waits for a queue waits for what the scalar unit did too, where the queue is the scalar unit. */
static double ended_of(const dv_core *core, dv_pipe pipe) {
  return pipe == DV_S ? most_of(core->now, core->queue[DV_S].ended) : core->queue[pipe].ended;
}

static void check_event(dv_here here, dv_pipe from, dv_pipe to, int id) {
  const int ids = dv_current->run->launch->is_strict ? DV_KERNEL_EVENTS : DV_EVENTS;
  if (id < 0 || id >= ids) dv_fail(here, "flag id", "id %d; 0 to %d are there", id, ids - 1);
  if (dv_order_queue(dv_current, from) < 0 || dv_order_queue(dv_current, to) < 0)
    dv_fail(here, "", "an %s has no pair %s, %s", dv_current->is_aic ? "AIC" : "AIV", pipe_names[from], pipe_names[to]);
  if (dv_current->is_aic && (from == DV_S || to == DV_S))
    dv_fail(here, "broken rule", "pairs with the scalar unit, as %s_%s, are not of an AIC", pipe_names[from], pipe_names[to]);
}

void dv_issue_set_flag(dv_here here, dv_pipe from, dv_pipe to, int id) {
  const dv_place *place = dv_begin(here);
  if (place->is_skipped) return;
  dv_core *core = dv_current;
  check_event(here, from, to, id);
  if (dv_skips_flag((int)from, (int)to, id)) return;
  dv_event *event = &core->event[from][to][id];
  if (event->is_set)
    dv_fail(here, "flag past its limit", "%s_%s %d is set twice without a wait", pipe_names[from], pipe_names[to], id);
  core->now += figures()->scalar_issue;
  event->is_set = 1;
  event->time = most_of(core->now, ended_of(core, from)) + figures()->flag_cost;
  if (!core->group->computes) return;
  if (!event->flag) event->flag = dv_flag_open(core->group->order, "flag", 1);
  if (!event->flag) dv_fail(here, "", "no memory for a flag");
  dv_flag_set(core->group->order, event->flag, dv_order_queue(core, from), &place->site);
}

void dv_issue_wait_flag(dv_here here, dv_pipe from, dv_pipe to, int id) {
  const dv_place *place = dv_begin(here);
  if (place->is_skipped) return;
  dv_core *core = dv_current;
  check_event(here, from, to, id);
  if (dv_skips_flag((int)from, (int)to, id)) return;
  dv_event *event = &core->event[from][to][id];
  if (!event->is_set)
    dv_fail(here, "deadlock", "waits for %s_%s %d, which nobody set before", pipe_names[from], pipe_names[to], id);
  event->is_set = 0;
  core->now += figures()->scalar_issue;
  if (to == DV_S) core->now = most_of(core->now, event->time);
  core->queue[to].free = most_of(core->queue[to].free, event->time);
  /* What the scalar unit waited for, all that it issues from here on waited for. */
  const uint32_t queues = to == DV_S ? dv_queues_of(core) : 1u << dv_order_queue(core, to);
  if (core->group->computes) (void)dv_flag_wait(core->group->order, event->flag, queues);
}

void dv_issue_barrier(dv_here here, dv_pipe pipe) {
  const dv_place *place = dv_begin(here);
  if (place->is_skipped) return;
  dv_core *core = dv_current;
  core->now += figures()->scalar_issue;
  if (pipe != DV_PIPE_ALL) {
    if (dv_order_queue(core, pipe) < 0) dv_fail(here, "", "an %s has no pipe %s", core->is_aic ? "AIC" : "AIV", pipe_names[pipe]);
    core->queue[pipe].free = most_of(core->queue[pipe].free, core->queue[pipe].ended);
    if (core->group->computes) dv_order_barrier(core->group->order, dv_order_queue(core, pipe));
    return;
  }
  for (int p = 0; p < DV_PIPES; ++p) core->now = most_of(core->now, core->queue[p].ended);
  if (core->group->computes) dv_order_join(core->group->order, dv_queues_of(core));
}

/* ------------------------------------------------------------------ the scalar unit */

/* What the compiler adds before a scalar access of UB (V_S) and behind it (S_V and its like), but its MTE2_S and MTE3_S. */
static void add_automatic(const dv_place *place, dv_pipe from) {
  dv_core *core = dv_current;
  if (!core->run->launch->auto_sync) return;
  core->now = most_of(core->now, ended_of(core, from)) + figures()->flag_cost;
  if (!core->group->computes) return;
  dv_flag **flag = &core->automatic[from == DV_S];
  if (!*flag) *flag = dv_flag_open(core->group->order, "automatic flag", 1);
  if (!*flag) dv_fail(place->site, "", "no memory for a flag");
  dv_flag_set(core->group->order, *flag, dv_order_queue(core, from), &place->site);
  (void)dv_flag_wait(core->group->order, *flag, dv_queues_of(core));
}

static int is_there_before(dv_address at) {
  const dv_run_state *run = dv_current->run;
  for (int r = 0; at.memory == DV_GM && r < run->regions_count; ++r) {
    const dv_region *region = &run->regions[r].given;
    const uint64_t base = (uintptr_t)region->base;
    if (at.at >= base && at.at - base < region->bytes) return region->access == DV_INPUT || region->access == DV_INOUT;
  }
  return 0;
}

uint64_t dv_scalar_load(dv_here here, dv_address from, uint32_t bytes) {
  const dv_place *place = dv_begin(here);
  dv_core *core = dv_current;
  if (from.memory != DV_GM) {
    if (core->is_aic || from.memory != DV_UB)
      dv_fail(here, "", "the scalar unit of an %s reads %s", core->is_aic ? "AIC" : "AIV",
              memory_names[from.memory]);
    dv_check_local(here, from, bytes, 1);
    add_automatic(place, DV_V);
  }
  dv_order_begin(place, DV_S);
  dv_reads(here, from, bytes);
  if (from.memory != DV_GM) add_automatic(place, DV_S);
  core->now += from.memory == DV_GM ? figures()->scalar_gm : figures()->scalar_issue;
  uint64_t value = 0;
  /* Inputs are there in every group; what a launch computes only where it is computed. */
  if (core->group->computes || is_there_before(from)) memcpy(&value, dv_pointer(from), bytes);
  return value;
}

void dv_scalar_store(dv_here here, dv_address to, uint32_t bytes, uint64_t value) {
  const dv_place *place = dv_begin(here);
  if (to.memory == DV_GM) dv_fail(here, "", "the scalar unit's writes of GM stay in its cache; write through UB (DataCopyPad)");
  if (dv_current->is_aic || to.memory != DV_UB) dv_fail(here, "", "the scalar unit writes %s", memory_names[to.memory]);
  dv_check_local(here, to, bytes, 1);
  add_automatic(place, DV_V);
  dv_order_begin(place, DV_S);
  dv_writes(here, to, bytes);
  add_automatic(place, DV_S);
  dv_current->now += figures()->scalar_issue;
  memcpy(dv_pointer(to), &value, bytes);
}

void dv_issue_atomic_add(dv_here here, int on, dv_type type) {
  (void)dv_begin(here);
  dv_current->atomic_adds = on;
  dv_current->atomic_type = type;
}

/* ------------------------------------------------------------------ who runs */

int dv_is_aic(void) { return dv_current->is_aic; }
int dv_block_index(void) { return dv_current->block; }
int dv_block_count(void) { return dv_current->run->launch->blocks; }
int dv_sub_block_index(void) { return dv_current->sub; }
int dv_task_ratio(void) { return dv_current->run->launch->cores == DV_CORES_MIX_1_2 ? 2 : 1; }
uint64_t dv_cycle(void) { return (uint64_t)dv_current->now; }
dv_mask *dv_mask_register(void) { return &dv_current->mask; }
uint64_t *dv_ctrl_register(void) { return &dv_current->ctrl; }
void *dv_memory_base(dv_memory memory) { return dv_current->memory[memory]; }
uint32_t dv_memory_bytes(dv_memory memory) {
  const dv_figures *f = figures();
  const double aic[DV_MEMORIES] = {0, f->l1_bytes, f->l0a_bytes, f->l0b_bytes, f->l0c_bytes, 0};
  return (uint32_t)(dv_current->is_aic ? aic[memory] : memory == DV_UB ? f->ub_bytes : 0);
}

void dv_broken_rule(dv_here here, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  dv_fail(here, "broken rule", "%s", text);
}
