/* Decode on tensor cores: o = softmax(rules(scale q k^T)) v for at most 16 query rows a sequence; 16-bit q with K and V
 * of its type, int8 or fp8.
 *
 * Rows: the group * seqlen_q rows of a KV head are packed into tiles of 16 (parts.cuh). Keys: 16 a step.
 * The point: each lane copies, with cp.async, exactly the 16-byte pieces that it will itself use, to a place in shared
 * memory that belongs to (piece, lane). So there is no layout to swizzle, every access is 16 bytes at lane * 16 (no
 * bank conflicts by construction), and shared memory is only where loads in flight wait without holding registers.
 * What makes it work is that the product's k and n may be numbered freely:
 *   K  lane (g, t) = (lane / 4, lane % 4) needs key g; its piece c is dims c * KD + t * KD/4 .. (KD = 32, or 64 for
 *      8-bit), and Q is permuted alike. 4 lanes read 64 bytes side by side.
 *   V  lane (g, t) needs keys 2t, 2t + 1, 2t + 8, 2t + 9; its piece q is dims q * VD + g * VD/8 .. (VD = 64 or 128), so
 *      column g of product e of piece q is dim q * VD + g * VD/8 + e, and two keys are paired by PRMT. 8 lanes read 128
 *      bytes side by side.
 *
 * Warps of a block share the work in one of three ways:
 *   OWN    each warp has its own keys (every W-th step) and all 16 rows; partial results are joined in shared memory at
 *          the end. No barrier in the loop. For up to 16 rows.
 *   ROWS   each warp has its own 16 rows; W steps of keys are shared. For more than 16 rows: K and V are read once for
 *          16 W rows.
 *   SLICE  each warp has 128 columns of o and repeats q k^T. For head_dim_v above 256 (MLA 576/512).
 * Level 1: a stage of keys in shared memory, 2 to 4 in a ring; level 2: 16 rows x 16 keys.
 *
 * Weights that are not finite: 0 * NaN is NaN in a product, so a row whose o is not finite at the end is done again
 * exactly by rows_exact.cuh, keys not kept left out.
 * Quantised: scores take k_scale; P takes v_scale / (largest so far), which o is rescaled to like to a new maximum, so
 * that P stays in fp16's range whatever the scales.
 *
 * Bound: reading K and V once. In flight: (stages - 1) * stage bytes a block. Registers, shared memory: decode_any.cu.
 * Not run: times. */
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

/* VQ: V pieces of a warp, 64 (16-bit) or 128 columns of o each. */
template <class T, class KV, int VQ, int MODE>
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
  int begin, end; /* keys */
  int rows;       /* of this warp; 0: none */
  const char *k_base, *v_base;
  int page, slot; /* of key lane % 16 of the step to be copied next */

  int row_query[2], row_head[2], row_begin[2], row_end[2];
  int all_begin, all_end; /* keys that every row of this warp keeps */

  float o[VQ * NV][4];
  float max[2], sum[2];
  float v_unit, v_inverse;
  unsigned nan_seen;

  __device__ __forceinline__ fa_decoder(const fa_cuda_params &params, const fa_sequence &sequence, int head)
      : p(params), s(sequence), kv_head(head), lane(threadIdx.x % 32), g(lane / 4), t(lane % 4), warp(threadIdx.x / 32),
        warps(blockDim.x / 32), k_pieces((params.head_dim_qk + KD - 1) / KD),
        v_pieces((params.head_dim_v + VD - 1) / VD) {}

  /* ---------------------------------------------------------------- copying */

  __device__ __forceinline__ void locate(int step) {
    const int j = min(begin + step * 16 + lane % 16, end - 1);
    page = 0, slot = j;
    if (p.page_table) {
      page = p.page_table[s.batch * p.page_table_stride + j / p.page_size];
      page = ::max(0, ::min(page, p.num_pages - 1));
      slot = j % p.page_size;
    }
  }

  __device__ __forceinline__ int64_t token(const fa_cuda_tensor &x, int key) const {
    const int at_page = __shfl_sync(0xffffffffu, page, key), at_slot = __shfl_sync(0xffffffffu, slot, key);
    return at_page * x.stride_batch + at_slot * x.stride_seq;
  }

  __device__ __forceinline__ void copy_k(unsigned to, int step, int first, int stride) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = 8 * n + g;
      const char *from = k_base + token(p.k, key) * BYTES + t * 16;
      const int left = begin + step * 16 + key < end ? p.head_dim_qk * BYTES - t * 16 : 0;
#pragma unroll 4
      for (int c = first; c < k_pieces; c += stride) {
        const int bytes = ::max(0, ::min(16, left - c * 64));
        fa_park(to + (n * k_pieces + c) * 512 + lane * 16, bytes ? from + c * 64 : k_base, bytes);
      }
    }
  }

  __device__ __forceinline__ void copy_v(unsigned to, int step, int first, int stride) const {
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const int key = 8 * (x / 2) + 2 * t + x % 2;
      const char *from = v_base + token(p.v, key) * BYTES + g * 16;
      const int left = begin + step * 16 + key < end ? p.head_dim_v * BYTES - g * 16 : 0;
#pragma unroll 2
      for (int q = first; q < v_pieces; q += stride) {
        const int bytes = ::max(0, ::min(16, left - q * 128));
        fa_park(to + (x * v_pieces + q) * 512 + lane * 16, bytes ? from + q * 128 : v_base, bytes);
      }
    }
  }

  /* Lanes 0 .. 15 the scales of K, the others those of V. */
  __device__ __forceinline__ void copy_scales(unsigned to, int step) const {
    const fa_cuda_tensor &x = lane < 16 ? p.k_scale : p.v_scale;
    const int64_t start = p.page_table ? 0 : p.cu_seqlens_kv ? s.kv_start * x.stride_seq : s.batch * x.stride_batch;
    const float *from = (const float *)x.data + start + kv_head * x.stride_head + page * x.stride_batch + slot * x.stride_seq;
    fa_park_word(to + lane * 4, from, begin + step * 16 + lane % 16 < end);
  }

  /* One step's K, V and scales to `to`; `next` is the step that this warp copies after it. */
  __device__ __forceinline__ void copy(unsigned to, int step, int next) {
    const bool is_shared = MODE == FA_DECODE_SLICE; /* the step's pieces are dealt out to the warps */
    copy_k(to, step, is_shared ? warp : 0, is_shared ? warps : 1);
    copy_v(to + k_pieces * 1024, step, is_shared ? warp : 0, is_shared ? warps : 1);
    if (IS_QUANTISED && (!is_shared || warp == 0)) copy_scales(to + k_pieces * 1024 + v_pieces * 2048, step);
    locate(next);
  }

  /* -------------------------------------------------------------- one step */

  __device__ __forceinline__ void scores(unsigned at, float (&x)[2][4]) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) x[n][e] = 0.0f;
#pragma unroll 4
    for (int c = 0; c < k_pieces; ++c) {
      const uint4 a = fa_fetch(at + c * 512 + lane * 16), b = fa_fetch(at + (k_pieces + c) * 512 + lane * 16);
      const unsigned k0[4] = {a.x, a.y, a.z, a.w}, k1[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < KS; ++i) {
        const uint4 q = fa_fetch(q_at + (c * KS + i) * 512 + lane * 16);
        if constexpr (IS_QUANTISED) {
          unsigned b0, b1;
          fa_widen<T, KV>::word(k0[i], b0, b1);
          fa_multiply<T>(x[0], q, b0, b1);
          fa_widen<T, KV>::word(k1[i], b0, b1);
          fa_multiply<T>(x[1], q, b0, b1);
          if (fa_is_f8<KV>::value) nan_seen |= fa_has_nan(k0[i]) | fa_has_nan(k1[i]);
        } else {
          fa_multiply<T>(x[0], q, k0[2 * i], k0[2 * i + 1]);
          fa_multiply<T>(x[1], q, k1[2 * i], k1[2 * i + 1]);
        }
      }
    }
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
      down[r] = exp2f(max[r] - reference);
      max[r] = most;
      float part = 0.0f;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          x[n][2 * r + e] = exp2f(x[n][2 * r + e] - reference);
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
        const uint4 piece = fa_fetch(at + (i * v_pieces + first + q) * 512 + lane * 16);
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
    const unsigned scales = at + k_pieces * 1024 + v_pieces * 2048;
    float x[2][4];
    scores(at, x);
    weigh(scales, begin + step * 16, x);
    soften(scales, x);
    accumulate(at + k_pieces * 1024, x);
  }

  /* ------------------------------------------------------------- before and after */

  __device__ __forceinline__ void set_rows(int first, int count) {
    rows = ::max(0, ::min(16, count - first));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + g + 8 * r;
      row_query[r] = row / p.group, row_head[r] = kv_head * p.group + row % p.group;
      row_begin[r] = row_end[r] = 0;
      if (row < count) {
        fa_band_row(p, s, row_query[r], row_begin[r], row_end[r]);
        row_end[r] = ::min(row_end[r], end);
      }
    }
    int unused;
    fa_band_row(p, s, ::min(first, count - 1) / p.group, unused, all_end);
    fa_band_row(p, s, ::max(::min(first + 15, count - 1), 0) / p.group, all_begin, unused);
    all_end = ::min(all_end, end);
  }

  /* Four dims of a packed row, as the product's k wants them; zeros outside. */
  __device__ __forceinline__ uint2 q_dims(int row, int count, int dim) const {
    unsigned short x[4] = {0, 0, 0, 0};
    if (row < count && dim < p.head_dim_qk) {
      const unsigned short *from = (const unsigned short *)p.q.data +
                                   fa_row_offset(p, s, p.q, kv_head * p.group + row % p.group, row / p.group) + dim;
      if (dim + 4 <= p.head_dim_qk) return *(const uint2 *)from; /* p.aligned: 8 bytes are */
#pragma unroll
      for (int n = 0; n < 3; ++n)
        if (dim + n < p.head_dim_qk) x[n] = from[n];
    }
    return make_uint2(x[0] | (unsigned)x[1] << 16, x[2] | (unsigned)x[3] << 16);
  }

  /* Tiles of 16 rows from `first` on to shared memory as the product's left operands: [tile, product, lane]. */
  __device__ __forceinline__ void load_q(unsigned to, int first, int tiles, int count) const {
    const int products = k_pieces * KS;
    for (int n = threadIdx.x; n < tiles * products * 32; n += blockDim.x) {
      const int at = n % 32, product = n / 32 % products, row = first + n / 32 / products * 16 + at / 4;
      const int dim = product / KS * KD + at % 4 * (KD / 4) + product % KS * 4;
      const uint2 a = q_dims(row, count, dim), b = q_dims(row + 8, count, dim);
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"r"(to + n * 16), "r"(a.x), "r"(b.x), "r"(a.y),
                   "r"(b.y)
                   : "memory");
    }
  }
};

#endif
