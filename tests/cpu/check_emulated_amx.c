/* `fastattn check` for the AMX kernels on an emulated tile unit: their products are plain AVX-512 here. Prints what the
 * checker prints. Usage: check_emulated_amx [CASES [SEED]] */
#include <stdlib.h>

#include "check/check.h"
#include "cpu_kernels.h"

int main(int argc, char **argv) {
  if (lacks_emulated_amx()) return TEST_SKIPPED;
  fa_check_options options = FA_CHECK_OPTIONS_INIT;
  options.kernel = "amx";
  options.cases = argc > 1 ? atoll(argv[1]) : 0;
  options.has_seed = argc > 2;
  if (argc > 2) options.seed = strtoull(argv[2], NULL, 10);
  const int result = fa_check_run(&options, stdout);
  if (result == 2) fprintf(stderr, "%s\n", fa_last_error());
  return result;
}
