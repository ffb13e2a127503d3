#include "cpu/baseline_row_passes.h"

const fa_baseline_rows fa_baseline_rows_avx2 = FA_BASELINE_ROWS;
