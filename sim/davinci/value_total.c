/* DV_TOTAL_SUM on plain memory (values.h). Inside a repeat sums are taken pairwise, the repeats' sums are
 * added in their order, as documented for ReduceSum of the first n elements on this chip; in f16 each sum is
 * rounded. */
#include "davinci/value_parts.h"

void dv_value_total_sum(const dv_vector *v, void *dst, const void *src) {
  const uint32_t bytes = dv_type_bytes(v->type), lanes = 256 / bytes;
  dv_vector repeat = *v;
  unsigned char element[4];
  float total = 0.0f, sum;
  repeat.op = DV_WHOLE_SUM;
  for (uint32_t at = 0; at < v->count; at += lanes) {
    repeat.count = v->count - at < lanes ? v->count - at : lanes;
    dv_value_vector(&repeat, element, (const unsigned char *)src + (size_t)at * bytes, NULL, NULL);
    dv_widen(v->type, &sum, element, 1);
    total = at ? total + sum : sum;
    dv_narrow_as(v->type, element, &total, 1, v->saturates);
    dv_widen(v->type, &total, element, 1);
  }
  memcpy(dst, element, bytes);
}
