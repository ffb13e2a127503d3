/* The Cube matmul on the emulated chip by itself: for those who put a model's other products beside its attention. */
#ifndef FA_ASCEND_SIM_MATMUL_H
#define FA_ASCEND_SIM_MATMUL_H

#include "ascend/host/ascend.h"

/* C = A B^T, all in f16 or bf16, rows next to each other: A is m x k, B (a layer's weights) n x k, C m x n. */
typedef struct fa_ascend_sim_product {
  int64_t m, n, k;
  int is_bf16;
  const void *a, *b; /* within buffers of the context's device */
  void *c;
} fa_ascend_sim_product;

/* One launch on all Cube cores, looked at by the context's view (sim_backend.h). context: of ascend-sim.
 * Errors: UNSUPPORTED (sizes beyond the kernel's integers), ARGUMENT, DEVICE. */
fa_status fa_ascend_sim_matmul(const fa_context *context, const fa_ascend_sim_product *product);

#endif
