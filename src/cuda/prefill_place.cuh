/* Where a block of the tensor-core prefill works: its rows and head from blockIdx.x, and what its loop reads again. */
#ifndef FA_CUDA_PREFILL_PLACE_CUH
#define FA_CUDA_PREFILL_PLACE_CUH

#include "cuda/sequence.cuh"

/* Which rows of which head: blockIdx.x in the order of the file head. */
struct fa_block {
  int row, head, batch;
};

template <int ROWS> FA_DEVICE fa_block fa_block_of(const fa_cuda_params &p) {
  const int row_blocks = (p.max_seqlen_q + ROWS - 1) / ROWS, kv_total = p.batch * p.heads_kv;
  const int64_t kv_bytes = (int64_t)max(1, p.max_seqlen_kv) * (p.head_dim_qk + p.head_dim_v) * 2;
  const int section = (int)max((int64_t)1, min((int64_t)kv_total, ((int64_t)16 << 20) / kv_bytes));
  const int section_blocks = section * p.group * row_blocks;
  const int which = blockIdx.x / section_blocks, within = blockIdx.x % section_blocks;
  const int heads = min(section, kv_total - which * section) * p.group;
  const int kv = which * section + within % heads / p.group;
  fa_block b;
  b.row = (row_blocks - 1 - within / heads) * ROWS;
  b.batch = kv / p.heads_kv;
  b.head = kv % p.heads_kv * p.group + within % heads % p.group;
  return b;
}

/* What the loop needs now and then lies behind the ring in shared memory: registers are for Q, O, S and P. */
struct fa_place {
  fa_sequence s;
  const char *k_first, *v_first; /* row first_key, unless paged */
  int begin, end; /* keys that some row of the block keeps */
  int first_key;  /* of the first tile */
  int row, head, kv_head;
  int loads; /* FA_LOADS_.. */
};

/* How tiles that lie within [begin, end) come. */
enum {
  FA_LOADS_ANY,    /* element by element, or page by page */
  FA_LOADS_NARROW, /* rows of whole vectors, one stride apart */
  FA_LOADS_WHOLE   /* and of the bucket's head sizes */
};

/* Keys of a warp's rows, behind fa_place: those that some row keeps and those that every row keeps. */
struct __align__(16) fa_warp_band {
  int begin, end, full_begin, full_end;
};

#endif
