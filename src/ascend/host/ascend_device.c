/* What both Ascend backends have: chips by name, a launch's arguments from a problem's, the context's tiling-mask. */
#include <stdio.h>
#include <string.h>

#include "ascend/host/ascend.h"
#include "core/tiling_mask.h"

int fa_ascend_chip_named(const char *name, fa_ascend_chip *chip) {
  static const struct {
    const char *name;
    int32_t groups;
  } chips[] = {{"910B1", 24}, {"910B2", 24}, {"910B3", 20}, {"910B4", 20}};
  for (size_t n = 0; n < sizeof chips / sizeof chips[0]; ++n) {
    if (strncmp(name, chips[n].name, strlen(chips[n].name)) != 0) continue;
    memset(chip, 0, sizeof *chip);
    snprintf(chip->name, sizeof chip->name, "%s", chips[n].name);
    chip->groups = chips[n].groups;
    chip->l2_bytes = (int64_t)192 << 20;
    return 1;
  }
  return 0;
}

/* --------------------------------------------------------------------- arguments */

fa_ascend_argument fa_ascend_tensor(const char *name, const void *data, const int64_t extents[4], const int64_t strides[4],
                                    size_t element_bytes, fa_ascend_access access) {
  fa_ascend_argument argument = {name, (void *)(uintptr_t)data, (void *)(uintptr_t)data, 0, access};
  int64_t low = 0, high = 0;
  for (int n = 0; n < 4; ++n) {
    if (extents[n] == 0) return argument;
    const int64_t reach = (extents[n] - 1) * strides[n];
    if (reach < 0) low += reach;
    else high += reach;
  }
  argument.begin = (char *)argument.pointer + low * (int64_t)element_bytes;
  argument.bytes = (size_t)(high - low + 1) * element_bytes;
  return argument;
}

static fa_ascend_argument rows_of(const char *name, const fa_tensor *t, const int64_t extents[4], int is_ragged,
                                  size_t element_bytes, fa_ascend_access access) {
  const int64_t strides[4] = {is_ragged ? 0 : t->stride_batch, t->stride_seq, t->stride_head, 1};
  return fa_ascend_tensor(name, t->data, extents, strides, element_bytes, access);
}

void fa_ascend_given(const fa_attention_problem *p, const fa_attention_args *a, fa_ascend_argument to[FA_ASCEND_GIVEN]) {
  const size_t size = fa_dtype_bytes(p->dtype);
  const int64_t batch_q = p->ragged_q ? 1 : p->batch, rows_q = p->ragged_q ? p->total_seqlen_q : p->max_seqlen_q;
  const int64_t batch_kv = p->page_size ? p->num_pages : p->ragged_kv ? 1 : p->batch;
  const int64_t rows_kv = p->max_seqlen_kv == 0 ? 0
                          : p->page_size        ? p->page_size
                          : p->ragged_kv        ? p->total_seqlen_kv
                                                : p->max_seqlen_kv;
  const int64_t q[4] = {batch_q, rows_q, p->heads_q, p->head_dim_qk}, o[4] = {batch_q, rows_q, p->heads_q, p->head_dim_v};
  const int64_t k[4] = {batch_kv, rows_kv, p->heads_kv, p->head_dim_qk}, v[4] = {batch_kv, rows_kv, p->heads_kv, p->head_dim_v};
  const int64_t lse[4] = {batch_q, p->heads_q, rows_q, 1};
  const int64_t lse_strides[4] = {p->ragged_q ? 0 : a->lse_stride_batch, a->lse_stride_head, 1, 1};
  const int64_t pages = p->page_size ? fa_ceil_div(p->max_seqlen_kv, p->page_size) : 0;
  const int64_t table[4] = {p->batch, pages, 1, 1}, table_strides[4] = {p->page_size ? a->page_table_stride : 0, 1, 0, 0};
  const size_t lengths = (size_t)p->batch * sizeof(int32_t), cumulative = lengths + sizeof(int32_t);
  to[FA_ASCEND_Q] = rows_of("q", &a->q, q, p->ragged_q, size, FA_ASCEND_READS);
  to[FA_ASCEND_K] = rows_of("k", &a->k, k, p->ragged_kv, size, FA_ASCEND_READS);
  to[FA_ASCEND_V] = rows_of("v", &a->v, v, p->ragged_kv, size, FA_ASCEND_READS);
  to[FA_ASCEND_O] = rows_of("o", &a->o, o, p->ragged_q, size, FA_ASCEND_WRITES);
  to[FA_ASCEND_LSE] = fa_ascend_bytes("lse", NULL, 0, FA_ASCEND_WRITES);
  if (p->has_lse) to[FA_ASCEND_LSE] = fa_ascend_tensor("lse", a->lse, lse, lse_strides, sizeof(float), FA_ASCEND_WRITES);
  to[FA_ASCEND_CU_SEQLENS_Q] =
      fa_ascend_bytes("cu_seqlens_q", p->ragged_q ? a->cu_seqlens_q : NULL, cumulative, FA_ASCEND_READS);
  to[FA_ASCEND_CU_SEQLENS_KV] =
      fa_ascend_bytes("cu_seqlens_kv", p->ragged_kv ? a->cu_seqlens_kv : NULL, cumulative, FA_ASCEND_READS);
  to[FA_ASCEND_SEQLENS_KV] = fa_ascend_bytes("seqlens_kv", p->has_seqlens_kv ? a->seqlens_kv : NULL, lengths, FA_ASCEND_READS);
  to[FA_ASCEND_PAGE_TABLE] = fa_ascend_bytes("page_table", NULL, 0, FA_ASCEND_READS);
  if (p->page_size)
    to[FA_ASCEND_PAGE_TABLE] =
        fa_ascend_tensor("page_table", a->page_table, table, table_strides, sizeof(int32_t), FA_ASCEND_READS);
}

/* --------------------------------------------------------------------- a context's device */

void fa_ascend_device_open(fa_ascend_device *device, const fa_ascend_runtime *runtime, const fa_ascend_chip *chip) {
  device->runtime = runtime;
  device->chip = *chip;
  memset(&device->wish, 0, sizeof device->wish);
  device->mask = NULL;
  pthread_mutex_init(&device->making, NULL);
}

void fa_ascend_device_close(fa_context *context) {
  fa_ascend_device *device = fa_ascend_device_of(context);
  if (device->mask) context->backend->buffer_free(context, device->mask);
  pthread_mutex_destroy(&device->making);
}

static fa_status make_mask(fa_context *context, void **mask) {
  const size_t bytes = fa_tiling_mask_bytes(FA_ASCEND_MASK_M);
  uint8_t *host = fa_host_allocate(context, bytes);
  if (!host) return FA_ERROR_MEMORY;
  fa_tiling_mask_fill(FA_ASCEND_MASK_M, host);
  void *made = NULL;
  fa_status status = context->backend->buffer_allocate(context, bytes, &made);
  if (status == FA_OK) {
    status = context->backend->buffer_copy(context, made, host, bytes, FA_COPY_HOST_TO_DEVICE, NULL);
    if (status == FA_OK) status = context->backend->stream_synchronize(context, NULL);
    if (status == FA_OK) *mask = made;
    else context->backend->buffer_free(context, made);
  }
  fa_host_free(context, host);
  return status;
}

fa_status fa_ascend_tiling_mask(fa_context *context, const void **mask) {
  fa_ascend_device *device = fa_ascend_device_of(context);
  fa_status status = FA_OK;
  pthread_mutex_lock(&device->making);
  if (!device->mask) status = make_mask(context, &device->mask);
  *mask = device->mask;
  pthread_mutex_unlock(&device->making);
  return status;
}

fa_status fa_ascend_prepare_run(const fa_plan *plan, size_t *workspace_bytes) {
  (void)plan;
  *workspace_bytes = 0;
  return FA_OK;
}
