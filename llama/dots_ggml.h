/* Dot products of rows of quantised weights with rows of activations rounded to 8 bits, by ggml. */
#ifndef FA_LLAMA_DOTS_GGML_H
#define FA_LLAMA_DOTS_GGML_H

#include <stddef.h>
#include <stdint.h>

typedef struct fa_dots {
  int32_t other_type; /* what the other operand has to be: Q8_0, Q8_1 or Q8_K; its blocks are as in dequantize.h */
  /* *sum = weights . other over n elements; sizes and rows are ggml's for several rows at once: 0, 0, 0 and 1. */
  void (*dot)(int n, float *sum, size_t sum_stride, const void *weights, size_t weights_stride, const void *other,
              size_t other_stride, int rows);
  void (*other_from_floats)(const float *floats, void *other, int64_t n);
  void (*from_floats)(const float *floats, void *weights, int64_t n); /* NULL: none for this type */
} fa_dots;

/* For weights of a type on this processor; NULL where there is none. isa: "avx512_vnni", ... or NULL. */
const fa_dots *fa_dots_of(int32_t type);
const char *fa_dots_isa(void);

#endif
