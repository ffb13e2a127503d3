/* One layer's launches run one behind the other on one chip, so that what a step leaves in L2 is there for
 * the next: QKV projection, attention, output projection, gate and up in one product, down. Weights come from
 * HBM, as each layer has its own. The passes between them (two RMS norms, rotation, SiLU times up, two
 * residual sums) have no kernel here: each counts as its bytes over HBM's rate and a launch, the same for
 * every tiling. Embedding and the last product over the vocabulary are left out. */
#include "sim_layer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ascend/host/sim_matmul.h"
#include "sim_rows.h"

typedef struct arch {
  const char *name;
  int64_t layers, hidden, heads_q, heads_kv, head_dim, inner;
} arch;

/* As the models' published configurations have them. */
static const arch archs[] = {
    {"llama-7b", 32, 4096, 32, 32, 128, 11008},  {"llama-13b", 40, 5120, 40, 40, 128, 13824},
    {"llama2-70b", 80, 8192, 64, 8, 128, 28672}, {"llama3-8b", 32, 4096, 32, 8, 128, 14336},
    {"mistral-7b", 32, 4096, 32, 8, 128, 14336}, {"qwen2.5-7b", 28, 3584, 28, 4, 128, 18944}};
enum { ARCHS = sizeof archs / sizeof archs[0] };

enum { PASSES = 6 };

/* Elements a token that the passes read and write. */
static double pass_elements(const arch *a) {
  const double hidden = (double)a->hidden, rotated = (double)((a->heads_q + a->heads_kv) * a->head_dim);
  return 2.0 * (2.0 * hidden)     /* a norm reads x, writes x */
         + 2.0 * rotated          /* q and k, in place */
         + 3.0 * (double)a->inner /* gate, up; their product */
         + 2.0 * (3.0 * hidden);  /* a sum of two */
}

typedef enum buffer { X, QKV, O, GATE_UP, INNER, W_QKV, W_O, W_GATE_UP, W_DOWN, BUFFERS } buffer;

typedef struct layer_run {
  fa_context *context;
  const fa_sim_layer *asked;
  const arch *a;
  int64_t tokens;
  void *memory[BUFFERS];
  fa_sim_clock products, attention;
  size_t workspace_bytes;
} layer_run;

static void look(layer_run *run, fa_sim_clock *clock, const fa_ascend_wish *wish) {
  fa_ascend_sim_view view;
  memset(&view, 0, sizeof view);
  if (wish) view.wish = *wish;
  view.only_time = 1;
  view.is_queued = 1;
  view.last_computed = -1;
  view.watch = fa_sim_clock_add;
  view.user = clock;
  fa_ascend_sim_look(run->context, &view);
}

static int allocate(layer_run *run) {
  const arch *a = run->a;
  const int64_t q = a->heads_q * a->head_dim, qkv = q + 2 * a->heads_kv * a->head_dim;
  const int64_t elements[BUFFERS] = {[X] = run->tokens * a->hidden,
                                     [QKV] = run->tokens * qkv,
                                     [O] = run->tokens * q,
                                     [GATE_UP] = run->tokens * 2 * a->inner,
                                     [INNER] = run->tokens * a->inner,
                                     [W_QKV] = qkv * a->hidden,
                                     [W_O] = a->hidden * q,
                                     [W_GATE_UP] = 2 * a->inner * a->hidden,
                                     [W_DOWN] = a->hidden * a->inner};
  for (int n = 0; n < BUFFERS; n++) {
    const fa_status status = fa_buffer_allocate(run->context, (size_t)elements[n] * 2, &run->memory[n]);
    if (status) return fa_library_error(status);
  }
  return FA_EXIT_OK;
}

static int multiply(layer_run *run, buffer from, buffer weights, buffer to, int64_t n, int64_t k) {
  const fa_ascend_sim_product product = {
      run->tokens,    n, k, run->asked->dtype == FA_BFLOAT16, run->memory[from], run->memory[weights],
      run->memory[to]};
  look(run, &run->products, NULL);
  const fa_status status = fa_ascend_sim_matmul(run->context, &product);
  return status ? fa_library_error(status) : FA_EXIT_OK;
}

static fa_bench_case case_of(const fa_sim_layer *asked, const arch *a) {
  fa_bench_case c;
  memset(&c, 0, sizeof c);
  c.batch = asked->batch;
  c.heads_q = a->heads_q;
  c.heads_kv = a->heads_kv;
  c.seqlen_q = c.seqlen_kv = asked->seq;
  c.head_dim_qk = c.head_dim_v = a->head_dim;
  c.dtype = c.kv_dtype = asked->dtype;
  c.causal = 1;
  c.window_left = c.window_right = -1;
  return c;
}

static const fa_ascend_wish *wish_of(const fa_sim_layer *asked, const fa_sim_tiling *tiling) {
  static const fa_ascend_wish nothing = {.one_level = 0};
  return tiling->is_flash && !tiling->is_one_level ? asked->wish : &nothing;
}

/* q, k and v lie in one matrix, a row a token, as the projection left them. */
static int attend(layer_run *run, const fa_sim_tiling *tiling) {
  const arch *a = run->a;
  const int64_t dim = a->head_dim, row = (a->heads_q + 2 * a->heads_kv) * dim, seq = run->asked->seq;
  const fa_bench_case c = case_of(run->asked, a);
  const fa_attention_problem problem = fa_bench_problem(&c, tiling->kernel);
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  uint16_t *const qkv = run->memory[QKV];
  args.q = (fa_tensor){qkv, seq * row, row, dim};
  args.k = (fa_tensor){qkv + a->heads_q * dim, seq * row, row, dim};
  args.v = (fa_tensor){qkv + (a->heads_q + a->heads_kv) * dim, seq * row, row, dim};
  args.o = (fa_tensor){run->memory[O], seq * a->heads_q * dim, a->heads_q * dim, dim};
  look(run, &run->attention, wish_of(run->asked, tiling));
  fa_plan *plan = NULL;
  void *workspace = NULL;
  fa_status status = fa_plan_create(run->context, &problem, &plan);
  if (!status) run->workspace_bytes = fa_plan_workspace_bytes(plan);
  if (!status) status = fa_buffer_allocate(run->context, run->workspace_bytes, &workspace);
  if (!status) status = fa_attention_run(plan, &args, workspace, run->workspace_bytes, NULL);
  const int code = status ? fa_library_error(status) : FA_EXIT_OK;
  fa_buffer_free(run->context, workspace);
  fa_plan_destroy(plan);
  return code;
}

static int run_layer(layer_run *run, const fa_sim_tiling *tiling) {
  const arch *a = run->a;
  const int64_t q = a->heads_q * a->head_dim, qkv = q + 2 * a->heads_kv * a->head_dim;
  int code = fa_sim_chip_open(run->asked->chip, &run->context);
  if (code) return code;
  code = allocate(run);
  if (!code) code = multiply(run, X, W_QKV, QKV, qkv, a->hidden);
  if (!code) code = attend(run, tiling);
  if (!code) code = multiply(run, O, W_O, X, a->hidden, q);
  if (!code) code = multiply(run, X, W_GATE_UP, GATE_UP, 2 * a->inner, a->hidden);
  if (!code) code = multiply(run, INNER, W_DOWN, X, a->hidden, a->inner);
  fa_ascend_sim_look(run->context, NULL);
  for (int n = 0; n < BUFFERS; n++) fa_buffer_free(run->context, run->memory[n]);
  return code;
}

/* ------------------------------------------------------------------ results */

static double product_macs(const arch *a) {
  const double q = (double)(a->heads_q * a->head_dim), kv = (double)(a->heads_kv * a->head_dim), hidden = (double)a->hidden;
  return hidden * (2.0 * q + 2.0 * kv) + 3.0 * hidden * (double)a->inner;
}

typedef struct layer_time {
  double products_model_us; /* as the clock has it, before the limit to what is believed */
  double products_us, attention_us, passes_us, workspace_bytes;
  int launches;
  fa_sim_check check; /* of attention */
} layer_time;

static double layer_us(const layer_time *t) { return t->products_us + t->attention_us + t->passes_us; }

static int time_layer(const fa_sim_layer *asked, const arch *a, const fa_sim_tiling *tiling, layer_time *t) {
  const fa_bench_case c = case_of(asked, a);
  const fa_sim_job job = {asked->chip, tiling, wish_of(asked, tiling), &c, NULL};
  layer_run run;
  memset(&run, 0, sizeof run);
  run.asked = asked;
  run.a = a;
  run.tokens = asked->batch * asked->seq;
  int code = fa_sim_check_smaller(&job, 0, &t->check);
  if (!code) code = run_layer(&run, tiling);
  if (!code) {
    const double launch_us = dv_chip_get(fa_ascend_sim_chip(run.context), "queued_launch_us");
    t->products_model_us = run.products.us;
    /* No more of the Cube's peak is believed of the model, which knows nothing of what keeps a device from it (heat, page
     * walks, other clients of L2). It makes products slower and so the ratios smaller. */
    t->products_us =
        fmax(run.products.us, 2.0 * product_macs(a) * (double)run.tokens /
                                  (0.01 * (double)FA_SIM_MOST_BELIEVED * asked->chip->peak_tflops * 1e6));
    t->attention_us = run.attention.us;
    t->passes_us = (double)PASSES * launch_us + 2.0 * pass_elements(a) * (double)run.tokens /
                                                    (asked->chip->hbm_rate * asked->chip->clock_ghz * 1e3);
    t->workspace_bytes = (double)run.workspace_bytes;
    t->launches = run.products.launches + run.attention.launches + PASSES;
  }
  fa_context_destroy(run.context);
  return code;
}

static void print_row(const fa_sim_layer *asked, const arch *a, int n, const layer_time *t) {
  if (n == 0) {
    fa_sim_print_chip(asked->chip);
    printf("\n%s: %" PRId64 " layers, %" PRId64 " x %" PRId64 " tokens, %s, causal\n", a->name, a->layers,
           asked->batch, asked->seq, fa_dtype_name(asked->dtype));
    printf("%-10s %12s %14s %14s %12s %12s %8s\n", "attention", "prefill ms", "attention us", "products us",
           "passes us", "GiB beside", "ratio");
  }
  printf("%-10s %12.1f %14.1f %14.1f %12.1f %12.2f %7.2fx\n", asked->tiling[n]->name,
         layer_us(&t[n]) * (double)a->layers * 1e-3, t[n].attention_us, t[n].products_us, t[n].passes_us,
         t[n].workspace_bytes / (1024.0 * 1024.0 * 1024.0), layer_us(&t[n]) / layer_us(&t[0]));
  fflush(stdout);
}

static void add_row(cJSON *rows, const fa_sim_layer *asked, const arch *a, int n, const layer_time *t) {
  cJSON *const row = cJSON_CreateObject();
  cJSON_AddItemToArray(rows, row);
  cJSON_AddStringToObject(row, "arch", a->name);
  cJSON_AddStringToObject(row, "tiling", asked->tiling[n]->name);
  cJSON_AddNumberToObject(row, "layers", (double)a->layers);
  cJSON_AddNumberToObject(row, "batch", (double)asked->batch);
  cJSON_AddNumberToObject(row, "seq", (double)asked->seq);
  cJSON_AddStringToObject(row, "dtype", fa_dtype_name(asked->dtype));
  cJSON_AddBoolToObject(row, "causal", 1);
  cJSON_AddNumberToObject(row, "prefill_ms", layer_us(&t[n]) * (double)a->layers * 1e-3);
  cJSON_AddNumberToObject(row, "layer_us", layer_us(&t[n]));
  cJSON_AddNumberToObject(row, "attention_us", t[n].attention_us);
  cJSON_AddNumberToObject(row, "products_us", t[n].products_us);
  cJSON_AddNumberToObject(row, "products_model_us", t[n].products_model_us);
  cJSON_AddBoolToObject(row, "products_capped", t[n].products_us > t[n].products_model_us);
  cJSON_AddNumberToObject(row, "passes_us", t[n].passes_us);
  cJSON_AddNumberToObject(row, "launches", t[n].launches);
  cJSON_AddNumberToObject(row, "workspace_bytes", t[n].workspace_bytes);
  cJSON_AddStringToObject(row, "compared_with", asked->tiling[0]->name);
  cJSON_AddNumberToObject(row, "ratio", layer_us(&t[n]) / layer_us(&t[0]));
  cJSON_AddNumberToObject(row, "attention_ratio", t[n].attention_us / t[0].attention_us);
  fa_sim_add_check(row, &t[n].check);
  fa_sim_add_origin(row, asked->chip);
}

int fa_sim_layers(const fa_sim_layer *asked, bool prints, cJSON *rows) {
  const arch *a = NULL;
  for (int n = 0; n < ARCHS; n++) {
    if (!strcmp(archs[n].name, asked->arch)) a = &archs[n];
  }
  if (!a) return fa_usage_error("unknown arch '%.64s'; allowed: " FA_SIM_ARCH_NAMES, asked->arch);
  if (asked->batch < 1 || asked->seq < 1 || asked->batch > INT32_MAX / asked->seq)
    return fa_usage_error("--arch needs --seq of at least 1 (and --batch): %" PRId64 " prompts of %" PRId64
                          " tokens are given",
                          asked->batch, asked->seq);
  layer_time t[FA_SIM_TILINGS];
  int64_t least_rows = INT64_MAX;
  for (int n = 0; n < asked->tilings; n++) {
    const int code = time_layer(asked, a, asked->tiling[n], &t[n]);
    if (code) return code;
    if (t[n].check.rows < least_rows) least_rows = t[n].check.rows;
    if (prints) print_row(asked, a, n, t);
    add_row(rows, asked, a, n, t);
  }
  if (prints)
    printf(
        "\nTimes are of one layer but for prefill, which is all of them without embedding and vocabulary. "
        "passes: norms, rotation,\n"
        "SiLU and sums, as their bytes over HBM's rate and a launch each; ratio: prefill to that of %s. "
        "Layers are timed and not\n"
        "computed; of each attention %" PRId64 " rows or more of a smaller problem agree with the oracle.\n",
        asked->tiling[0]->name, least_rows);
  return FA_EXIT_OK;
}
