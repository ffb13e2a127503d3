/* The tensor-core instructions of sm_75 and sm_80 behind one face: D[16 x 8] += A[16 x 16] B[16 x 8], 16-bit in, fp32
 * accumulation, and what belongs to a 16-bit type.
 *
 * With g = lane / 4, t = lane % 4:
 *   A: a0 row g, k 2t..; a1 row g + 8, k 2t..; a2 row g, k 2t + 8..; a3 row g + 8, k 2t + 8..
 *   B: b0 k 2t.., column g; b1 k 2t + 8.., column g
 *   D: d0 d1 row g, columns 2t..; d2 d3 row g + 8, columns 2t..
 * Turing's m16n8k8 takes (a0 a1, b0) and then (a2 a3, b1): the same registers, so one kernel serves both.
 * The accumulators of two neighbouring column tiles, packed in pairs, are an A operand as they are. */
#ifndef FA_CUDA_MMA_FRAGMENTS_CUH
#define FA_CUDA_MMA_FRAGMENTS_CUH

#include "cuda/sequence.cuh"

#define FA_MEMBER __device__ __forceinline__ /* FA_DEVICE for a member function */

FA_DEVICE void fa_load_matrices(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
FA_DEVICE void fa_load_matrices_transposed(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

#define FA_MMA_K16(type)                                                                                        \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "        \
      "{%8, %9}, {%0, %1, %2, %3};"                                                                             \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                          \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

/* What belongs to a 16-bit type: two values packed as `both`; spoilt + both * 0, which stays 0 as long as every value is
 * finite; sums of weights; the products. */
struct fa_half {
  static FA_MEMBER unsigned pack(float low, float high) {
    const __half2 x = __floats2half2_rn(low, high);
    return *(const unsigned *)&x;
  }
  static FA_MEMBER unsigned times_zero(unsigned both, unsigned spoilt) {
    const __half2 x = __hfma2(*(const __half2 *)&both, __float2half2_rn(0.0f), *(const __half2 *)&spoilt);
    return *(const unsigned *)&x;
  }
  /* a + b, which are packed as `both`: not rounded, for speed; one weight's rounding is 2^-12 of o, half of o's own. */
  static FA_MEMBER float sum(unsigned, float a, float b) { return a + b; }
  static FA_MEMBER void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) { FA_MMA_K16("f16"); }
};

struct fa_bfloat {
  static FA_MEMBER unsigned pack(float low, float high) {
    const __nv_bfloat162 x = __floats2bfloat162_rn(low, high);
    return *(const unsigned *)&x;
  }
  static FA_MEMBER unsigned times_zero(unsigned both, unsigned spoilt) {
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(spoilt) : "r"(both), "r"(0));
    return spoilt;
  }
  /* Of the rounded values: a row that one key dominates is then that key's v, whatever rounding did to its weight. */
  static FA_MEMBER float sum(unsigned both, float, float) {
    return __uint_as_float(both << 16) + __uint_as_float(both & 0xffff0000u);
  }
  static FA_MEMBER void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) { FA_MMA_K16("bf16"); }
};

/* Turing: m16n8k8. */
struct fa_half_turing {
  static FA_MEMBER unsigned pack(float low, float high) { return fa_half::pack(low, high); }
  static FA_MEMBER unsigned times_zero(unsigned both, unsigned spoilt) { return fa_half::times_zero(both, spoilt); }
  static FA_MEMBER float sum(unsigned both, float, float) {
    const float2 rounded = __half22float2(*(const __half2 *)&both);
    return rounded.x + rounded.y;
  }
  static FA_MEMBER void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
  }
};

#endif
