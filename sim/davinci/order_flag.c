/* What orders instructions: barriers, joins, flags (order.h). */
#include "davinci/order_parts.h"

#include <stdlib.h>

void dv_order_barrier(dv_order *order, int number) {
  queue *q = &order->queue[number];
  q->now.ended[number] = q->count;
}

void dv_order_barrier_before(dv_order *order, int number) {
  queue *q = &order->queue[number];
  q->now.ended[number] = q->count - 1;
}

void dv_order_join(dv_order *order, uint32_t queues) {
  for (int q = 0; q < order->queues; ++q)
    for (int n = 0; queues >> q & 1u && n < order->queues; ++n)
      if (queues >> n & 1u) order->queue[q].now.ended[n] = order->queue[n].count;
}

void dv_order_serial(dv_order *order, int number) { order->queue[number].is_serial = 1; }

void dv_close_flag(dv_flag *flag) {
  free(flag->raised);
  free(flag->sites);
  free(flag->waits);
  free(flag);
}

dv_flag *dv_flag_open(dv_order *order, const char *name, int most) {
  dv_flag *flag = most > 0 ? calloc(1, sizeof *flag) : NULL;
  if (!flag) return NULL;
  flag->raised = calloc((size_t)most, sizeof *flag->raised);
  flag->sites = calloc((size_t)most, sizeof *flag->sites);
  flag->waits = calloc((size_t)most, sizeof *flag->waits);
  if (!flag->raised || !flag->sites || !flag->waits) {
    dv_close_flag(flag);
    return NULL;
  }
  flag->name = name;
  flag->most = most;
  flag->next = order->flags;
  order->flags = flag;
  return flag;
}

static void tell_flag(const dv_order *order, const dv_flag *flag, dv_hazard_kind kind, uint64_t set, const dv_site *site) {
  const dv_hazard hazard = {kind, flag->sites[set % (uint64_t)flag->most], site, flag->name, 0, (size_t)flag->sets + 1};
  order->report(order->user, &hazard);
}

/* Whether what q starts now starts after that wait. */
static int knows_of(const queue *q, int number, const waited *w, int queues) {
  for (int n = 0; n < queues; ++n)
    if (w->queues >> n & 1u && (n == number || q->now.ended[n] >= w->number[n])) return 1;
  return 0;
}

void dv_flag_set(dv_order *order, dv_flag *flag, int number, const dv_site *site) {
  const queue *q = &order->queue[number];
  const uint64_t most = (uint64_t)flag->most, set = flag->all_sets;
  if (flag->sets == flag->most || (set >= most && !knows_of(q, number, &flag->waits[set % most], order->queues))) {
    tell_flag(order, flag, DV_FLAG_LIMIT, set - most, site);
    if (flag->sets == flag->most) return;
  }
  if (set && flag->last_queue != number && q->now.ended[flag->last_queue] < flag->last_count)
    tell_flag(order, flag, DV_FLAG_RACE, set - 1, site);
  flag->last_queue = number;
  flag->last_count = q->count;
  flag->raised[set % most] = q->now;
  flag->raised[set % most].ended[number] = q->count;
  flag->sites[set % most] = site;
  flag->all_sets++;
  flag->sets++;
}

int dv_flag_wait(dv_order *order, dv_flag *flag, uint32_t queues) {
  if (flag->sets == 0) return 0;
  const uint64_t at = flag->all_waits++ % (uint64_t)flag->most;
  const clock raised = flag->raised[at];
  waited *w = &flag->waits[at];
  w->queues = queues;
  for (int q = 0; q < order->queues; ++q) {
    if (!(queues >> q & 1u)) continue;
    if (!dv_count_up(&order->queue[q], NULL)) order->has_failed = 1;
    w->number[q] = order->queue[q].count;
    for (int n = 0; n < order->queues; ++n)
      if (raised.ended[n] > order->queue[q].now.ended[n]) order->queue[q].now.ended[n] = raised.ended[n];
  }
  --flag->sets;
  return 1;
}

void dv_order_clock(const dv_order *order, int number, uint32_t *ended) {
  for (int n = 0; n < order->queues; ++n) ended[n] = order->queue[number].now.ended[n];
  ended[number] = order->queue[number].count;
}

void dv_order_know(dv_order *order, uint32_t queues, const uint32_t *ended) {
  for (int q = 0; q < order->queues; ++q)
    for (int n = 0; queues >> q & 1u && n < order->queues; ++n)
      if (ended[n] > order->queue[q].now.ended[n]) order->queue[q].now.ended[n] = ended[n];
}

void dv_order_end(dv_order *order) {
  for (const dv_flag *flag = order->flags; flag; flag = flag->next)
    if (flag->sets) {
      const dv_hazard hazard = {
          DV_FLAG_LEFT,      flag->sites[flag->all_waits % (uint64_t)flag->most], NULL, flag->name, 0,
          (size_t)flag->sets};
      order->report(order->user, &hazard);
    }
}
