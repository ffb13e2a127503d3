#include "tune_search.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "bench_clock.h"
#include "check/check.h"
#include "convert.h"
#include "process_memory.h"

enum { SEED = 20, MOST_CANDIDATES = 64, MOST_ROUNDS = 15, LEAST_ROUNDS = 3, LEAST_AGAIN = 7 };

/* After its first timed runs a candidate this far behind the best has no chance. */
#define HOPELESS 1.25
/* Kernels this near to the best are worth other tiles. */
#define PROMISING 1.5

typedef struct candidate {
  fa_plan *plan;
  fa_plan_info info;
  fa_plan_choice choice;
  int in_a_row[FA_TUNE_LAYOUTS];
  bool is_short[FA_TUNE_LAYOUTS], is_out;
  int rounds;
  double ms[FA_TUNE_LAYOUTS][MOST_ROUNDS];
} candidate;

typedef struct search {
  fa_context *context;
  const fa_bench_case *c;
  const fa_tune_effort *effort;
  const char *progress;
  fa_attention_problem problem;
  fa_bench_data data;
  fa_attention_args args[FA_TUNE_LAYOUTS]; /* of the same memory, which is other problems' data of the same kind */
  void *expected[FA_TUNE_LAYOUTS];         /* o of the rule's choice */
  void *workspace;
  size_t workspace_bytes;
  double tolerance[FA_TUNE_LAYOUTS], max_err; /* of the checker, for o; of what it saw last */
  candidate list[MOST_CANDIDATES]; /* the first is the rule's */
  int count;
} search;

static void show(const search *s, const char *what, int n, int of) {
  if (s->effort->is_silent) return;
  fprintf(stderr, "\r%s: %s %d of %d   ", s->progress, what, n, of);
  fflush(stderr);
}

/* --------------------------------------------------------------- candidates */

static bool is_known(const search *s, const fa_plan_info *info) {
  for (int n = 0; n < s->count; n++) {
    const fa_plan_info *have = &s->list[n].info;
    if (strcmp(have->kernel, info->kernel) == 0 && have->level1_rows == info->level1_rows &&
        have->level1_keys == info->level1_keys && have->kv_splits == info->kv_splits)
      return true;
  }
  return false;
}

/* Adds what the kernel takes and nobody has added. NULL choice: the rule's. */
static fa_status add(search *s, const fa_plan_choice *choice) {
  if (s->count == MOST_CANDIDATES) return FA_OK;
  candidate *const one = &s->list[s->count];
  memset(one, 0, sizeof *one);
  fa_status status = choice ? fa_plan_create_with(s->context, &s->problem, choice, &one->plan)
                            : fa_plan_create(s->context, &s->problem, &one->plan);
  if (choice && (status == FA_ERROR_ARGUMENT || status == FA_ERROR_UNSUPPORTED)) return FA_OK;
  if (!status) {
    one->info = (fa_plan_info)FA_PLAN_INFO_INIT;
    status = fa_plan_describe(one->plan, &one->info);
  }
  if (!status && choice && is_known(s, &one->info)) {
    fa_plan_destroy(one->plan);
    one->plan = NULL;
    return FA_OK;
  }
  if (status) return status;
  if (choice) one->choice = *choice;
  if (one->info.workspace_bytes > s->workspace_bytes) {
    fa_buffer_free(s->context, s->workspace);
    s->workspace = NULL;
    s->workspace_bytes = 0;
    status = fa_buffer_allocate(s->context, one->info.workspace_bytes, &s->workspace);
    if (!status) s->workspace_bytes = one->info.workspace_bytes;
  }
  s->count++;
  return status;
}

/* Every other kernel with tiles of its own. Plain C only where there is nothing else: it is what the others exist for. */
static fa_status add_kernels(search *s, const char *only) {
  fa_status status = FA_OK;
  const bool with_c = strcmp(s->list[0].info.arch, "c") == 0 || (only && strcmp(only, "c") == 0);
  for (int32_t k = 0; k < fa_kernel_count() && !status; k++) {
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    status = fa_kernel_describe(k, &info);
    if (status || !info.available || info.is_baseline || strcmp(info.device, "cpu") != 0) continue;
    if (only ? strcmp(only, info.name) != 0 && strcmp(only, info.arch) != 0 : strcmp(info.arch, "c") == 0 && !with_c)
      continue;
    const fa_plan_choice choice = {sizeof choice, info.name, 0, 0, 0};
    status = add(s, &choice);
  }
  return status;
}

static int64_t scaled(int64_t own, int64_t step, int power) {
  if (power == 0 || step < 1) return 0;
  const int64_t wanted = power > 0 ? own << power : own >> -power;
  return wanted < step ? step : wanted / step * step;
}

/* Other tiles and splits of candidate n's kernel. */
static fa_status add_tiles(search *s, int n) {
  const fa_plan_info own = s->list[n].info;
  const int reach = s->effort->reach;
  fa_status status = FA_OK;
  for (int rows = -reach; rows <= reach && !status; rows++)
    for (int keys = -reach; keys <= reach && !status; keys++) {
      const fa_plan_choice choice = {sizeof choice, own.kernel, scaled(own.level1_rows, own.level2_rows, rows),
                                     scaled(own.level1_keys, own.level2_keys, keys), 0};
      if (rows || keys) status = add(s, &choice);
    }
  for (int64_t splits = 1; splits <= 256 && !status; splits *= reach > 1 ? 2 : 4) {
    const fa_plan_choice choice = {sizeof choice, own.kernel, 0, 0, splits};
    status = add(s, &choice);
  }
  return status;
}

/* ------------------------------------------------------------------ running */

static fa_status run_once(search *s, const candidate *one, int layout) {
  const fa_status status = fa_attention_run(one->plan, &s->args[layout], s->workspace, one->info.workspace_bytes, NULL);
  return status ? status : fa_stream_synchronize(s->context, NULL);
}

static int describe_wrong(const candidate *one, const char *how) {
  return fa_failure("%s with tiles %" PRId64 "x%" PRId64 " and %" PRId64 " splits is wrong and is not timed: %s",
                    one->info.kernel, one->info.level1_rows, one->info.level1_keys, one->info.kv_splits, how);
}

/* o in memory against double precision, on a few rows. */
static int check_rows(search *s, const candidate *one, int layout) {
  const double products = (double)s->c->seqlen_kv * (double)(s->c->head_dim_qk + s->c->head_dim_v);
  const double rows = (double)(1 << 22) / products;
  fa_check_result result;
  const fa_status status =
      fa_check_problem(&s->problem, &s->args[layout], rows < 2.0 ? 2 : rows > 16.0 ? 16 : (int64_t)rows, SEED, &result);
  if (status) return fa_library_error(status);
  s->tolerance[layout] = result.tolerance;
  s->max_err = fmax(s->max_err, result.max_error);
  return result.passed ? FA_EXIT_OK : describe_wrong(one, result.line);
}

/* All of o against that of the rule's choice: both are within the tolerance, so they are within twice of it. */
static int check_all(search *s, const candidate *one, int layout) {
  enum { PIECE = 4096 };
  static float expected[PIECE], found[PIECE];
  const double allowed = 2.0 * s->tolerance[layout];
  const fa_dtype dtype = s->c->dtype;
  const size_t size = fa_dtype_bytes(dtype);
  const int64_t elements = (int64_t)(s->data.bytes[FA_BENCH_O] / size);
  for (int64_t at = 0; at < elements; at += PIECE) {
    const int64_t count = elements - at < PIECE ? elements - at : PIECE;
    fa_convert(expected, FA_FLOAT32, (const char *)s->expected[layout] + (size_t)at * size, dtype, count);
    fa_convert(found, FA_FLOAT32, (const char *)s->data.buffer[FA_BENCH_O] + (size_t)at * size, dtype, count);
    for (int64_t i = 0; i < count; i++) {
      const double difference = fabs((double)expected[i] - (double)found[i]);
      if (difference <= allowed) continue;
      char how[160];
      snprintf(how, sizeof how, "o[%" PRId64 "] is %.9g, of %s %.9g; twice the tolerance is %.3g", at + i,
               (double)found[i], s->list[0].info.kernel, (double)expected[i], allowed);
      return describe_wrong(one, how);
    }
  }
  return FA_EXIT_OK;
}

/* The first run, which must be right, and a second that says how to time it. A NaN left in o must not pass for a
 * result. */
static int try_out(search *s, candidate *one, int layout) {
  memset(s->data.buffer[FA_BENCH_O], 0xff, s->data.bytes[FA_BENCH_O]);
  fa_status status = run_once(s, one, layout);
  if (status) return fa_library_error(status);
  const int code = one == s->list ? check_rows(s, one, layout) : check_all(s, one, layout);
  if (code) return code;
  if (one == s->list) memcpy(s->expected[layout], s->data.buffer[FA_BENCH_O], s->data.bytes[FA_BENCH_O]);
  const double begin = fa_bench_now_ms();
  status = run_once(s, one, layout);
  if (status) return fa_library_error(status);
  const double ms = fa_bench_now_ms() - begin;
  one->is_short[layout] = ms < FA_BENCH_SHORT_MS;
  one->in_a_row[layout] = fa_bench_in_a_row(ms);
  one->ms[layout][0] = ms;
  one->rounds = 1; /* all that is known of one that is out */
  one->is_out |= s->list[0].ms[layout][0] * 2.0 * HOPELESS < ms; /* one run is noise; far away is far away */
  return FA_EXIT_OK;
}

/* The time of the next round. */
static fa_status sample(search *s, candidate *one, int layout) {
  fa_status status = one->is_short[layout] ? run_once(s, one, layout) : FA_OK;
  const double begin = fa_bench_now_ms();
  for (int i = 0; i < one->in_a_row[layout] && !status; i++) status = run_once(s, one, layout);
  one->ms[layout][one->rounds] = (fa_bench_now_ms() - begin) / one->in_a_row[layout];
  return status;
}

static double median_of(const candidate *one, int layout, double *minimum) {
  double sorted[MOST_ROUNDS];
  memcpy(sorted, one->ms[layout], sizeof sorted);
  const double median = fa_bench_median(sorted, one->rounds);
  if (minimum) *minimum = sorted[0];
  return median;
}

static double score(const search *s, const candidate *one) {
  double ms[FA_TUNE_LAYOUTS], rule_ms[FA_TUNE_LAYOUTS];
  for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
    ms[layout] = median_of(one, layout, NULL);
    rule_ms[layout] = median_of(&s->list[0], layout, NULL);
  }
  return fa_tune_score(ms, rule_ms);
}

/* The fastest by score from `from` on, of those that are out only where all are; -1 if there is none. */
static int best_of(const search *s, int from) {
  int best = -1;
  for (int n = from; n < s->count; n++) {
    const bool is_first = best < 0 || (s->list[best].is_out && !s->list[n].is_out);
    if (!is_first && s->list[n].is_out && !s->list[best].is_out) continue;
    if (is_first || score(s, &s->list[n]) < score(s, &s->list[best])) best = n;
  }
  return best;
}

/* Candidates from `first` on in turns, the rule's with them, for at most `ms` once each had its least. */
static int sample_all(search *s, int first, double ms) {
  for (int n = first; n < s->count; n++) {
    show(s, "candidate", n, s->count - 1);
    for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
      const int code = try_out(s, &s->list[n], layout);
      if (code) return code;
    }
  }
  for (int n = 0; n < s->count; n++)
    if (!s->list[n].is_out) s->list[n].rounds = 0;
  const double end = fa_bench_now_ms() + ms;
  for (int round = 0; round < MOST_ROUNDS; round++) {
    if (round >= LEAST_ROUNDS && fa_bench_now_ms() > end) break;
    show(s, "round", round + 1, MOST_ROUNDS);
    for (int n = 0; n < s->count; n++) {
      if (s->list[n].is_out) continue;
      for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
        const fa_status status = sample(s, &s->list[n], layout);
        if (status) return fa_library_error(status);
      }
      s->list[n].rounds++;
    }
    const double best = score(s, &s->list[best_of(s, 0)]);
    for (int n = 1; n < s->count; n++) s->list[n].is_out |= score(s, &s->list[n]) > HOPELESS * best;
  }
  return FA_EXIT_OK;
}

/* ------------------------------------------------------------------- search */

static void keep(const candidate *one, fa_tune_measured *measured) {
  measured->info = one->info;
  measured->info.reason = NULL; /* goes with the plan */
  measured->choice = one->choice;
  for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++)
    measured->ms[layout] = median_of(one, layout, &measured->ms_min[layout]);
}

/* The best of many noisy medians looks better than it is: so it and the rule's choice are measured afresh, in turns,
 * and only that counts. */
static int confirm(search *s, int best, fa_tune_result *result) {
  candidate *const pair[2] = {&s->list[0], &s->list[best]};
  const double end = fa_bench_now_ms() + s->effort->ms / 2.0;
  pair[0]->rounds = pair[1]->rounds = 0;
  for (int round = 0; round < MOST_ROUNDS; round++) {
    if (round >= LEAST_AGAIN && fa_bench_now_ms() > end) break;
    show(s, "again", round + 1, MOST_ROUNDS);
    for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
      for (int turn = 0; turn < 2; turn++) { /* neither is always the first */
        const fa_status status = sample(s, pair[(round + turn) % 2], layout);
        if (status) return fa_library_error(status);
      }
      result->wins[layout] += pair[1]->ms[layout][round] < pair[0]->ms[layout][round];
    }
    result->rounds = ++pair[0]->rounds;
    pair[1]->rounds = result->rounds;
  }
  keep(pair[0], &result->rule);
  keep(pair[1], &result->best);
  fa_tune_judge(result);
  if (!result->is_better) return FA_EXIT_OK;
  s->max_err = 0.0;
  for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
    const fa_status status = run_once(s, pair[1], layout);
    const int code = status ? fa_library_error(status) : check_rows(s, pair[1], layout);
    if (code) return code;
  }
  return FA_EXIT_OK;
}

static int search_all(search *s, const char *only, fa_tune_result *result) {
  fa_status status = add(s, NULL);
  for (int layout = 0; layout < FA_TUNE_LAYOUTS && !status; layout++)
    status = fa_buffer_allocate(s->context, s->data.bytes[FA_BENCH_O], &s->expected[layout]);
  if (!status) status = add_kernels(s, only);
  if (status) return fa_library_error(status);
  int code = sample_all(s, 0, s->effort->ms / 4.0);
  if (code) return code;
  const int kernels = s->count;
  const double best_kernel = score(s, &s->list[best_of(s, 0)]);
  for (int n = 0; n < kernels && !status; n++) {
    const candidate *const one = &s->list[n];
    const bool is_wanted = !only || strcmp(only, one->info.kernel) == 0 || strcmp(only, one->info.arch) == 0;
    if (is_wanted && !one->is_out && score(s, one) < PROMISING * best_kernel) status = add_tiles(s, n);
  }
  if (status) return fa_library_error(status);
  code = sample_all(s, kernels, s->effort->ms / 2.0);
  if (code) return code;
  result->tried = s->count - 1;
  const int best = best_of(s, 1);
  if (best > 0 && score(s, &s->list[best]) < 1.0) return confirm(s, best, result);
  keep(&s->list[0], &result->rule);
  keep(&s->list[best > 0 ? best : 0], &result->best);
  fa_tune_judge(result);
  return FA_EXIT_OK;
}

static int must_fit(const fa_bench_case *c) {
  const double wanted = (double)fa_bench_data_bytes(c);
  const int64_t available = fa_memory_available();
  if (available < 0 || wanted < 0.8 * (double)available) return FA_EXIT_OK;
  return fa_failure("this shape needs %.3g GB of memory and %.3g GB are free; use a smaller one", wanted * 1e-9,
                    (double)available * 1e-9);
}

int fa_tune_search(fa_context *context, const fa_bench_case *c, const char *only, const fa_tune_effort *effort,
                   const char *progress, fa_tune_result *result) {
  static search s; /* too large for some stacks */
  memset(&s, 0, sizeof s);
  memset(result, 0, sizeof *result);
  s.context = context;
  s.c = c;
  s.effort = effort;
  s.progress = progress;
  s.problem = fa_bench_problem(c, NULL);
  int code = must_fit(c);
  if (!code) {
    fa_plan *plan = NULL; /* what is wrong with the shape is said before memory is filled */
    const fa_status status = fa_plan_create(context, &s.problem, &plan);
    fa_plan_destroy(plan);
    if (status) code = fa_library_error(status);
  }
  if (!code) code = fa_bench_data_create(context, c, SEED, &s.data);
  for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) {
    fa_bench_case arranged = *c;
    arranged.bhsd = layout == FA_TUNE_BHSD;
    s.args[layout] = fa_bench_arrange(&arranged, &s.data);
  }
  if (!code) code = search_all(&s, only, result);
  result->max_err = s.max_err;
  for (int n = 0; n < s.count; n++) fa_plan_destroy(s.list[n].plan);
  fa_buffer_free(context, s.workspace);
  for (int layout = 0; layout < FA_TUNE_LAYOUTS; layout++) fa_buffer_free(context, s.expected[layout]);
  fa_bench_data_free(context, &s.data);
  if (!effort->is_silent) fprintf(stderr, "\r%90s\r", "");
  return code;
}
