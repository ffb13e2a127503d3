/* See product_onednn.h. */
#include "cpu/product_onednn.h"

#include <string.h>

void fa_product_destroy(fa_product *m) {
  if (m->source) dnnl_memory_destroy(m->source);
  if (m->weights) dnnl_memory_destroy(m->weights);
  if (m->result) dnnl_memory_destroy(m->result);
  if (m->packed) dnnl_memory_destroy(m->packed);
  if (m->scratchpad) dnnl_memory_destroy(m->scratchpad);
  if (m->pack) dnnl_primitive_destroy(m->pack);
  if (m->primitive) dnnl_primitive_destroy(m->primitive);
  memset(m, 0, sizeof *m);
}

static dnnl_status_t create_memory(dnnl_memory_t *memory, size_t *bytes, const_dnnl_memory_desc_t desc,
                                   dnnl_engine_t engine) {
  *bytes = dnnl_memory_desc_get_size(desc);
  return dnnl_memory_create(memory, desc, engine, DNNL_MEMORY_NONE);
}

/* The scale goes into the product's epilogue, on fp32 sums. */
static dnnl_status_t create_attributes(dnnl_primitive_attr_t *attributes, float scale) {
  dnnl_post_ops_t post_ops = NULL;
  dnnl_status_t status = dnnl_primitive_attr_create(attributes);
  if (status == dnnl_success)
    status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
  if (status != dnnl_success || scale == 1.0f) return status;
  status = dnnl_post_ops_create(&post_ops);
  if (status == dnnl_success)
    status = dnnl_post_ops_append_eltwise(post_ops, dnnl_eltwise_linear, scale, 0.0f);
  if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*attributes, post_ops);
  if (post_ops) dnnl_post_ops_destroy(post_ops);
  return status;
}

static dnnl_status_t create_scratchpad(fa_product *m, const_dnnl_primitive_desc_t desc,
                                       dnnl_engine_t engine) {
  const_dnnl_memory_desc_t scratchpad = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
  return create_memory(&m->scratchpad, &m->scratchpad_bytes, scratchpad, engine);
}

static dnnl_status_t create_product(fa_product *m, dnnl_engine_t engine, dnnl_data_type_t type,
                                    const fa_product_shape *s) {
  const dnnl_dims_t source_dims = {s->batch, s->rows, s->depth},
                    weights_dims = {s->batch, s->depth, s->columns},
                    result_dims = {s->batch, s->rows, s->columns};
  const dnnl_dims_t source_strides = {s->rows * s->depth, s->depth, 1},
                    result_strides = {s->rows * s->columns, s->columns, 1},
                    weights_strides = {s->depth * s->columns, s->transposed ? 1 : s->columns,
                                       s->transposed ? s->depth : 1};
  dnnl_memory_desc_t source = NULL, weights = NULL, result = NULL;
  dnnl_primitive_attr_t attributes = NULL;
  dnnl_primitive_desc_t desc = NULL;
  dnnl_status_t status = dnnl_memory_desc_create_with_strides(&source, 3, source_dims, type, source_strides);
  if (status == dnnl_success)
    status = dnnl_memory_desc_create_with_strides(&weights, 3, weights_dims, type, weights_strides);
  if (status == dnnl_success)
    status = dnnl_memory_desc_create_with_strides(&result, 3, result_dims, type, result_strides);
  if (status == dnnl_success) status = create_attributes(&attributes, s->scale);
  if (status == dnnl_success)
    status = dnnl_matmul_primitive_desc_create(&desc, engine, source, weights, NULL, result, attributes);
  if (status == dnnl_success) status = dnnl_primitive_create(&m->primitive, desc);
  if (status == dnnl_success) status = create_memory(&m->source, &m->source_bytes, source, engine);
  if (status == dnnl_success) status = create_memory(&m->weights, &m->weights_bytes, weights, engine);
  if (status == dnnl_success) status = create_memory(&m->result, &m->result_bytes, result, engine);
  if (status == dnnl_success) status = create_scratchpad(m, desc, engine);
  m->count = 1;
  if (desc) dnnl_primitive_desc_destroy(desc);
  if (attributes) dnnl_primitive_attr_destroy(attributes);
  if (source) dnnl_memory_desc_destroy(source);
  if (weights) dnnl_memory_desc_destroy(weights);
  if (result) dnnl_memory_desc_destroy(result);
  return status;
}

/* Q K^T of bf16 has a short sum and a wide result, which the matrix product of older oneDNN does poorly. As a
 * 1 x 1 convolution (rows are pixels, head elements input channels, keys output channels) the same product is
 * faster: measured, 4 heads of 4096 x 128 x 4096, K already packed, 2 threads: oneDNN 3.2 53 to 36 ms, 3.6 52 to
 * 33, but 3.13 24 to 37; versions between were not run. One execution a pair: each has weights of its own. */
static int better_as_convolution(const fa_product_shape *s, dnnl_data_type_t type) {
  return type == dnnl_bf16 && s->transposed && s->rows >= 256 && s->columns >= 256 &&
         dnnl_version()->minor <= 7;
}

static dnnl_status_t create_packing(fa_product *m, dnnl_engine_t engine, const_dnnl_memory_desc_t plain,
                                    const_dnnl_memory_desc_t packed) {
  dnnl_primitive_desc_t desc = NULL;
  dnnl_status_t status = dnnl_reorder_primitive_desc_create(&desc, plain, engine, packed, engine, NULL);
  if (status == dnnl_success &&
      dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)) > 0)
    status = dnnl_unimplemented; /* it would allocate */
  if (status == dnnl_success) status = dnnl_primitive_create(&m->pack, desc);
  if (status == dnnl_success) status = create_memory(&m->packed, &m->packed_bytes, packed, engine);
  if (desc) dnnl_primitive_desc_destroy(desc);
  return status;
}

static dnnl_status_t create_convolution(fa_product *m, dnnl_engine_t engine, dnnl_data_type_t type,
                                        const fa_product_shape *s) {
  const dnnl_dims_t source_dims = {1, s->depth, s->rows, 1}, weights_dims = {s->columns, s->depth, 1, 1},
                    result_dims = {1, s->columns, s->rows, 1}, ones = {1, 1}, zeros = {0, 0};
  dnnl_memory_desc_t source = NULL, weights = NULL, any = NULL, result = NULL;
  dnnl_primitive_attr_t attributes = NULL;
  dnnl_primitive_desc_t desc = NULL;
  const char *implementation = "";
  dnnl_status_t status = dnnl_memory_desc_create_with_tag(&source, 4, source_dims, type, dnnl_nhwc);
  if (status == dnnl_success)
    status = dnnl_memory_desc_create_with_tag(&weights, 4, weights_dims, type, dnnl_oihw);
  if (status == dnnl_success)
    status = dnnl_memory_desc_create_with_tag(&any, 4, weights_dims, type, dnnl_format_tag_any);
  if (status == dnnl_success)
    status = dnnl_memory_desc_create_with_tag(&result, 4, result_dims, type, dnnl_nhwc);
  if (status == dnnl_success) status = create_attributes(&attributes, s->scale);
  if (status == dnnl_success)
    status = dnnl_convolution_forward_primitive_desc_create(&desc, engine, dnnl_forward_inference,
                                                            dnnl_convolution_direct, source, any, NULL,
                                                            result, ones, zeros, zeros, zeros, attributes);
  if (status == dnnl_success)
    status = dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &implementation);
  if (status == dnnl_success && strncmp(implementation, "brgconv_1x1", 11) != 0) status = dnnl_unimplemented;
  if (status == dnnl_success) status = dnnl_primitive_create(&m->primitive, desc);
  if (status == dnnl_success) status = create_memory(&m->source, &m->source_bytes, source, engine);
  if (status == dnnl_success) status = create_memory(&m->weights, &m->weights_bytes, weights, engine);
  if (status == dnnl_success) status = create_memory(&m->result, &m->result_bytes, result, engine);
  if (status == dnnl_success) status = create_scratchpad(m, desc, engine);
  if (status == dnnl_success)
    status = create_packing(m, engine, weights, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
  m->count = s->batch;
  if (desc) dnnl_primitive_desc_destroy(desc);
  if (attributes) dnnl_primitive_attr_destroy(attributes);
  if (source) dnnl_memory_desc_destroy(source);
  if (weights) dnnl_memory_desc_destroy(weights);
  if (any) dnnl_memory_desc_destroy(any);
  if (result) dnnl_memory_desc_destroy(result);
  if (status != dnnl_success) fa_product_destroy(m);
  return status;
}

dnnl_status_t fa_product_create(fa_product *m, dnnl_engine_t engine, dnnl_data_type_t type,
                                const fa_product_shape *s) {
  memset(m, 0, sizeof *m);
  if (better_as_convolution(s, type) && create_convolution(m, engine, type, s) == dnnl_success)
    return dnnl_success;
  const dnnl_status_t status = create_product(m, engine, type, s);
  if (status != dnnl_success) fa_product_destroy(m);
  return status;
}

static dnnl_status_t pack_weights(const fa_product *m, dnnl_stream_t stream, char *packed) {
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, m->weights}, {DNNL_ARG_TO, m->packed}};
  const dnnl_status_t status = dnnl_memory_set_data_handle(m->packed, packed);
  return status == dnnl_success ? dnnl_primitive_execute(m->pack, stream, 2, arguments) : status;
}

static dnnl_status_t run_once(const fa_product *m, dnnl_stream_t stream, char *source, char *weights,
                              char *result, char *packed, char *scratchpad) {
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, m->source},
                                       {DNNL_ARG_WEIGHTS, m->pack ? m->packed : m->weights},
                                       {DNNL_ARG_DST, m->result},
                                       {DNNL_ARG_SCRATCHPAD, m->scratchpad}};
  dnnl_status_t status = dnnl_memory_set_data_handle(m->source, source);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(m->weights, weights);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(m->result, result);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(m->scratchpad, scratchpad);
  if (status == dnnl_success && m->pack) status = pack_weights(m, stream, packed);
  if (status == dnnl_success) status = dnnl_primitive_execute(m->primitive, stream, 4, arguments);
  return status;
}

dnnl_status_t fa_product_run(const fa_product *m, dnnl_stream_t stream, char *source, char *weights,
                             char *result, char *packed, char *scratchpad) {
  dnnl_status_t status = dnnl_success;
  for (int64_t n = 0; n < m->count && status == dnnl_success; n++) {
    const size_t at = (size_t)n;
    status = run_once(m, stream, source + at * m->source_bytes, weights + at * m->weights_bytes,
                      result + at * m->result_bytes, packed, scratchpad);
  }
  return status;
}
