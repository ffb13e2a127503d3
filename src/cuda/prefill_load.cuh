/* Tiles of q, k and v on their way from global to shared memory, for the tensor-core prefill kernels.
 *
 * Layout of a tile in shared memory: rows of DP elements, in chunks of 16 bytes, chunk c of row r at place
 * c ^ fa_swizzle(r). The eight rows that one phase of ldmatrix reads lie in eight different groups of four banks:
 * rows of a multiple of 128 bytes exchange places by r % 8, rows of 192 bytes by r / 2 % 4 (the parity of the row
 * already changes the half). No padding.
 *
 * Rows outside [lo, hi) and elements beyond the head size become zeros: keys that no row keeps are never read. */
#ifndef FA_CUDA_PREFILL_LOAD_CUH
#define FA_CUDA_PREFILL_LOAD_CUH

#include "cuda/mma_fragments.cuh"
#include "cuda/shared_memory.cuh"

template <int DP> FA_DEVICE constexpr int fa_swizzle(int row) {
  return DP % 64 == 0 ? row & 7 : (row >> 1) & 3;
}
template <int DP> FA_DEVICE constexpr int fa_chunk_at(int row, int chunk) {
  return row * DP * 2 + ((chunk ^ fa_swizzle<DP>(row)) << 4);
}

FA_DEVICE int2 fa_shared_fetch(unsigned address) {
  int2 x;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "r"(address) : "memory");
  return x;
}

/* `bytes` of 16 are read, the rest is zero. */
FA_DEVICE void fa_copy_async(unsigned address, const void *source, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source), "r"(bytes) : "memory");
}
FA_DEVICE void fa_copy_async_whole(unsigned address, const void *source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(source) : "memory");
}
FA_DEVICE void fa_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until at most `groups` of those committed are on their way. */
template <int groups> FA_DEVICE void fa_copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory"); }

/* threadIdx.x, read again at each use: what is derived from it is not worth a register through the loop. */
FA_DEVICE unsigned fa_thread() {
  unsigned x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

/* A value that all lanes have, told to the compiler: it goes to a uniform register, where branches on it are free. */
FA_DEVICE int fa_uniform(int x) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(~0u, x);
#else
  return x;
#endif
}
FA_DEVICE const char *fa_uniform(const char *x) {
  const uint64_t bits = (uint64_t)x;
  return (const char *)((uint64_t)(unsigned)fa_uniform((int)(bits >> 32)) << 32 | (unsigned)fa_uniform((int)bits));
}

/* Where the rows of a tile come from: q of one head, or k or v of one KV head. */
struct fa_source {
  const fa_cuda_tensor &tensor;
  int head, dim;
  int lo, hi; /* rows that exist and are wanted */
  bool is_q;
};

FA_DEVICE const uint16_t *fa_source_row(const fa_cuda_params &p, const fa_sequence &s, const fa_source &from, int row) {
  return (const uint16_t *)from.tensor.data + (from.is_q ? fa_row_offset(p, s, from.tensor, from.head, row)
                                                         : fa_token_offset(p, s, from.tensor, from.head, row));
}

/* Eight elements, by elements where vectors do not fit. */
FA_DEVICE uint4 fa_read_chunk(const fa_cuda_params &p, const fa_sequence &s, const fa_source &from, int row, int column) {
  uint4 x = make_uint4(0, 0, 0, 0);
  if (row < from.lo || row >= from.hi || column >= from.dim) return x;
  const uint16_t *source = fa_source_row(p, s, from, row) + column;
  const int count = from.dim - column;
  if (p.aligned && count >= 8) return __ldg((const uint4 *)source);
  unsigned e[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) e[i] = i < count ? source[i] : 0;
  return make_uint4(e[0] | e[1] << 16, e[2] | e[3] << 16, e[4] | e[5] << 16, e[6] | e[7] << 16);
}

FA_DEVICE constexpr int fa_power_in(int n) { return n % 2 ? 1 : 2 * fa_power_in(n / 2); }

/* A tile of ROWS rows. Thread t moves chunk t % across, and those `across` further on, of row t / across and of every
 * `down`-th row after it: one address a thread and a row, since what the swizzle adds is the same for all of them. */
template <int DP, int ROWS, int THREADS> struct fa_tile {
  static constexpr int chunks = DP / 8, power = fa_power_in(chunks), most = THREADS / 8;
  static constexpr int across = power < most ? power : most, groups = chunks / across;
  static constexpr int down = THREADS / across, passes = ROWS / down, each = passes * groups;
  static_assert(THREADS % across == 0 && ROWS % down == 0, "every thread moves the same number of chunks");
  static_assert(DP % 64 == 0 ? down % 8 == 0 && across >= 8 : down % 8 == 0 && across >= 4, "one swizzle a thread");

  /* A tile whose rows all exist, one stride apart, as whole vectors: no test per chunk. */
  static FA_MEMBER bool is_simple(const fa_cuda_params &p, const fa_source &from, int first) {
    return p.aligned && from.dim == DP && first >= from.lo && first + ROWS <= from.hi &&
           (from.is_q || !p.page_table || p.page_size % ROWS == 0);
  }

  /* cp.async of a simple tile whose first row is `first`, rows `stride` bytes apart; to be committed by the caller. */
  static FA_MEMBER void copy_simple(const char *first, int64_t stride, unsigned shared) {
    const unsigned thread = fa_thread(), row = thread / across, chunk = thread % across;
    const char *from = first + row * stride + chunk * 16;
    const unsigned to = shared + fa_chunk_at<DP>(row, chunk);
#pragma unroll
    for (int n = 0; n < passes; ++n, from += down * stride)
#pragma unroll
      for (int group = 0; group < groups; ++group)
        fa_copy_async_whole(to + n * down * DP * 2 + group * across * 16, from + group * across * 16);
  }

  /* The same for a head size below DP, where the rest of a row is zeros. */
  static FA_MEMBER void copy_narrow(const char *first, int64_t stride, int dim, unsigned shared) {
    const unsigned thread = fa_thread(), row = thread / across, chunk = thread % across;
    const char *from = first + row * stride + chunk * 16;
    const unsigned to = shared + fa_chunk_at<DP>(row, chunk);
#pragma unroll
    for (int group = 0; group < groups; ++group) {
      const int bytes = max(0, min(16, 2 * dim - (int)(chunk + group * across) * 16));
      const char *at = bytes ? from + group * across * 16 : first;
#pragma unroll
      for (int n = 0; n < passes; ++n, at += bytes ? down * stride : 0)
        fa_copy_async(to + n * down * DP * 2 + group * across * 16, at, bytes);
    }
  }

  /* Any tile. */
  static FA_MEMBER void copy(const fa_cuda_params &p, const fa_sequence &s, const fa_source &from, int first,
                             unsigned shared) {
    if (is_simple(p, from, first)) {
      copy_simple((const char *)fa_source_row(p, s, from, first), from.tensor.stride_seq * 2, shared);
      return;
    }
#pragma unroll 1
    for (int index = fa_thread(); index < ROWS * chunks; index += THREADS) {
      const int row = index / chunks, chunk = index % chunks, column = chunk * 8;
      const unsigned to = shared + fa_chunk_at<DP>(row, chunk);
      if (p.aligned) {
        const bool inside = first + row >= from.lo && first + row < from.hi && column < from.dim;
        fa_copy_async(to, inside ? (const void *)(fa_source_row(p, s, from, first + row) + column) : from.tensor.data,
                      inside ? 2 * min(8, from.dim - column) : 0);
      } else {
        fa_shared_store(to, fa_read_chunk(p, s, from, first + row, column));
      }
    }
  }

  /* A simple tile through registers: fetch, work on something else, store. */
  static FA_MEMBER void fetch(const char *first, int64_t stride, uint4 (&x)[each]) {
    const unsigned thread = fa_thread();
    const char *from = first + thread / across * stride + thread % across * 16;
#pragma unroll
    for (int n = 0; n < passes; ++n, from += down * stride)
#pragma unroll
      for (int group = 0; group < groups; ++group) x[n * groups + group] = __ldg((const uint4 *)(from + group * across * 16));
  }
  static FA_MEMBER void store(unsigned shared, const uint4 (&x)[each]) {
    const unsigned thread = fa_thread(), to = shared + fa_chunk_at<DP>(thread / across, thread % across);
#pragma unroll
    for (int n = 0; n < each; ++n)
      fa_shared_store(to + n / groups * down * DP * 2 + n % groups * across * 16, x[n]);
  }
  /* Any tile, at once. */
  static FA_MEMBER void move_by_chunks(const fa_cuda_params &p, const fa_sequence &s, const fa_source &from, int first,
                                       unsigned shared) {
#pragma unroll 1
    for (int index = fa_thread(); index < ROWS * chunks; index += THREADS) {
      const int row = index / chunks, chunk = index % chunks;
      fa_shared_store(shared + fa_chunk_at<DP>(row, chunk), fa_read_chunk(p, s, from, first + row, chunk * 8));
    }
  }
};

#endif
