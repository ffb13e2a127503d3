/* The performance model of V100 and T4: its counts fit its tiles, and its times follow from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "bench/model/gpu_model.h"

/* cmocka's own comparison is in float. */
static void assert_near(double value, double expected, double error) {
  assert_true(fabs(value - expected) <= error);
}

static void test_counts_fit_the_tiles(void **state) {
  (void)state;
  assert_true(fa_model_kernel_count >= 12);
  for (size_t i = 0; i < fa_model_kernel_count; i++) {
    const fa_model_kernel *const k = &fa_model_kernels[i];
    const double multiply_adds = 2.0 * k->rows * k->keys * k->head_dim / k->warps;
    /* 128 multiply-adds a clock and sub-core: neither architecture pads or wastes tensor work in these
     * kernels */
    assert_near(k->tensor_cycles, multiply_adds / 128.0, 0.5);
    assert_int_equal(k->warps * k->blocks % 4, 0);
    assert_true(k->instructions >= k->fma + k->alu + k->half + k->xu + k->shuffles + k->loads);
    assert_true(k->lds_words > 0 && k->xu > 0);
  }
}

static void test_no_unit_is_faster_than_possible(void **state) {
  (void)state;
  for (size_t i = 0; i < fa_model_kernel_count; i++) {
    const fa_model_kernel *const k = &fa_model_kernels[i];
    const fa_model_gpu *const gpu = fa_model_find_gpu(k->gpu);
    assert_non_null(gpu);
    fa_model_result r;
    fa_model_predict(gpu, k, &r);
    assert_true(r.step >= r.cycles[r.binding] && r.step >= k->scheduled);
    for (int unit = 0; unit < FA_MODEL_UNITS; unit++) assert_true(r.cycles[unit] <= r.cycles[r.binding]);
    assert_true(r.share > 0.0 && r.share <= r.bound_share && r.bound_share <= 1.0001);
    assert_near(r.tflops, r.share * r.peak_tflops, 1e-6);
  }
}

static void test_peaks_are_the_vendors(void **state) {
  (void)state;
  fa_model_result r;
  const fa_model_gpu *gpu = fa_model_find_gpu("Tesla V100-SXM2-16GB, 80 multiprocessors");
  fa_model_predict(gpu, fa_model_find_kernel(gpu->kernel, gpu->name, 128), &r);
  assert_near(r.peak_tflops, 125.0, 1.0);
  gpu = fa_model_find_gpu("Tesla T4, 40 multiprocessors");
  fa_model_predict(gpu, fa_model_find_kernel(gpu->kernel, gpu->name, 128), &r);
  assert_near(r.peak_tflops, 65.0, 1.0);
}

static void test_finding(void **state) {
  (void)state;
  assert_null(fa_model_find_gpu("NVIDIA H100 80GB HBM3"));
  assert_null(fa_model_find_gpu("Quadro T400"));
  assert_string_equal(fa_model_find_gpu("Tesla T4")->name, "T4");
  assert_int_equal(fa_model_find_kernel("prefill_sm70", "V100", 72)->head_dim, 96);
  assert_int_equal(fa_model_find_kernel("prefill_sm70", "V100", 256)->head_dim, 256);
  assert_null(fa_model_find_kernel("prefill_sm70", "V100", 257));
  assert_null(fa_model_find_kernel("prefill_sm80", "V100", 64));
}

static void test_times(void **state) {
  (void)state;
  const fa_model_gpu *const gpu = fa_model_find_gpu("V100");
  const fa_model_kernel *const k = fa_model_find_kernel(gpu->kernel, gpu->name, 128);
  fa_model_result r;
  fa_model_predict(gpu, k, &r);
  fa_model_problem p = {1, 160, 160, 8192, 8192, 128, 0};
  const double ms = fa_model_prefill_ms(gpu, k, &p);
  const double operations = 4.0 * 160.0 * 8192.0 * 8192.0 * 128.0;
  assert_near(operations / ms * 1e-9, r.tflops, 0.01 * r.tflops);
  p.causal = 1; /* half of the scores, and what the diagonal's tiles compute in vain */
  const double causal = fa_model_prefill_ms(gpu, k, &p);
  assert_true(causal > 0.5 * ms && causal < 0.55 * ms);
  p.heads_q = p.heads_kv = 1; /* fewer blocks than multiprocessors: the longest one decides */
  p.causal = 0;
  assert_near(fa_model_prefill_ms(gpu, k, &p), 128.0 * r.step / gpu->clock * 1e3, 1e-9);
  p.causal = 1;
  p.seqlen_kv = 1;
  assert_true(fa_model_prefill_ms(gpu, k, &p) > 0.0);
  p = (fa_model_problem){1, 32, 8, 1, 32768, 128, 0};
  assert_near(fa_model_decode_ms(gpu, &p), 4.0 * 8.0 * 32768.0 * 128.0 / 900e9 * 1e3, 1e-9);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_counts_fit_the_tiles),
      cmocka_unit_test(test_no_unit_is_faster_than_possible),
      cmocka_unit_test(test_peaks_are_the_vendors),
      cmocka_unit_test(test_finding),
      cmocka_unit_test(test_times),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
