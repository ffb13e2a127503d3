#include "matmul_onednn.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "llama_error.h"
#include "oneapi/dnnl/dnnl.h"

/* Row counts whose compiled products are kept, over all shapes of a model: one token, a full block of a
 * prompt and a remainder, for some eight shapes, with room to spare. */
enum { KEPT = 48 };

struct fa_packed_weight {
  int64_t outputs, inputs;
  dnnl_memory_desc_t layout;
  dnnl_memory_t memory;
  void *data;
};

typedef struct product {
  int64_t outputs, inputs, rows;
  fa_epilogue epilogue;
  uint64_t last_use; /* 0: the entry is free */
  dnnl_primitive_t primitive;
  dnnl_memory_t x, other, y;
} product;

struct fa_matmul {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_data_type_t type;
  int threads;
  uint64_t clock;
  product kept[KEPT];
};

static fa_status failed(dnnl_status_t status, const char *doing) {
  if (status == dnnl_out_of_memory) return fa_llama_out_of_memory(doing);
  return fa_llama_fail(FA_ERROR_DEVICE, "oneDNN failed (status %d) at %s", (int)status, doing);
}

fa_status fa_matmul_create(fa_dtype dtype, int threads, fa_matmul **result) {
  fa_matmul *matmul = calloc(1, sizeof *matmul);
  if (!matmul) return fa_llama_out_of_memory("the matrix products");
  matmul->type = dtype == FA_BFLOAT16 ? dnnl_bf16 : dnnl_f32;
  matmul->threads = threads;
  dnnl_status_t status = dnnl_engine_create(&matmul->engine, dnnl_cpu, 0);
  if (status == dnnl_success)
    status = dnnl_stream_create(&matmul->stream, matmul->engine, dnnl_stream_default_flags);
  if (status != dnnl_success) {
    fa_matmul_free(matmul);
    return failed(status, "opening the CPU");
  }
  *result = matmul;
  return FA_OK;
}

static void forget(product *p) {
  if (p->primitive) dnnl_primitive_destroy(p->primitive);
  if (p->x) dnnl_memory_destroy(p->x);
  if (p->other) dnnl_memory_destroy(p->other);
  if (p->y) dnnl_memory_destroy(p->y);
  memset(p, 0, sizeof *p);
}

void fa_matmul_free(fa_matmul *matmul) {
  if (!matmul) return;
  for (int i = 0; i < KEPT; i++) forget(&matmul->kept[i]);
  if (matmul->stream) dnnl_stream_destroy(matmul->stream);
  if (matmul->engine) dnnl_engine_destroy(matmul->engine);
  free(matmul);
}

static dnnl_status_t describe(dnnl_memory_desc_t *layout, int64_t rows, int64_t columns,
                              dnnl_data_type_t type, dnnl_format_tag_t tag) {
  const dnnl_dims_t size = {rows, columns};
  return dnnl_memory_desc_create_with_tag(layout, 2, size, type, tag);
}

static dnnl_status_t add_epilogue(dnnl_primitive_attr_t attributes, fa_epilogue epilogue,
                                  const_dnnl_memory_desc_t other) {
  dnnl_post_ops_t after;
  dnnl_status_t status = dnnl_post_ops_create(&after);
  if (status != dnnl_success) return status;
  if (epilogue == FA_EPILOGUE_ADD) status = dnnl_post_ops_append_sum(after, 1.0f, 0, dnnl_data_type_undef);
  if (epilogue == FA_EPILOGUE_SWISH)
    status = dnnl_post_ops_append_eltwise(after, dnnl_eltwise_swish, 1.0f, 0.0f);
  if (epilogue == FA_EPILOGUE_TIMES) status = dnnl_post_ops_append_binary(after, dnnl_binary_mul, other);
  if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attributes, after);
  dnnl_post_ops_destroy(after);
  return status;
}

/* Layouts of one product. weight is NULL to let oneDNN choose. */
typedef struct layouts {
  dnnl_memory_desc_t x, weight, y, other;
} layouts;

static void layouts_destroy(layouts *l) {
  if (l->x) dnnl_memory_desc_destroy(l->x);
  if (l->weight) dnnl_memory_desc_destroy(l->weight);
  if (l->y) dnnl_memory_desc_destroy(l->y);
  if (l->other) dnnl_memory_desc_destroy(l->other);
}

static dnnl_status_t describe_product(const fa_matmul *matmul, fa_epilogue epilogue, int64_t rows,
                                      int64_t outputs, int64_t inputs, const_dnnl_memory_desc_t packed,
                                      layouts *l, dnnl_primitive_desc_t *descriptor) {
  dnnl_primitive_attr_t attributes = NULL;
  const dnnl_data_type_t y_type = epilogue == FA_EPILOGUE_TIMES ? matmul->type : dnnl_f32;
  memset(l, 0, sizeof *l);
  *descriptor = NULL;
  dnnl_status_t status = describe(&l->x, rows, inputs, matmul->type, dnnl_ab);
  if (status == dnnl_success) status = describe(&l->y, rows, outputs, y_type, dnnl_ab);
  if (status == dnnl_success) status = describe(&l->other, rows, outputs, dnnl_f32, dnnl_ab);
  if (status == dnnl_success) {
    status = packed ? dnnl_memory_desc_clone(&l->weight, packed)
                    : describe(&l->weight, inputs, outputs, matmul->type, dnnl_format_tag_any);
  }
  if (status == dnnl_success) status = dnnl_primitive_attr_create(&attributes);
  if (status == dnnl_success) status = add_epilogue(attributes, epilogue, l->other);
  if (status == dnnl_success) {
    status = dnnl_matmul_primitive_desc_create(descriptor, matmul->engine, l->x, l->weight, NULL, l->y,
                                               attributes);
  }
  if (attributes) dnnl_primitive_attr_destroy(attributes);
  return status;
}

/* ------------------------------------------------------------------------ packing */

/* The layout best for one token: decoding is bound by reading weights, and prompts lose little by it. */
static dnnl_status_t choose_layout(fa_matmul *matmul, fa_packed_weight *weight) {
  layouts l;
  dnnl_primitive_desc_t descriptor;
  dnnl_status_t status =
      describe_product(matmul, FA_EPILOGUE_STORE, 1, weight->outputs, weight->inputs, NULL, &l, &descriptor);
  if (status == dnnl_success) {
    status = dnnl_memory_desc_clone(&weight->layout,
                                    dnnl_primitive_desc_query_md(descriptor, dnnl_query_weights_md, 0));
  }
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  layouts_destroy(&l);
  return status;
}

static dnnl_status_t reorder(fa_matmul *matmul, fa_packed_weight *weight, const float *rows) {
  dnnl_memory_desc_t plain = NULL;
  dnnl_memory_t source = NULL;
  dnnl_primitive_desc_t descriptor = NULL;
  dnnl_primitive_t primitive = NULL;
  dnnl_status_t status = describe(&plain, weight->inputs, weight->outputs, dnnl_f32, dnnl_ba);
  if (status == dnnl_success) {
    status = dnnl_memory_create(&source, plain, matmul->engine, (void *)(uintptr_t)rows);
  }
  if (status == dnnl_success) {
    status = dnnl_reorder_primitive_desc_create(&descriptor, plain, matmul->engine, weight->layout,
                                                matmul->engine, NULL);
  }
  if (status == dnnl_success) status = dnnl_primitive_create(&primitive, descriptor);
  if (status == dnnl_success) {
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, weight->memory}};
    status = dnnl_primitive_execute(primitive, matmul->stream, 2, arguments);
  }
  if (status == dnnl_success) status = dnnl_stream_wait(matmul->stream);
  if (primitive) dnnl_primitive_destroy(primitive);
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  if (source) dnnl_memory_destroy(source);
  if (plain) dnnl_memory_desc_destroy(plain);
  return status;
}

fa_status fa_packed_weight_create(fa_matmul *matmul, int64_t outputs, int64_t inputs, const float *rows,
                                  fa_packed_weight **result) {
  fa_packed_weight *weight = calloc(1, sizeof *weight);
  if (!weight) return fa_llama_out_of_memory("a weight");
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(matmul->threads);
  weight->outputs = outputs;
  weight->inputs = inputs;
  dnnl_status_t status = choose_layout(matmul, weight);
  if (status == dnnl_success) {
    const size_t bytes = (dnnl_memory_desc_get_size(weight->layout) + 63) / 64 * 64;
    weight->data = aligned_alloc(64, bytes);
    if (!weight->data) status = dnnl_out_of_memory;
  }
  if (status == dnnl_success) {
    status = dnnl_memory_create(&weight->memory, weight->layout, matmul->engine, weight->data);
  }
  if (status == dnnl_success) status = reorder(matmul, weight, rows);
  omp_set_num_threads(threads_before);
  if (status != dnnl_success) {
    fa_packed_weight_free(weight);
    return failed(status, "packing a weight");
  }
  *result = weight;
  return FA_OK;
}

void fa_packed_weight_free(fa_packed_weight *weight) {
  if (!weight) return;
  if (weight->memory) dnnl_memory_destroy(weight->memory);
  if (weight->layout) dnnl_memory_desc_destroy(weight->layout);
  free(weight->data);
  free(weight);
}

size_t fa_packed_weight_bytes(const fa_packed_weight *weight) {
  return dnnl_memory_desc_get_size(weight->layout);
}

/* ------------------------------------------------------------------------ running */

static dnnl_status_t compile(fa_matmul *matmul, const fa_packed_weight *weight, fa_epilogue epilogue,
                             int64_t rows, product *p) {
  layouts l;
  dnnl_primitive_desc_t descriptor;
  dnnl_status_t status = describe_product(matmul, epilogue, rows, weight->outputs, weight->inputs,
                                          weight->layout, &l, &descriptor);
  if (status == dnnl_success) status = dnnl_primitive_create(&p->primitive, descriptor);
  if (status == dnnl_success) status = dnnl_memory_create(&p->x, l.x, matmul->engine, DNNL_MEMORY_NONE);
  if (status == dnnl_success) status = dnnl_memory_create(&p->y, l.y, matmul->engine, DNNL_MEMORY_NONE);
  if (status == dnnl_success)
    status = dnnl_memory_create(&p->other, l.other, matmul->engine, DNNL_MEMORY_NONE);
  if (descriptor) dnnl_primitive_desc_destroy(descriptor);
  layouts_destroy(&l);
  return status;
}

/* The compiled product, from the kept ones or made in the place of the one unused longest. */
static dnnl_status_t find_product(fa_matmul *matmul, const fa_packed_weight *weight, fa_epilogue epilogue,
                                  int64_t rows, product **found) {
  product *oldest = &matmul->kept[0];
  for (int i = 0; i < KEPT; i++) {
    product *p = &matmul->kept[i];
    if (p->last_use && p->rows == rows && p->outputs == weight->outputs && p->inputs == weight->inputs &&
        p->epilogue == epilogue) {
      *found = p;
      p->last_use = ++matmul->clock;
      return dnnl_success;
    }
    if (p->last_use < oldest->last_use) oldest = p;
  }
  forget(oldest);
  const dnnl_status_t status = compile(matmul, weight, epilogue, rows, oldest);
  if (status != dnnl_success) {
    forget(oldest);
    return status;
  }
  oldest->outputs = weight->outputs;
  oldest->inputs = weight->inputs;
  oldest->rows = rows;
  oldest->epilogue = epilogue;
  oldest->last_use = ++matmul->clock;
  *found = oldest;
  return dnnl_success;
}

fa_status fa_matmul_run(fa_matmul *matmul, const fa_packed_weight *weight, fa_epilogue epilogue, int64_t rows,
                        const void *x, const float *other, void *y) {
  product *p = NULL;
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(matmul->threads);
  dnnl_status_t status = find_product(matmul, weight, epilogue, rows, &p);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(p->x, (void *)(uintptr_t)x);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(p->other, (void *)(uintptr_t)other);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(p->y, y);
  if (status == dnnl_success) {
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, p->x},
                                         {DNNL_ARG_WEIGHTS, weight->memory},
                                         {DNNL_ARG_DST, p->y},
                                         {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, p->other}};
    status = dnnl_primitive_execute(p->primitive, matmul->stream, epilogue == FA_EPILOGUE_TIMES ? 4 : 3,
                                    arguments);
  }
  if (status == dnnl_success) status = dnnl_stream_wait(matmul->stream);
  omp_set_num_threads(threads_before);
  return status == dnnl_success ? FA_OK : failed(status, "a matrix product");
}
