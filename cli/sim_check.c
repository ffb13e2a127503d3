/* Is what the emulated chip computes right? As much of a problem as can be computed in reasonable time,
 * against the oracle. */
#include "sim_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check/check.h"

/* The emulator computes some billions of operations a second on one core. */
static const double most_operations = 1.5e10;
enum {
  SEED = 11,
  POISON = 0xff
}; /* two bytes of it are a NaN in either type, and no kernel writes that one */

/* ------------------------------------------------------------------ how much */

/* The first group's rows are whole where one launch does all of attention and nothing is joined between
 * groups. */
static fa_sim_extent extent_of(const fa_sim_job *job, bool computes_all, int64_t kv_splits) {
  const double operations = fa_bench_operations(job->c);
  if (computes_all || operations <= most_operations) return FA_SIM_EVERYTHING;
  if (job->tiling->is_flash && kv_splits == 1 && operations / job->chip->groups <= most_operations)
    return FA_SIM_FIRST_GROUP;
  return FA_SIM_NOTHING;
}

/* The same kind of problem: one KV head and its query heads, sequences cut in half until it is small. */
static fa_bench_case smaller(const fa_bench_case *c) {
  fa_bench_case small = *c;
  small.batch = 1;
  small.heads_q = c->heads_q / c->heads_kv;
  small.heads_kv = 1;
  while (fa_bench_operations(&small) > most_operations / 4 && (small.seqlen_q > 1 || small.seqlen_kv > 1)) {
    small.seqlen_q = (small.seqlen_q + 1) / 2;
    small.seqlen_kv = (small.seqlen_kv + 1) / 2;
  }
  return small;
}

/* ------------------------------------------------------------------ comparing */

/* As for `bench`: the reference takes tens of nanoseconds a product. */
static int64_t rows_to_check(const fa_bench_case *c) {
  enum { FEWEST = 2, MOST = 24 };
  const int64_t rows = ((int64_t)1 << 25) / (c->seqlen_kv * (c->head_dim_qk + c->head_dim_v));
  return rows < FEWEST ? FEWEST : rows > MOST ? MOST : rows;
}

static bool is_written(const uint16_t *row, int64_t dim) {
  for (int64_t d = 0; d < dim; d++) {
    if (row[d] != 0xffff) return true;
  }
  return false;
}

/* The first, the last, and others at even distances but for a random part of one, so that no tile's period
 * hides anything. */
static int64_t draw(int64_t written, int64_t count, int64_t n, uint64_t *state) {
  if (n == 0) return 0;
  if (n == count - 1) return written - 1;
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  const int64_t step = written / count;
  const int64_t at = n * step + (step > 1 ? (int64_t)((*state >> 33) % (uint64_t)step) : 0);
  return at < written ? at : written - 1;
}

/* Memory of ascend-sim is the host's (sim_backend.c), so the reference reads it where it is. */
static int compare(const fa_sim_job *job, fa_sim_extent extent, int64_t wanted, fa_sim_check *check) {
  const fa_bench_case *const c = job->c;
  const int64_t all = c->batch * c->seqlen_q * c->heads_q;
  const uint16_t *const o = job->data->buffer[FA_BENCH_O];
  int64_t *const rows = malloc((size_t)all * sizeof *rows);
  if (!rows) return fa_failure("no memory for the numbers of %" PRId64 " rows", all);
  int64_t written = 0;
  for (int64_t n = 0; n < all; n++) {
    if (is_written(o + n * c->head_dim_v, c->head_dim_v)) rows[written++] = n;
  }
  int code = FA_EXIT_OK;
  if (written == 0 || (extent == FA_SIM_EVERYTHING && written < all))
    code = fa_failure("%s is wrong and is not timed: it left %" PRId64 " of %" PRId64 " rows of o unwritten",
                      job->tiling->name, all - written, all);
  if (!wanted) wanted = rows_to_check(c);
  const int64_t count = wanted < written ? wanted : written;
  uint64_t state = SEED;
  for (int64_t n = 0; n < count; n++)
    rows[n] = rows[draw(written, count, n, &state)]; /* in rising order: none is lost */
  if (!code) {
    const fa_attention_problem problem = fa_bench_problem(c, job->tiling->rule);
    fa_check_result result;
    const fa_status status = fa_check_rows(&problem, &job->data->args, rows, count, &result);
    if (status)
      code = fa_failure("no memory to check the result of %s", job->tiling->name);
    else if (!result.passed)
      code = fa_failure("%s is wrong and is not timed: %s", job->tiling->name, result.line);
    check->max_err = result.max_error;
  }
  check->c = *c;
  check->rows = count;
  check->written = written;
  free(rows);
  return code;
}

/* ------------------------------------------------------------------ the two together */

/* Computes job->c to this extent, and compares. */
static int compute(const fa_sim_job *job, fa_context *context, fa_sim_extent extent, int64_t rows,
                   dv_trace *trace, bool *is_traced, fa_sim_check *check, fa_sim_clock *clock) {
  fa_bench_data data;
  fa_sim_job own = *job;
  own.data = &data;
  int code = fa_bench_data_create(context, job->c, SEED, &data);
  if (!code) memset(data.buffer[FA_BENCH_O], POISON, data.bytes[FA_BENCH_O]);
  if (!code) code = fa_sim_time(&own, extent, trace, is_traced, clock);
  if (!code) code = compare(&own, extent, rows, check);
  fa_bench_data_free(context, &data);
  return code;
}

static int time_only(const fa_sim_job *job, fa_context *context, dv_trace *trace, bool *is_traced,
                     fa_sim_clock *clock) {
  fa_bench_data data;
  fa_sim_job own = *job;
  own.data = &data;
  int code = fa_sim_data_blank(context, job->c, &data);
  if (!code) code = fa_sim_time(&own, FA_SIM_NOTHING, trace, is_traced, clock);
  fa_bench_data_free(context, &data);
  return code;
}

/* The tiles that the problem gets, so that a smaller one is computed with the same. */
static fa_ascend_wish tiles_of(const fa_sim_result *result) {
  const fa_ascend_wish tiles = {.level1_rows = result->plan.level1_rows,
                                .level1_keys = result->plan.level1_keys,
                                .level2_rows = result->plan.level2_rows,
                                .cube_keys = result->cube_keys,
                                .preload = result->preload};
  return tiles;
}

int fa_sim_check_smaller(const fa_sim_job *job, int64_t rows, fa_sim_check *check) {
  const fa_bench_case small = smaller(job->c);
  fa_sim_job like = *job;
  fa_sim_clock clock;
  fa_context *context = NULL;
  like.c = &small;
  int code = fa_sim_chip_open(job->chip, &context);
  if (!code) code = compute(&like, context, FA_SIM_EVERYTHING, rows, NULL, NULL, check, &clock);
  check->extent = FA_SIM_NOTHING;
  fa_context_destroy(context);
  return code;
}

int fa_sim_check_and_time(const fa_sim_job *job, bool computes_all, int64_t rows, dv_trace *trace,
                          bool *is_traced, fa_sim_result *result) {
  fa_context *context = NULL;
  const fa_sim_extent extent = extent_of(job, computes_all, result->plan.kv_splits);
  int code = fa_sim_chip_open(job->chip, &context);
  if (code) return code;
  if (extent != FA_SIM_NOTHING) {
    code = compute(job, context, extent, rows, trace, is_traced, &result->check, &result->clock);
    result->check.extent = extent;
  } else {
    const fa_ascend_wish tiles = tiles_of(result);
    fa_sim_job like = *job;
    if (job->tiling->is_flash) like.wish = &tiles;
    code = fa_sim_check_smaller(&like, rows, &result->check);
    if (!code) code = time_only(job, context, trace, is_traced, &result->clock);
  }
  fa_context_destroy(context);
  return code;
}
