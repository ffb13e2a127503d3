#include "cpu/baseline_row_passes.h"

const fa_baseline_rows fa_baseline_rows_c = FA_BASELINE_ROWS;
