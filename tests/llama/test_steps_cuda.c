/* Heads placed into a paged cache, and steps recorded as CUDA graphs, on NVIDIA GPUs. Skipped where there is none. */
#include "cuda_device.h"

#include <math.h>

#include "dequantize.h"

enum { POSITIONS = 600, PAGES = 5, MOST_ROWS = 640 };

typedef struct placement {
  int64_t rows, heads_q, heads_kv, dim_qk, dim_v, rotary_dim, page_size;
  int interleaved, has_bias, has_norm;
} placement;

static const placement placements[] = {
    {1, 32, 32, 128, 128, 128, 16, 0, 0, 0}, {37, 9, 3, 64, 64, 64, 16, 1, 1, 0}, {12, 4, 1, 256, 256, 256, 7, 0, 0, 1},
    {5, 6, 2, 96, 96, 24, 3, 0, 1, 1},       {33, 3, 1, 30, 22, 10, 8, 1, 1, 1},  {3, 4, 2, 80, 64, 0, 1, 0, 1, 1},
    {2, 2, 1, 576, 512, 64, 32, 1, 0, 1},    {9, 40, 8, 96, 64, 32, 16, 1, 1, 1},
    /* Rows enough that a block goes over all heads of its row, on GPUs of up to 160 multiprocessors. */
    {640, 33, 7, 128, 112, 64, 5, 0, 1, 1},  {640, 3, 2, 512, 512, 512, 4, 1, 0, 1},
};

/* Element d of head `row` of `column` .. of the product, as it should be stored. */
static double placed(const placement *p, const double *qkv, const double *bias, const double *norm, const double *table,
                     int64_t dim, int64_t d, int64_t position, int rotates) {
  double head[576], squares = 0.0;
  for (int64_t e = 0; e < dim; ++e) {
    head[e] = qkv[e] + (bias ? bias[e] : 0.0);
    squares += head[e] * head[e];
  }
  if (norm)
    for (int64_t e = 0; e < dim; ++e) head[e] *= norm[e] / sqrt(squares / (double)dim + (double)1e-5f);
  if (!rotates || d >= p->rotary_dim) return head[d];
  const int64_t half = p->rotary_dim / 2, pair = p->interleaved ? d / 2 : d % half;
  const int64_t a = p->interleaved ? 2 * pair : pair, b = p->interleaved ? 2 * pair + 1 : pair + half;
  const double cosine = table[2 * (position * half + pair)], sine = table[2 * (position * half + pair) + 1];
  return d == a ? head[a] * cosine - head[b] * sine : head[b] * cosine + head[a] * sine;
}

static void check_placement(fa_engine *engine, const placement *p) {
  const int64_t columns = (p->heads_q + p->heads_kv) * p->dim_qk + p->heads_kv * p->dim_v, slots = PAGES * p->page_size;
  const size_t size = bytes_of(engine->dtype);
  double *qkv, *bias, *q_norm, *k_norm, *table;
  int32_t positions[MOST_ROWS], places[MOST_ROWS];
  fa_head_placement h = {.rows = p->rows, .heads_q = p->heads_q, .heads_kv = p->heads_kv, .head_dim_qk = p->dim_qk, .head_dim_v = p->dim_v,
                         .rotary_dim = p->rotary_dim, .rotary_interleaved = p->interleaved, .norm_epsilon = 1e-5f,
                         .page_size = p->page_size};
  void *freed[12];
  int count = 0;
  /* Slots from the last page backwards, each once; rows that find none have -1. */
  for (int64_t r = 0; r < p->rows; ++r) {
    positions[r] = (int32_t)(r * 97 % POSITIONS);
    places[r] = r < slots - 1 ? (int32_t)(slots - 1 - r) : -1;
  }
  h.qkv = freed[count++] = random_device(engine, engine->dtype, p->rows * columns, 1, &qkv);
  h.rotary = freed[count++] = random_device(engine, FA_FLOAT32, POSITIONS * (p->rotary_dim + 2), 2, &table);
  h.bias = freed[count++] = random_device(engine, FA_FLOAT32, columns, 3, &bias);
  h.q_norm = freed[count++] = random_device(engine, FA_FLOAT32, p->dim_qk, 4, &q_norm);
  h.k_norm = freed[count++] = random_device(engine, FA_FLOAT32, p->dim_qk, 5, &k_norm);
  h.positions = freed[count++] = to_device(engine, positions, sizeof positions);
  h.slots = freed[count++] = to_device(engine, places, sizeof places);
  h.q = freed[count++] = poisoned_device(engine, (size_t)(p->rows * p->heads_q * p->dim_qk) * size);
  h.k = freed[count++] = poisoned_device(engine, (size_t)(slots * p->heads_kv * p->dim_qk) * size);
  h.v = freed[count++] = poisoned_device(engine, (size_t)(slots * p->heads_kv * p->dim_v) * size);
  if (!p->has_bias) h.bias = NULL;
  if (!p->has_norm) h.q_norm = h.k_norm = NULL;
  OK(ops->place_heads(engine, &h));
  double *stored[3] = {read_back(engine, engine->dtype, h.q, p->rows * p->heads_q * p->dim_qk),
                       read_back(engine, engine->dtype, h.k, slots * p->heads_kv * p->dim_qk),
                       read_back(engine, engine->dtype, h.v, slots * p->heads_kv * p->dim_v)};
  int64_t written[3] = {0, 0, 0}, there[3] = {0, 0, 0};
  for (int64_t r = 0; r < p->rows; ++r)
    for (int64_t head = 0; head < p->heads_q + 2 * p->heads_kv; ++head) {
      const int kind = head < p->heads_q ? 0 : head < p->heads_q + p->heads_kv ? 1 : 2;
      const int64_t own = kind == 0 ? head : head - p->heads_q - (kind - 1) * p->heads_kv, dim = kind == 2 ? p->dim_v : p->dim_qk;
      const int64_t column = kind == 2 ? (p->heads_q + p->heads_kv) * p->dim_qk + own * dim : head * dim;
      const int64_t page = places[r] / p->page_size, at = places[r] % p->page_size;
      if (kind && places[r] < 0) continue;
      const int64_t to = kind ? ((page * p->heads_kv + own) * p->page_size + at) * dim : (r * p->heads_q + own) * dim;
      written[kind] += dim;
      for (int64_t d = 0; d < dim; ++d) {
        const double should = placed(p, qkv + r * columns + column, h.bias ? bias + column : NULL,
                                     kind == 2 || !h.q_norm ? NULL : kind ? k_norm : q_norm, table, dim, d, positions[r], kind != 2);
        const double is = stored[kind][to + d];
        if (!(fabs(is - should) <= 1.01 * unit_of(engine->dtype) * fabs(should) + 4e-6))
          fail_msg("rows %lld, head size %lld: row %lld head %lld element %lld is %g, should be %g", (long long)p->rows,
                   (long long)p->dim_qk, (long long)r, (long long)head, (long long)d, is, should);
      }
    }
  const int64_t sizes[3] = {p->rows * p->heads_q * p->dim_qk, slots * p->heads_kv * p->dim_qk, slots * p->heads_kv * p->dim_v};
  for (int kind = 0; kind < 3; ++kind) {
    for (int64_t i = 0; i < sizes[kind]; ++i) there[kind] += !isnan(stored[kind][i]);
    assert_int_equal(there[kind], written[kind]); /* nothing else was touched */
    free(stored[kind]);
  }
  for (int n = 0; n < count; ++n) fa_buffer_free(device, freed[n]);
  free(qkv), free(bias), free(q_norm), free(k_norm), free(table);
}

static void test_place_heads(void **state) {
  (void)state;
  EACH_ENGINE(engine) {
    for (size_t n = 0; n < sizeof placements / sizeof *placements; ++n) check_placement(engine, &placements[n]);
  }
}

static void test_placements_refused(void **state) {
  (void)state;
  EACH_ENGINE(engine) {
    fa_head_placement good = {.rows = 1, .heads_q = 2, .heads_kv = 1, .head_dim_qk = 64, .head_dim_v = 64, .rotary_dim = 64, .page_size = 16};
    fa_head_placement odd = good, long_rotary = good, no_page = good, no_head = good;
    odd.rotary_dim = 7, long_rotary.rotary_dim = 66, no_page.page_size = 0, no_head.heads_kv = 0;
    assert_int_equal(ops->place_heads(engine, &odd), FA_ERROR_ARGUMENT);
    assert_int_equal(ops->place_heads(engine, &long_rotary), FA_ERROR_ARGUMENT);
    assert_int_equal(ops->place_heads(engine, &no_page), FA_ERROR_ARGUMENT);
    assert_int_equal(ops->place_heads(engine, &no_head), FA_ERROR_ARGUMENT);
    good.rows = 0;
    OK(ops->place_heads(engine, &good));
  }
}

/* --------------------------------------------------------------------- graphs */

enum { ROWS = 2, WIDTH = 256, HEADS = 4, DIM = 64 };

typedef struct step {
  fa_matrix *matrix;
  fa_plan *plan;
  void *x, *weight, *normed, *product, *attended, *workspace;
} step;

/* A norm, a product, an attention of the product with itself, and a product added: what a layer has. */
static void run_step(fa_engine *engine, const step *s) {
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  const fa_tensor heads = {s->product, ROWS * WIDTH, WIDTH, DIM}, out = {s->attended, ROWS * WIDTH, WIDTH, DIM};
  args.q = args.k = args.v = heads;
  args.o = out;
  OK(ops->norm(engine, ROWS, WIDTH, s->x, s->weight, 1e-5f, s->normed));
  OK(ops->product(engine, s->matrix, FA_EPILOGUE_WIDE, ROWS, s->normed, s->product));
  OK(fa_attention_run(s->plan, &args, s->workspace, fa_plan_workspace_bytes(s->plan), engine->stream));
  OK(ops->product(engine, s->matrix, FA_EPILOGUE_ADD, ROWS, s->attended, s->x));
}

static void test_graph_replays(void **state) {
  (void)state;
  EACH_ENGINE(engine) {
    double *unused, *x;
    step s;
    const fa_weight_part part = {"w", FA_GGML_F32, WIDTH, WIDTH, NULL, 3};
    fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
    problem.dtype = problem.kv_dtype = engine->dtype;
    problem.heads_q = problem.heads_kv = HEADS;
    problem.max_seqlen_q = problem.max_seqlen_kv = ROWS;
    problem.head_dim_qk = problem.head_dim_v = DIM;
    problem.causal = 1;
    OK(fa_plan_create(device, &problem, &s.plan));
    OK(ops->matrix_create(engine, &part, 1, FA_MATRIX_PRODUCT, &s.matrix));
    s.weight = random_device(engine, FA_FLOAT32, WIDTH, 1, &unused);
    free(unused);
    s.x = random_device(engine, FA_FLOAT32, ROWS * WIDTH, 2, &x);
    free(x);
    s.normed = poisoned_device(engine, ROWS * WIDTH * 4), s.product = poisoned_device(engine, ROWS * WIDTH * 4);
    s.attended = poisoned_device(engine, ROWS * WIDTH * 4);
    s.workspace = poisoned_device(engine, fa_plan_workspace_bytes(s.plan) + 64);
    run_step(engine, &s); /* algorithms are found here */
    fa_graph *graph;
    float host[ROWS * WIDTH];
    OK(ops->graph_begin(engine));
    run_step(engine, &s);
    OK(ops->graph_end(engine, &graph));
    for (uint64_t seed = 10; seed < 13; ++seed) {
      uint64_t draws = seed;
      for (int i = 0; i < ROWS * WIDTH; ++i) host[i] = draw(&draws);
      rewrite(engine, s.x, host, sizeof host);
      run_step(engine, &s);
      double *should = read_back(engine, FA_FLOAT32, s.x, ROWS * WIDTH);
      rewrite(engine, s.x, host, sizeof host);
      OK(ops->graph_launch(engine, graph));
      double *is = read_back(engine, FA_FLOAT32, s.x, ROWS * WIDTH);
      for (int i = 0; i < ROWS * WIDTH; ++i) {
        assert_true(is[i] == should[i]);
        assert_true(isfinite(is[i]));
      }
      assert_true(is[0] != (double)host[0]);
      free(should), free(is);
    }
    /* A product of a shape not seen before may be recorded, too. */
    void *wide = poisoned_device(engine, 64 * WIDTH * 4), *rows = poisoned_device(engine, 64 * WIDTH * 4);
    fa_graph *fresh;
    OK(ops->graph_begin(engine));
    OK(ops->product(engine, s.matrix, FA_EPILOGUE_F32, 9, rows, wide));
    OK(ops->graph_end(engine, &fresh));
    OK(ops->graph_launch(engine, fresh));
    OK(fa_stream_synchronize(device, engine->stream));
    /* What may not be recorded ends the recording with a line, and the engine works on. */
    OK(ops->graph_begin(engine));
    (void)fa_stream_synchronize(device, engine->stream);
    fa_graph *failed = fresh;
    assert_int_not_equal(ops->graph_end(engine, &failed), FA_OK);
    assert_null(failed);
    run_step(engine, &s);
    OK(fa_stream_synchronize(device, engine->stream));
    ops->graph_free(engine, graph);
    ops->graph_free(engine, fresh);
    ops->graph_free(engine, NULL);
    ops->matrix_free(engine, s.matrix);
    fa_plan_destroy(s.plan);
    void *const freed[] = {s.x, s.weight, s.normed, s.product, s.attended, s.workspace, wide, rows};
    for (size_t n = 0; n < sizeof freed / sizeof *freed; ++n) fa_buffer_free(device, freed[n]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_place_heads), cmocka_unit_test(test_placements_refused),
                                     cmocka_unit_test(test_graph_replays)};
  return cmocka_run_group_tests(tests, find_device, leave_device);
}
