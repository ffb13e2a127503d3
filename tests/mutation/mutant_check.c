/* The checker alone, for run_mutants.sh: mutant_check PATTERN SEED CASES ("" is every kernel). */
#include <stdio.h>
#include <stdlib.h>

#include "check/check.h"

int main(int argc, char **argv) {
  fa_check_options options = FA_CHECK_OPTIONS_INIT;
  if (argc != 4) return 2;
  options.pattern = argv[1][0] ? argv[1] : NULL;
  options.has_seed = 1;
  options.seed = strtoull(argv[2], NULL, 10);
  options.cases = atoll(argv[3]);
  const int result = fa_check_run(&options, stdout);
  if (result == 2) fprintf(stderr, "%s\n", fa_last_error());
  return result;
}
