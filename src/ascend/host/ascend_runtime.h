/* CANN's runtime (AscendCL), opened at run time: the functions by the names and signatures of its public API reference, each
 * under fa_ascend_acl. Nothing of CANN is needed to build. Not run: no NPU has seen this file.
 *
 * Of the ways to start a kernel that the reference describes, this one leaves nothing to build into the library: a binary
 * compiled from kernel/ is loaded (aclrtBinaryLoadFromFile), its function found by name and launched with arguments in host
 * memory (aclrtLaunchKernelWithHostArgs). A placeholder among them stands for the tiling struct: the runtime copies its bytes to
 * the device with the arguments and puts in the address they got there. */
#ifndef FA_ASCEND_RUNTIME_H
#define FA_ASCEND_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

typedef int fa_acl_error; /* 0: none; 2xxxxx: not enough of something, memory for one */
enum { FA_ACL_REPEAT_INITIALIZE = 100002 };
static inline int fa_acl_is_shortage(fa_acl_error error) { return error / 100000 == 2; }

enum { FA_ACL_MALLOC_HUGE_FIRST = 0 };                                         /* aclrtMemMallocPolicy */
enum { FA_ACL_HOST_TO_DEVICE = 1, FA_ACL_DEVICE_TO_HOST, FA_ACL_DEVICE_TO_DEVICE }; /* aclrtMemcpyKind */
enum { FA_ACL_CUBE_CORES = 102, FA_ACL_MEMORY_BYTES = 301 };                   /* aclrtDevAttr */

typedef struct fa_acl_placeholder { /* aclrtPlaceHolderInfo: offsets in the host arguments */
  uint32_t address; /* where the device address goes */
  uint32_t data;    /* what it stands for */
} fa_acl_placeholder;

/* FIELD(result, name, exported symbol, parameters). Enums are passed as int, handles as void *. */
#define FA_ACL_FUNCTIONS(FIELD)                                                                                    \
  FIELD(fa_acl_error, init, "aclInit", (const char *))                                                             \
  FIELD(const char *, recent_error, "aclGetRecentErrMsg", (void))                                                  \
  FIELD(const char *, soc_name, "aclrtGetSocName", (void))                                                         \
  FIELD(fa_acl_error, device_count, "aclrtGetDeviceCount", (uint32_t *))                                           \
  FIELD(fa_acl_error, device_info, "aclrtGetDeviceInfo", (uint32_t, int, int64_t *))                               \
  FIELD(fa_acl_error, device_set, "aclrtSetDevice", (int32_t))                                                     \
  FIELD(fa_acl_error, device_get, "aclrtGetDevice", (int32_t *))                                                   \
  FIELD(fa_acl_error, memory_allocate, "aclrtMalloc", (void **, size_t, int))                                      \
  FIELD(fa_acl_error, memory_free, "aclrtFree", (void *))                                                          \
  FIELD(fa_acl_error, copy, "aclrtMemcpyAsync", (void *, size_t, const void *, size_t, int, void *))               \
  FIELD(fa_acl_error, stream_create, "aclrtCreateStream", (void **))                                               \
  FIELD(fa_acl_error, stream_destroy, "aclrtDestroyStream", (void *))                                              \
  FIELD(fa_acl_error, stream_synchronize, "aclrtSynchronizeStream", (void *))                                      \
  FIELD(fa_acl_error, event_create, "aclrtCreateEvent", (void **))                                                 \
  FIELD(fa_acl_error, event_destroy, "aclrtDestroyEvent", (void *))                                                \
  FIELD(fa_acl_error, event_record, "aclrtRecordEvent", (void *, void *))                                          \
  FIELD(fa_acl_error, event_elapsed, "aclrtEventElapsedTime", (float *, void *, void *))                           \
  FIELD(fa_acl_error, binary_load, "aclrtBinaryLoadFromFile", (const char *, void *, void **))                     \
  FIELD(fa_acl_error, binary_unload, "aclrtBinaryUnLoad", (void *))                                                \
  FIELD(fa_acl_error, binary_function, "aclrtBinaryGetFunction", (const void *, const char *, void **))            \
  FIELD(fa_acl_error, launch, "aclrtLaunchKernelWithHostArgs",                                                     \
        (void *, uint32_t, void *, void *, void *, size_t, fa_acl_placeholder *, size_t))

typedef struct fa_ascend_acl {
  const char *missing; /* NULL when the runtime and a device are there; else what is missing, for people */
  int32_t devices;
#define FIELD(result, name, symbol, parameters) result(*name) parameters;
  FA_ACL_FUNCTIONS(FIELD)
#undef FIELD
} fa_ascend_acl;

/* Opens it the first time. Never NULL; look at `missing`. */
const fa_ascend_acl *fa_ascend_acl_open(void);

/* The runtime's own last line, or "" when it has none. */
const char *fa_ascend_acl_text(void);

#endif
