#define _GNU_SOURCE
#include "check/check_memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static int grow(fa_slot *slot, size_t bytes) {
  const size_t page = page_bytes();
  const size_t usable = (bytes + page - 1) / page * page;
  fa_slot_release(slot);
  void *mapping =
      mmap(NULL, usable + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return 0;
  slot->mapping = mapping;
  slot->mapping_bytes = usable + 2 * page;
  slot->begin = slot->mapping + page;
  slot->end = slot->begin + usable;
  return mprotect(slot->begin, usable, PROT_READ | PROT_WRITE) == 0;
}

void *fa_slot_place(fa_slot *slot, size_t bytes, size_t alignment, int at_end) {
  const size_t needed = bytes + alignment + 2 * FA_BAND;
  if (!slot->mapping || (size_t)(slot->end - slot->begin) < needed) {
    if (!grow(slot, needed + needed / 2)) return NULL;
  }
  slot->bytes = bytes;
  if (at_end) {
    const uintptr_t last = (uintptr_t)slot->end - bytes;
    slot->data = slot->end - bytes - last % alignment;
  } else {
    slot->data = slot->begin;
  }
  unsigned char *low = slot->data - slot->begin > (ptrdiff_t)FA_BAND ? slot->data - FA_BAND : slot->begin;
  unsigned char *high =
      slot->end - (slot->data + bytes) > (ptrdiff_t)FA_BAND ? slot->data + bytes + FA_BAND : slot->end;
  memset(low, FA_POISON, (size_t)(high - low));
  return slot->data;
}

static int all_poison(const unsigned char *from, const unsigned char *to) {
  for (; from < to; from++) {
    if (*from != FA_POISON) return 0;
  }
  return 1;
}

int fa_slot_surroundings_intact(const fa_slot *slot) {
  if (!slot->data) return 1;
  const unsigned char *after = slot->data + slot->bytes;
  const unsigned char *low = slot->data - slot->begin > (ptrdiff_t)FA_BAND ? slot->data - FA_BAND : slot->begin;
  const unsigned char *high = slot->end - after > (ptrdiff_t)FA_BAND ? after + FA_BAND : slot->end;
  return all_poison(low, slot->data) && all_poison(after, high);
}

uint64_t fa_slot_hash(const fa_slot *slot) {
  uint64_t hash = 0xcbf29ce484222325u;
  size_t at = 0;
  if (!slot->data) return hash;
  for (; at + 8 <= slot->bytes; at += 8) {
    uint64_t word;
    memcpy(&word, slot->data + at, sizeof word);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  for (; at < slot->bytes; at++) hash = (hash ^ slot->data[at]) * 0x100000001b3u;
  return hash;
}

void fa_slot_release(fa_slot *slot) {
  if (slot->mapping) munmap(slot->mapping, slot->mapping_bytes);
  memset(slot, 0, sizeof *slot);
}
