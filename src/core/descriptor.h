/* Descriptors grow at the end: a caller built against an older header passes a shorter struct, a newer one a longer.
 * Each is read into a full-size one whose tail keeps the defaults it was initialised with. */
#ifndef FA_CORE_DESCRIPTOR_H
#define FA_CORE_DESCRIPTOR_H

#include <string.h>

#include "core/status.h"

/* `known` holds the defaults and is `size` bytes; `given` says it has `given_size`. A longer struct from the future
 * is refused unless what we do not know of it is all zero (= off). */
static inline fa_status fa_read_descriptor(const char *type, void *known, size_t size, const void *given,
                                           size_t given_size) {
  if (given_size < sizeof(size_t) || given_size > 4096)
    return fa_fail(FA_ERROR_ARGUMENT, "%s.struct_size is %zu; initialise the struct with its _INIT macro", type,
                   given_size);
  for (size_t i = size; i < given_size; ++i)
    if (((const unsigned char *)given)[i])
      return fa_fail(FA_ERROR_UNSUPPORTED, "%s has fields this library (%s) does not know; update the library", type,
                     fa_version());
  memcpy(known, given, given_size < size ? given_size : size);
  return FA_OK;
}

/* The other way: fills as much of the caller's struct as it says it has. */
static inline fa_status fa_write_descriptor(const char *type, void *given, size_t given_size, const void *full,
                                            size_t size) {
  if (given_size < sizeof(size_t) || given_size > 4096)
    return fa_fail(FA_ERROR_ARGUMENT, "%s.struct_size is %zu; initialise the struct with its _INIT macro", type,
                   given_size);
  const size_t filled = given_size < size ? given_size : size;
  memcpy((unsigned char *)given + sizeof(size_t), (const unsigned char *)full + sizeof(size_t),
         filled - sizeof(size_t));
  return FA_OK;
}

#endif
