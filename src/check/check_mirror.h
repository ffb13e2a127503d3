/* Guarded arrays on a device: slots are copied there with the bytes around them before a run, and back after it, so
 * that what a kernel wrote beside its outputs is seen here. On devices whose memory is the host's nothing happens. */
#ifndef FA_CHECK_MIRROR_H
#define FA_CHECK_MIRROR_H

#include "check/check_memory.h"
#include "fastattention/fastattention.h"

enum { FA_MIRROR_SLOTS = 32 };

typedef struct fa_mirror {
  fa_context *context;
  int active; /* 0: host memory */
  void *device;
  unsigned char *staging; /* the same bytes, on their way */
  size_t capacity;
  size_t bytes; /* of them in use */
  struct {
    unsigned char *low; /* of the slot: what is copied, guard bands included */
    size_t bytes;
    size_t offset; /* in the mirror, alike modulo 256 */
  } parts[FA_MIRROR_SLOTS];
  int count;
} fa_mirror;

/* At most FA_MIRROR_SLOTS. Errors: ARGUMENT, MEMORY, DEVICE. */
fa_status fa_mirror_upload(fa_mirror *mirror, fa_context *context, fa_slot *const *slots, int count);

/* Where `host`, which lies in a slot, is on the device; NULL stays. */
void *fa_mirror_pointer(const fa_mirror *mirror, const void *host);

/* Waits for the device, then brings everything back. */
fa_status fa_mirror_download(fa_mirror *mirror);

/* 1 if, by the last download, nothing was written between the mirrored parts: at least 256 bytes beyond the guard bands
 * that fa_slot_surroundings_intact looks at. */
int fa_mirror_gaps_intact(const fa_mirror *mirror);

void fa_mirror_release(fa_mirror *mirror);

#endif
