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

enum { PAGE = 512 }; /* granules that come into being together, when the first is touched */

typedef struct space {
  const char *name;
  size_t bytes, size; /* of a granule */
  granule **pages;
  size_t pages_count;
  int is_given; /* bytes that nobody touched were there before the kernel started */
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

/* Queues that waited, and the wait's number in each. */
typedef struct waited {
  uint32_t queues, number[DV_MOST_QUEUES];
} waited;

struct dv_flag {
  const char *name;
  int most, sets; /* sets: those that nobody waited for yet */
  uint64_t all_sets, all_waits;
  clock *raised;  /* these three are rings of `most` */
  const dv_site **sites;
  waited *waits;
  int last_queue; /* that set it */
  uint32_t last_count;
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
  free(flag->waits);
  free(flag);
}

void dv_order_close(dv_order *order) {
  if (!order) return;
  for (int q = 0; q < order->queues; ++q) free(order->queue[q].sites);
  for (int s = 0; s < order->spaces; ++s) {
    for (size_t n = 0; n < order->space[s].pages_count; ++n) free(order->space[s].pages[n]);
    free(order->space[s].pages);
  }
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
  s->pages_count = bytes / granule_bytes / PAGE + 1;
  s->pages = calloc(s->pages_count, sizeof *s->pages);
  if (!s->pages) return -1;
  s->is_given = 0;
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

/* Numbers the next thing a queue does. */
static int count_up(queue *q, const dv_site *site) {
  if (q->count == MOST_NUMBER) return 0;
  if (q->count == q->room) {
    const uint32_t room = q->room ? 2 * q->room : 256;
    const dv_site **sites = realloc(q->sites, room * sizeof *sites);
    if (!sites) return 0;
    q->sites = sites;
    q->room = room;
  }
  q->sites[q->count++] = site;
  return 1;
}

int dv_order_issue(dv_order *order, int number, const dv_site *site) {
  if (number < 0 || number >= order->queues || order->has_failed) return 0;
  queue *q = &order->queue[number];
  if (q->is_serial) q->now.ended[number] = q->count;
  order->current = number;
  return count_up(q, site);
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

/* NULL: no memory. */
static granule *granule_at(dv_order *order, space *s, size_t n) {
  granule **page = &s->pages[n / PAGE];
  if (!*page) {
    *page = calloc(PAGE, sizeof **page);
    if (!*page) {
      order->has_failed = 1;
      return NULL;
    }
    for (int k = 0; s->is_given && k < PAGE; ++k) (*page)[k].is_written = 1;
  }
  return *page + n % PAGE;
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

static int read_granules(dv_order *order, int number, size_t begin, size_t bytes, int wants_written) {
  space *s = &order->space[number];
  size_t first, behind;
  int is_written = 1;
  if (!granules_of(order, s, begin, bytes, &first, &behind)) return 0;
  for (size_t n = first; n < behind; ++n) {
    granule *g = granule_at(order, s, n);
    if (!g) return 0;
    is_written &= (int)g->is_written;
    if (!g->is_written && wants_written)
      tell(order, DV_READ_UNWRITTEN, nobody, s, n * s->size, s->size);
    else if (!has_ended(order, g->writer))
      tell(order, DV_READ_TOO_EARLY, g->writer, s, n * s->size, s->size);
    add_reader(order, g);
  }
  return is_written;
}

void dv_order_read(dv_order *order, int number, size_t begin, size_t bytes) {
  (void)read_granules(order, number, begin, bytes, 1);
}

int dv_order_read_any(dv_order *order, int number, size_t begin, size_t bytes) {
  return read_granules(order, number, begin, bytes, 0);
}

static void write_granules(dv_order *order, int number, size_t begin, size_t bytes, int is_written) {
  space *s = &order->space[number];
  size_t first, behind;
  if (!granules_of(order, s, begin, bytes, &first, &behind)) return;
  for (size_t n = first; n < behind; ++n) {
    granule *g = granule_at(order, s, n);
    if (!g) return;
    if (!has_ended(order, g->writer)) tell(order, DV_WRITE_TOO_EARLY, g->writer, s, n * s->size, s->size);
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
    g->is_written = is_written != 0;
    forget_readers(order, g);
  }
}

void dv_order_write(dv_order *order, int number, size_t begin, size_t bytes) {
  write_granules(order, number, begin, bytes, 1);
}

void dv_order_write_nothing(dv_order *order, int number, size_t begin, size_t bytes) {
  write_granules(order, number, begin, bytes, 0);
}

void dv_order_given(dv_order *order, int number, size_t begin, size_t bytes) {
  space *s = &order->space[number];
  if (bytes == 0 || begin >= s->bytes) return;
  const size_t end = bytes < s->bytes - begin ? begin + bytes : s->bytes;
  for (size_t n = begin / s->size; n * s->size < end; ++n) {
    granule *g = granule_at(order, s, n);
    if (!g) return;
    g->writer = nobody;
    g->is_written = 1;
    forget_readers(order, g);
  }
}

void dv_order_all_given(dv_order *order, int number) { order->space[number].is_given = 1; }

/* ------------------------------------------------------------------ synchronisation */

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

dv_flag *dv_flag_open(dv_order *order, const char *name, int most) {
  dv_flag *flag = most > 0 ? calloc(1, sizeof *flag) : NULL;
  if (!flag) return NULL;
  flag->raised = calloc((size_t)most, sizeof *flag->raised);
  flag->sites = calloc((size_t)most, sizeof *flag->sites);
  flag->waits = calloc((size_t)most, sizeof *flag->waits);
  if (!flag->raised || !flag->sites || !flag->waits) {
    close_flag(flag);
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
    if (!count_up(&order->queue[q], NULL)) order->has_failed = 1;
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

uint32_t dv_order_present(const dv_order *order, int *number) {
  *number = order->current;
  return order->queue[order->current].count;
}

void dv_order_end(dv_order *order) {
  for (const dv_flag *flag = order->flags; flag; flag = flag->next)
    if (flag->sets) {
      const dv_hazard hazard = {DV_FLAG_LEFT, flag->sites[flag->all_waits % (uint64_t)flag->most], NULL, flag->name, 0, (size_t)flag->sets};
      order->report(order->user, &hazard);
    }
}
