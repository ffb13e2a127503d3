/* Which entry of a tuning file a problem falls under, and the text of a file's head and entries. */
#include "core/tuning.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/descriptor.h"
#include "core/problem.h"
#include "core/status.h"

/* Rules on scores cost time of their own, which entries were not measured with. */
#define UNTUNED_FEATURES                                                                              \
  (FA_FEATURE_WINDOW | FA_FEATURE_ALIBI | FA_FEATURE_SOFTCAP | FA_FEATURE_BIAS | FA_FEATURE_MASK | \
   FA_FEATURE_SPLITS)

/* In proportion: from 0.71 to 1.41 times it. 0 for 0; n at most 2^62. */
static int64_t nearest_power(int64_t n) {
  int64_t power = 1;
  if (n <= 0) return 0;
  while (power <= n / 2) power *= 2;
  const double ratio = (double)n / (double)power;
  return ratio * ratio > 2.0 ? 2 * power : power;
}

int fa_tuning_class_of(const fa_context *context, const fa_attention_problem *p, fa_tuning_class *of) {
  int64_t heads;
  memset(of, 0, sizeof *of);
  if (p->kernel || p->kv_splits || fa_problem_features(p) & UNTUNED_FEATURES) return 0;
  if (p->max_seqlen_q < 1 || p->max_seqlen_kv < 1 || __builtin_mul_overflow(p->batch, p->heads_kv, &heads)) return 0;
  of->is_decode = p->max_seqlen_q <= FA_DECODE_ROWS;
  of->dtype = (int32_t)p->dtype;
  of->kv_dtype = (int32_t)p->kv_dtype;
  of->causal = p->causal && p->max_seqlen_q > 1; /* one query sees every key either way */
  of->head_dim_qk = p->head_dim_qk;
  of->head_dim_v = p->head_dim_v;
  of->group = p->heads_q / p->heads_kv;
  of->queries = nearest_power(p->max_seqlen_q);
  of->keys = nearest_power(p->max_seqlen_kv);
  of->heads = nearest_power(heads);
  of->threads = context->threads;
  return 1;
}

const fa_tuning_entry_line *fa_tuning_find(const fa_context *context, const fa_attention_problem *problem) {
  const fa_tuning *tuning = context->tuning;
  fa_tuning_class of;
  if (!tuning || !tuning->is_used || !fa_tuning_class_of(context, problem, &of)) return NULL;
  for (int32_t n = 0; n < tuning->count; ++n)
    if (memcmp(&tuning->entries[n].of, &of, sizeof of) == 0) return &tuning->entries[n];
  return NULL;
}

fa_status fa_tuning_machine_of(const fa_context *context, fa_tuning_machine *machine) {
  fa_device_info info = FA_DEVICE_INFO_INIT;
  const fa_status status = context->backend->device_describe(context->device_index, &info);
  if (status != FA_OK) return status;
  const char *cores = strrchr(info.description, ',');
  const size_t length = cores ? (size_t)(cores - info.description) : strlen(info.description);
  snprintf(machine->device, sizeof machine->device, "%s", context->backend->name);
  snprintf(machine->processor, sizeof machine->processor, "%.*s", (int)fa_min((int64_t)length, 199), info.description);
  snprintf(machine->isa, sizeof machine->isa, "%s", info.isa);
  snprintf(machine->caches, sizeof machine->caches, "%" PRId64 " %" PRId64 " %" PRId64, info.cache_l1_bytes,
           info.cache_l2_bytes, info.cache_l3_bytes);
  for (char *c = machine->processor; *c; ++c) /* a line of the file must hold it */
    if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
  return FA_OK;
}

/* ---------------------------------------------------------------- contexts */

fa_status fa_tuning_from_environment(fa_context *context) {
  const char *path = getenv("FASTATTENTION_TUNING");
  return path && path[0] ? fa_context_load_tuning(context, path) : FA_OK;
}

fa_status fa_tuning_describe(const fa_context *context, fa_tuning_info *info) {
  if (!context || !info)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_tuning_describe: %s is NULL", context ? "info" : "context");
  const fa_tuning *tuning = context->tuning;
  fa_tuning_info full = {sizeof full, NULL, "no tuning file; plans go by rule", 0, 0};
  if (tuning) {
    full.path = tuning->path;
    full.why = tuning->why;
    full.used = tuning->is_used;
    full.entries = tuning->count;
  }
  return fa_write_descriptor("fa_tuning_info", info, info->struct_size, &full, sizeof full);
}

/* -------------------------------------------------------------------- text */

static fa_status must_fit(int length, size_t size) {
  if (length >= 0 && (size_t)length < size) return FA_OK;
  return fa_fail(FA_ERROR_ARGUMENT, "text has %zu bytes and %d are needed; FA_TUNING_TEXT (%d) always suffice", size,
                 length + 1, FA_TUNING_TEXT);
}

fa_status fa_tuning_head(const fa_context *context, char *text, size_t size) {
  if (!context || !text) return fa_fail(FA_ERROR_ARGUMENT, "fa_tuning_head: %s is NULL", context ? "text" : "context");
  fa_tuning_machine m;
  const fa_status status = fa_tuning_machine_of(context, &m);
  if (status != FA_OK) return status;
  return must_fit(snprintf(text, size, "fastattention tuning 2\nversion %s\ndevice %s\nprocessor %s\nisa %s\ncaches %s\n"
                           "# operation type cache-type d-qk d-v group mask queries keys batch*kv-heads threads"
                           "   kernel rows keys splits ns rule-ns; measured in both layouts, B,S,H,D and B,H,S,D, times are of"
                           " the one with the smaller gain\n", fa_version(), m.device, m.processor, m.isa, m.caches), size);
}

fa_status fa_tuning_entry(const fa_context *context, const fa_attention_problem *problem, const fa_plan_choice *choice,
                          double ms, double rule_ms, char *text, size_t size) {
  if (!context || !problem || !choice || !text)
    return fa_fail(FA_ERROR_ARGUMENT, "fa_tuning_entry: an argument is NULL; none may be");
  fa_attention_problem p = FA_ATTENTION_PROBLEM_INIT;
  fa_plan_choice c = FA_PLAN_CHOICE_INIT;
  fa_tuning_class of;
  fa_status status = fa_read_descriptor("fa_attention_problem", &p, sizeof p, problem, problem->struct_size);
  if (status == FA_OK) status = fa_read_descriptor("fa_plan_choice", &c, sizeof c, choice, choice->struct_size);
  if (status == FA_OK) status = fa_check_problem_fields(&p);
  if (status != FA_OK) return status;
  if (!c.kernel || strlen(c.kernel) >= FA_TUNING_NAME || !(ms > 0.0 && ms < 1e9) || !(rule_ms > 0.0 && rule_ms < 1e9))
    return fa_fail(FA_ERROR_ARGUMENT, "an entry has a kernel's name and two times in milliseconds, above 0 and below 1e9");
  if (!fa_tuning_class_of(context, &p, &of))
    return fa_fail(FA_ERROR_UNSUPPORTED, "no entry describes a problem with a window, ALiBi, softcap, bias, mask, splits, "
                   "a kernel of its own or nothing to do");
  return must_fit(
      snprintf(text, size, "%s %s %s %" PRId64 " %" PRId64 " %" PRId64 " %s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
               "   %s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", of.is_decode ? "decode" : "prefill",
               fa_dtype_name(p.dtype), fa_dtype_name(p.kv_dtype), of.head_dim_qk, of.head_dim_v, of.group,
               of.causal ? "causal" : "full", of.queries, of.keys, of.heads, of.threads, c.kernel, c.level1_rows,
               c.level1_keys, c.kv_splits, (int64_t)ceil(ms * 1e6), (int64_t)ceil(rule_ms * 1e6)), size);
}
