/* Vector instructions on plain memory (values.h), a repeat at a time: its lanes are gathered, computed and put
 * back, so that a repeat reads all it reads before it writes.
 *
 * f16 and bf16 are computed in fp32 and rounded once. Chosen where the documentation is silent: Max and Min give
 * NaN where either operand is NaN; MulAddDst and Axpy round the product and then the sum; integers wrap;
 * comparisons with NaN are false but for NE; Exp is within an ulp, Ln, Sqrt, Rec and Rsqrt are as exact as fp32
 * allows, subnormals are kept. */
#include "davinci/value_parts.h"

#include <math.h>

enum { LANES = 64, MOST_BYTES = 256 }; /* of a loop; of a repeat */

/* ------------------------------------------------------------------ lanes */

static uint32_t bits_set_from_first(uint64_t bits) { return ~bits ? (uint32_t)__builtin_ctzll(~bits) : 64; }

static dv_lanes first_lanes(uint32_t lanes, uint32_t used) {
  dv_lanes chosen = {.lanes = lanes, .used = used < lanes ? used : lanes, .is_first = 1};
  for (uint32_t n = 0; n < chosen.used; n += 64)
    chosen.bits[n / 64] = chosen.used - n < 64 ? ((uint64_t)1 << (chosen.used - n)) - 1 : ~(uint64_t)0;
  return chosen;
}

static dv_lanes masked_lanes(uint32_t lanes, const uint64_t mask[2]) {
  const uint32_t low = bits_set_from_first(mask[0]), first = low < 64 ? low : 64 + bits_set_from_first(mask[1]);
  dv_lanes chosen = first_lanes(lanes, first);
  const uint64_t keeps_low = lanes < 64 ? ((uint64_t)1 << lanes) - 1 : ~(uint64_t)0;
  const uint64_t bits[2] = {mask[0] & keeps_low, lanes > 64 ? mask[1] : 0};
  if (chosen.bits[0] == bits[0] && chosen.bits[1] == bits[1]) return chosen;
  chosen.is_first = 0;
  chosen.bits[0] = bits[0], chosen.bits[1] = bits[1];
  chosen.used = 0;
  for (uint32_t n = 0; n < 2; ++n)
    if (bits[n]) chosen.used = (n + 1) * 64 - (uint32_t)__builtin_clzll(bits[n]);
  return chosen;
}

/* `element` bytes each at a repeat's blocks, `block` blocks apart. */
static void gather(void *to, const unsigned char *from, uint32_t element, uint32_t block, const dv_lanes *lanes) {
  unsigned char *out = to;
  if (lanes->is_first && block == 1 && lanes->used * element == 256) {
    memcpy(out, from, 256);
  } else if (lanes->is_first) {
    const size_t bytes = lanes->used * element;
    memset(out, 0, lanes->lanes * element);
    if (block == 1) memcpy(out, from, bytes);
    else
      for (size_t n = 0; n < bytes; n += DV_BLOCK)
        memcpy(out + n, from + n * block, bytes - n < DV_BLOCK ? bytes - n : DV_BLOCK);
  } else {
    memset(out, 0, lanes->lanes * element);
    for (uint32_t n = 0; n < lanes->used; ++n) {
      const size_t at = (size_t)n * element;
      if (dv_takes_part(lanes, n)) memcpy(out + at, from + at / DV_BLOCK * block * DV_BLOCK + at % DV_BLOCK, element);
    }
  }
}

static void scatter(unsigned char *to, const void *from, uint32_t element, uint32_t block, const dv_lanes *lanes) {
  const unsigned char *in = from;
  const size_t bytes = lanes->used * element;
  if (lanes->is_first && block == 1) {
    if (bytes == 256) memcpy(to, in, 256);
    else memcpy(to, in, bytes);
  } else if (lanes->is_first) {
    for (size_t n = 0; n < bytes; n += DV_BLOCK)
      memcpy(to + n * block, in + n, bytes - n < DV_BLOCK ? bytes - n : DV_BLOCK);
  } else {
    for (uint32_t n = 0; n < lanes->used; ++n) {
      const size_t at = (size_t)n * element;
      if (dv_takes_part(lanes, n)) memcpy(to + at / DV_BLOCK * block * DV_BLOCK + at % DV_BLOCK, in + at, element);
    }
  }
}

/* ------------------------------------------------------------------ arithmetic */

/* e^x = 2^n e^r with |r| <= ln 2 / 2; 2^n in two factors, so that subnormals are reached and rounded once. */
static inline float exp_of(float x) {
  const float below = x > 89.0f ? 89.0f : x, bounded = below < -104.0f ? -104.0f : below;
  const float shifted = bounded * 0x1.715476p+0f + 0x1.8p23f, n = shifted - 0x1.8p23f;
  const float r = (bounded - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  float p = 1.9875691500e-4f; /* (e^r - 1 - r) / r^2 */
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float power = p * (r * r) + r + 1.0f;
  const int32_t whole = (int32_t)(dv_bits_of(shifted) & 0xffffu) - ((dv_bits_of(shifted) & 0x8000u) ? 0x10000 : 0);
  const int32_t half = whole >> 1;
  return power * dv_float_of((uint32_t)(half + 127) << 23) * dv_float_of((uint32_t)(whole - half + 127) << 23);
}

#define EACH(expression) \
  for (int n = 0; n < LANES; ++n) out[n] = (expression); \
  break

/* LANES of them; out holds what dst had where the operation adds to it. Operations with a scalar have it in every
 * b. */
__attribute__((always_inline)) static inline void compute_with(dv_operation op, float *restrict out,
                                                               const float *restrict a, const float *restrict b) {
  switch (op) {
    case DV_ADD: case DV_ADDS: EACH(a[n] + b[n]);
    case DV_SUB: EACH(a[n] - b[n]);
    case DV_MUL: case DV_MULS: EACH(a[n] * b[n]);
    case DV_DIV: EACH(a[n] / b[n]);
    case DV_MAX: case DV_MAXS: EACH(((a[n] >= b[n]) | (a[n] != a[n])) ? a[n] : b[n]);
    case DV_MIN: case DV_MINS: EACH(((a[n] <= b[n]) | (a[n] != a[n])) ? a[n] : b[n]);
    case DV_MULADDDST: case DV_AXPY: EACH(a[n] * b[n] + out[n]);
    case DV_LEAKY_RELU: EACH(a[n] >= 0.0f ? a[n] : a[n] * b[n]);
    case DV_EXP: EACH(exp_of(a[n]));
    case DV_LN: EACH(logf(a[n]));
    case DV_SQRT: EACH(sqrtf(a[n]));
    case DV_RSQRT: EACH((float)(1.0 / sqrt((double)a[n])));
    case DV_REC: EACH(1.0f / a[n]);
    case DV_ABS: EACH(fabsf(a[n]));
    case DV_RELU: EACH(a[n] <= 0.0f ? 0.0f : a[n]);
    default: EACH(a[n]);
  }
}

static void compute_c(dv_operation op, float *out, const float *a, const float *b) { compute_with(op, out, a, b); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void compute_avx2(dv_operation op, float *out, const float *a, const float *b) {
  compute_with(op, out, a, b);
}
static void compute(dv_operation op, float *out, const float *a, const float *b) {
  (__builtin_cpu_supports("avx2") ? compute_avx2 : compute_c)(op, out, a, b);
}
#else
static void compute(dv_operation op, float *out, const float *a, const float *b) { compute_c(op, out, a, b); }
#endif

static int64_t compute_integer(dv_operation op, int64_t out, int64_t a, int64_t b) {
  const uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
  switch (op) {
    case DV_ADD: case DV_ADDS: return (int64_t)(ua + ub);
    case DV_SUB: return (int64_t)(ua - ub);
    case DV_MUL: case DV_MULS: return (int64_t)(ua * ub);
    case DV_DIV: return b == 0 ? 0 : b == -1 ? (int64_t)(0 - ua) : a / b;
    case DV_MAX: case DV_MAXS: return a > b ? a : b;
    case DV_MIN: case DV_MINS: return a < b ? a : b;
    case DV_AND: return a & b;
    case DV_OR: return a | b;
    case DV_NOT: return ~a;
    case DV_MULADDDST: case DV_AXPY: return (int64_t)(ua * ub + (uint64_t)out);
    case DV_SHIFT_LEFT: return ub < 64 ? (int64_t)(ua << ub) : 0;
    case DV_SHIFT_RIGHT: return a >> (ub < 63 ? ub : 63);
    case DV_ABS: return a < 0 ? (int64_t)(0 - ua) : a;
    case DV_RELU: return a > 0 ? a : 0;
    default: return a;
  }
}

/* Bit n: a[n] cmp b[n]. */
static int compare_lane(dv_compare compare, double a, double b) {
  switch (compare) {
    case DV_LT: return a < b;
    case DV_GT: return a > b;
    case DV_EQ: return a == b;
    case DV_LE: return a <= b;
    case DV_GE: return a >= b;
    default: return a != b;
  }
}

/* ------------------------------------------------------------------ a repeat */

static int has_scalar(dv_operation op) {
  return (op >= DV_ADDS && op <= DV_AXPY) || op == DV_COMPARE_SCALAR || op == DV_SELECT_SCALAR;
}
static int has_two_sources(dv_operation op) {
  return op <= DV_MULADDDST || op == DV_COMPARE || op == DV_SELECT;
}
static int adds_to_dst(dv_operation op) { return op == DV_MULADDDST || op == DV_AXPY; }

/* The operands of a repeat: the bytes gathered, and where dst's are. */
typedef struct operands {
  unsigned char a[MOST_BYTES], b[MOST_BYTES];
  unsigned char *dst;
} operands;

static void arithmetic(const dv_vector *v, operands *with, const dv_lanes *lanes) {
  const uint32_t to_bytes = dv_type_bytes(v->to);
  float a[2 * LANES], b[2 * LANES], out[2 * LANES];
  unsigned char old[MOST_BYTES];
  const uint32_t steps = (lanes->lanes + LANES - 1) / LANES;
  dv_widen(v->type, a, with->a, steps * LANES);
  dv_widen(v->type, b, with->b, steps * LANES);
  if (adds_to_dst(v->op)) {
    gather(old, with->dst, to_bytes, v->dst_block, lanes);
    dv_widen(v->to, out, old, steps * LANES);
  }
  for (uint32_t n = 0; n < steps; ++n) compute(v->op, out + n * LANES, a + n * LANES, b + n * LANES);
  if (v->to == DV_F32) {
    scatter(with->dst, out, to_bytes, v->dst_block, lanes);
  } else {
    dv_narrow_as(v->to, old, out, steps * LANES, v->saturates);
    scatter(with->dst, old, to_bytes, v->dst_block, lanes);
  }
}

static void arithmetic_integer(const dv_vector *v, operands *with, const dv_lanes *lanes) {
  const uint32_t bytes = dv_type_bytes(v->type), to_bytes = dv_type_bytes(v->to);
  unsigned char out[MOST_BYTES] = {0};
  if (adds_to_dst(v->op)) gather(out, with->dst, to_bytes, v->dst_block, lanes);
  for (uint32_t n = 0; n < lanes->used; ++n) {
    const int64_t a = dv_load_integer(v->type, with->a + n * bytes), b = dv_load_integer(v->type, with->b + n * bytes);
    const int64_t old = dv_load_integer(v->to, out + n * to_bytes);
    dv_store_integer(v->to, out + n * to_bytes, compute_integer(v->op, old, a, b));
  }
  scatter(with->dst, out, to_bytes, v->dst_block, lanes);
}

/* Bits of a repeat behind those of the one before; the mask has no effect, as documented. */
static void compare(const dv_vector *v, unsigned char *dst, const operands *with, uint32_t repeat,
                    const dv_lanes *chosen) {
  const uint32_t bytes = dv_type_bytes(v->type), lanes = chosen->lanes;
  float a[2 * LANES], b[2 * LANES];
  dst += (size_t)repeat * lanes / 8;
  if (dv_is_float(v->type)) dv_widen(v->type, a, with->a, lanes), dv_widen(v->type, b, with->b, lanes);
  for (uint32_t n = 0; n < chosen->used; ++n) {
    const double x = dv_is_float(v->type) ? (double)a[n] : (double)dv_load_integer(v->type, with->a + n * bytes);
    const double y = dv_is_float(v->type) ? (double)b[n] : (double)dv_load_integer(v->type, with->b + n * bytes);
    const unsigned bit = 1u << n % 8;
    dst[n / 8] = (unsigned char)(compare_lane(v->compare, x, y) ? dst[n / 8] | bit : dst[n / 8] & ~bit);
  }
}

static void select_lanes(const dv_vector *v, operands *with, const unsigned char *selector, uint32_t repeat,
                         const dv_lanes *lanes) {
  const uint32_t bytes = dv_type_bytes(v->type);
  if (v->selector_repeats) selector += (size_t)repeat * lanes->lanes / 8;
  for (uint32_t n = 0; n < lanes->used; ++n)
    if (!((uint32_t)selector[n / 8] >> n % 8 & 1u)) memcpy(with->a + n * bytes, with->b + n * bytes, bytes);
  scatter(with->dst, with->a, bytes, v->dst_block, lanes);
}

static void store_scalar(dv_type type, void *to, float scalar, int64_t whole) {
  if (dv_is_float(type)) dv_narrow(type, to, &scalar, 1);
  else dv_store_integer(type, to, whole);
}

/* The element itself in scalar_bits for Duplicate, else the scalar as the type has it. */
static void spread_scalar(const dv_vector *v, unsigned char *to, uint32_t lanes) {
  const uint32_t bytes = dv_type_bytes(v->op == DV_DUPLICATE ? v->to : v->type);
  const int64_t whole = (int32_t)v->scalar_bits;
  for (uint32_t n = 0; n < lanes; ++n) {
    if (v->op == DV_DUPLICATE) dv_store_integer(v->to, to + n * bytes, whole);
    else store_scalar(v->type, to + n * bytes, v->scalar, whole);
  }
}

static void progression(const dv_vector *v, operands *with, uint32_t repeat, const dv_lanes *lanes) {
  const uint32_t bytes = dv_type_bytes(v->to);
  for (uint32_t n = 0; n < lanes->used; ++n) {
    const uint32_t at = repeat * lanes->lanes + n;
    const int64_t step = dv_is_float(v->to) ? 0 : (int64_t)v->scalar2;
    const int64_t whole = (int32_t)v->scalar_bits + (int64_t)at * step;
    store_scalar(v->to, with->a + n * bytes, v->scalar + (float)at * v->scalar2, whole);
  }
  scatter(with->dst, with->a, bytes, v->dst_block, lanes);
}

/* 8 elements behind each other, each to a block of its own. */
static void broadcast(const dv_vector *v, unsigned char *dst, const unsigned char *src) {
  const uint32_t bytes = dv_type_bytes(v->type);
  for (uint32_t repeat = 0; repeat < v->repeats; ++repeat)
    for (uint32_t n = 0; n < 8; ++n) {
      unsigned char *block = dst + ((size_t)repeat * v->dst_repeat + n * v->dst_block) * DV_BLOCK;
      for (uint32_t at = 0; at < DV_BLOCK; at += bytes) memcpy(block + at, src + (repeat * 8 + n) * bytes, bytes);
    }
}

static void run_repeat(const dv_vector *v, void *dst, operands *with, const void *selector, uint32_t repeat,
                       const dv_lanes *lanes) {
  const uint32_t bytes = dv_type_bytes(v->type);
  unsigned char out[MOST_BYTES];
  float values[DV_MOST_LANES];
  switch (v->op) {
    case DV_WHOLE_MAX: case DV_WHOLE_MIN: case DV_WHOLE_SUM:
    case DV_BLOCK_MAX: case DV_BLOCK_MIN: case DV_BLOCK_SUM: case DV_PAIR_SUM:
      dv_widen(v->type, values, with->a, lanes->lanes);
      dv_reduce(v, dst, repeat, lanes, values);
      break;
    case DV_COMPARE: case DV_COMPARE_SCALAR: compare(v, dst, with, repeat, lanes); break;
    case DV_SELECT: case DV_SELECT_SCALAR: select_lanes(v, with, selector, repeat, lanes); break;
    case DV_DUPLICATE: scatter(with->dst, with->b, dv_type_bytes(v->to), v->dst_block, lanes); break;
    case DV_PROGRESSION: progression(v, with, repeat, lanes); break;
    case DV_COPY: scatter(with->dst, with->a, bytes, v->dst_block, lanes); break;
    case DV_CAST:
      dv_cast(v->type, v->to, v->round, out, with->a, lanes->lanes, v->saturates);
      scatter(with->dst, out, dv_type_bytes(v->to), v->dst_block, lanes);
      break;
    default:
      if (dv_is_float(v->type) && v->op != DV_AND && v->op != DV_OR && v->op != DV_NOT) arithmetic(v, with, lanes);
      else arithmetic_integer(v, with, lanes);
  }
}

void dv_value_vector(const dv_vector *v, void *dst, const void *src0, const void *src1, const void *selector) {
  if (v->op == DV_BRCB) {
    broadcast(v, dst, src0);
    return;
  }
  const int is_written_only = v->op == DV_DUPLICATE || v->op == DV_PROGRESSION;
  const int is_compare = v->op == DV_COMPARE || v->op == DV_COMPARE_SCALAR;
  const uint32_t bytes = dv_type_bytes(is_written_only ? v->to : v->type);
  const int has_one_type = v->op >= DV_WHOLE_MAX || v->op == DV_COPY; /* `to` says nothing of these */
  const uint32_t to_bytes = has_one_type ? bytes : dv_type_bytes(v->to);
  const uint32_t lanes = 256 / (bytes > to_bytes ? bytes : to_bytes);
  const uint32_t repeats = v->counts ? (v->count + lanes - 1) / lanes : v->repeats;
  operands with = {.dst = dst};
  if (has_scalar(v->op) || v->op == DV_DUPLICATE) spread_scalar(v, with.b, lanes);
  dv_lanes chosen = v->counts ? first_lanes(lanes, v->count) : masked_lanes(lanes, v->mask);
  if (is_compare && !v->counts) chosen = first_lanes(lanes, lanes);
  for (uint32_t n = 0; n < repeats; ++n) {
    if (v->counts && n + 1 == repeats) chosen = first_lanes(lanes, v->count - n * lanes);
    with.dst = (unsigned char *)dst + (size_t)n * v->dst_repeat * DV_BLOCK;
    const unsigned char *const a = src0, *const b = src1;
    if (!is_written_only) gather(with.a, a + (size_t)n * v->src0_repeat * DV_BLOCK, bytes, v->src0_block, &chosen);
    if (has_two_sources(v->op))
      gather(with.b, b + (size_t)n * v->src1_repeat * DV_BLOCK, bytes, v->src1_block, &chosen);
    run_repeat(v, dst, &with, selector, n, &chosen);
  }
}
