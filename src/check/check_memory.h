/* Memory that notices. A slot is one array of a case between two pages nobody may touch; the array ends right
 * at the second one or begins right behind the first, and is surrounded by bytes that must stay as they are.
 */
#ifndef FA_CHECK_MEMORY_H
#define FA_CHECK_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* NaN as fp32, fp16, bf16 and fp8. */
#define FA_POISON 0xff

/* Bytes of a guard band, where the forbidden page leaves room for one. */
#define FA_BAND ((size_t)512)

typedef struct fa_slot {
  unsigned char *mapping;
  size_t mapping_bytes;
  unsigned char *begin; /* of what may be touched */
  unsigned char *end;
  unsigned char *data; /* the array */
  size_t bytes;
} fa_slot;

/* An array of `bytes`, all poison, in fresh surroundings. Its address is a multiple of `alignment` and, where
 * alignment allows, no more. Returns NULL without memory. */
void *fa_slot_place(fa_slot *slot, size_t bytes, size_t alignment, int at_end);

/* 1 if the bytes around the array are as they were. */
int fa_slot_surroundings_intact(const fa_slot *slot);

/* A number that changes when the array does. */
uint64_t fa_slot_hash(const fa_slot *slot);

void fa_slot_release(fa_slot *slot);

#endif
