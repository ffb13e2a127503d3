/* Random problems, biased towards the edges where kernels break: lengths of 0, 1 and one beside a tile, odd
 * head sizes, every ratio of heads, S_q > S_kv, and any combination of features. */
#include <math.h>

#include "check/check_case.h"

static const int64_t tile_edges[] = {4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048};

static int64_t draw_length(fa_random *r, int64_t most) {
  const int64_t kind = fa_random_range(r, 0, 99);
  int64_t length;
  if (kind < 4)
    length = 0;
  else if (kind < 14)
    length = 1;
  else if (kind < 60) {
    do length = FA_RANDOM_PICK(r, tile_edges);
    while (length > 4 && length > most);
    if (fa_random_chance(r, 25)) length *= fa_random_range(r, 2, 4);
    length += fa_random_range(r, -1, 1);
  } else
    length = fa_random_range(r, 2, most < 150 || fa_random_chance(r, 15) ? fa_max(most, 2) : 150);
  return fa_min(length, most);
}

static int64_t draw_head_dim(fa_random *r, int64_t most) {
  static const int64_t common[] = {64, 64, 128, 128, 32, 80, 96, 256};
  static const int64_t edges[] = {1,  2,  3,  7,  8,   15,  16,  17,  24,  31,  33,  40,  48,  63,  65,  72,
                                  79, 88, 95, 97, 100, 112, 120, 127, 129, 160, 192, 255, 256, 320, 512, 576};
  int64_t dim;
  do
    dim = fa_random_chance(r, 45)   ? FA_RANDOM_PICK(r, common)
          : fa_random_chance(r, 75) ? FA_RANDOM_PICK(r, edges)
                                    : fa_random_range(r, 1, 256);
  while (dim > most && dim > 1);
  return dim;
}

static void draw_heads(fa_random *r, fa_attention_problem *p) {
  static const int64_t ratios[] = {1, 1, 2, 3, 4, 8, 16};
  static const int64_t kv[] = {1, 1, 2, 3};
  p->heads_kv = FA_RANDOM_PICK(r, kv);
  p->heads_q = p->heads_kv * FA_RANDOM_PICK(r, ratios);
  p->batch = fa_random_chance(r, 45) ? 1 : fa_random_range(r, 2, 4);
}

static double work_of(const fa_attention_problem *p) {
  return (double)p->batch * (double)p->heads_q * (double)p->max_seqlen_q * (double)p->max_seqlen_kv *
         (double)(p->head_dim_qk + p->head_dim_v);
}

/* The oracle is slow, so most cases are small; now and then one is large enough to cross a level-one tile. */
static void draw_sizes(fa_random *r, fa_attention_problem *p, int decode) {
  const double budget = fa_random_chance(r, 3) ? 3e7 : 1.5e6;
  int64_t most_q = decode ? FA_DECODE_ROWS : 1100, most_kv = 3000;
  draw_heads(r, p);
  p->max_seqlen_q = decode && fa_random_chance(r, 50) ? 1 : draw_length(r, most_q);
  p->max_seqlen_kv = draw_length(r, most_kv);
  while (work_of(p) > budget) {
    switch (fa_random_range(r, 0, 3)) {
      case 0:
        p->batch = fa_max(p->batch - 1, 1);
        break;
      case 1:
        if (p->heads_kv > 1) {
          p->heads_q /= p->heads_kv;
          p->heads_kv = 1;
        } else if (p->heads_q > 1)
          p->heads_q = (p->heads_q + 1) / 2;
        break;
      case 2:
        most_q = fa_max(most_q * 3 / 4, 1);
        p->max_seqlen_q = draw_length(r, most_q);
        break;
      default:
        most_kv = fa_max(most_kv * 3 / 4, 1);
        p->max_seqlen_kv = draw_length(r, most_kv);
        break;
    }
  }
}

static uint32_t draw_features(fa_random *r, uint32_t allowed) {
  uint32_t features = 0;
  const int density = (int)fa_random_range(r, 0, 3);
  if (density == 0) { /* one alone, or none */
    const uint32_t one = 1u << fa_random_range(r, 0, FA_FEATURE_COUNT - 1);
    features = allowed & (one | FA_FEATURE_LSE);
  } else {
    static const int percents[] = {0, 12, 30, 60};
    for (int bit = 0; bit < FA_FEATURE_COUNT; bit++) {
      if ((allowed >> bit & 1u) && fa_random_chance(r, percents[density])) features |= 1u << bit;
    }
    if (fa_random_chance(r, 30)) features |= allowed & FA_FEATURE_CAUSAL;
  }
  if (features & FA_FEATURE_APPEND) features |= FA_FEATURE_SEQLENS;
  return features;
}

static int64_t draw_window(fa_random *r, int64_t longest) {
  const int64_t kind = fa_random_range(r, 0, 9);
  if (kind < 3) return -1;
  if (kind == 3) return 0;
  if (kind == 4) return fa_random_range(r, 0, 3);
  if (kind == 5) return fa_random_chance(r, 50) ? INT64_MAX : longest + fa_random_range(r, -1, 1) + 1;
  if (kind == 6) return FA_RANDOM_PICK(r, tile_edges) + fa_random_range(r, -1, 1);
  return fa_random_range(r, 0, longest + 1);
}

static void draw_rules(fa_random *r, fa_attention_problem *p, uint32_t features) {
  static const float softcaps[] = {1.0f, 5.0f, 15.0f, 30.0f, 50.0f, 0.1f};
  static const fa_dtype types[] = {FA_FLOAT32, FA_FLOAT16, FA_BFLOAT16};
  const int64_t longest = fa_max(p->max_seqlen_q, p->max_seqlen_kv);
  p->causal = (features & FA_FEATURE_CAUSAL) != 0;
  if (features & FA_FEATURE_WINDOW) {
    p->window_left = draw_window(r, longest);
    p->window_right = draw_window(r, longest);
  }
  p->has_alibi = (features & FA_FEATURE_ALIBI) != 0;
  if (features & FA_FEATURE_SOFTCAP) p->softcap = FA_RANDOM_PICK(r, softcaps);
  p->has_sinks = (features & FA_FEATURE_SINKS) != 0;
  p->has_bias = (features & FA_FEATURE_BIAS) != 0;
  p->bias_dtype = fa_random_chance(r, 50) ? p->dtype : FA_RANDOM_PICK(r, types);
  p->has_mask = (features & FA_FEATURE_MASK) != 0;
  p->has_lse = (features & FA_FEATURE_LSE) != 0;
  if (fa_random_chance(r, 30)) p->scale = (float)fa_random_normal(r) * 0.2f;
}

static void draw_cache(fa_random *r, fa_attention_problem *p, uint32_t features) {
  static const int64_t page_sizes[] = {1, 2, 3, 8, 16, 16, 17, 32, 64, 128, 256};
  static const int32_t splits[] = {2, 3, 4, 5, 8, 16, 17, 33, 64};
  p->has_seqlens_kv = (features & FA_FEATURE_SEQLENS) != 0;
  if (features & FA_FEATURE_PAGED) p->page_size = FA_RANDOM_PICK(r, page_sizes);
  if (features & FA_FEATURE_RAGGED) {
    const int64_t kind = fa_random_range(r, 0, 3); /* both sides, mostly */
    p->ragged_q = kind != 0;
    p->ragged_kv = kind != 1 && !p->page_size && !(features & FA_FEATURE_APPEND);
    if (!p->ragged_kv) p->ragged_q = 1;
  }
  if (features & FA_FEATURE_KVQUANT) p->kv_dtype = fa_random_chance(r, 50) ? FA_INT8 : FA_FP8_E4M3;
  if (features & FA_FEATURE_SPLITS)
    p->kv_splits = FA_RANDOM_PICK(r, splits);
  else
    p->kv_splits = fa_random_chance(r, 30);
  if (!(features & FA_FEATURE_APPEND) || p->max_seqlen_kv == 0) return;

  p->seqlen_new = fa_random_range(r, 1, fa_min(p->max_seqlen_kv, 20));
  if (fa_random_chance(r, 50) && p->max_seqlen_q > 0)
    p->seqlen_new = fa_min(p->max_seqlen_q, p->max_seqlen_kv);
  if (p->head_dim_qk >= 2 && fa_random_chance(r, 60) && p->max_seqlen_q <= p->max_seqlen_kv) {
    p->rotary_dim =
        fa_random_chance(r, 50) ? p->head_dim_qk / 2 * 2 : 2 * fa_random_range(r, 1, p->head_dim_qk / 2);
    p->rotary_positions = p->max_seqlen_kv + fa_random_range(r, 0, 3);
    p->rotary_interleaved = fa_random_chance(r, 50);
  }
}

void fa_case_draw_problem(fa_case *c, const fa_kernel *target) {
  fa_random *r = &c->random;
  const fa_attention_problem blank = FA_ATTENTION_PROBLEM_INIT;
  fa_attention_problem *p = &c->problem;
  const uint32_t everything = (1u << FA_FEATURE_COUNT) - 1u;
  const uint32_t features = draw_features(r, fa_random_chance(r, 88) ? target->features : everything);
  *p = blank;

  do p->dtype = (fa_dtype)fa_random_range(r, FA_FLOAT32, FA_BFLOAT16);
  while (!(target->dtypes >> (int)p->dtype & 1u));
  p->kv_dtype = p->dtype;
  p->head_dim_qk = draw_head_dim(r, target->max_head_dim);
  p->head_dim_v = p->head_dim_qk;
  if (features & FA_FEATURE_DV) p->head_dim_v = draw_head_dim(r, target->max_head_dim);
  draw_sizes(r, p, target->operation == FA_OPERATION_DECODE || fa_random_chance(r, 25));
  draw_rules(r, p, features);
  draw_cache(r, p, features);

  c->values =
      fa_random_chance(r, 50) ? FA_VALUES_NORMAL : (fa_values)fa_random_range(r, 0, FA_VALUES_COUNT - 1);
  c->poison_masked = fa_random_chance(r, 40);
}
