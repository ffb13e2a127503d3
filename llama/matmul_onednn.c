#include "matmul_onednn.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "oneapi/dnnl/dnnl.h"

/* Shapes whose compiled products are kept: one token, a full block of a prompt and a remainder, for some
 * eight matrices of a model, with room to spare for batches that shrink as their prompts end. */
enum { KEPT = 96 };

struct fa_packed_weights {
  int64_t outputs, inputs;
  dnnl_memory_desc_t layout;
  dnnl_memory_t memory;
  void *data;
};

typedef struct compiled {
  int64_t outputs, inputs, call_rows, y_stride;
  bool packed;
  fa_finish finish;
  fa_activation activation;
  uint64_t last_use; /* 0: the entry is free */
  dnnl_primitive_t primitive;
  dnnl_memory_t x, factor, y;
  dnnl_memory_t rows; /* weights that are not packed */
} compiled;

struct fa_products {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_data_type_t type;
  int threads;
  uint64_t clock;
  compiled kept[KEPT];
};

static fa_status failed(dnnl_status_t status, const char *doing) {
  if (status == dnnl_out_of_memory) return fa_llama_out_of_memory(doing);
  return fa_llama_fail(FA_ERROR_DEVICE, "oneDNN failed (status %d) at %s", (int)status, doing);
}

fa_status fa_products_create(bool bf16, int threads, fa_products **result) {
  fa_products *products = calloc(1, sizeof *products);
  if (!products) return fa_llama_out_of_memory("the matrix products");
  products->type = bf16 ? dnnl_bf16 : dnnl_f32;
  products->threads = threads;
  dnnl_status_t status = dnnl_engine_create(&products->engine, dnnl_cpu, 0);
  if (status == dnnl_success) {
    status = dnnl_stream_create(&products->stream, products->engine, dnnl_stream_default_flags);
  }
  if (status != dnnl_success) {
    fa_products_free(products);
    return failed(status, "opening the CPU");
  }
  *result = products;
  return FA_OK;
}

static void forget(compiled *c) {
  if (c->primitive) dnnl_primitive_destroy(c->primitive);
  if (c->x) dnnl_memory_destroy(c->x);
  if (c->factor) dnnl_memory_destroy(c->factor);
  if (c->y) dnnl_memory_destroy(c->y);
  if (c->rows) dnnl_memory_destroy(c->rows);
  memset(c, 0, sizeof *c);
}

void fa_products_free(fa_products *products) {
  if (!products) return;
  for (int i = 0; i < KEPT; i++) forget(&products->kept[i]);
  if (products->stream) dnnl_stream_destroy(products->stream);
  if (products->engine) dnnl_engine_destroy(products->engine);
  free(products);
}

/* ------------------------------------------------------------------------ layouts */

static dnnl_status_t describe(dnnl_memory_desc_t *layout, int64_t rows, int64_t columns, int64_t stride,
                              dnnl_data_type_t type) {
  const dnnl_dims_t size = {rows, columns}, strides = {stride, 1};
  return dnnl_memory_desc_create_with_strides(layout, 2, size, type, strides);
}

/* Layouts of one product. weights: NULL lets oneDNN choose. */
typedef struct layouts {
  dnnl_memory_desc_t x, weights, y, factor;
} layouts;

static void layouts_destroy(layouts *l) {
  if (l->x) dnnl_memory_desc_destroy(l->x);
  if (l->weights) dnnl_memory_desc_destroy(l->weights);
  if (l->y) dnnl_memory_desc_destroy(l->y);
  if (l->factor) dnnl_memory_desc_destroy(l->factor);
}

static dnnl_status_t add_finish(dnnl_primitive_attr_t attributes, const fa_product_call *call,
                                const_dnnl_memory_desc_t factor) {
  dnnl_post_ops_t after;
  dnnl_status_t status = dnnl_post_ops_create(&after);
  if (status != dnnl_success) return status;
  switch (call->finish) {
    case FA_FINISH_STORE:
      break;
    case FA_FINISH_ADD:
      status = dnnl_post_ops_append_sum(after, 1.0f, 0, dnnl_data_type_undef);
      break;
    case FA_FINISH_ACTIVATE:
    case FA_FINISH_ACTIVATE_ROUND:
      status = call->activation == FA_ACTIVATION_SILU
                   ? dnnl_post_ops_append_eltwise(after, dnnl_eltwise_swish, 1.0f, 0.0f)
                   : dnnl_post_ops_append_eltwise(after, dnnl_eltwise_gelu_tanh, 0.0f, 0.0f);
      break;
    case FA_FINISH_TIMES_ROUND:
      status = dnnl_post_ops_append_binary(after, dnnl_binary_mul, factor);
      break;
  }
  if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attributes, after);
  dnnl_post_ops_destroy(after);
  return status;
}

static dnnl_status_t describe_product(const fa_products *products, const fa_product_call *call,
                                      int64_t outputs, int64_t inputs, const_dnnl_memory_desc_t weights,
                                      layouts *l, dnnl_primitive_desc_t *descriptor) {
  dnnl_primitive_attr_t attributes = NULL;
  const bool rounds = call->finish == FA_FINISH_ACTIVATE_ROUND || call->finish == FA_FINISH_TIMES_ROUND;
  const dnnl_dims_t size = {inputs, outputs};
  memset(l, 0, sizeof *l);
  *descriptor = NULL;
  dnnl_status_t status = describe(&l->x, call->rows, inputs, inputs, products->type);
  if (status == dnnl_success) {
    status = describe(&l->y, call->rows, outputs, call->y_stride, rounds ? products->type : dnnl_f32);
  }
  if (status == dnnl_success) status = describe(&l->factor, call->rows, outputs, outputs, dnnl_f32);
  if (status == dnnl_success) {
    status =
        weights ? dnnl_memory_desc_clone(&l->weights, weights)
                : dnnl_memory_desc_create_with_tag(&l->weights, 2, size, products->type, dnnl_format_tag_any);
  }
  if (status == dnnl_success) status = dnnl_primitive_attr_create(&attributes);
  if (status == dnnl_success) status = add_finish(attributes, call, l->factor);
  if (status == dnnl_success) {
    status = dnnl_matmul_primitive_desc_create(descriptor, products->engine, l->x, l->weights, NULL, l->y,
                                               attributes);
  }
  if (attributes) dnnl_primitive_attr_destroy(attributes);
  return status;
}

/* ------------------------------------------------------------------------ packing */

/* The layout best for one token: decoding is bound by reading weights, and prompts lose little by it. */
static dnnl_status_t choose_layout(fa_products *products, fa_packed_weights *weights) {
  const fa_product_call one = {.finish = FA_FINISH_STORE, .rows = 1, .y_stride = weights->outputs};
  layouts l;
  dnnl_primitive_desc_t descriptor;
  dnnl_status_t status =
      describe_product(products, &one, weights->outputs, weights->inputs, NULL, &l, &descriptor);
  if (status == dnnl_success) {
    status = dnnl_memory_desc_clone(&weights->layout,
                                    dnnl_primitive_desc_query_md(descriptor, dnnl_query_weights_md, 0));
  }
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  layouts_destroy(&l);
  return status;
}

static dnnl_status_t reorder(fa_products *products, fa_packed_weights *weights, const void *rows) {
  const dnnl_dims_t size = {weights->inputs, weights->outputs};
  dnnl_memory_desc_t plain = NULL;
  dnnl_memory_t source = NULL;
  dnnl_primitive_desc_t descriptor = NULL;
  dnnl_primitive_t primitive = NULL;
  dnnl_status_t status = dnnl_memory_desc_create_with_tag(&plain, 2, size, products->type, dnnl_ba);
  if (status == dnnl_success) {
    status = dnnl_memory_create(&source, plain, products->engine, (void *)(uintptr_t)rows);
  }
  if (status == dnnl_success) {
    status = dnnl_reorder_primitive_desc_create(&descriptor, plain, products->engine, weights->layout,
                                                products->engine, NULL);
  }
  if (status == dnnl_success) status = dnnl_primitive_create(&primitive, descriptor);
  if (status == dnnl_success) {
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, weights->memory}};
    status = dnnl_primitive_execute(primitive, products->stream, 2, arguments);
  }
  if (status == dnnl_success) status = dnnl_stream_wait(products->stream);
  if (primitive) dnnl_primitive_destroy(primitive);
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  if (source) dnnl_memory_destroy(source);
  if (plain) dnnl_memory_desc_destroy(plain);
  return status;
}

fa_status fa_packed_weights_create(fa_products *products, int64_t outputs, int64_t inputs, const void *rows,
                                   fa_packed_weights **result) {
  fa_packed_weights *weights = calloc(1, sizeof *weights);
  if (!weights) return fa_llama_out_of_memory("a weight");
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(products->threads);
  weights->outputs = outputs;
  weights->inputs = inputs;
  dnnl_status_t status = choose_layout(products, weights);
  if (status == dnnl_success) {
    const size_t bytes = (dnnl_memory_desc_get_size(weights->layout) + 63) / 64 * 64;
    weights->data = aligned_alloc(64, bytes);
    if (!weights->data) status = dnnl_out_of_memory;
  }
  if (status == dnnl_success) {
    status = dnnl_memory_create(&weights->memory, weights->layout, products->engine, weights->data);
  }
  if (status == dnnl_success) status = reorder(products, weights, rows);
  omp_set_num_threads(threads_before);
  if (status != dnnl_success) {
    fa_packed_weights_free(weights);
    return failed(status, "packing a weight");
  }
  *result = weights;
  return FA_OK;
}

void fa_packed_weights_free(fa_packed_weights *weights) {
  if (!weights) return;
  if (weights->memory) dnnl_memory_destroy(weights->memory);
  if (weights->layout) dnnl_memory_desc_destroy(weights->layout);
  free(weights->data);
  free(weights);
}

size_t fa_packed_weights_bytes(const fa_packed_weights *weights) {
  return dnnl_memory_desc_get_size(weights->layout);
}

/* ------------------------------------------------------------------------ running */

/* One product's weights: packed ones, or rows as they lie in memory. */
typedef struct operand {
  int64_t outputs, inputs;
  const fa_packed_weights *packed; /* NULL: rows */
  const void *rows;
} operand;

static dnnl_status_t compile(fa_products *products, const operand *weights, const fa_product_call *call,
                             compiled *c) {
  const dnnl_dims_t size = {weights->inputs, weights->outputs};
  dnnl_memory_desc_t plain = NULL;
  dnnl_primitive_desc_t descriptor = NULL;
  layouts l = {NULL, NULL, NULL, NULL};
  dnnl_status_t status = dnnl_memory_desc_create_with_tag(&plain, 2, size, products->type, dnnl_ba);
  if (status == dnnl_success) {
    status = describe_product(products, call, weights->outputs, weights->inputs,
                              weights->packed ? weights->packed->layout : plain, &l, &descriptor);
  }
  if (status == dnnl_success) status = dnnl_primitive_create(&c->primitive, descriptor);
  if (status == dnnl_success) status = dnnl_memory_create(&c->x, l.x, products->engine, DNNL_MEMORY_NONE);
  if (status == dnnl_success) status = dnnl_memory_create(&c->y, l.y, products->engine, DNNL_MEMORY_NONE);
  if (status == dnnl_success) {
    status = dnnl_memory_create(&c->factor, l.factor, products->engine, DNNL_MEMORY_NONE);
  }
  if (status == dnnl_success) status = dnnl_memory_create(&c->rows, plain, products->engine, DNNL_MEMORY_NONE);
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  if (plain) dnnl_memory_desc_destroy(plain);
  layouts_destroy(&l);
  return status;
}

static bool fits(const compiled *c, const operand *weights, const fa_product_call *call) {
  return c->last_use && c->call_rows == call->rows && c->outputs == weights->outputs &&
         c->inputs == weights->inputs && c->packed == (weights->packed != NULL) &&
         c->y_stride == call->y_stride && c->finish == call->finish && c->activation == call->activation;
}

/* The compiled product, from the kept ones or made in the place of the one unused longest. */
static dnnl_status_t find(fa_products *products, const operand *weights, const fa_product_call *call,
                          compiled **found) {
  compiled *oldest = &products->kept[0];
  for (int i = 0; i < KEPT; i++) {
    compiled *c = &products->kept[i];
    if (fits(c, weights, call)) {
      *found = c;
      c->last_use = ++products->clock;
      return dnnl_success;
    }
    if (c->last_use < oldest->last_use) oldest = c;
  }
  forget(oldest);
  const dnnl_status_t status = compile(products, weights, call, oldest);
  if (status != dnnl_success) {
    forget(oldest);
    return status;
  }
  oldest->outputs = weights->outputs;
  oldest->inputs = weights->inputs;
  oldest->packed = weights->packed != NULL;
  oldest->call_rows = call->rows;
  oldest->y_stride = call->y_stride;
  oldest->finish = call->finish;
  oldest->activation = call->activation;
  oldest->last_use = ++products->clock;
  *found = oldest;
  return dnnl_success;
}

static fa_status run(fa_products *products, const operand *weights, const fa_product_call *call) {
  compiled *c = NULL;
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(products->threads);
  dnnl_status_t status = find(products, weights, call, &c);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(c->x, (void *)(uintptr_t)call->x);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(c->factor, (void *)(uintptr_t)call->factor);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(c->y, call->y);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(c->rows, (void *)(uintptr_t)weights->rows);
  if (status == dnnl_success) {
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, c->x},
                                         {DNNL_ARG_WEIGHTS, weights->packed ? weights->packed->memory : c->rows},
                                         {DNNL_ARG_DST, c->y},
                                         {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, c->factor}};
    status = dnnl_primitive_execute(c->primitive, products->stream,
                                    call->finish == FA_FINISH_TIMES_ROUND ? 4 : 3, arguments);
  }
  if (status == dnnl_success) status = dnnl_stream_wait(products->stream);
  omp_set_num_threads(threads_before);
  return status == dnnl_success ? FA_OK : failed(status, "a matrix product");
}

fa_status fa_products_run(fa_products *products, const fa_packed_weights *weights, const fa_product_call *call) {
  const operand packed = {weights->outputs, weights->inputs, weights, NULL};
  return run(products, &packed, call);
}

fa_status fa_products_run_rows(fa_products *products, int64_t outputs, int64_t inputs, const void *rows,
                               const fa_product_call *call) {
  const operand plain = {outputs, inputs, NULL, rows};
  return run(products, &plain, call);
}
