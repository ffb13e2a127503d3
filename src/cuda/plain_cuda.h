/* The kernel on plain multiply-adds (any/prefill_any.cuh), which serves what no other kernel takes. */
#ifndef FA_CUDA_PLAIN_CUDA_H
#define FA_CUDA_PLAIN_CUDA_H

#include "cuda/cuda.h"

typedef struct fa_cuda_plain {
  fa_cuda_function function;
  int64_t rows; /* packed rows of a block: 64, 32 or 16 */
} fa_cuda_plain;

enum { FA_CUDA_PLAIN_KEYS = 32 }; /* keys of a tile */

/* The instance for the plan's types and head sizes. Errors: those of fa_cuda_find. */
fa_status fa_cuda_find_plain(const fa_plan *plan, fa_cuda_plain *plain);

/* Blocks a part: batch * heads_kv * tiles of rows. */
int64_t fa_cuda_row_blocks(const fa_plan *plan, int64_t rows);

/* Enqueues it; params has its splits. */
fa_status fa_cuda_start_plain(const fa_plan *plan, const fa_cuda_plain *plain, const fa_cuda_params *params,
                              fa_stream stream);

#endif
