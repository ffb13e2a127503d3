/* fastattn run: attention on arrays in .npy files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands.h"
#include "convert.h"
#include "run_inputs.h"

static struct {
  fa_common_options common;
  const char *q, *k, *v, *out, *lse;
  const char *alibi, *bias, *mask, *sinks, *cu_seqlens_q, *cu_seqlens_k;
  const char *window, *scale, *layout, *dtype;
  double softcap;
  int causal, kv_splits;
} options = {.common = FA_COMMON_OPTIONS_INIT, .layout = "bshd"};

static const struct poptOption table[] = {
    {"q", '\0', POPT_ARG_STRING, &options.q, 0, "queries, (b, s_q, h_q, d)", "FILE"},
    {"k", '\0', POPT_ARG_STRING, &options.k, 0, "keys, (b, s_kv, h_kv, d); h_kv divides h_q", "FILE"},
    {"v", '\0', POPT_ARG_STRING, &options.v, 0, "values, (b, s_kv, h_kv, d_v)", "FILE"},
    {"out", '\0', POPT_ARG_STRING, &options.out, 0, "where the output goes, (b, s_q, h_q, d_v)", "FILE"},
    {"lse", '\0', POPT_ARG_STRING, &options.lse, 0, "also write each row's log-sum-exp, (b, h_q, s_q)",
     "FILE"},
    {"causal", '\0', POPT_ARG_NONE, &options.causal, 0,
     "a query sees no later key; the last query sees the last key", NULL},
    {"window", '\0', POPT_ARG_STRING, &options.window, 0,
     "a query sees L keys to the left and R to the right of itself; -1 is unlimited (default -1,-1)", "L,R"},
    {"softcap", '\0', POPT_ARG_DOUBLE, &options.softcap, 0,
     "scores become X*tanh(score/X); 0 is off (default 0)", "X"},
    {"scale", '\0', POPT_ARG_STRING, &options.scale, 0, "factor of q.k (default 1/sqrt(d))", "X"},
    {"alibi", '\0', POPT_ARG_STRING, &options.alibi, 0, "ALiBi slopes, float32 (h_q,) or (b, h_q)", "FILE"},
    {"bias", '\0', POPT_ARG_STRING, &options.bias, 0, "added to the scores, (b, h_q, s_q, s_kv), 1 to repeat",
     "FILE"},
    {"mask", '\0', POPT_ARG_STRING, &options.mask, 0,
     "bool or uint8, (b, h_q, s_q, s_kv), 1 to repeat; 0 hides the key", "FILE"},
    {"sinks", '\0', POPT_ARG_STRING, &options.sinks, 0, "attention sinks, float32 (h_q,)", "FILE"},
    {"cu-seqlens-q", '\0', POPT_ARG_STRING, &options.cu_seqlens_q, 0,
     "ragged queries: cumulative lengths, int32 (b + 1,); q and out are then (total, h_q, d)", "FILE"},
    {"cu-seqlens-k", '\0', POPT_ARG_STRING, &options.cu_seqlens_k, 0,
     "ragged keys: cumulative lengths; k and v are then (total, h_kv, d)", "FILE"},
    {"layout", '\0', POPT_ARG_STRING, &options.layout, 0,
     "order of the arrays' dimensions: bshd or bhsd (default bshd)", "NAME"},
    {"dtype", '\0', POPT_ARG_STRING, &options.dtype, 0,
     "type to compute in: f32, f16 or bf16 (default: that of q); f16 writes float16, the others float32",
     "TYPE"},
    {"kv-splits", '\0', POPT_ARG_INT, &options.kv_splits, 0,
     "parts the keys are cut into and merged again; 0 chooses (default 0)", "N"},
    FA_COMMON_OPTIONS(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "run", "--q FILE --k FILE --v FILE --out FILE [OPTION...]",
    "Computes attention, o = softmax(scale * q k^T) v, on arrays that numpy.save wrote\n"
    "(float32 or float16, C order) and writes the result as another .npy file. The\n"
    "result is exact: nothing is approximated but the rounding of the chosen type.\n"
    "Files appear whole or not at all.",
    "  python3 -c \"import numpy as n; [n.save(f, n.random.randn(1,128,8,64).astype('f4')) for f in "
    "'qkv']\"\n"
    "  fastattn run --q q.npy --k k.npy --v v.npy --out o.npy --causal"};

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

typedef struct run_state {
  fa_run_inputs inputs;
  fa_context *context;
  fa_plan *plan;
  fa_attention_problem problem;
  fa_attention_args args;
  void *workspace, *o, *lse; /* device */
  fa_output out, lse_out, json_out;
  double ms;
} run_state;

/* Turns options into the problem; the arrays come later. */
static int read_options(run_state *run) {
  if (!options.q || !options.k || !options.v || !options.out) {
    const char *const missing = !options.q ? "--q" : !options.k ? "--k" : !options.v ? "--v" : "--out";
    return fa_usage_error("%s is missing; --q, --k, --v and --out are needed", missing);
  }
  const char *const written[] = {options.out, options.lse, options.common.json};
  int standard = 0;
  for (int i = 0; i < 3; i++) {
    standard += written[i] && !strcmp(written[i], "-");
    for (int j = 0; j < i; j++) {
      if (written[i] && written[j] && strcmp(written[i], "-") != 0 && !strcmp(written[i], written[j])) {
        return fa_usage_error("%s is named twice as an output", written[i]);
      }
    }
  }
  if (standard > 1) return fa_usage_error("only one of --out, --lse and --json can be standard output");

  run->inputs.bhsd = !strcmp(options.layout, "bhsd");
  if (!run->inputs.bhsd && strcmp(options.layout, "bshd") != 0) {
    return fa_usage_error("unknown layout '%s'; allowed: bshd, bhsd", options.layout);
  }
  fa_attention_problem *const problem = &run->problem;
  if (options.dtype && (!fa_options_dtype(options.dtype, &problem->dtype) || problem->dtype > FA_BFLOAT16)) {
    return fa_usage_error("unknown type '%s'; allowed: f32, f16, bf16", options.dtype);
  }
  int64_t window[2] = {-1, -1};
  if (options.window && fa_options_integers(options.window, 2, 2, window) != 2) {
    return fa_usage_error("--window is '%s'; it must be two integers L,R, -1 for unlimited", options.window);
  }
  problem->window_left = window[0];
  problem->window_right = window[1];
  if (options.scale) {
    char *end;
    problem->scale = strtof(options.scale, &end);
    /* 0 would read as "the default" further on */
    if (end == options.scale || *end || !isfinite(problem->scale) || problem->scale == 0.0f) {
      return fa_usage_error("--scale is '%s'; it must be a finite number other than 0", options.scale);
    }
  }
  if (!isfinite((float)options.softcap) || options.softcap < 0.0) {
    return fa_usage_error("--softcap is %g; it must be a finite number of at least 0", options.softcap);
  }
  problem->softcap = (float)options.softcap;
  problem->causal = options.causal;
  problem->has_lse = options.lse != NULL;
  problem->kv_splits = options.kv_splits;
  problem->kernel = options.common.kernel;
  const char *const path[FA_RUN_ARRAYS] = {
      options.q,           options.k,    options.v,     options.alibi,
      options.bias,        options.mask, options.sinks, options.cu_seqlens_q,
      options.cu_seqlens_k};
  memcpy(run->inputs.path, path, sizeof path);
  return FA_EXIT_OK;
}

static int open_outputs(run_state *run) {
  int code = fa_output_open(&run->out, options.out);
  if (!code && options.lse) code = fa_output_open(&run->lse_out, options.lse);
  if (!code && options.common.json) code = fa_output_open(&run->json_out, options.common.json);
  return code;
}

static int64_t output_elements(const run_state *run) {
  int64_t elements = 1;
  for (int i = 0; i < run->inputs.output_rank; i++) elements *= run->inputs.output_shape[i];
  return elements;
}

/* lse is [batch, heads, seq] packed, or [heads, total] when ragged. */
static int lse_shape(const run_state *run, int64_t *shape) {
  const fa_attention_problem *const p = &run->problem;
  int rank = 0;
  if (!p->ragged_q) shape[rank++] = p->batch;
  shape[rank++] = p->heads_q;
  shape[rank++] = p->ragged_q ? p->total_seqlen_q : p->max_seqlen_q;
  return rank;
}

static fa_status compute(run_state *run) {
  const fa_attention_problem *const p = &run->problem;
  fa_attention_args *const args = &run->args;
  const size_t o_bytes = (size_t)output_elements(run) * fa_dtype_bytes(p->dtype);
  fa_status status = fa_buffer_allocate(run->context, o_bytes, &run->o);
  if (!status && p->has_lse) {
    int64_t shape[3];
    const int rank = lse_shape(run, shape);
    size_t bytes = sizeof(float);
    for (int i = 0; i < rank; i++) bytes *= (size_t)shape[i];
    status = fa_buffer_allocate(run->context, bytes, &run->lse);
    args->lse_stride_head = shape[rank - 1];
    args->lse_stride_batch = shape[rank - 1] * p->heads_q;
  }
  const size_t workspace_bytes = fa_plan_workspace_bytes(run->plan);
  if (!status) status = fa_buffer_allocate(run->context, workspace_bytes, &run->workspace);
  if (status) return status;
  args->o.data = run->o;
  args->lse = run->lse;
  const double begin = now_ms();
  status = fa_attention_run(run->plan, args, run->workspace, workspace_bytes, NULL);
  if (!status) status = fa_stream_synchronize(run->context, NULL);
  run->ms = now_ms() - begin;
  return status;
}

/* Fetches a device array, as `dtype` there and `file_dtype` in the file, and writes it. */
static int write_array(run_state *run, fa_output *output, const void *device, fa_dtype dtype,
                       fa_dtype file_dtype, int rank, const int64_t *shape) {
  int64_t elements = 1;
  for (int i = 0; i < rank; i++) elements *= shape[i];
  const size_t bytes = (size_t)elements * fa_dtype_bytes(dtype);
  const size_t file_bytes = (size_t)elements * fa_dtype_bytes(file_dtype);
  char *const host = malloc(bytes + file_bytes);
  if (!host) return fa_failure("no memory for %zu bytes of output", bytes + file_bytes);
  fa_status status = fa_buffer_copy(run->context, host, device, bytes, FA_COPY_DEVICE_TO_HOST, NULL);
  if (!status) status = fa_stream_synchronize(run->context, NULL);
  int code = FA_EXIT_OK;
  if (status) {
    code = fa_library_error(status);
  } else {
    fa_convert(host + bytes, file_dtype, host, dtype, elements);
    fa_npy_write(output, file_dtype == FA_FLOAT16 ? FA_NPY_FLOAT16 : FA_NPY_FLOAT32, rank, shape,
                 host + bytes);
  }
  free(host);
  return code;
}

static int write_outputs(run_state *run) {
  const fa_attention_problem *const p = &run->problem;
  const fa_dtype file_dtype = p->dtype == FA_FLOAT16 ? FA_FLOAT16 : FA_FLOAT32;
  int code = write_array(run, &run->out, run->o, p->dtype, file_dtype, run->inputs.output_rank,
                         run->inputs.output_shape);
  if (!code && p->has_lse) {
    int64_t shape[3];
    const int rank = lse_shape(run, shape);
    code = write_array(run, &run->lse_out, run->lse, FA_FLOAT32, FA_FLOAT32, rank, shape);
  }
  if (!code) code = fa_output_commit(&run->out);
  if (!code && p->has_lse) code = fa_output_commit(&run->lse_out);
  return code;
}

static int report(run_state *run) {
  const fa_attention_problem *const p = &run->problem;
  fa_plan_info chosen = FA_PLAN_INFO_INIT;
  const fa_status status = fa_plan_describe(run->plan, &chosen);
  if (status) return fa_library_error(status);
  const bool quiet = !fa_options_prints_text(&options.common) || !strcmp(options.out, "-") ||
                     (options.lse && !strcmp(options.lse, "-"));
  if (!quiet) {
    char shape[FA_NPY_SHAPE_TEXT];
    printf("wrote %s: %s %s\nkernel %s (%s), %.3g ms, %.3g MB of workspace\n", options.out,
           p->dtype == FA_FLOAT16 ? "float16" : "float32",
           fa_npy_shape_text(run->inputs.output_rank, run->inputs.output_shape, shape), chosen.kernel,
           chosen.reason, run->ms, (double)chosen.workspace_bytes / 1e6);
  }
  if (!options.common.json) return FA_EXIT_OK;
  cJSON *const row = cJSON_CreateObject();
  cJSON *const rows = cJSON_CreateArray();
  cJSON_AddItemToArray(rows, row);
  cJSON_AddStringToObject(row, "op", "run");
  cJSON *const shape = cJSON_AddArrayToObject(row, "shape");
  const int64_t sizes[] = {p->batch,         p->heads_q,     p->heads_kv,  p->max_seqlen_q,
                           p->max_seqlen_kv, p->head_dim_qk, p->head_dim_v};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)sizes[i]));
  }
  cJSON_AddBoolToObject(row, "causal", p->causal);
  cJSON_AddStringToObject(row, "dtype", fa_dtype_name(p->dtype));
  cJSON_AddStringToObject(row, "device", options.common.device);
  cJSON_AddStringToObject(row, "kernel", chosen.kernel);
  cJSON_AddStringToObject(row, "reason", chosen.reason);
  cJSON_AddNumberToObject(row, "ms", run->ms);
  cJSON_AddNumberToObject(row, "threads", (double)chosen.threads);
  cJSON_AddNumberToObject(row, "workspace_bytes", (double)chosen.workspace_bytes);
  const int code = fa_output_json(&run->json_out, rows);
  cJSON_Delete(rows);
  return code;
}

static int run_all(run_state *run) {
  int code = read_options(run);
  /* before the arrays are read: an unwritable place should not cost the wait */
  if (!code) code = open_outputs(run);
  if (!code) code = fa_options_context(&options.common, &run->context);
  if (!code) code = fa_run_inputs_read(&run->inputs);
  if (code) return code;
  if (!options.dtype) {
    run->problem.dtype = run->inputs.array[FA_RUN_Q].type == FA_NPY_FLOAT16 ? FA_FLOAT16 : FA_FLOAT32;
  }
  code = fa_run_inputs_describe(&run->inputs, &run->problem, &run->args);
  if (code) return code;
  fa_status status = fa_plan_create(run->context, &run->problem, &run->plan);
  if (status) return fa_library_error(status);
  code = fa_run_inputs_upload(&run->inputs, run->context, &run->problem, &run->args);
  if (code) return code;
  status = compute(run);
  if (status) return fa_library_error(status);
  code = write_outputs(run);
  return code ? code : report(run);
}

int fa_run_command(int argc, const char **argv) {
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  run_state run = {.problem = FA_ATTENTION_PROBLEM_INIT, .args = FA_ATTENTION_ARGS_INIT};
  code = run_all(&run);
  fa_output_discard(&run.out);
  fa_output_discard(&run.lse_out);
  fa_output_discard(&run.json_out);
  fa_run_inputs_free(&run.inputs, run.context);
  if (run.context) {
    fa_buffer_free(run.context, run.o);
    fa_buffer_free(run.context, run.lse);
    fa_buffer_free(run.context, run.workspace);
  }
  fa_plan_destroy(run.plan);
  fa_context_destroy(run.context);
  return code;
}
