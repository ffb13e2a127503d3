/* One problem to time: its shape, and random data for it in device memory. */
#ifndef FA_CLI_BENCH_CASE_H
#define FA_CLI_BENCH_CASE_H

#include "options.h"

typedef struct fa_bench_case {
  bool is_decode; /* the bound is reading K and V, not arithmetic */
  int64_t batch, heads_q, heads_kv, seqlen_q, seqlen_kv, head_dim_qk, head_dim_v;
  fa_dtype dtype, kv_dtype;
  int causal;
  int64_t window_left, window_right;
  int64_t page_size;  /* 0: not paged */
  bool bhsd;          /* memory order of all tensors: (b, h, s, d) instead of (b, s, h, d) */
  const char *kernel; /* NULL: the fastest */
  int32_t kv_splits;  /* 0: the kernel chooses */
} fa_bench_case;

/* Sizes of --shape, at least 1 each. FA_EXIT_OK, or prints and returns the exit code. */
int fa_bench_read_shape(const char *text, fa_bench_case *c);

/* "1,32,8,4096,4096,128" with a seventh number where the head sizes differ. */
#define FA_BENCH_SHAPE_TEXT 160
char *fa_bench_shape_text(const fa_bench_case *c, char text[FA_BENCH_SHAPE_TEXT]);

/* The problem as the library takes it, `kernel` in it. */
fa_attention_problem fa_bench_problem(const fa_bench_case *c, const char *kernel);

/* Multiplications and additions of both products over the scores that the masks keep. */
double fa_bench_operations(const fa_bench_case *c);
/* Bytes that must move once: the keys and values any query keeps, q and o. */
double fa_bench_bytes(const fa_bench_case *c);
/* Of those, the bytes of K (or of V). */
double fa_bench_key_bytes(const fa_bench_case *c, int64_t head_dim);

typedef enum fa_bench_buffer {
  FA_BENCH_Q,
  FA_BENCH_K,
  FA_BENCH_V,
  FA_BENCH_O,
  FA_BENCH_K_SCALE,
  FA_BENCH_V_SCALE,
  FA_BENCH_PAGES,
  FA_BENCH_BUFFERS
} fa_bench_buffer;

typedef struct fa_bench_data {
  void *buffer[FA_BENCH_BUFFERS]; /* device */
  size_t bytes[FA_BENCH_BUFFERS];
  fa_attention_args args;
} fa_bench_data;

/* Host memory the buffers take; SIZE_MAX when that does not fit in a size_t. */
size_t fa_bench_data_bytes(const fa_bench_case *c);

/* Allocates and fills: values are close to normally distributed with deviation 1, the same for the same seed.
 * Returns FA_EXIT_OK, or prints and returns the exit code; what was allocated is then still to be freed. */
int fa_bench_data_create(fa_context *context, const fa_bench_case *c, uint64_t seed, fa_bench_data *data);
/* The tensors of this memory in c's layout; the same memory serves either. */
fa_attention_args fa_bench_arrange(const fa_bench_case *c, const fa_bench_data *data);
void fa_bench_data_free(fa_context *context, fa_bench_data *data);

#endif
