/* Prefill on mma.sync, sm_75 and sm_80: o = softmax(rules(scale q k^T)) v, FlashAttention-2 forward with a lazy maximum.
 *
 * Level one: a block takes R = row tiles x 16 x warps query rows of one head and walks tiles of keys through a ring of two
 * stages in shared memory. Level two: a warp's rows, in steps of 16 or 32 keys. Q, O (fp32), S and P stay in registers;
 * K and V come by ldmatrix. Layout in shared memory: prefill_load.cuh (no bank conflicts, no padding).
 *
 * A step is S = Q K, P = exp2(S * scale - m), O += P V. m is not the maximum but an older one: the step asks only, with one
 * vote a warp, whether its weights still sum to less than 4096. No maximum, no shuffle and no rescaling of O otherwise.
 * If they do not, the step's scores are computed again and m, O and the sums move (`restart`), as in
 * every step where scores are huge. The first step takes its own maximum.
 * Weights stay below 4096 = 2^12 (fp16 ends at 2^16) and sums are fp32: the relative error is that of the true maximum,
 * but a row that one key dominates has a weight that is not 1 and is rounded (mma_fragments.cuh, `sum`).
 * One warp's exponentials run beside another warp's products: order within a warp (products of one step beside the
 * exponentials of another) costs more registers and branches than it hides.
 *
 * The tiling-mask's three cases: steps outside a warp's band are skipped, tiles inside the block's have no masking code
 * (`walk_inside`), the others select (`walk_edge`). Score rules (softcap, ALiBi, bias, mask) are a second instantiation:
 * every step restarts.
 *
 * Order of blocks: KV heads in sections whose K and V fit L2, last rows (causal: most work) first inside.
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

#define FA_FAR 3.402823466e38f /* -m before any key: a finite score overflows and restarts */
#define FA_MOST_WEIGHT 4096.0f
/* |m| beyond which m, rounded to 2^-12 or worse, and scores, fused into the exponent, differ by a factor that shows: every
 * step restarts then, with scores rounded as m was. */
#define FA_HUGE 2048.0f

template <class E, bool ASYNC, bool RULES, int DQ, int DV, int MT, int WARPS, int TILE, int NG> struct fa_prefill {
  static constexpr int THREADS = WARPS * 32, WARP_ROWS = MT * 16, ROWS = WARPS * WARP_ROWS, STEP = NG * 16;
  static constexpr int K_BYTES = TILE * DQ * 2, V_BYTES = TILE * DV * 2;
  static constexpr int SHARED = FA_PREFILL_SHARED_BYTES(DQ, DV, MT, WARPS, TILE);
  static constexpr int STAGE = K_BYTES + V_BYTES; /* K and V of a tile; the ring has two */
  static constexpr int PLACE_AT = 2 * STAGE, BANDS_AT = PLACE_AT + 128;
  static constexpr int Q_BYTES = FA_PREFILL_Q_BYTES(DQ, MT, WARPS), Q_AT = PLACE_AT > Q_BYTES ? PLACE_AT - Q_BYTES : 0;
  static constexpr bool FIRST_BESIDE_Q = ASYNC && Q_AT >= STAGE; /* the first tile need not wait until Q is in registers */
  /* o is staged in the half of the ring that the last tile is not in: no barrier. With one row tile ptxas makes a slower
   * loop of it [H200, bf16, S = 4096, head size 256: 311 instead of 334 TFLOP/s]. */
  static constexpr bool O_BESIDE_LAST = MT == 2 && ROWS * DV * 2 <= STAGE;
  /* The first step, which has no m yet, is code of its own; with one row tile a branch in every step is the lesser evil. */
  static constexpr bool PEEL_FIRST = MT == 2;
  static constexpr int ROW_ENDS = MT * 2; /* rows of a lane: row tile n / 2, row g + 8 (n % 2) */
  static_assert(TILE % STEP == 0 && DV <= DQ, "steps fill a tile; o takes no more room than q");
  static_assert(PLACE_AT == FA_PREFILL_RING_BYTES(DQ, DV, TILE) && SHARED >= Q_AT + Q_BYTES, "Q, then the ring and the place");
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
  float limit; /* of a lane's weights together in a step that stands: FA_MOST_WEIGHT, or 0 once some |m| of the warp is huge */
  int is_fresh; /* no step yet: m is still to be found (without PEEL_FIRST) */

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

  /* Address of the 16-byte chunk that lies `chunks` further on in rows whose lane part is `lane_at`: the swizzle is an
   * exclusive or. */
  template <int DP> static FA_MEMBER unsigned column(unsigned lane_at, int chunks) {
    constexpr int mask = DP % 64 == 0 ? 127 : 63;
    return (lane_at ^ (chunks * 16 & mask)) + (chunks * 16 & ~mask);
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
        fa_load_matrices(b, column<DQ>(k_at + n * 16 * DQ * 2, 2 * d));
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          E::mma(x[m][2 * n], q[m][d], b[0], b[1]);
          E::mma(x[m][2 * n + 1], q[m][d], b[2], b[3]);
        }
      }
  }

  /* v: V's first fragment. */
  FA_MEMBER void multiply_pv(const weights &w, unsigned (&v)[4], unsigned v_at) {
#pragma unroll
    for (int n = 0; n < NG; ++n)
#pragma unroll
      for (int d = 0; d < DV / 16; ++d) {
        if (n + d) fa_load_matrices_transposed(v, column<DV>(v_at + n * 16 * DV * 2, 2 * d));
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          E::mma(o[m][2 * d], w[m][n], v[0], v[1]);
          E::mma(o[m][2 * d + 1], w[m][n], v[2], v[3]);
        }
      }
  }

  /* Rules, then -inf (of the sign that scale makes -inf) outside the band. */
  FA_MEMBER void select(scores &x, unsigned k_at, int n_tile) const {
    const fa_sequence s = sequence();
    /* The step's first key, from where its K lies: one register less through the loop. */
    const unsigned in_tile = k_at - fa_shared_address(base) - n_tile % 2 * STAGE;
    const int key = place.first_key + n_tile * TILE + (int)(in_tile / (STEP * DQ * 2) * STEP), lane = fa_thread() & 31;
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

  /* Two neighbouring weights of row end r, from their exponents, and their part of the row's sum. */
  FA_MEMBER void weigh_pair(float first, float then, weights &w, float (&part)[ROW_ENDS], int n, int r) const {
    const float a = fa_exp2(first), b = fa_exp2(then);
    const unsigned both = E::pack(a, b);
    part[r] = (n ? part[r] : 0.0f) + E::sum(both, a, b);
    w[r / 2][n / 2][n % 2 * 2 + r % 2] = both;
  }

  template <bool EDGE> FA_MEMBER void multiply_and_select(scores &x, unsigned k_at, int n_tile) const {
    multiply_qk(x, k_at);
    if (EDGE) select(x, k_at, n_tile);
  }

  /* A row end's -m with the maximum of these scores, no more than it was; where it is huge `limit` says so from now on. */
  FA_MEMBER float moved_shift(const scores &x, int r) {
    float top = -CUDART_INF_F;
#pragma unroll
    for (int n = 0; n < NG * 2; ++n)
      top = fmaxf(top, fmaxf(x[r / 2][n][r % 2 * 2] * scale, x[r / 2][n][r % 2 * 2 + 1] * scale));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    const float moved = fminf(shift[r], -top);
    if (__any_sync(~0u, moved < -FA_HUGE || (moved > FA_HUGE && moved != FA_FAR))) limit = 0.0f;
    return moved;
  }

  /* Weights of a step in the units of the present shift: true if they stand. On its way it fetches V's first fragment. */
  template <bool EDGE> FA_MEMBER bool weigh(weights &w, unsigned (&v)[4], unsigned k_at, unsigned v_at, int n_tile) {
    scores x;
    float part[ROW_ENDS];
    multiply_and_select<EDGE>(x, k_at, n_tile);
    if (!PEEL_FIRST && is_fresh) {
#pragma unroll
      for (int r = 0; r < ROW_ENDS; ++r) shift[r] = moved_shift(x, r);
      is_fresh = 0;
    }
#pragma unroll
    for (int n = 0; n < NG * 2; ++n)
#pragma unroll
      for (int r = 0; r < ROW_ENDS; ++r)
        weigh_pair(fmaf(x[r / 2][n][r % 2 * 2], scale, shift[r]), fmaf(x[r / 2][n][r % 2 * 2 + 1], scale, shift[r]), w,
                   part, n, r);
    float all = part[0];
#pragma unroll
    for (int r = 1; r < ROW_ENDS; ++r) all += part[r];
    fa_load_matrices_transposed(v, v_at);
    if (__any_sync(~0u, !(all < limit))) return false;
#pragma unroll
    for (int r = 0; r < ROW_ENDS; ++r) sum[r] += part[r];
    return true;
  }

  /* The step with its own maximum. FIRST: the first of all, there is nothing to rescale. */
  template <bool EDGE, bool FIRST = false> FA_MEMBER void restart(weights &w, unsigned k_at, int n_tile) {
    scores x;
    float part[ROW_ENDS];
    multiply_and_select<EDGE>(x, k_at, n_tile);
#pragma unroll
    for (int r = 0; r < ROW_ENDS; ++r) {
      const float moved = moved_shift(x, r);
      const float factor = FIRST ? 0.0f : fa_exp2(moved - shift[r]);
      shift[r] = moved;
      if (FIRST) continue;
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

  /* The steps of a tile whose keys all rows keep; k_at and v_at move behind it. */
  FA_MEMBER void walk_inside(unsigned &k_at, unsigned &v_at, bool is_first) {
    weights w;
    unsigned v[4];
    int step = 0;
    if (PEEL_FIRST && is_first) { /* there is no maximum yet to weigh by */
      restart<false, true>(w, k_at, 0);
      fa_load_matrices_transposed(v, v_at);
      multiply_pv(w, v, v_at);
      step = 1, k_at += STEP * DQ * 2, v_at += STEP * DV * 2;
    }
#pragma unroll 1
    for (; step < TILE / STEP; ++step, k_at += STEP * DQ * 2, v_at += STEP * DV * 2) {
      if (!weigh<false>(w, v, k_at, v_at, 0)) restart<false>(w, k_at, 0);
      multiply_pv(w, v, v_at);
    }
  }

  /* Of any tile. */
  FA_MEMBER void walk_edge(unsigned &k_at, unsigned &v_at, int n_tile) {
    const int2 band = fa_shared_fetch(fa_shared_address(base) + BANDS_AT + fa_thread() / 32 * (int)sizeof(fa_warp_band));
    int key = place.first_key + n_tile * TILE;
#pragma unroll 1
    for (int step = 0; step < TILE / STEP; ++step, key += STEP, k_at += STEP * DQ * 2, v_at += STEP * DV * 2) {
      if (!__any_sync(~0u, key + STEP > band.x && key < band.y)) continue;
      weights w;
      unsigned v[4];
      if (RULES) fa_load_matrices_transposed(v, v_at);
      if (RULES || !weigh<true>(w, v, k_at, v_at, n_tile)) restart<true>(w, k_at, n_tile);
      multiply_pv(w, v, v_at);
    }
  }

  /* By one lane of each warp. */
  FA_MEMBER void write_band(const fa_sequence &s, int first, char *shared) const {
    const int last = min(first + WARP_ROWS, s.seqlen_q) - 1;
    fa_warp_band band;
    fa_band_rows(p, s, first, last, band.begin, band.end);
    if (last < first) band.end = -1; /* no row */
    ((fa_warp_band *)(shared + BANDS_AT))[threadIdx.x / 32] = band;
  }

  FA_MEMBER void load_any(int n, unsigned stage) const;
  FA_MEMBER void finish(const fa_sequence &s, const fa_block &block, unsigned stage_of_o);
  FA_MEMBER void run(const fa_sequence &here, fa_block block, char *shared);
};

#define FA_PREFILL_TEMPLATE template <class E, bool ASYNC, bool RULES, int DQ, int DV, int MT, int WARPS, int TILE, int NG>
#define FA_PREFILL_CLASS fa_prefill<E, ASYNC, RULES, DQ, DV, MT, WARPS, TILE, NG>

/* Tile n, whatever its rows and their strides, to a stage of the ring. */
FA_PREFILL_TEMPLATE FA_MEMBER void FA_PREFILL_CLASS::load_any(int n, unsigned stage) const {
  const fa_sequence s = sequence();
  const int key = place.first_key + n * TILE;
  const fa_source k = {p.k, place.kv_head, p.head_dim_qk, place.begin, place.end, false};
  const fa_source v = {p.v, place.kv_head, p.head_dim_v, place.begin, place.end, false};
  if constexpr (ASYNC) {
    k_tile::copy(p, s, k, key, stage);
    v_tile::copy(p, s, v, key, stage + K_BYTES);
  } else {
    k_tile::move_by_chunks(p, s, k, key, stage);
    v_tile::move_by_chunks(p, s, v, key, stage + K_BYTES);
  }
}

FA_PREFILL_TEMPLATE FA_MEMBER void FA_PREFILL_CLASS::run(const fa_sequence &here, fa_block block, char *shared) {
  const unsigned base = fa_shared_address(shared);
  const int warp = threadIdx.x / 32;
  fa_sequence s = here;
  unsigned stage_of_o = base;
  /* q, and then the first tile, are under way while the rest is worked out. */
  const fa_source from_q = {p.q, block.head, p.head_dim_qk, 0, s.seqlen_q, true};
  const bool is_q_simple = q_tile::is_simple(p, from_q, block.row);
  uint4 q_on_way[q_tile::each]; /* without cp.async */
  if (is_q_simple) {
    const char *const q_from = (const char *)fa_source_row(p, s, from_q, block.row);
    if constexpr (ASYNC) {
      q_tile::copy_simple(q_from, p.q.stride_seq * 2, base + Q_AT);
      fa_copy_commit();
    } else {
      q_tile::fetch(q_from, p.q.stride_seq * 2, q_on_way);
    }
  }
  scale = RULES ? 1.0f : p.scale * FA_LOG2E;
#pragma unroll
  for (int r = 0; r < ROW_ENDS; ++r) shift[r] = FA_FAR, sum[r] = 0.0f;
  limit = FA_MOST_WEIGHT;
  is_fresh = 1;
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int d = 0; d < DV / 8; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[m][d][e] = 0.0f;

  const int last_row = min(block.row + ROWS, s.seqlen_q) - 1;
  int begin, end;
  fa_band_rows(p, s, block.row, last_row, begin, end);
  if (begin < end) {
    const fa_source from_k = {p.k, block.kv_head, p.head_dim_qk, begin, end, false};
    const fa_source from_v = {p.v, block.kv_head, p.head_dim_v, begin, end, false};
    const int first_key = begin / TILE * TILE;

    /* What the loop asks in each tile is the same in all lanes, and said to be: branches on it cost nothing then. */
    const int tiles = fa_uniform((end - first_key + TILE - 1) / TILE);
    int inside_begin, inside_end, ignored; /* tiles whose keys all rows keep */
    fa_band_row(p, s, last_row, inside_begin, ignored);
    fa_band_row(p, s, block.row, ignored, inside_end);
    inside_begin = fa_uniform((max(inside_begin, first_key) - first_key + TILE - 1) / TILE);
    inside_end = fa_uniform(RULES || inside_end <= first_key ? 0 : (inside_end - first_key) / TILE);
    /* Tiles below `whole` are rows of whole vectors one stride apart. */
    const bool is_narrow = p.head_dim_qk != DQ || p.head_dim_v != DV;
    const bool is_simple = (ASYNC || !is_narrow) && p.aligned && !p.page_table;
    const int whole = fa_uniform(is_simple ? (end - first_key) / TILE : 0);
    const int64_t k_stride = p.k.stride_seq * 2, v_stride = p.v.stride_seq * 2;
    const char *k_from = nullptr, *v_from = nullptr;
    if (is_simple) {
      k_from = fa_uniform((const char *)p.k.data + 2 * fa_unpaged_offset(p, s, p.k, block.kv_head, first_key));
      v_from = fa_uniform((const char *)p.v.data + 2 * fa_unpaged_offset(p, s, p.v, block.kv_head, first_key));
    }

    const bool is_first_simple = whole > 0 && first_key == begin && !is_narrow;
    uint4 first_k[k_tile::each], first_v[v_tile::each]; /* without cp.async */
    if constexpr (!ASYNC) {
      if (is_first_simple) {
        k_tile::fetch(k_from, k_stride, first_k);
        v_tile::fetch(v_from, v_stride, first_v);
      }
      if (is_q_simple)
        q_tile::store(base + Q_AT, q_on_way);
      else
        q_tile::move_by_chunks(p, s, from_q, block.row, base + Q_AT);
    } else {
      if (!is_q_simple) {
        q_tile::copy(p, s, from_q, block.row, base + Q_AT);
        fa_copy_commit();
      }
      if (FIRST_BESIDE_Q) {
        if (is_first_simple) {
          k_tile::copy_simple(k_from, k_stride, base);
          v_tile::copy_simple(v_from, v_stride, base + K_BYTES);
        } else {
          k_tile::copy(p, s, from_k, first_key, base);
          v_tile::copy(p, s, from_v, first_key, base + K_BYTES);
        }
        fa_copy_commit();
      }
      fa_copy_wait<FIRST_BESIDE_Q ? 1 : 0>();
    }
    __syncthreads();
    {
      const unsigned at = base + Q_AT + warp * (WARP_ROWS * DQ * 2) + lane_part<DQ>();
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int d = 0; d < DQ / 16; ++d) fa_load_matrices(q[m][d], column<DQ>(at + m * 16 * DQ * 2, 2 * d));
    }
    if (!FIRST_BESIDE_Q) __syncthreads(); /* the first tile comes where Q was */
    if (threadIdx.x == 0) {
      fa_place *to = (fa_place *)(shared + PLACE_AT); /* read behind the next barrier */
      to->s = s;
      to->begin = begin;
      to->end = end;
      to->first_key = first_key;
      to->row = block.row;
      to->head = block.head;
      to->kv_head = block.kv_head;
    }
    if (threadIdx.x % 32 == 0) write_band(s, block.row + warp * WARP_ROWS, shared);
    if (!ASYNC && is_first_simple) {
      k_tile::store(base, first_k);
      v_tile::store(base + K_BYTES, first_v);
    } else if (!ASYNC) {
      k_tile::move_by_chunks(p, s, from_k, first_key, base);
      v_tile::move_by_chunks(p, s, from_v, first_key, base + K_BYTES);
    } else if (!FIRST_BESIDE_Q) {
      k_tile::copy(p, s, from_k, first_key, base);
      v_tile::copy(p, s, from_v, first_key, base + K_BYTES);
      fa_copy_commit();
    }

    unsigned k_at = base + k_lane_part(), v_at = base + K_BYTES + lane_part<DV>();
#pragma unroll 1
    for (int n = 0; n < tiles; ++n) {
      if (ASYNC) fa_copy_wait<0>();
      __syncthreads();
      const unsigned next = base + (n + 1) % 2 * STAGE;
      uint4 k_on_way[k_tile::each], v_on_way[v_tile::each]; /* without cp.async: the next tile */
      if (n + 1 < whole) {
        k_from += TILE * k_stride;
        v_from += TILE * v_stride;
        if constexpr (!ASYNC) {
          k_tile::fetch(k_from, k_stride, k_on_way);
          v_tile::fetch(v_from, v_stride, v_on_way);
        } else if (is_narrow) {
          k_tile::copy_narrow(k_from, k_stride, p.head_dim_qk, next);
          v_tile::copy_narrow(v_from, v_stride, p.head_dim_v, next + K_BYTES);
        } else {
          k_tile::copy_simple(k_from, k_stride, next);
          v_tile::copy_simple(v_from, v_stride, next + K_BYTES);
        }
      } else if (n + 1 < tiles) {
        load_any(n + 1, next);
      }
      if (ASYNC) fa_copy_commit();
      if (n >= inside_begin && n < inside_end)
        walk_inside(k_at, v_at, n == 0);
      else
        walk_edge(k_at, v_at, n);
      k_at += (n % 2 ? -STAGE : STAGE) - K_BYTES;
      v_at += (n % 2 ? -STAGE : STAGE) - V_BYTES;
      if constexpr (!ASYNC) {
        if (n + 1 < whole) {
          k_tile::store(next, k_on_way);
          v_tile::store(next + K_BYTES, v_on_way);
        }
      }
    }
    s = sequence();
    block.row = place.row;
    block.head = place.head;
    if (O_BESIDE_LAST)
      stage_of_o += tiles % 2 * STAGE;
    else
      __syncthreads();
  } else if (ASYNC) { /* q may still be on its way there */
    fa_copy_wait<0>();
    __syncthreads();
  }
  finish(s, block, stage_of_o);
}

#include "cuda/prefill_finish.cuh"

/* One function a shape and type: fa_prefill_<arch>_<type>_<dqk>_<dv>_<row tiles>x<warps>x<keys of a tile>[_rules]. */
#define FA_PREFILL_KERNEL(name, E, ASYNC, RULES, dqk, dv, row_tiles, warps, tile, step, blocks)               \
  extern "C" __global__ void __launch_bounds__(warps * 32, blocks) name(const __grid_constant__ fa_cuda_params p) { \
    extern __shared__ __align__(1024) char shared[];                                                            \
    using prefill = fa_prefill<E, ASYNC, RULES, dqk, dv, row_tiles, warps, tile, step>;                         \
    const fa_block block = fa_block_of<prefill::ROWS>(p);                                                       \
    if (block.batch >= p.batch) return;                                                                         \
    const fa_sequence s = fa_sequence_of(p, block.batch);                                                       \
    if (block.row >= s.seqlen_q) return;                                                                        \
    prefill(p, shared).run(s, block, shared);                                                                   \
  }

#endif
