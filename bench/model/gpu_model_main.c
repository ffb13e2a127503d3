/* gpu_model: prints what the model says of every kernel that was counted. */
#include <stdio.h>
#include <string.h>

#include "gpu_model.h"

static int width(int unit) {
  const int length = (int)strlen(fa_model_unit_name((fa_model_unit)unit));
  return length < 5 ? 5 : length;
}

int main(void) {
  printf("model: cycles of a sub-core for one step of its warps, from the compiled kernels' instructions\n");
  printf("%-13s %-5s %4s %8s", "kernel", "GPU", "D", "tile");
  for (int unit = 0; unit < FA_MODEL_UNITS; unit++)
    printf(" %*s", width(unit), fa_model_unit_name((fa_model_unit)unit));
  printf(" scheduled  binds: share of peak if it never waits; as scheduled\n");
  for (size_t i = 0; i < fa_model_kernel_count; i++) {
    const fa_model_kernel *const kernel = &fa_model_kernels[i];
    const fa_model_gpu *const gpu = fa_model_find_gpu(kernel->gpu);
    if (!gpu) {
      fprintf(stderr, "gpu_model: no rates for the GPU '%s' of %s\n", kernel->gpu, kernel->kernel);
      return 1;
    }
    fa_model_result result;
    fa_model_predict(gpu, kernel, &result);
    char tile[24];
    snprintf(tile, sizeof tile, "%dx%d", kernel->rows, kernel->keys);
    printf("%-13s %-5s %4d %8s", kernel->kernel, kernel->gpu, kernel->head_dim, tile);
    for (int unit = 0; unit < FA_MODEL_UNITS; unit++) printf(" %*.0f", width(unit), result.cycles[unit]);
    printf(" %9d  %s: %.0f%%; %.0f%% of %.0f, %.1f TFLOP/s (model)\n", kernel->scheduled,
           fa_model_unit_name(result.binding), 100.0 * result.bound_share, 100.0 * result.share,
           result.peak_tflops, result.tflops);
  }
  for (int dim = 64; dim <= 128; dim += 64) {
    fa_model_result ours, theirs;
    const fa_model_gpu *const gpu = fa_model_find_gpu("V100");
    const fa_model_kernel *const our_kernel = fa_model_find_kernel("prefill_sm70", "V100", dim);
    const fa_model_kernel *const their_kernel = fa_model_find_kernel("xformers", "V100", dim);
    if (!our_kernel || !their_kernel) continue;
    fa_model_predict(gpu, our_kernel, &ours);
    fa_model_predict(gpu, their_kernel, &theirs);
    printf("V100, D %d: prefill_sm70 %.2f times xformers (model)\n", dim, ours.share / theirs.share);
  }
  return 0;
}
