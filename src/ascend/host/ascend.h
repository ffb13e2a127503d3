/* The Ascend backends' host side: what a kernel's prepare and run need to find and start device code.
 *
 * Two backends share everything but where device code runs. `ascend` (ascend_backend.c) is an NPU through CANN's runtime,
 * which is opened at run time: not run by anyone yet. `ascend-sim` (sim_backend.c) is the emulated chip of sim/davinci, on
 * which the same source of kernel/ runs. What differs beyond fa_backend is the small table fa_ascend_runtime. */
#ifndef FA_ASCEND_H
#define FA_ASCEND_H

#include <pthread.h>

#include "core/kernel.h"
#include "core/status.h"

extern const fa_backend fa_ascend_backend, fa_ascend_sim_backend;

/* fa_kernel.isa bits of these backends: the core is that of Atlas A2 (dav-c220). */
enum { FA_ASCEND_A2 = 1 << 0 };

/* What choices depend on. A group is a Cube core (AIC) and its two Vector cores (AIV). */
typedef struct fa_ascend_chip {
  char name[32]; /* "910B2" */
  int32_t groups;
  int64_t l2_bytes, memory_bytes; /* 0: not known */
} fa_ascend_chip;

/* A chip of Atlas A2 by its name ("910B1" to "910B4"); memory_bytes stays 0. Returns 0 for another name. */
int fa_ascend_chip_named(const char *name, fa_ascend_chip *chip);

/* ------------------------------------------------------------------ device code */

/* What a block of a launch is, as the kernel's task type says: a group (KERNEL_TYPE_MIX_AIC_1_2), a Cube or a Vector core. */
typedef enum fa_ascend_cores { FA_ASCEND_GROUPS, FA_ASCEND_CUBE_CORES, FA_ASCEND_VECTOR_CORES } fa_ascend_cores;

/* A function of kernel/: compiled by CANN it is `function` in the binary `file`.o; on the emulator it is `emulated`, which
 * passes each pointer on to a parameter of its own. */
typedef struct fa_ascend_code {
  const char *file, *function;
  void (*emulated)(void *const *arguments);
  fa_ascend_cores cores;
} fa_ascend_code;

extern const fa_ascend_code fa_ascend_attention_code, fa_ascend_matmul_code, fa_ascend_softmax_code, fa_ascend_mask_tensor_code,
    fa_ascend_scale_code, fa_ascend_add_code, fa_ascend_wide_softmax_code, fa_ascend_cast_code;

typedef struct fa_ascend_function *fa_ascend_function; /* the runtime's handle of a code */

typedef enum fa_ascend_access {
  FA_ASCEND_READS = 1 << 0,
  FA_ASCEND_WRITES = 1 << 1,
  FA_ASCEND_SCRATCH = 1 << 2 /* written before it is read */
} fa_ascend_access;

/* One pointer of a launch, and all the bytes that may be touched through it. */
typedef struct fa_ascend_argument {
  const char *name;
  void *pointer; /* NULL: the problem has no such array */
  void *begin;
  size_t bytes; /* 0: nothing of it is touched */
  fa_ascend_access access;
} fa_ascend_argument;

enum { FA_ASCEND_MOST_ARGUMENTS = 15, FA_ASCEND_MOST_TILING_BYTES = 1024 }; /* of a launch */

/* A kernel's parameters are the arguments and, last, where in GM the tiling struct lies. The struct is copied at the launch:
 * strides belong to a run and not to the plan, and an asynchronous copy of our own would need host memory that outlives it. */
typedef struct fa_ascend_launch {
  fa_ascend_function function;
  int32_t blocks;
  const fa_ascend_argument *arguments;
  int32_t count;
  const void *tiling;
  size_t tiling_bytes;
  int32_t follows; /* 1: another launch of the same run is before it in the stream */
} fa_ascend_launch;

static inline fa_ascend_argument fa_ascend_bytes(const char *name, const void *begin, size_t bytes, fa_ascend_access access) {
  const fa_ascend_argument argument = {name, (void *)(uintptr_t)begin, (void *)(uintptr_t)begin, begin ? bytes : 0, access};
  return argument;
}

/* A tensor of these extents (batch, seq, head, dim) and strides in elements: from its lowest element to its highest. */
fa_ascend_argument fa_ascend_tensor(const char *name, const void *data, const int64_t extents[4], const int64_t strides[4],
                                    size_t element_bytes, fa_ascend_access access);

/* What a run was given; the pointers from lse on are NULL where the problem has none. */
enum {
  FA_ASCEND_Q, FA_ASCEND_K, FA_ASCEND_V, FA_ASCEND_O, FA_ASCEND_LSE, FA_ASCEND_CU_SEQLENS_Q, FA_ASCEND_CU_SEQLENS_KV,
  FA_ASCEND_SEQLENS_KV, FA_ASCEND_PAGE_TABLE, FA_ASCEND_GIVEN
};
void fa_ascend_given(const fa_attention_problem *problem, const fa_attention_args *args,
                     fa_ascend_argument arguments[FA_ASCEND_GIVEN]);

/* ------------------------------------------------------------------ the runtime */

typedef struct fa_ascend_runtime {
  /* For prepare, never for run. Errors: UNSUPPORTED (no device code), DEVICE. */
  fa_status (*find)(const fa_context *context, const fa_ascend_code *code, fa_ascend_function *function);
  /* Errors: ARGUMENT (memory that is not the device's, as far as the runtime can tell), DEVICE. */
  fa_status (*start)(const fa_context *context, const fa_ascend_launch *launch, fa_stream stream);
} fa_ascend_runtime;

/* Tiles asked for; 0 leaves one to the rule. What is asked for has to fit, it is not made smaller. */
typedef struct fa_ascend_wish {
  int64_t level1_rows, level1_keys, cube_keys, preload, level2_rows, pairs_at_once;
  int one_level; /* Cube and Vector hand over a Cube block at a time, and Vector takes its half whole */
} fa_ascend_wish;

/* What fa_context.backend_data begins with. */
typedef struct fa_ascend_device {
  const fa_ascend_runtime *runtime;
  fa_ascend_chip chip;
  fa_ascend_wish wish;    /* of sim_backend.h; else all 0 */
  pthread_mutex_t making; /* plans of several threads may need the mask first */
  void *mask;             /* device memory, or NULL as long as no plan has needed it */
} fa_ascend_device;

static inline fa_ascend_device *fa_ascend_device_of(const fa_context *context) { return context->backend_data; }

void fa_ascend_device_open(fa_ascend_device *device, const fa_ascend_runtime *runtime, const fa_ascend_chip *chip);
void fa_ascend_device_close(fa_context *context); /* frees the mask */

/* The 2M x 2M tiling-mask of the context (core/tiling_mask.h), made the first time: 4 MiB whatever the sequences' lengths.
 * For prepare. Errors: MEMORY, DEVICE. */
enum { FA_ASCEND_MASK_M = 1024 };
fa_status fa_ascend_tiling_mask(fa_context *context, const void **mask);

/* fa_backend.prepare_run: nothing comes before a kernel here. */
fa_status fa_ascend_prepare_run(const fa_plan *plan, size_t *workspace_bytes);

#endif
