/* One block of the decode on tensor cores: the ring of stages, joining the warps, and joining the blocks of a cluster. See
 * decode_any_mma.cuh. */
#ifndef FA_CUDA_ANY_DECODE_ANY_BLOCK_CUH
#define FA_CUDA_ANY_DECODE_ANY_BLOCK_CUH

#include "cuda/any/cluster.cuh"
#include "cuda/any/decode_any_mma.cuh"
#include "cuda/any/grid_order.cuh"

static_assert(FA_EXACT_PIECE == FA_DECODE_PIECE, "a piece that is not finite is done again as a whole");
static_assert(FA_DECODE_MAILBOX_BYTES == FA_MAILBOX_BYTES, "the letters begin behind the mailbox");

/* The keys of a block on their way through stages in shared memory. `start` sends for the first of them and returns; `run`
 * works through all, and what it finds stays in the decoder. */
template <class D, int MODE>
struct fa_ring {
  unsigned ring, step_bytes, stage_bytes;
  int in_stage, steps; /* steps of a stage, of the block */
  int mine, later;     /* which step of a stage this warp copies; the one it copies next */

  __device__ __forceinline__ void start(D &d, unsigned shared) {
    const unsigned q_bytes = D::HELD ? 0 : d.k_pieces * D::KS * 512;
    d.q_at = shared + (MODE == FA_DECODE_ROWS_MODE ? d.warp * q_bytes : 0);
    ring = shared + (MODE == FA_DECODE_ROWS_MODE ? d.warps * q_bytes : q_bytes);
    step_bytes = (d.k_lines() + d.v_pieces) * 2048 + (D::IS_QUANTISED ? 128 : 0);
    in_stage = MODE == FA_DECODE_SLICE ? 1 : d.warps;
    stage_bytes = in_stage * step_bytes;
    steps = (d.end - d.begin + FA_DECODE_STEP - 1) / FA_DECODE_STEP;
    mine = later = MODE == FA_DECODE_SLICE ? 0 : d.warp;
    if (steps > 0) d.locate(mine);
    for (int n = 0; n < d.p.stages - 1; ++n) copy_next(d, n);
  }

  __device__ __forceinline__ void copy_next(D &d, int slot) {
    if (later < steps) d.copy(ring + slot * stage_bytes + mine * step_bytes, later, later + in_stage);
    fa_park_commit();
    later += in_stage;
  }

  __device__ __forceinline__ void run(D &d) {
    const int stages = d.p.stages;
    int slot = 0, free_slot = stages - 1;
    for (int step = 0; step < steps; step += in_stage) {
      fa_park_wait(stages - 2);
      /* Everybody's copies of this round are there, and the slot of the round before is read out. OWN: a warp reads only
       * what its lanes copied. */
      if (MODE == FA_DECODE_OWN)
        __syncwarp();
      else
        __syncthreads();
      copy_next(d, free_slot);
      const unsigned at = ring + slot * stage_bytes;
      if (MODE == FA_DECODE_OWN) {
        if (step + mine < steps) d.work(at + mine * step_bytes, step + mine);
      } else if (MODE == FA_DECODE_ROWS_MODE) {
        if (d.rows > 0)
          for (int n = 0; n < in_stage && step + n < steps; ++n) d.work(at + n * step_bytes, step + n);
      } else {
        d.work(at, step);
      }
      free_slot = slot;
      slot = slot + 1 == stages ? 0 : slot + 1;
    }
  }
};

/* Accumulators of this warp's rows to shared memory: o as [16, stride] of this warp (SLICE: its columns of the one). */
template <class D, int VQ, int MODE>
FA_DEVICE void fa_decode_spill(D &d, float *head, float *o, int stride) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = d.sum[r];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (d.t == 0) head[d.g + 8 * r] = d.max[r], head[16 + d.g + 8 * r] = sum;
  }
  const float unit = D::IS_QUANTISED ? d.v_unit : 1.0f;
  const int first = MODE == FA_DECODE_SLICE ? d.warp * VQ : 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) { /* accumulator c: row g + 8 (c / 2), column 2t + c % 2 */
    if (d.g + 8 * r >= d.rows) continue;
#pragma unroll
    for (int q = 0; q < VQ; ++q) {
      if (first + q >= d.v_pieces) break;
#pragma unroll
      for (int e = 0; e < D::NV; e += 4)
#pragma unroll
        for (int c = 2 * r; c < 2 * r + 2; ++c) {
          const int n = q * D::NV + e, column = (first + q) * D::VD + (2 * d.t + c % 2) * D::NV + e;
          *(float4 *)(o + (d.g + 8 * r) * stride + column) =
              make_float4(d.o[n][c] * unit, d.o[n + 1][c] * unit, d.o[n + 2][c] * unit, d.o[n + 3][c] * unit);
        }
    }
  }
}

/* ------------------------------------------------------------------ joining
 * A row's results lie in parts: of the warps of a block, then of the blocks of a cluster. A warp joins FA_DECODE_PIECE
 * columns of a row at a time, four a lane; lanes n and n + 16 know part n's maximum (log2 units) and sum. */

struct fa_joined {
  float max, sum; /* of the row, in every lane */
  float weight;   /* of this lane's part */
};

FA_DEVICE fa_joined fa_join_heads(float max, float sum) {
  fa_joined j = {max, 0.0f, 0.0f};
#pragma unroll
  for (int across = FA_DECODE_MOST_PARTS / 2; across; across /= 2)
    j.max = fmaxf(j.max, __shfl_xor_sync(0xffffffffu, j.max, across));
  j.weight = fa_exp2(max - (j.max == -CUDART_INF_F ? 0.0f : j.max));
  j.sum = sum * j.weight;
#pragma unroll
  for (int across = FA_DECODE_MOST_PARTS / 2; across; across /= 2)
    j.sum += __shfl_xor_sync(0xffffffffu, j.sum, across);
  return j;
}

/* What the parts have in this lane's columns, `stride` bytes apart, joined; max and sum are those of this lane's part. All
 * lanes together, straight on: eight loads are under way at a time, and the first of them before the weights are known.
 * Beyond the parts comes the last one again, with a weight of 0. */
FA_DEVICE float4 fa_join_parts(fa_joined &j, float max, float sum, unsigned from, int stride, int parts) {
  float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  for (int first = 0; first < parts; first += 8) {
    uint4 x[8];
    float weight[8];
#pragma unroll
    for (int n = 0; n < 8; ++n) x[n] = fa_shared_load(from + min(first + n, parts - 1) * stride);
    if (first == 0) j = fa_join_heads(max, sum);
#pragma unroll
    for (int n = 0; n < 8; ++n) weight[n] = __shfl_sync(0xffffffffu, j.weight, first + n);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      o.x = fmaf(__uint_as_float(x[n].x), weight[n], o.x), o.y = fmaf(__uint_as_float(x[n].y), weight[n], o.y);
      o.z = fmaf(__uint_as_float(x[n].z), weight[n], o.z), o.w = fmaf(__uint_as_float(x[n].w), weight[n], o.w);
    }
  }
  return o;
}

template <class T>
FA_DEVICE void fa_store_four(T *to, const float (&x)[4], int count, bool is_aligned) {
  if (is_aligned && count >= 4) {
    *(uint2 *)to = make_uint2(fa_pack<T>(x[0], x[1]), fa_pack<T>(x[2], x[3]));
    return;
  }
#pragma unroll
  for (int e = 0; e < 4; ++e)
    if (e < count) fa_store(to + e, x[e]);
}

/* Where a piece of a row ends: its query and head, and this lane's first element of o, or of split_o for a part. */
struct fa_piece {
  int h, i, piece, part;
  int64_t at;

  __device__ __forceinline__ fa_piece(const fa_cuda_params &p, const fa_sequence &s, int kv_head, int row, int which, int of_part)
      : piece(which), part(of_part) {
    fa_unpack_row(p, kv_head, row, i, h);
    at = first() + (part == FA_WHOLE ? fa_row_offset(p, s, p.o, h, i) : fa_part_row(p, s, part, h, i) * p.head_dim_v);
  }
  __device__ __forceinline__ int first() const { return piece * FA_DECODE_PIECE + threadIdx.x % 32 * 4; }
};

/* The end of a piece. What is not finite is done again over keys [begin, end). */
template <class T>
FA_DEVICE void fa_finish_piece(const fa_cuda_params &p, const fa_sequence &s, const fa_piece &to, const fa_joined &j, float4 o,
                               bool is_bad, int begin, int end) {
  const int count = p.head_dim_v - to.first();
  float lse;
  const float *sink = to.part == FA_WHOLE && p.sinks ? p.sinks + to.h : nullptr;
  const float factor = fa_finish_row(j.max * FA_LN2, j.sum, sink, lse);
  const float x[4] = {o.x * factor, o.y * factor, o.z * factor, o.w * factor};
#pragma unroll
  for (int e = 0; e < 4; ++e) is_bad |= e < count && !(fabsf(x[e]) <= CUDART_MAX_NORMAL_F);
  if (__any_sync(0xffffffffu, is_bad)) {
    fa_exact_row(p, s.batch, to.part, to.h, to.i, begin, end, to.piece);
    return;
  }
  if (to.part == FA_WHOLE) {
    fa_store_four((T *)p.o.data + to.at, x, count, p.aligned_o);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (e < count) p.split_o[to.at + e] = x[e];
  }
  if (to.first() == 0) fa_write_end(p, s, to.part, to.h, to.i, j.max * FA_LN2, j.sum, lse);
}

/* How the blocks of a cluster, a part of the keys each, tell each other what they found; see FA_DECODE_EXCHANGE_BYTES. */
struct fa_exchange {
  unsigned mailbox; /* the same address in every block */
  int part, parts;  /* this block's, of all */
  fa_divisor by_parts;

  __device__ __forceinline__ unsigned letter(int slot, int of_part) const {
    return mailbox + FA_DECODE_LETTER_AT(slot, parts, of_part);
  }

  /* By all threads; fa_cluster_wait before the first of `pieces` is sent. */
  __device__ __forceinline__ void open(int pieces) const {
    const int mine = fa_divide(FA_DECODE_SLOTS_BY_PARTS(pieces, parts, part), by_parts);
    if (threadIdx.x == 0) fa_mailbox_open(mailbox, mine * parts * FA_DECODE_LETTER_BYTES);
    __syncwarp();
    fa_cluster_arrive();
  }

  /* By a warp. */
  __device__ __forceinline__ void send(int piece, const fa_joined &j, bool is_bad, float4 o) const {
    const int lane = threadIdx.x % 32, slot = fa_divide(piece, by_parts), owner = piece - slot * parts;
    const unsigned to = fa_cluster_address(letter(slot, part), owner), counter = fa_cluster_address(mailbox, owner);
    if (lane == 0) fa_cluster_send(to, counter, make_float4(j.max, j.sum, is_bad ? 1.0f : 0.0f, 0.0f));
    fa_cluster_send(to + 16 + lane * 16, counter, o);
  }

  /* One of this block's pieces, joined, by a warp; waits for all that is sent to this block. */
  __device__ __forceinline__ float4 receive(int piece, fa_joined &j, bool &is_bad) const {
    const int lane = threadIdx.x % 32, slot = fa_divide(piece, by_parts), lane_part = lane % FA_DECODE_MOST_PARTS;
    fa_mailbox_wait(mailbox);
    uint4 head = make_uint4(__float_as_uint(-CUDART_INF_F), 0, 0, 0);
    if (lane_part < parts) head = fa_shared_load(letter(slot, lane_part));
    is_bad = head.z != 0;
    return fa_join_parts(j, __uint_as_float(head.x), __uint_as_float(head.y), letter(slot, 0) + 16 + lane * 16,
                         FA_DECODE_LETTER_BYTES, parts);
  }
};

template <class T, class KV, int VQ, int MODE, int DIM>
FA_DEVICE void fa_decode_block(const fa_cuda_params &p) {
#if __CUDA_ARCH__ >= 750
  typedef fa_decoder<T, KV, VQ, MODE, DIM> D;
  extern __shared__ __align__(128) unsigned char shared[];
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int block_rows = MODE == FA_DECODE_ROWS_MODE ? 16 * warps : 16;
  if (p.cu_seqlens_q || p.cu_seqlens_kv || p.seqlens_kv) fa_wait_for_kernels_before(); /* they may write them */
  const fa_item item = fa_item_of(p);
  const fa_sequence s = fa_sequence_of(p, item.batch);
  const int count = p.group * s.seqlen_q, first_row = item.tile * block_rows;
  if (first_row >= count) {
    fa_wait_for_kernels_before();
    return;
  }
  const int rows = min(block_rows, count - first_row);

  D d(p, s, item.kv_head);
  int low, high;
  fa_part_keys(p, s, item.part, d.begin, d.end);
  fa_band_rows(p, s, fa_divide(first_row, p.by_group), fa_divide(first_row + rows - 1, p.by_group), low, high);
  d.begin = max(d.begin, low), d.end = max(min(d.end, high), d.begin);
  /* The parts are joined by the blocks of a cluster, or by a launch behind this one (merge_splits.cuh). */
  const bool is_cluster = fa_cluster_blocks() > 1;
  const int part = p.splits == 1 || is_cluster ? FA_WHOLE : item.part;
  const bool is_one_piece = MODE != FA_DECODE_SLICE && VQ * D::VD <= FA_DECODE_PIECE;
  const int row_pieces = is_one_piece ? 1 : FA_DECODE_PIECES(p.head_dim_v), pieces = rows * row_pieces;
  const fa_exchange exchange = {fa_shared_address(shared), item.part, p.splits, p.by_splits};
  const unsigned exchange_bytes =
      is_cluster ? FA_DECODE_EXCHANGE_BYTES(p.splits, min(block_rows, p.group * p.max_seqlen_q), p.head_dim_v) : 0;
  const bool paged = p.page_table, ragged = p.cu_seqlens_kv;
  d.k_base = (const char *)p.k.data + (item.kv_head * p.k.stride_head + (paged    ? 0
                                                                         : ragged ? s.kv_start * p.k.stride_seq
                                                                                  : s.batch * p.k.stride_batch)) * D::BYTES;
  d.v_base = (const char *)p.v.data + (item.kv_head * p.v.stride_head + (paged    ? 0
                                                                         : ragged ? s.kv_start * p.v.stride_seq
                                                                                  : s.batch * p.v.stride_batch)) * D::BYTES;
  fa_wait_for_kernels_before();
  fa_let_next_begin();
  if (d.begin == d.end && part != FA_WHOLE) { /* nothing here; the merge reads the maximum first */
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
      int h, i;
      fa_unpack_row(p, item.kv_head, first_row + r, i, h);
      fa_write_end(p, s, part, h, i, -CUDART_INF_F, 0.0f, -CUDART_INF_F);
    }
    return;
  }
  fa_ring<D, MODE> keys;
  keys.start(d, exchange.mailbox + exchange_bytes);

  /* While the first keys fly. */
  if (is_cluster) exchange.open(pieces);
  d.set_rows(first_row + (MODE == FA_DECODE_ROWS_MODE ? 16 * warp : 0), count);
  if (MODE == FA_DECODE_ROWS_MODE)
    d.load_q(0, 1);
  else
    d.load_q(warp, warps);
  d.max[0] = d.max[1] = -CUDART_INF_F;
  d.sum[0] = d.sum[1] = d.v_unit = d.v_inverse = 0.0f;
  d.nan_seen = 0;
#pragma unroll
  for (int n = 0; n < VQ * D::NV; ++n) d.o[n][0] = d.o[n][1] = d.o[n][2] = d.o[n][3] = 0.0f;
  if (!D::HELD) __syncthreads();
  keys.run(d);

  /* The ring and q are done with; their place holds what the warps found. */
  const bool all_bad = __syncthreads_or(d.nan_seen != 0);
  const int columns = d.v_pieces * D::VD, stride = columns + FA_DECODE_JOIN_PAD;
  float *heads = (float *)(shared + exchange_bytes), *o = heads + warps * FA_DECODE_JOIN_HEAD;
  fa_decode_spill<D, VQ, MODE>(d, heads + warp * FA_DECODE_JOIN_HEAD, o + (MODE == FA_DECODE_SLICE ? 0 : warp * 16 * stride),
                               stride);
  __syncthreads();
  if (is_cluster) fa_cluster_wait();

  /* Row r of the block: of all warps (OWN), of warp r / 16 (ROWS), of warp 0 (SLICE: all have the same). */
  const int parts = MODE == FA_DECODE_OWN ? warps : 1, lane_part = lane % FA_DECODE_MOST_PARTS;
  for (int n = warp; n < pieces; n += warps) {
    const int r = n / row_pieces, piece = n - r * row_pieces, column = min(piece * FA_DECODE_PIECE + lane * 4, columns - 4);
    const float *head = heads + (MODE == FA_DECODE_OWN ? lane_part : r / 16) * FA_DECODE_JOIN_HEAD + r % 16;
    const bool has_part = lane_part < parts;
    fa_joined j;
    const float4 sum = fa_join_parts(j, has_part ? head[0] : -CUDART_INF_F, has_part ? head[16] : 0.0f,
                                     fa_shared_address(o + r * stride + column), 16 * stride * 4, parts);
    if (is_cluster) {
      exchange.send(n, j, all_bad, sum);
    } else {
      const fa_piece to(p, s, item.kv_head, first_row + r, piece, part);
      fa_finish_piece<T>(p, s, to, j, sum, all_bad, d.begin, d.end);
    }
  }
  if (!is_cluster) return;

  for (int n = exchange.part + warp * exchange.parts; n < pieces; n += warps * exchange.parts) {
    const int r = n / row_pieces;
    const fa_piece to(p, s, item.kv_head, first_row + r, n - r * row_pieces, FA_WHOLE);
    bool is_bad;
    fa_joined j;
    const float4 sum = exchange.receive(n, j, is_bad);
    fa_finish_piece<T>(p, s, to, j, sum, is_bad, 0, s.seqlen_kv);
  }
#endif
}

#define FA_DECODE_KERNEL(name, T, KV, VQ, MODE, DIM)                                                        \
  extern "C" __global__ void __launch_bounds__(32 * FA_DECODE_MOST_WARPS, 1)          \
      name(const __grid_constant__ fa_cuda_params p) {                                                      \
    fa_decode_block<T, KV, VQ, MODE, DIM>(p);                                                               \
  }

#endif
