/* Every host allocation failing in turn: the n-th request of a whole life (context, buffers, stream, event,
 * plan, run) is refused, for n = 0, 1, ... until everything succeeds. What comes back must be MEMORY and
 * nothing may leak. A run that asks for memory at all fails here, too. */
#include <stdlib.h>
#include <string.h>

#include "check/check_session.h"

typedef struct hook {
  int64_t until_failure; /* requests granted before one is refused */
  int64_t held;          /* granted and not released */
  int64_t requests;
} hook;

static void *allocate(void *user, size_t bytes, size_t alignment) {
  hook *h = user;
  h->requests++;
  if (h->until_failure-- == 0) return NULL;
  void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory) h->held++;
  return memory;
}

static void release(void *user, void *memory) {
  hook *h = user;
  h->held--;
  free(memory);
}

enum { QUERIES = 5, KEYS = 70, DIM = 64, ELEMENTS = KEYS * DIM };

/* FA_OK, or what the first failing call said. */
static fa_status one_life(hook *h, const fa_session *s, const fa_kernel *kernel, fa_dtype dtype,
                          int32_t *run_asked) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  fa_plan *plan = NULL;
  void *buffers[5] = {NULL, NULL, NULL, NULL, NULL}; /* q, k, v, o, workspace */
  fa_stream stream = NULL;
  fa_event *event = NULL;
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  fa_attention_args a = FA_ATTENTION_ARGS_INIT;
  static const float zeros[ELEMENTS];
  fa_tensor *const tensors[4] = {&a.q, &a.k, &a.v, &a.o};

  options.device = s->options.device;
  options.threads = 2;
  options.allocator.allocate = allocate;
  options.allocator.release = release;
  options.allocator.user = h;
  p.dtype = p.kv_dtype = dtype;
  p.max_seqlen_q = QUERIES;
  p.max_seqlen_kv = KEYS;
  p.head_dim_qk = p.head_dim_v = DIM;
  p.kernel = kernel->name;

  fa_status status = fa_context_create(&options, &context);
  if (status == FA_OK) status = fa_stream_create(context, &stream);
  if (status == FA_OK) status = fa_event_create(context, &event);
  if (status == FA_OK) status = fa_plan_create(context, &p, &plan);
  const size_t workspace = fa_plan_workspace_bytes(plan);
  for (int n = 0; n < 4 && status == FA_OK; n++) {
    status = fa_buffer_allocate(context, ELEMENTS * sizeof(float), &buffers[n]);
    if (status != FA_OK) break;
    status = fa_buffer_copy(context, buffers[n], zeros, sizeof zeros, FA_COPY_HOST_TO_DEVICE, stream);
    tensors[n]->data = buffers[n];
    tensors[n]->stride_seq = tensors[n]->stride_head = DIM;
  }
  if (status == FA_OK) status = fa_buffer_allocate(context, workspace, &buffers[4]);
  if (status == FA_OK) {
    const int64_t before = h->requests;
    status = fa_attention_run(plan, &a, buffers[4], workspace, stream);
    *run_asked = h->requests != before;
  }
  if (stream) (void)fa_stream_synchronize(context, stream);
  for (int n = 0; n < 5; n++) fa_buffer_free(context, buffers[n]);
  fa_plan_destroy(plan);
  fa_event_destroy(context, event);
  if (context) fa_stream_destroy(context, stream);
  fa_context_destroy(context);
  return status;
}

static void check_kernel(fa_session *s, const fa_kernel *kernel, fa_dtype dtype) {
  for (int64_t n = 0;; n++) {
    hook h = {n, 0, 0};
    int32_t run_asked = 0;
    const fa_status status = one_life(&h, s, kernel, dtype, &run_asked);
    if (status == FA_ERROR_UNSUPPORTED) return;
    const int refused = h.until_failure < 0;
    const int passed = h.held == 0 && !run_asked && status == (refused ? FA_ERROR_MEMORY : FA_OK);
    fa_session_function(s, passed, "allocation %lld of %s %s refused: status %s (%s), %lld blocks leaked%s",
                        (long long)n, kernel->name, fa_dtype_name(dtype), fa_status_name(status),
                        fa_last_error(), (long long)h.held, run_asked ? ", and the run allocated" : "");
    if (!refused || !passed) return;
  }
}

void fa_check_allocation(fa_session *s) {
  for (int32_t k = 0; k < fa_kernels_count; k++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(k, &info) != FA_OK || !info.available) continue;
    if (strcmp(info.device, s->contexts[0]->backend->name) != 0) continue;
    for (int dtype = FA_FLOAT32; dtype <= FA_BFLOAT16; dtype++) {
      if (info.dtypes >> dtype & 1u) check_kernel(s, &fa_kernels[k], (fa_dtype)dtype);
    }
  }
}
