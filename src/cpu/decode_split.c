/* The driver of every decode kernel.
 *
 * Level 1: each sequence's keys (those in the band) are cut into at most plan->kv_splits parts of equal
 * length; the count comes from the plan's maxima, the extents from the actual lengths, so that a plan for
 * 256K tokens stays balanced at 1K. Level 2: chunks of FA_DECODE_KEYS keys. Item: one part of one sequence
 * for a block of KV heads. Where the heads of a token lie side by side (B,S,H,D) the block is all heads, so
 * that memory is read from end to end; where a head lies by itself (B,H,S,D) it is one. The block changes no
 * result. A part leaves max, sum and the unnormalised o of each row in the workspace; the item that finishes
 * last among those of a sequence and head block joins them, in order. A sequence of one part is written
 * directly.
 *
 * Scratch, of each thread, in the workspace: q and o [heads, rows, padded dim] fp32, one tile, row pointers.
 * Bound: reading K and V once. Measured results: the kernels' files and docs/performance.md. */
#include "cpu/decode_layout.h"

#include <math.h>

/* A part shorter than this costs more in joining than it gains in balance. */
#define LEAST_PART 256
/* Longer parts leave the threads unevenly loaded at the end, and sum too many terms in one fp32. */
#define LONGEST_PART 8192
/* More than any sequence needs; bounds what a tuning file can ask for. */
#define MOST_SPLITS 4096
/* K and V of up to so many L2 caches (of each thread's core) are not fetched ahead: measured, docs/performance.md. */
#define NEAR_CACHES 4
/* Bytes read that are worth another thread. */
#define THREAD_BYTES (96 << 10)

typedef struct task {
  const fa_plan *plan;
  const fa_attention_args *args;
  const fa_decode_isa *isa;
  int64_t q_stride, o_stride;
  int64_t block;     /* KV heads an item */
  int64_t blocks;    /* items that share a part */
  int64_t fetches;   /* 0: K and V are likely in a cache, and asking for them ahead only takes time */
  share *shares;
  int64_t shares_count;
  int32_t *finished; /* [batch, blocks]: parts done */
  fa_part *parts;    /* [batch, splits, heads_q, max_seqlen_q] */
  float *o;          /* [batch, splits, heads_q, max_seqlen_q, o_stride] */
  char *scratch;
} task;

fa_status fa_decode_prepare(fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t threads = plan->context->threads;
  const fa_status status = fa_check_request(plan, 0, 0, 0, 0, MOST_SPLITS);
  if (status != FA_OK) return status;
  int64_t splits = p->kv_splits;
  if (!splits) {
    /* Enough parts for the threads when all heads go together, and none too long. */
    splits = threads > 1 ? fa_ceil_div(8 * threads, p->batch) : 1;
    splits = fa_max(splits, fa_ceil_div(p->max_seqlen_kv, LONGEST_PART));
    if (plan->request.kv_splits) splits = plan->request.kv_splits;
    splits = fa_min(splits, fa_ceil_div(p->max_seqlen_kv, LEAST_PART));
  }
  plan->kv_splits = fa_max(fa_min(splits, p->max_seqlen_kv), 1);
  plan->tiles.level1_rows = plan->group * p->max_seqlen_q;
  plan->tiles.level1_keys = fa_ceil_div(p->max_seqlen_kv, plan->kv_splits);
  plan->tiles.level2_rows = fa_min(plan->tiles.level1_rows, FA_DECODE_TILE);
  plan->tiles.level2_keys = FA_DECODE_KEYS;
  plan->kernel_workspace_bytes = (size_t)lay_out(plan).end;
  return FA_OK;
}

/* -------------------------------------------------------- one sequence's parts */

typedef struct span {
  fa_key_range keys; /* of the whole sequence */
  int64_t queries;
  int64_t parts;  /* >= 1 */
  int64_t length; /* of a part */
} span;

static span span_of(const fa_plan *plan, const fa_attention_args *args, int64_t b) {
  const fa_attention_problem *p = &plan->problem;
  const int64_t seqlen_q = fa_cpu_seqlen_q(plan, args, b), seqlen_kv = fa_cpu_seqlen_kv(plan, args, b);
  span s = {fa_band_keys(fa_band_of(p, seqlen_q, seqlen_kv), 0, fa_max(seqlen_q, 1), seqlen_kv), seqlen_q, 1,
            0};
  const int64_t keys = s.keys.end - s.keys.begin;
  if (keys == 0) return s;
  const int64_t most =
      p->kv_splits ? plan->kv_splits : fa_min(plan->kv_splits, fa_ceil_div(keys, LEAST_PART));
  s.length = fa_ceil_div(keys, most);
  if (!p->kv_splits) s.length = fa_round_up(s.length, FA_DECODE_KEYS);
  s.parts = fa_ceil_div(keys, s.length);
  return s;
}

/* -------------------------------------------------------------- one chunk */

static void point_at(const fa_cpu_tokens *tokens, int64_t key, int64_t keys, const char **rows) {
  for (int64_t j = 0; j < keys;) {
    const int64_t run = fa_cpu_token_run(tokens, key + j, key + keys);
    const char *row = fa_cpu_token(tokens, key + j);
    for (int64_t n = 0; n < run; ++n) rows[j + n] = row + n * tokens->stride;
    j += run;
  }
  for (int64_t j = fa_max(keys, 0); keys > 0 && j < FA_DECODE_KEYS; ++j) rows[j] = rows[keys - 1];
}

static void read_scales(const task *t, const fa_tensor *scale, int64_t b, int64_t head, int64_t key,
                        int64_t keys, float *to) {
  const fa_cpu_tokens tokens = fa_cpu_tokens_of(t->plan, t->args, scale, sizeof(float), b, head);
  for (int64_t j = 0; j < keys;) {
    const int64_t run = fa_cpu_token_run(&tokens, key + j, key + keys);
    const float *from = (const float *)(const void *)fa_cpu_token(&tokens, key + j);
    const int64_t stride = tokens.stride / (int64_t)sizeof *from;
    if (stride == 1) memcpy(to + j, from, (size_t)run * sizeof *from);
    else for (int64_t n = 0; n < run; ++n) to[j + n] = from[n * stride];
    j += run;
  }
  for (int64_t j = keys; j < FA_DECODE_KEYS; ++j) to[j] = to[keys - 1];
}

/* Query heads whose rows make up a tile. */
static int64_t tile_heads(int64_t queries) { return fa_max(FA_DECODE_TILE / queries, 1); }

/* Where the rows of o of the block's head begin in scratch: with slack behind each, so that what one head's loops write
 * behind their rows is nobody's. */
static int64_t first_o_row(const task *t, int64_t head, int64_t queries) {
  return head * (t->plan->group * queries + FA_DECODE_SLACK);
}

/* One chunk of one KV head: `head` counts within the block, rows are worked on in tiles of whole query heads.
 */
static void work_chunk(const task *t, const fa_decode_isa *isa, fa_decode_chunk *chunk, int64_t head,
                       int64_t queries, const scratch *s) {
  const int64_t group = t->plan->group, step = tile_heads(queries);
  for (int64_t g = 0; g < group; g += step) {
    const int64_t row = (head * group + g) * queries, rows = fa_min(step, group - g) * queries;
    float *o = s->o + (first_o_row(t, head, queries) + g * queries) * t->o_stride;
    isa->scores(chunk, s->q + row * t->q_stride, rows, s->tile);
    isa->weigh(chunk, s->rules + head * group + g, queries, rows, s->tile, s->parts + row, o);
    isa->accumulate(chunk, s->tile, rows, o);
  }
}

/* ---------------------------------------------------------- one part, one head block */

static void start_part(const task *t, const fa_decode_isa *isa, int64_t b, int64_t first_head, int64_t heads,
                       int64_t queries, const scratch *s) {
  const fa_attention_problem *p = &t->plan->problem;
  int64_t row = 0;
  for (int64_t h = 0; h < heads * t->plan->group; ++h) {
    const int64_t head_q = first_head * t->plan->group + h;
    const fa_cpu_rows q = fa_cpu_q_rows(t->plan, t->args, &t->args->q, b, head_q);
    s->rules[h] = fa_score_rules_of(t->plan, t->args, b, head_q);
    for (int64_t i = 0; i < queries; ++i, ++row) {
      const fa_part nothing = {-INFINITY, 0.0f};
      isa->load_q(s->q + row * t->q_stride, q.data + i * q.stride, p->head_dim_qk, p->dtype, p->kv_dtype);
      s->parts[row] = nothing;
    }
  }
  memset(s->o, 0, (size_t)(first_o_row(t, heads, queries) * t->o_stride) * sizeof(float));
  if (!isa->arrange_q) return;
  const int64_t step = tile_heads(queries);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t g = 0; g < t->plan->group; g += step) {
      const int64_t first = (h * t->plan->group + g) * queries, rows = fa_min(step, t->plan->group - g) * queries;
      isa->arrange_q(s->q + first * t->q_stride, rows, t->q_stride, p->head_dim_qk);
    }
}

static int64_t bytes_across(const fa_tensor *tensor, int64_t heads, int64_t dim, int64_t size) {
  return ((heads - 1) * tensor->stride_head + dim) * size;
}

/* Leaves max, sum and unnormalised o of all rows of the block in scratch. */
static void work_part(const task *t, const fa_decode_isa *isa, int64_t b, int64_t first_head, int64_t heads,
                      fa_key_range keys, int64_t queries, const scratch *s) {
  const fa_attention_problem *p = &t->plan->problem;
  const int64_t size = (int64_t)fa_dtype_size(p->kv_dtype);
  const fa_cpu_tokens k = fa_cpu_tokens_of(t->plan, t->args, &t->args->k, (size_t)size, b, first_head);
  const fa_cpu_tokens v = fa_cpu_tokens_of(t->plan, t->args, &t->args->v, (size_t)size, b, first_head);
  const int64_t k_bytes = bytes_across(&t->args->k, heads, p->head_dim_qk, size);
  const int64_t v_bytes = bytes_across(&t->args->v, heads, p->head_dim_v, size);
  const int is_scaled = p->kv_dtype != p->dtype;
  const int64_t tiles = fa_ceil_div(t->plan->group, tile_heads(queries));
  const int64_t lines = t->fetches ? fa_ceil_div((k_bytes + v_bytes) * FA_DECODE_KEYS, 64 * heads * tiles) : 0;

  start_part(t, isa, b, first_head, heads, queries, s);
  int now = 0;
  point_at(&k, keys.begin, fa_min(keys.end - keys.begin, FA_DECODE_KEYS), s->rows);
  point_at(&v, keys.begin, fa_min(keys.end - keys.begin, FA_DECODE_KEYS), s->rows + 2 * FA_DECODE_KEYS);
  for (int64_t key = keys.begin; key < keys.end; key += FA_DECODE_KEYS, now = 1 - now) {
    const int64_t after = fa_max(fa_min(keys.end - key - FA_DECODE_KEYS, FA_DECODE_KEYS), 0);
    const char **k_next = s->rows + (1 - now) * FA_DECODE_KEYS, **v_next = k_next + 2 * FA_DECODE_KEYS;
    if (after) {
      point_at(&k, key + FA_DECODE_KEYS, after, k_next);
      point_at(&v, key + FA_DECODE_KEYS, after, v_next);
    }
    fa_decode_fetch fetch = {k_next, k_bytes, v_next, v_bytes, after, 0, 0, lines};
    fa_decode_chunk chunk = {.key = key,
                             .keys = fa_min(keys.end - key, FA_DECODE_KEYS),
                             .k = s->rows + now * FA_DECODE_KEYS,
                             .v = s->rows + (2 + now) * FA_DECODE_KEYS,
                             .k_scale = is_scaled ? s->scales : NULL,
                             .v_scale = is_scaled ? s->scales + FA_DECODE_KEYS : NULL,
                             .dim_qk = p->head_dim_qk,
                             .dim_v = p->head_dim_v,
                             .q_stride = t->q_stride,
                             .o_stride = t->o_stride,
                             .kv_dtype = p->kv_dtype,
                             .scale = p->scale,
                             .fetch = &fetch};
    for (int64_t h = 0; h < heads; ++h) {
      chunk.k_offset = h * t->args->k.stride_head * size;
      chunk.v_offset = h * t->args->v.stride_head * size;
      if (is_scaled) {
        read_scales(t, &t->args->k_scale, b, first_head + h, key, chunk.keys, s->scales);
        read_scales(t, &t->args->v_scale, b, first_head + h, key, chunk.keys, s->scales + FA_DECODE_KEYS);
      }
      work_chunk(t, isa, &chunk, h, queries, s);
    }
  }
}

/* Whether vector loops lost something: a masked key multiplied by 0, and 0 * NaN is NaN; an infinity; or, in loops that take
 * subnormals as 0, all of V. */
static int is_suspect(const scratch *s, const fa_decode_isa *isa, int64_t rows, int64_t stride) {
  const int32_t least = (int32_t)fa_float_bits(isa->least_o);
  for (int64_t r = 0; r < rows; ++r) {
    const float *o = s->o + r * stride;
    int32_t most = 0; /* signed, as SSE2 compares */
    for (int64_t d = 0; d < stride; ++d) {
      const int32_t size = (int32_t)(fa_float_bits(o[d]) & 0x7fffffffu);
      most = size > most ? size : most;
    }
    if (most >= 0x7f800000 || (most < least && s->parts[r].sum > 0.0f)) return 1;
  }
  return 0;
}

/* -------------------------------------------------------------- results */

static void write_row(const task *t, int64_t b, int64_t head_q, int64_t i, const float *o, float lse) {
  const fa_attention_problem *p = &t->plan->problem;
  const fa_cpu_rows rows = fa_cpu_q_rows(t->plan, t->args, &t->args->o, b, head_q);
  char *to = rows.data + i * rows.stride;
  fa_store_row(to, o, p->head_dim_v, p->dtype);
  if (p->has_lse) fa_cpu_lse_row(t->plan, t->args, b, head_q)[i] = lse;
}

static int64_t part_row(const task *t, int64_t b, int64_t part, int64_t head_q, int64_t i) {
  const fa_attention_problem *p = &t->plan->problem;
  return ((b * t->plan->kv_splits + part) * p->heads_q + head_q) * p->max_seqlen_q + i;
}

/* parts of this row lie `stride` rows apart, in o too. */
static void join_row(const task *t, int64_t b, int64_t head_q, int64_t i, const fa_part *parts,
                     const float *o, int64_t count, int64_t stride, float *weights) {
  const fa_attention_problem *p = &t->plan->problem;
  const float *sink = p->has_sinks ? t->args->sinks + head_q : NULL;
  const float lse = fa_cpu_join_parts(parts, count, stride, sink, weights);
  float sum[FA_DECODE_MAX_DIM] = {0.0f};
  for (int64_t n = 0; n < count; ++n)
    if (weights[n] != 0.0f) t->isa->add(sum, o + n * stride * t->o_stride, weights[n], p->head_dim_v);
  write_row(t, b, head_q, i, sum, lse);
}

/* Rows of one KV head that were worked on, from scratch to where they belong. */
static void finish_head(const task *t, const fa_decode_isa *isa, int64_t b, int64_t part, const span *span_b, int64_t head,
                        const scratch *s) {
  const fa_attention_problem *p = &t->plan->problem;
  int64_t row = 0;
  for (int64_t h = head * t->plan->group; h < (head + 1) * t->plan->group; ++h) {
    for (int64_t i = 0; i < span_b->queries; ++i, ++row) {
      float alone[FA_DECODE_MAX_DIM];
      const int is_alone = span_b->parts == 1;
      float *to = is_alone ? alone : t->o + part_row(t, b, part, h, i) * t->o_stride;
      fa_part *mine = s->parts + row;
      if (mine->sum != mine->sum) mine->max = NAN; /* so that it does not pass for empty */
      isa->store_o(to, s->o + row * t->o_stride, p->head_dim_v, p->kv_dtype);
      if (is_alone)
        join_row(t, b, h, i, mine, to, 1, 1, s->weights);
      else
        t->parts[part_row(t, b, part, h, i)] = *mine;
    }
  }
}

/* The same scratch as the block's head has it, when it is worked on alone. */
static scratch scratch_of_head(const task *t, const scratch *s, int64_t head, int64_t queries) {
  const int64_t row = head * t->plan->group * queries;
  scratch own = *s;
  own.q += row * t->q_stride;
  own.o += first_o_row(t, head, queries) * t->o_stride;
  own.parts += row;
  own.rules += head * t->plan->group;
  return own;
}

static void join_block(const task *t, int64_t b, const span *span_b, int64_t first, int64_t heads,
                       const scratch *s) {
  const int64_t stride = t->plan->problem.heads_q * t->plan->problem.max_seqlen_q;
  for (int64_t h = first * t->plan->group; h < (first + heads) * t->plan->group; ++h)
    for (int64_t i = 0; i < span_b->queries; ++i) {
      const int64_t row = part_row(t, b, 0, h, i);
      join_row(t, b, h, i, t->parts + row, t->o + row * t->o_stride, span_b->parts, stride, s->weights);
    }
}

static void work_item(const task *t, int64_t item, const scratch *s) {
  const int64_t block = item % t->blocks, part = item / t->blocks % t->plan->kv_splits;
  const int64_t b = item / t->blocks / t->plan->kv_splits;
  const span span_b = span_of(t->plan, t->args, b);
  if (part >= span_b.parts || span_b.queries == 0) return;
  const int64_t first = block * t->block, heads = fa_min(t->block, t->plan->problem.heads_kv - first);
  const int64_t begin = span_b.keys.begin + part * span_b.length;
  const fa_key_range keys = {begin, fa_min(begin + span_b.length, span_b.keys.end)};
  const int64_t rows = t->plan->group * span_b.queries;

  work_part(t, t->isa, b, first, heads, keys, span_b.queries, s);
  for (int64_t h = 0; h < heads; ++h) { /* each by itself: the block must not change what is done again */
    const scratch own = scratch_of_head(t, s, h, span_b.queries);
    const fa_decode_isa *isa = t->isa;
    if (isa != &fa_decode_isa_c && is_suspect(&own, isa, rows, t->o_stride)) {
      isa = &fa_decode_isa_c;
      work_part(t, isa, b, first + h, 1, keys, span_b.queries, &own);
    }
    finish_head(t, isa, b, part, &span_b, first + h, &own);
  }
  if (span_b.parts == 1) return;
  int32_t *finished = t->finished + b * t->blocks + block;
  if (__atomic_add_fetch(finished, 1, __ATOMIC_ACQ_REL) == (int32_t)span_b.parts)
    join_block(t, b, &span_b, first, heads, s);
}

static void body(void *shared, fa_cpu_work *work, int thread) {
  const task *t = shared;
  scratch s = {0};
  lay_out_scratch(t->plan, t->scratch + thread * lay_out_scratch(t->plan, NULL, NULL), &s);
  (void)work;
  if (t->isa->begin) t->isa->begin();
  for (int64_t n = 0; n < t->shares_count; ++n) {
    share *from = t->shares + (thread + n) % t->shares_count;
    for (int64_t item; (item = __atomic_fetch_add(&from->next, 1, __ATOMIC_RELAXED)) < from->end;)
      work_item(t, item, &s);
  }
  if (t->isa->end) t->isa->end();
}

/* -------------------------------------------------------------------- run */

static int heads_interleave(const fa_tensor *tensor, int64_t heads) {
  return tensor->stride_head > 0 && tensor->stride_head * heads <= tensor->stride_seq;
}

fa_status fa_decode_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                        const fa_decode_isa *isa) {
  const fa_attention_problem *p = &plan->problem;
  const layout at = lay_out(plan);
  char *base = workspace;
  task t = {.plan = plan,
            .args = args,
            .isa = isa,
            .q_stride = fa_round_up(p->head_dim_qk, FA_DECODE_PAD),
            .o_stride = fa_round_up(p->head_dim_v, FA_DECODE_PAD),
            .block = 1,
            .finished = (int32_t *)workspace,
            .shares = (share *)(void *)(base + at.shares),
            .parts = (fa_part *)(void *)(base + at.parts),
            .o = (float *)(void *)(base + at.o),
            .scratch = base + at.scratch};
  int64_t parts = 0, bytes = 0, elements = 0;
  const int64_t size = (int64_t)fa_dtype_size(p->kv_dtype);
  for (int64_t b = 0; b < p->batch; ++b) {
    const span s = span_of(plan, args, b);
    const int64_t read = (s.keys.end - s.keys.begin) * p->heads_kv * (p->head_dim_qk + p->head_dim_v);
    elements += read;
    /* A row more costs about what four bytes more of each element cost. */
    bytes += read * (size + plan->group * s.queries / 4);
    parts += s.parts;
  }
  const int64_t threads = fa_max(fa_min(plan->context->threads, bytes / THREAD_BYTES), 1);
  if (heads_interleave(&args->k, p->heads_kv) && heads_interleave(&args->v, p->heads_kv))
    t.block = most_heads(p);
  /* One thread has nothing to balance, and reads best from end to end. */
  while (threads > 1 && t.block > 1 && parts * fa_ceil_div(p->heads_kv, t.block) < 4 * threads)
    t.block = fa_ceil_div(t.block, 2);
  t.blocks = fa_ceil_div(p->heads_kv, t.block);
  t.fetches = elements * size > NEAR_CACHES * threads * fa_cpu_cache_bytes(2);
  memset(t.finished, 0, (size_t)(p->batch * t.blocks) * sizeof *t.finished);
  const int64_t items = p->batch * plan->kv_splits * t.blocks;
  t.shares_count = fa_min(threads, items);
  for (int64_t n = 0; n < t.shares_count; ++n) {
    t.shares[n].next = items * n / t.shares_count;
    t.shares[n].end = items * (n + 1) / t.shares_count;
  }
  fa_cpu_parallel((int)threads, items, body, &t);
  return FA_OK;
}
