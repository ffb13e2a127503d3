/* A step recorded once and launched many times, as a CUDA graph. */
#include <stdlib.h>

#include "cuda/cuda_engine.h"
#include "llama_error.h"

struct fa_graph {
  CUgraphExec exec;
};

/* Of this thread alone: another may allocate or load while this one records. */
fa_status fa_cuda_graph_begin(fa_engine *base) {
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  const fa_status status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) return status;
  const CUresult result =
      fa_cuda_driver_open()->capture_begin((CUstream)base->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  fa_llama_cuda_leave();
  if (result != CUDA_SUCCESS) return fa_llama_cuda_failed(engine, "recording a step could not begin", result);
  engine->is_capturing = 1;
  return FA_OK;
}

fa_status fa_cuda_graph_end(fa_engine *base, fa_graph **graph) {
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  const fa_cuda_driver *d = fa_cuda_driver_open();
  *graph = NULL;
  fa_graph *made = calloc(1, sizeof *made);
  const fa_status status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) {
    free(made);
    return status;
  }
  CUgraph recorded = NULL;
  CUresult result = d->capture_end((CUstream)base->stream, &recorded);
  engine->is_capturing = 0;
  if (result == CUDA_SUCCESS && made) result = d->graph_instantiate(&made->exec, recorded, 0);
  if (recorded) (void)d->graph_destroy(recorded);
  fa_llama_cuda_leave();
  if (result == CUDA_SUCCESS && made) {
    *graph = made;
    return FA_OK;
  }
  const int is_out_of_memory = !made;
  free(made);
  if (is_out_of_memory) return fa_llama_out_of_memory("a recorded step");
  return fa_llama_cuda_failed(engine, "a step could not be recorded", result);
}

fa_status fa_cuda_graph_launch(fa_engine *base, fa_graph *graph) {
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  const fa_status status = fa_llama_cuda_enter(engine);
  if (status != FA_OK) return status;
  const CUresult result = fa_cuda_driver_open()->graph_launch(graph->exec, (CUstream)base->stream);
  fa_llama_cuda_leave();
  return result == CUDA_SUCCESS ? FA_OK : fa_llama_cuda_failed(engine, "a recorded step could not be started", result);
}

void fa_cuda_graph_free(fa_engine *base, fa_graph *graph) {
  if (!graph) return;
  fa_cuda_engine *engine = fa_cuda_engine_of(base);
  if (fa_llama_cuda_enter(engine) == FA_OK) {
    (void)fa_cuda_driver_open()->graph_exec_destroy(graph->exec);
    fa_llama_cuda_leave();
  }
  free(graph);
}
