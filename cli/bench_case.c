#include "bench_case.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

int fa_bench_read_shape(const char *text, fa_bench_case *c) {
  int64_t size[7];
  int count = fa_options_integers(text, 6, 7, size);
  for (int i = 0; i < count; i++) {
    if (size[i] < 1 || size[i] > INT32_MAX) count = -1;
  }
  if (count < 0) {
    return fa_usage_error("--shape is '%s'; it must be 6 or 7 integers of at least 1: B,HQ,HKV,SQ,SKV,D[,DV]",
                          text);
  }
  c->batch = size[0];
  c->heads_q = size[1];
  c->heads_kv = size[2];
  c->seqlen_q = size[3];
  c->seqlen_kv = size[4];
  c->head_dim_qk = size[5];
  c->head_dim_v = count == 7 ? size[6] : size[5];
  return FA_EXIT_OK;
}

char *fa_bench_shape_text(const fa_bench_case *c, char text[FA_BENCH_SHAPE_TEXT]) {
  const int length = snprintf(text, FA_BENCH_SHAPE_TEXT,
                              "%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64,
                              c->batch, c->heads_q, c->heads_kv, c->seqlen_q, c->seqlen_kv, c->head_dim_qk);
  if (c->head_dim_v != c->head_dim_qk) {
    snprintf(text + length, FA_BENCH_SHAPE_TEXT - (size_t)length, ",%" PRId64, c->head_dim_v);
  }
  return text;
}

static int64_t pages_of(const fa_bench_case *c) { return (c->seqlen_kv + c->page_size - 1) / c->page_size; }

fa_attention_problem fa_bench_problem(const fa_bench_case *c, const char *kernel) {
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.dtype = c->dtype;
  p.kv_dtype = c->kv_dtype;
  p.batch = c->batch;
  p.heads_q = c->heads_q;
  p.heads_kv = c->heads_kv;
  p.max_seqlen_q = c->seqlen_q;
  p.max_seqlen_kv = c->seqlen_kv;
  p.head_dim_qk = c->head_dim_qk;
  p.head_dim_v = c->head_dim_v;
  p.causal = c->causal;
  p.window_left = c->window_left;
  p.window_right = c->window_right;
  p.page_size = c->page_size;
  if (c->page_size) p.num_pages = c->batch * pages_of(c);
  p.kv_splits = c->kv_splits;
  p.kernel = kernel;
  return p;
}

/* Keys [*begin, *end) that query i keeps. */
static void kept_keys(const fa_bench_case *c, int64_t i, int64_t *begin, int64_t *end) {
  const int64_t diagonal = i + c->seqlen_kv - c->seqlen_q;
  *begin = 0;
  *end = c->seqlen_kv;
  if (c->causal && diagonal + 1 < *end) *end = diagonal + 1;
  if (c->window_right >= 0 && c->window_right < *end - diagonal - 1) *end = diagonal + c->window_right + 1;
  if (c->window_left >= 0 && diagonal - c->window_left > *begin) *begin = diagonal - c->window_left;
  if (*end < *begin) *end = *begin;
}

double fa_bench_operations(const fa_bench_case *c) {
  double pairs = 0.0;
  for (int64_t i = 0; i < c->seqlen_q; i++) {
    int64_t begin, end;
    kept_keys(c, i, &begin, &end);
    pairs += (double)(end - begin);
  }
  return 2.0 * pairs * (double)(c->head_dim_qk + c->head_dim_v) * (double)c->batch * (double)c->heads_q;
}

double fa_bench_key_bytes(const fa_bench_case *c, int64_t head_dim) {
  int64_t first = 0, last = 0, unused;
  kept_keys(c, 0, &first, &unused);
  kept_keys(c, c->seqlen_q - 1, &unused, &last);
  const double keys = last > first ? (double)(last - first) : 0.0;
  return keys * (double)c->batch * (double)c->heads_kv * (double)head_dim *
         (double)fa_dtype_bytes(c->kv_dtype);
}

double fa_bench_bytes(const fa_bench_case *c) {
  const double rows = (double)c->batch * (double)c->heads_q * (double)c->seqlen_q;
  return fa_bench_key_bytes(c, c->head_dim_qk) + fa_bench_key_bytes(c, c->head_dim_v) +
         rows * (double)(c->head_dim_qk + c->head_dim_v) * (double)fa_dtype_bytes(c->dtype);
}

/* -------------------------------------------------------------------- sizes */

static bool is_quantised(const fa_bench_case *c) {
  return c->kv_dtype == FA_INT8 || c->kv_dtype == FA_FP8_E4M3;
}

/* Tokens that k and v hold; -1 when that overflows. */
static int64_t cache_tokens(const fa_bench_case *c) {
  int64_t tokens = c->page_size ? pages_of(c) * c->page_size : c->seqlen_kv;
  return __builtin_mul_overflow(tokens, c->batch, &tokens) ? -1 : tokens;
}

/* Elements of each buffer; false when one overflows. */
static bool count_elements(const fa_bench_case *c, int64_t elements[FA_BENCH_BUFFERS]) {
  const int64_t cache = cache_tokens(c);
  const int64_t factors[FA_BENCH_BUFFERS][3] = {
      [FA_BENCH_Q] = {c->batch * c->heads_q, c->seqlen_q, c->head_dim_qk},
      [FA_BENCH_K] = {cache, c->heads_kv, c->head_dim_qk},
      [FA_BENCH_V] = {cache, c->heads_kv, c->head_dim_v},
      [FA_BENCH_O] = {c->batch * c->heads_q, c->seqlen_q, c->head_dim_v},
      [FA_BENCH_K_SCALE] = {cache, c->heads_kv, is_quantised(c)},
      [FA_BENCH_V_SCALE] = {cache, c->heads_kv, is_quantised(c)},
      [FA_BENCH_PAGES] = {c->page_size ? c->batch : 0, c->page_size ? pages_of(c) : 0, 1}};
  bool fits = cache >= 0;
  for (int i = 0; i < FA_BENCH_BUFFERS; i++) {
    fits = fits && !__builtin_mul_overflow(factors[i][0], factors[i][1], &elements[i]) &&
           !__builtin_mul_overflow(elements[i], factors[i][2], &elements[i]) && elements[i] <= INT64_MAX / 64;
  }
  return fits;
}

static size_t element_bytes(const fa_bench_case *c, int buffer) {
  if (buffer == FA_BENCH_K || buffer == FA_BENCH_V) return fa_dtype_bytes(c->kv_dtype);
  return buffer == FA_BENCH_Q || buffer == FA_BENCH_O ? fa_dtype_bytes(c->dtype) : sizeof(float);
}

size_t fa_bench_data_bytes(const fa_bench_case *c) {
  int64_t elements[FA_BENCH_BUFFERS];
  if (!count_elements(c, elements)) return SIZE_MAX;
  size_t bytes = 0;
  for (int i = 0; i < FA_BENCH_BUFFERS; i++) bytes += (size_t)elements[i] * element_bytes(c, i);
  return bytes;
}

/* --------------------------------------------------------------------- data */

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* The sum of four bytes is near enough to normal and cheap enough for billions. Deviation 1. */
static void fill_normal(float *values, int64_t count, uint64_t *state) {
  for (int64_t i = 0; i < count; i++) {
    uint64_t r = next_random(state);
    uint32_t sum = 0;
    for (int byte = 0; byte < 4; byte++, r >>= 8) sum += (uint32_t)(r & 0xff);
    values[i] = ((float)sum - 510.0f) * (1.0f / 147.8f);
  }
}

/* OCP E4M3, round to nearest even; |value| < 448. */
static uint8_t fp8_from(float value) {
  uint32_t bits;
  const float magnitude = fabsf(value);
  memcpy(&bits, &magnitude, sizeof bits);
  const uint8_t sign = value < 0.0f ? 0x80 : 0;
  if (magnitude < 0.015625f) return (uint8_t)(sign | (uint8_t)lrintf(magnitude * 512.0f));
  return (uint8_t)(sign | (bits + 0x7ffffu + (bits >> 20 & 1u) - 0x3c000000u) >> 20);
}

static const float quantised_scale = 1.0f / 32.0f;

static void encode(void *to, const float *from, int64_t count, fa_dtype dtype) {
  if (dtype == FA_INT8) {
    for (int64_t i = 0; i < count; i++) ((int8_t *)to)[i] = (int8_t)lrintf(from[i] / quantised_scale);
  } else if (dtype == FA_FP8_E4M3) {
    for (int64_t i = 0; i < count; i++) ((uint8_t *)to)[i] = fp8_from(from[i] / quantised_scale);
  } else {
    fa_convert(to, dtype, from, FA_FLOAT32, count);
  }
}

/* In pieces, so that the host needs no second copy of a large cache. constant != 0 fills with that. */
static int fill(fa_context *context, void *device, int64_t elements, fa_dtype dtype, float constant,
                uint64_t *state) {
  enum { PIECE = 1 << 16 };
  static float values[PIECE];
  static uint32_t encoded[PIECE]; /* wide enough for any type */
  const size_t size = fa_dtype_bytes(dtype);
  for (int64_t at = 0; at < elements; at += PIECE) {
    const int64_t count = elements - at < PIECE ? elements - at : PIECE;
    if (constant != 0.0f) {
      for (int64_t i = 0; i < count; i++) values[i] = constant;
    } else {
      fill_normal(values, count, state);
    }
    encode(encoded, values, count, dtype);
    fa_status status = fa_buffer_copy(context, (char *)device + (size_t)at * size, encoded,
                                      (size_t)count * size, FA_COPY_HOST_TO_DEVICE, NULL);
    if (!status) status = fa_stream_synchronize(context, NULL);
    if (status) return fa_library_error(status);
  }
  return FA_EXIT_OK;
}

/* A page table whose pages lie in no order, as after a long time of serving. */
static int fill_pages(fa_context *context, void *device, int64_t count, uint64_t *state) {
  int32_t *const pages = malloc((size_t)count * sizeof *pages);
  if (!pages) return fa_failure("no memory for a page table of %" PRId64 " pages", count);
  for (int64_t i = 0; i < count; i++) {
    const int64_t j = (int64_t)(next_random(state) % (uint64_t)(i + 1));
    pages[i] = pages[j];
    pages[j] = (int32_t)i;
  }
  fa_status status =
      fa_buffer_copy(context, device, pages, (size_t)count * sizeof *pages, FA_COPY_HOST_TO_DEVICE, NULL);
  if (!status) status = fa_stream_synchronize(context, NULL);
  free(pages);
  return status ? fa_library_error(status) : FA_EXIT_OK;
}

static fa_tensor tensor(const fa_bench_case *c, void *memory, int64_t seq, int64_t heads, int64_t dim) {
  const fa_tensor t = {memory, seq * heads * dim, c->bhsd ? dim : heads * dim, c->bhsd ? seq * dim : dim};
  return t;
}

fa_attention_args fa_bench_arrange(const fa_bench_case *c, const fa_bench_data *data) {
  /* a page is to k and v what a batch entry is without pages */
  const int64_t entry = c->page_size ? c->page_size : c->seqlen_kv;
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  args.q = tensor(c, data->buffer[FA_BENCH_Q], c->seqlen_q, c->heads_q, c->head_dim_qk);
  args.o = tensor(c, data->buffer[FA_BENCH_O], c->seqlen_q, c->heads_q, c->head_dim_v);
  args.k = tensor(c, data->buffer[FA_BENCH_K], entry, c->heads_kv, c->head_dim_qk);
  args.v = tensor(c, data->buffer[FA_BENCH_V], entry, c->heads_kv, c->head_dim_v);
  args.k_scale = tensor(c, data->buffer[FA_BENCH_K_SCALE], entry, c->heads_kv, 1);
  args.v_scale = tensor(c, data->buffer[FA_BENCH_V_SCALE], entry, c->heads_kv, 1);
  args.page_table = data->buffer[FA_BENCH_PAGES];
  if (c->page_size) args.page_table_stride = pages_of(c);
  return args;
}

int fa_bench_data_create(fa_context *context, const fa_bench_case *c, uint64_t seed, fa_bench_data *data) {
  int64_t elements[FA_BENCH_BUFFERS];
  memset(data, 0, sizeof *data);
  if (!count_elements(c, elements)) return fa_failure("this shape needs more memory than can be addressed");
  uint64_t state = seed;
  for (int i = 0; i < FA_BENCH_BUFFERS; i++) {
    if (!elements[i]) continue;
    data->bytes[i] = (size_t)elements[i] * element_bytes(c, i);
    const fa_status status = fa_buffer_allocate(context, data->bytes[i], &data->buffer[i]);
    if (status) return fa_library_error(status);
    int code;
    if (i == FA_BENCH_PAGES) {
      code = fill_pages(context, data->buffer[i], elements[i], &state);
    } else if (i == FA_BENCH_K_SCALE || i == FA_BENCH_V_SCALE) {
      code = fill(context, data->buffer[i], elements[i], FA_FLOAT32, quantised_scale, &state);
    } else {
      const bool cached = i == FA_BENCH_K || i == FA_BENCH_V;
      code = fill(context, data->buffer[i], elements[i], cached ? c->kv_dtype : c->dtype, 0.0f, &state);
    }
    if (code) return code;
  }
  data->args = fa_bench_arrange(c, data);
  return FA_EXIT_OK;
}

void fa_bench_data_free(fa_context *context, fa_bench_data *data) {
  for (int i = 0; i < FA_BENCH_BUFFERS; i++) fa_buffer_free(context, data->buffer[i]);
  memset(data, 0, sizeof *data);
}
