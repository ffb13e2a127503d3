/* Does the hazard finder find every synchronisation that the Ascend kernels would be wrong without? Leaves out, one at a time,
 * each SetFlag, WaitFlag, PipeBarrier, CrossCoreSetFlag, CrossCoreWaitFlag and SyncAll of the source, and each flag with all its
 * sets and waits, and runs problems that between them come by all of them.
 *
 * Caught: a run ends with a hazard, or its results differ. Redundant: no problem's run has a hazard without it (which holds for all
 * timings, see sim/davinci/order.h), and all results are the same bits; that is as
 * much a failure, unless the source says beside it why it stays.
 * Run from the project's folder: a statement of the source that no problem came by fails too.
 *
 *   mutate_order [all]     without `all` the caught are not listed. The closing line is "N passed, N failed". */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ascend/host/sim_backend.h"
#include "core/dtype.h"
#include "fastattention/fastattention.h"

typedef struct shape {
  const char *kernel;
  fa_dtype dtype;
  int64_t batch, heads_q, heads_kv, queries, keys, dim, dim_v;
  int32_t causal;
  int64_t left, right;
  int64_t page_size, splits;
  fa_ascend_wish wish;
  int has_infinity; /* in v, and a NaN in q, so that rows are computed alone */
  float scale;      /* 0: the usual one */
  int has_no_lse;
  int odd_strides;  /* rows of q and o too far apart for one move */
} shape;

static const shape shapes[] = {
    {.kernel = "flash_ascend", .dtype = FA_FLOAT16, .batch = 1, .heads_q = 26, .heads_kv = 26, .queries = 300, .keys = 900, .dim = 64, .dim_v = 64,
     .causal = 1, .left = -1, .right = -1, .wish = {.level1_keys = 256, .preload = 2, .level2_rows = 16}},
    {.kernel = "flash_ascend", .dtype = FA_BFLOAT16, .batch = 1, .heads_q = 2, .heads_kv = 1, .queries = 200, .keys = 2500, .dim = 128, .dim_v = 128,
     .left = -1, .right = -1, .splits = 1},
    {.kernel = "flash_ascend", .dtype = FA_FLOAT16, .batch = 2, .heads_q = 30, .heads_kv = 15, .queries = 150, .keys = 700, .dim = 192, .dim_v = 256,
     .left = 100, .right = 60, .has_infinity = 1},
    {.kernel = "flash_ascend", .dtype = FA_FLOAT16, .batch = 3, .heads_q = 16, .heads_kv = 2, .queries = 1, .keys = 1500, .dim = 128, .dim_v = 128,
     .left = -1, .right = -1, .page_size = 128, .splits = 4},
    {.kernel = "flash_ascend", .dtype = FA_BFLOAT16, .batch = 1, .heads_q = 3, .heads_kv = 3, .queries = 300, .keys = 70, .dim = 65, .dim_v = 33,
     .causal = 1, .left = -1, .right = -1, .splits = 2, .has_infinity = 1, .odd_strides = 1},
    {.kernel = "flash_ascend", .dtype = FA_FLOAT16, .batch = 1, .heads_q = 30, .heads_kv = 30, .queries = 300, .keys = 70, .dim = 64, .dim_v = 64,
     .causal = 1, .left = -1, .right = -1, .splits = 1, .has_no_lse = 1},
    {.kernel = "one_level_ascend", .dtype = FA_FLOAT16, .batch = 1, .heads_q = 30, .heads_kv = 30, .queries = 256, .keys = 640, .dim = 128, .dim_v = 128,
     .causal = 1, .left = -1, .right = -1, .scale = -0.1f},
    {.kernel = "standard_ascend", .dtype = FA_FLOAT16, .batch = 1, .heads_q = 9, .heads_kv = 3, .queries = 300, .keys = 700, .dim = 80, .dim_v = 72,
     .causal = 1, .left = -1, .right = -1},
    {.kernel = "standard_ascend", .dtype = FA_BFLOAT16, .batch = 1, .heads_q = 2, .heads_kv = 2, .queries = 140, .keys = 9000, .dim = 128, .dim_v = 128,
     .left = 3000, .right = 100},
    {.kernel = "standard_ascend", .dtype = FA_FLOAT16, .batch = 1, .heads_q = 2, .heads_kv = 2, .queries = 60, .keys = 21000, .dim = 64, .dim_v = 64,
     .left = -1, .right = -1},
    {.kernel = "eager_ascend", .dtype = FA_FLOAT16, .batch = 1, .heads_q = 5, .heads_kv = 5, .queries = 300, .keys = 700, .dim = 128, .dim_v = 128,
     .causal = 1, .left = -1, .right = -1},
    {.kernel = "eager_ascend", .dtype = FA_BFLOAT16, .batch = 1, .heads_q = 1, .heads_kv = 1, .queries = 70, .keys = 15000, .dim = 64, .dim_v = 64,
     .left = 9000, .right = 40},
};
static const char KERNELS[] = "src/ascend/kernel";
enum { SHAPES = sizeof shapes / sizeof shapes[0], MOST = 1024, LINE = 400 };

/* ------------------------------------------------------------------ a problem, ready to run */

typedef struct problem {
  fa_plan *plan;
  fa_attention_args args;
  void *workspace;
  size_t workspace_bytes, o_bytes, lse_bytes;
  unsigned char *right; /* o and lse of the kernel as it is */
} problem;

static fa_context *context;

static void must(fa_status status) {
  if (status == FA_OK) return;
  fprintf(stderr, "mutate_order: %s\n", fa_last_error());
  exit(2);
}

static void *allocate(size_t bytes) {
  void *memory;
  must(fa_buffer_allocate(context, bytes ? bytes : 1, &memory));
  return memory;
}

/* Device memory of the emulated chip is the host's. */
static void *random_elements(int64_t count, fa_dtype dtype, uint32_t seed) {
  void *memory = allocate((size_t)count * fa_dtype_bytes(dtype));
  for (int64_t n = 0; n < count; ++n) {
    seed = seed * 1664525u + 1013904223u;
    fa_store_float(memory, n, (float)(int32_t)seed / 1.5e9f, dtype);
  }
  return memory;
}

static void open_problem(const shape *s, problem *made) {
  const int64_t row = s->dim * s->heads_q + (s->odd_strides ? 70000 : 0), row_v = s->dim_v * s->heads_q + (s->odd_strides ? 70000 : 0);
  const int64_t pages = s->page_size ? (s->keys + s->page_size - 1) / s->page_size : 0;
  const int64_t tokens = s->page_size ? pages * s->page_size : s->keys;
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  p.kernel = s->kernel;
  p.dtype = p.kv_dtype = s->dtype;
  p.batch = s->batch, p.heads_q = s->heads_q, p.heads_kv = s->heads_kv;
  p.max_seqlen_q = s->queries, p.max_seqlen_kv = s->keys;
  p.head_dim_qk = s->dim, p.head_dim_v = s->dim_v;
  p.causal = s->causal, p.window_left = s->left, p.window_right = s->right;
  p.has_lse = !s->has_no_lse;
  if (s->scale != 0.0f) p.scale = s->scale;
  p.kv_splits = (int32_t)s->splits;
  p.page_size = s->page_size, p.num_pages = pages * s->batch;
  fa_ascend_sim_view view;
  memset(&view, 0, sizeof view);
  view.wish = s->wish;
  fa_ascend_sim_look(context, &view);
  must(fa_plan_create(context, &p, &made->plan));
  const fa_attention_args empty = FA_ATTENTION_ARGS_INIT;
  made->args = empty;
  fa_attention_args *a = &made->args;
  const fa_tensor q = {random_elements(s->batch * s->queries * row, s->dtype, 1), s->queries * row, row, s->dim};
  const fa_tensor k = {random_elements(s->batch * tokens * s->heads_kv * s->dim, s->dtype, 2), (s->page_size ? s->page_size : s->keys) * s->heads_kv * s->dim,
                       s->heads_kv * s->dim, s->dim};
  const fa_tensor v = {random_elements(s->batch * tokens * s->heads_kv * s->dim_v, s->dtype, 3),
                       (s->page_size ? s->page_size : s->keys) * s->heads_kv * s->dim_v, s->heads_kv * s->dim_v, s->dim_v};
  made->o_bytes = (size_t)(s->batch * s->queries * row_v) * fa_dtype_bytes(s->dtype);
  made->lse_bytes = (size_t)(s->batch * s->heads_q * s->queries) * sizeof(float);
  const fa_tensor o = {allocate(made->o_bytes), s->queries * row_v, row_v, s->dim_v};
  a->q = q, a->k = k, a->v = v, a->o = o;
  a->lse = allocate(made->lse_bytes);
  a->lse_stride_batch = s->heads_q * s->queries, a->lse_stride_head = s->queries;
  if (s->has_infinity) {
    fa_store_float(a->v.data, s->keys * 5 / 6 * s->heads_kv * s->dim_v, (float)INFINITY, s->dtype);
    fa_store_float(a->q.data, (s->queries - 1) * row, (float)NAN, s->dtype);
  }
  if (s->page_size) {
    int32_t *table = allocate((size_t)(pages * s->batch) * sizeof *table);
    for (int64_t n = 0; n < pages * s->batch; ++n) table[n] = (int32_t)((n * 7 + 3) % (pages * s->batch));
    if (pages * s->batch % 7 == 0)
      for (int64_t n = 0; n < pages * s->batch; ++n) table[n] = (int32_t)n;
    a->page_table = table;
    a->page_table_stride = pages;
  }
  made->workspace_bytes = fa_plan_workspace_bytes(made->plan);
  made->workspace = allocate(made->workspace_bytes);
  made->right = malloc(made->o_bytes + made->lse_bytes);
  if (!made->right) exit(2);
}

static fa_status run(const problem *p, const dv_skip *skip) {
  fa_ascend_sim_view view;
  memset(&view, 0, sizeof view);
  view.skips = skip;
  view.skips_count = skip != NULL;
  fa_ascend_sim_look(context, &view);
  memset(p->args.o.data, 0xff, p->o_bytes);
  memset(p->args.lse, 0xff, p->lse_bytes);
  memset(p->workspace, 0xff, p->workspace_bytes);
  return fa_attention_run(p->plan, &p->args, p->workspace, p->workspace_bytes, NULL);
}

static int is_right(const problem *p) {
  return memcmp(p->right, p->args.o.data, p->o_bytes) == 0 && memcmp(p->right + p->o_bytes, p->args.lse, p->lse_bytes) == 0;
}

/* ------------------------------------------------------------------ mutants */

typedef struct mutant {
  dv_skip skip;
  unsigned problems; /* that come by it, bits */
  char how[LINE];    /* it was caught; "" not */
} mutant;

static mutant mutants[MOST];
static int mutants_count;

static void add(const dv_skip *skip, int number) {
  for (int n = 0; n < mutants_count; ++n) {
    const dv_skip *known = &mutants[n].skip;
    if (known->line == skip->line && known->from == skip->from && known->to == skip->to && known->id == skip->id &&
        (!known->instruction) == (!skip->instruction) &&
        (!skip->instruction || (strcmp(known->instruction, skip->instruction) == 0 && strcmp(known->file, skip->file) == 0))) {
      mutants[n].problems |= 1u << number;
      return;
    }
  }
  if (mutants_count == MOST) {
    fprintf(stderr, "mutate_order: more than %d statements and flags; raise MOST\n", MOST);
    exit(2);
  }
  mutants[mutants_count].skip = *skip;
  mutants[mutants_count++].problems = 1u << number;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static void find_mutants(const dv_chip *chip, int number) {
  dv_synchronisation found;
  for (int n = 0; dv_last_synchronisation(chip, n, &found); ++n) {
    const dv_skip skip = {found.here.instruction, base_name(found.here.file), found.here.line, 0, 0, 0};
    add(&skip, number);
  }
  for (int from = -1; from < DV_PIPES; ++from)
    for (int to = from < 0 ? -1 : 0; to < (from < 0 ? 0 : DV_PIPES); ++to)
      for (int id = 0; id < 16; ++id)
        if (dv_last_flag(chip, from, to, id)) {
          const dv_skip skip = {NULL, NULL, 0, from, to, id};
          add(&skip, number);
        }
}

static void describe(const dv_skip *skip, char *text, size_t size) {
  static const char *const pipes[] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX"};
  if (skip->instruction)
    snprintf(text, size, "%s:%d %s", skip->file, skip->line, skip->instruction);
  else if (skip->from < 0)
    snprintf(text, size, "all of cross-core flag %d", skip->id);
  else
    snprintf(text, size, "all of %s_%s %d", pipes[skip->from], pipes[skip->to], skip->id);
}

/* ------------------------------------------------------------------ statements of the source */

static int is_known(const char *instruction, const char *file, int line) {
  for (int n = 0; n < mutants_count; ++n) {
    const dv_skip *known = &mutants[n].skip;
    if (known->instruction && known->line == line && strcmp(known->instruction, instruction) == 0 && strcmp(known->file, file) == 0) return 1;
  }
  return 0;
}

/* Those in a file that no problem came by. */
static int unreached_in(const char *folder, const char *name) {
  static const char *const instructions[] = {"SetFlag", "WaitFlag", "PipeBarrier", "CrossCoreSetFlag", "CrossCoreWaitFlag", "SyncAll"};
  char path[512], text[1024];
  int unreached = 0;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "r");
  for (int line = 1; file && fgets(text, sizeof text, file); ++line) {
    char *const comment = strstr(text, "//");
    if (comment) *comment = '\0';
    for (size_t n = 0; n < sizeof instructions / sizeof instructions[0]; ++n) {
      const size_t length = strlen(instructions[n]);
      for (const char *at = strstr(text, instructions[n]); at; at = strstr(at + length, instructions[n])) {
        const int begins = at == text || at[-1] == ' ' || at[-1] == ';' || at[-1] == '{' || at[-1] == '(';
        if (!begins || (at[length] != '<' && at[length] != '(') || is_known(instructions[n], name, line)) continue;
        printf("%s:%d %s: no problem came by\n", name, line, instructions[n]);
        ++unreached;
      }
    }
  }
  if (file) fclose(file);
  return unreached;
}

static int unreached(const char *folder) {
  DIR *open = opendir(folder);
  if (!open) {
    fprintf(stderr, "mutate_order: no folder %s; run it from the project's\n", folder);
    exit(2);
  }
  int count = 0;
  for (const struct dirent *entry; (entry = readdir(open));)
    if (entry->d_name[0] != '.') count += unreached_in(folder, entry->d_name);
  closedir(open);
  return count;
}

/* Standard attention launches several kernels; the last launch alone is remembered by the chip, so each is asked behind itself. */
typedef struct watching {
  const dv_chip *chip;
  int number;
} watching;
static void watch(void *user, const char *function, const dv_report *report) {
  (void)function, (void)report;
  const watching *w = user;
  find_mutants(w->chip, w->number);
}

/* The source says so itself, and why it stays. */
static int is_kept_for_the_device(const dv_skip *skip) {
  char path[512], text[1024] = "";
  if (!skip->instruction) return 0;
  snprintf(path, sizeof path, "%s/%s", KERNELS, skip->file);
  FILE *file = fopen(path, "r");
  for (int line = 0; file && line < skip->line && fgets(text, sizeof text, file);) ++line;
  if (file) fclose(file);
  return strstr(text, "// redundant on the emulator") != NULL;
}

int main(int argc, char **argv) {
  const int lists_all = argc > 1 && strcmp(argv[1], "all") == 0;
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.device = "ascend-sim";
  must(fa_context_create(&options, &context));
  static problem problems[SHAPES];
  for (int n = 0; n < SHAPES; ++n) {
    open_problem(&shapes[n], &problems[n]);
    watching w = {fa_ascend_sim_chip(context), n};
    fa_ascend_sim_view view;
    memset(&view, 0, sizeof view);
    view.watch = watch;
    view.user = &w;
    fa_ascend_sim_look(context, &view);
    memset(problems[n].args.o.data, 0xff, problems[n].o_bytes);
    memset(problems[n].args.lse, 0xff, problems[n].lse_bytes);
    must(fa_attention_run(problems[n].plan, &problems[n].args, problems[n].workspace, problems[n].workspace_bytes, NULL));
    memcpy(problems[n].right, problems[n].args.o.data, problems[n].o_bytes);
    memcpy(problems[n].right + problems[n].o_bytes, problems[n].args.lse, problems[n].lse_bytes);
    must(run(&problems[n], NULL));
    if (!is_right(&problems[n])) {
      printf("problem %d gives other bits the second time\n0 passed, 1 failed\n", n);
      return 1;
    }
  }
  int statements = 0, kept = 0, caught[2] = {0, 0}, redundant[2] = {0, 0};
  for (int m = 0; m < mutants_count; ++m) {
    mutant *mutated = &mutants[m];
    for (int n = 0; n < SHAPES && !mutated->how[0]; ++n) {
      if (!(mutated->problems >> n & 1u)) continue;
      if (run(&problems[n], &mutated->skip) != FA_OK)
        snprintf(mutated->how, sizeof mutated->how, "%.*s", LINE - 1, fa_last_error());
      else if (!is_right(&problems[n]))
        snprintf(mutated->how, sizeof mutated->how, "other results");
    }
    char text[128];
    describe(&mutated->skip, text, sizeof text);
    const int is_flag = !mutated->skip.instruction;
    statements += !is_flag;
    if (mutated->how[0]) {
      caught[is_flag]++;
    } else {
      redundant[is_flag]++;
      kept += is_kept_for_the_device(&mutated->skip);
    }
    if (lists_all || !mutated->how[0]) printf("%-48s %s\n", text, mutated->how[0] ? mutated->how : "redundant: no hazard and the same bits");
  }
  printf("statements: %d left out one at a time, %d caught, %d shown redundant\n", statements, caught[0], redundant[0]);
  printf("flags: %d left out whole, %d caught, %d shown redundant\n", mutants_count - statements, caught[1], redundant[1]);
  const int without = unreached(KERNELS);
  printf("%d statements of the source that no problem came by\n", without);
  const int failed = redundant[0] + redundant[1] - kept + without;
  printf("%d passed, %d failed\n", caught[0] + caught[1] + kept, failed);
  for (int n = 0; n < SHAPES; ++n) {
    fa_plan_destroy(problems[n].plan);
    free(problems[n].right);
  }
  return failed > 0;
}
