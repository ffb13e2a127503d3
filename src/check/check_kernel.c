/* One kernel, one case: on one thread and on several, twice each, everything around the result looked at. */
#define _GNU_SOURCE
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_crash.h"
#include "check/check_session.h"
#include "fastattention/fa_tuning.h"
#include "ref/ref.h"

enum { HANGING_SECONDS = 120 };

/* Where the line is kept that a crash on another thread prints as its last. */
static char last_words[2600];

typedef struct attempt {
  const fa_kernel *kernel;
  fa_plan *plan;
  int threads;
  int poisoned;
  void *workspace;
  fa_mirror *mirror;
} attempt;

static void hash_inputs(const fa_case *c, uint64_t hashes[FA_ARRAYS]) {
  for (int n = 0; n < FA_ARRAYS; n++) {
    const int cache = n == FA_ARRAY_K || n == FA_ARRAY_V || n == FA_ARRAY_K_SCALE || n == FA_ARRAY_V_SCALE;
    const int written =
        n == FA_ARRAY_O || n == FA_ARRAY_LSE || n == FA_ARRAY_WORKSPACE || (cache && c->problem.seqlen_new);
    hashes[n] = written ? 0 : fa_slot_hash(&c->slots[n]);
  }
}

/* Flushing of subnormals or another rounding mode must not leak out of a run. */
static int float_environment_intact(void) {
  volatile float tiny = 1e-40f, one = 1.0f;
  return fegetround() == FE_TONEAREST && tiny * one != 0.0f;
}

/* The arguments as the device has them. */
static fa_attention_args mirrored_args(const fa_mirror *mirror, const fa_attention_args *args) {
  fa_attention_args to = *args;
  fa_tensor *const tensors[] = {&to.q,    &to.k,     &to.v,     &to.o,       &to.bias,
                                &to.mask, &to.k_new, &to.v_new, &to.k_scale, &to.v_scale};
  for (size_t n = 0; n < sizeof tensors / sizeof tensors[0]; n++)
    tensors[n]->data = fa_mirror_pointer(mirror, tensors[n]->data);
  to.lse = fa_mirror_pointer(mirror, args->lse);
  to.alibi_slopes = fa_mirror_pointer(mirror, args->alibi_slopes);
  to.sinks = fa_mirror_pointer(mirror, args->sinks);
  to.cu_seqlens_q = fa_mirror_pointer(mirror, args->cu_seqlens_q);
  to.cu_seqlens_kv = fa_mirror_pointer(mirror, args->cu_seqlens_kv);
  to.seqlens_kv = fa_mirror_pointer(mirror, args->seqlens_kv);
  to.page_table = fa_mirror_pointer(mirror, args->page_table);
  to.rotary_cos = fa_mirror_pointer(mirror, args->rotary_cos);
  to.rotary_sin = fa_mirror_pointer(mirror, args->rotary_sin);
  return to;
}

_Static_assert((int)FA_ARRAYS <= (int)FA_MIRROR_SLOTS, "a case fits into the mirror");

/* Over to the device, the run, and back. */
static fa_status run_mirrored(fa_case *c, const attempt *a) {
  fa_slot *slots[FA_ARRAYS];
  for (int n = 0; n < FA_ARRAYS; n++) slots[n] = &c->slots[n];
  fa_status status = fa_mirror_upload(a->mirror, a->plan->context, slots, FA_ARRAYS);
  if (status != FA_OK) return status;
  const fa_attention_args args = mirrored_args(a->mirror, &c->args);
  status = fa_attention_run(a->plan, &args, fa_mirror_pointer(a->mirror, a->workspace),
                            fa_plan_workspace_bytes(a->plan), NULL);
  return status == FA_OK ? fa_mirror_download(a->mirror) : status;
}

/* 1 if the run came back with FA_OK. */
static int run_once(fa_case *c, const attempt *a, int workspace_fill, fa_verdict *verdict) {
  const size_t workspace_bytes = fa_plan_workspace_bytes(a->plan);
  if (c->problem.seqlen_new || c->poison_masked) fa_case_restore_cache(c, a->poisoned);
  if (a->workspace) memset(a->workspace, workspace_fill, workspace_bytes);
  const int signal_number = sigsetjmp(fa_crash_return, 1);
  if (signal_number) {
    fa_verdict_fail(verdict, "    %s\n", fa_crash_name(signal_number));
    return 0;
  }
  fa_crash_arm(last_words, HANGING_SECONDS);
  const fa_status status = run_mirrored(c, a);
  fa_crash_disarm();
  if (status != FA_OK) {
    fa_verdict_fail(verdict, "    status %s: %s\n", fa_status_name(status), fa_last_error());
    return 0;
  }
  if (!fa_mirror_gaps_intact(a->mirror))
    fa_verdict_fail(verdict, "    the run wrote far beside its arrays on the device\n");
  if (!float_environment_intact()) {
    fa_verdict_fail(verdict, "    the run changed the floating-point environment (rounding, subnormals)\n");
  }
  return 1;
}

static void run_twice(fa_case *c, const attempt *a, fa_verdict *verdict) {
  const fa_array outputs[2] = {FA_ARRAY_O, FA_ARRAY_LSE};
  unsigned char *first[2] = {NULL, NULL};
  uint64_t hashes[FA_ARRAYS];

  if (c->problem.seqlen_new || c->poison_masked) fa_case_restore_cache(c, a->poisoned);
  hash_inputs(c, hashes);
  if (!run_once(c, a, FA_POISON, verdict)) return;
  for (int n = 0; n < 2; n++) {
    const fa_slot *slot = &c->slots[outputs[n]];
    first[n] = slot->data ? malloc(slot->bytes + 1) : NULL;
    if (first[n]) memcpy(first[n], slot->data, slot->bytes);
  }
  if (c->problem.seqlen_new && fa_case_verify_cache(c, a->poisoned, verdict) != FA_OK)
    fa_verdict_fail(verdict, "    the checker is out of memory\n");
  fa_case_verify(c, hashes, verdict);

  /* The same bits again, whatever the workspace held. */
  if (verdict->passed && run_once(c, a, 0x7f, verdict)) {
    for (int n = 0; n < 2; n++) {
      const fa_slot *slot = &c->slots[outputs[n]];
      if (!first[n] || memcmp(first[n], slot->data, slot->bytes) == 0) continue;
      fa_verdict_fail(verdict, "    %s: a second run of the same plan gave other bits\n",
                      fa_array_names[outputs[n]]);
    }
    fa_case_verify(c, hashes, verdict);
  }
  free(first[0]);
  free(first[1]);
}

static void count(fa_session *s, int32_t k, int which) {
  const fa_attention_problem *p = &s->current.problem;
  const uint32_t features = fa_problem_features(p);
  fa_tally *tallies[FA_FEATURE_COUNT + 4];
  int n = 0;
  tallies[n++] = &s->kernels[k];
  tallies[n++] = &s->types[p->dtype];
  if (p->kv_dtype != p->dtype) tallies[n++] = &s->types[p->kv_dtype];
  for (int bit = 0; bit < FA_FEATURE_COUNT; bit++) {
    if (features >> bit & 1u) tallies[n++] = &s->features[bit];
  }
  if (features == 0) tallies[n++] = &s->dense;
  while (n-- > 0) {
    if (which == 0) tallies[n]->run++;
    if (which == 1) tallies[n]->unsupported++;
    if (which == 2) tallies[n]->failed++;
  }
}

static void report(fa_session *s, int32_t k, const char *problem, int threads, int64_t number,
                   const fa_verdict *verdict) {
  s->failed++;
  count(s, k, 2);
  if (s->reports[k]++ >= FA_CHECK_REPORTS) return;
  fprintf(s->out, "FAILED %s, seed %llu (case %lld), %d thread%s\n    %s\n%s", fa_kernels[k].name,
          (unsigned long long)(s->seed + (uint64_t)number), (long long)number, threads,
          threads == 1 ? "" : "s", problem, verdict->text);
  fprintf(s->out, "    again: fastattn check");
  if (s->options.pattern) fprintf(s->out, " -k '%s'", s->options.pattern);
  if (s->options.kernel) fprintf(s->out, " --kernel '%s'", s->options.kernel);
  fprintf(s->out, " --seed %llu --cases 1\n", (unsigned long long)(s->seed + (uint64_t)number));
  fflush(s->out);
}

/* What a baseline may lose by keeping its scores in the input type; UNSUPPORTED where they leave its range.
 */
static fa_status grant_unfused_loss(fa_case *c, const fa_kernel *kernel) {
  fa_ref_unfused loss;
  memset(&c->unfused, 0, sizeof c->unfused);
  if (!kernel->is_baseline) return FA_OK;
  const fa_status status =
      fa_ref_unfused_loss(&c->problem, &c->args, strcmp(kernel->arch, "eager") == 0, &loss);
  if (status != FA_OK) return status;
  c->unfused = loss;
  /* What poison hides from the reference, the baseline still multiplies. */
  const int hidden = c->values == FA_VALUES_NEAR_MAX && c->problem.dtype == FA_FLOAT16;
  return loss.overflows || hidden ? FA_ERROR_UNSUPPORTED : FA_OK;
}

/* In every third case another layout than the kernel's own, of the seed alone: tuning files may ask for any that the
 * kernel takes. Leaves the plan where it takes neither tiles nor splits; said: what was asked for. */
static void ask_for_layout(const fa_case *c, int32_t k, fa_plan **plan, char *said, size_t said_size) {
  fa_random random = {c->seed + 1000003u * (uint64_t)k};
  const fa_tiles *own = &(*plan)->tiles;
  said[0] = '\0';
  if (fa_random_range(&random, 0, 2) != 0) return;
  for (int splits = 0; splits <= 1; splits++) {
    fa_plan_choice choice = FA_PLAN_CHOICE_INIT;
    fa_plan *other = NULL;
    choice.kernel = (*plan)->kernel->name;
    if (splits) choice.kv_splits = fa_random_range(&random, 1, 9);
    else choice.level1_rows = own->level2_rows * fa_random_range(&random, 0, (int64_t)1 << fa_random_range(&random, 0, 7));
    if (!splits)
      choice.level1_keys = own->level2_keys * fa_random_range(&random, choice.level1_rows == 0,
                                                              (int64_t)1 << fa_random_range(&random, 0, 5));
    if (fa_plan_create_with((*plan)->context, &c->problem, &choice, &other) != FA_OK) continue;
    snprintf(said, said_size, "    asked for level one %lldx%lld, %lld splits (0: its own)\n", (long long)choice.level1_rows,
             (long long)choice.level1_keys, (long long)choice.kv_splits);
    fa_plan_destroy(*plan);
    *plan = other;
    return;
  }
}

/* Plan and run on one context. Returns FA_OK also for what failed and was reported. */
static fa_status run_kernel(fa_session *s, int32_t k, fa_context *context, int64_t number,
                            const char *problem) {
  static fa_verdict verdict;
  fa_case *c = &s->current;
  attempt a = {&fa_kernels[k], NULL, fa_context_threads(context), 0, NULL, &s->mirror};
  if (grant_unfused_loss(c, a.kernel) == FA_ERROR_UNSUPPORTED) return FA_ERROR_UNSUPPORTED;
  c->problem.kernel = a.kernel->name;
  const fa_status status = fa_plan_create(context, &c->problem, &a.plan);
  c->problem.kernel = NULL;
  if (status == FA_ERROR_UNSUPPORTED) return status;
  char asked[120] = "";
  if (status == FA_OK && !a.kernel->is_baseline) ask_for_layout(c, k, &a.plan, asked, sizeof asked);

  verdict.passed = 1;
  verdict.max_error = 0.0;
  verdict.text[0] = '\0';
  if (status != FA_OK) {
    fa_verdict_fail(&verdict, "    plan: status %s: %s\n", fa_status_name(status), fa_last_error());
  } else {
    const size_t bytes = fa_plan_workspace_bytes(a.plan);
    /* The baselines multiply what they masked, as unfused attention does: NaN times 0 is theirs to show. */
    a.poisoned = c->poison_masked && !a.kernel->is_baseline;
    c->slots[FA_ARRAY_WORKSPACE].data = NULL;
    if (bytes) a.workspace = fa_slot_place(&c->slots[FA_ARRAY_WORKSPACE], bytes, 64, 1);
    if (bytes && !a.workspace)
      fa_verdict_fail(&verdict, "    the checker is out of memory\n");
    else {
      snprintf(last_words, sizeof last_words,
               "  kernel %s, %d threads, seed %llu\n    %s\n%lld passed, %lld failed\n", a.kernel->name,
               a.threads, (unsigned long long)(s->seed + (uint64_t)number), problem, (long long)s->passed,
               (long long)s->failed + 1);
      run_twice(c, &a, &verdict);
    }
  }
  fa_plan_destroy(a.plan);
  if (!verdict.passed && asked[0]) fa_verdict_fail(&verdict, "%s", asked);
  if (verdict.max_error > s->kernels[k].worst) s->kernels[k].worst = verdict.max_error;
  if (verdict.passed)
    s->passed++;
  else
    report(s, k, problem, a.threads, number, &verdict);
  return FA_OK;
}

/* Whether a kernel of the device, no baseline, says that it does problems like this. */
static int is_promised(const char *device, const fa_attention_problem *p) {
  const uint32_t features = fa_problem_features(p);
  for (int32_t k = 0; k < fa_kernels_count; k++) {
    const fa_kernel *kernel = &fa_kernels[k];
    if (strcmp(kernel->device, device) == 0 && !kernel->is_baseline && kernel->dtypes >> (int)p->dtype & 1u &&
        (features & ~kernel->features) == 0 && fa_max(p->head_dim_qk, p->head_dim_v) <= kernel->max_head_dim)
      return 1;
  }
  return 0;
}

/* Whatever no fast kernel does, one kernel of the table must do; but for what a device's table promises nowhere. */
static void run_chosen(fa_session *s, int64_t number, const char *problem, int somebody_can) {
  fa_case *c = &s->current;
  fa_plan *plan = NULL;
  const fa_status status = fa_plan_create(s->contexts[0], &c->problem, &plan);
  if ((status == FA_OK && somebody_can && !plan->kernel->is_baseline) ||
      (status == FA_ERROR_UNSUPPORTED && !somebody_can && !is_promised(s->contexts[0]->backend->name, &c->problem)))
    s->passed++;
  else {
    s->failed++;
    fprintf(
        s->out, "FAILED choice of a kernel, seed %llu: %s%s\n    %s\n",
        (unsigned long long)(s->seed + (uint64_t)number), fa_status_name(status),
        status == FA_OK ? ", but no kernel does it by its name, or a baseline was chosen" : fa_last_error(),
        problem);
  }
  fa_plan_destroy(plan);
}

void fa_session_run_case(fa_session *s, int64_t number) {
  static char problem[2000];
  fa_case *c = &s->current;
  fa_case_describe(c, problem, sizeof problem);
  int somebody_can = 0;
  for (int32_t k = 0; k < fa_kernels_count; k++) {
    if (!fa_session_wants(s, fa_kernels[k].name, &fa_kernels[k])) continue;
    fa_kernel_info info = FA_KERNEL_INFO_INIT;
    if (fa_kernel_describe(k, &info) != FA_OK || !info.available) continue;
    if (strcmp(info.device, s->contexts[0]->backend->name) != 0) continue;
    if (c->values == FA_VALUES_NONFINITE && info.is_baseline)
      continue; /* as with poison: 0 times infinity is theirs */
    const int64_t failed = s->failed;
    if (run_kernel(s, k, s->contexts[0], number, problem) == FA_ERROR_UNSUPPORTED) {
      count(s, k, 1);
      continue;
    }
    count(s, k, 0);
    somebody_can |= !info.is_baseline;
    /* Several threads in every second case, and never where one thread went wrong already. */
    if (failed == s->failed && (c->seed + (uint64_t)k) % 2 == 0)
      run_kernel(s, k, s->contexts[1], number, problem);
  }
  if (!s->options.pattern && !s->options.kernel) run_chosen(s, number, problem, somebody_can);
}
