/* The AMX attention pipeline: tile products of one key block interleaved with the softmax of another.
 *
 * Everything is transposed, so that a query is a lane and no reduction runs across lanes:
 *     S^T[keys x queries] = K Q^T        softmax down the rows        O^T[d x queries] += V^T P^T
 * P^T leaves the softmax in B-operand layout, two keys to 32 bits; O^T stays in fp32 tiles until the end.
 *
 * Level two: a sub-block of 32 queries times a key block of 32 * `chunks` keys, in 2 x 2 tiles; a chunk is 32 keys.
 * Work goes in rounds, `rounds` of them a key block. Round t, one after another:
 *     S^T of the chunks of round t                                  |  first part of the softmax of round t - 1
 *     O^T of the block before, its pairs of d tiles of round t - 1  |  the rest of it
 * with the softmax cut into rows of 2 keys x 16 queries, spread evenly behind the single tile products, so that the
 * tile unit and the vector units work at once: longer runs of vector work fill the scheduler, and the next product
 * does not get in. Scores are a round old when they are read: a load behind the tile store it depends on waits for the
 * store to leave the core. A problem with score rules has them applied to these between two rounds, beside no product.
 *
 * fp32 and fp16 come as sums of bf16 terms (split_amx.h), and a product of sums is the sum of the products of terms: all but
 * those below 2^-24 (fp32) of it, and for P V below 2^-16 (fp16). The softmax is softmax_amx.h's. */
#ifndef FA_CPU_PIPELINE_AMX_H
#define FA_CPU_PIPELINE_AMX_H

#include "cpu/softmax_amx.h"

/* The rows that are due behind product `product` of the round. With one term the loops around this are unrolled and rows
 * become constants: a row then has no instruction to spare beside a product. With several, a product finds one row in three to
 * twelve, and code that is not unrolled is smaller by as much. */
FA_AMX_INLINE void fa_amx_softmax_beside(fa_amx_pipeline *w, fa_amx_softmax *at, int product) {
  if (!at->block) return;
  if (at->terms == 1) {
    for (int i = product * at->rows / at->products; i < (product + 1) * at->rows / at->products; ++i)
      fa_amx_softmax_row(w, at, i);
  } else {
    for (at->due += at->rows; at->due >= at->products; at->due -= at->products) fa_amx_softmax_row(w, at, at->row++);
  }
}

/* Where an accumulator belongs: scores in the order of the softmax's rows, both query tiles' apart. */
#define FA_AMX_PLACE(tile) (((tile) & 1) * 2 + ((tile) >> 1)) * FA_TILE_FLOATS

/* One product of a 2 x 2 block, and the softmax beside it. In the first step the accumulators of the phase before are
 * stored, one after another, before they begin anew: a store right behind its last product waits for it, fills the
 * scheduler and holds up everything behind it (docs/performance.md, "AMX prefill"). */
#define FA_AMX_PRODUCT(w, tile, a, b, fresh, begin, at, product)                   \
  do {                                                                             \
    if (fresh) {                                                                   \
      FA_TILE_STORE(tile, w->unstored + FA_AMX_PLACE(tile));                       \
      begin(tile);                                                                 \
    }                                                                              \
    FA_TILE_MULTIPLY(tile, a, b);                                                  \
    fa_amx_softmax_beside(w, at, product);                                         \
  } while (0)
#define FA_AMX_FROM_ZERO(tile) FA_TILE_ZERO(tile)
#define FA_AMX_FROM_O(tile) FA_TILE_STREAM(tile, o + FA_AMX_PLACE(tile)) /* o: of fa_amx_output */

/* Adds a key block's share of a pair of d tiles to O. Only fp32 has its products of a block summed apart: the sum over all
 * keys, a product after the other, would be too long a chain of roundings. */
FA_AMX_INLINE void fa_amx_add_part(const fa_amx_pipeline *w, float *o) {
  if (!o) return;
  for (int i = 0; i < 4 * FA_TILE_FLOATS; i += 16)
    _mm512_store_ps(o + i, _mm512_add_ps(_mm512_load_ps(o + i), _mm512_load_ps(w->part + i)));
}

/* The O whose part the next phase stores and may then add; taken once. */
FA_AMX_INLINE float *fa_amx_take_part(fa_amx_pipeline *w, int terms) {
  float *const o = terms == 3 ? w->part_of : NULL;
  if (terms == 3) w->part_of = NULL;
  return o;
}

/* Stores the accumulators now, where no phase follows that would. */
FA_AMX_INLINE void fa_amx_flush(fa_amx_pipeline *w, int terms) {
  FA_TILE_STORE(0, w->unstored + FA_AMX_PLACE(0));
  FA_TILE_STORE(1, w->unstored + FA_AMX_PLACE(1));
  FA_TILE_STORE(2, w->unstored + FA_AMX_PLACE(2));
  FA_TILE_STORE(3, w->unstored + FA_AMX_PLACE(3));
  w->unstored = w->discard;
  fa_amx_add_part(w, fa_amx_take_part(w, terms));
}

/* The next lines for L2. All at once they would hold up the tile loads, which pass through the same buffers. */
FA_AMX_INLINE void fa_amx_look_ahead(fa_amx_pipeline *w) {
  const int64_t lines = fa_min(w->phase_lines, w->ahead_lines);
  for (int64_t i = 0; i < lines; ++i) _mm_prefetch(w->ahead + i * 64, _MM_HINT_T1);
  w->ahead += lines * 64;
  w->ahead_lines -= lines;
}

/* Which terms of A (K, V) and B (Q, P) are multiplied, one factor changing at a time so that the other stays in its tiles. */
typedef struct fa_amx_term {
  int a, b;
} fa_amx_term;
static const fa_amx_term fa_amx_terms[2][6] = {
    {{1, 0}, {0, 0}, {0, 1}, {1, 1}}, {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}}};
FA_AMX_INLINE int fa_amx_score_terms(int terms) { return terms == 1 ? 1 : terms == 2 ? 4 : 6; }
FA_AMX_INLINE int fa_amx_output_terms(int terms) { return terms == 1 ? 1 : terms == 2 ? 3 : 6; }

/* Two tiles at a_tiles by two at b_tiles; those that are in tiles 4 to 7 already are not new. */
#define FA_AMX_PRODUCTS(w, new_a, a_tiles, new_b, b_tiles, fresh, begin, at, product) \
  do {                                                                                \
    if (new_a) FA_TILE_STREAM(4, a_tiles);                                            \
    if (new_b) FA_TILE_LOAD(6, b_tiles);                                              \
    FA_AMX_PRODUCT(w, 0, 4, 6, fresh, begin, at, product);                            \
    if (new_b) FA_TILE_LOAD(7, (b_tiles) + FA_TILE_BYTES);                            \
    FA_AMX_PRODUCT(w, 1, 4, 7, fresh, begin, at, (product) + 1);                      \
    if (new_a) FA_TILE_STREAM(5, (a_tiles) + FA_TILE_BYTES);                          \
    FA_AMX_PRODUCT(w, 2, 5, 6, fresh, begin, at, (product) + 2);                      \
    FA_AMX_PRODUCT(w, 3, 5, 7, fresh, begin, at, (product) + 3);                      \
  } while (0)

/* Products [from, to) of fa_amx_terms of one step along the sum, whose terms lie side by side at a_at and b_at. */
#define FA_AMX_STEP(w, terms, from, to, a_at, b_at, fresh, begin, at)                                            \
  _Pragma("GCC unroll 6") for (int n = (from); n < (to); ++n) {                                                  \
    const fa_amx_term term = fa_amx_terms[(terms) - 2][n], last = fa_amx_terms[(terms) - 2][n > (from) ? n - 1 : n]; \
    FA_AMX_PRODUCTS(w, n == (from) || term.a != last.a, (a_at) + term.a * 2 * FA_TILE_BYTES,                     \
                    n == (from) || term.b != last.b, (b_at) + term.b * 2 * FA_TILE_BYTES, (fresh) && n == 0, begin, at, 0); \
  }

/* Scores of a round's chunks of `now`, beside the first part of the softmax. */
FA_AMX_INLINE void fa_amx_scores(fa_amx_pipeline *w, const fa_amx_block *now, int first_chunk, fa_amx_softmax *at,
                                 int qk_steps, int round_chunks, int terms) {
  const int step_products = 4 * fa_amx_score_terms(terms), step_bytes = terms * 2 * FA_TILE_BYTES;
  if (!now) {
    fa_amx_flush(w, terms);
    for (int i = 0; i < round_chunks * qk_steps * step_products; ++i) fa_amx_softmax_beside(w, at, i);
    return;
  }
  float *const add_to = fa_amx_take_part(w, terms);
#pragma GCC unroll 4
  for (int c = 0; c < round_chunks; ++c) {
    fa_amx_look_ahead(w);
    const char *k = w->kv + now->packed + (first_chunk + c) * qk_steps * step_bytes;
    const char *q = w->q + (int64_t)now->sub * qk_steps * step_bytes;
    if (terms == 1) {
#pragma GCC unroll 8
      for (int s = 0; s < qk_steps; ++s)
        FA_AMX_PRODUCTS(w, 1, k + s * step_bytes, 1, q + s * step_bytes, s == 0, FA_AMX_FROM_ZERO, at, 4 * (c * qk_steps + s));
    } else {
      /* fp32's small products of all steps first: added to sums already large, each would be rounded like a large one. */
      const int all = fa_amx_score_terms(terms), small = terms == 3 ? all - 1 : 0;
      if (terms == 3)
        for (int s = 0; s < qk_steps; ++s)
          FA_AMX_STEP(w, terms, 0, small, k + s * step_bytes, q + s * step_bytes, s == 0, FA_AMX_FROM_ZERO, at)
      for (int s = 0; s < qk_steps; ++s)
        FA_AMX_STEP(w, terms, small, all, k + s * step_bytes, q + s * step_bytes, s == 0, FA_AMX_FROM_ZERO, at)
    }
    w->unstored = w->scores[0] + c * 4 * FA_TILE_FLOATS;
  }
  fa_amx_add_part(w, add_to);
}

/* Pair `unit` of d tiles of O of `block`, beside the rest of the softmax, from product `first` of the round on. */
FA_AMX_INLINE void fa_amx_output(fa_amx_pipeline *w, const fa_amx_block *block, const char *p, int unit,
                                 fa_amx_softmax *at, int first, int qk_steps, int units, int chunks, int terms) {
  const int step_products = 4 * fa_amx_output_terms(terms), step_bytes = terms * 2 * FA_TILE_BYTES;
  if (!block) {
    fa_amx_flush(w, terms);
    for (int i = 0; i < chunks * step_products; ++i) fa_amx_softmax_beside(w, at, first + i);
    return;
  }
  float *o = w->o + ((int64_t)block->sub * units + unit) * 4 * FA_TILE_FLOATS;
  fa_amx_look_ahead(w);
  const char *v = w->kv + block->packed + (qk_steps + unit) * chunks * step_bytes;
  if (terms < 3) {
    if (terms == 1) {
#pragma GCC unroll 8
      for (int c = 0; c < chunks; ++c)
        FA_AMX_PRODUCTS(w, 1, v + c * step_bytes, 1, p + c * step_bytes, c == 0, FA_AMX_FROM_O, at, first + 4 * c);
    } else {
      for (int c = 0; c < chunks; ++c)
        FA_AMX_STEP(w, terms, 0, fa_amx_output_terms(terms), v + c * step_bytes, p + c * step_bytes, c == 0, FA_AMX_FROM_O, at)
    }
    w->unstored = o;
    return;
  }
  float *const add_to = fa_amx_take_part(w, terms);
  const int all = fa_amx_output_terms(terms), small = all - 1; /* as for scores */
  for (int c = 0; c < chunks; ++c)
    FA_AMX_STEP(w, terms, 0, small, v + c * step_bytes, p + c * step_bytes, c == 0, FA_AMX_FROM_ZERO, at)
  for (int c = 0; c < chunks; ++c)
    FA_AMX_STEP(w, terms, small, all, v + c * step_bytes, p + c * step_bytes, c == 0, FA_AMX_FROM_ZERO, at)
  fa_amx_add_part(w, add_to);
  w->unstored = w->part;
  w->part_of = o;
}

/* The rounds of key block `now`, with the output of `before` (all but the units of its last round) and of the block
 * `earlier` before that (those units); any NULL at the ends. Inlined with constant terms. */
FA_AMX_INLINE void fa_amx_iterate_shape(fa_amx_pipeline *w, const fa_amx_block *now, const fa_amx_block *before,
                                        const fa_amx_block *earlier, int qk_steps, int units, int rounds,
                                        int round_chunks, int terms, int wants_lse) {
  fa_amx_constants constants = fa_amx_constants_of(w, terms, wants_lse);
  const int chunks = rounds * round_chunks, round_units = units / rounds;
  const int score_products = 4 * fa_amx_score_terms(terms) * round_chunks * qk_steps;
  const int unit_products = 4 * fa_amx_output_terms(terms) * chunks;
  for (int round = 0; round < rounds; ++round) {
    const int chunk = round * round_chunks;
    fa_amx_softmax softmax = {.block = round ? now : before,
                              .scores = w->scores[1],
                              .p = round ? w->p[0] : w->p[1],
                              .first_chunk = (round ? chunk : chunks) - round_chunks,
                              .rows = 32 * round_chunks,
                              .products = score_products + round_units * unit_products,
                              .terms = terms,
                              .wants_lse = wants_lse};
    if (__builtin_expect(w->has_rules, 0)) {
      if (softmax.block) fa_amx_rules(w, softmax.block, softmax.first_chunk, round_chunks);
      constants = fa_amx_constants_of(w, terms, wants_lse); /* anew: kept over the call, they would live in memory everywhere */
    }
    softmax.constants = constants;
    fa_amx_scores(w, now, chunk, &softmax, qk_steps, round_chunks, terms);
#pragma GCC unroll 4
    for (int i = 0; i < round_units; ++i)
      fa_amx_output(w, round ? before : earlier, round ? w->p[1] : w->p[0],
                    (round ? round - 1 : rounds - 1) * round_units + i, &softmax,
                    score_products + i * unit_products, qk_steps, units, chunks, terms);
    if (round == 0 && __builtin_expect(w->has_pending, 0)) {
      fa_amx_flush(w, terms);
      fa_amx_apply_pending(w, before->sub, units);
    }
    float *const ring = w->scores[0];
    w->scores[0] = w->scores[1];
    w->scores[1] = ring;
  }
  if (!now) fa_amx_flush(w, terms);
  char *const p = w->p[0];
  w->p[0] = w->p[1];
  w->p[1] = p;
}

#endif
