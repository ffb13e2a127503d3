/* What joining the parts of a split KV sequence and its host side agree on. Plain C. */
#ifndef FA_CUDA_KV_SPLIT_SHAPE_H
#define FA_CUDA_KV_SPLIT_SHAPE_H

enum {
  FA_MOST_SPLITS = 256,
  FA_JOIN_COLUMNS = 128, /* threads side by side */
  FA_JOIN_GROUPS = 4,    /* that share the parts */
  FA_JOIN_THREADS = FA_JOIN_COLUMNS * FA_JOIN_GROUPS
};

#endif
