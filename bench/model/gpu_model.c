#include "gpu_model.h"

#include <ctype.h>
#include <string.h>

#define SUB_CORES 4.0
/* Cycles of a unit of one sub-core, a warp's instruction each; sources in docs/gpu_model.md. */
#define HALF_RATE_CYCLES 2.0 /* 32 lanes on 16-lane units: FMA, ALU, half */
#define XU_CYCLES 8.0        /* 32 lanes, four a clock */
#define SHUFFLE_CYCLES 2.0   /* of the pipe that four sub-cores share */
#define TENSOR_FMA 128.0     /* multiply-adds a clock and sub-core: two tensor cores of 64 */
#define WORD_BYTES 128.0     /* a register of a warp */
#define HEAD_QUERIES 4096.0  /* whose blocks share K and V in L2 */

static const fa_model_gpu gpus[] = {
    {"V100", "prefill_sm70", 80, 1.53e9, 900e9, 2155e9, 128.0},
    {"T4", "prefill_sm75", 40, 1.59e9, 320e9, 1270e9, 64.0},
};

const fa_model_kernel fa_model_kernels[] = {
#define GPU_KERNEL(kernel, gpu, head_dim, rows, keys, warps, blocks, tensor, fma, alu, half, xu, lds, sts, \
                   shuffles, loads, instructions, scheduled)                                               \
  {#kernel, #gpu, head_dim, rows, keys, warps,    blocks, tensor,       fma,                               \
   alu,     half, xu,       lds,  sts,  shuffles, loads,  instructions, scheduled},
#include "kernel_counts.def"
#undef GPU_KERNEL
};
const size_t fa_model_kernel_count = sizeof fa_model_kernels / sizeof *fa_model_kernels;

const fa_model_gpu *fa_model_find_gpu(const char *description) {
  for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++) {
    const char *const at = strstr(description, gpus[i].name);
    /* Not "T4" in "T400", and not the V100S, whose clock and memory are others. */
    if (at && !isalnum((unsigned char)at[strlen(gpus[i].name)])) return &gpus[i];
  }
  return NULL;
}

const fa_model_kernel *fa_model_find_kernel(const char *kernel, const char *gpu, int64_t head_dim) {
  const fa_model_kernel *best = NULL;
  for (size_t i = 0; i < fa_model_kernel_count; i++) {
    const fa_model_kernel *const k = &fa_model_kernels[i];
    if (strcmp(k->kernel, kernel) != 0 || strcmp(k->gpu, gpu) != 0 || k->head_dim < head_dim) continue;
    if (!best || k->head_dim < best->head_dim) best = k;
  }
  return best;
}

const char *fa_model_unit_name(fa_model_unit unit) {
  static const char *const names[FA_MODEL_UNITS] = {"MMA",  "FMA",          "ALU",   "MUFU+F2F", "LDS", "STS",
                                                    "SHFL", "LDS+STS+SHFL", "issue", "L2",       "HBM"};
  return names[unit];
}

void fa_model_predict(const fa_model_gpu *gpu, const fa_model_kernel *kernel, fa_model_result *result) {
  const double warps = (double)(kernel->warps * kernel->blocks) / SUB_CORES; /* a sub-core */
  const double shared = warps * SUB_CORES; /* that pipe serves the warps of all four */
  const double word_cycles = WORD_BYTES / gpu->shared_bytes;
  const double kv_bytes = 2.0 * 2.0 * kernel->keys * kernel->head_dim * kernel->blocks;
  double *const cycles = result->cycles;
  cycles[FA_MODEL_MMA] = warps * kernel->tensor_cycles;
  cycles[FA_MODEL_FMA] = warps * kernel->fma * HALF_RATE_CYCLES;
  cycles[FA_MODEL_ALU] = warps * (kernel->alu + kernel->half) * HALF_RATE_CYCLES;
  cycles[FA_MODEL_XU] = warps * kernel->xu * XU_CYCLES;
  cycles[FA_MODEL_LDS] = shared * kernel->lds_words * word_cycles;
  cycles[FA_MODEL_STS] = shared * kernel->sts_words * word_cycles;
  cycles[FA_MODEL_SHFL] = shared * kernel->shuffles * SHUFFLE_CYCLES;
  cycles[FA_MODEL_PIPE] = cycles[FA_MODEL_LDS] + cycles[FA_MODEL_STS] + cycles[FA_MODEL_SHFL];
  cycles[FA_MODEL_ISSUE] = warps * kernel->instructions;
  const double all = kv_bytes * gpu->multiprocessors * gpu->clock;
  const double running = (double)gpu->multiprocessors * kernel->blocks,
               of_a_head = HEAD_QUERIES / kernel->rows;
  cycles[FA_MODEL_L2] = all / gpu->l2_bandwidth;
  cycles[FA_MODEL_HBM] = all / gpu->bandwidth / (of_a_head < running ? of_a_head : running);
  result->binding = FA_MODEL_MMA;
  for (int unit = 0; unit < FA_MODEL_UNITS; unit++) {
    if (cycles[unit] > cycles[result->binding]) result->binding = (fa_model_unit)unit;
  }
  result->step = cycles[result->binding] > kernel->scheduled ? cycles[result->binding] : kernel->scheduled;
  /* What the tile needs, not what the kernel spends on it. */
  const double multiply_adds = 2.0 * kernel->rows * kernel->keys * kernel->head_dim * kernel->blocks;
  const double needed = multiply_adds / (SUB_CORES * TENSOR_FMA);
  result->peak_tflops = 2.0 * TENSOR_FMA * SUB_CORES * gpu->multiprocessors * gpu->clock * 1e-12;
  result->bound_share = needed / cycles[result->binding];
  result->share = needed / result->step;
  result->tflops = result->share * result->peak_tflops;
}

/* Steps of the block whose last row is `last`. */
static double steps_of(const fa_model_kernel *kernel, const fa_model_problem *p, int64_t last) {
  int64_t keys = p->seqlen_kv;
  if (p->causal && last + 1 + p->seqlen_kv - p->seqlen_q < keys) keys = last + 1 + p->seqlen_kv - p->seqlen_q;
  return keys > 0 ? (double)((keys + kernel->keys - 1) / kernel->keys) : 0.0;
}

double fa_model_prefill_ms(const fa_model_gpu *gpu, const fa_model_kernel *kernel,
                           const fa_model_problem *problem) {
  fa_model_result result;
  fa_model_predict(gpu, kernel, &result);
  double head = 0.0, longest = 0.0;
  for (int64_t row = 0; row < problem->seqlen_q; row += kernel->rows) {
    const int64_t end = row + kernel->rows < problem->seqlen_q ? row + kernel->rows : problem->seqlen_q;
    const double steps = steps_of(kernel, problem, end - 1);
    head += steps;
    if (steps > longest) longest = steps;
  }
  const double slots = (double)gpu->multiprocessors * kernel->blocks;
  const double spread = head * (double)problem->batch * (double)problem->heads_q / slots;
  return (spread > longest ? spread : longest) * result.step / gpu->clock * 1e3;
}

double fa_model_decode_ms(const fa_model_gpu *gpu, const fa_model_problem *problem) {
  const double elements = (double)problem->batch * (double)problem->heads_kv * (double)problem->seqlen_kv *
                          (double)problem->head_dim;
  return 2.0 * 2.0 * elements / gpu->bandwidth * 1e3;
}
