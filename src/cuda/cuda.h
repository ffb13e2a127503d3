/* The CUDA backend's host side: what a kernel's prepare and run need to find, size and start device code.
 *
 * The driver is opened at run time (cuda_driver.c), so the library runs on machines without one. Device code lives in
 * src/cuda/<folder>/<file>.cu; a folder decides the compile flags; each file becomes one image (a fatbin inside the
 * library) that is loaded into a context when the first plan needs it. */
#ifndef FA_CUDA_H
#define FA_CUDA_H

#include "core/kernel.h"
#include "core/status.h"
#include "cuda/cuda_params.h"

/* fa_kernel.isa bits of this backend: the device's compute capability is at least this. */
enum { FA_CUDA_SM70 = 1 << 0, FA_CUDA_SM75 = 1 << 1, FA_CUDA_SM80 = 1 << 2 };

extern const fa_backend fa_cuda_backend;

typedef struct fa_cuda_function *fa_cuda_function; /* a CUfunction */

/* The function `name` of the image `image` (its file's name without .cu), allowed to use `shared_bytes` of dynamic
 * shared memory. Loads the image the first time. For prepare, never for run.
 * Errors: UNSUPPORTED (no code for this device in the image, or it has less shared memory than asked), DEVICE. */
fa_status fa_cuda_find(const fa_context *context, const char *image, const char *name, unsigned shared_bytes,
                       fa_cuda_function *function);

/* Functions of the backend itself. Found the first time, then at hand without a lock. Errors: as above. */
typedef enum fa_cuda_common { FA_CUDA_APPEND, FA_CUDA_MERGE, FA_CUDA_COMMON /* how many */ } fa_cuda_common;
fa_status fa_cuda_find_common(const fa_context *context, fa_cuda_common which, fa_cuda_function *function);

typedef struct fa_cuda_shape {
  unsigned grid[3];
  unsigned threads; /* a block */
  unsigned shared_bytes;
  unsigned cluster; /* blocks of one, along x; 0: no clusters */
  int follows;      /* it may begin before the kernel before it on the stream has ended (any/grid_order.cuh) */
} fa_cuda_shape;

enum { FA_CUDA_CLUSTERS = 90 }; /* the compute capability that brought clusters and kernels that follow */

/* How many clusters of `shape` the device runs at once; 0: it has none, or not with this function's code. Permits the
 * function clusters of more than 8 blocks where shape has one. For prepare. */
int32_t fa_cuda_clusters_at_once(const fa_context *context, fa_cuda_function function, fa_cuda_shape shape);

/* Whether a function that calls fa_wait_for_kernels_before (any/grid_order.cuh) has that instruction in its code for this
 * device, and the driver takes such launches into graphs. For prepare. */
int fa_cuda_may_follow(const fa_context *context, fa_cuda_function function);

/* Starts a kernel whose only parameter is `const __grid_constant__ fa_cuda_params`. Errors: DEVICE. */
fa_status fa_cuda_start(const fa_context *context, fa_cuda_function function, fa_cuda_shape shape,
                        const fa_cuda_params *params, fa_stream stream);

/* The same for a kernel with a parameter struct of its own. */
fa_status fa_cuda_start_with(const fa_context *context, fa_cuda_function function, fa_cuda_shape shape,
                             const void *params, fa_stream stream);

/* fa_backend.run: checks that the pointers are this device's, appends, runs the kernel. */
fa_status fa_cuda_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream);

typedef struct fa_cuda_named_pointer {
  const char *name;
  const void *pointer; /* NULL: not looked at */
} fa_cuda_named_pointer;

/* Errors: ARGUMENT for host memory or another GPU's. */
fa_status fa_cuda_check_pointers(const fa_context *context, const fa_cuda_named_pointer *given, size_t count);

static inline fa_cuda_tensor fa_cuda_tensor_of(const fa_tensor *t) {
  const fa_cuda_tensor copy = {t->data, t->stride_batch, t->stride_seq, t->stride_head};
  return copy;
}

/* Whether scores have rules beside scale and band (fa_has_rules of sequence.cuh, of a problem). */
static inline int fa_cuda_has_rules(const fa_attention_problem *p) {
  return p->softcap > 0.0f || p->has_alibi || p->has_bias || p->has_mask;
}

/* Everything but parts (1 of the whole), stages and divisors, which are the kernel's. */
void fa_cuda_params_of(const fa_plan *plan, const fa_attention_args *args, fa_cuda_params *params);

/* Makes the context's device current, whatever was before, for calls into other libraries; and puts it back. */
fa_status fa_cuda_enter(const fa_context *context);
void fa_cuda_leave(void);

/* Of the context's device. */
int32_t fa_cuda_multiprocessors(const fa_context *context);
unsigned fa_cuda_shared_limit(const fa_context *context); /* bytes a block may have, opted in */
/* Blocks of so much dynamic shared memory that a multiprocessor holds, as far as that decides. */
int32_t fa_cuda_blocks_at_once(const fa_context *context, unsigned shared_bytes);
int64_t fa_cuda_l2_bytes(const fa_context *context); /* 0: not known */
int32_t fa_cuda_capability(const fa_context *context);    /* 70, 75, 80, 86, 89, 90, ... */

#endif
