/* The way into a kernel: are these pointers this device's, what does a launch pass on, and appending before it. */
#include <string.h>

#include "cuda/append_cuda.h"
#include "cuda/cuda.h"
#include "cuda/cuda_driver.h"

/* Host memory, or another GPU's, would only be noticed by a kernel that faults and takes the context with it. */
static fa_status check_pointer(const fa_context *context, const char *name, const void *pointer) {
  if (!pointer) return FA_OK;
  unsigned type = 0;
  int ordinal = 0;
  const fa_cuda_driver *d = fa_cuda_driver_open();
  const CUdeviceptr address = (CUdeviceptr)(uintptr_t)pointer;
  if (d->pointer_attribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) != CUDA_SUCCESS)
    return fa_fail(FA_ERROR_ARGUMENT, "%s (%p) is not memory of cuda:%d; allocate it there (fa_buffer_allocate) and copy",
                   name, pointer, context->device_index);
  if (type == CU_MEMORYTYPE_DEVICE &&
      d->pointer_attribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address) == CUDA_SUCCESS &&
      ordinal != context->device_index)
    return fa_fail(FA_ERROR_ARGUMENT, "%s (%p) is memory of cuda:%d and the context is of cuda:%d; copy it there", name,
                   pointer, ordinal, context->device_index);
  return FA_OK;
}

fa_status fa_cuda_check_pointers(const fa_context *context, const fa_cuda_named_pointer *given, size_t count) {
  fa_status status = fa_cuda_enter(context); /* the driver answers questions about pointers only with one current */
  if (status != FA_OK) return status;
  for (size_t n = 0; n < count && status == FA_OK; ++n) status = check_pointer(context, given[n].name, given[n].pointer);
  fa_cuda_leave();
  return status;
}

static fa_status check_arguments(const fa_plan *plan, const fa_attention_args *args, const void *workspace) {
  const fa_attention_problem *p = &plan->problem;
  const int is_quantised = p->kv_dtype != p->dtype;
  /* Where there is nothing to read a pointer may be anything. */
  const int q = p->ragged_q ? p->total_seqlen_q > 0 : p->max_seqlen_q > 0;
  const int k = p->max_seqlen_kv > 0 && (!p->ragged_kv || p->total_seqlen_kv > 0) && (!p->page_size || p->num_pages > 0);
  const fa_cuda_named_pointer given[] = {{"q", q ? args->q.data : NULL},
                                         {"k", k ? args->k.data : NULL},
                                         {"v", k ? args->v.data : NULL},
                                         {"o", q ? args->o.data : NULL},
                                         {"workspace", plan->workspace_bytes ? workspace : NULL},
                                         {"lse", q && p->has_lse ? args->lse : NULL},
                                         {"bias", q && k && p->has_bias ? args->bias.data : NULL},
                                         {"mask", q && k && p->has_mask ? args->mask.data : NULL},
                                         {"sinks", p->has_sinks ? args->sinks : NULL},
                                         {"alibi_slopes", p->has_alibi ? args->alibi_slopes : NULL},
                                         {"cu_seqlens_q", p->ragged_q ? args->cu_seqlens_q : NULL},
                                         {"cu_seqlens_kv", p->ragged_kv ? args->cu_seqlens_kv : NULL},
                                         {"seqlens_kv", p->has_seqlens_kv ? args->seqlens_kv : NULL},
                                         {"page_table", p->page_size ? args->page_table : NULL},
                                         {"k_scale", k && is_quantised ? args->k_scale.data : NULL},
                                         {"v_scale", k && is_quantised ? args->v_scale.data : NULL},
                                         {"k_new", p->seqlen_new ? args->k_new.data : NULL},
                                         {"v_new", p->seqlen_new ? args->v_new.data : NULL},
                                         {"rotary_cos", p->rotary_dim ? args->rotary_cos : NULL},
                                         {"rotary_sin", p->rotary_dim ? args->rotary_sin : NULL}};
  return fa_cuda_check_pointers(plan->context, given, sizeof given / sizeof *given);
}

/* Whether every row of t [batch, seq, heads, ..] starts at a multiple of 16 bytes. */
static int is_aligned(const fa_tensor *t, int64_t element_bytes, int64_t batch, int64_t seq, int64_t heads) {
  const int64_t per = 16 / element_bytes;
  return (uintptr_t)t->data % 16 == 0 && (seq <= 1 || t->stride_seq % per == 0) &&
         (heads <= 1 || t->stride_head % per == 0) && (batch <= 1 || t->stride_batch % per == 0);
}

static int32_t window(int64_t given) {
  return given < 0 || given > FA_CUDA_UNLIMITED ? FA_CUDA_UNLIMITED : (int32_t)given;
}

static int32_t bounded(int64_t value) { return value > INT32_MAX ? INT32_MAX : (int32_t)value; }

void fa_cuda_params_of(const fa_plan *plan, const fa_attention_args *args, fa_cuda_params *params) {
  const fa_attention_problem *p = &plan->problem;
  memset(params, 0, sizeof *params);
  params->q = fa_cuda_tensor_of(&args->q);
  params->k = fa_cuda_tensor_of(&args->k);
  params->v = fa_cuda_tensor_of(&args->v);
  params->o = fa_cuda_tensor_of(&args->o);
  if (p->has_bias) params->bias = fa_cuda_tensor_of(&args->bias);
  if (p->has_mask) params->mask = fa_cuda_tensor_of(&args->mask);
  if (p->kv_dtype != p->dtype) {
    params->k_scale = fa_cuda_tensor_of(&args->k_scale);
    params->v_scale = fa_cuda_tensor_of(&args->v_scale);
  }
  if (p->has_lse) {
    params->lse = args->lse;
    params->lse_stride_batch = args->lse_stride_batch;
    params->lse_stride_head = args->lse_stride_head;
  }
  if (p->has_alibi) {
    params->alibi_slopes = args->alibi_slopes;
    params->alibi_stride_batch = args->alibi_stride_batch;
  }
  if (p->has_sinks) params->sinks = args->sinks;
  if (p->ragged_q) params->cu_seqlens_q = args->cu_seqlens_q;
  if (p->ragged_kv) params->cu_seqlens_kv = args->cu_seqlens_kv;
  if (p->has_seqlens_kv) params->seqlens_kv = args->seqlens_kv;
  if (p->page_size) {
    params->page_table = args->page_table;
    params->page_table_stride = args->page_table_stride;
    params->page_size = bounded(p->page_size);
    params->num_pages = bounded(p->num_pages);
  }
  params->batch = bounded(p->batch);
  params->heads_q = (int32_t)p->heads_q;
  params->heads_kv = (int32_t)p->heads_kv;
  params->group = (int32_t)plan->group;
  params->max_seqlen_q = bounded(p->max_seqlen_q);
  params->max_seqlen_kv = bounded(p->max_seqlen_kv);
  params->seqlen_new = bounded(p->seqlen_new);
  params->head_dim_qk = (int32_t)p->head_dim_qk;
  params->head_dim_v = (int32_t)p->head_dim_v;
  params->dtype = (int32_t)p->dtype;
  params->kv_dtype = (int32_t)p->kv_dtype;
  params->bias_dtype = (int32_t)p->bias_dtype;
  params->window_left = window(p->window_left);
  params->window_right = p->causal ? 0 : window(p->window_right);
  params->scale = p->scale;
  params->softcap = p->softcap;
  const int64_t size = (int64_t)fa_dtype_bytes(p->dtype), kv_size = (int64_t)fa_dtype_bytes(p->kv_dtype);
  const int64_t batch_q = p->ragged_q ? 1 : p->batch, rows_q = p->ragged_q ? p->total_seqlen_q : p->max_seqlen_q;
  const int64_t batch_kv = p->page_size ? p->num_pages : p->ragged_kv ? 1 : p->batch;
  const int64_t rows_kv = p->page_size ? p->page_size : p->ragged_kv ? p->total_seqlen_kv : p->max_seqlen_kv;
  params->aligned = is_aligned(&args->q, size, batch_q, rows_q, p->heads_q) &&
                    is_aligned(&args->k, kv_size, batch_kv, rows_kv, p->heads_kv) &&
                    is_aligned(&args->v, kv_size, batch_kv, rows_kv, p->heads_kv);
  params->aligned_o = is_aligned(&args->o, size, batch_q, rows_q, p->heads_q);
  params->splits = params->split_tile = 1;
}

fa_status fa_cuda_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  fa_status status = check_arguments(plan, args, workspace);
  if (status != FA_OK) return status;
  if (!plan->problem.seqlen_new) return plan->kernel->run(plan, args, workspace, stream);
  fa_attention_args rotated;
  status = fa_cuda_append(plan, args, (char *)workspace + plan->kernel_workspace_bytes, &rotated, stream);
  if (status != FA_OK || plan->problem.max_seqlen_q == 0) return status;
  return plan->kernel->run(plan, &rotated, workspace, stream);
}
