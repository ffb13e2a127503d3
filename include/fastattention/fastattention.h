/* FastAttention: exact attention, fast, on CPUs and the accelerators FlashAttention leaves out.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   o = softmax(rules(scale * q k^T)) v          one problem, one call, any device
 *
 * Life of a program: a context (one device, its threads, its allocator), a plan (an immutable choice of
 * kernel, tiles and splits for a problem's *maxima*), and any number of runs of that plan (pointers, stream).
 *
 *   fa_context *ctx;           fa_context_create(NULL, &ctx);
 *   fa_attention_problem p =   FA_ATTENTION_PROBLEM_INIT;   p.batch = ...;
 *   fa_plan *plan;             fa_plan_create(ctx, &p, &plan);
 *   fa_attention_args a =      FA_ATTENTION_ARGS_INIT;      a.q.data = ...;
 *   fa_attention_run(plan, &a, workspace, fa_plan_workspace_bytes(plan), NULL);
 *
 * Conventions, everywhere:
 *   - Every function that can fail returns fa_status; fa_last_error() then holds one line for this thread:
 *     what was given, what is allowed, what to do.
 *   - A run never allocates, prints, synchronises with the host or exits. The caller owns tensors and workspace.
 *   - Descriptors start with struct_size, are set up by their INIT macro and only ever grow at the end.
 *   - Sizes are counts of elements unless the name says bytes. Strides are in elements and may be any value,
 *     0 (broadcast) and negative included, except that outputs must not overlap themselves.
 *   - The innermost stride (the head size of q, k, v, o; the key of bias and mask) is always 1.
 *   - Pointers are aligned to their element. o and lse overlap no other tensor (o = q in place is not allowed).
 */
#ifndef FASTATTENTION_H
#define FASTATTENTION_H

#include <stddef.h>
#include <stdint.h>

#define FA_VERSION_MAJOR 0
#define FA_VERSION_MINOR 1
#define FA_VERSION_PATCH 0

#if defined(_WIN32)
#define FA_API
#else
#define FA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ status */

/* Groups are spaced so that finer codes can join a group: code / 100 is the group. */
typedef enum fa_status {
  FA_OK = 0,
  FA_ERROR_ARGUMENT = 100,    /* a value no device could accept: shape, stride, pointer, index, name */
  FA_ERROR_UNSUPPORTED = 200, /* a valid problem that this device (or the kernel asked for) does not do */
  FA_ERROR_WORKSPACE = 300,   /* workspace missing, too small or misaligned */
  FA_ERROR_MEMORY = 400,      /* an allocation failed */
  FA_ERROR_DEVICE = 500,      /* the device or its runtime failed, or is not there */
  FA_ERROR_COMM = 600         /* a rank or its transport failed */
} fa_status;

/* "ok", "argument", "unsupported", ...; never NULL, also for unknown values. */
FA_API const char *fa_status_name(fa_status status);

/* The line of the last failing call of this thread; "" when none failed yet. Valid until the thread's next
 * failing call. */
FA_API const char *fa_last_error(void);

/* "0.1.0" and the commit it was built from ("unknown" outside a checkout). Static storage. */
FA_API const char *fa_version(void);
FA_API const char *fa_commit(void);

/* ------------------------------------------------------------------- types */

typedef enum fa_dtype {
  FA_FLOAT32 = 0,
  FA_FLOAT16 = 1,  /* IEEE 754 binary16 */
  FA_BFLOAT16 = 2, /* upper half of binary32 */
  FA_INT8 = 3,     /* KV cache only: value = int8 * scale */
  FA_FP8_E4M3 = 4  /* KV cache only: OCP E4M3 (maximum 448, NaN 0x7f, no infinity); value = fp8 * scale */
} fa_dtype;

FA_API size_t fa_dtype_bytes(fa_dtype dtype);     /* 0 for an unknown value */
FA_API const char *fa_dtype_name(fa_dtype dtype); /* "f32", "f16", "bf16", "int8", "fp8" */

/* A rank-4 tensor in the order (batch, seq, head, dim), stride of dim 1. B,S,H,D and B,H,S,D memory are both
 * just strides. Tensors of a paged cache are (page, slot, head, dim): stride_batch steps between pages and
 * stride_seq between the slots of a page. Ragged tensors are (total, head, dim): stride_batch is not read. */
typedef struct fa_tensor {
  void *data; /* nullable only where the field's comment says so; inputs are never written */
  int64_t stride_batch;
  int64_t stride_seq;
  int64_t stride_head;
} fa_tensor;

/* ----------------------------------------------------------------- context */

/* One device with its thread count and allocator. May be shared by threads; creation and destruction are not
 * concurrent with any other use of the same context. Plans made on a context must be destroyed before it. */
typedef struct fa_context fa_context;

/* A device queue: the backend's own handle (a cudaStream_t on CUDA), so that foreign streams pass as they are.
 * NULL is the device's default stream. On the CPU a stream is always idle: work is done when the call returns. */
typedef void *fa_stream;

/* A point in a stream. One thread at a time. */
typedef struct fa_event fa_event;

/* Replaces malloc/free for every host allocation the library makes for this context. Must be callable from
 * any thread. allocate returns NULL on failure and memory aligned to `alignment` (a power of two) otherwise. */
typedef struct fa_allocator {
  void *(*allocate)(void *user, size_t bytes, size_t alignment);
  void (*release)(void *user, void *memory);
  void *user;
} fa_allocator;

typedef struct fa_context_options {
  size_t struct_size;
  const char *device;     /* "cpu", "cuda", "cuda:N", "ascend", "ascend-sim"; NULL is "cpu" */
  int32_t threads;        /* CPU threads of a run; 0 is one per core this process may use */
  int32_t reserved0;      /* 0 */
  fa_allocator allocator; /* all-zero for malloc */
} fa_context_options;

#define FA_CONTEXT_OPTIONS_INIT \
  { sizeof(fa_context_options), NULL, 0, 0, { NULL, NULL, NULL } }

/* options NULL is the CPU with all its cores.
 * Errors: ARGUMENT (unknown device, negative threads), DEVICE (not there), MEMORY. */
FA_API fa_status fa_context_create(const fa_context_options *options, fa_context **context);
FA_API void fa_context_destroy(fa_context *context); /* NULL is fine */
FA_API int32_t fa_context_threads(const fa_context *context);

/* Device memory, aligned to 64 bytes or better. bytes 0 gives a NULL that fa_buffer_free accepts.
 * Errors: MEMORY, DEVICE. */
FA_API fa_status fa_buffer_allocate(fa_context *context, size_t bytes, void **memory);
FA_API void fa_buffer_free(fa_context *context, void *memory);

typedef enum fa_copy_kind {
  FA_COPY_HOST_TO_DEVICE = 0,
  FA_COPY_DEVICE_TO_HOST = 1,
  FA_COPY_DEVICE_TO_DEVICE = 2
} fa_copy_kind;

/* In stream order; host memory must stay valid until the stream has passed the copy. */
FA_API fa_status fa_buffer_copy(fa_context *context, void *destination, const void *source, size_t bytes,
                                fa_copy_kind kind, fa_stream stream);

FA_API fa_status fa_stream_create(fa_context *context, fa_stream *stream);
FA_API void fa_stream_destroy(fa_context *context, fa_stream stream);
FA_API fa_status fa_stream_synchronize(fa_context *context, fa_stream stream);
FA_API fa_status fa_event_create(fa_context *context, fa_event **event);
FA_API void fa_event_destroy(fa_context *context, fa_event *event);
FA_API fa_status fa_event_record(fa_context *context, fa_event *event, fa_stream stream);
/* Milliseconds between two recorded events whose streams have been synchronised. */
FA_API fa_status fa_event_elapsed(fa_context *context, const fa_event *begin, const fa_event *end, double *ms);

/* --------------------------------------------------------- the attention problem */

/* Everything a plan needs to know. Zero means "off" for every feature except the two windows (-1), so start
 * from FA_ATTENTION_PROBLEM_INIT. Lengths here are maxima; the real ones are read when a run starts.
 *
 * Score of query i (of S_q) against key j (of S_kv) of one batch entry, in this order:
 *   s  = scale * q_i . k_j
 *   s  = softcap * tanh(s / softcap)                          softcap > 0
 *   s += -slope[head] * |i + S_kv - S_q - j|                  alibi
 *   s += bias[batch, head, i, j]                              bias
 * and key j is kept if all of these hold (masks select; what is masked out is never multiplied):
 *   j <= i + S_kv - S_q                                       causal (bottom-right aligned)
 *   i + S_kv - S_q - L <= j <= i + S_kv - S_q + R             window (L, R), each -1 for unlimited
 *   mask[batch, head, i, j] != 0                              mask
 * o_i = sum_j exp(s_j - lse_i) v_j,  lse_i = log(sum_j exp(s_j) [+ exp(sink[head])])   natural logarithm.
 * A row that keeps no key gives o = 0 and lse = -inf (lse = sink with a sink). */
typedef struct fa_attention_problem {
  size_t struct_size;

  fa_dtype dtype;    /* q, o, k_new, v_new: FLOAT32, FLOAT16 or BFLOAT16; scores and sums are always fp32 */
  fa_dtype kv_dtype; /* k and v: `dtype`, INT8 or FP8_E4M3 */

  int64_t batch;          /* >= 1 */
  int64_t heads_q;        /* >= 1, a multiple of heads_kv */
  int64_t heads_kv;       /* >= 1; query head h reads KV head h / (heads_q / heads_kv) */
  int64_t max_seqlen_q;   /* >= 0: longest query of the batch */
  int64_t max_seqlen_kv;  /* >= 0: longest key sequence, appended tokens included */
  int64_t head_dim_qk;    /* 1 .. 576 */
  int64_t head_dim_v;     /* 1 .. 576 */

  float scale;            /* finite; INIT's 0 stands for 1 / sqrt(head_dim_qk) */
  float softcap;          /* finite, >= 0; 0 is off */
  int64_t window_left;    /* >= -1 */
  int64_t window_right;   /* >= -1 */
  int32_t causal;         /* 0 or 1 */
  int32_t has_alibi;      /* 0 or 1: args.alibi_slopes is read */
  int32_t has_sinks;      /* 0 or 1: args.sinks is read */
  int32_t has_mask;       /* 0 or 1: args.mask is read */
  int32_t has_bias;       /* 0 or 1: args.bias is read */
  fa_dtype bias_dtype;    /* FLOAT32, FLOAT16 or BFLOAT16 */
  int32_t has_lse;        /* 0 or 1: args.lse is written */

  /* Ragged batches: q and o (or k and v) hold their sequences one after another, entry b in rows
   * cu_seqlens[b] .. cu_seqlens[b + 1]. total_* bounds the rows of those tensors. */
  int32_t ragged_q;       /* 0 or 1: args.cu_seqlens_q is read */
  int32_t ragged_kv;      /* 0 or 1: args.cu_seqlens_kv is read; not together with page_size */
  int32_t has_seqlens_kv; /* 0 or 1: args.seqlens_kv is read (KV length of each entry, else max_seqlen_kv) */
  int64_t total_seqlen_q; /* rows of q and o when ragged_q */
  int64_t total_seqlen_kv;/* rows of k and v when ragged_kv */

  /* Paged cache: k and v are (num_pages, page_size, heads_kv, dim), args.page_table says which pages. */
  int64_t page_size;      /* tokens a page, >= 1; 0 is not paged */
  int64_t num_pages;      /* pages k and v hold; table entries in use must lie in 0 .. num_pages - 1 */

  /* Appending: seqlen_new tokens of k_new and v_new (rotated first, if rotary_dim) are written into the cache k, v
   * behind the seqlens_kv[b] tokens already there, then attention runs over all of them. Needs has_seqlens_kv;
   * S_kv = seqlens_kv[b] + seqlen_new. q is rotated at positions S_kv - S_q + i without being written. */
  int64_t seqlen_new;        /* 0 is off; at most max_seqlen_kv */
  int64_t rotary_dim;        /* 0 is off; even, at most head_dim_qk */
  int64_t rotary_positions;  /* rows of rotary_cos and rotary_sin, >= max_seqlen_kv */
  int32_t rotary_interleaved;/* 0: pairs (d, d + rotary_dim / 2); 1: pairs (2d, 2d + 1) */
  int32_t kv_splits;         /* parts each KV sequence is cut into and merged by log-sum-exp; 0 chooses; a kernel
                              * may take fewer (256 on GPUs), which fa_plan_info says */

  /* A kernel by name ("prefill_bf16_amx"), by family ("c", "avx2", "avx512", "amx") or a baseline ("standard",
   * "eager"); NULL chooses the fastest that does the problem. Read while the plan is made. */
  const char *kernel;
} fa_attention_problem;

#define FA_ATTENTION_PROBLEM_INIT                                                                            \
  { sizeof(fa_attention_problem), FA_FLOAT32, FA_FLOAT32, 1, 1, 1, 0, 0, 1, 1, 0.0f, 0.0f, -1, -1, 0, 0, 0,  \
    0, 0, FA_FLOAT32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL }

/* ------------------------------------------------------------------------ plan */

/* Immutable; may be run by any number of threads at once, each with a workspace of its own. */
typedef struct fa_plan fa_plan;

/* Errors: ARGUMENT, UNSUPPORTED (no kernel of this device, or not the one named, does this problem), MEMORY. */
FA_API fa_status fa_plan_create(fa_context *context, const fa_attention_problem *problem, fa_plan **plan);
FA_API void fa_plan_destroy(fa_plan *plan); /* NULL is fine */

/* Device bytes a run needs, aligned to 64. May be 0. */
FA_API size_t fa_plan_workspace_bytes(const fa_plan *plan);

/* What the plan chose. Strings live as long as the library (reason: as long as the plan). */
typedef struct fa_plan_info {
  size_t struct_size;
  const char *kernel;   /* name in the kernel table */
  const char *arch;     /* instruction set or architecture of the kernel */
  const char *reason;   /* why this one, in one line */
  int64_t level1_rows;  /* two-level tiling: query rows and keys that fill the near memory (L2, shared memory) */
  int64_t level1_keys;
  int64_t level2_rows;  /* ... and those that fill the unit (AMX tiles, registers, MMA fragments) */
  int64_t level2_keys;
  int64_t kv_splits;
  int64_t threads;
  size_t workspace_bytes;
} fa_plan_info;

#define FA_PLAN_INFO_INIT \
  { sizeof(fa_plan_info), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0 }

FA_API fa_status fa_plan_describe(const fa_plan *plan, fa_plan_info *info);

/* ------------------------------------------------------------------------- run */

/* Device pointers of one run. Shapes are those of the plan's problem. */
typedef struct fa_attention_args {
  size_t struct_size;

  fa_tensor q; /* [batch, max_seqlen_q, heads_q, head_dim_qk] or ragged [total_seqlen_q, heads_q, head_dim_qk] */
  fa_tensor k; /* [batch, max_seqlen_kv, heads_kv, head_dim_qk], ragged or paged; written only by appending */
  fa_tensor v; /* [batch, max_seqlen_kv, heads_kv, head_dim_v], ragged or paged; written only by appending */
  fa_tensor o; /* [batch, max_seqlen_q, heads_q, head_dim_v] or ragged; written */

  float *lse;  /* [batch, heads_q, max_seqlen_q], or ragged [heads_q, total_seqlen_q]; stride of seq 1; has_lse */
  int64_t lse_stride_batch; /* not read when ragged */
  int64_t lse_stride_head;

  const float *alibi_slopes;    /* [batch, heads_q]; has_alibi */
  int64_t alibi_stride_batch;   /* 0: one row of slopes for the whole batch */
  const float *sinks;           /* [heads_q] logits, not scaled; has_sinks */

  /* [batch, heads_q, max_seqlen_q, max_seqlen_kv] with stride_seq stepping over queries and 1 over keys; a
   * stride of 0 broadcasts that dimension. Query index i counts within its batch entry, ragged or not. */
  fa_tensor bias;               /* of bias_dtype; has_bias */
  fa_tensor mask;               /* of uint8, 0 masks the key out; has_mask */

  const int32_t *cu_seqlens_q;  /* [batch + 1], from 0, not falling, at most total_seqlen_q; ragged_q */
  const int32_t *cu_seqlens_kv; /* [batch + 1]; ragged_kv */
  const int32_t *seqlens_kv;    /* [batch], 0 .. max_seqlen_kv - seqlen_new; has_seqlens_kv */
  const int32_t *page_table;    /* [batch, pages]: page of tokens n * page_size ..; page_size; unused slots are
                                 * never read */
  int64_t page_table_stride;    /* between batch entries, >= ceil(max_seqlen_kv / page_size) */

  fa_tensor k_new;              /* [batch, seqlen_new, heads_kv, head_dim_qk] of dtype; seqlen_new */
  fa_tensor v_new;              /* [batch, seqlen_new, heads_kv, head_dim_v] of dtype; seqlen_new */
  const float *rotary_cos;      /* [rotary_positions, rotary_dim / 2]; rotary_dim */
  const float *rotary_sin;      /* [rotary_positions, rotary_dim / 2]; rotary_dim */

  /* Scales of an INT8 or FP8 cache, fp32, indexed like k and v without the dim: strides of 0 make them per
   * head, per token or per tensor. Appending writes int8/fp8 values using the scales found there, or, where
   * stride_seq is not 0 (per token), computes and stores the token's own scale first. */
  fa_tensor k_scale;
  fa_tensor v_scale;
} fa_attention_args;

/* Zero-initialise, then set struct_size. */
#ifdef __cplusplus
#define FA_ATTENTION_ARGS_INIT \
  { sizeof(fa_attention_args) }
#else
#define FA_ATTENTION_ARGS_INIT \
  { .struct_size = sizeof(fa_attention_args) }
#endif

/* Enqueues the work on `stream`. workspace: device memory of fa_plan_workspace_bytes (NULL if that is 0),
 * aligned to 64, used by no other run in flight.
 * Errors: ARGUMENT (NULL where a tensor is needed, self-overlapping output; on the CPU also lengths and page
 * indices out of range; nothing is written then), WORKSPACE, DEVICE. */
FA_API fa_status fa_attention_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                  size_t workspace_bytes, fa_stream stream);

/* Joins two attentions of the same queries over disjoint keys: with w = exp(lse_b - m) etc.,
 *   o_a = (o_a * exp(lse_a - m) + o_b * exp(lse_b - m)) / (sum),  lse_a = log(exp(lse_a) + exp(lse_b)).
 * o_a, o_b: [batch, seqlen, heads, dim] of dtype; lse_*: [batch, heads, seqlen] packed. Rows with lse -inf on
 * both sides give 0 and -inf. A sink must be in one side only. In place on side a. */
FA_API fa_status fa_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads,
                          int64_t dim, const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b,
                          const float *lse_b, fa_stream stream);

/* ----------------------------------------------------- what this build and machine can do */

/* Bits of fa_kernel_info.features: what a kernel does beyond dense MHA/GQA. */
enum {
  FA_FEATURE_CAUSAL = 1 << 0,
  FA_FEATURE_WINDOW = 1 << 1,
  FA_FEATURE_ALIBI = 1 << 2,
  FA_FEATURE_SOFTCAP = 1 << 3,
  FA_FEATURE_SINKS = 1 << 4,
  FA_FEATURE_BIAS = 1 << 5,
  FA_FEATURE_MASK = 1 << 6,
  FA_FEATURE_RAGGED = 1 << 7,
  FA_FEATURE_PAGED = 1 << 8,
  FA_FEATURE_DV = 1 << 9,     /* head_dim_v != head_dim_qk */
  FA_FEATURE_LSE = 1 << 10,
  FA_FEATURE_SEQLENS = 1 << 11,
  FA_FEATURE_KVQUANT = 1 << 12,
  FA_FEATURE_APPEND = 1 << 13,
  FA_FEATURE_SPLITS = 1 << 14
};
#define FA_FEATURE_COUNT 15

FA_API const char *fa_feature_name(int bit); /* 0 .. FA_FEATURE_COUNT - 1; NULL beyond */

/* The feature bits a problem needs. */
FA_API uint32_t fa_problem_features(const fa_attention_problem *problem);

typedef struct fa_kernel_info {
  size_t struct_size;
  const char *name;      /* "prefill_bf16_amx" */
  const char *device;    /* "cpu", "cuda", ... */
  const char *arch;      /* "c", "avx2", "avx512", "amx", "neon", "standard", "eager", "sm70", ... */
  const char *operation; /* "prefill", "decode" or "any" */
  uint32_t dtypes;       /* bit 1 << fa_dtype */
  uint32_t features;
  int64_t max_head_dim;
  int32_t available;     /* 1 if this machine can run it */
  int32_t is_baseline;   /* 1 for standard and eager: never chosen unless named */
} fa_kernel_info;

#define FA_KERNEL_INFO_INIT \
  { sizeof(fa_kernel_info), NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0 }

FA_API int32_t fa_kernel_count(void);
FA_API fa_status fa_kernel_describe(int32_t index, fa_kernel_info *info);

typedef struct fa_device_info {
  size_t struct_size;
  const char *name;        /* "cpu" or "cuda:0", as fa_context_options.device takes it */
  const char *description; /* "Intel(R) Xeon(R) Processor, 2 threads" */
  const char *isa;         /* "avx2 f16c avx512 avx512_bf16 amx_bf16", ... */
  int64_t memory_bytes;
  int64_t cache_l1_bytes;  /* per core or SM; 0 when unknown */
  int64_t cache_l2_bytes;
  int64_t cache_l3_bytes;
  int32_t units;           /* cores or SMs this process may use */
  int32_t reserved0;
} fa_device_info;

#define FA_DEVICE_INFO_INIT \
  { sizeof(fa_device_info), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0 }

FA_API int32_t fa_device_count(void);
/* The strings live until this thread's next fa_device_describe. */
FA_API fa_status fa_device_describe(int32_t index, fa_device_info *info);

#ifdef __cplusplus
}
#endif

#endif
