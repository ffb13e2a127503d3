/* Decode on tensor cores: o = softmax(rules(scale q k^T)) v for at most 16 query rows a sequence; 16-bit q with K and V
 * of its type, int8 or fp8.
 *
 * Rows: the group * seqlen_q rows of a KV head are packed into tiles of 16 (parts.cuh). Keys: 16 a step.
 * The point: every lane takes whole 16-byte pieces of K and V from shared memory as its operands, without ldmatrix and
 * transposing, and shared memory is where loads in flight wait without holding registers. 8 lanes copy a line of 128 bytes
 * to one row of 128 bytes: a line that goes to several rows takes L2 a lookup for each, and those were the limit once.
 * What makes it work is that the product's k and n may be numbered freely:
 *   K  lane (g, t) = (lane / 4, lane % 4) needs key g; its piece c is dims c * KD + t * KD/4 .. (KD = 32, or 64 for
 *      8-bit), and Q is permuted alike.
 *   V  lane (g, t) needs keys 2t, 2t + 1, 2t + 8, 2t + 9; its piece q is dims q * VD + g * VD/8 .. (VD = 64 or 128), so
 *      column g of product e of piece q is dim q * VD + g * VD/8 + e, and two keys are paired by PRMT.
 *
 * Warps of a block share the work in one of three ways:
 *   OWN    each warp has its own keys (every W-th step) and all 16 rows; partial results are joined in shared memory at
 *          the end. No barrier in the loop. For up to 16 rows.
 *   ROWS   each warp has its own 16 rows; W steps of keys are shared. For more than 16 rows: K and V are read once for
 *          16 W rows.
 *   SLICE  each warp has 128 columns of o and repeats q k^T. For head_dim_v above 256 (MLA 576/512).
 * Level 1: a stage of keys in shared memory, 2 to 4 in a ring; level 2: 16 rows x 16 keys.
 * Blocks that share a sequence's keys join their results as a cluster, through each other's shared memory
 * (decode_any_block.cuh), from compute capability 9.0 on; before that, or for more than 16, by a launch behind
 * (merge_splits.cuh). Short caches are latency alone: no division, no branch before a load, one barrier less counts there.
 *
 * Weights that are not finite: 0 * NaN is NaN in a product, so a row whose o is not finite at the end is done again
 * exactly by rows_exact.cuh, keys not kept left out.
 * Quantised: scores take k_scale; P takes v_scale / (largest so far), which o is rescaled to like to a new maximum, so
 * that P stays in fp16's range whatever the scales.
 *
 * Bound: reading K and V once. In flight: (stages - 1) * stage bytes a block. Registers, shared memory: decode_any.cu.
 * Times: decode_any.cu. */
#ifndef FA_CUDA_ANY_DECODE_ANY_MMA_CUH
#define FA_CUDA_ANY_DECODE_ANY_MMA_CUH

#include "cuda/any/decode_fragments.cuh"
#include "cuda/any/rows_exact.cuh"
#include "cuda/decode_shape.h"

template <class KV>
struct fa_is_f8 {
  static constexpr bool value = false;
};
template <>
struct fa_is_f8<fa_f8> {
  static constexpr bool value = true;
};

/* VQ: V pieces of a warp, 64 (16-bit) or 128 columns of o each. DIM: both head sizes, in whole lines of 128 bytes; 0: any. */
template <class T, class KV, int VQ, int MODE, int DIM>
struct fa_decoder {
  static constexpr int BYTES = sizeof(KV);
  static constexpr bool IS_QUANTISED = BYTES == 1;
  static constexpr int KD = 64 / BYTES, KS = KD / 16; /* dims of a K piece across 4 lanes, products it feeds */
  static constexpr int VD = 128 / BYTES, NV = VD / 8; /* dims of a V piece across 8 lanes, products it feeds */

  const fa_cuda_params &p;
  const fa_sequence s;
  const int kv_head;
  const int lane, g, t, warp, warps;
  const int k_pieces, v_pieces; /* of all V, SLICE's warps together */
  unsigned q_at; /* this warp's left operands in shared memory */
  static constexpr int HELD = DIM / 16;
  uint4 held[DIM ? HELD : 1]; /* the same in registers */
  int begin, end; /* keys */
  int rows;       /* of this warp; 0: none */
  const char *k_base, *v_base;
  int page, slot; /* paged: of key lane % 16 of the step to be copied next */

  int row_query[2], row_head[2], row_begin[2], row_end[2];
  int all_begin, all_end; /* keys that every row of this warp keeps */

  float o[VQ * NV][4];
  float max[2], sum[2];
  float v_unit, v_inverse;
  unsigned nan_seen;

  __device__ __forceinline__ fa_decoder(const fa_cuda_params &params, const fa_sequence &sequence, int head)
      : p(params), s(sequence), kv_head(head), lane(threadIdx.x % 32), g(lane / 4), t(lane % 4), warp(threadIdx.x / 32),
        warps(blockDim.x / 32), k_pieces(DIM ? DIM / KD : (params.head_dim_qk + KD - 1) / KD),
        v_pieces(DIM ? DIM / VD : (params.head_dim_v + VD - 1) / VD) {}

  /* ---------------------------------------------------------------- copying */

  /* Reads the page table one step ahead of its use. */
  __device__ __forceinline__ void locate(int step) {
    if (!p.page_table) return;
    const int j = min(begin + step * 16 + lane % 16, end - 1);
    const int index = fa_divide(j, p.by_page_size);
    page = p.page_table[s.batch * p.page_table_stride + index];
    page = ::max(0, ::min(page, p.num_pages - 1));
    slot = j - index * p.page_size;
  }
  __device__ __forceinline__ int linear_slot(int step, int key) const { return min(begin + step * 16 + key, end - 1); }

  /* Where the 16 bytes `chunk` of line `line` of a key lie: [line, key, 128 bytes], chunks exchanged within the line so
   * that the 8 lanes of a read, which take 4 chunks of 2 keys of K or 2 chunks of 4 keys of V, find all banks. */
  static __device__ __forceinline__ unsigned k_place(int line, int key, int chunk) {
    return line * 2048 + key * 128 + (chunk ^ (key & 1) * 4) * 16;
  }
  static __device__ __forceinline__ unsigned v_place(int line, int key, int chunk) {
    return line * 2048 + key * 128 + (chunk ^ (key >> 1 & 3) * 2) * 16;
  }
  __device__ __forceinline__ int k_lines() const { return (k_pieces + 1) / 2; }

  /* K and V of keys 4n + lane / 8 of a step, 8 lanes a line of 128 bytes: lines first, first + stride, .. */
  template <bool IS_WHOLE>
  __device__ __forceinline__ void copy_keys(unsigned to, int n, const char *k_from, const char *v_from, bool exists,
                                            int first, int stride) const {
    const int chunk = lane % 8, key = 4 * n + lane / 8;
    const unsigned k_to = to + k_place(0, key, chunk), v_to = to + k_lines() * 2048 + v_place(0, key, chunk);
    const int k_left = exists ? p.head_dim_qk * BYTES - chunk * 16 : 0, v_left = exists ? p.head_dim_v * BYTES - chunk * 16 : 0;
#pragma unroll 2
    for (int line = first; line < k_lines(); line += stride) {
      const int bytes = ::max(0, ::min(16, k_left - line * 128));
      if (IS_WHOLE)
        fa_park_whole(k_to + line * 2048, k_from + line * 128);
      else
        fa_park(k_to + line * 2048, bytes ? k_from + line * 128 : k_base, bytes);
    }
#pragma unroll 2
    for (int line = first; line < v_pieces; line += stride) {
      const int bytes = ::max(0, ::min(16, v_left - line * 128));
      if (IS_WHOLE)
        fa_park_whole(v_to + line * 2048, v_from + line * 128);
      else
        fa_park(v_to + line * 2048, bytes ? v_from + line * 128 : v_base, bytes);
    }
  }

  /* Lanes 0 .. 15 the scales of K, the others those of V. */
  __device__ __forceinline__ void copy_scales(unsigned to, int step) const {
    const fa_cuda_tensor &x = lane < 16 ? p.k_scale : p.v_scale;
    const int64_t start = p.page_table ? 0 : p.cu_seqlens_kv ? s.kv_start * x.stride_seq : s.batch * x.stride_batch;
    const float *from = (const float *)x.data + start + kv_head * x.stride_head +
                        (p.page_table ? page * x.stride_batch + slot * x.stride_seq : linear_slot(step, lane % 16) * x.stride_seq);
    fa_park_word(to + lane * 4, from, begin + step * 16 + lane % 16 < end);
  }

  /* One step's K, V and scales to `to`; `next` is the step that this warp copies after it. */
  __device__ __forceinline__ void copy(unsigned to, int step, int next) {
    const bool is_shared = MODE == FA_DECODE_SLICE; /* the step's pieces are dealt out to the warps */
    const int first = is_shared ? warp : 0, stride = is_shared ? warps : 1, byte = lane % 8 * 16;
    if (IS_QUANTISED && (!is_shared || warp == 0)) copy_scales(to + k_lines() * 2048 + v_pieces * 2048, step);
    if (DIM && !p.page_table && begin + (step + 1) * 16 <= end) {
      const int64_t k_stride = p.k.stride_seq * BYTES, v_stride = p.v.stride_seq * BYTES;
      const char *k_from = k_base + (begin + step * 16 + lane / 8) * k_stride + byte;
      const char *v_from = v_base + (begin + step * 16 + lane / 8) * v_stride + byte;
#pragma unroll
      for (int n = 0; n < 4; ++n, k_from += 4 * k_stride, v_from += 4 * v_stride)
        copy_keys<true>(to, n, k_from, v_from, true, 0, 1);
      return;
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int key = 4 * n + lane / 8;
      const int64_t at_page = p.page_table ? __shfl_sync(0xffffffffu, page, key) : 0;
      const int64_t at_slot = p.page_table ? __shfl_sync(0xffffffffu, slot, key) : linear_slot(step, key);
      copy_keys<false>(to, n, k_base + (at_page * p.k.stride_batch + at_slot * p.k.stride_seq) * BYTES + byte,
                       v_base + (at_page * p.v.stride_batch + at_slot * p.v.stride_seq) * BYTES + byte,
                       begin + step * 16 + key < end, first, stride);
    }
    locate(next);
  }

  /* -------------------------------------------------------------- one step */

  __device__ __forceinline__ void scores(unsigned at, float (&x)[2][4]) {
    float odd[2][4]; /* two chains of products, half as long */
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) x[n][e] = odd[n][e] = 0.0f;
    const auto piece = [&](int c) {
      const unsigned place = at + k_place(c / 2, g, c % 2 * 4 + t); /* 8 keys further on the swizzle is the same */
      const uint4 a = fa_shared_load(place), b = fa_shared_load(place + 8 * 128);
      const unsigned k0[4] = {a.x, a.y, a.z, a.w}, k1[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < KS; ++i) {
        const uint4 q = DIM ? held[DIM ? c * KS + i : 0] : fa_shared_load(q_at + (c * KS + i) * 512 + lane * 16);
        if constexpr (IS_QUANTISED) {
          unsigned b0, b1;
          fa_widen<T, KV>::word(k0[i], b0, b1);
          fa_multiply<T>(i % 2 ? odd[0] : x[0], q, b0, b1);
          fa_widen<T, KV>::word(k1[i], b0, b1);
          fa_multiply<T>(i % 2 ? odd[1] : x[1], q, b0, b1);
          if (fa_is_f8<KV>::value) nan_seen |= fa_has_nan(k0[i]) | fa_has_nan(k1[i]);
        } else {
          fa_multiply<T>(i % 2 ? odd[0] : x[0], q, k0[2 * i], k0[2 * i + 1]);
          fa_multiply<T>(i % 2 ? odd[1] : x[1], q, k1[2 * i], k1[2 * i + 1]);
        }
      }
    };
    if constexpr (DIM != 0) {
#pragma unroll
      for (int c = 0; c < DIM / KD; ++c) piece(c);
    } else {
#pragma unroll 4
      for (int c = 0; c < k_pieces; ++c) piece(c);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) x[n][e] += odd[n][e];
  }

  /* Scores to log2 units with rules and masks. */
  __device__ __forceinline__ void weigh(unsigned scales, int key, float (&x)[2][4]) const {
    if constexpr (IS_QUANTISED) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float2 scale = fa_fetch_floats(scales + (8 * n + 2 * t) * 4);
        x[n][0] *= scale.x, x[n][1] *= scale.y, x[n][2] *= scale.x, x[n][3] *= scale.y;
      }
    }
    const bool is_full = key >= all_begin && key + 16 <= all_end;
    const bool has_rules = fa_has_rules(p);
    if (!has_rules) {
      const float factor = p.scale * FA_LOG2E;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] *= factor;
      if (is_full) return;
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int j = key + 8 * n + 2 * t + e % 2, r = e / 2;
        if (j < row_begin[r] || j >= row_end[r])
          x[n][e] = -CUDART_INF_F;
        else if (has_rules)
          x[n][e] = fa_apply_rules(p, s, row_head[r], row_query[r], j, x[n][e]) * FA_LOG2E;
      }
  }

  /* Scores to weights; running maximum and sum; o to the new maximum (and the new unit of V). */
  __device__ __forceinline__ void soften(unsigned scales, float (&x)[2][4]) {
    float down[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = fmaxf(fmaxf(x[0][2 * r], x[0][2 * r + 1]), fmaxf(x[1][2 * r], x[1][2 * r + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      most = fmaxf(most, max[r]);
      const float reference = most == -CUDART_INF_F ? 0.0f : most;
      down[r] = fa_exp2(max[r] - reference);
      max[r] = most;
      float part = 0.0f;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          x[n][2 * r + e] = fa_exp2(x[n][2 * r + e] - reference);
          part += x[n][2 * r + e];
        }
      sum[r] = sum[r] * down[r] + part;
    }
    if constexpr (IS_QUANTISED) {
      const float2 a = fa_fetch_floats(scales + 64 + 2 * t * 4), b = fa_fetch_floats(scales + 64 + (8 + 2 * t) * 4);
      float unit = fmaxf(fmaxf(fabsf(a.x), fabsf(a.y)), fmaxf(fabsf(b.x), fabsf(b.y)));
      unit = fmaxf(unit, __shfl_xor_sync(0xffffffffu, unit, 1));
      unit = fmaxf(unit, __shfl_xor_sync(0xffffffffu, unit, 2));
      if (unit > v_unit) {
        v_inverse = 1.0f / unit;
        down[0] *= v_unit * v_inverse, down[1] *= v_unit * v_inverse;
        v_unit = unit;
      }
      x[0][0] *= a.x * v_inverse, x[0][1] *= a.y * v_inverse, x[0][2] *= a.x * v_inverse, x[0][3] *= a.y * v_inverse;
      x[1][0] *= b.x * v_inverse, x[1][1] *= b.y * v_inverse, x[1][2] *= b.x * v_inverse, x[1][3] *= b.y * v_inverse;
    }
    if (__any_sync(0xffffffffu, down[0] != 1.0f || down[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < VQ * NV; ++n) o[n][0] *= down[0], o[n][1] *= down[0], o[n][2] *= down[1], o[n][3] *= down[1];
    }
  }

  __device__ __forceinline__ void accumulate(unsigned at, const float (&x)[2][4]) {
    const uint4 weights = make_uint4(fa_pack<T>(x[0][0], x[0][1]), fa_pack<T>(x[0][2], x[0][3]),
                                     fa_pack<T>(x[1][0], x[1][1]), fa_pack<T>(x[1][2], x[1][3]));
    const int first = MODE == FA_DECODE_SLICE ? warp * VQ : 0;
#pragma unroll
    for (int q = 0; q < VQ; ++q) {
      if (first + q >= v_pieces) break;
      unsigned v[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 piece = fa_shared_load(at + v_place(first + q, 8 * (i / 2) + 2 * t + i % 2, g));
        v[i][0] = piece.x, v[i][1] = piece.y, v[i][2] = piece.z, v[i][3] = piece.w;
      }
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if constexpr (IS_QUANTISED) { /* word w of each key: dims 4w .. 4w + 3 */
          if (fa_is_f8<KV>::value)
            nan_seen |= fa_has_nan(v[0][w]) | fa_has_nan(v[1][w]) | fa_has_nan(v[2][w]) | fa_has_nan(v[3][w]);
          unsigned low[4], high[4]; /* pairs of keys, of dim 4w + i */
          fa_widen<T, KV>::word(__byte_perm(v[0][w], v[1][w], 0x5140), low[0], low[1]);
          fa_widen<T, KV>::word(__byte_perm(v[0][w], v[1][w], 0x7362), low[2], low[3]);
          fa_widen<T, KV>::word(__byte_perm(v[2][w], v[3][w], 0x5140), high[0], high[1]);
          fa_widen<T, KV>::word(__byte_perm(v[2][w], v[3][w], 0x7362), high[2], high[3]);
#pragma unroll
          for (int i = 0; i < 4; ++i) fa_multiply<T>(o[q * NV + 4 * w + i], weights, low[i], high[i]);
        } else {
          fa_multiply<T>(o[q * NV + 2 * w], weights, __byte_perm(v[0][w], v[1][w], 0x5410),
                         __byte_perm(v[2][w], v[3][w], 0x5410));
          fa_multiply<T>(o[q * NV + 2 * w + 1], weights, __byte_perm(v[0][w], v[1][w], 0x7632),
                         __byte_perm(v[2][w], v[3][w], 0x7632));
        }
      }
    }
  }

  __device__ __forceinline__ void work(unsigned at, int step) {
    const unsigned scales = at + k_lines() * 2048 + v_pieces * 2048;
    float x[2][4];
    scores(at, x);
    weigh(scales, begin + step * 16, x);
    soften(scales, x);
    accumulate(at + k_lines() * 2048, x);
  }

  /* ------------------------------------------------------------- before and after */

  __device__ __forceinline__ void set_rows(int first, int count) {
    rows = ::max(0, ::min(16, count - first));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + g + 8 * r;
      fa_unpack_row(p, kv_head, row, row_query[r], row_head[r]);
      row_begin[r] = row_end[r] = 0;
      if (row < count) {
        fa_band_row(p, s, row_query[r], row_begin[r], row_end[r]);
        row_end[r] = ::min(row_end[r], end);
      }
    }
    int unused;
    fa_band_row(p, s, fa_divide(::min(first, count - 1), p.by_group), unused, all_end);
    fa_band_row(p, s, fa_divide(::min(first + 15, count - 1), p.by_group), all_begin, unused);
    all_end = ::min(all_end, end);
  }

  /* Four dims of a row, as the product's k wants them; zeros outside. */
  __device__ __forceinline__ uint2 q_dims(const unsigned short *row, int dim) const {
    if (dim + 4 <= p.head_dim_qk) return *(const uint2 *)(row + dim); /* p.aligned: 8 bytes are */
    unsigned short x[3] = {0, 0, 0};
#pragma unroll
    for (int n = 0; n < 3; ++n)
      if (dim + n < p.head_dim_qk) x[n] = row[dim + n];
    return make_uint2(x[0] | (unsigned)x[1] << 16, x[2]);
  }

  /* The rows of set_rows as the product's left operands: to registers, or to shared memory as [product, lane] at q_at,
   * products first, first + stride, .. */
  __device__ __forceinline__ void load_q(int first, int stride) {
    const bool exists[2] = {g < rows, g + 8 < rows};
    const unsigned short *row[2]; /* one that exists, in any case: no branch waits for what it loads */
#pragma unroll
    for (int r = 0; r < 2; ++r)
      row[r] = (const unsigned short *)p.q.data +
               fa_row_offset(p, s, p.q, exists[r] ? row_head[r] : kv_head * p.group, exists[r] ? row_query[r] : 0);
    const auto dim_of = [&](int product) { return product / KS * KD + t * (KD / 4) + product % KS * 4; };
    const auto operand = [&](uint2 low, uint2 high) {
      return make_uint4(exists[0] ? low.x : 0, exists[1] ? high.x : 0, exists[0] ? low.y : 0, exists[1] ? high.y : 0);
    };
    if constexpr (DIM != 0) {
      uint2 x[2][HELD];
#pragma unroll
      for (int n = 0; n < 2 * HELD; ++n) x[n / HELD][n % HELD] = *(const uint2 *)(row[n / HELD] + dim_of(n % HELD));
#pragma unroll
      for (int n = 0; n < HELD; ++n) held[n] = operand(x[0][n], x[1][n]);
    } else {
      for (int n = first; n < k_pieces * KS; n += stride)
        fa_shared_store(q_at + n * 512 + lane * 16, operand(q_dims(row[0], dim_of(n)), q_dims(row[1], dim_of(n))));
    }
  }
};

#endif
