/* A matrix product by oneDNN whose operands change from run to run, for the baselines. oneDNN's own words for
 * it are source x weights = result. */
#ifndef FA_CPU_PRODUCT_ONEDNN_H
#define FA_CPU_PRODUCT_ONEDNN_H

#include <stddef.h>
#include <stdint.h>

#include "oneapi/dnnl/dnnl.h"

/* A product of three dense tensors; their addresses change from run to run. Done in `count` executions of one
 * size, the tensors following each other. Where the primitive wants its weights in an order of its own,
 * `pack` puts them. */
typedef struct fa_product {
  dnnl_primitive_t primitive, pack;
  dnnl_memory_t source, weights, result, packed, scratchpad;
  int64_t count;
  size_t source_bytes, weights_bytes, result_bytes, packed_bytes, scratchpad_bytes;
} fa_product;

/* source [batch, rows, depth], weights [batch, depth, columns], result [batch, rows, columns]. */
typedef struct fa_product_shape {
  int64_t batch, rows, depth, columns;
  int transposed; /* weights are [columns, depth] in memory */
  float scale;    /* of the result, before it is rounded */
} fa_product_shape;

/* The fastest way this oneDNN has. After a failure *product holds nothing. Made for the number of threads
 * that omp_get_max_threads() says, which must be the same when it is run. */
dnnl_status_t fa_product_create(fa_product *product, dnnl_engine_t engine, dnnl_data_type_t type,
                                const fa_product_shape *shape);
void fa_product_destroy(fa_product *product); /* all zeros are fine */

/* Does not wait for the stream. packed and scratchpad: room of packed_bytes and scratchpad_bytes, aligned
 * to 64. */
dnnl_status_t fa_product_run(const fa_product *product, dnnl_stream_t stream, char *source, char *weights,
                             char *result, char *packed, char *scratchpad);

#endif
