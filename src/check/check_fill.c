/* What a case's arrays hold. Everything a run may not look at stays poison: gaps, tokens beyond a sequence,
 * unused pages and slots, rows of the rotary tables beyond the last position; and keys that no query keeps,
 * on top. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_case.h"
#include "ref/ref.h"

const char *const fa_values_names[FA_VALUES_COUNT] = {"normal", "huge", "near-max", "rising",
                                                      "equal",  "tiny", "zero",     "nonfinite"};
const fa_array fa_cache_arrays[FA_CACHE_ARRAYS] = {FA_ARRAY_K, FA_ARRAY_V, FA_ARRAY_K_SCALE,
                                                   FA_ARRAY_V_SCALE};

/* A prime number of ready-made elements, so that filling needs no conversion an element. */
enum { PALETTE = 1021, LEVELS = 8 };
typedef struct palette {
  size_t bytes;
  unsigned char data[PALETTE * sizeof(float)];
} palette;

/* Standard deviations of q, k, v. */
typedef struct factors {
  double q, k, v;
} factors;

static factors factors_of(fa_case *c) {
  static const double targets[] = {30.0, 100.0, 300.0, 800.0};
  const fa_attention_problem *p = &c->problem;
  const double scale = p->scale != 0.0f ? fabs((double)p->scale) : 1.0 / sqrt((double)p->head_dim_qk);
  const int f16 = p->dtype == FA_FLOAT16, quantised = p->kv_dtype != p->dtype;
  factors f = {1.0, 1.0, 1.0};
  switch (c->values) {
    case FA_VALUES_HUGE:
      f.q = fmin(FA_RANDOM_PICK(&c->random, targets) / (3.0 * scale * sqrt((double)p->head_dim_qk)), 1e4);
      break;
    case FA_VALUES_NEAR_MAX:
      f.q = f.k = f16 ? p->rotary_dim ? 1e4 : 2e4 : 1e6; /* rotating may add two of them */
      f.v = f16 ? quantised ? 1e4 : 3e4 : 1e30;
      if (quantised) f.k = 1e3;
      break;
    /* Not nearer to the smallest normal number: a kernel may scale weights down by the number of keys. */
    case FA_VALUES_TINY:
      f.v = f16 ? 1e-6 : 1e-33;
      break;
    case FA_VALUES_ZERO:
      f.q = f.k = f.v = 0.0;
      break;
    case FA_VALUES_NORMAL:
    case FA_VALUES_RISING:
    case FA_VALUES_EQUAL:
    case FA_VALUES_NONFINITE:
    case FA_VALUES_COUNT:
      break;
  }
  return f;
}

/* fp16's largest number is 65504; a weighted mean of values up to 60000 can be a little wrong and still
 * finite. */
static void mix(fa_random *r, palette *colours, fa_dtype dtype, double factor, int one_colour) {
  const double most = dtype == FA_FLOAT16 ? 6e4 : 1e38;
  double value = 0.0;
  colours->bytes = fa_dtype_bytes(dtype);
  if (dtype == FA_INT8) factor = factor != 0.0 ? 40.0 : 0.0;
  if (dtype == FA_FP8_E4M3) factor = factor != 0.0 ? 32.0 : 0.0;
  for (int n = 0; n < PALETTE; n++) {
    if (n == 0 || !one_colour) value = fmin(fmax(factor * fa_random_normal(r), -most), most);
    fa_ref_store(colours->data, n, value, dtype);
  }
}

static void paint(fa_random *r, const palette *colours, unsigned char *at, int64_t count) {
  uint64_t n = fa_random_bits(r) % PALETTE;
  const uint64_t step = 1 + fa_random_bits(r) % (PALETTE - 1);
  for (int64_t d = 0; d < count; d++) {
    memcpy(at + (size_t)d * colours->bytes, colours->data + n * colours->bytes, colours->bytes);
    n = (n + step) % PALETTE;
  }
}

static void fill_queries(fa_case *c, const fa_tensor *t, double factor) {
  const fa_attention_problem *p = &c->problem;
  palette colours;
  mix(&c->random, &colours, p->dtype, factor, 0);
  for (int64_t b = 0; b < p->batch; b++) {
    for (int64_t i = 0; i < fa_ref_seqlen_q(p, &c->args, b); i++) {
      for (int64_t h = 0; h < p->heads_q; h++) {
        const int64_t row = p->ragged_q ? (c->args.cu_seqlens_q[b] + i) * t->stride_seq
                                        : b * t->stride_batch + i * t->stride_seq;
        paint(&c->random, &colours,
              (unsigned char *)t->data + (row + h * t->stride_head) * (int64_t)colours.bytes, p->head_dim_qk);
      }
    }
  }
}

static void fill_tokens(fa_case *c, const fa_tensor *t, int64_t dim, double factor, int rising,
                        int one_colour) {
  const fa_attention_problem *p = &c->problem;
  static palette levels[LEVELS];
  for (int n = 0; n < (rising ? LEVELS : 1); n++)
    mix(&c->random, &levels[n], p->kv_dtype, factor * (1.0 + n), one_colour);
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t tokens = fa_ref_seqlen_kv(p, &c->args, b) - p->seqlen_new;
    for (int64_t j = 0; j < tokens; j++) {
      const palette *colours = &levels[rising ? j * LEVELS / tokens : 0];
      for (int64_t h = 0; h < p->heads_kv; h++)
        paint(
            &c->random, colours,
            (unsigned char *)t->data + fa_ref_token_index(p, &c->args, t, b, h, j) * (int64_t)colours->bytes,
            dim);
    }
  }
}

/* A few infinities and NaN (of those the type has) in cached tokens: they reach the rows that keep them, and
 * no other. */
static void plant_nonfinite(fa_case *c) {
  static const double kinds[] = {(double)INFINITY, -(double)INFINITY, (double)NAN};
  const fa_attention_problem *p = &c->problem;
  fa_random *r = &c->random;
  const int in_keys = fa_random_chance(r, 30);
  const fa_tensor *t = in_keys ? &c->args.k : &c->args.v;
  const int64_t dim = in_keys ? p->head_dim_qk : p->head_dim_v;
  for (int64_t n = fa_random_range(r, 1, 5); n > 0; n--) {
    const int64_t b = fa_random_range(r, 0, p->batch - 1), h = fa_random_range(r, 0, p->heads_kv - 1);
    const int64_t tokens = fa_ref_seqlen_kv(p, &c->args, b) - p->seqlen_new;
    if (tokens <= 0) continue;
    const int64_t at = fa_ref_token_index(p, &c->args, t, b, h, fa_random_range(r, 0, tokens - 1));
    const double value = p->kv_dtype == FA_FP8_E4M3 ? (double)NAN : FA_RANDOM_PICK(r, kinds);
    fa_ref_store(t->data, at + fa_random_range(r, 0, dim - 1), value, p->kv_dtype);
  }
}

/* Shared scales for all tokens, scales of a token's own for those already in the cache. */
static void fill_scales(fa_case *c, const fa_tensor *t, double factor) {
  const fa_attention_problem *p = &c->problem;
  const double unit = (factor != 0.0 ? factor : 1.0) / (p->kv_dtype == FA_INT8 ? 40.0 : 32.0);
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t tokens = fa_ref_seqlen_kv(p, &c->args, b) - (t->stride_seq != 0 ? p->seqlen_new : 0);
    for (int64_t j = 0; j < tokens; j++) {
      for (int64_t h = 0; h < p->heads_kv; h++)
        ((float *)t->data)[fa_ref_token_index(p, &c->args, t, b, h, j)] =
            (float)(unit * (0.6 + fa_random_unit(&c->random)));
    }
  }
}

static void fill_new_tokens(fa_case *c, const fa_tensor *t, int64_t dim, double factor) {
  const fa_attention_problem *p = &c->problem;
  palette colours;
  mix(&c->random, &colours, p->dtype, factor, 0);
  for (int64_t b = 0; b < p->batch; b++) {
    for (int64_t n = 0; n < p->seqlen_new; n++) {
      for (int64_t h = 0; h < p->heads_kv; h++) {
        const int64_t at = b * t->stride_batch + n * t->stride_seq + h * t->stride_head;
        paint(&c->random, &colours, (unsigned char *)t->data + at * (int64_t)colours.bytes, dim);
      }
    }
  }
}

static void fill_rotary(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  const int64_t half = p->rotary_dim / 2;
  const double base = fa_random_chance(&c->random, 50) ? 10000.0 : 500.0;
  float *cosine = (float *)(void *)c->slots[FA_ARRAY_COS].data,
        *sine = (float *)(void *)c->slots[FA_ARRAY_SIN].data;
  int64_t longest = 0;
  for (int64_t b = 0; b < p->batch; b++) longest = fa_max(longest, fa_ref_seqlen_kv(p, &c->args, b));
  for (int64_t position = 0; position < longest; position++) {
    for (int64_t n = 0; n < half; n++) {
      const double angle = (double)position * pow(base, -(double)n / (double)half);
      cosine[position * half + n] = (float)cos(angle);
      sine[position * half + n] = (float)sin(angle);
    }
  }
}

/* Calls for every score (b, head, i, j) of a bias or mask. */
static void fill_scores(fa_case *c, const fa_tensor *t,
                        void (*set)(fa_case *c, const fa_tensor *t, int64_t index, int64_t j)) {
  const fa_attention_problem *p = &c->problem;
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t queries = fa_ref_seqlen_q(p, &c->args, b), keys = fa_ref_seqlen_kv(p, &c->args, b);
    for (int64_t h = 0; h < (t->stride_head ? p->heads_q : 1); h++) {
      for (int64_t i = 0; i < (t->stride_seq ? queries : fa_min(queries, 1)); i++) {
        const int64_t row = b * t->stride_batch + h * t->stride_head + i * t->stride_seq;
        for (int64_t j = 0; j < keys; j++) set(c, t, row + j, j);
      }
    }
  }
}

static int bias_infinities; /* percent */
static void set_bias(fa_case *c, const fa_tensor *t, int64_t index, int64_t j) {
  (void)j;
  const double value =
      fa_random_chance(&c->random, bias_infinities) ? -(double)INFINITY : 2.0 * fa_random_normal(&c->random);
  fa_ref_store(t->data, index, value, c->problem.bias_dtype);
}

static int mask_zeros; /* percent; above 100: keys from (mask_zeros - 100) percent of the longest on */
static void set_mask(fa_case *c, const fa_tensor *t, int64_t index, int64_t j) {
  const int masked = mask_zeros > 100 ? j * 100 >= (mask_zeros - 100) * c->problem.max_seqlen_kv
                                      : fa_random_chance(&c->random, mask_zeros);
  ((uint8_t *)t->data)[index] = masked ? 0 : (uint8_t)fa_random_range(&c->random, 1, 255);
}

static void fill_rules(fa_case *c) {
  static const int zeros[] = {0, 20, 50, 95, 100, 110, 150, 190};
  const fa_attention_problem *p = &c->problem;
  fa_random *r = &c->random;
  if (p->has_alibi) {
    float *slopes = (float *)(void *)c->slots[FA_ARRAY_SLOPES].data;
    const double steep = fa_random_chance(r, 50) ? 1.0 : 0.01;
    for (int64_t b = 0; b < (c->args.alibi_stride_batch ? p->batch : 1); b++) {
      for (int64_t h = 0; h < p->heads_q; h++)
        slopes[b * c->args.alibi_stride_batch + h] = (float)(steep * (fa_random_unit(r) - 0.05));
    }
  }
  if (p->has_sinks) {
    float *sinks = (float *)(void *)c->slots[FA_ARRAY_SINKS].data;
    for (int64_t h = 0; h < p->heads_q; h++)
      sinks[h] = (float)((fa_random_chance(r, 10) ? 40.0 : 3.0) * fa_random_normal(r));
  }
  bias_infinities = fa_random_chance(r, 30) ? 30 : 0;
  if (p->has_bias) fill_scores(c, &c->args.bias, set_bias);
  mask_zeros = FA_RANDOM_PICK(r, zeros);
  if (p->has_mask) fill_scores(c, &c->args.mask, set_mask);
}

static int nobody_keeps(const fa_case *c, int64_t b, int64_t kv_head, int64_t j) {
  const fa_attention_problem *p = &c->problem;
  const int64_t group = p->heads_q / p->heads_kv;
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
    for (int64_t i = fa_ref_seqlen_q(p, &c->args, b) - 1; i >= 0; i--) {
      if (fa_ref_keeps(p, &c->args, b, h, i, j)) return 0;
    }
  }
  return 1;
}

/* A NaN in a key or value that every mask leaves out must not be seen in any result. */
static void poison_masked_keys(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  const int64_t size = (int64_t)fa_dtype_bytes(p->kv_dtype);
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t tokens = fa_ref_seqlen_kv(p, &c->args, b) - p->seqlen_new;
    for (int64_t h = 0; h < p->heads_kv; h++) {
      for (int64_t j = 0; j < tokens; j++) {
        if (!nobody_keeps(c, b, h, j)) continue;
        memset((unsigned char *)c->args.k.data + fa_ref_token_index(p, &c->args, &c->args.k, b, h, j) * size,
               FA_POISON, (size_t)(p->head_dim_qk * size));
        memset((unsigned char *)c->args.v.data + fa_ref_token_index(p, &c->args, &c->args.v, b, h, j) * size,
               FA_POISON, (size_t)(p->head_dim_v * size));
      }
    }
  }
}

static int copy_cache(fa_case *c, unsigned char *copies[FA_CACHE_ARRAYS]) {
  for (int n = 0; n < FA_CACHE_ARRAYS; n++) {
    const fa_slot *slot = &c->slots[fa_cache_arrays[n]];
    if (!slot->data) continue;
    copies[n] = malloc(slot->bytes + 1);
    if (!copies[n]) return 0;
    memcpy(copies[n], slot->data, slot->bytes);
  }
  return 1;
}

void fa_case_restore_cache(fa_case *c, int poisoned) {
  for (int n = 0; n < FA_CACHE_ARRAYS; n++) {
    const fa_slot *slot = &c->slots[fa_cache_arrays[n]];
    if (slot->data) memcpy(slot->data, c->before[poisoned][n], slot->bytes);
  }
}

static int is_shared(const fa_tensor *t) {
  return t->stride_batch == 0 || t->stride_seq == 0 || t->stride_head == 0;
}

fa_status fa_case_fill(fa_case *c) {
  const fa_attention_problem *p = &c->problem;
  const factors f = factors_of(c);
  const int rising = c->values == FA_VALUES_RISING, equal = c->values == FA_VALUES_EQUAL;
  fill_queries(c, &c->args.q, f.q);
  if (c->args.k.data) fill_tokens(c, &c->args.k, p->head_dim_qk, f.k, rising, equal);
  if (c->args.v.data) fill_tokens(c, &c->args.v, p->head_dim_v, f.v, 0, 0);
  if (c->values == FA_VALUES_NONFINITE && p->kv_dtype != FA_INT8) plant_nonfinite(c);
  if (c->args.k_scale.data) fill_scales(c, &c->args.k_scale, f.k);
  if (c->args.v_scale.data) fill_scales(c, &c->args.v_scale, f.v);
  if (p->seqlen_new) {
    fill_new_tokens(c, &c->args.k_new, p->head_dim_qk, f.k);
    fill_new_tokens(c, &c->args.v_new, p->head_dim_v, f.v);
  }
  if (p->rotary_dim) fill_rotary(c);
  fill_rules(c);

  c->shared_tokens |= is_shared(&c->args.k) || is_shared(&c->args.v);
  if (c->shared_tokens || p->kv_dtype == FA_INT8 || !c->args.k.data || !c->args.v.data) c->poison_masked = 0;
  for (int poisoned = 0; poisoned <= c->poison_masked; poisoned++) {
    if (poisoned) poison_masked_keys(c);
    if (!copy_cache(c, c->before[poisoned])) return FA_ERROR_MEMORY;
    if (!p->seqlen_new) continue;
    if (fa_ref_append(p, &c->args) != FA_OK || !copy_cache(c, c->after[poisoned])) return FA_ERROR_MEMORY;
    fa_case_restore_cache(c, poisoned);
  }
  if (p->seqlen_new) return fa_ref_append(p, &c->args); /* what the oracle reads */
  return FA_OK;
}
