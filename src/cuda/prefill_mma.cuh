/* Prefill on mma.sync, sm_75 and sm_80: o = softmax(rules(scale q k^T)) v, FlashAttention-2 forward with a lazy maximum.
 *
 * Level one: a block takes R = row tiles x 16 x warps query rows of one head and walks tiles of keys through a ring in
 * shared memory: K of two tiles, V of three. Level two: a warp's rows, in steps of 16 or 32 keys. Q, O (fp32), S and P stay
 * in registers; K and V come by ldmatrix. Layout in shared memory: prefill_load.cuh (no bank conflicts, no padding).
 *
 * A step is straight-line code: S = Q K of this step, O += P V of the step before, P = exp2(S * scale - m) of this step;
 * the exponentials of one step run beside the products of the other. m is not the maximum but an older one: the step asks
 * only, with one vote a warp, whether any weight has reached 4096. No maximum, no shuffle and no rescaling of O otherwise.
 * If one has, the step's scores are computed again and m, O and the sums move (`restart`); so does the first step, and
 * every step where scores are huge.
 * Weights stay below 4096 = 2^12 (fp16 ends at 2^16), sums are fp32, so nothing is lost against the true maximum.
 *
 * The tiling-mask's three cases: steps outside a warp's band are skipped, steps inside have no masking code, steps on an
 * edge select. Score rules (softcap, ALiBi, bias, mask) are a second instantiation: every step restarts.
 *
 * Order of blocks: KV heads in sections whose K and V fit L2 (16 MB), last rows (causal: most work) first inside.
 *
 * A weight of 0 against NaN or infinity in V would spoil rows that do not keep the key: rows whose sums of O are not
 * finite are computed again exactly (any/rows_exact.cuh). */
#ifndef FA_CUDA_PREFILL_MMA_CUH
#define FA_CUDA_PREFILL_MMA_CUH

#include "cuda/any/rows_exact.cuh"
#include "cuda/mma_fragments.cuh"
#include "cuda/prefill_load.cuh"
#include "cuda/prefill_place.cuh"
#include "cuda/prefill_shapes.h"

#define FA_FAR 3.402823466e38f /* -m before any key: the first finite score overflows and restarts */
/* |m| beyond which m, rounded, and scores, fused into the exponent, differ by a factor that shows (2^11 units in the last
 * place): every step restarts then, with scores rounded as m was. */
#define FA_HUGE 2048.0f

template <class E, bool ASYNC, bool RULES, int DQ, int DV, int MT, int WARPS, int TILE, int NG> struct fa_prefill {
  static constexpr int THREADS = WARPS * 32, WARP_ROWS = MT * 16, ROWS = WARPS * WARP_ROWS, STEP = NG * 16;
  static constexpr int K_BYTES = TILE * DQ * 2, V_BYTES = TILE * DV * 2;
  static constexpr int SHARED = FA_PREFILL_SHARED_BYTES(DQ, DV, MT, WARPS, TILE);
  static constexpr int Q_AT = SHARED - FA_PREFILL_Q_BYTES(DQ, MT, WARPS), V_AT = 2 * K_BYTES;
  static constexpr int PLACE_AT = FA_PREFILL_RING_BYTES(DQ, DV, TILE);
  static constexpr int BANDS_AT = PLACE_AT + 128;
  static constexpr bool K_BESIDE_Q = Q_AT >= K_BYTES, V_BESIDE_Q = Q_AT >= V_AT + V_BYTES;
  /* Without cp.async the next tile waits in registers, if there are any left. */
  static constexpr bool STAGED = !ASYNC && DV <= 128;
  static constexpr int ROW_ENDS = MT * 2; /* rows of a lane: row tile n / 2, row g + 8 (n % 2) */
  static_assert(TILE % STEP == 0 && DV <= DQ, "steps fill a tile; o is staged where q was");
  static_assert(sizeof(fa_place) <= 128 && 128 + WARPS * sizeof(fa_warp_band) <= FA_PREFILL_PLACE_BYTES, "behind the ring");
  using k_tile = fa_tile<DQ, TILE, THREADS>;
  using v_tile = fa_tile<DV, TILE, THREADS>;
  using q_tile = fa_tile<DQ, ROWS, THREADS>;
  using scores = float[MT][NG * 2][4];
  using weights = unsigned[MT][NG][4];

  const fa_cuda_params &p;
  const char *const base; /* of shared memory */
  const volatile fa_place &place; /* volatile: read again rather than kept */
  float scale;             /* times log2(e) */
  unsigned q[MT][DQ / 16][4];
  float o[MT][DV / 8][4];
  float shift[ROW_ENDS], sum[ROW_ENDS]; /* shift: -m in units of log2 */
  bool is_huge; /* some m of the warp */

  FA_MEMBER fa_prefill(const fa_cuda_params &params, const char *shared)
      : p(params), base(shared), place(*(const volatile fa_place *)(shared + PLACE_AT)) {}

  FA_MEMBER fa_sequence sequence() const {
    fa_sequence s;
    s.seqlen_q = place.s.seqlen_q;
    s.seqlen_kv = place.s.seqlen_kv;
    s.q_start = place.s.q_start;
    s.kv_start = place.s.kv_start;
    s.batch = place.s.batch;
    return s;
  }
  FA_MEMBER int warp_row() const { return place.row + (int)(fa_thread() / 32) * WARP_ROWS; }
  /* A lane's part of an ldmatrix address. The four matrices are rows 0-7 and 8-15 of a chunk, then of the next: A
   * operands, and B operands read transposed (V). K's are rows 0-7 of both chunks, then rows 8-15: mma wants the
   * registers of one B operand side by side. */
  template <int DP> static FA_MEMBER unsigned lane_part() {
    const unsigned lane = fa_thread() % 32;
    return fa_chunk_at<DP>(lane % 16, lane / 16);
  }
  static FA_MEMBER unsigned k_lane_part() {
    const unsigned lane = fa_thread() % 32;
    return fa_chunk_at<DQ>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  }

  /* Address of 16-byte chunk 2n + (lane's half) in rows whose lane part is `lane_at`: the swizzle is an exclusive or. */
  template <int DP> static FA_MEMBER unsigned column(unsigned lane_at, int n) {
    constexpr int mask = DP % 64 == 0 ? 127 : 63;
    return (lane_at ^ (n * 32 & mask)) + (n * 32 & ~mask);
  }

  FA_MEMBER void multiply_qk(scores &x, unsigned k_at) const {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int n = 0; n < NG * 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[m][n][e] = 0.0f;
#pragma unroll
    for (int d = 0; d < DQ / 16; ++d)
#pragma unroll
      for (int n = 0; n < NG; ++n) {
        unsigned b[4];
        fa_load_matrices(b, column<DQ>(k_at + n * 16 * DQ * 2, d));
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          E::mma(x[m][2 * n], q[m][d], b[0], b[1]);
          E::mma(x[m][2 * n + 1], q[m][d], b[2], b[3]);
        }
      }
  }

  static constexpr int PV_PARTS = NG * DV / 16;
  /* Part i of O += P V: 16 keys by 16 columns. */
  FA_MEMBER void multiply_pv_part(const weights &w, unsigned v_at, int i) {
    const int n = i / (DV / 16), d = i % (DV / 16);
    unsigned b[4];
    fa_load_matrices_transposed(b, column<DV>(v_at + n * 16 * DV * 2, d));
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      E::mma(o[m][2 * d], w[m][n], b[0], b[1]);
      E::mma(o[m][2 * d + 1], w[m][n], b[2], b[3]);
    }
  }
  FA_MEMBER void multiply_pv(const weights &w, unsigned v_at) {
#pragma unroll
    for (int i = 0; i < PV_PARTS; ++i) multiply_pv_part(w, v_at, i);
  }

  /* Rules, then -inf (of the sign that scale makes -inf) outside the band. */
  FA_MEMBER void select(scores &x, unsigned k_at, unsigned n_tile) const {
    const fa_sequence s = sequence();
    /* The step's first key, from where its K lies: one register less through the loop. */
    const unsigned in_tile = k_at - fa_shared_address(base) - n_tile % 2 * K_BYTES;
    const int key = place.first_key + (int)(n_tile * TILE + in_tile / (STEP * DQ * 2) * STEP), lane = fa_thread() & 31;
    const float nothing = RULES || scale > 0.0f ? -CUDART_INF_F : CUDART_INF_F;
#pragma unroll
    for (int r = 0; r < ROW_ENDS; ++r) {
      const int row = warp_row() + r / 2 * 16 + r % 2 * 8 + lane / 4;
      int begin, end;
      fa_band_row(p, s, row, begin, end);
      if (RULES && row >= s.seqlen_q) end = begin;
      const unsigned kept = (unsigned)max(0, end - begin);
      const int first = key + lane % 4 * 2 - begin;
#pragma unroll
      for (int n = 0; n < NG * 2; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float &score = x[r / 2][n][r % 2 * 2 + e];
          const bool keep = (unsigned)(first + n * 8 + e) < kept;
          if (RULES)
            score = keep ? fa_apply_rules(p, s, place.head, row, begin + first + n * 8 + e, score) * FA_LOG2E : nothing;
          else
            score = keep ? score : nothing;
        }
    }
  }

  /* Weights of a step in the units of the present shift, and each row's part of their sum; part i of PAIRS. */
  static constexpr int PAIRS = NG * 2 * ROW_ENDS;
  FA_MEMBER void weigh_part(const scores &x, weights &w, float (&part)[ROW_ENDS], int i) const {
    const int n = i / ROW_ENDS, r = i % ROW_ENDS;
    weigh_pair(fmaf(x[r / 2][n][r % 2 * 2], scale, shift[r]), fmaf(x[r / 2][n][r % 2 * 2 + 1], scale, shift[r]), w, part, n, r);
  }
  FA_MEMBER void weigh_pair(float first, float then, weights &w, float (&part)[ROW_ENDS], int n, int r) const {
    const float a = fa_exp2(first), b = fa_exp2(then);
    part[r] = n ? part[r] + (a + b) : a + b;
    w[r / 2][n / 2][n % 2 * 2 + r % 2] = E::pack(a, b);
  }

  /* A step without restart: true if it stands; false: only o has moved on. */
  template <bool EDGE> FA_MEMBER bool advance(weights &w, unsigned k_at, unsigned v_before, unsigned n_tile) {
    scores x;
    weights next;
    float part[ROW_ENDS];
    multiply_qk(x, k_at);
    if (EDGE) select(x, k_at, n_tile);
    /* The exponentials run on one unit while the products run on the other. */
#pragma unroll
    for (int i = 0; i < PV_PARTS; ++i) {
      multiply_pv_part(w, v_before, i);
#pragma unroll
      for (int pair = i * PAIRS / PV_PARTS; pair < (i + 1) * PAIRS / PV_PARTS; ++pair) weigh_part(x, next, part, pair);
    }
    unsigned seen = 0;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int n = 0; n < NG; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          seen = E::seen(seen, next[m][n][e]);
          w[m][n][e] = next[m][n][e];
        }
    if (__any_sync(~0u, E::too_large(seen))) return false;
#pragma unroll
    for (int r = 0; r < ROW_ENDS; ++r) sum[r] += part[r];
    return true;
  }

  /* The step with its own maximum. */
  FA_MEMBER void restart(weights &w, unsigned k_at, unsigned n_tile) {
    scores x;
    float part[ROW_ENDS];
    multiply_qk(x, k_at);
    select(x, k_at, n_tile);
#pragma unroll
    for (int r = 0; r < ROW_ENDS; ++r) {
      float top = -CUDART_INF_F;
#pragma unroll
      for (int n = 0; n < NG * 2; ++n)
        top = fmaxf(top, fmaxf(x[r / 2][n][r % 2 * 2] * scale, x[r / 2][n][r % 2 * 2 + 1] * scale));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float moved = fminf(shift[r], -top);
      const float factor = fa_exp2(moved - shift[r]);
      shift[r] = moved;
      is_huge = __any_sync(~0u, is_huge || moved < -FA_HUGE || (moved > FA_HUGE && moved != FA_FAR));
      sum[r] *= factor;
#pragma unroll
      for (int d = 0; d < DV / 8; ++d) {
        o[r / 2][d][r % 2 * 2] *= factor;
        o[r / 2][d][r % 2 * 2 + 1] *= factor;
      }
    }
    /* Rounded as the maximum was, not fused: where scores are very large, what rounding takes from the maximum would
     * otherwise be a factor of all weights, the largest of which is 1 here. */
#pragma unroll
    for (int n = 0; n < NG * 2; ++n)
#pragma unroll
      for (int r = 0; r < ROW_ENDS; ++r)
        weigh_pair(__fadd_rn(__fmul_rn(x[r / 2][n][r % 2 * 2], scale), shift[r]),
                   __fadd_rn(__fmul_rn(x[r / 2][n][r % 2 * 2 + 1], scale), shift[r]), w, part, n, r);
#pragma unroll
    for (int r = 0; r < ROW_ENDS; ++r) sum[r] += part[r];
  }

  /* Which steps of a tile: bit n, some row of the warp keeps a key of step n; bit 16 + n, every row keeps all; then two
   * marks that shifting moves to LAST and FIRST while the tile's last and first step run. */
  static constexpr unsigned LAST = 1u << 8, FIRST = 1u << 31;
  static constexpr unsigned MARKS = FIRST | LAST << (TILE / STEP - 1), ALL = (1u << TILE / STEP) - 1;
  FA_MEMBER unsigned steps_of(int n_tile, unsigned shared) const {
    const int4 band = fa_shared_fetch(shared + BANDS_AT + fa_thread() / 32 * (int)sizeof(fa_warp_band));
    const int tile_key = place.first_key + n_tile * TILE;
    if (tile_key >= band.z && tile_key + TILE <= band.w) return MARKS | ALL | ALL << 16;
    unsigned steps = MARKS;
#pragma unroll
    for (int n = 0; n < TILE / STEP; ++n) {
      const int key = tile_key + n * STEP;
      if (key + STEP > band.x && key < band.y) steps |= 1u << n;
      if (key >= band.z && key + STEP <= band.w) steps |= 1u << (16 + n);
    }
    return steps;
  }
  /* By one lane of each warp. */
  FA_MEMBER void write_band(const fa_sequence &s, int first, char *shared) const {
    const int last = min(first + WARP_ROWS, s.seqlen_q) - 1;
    fa_warp_band band;
    fa_band_row(p, s, first, band.begin, band.full_end);
    fa_band_row(p, s, last, band.full_begin, band.end);
    if (last < first) band.end = band.full_end = -1; /* no row */
    ((fa_warp_band *)(shared + BANDS_AT))[threadIdx.x / 32] = band;
  }

  FA_MEMBER void finish(const fa_sequence &s, const fa_block &block, char *shared);
  FA_MEMBER void run(const fa_sequence &here, fa_block block, char *shared);
};

template <class E, bool ASYNC, bool RULES, int DQ, int DV, int MT, int WARPS, int TILE, int NG>
FA_MEMBER void fa_prefill<E, ASYNC, RULES, DQ, DV, MT, WARPS, TILE, NG>::run(const fa_sequence &here, fa_block block, char *shared) {
  const unsigned base = fa_shared_address(shared);
  const int warp = threadIdx.x / 32;
  fa_sequence s = here;
  scale = RULES ? 1.0f : p.scale * FA_LOG2E;
#pragma unroll
  for (int r = 0; r < ROW_ENDS; ++r) shift[r] = FA_FAR, sum[r] = 0.0f;
  is_huge = false;
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int d = 0; d < DV / 8; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[m][d][e] = 0.0f;

  int begin, end;
  fa_band_rows(p, s, block.row, min(block.row + ROWS, s.seqlen_q) - 1, begin, end);
  if (begin < end) {
    const fa_source from_q = {p.q, block.head, p.head_dim_qk, 0, s.seqlen_q, true};
    const fa_source from_k = {p.k, block.head / p.group, p.head_dim_qk, begin, end, false};
    const fa_source from_v = {p.v, block.head / p.group, p.head_dim_v, begin, end, false};
    const int first_key = begin / TILE * TILE;

    if (ASYNC) {
      q_tile::copy(p, s, from_q, block.row, base + Q_AT);
      if (K_BESIDE_Q) k_tile::copy(p, s, from_k, first_key, base);
      if (V_BESIDE_Q) v_tile::copy(p, s, from_v, first_key, base + V_AT);
      fa_copy_commit();
      fa_copy_wait();
    } else {
      q_tile::move(p, s, from_q, block.row, base + Q_AT);
    }
    __syncthreads();
    {
      const unsigned at = base + Q_AT + warp * (WARP_ROWS * DQ * 2) + lane_part<DQ>();
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int d = 0; d < DQ / 16; ++d) fa_load_matrices(q[m][d], column<DQ>(at + m * 16 * DQ * 2, d));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      fa_place *to = (fa_place *)(shared + PLACE_AT); /* where Q may have been; read behind the next barrier */
      to->s = s;
      to->begin = begin;
      to->end = end;
      to->first_key = first_key;
      to->row = block.row;
      to->head = block.head;
      to->kv_head = block.head / p.group;
      to->loads = !p.aligned || p.page_table ? FA_LOADS_ANY
                  : p.head_dim_qk == DQ && p.head_dim_v == DV ? FA_LOADS_WHOLE : FA_LOADS_NARROW;
      to->k_first = (const char *)p.k.data;
      to->v_first = (const char *)p.v.data;
      if (to->loads != FA_LOADS_ANY) {
        to->k_first += 2 * fa_token_offset(p, s, p.k, block.head / p.group, first_key);
        to->v_first += 2 * fa_token_offset(p, s, p.v, block.head / p.group, first_key);
      }
    }
    if (threadIdx.x % 32 == 0) write_band(s, block.row + warp * WARP_ROWS, shared);
    if (ASYNC) {
      if (!K_BESIDE_Q) k_tile::copy(p, s, from_k, first_key, base);
      if (!V_BESIDE_Q) v_tile::copy(p, s, from_v, first_key, base + V_AT);
      fa_copy_commit();
    } else {
      k_tile::move(p, s, from_k, first_key, base);
      v_tile::move(p, s, from_v, first_key, base + V_AT);
    }

    weights w;
    bool pending = false;
    unsigned v_before = 0;
#pragma unroll 1
    for (unsigned n = 0;; ++n) {
      if (ASYNC) fa_copy_wait();
      __syncthreads();
      const int next_key = place.first_key + (int)(n + 1) * TILE;
      const unsigned k_next = base + (n + 1) % 2 * K_BYTES, v_next = base + V_AT + (n + 1) % 3 * V_BYTES;
      uint4 k_on_way[k_tile::each], v_on_way[v_tile::each]; /* STAGED */
      const int loads = next_key + TILE <= place.end ? place.loads : FA_LOADS_ANY;
      if (loads >= (ASYNC ? FA_LOADS_NARROW : FA_LOADS_WHOLE) && (ASYNC || STAGED)) {
        const int64_t k_stride = p.k.stride_seq * 2, v_stride = p.v.stride_seq * 2;
        const char *k_from = place.k_first + (n + 1) * TILE * k_stride, *v_from = place.v_first + (n + 1) * TILE * v_stride;
        if constexpr (!ASYNC) {
          k_tile::fetch(k_from, k_stride, k_on_way);
          v_tile::fetch(v_from, v_stride, v_on_way);
        } else if (loads == FA_LOADS_WHOLE) {
          k_tile::copy_simple(k_from, k_stride, k_next);
          v_tile::copy_simple(v_from, v_stride, v_next);
        } else {
          k_tile::copy_narrow(k_from, k_stride, p.head_dim_qk, k_next);
          v_tile::copy_narrow(v_from, v_stride, p.head_dim_v, v_next);
        }
      } else if (next_key < place.end) {
        const fa_sequence again = sequence();
        const fa_source next_k = {p.k, place.kv_head, p.head_dim_qk, place.begin, place.end, false};
        const fa_source next_v = {p.v, place.kv_head, p.head_dim_v, place.begin, place.end, false};
        if constexpr (ASYNC) {
          k_tile::copy(p, again, next_k, next_key, k_next);
          v_tile::copy(p, again, next_v, next_key, v_next);
        } else {
          k_tile::move_by_chunks(p, again, next_k, next_key, k_next);
          v_tile::move_by_chunks(p, again, next_v, next_key, v_next);
        }
      }
      if (ASYNC) fa_copy_commit();
      unsigned steps = steps_of(n, base), k_at = base + n % 2 * K_BYTES + k_lane_part();
#pragma unroll 1
      for (;; steps >>= 1, k_at += STEP * DQ * 2) {
        const bool inside = steps & 1;
        bool stands = false;
        if (pending) {
          if (RULES || !inside || is_huge) {
            multiply_pv(w, v_before);
          } else if (steps >> 16 & 1) {
            stands = advance<false>(w, k_at, v_before, n);
          } else {
            stands = advance<true>(w, k_at, v_before, n);
          }
        }
        if (inside && !stands) restart(w, k_at, n);
        pending = inside;
        v_before = steps & FIRST ? base + V_AT + n % 3 * V_BYTES + lane_part<DV>() : v_before + STEP * DV * 2;
        if (steps & LAST) break;
      }
      if constexpr (STAGED) {
        if (loads == FA_LOADS_WHOLE) {
          k_tile::store(k_next, k_on_way);
          v_tile::store(v_next, v_on_way);
        }
      }
      if (place.first_key + (int)(n + 1) * TILE >= place.end) break;
    }
    if (pending) multiply_pv(w, v_before);
    s = sequence();
    block.row = place.row;
    block.head = place.head;
    __syncthreads(); /* the ring becomes the stage of o */
  }
  finish(s, block, shared);
}

#include "cuda/prefill_finish.cuh"

/* One function a shape and type: fa_prefill_<arch>_<type>_<dqk>_<dv>_<tile>[_rules]. */
#define FA_PREFILL_KERNEL(name, E, ASYNC, RULES, dqk, dv, row_tiles, warps, tile, step, blocks)               \
  extern "C" __global__ void __launch_bounds__(warps * 32, blocks) name(const __grid_constant__ fa_cuda_params p) { \
    extern __shared__ __align__(1024) char shared[];                                                            \
    using prefill = fa_prefill<E, ASYNC, RULES, dqk, dv, row_tiles, warps, tile, step>;                         \
    const fa_block block = fa_block_of<prefill::ROWS>(p);                                                       \
    const fa_sequence s = fa_sequence_of(p, block.batch);                                                       \
    if (block.row >= s.seqlen_q) return;                                                                        \
    prefill(p, shared).run(s, block, shared);                                                                   \
  }

#endif
