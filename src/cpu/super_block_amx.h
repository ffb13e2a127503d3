/* What prefill_bf16_amx.c and prefill_terms_amx.c are but for their types: work cut into super-blocks, K and V packed, the
 * pipeline of pipeline_amx.h over key blocks, results written.
 *
 * Before it the including file includes lanes_avx512.h. Behind it it defines the functions declared here.
 *
 * Level one: a super-block of sub-blocks of 32 queries, all query heads of a KV head together, whose Q and O take three
 * eighths of L2, by a run of keys whose packed K and V take a quarter, while the next run is asked for. K and V are packed once
 * a KV head for all its super-blocks, or by the thread where there is only one. See layout_amx.h for the memory. */
#ifndef FA_CPU_SUPER_BLOCK_AMX_H
#define FA_CPU_SUPER_BLOCK_AMX_H

#include <stdbool.h>

#include "core/kernel_declarations.h"
#include "cpu/layout_amx.h"
#include "cpu/prefill_exact.h"

#define LOG2E 1.44269504088896340736
#define LN2 0.69314718055994530942f
#define NOT_FINITE 0x99 /* quiet and signalling NaN, both infinities */

typedef struct amx_job amx_job;
/* Tiles as pack_bf16_amx.h's, a value's terms side by side. False when a value cannot be split into terms. */
static bool amx_pack_q(fa_dtype dtype, fa_cpu_rows rows, int64_t row, int64_t seqlen_q, int64_t dim, int steps, float scale,
                       char *q);
static bool amx_pack_k(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded,
                       int64_t dim, int steps, char *k);
static bool amx_pack_v(fa_dtype dtype, int terms, const fa_cpu_tokens *tokens, int64_t key, int64_t count, int64_t padded,
                       int64_t dim, int units, char *v);
/* Queries [row, row + rows) of a query head without tiles, in memory of a thread: some value of Q, K or V cannot be split. */
static void amx_run_vector(const amx_job *work, char *memory, int64_t b, int64_t head, int64_t row, int64_t rows);

/* ------------------------------------------------------------- one super-block */

struct amx_job {
  const fa_plan *plan;
  const fa_attention_args *args;
  amx_packing packed;    /* of the pairs in work */
  int32_t *unsplittable; /* [packed.heads] */
  char *packed_heads;    /* [packed.heads] */
  char *scratch;         /* [threads] */
  amx_layout layout;
  fa_amx_shape shape;
  iterate_function iterate;
  int64_t first_pair, pairs; /* (entry, KV head) pairs in work */
};

/* Queries of one lane group whose result is not finite: their inputs (or a masked key's) are not either. */
static void redo_rows(const amx_job *work, int64_t b, int64_t head, int64_t row, __mmask16 bad, void *memory) {
  for (int i = 0; i < 16; ++i)
    if (bad >> i & 1) fa_prefill_rows_exact(work->plan, work->args, b, head, row + i, 1, memory);
}

/* O^T tiles of 16 queries, divided by their sums, into rows of o; lse. */
static void finish_lanes(const amx_job *work, const fa_amx_pipeline *w, int64_t b, int64_t sub_index, int tile,
                         int64_t seqlen_q, void *exact_scratch) {
  const fa_attention_problem *p = &work->plan->problem;
  const fa_amx_sub *sub = &w->subs[sub_index];
  const int64_t row = sub->row + tile * 16;
  const int64_t rows = fa_min(16, seqlen_q - row);
  if (rows <= 0) return;
  const int64_t lane = sub_index * FA_SUB_ROWS + tile * 16;
  __m512 sum = _mm512_load_ps(w->sum + lane), exact_sum = work->shape.terms == 1 ? _mm512_load_ps(w->exact_sum + lane) : sum;
  __m512 reference = _mm512_load_ps(w->reference + lane);
  const __mmask16 empty = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_EQ_OQ);
  /* Beyond 2^22 the reference is too coarse to stand near the scores it is subtracted from. */
  __mmask16 bad = _mm512_fpclass_ps_mask(sum, NOT_FINITE) |
                  _mm512_cmp_ps_mask(_mm512_abs_ps(reference), _mm512_set1_ps(0x1p22f), _CMP_NLE_UQ);
  __m512 weight = _mm512_set1_ps(1.0f); /* of O and sum once a sink has raised the reference */
  if (p->has_sinks) {
    const __m512 sink = _mm512_set1_ps(work->args->sinks[sub->head] * (float)LOG2E);
    const __m512 shift = _mm512_max_ps(_mm512_roundscale_ps(_mm512_sub_ps(sink, reference), _MM_FROUND_TO_POS_INF),
                                       _mm512_setzero_ps());
    weight = _mm512_scalef_ps(weight, _mm512_sub_ps(_mm512_setzero_ps(), shift));
    reference = _mm512_mask_mov_ps(_mm512_add_ps(reference, shift), empty, sink);
    float share[16] __attribute__((aligned(ALIGN)));
    _mm512_store_ps(share, _mm512_sub_ps(sink, reference));
    for (int i = 0; i < 16; ++i) share[i] = exp2f(share[i]);
    sum = _mm512_fmadd_ps(sum, weight, _mm512_load_ps(share));
    exact_sum = _mm512_fmadd_ps(exact_sum, weight, _mm512_load_ps(share));
    bad |= _mm512_fpclass_ps_mask(sum, NOT_FINITE);
  }
  const __m512 inverse = _mm512_maskz_div_ps((__mmask16)~empty, weight, sum);
  const __mmask16 valid = (__mmask16)((1u << rows) - 1u);

  const fa_cpu_rows out = fa_cpu_q_rows(work->plan, work->args, &work->args->o, b, sub->head);
  for (int unit = 0; unit * 32 < p->head_dim_v; ++unit) {
    const float *o = w->o + ((sub_index * work->shape.units + unit) * 4 + tile * 2) * FA_TILE_FLOATS;
    __m512i low[16], high[16];
    for (int r = 0; r < 16; ++r) {
      const __m512 a = _mm512_maskz_mul_ps((__mmask16)~empty, inverse, _mm512_load_ps(o + r * 16));
      const __m512 c =
          _mm512_maskz_mul_ps((__mmask16)~empty, inverse, _mm512_load_ps(o + FA_TILE_FLOATS + r * 16));
      bad |= _mm512_fpclass_ps_mask(a, NOT_FINITE) | _mm512_fpclass_ps_mask(c, NOT_FINITE);
      low[r] = _mm512_castps_si512(a);
      high[r] = _mm512_castps_si512(c);
    }
    fa_transpose_16x16(low);
    fa_transpose_16x16(high);
    const int64_t left = p->head_dim_v - unit * 32, size = (int64_t)fa_dtype_size(p->dtype);
    for (int64_t i = 0; i < rows; ++i) {
      char *to = out.data + (row + i) * out.stride + unit * 32 * size;
      vec_store_row(to, p->dtype, left, _mm512_castsi512_ps(low[i]));
      if (left > VEC) vec_store_row(to + VEC * size, p->dtype, left - VEC, _mm512_castsi512_ps(high[i]));
    }
  }
  if (p->has_lse) {
    float *lse = fa_cpu_lse_row(work->plan, work->args, b, sub->head) + row;
    float sums[16] __attribute__((aligned(ALIGN))), references[16] __attribute__((aligned(ALIGN)));
    _mm512_store_ps(sums, exact_sum);
    _mm512_store_ps(references, reference);
    for (int64_t i = 0; i < rows; ++i)
      lse[i] = sums[i] > 0.0f ? (references[i] + log2f(sums[i])) * LN2 : -INFINITY;
  }
  bad &= valid;
  if (__builtin_expect(bad, 0)) redo_rows(work, b, sub->head, row, bad, exact_scratch);
}

/* Blocks of all sub-blocks against the keys [key, key + keys), sub by sub so that a sub's O stays in L1. packed_from: the
 * key that the packed ones begin with. */
static int64_t list_blocks(const fa_plan *plan, const fa_amx_pipeline *w, int64_t subs, int64_t seqlen_q, int64_t key,
                           int64_t keys, int64_t packed_from, fa_amx_block *blocks) {
  const int64_t block_keys = plan->tiles.level2_keys, block_bytes = block_bytes_of(plan);
  int64_t count = 0;
  for (int64_t s = 0; s < subs; ++s)
    for (int64_t at = 0; at < keys; at += block_keys) {
      const int64_t rows = fa_min(FA_SUB_ROWS, seqlen_q - w->subs[s].row);
      const int64_t inside = fa_min(block_keys, w->seqlen_kv - key - at);
      const fa_block_case kind = fa_band_block(w->band, w->subs[s].row, rows, key + at, inside);
      if (kind == FA_BLOCK_SKIP) continue;
      const fa_amx_block block = {(int32_t)s, kind == FA_BLOCK_WINDOW || inside < block_keys, key + at,
                                  (key + at - packed_from) / block_keys * block_bytes};
      blocks[count++] = block;
    }
  return count;
}

/* Keys [key, key + keys) of a KV head, key a multiple of the key block, to the tiles of their key blocks. False when a
 * value cannot be split. memory: of the thread. */
static bool amx_pack_keys(const amx_job *work, char *memory, int64_t b, int64_t kv_head, int64_t key, int64_t keys,
                          char *tiles) {
  const fa_plan *plan = work->plan;
  const fa_attention_args *args = work->args;
  const fa_attention_problem *p = &plan->problem;
  const fa_amx_shape shape = work->shape;
  const bool is_quantised = amx_is_quantised(p);
  const fa_dtype dtype = is_quantised ? amx_row_dtype(p) : p->dtype;
  fa_cpu_tokens k = fa_cpu_tokens_of(plan, args, &args->k, fa_dtype_size(p->kv_dtype), b, kv_head);
  fa_cpu_tokens v = fa_cpu_tokens_of(plan, args, &args->v, fa_dtype_size(p->kv_dtype), b, kv_head);
  const int64_t block_keys = plan->tiles.level2_keys;
  const int64_t k_bytes = block_keys / FA_CHUNK_KEYS * shape.qk_steps * shape.terms * 2 * FA_TILE_BYTES;
  char *rows = memory + work->layout.rows;
  bool fits = true;
  for (int64_t at = 0; at < keys; at += block_keys, tiles += block_bytes_of(plan)) {
    const int64_t count = fa_min(block_keys, keys - at), first = is_quantised ? 0 : key + at;
    float *key_scales = block_has_scales(plan) ? (float *)(void *)(tiles + block_tiles_bytes(plan)) : NULL;
    if (is_quantised)
      k = amx_dequantise_tokens(plan, args, &args->k, &args->k_scale, b, kv_head, p->head_dim_qk, key + at, count, rows,
                                key_scales);
    fits &= amx_pack_k(dtype, shape.terms, &k, first, count, block_keys, p->head_dim_qk, shape.qk_steps, tiles);
    if (is_quantised)
      v = amx_dequantise_tokens(plan, args, &args->v, &args->v_scale, b, kv_head, p->head_dim_v, key + at, count, rows, NULL);
    fits &= amx_pack_v(dtype, shape.terms, &v, first, count, block_keys, p->head_dim_v, shape.units, tiles + k_bytes);
  }
  return fits;
}

/* While `blocks` key blocks are worked on, asks for what is packed between bytes `from` and `to`. */
static void look_ahead(const amx_job *work, fa_amx_pipeline *w, int64_t from, int64_t to, int64_t blocks) {
  const int64_t phases = work->shape.rounds * work->shape.round_chunks + work->shape.units; /* of a block */
  w->ahead = w->kv + from;
  w->ahead_lines = fa_max(0, to - from) / 64;
  w->phase_lines = blocks ? fa_ceil_div(w->ahead_lines, blocks * phases) : 0;
}

/* Sub-blocks [first, first + count) of KV head kv_head of entry b; sub-blocks are numbered row block first, so that
 * the heads of a group that share K and V are together. packed: the head's K and V, or NULL. False, and nothing written,
 * when a value of K or V cannot be split; Q's are looked at by sub-block. What is done without tiles thus depends on neither
 * super-blocks nor threads. */
static bool run_super_block(const amx_job *work, char *memory, char *packed, int64_t b, int64_t kv_head, int64_t first,
                            int64_t count) {
  const fa_plan *plan = work->plan;
  const fa_attention_problem *p = &plan->problem;
  const amx_layout *at = &work->layout;
  const int64_t seqlen_q = fa_cpu_seqlen_q(plan, work->args, b);

  fa_amx_pipeline w;
  memset(&w, 0, sizeof w);
  const int64_t block_keys = plan->tiles.level2_keys, block_bytes = block_bytes_of(plan);
  w.scores[0] = (float *)(memory + at->scores);
  w.scores[1] = w.scores[0] + work->shape.round_chunks * 4 * FA_TILE_FLOATS;
  w.p[0] = memory + at->p;
  w.p[1] = w.p[0] + block_keys / FA_CHUNK_KEYS * work->shape.terms * 2 * FA_TILE_BYTES;
  w.q = memory + at->q;
  w.kv = packed ? packed : memory + at->kv;
  w.o = (float *)(memory + at->o);
  w.reference = (float *)(memory + at->reference);
  w.limit = (float *)(memory + at->limit);
  w.sum = (float *)(memory + at->sum);
  w.exact_sum = (float *)(memory + at->exact_sum);
  w.pending = (float *)(memory + at->pending);
  w.discard = w.unstored = (float *)(memory + at->discard);
  w.part = (float *)(memory + at->part);
  w.seqlen_q = seqlen_q;
  w.seqlen_kv = fa_cpu_seqlen_kv(plan, work->args, b);
  w.band = fa_band_of(p, seqlen_q, w.seqlen_kv);
  w.key_scales = block_has_scales(plan) ? block_tiles_bytes(plan) : 0;
  w.has_rules = fa_score_rules_any(p) || w.key_scales;
  w.rule_scale = fabsf(p->scale);
  const double scale = (w.has_rules ? 1.0 : fabs((double)p->scale)) * LOG2E;
  /* From below, so that the rest is positive and a masked score times it is -inf as well, not NaN beside -inf. */
  const float most = (float)scale, below = (double)most < scale ? most : nextafterf(most, 0.0f);
  w.scale = _mm512_set1_ps(p->dtype == FA_FLOAT32 ? below : most);
  w.scale_rest = _mm512_set1_ps((float)(scale - (double)below));
  fa_amx_sub *subs = (fa_amx_sub *)(memory + at->subs);
  w.subs = subs;

  const int64_t q_bytes = work->shape.qk_steps * work->shape.terms * 2 * FA_TILE_BYTES;
  for (int64_t s = 0; s < count; ++s) {
    subs[s].row = (first + s) / plan->group * FA_SUB_ROWS;
    subs[s].head = kv_head * plan->group + (first + s) % plan->group;
    const fa_cpu_rows rows = fa_cpu_q_rows(plan, work->args, &work->args->q, b, subs[s].head);
    char *q = memory + at->q + s * q_bytes;
    subs[s].splits = amx_pack_q(p->dtype, rows, subs[s].row, seqlen_q, p->head_dim_qk, work->shape.qk_steps, p->scale, q);
    if (!subs[s].splits) memset(q, 0, (size_t)q_bytes);
    if (w.has_rules) subs[s].rules = fa_score_rules_of(plan, work->args, b, subs[s].head);
  }
  memset(w.o, 0, (size_t)(count * work->shape.units * 4 * FA_TILE_BYTES));
  for (int64_t i = 0; i < count * FA_SUB_ROWS; ++i) {
    w.reference[i] = w.sum[i] = w.exact_sum[i] = 0.0f;
    w.limit[i] = FA_NO_KEY_YET;
  }
  for (int i = 0; i < FA_SUB_ROWS; ++i) w.pending[i] = 1.0f;

  const int64_t row = subs[0].row, rows = fa_min(subs[count - 1].row + FA_SUB_ROWS, seqlen_q) - row;
  const fa_key_range range = fa_band_keys(w.band, row, rows, w.seqlen_kv);
  fa_amx_block *blocks = (fa_amx_block *)(memory + at->blocks);
  for (int64_t key = range.begin / block_keys * block_keys; key < range.end; key += plan->tiles.level1_keys) {
    const int64_t keys = fa_min(plan->tiles.level1_keys, range.end - key);
    if (!packed && !amx_pack_keys(work, memory, b, kv_head, key, keys, memory + at->kv)) return false;
    const int64_t n = list_blocks(plan, &w, count, seqlen_q, key, keys, packed ? 0 : key, blocks);
    const int64_t next = key + plan->tiles.level1_keys, after = fa_min(next + plan->tiles.level1_keys, range.end);
    if (packed) look_ahead(work, &w, next / block_keys * block_bytes, fa_ceil_div(after, block_keys) * block_bytes, n);
    if (n == 0) continue;
    for (int64_t i = 0; i < n + 2; ++i)
      work->iterate(&w, i < n ? &blocks[i] : NULL, i >= 1 && i <= n ? &blocks[i - 1] : NULL,
                    i >= 2 ? &blocks[i - 2] : NULL, work->shape);
  }
  for (int64_t s = 0; s < count; ++s) {
    if (!subs[s].splits) amx_run_vector(work, memory + at->vector, b, subs[s].head, subs[s].row, FA_SUB_ROWS);
    else
      for (int tile = 0; tile < 2; ++tile) finish_lanes(work, &w, b, s, tile, seqlen_q, memory + at->exact);
  }
  return true;
}

/* ------------------------------------------------------------- all of them */

static char *packed_head(const amx_job *work, int64_t pair) {
  if (!work->packed.heads) return NULL;
  return work->packed_heads + (size_t)(pair - work->first_pair) * work->packed.bytes;
}

/* Packs the heads in work. An item is a run of keys of one of them. */
static void pack_thread(void *shared, fa_cpu_work *queue, int thread) {
  const amx_job *work = shared;
  char *memory = work->scratch + (size_t)thread * work->layout.bytes;
  const fa_attention_problem *p = &work->plan->problem;
  const int64_t run = work->plan->tiles.level1_keys, runs = queue->items / work->pairs;
  for (int64_t n = fa_cpu_take(queue); n >= 0; n = fa_cpu_take(queue)) {
    const int64_t pair = work->first_pair + n / runs, b = pair / p->heads_kv, key = n % runs * run;
    const int64_t seqlen_q = fa_cpu_seqlen_q(work->plan, work->args, b);
    const int64_t seqlen_kv = fa_cpu_seqlen_kv(work->plan, work->args, b);
    const fa_key_range kept = fa_band_keys(fa_band_of(p, seqlen_q, seqlen_kv), 0, seqlen_q, seqlen_kv);
    if (kept.begin >= key + run || kept.end <= key) continue;
    const int64_t block_keys = work->plan->tiles.level2_keys, begin = fa_max(key, kept.begin / block_keys * block_keys);
    char *tiles = packed_head(work, pair) + begin / block_keys * block_bytes_of(work->plan);
    if (!amx_pack_keys(work, memory, b, pair % p->heads_kv, begin, fa_min(key + run, kept.end) - begin, tiles))
      __atomic_store_n(&work->unsplittable[pair - work->first_pair], 1, __ATOMIC_RELAXED);
  }
}

/* A sub-block after the other would pack K and V each time, so each head's row blocks go together. */
static void run_without_tiles(const amx_job *work, char *memory, int64_t b, int64_t kv_head, int64_t first, int64_t count) {
  const int64_t group = work->plan->group;
  for (int64_t h = 0; h < group; ++h) {
    const int64_t begin = fa_max(0, fa_ceil_div(first - h, group)), end = fa_ceil_div(first + count - h, group);
    if (begin < end)
      amx_run_vector(work, memory + work->layout.vector, b, kv_head * group + h, begin * FA_SUB_ROWS,
                     (end - begin) * FA_SUB_ROWS);
  }
}

static void run_thread(void *shared, fa_cpu_work *queue, int thread) {
  const amx_job *work = shared;
  const fa_attention_problem *p = &work->plan->problem;
  const int64_t subs = work->plan->tiles.level1_rows / FA_SUB_ROWS;
  char *memory = work->scratch + (size_t)thread * work->layout.bytes;
  fa_tiles_configure();
  for (int64_t n = fa_cpu_take(queue); n >= 0; n = fa_cpu_take(queue)) {
    /* Late rows first: under a causal mask they have the most keys. */
    const int64_t from_last = queue->items - 1 - n, super_block = from_last / work->pairs;
    const int64_t pair = work->first_pair + from_last % work->pairs;
    const int64_t b = pair / p->heads_kv, kv_head = pair % p->heads_kv, first = super_block * subs;
    const int64_t all = fa_ceil_div(fa_cpu_seqlen_q(work->plan, work->args, b), FA_SUB_ROWS) * work->plan->group;
    const int64_t count = fa_min(subs, all - first);
    if (count <= 0) continue;
    const bool splits = !work->packed.heads || !work->unsplittable[pair - work->first_pair];
    if (!splits || !run_super_block(work, memory, packed_head(work, pair), b, kv_head, first, count))
      run_without_tiles(work, memory, b, kv_head, first, count);
  }
  fa_tiles_release();
}

/* The pairs from first_pair on that are packed together: where entries are shorter than the longest, more than the plan's
 * heads have the room of those, so that threads meet at fewer barriers. */
static amx_packing next_packing(const amx_job *work, const amx_packing *room, int64_t pairs) {
  const fa_plan *plan = work->plan;
  const int64_t block_keys = plan->tiles.level2_keys, block_bytes = block_bytes_of(plan);
  amx_packing fits = {0, 0, 0}, more = fits;
  for (int64_t pair = work->first_pair; pair < pairs; ++pair) {
    const int64_t keys = fa_round_up(fa_cpu_seqlen_kv(plan, work->args, pair / plan->problem.heads_kv), block_keys);
    ++more.heads;
    more.keys = fa_max(more.keys, keys);
    more.bytes = (size_t)(more.keys / block_keys * block_bytes);
    if (fits.heads && amx_packed_bytes(&more) > amx_packed_bytes(room)) break;
    fits = more;
  }
  return fits;
}

static fa_status amx_run(const fa_plan *plan, const fa_attention_args *args, void *workspace) {
  const amx_packing room = amx_packing_of(plan);
  const int64_t pairs = plan->problem.batch * plan->problem.heads_kv;
  amx_job work = {.plan = plan,
              .args = args,
              .unsplittable = workspace,
              .scratch = (char *)workspace + amx_packed_bytes(&room),
              .layout = amx_layout_of(plan),
              .shape = shape_of(&plan->problem)};
  work.iterate = iterate_for(work.shape);
  for (work.first_pair = 0; work.first_pair < pairs; work.first_pair += work.pairs) {
    if (room.heads) work.packed = next_packing(&work, &room, pairs);
    work.pairs = room.heads ? work.packed.heads : pairs;
    work.packed_heads = (char *)workspace + amx_flags_bytes(&work.packed);
    memset(work.unsplittable, 0, amx_flags_bytes(&work.packed));
    if (room.heads)
      fa_cpu_parallel(plan->context->threads, work.pairs * fa_ceil_div(work.packed.keys, plan->tiles.level1_keys),
                      pack_thread, &work);
    fa_cpu_parallel(plan->context->threads, work.pairs * super_blocks_of(plan), run_thread, &work);
  }
  return FA_OK;
}

#endif
