/* How the kernels of standard and eager attention divide their work: tiles of the Cube matmul
 * (kernel/matmul_ascend.cpp), rows of the passes over scores (kernel/softmax_ascend.cpp, eager_ascend.cpp). */
#ifndef FA_ASCEND_BASELINE_TILES_H
#define FA_ASCEND_BASELINE_TILES_H

#include "ascend/matmul_tiling.h"
#include "ascend/passes_tiling.h"

/* Fills base_*, tile_*, chunk_* and swizzle for `cores` Cube cores; everything else of `t` is set, m, n, k may be 0. */
void fa_ascend_matmul_tiles(fa_ascend_matmul *t, int cores);

/* Fills block_rows and item_rows of a softmax for `cores` Vector cores, between products whose tiles are chosen; NULL:
 * no band reaches into them (eager, or scores that are computed wholly). Everything else of `t` is set. */
void fa_ascend_softmax_rows(fa_ascend_passes *t, const fa_ascend_matmul *scores, const fa_ascend_matmul *values,
                            int cores);

#endif
