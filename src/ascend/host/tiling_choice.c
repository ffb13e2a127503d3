/* The choice, in order: rows of an item, parts of the keys, level one, level two, the workspace.
 *
 * Level one is the table's (tile_table.h): as wide as Vector can take (1024 keys) where a core's stream of tiles is long, as each
 * tile costs a round of flags between Cube and Vector; narrower where it is short, which lets the two overlap at all. Times below
 * are cycles of one group by the published figures of the core; they only weigh choices against each other. */
#include <string.h>

#include "ascend/host/tile_table.h"
#include "ascend/host/tiling_choice.h"

enum {
  MOST_ROWS = 128,      /* of a level-one tile: what Cube multiplies at once */
  FRACTAL = 16,
  MOST_PARTS = 256,
  MOST_PRELOAD = 8,     /* a cross-core flag counts to 15 */
  MOST_HALF_ROWS = 64,  /* of an AIV */
  LEVEL1_KEYS = 1024,
  CUBE_KEYS = 128,
  ONE_LEVEL_PRELOAD = 4, /* the best of 1 to 8 for 128 x 128 blocks, on the model */
  LEVEL2_SCORES = 8 * 1024, /* 32 KB of fp32 */
  MOST_WAVES = 4,           /* of uncut items, for cutting them to be of use */
  RING_ALIGNMENT = 512
};

/* Cycles: a key of 128 rows (a 128 x 512 tile in 7,740), a key of few rows (reading K and V), the first tile of a stream passing
 * through empty pipes, an item's end, all cores waiting for each other before parts are joined, an AIV joining eight rows; bytes
 * a cycle of a group to GM. */
enum {
  KEY_CYCLES = 15,
  FEW_ROWS_KEY_CYCLES = 7,
  STREAM_CYCLES = 6000,
  ITEM_CYCLES = 1500,
  MEETING_CYCLES = 3000,
  JOIN_CYCLES = 1400,
  JOIN_ROWS = 8,
  GM_BYTES = 150
};

static int32_t window_of(int64_t given) { return given < 0 || given >= INT32_MAX ? -1 : (int32_t)given; }

static int64_t power_of_two_from(int64_t least) {
  int64_t power = FRACTAL;
  while (power < least) power *= 2;
  return power;
}

static fa_status copy_problem(const fa_attention_problem *p, fa_ascend_attention *t) {
  const int64_t sizes[] = {p->batch, p->max_seqlen_q, p->max_seqlen_kv, p->page_size, p->num_pages};
  for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; ++n)
    if (sizes[n] > INT32_MAX)
      return fa_fail(FA_ERROR_UNSUPPORTED, "a size of %lld is beyond the Ascend kernels' 2^31 - 1; make the batch or the "
                     "sequences shorter", (long long)sizes[n]);
  memset(t, 0, sizeof *t);
  t->window_left = window_of(p->window_left);
  t->window_right = p->causal ? 0 : window_of(p->window_right);
  t->is_bf16 = p->dtype == FA_BFLOAT16;
  t->batch = (int32_t)p->batch;
  t->heads_q = (int32_t)p->heads_q;
  t->heads_kv = (int32_t)p->heads_kv;
  t->group = (int32_t)(p->heads_q / p->heads_kv);
  t->max_seqlen_q = (int32_t)p->max_seqlen_q;
  t->max_seqlen_kv = (int32_t)p->max_seqlen_kv;
  t->head_dim_qk = (int32_t)p->head_dim_qk;
  t->head_dim_v = (int32_t)p->head_dim_v;
  t->ragged_q = p->ragged_q;
  t->ragged_kv = p->ragged_kv;
  t->has_seqlens_kv = p->has_seqlens_kv;
  t->has_lse = p->has_lse;
  t->page_size = (int32_t)p->page_size;
  t->scale = p->scale;
  t->mask_m = FA_ASCEND_MASK_M;
  return FA_OK;
}

/* Most keys that an item sees: parts are of what its rows keep. */
static int64_t keys_in_sight(const fa_ascend_attention *t, int64_t parts) {
  int64_t keys = t->max_seqlen_kv;
  if (t->window_left >= 0 && t->window_right >= 0)
    keys = fa_min(keys, t->window_left + t->window_right + (t->packs_group ? 1 : t->level1_rows));
  return fa_ceil_div(keys, parts);
}

/* Of the keys in sight those that a row block sees on average: under a band with a right edge about half. */
static int64_t keys_on_average(const fa_ascend_attention *t) {
  const int64_t keys = keys_in_sight(t, 1);
  const int is_triangle = t->window_right >= 0 && t->window_left < 0 && t->max_seqlen_q > t->level1_rows;
  return is_triangle ? keys - fa_min(keys, t->max_seqlen_q) / 2 : keys;
}

/* Of `units` items a part, dealt to `groups` so that heavy and light ones mix; one is not cut. */
static int64_t cost_of(const fa_ascend_attention *t, int64_t units, int64_t groups, int64_t parts) {
  const int64_t waves = fa_ceil_div(units * parts, groups);
  const int64_t key_cycles = t->level1_rows > MOST_ROWS / 4 ? KEY_CYCLES : FEW_ROWS_KEY_CYCLES;
  const int64_t keys = fa_max(waves * fa_ceil_div(keys_on_average(t), parts), keys_in_sight(t, parts));
  int64_t cycles = STREAM_CYCLES + waves * ITEM_CYCLES + key_cycles * keys;
  if (parts > 1) { /* o in fp32 goes to GM and comes back */
    cycles += waves * t->level1_rows * t->head_dim_v * (int64_t)sizeof(float) / GM_BYTES;
    cycles += MEETING_CYCLES + fa_ceil_div(units * fa_ceil_div(t->level1_rows, JOIN_ROWS), 2 * groups) * JOIN_CYCLES;
  }
  return cycles;
}

/* Parts of each key sequence for `units` items a part. */
static int64_t choose_parts(const fa_attention_problem *p, const fa_ascend_attention *t, int64_t units, int64_t groups) {
  const int64_t most = fa_max(fa_min(fa_min(p->max_seqlen_kv, MOST_PARTS), INT32_MAX / fa_max(units, 1)), 1);
  if (p->kv_splits) return fa_min(p->kv_splits, most);
  if (units >= MOST_WAVES * groups) return 1; /* the last wave is a small part of all */
  int64_t best = 1, best_cost = cost_of(t, units, groups, 1);
  for (int64_t parts = 2; parts <= fa_min(most, fa_ceil_div(p->max_seqlen_kv, CUBE_KEYS)); ++parts) {
    const int64_t cost = cost_of(t, units, groups, parts);
    if (cost < best_cost) best = parts, best_cost = cost;
  }
  return best;
}

/* All of them, unless their keys and values are more than a third of L2, which the rings and q and o share:
 * then so many that theirs are not, in whole KV heads, and enough for each group to have several items. Parts
 * are numbered as if all were at once. */
static int64_t choose_pairs(const fa_attention_problem *p, const fa_ascend_wish *wish, const fa_ascend_attention *t,
                            const fa_ascend_chip *chip, int64_t pairs) {
  if (t->kv_splits > 1) return pairs;
  if (wish->pairs_at_once) return fa_min(wish->pairs_at_once, pairs);
  if (t->packs_group || t->row_blocks <= 1 || chip->l2_bytes == 0) return pairs; /* each key is read once; no queries at all */
  const int64_t row = t->head_dim_qk + t->head_dim_v,
                bytes = fa_max(t->max_seqlen_kv, 1) * row * (int64_t)fa_dtype_bytes(p->kv_dtype);
  const int64_t kv_heads = fa_max(chip->l2_bytes / 3 / bytes, 1);
  const int64_t most = fa_max(kv_heads * t->group, fa_round_up(fa_ceil_div(MOST_WAVES * chip->groups, t->row_blocks), t->group));
  return fa_min(most, pairs);
}

static fa_status choose_items(const fa_attention_problem *p, const fa_ascend_wish *wish, const fa_ascend_chip *chip,
                              fa_ascend_attention *t) {
  const int64_t groups = chip->groups;
  t->packs_group = t->max_seqlen_q == 1 && t->group > 1;
  const int64_t rows = t->packs_group ? t->group : t->max_seqlen_q;
  const int64_t heads = t->packs_group ? t->heads_kv : t->heads_q;
  t->level1_rows = (int32_t)(wish->level1_rows ? wish->level1_rows : fa_min(fa_round_up(fa_max(rows, 1), FRACTAL), MOST_ROWS));
  t->row_blocks = (int32_t)fa_ceil_div(rows, t->level1_rows);
  const double units = (double)t->batch * (double)heads * (double)t->row_blocks;
  if (units > (double)INT32_MAX)
    return fa_fail(FA_ERROR_UNSUPPORTED, "%.0f blocks of rows are beyond the Ascend kernels' 2^31 - 1; make the batch or the "
                   "sequences shorter", units);
  t->kv_splits = (int32_t)choose_parts(p, t, (int64_t)units, groups);
  t->items = (int32_t)units * t->kv_splits;
  t->pairs_at_once = (int32_t)choose_pairs(p, wish, t, chip, t->batch * heads);
  return FA_OK;
}

/* Of a tile `keys` wide: Vector's pieces as large as 32 KB of scores, and never more rows than there are. */
static int64_t rows_of_piece(const fa_ascend_attention *t, int64_t keys, int whole) {
  const int64_t half = fa_min(fa_round_up(t->level1_rows / 2, 8), MOST_HALF_ROWS);
  return whole ? half : fa_max(fa_min(LEVEL2_SCORES / keys / 8 * 8, half), 8);
}

static int fits(const fa_ascend_attention *t) { return fa_ascend_attention_ub_bytes(t) <= FA_ASCEND_UB_BYTES; }

/* The first row that covers the problem; of what none does (larger head sizes) the last, which has the widest. */
static const fa_ascend_tile_row *tuned_row(const fa_ascend_attention *t, int64_t groups) {
  const int32_t head_dim = t->head_dim_qk > t->head_dim_v ? t->head_dim_qk : t->head_dim_v;
  const int64_t stream = fa_ceil_div(t->items, groups) * fa_ceil_div(keys_on_average(t), t->kv_splits);
  const fa_ascend_tile_row *row = fa_ascend_tile_rows;
  for (; row->head_dim; ++row)
    if (t->level1_rows <= row->rows && head_dim <= row->head_dim && (row->stream == 0 || stream <= row->stream) &&
        (t->window_right == 0) == row->causal)
      return row;
  return row - 1;
}

static fa_status choose_tiles(const fa_ascend_wish *wish, int64_t groups, fa_ascend_attention *t) {
  const int64_t sight = fa_max(keys_in_sight(t, t->kv_splits), 1);
  t->cube_keys = (int32_t)(wish->cube_keys ? wish->cube_keys : fa_min(power_of_two_from(sight), CUBE_KEYS));
  const fa_ascend_tile_row one_level = {.level1_keys = t->cube_keys, .preload = ONE_LEVEL_PRELOAD};
  const fa_ascend_tile_row *tuned = wish->one_level ? &one_level : tuned_row(t, groups);
  t->preload = (int32_t)(wish->preload ? wish->preload : tuned->preload);
  t->ring = t->preload + 1;
  t->level1_keys = (int32_t)fa_min(tuned->level1_keys, fa_round_up(sight, t->cube_keys));
  if (wish->level1_keys) t->level1_keys = (int32_t)wish->level1_keys;
  const int is_fixed = wish->level1_keys || wish->level2_rows;
  for (;; t->level1_keys -= t->cube_keys) {
    t->level2_rows = (int32_t)rows_of_piece(t, t->level1_keys, wish->one_level);
    if (tuned->level2_rows) t->level2_rows = tuned->level2_rows;
    if (wish->level2_rows) t->level2_rows = (int32_t)wish->level2_rows;
    while (!fits(t) && t->level2_rows > 8 && !wish->level2_rows) t->level2_rows -= 8;
    if (fits(t)) return FA_OK;
    if (is_fixed || t->level1_keys <= t->cube_keys) break;
  }
  return fa_fail(is_fixed ? FA_ERROR_ARGUMENT : FA_ERROR_UNSUPPORTED,
                 "tiles of %d x %d keys, %d rows at a time, with head sizes %d and %d do not fit in the %d KB of UB; use "
                 "smaller ones", t->level1_rows, t->level1_keys, t->level2_rows, t->head_dim_qk, t->head_dim_v,
                 FA_ASCEND_UB_BYTES / 1024);
}

static fa_status check_wish(const fa_ascend_wish *wish) {
  const int64_t cube = wish->cube_keys ? wish->cube_keys : CUBE_KEYS;
  if (wish->level1_rows < 0 || wish->level1_rows > MOST_ROWS || wish->level1_rows % FRACTAL)
    return fa_fail(FA_ERROR_ARGUMENT, "level-one rows are %lld; they must be a multiple of 16 up to %d",
                   (long long)wish->level1_rows, MOST_ROWS);
  if (wish->cube_keys < 0 || cube > CUBE_KEYS || power_of_two_from(cube) != cube)
    return fa_fail(FA_ERROR_ARGUMENT, "keys of a Cube block are %lld; they must be 16, 32, 64 or 128",
                   (long long)wish->cube_keys);
  if (wish->level1_keys < 0 || wish->level1_keys > LEVEL1_KEYS || wish->level1_keys % cube)
    return fa_fail(FA_ERROR_ARGUMENT, "level-one keys are %lld; they must be a multiple of %lld up to %d",
                   (long long)wish->level1_keys, (long long)cube, LEVEL1_KEYS);
  if (wish->preload < 0 || wish->preload > MOST_PRELOAD)
    return fa_fail(FA_ERROR_ARGUMENT, "preload is %lld; it must be 1 to %d", (long long)wish->preload, MOST_PRELOAD);
  if (wish->pairs_at_once < 0)
    return fa_fail(FA_ERROR_ARGUMENT, "pairs of sequence and head at once are %lld; they must be at least 1, or 0 for the rule's",
                   (long long)wish->pairs_at_once);
  if (wish->level2_rows < 0 || wish->level2_rows > MOST_HALF_ROWS || wish->level2_rows % 8)
    return fa_fail(FA_ERROR_ARGUMENT, "level-two rows are %lld; they must be a multiple of 8 up to %d",
                   (long long)wish->level2_rows, MOST_HALF_ROWS);
  return FA_OK;
}

static void lay_out(fa_ascend_choice *c) {
  fa_ascend_attention *t = &c->tiling;
  const int64_t tiles = (int64_t)c->blocks * t->ring, scores = (int64_t)t->level1_rows * t->level1_keys;
  const int64_t rows = (int64_t)t->items * t->level1_rows, wide = (int64_t)sizeof(float);
  int64_t end = 0;
#define PLACE(field, bytes) t->field = end, end += fa_round_up((bytes), RING_ALIGNMENT)
  PLACE(s_ring, tiles * scores * wide);
  PLACE(p_ring, tiles * scores * 2);
  PLACE(o_ring, tiles * t->level1_rows * fa_round_up(t->head_dim_v, FRACTAL) * wide);
  PLACE(partial_o, t->kv_splits > 1 ? rows * fa_round_up(t->head_dim_v, FA_ASCEND_LANES) * wide : 0);
  PLACE(partial_lse, t->kv_splits > 1 ? rows * wide : 0);
#undef PLACE
  c->workspace_bytes = (size_t)end;
}

fa_status fa_ascend_choose(const fa_attention_problem *problem, const fa_ascend_chip *chip, const fa_ascend_wish *wish,
                           fa_ascend_choice *choice) {
  const fa_ascend_wish nothing = {.one_level = 0};
  if (!wish) wish = &nothing;
  fa_status status = check_wish(wish);
  if (status == FA_OK) status = copy_problem(problem, &choice->tiling);
  if (status == FA_OK) status = choose_items(problem, wish, chip, &choice->tiling);
  if (status == FA_OK) status = choose_tiles(wish, chip->groups, &choice->tiling);
  if (status != FA_OK) return status;
  choice->blocks = (int32_t)fa_min(fa_max(choice->tiling.items, 1), chip->groups);
  /* Of a single query the band is a range of keys. */
  choice->has_band = !choice->tiling.packs_group && (choice->tiling.window_left >= 0 || choice->tiling.window_right >= 0);
  lay_out(choice);
  return FA_OK;
}

static fa_ascend_strides strides_of(const fa_tensor *t, int is_ragged) {
  const fa_ascend_strides strides = {is_ragged ? 0 : t->stride_batch, t->stride_seq, t->stride_head};
  return strides;
}

void fa_ascend_set_strides(const fa_attention_problem *problem, const fa_attention_args *args, fa_ascend_attention *tiling) {
  tiling->q = strides_of(&args->q, problem->ragged_q);
  tiling->o = strides_of(&args->o, problem->ragged_q);
  tiling->k = strides_of(&args->k, problem->ragged_kv);
  tiling->v = strides_of(&args->v, problem->ragged_kv);
  tiling->lse_batch = problem->has_lse && !problem->ragged_q ? args->lse_stride_batch : 0;
  tiling->lse_head = problem->has_lse ? args->lse_stride_head : 0;
  tiling->page_table_stride = problem->page_size ? args->page_table_stride : 0;
}
