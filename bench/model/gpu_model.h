/* A model of the prefill kernels on GPUs that nobody here has: what each unit of a V100 or T4 is asked for in
 * the main loop, and the time that follows. Its inputs are the instruction counts of the compiled kernels
 * (kernel_counts.def, by count_sass.py) and the rates in gpu_model.c. Everything it says is `model`:
 * computed, not measured. Method, sources and what is left out: docs/gpu_model.md. */
#ifndef FA_GPU_MODEL_H
#define FA_GPU_MODEL_H

#include <stddef.h>
#include <stdint.h>

typedef enum fa_model_unit {
  FA_MODEL_MMA,   /* tensor cores */
  FA_MODEL_FMA,   /* fp32 and integer multiply-add */
  FA_MODEL_ALU,   /* integer, logic, compare, select */
  FA_MODEL_XU,    /* exponentials (MUFU) and conversions (F2F) */
  FA_MODEL_LDS,   /* reads of shared memory */
  FA_MODEL_STS,   /* writes of shared memory */
  FA_MODEL_SHFL,  /* shuffles; with LDS and STS one pipe, FA_MODEL_PIPE */
  FA_MODEL_PIPE,  /* LDS + STS + SHFL */
  FA_MODEL_ISSUE, /* one instruction a cycle */
  FA_MODEL_L2,    /* K and V of every block */
  FA_MODEL_HBM,   /* K and V once for the blocks of a head of 4096 queries: the rest comes from L2 */
  FA_MODEL_UNITS
} fa_model_unit;

typedef struct fa_model_gpu {
  const char *name;        /* "V100" */
  const char *kernel;      /* the prefill kernel made for it */
  int32_t multiprocessors; /* four sub-cores each */
  double clock;            /* Hz, boost */
  double bandwidth;        /* bytes/s of device memory */
  double l2_bandwidth;     /* bytes/s */
  double shared_bytes;     /* a clock and multiprocessor */
} fa_model_gpu;

typedef struct fa_model_kernel {
  const char *kernel, *gpu;
  int32_t head_dim, rows, keys; /* rows a block, keys a step */
  int32_t warps, blocks;        /* warps a block, blocks a multiprocessor */
  /* Of a warp for one step: */
  int32_t tensor_cycles, fma, alu, half, xu, lds_words, sts_words, shuffles, loads, instructions;
  /* Cycles a step of the warps of a sub-core: in-order issue with their stalls and waits. */
  int32_t scheduled;
} fa_model_kernel;

typedef struct fa_model_result {
  double cycles[FA_MODEL_UNITS]; /* of a sub-core for one step of all its warps */
  fa_model_unit binding;         /* the largest */
  double step;                   /* cycles a step: the largest of those and `scheduled` */
  double bound_share;            /* of the tensor peak, if the binding unit never waited */
  double share;                  /* of the tensor peak, as scheduled */
  double tflops;
  double peak_tflops;
} fa_model_result;

/* One forward pass, both products: batch x heads_q problems. */
typedef struct fa_model_problem {
  int64_t batch, heads_q, heads_kv, seqlen_q, seqlen_kv, head_dim;
  int causal; /* bottom-right aligned */
} fa_model_problem;

extern const fa_model_kernel fa_model_kernels[];
extern const size_t fa_model_kernel_count;

/* By a device's description, such as "Tesla V100-SXM2-16GB, ..." or "V100"; NULL for one that is not
 * modelled. */
const fa_model_gpu *fa_model_find_gpu(const char *description);
/* The instance that serves head_dim: the least that is large enough. NULL if there is none. */
const fa_model_kernel *fa_model_find_kernel(const char *kernel, const char *gpu, int64_t head_dim);
const char *fa_model_unit_name(fa_model_unit unit);

void fa_model_predict(const fa_model_gpu *gpu, const fa_model_kernel *kernel, fa_model_result *result);
/* Milliseconds of a prefill: steps of all blocks spread over the multiprocessors, at least those of the
 * longest block. Without launch, prologue and epilogue. */
double fa_model_prefill_ms(const fa_model_gpu *gpu, const fa_model_kernel *kernel,
                           const fa_model_problem *problem);
/* Milliseconds of decode with a cache of 16-bit elements: reading it once at the full bandwidth. A lower
 * bound. */
double fa_model_decode_ms(const fa_model_gpu *gpu, const fa_model_problem *problem);

#endif
