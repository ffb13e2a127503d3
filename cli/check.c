/* fastattn check: every kernel against the double-precision reference. */
#include "check/check.h"

#include <limits.h>

#include "commands.h"
#include "options.h"

static struct {
  fa_common_options common;
  const char *pattern;
  long long seed, cases;
} options = {.common = FA_COMMON_OPTIONS_INIT, .seed = LLONG_MIN, .cases = 200};

static const struct poptOption table[] = {
    {"pattern", 'k', POPT_ARG_STRING, &options.pattern, 0,
     "only kernels whose name contains TEXT, or with * and ? matches it (default: all this machine can run)",
     "TEXT"},
    {"seed", '\0', POPT_ARG_LONGLONG, &options.seed, 0,
     "seed of the first case, to see a failure again; case n has seed + n (default: from the clock)", "N"},
    {"cases", '\0', POPT_ARG_LONGLONG, &options.cases, 0, "random cases (default 200)", "N"},
    FA_OPTION_DEVICE(options.common),
    FA_OPTION_THREADS(options.common),
    FA_OPTION_KERNEL(options.common),
    POPT_TABLEEND};

static const fa_command_help help = {
    "check", "[OPTION...]",
    "Runs every kernel of this build on random problems (edge sizes, odd strides, empty\n"
    "rows, all features and types) and compares it with attention computed in double\n"
    "precision. Memory around and between the tensors is guarded and poisoned, so reading\n"
    "or writing out of bounds fails too. Prints the seed, what was run and what a kernel\n"
    "does not do; the last line is `N passed, N failed`.",
    "  fastattn check --cases 2000\n"
    "  fastattn check -k 'prefill_*' --seed 42 --cases 1"};

int fa_check_command(int argc, const char **argv) {
  int code;
  if (!fa_options_parse(&help, table, argc, argv, NULL, &code)) return code;
  if (options.cases < 1) return fa_usage_error("--cases is %lld; it must be at least 1", options.cases);
  if (options.seed < 0 && options.seed != LLONG_MIN)
    return fa_usage_error("--seed is %lld; it must be at least 0", options.seed);
  fa_check_options check = FA_CHECK_OPTIONS_INIT;
  check.pattern = options.pattern;
  check.device = options.common.device;
  check.kernel = options.common.kernel;
  check.has_seed = options.seed >= 0;
  check.seed = check.has_seed ? (uint64_t)options.seed : 0;
  check.cases = options.cases;
  check.threads = options.common.threads;
  switch (fa_check_run(&check, stdout)) {
    case 0:
      return FA_EXIT_OK;
    case 1:
      return FA_EXIT_FAILURE; /* the text has said which */
    default:
      return fa_usage_error("%s", fa_last_error());
  }
}
