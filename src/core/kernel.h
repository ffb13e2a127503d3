/* What a kernel is, what a backend is, and the two tables that src/backends.c fills.
 *
 * Core chooses: it walks the kernel table in order (fastest first) and takes the first one that is available on
 * the context's device, covers the problem's types, head sizes and features, and whose prepare() accepts. */
#ifndef FA_CORE_KERNEL_H
#define FA_CORE_KERNEL_H

#include "fastattention/fastattention.h"

typedef struct fa_backend fa_backend;

typedef enum fa_operation {
  FA_OPERATION_PREFILL, /* any number of query rows; bound by arithmetic */
  FA_OPERATION_DECODE,  /* at most FA_DECODE_ROWS query rows a sequence; bound by reading K and V */
  FA_OPERATION_ANY
} fa_operation;

#define FA_DECODE_ROWS 16

typedef struct fa_kernel {
  const char *name;
  const char *device;
  const char *arch;
  fa_operation operation;
  uint32_t dtypes;   /* bits 1 << fa_dtype of problem.dtype */
  uint32_t features; /* FA_FEATURE_* bits */
  int64_t max_head_dim;
  uint64_t isa; /* bits of the backend's own meaning that the device must have */
  int32_t is_baseline;

  /* Looks at plan->problem; fills tiles, kv_splits and kernel_workspace_bytes, and kernel_data if it needs some. What it
   * writes to reason (to 199 characters) stands behind why the kernel was taken. A kernel whose level-one tiles or splits
   * may be asked for (plan->request) begins with fa_check_request.
   * FA_ERROR_UNSUPPORTED passes the problem on to the next kernel of the table. */
  fa_status (*prepare)(fa_plan *plan);
  /* Frees kernel_data; NULL when there is none. */
  void (*release)(fa_plan *plan);
  /* args were checked; appended tokens are in the cache and q is rotated. workspace has kernel_workspace_bytes. */
  fa_status (*run)(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream);
} fa_kernel;

/* Two-level tiling: level one fills the near memory shared by many instructions (L2, shared memory), level two
 * the unit (AMX tiles, vector registers, MMA fragments). */
typedef struct fa_tiles {
  int64_t level1_rows;
  int64_t level1_keys;
  int64_t level2_rows;
  int64_t level2_keys;
} fa_tiles;

/* What prepare is asked to lay out in place of its own choice; 0 leaves one open. */
typedef struct fa_request {
  int64_t level1_rows;
  int64_t level1_keys;
  int64_t kv_splits;
  int32_t is_taken; /* the kernel has looked at it (fa_check_request) */
} fa_request;

struct fa_plan {
  fa_context *context;
  const fa_kernel *kernel;
  fa_attention_problem problem; /* scale resolved; kernel NULL */
  int64_t group;                /* query heads a KV head */
  fa_request request;
  fa_tiles tiles;
  int64_t kv_splits; /* >= 1 */
  size_t kernel_workspace_bytes;
  size_t workspace_bytes; /* the kernel's and what the backend needs before it */
  void *kernel_data;
  char reason[400];
};

/* Whether plan->request is something the kernel can lay out: rows and keys multiples of their step up to their most
 * (a step of 0: not to be asked for), splits up to theirs. The bounds keep the workspace small whatever a tuning file
 * says; what exceeds the problem is the kernel's to cut. ARGUMENT with a line otherwise. */
fa_status fa_check_request(fa_plan *plan, int64_t row_step, int64_t most_rows, int64_t key_step, int64_t most_keys,
                           int64_t most_splits);

typedef struct fa_tuning fa_tuning;

struct fa_context {
  const fa_backend *backend;
  int32_t device_index;
  int32_t threads;
  fa_allocator allocator;
  void *backend_data;
  fa_tuning *tuning; /* NULL: plans go by rule */
};

/* Through the context's allocator. fa_host_allocate sets the error line when it returns NULL. */
void *fa_host_allocate(const fa_context *context, size_t bytes);
void fa_host_free(const fa_context *context, void *memory);

struct fa_backend {
  const char *name; /* "cpu": the device names it serves are name and name:N */
  int32_t memory_is_host; /* 1: what fa_buffer_allocate gives, the program may touch */
  int32_t (*device_count)(void);
  const char *(*missing)(void); /* why device_count is 0, for people; NULL when it never is */
  fa_status (*device_describe)(int32_t index, fa_device_info *info);
  uint64_t (*device_isa)(int32_t index);

  fa_status (*context_open)(fa_context *context, int32_t threads); /* threads 0: choose */
  void (*context_close)(fa_context *context);

  fa_status (*buffer_allocate)(fa_context *context, size_t bytes, void **memory);
  void (*buffer_free)(fa_context *context, void *memory);
  fa_status (*buffer_copy)(fa_context *context, void *destination, const void *source, size_t bytes,
                           fa_copy_kind kind, fa_stream stream);
  fa_status (*stream_create)(fa_context *context, fa_stream *stream);
  void (*stream_destroy)(fa_context *context, fa_stream stream);
  fa_status (*stream_synchronize)(fa_context *context, fa_stream stream);
  fa_status (*event_create)(fa_context *context, fa_event **event);
  void (*event_destroy)(fa_context *context, fa_event *event);
  fa_status (*event_record)(fa_context *context, fa_event *event, fa_stream stream);
  fa_status (*event_elapsed)(fa_context *context, const fa_event *begin, const fa_event *end, double *ms);

  /* Makes ready what happens before the kernel (appending, rotating q); its workspace, 0 when nothing does. */
  fa_status (*prepare_run)(const fa_plan *plan, size_t *workspace_bytes);
  /* Checks what only the device can read, appends, rotates, then plan->kernel->run. */
  fa_status (*run)(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream);
  fa_status (*merge)(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads,
                     int64_t dim, const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b,
                     fa_stream stream);
};

/* Defined in src/backends.c; NULL-terminated. */
extern const fa_backend *const fa_backends[];
extern const fa_kernel fa_kernels[];
extern const int32_t fa_kernels_count;

static inline int64_t fa_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t fa_round_up(int64_t a, int64_t b) { return fa_ceil_div(a, b) * b; }
static inline int64_t fa_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fa_max(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
