#include "ascend/host/ascend_runtime.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static fa_ascend_acl acl;
static pthread_once_t opened = PTHREAD_ONCE_INIT;
static char missing_text[160];

static void open_library(void) {
  uint32_t devices = 0;
  /* Never closed: the runtime keeps threads of its own. */
  void *library = dlopen("libascendcl.so", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    acl.missing = "libascendcl.so, which comes with Ascend's CANN, was not found; source its set_env.sh";
    return;
  }
  /* POSIX has a symbol's address copied, not converted, into a function pointer. */
#define FIELD(result, name, symbol, parameters)                                                               \
  {                                                                                                           \
    void *const address = dlsym(library, symbol);                                                             \
    if (!address) {                                                                                           \
      snprintf(missing_text, sizeof missing_text, "libascendcl.so has no %s: CANN is too old", symbol);       \
      acl.missing = missing_text;                                                                             \
      return;                                                                                                 \
    }                                                                                                         \
    memcpy(&acl.name, &address, sizeof address);                                                              \
  }
  FA_ACL_FUNCTIONS(FIELD)
#undef FIELD
  fa_acl_error error = acl.init(NULL);
  if (error == FA_ACL_REPEAT_INITIALIZE) error = 0; /* another library of this process did */
  if (!error) error = acl.device_count(&devices);
  if (!error && devices > 0) {
    acl.devices = (int32_t)devices;
    return;
  }
  if (error) snprintf(missing_text, sizeof missing_text, "CANN found no NPU (error %d)", error);
  else snprintf(missing_text, sizeof missing_text, "CANN counts no NPU");
  acl.missing = missing_text;
}

const fa_ascend_acl *fa_ascend_acl_open(void) {
  pthread_once(&opened, open_library);
  return &acl;
}

const char *fa_ascend_acl_text(void) {
  const char *text = acl.recent_error ? acl.recent_error() : NULL;
  return text ? text : "";
}
