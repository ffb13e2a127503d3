#include "davinci/order_parts.h"

#include <stdlib.h>
#include <string.h>

static const epoch nobody = {0, 0};

#define NO_SET UINT32_MAX
enum { MOST_NUMBER = (1 << 28) - 1 };
enum { PAGE = 512 }; /* granules that come into being together, when the first is touched */

static epoch epoch_of(int q, uint32_t number) {
  const epoch e = {(uint32_t)q & (DV_MOST_QUEUES - 1), number & MOST_NUMBER};
  return e;
}

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

void dv_order_close(dv_order *order) {
  if (!order) return;
  for (int q = 0; q < order->queues; ++q) free(order->queue[q].sites);
  for (int s = 0; s < order->spaces; ++s) {
    for (size_t n = 0; n < order->space[s].pages_count; ++n) free(order->space[s].pages[n]);
    free(order->space[s].pages);
  }
  for (dv_flag *flag = order->flags, *next; flag; flag = next) {
    next = flag->next;
    dv_close_flag(flag);
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

const dv_site *dv_order_site(const dv_order *order) { return site_of(order, present(order)); }

uint32_t dv_order_present(const dv_order *order, int *number) {
  *number = order->current;
  return order->queue[order->current].count;
}

int dv_order_has_failed(const dv_order *order) { return order->has_failed; }

/* Numbers the next thing a queue does. */
int dv_count_up(queue *q, const dv_site *site) {
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
  return dv_count_up(q, site);
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

void dv_order_learned(dv_order *order, int number, size_t begin, size_t bytes) {
  space *s = &order->space[number];
  size_t first, behind;
  if (!granules_of(order, s, begin, bytes, &first, &behind)) return;
  for (size_t n = first; n < behind; ++n) {
    granule *g = granule_at(order, s, n);
    if (!g) return;
    g->writer = nobody;
    g->is_written = 1;
  }
}

void dv_order_all_given(dv_order *order, int number) { order->space[number].is_given = 1; }
