/* Plans: check the problem, follow the tuning file if it has an entry, else walk the kernel table and let the first
 * kernel that takes the problem lay out its tiles. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/descriptor.h"
#include "core/kernel.h"
#include "core/problem.h"
#include "core/status.h"
#include "core/tuning.h"

#define WORKSPACE_ALIGNMENT 64

static int device_has(const fa_context *context, const fa_kernel *kernel) {
  const uint64_t isa = context->backend->device_isa(context->device_index);
  return strcmp(kernel->device, context->backend->name) == 0 && (isa & kernel->isa) == kernel->isa;
}

static int operation_fits(const fa_kernel *kernel, const fa_attention_problem *problem) {
  if (kernel->operation == FA_OPERATION_DECODE) return problem->max_seqlen_q <= FA_DECODE_ROWS;
  return 1;
}

/* Why a kernel cannot take a problem, or NULL if (before prepare) it can. */
static const char *obstacle(const fa_context *context, const fa_kernel *kernel, const fa_attention_problem *problem,
                            char *text, size_t text_size) {
  if (!device_has(context, kernel)) return "this machine lacks its instructions";
  if (!(kernel->dtypes >> (int)problem->dtype & 1u)) {
    snprintf(text, text_size, "it does not do %s", fa_dtype_name(problem->dtype));
    return text;
  }
  if (!operation_fits(kernel, problem)) {
    snprintf(text, text_size, "it takes at most %d query rows and the problem has %lld", FA_DECODE_ROWS,
             (long long)problem->max_seqlen_q);
    return text;
  }
  if (fa_max(problem->head_dim_qk, problem->head_dim_v) > kernel->max_head_dim) {
    snprintf(text, text_size, "its head size ends at %lld", (long long)kernel->max_head_dim);
    return text;
  }
  const uint32_t missing = fa_problem_features(problem) & ~kernel->features;
  if (missing) {
    int bit = 0;
    while (!(missing >> bit & 1u)) ++bit;
    snprintf(text, text_size, "it does not do %s", fa_feature_name(bit));
    return text;
  }
  return NULL;
}

/* `wanted` is a kernel's name or the name of its family (arch). */
static int is_wanted(const fa_kernel *kernel, const char *wanted) {
  if (!wanted) return !kernel->is_baseline;
  return strcmp(kernel->name, wanted) == 0 || strcmp(kernel->arch, wanted) == 0;
}

/* Everything a plan holds from one attempt starts clean. */
static void reset_choice(fa_plan *plan, const fa_kernel *kernel) {
  plan->kernel = kernel;
  memset(&plan->tiles, 0, sizeof plan->tiles);
  plan->request = (fa_request){0, 0, 0, 0};
  plan->kv_splits = 1;
  plan->kernel_workspace_bytes = 0;
  plan->kernel_data = NULL;
  plan->reason[0] = '\0';
}

/* Why this kernel, then what the kernel itself has to say. */
static void begin_reason(fa_plan *plan, const char *why) {
  char said[200];
  snprintf(said, sizeof said, "%.199s", plan->reason);
  snprintf(plan->reason, sizeof plan->reason, "%s%s%s", why, said[0] ? "; " : "", said);
}

static void add_reason(fa_plan *plan, const char *before, const char *what) {
  const size_t length = strlen(plan->reason);
  if (what[0]) snprintf(plan->reason + length, sizeof plan->reason - length, "; %s%s", before, what);
}

/* ----------------------------------------------------------- a given choice */

static fa_status check_count(const char *what, int64_t asked, int64_t step, int64_t most, const char *kernel) {
  if (asked == 0) return FA_OK;
  if (step == 0) return fa_fail(FA_ERROR_ARGUMENT, "%s is %lld; %s lets nobody choose them", what, (long long)asked, kernel);
  if (asked < step || asked > most || asked % step != 0)
    return fa_fail(FA_ERROR_ARGUMENT, "%s is %lld; %s takes multiples of %lld up to %lld", what, (long long)asked, kernel,
                   (long long)step, (long long)(most / step * step));
  return FA_OK;
}

fa_status fa_check_request(fa_plan *plan, int64_t row_step, int64_t most_rows, int64_t key_step, int64_t most_keys,
                           int64_t most_splits) {
  fa_request *asked = &plan->request;
  const char *name = plan->kernel->name;
  asked->is_taken = 1;
  fa_status status = check_count("level1_rows", asked->level1_rows, row_step, most_rows, name);
  if (status == FA_OK) status = check_count("level1_keys", asked->level1_keys, key_step, most_keys, name);
  if (status == FA_OK) status = check_count("kv_splits", asked->kv_splits, 1, most_splits, name);
  return status;
}

/* The kernel of that very name, laid out as asked. */
static fa_status take_kernel(fa_plan *plan, const char *name, const fa_request *request) {
  const fa_context *context = plan->context;
  char text[96];
  const fa_kernel *kernel = NULL;
  for (int32_t k = 0; k < fa_kernels_count && !kernel; ++k)
    if (strcmp(fa_kernels[k].device, context->backend->name) == 0 && strcmp(fa_kernels[k].name, name) == 0)
      kernel = &fa_kernels[k];
  if (!kernel)
    return fa_fail(FA_ERROR_ARGUMENT, "unknown kernel '%.64s' for device %s; `fastattn info` lists the kernels this build "
                   "has", name, context->backend->name);
  const char *why = obstacle(context, kernel, &plan->problem, text, sizeof text);
  if (why) return fa_fail(FA_ERROR_UNSUPPORTED, "kernel '%s' does not do this problem (%s)", name, why);
  reset_choice(plan, kernel);
  plan->request = *request;
  plan->request.is_taken = 0;
  const fa_status status = kernel->prepare(plan);
  if (status != FA_OK) return status;
  if (plan->request.is_taken || !(request->level1_rows || request->level1_keys || request->kv_splits)) return FA_OK;
  if (kernel->release) kernel->release(plan);
  return fa_fail(FA_ERROR_ARGUMENT, "%s lays out tiles and splits by itself; leave them 0", name);
}

/* What an entry of the tuning file says, or FA_OK and *note saying why not. */
static fa_status follow_tuning(fa_plan *plan, const char *wanted, int *is_done, char *note, size_t note_size) {
  const fa_tuning *tuning = plan->context->tuning;
  const fa_tuning_entry_line *entry = wanted ? NULL : fa_tuning_find(plan->context, &plan->problem);
  *is_done = 0;
  note[0] = '\0';
  if (tuning && !tuning->is_used && !wanted) snprintf(note, note_size, "tuning file %.140s", tuning->why);
  if (!entry) return FA_OK;
  const fa_status status = take_kernel(plan, entry->kernel, &entry->request);
  if (status == FA_ERROR_MEMORY) return status;
  if (status == FA_OK && !plan->kernel->is_baseline) {
    char why[160];
    snprintf(why, sizeof why, "tuned: line %d of the file measured %.4g ms against %.4g ms by rule", entry->line,
             (double)entry->ns * 1e-6, (double)entry->rule_ns * 1e-6);
    begin_reason(plan, why);
    *is_done = 1;
    return FA_OK;
  }
  if (status == FA_OK && plan->kernel->release) plan->kernel->release(plan);
  snprintf(note, note_size, "line %d of the tuning file not used: %.110s", entry->line,
           status == FA_OK ? "baselines are never chosen" : fa_last_error());
  fa_forget_error();
  return FA_OK;
}

/* -------------------------------------------------------------- by the table */

static fa_status choose_kernel(fa_plan *plan, const char *wanted) {
  const fa_context *context = plan->context;
  char text[96], last_obstacle[160] = "";
  int known = 0;
  for (int32_t k = 0; k < fa_kernels_count; ++k) {
    const fa_kernel *kernel = &fa_kernels[k];
    if (strcmp(kernel->device, context->backend->name) != 0 || !is_wanted(kernel, wanted)) continue;
    known = 1;
    const char *why = obstacle(context, kernel, &plan->problem, text, sizeof text);
    if (!why) {
      reset_choice(plan, kernel);
      const fa_status status = kernel->prepare(plan);
      if (status == FA_OK) {
        begin_reason(plan, wanted ? "asked for by name" : "first in the table that does it");
        if (!wanted) add_reason(plan, "passed over ", last_obstacle);
        fa_forget_error(); /* of a kernel that refused */
        return FA_OK;
      }
      if (status != FA_ERROR_UNSUPPORTED) return status;
      why = fa_last_error();
    }
    snprintf(last_obstacle, sizeof last_obstacle, "%.40s: %.100s", kernel->name, why);
  }
  if (!known)
    return fa_fail(FA_ERROR_ARGUMENT, "unknown kernel '%.64s' for device %s; `fastattn info` lists the kernels and "
                   "families this build has", wanted, context->backend->name);
  if (wanted)
    return fa_fail(FA_ERROR_UNSUPPORTED, "kernel '%.64s' does not do this problem (%s); leave the kernel open to have "
                   "one chosen", wanted, last_obstacle);
  return fa_fail(FA_ERROR_UNSUPPORTED, "no kernel of device %s does this problem (last tried %s)",
                 context->backend->name, last_obstacle);
}

static fa_status choose(fa_plan *plan, const char *wanted, const fa_plan_choice *choice) {
  if (choice) {
    const fa_request request = {choice->level1_rows, choice->level1_keys, choice->kv_splits, 0};
    if (!choice->kernel) return fa_fail(FA_ERROR_ARGUMENT, "choice.kernel is NULL; name the kernel that tiles and splits are for");
    if (choice->kv_splits && plan->problem.kv_splits)
      return fa_fail(FA_ERROR_ARGUMENT, "choice.kv_splits and problem.kv_splits are both given; set one to 0");
    const fa_status status = take_kernel(plan, choice->kernel, &request);
    if (status == FA_OK) begin_reason(plan, "asked for by name");
    return status;
  }
  char note[200];
  int is_done;
  fa_status status = follow_tuning(plan, wanted, &is_done, note, sizeof note);
  if (status != FA_OK || is_done) return status;
  status = choose_kernel(plan, wanted);
  if (status == FA_OK) add_reason(plan, "", note);
  return status;
}

static fa_status create(fa_context *context, const fa_attention_problem *problem, const fa_plan_choice *choice,
                        fa_plan **plan) {
  if (!plan) return fa_fail(FA_ERROR_ARGUMENT, "plan is NULL; pass the address of an fa_plan pointer");
  *plan = NULL;
  if (!context) return fa_fail(FA_ERROR_ARGUMENT, "context is NULL; create one with fa_context_create");
  if (!problem) return fa_fail(FA_ERROR_ARGUMENT, "problem is NULL; start from FA_ATTENTION_PROBLEM_INIT");
  fa_attention_problem given = FA_ATTENTION_PROBLEM_INIT;
  fa_status status =
      fa_read_descriptor("fa_attention_problem", &given, sizeof given, problem, problem->struct_size);
  if (status != FA_OK) return status;
  status = fa_check_problem_fields(&given);
  if (status != FA_OK) return status;

  fa_plan *made = fa_host_allocate(context, sizeof *made);
  if (!made) return FA_ERROR_MEMORY;
  memset(made, 0, sizeof *made);
  made->context = context;
  made->problem = given;
  made->problem.kernel = NULL;
  if (given.scale == 0.0f) made->problem.scale = (float)(1.0 / sqrt((double)given.head_dim_qk));
  made->group = given.heads_q / given.heads_kv;
  status = choose(made, given.kernel, choice);
  if (status != FA_OK) {
    fa_host_free(context, made);
    return status;
  }
  made->kernel_workspace_bytes = (size_t)fa_round_up((int64_t)made->kernel_workspace_bytes, WORKSPACE_ALIGNMENT);
  size_t before_kernel = 0;
  status = context->backend->prepare_run(made, &before_kernel);
  if (status != FA_OK) {
    fa_plan_destroy(made);
    return status;
  }
  made->workspace_bytes = made->kernel_workspace_bytes + before_kernel;
  *plan = made;
  return FA_OK;
}

fa_status fa_plan_create(fa_context *context, const fa_attention_problem *problem, fa_plan **plan) {
  return create(context, problem, NULL, plan);
}

fa_status fa_plan_create_with(fa_context *context, const fa_attention_problem *problem, const fa_plan_choice *choice,
                              fa_plan **plan) {
  fa_plan_choice given = FA_PLAN_CHOICE_INIT;
  if (plan) *plan = NULL;
  if (!choice) return fa_fail(FA_ERROR_ARGUMENT, "choice is NULL; start from FA_PLAN_CHOICE_INIT");
  const fa_status status = fa_read_descriptor("fa_plan_choice", &given, sizeof given, choice, choice->struct_size);
  return status == FA_OK ? create(context, problem, &given, plan) : status;
}

void fa_plan_destroy(fa_plan *plan) {
  if (!plan) return;
  if (plan->kernel->release) plan->kernel->release(plan);
  fa_host_free(plan->context, plan);
}

size_t fa_plan_workspace_bytes(const fa_plan *plan) { return plan ? plan->workspace_bytes : 0; }

fa_status fa_plan_describe(const fa_plan *plan, fa_plan_info *info) {
  if (!plan || !info) return fa_fail(FA_ERROR_ARGUMENT, "fa_plan_describe: %s is NULL", plan ? "info" : "plan");
  const fa_plan_info full = {sizeof full,
                             plan->kernel->name,
                             plan->kernel->arch,
                             plan->reason,
                             plan->tiles.level1_rows,
                             plan->tiles.level1_keys,
                             plan->tiles.level2_rows,
                             plan->tiles.level2_keys,
                             plan->kv_splits,
                             plan->context->threads,
                             plan->workspace_bytes};
  return fa_write_descriptor("fa_plan_info", info, info->struct_size, &full, sizeof full);
}

fa_status fa_attention_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                           size_t workspace_bytes, fa_stream stream) {
  if (!plan || !args) return fa_fail(FA_ERROR_ARGUMENT, "fa_attention_run: %s is NULL", plan ? "args" : "plan");
  fa_attention_args given = FA_ATTENTION_ARGS_INIT;
  fa_status status = fa_read_descriptor("fa_attention_args", &given, sizeof given, args, args->struct_size);
  if (status != FA_OK) return status;
  status = fa_check_args(&plan->problem, &given);
  if (status != FA_OK) return status;
  if (plan->workspace_bytes) {
    if (!workspace || workspace_bytes < plan->workspace_bytes)
      return fa_fail(FA_ERROR_WORKSPACE, "workspace is %zu bytes; this plan needs %zu (fa_plan_workspace_bytes)",
                     workspace ? workspace_bytes : (size_t)0, plan->workspace_bytes);
    if ((uintptr_t)workspace % WORKSPACE_ALIGNMENT)
      return fa_fail(FA_ERROR_WORKSPACE, "workspace is at %p; it must be aligned to %d bytes", workspace,
                     WORKSPACE_ALIGNMENT);
  }
  const int64_t rows = plan->problem.ragged_q ? plan->problem.total_seqlen_q : plan->problem.max_seqlen_q;
  if (rows == 0 && plan->problem.seqlen_new == 0) /* nothing to do, unless the lengths say otherwise */
    return plan->context->backend->memory_is_host ? fa_check_lengths(&plan->problem, &given) : FA_OK;
  return plan->context->backend->run(plan, &given, workspace, stream);
}

fa_status fa_merge(fa_context *context, fa_dtype dtype, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim,
                   const fa_tensor *o_a, float *lse_a, const fa_tensor *o_b, const float *lse_b, fa_stream stream) {
  if (!context) return fa_fail(FA_ERROR_ARGUMENT, "fa_merge: context is NULL");
  if (dtype != FA_FLOAT32 && dtype != FA_FLOAT16 && dtype != FA_BFLOAT16)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_merge: dtype is %s (%d); it must be f32, f16 or bf16", fa_dtype_name(dtype),
                   (int)dtype);
  const int64_t limit = FA_MAX_EXTENT;
  if (batch < 0 || seqlen < 0 || heads < 0 || dim < 0 || batch > limit || seqlen > limit || heads > limit ||
      dim > FA_MAX_HEAD_DIM)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_merge: shape is %lld,%lld,%lld,%lld; sizes must not be negative and dim at "
                   "most %d", (long long)batch, (long long)seqlen, (long long)heads, (long long)dim, FA_MAX_HEAD_DIM);
  if (batch == 0 || seqlen == 0 || heads == 0 || dim == 0) return FA_OK;
  if (!o_a || !o_b || !o_a->data || !o_b->data || !lse_a || !lse_b)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_merge: an o or lse is NULL; both sides need both");
  return context->backend->merge(context, dtype, batch, seqlen, heads, dim, o_a, lse_a, o_b, lse_b, stream);
}
