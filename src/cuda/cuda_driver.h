/* The CUDA driver, opened at run time: its functions by their names, each under fa_cuda_driver. */
#ifndef FA_CUDA_DRIVER_H
#define FA_CUDA_DRIVER_H

#include <cuda.h>

/* FIELD(type of result is CUresult; name, exported symbol, parameters) */
#define FA_CUDA_DRIVER_FUNCTIONS(FIELD)                                                                            \
  FIELD(init, "cuInit", (unsigned))                                                                                \
  FIELD(version, "cuDriverGetVersion", (int *))                                                                    \
  FIELD(error_string, "cuGetErrorString", (CUresult, const char **))                                               \
  FIELD(device_count, "cuDeviceGetCount", (int *))                                                                 \
  FIELD(device_get, "cuDeviceGet", (CUdevice *, int))                                                              \
  FIELD(device_name, "cuDeviceGetName", (char *, int, CUdevice))                                                   \
  FIELD(device_attribute, "cuDeviceGetAttribute", (int *, CUdevice_attribute, CUdevice))                           \
  FIELD(device_memory, "cuDeviceTotalMem_v2", (size_t *, CUdevice))                                                \
  FIELD(primary_retain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                       \
  FIELD(primary_release, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                               \
  FIELD(primary_state, "cuDevicePrimaryCtxGetState", (CUdevice, unsigned *, int *))                                \
  FIELD(context_push, "cuCtxPushCurrent_v2", (CUcontext))                                                          \
  FIELD(context_pop, "cuCtxPopCurrent_v2", (CUcontext *))                                                          \
  FIELD(memory_allocate, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                                 \
  FIELD(memory_free, "cuMemFree_v2", (CUdeviceptr))                                                                \
  FIELD(host_allocate, "cuMemHostAlloc", (void **, size_t, unsigned))                                              \
  FIELD(host_free, "cuMemFreeHost", (void *))                                                                      \
  FIELD(fill, "cuMemsetD8Async", (CUdeviceptr, unsigned char, size_t, CUstream))                                   \
  FIELD(copy, "cuMemcpyAsync", (CUdeviceptr, CUdeviceptr, size_t, CUstream))                                       \
  FIELD(copy_to_device, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void *, size_t, CUstream))                     \
  FIELD(copy_to_host, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))                             \
  FIELD(stream_create, "cuStreamCreate", (CUstream *, unsigned))                                                   \
  FIELD(stream_destroy, "cuStreamDestroy_v2", (CUstream))                                                          \
  FIELD(stream_synchronize, "cuStreamSynchronize", (CUstream))                                                     \
  FIELD(capture_begin, "cuStreamBeginCapture_v2", (CUstream, CUstreamCaptureMode))                                 \
  FIELD(capture_end, "cuStreamEndCapture", (CUstream, CUgraph *))                                                  \
  FIELD(capture_mode, "cuThreadExchangeStreamCaptureMode", (CUstreamCaptureMode *))                                \
  FIELD(graph_instantiate, "cuGraphInstantiateWithFlags", (CUgraphExec *, CUgraph, unsigned long long))            \
  FIELD(graph_launch, "cuGraphLaunch", (CUgraphExec, CUstream))                                                    \
  FIELD(graph_exec_destroy, "cuGraphExecDestroy", (CUgraphExec))                                                   \
  FIELD(graph_destroy, "cuGraphDestroy", (CUgraph))                                                                \
  FIELD(event_create, "cuEventCreate", (CUevent *, unsigned))                                                      \
  FIELD(event_destroy, "cuEventDestroy_v2", (CUevent))                                                             \
  FIELD(event_synchronize, "cuEventSynchronize", (CUevent))                                                        \
  FIELD(event_record, "cuEventRecord", (CUevent, CUstream))                                                        \
  FIELD(event_elapsed, "cuEventElapsedTime", (float *, CUevent, CUevent))                                          \
  FIELD(module_load, "cuModuleLoadData", (CUmodule *, const void *))                                               \
  FIELD(module_unload, "cuModuleUnload", (CUmodule))                                                               \
  FIELD(module_function, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))                            \
  FIELD(function_attribute, "cuFuncSetAttribute", (CUfunction, CUfunction_attribute, int))                         \
  FIELD(launch, "cuLaunchKernel",                                                                                  \
        (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **)) \
  FIELD(launch_with, "cuLaunchKernelEx", (const CUlaunchConfig *, CUfunction, void **, void **))                   \
  FIELD(most_clusters, "cuOccupancyMaxActiveClusters", (int *, CUfunction, const CUlaunchConfig *))                \
  FIELD(function_fact, "cuFuncGetAttribute", (int *, CUfunction_attribute, CUfunction))                            \
  FIELD(pointer_attribute, "cuPointerGetAttribute", (void *, CUpointer_attribute, CUdeviceptr))

typedef struct fa_cuda_driver {
  const char *missing; /* NULL when the driver is there; else what is missing, for people */
  int devices;
#define FIELD(name, symbol, parameters) CUresult(*name) parameters;
  FA_CUDA_DRIVER_FUNCTIONS(FIELD)
#undef FIELD
} fa_cuda_driver;

/* Opens it the first time. Never NULL; look at `missing`. */
const fa_cuda_driver *fa_cuda_driver_open(void);

/* "out of memory" and the like. */
const char *fa_cuda_result_text(CUresult result);

#endif
