/* The AMX attention pipeline: tile products of one key block interleaved with the softmax of another.
 *
 * Everything is transposed, so that a query is a lane and no reduction runs across lanes:
 *     S^T[keys x queries] = K Q^T        softmax down the rows        O^T[d x queries] += V^T P^T
 * P^T leaves the softmax in B-operand layout after one permute; O^T stays in fp32 tiles until the end.
 *
 * Level two: a sub-block of 32 queries times a key block of 32 * `chunks` keys, in 2 x 2 tiles; a chunk is 32 keys.
 * Work goes in rounds, `units` of them a key block. Round t, one after another:
 *     S^T of the chunks of unit t                       |  first part of the softmax of unit t - 1
 *     O^T of one pair of d tiles, unit t - `units` - 1  |  the rest of it
 * with the softmax cut into rows of 2 keys x 16 queries, spread evenly behind the single tile products, so that the
 * tile unit and the vector units work at once: longer runs of vector work fill the scheduler, and the next product
 * does not get in. Scores are a round old when they are read: a load behind the tile store it depends on waits for the
 * store to leave the core.
 *
 * Softmax reference: an integer power of two per query, raised to the maximum only when 32 P sum to more than 2^10. Raising
 * is exact (powers of two), lifts the reference by 2^5 or more and so happens a few times a row at most, and P, sums and O
 * carry it: O through `pending`, applied before its next use. */
#ifndef FA_CPU_PIPELINE_AMX_H
#define FA_CPU_PIPELINE_AMX_H

#include <math.h>

#include "cpu/cpu.h"
#include "cpu/tiles_amx.h"

#define FA_SUB_ROWS 32
#define FA_CHUNK_KEYS 32

typedef struct fa_amx_shape {
  int qk_steps;     /* ceil(head_dim_qk / 32): products along d for one S^T tile */
  int units;        /* ceil(head_dim_v / 32): pairs of d tiles of O^T */
  int rounds;       /* of a key block; divides units */
  int round_chunks; /* chunks of keys a round scores; chunks = rounds * round_chunks */
  int wants_lse;
} fa_amx_shape;

/* One sub-block of 32 queries (two groups of 16 lanes) of one head. */
typedef struct fa_amx_sub {
  int64_t row;  /* first query */
  int64_t head; /* query head */
} fa_amx_sub;

/* A key block for one sub-block, in the order they are worked on. */
typedef struct fa_amx_block {
  int32_t sub;
  int32_t edge;   /* 1: an edge of the band or the end of the keys runs through it */
  int64_t key;    /* first key */
  int64_t packed; /* bytes before its K and V in the packed ones */
} fa_amx_block;

typedef struct fa_amx_pipeline {
  float *scores[2];  /* ring of two units: [round_chunks][2 key tiles][2 query tiles][16 x 16] */
  char *p[2];        /* ring of two key blocks: [chunks][2 query tiles] B tiles */
  const char *q;     /* [subs][qk_steps][2 query tiles] B tiles */
  const char *kv;    /* a key block: K [chunks][qk_steps][2 key tiles], V [units][chunks][2 d tiles], A tiles of K and V^T */
  float *o;          /* [subs][units][2 d tiles][2 query tiles][16 x 16] */
  float *reference;  /* [subs][32], log2 */
  float *limit;      /* [subs][32], of the sum of 8 P before the reference must be looked at; below 0: no key yet */
  float *sum;        /* [subs][32], of P as rounded: o is then a weighted mean whatever the rounding */
  float *exact_sum;  /* [subs][32], of P before rounding, for lse */
  float *pending;    /* [32] factors O of the current sub-block still lacks */
  int has_pending;
  float *unstored;   /* where the accumulators in the tiles belong */
  float *discard;    /* four tiles: where they go if they belong nowhere */
  const char *ahead;     /* packed K and V that L2 will want next, asked for a few lines at each phase */
  int64_t ahead_lines;   /* of it, still to ask for */
  int64_t phase_lines;   /* at each phase */
  int64_t seqlen_kv;
  fa_band band;
  const fa_amx_sub *subs;
  __m512 scale;      /* scale * log2(e), positive */
} fa_amx_pipeline;

#define FA_NO_KEY_YET (-1.0f)
#define FA_SUM_LIMIT 0x1p10f /* 32 P that sum to more raise the reference: one of them is above 2^5 */
#define FA_RAISE_LOG2 4.9f   /* and so its score this far above the reference, rounding allowed for: every look raises */

/* What every row of a softmax needs, in registers. Compilers would rather make constants anew beside each row than keep
 * them, and a broadcast from a general register takes the port that tile products stand on: hence the empty assembly. */
typedef struct fa_amx_constants {
  __m512 scale;
  __m512 cubic[4]; /* 2^t on [0, 1), with the relative error 1e-4: a twentieth of a bf16 step (lse is as good as that) */
  __m512i upper;   /* the upper half of 32 bits, where bf16 is in fp32 */
  __m512i half;    /* half a step of bf16 */
} fa_amx_constants;

/* Half a step of bf16 on [1, 2). */
#define FA_BF16_HALF_STEP 0x1p-8f

FA_AMX_INLINE fa_amx_constants fa_amx_constants_of(const fa_amx_pipeline *w, int wants_lse) {
  fa_amx_constants c = {w->scale,
                        {_mm512_set1_ps(9.99893e-1f + (wants_lse ? 0.0f : FA_BF16_HALF_STEP)), _mm512_set1_ps(6.96606e-1f),
                         _mm512_set1_ps(2.24338e-1f), _mm512_set1_ps(7.9204e-2f)},
                        _mm512_set1_epi32((int)0xffff0000),
                        _mm512_set1_epi32(0x8000)};
  __asm__("" : "+v"(c.scale), "+v"(c.cubic[0]), "+v"(c.cubic[1]), "+v"(c.cubic[2]), "+v"(c.cubic[3]), "+v"(c.upper));
  if (wants_lse) __asm__("" : "+v"(c.half));
  return c;
}

/* 2^t by a cubic on [0, 1) and an exponent. */
FA_AMX_INLINE __m512 fa_exp2_bf16(const fa_amx_constants *c, __m512 t) {
  const __m512 fraction = _mm512_reduce_ps(t, 1);
  __m512 p = _mm512_fmadd_ps(c->cubic[3], fraction, c->cubic[2]);
  p = _mm512_fmadd_ps(p, fraction, c->cubic[1]);
  p = _mm512_fmadd_ps(p, fraction, c->cubic[0]);
  return _mm512_scalef_ps(p, t);
}

/* P of 2 keys x 16 queries into one row of a B tile, (even key, odd key) in pairs; adds to the sums of P as rounded and
 * before rounding. Bits are cut off behind half a step added, which rounds: to the cubic's constant, its value being in
 * [1, 2), or where the sum before rounding is wanted, to the bits. Shifts and logic only: the instructions that convert and
 * interleave bf16 take the tile products' port as well. */
FA_AMX_INLINE void fa_amx_exponentials(const fa_amx_constants *c, const float *scores, __m512 reference, char *row,
                                       int wants_lse, __m512 *sum, __m512 *exact) {
  const __m512 p_even = fa_exp2_bf16(c, _mm512_fmsub_ps(_mm512_load_ps(scores), c->scale, reference));
  const __m512 p_odd = fa_exp2_bf16(c, _mm512_fmsub_ps(_mm512_load_ps(scores + 16), c->scale, reference));
  __m512i even = _mm512_castps_si512(p_even), odd = _mm512_castps_si512(p_odd);
  if (wants_lse) {
    *exact = _mm512_add_ps(*exact, _mm512_add_ps(p_even, p_odd));
    even = _mm512_add_epi32(even, c->half);
    odd = _mm512_add_epi32(odd, c->half);
  }
  odd = _mm512_and_si512(odd, c->upper);
  const __m512i both = _mm512_or_si512(_mm512_srli_epi32(even, 16), odd);
  _mm512_store_si512(row, both);
  even = _mm512_slli_epi32(both, 16);
  *sum = _mm512_add_ps(*sum, _mm512_add_ps(_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)));
}

/* A rare path: 32 keys have a large sum or are the first of a lane.
 * Raises the reference of the lanes where that happened, and everything that hangs on it: the sums,
 * this block's P so far (`pairs` rows of key pairs of `p`) and, later, O. Returns the reference to use.
 * scores: those of the 32 keys, a tile of 16 keys and another two tiles behind it. */
static __attribute__((noinline)) __m512 fa_amx_raise(fa_amx_pipeline *w, int32_t sub, int query_tile, char *p,
                                                     int pairs, const float *scores) {
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  const __m512 limit = _mm512_load_ps(w->limit + lane);
  const __m512 old = _mm512_load_ps(w->reference + lane);
  __m512 maximum = _mm512_load_ps(scores);
  for (int i = 1; i < FA_CHUNK_KEYS; ++i)
    maximum = _mm512_max_ps(maximum, _mm512_load_ps(scores + i / 16 * 2 * FA_TILE_FLOATS + i % 16 * 16));
  maximum = _mm512_mul_ps(maximum, w->scale);
  const __mmask16 no_key_yet = _mm512_cmp_ps_mask(limit, _mm512_setzero_ps(), _CMP_LT_OQ);
  const __mmask16 first = no_key_yet & _mm512_cmp_ps_mask(maximum, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
  const __mmask16 above = (__mmask16)~no_key_yet &
                          _mm512_cmp_ps_mask(maximum, _mm512_add_ps(old, _mm512_set1_ps(FA_RAISE_LOG2)), _CMP_GT_OQ);
  const __mmask16 up = first | above;
  if (!up) return old;
  const __m512 raised = _mm512_mask_roundscale_ps(old, up, maximum, _MM_FROUND_TO_POS_INF);
  __m512 factor = _mm512_mask_scalef_ps(_mm512_set1_ps(1.0f), up, _mm512_set1_ps(1.0f), _mm512_sub_ps(old, raised));
  factor = _mm512_mask_mov_ps(factor, first, _mm512_setzero_ps()); /* nothing to keep yet */
  _mm512_store_ps(w->reference + lane, raised);
  _mm512_mask_store_ps(w->limit + lane, up, _mm512_set1_ps(FA_SUM_LIMIT));
  _mm512_store_ps(w->sum + lane, _mm512_mul_ps(factor, _mm512_load_ps(w->sum + lane)));
  _mm512_store_ps(w->exact_sum + lane, _mm512_mul_ps(factor, _mm512_load_ps(w->exact_sum + lane)));
  float *pending = w->pending + query_tile * 16;
  _mm512_store_ps(pending, _mm512_mul_ps(factor, _mm512_load_ps(pending)));
  w->has_pending = 1;
  const __m512i odd = _mm512_set1_epi32((int)0xffff0000);
  for (int r = 0; r < pairs; ++r) {
    char *row = p + (r / 16 * 2 + query_tile) * FA_TILE_BYTES + r % 16 * 64;
    const __m512i both = _mm512_load_si512(row);
    const __m512 even_key = _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)));
    const __m512 odd_key = _mm512_mul_ps(factor, _mm512_castsi512_ps(_mm512_and_si512(both, odd)));
    _mm512_store_si512(row, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even_key), 16),
                                            _mm512_and_si512(_mm512_castps_si512(odd_key), odd)));
  }
  return raised;
}

static __attribute__((noinline)) void fa_amx_apply_pending(fa_amx_pipeline *w, int32_t sub, int units) {
  float *o = w->o + (int64_t)sub * units * 4 * FA_TILE_FLOATS;
  for (int tile = 0; tile < 4 * units; ++tile) {
    const __m512 factor = _mm512_load_ps(w->pending + tile % 2 * 16);
    for (int r = 0; r < 16; ++r) {
      float *row = o + tile * FA_TILE_FLOATS + r * 16;
      _mm512_store_ps(row, _mm512_mul_ps(factor, _mm512_load_ps(row)));
    }
  }
  for (int i = 0; i < FA_SUB_ROWS; ++i) w->pending[i] = 1.0f;
  w->has_pending = 0;
}

/* The window of the tiling-mask for a tile of 16 keys x 16 queries: key j keeps queries j - upper .. j - lower. */
static __attribute__((noinline)) void fa_amx_mask(const fa_amx_pipeline *w, float *scores, int64_t key, int64_t row) {
  const int64_t first = key - w->band.upper - row, last = key - w->band.lower - row; /* lanes that the first key keeps */
  if (first <= -15 && last >= 15 && key + 16 <= w->seqlen_kv) return;
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 nothing = _mm512_set1_ps(-INFINITY);
  /* Beyond a tile's reach, how far does not matter. */
  const int from = (int)fa_max(-32, fa_min(first, 32)), to = (int)fa_max(-32, fa_min(last, 32));
  for (int i = 0; i < 16; ++i) {
    const __mmask16 keep = key + i < w->seqlen_kv ? _mm512_cmpge_epi32_mask(lanes, _mm512_set1_epi32(from + i)) &
                                                        _mm512_cmple_epi32_mask(lanes, _mm512_set1_epi32(to + i))
                                                  : 0;
    _mm512_store_ps(scores + i * 16, _mm512_mask_mov_ps(nothing, keep, _mm512_load_ps(scores + i * 16)));
  }
}

/* The softmax of the chunks a round has scored. */
typedef struct fa_amx_softmax {
  const fa_amx_block *block; /* NULL: nothing to do */
  float *scores;
  char *p; /* of the key block: [chunks][2 query tiles] */
  int first_chunk;
  int rows;          /* 32 a chunk, spread over */
  int products;      /* so many tile products */
  int wants_lse;
  fa_amx_constants constants;
  __m512 reference;  /* of the 32 keys in work */
  __m512 sum, exact; /* of their P as rounded, and before rounding */
} fa_amx_softmax;

/* Row `i` of the round: 2 keys x 16 queries. Sixteen rows (a chunk's keys for 16 queries) share their bookkeeping. */
FA_AMX_INLINE void fa_amx_softmax_row(fa_amx_pipeline *w, fa_amx_softmax *at, int i) {
  const int round_chunk = i >> 5, query_tile = i >> 4 & 1, key_tile = i >> 3 & 1, pair = i & 7;
  const int chunk = at->first_chunk + round_chunk;
  const int32_t sub = at->block->sub;
  const int64_t lane = (int64_t)sub * FA_SUB_ROWS + query_tile * 16;
  float *scores = at->scores + (round_chunk * 4 + query_tile) * FA_TILE_FLOATS;
  char *row = at->p + (chunk * 2 + query_tile) * FA_TILE_BYTES;
  if (pair == 0 && key_tile == 0) {
    if (__builtin_expect(at->block->edge, 0))
      for (int tile = 0; tile < 2; ++tile)
        fa_amx_mask(w, scores + tile * 2 * FA_TILE_FLOATS, at->block->key + chunk * FA_CHUNK_KEYS + tile * 16,
                    w->subs[sub].row + query_tile * 16);
    at->reference = _mm512_load_ps(w->reference + lane);
    at->sum = at->exact = _mm512_setzero_ps();
  }
  fa_amx_exponentials(&at->constants, scores + key_tile * 2 * FA_TILE_FLOATS + pair * 32, at->reference,
                      row + key_tile * 512 + pair * 64, at->wants_lse, &at->sum, &at->exact);
  if (pair < 7 || key_tile == 0) return;
  if (__builtin_expect(_mm512_cmp_ps_mask(at->sum, _mm512_load_ps(w->limit + lane), _CMP_GT_OQ), 0)) {
    const __m512 reference = fa_amx_raise(w, sub, query_tile, at->p, chunk * 16, scores);
    at->sum = at->exact = _mm512_setzero_ps();
    for (int r = 0; r < 16; ++r)
      fa_amx_exponentials(&at->constants, scores + r / 8 * 2 * FA_TILE_FLOATS + r % 8 * 32, reference, row + r * 64,
                          at->wants_lse, &at->sum, &at->exact);
  }
  _mm512_store_ps(w->sum + lane, _mm512_add_ps(at->sum, _mm512_load_ps(w->sum + lane)));
  if (at->wants_lse)
    _mm512_store_ps(w->exact_sum + lane, _mm512_add_ps(at->exact, _mm512_load_ps(w->exact_sum + lane)));
}

/* The rows beside product `product` of the round. */
FA_AMX_INLINE void fa_amx_softmax_beside(fa_amx_pipeline *w, fa_amx_softmax *at, int product) {
  if (at->block)
    for (int i = product * at->rows / at->products; i < (product + 1) * at->rows / at->products; ++i)
      fa_amx_softmax_row(w, at, i);
}

/* One product of a 2 x 2 block, and the softmax beside it. In the first step the accumulators of the phase before are
 * stored, one after another, before they begin anew: a store right behind its last product waits for it, fills the
 * scheduler and holds up everything behind it (docs/performance.md, "AMX prefill"). */
#define FA_AMX_PRODUCT(w, tile, a, b, fresh, begin, at, product)                   \
  do {                                                                             \
    if (fresh) {                                                                   \
      FA_TILE_STORE(tile, w->unstored + (tile) * FA_TILE_FLOATS);                  \
      begin(tile);                                                                 \
    }                                                                              \
    FA_TILE_MULTIPLY(tile, a, b);                                                  \
    fa_amx_softmax_beside(w, at, product);                                         \
  } while (0)
#define FA_AMX_FROM_ZERO(tile) FA_TILE_ZERO(tile)
#define FA_AMX_FROM_O(tile) FA_TILE_STREAM(tile, o + (tile) * FA_TILE_FLOATS) /* o: of fa_amx_output */

/* Stores the accumulators now, where no phase follows that would. */
FA_AMX_INLINE void fa_amx_flush(fa_amx_pipeline *w) {
  FA_TILE_STORE(0, w->unstored);
  FA_TILE_STORE(1, w->unstored + FA_TILE_FLOATS);
  FA_TILE_STORE(2, w->unstored + 2 * FA_TILE_FLOATS);
  FA_TILE_STORE(3, w->unstored + 3 * FA_TILE_FLOATS);
  w->unstored = w->discard;
}

/* The next lines for L2. All at once they would hold up the tile loads, which pass through the same buffers. */
FA_AMX_INLINE void fa_amx_look_ahead(fa_amx_pipeline *w) {
  const int64_t lines = fa_min(w->phase_lines, w->ahead_lines);
  for (int64_t i = 0; i < lines; ++i) _mm_prefetch(w->ahead + i * 64, _MM_HINT_T1);
  w->ahead += lines * 64;
  w->ahead_lines -= lines;
}

/* Scores of a round's chunks of `now`, beside the first part of the softmax. */
FA_AMX_INLINE void fa_amx_scores(fa_amx_pipeline *w, const fa_amx_block *now, int first_chunk, fa_amx_softmax *at,
                                 int qk_steps, int round_chunks) {
  if (!now) {
    fa_amx_flush(w);
    for (int i = 0; i < 4 * round_chunks * qk_steps; ++i) fa_amx_softmax_beside(w, at, i);
    return;
  }
#pragma GCC unroll 4
  for (int c = 0; c < round_chunks; ++c) {
    fa_amx_look_ahead(w);
    const char *k = w->kv + now->packed + (first_chunk + c) * qk_steps * 2 * FA_TILE_BYTES;
    const char *q = w->q + (int64_t)now->sub * qk_steps * 2 * FA_TILE_BYTES;
#pragma GCC unroll 8
    for (int s = 0; s < qk_steps; ++s) {
      const int product = 4 * (c * qk_steps + s);
      FA_TILE_STREAM(4, k + s * 2 * FA_TILE_BYTES);
      FA_TILE_LOAD(6, q + s * 2 * FA_TILE_BYTES);
      FA_AMX_PRODUCT(w, 0, 4, 6, s == 0, FA_AMX_FROM_ZERO, at, product);
      FA_TILE_LOAD(7, q + (s * 2 + 1) * FA_TILE_BYTES);
      FA_AMX_PRODUCT(w, 1, 4, 7, s == 0, FA_AMX_FROM_ZERO, at, product + 1);
      FA_TILE_STREAM(5, k + (s * 2 + 1) * FA_TILE_BYTES);
      FA_AMX_PRODUCT(w, 2, 5, 6, s == 0, FA_AMX_FROM_ZERO, at, product + 2);
      FA_AMX_PRODUCT(w, 3, 5, 7, s == 0, FA_AMX_FROM_ZERO, at, product + 3);
    }
    w->unstored = w->scores[0] + c * 4 * FA_TILE_FLOATS;
  }
}

/* Pair `unit` of d tiles of O of `block`, beside the rest of the softmax, from product `first` of the round on. */
FA_AMX_INLINE void fa_amx_output(fa_amx_pipeline *w, const fa_amx_block *block, const char *p, int unit,
                                 fa_amx_softmax *at, int first, int qk_steps, int units, int chunks) {
  if (!block) {
    fa_amx_flush(w);
    for (int i = 0; i < 4 * chunks; ++i) fa_amx_softmax_beside(w, at, first + i);
    return;
  }
  float *o = w->o + ((int64_t)block->sub * units + unit) * 4 * FA_TILE_FLOATS;
  fa_amx_look_ahead(w);
  const char *v = w->kv + block->packed + (qk_steps + unit) * chunks * 2 * FA_TILE_BYTES;
#pragma GCC unroll 8
  for (int c = 0; c < chunks; ++c) {
    const int product = first + 4 * c;
    FA_TILE_STREAM(4, v + c * 2 * FA_TILE_BYTES);
    FA_TILE_LOAD(6, p + c * 2 * FA_TILE_BYTES);
    FA_AMX_PRODUCT(w, 0, 4, 6, c == 0, FA_AMX_FROM_O, at, product);
    FA_TILE_LOAD(7, p + (c * 2 + 1) * FA_TILE_BYTES);
    FA_AMX_PRODUCT(w, 1, 4, 7, c == 0, FA_AMX_FROM_O, at, product + 1);
    FA_TILE_STREAM(5, v + (c * 2 + 1) * FA_TILE_BYTES);
    FA_AMX_PRODUCT(w, 2, 5, 6, c == 0, FA_AMX_FROM_O, at, product + 2);
    FA_AMX_PRODUCT(w, 3, 5, 7, c == 0, FA_AMX_FROM_O, at, product + 3);
  }
  w->unstored = o;
}

/* The rounds of key block `now`, with the output of `before` (all but the units of its last round) and of the block
 * `earlier` before that (those units); any NULL at the ends. Inlined with a constant shape for the head sizes that matter. */
FA_AMX_INLINE void fa_amx_iterate_shape(fa_amx_pipeline *w, const fa_amx_block *now, const fa_amx_block *before,
                                        const fa_amx_block *earlier, int qk_steps, int units, int rounds,
                                        int round_chunks, int wants_lse) {
  const fa_amx_constants constants = fa_amx_constants_of(w, wants_lse);
  const int chunks = rounds * round_chunks, round_units = units / rounds;
  const int score_products = 4 * round_chunks * qk_steps, unit_products = 4 * chunks;
  const __m512 zero = _mm512_setzero_ps();
  for (int round = 0; round < rounds; ++round) {
    const int chunk = round * round_chunks;
    fa_amx_softmax softmax = {round ? now : before, w->scores[1], round ? w->p[0] : w->p[1],
                              (round ? chunk : chunks) - round_chunks, 32 * round_chunks,
                              score_products + round_units * unit_products, wants_lse, constants, zero, zero, zero};
    fa_amx_scores(w, now, chunk, &softmax, qk_steps, round_chunks);
#pragma GCC unroll 8
    for (int i = 0; i < round_units; ++i)
      fa_amx_output(w, round ? before : earlier, round ? w->p[1] : w->p[0],
                    (round ? round - 1 : rounds - 1) * round_units + i, &softmax, score_products + i * unit_products,
                    qk_steps, units, chunks);
    if (round == 0 && __builtin_expect(w->has_pending, 0)) {
      fa_amx_flush(w);
      fa_amx_apply_pending(w, before->sub, units);
    }
    float *const ring = w->scores[0];
    w->scores[0] = w->scores[1];
    w->scores[1] = ring;
  }
  if (!now) fa_amx_flush(w);
  char *const p = w->p[0];
  w->p[0] = w->p[1];
  w->p[1] = p;
}

#endif
