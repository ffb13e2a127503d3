/* Everything a run refuses: missing arrays, outputs that overlap themselves, lengths and pages out of range,
 * a bad workspace. One line that names the culprit, and nothing written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "fastattention/fastattention.h"

enum { BATCH = 2, QUERIES = 3, KEYS = 8, HEADS = 2, DIM = 4, NEW = 2, PAGE = 4, PAGES = 5, ROWS = 5 };

/* One problem with everything on, so that each of its arrays can be taken away or spoilt. */
typedef struct setting {
  fa_context *context;
  fa_plan *plan;
  fa_attention_problem problem;
  fa_attention_args args;
  float q[ROWS * HEADS * DIM], k[PAGES * PAGE * HEADS * DIM], v[PAGES * PAGE * HEADS * DIM],
      o[ROWS * HEADS * DIM];
  float lse[HEADS * ROWS], slopes[HEADS], sinks[HEADS], bias[BATCH * HEADS * QUERIES * KEYS];
  uint8_t mask[KEYS];
  int32_t cu[BATCH + 1], lengths[BATCH], table[BATCH * 2];
  float k_new[BATCH * NEW * HEADS * DIM], v_new[BATCH * NEW * HEADS * DIM], cosine[KEYS * 2], sine[KEYS * 2];
  _Alignas(64) unsigned char workspace[1 << 20];
} setting;

static void fill(setting *s) {
  const fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  const fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  fa_context *context = s->context;
  memset(s, 0, sizeof *s);
  s->context = context;
  s->problem = problem;
  s->args = args;
  fa_attention_problem *p = &s->problem;
  p->batch = BATCH;
  p->heads_q = p->heads_kv = HEADS;
  p->max_seqlen_q = QUERIES;
  p->max_seqlen_kv = KEYS;
  p->head_dim_qk = p->head_dim_v = DIM;
  p->has_alibi = p->has_sinks = p->has_mask = p->has_bias = p->has_lse = 1;
  p->ragged_q = 1;
  p->total_seqlen_q = ROWS;
  p->has_seqlens_kv = 1;
  p->page_size = PAGE;
  p->num_pages = PAGES;
  p->seqlen_new = NEW;
  p->rotary_dim = DIM;
  p->rotary_positions = KEYS;

  fa_attention_args *a = &s->args;
  const fa_tensor queries = {s->q, 0, HEADS * DIM, DIM}, out = {s->o, 0, HEADS * DIM, DIM};
  const fa_tensor keys = {s->k, PAGE * HEADS * DIM, HEADS * DIM, DIM},
                  values = {s->v, PAGE * HEADS * DIM, HEADS * DIM, DIM};
  const fa_tensor k_new = {s->k_new, NEW * HEADS * DIM, HEADS * DIM, DIM},
                  v_new = {s->v_new, NEW * HEADS * DIM, HEADS * DIM, DIM};
  const fa_tensor bias = {s->bias, HEADS * QUERIES * KEYS, KEYS, QUERIES * KEYS}, mask = {s->mask, 0, 0, 0};
  a->q = queries;
  a->o = out;
  a->k = keys;
  a->v = values;
  a->k_new = k_new;
  a->v_new = v_new;
  a->bias = bias;
  a->mask = mask;
  a->lse = s->lse;
  a->lse_stride_head = ROWS;
  a->alibi_slopes = s->slopes;
  a->sinks = s->sinks;
  a->cu_seqlens_q = s->cu;
  a->seqlens_kv = s->lengths;
  a->page_table = s->table;
  a->page_table_stride = 2;
  a->rotary_cos = s->cosine;
  a->rotary_sin = s->sine;
  memset(s->mask, 1, sizeof s->mask);
  s->cu[1] = 3;
  s->cu[2] = 5;
  s->lengths[0] = 6;
  s->lengths[1] = 1;
  const int32_t table[BATCH * 2] = {4, 0, 2, INT32_MAX};
  memcpy(s->table, table, sizeof table);
}

static fa_status run(setting *s) {
  return fa_attention_run(s->plan, &s->args, s->workspace, sizeof s->workspace, NULL);
}

/* Runs, expects the refusal, its words, and that nothing was written; then sets everything right again. */
static void refused(setting *s, fa_status expected, const char *word, const char *value) {
  unsigned char before[sizeof s->o], lse_before[sizeof s->lse], cache_before[sizeof s->k];
  memset(s->o, 0x77, sizeof s->o);
  memset(s->lse, 0x77, sizeof s->lse);
  memcpy(before, s->o, sizeof before);
  memcpy(lse_before, s->lse, sizeof lse_before);
  memcpy(cache_before, s->k, sizeof cache_before);
  const fa_status status = run(s);
  if (status != expected)
    fail_msg("%s %s: status %s (%s)", word, value, fa_status_name(status), fa_last_error());
  if (!strstr(fa_last_error(), word) || !strstr(fa_last_error(), value) || strchr(fa_last_error(), '\n'))
    fail_msg("%s %s: the line is '%s'", word, value, fa_last_error());
  assert_memory_equal(s->o, before, sizeof before);
  assert_memory_equal(s->lse, lse_before, sizeof lse_before);
  assert_memory_equal(s->k, cache_before, sizeof cache_before);
  fa_plan *plan = s->plan;
  fill(s);
  s->plan = plan;
}

static void everything_present_passes(void **state) { assert_int_equal(run(*state), FA_OK); }

#define MISSING(field, name)                     \
  do {                                           \
    s->args.field = NULL;                        \
    refused(s, FA_ERROR_ARGUMENT, name, "NULL"); \
  } while (0)

static void missing_arrays(void **state) {
  setting *s = *state;
  MISSING(q.data, "q");
  MISSING(k.data, "k");
  MISSING(v.data, "v");
  MISSING(o.data, "o");
  MISSING(lse, "lse");
  MISSING(alibi_slopes, "alibi_slopes");
  MISSING(sinks, "sinks");
  MISSING(bias.data, "bias");
  MISSING(mask.data, "mask");
  MISSING(cu_seqlens_q, "cu_seqlens_q");
  MISSING(seqlens_kv, "seqlens_kv");
  MISSING(page_table, "page_table");
  MISSING(k_new.data, "k_new");
  MISSING(v_new.data, "v_new");
  MISSING(rotary_cos, "rotary_cos");
  MISSING(rotary_sin, "rotary_sin");
  assert_int_equal(fa_attention_run(NULL, &s->args, NULL, 0, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_attention_run(s->plan, NULL, NULL, 0, NULL), FA_ERROR_ARGUMENT);
}

static void overlapping_outputs(void **state) {
  setting *s = *state;
  s->args.o.stride_seq = 0;
  refused(s, FA_ERROR_ARGUMENT, "o overlaps", "0");
  s->args.o.stride_head = DIM - 1;
  refused(s, FA_ERROR_ARGUMENT, "o overlaps", "3");
  s->args.o.stride_seq = DIM;
  refused(s, FA_ERROR_ARGUMENT, "o overlaps", "4");
  s->args.lse_stride_head = ROWS - 1;
  refused(s, FA_ERROR_ARGUMENT, "lse overlaps", "4");
  s->args.o.stride_head = INT64_MAX;
  refused(s, FA_ERROR_ARGUMENT, "o", "9223372036854775807");
  s->args.o.stride_head = (int64_t)1 << 44;
  s->args.o.stride_seq = -((int64_t)1 << 44) + 7;
  refused(s, FA_ERROR_ARGUMENT, "o ", "17592186044");
  s->args.page_table_stride = 1;
  refused(s, FA_ERROR_ARGUMENT, "page_table_stride", "1");
  /* Appending writes the cache, so it is an output too. */
  s->args.k.stride_batch = PAGE * HEADS * DIM - 1;
  refused(s, FA_ERROR_ARGUMENT, "k overlaps", "31");
  s->args.v.stride_seq = 0;
  refused(s, FA_ERROR_ARGUMENT, "v overlaps", "0");
}

static void strides_that_are_not_read(void **state) {
  setting *s = *state;
  s->args.q.stride_batch = s->args.o.stride_batch = INT64_MIN;
  s->args.lse_stride_batch = INT64_MAX;
  assert_int_equal(run(s), FA_OK);
  fa_plan *plan = s->plan;
  fill(s);
  s->plan = plan;
}

static void lengths_out_of_range(void **state) {
  setting *s = *state;
  s->cu[0] = 1;
  refused(s, FA_ERROR_ARGUMENT, "cu_seqlens_q", "1");
  s->cu[1] = 4;
  refused(s, FA_ERROR_ARGUMENT, "cu_seqlens_q", "4");
  s->cu[1] = 3;
  s->cu[2] = 2;
  refused(s, FA_ERROR_ARGUMENT, "cu_seqlens_q", "-1");
  s->cu[1] = 3;
  s->cu[2] = 6;
  refused(s, FA_ERROR_ARGUMENT, "cu_seqlens_q", "6");
  s->lengths[0] = 7;
  refused(s, FA_ERROR_ARGUMENT, "seqlens_kv", "7");
  s->lengths[1] = -1;
  refused(s, FA_ERROR_ARGUMENT, "seqlens_kv", "-1");
  s->lengths[1] = INT32_MAX;
  refused(s, FA_ERROR_ARGUMENT, "seqlens_kv", "2147483647");
  s->lengths[0] = 0; /* 2 keys for 3 rotated queries */
  refused(s, FA_ERROR_ARGUMENT, "quer", "3");
  s->table[1] = PAGES;
  refused(s, FA_ERROR_ARGUMENT, "page_table", "5");
  s->table[2] = -1;
  refused(s, FA_ERROR_ARGUMENT, "page_table", "-1");
}

/* No row in all, but an entry with one: refused, not taken for nothing to do. */
static void rows_that_the_tensor_has_not(void **state) {
  (void)state;
  float k[DIM] = {0};
  int32_t cu[2] = {0, 1};
  fa_context *context;
  fa_plan *plan;
  fa_attention_problem problem = FA_ATTENTION_PROBLEM_INIT;
  problem.batch = problem.heads_q = problem.heads_kv = problem.max_seqlen_q = problem.max_seqlen_kv = 1;
  problem.head_dim_qk = problem.head_dim_v = DIM;
  problem.ragged_q = 1;
  problem.total_seqlen_q = 0;
  assert_int_equal(fa_context_create(NULL, &context), FA_OK);
  assert_int_equal(fa_plan_create(context, &problem, &plan), FA_OK);
  fa_attention_args args = FA_ATTENTION_ARGS_INIT;
  const fa_tensor tensor = {k, DIM, DIM, DIM};
  args.q = args.k = args.v = args.o = tensor;
  args.cu_seqlens_q = cu;
  static _Alignas(64) unsigned char workspace[1 << 20];
  assert_true(fa_plan_workspace_bytes(plan) <= sizeof workspace);
  assert_int_equal(fa_attention_run(plan, &args, workspace, sizeof workspace, NULL), FA_ERROR_ARGUMENT);
  assert_non_null(strstr(fa_last_error(), "cu_seqlens_q"));
  cu[1] = 0;
  assert_int_equal(fa_attention_run(plan, &args, workspace, sizeof workspace, NULL), FA_OK);
  fa_plan_destroy(plan);
  fa_context_destroy(context);
}

static void workspaces(void **state) {
  setting *s = *state;
  const size_t bytes = fa_plan_workspace_bytes(s->plan);
  assert_true(bytes > 0 && bytes <= sizeof s->workspace - 64); /* the rotated queries at least */
  assert_int_equal(fa_attention_run(s->plan, &s->args, NULL, bytes, NULL), FA_ERROR_WORKSPACE);
  assert_int_equal(fa_attention_run(s->plan, &s->args, s->workspace, bytes - 1, NULL), FA_ERROR_WORKSPACE);
  char needed[32];
  snprintf(needed, sizeof needed, "%zu", bytes);
  assert_non_null(strstr(fa_last_error(), needed));
  assert_int_equal(fa_attention_run(s->plan, &s->args, s->workspace + 32, bytes, NULL), FA_ERROR_WORKSPACE);
  assert_int_equal(fa_attention_run(s->plan, &s->args, s->workspace, bytes, NULL), FA_OK);
  assert_int_equal(fa_plan_workspace_bytes(NULL), 0);
}

static void merging(void **state) {
  setting *s = *state;
  const fa_tensor t = {s->q, QUERIES * HEADS * DIM, HEADS * DIM, DIM};
  fa_context *c = s->context;
  assert_int_equal(fa_merge(c, FA_FLOAT32, 1, QUERIES, HEADS, DIM, &t, s->lse, &t, s->lse, NULL), FA_OK);
  assert_int_equal(fa_merge(c, FA_FLOAT32, 0, QUERIES, HEADS, DIM, NULL, NULL, NULL, NULL, NULL), FA_OK);
  assert_int_equal(fa_merge(c, FA_INT8, 1, QUERIES, HEADS, DIM, &t, s->lse, &t, s->lse, NULL),
                   FA_ERROR_ARGUMENT);
  assert_int_equal(fa_merge(c, FA_FLOAT32, -1, QUERIES, HEADS, DIM, &t, s->lse, &t, s->lse, NULL),
                   FA_ERROR_ARGUMENT);
  assert_int_equal(fa_merge(c, FA_FLOAT32, 1, QUERIES, HEADS, 5000, &t, s->lse, &t, s->lse, NULL),
                   FA_ERROR_ARGUMENT);
  assert_int_equal(fa_merge(c, FA_FLOAT32, 1, QUERIES, HEADS, DIM, &t, NULL, &t, s->lse, NULL),
                   FA_ERROR_ARGUMENT);
  assert_int_equal(fa_merge(NULL, FA_FLOAT32, 1, QUERIES, HEADS, DIM, &t, s->lse, &t, s->lse, NULL),
                   FA_ERROR_ARGUMENT);
  assert_int_equal(fa_buffer_copy(c, NULL, s->q, 4, FA_COPY_HOST_TO_DEVICE, NULL), FA_ERROR_ARGUMENT);
  assert_int_equal(fa_buffer_copy(c, s->o, s->q, 4, (fa_copy_kind)9, NULL), FA_ERROR_ARGUMENT);
  fill(s);
}

static int setup(void **state) {
  static setting s;
  if (fa_context_create(NULL, &s.context) != FA_OK) return 1;
  fill(&s);
  *state = &s;
  return 0;
}

static int make_plan(void **state) {
  setting *s = *state;
  fill(s);
  return fa_plan_create(s->context, &s->problem, &s->plan) != FA_OK;
}

static int drop_plan(void **state) {
  setting *s = *state;
  fa_plan_destroy(s->plan);
  s->plan = NULL;
  return 0;
}

static int teardown(void **state) {
  setting *s = *state;
  fa_context_destroy(s->context);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(everything_present_passes, make_plan, drop_plan),
      cmocka_unit_test_setup_teardown(missing_arrays, make_plan, drop_plan),
      cmocka_unit_test_setup_teardown(overlapping_outputs, make_plan, drop_plan),
      cmocka_unit_test_setup_teardown(strides_that_are_not_read, make_plan, drop_plan),
      cmocka_unit_test_setup_teardown(lengths_out_of_range, make_plan, drop_plan),
      cmocka_unit_test_setup_teardown(workspaces, make_plan, drop_plan),
      cmocka_unit_test(rows_that_the_tensor_has_not),
      cmocka_unit_test(merging)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
