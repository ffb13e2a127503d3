/* Prefill on Volta: o = softmax(rules(scale q k^T)) v, fp16 in and out, fp32 scores, sums and O, on mma.sync.m8n8k4.
 *
 * Shapes: head sizes to 256, padded with zeros in shared memory to a bucket D of 64, 96, 128, 192, 256 (that of the
 * larger of D_qk and D_v); any strides, GQA, ragged, paged; causal and window bands, sinks, lse. The _general instances
 * add ALiBi, softcap, bias, mask, rows that are not aligned to 16 bytes and head sizes that are no multiple of 8;
 * prefill_sm70.c picks. Refused (prefill_sm70.c): other types, D > 256, int8 and fp8 caches, splits.
 *
 * Level one, a block of 8 warps: 256 query rows x 64 keys (D <= 128), 128 x 32 (D > 128). Level two, a warp: 32 rows x
 * 64 keys, its O (32 x D) in fp32 registers; with D > 128 (32 x 32) two warps share 32 rows, each with half of the
 * columns of Q, K, V and O: their partial scores are summed through shared memory, after which both hold the same S,
 * m and P.
 *
 *   | D   | shared memory: Q + K and V (+ sums) | registers that stay: O, S (then P), staged K or V, Q |
 *   | 64  | 32 + 16 KB = 48 KB                  | 64 + 64 + 4 + 64                                    |
 *   | 96  | 64 + 32 KB = 96 KB (rows of 256 B)  | 96 + 64 + 8                                         |
 *   | 128 | 64 + 32 KB = 96 KB                  | 128 + 64 + 8                                        |
 *   | 192 | 48 + 32 KB = 80 KB (sums 32 KB lie over K and V) | 96 + 32 + 12                           |
 *   | 256 | 64 + 32 KB = 96 KB (sums lie over K and V)       | 128 + 32 + 16                          |
 * What ptxas makes of it: scripts/report_sm70.sh.
 *
 * Softmax: m is an older maximum as long as no weight passes 2^12 (one vote a warp): no shuffles and no scaling of O
 * then, and no selection. The true maximum (`restart`) is for the first tile, those of which some row leaves keys out,
 * very large scores, and all tiles of the _general instances.
 *
 * Pipeline: no cp.async below sm_80, so registers are the second buffer: V of a tile is loaded while Q K^T runs, K of
 * the next while P V runs; each is stored when its space was read for the last time, with D <= 128 in two halves, which
 * halves the registers. Two barriers a tile (five with D > 128).
 *
 * Bound: tensor cores (8 cycles an m8n8k4) if shared memory keeps up, 2 cycles an MMA: Q K^T takes 1.5 (1.0 with Q in
 * registers, 2.0 with tiles of 32 keys), P V 1.0 [model, tests/cuda/test_layout_sm70.c], without bank conflicts [proven
 * there]. With D > 128 the sums of partial scores bring shared memory to its limit.
 * V that is not finite: rows whose o is not finite are computed again, exactly (fa_exact_row).
 * Right answers and times on a V100: not run. */
#include "cuda/sm70/warp_sm70.cuh"

/* A piece (half with D <= 128) of a tile of K or V on its way: registers of this thread. Keys outside [begin, end) are
 * zeros, never read. */
template <int D, bool VECTORS>
struct fa_staged {
  enum {
    CHUNKS = FA_SM70_CHUNKS(D),
    PIECES = 2 / FA_SM70_PARTS(D),
    PASSES = FA_SM70_KEYS(D) * CHUNKS / FA_SM70_THREADS / PIECES
  };
  uint4 chunk[PASSES];

  __device__ __forceinline__ void load(const fa_cuda_params &p, const fa_sequence &s, const fa_cuda_tensor &t, int h,
                                       int dim, int tile, int begin, int end, int piece) {
#pragma unroll
    for (int n = 0; n < PASSES; n++) {
      const int j = fa_fresh(tile), thread = fa_fresh(threadIdx.x);
      const int key = j + fa_sm70_stage_row(thread, n + piece * PASSES, CHUNKS);
      const int d = 8 * fa_sm70_stage_chunk(thread, n + piece * PASSES, CHUNKS);
      chunk[n] = make_uint4(0u, 0u, 0u, 0u);
      if (key >= begin && key < end && d < dim)
        chunk[n] = fa_load_chunk<VECTORS>((const __half *)t.data + fa_sm70_token_offset(p, s, t, h, key), d, dim, p.aligned);
    }
  }
  __device__ __forceinline__ void store(int base, int piece) const {
    const int thread = fa_fresh(threadIdx.x);
#pragma unroll
    for (int n = 0; n < PASSES; n++)
      fa_sts128(base + fa_sm70_offset(fa_sm70_stage_row(thread, n + piece * PASSES, CHUNKS),
                                      fa_sm70_stage_chunk(thread, n + piece * PASSES, CHUNKS), FA_SM70_ROW_BYTES(D)),
                chunk[n]);
  }
};

/* Q of the block, times `factor` (1, or -1 or 0 for the sign of the scale: exact). */
template <int D, bool VECTORS>
FA_DEVICE void store_q(const fa_cuda_params &p, const fa_sequence &s, int h, int row0, float factor, int base) {
  constexpr int chunks = FA_SM70_CHUNKS(D);
  const __half2 pair = __float2half2_rn(factor);
#pragma unroll 2
  for (int n = 0; n < FA_SM70_ROWS(D) * chunks / FA_SM70_THREADS; n++) {
    const int row = fa_sm70_stage_row(threadIdx.x, n, chunks), chunk = fa_sm70_stage_chunk(threadIdx.x, n, chunks);
    uint4 v = make_uint4(0u, 0u, 0u, 0u);
    if (row0 + row < s.seqlen_q && 8 * chunk < p.head_dim_qk) {
      v = fa_load_chunk<VECTORS>((const __half *)p.q.data + fa_row_offset(p, s, p.q, h, row0 + row), 8 * chunk,
                                 p.head_dim_qk, p.aligned);
      v = make_uint4(fa_multiply_pair(v.x, pair), fa_multiply_pair(v.y, pair), fa_multiply_pair(v.z, pair),
                     fa_multiply_pair(v.w, pair));
    }
    fa_sts128(base + fa_sm70_offset(row, chunk, FA_SM70_ROW_BYTES(D)), v);
  }
}

/* What a block does. The last rows first: under a causal mask they have the most keys. */
template <int D>
struct fa_block_sm70 {
  int first, head, batch;
  __device__ __forceinline__ fa_block_sm70(const fa_cuda_params &p, unsigned block) {
    const unsigned tiles = (p.max_seqlen_q + FA_SM70_ROWS(D) - 1) / FA_SM70_ROWS(D);
    first = (int)(tiles - 1 - block % tiles) * FA_SM70_ROWS(D);
    head = (int)(block / tiles % p.heads_q);
    batch = (int)(block / tiles / p.heads_q);
  }
};

/* Of scores to natural units, without the sign, which is in Q; rules have scaled already. Made anew. */
template <bool GENERAL>
FA_DEVICE float scale_of(const fa_cuda_params &p) {
  const float size = fabsf(__int_as_float(fa_fresh(__float_as_int(p.scale))));
  return GENERAL || !(size > 0.0f) ? 1.0f : size;
}

template <int D, bool GENERAL>
FA_DEVICE void prefill(const fa_cuda_params &p) {
  constexpr int parts = FA_SM70_PARTS(D), keys = FA_SM70_KEYS(D), rows = FA_SM70_ROWS(D);
  constexpr int groups = FA_SM70_GROUPS(D), pieces = fa_staged<D, !GENERAL>::PIECES;
  const int q_base = fa_shared_base(), k_base = q_base + FA_SM70_Q_BYTES(D), v_base = k_base + FA_SM70_K_BYTES(D);

  const fa_block_sm70<D> block(p, blockIdx.x);
  const int first = block.first, h = block.head, kv_head = h / p.group;
  const fa_sequence s = fa_sequence_of(p, block.batch);
  if (first >= s.seqlen_q) return;

  int begin, end; /* keys that any row of the block keeps */
  fa_band_rows(p, s, first, min(first + rows, s.seqlen_q) - 1, begin, end);
  const float sign = GENERAL || p.scale > 0.0f ? 1.0f : p.scale < 0.0f ? -1.0f : 0.0f;
  fa_warp_sm70<D, GENERAL> w;
  w.init();
  fa_staged<D, !GENERAL> staged;
  int j = begin / keys * keys;
  const auto load_k = [&](int tile, int piece) {
    staged.load(p, s, p.k, kv_head, p.head_dim_qk, tile, begin, end, piece);
  };
  const auto load_v = [&](int piece) { staged.load(p, s, p.v, kv_head, p.head_dim_v, j, begin, end, piece); };
  if (begin < end) {
    store_q<D, !GENERAL>(p, s, h, first, sign, q_base);
#pragma unroll
    for (int n = 0; n < pieces; n++) load_k(j, n), staged.store(k_base, n);
    __syncthreads();
    w.hold_q();
  }
#pragma unroll 1
  for (; j < end; j += keys) { /* here K of tile j is in its place and V's place is free */
    if (w.any_key(p, s, first, j)) {
      float scores[2][keys / 16][8];
      unsigned weights[2][keys / 16][4]; /* P in pairs of keys; pair e is accumulators 2 e and 2 e + 1 */
      w.clear(scores);
#pragma unroll
      for (int n = 0; n < pieces; n++) {
        load_v(n);
        w.scores(scores, n * groups / pieces, (n + 1) * groups / pieces);
        if (parts == 1) staged.store(v_base, n);
      }
      if constexpr (parts == 2) { /* the sums lie over K and V */
        __syncthreads();
        w.put_partial(scores, k_base);
        __syncthreads();
        w.add_partial(scores, k_base);
        __syncthreads();
        staged.store(v_base, 0);
      }
      const float c_log2 = scale_of<GENERAL>(p) * FA_LOG2E;
      /* select changes nothing where every row keeps every key: one branch for both reasons. */
      if (GENERAL || !w.every_key(p, s, first, j) || !w.weigh(scores, weights, c_log2)) {
        w.select(scores, p, s, h, first, j);
        w.restart(scores, weights, c_log2);
      }
      __syncthreads(); /* V is there, K was read */
#pragma unroll
      for (int n = 0; n < pieces; n++) {
        load_k(j + keys, n);
        w.values(weights, n * (keys / 16) / pieces, (n + 1) * (keys / 16) / pieces);
        staged.store(k_base, n);
      }
    } else { /* no work, but every warp moves its part of K and V and meets the same barriers */
#pragma unroll
      for (int n = 0; n < pieces; n++) {
        load_v(n);
        for (int barrier = 0; barrier < (parts == 2 ? 3 : 0); barrier++) __syncthreads();
        staged.store(v_base, n);
      }
      __syncthreads();
#pragma unroll
      for (int n = 0; n < pieces; n++) load_k(j + keys, n), staged.store(k_base, n);
    }
    __syncthreads(); /* K is there, V was read */
  }
  const fa_block_sm70<D> again(p, fa_fresh(blockIdx.x)); /* not kept through the loop */
  w.finish(p, fa_sequence_of(p, again.batch), again.head, again.first, scale_of<GENERAL>(p));
}

#define INSTANCE(D)                                                                                     \
  extern "C" __global__ void __launch_bounds__(FA_SM70_THREADS, 1)                                      \
      prefill_sm70_d##D(const __grid_constant__ fa_cuda_params p) {                                     \
    prefill<D, false>(p);                                                                               \
  }                                                                                                     \
  extern "C" __global__ void __launch_bounds__(FA_SM70_THREADS, 1)                                      \
      prefill_sm70_d##D##_general(const __grid_constant__ fa_cuda_params p) {                             \
    prefill<D, true>(p);                                                                                \
  }
INSTANCE(64)
INSTANCE(96)
INSTANCE(128)
INSTANCE(192)
INSTANCE(256)
