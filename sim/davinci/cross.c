/* Between cores: CrossCoreSetFlag, CrossCoreWaitFlag, SyncAll.
 *
 * A set is one core's part in a meeting: of an AIC with its AIVs (mode 2), of the two AIVs of a group (mode 1), of all cores of a
 * kind (mode 0), of all there are (SyncAll). When all who take part have set as often, each of those who are told has one more in
 * its counter of that id, of which a wait takes one: a wait knows no modes. What comes behind it comes behind all that the
 * sets' pipes had started by then, and nothing else. */
#include "davinci/core.h"

#include <stdlib.h>
#include <string.h>

static const dv_figures *figures(void) { return &dv_current->run->chip->figures; }
static double most_of(double a, double b) { return a > b ? a : b; }

enum { SYNC_ALL_AIV = 3, SYNC_ALL = 4 }; /* behind modes 0 to 2 */

/* ------------------------------------------------------------------ who */

static int takes_part(const dv_core *core, const dv_core *other, int mode) {
  if (!other->is_used) return 0;
  if (mode == 0) return other->is_aic == core->is_aic;
  if (mode == SYNC_ALL_AIV) return !other->is_aic;
  if (mode == SYNC_ALL) return 1;
  return other->group == core->group && other->is_aic == core->is_aic;
}

static int is_told(const dv_core *core, const dv_core *other, int mode) {
  if (!other->is_used) return 0;
  return mode == 2 ? other->group == core->group && other->is_aic != core->is_aic : takes_part(core, other, mode);
}

/* The cores that could take part or be told, one behind the other. */
static dv_core *next_core(const dv_core *core, int mode, int *at) {
  const int begin = mode == 1 || mode == 2 ? core->group->number : 0;
  const int end = mode == 1 || mode == 2 ? begin + 1 : core->run->groups_count;
  const int n = begin * DV_CORES_A_GROUP + (*at)++;
  return n < end * DV_CORES_A_GROUP ? &core->run->groups[n / DV_CORES_A_GROUP].core[n % DV_CORES_A_GROUP] : NULL;
}

/* ------------------------------------------------------------------ what is known across groups */

static size_t numbers_of(const dv_run_state *run) { return (size_t)run->groups_count * DV_GROUP_QUEUES; }

static dv_knowledge *hold(dv_knowledge *k) {
  if (k) k->holders++;
  return k;
}
static void drop(dv_knowledge *k) {
  if (k && --k->holders == 0) free(k);
}

static int covers(const dv_knowledge *k, const dv_knowledge *other, size_t count) {
  if (k == other || !other) return 1;
  for (size_t n = 0; k && n < count; ++n)
    if (other->ended[n] > k->ended[n]) return 0;
  return k != NULL;
}

static dv_knowledge *copy_of(const dv_place *place, const dv_knowledge *k) {
  const size_t count = numbers_of(dv_current->run), bytes = sizeof(dv_knowledge) + count * sizeof k->ended[0];
  dv_knowledge *made = k ? malloc(bytes) : calloc(1, bytes);
  if (!made) dv_fail(place->site, "", "no memory for the hazard finder");
  if (k) memcpy(made, k, bytes);
  made->holders = 1;
  return made;
}

/* What is known by whoever knows both, held; gives `a` back. */
static dv_knowledge *joined(const dv_place *place, dv_knowledge *a, dv_knowledge *b) {
  const size_t count = numbers_of(dv_current->run);
  if (covers(a, b, count)) return a;
  dv_knowledge *made = hold(b);
  if (!covers(b, a, count)) {
    drop(made);
    made = copy_of(place, b);
    for (size_t n = 0; n < count; ++n)
      if (a->ended[n] > made->ended[n]) made->ended[n] = a->ended[n];
  }
  drop(a);
  return made;
}

/* What a set tells: what the core knows of other groups, and where groups meet also what `queue` of its own does. */
static dv_knowledge *told_by(const dv_place *place, dv_core *core, int queue, int is_meeting) {
  if (!is_meeting || !core->group->computes) return hold(core->known);
  dv_knowledge *made = copy_of(place, core->known);
  dv_order_clock(core->group->order, queue, made->ended + core->group->number * DV_GROUP_QUEUES);
  return made;
}

static void learn(const dv_place *place, dv_core *core, dv_knowledge *told) {
  if (!told || !core->group->computes) return;
  core->known = joined(place, core->known, told);
  dv_order_know(core->group->order, dv_queues_of(core), told->ended + core->group->number * DV_GROUP_QUEUES);
}

int dv_knows(const dv_core *core, int group, int queue, uint32_t number) {
  return core->known && core->known->ended[group * DV_GROUP_QUEUES + queue] >= number;
}

void dv_cross_close(dv_core *core) {
  drop(core->known);
  core->known = NULL;
  for (int id = 0; id <= DV_CROSS_FLAGS; ++id) {
    for (int mode = 0; mode < DV_CROSS_MODES; ++mode)
      for (dv_sets *s = &core->sets[mode][id]; s->count > 0; --s->count, s->first = (s->first + 1) % DV_CROSS_MOST)
        drop(s->set[s->first].told);
    for (dv_counter *c = &core->counter[id]; c->count > 0; --c->count, c->first = (c->first + 1) % DV_CROSS_MOST)
      drop(c->raised[c->first].told);
  }
}

int dv_cross_left(const dv_core *core, int *id) {
  for (*id = 0; *id <= DV_CROSS_FLAGS; ++*id) {
    if (core->counter[*id].count) return 1;
    for (int mode = 0; mode < DV_CROSS_MODES; ++mode)
      if (core->sets[mode][*id].count) return 1;
  }
  return 0;
}

/* ------------------------------------------------------------------ sets */

static dv_flag *flag_of(const dv_place *place, const dv_core *from, const dv_core *to, int id) {
  dv_flag **flag = &from->group->cross_flag[from->is_aic ? 0 : 1 + from->sub][to->is_aic ? 0 : 1 + to->sub][id];
  if (!*flag) *flag = dv_flag_open(from->group->order, "cross-core flag", DV_CROSS_MOST);
  if (!*flag) dv_fail(place->site, "", "no memory for a flag");
  return *flag;
}

/* All who take part have set: takes one set of each, and raises the counters of those who are told. */
static void meet(const dv_place *place, int mode, int id) {
  dv_core *core = dv_current;
  int at = 0;
  for (dv_core *other; (other = next_core(core, mode, &at));)
    if (is_told(core, other, mode) && other->counter[id].count == DV_CROSS_MOST)
      dv_fail(place->site, "flag past its limit", "cross-core flag %d has %d sets that nobody waited for", id, DV_CROSS_MOST);
  dv_raise raise = {0.0, 0, NULL};
  at = 0;
  for (dv_core *other; (other = next_core(core, mode, &at));) {
    if (!takes_part(core, other, mode)) continue;
    dv_sets *sets = &other->sets[mode][id];
    dv_set *set = &sets->set[sets->first];
    sets->first = (sets->first + 1) % DV_CROSS_MOST;
    --sets->count;
    raise.time = most_of(raise.time, set->time);
    if (mode == 1 || mode == 2) raise.sources |= 1u << (other->is_aic ? 0 : 1 + other->sub);
    raise.told = joined(place, raise.told, set->told);
    drop(set->told);
  }
  at = 0;
  for (dv_core *other; (other = next_core(core, mode, &at));) {
    if (!is_told(core, other, mode)) continue;
    dv_counter *counter = &other->counter[id];
    counter->raised[(counter->first + counter->count++) % DV_CROSS_MOST] = raise;
    hold(raise.told);
    dv_wake(other, raise.time);
  }
  drop(raise.told);
}

static void add_set(const dv_place *place, int mode, int queue, int id, double time) {
  dv_core *core = dv_current;
  dv_sets *sets = &core->sets[mode][id];
  if (sets->count == DV_CROSS_MOST)
    dv_fail(place->site, "flag past its limit",
            "cross-core flag %d has %d sets that its partners did not meet", id, DV_CROSS_MOST);
  const int is_meeting = mode != 1 && mode != 2;
  const dv_set set = {time, told_by(place, core, queue, is_meeting)};
  sets->set[(sets->first + sets->count++) % DV_CROSS_MOST] = set;
  int at = 0, all = 1;
  for (dv_core *other; (other = next_core(core, mode, &at));) {
    if (takes_part(core, other, mode)) all &= other->sets[mode][id].count > 0;
    if (!is_meeting && core->group->computes && is_told(core, other, mode))
      dv_flag_set(core->group->order, flag_of(place, core, other, id), queue, &place->site);
  }
  if (all) meet(place, mode, id);
}

static void check_id(dv_here here, int id) {
  const dv_launch *launch = dv_current->run->launch;
  const int ids = launch->is_strict ? DV_KERNEL_CROSS_FLAGS : DV_CROSS_FLAGS;
  if (id < 0 || id >= ids) dv_fail(here, "flag id", "cross-core id %d; 0 to %d are there", id, ids - 1);
  if (launch->is_strict && launch->cores != DV_CORES_MIX_1_2)
    dv_fail(here, "broken rule", "a kernel of AICs or AIVs alone has no cross-core flags; it has to be a mixed one");
}

void dv_issue_cross_set(dv_here here, int mode, dv_pipe pipe, int id) {
  const dv_place *place = dv_begin(here);
  if (place->is_skipped) return;
  dv_core *core = dv_current;
  check_id(here, id);
  if (dv_skips_flag(-1, -1, id)) return;
  if (mode < 0 || mode > 2) dv_fail(here, "broken rule", "mode %d; 0, 1 and 2 are there", mode);
  if (mode == 1 && core->is_aic) dv_fail(here, "broken rule", "mode 1 is of AIVs");
  if (pipe == DV_S || pipe == DV_PIPE_ALL || dv_order_queue(core, pipe) < 0)
    dv_fail(here, "broken rule", "a set behind a pipe that an %s has not", core->is_aic ? "AIC" : "AIV");
  core->now += figures()->scalar_issue;
  add_set(place, mode, dv_order_queue(core, pipe), id, most_of(core->now, core->queue[pipe].ended) + figures()->cross_flag_cost);
  dv_give_way();
}

/* ------------------------------------------------------------------ waits */

static void take(const dv_place *place, int id) {
  dv_core *core = dv_current;
  dv_counter *counter = &core->counter[id];
  while (counter->count == 0) dv_block(place->site);
  const dv_raise raise = counter->raised[counter->first];
  counter->first = (counter->first + 1) % DV_CROSS_MOST;
  --counter->count;
  core->now = most_of(core->now, raise.time);
  for (int p = 0; p < DV_PIPES; ++p) core->queue[p].free = most_of(core->queue[p].free, core->now);
  for (int n = 0; core->group->computes && n < DV_CORES_A_GROUP; ++n)
    if (raise.sources >> n & 1u)
      (void)dv_flag_wait(core->group->order, flag_of(place, &core->group->core[n], core, id), dv_queues_of(core));
  learn(place, core, raise.told);
  drop(raise.told);
}

void dv_issue_cross_wait(dv_here here, int mode, dv_pipe pipe, int id) {
  const dv_place *place = dv_begin(here);
  (void)mode;
  (void)pipe; /* it holds up the whole core on this chip, whatever the pipe */
  if (place->is_skipped) return;
  check_id(here, id);
  if (dv_skips_flag(-1, -1, id)) return;
  dv_current->now += figures()->scalar_issue;
  take(place, id);
}

void dv_issue_sync_all(dv_here here, int only_vector) {
  const dv_place *place = dv_begin(here);
  if (place->is_skipped) return;
  dv_core *core = dv_current;
  if (only_vector && core->is_aic) dv_fail(here, "broken rule", "SyncAll of AIVs on an AIC; SyncAll<false> is of all cores");
  double time = core->now + figures()->scalar_issue;
  for (int p = 0; p < DV_PIPES; ++p) time = most_of(time, core->queue[p].ended);
  if (core->group->computes) dv_order_join(core->group->order, dv_queues_of(core));
  add_set(place, only_vector ? SYNC_ALL_AIV : SYNC_ALL, dv_order_queue(core, DV_S), DV_CROSS_FLAGS,
          time + 2 * figures()->cross_flag_cost);
  take(place, DV_CROSS_FLAGS);
}
