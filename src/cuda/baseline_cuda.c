/* Unfused attention on the GPU with the vendor's matrix products, for comparison: all heads at once,
 *   S = Q K^T    [pairs, S_q, S_kv]    cuBLAS, batched over (batch entry, query head), K of its KV head
 *   P = softmax  in place              any/baseline_any.cu
 *   O = P V                            cuBLAS
 * everything of problem.dtype, sums in fp32. `standard` has the scale in the first product and one pass between the
 * products; `eager` does a framework's passes. Blocks of heads only where all scores do not fit a third of the memory.
 *
 * Dense problems only: ragged and paged ones would need their lengths on the host. Lengths on the device (seqlens_kv) are
 * read by the passes; both products still go over all max_seqlen_kv keys, as over a framework's static cache. What lies
 * behind a length may be NaN, and 0 * NaN is NaN: V is copied first, with zeros there (three passes over V instead of one).
 * Rows that overlap or run backwards (strides a matrix product cannot take) are copied, too. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/kernel_declarations.h"
#include "cuda/baseline_params.h"
#include "cuda/cublas_library.h"
#include "cuda/cuda.h"

enum {
  PASS_THREADS = 256,
  PASS_VALUES = 16, /* that a thread of eager's passes has under way at least */
  GROUP = 8         /* rows of scores begin at multiples of this many elements */
};

typedef struct baseline {
  cublasHandle_t handle;
  pthread_mutex_t turn; /* the handle holds the stream of one run at a time */
  fa_cuda_function operands, pack, unpack, softmax, scale, mask, add, cast;
  int softmax_threads, pass_threads; /* of a row's block: softmax; eager's other passes */
  int64_t width, pairs; /* elements a row of scores; pairs a block */
  size_t scores, wide, mask_bytes, pointers, q, k, v, o; /* offsets in the workspace; mask's follows wide */
} baseline;

static int is_eager(const fa_plan *plan) { return strcmp(plan->kernel->arch, "eager") == 0; }

static int wants_mask(const fa_attention_problem *p) {
  return p->causal || p->window_left >= 0 || p->window_right >= 0 || p->has_seqlens_kv;
}

/* Of eager's mask: as many as batch entries may differ in. */
static int64_t masks(const fa_attention_problem *p) { return p->has_seqlens_kv ? p->batch : 1; }

static fa_status find(const fa_plan *plan, const char *stem, fa_cuda_function *function) {
  char name[64];
  snprintf(name, sizeof name, "%s_%s", stem, fa_dtype_name(plan->problem.dtype));
  return fa_cuda_find(plan->context, "baseline_any", name, 0, function);
}

static int has_rules(const fa_attention_problem *p) { return p->softcap > 0.0f || p->has_alibi || p->has_bias || p->has_mask; }

/* The threads for `keys` at `values` each: whole warps, at most `most`. */
static int threads_for(int64_t keys, int64_t values, int64_t most) {
  return (int)fa_min(fa_round_up(fa_ceil_div(keys, values), 32), most);
}

/* The softmax whose threads hold just what a row needs, of the counts and block sizes of baseline_any.cu. */
static fa_status find_softmax(const fa_plan *plan, baseline *data) {
  static const struct {
    int64_t values, most;
    const char *suffix;
  } sizes[] = {{8, 128, "8"}, {16, 512, "16"}, {32, 1024, "32"}};
  const int64_t keys = plan->problem.max_seqlen_kv;
  size_t n = 0;
  while (n < 3 && keys > sizes[n].values * sizes[n].most) ++n;
  data->softmax_threads = n < 3 ? threads_for(keys, sizes[n].values, sizes[n].most) : 1024;
  char stem[48];
  snprintf(stem, sizeof stem, "%s_%s",
           is_eager(plan)             ? "baseline_wide_softmax"
           : has_rules(&plan->problem) ? "baseline_softmax_rules"
                                       : "baseline_softmax",
           n < 3 ? sizes[n].suffix : "any");
  return find(plan, stem, &data->softmax);
}

static fa_status find_all(const fa_plan *plan, baseline *data) {
  const struct {
    const char *stem;
    fa_cuda_function *function;
  } wanted[] = {{"baseline_operands", &data->operands},
                {"baseline_pack", &data->pack},
                {"baseline_unpack", &data->unpack},
                {"baseline_scale", &data->scale},
                {"baseline_mask", &data->mask},
                {"baseline_add", &data->add},
                {"baseline_cast", &data->cast}};
  for (size_t n = 0; n < sizeof wanted / sizeof wanted[0]; ++n) {
    const fa_status status = find(plan, wanted[n].stem, wanted[n].function);
    if (status != FA_OK) return status;
  }
  data->pass_threads = threads_for(plan->problem.max_seqlen_kv, PASS_VALUES, PASS_THREADS);
  return find_softmax(plan, data);
}

static void lay_out(fa_plan *plan, baseline *data) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t size = (int64_t)fa_dtype_bytes(p->dtype), pairs = p->batch * p->heads_q;
  fa_device_info device = FA_DEVICE_INFO_INIT;
  const int known = plan->context->backend->device_describe(plan->context->device_index, &device) == FA_OK;
  data->width = fa_round_up(p->max_seqlen_kv, GROUP);
  const int64_t block = p->max_seqlen_q * data->width;
  const int64_t wide = is_eager(plan) && p->dtype != FA_FLOAT32 ? 4 : 0;
  const int64_t limit = known && device.memory_bytes ? device.memory_bytes / 3 : (int64_t)4 << 30;
  data->pairs = fa_max(fa_min(pairs, limit / (block * (size + wide))), 1);
  data->pairs = fa_min(data->pairs, INT32_MAX / p->max_seqlen_q); /* the grid of eager's addition */
  size_t end = 0;
#define PLACE(field, bytes) data->field = end, end += (size_t)fa_round_up((bytes), 256)
  PLACE(scores, data->pairs * block * size);
  PLACE(wide, data->pairs * block * wide);
  PLACE(mask_bytes, is_eager(plan) && wants_mask(p) ? masks(p) * block * size : 0);
  PLACE(pointers, data->pairs * 5 * (int64_t)sizeof(void *));
  const int64_t width_qk = fa_round_up(p->head_dim_qk * size, 16), width_v = fa_round_up(p->head_dim_v * size, 16); /* bytes */
  PLACE(q, pairs * p->max_seqlen_q * width_qk);
  PLACE(k, p->batch * p->heads_kv * p->max_seqlen_kv * width_qk);
  PLACE(v, p->batch * p->heads_kv * p->max_seqlen_kv * width_v);
  PLACE(o, pairs * p->max_seqlen_q * width_v);
#undef PLACE
  plan->kernel_workspace_bytes = end;
}

static void release(fa_plan *plan) {
  baseline *data = plan->kernel_data;
  if (!data) return;
  if (data->handle) (void)fa_cublas_library_open()->destroy(data->handle);
  pthread_mutex_destroy(&data->turn);
  fa_host_free(plan->context, data);
  plan->kernel_data = NULL;
}

static fa_status prepare(fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  const fa_cublas_library *cublas = fa_cublas_library_open();
  if (cublas->missing) return fa_fail(FA_ERROR_UNSUPPORTED, "%s", cublas->missing);
  if (p->max_seqlen_q == 0 || p->max_seqlen_kv == 0)
    return fa_fail(FA_ERROR_UNSUPPORTED, "an unfused baseline needs at least one query and one key");
  if (p->max_seqlen_q > 65535 * 32 || p->max_seqlen_kv > INT32_MAX / 2 || p->batch * p->heads_q > 65535)
    return fa_fail(FA_ERROR_UNSUPPORTED, "the baseline's grids end at 65535 pairs of batch entry and head");
  baseline *data = fa_host_allocate(plan->context, sizeof *data);
  if (!data) return FA_ERROR_MEMORY;
  memset(data, 0, sizeof *data);
  pthread_mutex_init(&data->turn, NULL);
  plan->kernel_data = data;
  fa_status status = find_all(plan, data);
  if (status == FA_OK) status = fa_cuda_cublas_create(plan->context, &data->handle);
  if (status == FA_OK) lay_out(plan, data);
  else release(plan);
  return status;
}

/* --------------------------------------------------------------------- a run */

typedef struct baseline_run {
  const fa_plan *plan;
  const baseline *data;
  fa_stream stream;
  char *workspace;
  fa_baseline_params params;
} baseline_run;

static fa_status start_blocks(const baseline_run *r, fa_cuda_function function, int threads, int64_t x, int64_t y, int64_t z) {
  const fa_cuda_shape shape = {{(unsigned)x, (unsigned)y, (unsigned)z}, (unsigned)threads, 0, 0, 0};
  return fa_cuda_start_with(r->plan->context, function, shape, &r->params, r->stream);
}

static fa_status start(const baseline_run *r, fa_cuda_function function, int64_t x, int64_t y, int64_t z) {
  return start_blocks(r, function, PASS_THREADS, x, y, z);
}

/* cuBLAS's batched products fault on rows that do not begin at a multiple of 16 bytes. */
static int64_t aligned_elements(const fa_plan *plan) { return 16 / (int64_t)fa_dtype_bytes(plan->problem.dtype); }

static int product_takes(const fa_plan *plan, const fa_cuda_tensor *t, int64_t dim) {
  const int64_t whole = aligned_elements(plan);
  return t->stride_seq >= dim && t->stride_seq <= INT32_MAX && (uintptr_t)t->data % 16 == 0 &&
         t->stride_seq % whole == 0 && t->stride_head % whole == 0 && t->stride_batch % whole == 0;
}

static fa_cuda_tensor dense_tensor(const baseline_run *r, size_t at, int64_t heads, int64_t rows, int64_t dim) {
  const int64_t width = fa_round_up(dim, aligned_elements(r->plan));
  const fa_cuda_tensor dense = {r->workspace + at, heads * rows * width, width, rows * width};
  return dense;
}

/* Copies a tensor the product does not take into (or, for o, back from) its dense place and uses that. ends: rows behind
 * the sequence become 0. */
static fa_status make_dense(baseline_run *r, fa_cuda_tensor *t, size_t at, int64_t heads, int64_t rows, int64_t dim,
                            int back, int ends) {
  const fa_cuda_tensor dense = dense_tensor(r, at, heads, rows, dim);
  fa_baseline_params params = r->params;
  params.run.q = dense;
  params.run.head_dim_qk = (int32_t)dim;
  params.source = *t;
  params.source_rows = (int32_t)rows;
  params.source_whole = dim % aligned_elements(r->plan) == 0 && product_takes(r->plan, t, dim);
  params.source_ends = ends;
  const int64_t per_row = params.source_whole ? dim / aligned_elements(r->plan) : dim;
  baseline_run copy = *r;
  copy.params = params;
  if (!back) *t = dense;
  return start(&copy, back ? r->data->unpack : r->data->pack, fa_ceil_div(rows * per_row, PASS_THREADS), heads,
               r->plan->problem.batch);
}

#define TRY(call)                           \
  do {                                      \
    const fa_status try_status = (call);    \
    if (try_status != FA_OK) return try_status; \
  } while (0)

static cudaDataType product_type(const fa_plan *plan) {
  return plan->problem.dtype == FA_FLOAT32 ? CUDA_R_32F : plan->problem.dtype == FA_FLOAT16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* cuBLAS counts column by column, so S^T = K Q^T and O^T = V^T P^T. */
static fa_status multiply_scores(const baseline_run *r) {
  const fa_attention_problem *p = &r->plan->problem;
  const fa_baseline_params *w = &r->params;
  const fa_cublas_product product = {CUBLAS_OP_T, (int)p->max_seqlen_kv, (int)p->max_seqlen_q, (int)p->head_dim_qk,
                                     w->count, is_eager(r->plan) ? 1.0f : p->scale, product_type(r->plan), w->k_rows,
                                     w->q_rows, w->score_blocks, (int)w->run.k.stride_seq, (int)w->run.q.stride_seq,
                                     w->scores_width};
  return fa_cuda_cublas_multiply(r->plan->context, r->data->handle, r->stream, &product);
}

static fa_status multiply_output(const baseline_run *r) {
  const fa_attention_problem *p = &r->plan->problem;
  const fa_baseline_params *w = &r->params;
  const fa_cublas_product product = {CUBLAS_OP_N, (int)p->head_dim_v, (int)p->max_seqlen_q, (int)p->max_seqlen_kv,
                                     w->count, 1.0f, product_type(r->plan), w->v_rows,
                                     (const void *const *)w->score_blocks, w->o_rows, (int)w->run.v.stride_seq,
                                     w->scores_width, (int)w->run.o.stride_seq};
  return fa_cuda_cublas_multiply(r->plan->context, r->data->handle, r->stream, &product);
}

static fa_status passes(baseline_run *r) {
  const int64_t rows = r->plan->problem.max_seqlen_q, count = r->params.count;
  if (!is_eager(r->plan)) {
    const float scale = r->params.run.scale;
    r->params.run.scale = 1.0f; /* the product has it */
    const fa_status status = start_blocks(r, r->data->softmax, r->data->softmax_threads, rows, count, 1);
    r->params.run.scale = scale;
    return status;
  }
  const int threads = r->data->pass_threads;
  TRY(start_blocks(r, r->data->scale, threads, rows, count, 1));
  if (r->params.mask_wanted) TRY(start_blocks(r, r->data->add, threads, rows * count, 1, 1));
  TRY(start_blocks(r, r->data->softmax, r->data->softmax_threads, rows, count, 1));
  return r->plan->problem.dtype == FA_FLOAT32 ? FA_OK : start_blocks(r, r->data->cast, threads, rows, count, 1);
}

static fa_status run_block(baseline_run *r) {
  TRY(start(r, r->data->operands, fa_ceil_div(r->params.count, PASS_THREADS), 1, 1));
  TRY(multiply_scores(r));
  TRY(passes(r));
  return multiply_output(r);
}

static fa_status run_all(baseline_run *r) {
  const fa_attention_problem *p = &r->plan->problem;
  const baseline *data = r->data;
  fa_baseline_params *w = &r->params;
  const int64_t pairs = p->batch * p->heads_q;
  const void **pointers = (const void **)(void *)(r->workspace + data->pointers);
  w->q_rows = pointers;
  w->k_rows = pointers + data->pairs;
  w->v_rows = pointers + 2 * data->pairs;
  w->score_blocks = (void **)(void *)(pointers + 3 * data->pairs);
  w->o_rows = (void **)(void *)(pointers + 4 * data->pairs);
  w->scores_width = (int32_t)data->width;
  w->scores = r->workspace + data->scores;
  w->wide = p->dtype == FA_FLOAT32 ? (float *)w->scores : (float *)(void *)(r->workspace + data->wide);
  w->mask = r->workspace + data->mask_bytes;
  w->mask_wanted = is_eager(r->plan) && wants_mask(p);
  if (!product_takes(r->plan, &w->run.q, p->head_dim_qk))
    TRY(make_dense(r, &w->run.q, data->q, p->heads_q, p->max_seqlen_q, p->head_dim_qk, 0, 0));
  if (!product_takes(r->plan, &w->run.k, p->head_dim_qk))
    TRY(make_dense(r, &w->run.k, data->k, p->heads_kv, p->max_seqlen_kv, p->head_dim_qk, 0, 0));
  if (p->has_seqlens_kv || !product_takes(r->plan, &w->run.v, p->head_dim_v))
    TRY(make_dense(r, &w->run.v, data->v, p->heads_kv, p->max_seqlen_kv, p->head_dim_v, 0, p->has_seqlens_kv));
  fa_cuda_tensor given_o = w->run.o;
  const int o_dense = product_takes(r->plan, &given_o, p->head_dim_v);
  if (!o_dense) w->run.o = dense_tensor(r, data->o, p->heads_q, p->max_seqlen_q, p->head_dim_v);
  if (w->mask_wanted) TRY(start(r, data->mask, p->max_seqlen_q, masks(p), 1));
  for (int64_t first = 0; first < pairs; first += data->pairs) {
    w->first = (int32_t)first;
    w->count = (int32_t)fa_min(data->pairs, pairs - first);
    TRY(run_block(r));
  }
  if (o_dense) return FA_OK;
  return make_dense(r, &given_o, data->o, p->heads_q, p->max_seqlen_q, p->head_dim_v, 1, 0);
}

static fa_status run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  baseline *data = plan->kernel_data;
  baseline_run r;
  memset(&r, 0, sizeof r);
  r.plan = plan;
  r.data = data;
  r.stream = stream;
  r.workspace = workspace;
  fa_cuda_params_of(plan, args, &r.params.run);
  pthread_mutex_lock(&data->turn);
  const fa_status status = run_all(&r);
  pthread_mutex_unlock(&data->turn);
  return status;
}

fa_status fa_standard_cuda_prepare(fa_plan *plan) { return prepare(plan); }
fa_status fa_eager_cuda_prepare(fa_plan *plan) { return prepare(plan); }
void fa_standard_cuda_release(fa_plan *plan) { release(plan); }
void fa_eager_cuda_release(fa_plan *plan) { release(plan); }
fa_status fa_standard_cuda_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  return run(plan, args, workspace, stream);
}
fa_status fa_eager_cuda_run(const fa_plan *plan, const fa_attention_args *args, void *workspace, fa_stream stream) {
  return run(plan, args, workspace, stream);
}
