/* Where the Volta prefill kernel keeps its operands: shared memory, and the fragments of mma.sync.m8n8k4.
 *
 * Plain functions of lane and index, the same in the kernel and on the host: tests/cuda/test_layout_sm70.c walks every
 * access of the kernel through them, counts bank conflicts and runs the products on an emulated m8n8k4.
 *
 * Shared memory. Q, K and V tiles are rows of 16-byte chunks (eight halves). Chunk c of row r lies at chunk
 *   c ^ (r & 7)
 * of the row; rows are a multiple of 128 bytes. A 128-bit access is served eight lanes at a time; the eight lanes read
 * one chunk number of rows that differ in r & 7 (or write the eight chunks of one row's 128 bytes), so they meet eight
 * different groups of four banks.
 *
 * Fragments. A warp is four quad-pairs (QP); QP bit 0 (lane bit 2) is its row half, bit 1 (lane bit 3) its key half of
 * S = Q K^T and its column half of O = P V. MMA rows and columns are numbered so that the eight lanes of a phase meet
 * eight consecutive rows: MMA row m of QP row half g is tile row (m & 3) + 8 (m >> 2) + 4 g + 16 block, and keys alike.
 * A QP makes 16 x 32 of the 32 x 64 scores, each A and B fragment serving several products. For O it needs the keys
 * of the other key half too: those come from lane ^ 8, once they are A operands.
 *
 * Columns of O come in groups of 32 (four chunks). With two parts (D > 128, two warps a row tile) part p has the groups
 * of its parity, so that an address is one XOR and a constant there as well. */
#ifndef FA_CUDA_LAYOUT_SM70_H
#define FA_CUDA_LAYOUT_SM70_H

#ifdef __CUDACC__
#define FA_SM70_FUNCTION static __host__ __device__ __forceinline__
#else
#define FA_SM70_FUNCTION static inline
#endif

enum {
  FA_SM70_THREADS = 256,
  FA_SM70_WARPS = 8,
  FA_SM70_WARP_ROWS = 32,
  FA_SM70_CHUNK_BYTES = 16,
  FA_SM70_EXCHANGE = 2, /* lane ^ 2 holds the other half of an A operand's row */
  FA_SM70_PARTNER = 8,  /* lane ^ 8 holds the A operands of the other key half */
  FA_SM70_SHARED = 96 * 1024
};

/* ---------------------------------------------------------------- the tiles of a bucket: D = 64, 96, 128, 192, 256 */

/* Macros, for array sizes and template arguments on both sides. */
#define FA_SM70_PARTS(D) ((D) > 128 ? 2 : 1)                /* warps that share a row tile, each with D / PARTS columns */
#define FA_SM70_ROWS(D) (256 / FA_SM70_PARTS(D))            /* query rows a block */
#define FA_SM70_KEYS(D) (64 / FA_SM70_PARTS(D))             /* keys a tile */
#define FA_SM70_ROW_BYTES(D) (((D) + 63) / 64 * 128)        /* a row of Q, K or V in shared memory */
#define FA_SM70_CHUNKS(D) (FA_SM70_ROW_BYTES(D) / 16)
#define FA_SM70_GROUPS(D) ((D) / FA_SM70_PARTS(D) / 32)     /* groups of 32 columns a warp */
#define FA_SM70_Q_IN_REGISTERS(D) ((D) == 64)
#define FA_SM70_Q_BYTES(D) (FA_SM70_ROWS(D) * FA_SM70_ROW_BYTES(D))
#define FA_SM70_K_BYTES(D) (FA_SM70_KEYS(D) * FA_SM70_ROW_BYTES(D))
/* Partial scores of two parts are summed through the space of K and V: 32 rows x 32 keys of fp32 a warp. */
#define FA_SM70_SUM_BYTES(D) (FA_SM70_PARTS(D) == 2 ? FA_SM70_WARPS * 4096 : 0)
#define FA_SM70_KV_BYTES(D) \
  (2 * FA_SM70_K_BYTES(D) > FA_SM70_SUM_BYTES(D) ? 2 * FA_SM70_K_BYTES(D) : FA_SM70_SUM_BYTES(D))
#define FA_SM70_SHARED_BYTES(D) (FA_SM70_Q_BYTES(D) + FA_SM70_KV_BYTES(D))

/* ---------------------------------------------------------------- shared memory, byte offsets */

FA_SM70_FUNCTION int fa_sm70_offset(int row, int chunk, int row_bytes) {
  return row * row_bytes + ((chunk ^ (row & 7)) * FA_SM70_CHUNK_BYTES);
}

/* What thread t moves in pass n from global to shared memory: eight lanes, eight chunks of one row. */
FA_SM70_FUNCTION int fa_sm70_stage_row(int thread, int pass, int chunks) {
  return (thread + pass * FA_SM70_THREADS) / chunks;
}
FA_SM70_FUNCTION int fa_sm70_stage_chunk(int thread, int pass, int chunks) {
  return (thread + pass * FA_SM70_THREADS) % chunks;
}

/* Chunk b (0..3) of a warp's column group x. */
FA_SM70_FUNCTION int fa_sm70_chunk(int x, int part, int parts, int b) { return 4 * (x * parts + part) + b; }

/* The same address in two steps: start once a lane (b: what of the chunk depends on the lane), then an XOR and a
 * constant an access. `start` is an offset from a multiple of 128; rows may be added in multiples of 8. */
FA_SM70_FUNCTION int fa_sm70_start(int row, int part, int b, int row_bytes) {
  return fa_sm70_offset(row, 4 * part + b, row_bytes);
}
FA_SM70_FUNCTION int fa_sm70_step(int start, int x, int parts, int b) {
  return parts == 2 ? (start ^ (b * FA_SM70_CHUNK_BYTES)) + x * 128
                    : (start ^ ((4 * (x & 1) + b) * FA_SM70_CHUNK_BYTES)) + (x >> 1) * 128;
}

/* Partial scores: warp's 4 KB, slot of four floats. */
FA_SM70_FUNCTION int fa_sm70_sum_offset(int warp, int slot, int lane) { return warp * 4096 + slot * 512 + lane * 16; }

/* ---------------------------------------------------------------- lane -> fragment */

/* Row of Q whose eight halves of a chunk are the lane's A operands (k = 0..3, then 4..7). */
FA_SM70_FUNCTION int fa_sm70_q_row(int lane, int block) {
  return (lane & 3) + 8 * (lane >> 4) + 4 * (lane >> 2 & 1) + 16 * block;
}
/* Row of K whose eight halves are the lane's B operands (column-major). */
FA_SM70_FUNCTION int fa_sm70_k_row(int lane, int block) {
  return (lane & 3) + 8 * (lane >> 4) + 4 * (lane >> 3 & 1) + 16 * block;
}
/* Row of V of the lane's B operand (row-major) in k-step `step` of score block `block`: of its own key half, or of the
 * other. Its chunk b: the halves 0..3 serve one product, 4..7 the next. */
FA_SM70_FUNCTION int fa_sm70_v_row(int lane, int block, int step, int other) {
  return (lane & 3) + 4 * ((lane >> 3 & 1) ^ other) + 8 * step + 16 * block;
}
FA_SM70_FUNCTION int fa_sm70_v_chunk(int lane) { return 2 * (lane >> 3 & 1) + (lane >> 4); }

/* Accumulator i (0..7): row of S and of O in the warp's tile, key of S in the tile, column of O of product half `m`. */
FA_SM70_FUNCTION int fa_sm70_accumulator_row(int lane, int block, int i) {
  return (lane & 1) + (i & 2) + 8 * (lane >> 4) + 4 * (lane >> 2 & 1) + 16 * block;
}
FA_SM70_FUNCTION int fa_sm70_accumulator_key(int lane, int block, int i) {
  return (lane & 2) + (i & 1) + 2 * (i & 4) + 4 * (lane >> 3 & 1) + 16 * block;
}
FA_SM70_FUNCTION int fa_sm70_accumulator_column(int lane, int group, int m, int i) {
  return 32 * group + 16 * (lane >> 3 & 1) + 2 * (i & 4) + 4 * m + (lane & 2) + (i & 1);
}

/* From accumulators to the A operand of k-step `step`: registers 4 step + {0, 1} are row (lane & 1), + {2, 3} row
 * (lane & 1) + 2, both of columns (lane & 2) + {0, 1}. A lane with bit 1 keeps the second pair, as its k = 2, 3, and
 * sends the first to lane ^ FA_SM70_EXCHANGE; one without keeps the first, as its k = 0, 1, and sends the second. */
FA_SM70_FUNCTION int fa_sm70_keeps_second(int lane) { return lane >> 1 & 1; }

#endif
