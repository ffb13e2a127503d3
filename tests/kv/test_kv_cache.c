/* The paged KV cache: its layout, what it refuses, and what becomes of it when memory runs out. */
#include <fastattention/fa_kv.h> /* first, so that it has to stand alone */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "small_cache.h"

#define SIZE(field) sizeof(((fa_kv_options *)0)->field)
#define FOLLOWS(field, previous) \
  _Static_assert(offsetof(fa_kv_options, field) == offsetof(fa_kv_options, previous) + SIZE(previous), #field)
FOLLOWS(dtype, struct_size);
FOLLOWS(reserved0, dtype);
FOLLOWS(layers, reserved0);
FOLLOWS(heads_kv, layers);
FOLLOWS(head_dim_qk, heads_kv);
FOLLOWS(head_dim_v, head_dim_qk);
FOLLOWS(page_size, head_dim_v);
FOLLOWS(num_pages, page_size);
FOLLOWS(max_sequences, num_pages);
_Static_assert(sizeof(fa_kv_options) == offsetof(fa_kv_options, max_sequences) + SIZE(max_sequences), "tail");

/* An allocator that counts, poisons what it gives, and refuses the `refuse`-th request (0: none). */
typedef struct counter {
  int64_t living, requests, refuse;
} counter;

static void *counted_allocate(void *user, size_t bytes, size_t alignment) {
  counter *c = user;
  if (++c->requests == c->refuse || bytes > (size_t)1 << 40) return NULL;
  void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!memory) return NULL;
  memset(memory, 0xff, bytes);
  c->living++;
  return memory;
}

static void counted_release(void *user, void *memory) {
  ((counter *)user)->living--;
  free(memory);
}

static fa_context *counted_context(counter *c) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  fa_context *context = NULL;
  memset(c, 0, sizeof *c);
  options.allocator = (fa_allocator){counted_allocate, counted_release, c};
  options.threads = 1;
  assert_int_equal(fa_context_create(&options, &context), FA_OK);
  return context;
}

/* ------------------------------------------------------------------- layout */

static void layers_lie_one_behind_the_other_and_are_zero(void **state) {
  (void)state;
  static const fa_dtype dtypes[] = {FA_FLOAT32, FA_FLOAT16, FA_BFLOAT16, FA_INT8, FA_FP8_E4M3};
  counter c;
  fa_context *context = counted_context(&c);
  for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
    fa_kv_options o = small_options();
    o.dtype = dtypes[d];
    fa_kv_cache *cache = cache_of(context, &o);
    const size_t tokens = 2 * 4 * 70 * fa_dtype_bytes(o.dtype);
    size_t bytes = 0;
    unsigned char *begin = NULL, *at = NULL;
    for (int64_t layer = 0; layer < o.layers; layer++) {
      fa_tensor k, v;
      assert_int_equal(fa_kv_cache_layer(cache, layer, &k, &v), FA_OK);
      if (layer == 0) begin = at = k.data;
      assert_ptr_equal(k.data, at);
      at += (tokens * 8 + 255) / 256 * 256;
      assert_ptr_equal(v.data, at);
      at += (tokens * 5 + 255) / 256 * 256;
      assert_true(k.stride_batch == 2 * 4 * 8 && k.stride_seq == 8 && k.stride_head == 4 * 8);
      assert_true(v.stride_batch == 2 * 4 * 5 && v.stride_seq == 5 && v.stride_head == 4 * 5);
    }
    bytes = (size_t)(at - begin);
    assert_int_equal(fa_kv_cache_bytes(cache), bytes);
    for (size_t n = 0; n < bytes; n++) assert_int_equal(begin[n], 0);
    memset(begin, 1, bytes); /* all of it is there: the sanitizers watch */
    assert_int_equal(fa_kv_cache_num_pages(cache), 70);
    fa_tensor k, v;
    assert_int_equal(fa_kv_cache_layer(cache, 3, &k, &v), FA_ERROR_ARGUMENT);
    says("layer is 3; the cache has layers 0 to 2");
    assert_int_equal(fa_kv_cache_layer(cache, -1, &k, &v), FA_ERROR_ARGUMENT);
    assert_int_equal(fa_kv_cache_layer(cache, 0, &k, NULL), FA_ERROR_ARGUMENT);
    assert_int_equal(fa_kv_cache_layer(NULL, 0, &k, &v), FA_ERROR_ARGUMENT);
    fa_kv_cache_destroy(cache);
  }
  fa_context_destroy(context);
  assert_int_equal(c.living, 0);
}

/* Where device memory is not the host's, zeros are copied: into memory that held something else, in several steps. */
static void zero_on_every_device(void **state) {
  (void)state;
  for (int32_t d = 0; d < fa_device_count(); d++) {
    fa_device_info info = FA_DEVICE_INFO_INIT;
    fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
    fa_context *context = NULL;
    assert_int_equal(fa_device_describe(d, &info), FA_OK);
    options.device = info.name;
    options.threads = 1;
    assert_int_equal(fa_context_create(&options, &context), FA_OK);
    fa_kv_options o = small_options();
    o.head_dim_qk = 500;
    o.page_size = 20;
    const size_t bytes = (size_t)3 * 70 * 20 * 2 * 505 * 2; /* about 8 MB */
    unsigned char *host = malloc(bytes);
    void *soiled = NULL;
    assert_non_null(host);
    memset(host, 0xff, bytes);
    assert_int_equal(fa_buffer_allocate(context, bytes, &soiled), FA_OK);
    assert_int_equal(fa_buffer_copy(context, soiled, host, bytes, FA_COPY_HOST_TO_DEVICE, NULL), FA_OK);
    assert_int_equal(fa_stream_synchronize(context, NULL), FA_OK);
    fa_buffer_free(context, soiled);
    fa_kv_cache *cache = cache_of(context, &o);
    fa_tensor k, v;
    assert_int_equal(fa_kv_cache_layer(cache, 0, &k, &v), FA_OK);
    assert_in_range(fa_kv_cache_bytes(cache), bytes, bytes + 6 * 256);
    assert_int_equal(fa_buffer_copy(context, host, k.data, bytes, FA_COPY_DEVICE_TO_HOST, NULL), FA_OK);
    assert_int_equal(fa_stream_synchronize(context, NULL), FA_OK);
    for (size_t n = 0; n < bytes; n++)
      if (host[n]) fail_msg("%s: byte %zu is %d", options.device, n, host[n]);
    free(host);
    fa_kv_cache_destroy(cache);
    fa_context_destroy(context);
  }
}

/* ------------------------------------------------------------------ refusals */

static void options_out_of_range(void **state) {
  fa_context *context = *state;
  const struct {
    size_t field;
    int64_t value;
    const char *words;
  } bad[] = {
      {offsetof(fa_kv_options, layers), 0, "layers is 0; it must be at least 1"},
      {offsetof(fa_kv_options, layers), INT64_MAX, "more bytes than can be addressed"},
      {offsetof(fa_kv_options, heads_kv), -1, "heads_kv is -1; it must be at least 1"},
      {offsetof(fa_kv_options, heads_kv), INT64_MAX, "more bytes than can be addressed"},
      {offsetof(fa_kv_options, heads_kv), (int64_t)1 << 52, "more bytes than can be addressed"},
      {offsetof(fa_kv_options, head_dim_qk), 0, "head_dim_qk is 0; it must be 1 to 576"},
      {offsetof(fa_kv_options, head_dim_qk), 577, "head_dim_qk is 577"},
      {offsetof(fa_kv_options, head_dim_v), INT64_MIN, "head_dim_v is -9223372036854775808"},
      {offsetof(fa_kv_options, page_size), 0, "page_size is 0"},
      {offsetof(fa_kv_options, page_size), INT64_MAX, "page_size is 9223372036854775807"},
      {offsetof(fa_kv_options, page_size), INT32_MAX / 70 + 1, "70 pages of 30678338 tokens; together at most 2147483647"},
      {offsetof(fa_kv_options, num_pages), 0, "num_pages is 0"},
      {offsetof(fa_kv_options, num_pages), (int64_t)1 << 31, "num_pages is 2147483648"},
      {offsetof(fa_kv_options, num_pages), (int64_t)1 << 29, "together at most 2147483647"},
      {offsetof(fa_kv_options, max_sequences), 0, "max_sequences is 0; it must be 1 to 1048576"},
      {offsetof(fa_kv_options, max_sequences), (1 << 20) + 1, "max_sequences is 1048577"},
  };
  for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) {
    fa_kv_options o = small_options();
    fa_kv_cache *cache = (fa_kv_cache *)state;
    memcpy((char *)&o + bad[n].field, &bad[n].value, sizeof bad[n].value);
    assert_int_equal(fa_kv_cache_create(context, &o, &cache), FA_ERROR_ARGUMENT);
    says(bad[n].words);
    assert_null(cache);
  }
  fa_kv_cache *cache = NULL;
  fa_kv_options o = small_options();
  o.dtype = (fa_dtype)17;
  assert_int_equal(fa_kv_cache_create(context, &o, &cache), FA_ERROR_ARGUMENT);
  says("dtype is 17");
  o = small_options();
  o.reserved0 = 1;
  assert_int_equal(fa_kv_cache_create(context, &o, &cache), FA_ERROR_ARGUMENT);
  o = small_options();
  o.struct_size = 0;
  assert_int_equal(fa_kv_cache_create(context, &o, &cache), FA_ERROR_ARGUMENT);
  says("fa_kv_options.struct_size is 0");
  struct {
    fa_kv_options options;
    int64_t from_the_future;
  } longer = {small_options(), 1};
  longer.options.struct_size = sizeof longer;
  assert_int_equal(fa_kv_cache_create(context, &longer.options, &cache), FA_ERROR_UNSUPPORTED);
  longer.from_the_future = 0;
  fa_kv_cache_destroy(cache_of(context, &longer.options));
  o = small_options();
  assert_int_equal(fa_kv_cache_create(NULL, &o, &cache), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_cache_create(context, NULL, &cache), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_kv_cache_create(context, &o, NULL), FA_ERROR_ARGUMENT);
  fa_kv_cache_destroy(NULL);
  assert_true(fa_kv_cache_bytes(NULL) == 0 && fa_kv_cache_num_pages(NULL) == 0 && fa_kv_cache_free_pages(NULL) == 0);
}

static void more_memory_than_there_is(void **state) {
  (void)state;
  counter c;
  fa_context *context = counted_context(&c);
  const int64_t before = c.living;
  fa_kv_options o = small_options();
  fa_kv_cache *cache = NULL;
  o.heads_kv = (int64_t)1 << 40;
  assert_int_equal(fa_kv_cache_create(context, &o, &cache), FA_ERROR_MEMORY);
  assert_null(cache);
  assert_int_equal(c.living, before);
  fa_context_destroy(context);
}

/* Refuse one request after the other: MEMORY each time, nothing lost, and as if nothing had been once there is. */
static void an_allocation_that_fails(void **state) {
  (void)state;
  counter c;
  fa_context *context = counted_context(&c);
  const int64_t before = c.living;
  fa_kv_options o = small_options();
  fa_kv_cache *cache = NULL;
  int64_t sites = 0;
  do {
    c.requests = 0;
    c.refuse = ++sites;
    const fa_status status = fa_kv_cache_create(context, &o, &cache);
    if (status == FA_OK) break;
    assert_int_equal(status, FA_ERROR_MEMORY);
    says("could not allocate");
    assert_null(cache);
    assert_int_equal(c.living, before);
  } while (sites < 100);
  assert_int_equal(sites, 5); /* cache, pages, sequences, memory; the fifth was not asked for */
  c.refuse = 0;
  const int32_t sequence = sequence_of(cache, 10);
  int64_t count, failures = 0;
  for (int64_t tokens = 10; tokens <= 280; tokens += 30) {
    c.requests = 0;
    c.refuse = 1;
    const int64_t living = c.living, length = fa_kv_sequence_tokens(cache, sequence);
    const int64_t free_pages = fa_kv_cache_free_pages(cache);
    if (fa_kv_sequence_resize(cache, sequence, tokens) == FA_OK) continue; /* the table had room */
    failures++;
    assert_int_equal(fa_kv_sequence_tokens(cache, sequence), length);
    assert_int_equal(fa_kv_cache_free_pages(cache), free_pages);
    assert_int_equal(c.living, living);
    c.refuse = 0;
    assert_int_equal(fa_kv_sequence_resize(cache, sequence, tokens), FA_OK);
    const int32_t *pages = fa_kv_sequence_pages(cache, sequence, &count);
    for (int32_t n = 0; n < count; n++) assert_int_equal(pages[n], n);
  }
  assert_in_range(failures, 2, 8);
  fa_kv_cache_destroy(cache);
  assert_int_equal(c.living, before);
  fa_context_destroy(context);
  assert_int_equal(c.living, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layers_lie_one_behind_the_other_and_are_zero),
      cmocka_unit_test(zero_on_every_device),
      cmocka_unit_test(options_out_of_range),
      cmocka_unit_test(more_memory_than_there_is),
      cmocka_unit_test(an_allocation_that_fails),
  };
  return cmocka_run_group_tests(tests, open_context, close_context);
}
