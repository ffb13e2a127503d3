/* What instructions compute, on plain memory: no queues, no time, no checks (instructions.h and core.c did those). */
#ifndef DV_VALUES_H
#define DV_VALUES_H

#include <stddef.h>

#include "davinci/instructions.h"

/* Conversions round to nearest even and keep NaN, infinities and subnormals. */
float dv_f32_of_f16(uint16_t h);
uint16_t dv_f16_of_f32(float f);
float dv_f32_of_bf16(uint16_t b);
uint16_t dv_bf16_of_f32(float f);

/* `to` and `from` point at the first byte of each operand. GM addresses are pointers already. */
void dv_value_copy(const dv_copy *copy, void *to, const void *from, int adds);
void dv_value_nd2nz(const dv_nd2nz *move, void *to, const void *from);
void dv_value_load2d(const dv_load2d *load, void *to, const void *from);
void dv_value_load_transposed(const dv_load_transposed *load, void *to, const void *from);
void dv_value_fill(const dv_fill *fill, void *to);
void dv_value_mmad(const dv_mmad *mmad, void *c, const void *a, const void *b);
void dv_value_fixpipe(const dv_fixpipe *fixpipe, void *to, const void *from, int adds);
void dv_value_vector(const dv_vector *vector, void *dst, const void *src0, const void *src1, const void *selector);
void dv_value_total_sum(const dv_vector *vector, void *dst, const void *src);

#endif
