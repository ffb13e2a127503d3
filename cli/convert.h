/* Between the storage types of files and of a computation. */
#ifndef FA_CLI_CONVERT_H
#define FA_CLI_CONVERT_H

#include "fastattention/fastattention.h"

/* FLOAT32, FLOAT16 and BFLOAT16, each to each; rounds to nearest even, keeps NaN and infinity. */
void fa_convert(void *to, fa_dtype to_dtype, const void *from, fa_dtype from_dtype, int64_t elements);

#endif
