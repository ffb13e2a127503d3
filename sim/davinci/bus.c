#include "davinci/bus.h"

#include <stdlib.h>

struct dv_bus {
  double rate, slot; /* bytes a cycle; cycles */
  double *used;      /* bytes of each slot */
  size_t *next;      /* the slot itself, or one behind it before which all are full */
  size_t slots;
};

dv_bus *dv_bus_open(double bytes_a_cycle, double slot_cycles) {
  if (!(bytes_a_cycle > 0.0) || !(slot_cycles > 0.0)) return NULL;
  dv_bus *bus = calloc(1, sizeof *bus);
  if (!bus) return NULL;
  bus->rate = bytes_a_cycle;
  bus->slot = slot_cycles;
  return bus;
}

void dv_bus_close(dv_bus *bus) {
  if (!bus) return;
  free(bus->used);
  free(bus->next);
  free(bus);
}

static int make_room(dv_bus *bus, size_t slots) {
  if (slots <= bus->slots) return 1;
  if (slots < 2 * bus->slots) slots = 2 * bus->slots;
  double *used = realloc(bus->used, slots * sizeof *used);
  if (!used) return 0;
  bus->used = used;
  size_t *next = realloc(bus->next, slots * sizeof *next);
  if (!next) return 0;
  bus->next = next;
  for (size_t n = bus->slots; n < slots; ++n) used[n] = 0.0, next[n] = n;
  bus->slots = slots;
  return 1;
}

/* The first slot from n on that is not full; may be one behind the last. */
static size_t open_slot(dv_bus *bus, size_t n) {
  size_t open = n;
  while (open < bus->slots && bus->next[open] != open) open = bus->next[open];
  while (n < open) { /* the next search is shorter */
    const size_t then = bus->next[n];
    bus->next[n] = open;
    n = then;
  }
  return open;
}

double dv_bus_transfer(dv_bus *bus, double begin, double bytes, double most) {
  const double capacity = bus->rate * bus->slot, rate = most < bus->rate ? most : bus->rate;
  if (!(most > 0.0)) return -1.0;
  if (!(bytes > 0.0)) return begin;
  for (size_t n = (size_t)(begin / bus->slot);; ++n) {
    n = open_slot(bus, n);
    if (!make_room(bus, n + 1)) return -1.0;
    const double slot_begin = (double)n * bus->slot, from = begin > slot_begin ? begin : slot_begin;
    const double cycles = slot_begin + bus->slot - from, left = capacity - bus->used[n];
    const double may = rate * cycles < left ? rate * cycles : left;
    if (bytes <= may * (1.0 + 1e-9)) { /* no rest of rounding for another slot */
      bus->used[n] += bytes;
      /* What is left of a slot is spread over it. */
      return from + bytes * cycles / may;
    }
    bytes -= may;
    bus->used[n] += may;
    if (bus->used[n] > capacity * (1.0 - 1e-9)) bus->next[n] = n + 1;
  }
}
