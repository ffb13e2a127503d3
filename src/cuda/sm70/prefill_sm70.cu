/* Prefill on Volta: o = softmax(rules(scale q k^T)) v, fp16 in and out, fp32 scores, sums and O, on mma.sync.m8n8k4.
 *
 * Shapes: head sizes to 256, padded with zeros in shared memory to a bucket D of 64, 96, 128, 192, 256 (that of the
 * larger of D_qk and D_v); any strides, GQA, ragged, paged; causal and window bands, sinks, lse. The _general instances
 * add ALiBi, softcap, bias, mask, rows that are not aligned to 16 bytes and head sizes that are no multiple of 8;
 * prefill_sm70.c picks. Refused (prefill_sm70.c): other types, D > 256, int8 and fp8 caches, splits.
 *
 * Level one, a block of 8 warps: 256 query rows x 64 keys (D <= 128), 128 x 32 (D > 128). Level two, a warp: 32 rows x
 * 64 keys, its O (32 x D) in fp32 registers; with D > 128 two warps share 32 rows, each with half of the columns of Q,
 * K, V and O: their partial scores are summed through shared memory, after which both hold the same S, m and P.
 *
 *   | D   | shared memory: Q + K and V (+ sums) | registers that stay: O, S (then P), staged K or V, Q |
 *   | 64  | 32 + 16 KB = 48 KB                  | 64 + 64 + 8 + 64                                    |
 *   | 96  | 64 + 32 KB = 96 KB (rows of 256 B)  | 96 + 64 + 16                                        |
 *   | 128 | 64 + 32 KB = 96 KB                  | 128 + 64 + 16                                       |
 *   | 192 | 48 + 32 KB = 80 KB (sums 32 KB lie over K and V) | 96 + 32 + 12                           |
 *   | 256 | 64 + 32 KB = 96 KB (sums lie over K and V)       | 128 + 32 + 16                          |
 * What ptxas makes of it: scripts/report_sm70.sh.
 *
 * Pipeline: no cp.async below sm_80, so registers are the second buffer: V of a tile is loaded while Q K^T runs, K of
 * the next while softmax and P V run; each is stored when its space was read for the last time. Two barriers a tile.
 *
 * Bound: tensor cores (8 cycles an m8n8k4) if shared memory keeps up, 2 cycles an MMA: Q K^T takes 1.5 (1.0 with Q in
 * registers), P V 1.0 [model, tests/cuda/test_layout_sm70.c], without bank conflicts [proven there].
 * Right answers and times on a V100: not run. */
#include "cuda/sm70/fragments_sm70.cuh"

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
        chunk[n] = fa_load_chunk<VECTORS>((const __half *)t.data + fa_token_offset(p, s, t, h, key), d, dim, p.aligned);
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

/* One warp's work on its 32 rows. Names: x column group, b chunk of a group, c block of 16 keys, r block of 16 rows. */
template <int D, bool GENERAL>
struct fa_warp_sm70 {
  enum {
    PARTS = FA_SM70_PARTS(D),
    ROW_BYTES = FA_SM70_ROW_BYTES(D),
    GROUPS = FA_SM70_GROUPS(D),
    BLOCKS = FA_SM70_KEYS(D) / 16,
    KEYS = FA_SM70_KEYS(D),
    Q_HELD = FA_SM70_Q_IN_REGISTERS(D)
  };
  float o[2][GROUPS][2][8];
  float m[4], l[4]; /* row 2 r + (i >> 1 & 1): largest score, not scaled; this lane's part of the sum */
  uint4 q[Q_HELD ? GROUPS : 1][4][2];

  static __device__ __forceinline__ int row0_of(int first) {
    return first + (fa_fresh(threadIdx.x) >> 5) / PARTS * FA_SM70_WARP_ROWS;
  }
  /* Addresses and the lane are made anew where they are used: kept, they would cost O's registers. */
  static __device__ __forceinline__ int lane_of() { return fa_fresh(threadIdx.x) & 31; }
  static __device__ __forceinline__ int part_of() { return PARTS == 2 ? fa_fresh(threadIdx.x) >> 5 & 1 : 0; }
  static __device__ __forceinline__ int q_start() {
    const int tile = (fa_fresh(threadIdx.x) >> 5) / PARTS * FA_SM70_WARP_ROWS * ROW_BYTES;
    return fa_shared_base() + tile + fa_sm70_start(fa_sm70_q_row(lane_of(), 0), part_of(), 0, ROW_BYTES);
  }
  static __device__ __forceinline__ int k_start() {
    return fa_shared_base() + FA_SM70_Q_BYTES(D) + fa_sm70_start(fa_sm70_k_row(lane_of(), 0), part_of(), 0, ROW_BYTES);
  }
  static __device__ __forceinline__ int v_start(int other) {
    const int lane = lane_of();
    return fa_shared_base() + FA_SM70_Q_BYTES(D) + FA_SM70_K_BYTES(D) +
           fa_sm70_start(fa_sm70_v_row(lane, 0, 0, other), part_of(), fa_sm70_v_chunk(lane), ROW_BYTES);
  }

  /* Whether any row of the warp keeps a key of tile j, and whether every row keeps all of them. */
  static __device__ __forceinline__ bool any_key(const fa_cuda_params &p, const fa_sequence &seq, int first, int j) {
    const int row0 = row0_of(first), last = min(row0 + FA_SM70_WARP_ROWS, seq.seqlen_q) - 1;
    int begin, end;
    fa_band_rows(p, seq, row0, last, begin, end);
    return row0 < seq.seqlen_q && j < end && j + KEYS > begin;
  }
  static __device__ __forceinline__ bool every_key(const fa_cuda_params &p, const fa_sequence &seq, int first, int j) {
    const int row0 = row0_of(first), last = min(row0 + FA_SM70_WARP_ROWS, seq.seqlen_q) - 1;
    int begin, end, unused;
    fa_band_row(p, seq, last, begin, unused);
    fa_band_row(p, seq, row0, unused, end);
    return j >= begin && j + KEYS <= end;
  }

  __device__ __forceinline__ void init() {
#pragma unroll
    for (int n = 0; n < 4; n++) m[n] = -CUDART_INF_F, l[n] = 0.0f;
#pragma unroll
    for (int n = 0; n < 2 * GROUPS * 16; n++) o[n / (GROUPS * 16)][n / 16 % GROUPS][n / 8 % 2][n % 8] = 0.0f;
  }

  __device__ __forceinline__ uint4 load_q(int start, int x, int b, int r) const {
    return fa_lds128(fa_sm70_step(start, x, PARTS, b) + 16 * r * ROW_BYTES);
  }
  __device__ __forceinline__ void hold_q() {
    if constexpr (Q_HELD) {
      const int start = q_start();
#pragma unroll
      for (int n = 0; n < GROUPS * 8; n++) q[n / 8][n / 2 % 4][n % 2] = load_q(start, n / 8, n / 2 % 4, n % 2);
    }
  }

  static __device__ __forceinline__ void clear(float (&s)[2][BLOCKS][8]) {
#pragma unroll
    for (int n = 0; n < 2 * BLOCKS * 8; n++) s[n / (BLOCKS * 8)][n / 8 % BLOCKS][n % 8] = 0.0f;
  }
  /* S += Q K^T over column groups [from, to). */
  __device__ __forceinline__ void scores(float (&s)[2][BLOCKS][8], int from, int to) {
    const int q_at = q_start(), k_at = k_start();
#pragma unroll(Q_HELD ? GROUPS : 1) /* rolled: ptxas would load so far ahead that O no longer fits */
    for (int x = from; x < to; x++) {
#pragma unroll(Q_HELD ? 4 : 1)
      for (int b = 0; b < 4; b++) {
        const uint4 a0 = Q_HELD ? q[Q_HELD ? x : 0][b][0] : load_q(q_at, x, b, 0);
        const uint4 a1 = Q_HELD ? q[Q_HELD ? x : 0][b][1] : load_q(q_at, x, b, 1);
#pragma unroll
        for (int c = 0; c < BLOCKS; c++) {
          const uint4 k = fa_lds128(fa_sm70_step(k_at, x, PARTS, b) + 16 * c * ROW_BYTES);
          fa_mma_col(s[0][c], a0.x, a0.y, k.x, k.y);
          fa_mma_col(s[1][c], a1.x, a1.y, k.x, k.y);
          fa_mma_col(s[0][c], a0.z, a0.w, k.z, k.w);
          fa_mma_col(s[1][c], a1.z, a1.w, k.z, k.w);
        }
      }
    }
  }

  /* Partial scores out, and the partner's in: a + b is b + a, so both warps get the same bits. */
  __device__ __forceinline__ void put_partial(const float (&s)[2][BLOCKS][8], int base) const {
    const int lane = lane_of();
#pragma unroll
    for (int n = 0; n < 4 * BLOCKS; n++) {
      const float *v = &s[n / (2 * BLOCKS)][n / 2 % BLOCKS][4 * (n % 2)];
      fa_sts128(base + fa_sm70_sum_offset(threadIdx.x >> 5, n, lane),
                make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])));
    }
  }
  __device__ __forceinline__ void add_partial(float (&s)[2][BLOCKS][8], int base) {
    const int lane = lane_of();
#pragma unroll
    for (int n = 0; n < 4 * BLOCKS; n++) {
      float *v = &s[n / (2 * BLOCKS)][n / 2 % BLOCKS][4 * (n % 2)];
      const uint4 other = fa_lds128(base + fa_sm70_sum_offset(threadIdx.x >> 5 ^ 1, n, lane));
      v[0] += __uint_as_float(other.x), v[1] += __uint_as_float(other.y);
      v[2] += __uint_as_float(other.z), v[3] += __uint_as_float(other.w);
    }
  }

  /* Selects: what is not kept becomes -inf, whatever it was. */
  __device__ __forceinline__ void select(float (&s)[2][BLOCKS][8], const fa_cuda_params &p, const fa_sequence &seq, int h, int first,
                                         int j) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const int lane = lane_of(), i = row0_of(first) + fa_sm70_accumulator_row(lane, n / 2, 2 * (n % 2));
      const int key0 = j + fa_sm70_accumulator_key(lane, 0, 0);
      int begin, end;
      fa_band_row(p, seq, i, begin, end);
      begin -= key0, end -= key0;
#pragma unroll
      for (int c = 0; c < BLOCKS; c++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int at = 2 * (n % 2) + (e & 1) + 2 * (e & 2), key = fa_sm70_accumulator_key(0, c, at); /* from key0 */
          float &score = s[n / 2][c][at];
          if (key < begin || key >= end) score = -CUDART_INF_F;
          else if (GENERAL) score = i < seq.seqlen_q ? fa_apply_rules(p, seq, h, i, key0 + key, score) : -CUDART_INF_F;
        }
      }
    }
  }

  /* P = exp2(c (S - m)); O and l are scaled to the new m. */
  __device__ __forceinline__ void softmax(const float (&s)[2][BLOCKS][8], unsigned (&pairs)[2][BLOCKS][4], float c_log2) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      float top = m[n];
#pragma unroll
      for (int c = 0; c < BLOCKS; c++) {
        const float(&v)[8] = s[n / 2][c];
        top = fmaxf(top, fmaxf(fmaxf(v[2 * (n % 2)], v[2 * (n % 2) + 1]), fmaxf(v[2 * (n % 2) + 4], v[2 * (n % 2) + 5])));
      }
      top = fmaxf(top, __shfl_xor_sync(FA_WHOLE_WARP, top, FA_SM70_EXCHANGE));
      top = fmaxf(top, __shfl_xor_sync(FA_WHOLE_WARP, top, FA_SM70_PARTNER));
      const float reference = (top == -CUDART_INF_F ? 0.0f : top) * c_log2;
      const float shrink = fa_exp2(fmaf(m[n], c_log2, -reference));
      m[n] = top;
      float sum = 0.0f;
#pragma unroll
      for (int c = 0; c < BLOCKS; c++) {
#pragma unroll
        for (int e = n % 2; e < 4; e += 2) {
          const float first = fa_exp2(fmaf(s[n / 2][c][2 * e], c_log2, -reference));
          const float then = fa_exp2(fmaf(s[n / 2][c][2 * e + 1], c_log2, -reference));
          sum += first + then;
          pairs[n / 2][c][e] = fa_pack(first, then);
        }
      }
      l[n] = fmaf(l[n], shrink, sum);
#pragma unroll
      for (int x = 0; x < GROUPS; x++) {
#pragma unroll
        for (int e = 0; e < 8; e++) o[n / 2][x][e >> 2][2 * (n % 2) + (e & 1) + 2 * (e & 2)] *= shrink;
      }
    }
  }

  /* O += P V in k-steps of four keys: those of the own key half, then the other's from the partner lane. */
  __device__ __forceinline__ void values(const unsigned (&pairs)[2][BLOCKS][4], int from, int to) {
    const int own = v_start(0), other = v_start(1);
    const bool second = fa_sm70_keeps_second(lane_of());
#pragma unroll
    for (int c = from; c < to; c++) {
#pragma unroll
      for (int step = 0; step < 2; step++) {
        unsigned a[2][2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const unsigned low = pairs[r][c][2 * step], high = pairs[r][c][2 * step + 1];
          const unsigned kept = second ? high : low;
          const unsigned got = __shfl_xor_sync(FA_WHOLE_WARP, second ? low : high, FA_SM70_EXCHANGE);
          a[r][0] = second ? got : kept;
          a[r][1] = second ? kept : got;
        }
        products(a, own + (16 * c + 8 * step) * ROW_BYTES);
#pragma unroll
        for (int r = 0; r < 4; r++) a[r / 2][r % 2] = __shfl_xor_sync(FA_WHOLE_WARP, a[r / 2][r % 2], FA_SM70_PARTNER);
        products(a, other + (16 * c + 8 * step) * ROW_BYTES);
      }
    }
  }
  __device__ __forceinline__ void products(const unsigned (&a)[2][2], int v_start) {
#pragma unroll
    for (int x = 0; x < GROUPS; x++) {
      const uint4 v = fa_lds128(fa_sm70_step(v_start, x, PARTS, 0));
      fa_mma_row(o[0][x][0], a[0][0], a[0][1], v.x, v.y);
      fa_mma_row(o[1][x][0], a[1][0], a[1][1], v.x, v.y);
      fa_mma_row(o[0][x][1], a[0][0], a[0][1], v.z, v.w);
      fa_mma_row(o[1][x][1], a[1][0], a[1][1], v.z, v.w);
    }
  }

  /* Writes o and lse; rows that are not finite are done again. scale: of m to natural units. */
  __device__ __forceinline__ void finish(const fa_cuda_params &p, const fa_sequence &seq, int h, int first_row,
                                         float scale) {
    const int lane = lane_of(), part = part_of(), row0 = row0_of(first_row);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const int i = row0 + fa_sm70_accumulator_row(lane, n / 2, 2 * (n % 2));
      float sum = l[n];
      sum += __shfl_xor_sync(FA_WHOLE_WARP, sum, FA_SM70_EXCHANGE);
      sum += __shfl_xor_sync(FA_WHOLE_WARP, sum, FA_SM70_PARTNER);
      const bool keyless = m[n] == -CUDART_INF_F && sum == 0.0f; /* all scores NaN: a sum of NaN, not keyless */
      float top = keyless ? -CUDART_INF_F : (m[n] == -CUDART_INF_F ? 0.0f : m[n]) * scale, factor, lse;
      if (p.sinks) {
        const float sink = p.sinks[h], joint = fmaxf(top, sink);
        const float weight = keyless ? 0.0f : expf(top - joint);
        sum = sum * weight + (joint == -CUDART_INF_F ? 0.0f : expf(sink - joint));
        factor = weight / sum;
        lse = joint == -CUDART_INF_F ? joint : joint + logf(sum);
      } else {
        factor = 1.0f / sum;
        lse = keyless ? -CUDART_INF_F : top + logf(sum);
      }
      bool wrong = false;
      __half *out = (__half *)p.o.data + fa_row_offset(p, seq, p.o, h, i);
#pragma unroll
      for (int x = 0; x < GROUPS; x++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int at = 2 * (n % 2) + 2 * (e & 2), d = fa_sm70_accumulator_column(lane, x * PARTS + part, e & 1, at);
          const float first = keyless ? 0.0f : o[n / 2][x][e & 1][at] * factor;
          const float then = keyless ? 0.0f : o[n / 2][x][e & 1][at + 1] * factor;
          if (d < p.head_dim_v) wrong |= !fa_finite(first);
          if (d + 1 < p.head_dim_v) wrong |= !fa_finite(then);
          if (i < seq.seqlen_q && d + 1 < p.head_dim_v && p.aligned_o) {
            *reinterpret_cast<__half2 *>(out + d) = __floats2half2_rn(first, then);
          } else if (i < seq.seqlen_q) {
            if (d < p.head_dim_v) out[d] = __float2half_rn(first);
            if (d + 1 < p.head_dim_v) out[d + 1] = __float2half_rn(then);
          }
        }
      }
      if (p.lse && part == 0 && i < seq.seqlen_q && !(lane & (FA_SM70_EXCHANGE | FA_SM70_PARTNER)))
        p.lse[fa_lse_offset(p, seq, h, i)] = lse;
      unsigned lanes = __ballot_sync(FA_WHOLE_WARP, wrong && i < seq.seqlen_q);
      while (lanes) { /* the lanes of one row differ in the two exchanged bits */
        const int first = __ffs(lanes) - 1;
        for (int e = 0; e < 4; e++)
          lanes &= ~(1u << (first ^ (e & 1 ? FA_SM70_EXCHANGE : 0) ^ (e & 2 ? FA_SM70_PARTNER : 0)));
        __syncwarp();
        fa_exact_row<GROUPS, PARTS>(p, seq, h, row0 + fa_sm70_accumulator_row(first, n / 2, 2 * (n % 2)), part);
      }
    }
  }
};

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
  const float scale = GENERAL || sign == 0.0f ? 1.0f : fabsf(p.scale);
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
      __syncthreads(); /* V is there, K was read */
      if (GENERAL || !w.every_key(p, s, first, j)) w.select(scores, p, s, h, first, j);
      w.softmax(scores, weights, scale * FA_LOG2E);
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
  w.finish(p, fa_sequence_of(p, again.batch), again.head, again.first, scale);
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
