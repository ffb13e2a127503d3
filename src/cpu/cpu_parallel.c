/* The one parallel loop of the CPU backend: OpenMP threads that take items from a shared counter. */
#include <omp.h>

#include "cpu/cpu.h"

void fa_cpu_parallel(int threads, int64_t items, fa_cpu_body body, void *shared) {
  if (items <= 0) return;
  fa_cpu_work work = {items, 0};
  if (threads > items) threads = (int)items;
  if (threads <= 1) {
    body(shared, &work, 0);
    return;
  }
#pragma omp parallel num_threads(threads)
  body(shared, &work, omp_get_thread_num());
}
