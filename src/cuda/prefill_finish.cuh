/* The end of the tensor-core prefill: sums, sink, lse, o through shared memory in whole vectors, and the rows to do again.
 * Part of prefill_mma.cuh, which includes it behind the class. */
#ifndef FA_CUDA_PREFILL_FINISH_CUH
#define FA_CUDA_PREFILL_FINISH_CUH

FA_PREFILL_TEMPLATE FA_MEMBER void FA_PREFILL_CLASS::finish(const fa_sequence &s, const fa_block &block, unsigned stage_of_o) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, first_row = block.row + warp * WARP_ROWS;
  const unsigned stage = stage_of_o + warp * (WARP_ROWS * DV * 2);
  const float sink = p.sinks ? p.sinks[block.head] * FA_LOG2E : -CUDART_INF_F;
  unsigned broken = 0; /* bit of row r * 8 + g */
#pragma unroll
  for (int r = 0; r < ROW_ENDS; ++r) {
    const int row = first_row + r / 2 * 16 + r % 2 * 8 + lane / 4;
    float total = sum[r], top = -shift[r], factor = 1.0f;
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    if (sink > top) { /* m may be older, and lower, than the sink */
      factor = fa_exp2(top - sink);
      total *= factor;
      top = sink;
    }
    if (sink != -CUDART_INF_F) total += fa_exp2(sink - top);
    if (p.lse && lane % 4 == 0 && row < s.seqlen_q)
      p.lse[fa_lse_offset(p, s, block.head, row)] = total == 0.0f ? -CUDART_INF_F : (top + log2f(total)) * FA_LN2;

    const float inverse = total == 0.0f ? 0.0f : factor / total;
    unsigned spoilt = 0; /* by a sum that is not finite */
    const unsigned to = stage + fa_chunk_at<DV>(lane / 4, 0) + lane % 4 * 4;
#pragma unroll
    for (int d = 0; d < DV / 8; ++d) {
      const float a = o[r / 2][d][r % 2 * 2], b = o[r / 2][d][r % 2 * 2 + 1];
      const unsigned both = E::pack(a * inverse, b * inverse);
      spoilt = E::times_zero(both, spoilt);
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(column<DV>(to, d) + (r / 2 * 16 + r % 2 * 8) * DV * 2), "r"(both) : "memory");
    }
    const unsigned votes = __ballot_sync(~0u, (spoilt & 0x7fff7fffu) && row < s.seqlen_q);
    if (votes) {
#pragma unroll 1
      for (int g = 0; g < 8; ++g)
        if (votes >> (4 * g) & 15) broken |= 1u << (r * 8 + g);
    }
  }
  __syncwarp();
  constexpr int chunks = DV / 8, rows = chunks < 32 ? 32 / chunks : 1; /* of 16 bytes in a row; a warp stores at once */
  if (chunks * rows == 32 && p.aligned_o && p.head_dim_v == DV && first_row + WARP_ROWS <= s.seqlen_q) {
    const int row = lane / chunks, chunk = lane % chunks;
    char *to = (char *)p.o.data + 2 * fa_row_offset(p, s, p.o, block.head, first_row + row) + chunk * 16;
    const int64_t step = p.o.stride_seq * 2 * rows;
#pragma unroll 4
    for (int n = 0; n < WARP_ROWS; n += rows, to += step) *(uint4 *)to = fa_shared_load(stage + fa_chunk_at<DV>(row + n, chunk));
  } else {
#pragma unroll 1
    for (int index = lane; index < WARP_ROWS * (DV / 8); index += 32) {
      const int row = index / (DV / 8), chunk = index % (DV / 8), count = p.head_dim_v - chunk * 8;
      if (first_row + row >= s.seqlen_q || count <= 0) continue;
      const uint4 x = fa_shared_load(stage + fa_chunk_at<DV>(row, chunk));
      uint16_t *to = (uint16_t *)p.o.data + fa_row_offset(p, s, p.o, block.head, first_row + row) + chunk * 8;
      if (p.aligned_o && count >= 8) {
        *(uint4 *)to = x;
      } else {
        const unsigned words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int e = 0; e < 8; ++e)
          if (e < count) to[e] = (uint16_t)(words[e / 2] >> (e % 2 * 16));
      }
    }
  }
  if (broken) {
    __syncwarp();
#pragma unroll 1
    for (; broken; broken &= broken - 1) /* o and lse again */
      fa_exact_row(p, s.batch, 0, block.head, first_row + __ffs(broken) - 1, 0, s.seqlen_kv, FA_ALL_COLUMNS);
  }
}

#endif
