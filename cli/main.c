/* The fastattn command: a table of subcommands. */
#include <string.h>

#include "commands.h"
#include "options.h"
#if FA_WITH_LLAMA
#include "model_commands.h"
#endif

#if !FA_WITH_LLAMA
static int left_out(int argc, const char **argv) {
  (void)argc;
  return fa_failure(
      "%s is not in this build: it was built without oneDNN or PCRE2 (on Debian: apt install "
      "libdnnl-dev libpcre2-dev, then build again)",
      argv[0]);
}
#define fa_generate_command left_out
#define fa_perplexity_command left_out
#define fa_bench_model_command left_out
#endif

#if !FA_WITH_ASCEND
static int without_ascend(int argc, const char **argv) {
  (void)argc;
  return fa_failure("%s is not in this build: it was built with FA_WITH_ASCEND=OFF", argv[0]);
}
#define fa_sim_command without_ascend
#endif

static const struct {
  const char *name;
  const char *summary;
  int (*run)(int argc, const char **argv);
} subcommands[] = {
    {"info", "what this machine and this build can do, and what would be chosen", fa_info_command},
    {"run", "attention on arrays in .npy files", fa_run_command},
    {"check", "every kernel against the reference, on random shapes", fa_check_command},
    {"bench", "time prefill or decode, beside standard attention", fa_bench_command},
    {"tune", "measure kernels, tiles and splits, and keep what beats the rule in a file", fa_tune_command},
    {"report", "checks, times and describes this machine in one file to send", fa_report_command},
    {"sim", "the kernels for Ascend NPUs on an emulated one: results, hazards, model times", fa_sim_command},
    {"generate", "let a language model answer, or continue a text", fa_generate_command},
    {"perplexity", "how well a language model predicts a text", fa_perplexity_command},
    {"bench-model", "a model's throughput with each attention, in one run", fa_bench_model_command},
};
enum { COUNT = sizeof subcommands / sizeof subcommands[0] };

static void print_help(void) {
  printf("fastattn: exact attention, fast, on any CPU and on NVIDIA GPUs since Volta\n\n"
         "Usage: fastattn SUBCOMMAND [OPTION...]\n\n");
  for (int i = 0; i < COUNT; i++) printf("  %-13s%s\n", subcommands[i].name, subcommands[i].summary);
  printf(
      "\n`fastattn SUBCOMMAND --help` explains one of them; --version prints the version.\n"
      "Exit codes: 0 done, 1 could not be done, 2 asked wrongly (one line on standard error says why).\n");
}

int main(int argc, const char **argv) {
  if (argc < 2) {
    return fa_usage_error(
        "a subcommand is missing: info, run, check, bench, tune, report, sim, generate, perplexity or bench-model; "
        "`fastattn --help` explains them");
  }
  const char *const name = argv[1];
  if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
    print_help();
    return FA_EXIT_OK;
  }
  if (!strcmp(name, "--version")) {
    printf("fastattn %s (commit %s)\n", fa_version(), fa_commit());
    return FA_EXIT_OK;
  }
  const char *names[COUNT];
  for (int i = 0; i < COUNT; i++) {
    names[i] = subcommands[i].name;
    if (!strcmp(name, names[i])) return subcommands[i].run(argc - 1, argv + 1);
  }
  const char *const nearest = fa_options_nearest(name, names, COUNT);
  if (nearest) return fa_usage_error("unknown subcommand '%.64s'; did you mean %s?", name, nearest);
  return fa_usage_error("unknown subcommand '%.64s'; `fastattn --help` lists them", name);
}
