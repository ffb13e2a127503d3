/* Everything that can be wrong with the arrays is said here, by file name; the rest the library says. */
#include "run_inputs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

enum {
  FLOATS = 1u << FA_NPY_FLOAT32 | 1u << FA_NPY_FLOAT16,
  ONLY_FLOAT32 = 1u << FA_NPY_FLOAT32,
  INTEGERS = 1u << FA_NPY_INT32 | 1u << FA_NPY_INT64,
  BYTES = 1u << FA_NPY_BYTE
};

static const unsigned allowed_types[FA_RUN_ARRAYS] = {FLOATS, FLOATS,       FLOATS,   ONLY_FLOAT32, FLOATS,
                                                      BYTES,  ONLY_FLOAT32, INTEGERS, INTEGERS};

int fa_run_inputs_read(fa_run_inputs *inputs) {
  for (int i = 0; i < FA_RUN_ARRAYS; i++) {
    if (!inputs->path[i]) continue;
    const int code = fa_npy_read(inputs->path[i], allowed_types[i], &inputs->array[i]);
    if (code) return code;
  }
  const fa_npy *const array = inputs->array;
  for (int i = FA_RUN_K; i <= FA_RUN_V; i++) {
    if (array[i].type != array[FA_RUN_Q].type) {
      return fa_usage_error("%s is %s and %s is %s; q, k and v must have one type", inputs->path[FA_RUN_Q],
                            fa_npy_type_name(array[FA_RUN_Q].type), inputs->path[i],
                            fa_npy_type_name(array[i].type));
    }
  }
  return FA_EXIT_OK;
}

/* ------------------------------------------------------------------ shapes */

typedef struct shape {
  int64_t batch; /* 1 when ragged */
  int64_t seq;   /* total rows when ragged */
  int64_t heads;
  int64_t dim;
} shape;

/* Shape and strides of q, k or v. */
static int describe_tensor(const fa_run_inputs *inputs, fa_run_array which, bool ragged, shape *s,
                           fa_tensor *t) {
  const fa_npy *const array = &inputs->array[which];
  char text[FA_NPY_SHAPE_TEXT];
  fa_npy_shape_text(array->rank, array->shape, text);
  const int rank = ragged ? 3 : 4;
  if (array->rank != rank) {
    const char *const wanted = ragged         ? (inputs->bhsd ? "(heads, total, dim)" : "(total, heads, dim)")
                               : inputs->bhsd ? "(batch, heads, seq, dim)"
                                              : "(batch, seq, heads, dim)";
    return fa_usage_error("%s has shape %s; %s it must be %s", inputs->path[which], text,
                          ragged ? "with cumulative lengths" : "without cumulative lengths", wanted);
  }
  if (array->elements == 0) {
    return fa_usage_error("%s is empty, shape %s; every size must be at least 1", inputs->path[which], text);
  }
  const int64_t *const size = array->shape + rank - 3; /* the last three */
  s->batch = ragged ? 1 : array->shape[0];
  s->seq = inputs->bhsd ? size[1] : size[0];
  s->heads = inputs->bhsd ? size[0] : size[1];
  s->dim = size[2];
  t->stride_seq = inputs->bhsd ? s->dim : s->heads * s->dim;
  t->stride_head = inputs->bhsd ? s->seq * s->dim : s->dim;
  t->stride_batch = s->seq * s->heads * s->dim;
  return FA_EXIT_OK;
}

static int must_agree(const fa_run_inputs *inputs, const char *what, fa_run_array a, int64_t value_a,
                      fa_run_array b, int64_t value_b) {
  if (value_a == value_b) return FA_EXIT_OK;
  return fa_usage_error("%s has %s %" PRId64 " and %s has %" PRId64 "; they must be the same",
                        inputs->path[a], what, value_a, inputs->path[b], value_b);
}

/* Checks cumulative lengths against the rows they cut, makes them int32 in place, finds the longest. */
static int describe_lengths(fa_run_inputs *inputs, fa_run_array which, fa_run_array rows_of, int64_t rows,
                            int64_t *longest) {
  fa_npy *const array = &inputs->array[which];
  const char *const path = inputs->path[which];
  if (array->rank != 1 || array->elements < 2) {
    char text[FA_NPY_SHAPE_TEXT];
    return fa_usage_error("%s has shape %s; cumulative lengths must be (batch + 1,) with batch at least 1",
                          path, fa_npy_shape_text(array->rank, array->shape, text));
  }
  int32_t *const lengths = array->data;
  int64_t before = 0;
  *longest = 0;
  for (int64_t i = 0; i < array->elements; i++) {
    const int64_t value = array->type == FA_NPY_INT64 ? ((const int64_t *)array->data)[i] : lengths[i];
    if (i == 0 && value != 0) {
      return fa_usage_error("%s starts with %" PRId64 "; cumulative lengths start with 0", path, value);
    }
    if (value < before) {
      return fa_usage_error("%s falls from %" PRId64 " to %" PRId64 " at index %" PRId64
                            "; cumulative lengths never fall",
                            path, before, value, i);
    }
    if (value > rows || value > INT32_MAX) {
      return fa_usage_error("%s reaches %" PRId64 " at index %" PRId64 "; %s has %" PRId64 " rows", path,
                            value, i, inputs->path[rows_of], rows);
    }
    lengths[i] = (int32_t)value; /* behind the int64 still to be read */
    if (value - before > *longest) *longest = value - before;
    before = value;
  }
  if (before != rows) {
    return fa_usage_error("%s ends with %" PRId64 "; it must end with the %" PRId64 " rows of %s", path,
                          before, rows, inputs->path[rows_of]);
  }
  array->type = FA_NPY_INT32;
  return FA_EXIT_OK;
}

/* A bias or mask, right-aligned to (batch, heads, queries, keys) as numpy does. */
static int describe_broadcast(const fa_run_inputs *inputs, fa_run_array which,
                              const fa_attention_problem *problem, fa_tensor *t) {
  const fa_npy *const array = &inputs->array[which];
  const int64_t full[4] = {problem->batch, problem->heads_q, problem->max_seqlen_q, problem->max_seqlen_kv};
  int64_t stride[4] = {0, 0, 0, 0};
  int64_t step = 1;
  bool fits = array->rank >= 1;
  for (int i = 3; i >= 0; i--) {
    const int from = i - (4 - array->rank);
    const int64_t size = from >= 0 ? array->shape[from] : 1;
    fits = fits && (size == full[i] || (size == 1 && i < 3));
    stride[i] = size == 1 ? 0 : step;
    step *= size;
  }
  if (!fits) {
    char given[FA_NPY_SHAPE_TEXT], wanted[FA_NPY_SHAPE_TEXT];
    return fa_usage_error(
        "%s has shape %s; it must be (batch, heads_q, seq_q, seq_kv) = %s, with 1 for any but the "
        "last to repeat it",
        inputs->path[which], fa_npy_shape_text(array->rank, array->shape, given),
        fa_npy_shape_text(4, full, wanted));
  }
  t->stride_batch = stride[0];
  t->stride_head = stride[1];
  t->stride_seq = stride[2];
  return FA_EXIT_OK;
}

static int describe_per_head(fa_run_inputs *inputs, fa_run_array which, const fa_attention_problem *problem,
                             bool per_batch) {
  const fa_npy *const array = &inputs->array[which];
  if (array->rank == 1 && array->shape[0] == problem->heads_q) return FA_EXIT_OK;
  if (per_batch && array->rank == 2 && array->shape[0] == problem->batch &&
      array->shape[1] == problem->heads_q) {
    return FA_EXIT_OK;
  }
  char given[FA_NPY_SHAPE_TEXT], batches[64] = "";
  if (per_batch)
    snprintf(batches, sizeof batches, " or (%" PRId64 ", %" PRId64 ")", problem->batch, problem->heads_q);
  return fa_usage_error("%s has shape %s; it must be (%" PRId64 ",)%s, one number for each query head",
                        inputs->path[which], fa_npy_shape_text(array->rank, array->shape, given),
                        problem->heads_q, batches);
}

int fa_run_inputs_describe(fa_run_inputs *inputs, fa_attention_problem *problem, fa_attention_args *args) {
  const fa_npy *const array = inputs->array;
  problem->ragged_q = inputs->path[FA_RUN_CU_SEQLENS_Q] != NULL;
  problem->ragged_kv = inputs->path[FA_RUN_CU_SEQLENS_K] != NULL;

  shape q = {0, 0, 0, 0}, k = q, v = q;
  int code = describe_tensor(inputs, FA_RUN_Q, problem->ragged_q, &q, &args->q);
  if (!code) code = describe_tensor(inputs, FA_RUN_K, problem->ragged_kv, &k, &args->k);
  if (!code) code = describe_tensor(inputs, FA_RUN_V, problem->ragged_kv, &v, &args->v);
  if (!code) code = must_agree(inputs, "head size", FA_RUN_Q, q.dim, FA_RUN_K, k.dim);
  if (!code) code = must_agree(inputs, "batch", FA_RUN_K, k.batch, FA_RUN_V, v.batch);
  if (!code) code = must_agree(inputs, "length", FA_RUN_K, k.seq, FA_RUN_V, v.seq);
  if (!code) code = must_agree(inputs, "number of heads", FA_RUN_K, k.heads, FA_RUN_V, v.heads);
  if (code) return code;

  problem->max_seqlen_q = q.seq;
  problem->max_seqlen_kv = k.seq;
  if (problem->ragged_q) {
    problem->total_seqlen_q = q.seq;
    code = describe_lengths(inputs, FA_RUN_CU_SEQLENS_Q, FA_RUN_Q, q.seq, &problem->max_seqlen_q);
    if (code) return code;
    q.batch = array[FA_RUN_CU_SEQLENS_Q].elements - 1;
  }
  if (problem->ragged_kv) {
    problem->total_seqlen_kv = k.seq;
    code = describe_lengths(inputs, FA_RUN_CU_SEQLENS_K, FA_RUN_K, k.seq, &problem->max_seqlen_kv);
    if (code) return code;
    k.batch = array[FA_RUN_CU_SEQLENS_K].elements - 1;
  }
  code = must_agree(inputs, "batch", problem->ragged_q ? FA_RUN_CU_SEQLENS_Q : FA_RUN_Q, q.batch,
                    problem->ragged_kv ? FA_RUN_CU_SEQLENS_K : FA_RUN_K, k.batch);
  if (code) return code;
  problem->batch = q.batch;
  problem->heads_q = q.heads;
  problem->heads_kv = k.heads;
  problem->head_dim_qk = q.dim;
  problem->head_dim_v = v.dim;
  problem->kv_dtype = problem->dtype;

  args->o.stride_seq = inputs->bhsd ? v.dim : q.heads * v.dim;
  args->o.stride_head = inputs->bhsd ? q.seq * v.dim : v.dim;
  args->o.stride_batch = q.seq * q.heads * v.dim;
  inputs->output_rank = array[FA_RUN_Q].rank;
  memcpy(inputs->output_shape, array[FA_RUN_Q].shape, sizeof inputs->output_shape);
  inputs->output_shape[inputs->output_rank - 1] = v.dim;

  if (inputs->path[FA_RUN_ALIBI]) {
    problem->has_alibi = 1;
    args->alibi_stride_batch = array[FA_RUN_ALIBI].rank == 2 ? q.heads : 0;
    code = describe_per_head(inputs, FA_RUN_ALIBI, problem, true);
  }
  if (!code && inputs->path[FA_RUN_SINKS]) {
    problem->has_sinks = 1;
    code = describe_per_head(inputs, FA_RUN_SINKS, problem, false);
  }
  if (!code && inputs->path[FA_RUN_BIAS]) {
    problem->has_bias = 1;
    problem->bias_dtype = array[FA_RUN_BIAS].type == FA_NPY_FLOAT16 ? FA_FLOAT16 : FA_FLOAT32;
    code = describe_broadcast(inputs, FA_RUN_BIAS, problem, &args->bias);
  }
  if (!code && inputs->path[FA_RUN_MASK]) {
    problem->has_mask = 1;
    code = describe_broadcast(inputs, FA_RUN_MASK, problem, &args->mask);
  }
  return code;
}

/* ------------------------------------------------------------------- upload */

/* Copies one array to the device, q, k and v as `dtype`; the host's copy is released. */
static int upload(fa_run_inputs *inputs, fa_run_array which, fa_context *context, fa_dtype dtype) {
  fa_npy *const array = &inputs->array[which];
  const fa_dtype file_dtype = array->type == FA_NPY_FLOAT16 ? FA_FLOAT16 : FA_FLOAT32;
  size_t bytes = (size_t)array->elements * fa_npy_type_bytes(array->type);
  if (which <= FA_RUN_V && dtype != file_dtype) {
    bytes = (size_t)array->elements * fa_dtype_bytes(dtype);
    void *const converted = malloc(bytes);
    if (!converted)
      return fa_failure("no memory for %zu bytes of %s as %s", bytes, inputs->path[which],
                        fa_dtype_name(dtype));
    fa_convert(converted, dtype, array->data, file_dtype, array->elements);
    free(array->data);
    array->data = converted;
  }
  fa_status status = fa_buffer_allocate(context, bytes, &inputs->device[which]);
  if (!status) {
    status = fa_buffer_copy(context, inputs->device[which], array->data, bytes, FA_COPY_HOST_TO_DEVICE, NULL);
  }
  if (!status) status = fa_stream_synchronize(context, NULL);
  if (status) return fa_library_error(status);
  fa_npy_free(array);
  return FA_EXIT_OK;
}

int fa_run_inputs_upload(fa_run_inputs *inputs, fa_context *context, const fa_attention_problem *problem,
                         fa_attention_args *args) {
  for (int i = 0; i < FA_RUN_ARRAYS; i++) {
    if (!inputs->path[i]) continue;
    const int code = upload(inputs, (fa_run_array)i, context, problem->dtype);
    if (code) return code;
  }
  args->q.data = inputs->device[FA_RUN_Q];
  args->k.data = inputs->device[FA_RUN_K];
  args->v.data = inputs->device[FA_RUN_V];
  args->alibi_slopes = inputs->device[FA_RUN_ALIBI];
  args->bias.data = inputs->device[FA_RUN_BIAS];
  args->mask.data = inputs->device[FA_RUN_MASK];
  args->sinks = inputs->device[FA_RUN_SINKS];
  args->cu_seqlens_q = inputs->device[FA_RUN_CU_SEQLENS_Q];
  args->cu_seqlens_kv = inputs->device[FA_RUN_CU_SEQLENS_K];
  return FA_EXIT_OK;
}

void fa_run_inputs_free(fa_run_inputs *inputs, fa_context *context) {
  for (int i = 0; i < FA_RUN_ARRAYS; i++) {
    fa_npy_free(&inputs->array[i]);
    if (context) fa_buffer_free(context, inputs->device[i]);
    inputs->device[i] = NULL;
  }
}
