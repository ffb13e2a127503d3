/* What every CPU kernel shares: instruction-set bits, the view of one batch entry, and the parallel loop.
 * Everything here that an ISA file calls per row is static inline (see core/dtype.h for why). */
#ifndef FA_CPU_H
#define FA_CPU_H

#include "core/dtype.h"
#include "core/kernel.h"
#include "core/status.h"
#include "core/tiling_mask.h"

/* fa_kernel.isa bits of this backend; 0 runs anywhere. */
enum {
  FA_CPU_AVX2 = 1 << 0,        /* AVX2, FMA, F16C */
  FA_CPU_AVX512 = 1 << 1,      /* F, BW, DQ, VL, and AVX2's */
  FA_CPU_AVX512_BF16 = 1 << 2, /* vcvtne2ps2bf16 */
  FA_CPU_AMX_BF16 = 1 << 3,    /* tiles granted by the kernel, bf16 products */
  FA_CPU_BF16_DOT = 1 << 4,    /* vdpbf16ps pays; beside a tile unit it has half the rate of fp32 products */
  FA_CPU_AVX512_VNNI = 1 << 8, /* vpdpbusd on 512 bits */
  FA_CPU_AMX_INT8 = 1 << 9,    /* byte products on tiles */
  FA_CPU_NEON = 1 << 5,        /* AArch64's Advanced SIMD, as every Armv8-A has it */
  FA_CPU_NEON_FHM = 1 << 6,    /* fp16 multiplied into fp32: FMLAL (Armv8.2 and later) */
  FA_CPU_NEON_BF16 = 1 << 7    /* bf16 matrix product into fp32: BFMMLA (Armv8.6, or 8.2 with FEAT_BF16) */
};
uint64_t fa_cpu_isa(void);

extern const fa_backend fa_cpu_backend;

/* fa_merge of the public header, checked. */
fa_status fa_cpu_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads,
                       int64_t dim, const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b,
                       fa_stream stream);

/* Bytes; 0 when unknown. Level 1, 2, 3. */
int64_t fa_cpu_cache_bytes(int level);

/* Calls body on `threads` threads, each of which takes items from the shared counter until none is left:
 *   while ((item = fa_cpu_take(work)) >= 0) ...
 * Items must not depend on each other, nor on which thread takes them (same inputs, same bits). */
typedef struct fa_cpu_work {
  int64_t items;
  int64_t next;
} fa_cpu_work;
static inline int64_t fa_cpu_take(fa_cpu_work *work) {
  const int64_t item = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
  return item < work->items ? item : -1;
}
typedef void (*fa_cpu_body)(void *shared, fa_cpu_work *work, int thread);
void fa_cpu_parallel(int threads, int64_t items, fa_cpu_body body, void *shared);

/* ------------------------------------------------------- one batch entry */

/* Rows of one head: row i starts at data + i * stride bytes. */
typedef struct fa_cpu_rows {
  char *data;
  int64_t stride;
} fa_cpu_rows;

static inline int64_t fa_cpu_seqlen_q(const fa_plan *plan, const fa_attention_args *args, int64_t b) {
  return plan->problem.ragged_q ? args->cu_seqlens_q[b + 1] - args->cu_seqlens_q[b]
                                : plan->problem.max_seqlen_q;
}

/* Appended tokens included. */
static inline int64_t fa_cpu_seqlen_kv(const fa_plan *plan, const fa_attention_args *args, int64_t b) {
  if (plan->problem.has_seqlens_kv) return args->seqlens_kv[b] + plan->problem.seqlen_new;
  return plan->problem.ragged_kv ? args->cu_seqlens_kv[b + 1] - args->cu_seqlens_kv[b]
                                 : plan->problem.max_seqlen_kv;
}

/* Rows of q or o (both of problem.dtype) of batch entry b, query head h. */
static inline fa_cpu_rows fa_cpu_q_rows(const fa_plan *plan, const fa_attention_args *args, const fa_tensor *t,
                                        int64_t b, int64_t h) {
  const int64_t size = (int64_t)fa_dtype_size(plan->problem.dtype);
  const int64_t start = plan->problem.ragged_q ? args->cu_seqlens_q[b] * t->stride_seq : b * t->stride_batch;
  fa_cpu_rows rows = {(char *)t->data + (start + h * t->stride_head) * size, t->stride_seq * size};
  return rows;
}

/* Where lse of (b, h, i) lives is lse + i. */
static inline float *fa_cpu_lse_row(const fa_plan *plan, const fa_attention_args *args, int64_t b, int64_t h) {
  const int64_t start = plan->problem.ragged_q ? args->cu_seqlens_q[b] : b * args->lse_stride_batch;
  return args->lse + start + h * args->lse_stride_head;
}

/* Tokens of k, v or their scales of one batch entry and KV head: contiguous at a stride, or in pages. */
typedef struct fa_cpu_tokens {
  char *data;
  int64_t stride;         /* bytes between tokens (of a page) */
  int64_t page_stride;    /* bytes between pages */
  int64_t page_size;      /* 0: not paged */
  const int32_t *pages;   /* this entry's row of the page table */
} fa_cpu_tokens;

static inline fa_cpu_tokens fa_cpu_tokens_of(const fa_plan *plan, const fa_attention_args *args,
                                             const fa_tensor *t, size_t element_bytes, int64_t b, int64_t kv_head) {
  const int64_t size = (int64_t)element_bytes;
  if (!t->data) return (fa_cpu_tokens){NULL, 0, 0, 0, NULL}; /* no entry has a token */
  fa_cpu_tokens tokens = {(char *)t->data + kv_head * t->stride_head * size, t->stride_seq * size,
                          plan->problem.ragged_kv ? 0 : t->stride_batch * size, plan->problem.page_size, NULL};
  if (tokens.page_size) tokens.pages = args->page_table + b * args->page_table_stride;
  else if (plan->problem.ragged_kv) tokens.data += args->cu_seqlens_kv[b] * tokens.stride;
  else tokens.data += b * tokens.page_stride;
  return tokens;
}

static inline char *fa_cpu_token(const fa_cpu_tokens *tokens, int64_t j) {
  if (!tokens->page_size) return tokens->data + j * tokens->stride;
  return tokens->data + tokens->pages[j / tokens->page_size] * tokens->page_stride +
         (j % tokens->page_size) * tokens->stride;
}

/* How many tokens from j on lie at the constant stride (to the end of j's page; all when not paged). */
static inline int64_t fa_cpu_token_run(const fa_cpu_tokens *tokens, int64_t j, int64_t end) {
  if (!tokens->page_size) return end - j;
  return fa_min(end - j, tokens->page_size - j % tokens->page_size);
}

#endif
