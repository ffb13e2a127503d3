/* What this build and machine have: names of types and features, kernels, devices, version. */
#include <string.h>

#include "core/descriptor.h"
#include "core/kernel.h"
#include "core/status.h"
#include "fa_commit.h" /* written by the build */

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

const char *fa_version(void) {
  return STRING(FA_VERSION_MAJOR) "." STRING(FA_VERSION_MINOR) "." STRING(FA_VERSION_PATCH);
}

const char *fa_commit(void) { return FA_COMMIT; }

static const struct {
  const char *name;
  size_t bytes;
} dtypes[] = {[FA_FLOAT32] = {"f32", 4},
              [FA_FLOAT16] = {"f16", 2},
              [FA_BFLOAT16] = {"bf16", 2},
              [FA_INT8] = {"int8", 1},
              [FA_FP8_E4M3] = {"fp8", 1}};

static int is_dtype(fa_dtype dtype) { return (int)dtype >= 0 && (size_t)dtype < sizeof dtypes / sizeof dtypes[0]; }

size_t fa_dtype_bytes(fa_dtype dtype) { return is_dtype(dtype) ? dtypes[dtype].bytes : 0; }
const char *fa_dtype_name(fa_dtype dtype) { return is_dtype(dtype) ? dtypes[dtype].name : "unknown"; }

static const char *const feature_names[FA_FEATURE_COUNT] = {
    "causal", "window", "alibi", "softcap", "sinks",    "bias",     "mask",   "ragged",
    "paged",  "d_v",    "lse",   "seqlens", "kv-quant", "appending", "splits"};

const char *fa_feature_name(int bit) { return bit >= 0 && bit < FA_FEATURE_COUNT ? feature_names[bit] : NULL; }

int32_t fa_kernel_count(void) { return fa_kernels_count; }

static const fa_backend *backend_named(const char *name) {
  for (int b = 0; fa_backends[b]; ++b)
    if (strcmp(fa_backends[b]->name, name) == 0) return fa_backends[b];
  return NULL;
}

fa_status fa_kernel_describe(int32_t index, fa_kernel_info *info) {
  if (!info) return fa_fail(FA_ERROR_ARGUMENT, "fa_kernel_describe: info is NULL");
  if (index < 0 || index >= fa_kernels_count)
    return fa_fail(FA_ERROR_ARGUMENT, "kernel index is %d; it must be 0 to %d", index, fa_kernels_count - 1);
  static const char *const operations[] = {"prefill", "decode", "any"};
  const fa_kernel *kernel = &fa_kernels[index];
  const fa_backend *backend = backend_named(kernel->device);
  const int available =
      backend && backend->device_count() > 0 && (backend->device_isa(0) & kernel->isa) == kernel->isa;
  const fa_kernel_info full = {sizeof full,         kernel->name,     kernel->device,
                               kernel->arch,        operations[kernel->operation],
                               kernel->dtypes,      kernel->features, kernel->max_head_dim,
                               available,           kernel->is_baseline};
  return fa_write_descriptor("fa_kernel_info", info, info->struct_size, &full, sizeof full);
}

int32_t fa_device_count(void) {
  int32_t count = 0;
  for (int b = 0; fa_backends[b]; ++b) count += fa_backends[b]->device_count();
  return count;
}

fa_status fa_device_describe(int32_t index, fa_device_info *info) {
  if (!info) return fa_fail(FA_ERROR_ARGUMENT, "fa_device_describe: info is NULL");
  int32_t first = 0;
  for (int b = 0; fa_backends[b] && index >= 0; ++b) {
    const int32_t count = fa_backends[b]->device_count();
    if (index - first < count) {
      fa_device_info full = FA_DEVICE_INFO_INIT;
      const fa_status status = fa_backends[b]->device_describe(index - first, &full);
      if (status != FA_OK) return status;
      return fa_write_descriptor("fa_device_info", info, info->struct_size, &full, sizeof full);
    }
    first += count;
  }
  return fa_fail(FA_ERROR_ARGUMENT, "device index is %d; it must be 0 to %d", index, fa_device_count() - 1);
}
