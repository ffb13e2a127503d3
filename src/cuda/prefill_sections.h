/* The grid of the tensor-core prefill: x = a query head of a section, y = rows of a sequence, z = a section. Sections are KV
 * heads (of all batch entries) whose K and V stay in L2 while their queries run. Plain C. */
#ifndef FA_CUDA_PREFILL_SECTIONS_H
#define FA_CUDA_PREFILL_SECTIONS_H

#include "cuda/divisor.h"

/* KV heads of a section: the largest number above most / 2 and to `most` that divides kv_heads, if there is one. A short last
 * section leaves multiprocessors idle at the end, a causal one with the longest rows of all [12 % on an H200, D 128, S 4096]. */
static inline int64_t fa_section_heads(int64_t kv_heads, int64_t most) {
  if (most < 1) most = 1;
  if (kv_heads <= most) return kv_heads > 0 ? kv_heads : 1;
  for (int64_t heads = most; 2 * heads > most; --heads)
    if (kv_heads % heads == 0) return heads;
  const int64_t sections = (kv_heads + most - 1) / most;
  return (kv_heads + sections - 1) / sections;
}

/* The KV head, of all batch entries, of block (x, z); beyond kv_heads: none. */
FA_HOST_AND_DEVICE int32_t fa_section_kv_head(int32_t x, int32_t z, int32_t grid_x, fa_divisor by_group) {
  return z * fa_divide(grid_x, by_group) + fa_divide(x, by_group);
}

#endif
