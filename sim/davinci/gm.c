/* GM: which memory a launch may touch, who of the groups touched it, and what of it is in L2. */
#include "davinci/core.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ regions */

int dv_gm_open(dv_run_state *run) {
  run->regions_count = run->launch->regions_count;
  for (int r = 0; r < run->regions_count; ++r) {
    dv_gm_region *region = &run->regions[r];
    region->given = run->launch->regions[r];
    region->granule = region->given.access == DV_WORKSPACE ? 32 : 2; /* rows of odd head sizes begin anywhere */
    region->owners = NULL;
    region->pages = region->given.bytes / region->granule / DV_OWNER_PAGE + 1;
    if (region->given.access == DV_INPUT) continue;
    region->owners = calloc(region->pages, sizeof *region->owners);
    if (!region->owners) return 0;
  }
  return 1;
}

void dv_gm_close(dv_run_state *run) {
  for (int r = 0; r < run->regions_count; ++r) {
    dv_gm_region *region = &run->regions[r];
    for (size_t n = 0; region->owners && n < region->pages; ++n) {
      for (size_t k = 0; region->owners[n] && k < DV_OWNER_PAGE; ++k) free(region->owners[n][k].reader);
      free(region->owners[n]);
    }
    free(region->owners);
  }
}

int dv_gm_find(dv_here here, uint64_t at, uint64_t bytes) {
  const dv_run_state *run = dv_current->run;
  int near = -1;
  for (int r = 0; r < run->regions_count; ++r) {
    const uint64_t base = (uintptr_t)run->regions[r].given.base, room = run->regions[r].given.bytes;
    if (at >= base && bytes <= room && at - base <= room - bytes) return r;
    if (at >= base && at - base <= room) near = r;
  }
  if (near >= 0)
    dv_fail(here, "out of bounds", "bytes %llu to %llu of %s, which has %zu",
            (unsigned long long)(at - (uintptr_t)run->regions[near].given.base),
            (unsigned long long)(at - (uintptr_t)run->regions[near].given.base + bytes), run->regions[near].given.name,
            run->regions[near].given.bytes);
  dv_fail(here, "out of bounds", "%llu bytes at an address of no tensor of this launch", (unsigned long long)bytes);
}

static dv_owner *owner_at(dv_here here, dv_gm_region *region, size_t n) {
  dv_owner **page = &region->owners[n / DV_OWNER_PAGE];
  if (!*page) *page = calloc(DV_OWNER_PAGE, sizeof **page);
  if (!*page) dv_fail(here, "", "no memory for the hazard finder");
  return *page + n % DV_OWNER_PAGE;
}

static void add_reader(dv_here here, dv_owner *o, uint8_t group, uint8_t queue, uint32_t number, uint8_t adds) {
  for (int n = 0; n < o->readers; ++n)
    if (o->reader[n].group == group && o->reader[n].queue == queue && o->reader[n].adds == adds) {
      o->reader[n].number = number;
      return;
    }
  if (o->readers == o->room) {
    const uint16_t room = (uint16_t)(o->room ? 2 * o->room : 2);
    dv_reader *grown = realloc(o->reader, room * sizeof *grown);
    if (!grown) dv_fail(here, "", "no memory for the hazard finder");
    o->reader = grown;
    o->room = room;
  }
  const dv_reader added = {group, queue, adds, number};
  o->reader[o->readers++] = added;
}

/* Within a group flags order accesses (order.c); what another group touched has to be known from a meeting.
 * Atomic adds of two groups need no order among themselves; all else needs it with them. Those of a group's
 * two AIVs are asked for order as writes are, which is more than the chip asks for. */
void dv_gm_touch(dv_here here, int number, uint64_t at, uint64_t bytes, dv_gm_access access) {
  dv_core *core = dv_current;
  dv_gm_region *region = &core->run->regions[number];
  if (region->given.access == DV_INPUT) return;
  dv_order *order = core->group->order;
  const int space = core->group->gm_space[number];
  const size_t begin = (size_t)(at - (uintptr_t)region->given.base);
  const uint8_t me = (uint8_t)(core->group->number + 1);
  int queue;
  const uint32_t now = dv_order_present(order, &queue);
  for (size_t n = begin / region->granule; n * region->granule < begin + bytes; ++n) {
    dv_owner *o = owner_at(here, region, n);
    const size_t byte = n * region->granule;
    int is_theirs = o->writer && o->writer != me, i_added = 0;
    if (is_theirs && !dv_knows(core, o->writer - 1, o->writer_queue, o->written))
      dv_fail(here, access ? "write too early" : "read too early",
              "nothing orders it behind %s at line %d of group %d; byte %zu of %s",
              o->write_site->instruction, o->write_site->line, o->writer - 1, byte, region->given.name);
    for (int r = 0; r < o->readers; ++r) {
      const dv_reader *reader = &o->reader[r];
      i_added |= reader->adds && reader->group == me;
      const int conflicts = reader->adds ? access != DV_GM_ADDS : access != DV_GM_READS;
      if (reader->group == me || !conflicts) continue;
      if (!dv_knows(core, reader->group - 1, reader->queue, reader->number))
        dv_fail(here, access ? "write too early" : "read too early", "nothing orders it behind %s of group %d; byte %zu of %s",
                reader->adds ? "an atomic add" : "a read", reader->group - 1, byte, region->given.name);
      is_theirs |= reader->adds;
    }
    if (access != DV_GM_WRITES) {
      if (is_theirs && !i_added) dv_order_learned(order, space, byte, region->granule);
      add_reader(here, o, me, (uint8_t)queue, now, access == DV_GM_ADDS);
      continue;
    }
    o->writer = me;
    o->writer_queue = (uint8_t)queue;
    o->written = now;
    o->write_site = dv_order_site(order);
    o->readers = 0;
  }
  if (access != DV_GM_WRITES) dv_order_read(order, space, begin, (size_t)bytes);
  if (access != DV_GM_READS) dv_order_write(order, space, begin, (size_t)bytes);
}

/* ------------------------------------------------------------------ L2 */

/* Lines of 512 bytes in sets of 12, the one that was touched longest ago driven out. Sets are found by a hash, so that no stride
 * falls on few of them. */
enum { LINE = 512, WAYS = 12 };
typedef struct line {
  uint64_t number; /* of the line in GM, + 1; 0: none */
  uint32_t touched;
  uint32_t is_dirty;
} line;
typedef struct dv_l2 {
  line *lines;
  size_t sets;
  uint32_t now;
} dv_l2;

int dv_l2_open(dv_chip *chip) {
  dv_l2 *l2 = calloc(1, sizeof *l2);
  chip->l2_state = l2;
  if (!l2) return 0;
  l2->sets = (size_t)(chip->figures.l2_bytes / (LINE * WAYS));
  l2->lines = calloc(l2->sets * WAYS, sizeof *l2->lines);
  return l2->lines != NULL;
}

void dv_l2_close(dv_chip *chip) {
  if (chip->l2_state) free(chip->l2_state->lines);
  free(chip->l2_state);
}

dv_l2_cost dv_l2_access(dv_chip *chip, uint64_t at, uint64_t bytes, int writes) {
  dv_l2 *l2 = chip->l2_state;
  dv_l2_cost cost = {0.0, 0.0};
  const uint64_t first = at / LINE, behind = (at + bytes + LINE - 1) / LINE;
  for (uint64_t number = first + 1; number <= behind; ++number) {
    line *set = &l2->lines[(((number * 0x9e3779b97f4a7c15u) >> 32) * l2->sets >> 32) * WAYS], *found = set;
    for (int w = 0; w < WAYS; ++w) {
      if (set[w].number == number) {
        found = &set[w];
        break;
      }
      if (set[w].touched < found->touched) found = &set[w];
    }
    if (found->number != number) {
      if (found->number && found->is_dirty) cost.written_back += (double)LINE;
      if (!writes) cost.missed += (double)LINE;
      found->number = number;
      found->is_dirty = 0;
    }
    found->is_dirty |= (uint32_t)writes;
    found->touched = ++l2->now;
  }
  return cost;
}
