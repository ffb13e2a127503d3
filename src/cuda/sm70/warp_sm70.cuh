/* What a warp of the Volta prefill does with its 32 query rows: scores, selection, softmax, values, results. It knows
 * shared memory through layout_sm70.h alone; barriers and the moving of K and V are prefill_sm70.cu's. */
#ifndef FA_CUDA_WARP_SM70_CUH
#define FA_CUDA_WARP_SM70_CUH

#include "cuda/sm70/fragments_sm70.cuh"

#define FA_SM70_MOST_EXPONENT 12.0f /* weights to 2^12; fp16 ends at 2^16 */
#define FA_SM70_HUGE 2048.0f        /* largest |c m| whose rounding does not show in weights */

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
  float m[4], l[4]; /* row 2 r + (i >> 1 & 1): an older maximum of S, not scaled; this lane's part of the sum */
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

  /* What of a sequence the band takes, made anew: kept, its sums with the window would cost O's registers. With rules
   * it is the other way round. */
  static __device__ __forceinline__ fa_sequence fresh_lengths(const fa_sequence &seq) {
    if (GENERAL) return seq;
    fa_sequence lengths = {};
    lengths.seqlen_q = fa_fresh(seq.seqlen_q), lengths.seqlen_kv = fa_fresh(seq.seqlen_kv);
    return lengths;
  }
  /* Whether any row of the warp keeps a key of tile j, and whether every row keeps all of them. */
  static __device__ __forceinline__ bool any_key(const fa_cuda_params &p, const fa_sequence &seq, int first, int j) {
    const fa_sequence lengths = fresh_lengths(seq);
    const int row0 = row0_of(first), last = min(row0 + FA_SM70_WARP_ROWS, lengths.seqlen_q) - 1;
    int begin, end;
    fa_band_rows(p, lengths, row0, last, begin, end);
    return row0 < lengths.seqlen_q && j < end && j + KEYS > begin;
  }
  static __device__ __forceinline__ bool every_key(const fa_cuda_params &p, const fa_sequence &seq, int first, int j) {
    const fa_sequence lengths = fresh_lengths(seq);
    const int row0 = row0_of(first), last = min(row0 + FA_SM70_WARP_ROWS, lengths.seqlen_q) - 1;
    int begin, end, unused;
    fa_band_row(p, lengths, last, begin, unused);
    fa_band_row(p, lengths, row0, unused, end);
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

  /* The larger of `top` and the lane's scores in row n of this tile. */
  static __device__ __forceinline__ float raise(float top, const float (&s)[2][BLOCKS][8], int n) {
#pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
      const float(&v)[8] = s[n / 2][c];
      top = fmaxf(top, fmaxf(fmaxf(v[2 * (n % 2)], v[2 * (n % 2) + 1]), fmaxf(v[2 * (n % 2) + 4], v[2 * (n % 2) + 5])));
    }
    return top;
  }

  /* P = exp2(c S - c m) with the m there is. False, and nothing done, if a row of the warp has no key yet (m = -inf), a
   * huge m or a score too far above m. NaN in S makes P NaN, as in restart. Warps that share rows decide the same.
   * Sums are of weights before they are rounded, as in mma_fragments.cuh's fp16. */
  __device__ __forceinline__ bool weigh(const float (&s)[2][BLOCKS][8], unsigned (&pairs)[2][BLOCKS][4], float c_log2) {
    float rise = -CUDART_INF_F, size = 0.0f;
#pragma unroll
    for (int n = 0; n < 4; n++) {
      rise = fmaxf(rise, raise(-CUDART_INF_F, s, n) - m[n]);
      size = fmaxf(size, fabsf(m[n]));
    }
    const bool stands = rise * c_log2 <= FA_SM70_MOST_EXPONENT && size * c_log2 <= FA_SM70_HUGE;
    if (__any_sync(FA_WHOLE_WARP, !stands)) return false;
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const float shift = -m[n] * c_log2;
      float sum = l[n];
#pragma unroll
      for (int c = 0; c < BLOCKS; c++) {
#pragma unroll
        for (int e = n % 2; e < 4; e += 2) {
          const float first = fa_exp2(fmaf(s[n / 2][c][2 * e], c_log2, shift));
          const float then = fa_exp2(fmaf(s[n / 2][c][2 * e + 1], c_log2, shift));
          sum += first + then;
          pairs[n / 2][c][e] = fa_pack(first, then);
        }
      }
      l[n] = sum;
    }
    return true;
  }

  /* P = exp2(c (S - m)), m the true maximum; O and l are scaled to it. Not fma(S, c, -m c): where scores are very large,
   * what m c loses to rounding would be a factor of P, the same for all keys of a tile but large enough to leave fp16's
   * range. */
  __device__ __forceinline__ void restart(const float (&s)[2][BLOCKS][8], unsigned (&pairs)[2][BLOCKS][4], float c_log2) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      float top = raise(m[n], s, n);
      top = fmaxf(top, __shfl_xor_sync(FA_WHOLE_WARP, top, FA_SM70_EXCHANGE));
      top = fmaxf(top, __shfl_xor_sync(FA_WHOLE_WARP, top, FA_SM70_PARTNER));
      const float reference = top == -CUDART_INF_F ? 0.0f : top;
      const float shrink = fa_exp2((m[n] - reference) * c_log2);
      m[n] = top;
      float sum = 0.0f;
#pragma unroll
      for (int c = 0; c < BLOCKS; c++) {
#pragma unroll
        for (int e = n % 2; e < 4; e += 2) {
          const float first = fa_exp2((s[n / 2][c][2 * e] - reference) * c_log2);
          const float then = fa_exp2((s[n / 2][c][2 * e + 1] - reference) * c_log2);
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

#endif
