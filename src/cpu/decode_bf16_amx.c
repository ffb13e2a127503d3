/* Decode of bf16 with AMX: both products on tiles that are loaded from the cache as it lies, row by row of K and V.
 *
 *   s^T[16 keys, rows] = K q^T;   o[rows, D_v] += p V
 *
 * Scores: K is the left operand, 16 keys x 32 elements; q the right one, pairs of elements x rows (arrange_q). Of a
 * 16 x 16 result only as many columns as there are rows matter: each stored row overwrites what the one before left
 * behind them, and log2(rows) rounds of sorting even from odd elements turn [keys, rows] round.
 *
 * Values: a right operand holds pairs of keys, and V pairs of columns. So p comes twice, with zeros between: row 2r
 * of the left operand is (p_r0, 0, p_r1, 0, ...) and sums the even columns, row 2r + 1 is (0, p_r0, 0, p_r1, ...) and
 * sums the odd ones. A product whose right operand is new takes 16 cycles however few rows it has, so up to 8 rows this
 * costs nothing, and V needs no packing. o in scratch: a row's even columns, then its odd ones; result rows beyond the
 * last row of q add zero to what lies there.
 *
 * The last 32 elements of a row that is no multiple of 32 overlap the ones before: q is 0 there, and o keeps them apart.
 * Rows not evenly apart (small pages) and a sequence's last keys are copied first, 16 at a time.
 *
 * Level one: the keys of a part, level two: chunks of 64 keys (decode_split.c). The unit reads subnormals as 0: a row
 * of q with any, or with values so large that they could make up for those of K, becomes NaN, and the driver does again in
 * plain C what is not finite and rows of o so small that all of V may have been. Bound: reading K and V once, from L2 about
 * 9 ns a KB. Measured: docs/performance.md. */
#include "core/kernel_declarations.h"
#include "cpu/decode_tiles_amx.h"

enum {
  SPAN = 32,     /* elements of a row in a tile */
  VALUE_ROWS = 8, /* rows of o a tile */
  SUBNORMALS = 0x7f, /* the bits 1 to 0x7f */
  NOT_A_NUMBER = 0x7fc0,
  LARGEST_OF_Q = (127 + 20) << 7 /* 2^20 */
};
#define LARGEST_SCALE 0x1p60f
#define LEAST_OF_O 0x1p-60f

/* ------------------------------------------------------------------------- scores */

/* One panel of q against 1 or 4 blocks of keys. */
FA_AMX_INLINE void scores_panel(const fa_decode_chunk *chunk, const char *q, int64_t rows, spaced k, int blocks,
                                float *tile, int64_t lines) {
  const int64_t width = panel_width(rows), steps = fa_ceil_div(chunk->dim_qk, SPAN), next = BLOCK * k.stride;
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  FA_TILE_ZERO(0);
  if (blocks == 4) {
    FA_TILE_ZERO(1);
    FA_TILE_ZERO(2);
    FA_TILE_ZERO(3);
  }
  for (int64_t n = 0; n < steps; ++n) {
    const char *from = k.base + span_start(n, SPAN, chunk->dim_qk) * 2;
    FA_TILE_LOAD_ROWS(4, q + n * SPAN / 2 * width * 4, width * 4);
    FA_TILE_LOAD_ROWS(5, from, k.stride);
    FA_TILE_MULTIPLY(0, 5, 4);
    if (blocks == 4) {
      FA_TILE_LOAD_ROWS(5, from + next, k.stride);
      FA_TILE_MULTIPLY(1, 5, 4);
      FA_TILE_LOAD_ROWS(5, from + 2 * next, k.stride);
      FA_TILE_MULTIPLY(2, 5, 4);
      FA_TILE_LOAD_ROWS(5, from + 3 * next, k.stride);
      FA_TILE_MULTIPLY(3, 5, 4);
    }
    fa_decode_fetch_lines(&fetch, lines * blocks);
  }
  *chunk->fetch = fetch;
  /* 16 rows of `width` and what the last one leaves behind them. */
  _Alignas(64) float sums[BLOCKS][FA_TILE_FLOATS + 16];
  FA_TILE_STORE_ROWS(0, sums[0], width * 4);
  if (blocks == 4) {
    FA_TILE_STORE_ROWS(1, sums[1], width * 4);
    FA_TILE_STORE_ROWS(2, sums[2], width * 4);
    FA_TILE_STORE_ROWS(3, sums[3], width * 4);
  }
  for (int b = 0; b < blocks; ++b) turn_any(sums[b], width, rows, tile + b * BLOCK);
}

static void scores(const fa_decode_chunk *chunk, const float *q, int64_t rows, float *tile) {
  const int64_t blocks = fa_ceil_div(chunk->keys, BLOCK), panels = fa_ceil_div(rows, PANEL);
  const int64_t lines = fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_SCORES,
                                              panels * fa_ceil_div(chunk->dim_qk, SPAN) * blocks);
  const int64_t bytes = chunk->dim_qk * 2;
  char copy[BLOCK * MOST_ROW_BYTES];
  if (chunk->keys == FA_DECODE_KEYS && is_spaced(chunk->k, FA_DECODE_KEYS)) {
    const spaced k = {chunk->k[0] + chunk->k_offset, chunk->k[1] - chunk->k[0]};
    for (int64_t r = 0; r < rows; r += PANEL)
      scores_panel(chunk, (const char *)(q + r * chunk->q_stride), fa_min(rows - r, PANEL), k, BLOCKS,
                   tile + r * FA_DECODE_KEYS, lines);
    return;
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const spaced k = rows_of(chunk->k + b * BLOCK, chunk->k_offset, bytes, BLOCK, copy);
    for (int64_t r = 0; r < rows; r += PANEL)
      scores_panel(chunk, (const char *)(q + r * chunk->q_stride), fa_min(rows - r, PANEL), k, 1,
                   tile + r * FA_DECODE_KEYS + b * BLOCK, lines);
  }
}

/* ------------------------------------------------------------------------- output */

/* Weights of up to 8 rows for each block of keys, twice a row; rows behind them stay 0. */
FA_AMX_INLINE void spread_weights(const float *tile, int64_t rows, char *p) {
  for (int64_t r = 0; r < rows; ++r)
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      const __m512 w = _mm512_loadu_ps(tile + r * FA_DECODE_KEYS + b * BLOCK);
      const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(w));
      char *to = p + b * FA_TILE_BYTES + 2 * r * ROW_BYTES;
      _mm512_store_si512(to, low);
      _mm512_store_si512(to + ROW_BYTES, _mm512_slli_epi32(low, 16));
    }
}

/* o += p v for `spans` (1 to 4) times 32 columns from span `first` on, and 1 or 4 blocks of keys. */
FA_AMX_INLINE void values_spans(const fa_decode_chunk *chunk, const char *p, spaced v, int blocks, float *o,
                                int64_t first, int spans, int64_t lines) {
  const int64_t half = chunk->o_stride / 2 * 4, dim = chunk->dim_v;
  char *to = (char *)(o + first * 16);
  fa_decode_fetch fetch = *chunk->fetch; /* in registers */
  FA_TILE_LOAD_ROWS(0, to, half);
  if (spans > 1) FA_TILE_LOAD_ROWS(1, to + 64, half);
  if (spans > 2) FA_TILE_LOAD_ROWS(2, to + 128, half);
  if (spans > 3) FA_TILE_LOAD_ROWS(3, to + 192, half);
  for (int64_t b = 0; b < blocks; ++b) {
    const char *from = v.base + b * BLOCK * v.stride;
    FA_TILE_LOAD(4, p + b * FA_TILE_BYTES);
    FA_TILE_LOAD_ROWS(5, from + span_start(first, SPAN, dim) * 2, v.stride);
    FA_TILE_MULTIPLY(0, 4, 5);
    if (spans > 1) {
      FA_TILE_LOAD_ROWS(5, from + span_start(first + 1, SPAN, dim) * 2, v.stride);
      FA_TILE_MULTIPLY(1, 4, 5);
    }
    if (spans > 2) {
      FA_TILE_LOAD_ROWS(5, from + span_start(first + 2, SPAN, dim) * 2, v.stride);
      FA_TILE_MULTIPLY(2, 4, 5);
    }
    if (spans > 3) {
      FA_TILE_LOAD_ROWS(5, from + span_start(first + 3, SPAN, dim) * 2, v.stride);
      FA_TILE_MULTIPLY(3, 4, 5);
    }
    fa_decode_fetch_lines(&fetch, lines * spans);
  }
  *chunk->fetch = fetch;
  FA_TILE_STORE_ROWS(0, to, half);
  if (spans > 1) FA_TILE_STORE_ROWS(1, to + 64, half);
  if (spans > 2) FA_TILE_STORE_ROWS(2, to + 128, half);
  if (spans > 3) FA_TILE_STORE_ROWS(3, to + 192, half);
}

FA_AMX_INLINE void values(const fa_decode_chunk *chunk, const char *p, spaced v, int blocks, float *o, int64_t lines) {
  const int64_t spans = fa_ceil_div(chunk->dim_v, SPAN);
  int64_t n = 0;
  for (; n + 4 <= spans; n += 4) values_spans(chunk, p, v, blocks, o, n, 4, lines);
  switch (spans - n) {
    case 1: values_spans(chunk, p, v, blocks, o, n, 1, lines); break;
    case 2: values_spans(chunk, p, v, blocks, o, n, 2, lines); break;
    case 3: values_spans(chunk, p, v, blocks, o, n, 3, lines); break;
    default: break;
  }
}

static void accumulate(const fa_decode_chunk *chunk, float *tile, int64_t rows, float *o) {
  const int64_t blocks = fa_ceil_div(chunk->keys, BLOCK), bytes = chunk->dim_v * 2;
  const int64_t lines =
      fa_decode_fetch_share(chunk->fetch, FA_DECODE_FETCH_ACCUMULATE,
                            fa_ceil_div(rows, VALUE_ROWS) * fa_ceil_div(chunk->dim_v, SPAN) * blocks);
  const int is_whole = chunk->keys == FA_DECODE_KEYS && is_spaced(chunk->v, FA_DECODE_KEYS);
  _Alignas(64) char p[BLOCKS * FA_TILE_BYTES];
  char copy[BLOCK * MOST_ROW_BYTES];
  for (int64_t r = 0; r < rows; r += VALUE_ROWS) {
    const int64_t some = fa_min(rows - r, VALUE_ROWS);
    if (some < VALUE_ROWS) memset(p, 0, sizeof p);
    spread_weights(tile + r * FA_DECODE_KEYS, some, p);
    float *to = o + r * chunk->o_stride;
    if (is_whole) {
      values(chunk, p, (spaced){chunk->v[0] + chunk->v_offset, chunk->v[1] - chunk->v[0]}, BLOCKS, to, lines);
      continue;
    }
    for (int64_t b = 0; b < blocks; ++b)
      values(chunk, p + b * FA_TILE_BYTES, rows_of(chunk->v + b * BLOCK, chunk->v_offset, bytes, BLOCK, copy), 1, to,
             lines);
  }
}

/* -------------------------------------------------------- q in, o out, softmax */

static void load_q(float *to, const char *q, int64_t dim, fa_dtype dtype, fa_dtype kv_dtype) {
  (void)dtype, (void)kv_dtype;
  __mmask32 bad = 0;
  for (int64_t d = 0; d < dim; d += SPAN) {
    const __m512i x = _mm512_maskz_loadu_epi16(keep_of(dim - d), q + 2 * d);
    const __m512i size = _mm512_and_si512(x, _mm512_set1_epi16(0x7fff)), below = _mm512_sub_epi16(size, _mm512_set1_epi16(1));
    bad |= _mm512_cmpgt_epu16_mask(size, _mm512_set1_epi16(LARGEST_OF_Q));
    bad |= _mm512_cmplt_epu16_mask(below, _mm512_set1_epi16(SUBNORMALS));
    _mm512_storeu_si512((char *)to + 2 * d, x);
  }
  if (bad) *(uint16_t *)(void *)to = NOT_A_NUMBER;
}

/* Panels of up to 16 rows: [D / 32][16 pairs of elements][panel_width rows]; what a last span has twice is 0 in it. */
static void arrange_q(float *q, int64_t rows, int64_t q_stride, int64_t dim) {
  uint32_t copy[PANEL][FA_DECODE_MAX_DIM / 2];
  const int64_t last = span_start(fa_ceil_div(dim, SPAN) - 1, SPAN, dim), twice = fa_round_up(dim, SPAN) - dim;
  for (int64_t first = 0; first < rows; first += PANEL, q += PANEL * q_stride) {
    const int64_t some = fa_min(rows - first, PANEL), width = panel_width(some);
    for (int64_t r = 0; r < width; ++r) {
      if (r >= some) {
        memset(copy[r], 0, sizeof copy[r]);
        continue;
      }
      const char *row = (const char *)(q + r * q_stride);
      char *to = (char *)copy[r];
      memcpy(to, row, (size_t)dim * 2);
      if (!twice) continue;
      char *end = to + (dim - SPAN + twice) * 2; /* where the last span begins in the padded row */
      memset(end, 0, SPAN * 2);
      memcpy(end + twice * 2, row + (last + twice) * 2, (size_t)(SPAN - twice) * 2);
    }
    uint32_t *to = (uint32_t *)(void *)q;
    for (int64_t pair = 0; pair < fa_round_up(dim, SPAN) / 2; ++pair, to += width)
      for (int64_t r = 0; r < width; ++r) to[r] = copy[r][pair];
  }
}

static void store_o(float *to, const float *o, int64_t dim, fa_dtype kv_dtype) {
  (void)kv_dtype;
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const float *odd_half = o + fa_round_up(dim, FA_DECODE_PAD) / 2;
  for (int64_t n = 0; n * SPAN < dim; ++n) { /* the last span begins within the one before: right again */
    const vec even = vec_load(o + n * 16), odd = vec_load(odd_half + n * 16);
    float *at = to + span_start(n, SPAN, dim);
    vec_store(at, _mm512_permutex2var_ps(even, first, odd));
    vec_store(at + 16, _mm512_permutex2var_ps(even, second, odd));
  }
}

static void add(float *sum, const float *o, float weight, int64_t dim) { fa_decode_add(sum, o, weight, dim); }

static const fa_decode_isa isa = {load_q, scores, weigh, accumulate, add, store_o, arrange_q, begin, end, LEAST_OF_O};

fa_status fa_decode_bf16_amx_prepare(fa_plan *plan) {
  const fa_attention_problem *p = &plan->problem;
  if (p->kv_dtype != FA_BFLOAT16)
    return fa_fail(FA_ERROR_UNSUPPORTED, "K and V are %s; decode_bf16_amx takes bf16, other kernels any",
                   fa_dtype_name(p->kv_dtype));
  if (fa_min(p->head_dim_qk, p->head_dim_v) < SPAN)
    return fa_fail(FA_ERROR_UNSUPPORTED, "head sizes are %lld and %lld; decode_bf16_amx takes %d and more, other kernels any",
                   (long long)p->head_dim_qk, (long long)p->head_dim_v, SPAN);
  if (fabsf(p->scale) > LARGEST_SCALE)
    return fa_fail(FA_ERROR_UNSUPPORTED, "scale is %g; decode_bf16_amx takes at most %g, other kernels any", (double)p->scale,
                   (double)LARGEST_SCALE);
  return fa_decode_prepare(plan);
}

fa_status fa_decode_bf16_amx_run(const fa_plan *plan, const fa_attention_args *args, void *workspace,
                                 fa_stream stream) {
  (void)stream;
  return fa_decode_run(plan, args, workspace, &isa);
}
