/* `fastattn check` for the AMX kernels on an emulated tile unit: their products are plain AVX-512 here. Prints what the
 * checker prints. Usage: check_emulated_amx [CASES [SEED]] */
#include <stdlib.h>

#include "check/check.h"

int main(int argc, char **argv) {
  fa_check_options options = FA_CHECK_OPTIONS_INIT;
  options.kernel = "amx";
  options.cases = argc > 1 ? atoll(argv[1]) : 0;
  options.has_seed = argc > 2;
  if (argc > 2) options.seed = strtoull(argv[2], NULL, 10);
  const int result = fa_check_run(&options, stdout);
  if (result == 2) puts("0 passed, 0 failed"); /* a processor without AVX-512 and its bf16 conversions */
  return result == 1;
}
