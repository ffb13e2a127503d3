/* A case: one random problem with its arrays, its oracle, and what a run of it must look like afterwards. */
#ifndef FA_CHECK_CASE_H
#define FA_CHECK_CASE_H

#include "check/check_memory.h"
#include "check/check_random.h"
#include "core/kernel.h"
#include "fastattention/fastattention.h"
#include "ref/ref.h"

typedef enum fa_array {
  FA_ARRAY_Q,
  FA_ARRAY_K,
  FA_ARRAY_V,
  FA_ARRAY_O,
  FA_ARRAY_LSE,
  FA_ARRAY_SLOPES,
  FA_ARRAY_SINKS,
  FA_ARRAY_BIAS,
  FA_ARRAY_MASK,
  FA_ARRAY_CU_Q,
  FA_ARRAY_CU_KV,
  FA_ARRAY_SEQLENS,
  FA_ARRAY_PAGES,
  FA_ARRAY_K_NEW,
  FA_ARRAY_V_NEW,
  FA_ARRAY_COS,
  FA_ARRAY_SIN,
  FA_ARRAY_K_SCALE,
  FA_ARRAY_V_SCALE,
  FA_ARRAY_WORKSPACE,
  FA_ARRAYS
} fa_array;
extern const char *const fa_array_names[FA_ARRAYS];

/* Appending writes these four, so every run starts from a copy. */
enum { FA_CACHE_ARRAYS = 4 };
extern const fa_array fa_cache_arrays[FA_CACHE_ARRAYS];

typedef enum fa_values {
  FA_VALUES_NORMAL,
  FA_VALUES_HUGE,     /* logits in the hundreds */
  FA_VALUES_NEAR_MAX, /* v near the largest number of fp16, logits far beyond it */
  FA_VALUES_RISING,   /* later keys have larger logits, so that every block raises the maximum */
  FA_VALUES_EQUAL,    /* all keys the same */
  FA_VALUES_TINY,     /* v among fp16's subnormals, or 1e-33 */
  FA_VALUES_ZERO,
  FA_VALUES_NONFINITE, /* a few infinities and NaN among v or k */
  FA_VALUES_COUNT
} fa_values;
extern const char *const fa_values_names[FA_VALUES_COUNT];

typedef struct fa_tolerance {
  double o;   /* on |o - oracle| */
  double lse; /* on |lse - oracle|, of which lse_relative * |lse| comes on top */
  double lse_relative;
} fa_tolerance;

typedef struct fa_case {
  uint64_t seed;
  fa_random random;
  fa_values values;
  int poison_masked; /* keys that no query keeps are NaN */
  int shared_tokens; /* some tokens of the cache are the same memory */
  fa_attention_problem problem;
  fa_attention_args args;
  fa_slot slots[FA_ARRAYS];
  unsigned char
      *before[2][FA_CACHE_ARRAYS]; /* the cache before a run: [0] no masked key poisoned, [1] poisoned */
  unsigned char *after[2][FA_CACHE_ARRAYS]; /* ... and as the oracle's appending leaves it */

  int64_t rows;     /* packed rows of o */
  double *o;        /* [rows, heads_q, head_dim_v]; NaN in rows of no sequence */
  double *lse;      /* [rows, heads_q] */
  int oracle_stale; /* o and lse are for a cache that differs from after[] by rounding */
  fa_tolerance tolerance;
  double max_abs_v;
  fa_ref_unfused unfused; /* of the baseline being run; zeros for kernels */
} fa_case;

/* Draws a problem that `target` should be able to do (mostly), of the seed alone. */
void fa_case_draw_problem(fa_case *c, const fa_kernel *target);

/* Draws layouts and lengths, places and fills the arrays of c->problem. Errors: MEMORY. */
fa_status fa_case_draw_arrays(fa_case *c);
/* ... called by it: */
fa_status fa_case_draw_lengths(fa_case *c);
fa_status fa_case_fill(fa_case *c);

/* Puts the cache where a run starts. */
void fa_case_restore_cache(fa_case *c, int poisoned);

/* c->o, c->lse and c->tolerance from the cache as it is in the slots. Errors: MEMORY. */
fa_status fa_case_oracle(fa_case *c);

/* Frees what the above allocated; the slots stay for the next case. */
void fa_case_clear(fa_case *c);

/* One line that says everything about the problem. Returns text. */
char *fa_case_describe(const fa_case *c, char *text, size_t size);

/* ------------------------------------------------------- what a run must look like (check_compare.c) */

/* Largest |v| of the keys within their sequences. */
double fa_case_max_abs_v(const fa_attention_problem *problem, const fa_attention_args *args);

/* The rule of the house. exact, same: `count` values of o, the lse of `rows` rows; score_size: see ref.h. */
fa_tolerance fa_tolerance_of(fa_dtype dtype, double max_abs_v, double score_size, const double *o_exact,
                             const double *o_same, int64_t count, const double *lse_exact,
                             const double *lse_same, int64_t rows);

/* The same for a baseline, which keeps its scores and weights in the input type. */
fa_tolerance fa_tolerance_unfused(fa_tolerance fused, const fa_ref_unfused *loss, double max_abs_v);

/* 1 if got is right for exact: NaN where it is NaN, the same infinity, or near enough. */
int fa_value_matches(double got, double exact, double tolerance);

typedef struct fa_verdict {
  int passed;
  double max_error; /* of o, as a part of the tolerance */
  char text[6000];  /* lines, if it did not pass */
} fa_verdict;

/* Compares o and lse with the oracle and everything around them with what it was; makes them poison again. */
void fa_case_verify(fa_case *c, const uint64_t hashes[FA_ARRAYS], fa_verdict *verdict);

/* Compares the cache after an appending run with the oracle's; where roundings differ within reason, the
 * oracle is asked again with the cache as it is. Errors: MEMORY. */
fa_status fa_case_verify_cache(fa_case *c, int poisoned, fa_verdict *verdict);

/* Adds a line to a verdict and makes it a failure. */
void fa_verdict_fail(fa_verdict *verdict, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
