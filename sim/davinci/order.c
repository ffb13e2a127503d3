#include "davinci/order.h"

#include <stdlib.h>
#include <string.h>

/* An instruction: its queue and its number there, from 1. Number 0 was before everything. */
typedef struct epoch {
  uint32_t queue : 4, number : 28;
} epoch;

static const epoch nobody = {0, 0};

#define NO_SET UINT32_MAX
enum { MOST_NUMBER = (1 << 28) - 1 };

static epoch epoch_of(int queue, uint32_t number) {
  const epoch e = {(uint32_t)queue & (DV_MOST_QUEUES - 1), number & MOST_NUMBER};
  return e;
}

typedef struct granule {
  epoch writer;
  uint32_t is_written : 1, has_reader : 1;
  epoch reader;     /* the last one, while all before it had ended when it started */
  uint32_t readers; /* else the set of them, in order->reader_sets */
} granule;

typedef struct space {
  const char *name;
  size_t bytes, size; /* of a granule */
  granule *granules;
} space;

typedef struct clock {
  uint32_t ended[DV_MOST_QUEUES]; /* of each queue, the last instruction that must have ended */
} clock;

/* Readers since the last write. A queue's last one stands for those before it: none ends later for whoever waits for it. */
typedef struct readers {
  uint32_t last[DV_MOST_QUEUES]; /* 0: none */
  uint32_t before;               /* the latest reader itself does not wait for: its queue's last one before it */
  uint32_t next_free;
} readers;

struct dv_flag {
  const char *name;
  int most, sets, first; /* a ring */
  clock *raised;
  const dv_site **sites;
  dv_flag *next;
};

typedef struct queue {
  clock now; /* of its next instruction */
  uint32_t count, room;
  const dv_site **sites; /* of instruction n at n - 1 */
  int is_serial;
} queue;

struct dv_order {
  int queues, spaces;
  dv_hazard_report report;
  void *user;
  queue queue[DV_MOST_QUEUES];
  space space[DV_MOST_SPACES];
  dv_flag *flags;
  readers *reader_sets;
  uint32_t reader_sets_count, reader_sets_room, free_set; /* free_set: the first given back, or NO_SET */
  int current; /* queue of the instruction whose reads and writes come */
  int has_failed; /* no memory for a set of readers: issue says so */
};

/* ------------------------------------------------------------------ life */

dv_order *dv_order_open(int queues, dv_hazard_report report, void *user) {
  dv_order *order = queues > 0 && queues <= DV_MOST_QUEUES ? calloc(1, sizeof *order) : NULL;
  if (!order) return NULL;
  order->queues = queues;
  order->free_set = NO_SET;
  order->report = report;
  order->user = user;
  return order;
}

static void close_flag(dv_flag *flag) {
  free(flag->raised);
  free(flag->sites);
  free(flag);
}

void dv_order_close(dv_order *order) {
  if (!order) return;
  for (int q = 0; q < order->queues; ++q) free(order->queue[q].sites);
  for (int s = 0; s < order->spaces; ++s) free(order->space[s].granules);
  for (dv_flag *flag = order->flags, *next; flag; flag = next) {
    next = flag->next;
    close_flag(flag);
  }
  free(order->reader_sets);
  free(order);
}

int dv_order_space(dv_order *order, const char *name, size_t bytes, size_t granule_bytes) {
  if (order->spaces == DV_MOST_SPACES || granule_bytes == 0) return -1;
  space *s = &order->space[order->spaces];
  const size_t count = bytes / granule_bytes + (bytes % granule_bytes != 0);
  s->granules = calloc(count ? count : 1, sizeof *s->granules);
  if (!s->granules) return -1;
  s->name = name;
  s->bytes = bytes;
  s->size = granule_bytes;
  return order->spaces++;
}

/* ------------------------------------------------------------------ instructions */

static const dv_site *site_of(const dv_order *order, epoch e) {
  return e.number ? order->queue[e.queue].sites[e.number - 1] : NULL;
}

static epoch present(const dv_order *order) { return epoch_of(order->current, order->queue[order->current].count); }

static int has_ended(const dv_order *order, epoch e) {
  const epoch now = present(order);
  return e.number <= order->queue[order->current].now.ended[e.queue] || (e.queue == now.queue && e.number == now.number);
}

int dv_order_issue(dv_order *order, int number, const dv_site *site) {
  if (number < 0 || number >= order->queues || order->has_failed) return 0;
  queue *q = &order->queue[number];
  if (q->count == MOST_NUMBER) return 0;
  if (q->count == q->room) {
    const uint32_t room = q->room ? 2 * q->room : 256;
    const dv_site **sites = realloc(q->sites, room * sizeof *sites);
    if (!sites) return 0;
    q->sites = sites;
    q->room = room;
  }
  if (q->is_serial) q->now.ended[number] = q->count;
  q->sites[q->count++] = site;
  order->current = number;
  return 1;
}

static void tell(const dv_order *order, dv_hazard_kind kind, epoch first, const space *s, size_t begin, size_t bytes) {
  const dv_hazard hazard = {kind, site_of(order, first), site_of(order, present(order)), s->name, begin, bytes};
  order->report(order->user, &hazard);
}

/* The granules that bytes [begin, begin + bytes) touch, cut to the buffer; 0: none, and told if bytes lie behind it. */
static int granules_of(const dv_order *order, const space *s, size_t begin, size_t bytes, size_t *first, size_t *behind) {
  if (bytes == 0) return 0;
  if (begin >= s->bytes || bytes > s->bytes - begin) {
    tell(order, DV_OUT_OF_SPACE, nobody, s, begin, bytes);
    if (begin >= s->bytes) return 0;
    bytes = s->bytes - begin;
  }
  *first = begin / s->size;
  *behind = (begin + bytes - 1) / s->size + 1;
  return 1;
}

/* A granule's readers are of no more interest. */
static void forget_readers(dv_order *order, granule *g) {
  if (g->has_reader && g->readers != NO_SET) {
    order->reader_sets[g->readers].next_free = order->free_set;
    order->free_set = g->readers;
  }
  g->has_reader = 0;
}

/* The number of an empty set; NO_SET: no memory. */
static uint32_t take_set(dv_order *order) {
  uint32_t taken = order->free_set;
  if (taken != NO_SET) {
    order->free_set = order->reader_sets[taken].next_free;
  } else {
    if (order->reader_sets_count == order->reader_sets_room) {
      const uint32_t room = order->reader_sets_room ? 2 * order->reader_sets_room : 256;
      readers *sets = realloc(order->reader_sets, room * sizeof *sets);
      if (!sets) {
        order->has_failed = 1;
        return NO_SET;
      }
      order->reader_sets = sets;
      order->reader_sets_room = room;
    }
    taken = order->reader_sets_count++;
  }
  memset(&order->reader_sets[taken], 0, sizeof order->reader_sets[0]);
  return taken;
}

/* Adds the present instruction to the readers of g. */
static void add_reader(dv_order *order, granule *g) {
  const epoch now = present(order);
  if (!g->has_reader || (g->readers == NO_SET && has_ended(order, g->reader))) {
    g->has_reader = 1;
    g->reader = now;
    g->readers = NO_SET;
    return;
  }
  if (g->readers == NO_SET) {
    const uint32_t taken = take_set(order);
    if (taken == NO_SET) return;
    g->readers = taken;
    order->reader_sets[taken].last[g->reader.queue] = g->reader.number;
  }
  readers *set = &order->reader_sets[g->readers];
  if (set->last[now.queue] == now.number) return;
  set->before = set->last[now.queue];
  set->last[now.queue] = now.number;
}

void dv_order_read(dv_order *order, int number, size_t begin, size_t bytes) {
  const space *s = &order->space[number];
  size_t first, behind;
  if (!granules_of(order, s, begin, bytes, &first, &behind)) return;
  for (size_t n = first; n < behind; ++n) {
    granule *g = &s->granules[n];
    if (!g->is_written)
      tell(order, DV_READ_UNWRITTEN, nobody, s, n * s->size, s->size);
    else if (!has_ended(order, g->writer))
      tell(order, DV_READ_TOO_EARLY, g->writer, s, n * s->size, s->size);
    add_reader(order, g);
  }
}

void dv_order_write(dv_order *order, int number, size_t begin, size_t bytes) {
  const space *s = &order->space[number];
  size_t first, behind;
  if (!granules_of(order, s, begin, bytes, &first, &behind)) return;
  for (size_t n = first; n < behind; ++n) {
    granule *g = &s->granules[n];
    if (g->is_written && !has_ended(order, g->writer)) tell(order, DV_WRITE_TOO_EARLY, g->writer, s, n * s->size, s->size);
    if (g->has_reader && g->readers == NO_SET) {
      if (!has_ended(order, g->reader)) tell(order, DV_WRITE_TOO_EARLY, g->reader, s, n * s->size, s->size);
    } else if (g->has_reader) {
      const readers *set = &order->reader_sets[g->readers];
      const epoch now = present(order);
      for (int q = 0; q < order->queues; ++q) {
        const int is_now = (uint32_t)q == now.queue && set->last[q] == now.number;
        const epoch reader = epoch_of(q, is_now ? set->before : set->last[q]);
        if (!has_ended(order, reader)) tell(order, DV_WRITE_TOO_EARLY, reader, s, n * s->size, s->size);
      }
    }
    g->writer = present(order);
    g->is_written = 1;
    forget_readers(order, g);
  }
}

void dv_order_given(dv_order *order, int number, size_t begin, size_t bytes) {
  const space *s = &order->space[number];
  if (bytes == 0 || begin >= s->bytes) return;
  const size_t end = bytes < s->bytes - begin ? begin + bytes : s->bytes;
  for (size_t n = begin / s->size; n * s->size < end; ++n) {
    s->granules[n].writer = nobody;
    s->granules[n].is_written = 1;
    forget_readers(order, &s->granules[n]);
  }
}

/* ------------------------------------------------------------------ synchronisation */

void dv_order_barrier(dv_order *order, int number) {
  queue *q = &order->queue[number];
  q->now.ended[number] = q->count;
}

void dv_order_serial(dv_order *order, int number) { order->queue[number].is_serial = 1; }

dv_flag *dv_flag_open(dv_order *order, const char *name, int most) {
  dv_flag *flag = most > 0 ? calloc(1, sizeof *flag) : NULL;
  if (!flag) return NULL;
  flag->raised = calloc((size_t)most, sizeof *flag->raised);
  flag->sites = calloc((size_t)most, sizeof *flag->sites);
  if (!flag->raised || !flag->sites) {
    close_flag(flag);
    return NULL;
  }
  flag->name = name;
  flag->most = most;
  flag->next = order->flags;
  order->flags = flag;
  return flag;
}

void dv_flag_set(dv_order *order, dv_flag *flag, int number, const dv_site *site) {
  const queue *q = &order->queue[number];
  if (flag->sets == flag->most) {
    const dv_hazard hazard = {DV_FLAG_LIMIT, flag->sites[flag->first], site, flag->name, 0, (size_t)flag->sets + 1};
    order->report(order->user, &hazard);
    return;
  }
  const int at = (flag->first + flag->sets++) % flag->most;
  flag->raised[at] = q->now;
  flag->raised[at].ended[number] = q->count;
  flag->sites[at] = site;
}

int dv_flag_wait(dv_order *order, dv_flag *flag, int number) {
  queue *q = &order->queue[number];
  if (flag->sets == 0) return 0;
  const clock *raised = &flag->raised[flag->first];
  for (int n = 0; n < order->queues; ++n)
    if (raised->ended[n] > q->now.ended[n]) q->now.ended[n] = raised->ended[n];
  flag->first = (flag->first + 1) % flag->most;
  --flag->sets;
  return 1;
}

void dv_order_end(dv_order *order) {
  for (const dv_flag *flag = order->flags; flag; flag = flag->next)
    if (flag->sets) {
      const dv_hazard hazard = {DV_FLAG_LEFT, flag->sites[flag->first], NULL, flag->name, 0, (size_t)flag->sets};
      order->report(order->user, &hazard);
    }
}
