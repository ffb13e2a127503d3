/* The CPU's operators that go row by row: all of a layer that is neither attention nor a matrix product. Rows
 * are shared among `threads` threads where there are enough of them. Arguments as in operators.h, "wide"
 * being fp32. */
#ifndef FA_LLAMA_ROW_OPERATORS_H
#define FA_LLAMA_ROW_OPERATORS_H

#include "operators.h"

enum { FA_LONGEST_HEAD = 1024 };

/* Types of 16 bits and fp32, rounded to nearest even. */
void fa_row_to_floats(fa_dtype dtype, const void *source, int64_t count, float *floats);
void fa_row_from_floats(const float *floats, int64_t count, fa_dtype dtype, void *destination);

void fa_rows_norm(int threads, int64_t rows, int64_t width, const float *x, const float *weight,
                  float epsilon, fa_dtype dtype, void *y);
void fa_rows_norm_add(int threads, int64_t rows, int64_t width, const float *t, const float *weight,
                      float epsilon, float *x);

/* y[row, i] = act(gate[row, i]) * up[row, i]; up NULL: the activation alone. stride: of rows of gate and of
 * up. */
void fa_rows_activate(int threads, int64_t rows, int64_t width, fa_activation activation, const float *gate,
                      const float *up, int64_t stride, fa_dtype dtype, void *y);
/* The same of one row, by the calling thread. */
void fa_row_activate(int64_t width, fa_activation activation, const float *gate, const float *up,
                     fa_dtype dtype, void *y);

/* Heads are at most FA_LONGEST_HEAD long. */
void fa_rows_place_heads(int threads, const fa_head_placement *placement, fa_dtype dtype);

#endif
