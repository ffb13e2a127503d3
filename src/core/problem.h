/* Checks on what a caller gives: the problem when a plan is made, the arguments when it runs. */
#ifndef FA_CORE_PROBLEM_H
#define FA_CORE_PROBLEM_H

#include "fastattention/fastattention.h"

#define FA_MAX_HEAD_DIM 576
/* Keeps every product of sizes and strides that the library forms inside int64. */
#define FA_MAX_EXTENT ((int64_t)1 << 31)

/* Every field in range and the combination meaningful. */
fa_status fa_check_problem_fields(const fa_attention_problem *problem);

/* Every pointer the problem needs is there and outputs do not overlap themselves. Reads no device memory. */
fa_status fa_check_args(const fa_attention_problem *problem, const fa_attention_args *args);

/* Lengths and page indices, where host code may read them: in range, cumulative lengths not falling. */
fa_status fa_check_lengths(const fa_attention_problem *problem, const fa_attention_args *args);

#endif
