/* FastAttention: a paged KV cache. Memory for the keys and values of many sequences, handed out in pages.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   fa_kv_options o = FA_KV_OPTIONS_INIT;        o.layers = ...;
 *   fa_kv_cache *cache;                          fa_kv_cache_create(context, &o, &cache);
 *   int32_t sequence;                            fa_kv_sequence_create(cache, &sequence);
 *   fa_kv_sequence_resize(cache, sequence, 100); pages for tokens 0 .. 99
 *   fa_kv_sequence_pages(cache, sequence, &n);   the sequence's row of fa_attention_args.page_table
 *   fa_kv_cache_layer(cache, 0, &a.k, &a.v);     fa_attention_args.k and v of layer 0
 *
 * The cache keeps the books and launches nothing: it says which page holds which tokens, in host memory; the caller
 * brings page tables to the device, writes keys and values into their slots (a kernel of his, or appending by
 * fa_attention_problem.seqlen_new) and runs attention. Pages are not shared by sequences.
 *
 * Layout: layer after layer, K before V, each [num_pages, heads_kv, page_size, head_dim], beginning on a multiple of
 * 256 bytes from the start of the cache's memory. So a page's tokens of one head lie one behind the other. The scales
 * of an INT8 or FP8_E4M3 cache are the caller's.
 *
 * A token's slot is page * page_size + its place in the page; slots of all layers are the same.
 *
 * Threads: one at a time uses a cache; caches of one context may be used at the same time. What fa_kv_cache_layer,
 * _bytes and _num_pages give never changes, so these three may be called by any thread at any time.
 */
#ifndef FASTATTENTION_FA_KV_H
#define FASTATTENTION_FA_KV_H

#include <fastattention/fastattention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fa_kv_cache fa_kv_cache;

typedef struct fa_kv_options {
  size_t struct_size;
  fa_dtype dtype;        /* of keys and values: any fa_dtype */
  int32_t reserved0;     /* 0 */
  int64_t layers;        /* >= 1 */
  int64_t heads_kv;      /* >= 1 */
  int64_t head_dim_qk;   /* 1 .. 576 */
  int64_t head_dim_v;    /* 1 .. 576 */
  int64_t page_size;     /* tokens a page, >= 1; fa_attention_problem.page_size */
  int64_t num_pages;     /* >= 1; num_pages * page_size at most INT32_MAX, so that slots are int32_t */
  int64_t max_sequences; /* 1 .. 1048576 that exist at a time */
} fa_kv_options;

/* Head sizes and num_pages are to be set. */
#define FA_KV_OPTIONS_INIT \
  { sizeof(fa_kv_options), FA_FLOAT16, 0, 1, 1, 0, 0, 16, 0, 1 }

/* Takes the memory of all pages at once, by one fa_buffer_allocate, and clears it to zero; returns when it is clear.
 * The context must outlive the cache.
 * Errors: ARGUMENT (an option out of its range, sizes whose product no size_t holds), UNSUPPORTED (fields of a later
 * version), MEMORY, DEVICE. */
FA_API fa_status fa_kv_cache_create(fa_context *context, const fa_kv_options *options, fa_kv_cache **cache);

/* With all its sequences. NULL is fine. No run that reads or writes the cache may be in flight. */
FA_API void fa_kv_cache_destroy(fa_kv_cache *cache);

/* Device bytes of keys and values; 0 for NULL. */
FA_API size_t fa_kv_cache_bytes(const fa_kv_cache *cache);
FA_API int64_t fa_kv_cache_num_pages(const fa_kv_cache *cache);  /* in all; 0 for NULL */
FA_API int64_t fa_kv_cache_free_pages(const fa_kv_cache *cache); /* held by no sequence; 0 for NULL */

/* Keys and values of layer 0 .. layers - 1 as a paged fa_attention_problem wants them, (page, slot, head, dim):
 * stride_batch = heads_kv * page_size * dim, stride_seq = dim, stride_head = page_size * dim. Device pointers.
 * Errors: ARGUMENT (NULL, no such layer). */
FA_API fa_status fa_kv_cache_layer(const fa_kv_cache *cache, int64_t layer, fa_tensor *k, fa_tensor *v);

/* ---------------------------------------------------------------- sequences */

/* A new sequence of no tokens and no pages. Handles are >= 0 and not indices; that of a destroyed sequence is refused
 * until its place in the table has been taken again very often (2^31 / max_sequences times, rounded down to a power
 * of two). Errors: ARGUMENT (NULL), MEMORY (max_sequences exist). */
FA_API fa_status fa_kv_sequence_create(fa_kv_cache *cache, int32_t *sequence);

/* Gives its pages back. Errors: ARGUMENT (no such sequence). */
FA_API fa_status fa_kv_sequence_destroy(fa_kv_cache *cache, int32_t sequence);

/* Makes the sequence `tokens` long, 0 .. ; it then holds ceil(tokens / page_size) pages: more are taken, the lowest
 * free ones first, or the last ones given back. Pages that stay keep their place and their content; content of pages
 * taken is not cleared again. All or nothing: on an error the sequence is as before. Host memory for the table of
 * pages may grow (it doubles).
 * Errors: ARGUMENT (no such sequence, negative tokens), MEMORY (not enough free pages: how many it takes and how many
 * there are; or no host memory). */
FA_API fa_status fa_kv_sequence_resize(fa_kv_cache *cache, int32_t sequence, int64_t tokens);

/* Its length as set; -1, with a line in fa_last_error, where there is no such sequence. */
FA_API int64_t fa_kv_sequence_tokens(const fa_kv_cache *cache, int32_t sequence);

/* Its pages in the order of its tokens, *count of them (count may be NULL): page n holds tokens n * page_size ...
 * Host memory that lives until the sequence is resized or destroyed; never NULL for a sequence, also an empty one.
 * NULL, *count 0 and a line in fa_last_error where there is no such sequence. */
FA_API const int32_t *fa_kv_sequence_pages(const fa_kv_cache *cache, int32_t sequence, int64_t *count);

/* Slots of its tokens first .. first + count - 1 into slots [count], host memory.
 * Errors: ARGUMENT (no such sequence, tokens it does not have, NULL); nothing is written then. */
FA_API fa_status fa_kv_sequence_slots(const fa_kv_cache *cache, int32_t sequence, int64_t first, int64_t count,
                                      int32_t *slots);

#ifdef __cplusplus
}
#endif

#endif
