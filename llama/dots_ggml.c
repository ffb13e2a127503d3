/* ggml's functions, built by scripts/fetch_ggml.sh for several instruction sets; that file says why ggml. The processor
 * decides which are called, so nothing of the others ever runs. */
#include "dots_ggml.h"

#include <stdbool.h>

#include "dequantize.h"

#if FA_WITH_GGML

enum { TYPES = FA_GGML_IQ4_NL + 1 };

typedef struct dots_table {
  const char *isa;
  fa_dots types[TYPES];
} dots_table;

#define DECLARE_DOT(isa, type, other)                                                                       \
  void ggml_##isa##_vec_dot_##type##_##other(int n, float *sum, size_t sum_stride, const void *weights,     \
                                             size_t weights_stride, const void *others, size_t other_stride, \
                                             int rows);
#define DECLARE_ROW(isa, type) void ggml_##isa##_quantize_row_##type(const float *floats, void *blocks, int64_t n);

#define ENTRY(isa, type, other, OTHER, from)                                                                 \
  {                                                                                                          \
    FA_GGML_##OTHER, ggml_##isa##_vec_dot_##type##_##other, ggml_##isa##_quantize_row_##other, from          \
  }
#define WITH_ROW(isa, type, other, OTHER) ENTRY(isa, type, other, OTHER, ggml_##isa##_quantize_row_##type)

#define DEFINE_TABLE(isa)                                           \
  DECLARE_DOT(isa, q4_0, q8_0)                                      \
  DECLARE_DOT(isa, q4_1, q8_1)                                      \
  DECLARE_DOT(isa, q5_0, q8_0)                                      \
  DECLARE_DOT(isa, q5_1, q8_1)                                      \
  DECLARE_DOT(isa, q8_0, q8_0)                                      \
  DECLARE_DOT(isa, q2_K, q8_K)                                      \
  DECLARE_DOT(isa, q3_K, q8_K)                                      \
  DECLARE_DOT(isa, q4_K, q8_K)                                      \
  DECLARE_DOT(isa, q5_K, q8_K)                                      \
  DECLARE_DOT(isa, q6_K, q8_K)                                      \
  DECLARE_DOT(isa, iq4_nl, q8_0)                                    \
  DECLARE_ROW(isa, q4_0)                                            \
  DECLARE_ROW(isa, q4_1)                                            \
  DECLARE_ROW(isa, q5_0)                                            \
  DECLARE_ROW(isa, q5_1)                                            \
  DECLARE_ROW(isa, q8_0)                                            \
  DECLARE_ROW(isa, q8_1)                                            \
  DECLARE_ROW(isa, q2_K)                                            \
  DECLARE_ROW(isa, q3_K)                                            \
  DECLARE_ROW(isa, q4_K)                                            \
  DECLARE_ROW(isa, q5_K)                                            \
  DECLARE_ROW(isa, q6_K)                                            \
  DECLARE_ROW(isa, q8_K)                                            \
  static const dots_table isa##_dots = {                            \
      #isa,                                                         \
      {[FA_GGML_Q4_0] = WITH_ROW(isa, q4_0, q8_0, Q8_0),            \
       [FA_GGML_Q4_1] = WITH_ROW(isa, q4_1, q8_1, Q8_1),            \
       [FA_GGML_Q5_0] = WITH_ROW(isa, q5_0, q8_0, Q8_0),            \
       [FA_GGML_Q5_1] = WITH_ROW(isa, q5_1, q8_1, Q8_1),            \
       [FA_GGML_Q8_0] = WITH_ROW(isa, q8_0, q8_0, Q8_0),            \
       [FA_GGML_Q2_K] = WITH_ROW(isa, q2_K, q8_K, Q8_K),            \
       [FA_GGML_Q3_K] = WITH_ROW(isa, q3_K, q8_K, Q8_K),            \
       [FA_GGML_Q4_K] = WITH_ROW(isa, q4_K, q8_K, Q8_K),            \
       [FA_GGML_Q5_K] = WITH_ROW(isa, q5_K, q8_K, Q8_K),            \
       [FA_GGML_Q6_K] = WITH_ROW(isa, q6_K, q8_K, Q8_K),            \
       [FA_GGML_IQ4_NL] = ENTRY(isa, iq4_nl, q8_0, Q8_0, NULL)}};

DEFINE_TABLE(avx2)
DEFINE_TABLE(avx_vnni)
DEFINE_TABLE(avx512_vnni)

static const dots_table *table_of_processor(void) {
  if (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni")) return &avx512_vnni_dots;
  if (!__builtin_cpu_supports("x86-64-v3")) return NULL;
  return __builtin_cpu_supports("avxvnni") ? &avx_vnni_dots : &avx2_dots;
}

const fa_dots *fa_dots_of(int32_t type) {
  const dots_table *table = table_of_processor();
  return table && type >= 0 && type < TYPES && table->types[type].dot ? &table->types[type] : NULL;
}

const char *fa_dots_isa(void) {
  const dots_table *table = table_of_processor();
  return table ? table->isa : NULL;
}

#else

const fa_dots *fa_dots_of(int32_t type) {
  (void)type;
  return NULL;
}

const char *fa_dots_isa(void) { return NULL; }

#endif
