/* What a paged cache is made of: one block of device memory, the free pages, and a table of sequences. */
#ifndef FA_KV_CACHE_H
#define FA_KV_CACHE_H

#include "fastattention/fa_kv.h"
#include "kv/kv_pages.h"

/* A place in the table of sequences. */
typedef struct fa_kv_sequence {
  int32_t *pages; /* [capacity], the first `count` in use; NULL when capacity is 0 */
  int64_t count, capacity;
  int64_t tokens;
  int32_t generation; /* how often the place was taken, cut to the bits a handle has for it */
  int32_t next_free;  /* place, -1: none; IN_USE while the place holds a sequence */
} fa_kv_sequence;

enum { FA_KV_IN_USE = -2 };

struct fa_kv_cache {
  fa_context *context;
  fa_kv_options options;
  unsigned char *memory; /* device */
  size_t bytes;
  size_t k_bytes, v_bytes; /* of one layer, padded */
  fa_kv_pages pages;
  fa_kv_sequence *sequences; /* [max_sequences] */
  int32_t first_free;        /* place, -1: none */
  int32_t place_bits;        /* a handle is generation << place_bits | place */
};

/* Empties the places and strings them up as free. */
void fa_kv_sequences_init(fa_kv_cache *cache);

#endif
