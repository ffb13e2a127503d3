#include "ascend/host/sim_matmul.h"

#include <string.h>

#include "ascend/host/baseline_tiles.h"

fa_status fa_ascend_sim_matmul(const fa_context *context, const fa_ascend_sim_product *p) {
  const fa_ascend_device *device = fa_ascend_device_of(context);
  const int64_t sizes[] = {p->m, p->n, p->k};
  for (int n = 0; n < 3; ++n)
    if (sizes[n] < 1 || sizes[n] > INT32_MAX)
      return fa_fail(FA_ERROR_UNSUPPORTED, "a product of %lld x %lld x %lld; each has to be 1 to 2^31 - 1", (long long)p->m,
                     (long long)p->n, (long long)p->k);
  fa_ascend_matmul tiling;
  memset(&tiling, 0, sizeof tiling);
  tiling.a_row = tiling.b_row = tiling.k = p->k;
  tiling.c_row = tiling.n = p->n;
  tiling.m = p->m;
  tiling.batch = tiling.heads = tiling.group = 1;
  tiling.b_is_transposed = 1;
  tiling.is_bf16 = p->is_bf16;
  tiling.band = FA_ASCEND_BAND_NONE;
  fa_ascend_matmul_tiles(&tiling, device->chip.groups);

  fa_ascend_function function = NULL;
  const fa_status status = device->runtime->find(context, &fa_ascend_matmul_code, &function);
  if (status != FA_OK) return status;
  const fa_ascend_argument arguments[] = {fa_ascend_bytes("a", p->a, (size_t)(p->m * p->k) * 2, FA_ASCEND_READS),
                                          fa_ascend_bytes("b", p->b, (size_t)(p->n * p->k) * 2, FA_ASCEND_READS),
                                          fa_ascend_bytes("c", p->c, (size_t)(p->m * p->n) * 2, FA_ASCEND_WRITES),
                                          fa_ascend_bytes("workspace", NULL, 0, FA_ASCEND_SCRATCH)};
  const fa_ascend_launch launch = {
      function, device->chip.groups, arguments, sizeof arguments / sizeof arguments[0],
      &tiling,  sizeof tiling,       0};
  return device->runtime->start(context, &launch, NULL);
}
