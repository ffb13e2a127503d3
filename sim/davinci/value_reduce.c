/* Reductions of the Vector unit over a repeat (values.h): WholeReduce, BlockReduce, PairReduce.
 *
 * Sums add neighbours, then neighbours of those, as documented; in f16 each sum is rounded. Of equal values the
 * first index is written, as documented. Elements that take no part count as nothing, and a NaN is both the maximum
 * and the minimum: these are not documented. */
#include "davinci/value_parts.h"

#include <math.h>

typedef enum reduction { SUM, MAX, MIN } reduction;

static reduction kind_of(dv_operation op) {
  switch (op) {
    case DV_WHOLE_MAX: case DV_BLOCK_MAX: return MAX;
    case DV_WHOLE_MIN: case DV_BLOCK_MIN: return MIN;
    default: return SUM;
  }
}

/* Each two neighbours to one. */
static void halve(reduction kind, const dv_vector *v, float *values, uint32_t count) {
  float out[DV_MOST_LANES / 2];
  const uint32_t half = count / 2;
  for (uint32_t n = 0; n < half; ++n) {
    const float a = values[2 * n], b = values[2 * n + 1];
    const float most = ((a >= b) | (a != a)) ? a : b, fewest = ((a <= b) | (a != a)) ? a : b;
    out[n] = kind == SUM ? a + b : kind == MAX ? most : fewest;
  }
  if (v->type != DV_F32 && kind == SUM) {
    unsigned char rounded[DV_MOST_LANES];
    dv_narrow_as(v->type, rounded, out, half, v->saturates);
    dv_widen(v->type, values, rounded, half);
  } else {
    memcpy(values, out, half * sizeof *out);
  }
}

static uint32_t index_of(const float *values, const dv_lanes *lanes, float found) {
  for (uint32_t n = 0; n < lanes->used; ++n)
    if (dv_takes_part(lanes, n) && (values[n] == found || (values[n] != values[n] && found != found))) return n;
  return 0;
}

/* What a WholeReduce writes; the stride counts results. An index beside a value is as wide as it, alone 4 bytes. */
static void write_whole(const dv_vector *v, unsigned char *dst, uint32_t repeat, float value, uint32_t index) {
  const uint32_t bytes = dv_type_bytes(v->type);
  unsigned char element[4];
  dv_narrow_as(v->type, element, &value, 1, v->saturates);
  if (kind_of(v->op) == SUM || v->order == DV_ONLY_VALUE) {
    memcpy(dst + (size_t)repeat * v->dst_repeat * bytes, element, bytes);
  } else if (v->order == DV_ONLY_INDEX) {
    memcpy(dst + (size_t)repeat * v->dst_repeat * sizeof index, &index, sizeof index);
  } else {
    dst += (size_t)repeat * v->dst_repeat * 2 * bytes;
    memcpy(dst + (v->order == DV_VALUE_INDEX ? 0 : bytes), element, bytes);
    dv_store_integer(bytes == 2 ? DV_U16 : DV_U32, dst + (v->order == DV_VALUE_INDEX ? bytes : 0), index);
  }
}

static int any_takes_part(const dv_lanes *lanes, uint32_t from, uint32_t count) {
  for (uint32_t n = from; n < from + count; ++n)
    if (dv_takes_part(lanes, n)) return 1;
  return 0;
}

void dv_reduce(const dv_vector *v, void *dst, uint32_t repeat, const dv_lanes *lanes, float *values) {
  const reduction kind = kind_of(v->op);
  const int is_whole = v->op == DV_WHOLE_MAX || v->op == DV_WHOLE_MIN || v->op == DV_WHOLE_SUM;
  const uint32_t count = lanes->lanes, bytes = dv_type_bytes(v->type);
  if (!lanes->used) return;
  if (!lanes->is_first || lanes->used < count)
    for (uint32_t n = 0; n < count; ++n)
      if (!dv_takes_part(lanes, n)) values[n] = kind == SUM ? 0.0f : kind == MAX ? -INFINITY : INFINITY;
  const uint32_t results = is_whole ? 1 : v->op == DV_PAIR_SUM ? count / 2 : 8, of = count / results;
  float left[DV_MOST_LANES];
  memcpy(left, values, count * sizeof *left);
  for (uint32_t n = count; n > results; n /= 2) halve(kind, v, left, n);
  if (is_whole) {
    const int needs_index = kind != SUM && v->order != DV_ONLY_VALUE;
    write_whole(v, dst, repeat, left[0], needs_index ? index_of(values, lanes, left[0]) : 0);
    return;
  }
  unsigned char *to = (unsigned char *)dst + (size_t)repeat * v->dst_repeat * results * bytes;
  if (lanes->is_first && lanes->used == count) {
    dv_narrow_as(v->type, to, left, results, v->saturates);
    return;
  }
  for (uint32_t n = 0; n < results; ++n) /* a block or pair of which nothing takes part is not written */
    if (any_takes_part(lanes, n * of, of)) dv_narrow_as(v->type, to + n * bytes, left + n, 1, v->saturates);
}
