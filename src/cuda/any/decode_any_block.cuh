/* One block of the decode on tensor cores: the ring of stages, and joining the warps. See decode_any_mma.cuh. */
#ifndef FA_CUDA_ANY_DECODE_ANY_BLOCK_CUH
#define FA_CUDA_ANY_DECODE_ANY_BLOCK_CUH

#include "cuda/any/decode_any_mma.cuh"

FA_DEVICE unsigned fa_dynamic_shared_bytes() {
  unsigned bytes;
  asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
  return bytes;
}

/* All keys of the block through the ring; what it finds stays in the decoder. */
template <class D, int MODE>
FA_DEVICE void fa_decode_keys(D &d, int first_row, int count, unsigned shared) {
  const int tiles = MODE == FA_DECODE_ROWS_MODE ? d.warps : 1;
  const unsigned q_bytes = d.k_pieces * D::KS * 512, ring = shared + tiles * q_bytes;
  const unsigned step_bytes = (d.k_lines() + d.v_pieces) * 2048 + (D::IS_QUANTISED ? 128 : 0);
  const int in_stage = MODE == FA_DECODE_SLICE ? 1 : d.warps; /* steps */
  const unsigned stage_bytes = in_stage * step_bytes;
  const int stages = min((int)((fa_dynamic_shared_bytes() - tiles * q_bytes) / stage_bytes), (int)FA_DECODE_MOST_STAGES);
  const int steps = (d.end - d.begin + FA_DECODE_STEP - 1) / FA_DECODE_STEP, rounds = (steps + in_stage - 1) / in_stage;
  const int mine = MODE == FA_DECODE_SLICE ? 0 : d.warp; /* which step of a stage this warp copies */
  d.q_at = shared + (MODE == FA_DECODE_ROWS_MODE ? d.warp * q_bytes : 0);

  /* The first copies fly while q is read. */
  if (steps > 0) d.locate(mine);
  for (int round = 0; round < stages - 1; ++round) {
    const int step = round * in_stage + mine;
    if (step < steps) d.copy(ring + round * stage_bytes + mine * step_bytes, step, step + in_stage);
    fa_park_commit();
  }
  d.load_q(shared, first_row, tiles, count);
  __syncthreads();
  d.hold_q();

  int slot = 0, free_slot = stages - 1;
  for (int round = 0; round < rounds; ++round) {
    fa_park_wait(stages - 2);
    /* Everybody's copies of this round are there, and the slot of the round before is read out. OWN: a warp reads only
     * what its lanes copied. */
    if (MODE == FA_DECODE_OWN)
      __syncwarp();
    else
      __syncthreads();
    const int later = (round + stages - 1) * in_stage + mine;
    if (later < steps) d.copy(ring + free_slot * stage_bytes + mine * step_bytes, later, later + in_stage);
    fa_park_commit();
    const unsigned at = ring + slot * stage_bytes;
    if (MODE == FA_DECODE_OWN) {
      if (round * in_stage + mine < steps) d.work(at + mine * step_bytes, round * in_stage + mine);
    } else if (MODE == FA_DECODE_ROWS_MODE) {
      if (d.rows > 0)
        for (int n = 0; n < in_stage && round * in_stage + n < steps; ++n)
          d.work(at + n * step_bytes, round * in_stage + n);
    } else {
      d.work(at, round);
    }
    free_slot = slot;
    slot = slot + 1 == stages ? 0 : slot + 1;
  }
}

/* Accumulators to shared memory: o as [16, stride] of this warp (SLICE: its columns of the one). */
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
  for (int q = 0; q < VQ; ++q) {
    if (first + q >= d.v_pieces) break;
#pragma unroll
    for (int e = 0; e < D::NV; e += 4)
#pragma unroll
      for (int c = 0; c < 4; ++c) { /* accumulator c: row g + 8 (c / 2), column 2t + c % 2 */
        const int n = q * D::NV + e, column = (first + q) * D::VD + (2 * d.t + c % 2) * D::NV + e;
        *(float4 *)(o + (d.g + c / 2 * 8) * stride + column) =
            make_float4(d.o[n][c] * unit, d.o[n + 1][c] * unit, d.o[n + 2][c] * unit, d.o[n + 3][c] * unit);
      }
  }
}

template <class T, class KV, int VQ, int MODE, int DIM>
FA_DEVICE void fa_decode_block(const fa_cuda_params &p) {
#if __CUDA_ARCH__ >= 750
  typedef fa_decoder<T, KV, VQ, MODE, DIM> D;
  extern __shared__ __align__(128) unsigned char shared[];
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int block_rows = MODE == FA_DECODE_ROWS_MODE ? 16 * warps : 16;
  const fa_item item = fa_item_of(p, (p.group * p.max_seqlen_q + block_rows - 1) / block_rows);
  const fa_sequence s = fa_sequence_of(p, item.batch);
  const int count = p.group * s.seqlen_q, first_row = item.tile * block_rows;
  if (first_row >= count) return;
  const int rows = min(block_rows, count - first_row);

  D d(p, s, item.kv_head);
  int low, high;
  fa_part_keys(p, s, item.part, d.begin, d.end);
  fa_band_rows(p, s, first_row / p.group, (first_row + rows - 1) / p.group, low, high);
  d.begin = max(d.begin, low), d.end = max(min(d.end, high), d.begin);
  if (d.begin == d.end && p.splits > 1) { /* nothing here; the merge reads the maximum first */
    for (int r = threadIdx.x; r < rows; r += blockDim.x)
      fa_write_end(p, s, item.part, item.kv_head * p.group + (first_row + r) % p.group, (first_row + r) / p.group,
                   -CUDART_INF_F, 0.0f, -CUDART_INF_F);
    return;
  }
  const bool paged = p.page_table, ragged = p.cu_seqlens_kv;
  d.k_base = (const char *)p.k.data + (item.kv_head * p.k.stride_head + (paged    ? 0
                                                                         : ragged ? s.kv_start * p.k.stride_seq
                                                                                  : s.batch * p.k.stride_batch)) * D::BYTES;
  d.v_base = (const char *)p.v.data + (item.kv_head * p.v.stride_head + (paged    ? 0
                                                                         : ragged ? s.kv_start * p.v.stride_seq
                                                                                  : s.batch * p.v.stride_batch)) * D::BYTES;
  d.set_rows(first_row + (MODE == FA_DECODE_ROWS_MODE ? 16 * warp : 0), count);
  d.max[0] = d.max[1] = -CUDART_INF_F;
  d.sum[0] = d.sum[1] = d.v_unit = d.v_inverse = 0.0f;
  d.nan_seen = 0;
#pragma unroll
  for (int n = 0; n < VQ * D::NV; ++n) d.o[n][0] = d.o[n][1] = d.o[n][2] = d.o[n][3] = 0.0f;

  fa_decode_keys<D, MODE>(d, first_row, count, (unsigned)__cvta_generic_to_shared(shared));

  /* The ring and q are done with; their place holds what the warps found. */
  const bool all_bad = __syncthreads_or(d.nan_seen != 0);
  const int stride = d.v_pieces * D::VD + FA_DECODE_JOIN_PAD;
  float *heads = (float *)shared, *o = heads + warps * FA_DECODE_JOIN_HEAD;
  fa_decode_spill<D, VQ, MODE>(d, heads + warp * FA_DECODE_JOIN_HEAD, o + (MODE == FA_DECODE_SLICE ? 0 : warp * 16 * stride),
                               stride);
  __syncthreads();

  /* Row r of the block: partial results of all warps (OWN), of warp r / 16 (ROWS), of warp 0 (SLICE: all the same). */
  const int parts = MODE == FA_DECODE_OWN ? warps : 1;
  for (int r = threadIdx.x; r < rows; r += blockDim.x) {
    float *head = heads + r / 16 * FA_DECODE_JOIN_HEAD + r % 16;
    const int h = item.kv_head * p.group + (first_row + r) % p.group, i = (first_row + r) / p.group;
    float max = -CUDART_INF_F, sum = 0.0f, lse;
    for (int w = 0; w < parts; ++w) max = fmaxf(max, head[w * FA_DECODE_JOIN_HEAD]);
    const float reference = max == -CUDART_INF_F ? 0.0f : max;
    for (int w = 0; w < parts; ++w)
      sum += head[w * FA_DECODE_JOIN_HEAD + 16] * exp2f(head[w * FA_DECODE_JOIN_HEAD] - reference);
    const float inverse = fa_finish_row(max * FA_LN2, sum, p.splits == 1 && p.sinks ? p.sinks + h : nullptr, lse);
    for (int w = 0; w < parts; ++w)
      head[w * FA_DECODE_JOIN_HEAD + 32] = exp2f(head[w * FA_DECODE_JOIN_HEAD] - reference) * inverse;
    head[48] = all_bad ? 1.0f : 0.0f; /* mark: to be done again */
    fa_write_end(p, s, item.part, h, i, max * FA_LN2, sum, lse);
  }
  __syncthreads();

  for (int r = warp; r < rows; r += warps) {
    float *head = heads + r / 16 * FA_DECODE_JOIN_HEAD + r % 16;
    const float *from = o + (r / 16 * 16 + r % 16) * stride;
    const int h = item.kv_head * p.group + (first_row + r) % p.group, i = (first_row + r) / p.group;
    const int64_t to = p.splits > 1 ? fa_part_row(p, s, item.part, h, i) * p.head_dim_v : fa_row_offset(p, s, p.o, h, i);
    bool is_finite = true;
    for (int n = lane; n < p.head_dim_v; n += 32) {
      float value = 0.0f;
      for (int w = 0; w < parts; ++w) value += from[w * 16 * stride + n] * head[w * FA_DECODE_JOIN_HEAD + 32];
      is_finite &= fabsf(value) <= CUDART_MAX_NORMAL_F;
      if (p.splits > 1)
        p.split_o[to + n] = value;
      else
        fa_store((T *)p.o.data + to + n, value);
    }
    const bool is_bad = !__all_sync(0xffffffffu, is_finite) || head[48] != 0.0f;
    if (is_bad) fa_exact_row(p, item.batch, item.part, h, i, d.begin, d.end);
  }
#endif
}

#define FA_DECODE_KERNEL(name, T, KV, VQ, MODE, DIM)                                                        \
  extern "C" __global__ void __launch_bounds__(32 * FA_DECODE_MOST_WARPS, 1)          \
      name(const __grid_constant__ fa_cuda_params p) {                                                      \
    fa_decode_block<T, KV, VQ, MODE, DIM>(p);                                                               \
  }

#endif
