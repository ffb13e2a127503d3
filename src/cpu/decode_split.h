/* Split-KV decode: what the driver (decode_split.c) and the loops of each kernel (decode_c.c and decode_<isa>.c) say to each
 * other, and the softmax they share.
 *
 * At most FA_DECODE_ROWS queries a sequence meet a long cache, so everything is about reading K and V once:
 * the `group * queries` score rows that share a KV head are worked on together, a chunk of keys at a time.
 * Row r of a KV head is query r % queries of its query head r / queries. */
#ifndef FA_CPU_DECODE_SPLIT_H
#define FA_CPU_DECODE_SPLIT_H

#include "cpu/cpu.h"
#include "cpu/merge.h"
#include "cpu/score_rules.h"

enum {
  FA_DECODE_KEYS = 64, /* keys a chunk (level 2): its scores stay in L1 */
  FA_DECODE_TILE = 64, /* score rows of one tile */
  FA_DECODE_PAD = 64,  /* rows of q and o in scratch are padded to a multiple of this, with zeros */
  FA_DECODE_SLACK = 8, /* rows behind a KV head's of o in scratch that `accumulate` may write */
  FA_DECODE_MAX_DIM = 576
};

/* What the next chunk will need, K then V, fetched in address order a few lines at a time while this chunk is
 * worked on, whatever the order of that work is. A core has some 16 misses in flight and needs them all, all
 * the time: so the lines are spread evenly over the time the loops take (sixteenths, measured), and a burst
 * or a pause costs bandwidth. The hardware prefetchers alone lose the thread where heads interleave. */
typedef struct fa_decode_fetch {
  const char *const *rows; /* first byte of each token, all heads of the item included */
  int64_t row_bytes;
  const char *const *v_rows; /* after K; NULL once there */
  int64_t v_row_bytes;
  int64_t count;     /* tokens */
  int64_t row, byte; /* where it stands */
  int64_t lines;     /* to fetch while one head's tile of the chunk is worked on */
} fa_decode_fetch;

enum { FA_DECODE_FETCH_SCORES = 6, FA_DECODE_FETCH_WEIGH = 2, FA_DECODE_FETCH_ACCUMULATE = 8 };

/* Lines for each of `steps` steps of a loop that takes so many sixteenths of the time. */
static inline int64_t fa_decode_fetch_share(const fa_decode_fetch *fetch, int64_t sixteenths, int64_t steps) {
  return fa_ceil_div(fetch->lines * sixteenths, 16 * steps);
}

static inline void fa_decode_fetch_lines(fa_decode_fetch *fetch, int64_t lines) {
  while (lines > 0) {
    if (fetch->row >= fetch->count) {
      if (!fetch->v_rows || fetch->count == 0) return;
      fetch->rows = fetch->v_rows;
      fetch->row_bytes = fetch->v_row_bytes;
      fetch->v_rows = NULL;
      fetch->row = 0;
    }
    const char *from = fetch->rows[fetch->row] + fetch->byte;
    const int64_t run = fa_min(lines, (fetch->row_bytes - fetch->byte + 63) / 64);
    for (int64_t n = 0; n < run; ++n) __builtin_prefetch(from + 64 * n, 0, 2);
    lines -= run;
    fetch->byte += 64 * run;
    if (fetch->byte >= fetch->row_bytes) {
      fetch->byte = 0;
      ++fetch->row;
    }
  }
}

/* Keys [key, key + keys) of one KV head, against all its score rows. */
typedef struct fa_decode_chunk {
  int64_t key, keys;
  const char *const
      *k; /* [FA_DECODE_KEYS] row of each key; behind `keys` the last one again, so that loops may */
  const char *const *v;           /* work in blocks */
  int64_t k_offset, v_offset;     /* bytes from there to this head */
  const float *k_scale, *v_scale; /* [FA_DECODE_KEYS], or NULL */
  int64_t dim_qk, dim_v;
  int64_t q_stride, o_stride; /* elements between rows of q and of o in scratch */
  fa_dtype kv_dtype;
  float scale;
  fa_decode_fetch *fetch;
} fa_decode_chunk;

/* The loops of one instruction set. tile: [rows <= FA_DECODE_TILE, FA_DECODE_KEYS]. The order of elements
 * within a row of q and o in scratch is the instruction set's own business. */
typedef struct fa_decode_isa {
  /* A query row of problem.dtype to fp32, padded with zeros; keys will be of kv_dtype. */
  void (*load_q)(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype);
  /* tile = q k^T. Columns from keys on may hold anything. */
  void (*scores)(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile);
  /* fa_decode_weigh, compiled for this instruction set; parts and o as there. */
  void (*weigh)(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries, int64_t rows,
                float *tile, fa_part *parts, float *o);
  /* o += tile v; may overwrite the tile. */
  void (*accumulate)(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o);
  /* sum += weight * (o in its natural order). */
  void (*add)(float *sum, const float *o, float weight, int64_t dim);
  /* to: o in its natural order. */
  void (*store_o)(float *to, const float *o, int64_t dim, fa_dtype kv_dtype);
  /* The rest may be NULL. What load_q left of the rows that scores will see together, in an order of its own. */
  void (*arrange_q)(float *q, int64_t rows, int64_t q_stride, int64_t dim);
  /* Of each thread, before and after all others. */
  void (*begin)(void);
  void (*end)(void);
  float least_o; /* rows of o all below this are done again by fa_decode_isa_c */
} fa_decode_isa;

extern const fa_decode_isa fa_decode_isa_c; /* never multiplies a masked key: the exact one */

fa_status fa_decode_prepare(fa_plan *plan);
fa_status fa_decode_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                        const fa_decode_isa *isa);

/* -------------------------------------------------- softmax, of any instruction set */

enum { FA_DECODE_LANES = 16 };

/* Largest of the row; -inf when nothing is kept. A NaN may or may not come out: the sum catches it. */
static inline float fa_decode_row_max(const float *row) {
  float lane[FA_DECODE_LANES];
  for (int i = 0; i < FA_DECODE_LANES; ++i) lane[i] = row[i];
  for (int j = FA_DECODE_LANES; j < FA_DECODE_KEYS; j += FA_DECODE_LANES)
    for (int i = 0; i < FA_DECODE_LANES; ++i) lane[i] = row[j + i] > lane[i] ? row[j + i] : lane[i];
  for (int half = FA_DECODE_LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
  return lane[0];
}

/* In exact loops a key that is not kept weighs FA_DECODE_NOT_KEPT, which marks it, and one that is kept at
 * least FA_DECODE_LEAST, so that an infinity or NaN in its V arrives however far its score lies below the
 * maximum; nothing else can tell 1e-30 from 0. */
#define FA_DECODE_NOT_KEPT (-1.0f)
#define FA_DECODE_LEAST 1e-30f

/* row = exp(row - reference); returns the sum of what is kept. */
static inline float fa_decode_row_exp(float *row, float reference, int is_exact) {
  float lane[FA_DECODE_LANES] = {0.0f};
  for (int j = 0; j < FA_DECODE_KEYS; j += FA_DECODE_LANES) {
    for (int i = 0; i < FA_DECODE_LANES; ++i) {
      const float score = row[j + i], p = fa_exp_lane(score - reference);
      row[j + i] = p;
      lane[i] += p;
      if (is_exact && p < FA_DECODE_LEAST)
        row[j + i] = score == -INFINITY ? FA_DECODE_NOT_KEPT : FA_DECODE_LEAST;
    }
  }
  for (int half = FA_DECODE_LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

static inline void fa_decode_scale_tile(const fa_decode_chunk *chunk, int64_t rows, float *tile) {
  for (int64_t r = 0; r < rows; ++r) {
    float *row = tile + r * FA_DECODE_KEYS;
    for (int j = 0; j < FA_DECODE_KEYS; ++j) row[j] *= chunk->scale;
    if (chunk->k_scale)
      for (int j = 0; j < FA_DECODE_KEYS; ++j) row[j] *= chunk->k_scale[j];
  }
}

/* The scales of V into the weights, once the sum has taken them. */
static inline void fa_decode_scale_weights(const fa_decode_chunk *chunk, int64_t rows, float *tile) {
  for (int64_t r = 0; r < rows; ++r)
    for (int j = 0; j < FA_DECODE_KEYS; ++j) tile[r * FA_DECODE_KEYS + j] *= chunk->v_scale[j];
}

static inline void fa_decode_add(float *restrict sum, const float *restrict o, float weight, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) sum[d] += weight * o[d];
}

/* Scale and rules (one set a query head), masks; what is not kept becomes -inf. */
static inline void fa_decode_apply_rules(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries,
                                         int64_t rows, float *tile) {
  const int64_t keys = chunk->keys;
  fa_decode_scale_tile(chunk, rows, tile);
  for (int64_t r = 0; r < rows; r += queries, ++rules) {
    fa_score_rules_apply(rules, tile + r * FA_DECODE_KEYS, FA_DECODE_KEYS, 0, queries, chunk->key, keys);
    if (keys < FA_DECODE_KEYS ||
        fa_band_block(rules->band, 0, queries, chunk->key, FA_DECODE_KEYS) != FA_BLOCK_FULL)
      fa_score_band_apply(rules, tile + r * FA_DECODE_KEYS, FA_DECODE_KEYS, 0, queries, chunk->key, keys);
  }
  for (int64_t r = 0; keys < FA_DECODE_KEYS && r < rows; ++r)
    for (int64_t j = keys; j < FA_DECODE_KEYS; ++j) tile[r * FA_DECODE_KEYS + j] = -INFINITY;
}

/* Scores to weights: the rules, then the running maximum and sum of each row in parts; o of a row is rescaled when its
 * maximum rises. */
static inline void fa_decode_weigh(const fa_decode_chunk *chunk, const fa_score_rules *rules, int64_t queries,
                                   int64_t rows, float *tile, fa_part *parts, float *o, int is_exact) {
  fa_decode_apply_rules(chunk, rules, queries, rows, tile);
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_WEIGH, rows);
  for (int64_t r = 0; r < rows; ++r) {
    float *row = tile + r * FA_DECODE_KEYS;
    fa_decode_fetch_lines(chunk->fetch, lines);
    const float max = fa_decode_row_max(row);
    if (max > parts[r].max) {
      float down = fa_exp_lane(parts[r].max - max);
      parts[r].max = max;
      parts[r].sum *= down;
      if (is_exact && down < FA_DECODE_LEAST) down = FA_DECODE_LEAST;
      for (int64_t d = 0; d < chunk->o_stride; ++d) o[r * chunk->o_stride + d] *= down;
    }
    /* Nothing kept so far: any finite reference gives weights of 0, and lets a NaN through. */
    parts[r].sum += fa_decode_row_exp(row, parts[r].max == -INFINITY ? 0.0f : parts[r].max, is_exact);
  }
}

#endif
