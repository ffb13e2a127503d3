/* The tiling-mask: which keys a block of queries keeps, without an S x S mask.
 *
 * Causal masks (any offset) and sliding windows keep a band of keys for query i of S_q:
 *     i + lower <= j <= i + upper
 * so a block of the score matrix is one of three cases: nothing kept (skip), everything kept (full), or an edge of
 * the band runs through it (window). For the third, the block's mask is a window of one small 2M x 2M lower
 * triangle, found by a shift: the paper's abstract states the idea of a 2M x 2M mask instead of S x S; the shift
 * rule below is our reconstruction. */
#ifndef FA_CORE_TILING_MASK_H
#define FA_CORE_TILING_MASK_H

#include "fastattention/fastattention.h"

/* Far beyond any sequence, far from overflow when an index is added. */
#define FA_BAND_UNLIMITED ((int64_t)1 << 60)

typedef struct fa_band {
  int64_t lower; /* -FA_BAND_UNLIMITED when there is no left window */
  int64_t upper; /*  FA_BAND_UNLIMITED when neither causal nor a right window */
} fa_band;

/* The band of a problem for actual lengths; bottom-right aligned. */
fa_band fa_band_of(const fa_attention_problem *problem, int64_t seqlen_q, int64_t seqlen_kv);

typedef enum fa_block_case { FA_BLOCK_SKIP, FA_BLOCK_FULL, FA_BLOCK_WINDOW } fa_block_case;

/* Case of the block of queries [row, row + rows) and keys [key, key + keys), both not empty. */
fa_block_case fa_band_block(fa_band band, int64_t row, int64_t rows, int64_t key, int64_t keys);

/* First and one-past-last key that any query of [row, row + rows) keeps, clipped to [0, seqlen_kv);
 * begin == end when there is none. */
typedef struct fa_key_range {
  int64_t begin;
  int64_t end;
} fa_key_range;
fa_key_range fa_band_keys(fa_band band, int64_t row, int64_t rows, int64_t seqlen_kv);

/* The 2M x 2M mask: element (r, c) is 1 where c <= r and 0 above the diagonal. */
typedef struct fa_tiling_mask {
  int64_t m;      /* largest block side it serves */
  uint8_t *bytes; /* [2m, 2m] */
} fa_tiling_mask;

size_t fa_tiling_mask_bytes(int64_t m);
void fa_tiling_mask_fill(int64_t m, uint8_t *bytes);

/* Where in the 2M x 2M mask a block's own mask starts (row stride 2m). An upper edge keeps where the mask is 1.
 * The lower edge keeps where the window found for it is 0. Valid for blocks of at most m x m. */
typedef struct fa_mask_shift {
  int64_t row;
  int64_t column;
} fa_mask_shift;

/* Keeps keys j <= i + upper of the block at (row, key): the window holds 1 where kept. */
fa_mask_shift fa_tiling_mask_upper(int64_t m, int64_t upper, int64_t row, int64_t key);
/* Keeps keys j >= i + lower of the block at (row, key): the window holds 0 where kept. */
fa_mask_shift fa_tiling_mask_lower(int64_t m, int64_t lower, int64_t row, int64_t key);

#endif
