/* A paged cache's memory: how much, where a layer lies in it, and zero to begin with. */
#include "kv/kv_cache.h"

#include <string.h>

#include "core/descriptor.h"
#include "core/kernel.h"

#define ALIGNMENT 256
#define MOST_DIM 576
#define MOST_SEQUENCES (1 << 20)
#define ZEROS ((size_t)1 << 20)

static fa_status check_range(const char *name, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return FA_OK;
  if (most == INT64_MAX)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_options.%s is %lld; it must be at least 1", name, (long long)value);
  return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_options.%s is %lld; it must be 1 to %lld", name, (long long)value,
                 (long long)most);
}

static fa_status check_options(const fa_kv_options *o) {
  if (fa_dtype_bytes(o->dtype) == 0)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_options.dtype is %d; it must be an fa_dtype", (int)o->dtype);
  if (o->reserved0 != 0)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_options.reserved0 is %d; it must be 0", o->reserved0);
  fa_status status = check_range("layers", o->layers, INT64_MAX);
  if (status == FA_OK) status = check_range("heads_kv", o->heads_kv, INT64_MAX);
  if (status == FA_OK) status = check_range("head_dim_qk", o->head_dim_qk, MOST_DIM);
  if (status == FA_OK) status = check_range("head_dim_v", o->head_dim_v, MOST_DIM);
  if (status == FA_OK) status = check_range("page_size", o->page_size, INT32_MAX);
  if (status == FA_OK) status = check_range("num_pages", o->num_pages, INT32_MAX);
  if (status == FA_OK) status = check_range("max_sequences", o->max_sequences, MOST_SEQUENCES);
  if (status == FA_OK && o->num_pages * o->page_size > INT32_MAX)
    return fa_fail(FA_ERROR_ARGUMENT,
                   "fa_kv_options has %lld pages of %lld tokens; together at most %d tokens, so that a slot is an "
                   "int32_t", (long long)o->num_pages, (long long)o->page_size, INT32_MAX);
  return status;
}

/* Multiplies in place; 0 where the product does not fit. What is addressed by differences of pointers ends at
 * PTRDIFF_MAX. */
static int multiply(size_t *product, int64_t factor) {
  if (*product > (size_t)PTRDIFF_MAX / (size_t)factor) return 0;
  *product *= (size_t)factor;
  return 1;
}

static int count_bytes(fa_kv_cache *cache) {
  const fa_kv_options *o = &cache->options;
  const int64_t dims[2] = {o->head_dim_qk, o->head_dim_v};
  size_t bytes[2];
  for (int n = 0; n < 2; n++) {
    bytes[n] = (size_t)(o->num_pages * o->page_size) * fa_dtype_bytes(o->dtype);
    if (!multiply(&bytes[n], dims[n]) || !multiply(&bytes[n], o->heads_kv)) return 0;
    if (bytes[n] > PTRDIFF_MAX / 2 - ALIGNMENT) return 0;
    bytes[n] = (bytes[n] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }
  cache->k_bytes = bytes[0];
  cache->v_bytes = bytes[1];
  cache->bytes = bytes[0] + bytes[1];
  return multiply(&cache->bytes, o->layers);
}

/* What is masked out is never multiplied, but a baseline may multiply what lies behind a sequence by 0. */
static fa_status clear(fa_kv_cache *cache) {
  fa_context *context = cache->context;
  if (context->backend->memory_is_host) {
    memset(cache->memory, 0, cache->bytes);
    return FA_OK;
  }
  /* The first zeros come from the host, all others from those. */
  const size_t first = cache->bytes < ZEROS ? cache->bytes : ZEROS;
  void *zeros = fa_host_allocate(context, first);
  if (!zeros) return FA_ERROR_MEMORY;
  memset(zeros, 0, first);
  fa_status status = fa_buffer_copy(context, cache->memory, zeros, first, FA_COPY_HOST_TO_DEVICE, NULL);
  for (size_t done = first; status == FA_OK && done < cache->bytes;) {
    const size_t next = cache->bytes - done < done ? cache->bytes - done : done;
    status = fa_buffer_copy(context, cache->memory + done, cache->memory, next, FA_COPY_DEVICE_TO_DEVICE, NULL);
    done += next;
  }
  /* Also after a failure: a copy in flight still reads the zeros. Its line is the one to keep. */
  if (status == FA_OK) status = fa_stream_synchronize(context, NULL);
  else (void)context->backend->stream_synchronize(context, NULL);
  fa_host_free(context, zeros);
  return status;
}

static fa_status fill(fa_kv_cache *cache) {
  const fa_kv_options *o = &cache->options;
  uint64_t *is_free = fa_host_allocate(cache->context, (size_t)fa_kv_pages_words(o->num_pages) * sizeof *is_free);
  if (!is_free) return FA_ERROR_MEMORY;
  fa_kv_pages_init(&cache->pages, is_free, o->num_pages);
  cache->sequences = fa_host_allocate(cache->context, (size_t)o->max_sequences * sizeof *cache->sequences);
  if (!cache->sequences) return FA_ERROR_MEMORY;
  fa_kv_sequences_init(cache);
  void *memory = NULL;
  const fa_status status = fa_buffer_allocate(cache->context, cache->bytes, &memory);
  if (status != FA_OK) return status;
  cache->memory = memory;
  return clear(cache);
}

fa_status fa_kv_cache_create(fa_context *context, const fa_kv_options *options, fa_kv_cache **cache) {
  if (!cache) return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_cache_create: cache is NULL");
  *cache = NULL;
  if (!context || !options)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_cache_create: %s is NULL", context ? "options" : "context");
  fa_kv_cache blank;
  memset(&blank, 0, sizeof blank);
  blank.context = context;
  blank.options = (fa_kv_options)FA_KV_OPTIONS_INIT;
  fa_status status = fa_read_descriptor("fa_kv_options", &blank.options, sizeof blank.options, options,
                                        options->struct_size);
  if (status == FA_OK) status = check_options(&blank.options);
  if (status != FA_OK) return status;
  if (!count_bytes(&blank))
    return fa_fail(FA_ERROR_ARGUMENT,
                   "a KV cache of %lld layers, %lld heads and %lld pages of %lld tokens is more bytes than can be "
                   "addressed; use fewer pages",
                   (long long)blank.options.layers, (long long)blank.options.heads_kv,
                   (long long)blank.options.num_pages, (long long)blank.options.page_size);
  fa_kv_cache *made = fa_host_allocate(context, sizeof *made);
  if (!made) return FA_ERROR_MEMORY;
  *made = blank;
  status = fill(made);
  if (status != FA_OK) {
    fa_kv_cache_destroy(made);
    return status;
  }
  *cache = made;
  return FA_OK;
}

void fa_kv_cache_destroy(fa_kv_cache *cache) {
  if (!cache) return;
  fa_context *context = cache->context;
  for (int64_t n = 0; cache->sequences && n < cache->options.max_sequences; n++)
    fa_host_free(context, cache->sequences[n].pages);
  fa_buffer_free(context, cache->memory);
  fa_host_free(context, cache->sequences);
  fa_host_free(context, cache->pages.is_free);
  fa_host_free(context, cache);
}

size_t fa_kv_cache_bytes(const fa_kv_cache *cache) { return cache ? cache->bytes : 0; }

int64_t fa_kv_cache_num_pages(const fa_kv_cache *cache) { return cache ? cache->options.num_pages : 0; }

int64_t fa_kv_cache_free_pages(const fa_kv_cache *cache) { return cache ? cache->pages.free_count : 0; }

static fa_tensor paged(const fa_kv_options *o, unsigned char *data, int64_t dim) {
  return (fa_tensor){data, o->heads_kv * o->page_size * dim, dim, o->page_size * dim};
}

fa_status fa_kv_cache_layer(const fa_kv_cache *cache, int64_t layer, fa_tensor *k, fa_tensor *v) {
  if (!cache || !k || !v)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_kv_cache_layer: %s is NULL", !cache ? "cache" : !k ? "k" : "v");
  const fa_kv_options *o = &cache->options;
  if (layer < 0 || layer >= o->layers)
    return fa_fail(FA_ERROR_ARGUMENT, "layer is %lld; the cache has layers 0 to %lld", (long long)layer,
                   (long long)(o->layers - 1));
  unsigned char *begin = cache->memory + (size_t)layer * (cache->k_bytes + cache->v_bytes);
  *k = paged(o, begin, o->head_dim_qk);
  *v = paged(o, begin + cache->k_bytes, o->head_dim_v);
  return FA_OK;
}
