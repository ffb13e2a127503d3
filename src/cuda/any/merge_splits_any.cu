/* merge_splits once more, for GPUs where it may begin before the kernel before it has ended (grid_order.cuh): merge_any.cu is
 * code for Volta, which has no such instruction. */
#include "cuda/any/merge_splits.cuh"

FA_MERGE_SPLITS(merge_splits)
