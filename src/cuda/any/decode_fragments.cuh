/* What decode_any_mma.cuh is made of: the copy that parks 16 bytes a lane in shared memory, the product, and the way
 * from cache bytes to the product's 16-bit operands. Compute capability 7.5 and later. */
#ifndef FA_CUDA_ANY_DECODE_FRAGMENTS_CUH
#define FA_CUDA_ANY_DECODE_FRAGMENTS_CUH

#include "cuda/any/parts.cuh"
#include "cuda/shared_memory.cuh"

/* `bytes` (0 .. 16) of 16 from global to shared memory, zeros behind. `from` is aligned to 16. */
FA_DEVICE void fa_park(unsigned to, const char *from, int bytes) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#else
  uint4 x = {0, 0, 0, 0};
  if (bytes == 16) {
    x = __ldg((const uint4 *)from);
  } else if (bytes > 0) { /* the last chunk of an odd head size; 2-byte elements or 1-byte ones */
    unsigned word[4] = {0, 0, 0, 0};
#pragma unroll
    for (int n = 0; n < 16; ++n)
      if (n < bytes) word[n / 4] |= (unsigned)(uint8_t)from[n] << n % 4 * 8;
    x = make_uint4(word[0], word[1], word[2], word[3]);
  }
  fa_shared_store(to, x);
#endif
}

FA_DEVICE void fa_park_whole(unsigned to, const char *from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(from) : "memory");
#else
  fa_shared_store(to, __ldg((const uint4 *)from));
#endif
}

/* 4 bytes, or a zero. */
FA_DEVICE void fa_park_word(unsigned to, const float *from, bool wanted) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(from), "r"(wanted ? 4 : 0) : "memory");
#else
  const float x = wanted ? *from : 0.0f;
  asm volatile("st.shared.f32 [%0], %1;\n" ::"r"(to), "f"(x) : "memory");
#endif
}

FA_DEVICE void fa_park_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/* Until at most `pending` (0, 1 or 2: of 2 to 4 stages) of this thread's groups are under way. */
FA_DEVICE void fa_park_wait(int pending) {
#if __CUDA_ARCH__ >= 800
  if (pending == 0)
    asm volatile("cp.async.wait_group 0;\n" ::: "memory");
  else if (pending == 1)
    asm volatile("cp.async.wait_group 1;\n" ::: "memory");
  else
    asm volatile("cp.async.wait_group 2;\n" ::: "memory");
#else
  (void)pending;
#endif
}

FA_DEVICE float2 fa_fetch_floats(unsigned from) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];\n" : "=f"(x.x), "=f"(x.y) : "r"(from) : "memory");
  return x;
}

/* c += a b, 16 x 8 x 16, fp32 accumulators. With g = lane / 4, t = lane % 4: a is rows g and g + 8 at k = 2t, 2t + 1
 * (x, y), then the same rows 8 further on in k (z, w); b0, b1 column g at k = 2t .. and 2t + 8 ..; c row g, columns
 * 2t and 2t + 1, then row g + 8. sm_75 has half of it, for fp16 only. */
template <class T>
FA_DEVICE void fa_multiply(float (&c)[4], const uint4 &a, unsigned b0, unsigned b1);

template <>
__device__ __forceinline__ void fa_multiply<__half>(float (&c)[4], const uint4 &a, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 750
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a.x), "r"(a.y), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a.z), "r"(a.w), "r"(b1));
#endif
}

template <>
__device__ __forceinline__ void fa_multiply<__nv_bfloat16>(float (&c)[4], const uint4 &a, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#endif
}

template <class T>
FA_DEVICE unsigned fa_pack(float low, float high);
template <>
__device__ __forceinline__ unsigned fa_pack<__half>(float low, float high) {
  const __half2 x = __floats2half2_rn(low, high);
  return *(const unsigned *)&x;
}
template <>
__device__ __forceinline__ unsigned fa_pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 x = __floats2bfloat162_rn(low, high);
  return *(const unsigned *)&x;
}

/* Four cache bytes to two pairs of T, exactly: every int8 and every E4M3 number is one of fp16 and of bf16. */
template <class T, class KV>
struct fa_widen;

template <>
struct fa_widen<__half, fa_i8> { /* byte ^ 0x80 behind 0x64 is the half 1024 + 128 + x */
  static __device__ __forceinline__ void word(unsigned w, unsigned &a, unsigned &b) {
    const unsigned flipped = w ^ 0x80808080u, bias = 0x64806480u;
    const unsigned x = __byte_perm(flipped, 0x64646464u, 0x4140), y = __byte_perm(flipped, 0x64646464u, 0x4342);
    const __half2 p = __hsub2(*(const __half2 *)&x, *(const __half2 *)&bias);
    const __half2 q = __hsub2(*(const __half2 *)&y, *(const __half2 *)&bias);
    a = *(const unsigned *)&p, b = *(const unsigned *)&q;
  }
};

template <>
struct fa_widen<__nv_bfloat16, fa_i8> { /* byte ^ 0x80 below 0x4b0000 is the float 2^23 + 128 + x */
  static __device__ __forceinline__ void word(unsigned w, unsigned &a, unsigned &b) {
    const unsigned flipped = w ^ 0x80808080u;
    unsigned f[4];
#pragma unroll
    for (int n = 0; n < 4; ++n)
      f[n] = __float_as_uint(__uint_as_float(__byte_perm(flipped, 0x4b000000u, 0x7440 + n)) - 8388736.0f);
    a = __byte_perm(f[0], f[1], 0x7632), b = __byte_perm(f[2], f[3], 0x7632);
  }
};

/* The magnitude moves to the 16-bit type's place and a power of two makes up for the bias. NaN becomes 480: the caller
 * looks for it with fa_has_nan. */
template <>
struct fa_widen<__half, fa_f8> {
  static __device__ __forceinline__ unsigned pair(unsigned z) {
    const unsigned x = (z & 0x80008000u) | ((z & 0x7fff7fffu) >> 1), factor = 0x5c005c00u; /* 2^8 */
    const __half2 p = __hmul2(*(const __half2 *)&x, *(const __half2 *)&factor);
    return *(const unsigned *)&p;
  }
  static __device__ __forceinline__ void word(unsigned w, unsigned &a, unsigned &b) {
    a = pair(__byte_perm(w, 0, 0x1404)), b = pair(__byte_perm(w, 0, 0x3424));
  }
};

template <>
struct fa_widen<__nv_bfloat16, fa_f8> {
  static __device__ __forceinline__ unsigned pair(unsigned z) {
    const unsigned x = (z & 0x80008000u) | ((z & 0x7fff7fffu) >> 4), factor = 0x7b807b80u; /* 2^120 */
    const __nv_bfloat162 p = __hmul2(*(const __nv_bfloat162 *)&x, *(const __nv_bfloat162 *)&factor);
    return *(const unsigned *)&p;
  }
  static __device__ __forceinline__ void word(unsigned w, unsigned &a, unsigned &b) {
    a = pair(__byte_perm(w, 0, 0x1404)), b = pair(__byte_perm(w, 0, 0x3424));
  }
};

/* Not 0 if one of four E4M3 bytes is NaN (magnitude 0x7f). */
FA_DEVICE unsigned fa_has_nan(unsigned w) { return ((w & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u; }

#endif
