#include "bench_verify.h"

#include <stdlib.h>
#include <string.h>

#include "check/check.h"

enum { SEED = 11 };

/* The reference takes tens of nanoseconds a product, so over long caches fewer rows. */
static int64_t rows_to_check(const fa_bench_case *c) {
  enum { FEWEST = 2, MOST = 24 };
  const int64_t products = (int64_t)1 << 25;
  const int64_t rows = products / (c->seqlen_kv * (c->head_dim_qk + c->head_dim_v));
  return rows < FEWEST ? FEWEST : rows > MOST ? MOST : rows;
}

/* The reference reads host memory. On the CPU that is what there is; otherwise everything is copied. */
typedef struct host_copy {
  void *memory[FA_BENCH_BUFFERS]; /* NULL: not copied */
  fa_attention_args args;
} host_copy;

static int copy_to_host(fa_context *context, const fa_bench_data *data, host_copy *host) {
  for (int i = 0; i < FA_BENCH_BUFFERS; i++) {
    if (!data->bytes[i]) continue;
    host->memory[i] = malloc(data->bytes[i]);
    if (!host->memory[i])
      return fa_failure("no memory for a host copy of %zu bytes to check", data->bytes[i]);
    fa_status status = fa_buffer_copy(context, host->memory[i], data->buffer[i], data->bytes[i],
                                      FA_COPY_DEVICE_TO_HOST, NULL);
    if (!status) status = fa_stream_synchronize(context, NULL);
    if (status) return fa_library_error(status);
  }
  host->args.q.data = host->memory[FA_BENCH_Q];
  host->args.k.data = host->memory[FA_BENCH_K];
  host->args.v.data = host->memory[FA_BENCH_V];
  host->args.o.data = host->memory[FA_BENCH_O];
  host->args.k_scale.data = host->memory[FA_BENCH_K_SCALE];
  host->args.v_scale.data = host->memory[FA_BENCH_V_SCALE];
  host->args.page_table = host->memory[FA_BENCH_PAGES];
  return FA_EXIT_OK;
}

int fa_bench_verify(fa_context *context, const fa_device_info *device, const fa_bench_case *c,
                    const fa_bench_data *data, const char *kernel, double *max_err) {
  host_copy host = {{NULL}, data->args};
  int code = FA_EXIT_OK;
  if (strcmp(device->name, "cpu") != 0) code = copy_to_host(context, data, &host);
  if (!code) {
    const fa_attention_problem problem = fa_bench_problem(c, kernel);
    fa_check_result result;
    const fa_status status = fa_check_problem(&problem, &host.args, rows_to_check(c), SEED, &result);
    *max_err = result.max_error;
    if (status)
      code = fa_failure("no memory to check the result of %s", kernel);
    else if (!result.passed)
      code = fa_failure("%s is wrong and is not timed: %s", kernel, result.line);
  }
  for (int i = 0; i < FA_BENCH_BUFFERS; i++) free(host.memory[i]);
  return code;
}
