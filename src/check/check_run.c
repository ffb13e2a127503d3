/* The checker's main loop and its closing table. */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check/check_crash.h"
#include "check/check_session.h"
#include "core/status.h"

int fa_session_wants(const fa_session *s, const char *name, const fa_kernel *kernel) {
  const char *pattern = s->options.pattern, *only = s->options.kernel;
  if (only && (!kernel || (strcmp(only, kernel->name) != 0 && strcmp(only, kernel->arch) != 0))) return 0;
  if (!pattern) return 1;
  if (strpbrk(pattern, "*?[")) return fnmatch(pattern, name, 0) == 0;
  return strstr(name, pattern) != NULL;
}

void fa_session_function(fa_session *s, int passed, const char *format, ...) {
  if (passed) {
    s->passed++;
    return;
  }
  va_list arguments;
  s->failed++;
  fputs("FAILED ", s->out);
  va_start(arguments, format);
  vfprintf(s->out, format, arguments);
  va_end(arguments);
  fputc('\n', s->out);
}

static int is_candidate(const fa_session *s, int32_t k) {
  fa_kernel_info info = FA_KERNEL_INFO_INIT;
  return fa_session_wants(s, fa_kernels[k].name, &fa_kernels[k]) && fa_kernel_describe(k, &info) == FA_OK &&
         info.available && strcmp(info.device, s->contexts[0]->backend->name) == 0;
}

static void run_cases(fa_session *s, const int32_t *candidates, int64_t count) {
  const int terminal = isatty(fileno(s->out));
  fa_case *c = &s->current;
  for (int64_t n = 0; n < s->options.cases; n++) {
    c->seed = c->random.state = s->seed + (uint64_t)n;
    fa_random_bits(&c->random); /* neighbouring seeds: far apart from here on */
    c->random.state = fa_random_bits(&c->random);
    const fa_kernel *target = &fa_kernels[candidates[fa_random_range(&c->random, 0, count - 1)]];
    c->oracle_stale = 0;
    fa_case_draw_problem(c, target);
    if (fa_case_draw_arrays(c) == FA_OK && fa_case_oracle(c) == FA_OK)
      fa_session_run_case(s, n);
    else
      fa_session_function(s, 0, "seed %llu: the checker is out of memory", (unsigned long long)c->seed);
    fa_case_clear(c);
    if (terminal && n % 16 == 15) {
      fprintf(s->out, "\r  case %lld of %lld, %lld failed ", (long long)n + 1, (long long)s->options.cases,
              (long long)s->failed);
      fflush(s->out);
    }
  }
  if (terminal) fprintf(s->out, "\r%60s\r", "");
}

static void print_tally(FILE *out, const char *name, const fa_tally *t, int with_worst) {
  fprintf(out, "  %-22s %9lld %12lld %7lld", name, (long long)t->run, (long long)t->unsupported,
          (long long)t->failed);
  if (with_worst && t->run) fprintf(out, "   %.2f", t->worst);
  fputc('\n', out);
}

static void print_tables(const fa_session *s) {
  static const char *const header = "  %-22s %9s %12s %7s%s\n";
  fprintf(s->out, header, "kernel", "run", "unsupported", "failed", "   largest error / tolerance");
  for (int32_t k = 0; k < fa_kernels_count; k++) {
    if (s->kernels[k].run + s->kernels[k].unsupported > 0)
      print_tally(s->out, fa_kernels[k].name, &s->kernels[k], 1);
  }
  fprintf(s->out, header, "feature", "run", "unsupported", "failed", "");
  print_tally(s->out, "none", &s->dense, 0);
  for (int bit = 0; bit < FA_FEATURE_COUNT; bit++)
    print_tally(s->out, fa_feature_name(bit), &s->features[bit], 0);
  fprintf(s->out, header, "type", "run", "unsupported", "failed", "");
  for (int type = 0; type < 5; type++) {
    char name[16];
    snprintf(name, sizeof name, "%s%s", fa_dtype_name((fa_dtype)type), type >= FA_INT8 ? " cache" : "");
    print_tally(s->out, name, &s->types[type], 0);
  }
}

static fa_status open_session(fa_session *s) {
  fa_context_options options = FA_CONTEXT_OPTIONS_INIT;
  options.device = s->options.device;
  options.threads = 1;
  fa_status status = fa_context_create(&options, &s->contexts[0]);
  if (status != FA_OK) return status;
  options.threads = s->options.threads;
  status = fa_context_create(&options, &s->contexts[1]);
  if (status != FA_OK || s->options.threads > 0 || fa_context_threads(s->contexts[1]) > 1) return status;
  fa_context_destroy(s->contexts[1]);
  s->contexts[1] = NULL;
  options.threads = 2;
  return fa_context_create(&options, &s->contexts[1]);
}

static void close_session(fa_session *s) {
  for (int n = 0; n < FA_ARRAYS; n++) fa_slot_release(&s->current.slots[n]);
  fa_mirror_release(&s->mirror);
  fa_context_destroy(s->contexts[0]);
  fa_context_destroy(s->contexts[1]);
  free(s);
}

static int run_session(fa_session *s) {
  int32_t candidates[FA_CHECK_KERNELS];
  int64_t count = 0;
  for (int32_t k = 0; k < fa_kernels_count && k < FA_CHECK_KERNELS; k++) {
    if (is_candidate(s, k)) candidates[count++] = k;
  }
  const int functions = fa_session_wants(s, "merge", NULL) || fa_session_wants(s, "device", NULL) ||
                        fa_session_wants(s, "allocation", NULL);
  if (count == 0 && !functions) {
    const char *asked = s->options.kernel ? s->options.kernel : s->options.pattern ? s->options.pattern : "";
    fa_fail(FA_ERROR_ARGUMENT, "no kernel of this machine matches '%.64s'; `fastattn info` lists them",
            asked);
    return 2;
  }
  fprintf(s->out, "check: %lld cases, seed %llu", (long long)s->options.cases, (unsigned long long)s->seed);
  if (s->contexts[0]->backend->memory_is_host)
    fprintf(s->out, ", 1 and %d threads", fa_context_threads(s->contexts[1]));
  fputc('\n', s->out);
  fflush(s->out);
  fa_crash_install(s->out);
  if (functions) fa_session_run_functions(s);
  if (count > 0) run_cases(s, candidates, count);
  fa_crash_uninstall();
  if (count > 0) print_tables(s);
  fprintf(s->out, "%lld passed, %lld failed\n", (long long)s->passed, (long long)s->failed);
  fflush(s->out);
  return s->failed != 0;
}

int fa_check_run(const fa_check_options *options, FILE *out) {
  fa_session *s = calloc(1, sizeof *s);
  if (!s) {
    fa_fail(FA_ERROR_MEMORY, "check: out of memory");
    return 2;
  }
  s->options = *options;
  s->out = out;
  if (s->options.cases <= 0) s->options.cases = 200;
  s->seed = s->options.has_seed ? s->options.seed : (uint64_t)time(NULL) * 1000u;
  const int result = open_session(s) == FA_OK ? run_session(s) : 2;
  close_session(s);
  return result;
}

void fa_session_run_functions(fa_session *s) {
  if (fa_session_wants(s, "merge", NULL)) {
    for (int64_t n = 0; n < fa_min(s->options.cases, 200); n++) fa_check_merge(s, s->seed + (uint64_t)n);
  }
  if (fa_session_wants(s, "device", NULL)) fa_check_device_functions(s);
  if (fa_session_wants(s, "allocation", NULL)) fa_check_allocation(s);
}
